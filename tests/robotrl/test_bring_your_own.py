"""An own robot and an own task by path: from a YAML to an ONNX file that runs, from any folder."""

import math
import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import numpy as np
import pytest
import torch
import yaml
from typer.testing import CliRunner, Result

from deploy.controller import OnnxController
from deploy.errors import ConfigError
from deploy.robot_config import RobotConfig
from deploy.twin.parameters import TwinParameters
from deploy.twin.robot import Twin
from envs.robot import load_robot
from robotrl.check_config import check_config
from robotrl.cli import app
from robotrl.evaluate import evaluate_policy, evaluate_run
from robotrl.export import export
from robotrl.report import Log, tool_path
from robotrl.robot_check import check_robot
from robotrl.run_folder import RunFolder
from robotrl.train import make_test_env, train
from robotrl.train_config import TrainConfig, load_train_config

MODELS = Path(__file__).parents[1] / "envs" / "models"
ROBOTS = Path(__file__).parents[2] / "envs" / "robots"
SMALL = {
    "num_envs": 4,
    "env_steps": 32,
    "algorithm": {"rollout_steps": 8, "epochs": 1, "minibatches": 1, "actor_hidden": [16],
                  "critic_hidden": [16]},
}  # fmt: skip
REACH = SMALL | {
    "task": "arm_reach",
    "task_config": {
        "robot": "../robots/arm.yaml",
        "arm_joints": ["pan", "lift", "elbow"],
        "target_low_m": [0.1, -0.05, 0.1],
        "target_high_m": [0.15, 0.05, 0.2],
        "target_interval_s": [0.2, 0.4],
        "episode_s": 0.6,
    },
    "randomization": [{"field": "mass", "operation": "scale", "range": [0.8, 1.25]}],
}
STAND = SMALL | {"task": "../tasks/stand_task.py:Stand"}


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A user's folder: robots/, tasks/ and configs/."""
    for folder in ("robots", "tasks", "configs"):
        (tmp_path / folder).mkdir()
    for name in ("arm.urdf", "arm.yaml"):
        shutil.copy(MODELS / name, tmp_path / "robots")
    for name in ("stand_task.py", "crawler.xml"):
        shutil.copy(MODELS / name, tmp_path / "tasks")
    (tmp_path / "configs" / "reach.yaml").write_text(yaml.safe_dump(REACH))
    (tmp_path / "configs" / "stand.yaml").write_text(yaml.safe_dump(STAND))
    return tmp_path


def trained(config: TrainConfig, path: Path) -> RunFolder:
    folder = RunFolder(path)
    folder.create(config)
    train(config, folder)
    return folder


