"""The README's commands and programs do what it says."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from typer.main import get_command

from robotrl.cli import app
from robotrl.export import export
from robotrl.run_policy import running_twin
from robotrl.runs.run_folder import RunFolder
from robotrl.runs.train import train
from robotrl.runs.train_config import load_train_config

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
COMMANDS = re.findall(r"robotrl ([a-z]+)((?: [^\s`#]+)*)", README)
FILES = {
    name: text
    for text in re.findall(r"```(?:python|yaml)\n(.*?)```", README, re.DOTALL)
    for name in re.findall(r"^# ([\w/]+\.(?:py|yaml))", text)
}
PROGRAMS = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
ON_ROBOTS = [program for program in PROGRAMS if "open_robot" in program]


@pytest.mark.parametrize(("verb", "words"), COMMANDS)
def test_every_command_is_one_the_program_has(verb: str, words: str):
    command = get_command(app).commands[verb]  # pyright: ignore[reportAttributeAccessIssue]

    known = {option for parameter in command.params for option in parameter.opts}
    used = {word for word in words.split() if word.startswith("-")}
    assert used <= known, f"robotrl {verb} has no {used - known}"


@pytest.mark.parametrize(
    "path", sorted(set(re.findall(r"(?:configs|envs|deploy|tests)/[\w./]+", README)))
)
def test_every_path_exists(path: str):
    assert (ROOT / path).exists()


@pytest.mark.parametrize("package", ["deploy", "envs", "robotrl"])
def test_every_file_that_a_guide_names_exists(package: str):
    text = (ROOT / package / "README.md").read_text()
    for path in set(re.findall(r"`([\w/]+(?:\.py|\.yaml|/))`", text)):
        folders = [ROOT, ROOT / package, *(ROOT / package).iterdir()]
        in_a_run = path in ("config.yaml", "runs/NAME/", "diverged/")
        assert in_a_run or any((folder / path).exists() for folder in folders), path


# In code, where a line or a backtick begins it: prose may say that a motor makes more of something.
@pytest.mark.parametrize(
    "target", sorted(set(re.findall(r"(?:^|`)make ([a-z]+)", README, re.MULTILINE)))
)
def test_every_make_target_exists(target: str):
    assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(), re.MULTILINE)


@pytest.mark.parametrize("program", ON_ROBOTS)
def test_program_of_ones_own_moves_a_twin(program: str, tmp_path: Path):
    robot = tmp_path / "desk_arm.yaml"  # with patience for a machine that does something else
    document = yaml.safe_load((ROOT / "configs/robots/desk_arm.yaml").read_text())
    document["safety"] |= {"watchdog_ms": 2000, "stale_after_ms": 2000, "max_overruns": 1000}
    robot.write_text(yaml.safe_dump(document))
    with running_twin(robot) as port:
        program = program.replace("/tmp/desk_arm", port)
        program = program.replace("configs/robots/desk_arm.yaml", str(robot))
        program = program.replace(") as arm", ", change_settings=True) as arm")  # it is new
        done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True)
    assert done.returncode == 0, done.stderr.decode()
    assert b"'gripper': " in done.stdout


@pytest.mark.parametrize(
    "program",
    [program for program in PROGRAMS if program not in ON_ROBOTS],
    ids=lambda text: text.split("\n")[0],
)
def test_every_program_runs_beside_a_policy(program: str, policy_path: Path, tmp_path: Path):
    shutil.copy(policy_path, tmp_path / "policy.onnx")

    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=tmp_path,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )

    assert done.returncode == 0, done.stderr


def test_own_robot_and_own_task_train_and_export_as_they_are_written(tmp_path: Path):
    assert set(FILES) == {"my_arm.yaml", "calm_reach.py", "calm_reach.yaml"}
    for name, text in FILES.items():
        (tmp_path / name).write_text(text)
    shutil.copy(ROOT / "tests" / "envs" / "models" / "arm.urdf", tmp_path / "my_arm.urdf")
    small = ["num_envs=4", "env_steps=32", "torch_threads=1", "algorithm.rollout_steps=8"]
    small += ["algorithm.epochs=1", "algorithm.minibatches=1", "algorithm.actor_hidden=[16]"]
    config = load_train_config(tmp_path / "calm_reach.yaml", small)
    folder = RunFolder(tmp_path / "run")
    folder.create(config)

    train(config, folder)
    contract = export(folder, tmp_path / "policy.onnx", {})

    assert contract.robot == "my_arm"
    assert contract.provenance.task == f"{tmp_path}/calm_reach.py:CalmReach"
