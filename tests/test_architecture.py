"""What may import what, and no setting that nobody reads."""

import ast
import importlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin

import pytest
from pydantic import Field
from pydantic.fields import FieldInfo

from deploy.configuration import Section

ROOT = Path(__file__).parents[1]
PACKAGES = ("deploy", "envs", "robotrl")

FORBIDDEN = {
    "deploy": {"torch", "gymnasium", "envs", "robotrl", "mujoco"},
    "deploy/twin": {"torch", "gymnasium", "envs", "robotrl"},
    "envs": {"robotrl"},
    "robotrl": set(),
}
"""Folder -> what its modules must not import; the twin is a MuJoCo robot."""

LOADER = """
import importlib, sys

class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {"torch", "mujoco", "gymnasium", "envs", "robotrl"}:
            raise ModuleNotFoundError(f"{name} is not installed on a robot", name=name)

sys.meta_path.insert(0, Blocker())
for name in sys.argv[1:]:
    importlib.import_module(name)
"""


def modules(folder: str) -> list[Path]:
    """Python files of a folder of `FORBIDDEN`, without those of a folder listed apart."""
    apart = [other for other in FORBIDDEN if other.startswith(f"{folder}/")]
    return [
        path
        for path in sorted((ROOT / folder).rglob("*.py"))
        if not any((ROOT / other) in path.parents for other in apart)
    ]


def dotted_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts).removesuffix(".__init__")


def imported_packages(path: Path) -> Iterator[str]:
    """Top-level names of all imports in a file, also those inside functions."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} has a relative import"
            yield (node.module or "").split(".")[0]


def test_robot_side_is_imported_where_nothing_for_training_is_installed():
    names = [dotted_name(path) for path in modules("deploy")]
    assert "deploy.controller" in names
    assert not any(name.startswith("deploy.twin") for name in names)

    done = subprocess.run(
        [sys.executable, "-c", LOADER, *names], capture_output=True, text=True, cwd=ROOT
    )

    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("folder", FORBIDDEN)
def test_imports_go_one_way(folder: str):
    found = {
        dotted_name(path): forbidden
        for path in modules(folder)
        if (forbidden := FORBIDDEN[folder] & set(imported_packages(path)))
    }

    assert found == {}


def sections(parent: type[Section] = Section) -> Iterator[type[Section]]:
    """All configuration sections of our packages."""
    for section in parent.__subclasses__():
        if section.__module__.split(".")[0] in PACKAGES:
            yield section
        yield from sections(section)


def test_every_setting_is_read_somewhere():
    pytest.importorskip("torch", reason="the settings of training need robotrl[train]")
    files = [path for package in PACKAGES for path in (ROOT / package).rglob("*.py")]
    for path in files:
        importlib.import_module(dotted_name(path))
    read = {
        node.attr
        for path in files
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Load)
    }

    unread = {
        f"{section.__module__}.{section.__name__}.{name}"
        for section in sections()
        if section.__module__ != "deploy.contract"  # also written for other programs
        for name, field in section.model_fields.items()
        if name not in read and not has_one_value(field.annotation)
    }

    assert len(list(sections())) > 10
    assert unread == set()


def has_one_value(annotation: object) -> bool:
    """Whether a field can hold only one value, such as the name of the only protocol."""
    return get_origin(annotation) is Literal and len(get_args(annotation)) == 1


def unbounded(annotation: Any, metadata: tuple[Any, ...] = ()) -> bool:
    """Whether a number of this type, or within it, may be as large or as small as it likes."""
    if get_origin(annotation) is Annotated:
        inner, *more = get_args(annotation)
        return unbounded(inner, (*metadata, *more))
    if annotation in (int, float):
        constraints = [
            part
            for item in metadata
            for part in (item.metadata if isinstance(item, FieldInfo) else [item])
        ]
        return not all(
            any(hasattr(part, name) for part in constraints for name in ends)
            for ends in (("ge", "gt"), ("le", "lt"))
        )
    return any(unbounded(part) for part in get_args(annotation))


def test_every_number_of_every_setting_has_both_ends_bounded():
    pytest.importorskip("torch", reason="the settings of training need robotrl[train]")
    for package in PACKAGES:
        for path in (ROOT / package).rglob("*.py"):
            importlib.import_module(dotted_name(path))

    without = {
        f"{section.__module__}.{section.__name__}.{name}"
        for section in sections()
        for name, field in section.model_fields.items()
        if unbounded(field.annotation, tuple(field.metadata))
    }

    assert without == set()
    assert unbounded(dict[str, list[float]])
    assert unbounded(tuple[Annotated[int, Field(ge=0)], str] | None)
    assert not unbounded(Annotated[Annotated[int, Field(ge=0)], Field(lt=5)])