def invoke(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def run_in_simulation(config: TrainConfig, path: Path, steps: int) -> torch.Tensor:
    """Joint angles (steps, joints) under an exported controller."""
    env = make_test_env(config, num_envs=1, num_threads=1, randomization=[])
    env.reset()
    controller = OnnxController(path)
    (output,) = controller.outputs.values()
    angles = []
    for _ in range(steps):
        for name, array in controller.inputs.items():
            array[:] = env.signals[name][0].numpy()
        controller.step()
        assert np.isfinite(output).all()
        env.step_targets(torch.from_numpy(output.copy())[None])
        angles.append(env.signals["joint_position"][0].clone())
    return torch.stack(angles)


def test_arm_of_a_urdf_trains_exports_and_runs(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    folder = trained(load_train_config(project / "configs" / "reach.yaml", []), tmp_path / "run")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")  # the run needs no other folder

    path = tmp_path / "policy.onnx"
    contract = export(folder, path, evaluate_run(folder, episodes=2))

    assert contract.robot == "maker_arm"
    assert contract.joint_names == ["pan", "lift", "elbow"]
    # P 800 and 400 of `duty_per_p`, at 12 V and 5 V; the effort limit is the motor's at full duty.
    kp = [joint.kp_nm_per_rad for joint in contract.joints]
    assert kp == pytest.approx([7.0434, 7.0434, 0.61325], rel=1e-4)
    env = make_test_env(folder.config(), num_envs=1, num_threads=1, randomization=[])
    assert contract.provenance.robot_model_sha256 == env.deployment.robot.sha256
    angles = run_in_simulation(folder.config(), path, 25)
    limits = torch.tensor([2.0, 1.5, 2.0])
    assert (angles.abs() < limits).all()
    assert "reach_error_m/median" in evaluate_policy(path, episodes=1)
    # The report finds the robot too: upper arm and forearm level, 0.12 + 0.11 m from the shoulder.
    log = SimpleNamespace(contract=contract, ticks={"joint_position": [[0, math.pi / 2, 0]]})
    assert tool_path(cast(Log, log))[0] == pytest.approx([0.23, 0, 0.05])


def test_arm_of_a_urdf_has_a_twin_that_stays_in_its_rest_pose(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    joints = {
        "pan": {"model": "XL430-W250", "position_limits_rad": [-2.0, 2.0], "rest_rad": 0.0},
        "lift": {"model": "XL430-W250", "position_limits_rad": [-1.5, 1.5], "rest_rad": -1.49},
        "elbow": {"model": "XL330-M288", "position_limits_rad": [-2.0, 2.0], "rest_rad": -1.65},
    }
    common = {"direction": 1, "zero_ticks": 2048, "velocity_limit_rad_s": 3.5}
    document = {
        "robot": "maker_arm",
        "model": "arm.yaml",  # beside it
        "bus": {"protocol": "dynamixel2", "port": "/dev/ttyUSB0", "baud_rate": 1_000_000},
        "joints": {
            name: {"id": number, **common, **joint}
            for number, (name, joint) in enumerate(joints.items(), 1)
        },
    }
    wiring = project / "robots" / "wiring.yaml"
    wiring.write_text(yaml.safe_dump(document))
    found = []

    def serve(model: Path, robot: RobotConfig, parameters: TwinParameters, **_: object) -> None:
        twin = Twin(model, robot, parameters)
        twin.advance(2.0)
        found.append(dict(zip(twin.joints, twin.joint_position, strict=True)))

    monkeypatch.setattr("deploy.twin.server.serve", serve)
    result = invoke("twin", wiring)

    assert result.exit_code == 0, result.output
    assert found[0] == pytest.approx({"pan": 0, "lift": -1.49, "elbow": -1.65}, abs=0.1)


def test_own_task_trains_exports_and_runs(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    folder = trained(load_train_config(project / "configs" / "stand.yaml", []), tmp_path / "run")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")

    path = tmp_path / "policy.onnx"
    contract = export(folder, path, evaluate_run(folder, episodes=2))

    assert contract.provenance.task == f"{project}/tasks/stand_task.py:Stand"
    assert contract.robot == "crawler"
    assert len(run_in_simulation(folder.config(), path, 10)) == 10


def test_randomization_of_an_own_robot_is_measured(project: Path):
    report = check_config(load_train_config(project / "configs" / "reach.yaml", []))

    (effect,) = report.effects
    assert report.problems == []
    assert effect.most.share > 0


def test_paths_of_a_file_are_relative_to_it_and_those_of_the_command_line_to_the_present_folder(
    project: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(project / "robots")
    shutil.copy("arm.yaml", "other.yaml")
    path = project / "configs" / "reach.yaml"

    config = load_train_config(path, [])
    changed = load_train_config(path, ["task_config.robot=other.yaml"])

    assert config.task_config["robot"] == str(project / "robots" / "arm.yaml")
    assert changed.task_config["robot"] == str(project / "robots" / "other.yaml")
    assert load_train_config(project / "configs" / "stand.yaml", []).task == (
        f"{project}/tasks/stand_task.py:Stand"
    )


def test_robot_that_was_changed_since_the_training_is_refused(project: Path, tmp_path: Path):
    folder = trained(load_train_config(project / "configs" / "reach.yaml", []), tmp_path / "run")
    robot = project / "robots" / "arm.yaml"
    robot.write_text(robot.read_text().replace("p_gain: 800", "p_gain: 640"))

    with pytest.raises(ConfigError) as error:
        export(folder, tmp_path / "policy.onnx", {})

    assert str(error.value) == (
        f"the files of robot {robot} are not those that this run was trained with; restore them, "
        "or train again"
    )


def test_robot_without_what_the_task_needs_is_refused_before_a_run_is_made(
    project: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(project)
    robot = project / "robots" / "arm.yaml"
    robot.write_text(robot.read_text().replace("tool:", "tip:"))

    result = invoke("train", "configs/reach.yaml")

    assert result.exit_code == 1
    assert "site: 'tool' is no site; there are tip" in " ".join(result.output.split())
    assert not (project / "runs").exists()


def test_exception_in_a_step_of_an_own_task_ends_training_with_a_line(
    project: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(project)
    task = project / "tasks" / "stand_task.py"
    task.write_text(task.read_text().replace("closeness(self._error(), 0.02)", "self.lost"))

    result = invoke("train", "configs/stand.yaml")

    assert result.exit_code == 1
    assert f"error: {task}, line " in " ".join(result.output.split())
    assert "'Stand' object has no attribute 'lost'" in " ".join(result.output.split())


# --- robotrl robot -----------------------------------------------------------------------------


def show(*arguments: object) -> subprocess.CompletedProcess[str]:
    """In a process of its own: MuJoCo chooses its OpenGL when it is imported."""
    command = [sys.executable, "-m", "robotrl.cli", "robot", *map(str, arguments)]
    environment = {**os.environ, "COLUMNS": "200"}
    return subprocess.run(command, capture_output=True, text=True, env=environment)


def test_robot_is_told_and_drawn(tmp_path: Path):
    path = tmp_path / "arm.png"

    done = show(MODELS / "arm.yaml", "--output", path)

    if "MuJoCo cannot draw here" in done.stderr:
        pytest.skip("there is no OpenGL on this machine")
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0] == (
        "robot 'maker_arm': 3 joints, 3 actuators, 0.24 kg, the base stands fast, physics step 5 ms"
    )
    assert "masses [g]: turret 100, upper 80, fore 60" in lines
    assert (
        "  elbow  -2.00 to +2.00 rad   XL330-M288: kp 0.613 N·m/rad, 0.533 N·m  home +0.80  "
        "rest -1.65"
    ) in lines
    assert "nothing is missing: it can be trained" in lines
    import matplotlib.image

    # Two pictures of zero, home and rest each, and one for each joint: three rows of four.
    picture = matplotlib.image.imread(path)[:, :, :3]
    assert picture.shape == (1050, 1680, 3)
    red = (picture[:, :, 0] > 0.5) & (picture[:, :, 1:] < 0.25).all(axis=-1)  # the arrows
    counts = [[int(red[y : y + 350, x : x + 420].sum()) for x in range(0, 1680, 420)]
              for y in range(0, 1050, 350)]  # fmt: skip
    assert counts[0] == [0, 0, 0, 0]
    assert counts[1][:2] == [0, 0]
    assert min(*counts[1][2:], counts[2][0]) > 40


@pytest.mark.parametrize("name", sorted(path.stem for path in ROBOTS.glob("*/*.xml")))
def test_our_own_robots_lack_nothing_and_lie_still_without_power(name: str):
    report = check_robot(load_robot(name))

    assert report.problems == []
    assert not [line for line in report.remarks if line.startswith("rest: joint")]


def test_everything_a_robot_lacks_is_numbered_in_the_order_to_correct_it(tmp_path: Path):
    path = tmp_path / "robot.yaml"
    text = (MODELS / "arm.yaml").read_text().replace("model: ", f"model: {MODELS}/")
    path.write_text(text.replace("[elbow]", "[elbo]").replace("body: tip", "body: tipp"))

    result = invoke("robot", path, "--output", tmp_path / "robot.png")

    lines = result.stdout.splitlines()
    start = lines.index("2 to correct before it can be trained, in this order:")
    assert lines[start + 1].startswith("  1. servos.1: joint 'elbo' is not in the model (did")
    assert lines[start + 2].startswith("  2. sites.tool: body 'tipp' is not in the model (did")
    assert result.exit_code == 1
