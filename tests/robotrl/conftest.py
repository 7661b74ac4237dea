"""A Python as it is on a robot."""

import os
from collections.abc import Callable

import pytest

BLOCKER = """
import sys
from importlib.abc import MetaPathFinder


class Blocker(MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {packages}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)


sys.meta_path.insert(0, Blocker())
"""

PythonWithout = Callable[..., dict[str, str]]


@pytest.fixture(scope="session")
def python_without(tmp_path_factory: pytest.TempPathFactory) -> PythonWithout:
    """Environment variables for a Python in which packages are not installed."""

    def make(*packages: str) -> dict[str, str]:
        folder = tmp_path_factory.mktemp("site")
        (folder / "sitecustomize.py").write_text(BLOCKER.format(packages=packages))
        return {**os.environ, "PYTHONPATH": str(folder)}

    return make
