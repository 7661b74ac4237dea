"""A process that we start runs our code, also in a folder with other code of the same name."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from deploy.contract import Contract
from deploy.process import command_of
from deploy.recorder import Recorder

MODULES = ["deploy", "envs", "robotrl", "numpy", "json", "yaml", "mcap", "typer", "mujoco"]
ROBOT = Path(__file__).parents[2] / "configs/robots/desk_arm.yaml"


@pytest.fixture
def hostile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, in which every module that a child might import leaves a trace."""
    folder = tmp_path / "hostile"
    for name in MODULES:
        (folder / name).mkdir(parents=True)
        for file in ("__init__.py", "companion.py", "cli.py"):
            (folder / name / file).write_text(
                f"open({str(folder / 'ran')!r}, 'a').write('{name} ')\nraise SystemExit(3)\n"
            )
    monkeypatch.chdir(folder)
    return folder


def test_plain_module_run_would_import_what_lies_in_the_current_folder(hostile: Path):
    done = subprocess.run([sys.executable, "-m", "deploy.companion"], check=False)

    assert done.returncode == 3
    assert (hostile / "ran").exists()  # so the tests below can fail


@pytest.mark.parametrize("name", MODULES)
def test_child_imports_nothing_from_the_current_folder(hostile: Path, name: str):
    code = f"import {name}, json; print(json.dumps({name}.__file__))"
    program, *options, _, _ = command_of("module")

    done = subprocess.run(
        [program, *options, "-c", code], capture_output=True, text=True, check=True
    )

    assert not Path(json.loads(done.stdout)).is_relative_to(hostile)


def test_recorder_starts_our_companion(hostile: Path, contract: Contract):
    path = hostile.parent / "run.mcap"

    Recorder(path, contract, {}).close()

    assert path.exists()
    assert not (hostile / "ran").exists()


def test_twin_is_our_twin(hostile: Path):
    pytest.importorskip("mujoco", reason="the twin needs robotrl[train]")
    from robotrl.run_policy import running_twin

    with running_twin(ROBOT) as port:
        assert Path(port).exists()
    assert not (hostile / "ran").exists()


def test_installed_program_imports_nothing_from_the_current_folder(hostile: Path, tmp_path: Path):
    program = tmp_path / "bin" / "robotrl"  # as pip writes it
    program.parent.mkdir()
    program.write_text("import sys\nfrom robotrl.cli import app\nsys.exit(app())\n")

    done = subprocess.run(
        [sys.executable, program, "check", ROBOT], capture_output=True, text=True, check=False
    )

    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith(f"error: {ROBOT}: ")  # which is no policy
    assert not (hostile / "ran").exists()


def test_every_program_of_ours_is_started_that_way():
    root = Path(__file__).parents[2]
    users = [
        path.relative_to(root).as_posix()
        for package in ("deploy", "envs", "robotrl")
        for path in (root / package).rglob("*.py")
        if "sys.executable" in path.read_text()
    ]

    assert users == ["deploy/process.py"]
