"""An own robot and an own task by path: from a YAML to an ONNX file that runs, from any folder."""

import math
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import NamedTuple, cast

import numpy as np
import pytest
import torch
import yaml
from typer.testing import CliRunner, Result

from deploy.configuration import validate
from deploy.controller import OnnxController
from deploy.errors import ConfigError
from deploy.robot_config import RobotConfig
from deploy.twin.parameters import TwinParameters
from deploy.twin.robot import Twin
from envs.robot import load_robot
from robotrl.cli import app
from robotrl.export import export
from robotrl.play.session import open_session
from robotrl.report.log import Log
from robotrl.report.reaching import tool_path
from robotrl.robot_check import check_robot
from robotrl.runs.check_config import check_config
from robotrl.runs.evaluate import evaluate_policy, evaluate_run
from robotrl.runs.run_folder import RunFolder
from robotrl.runs.train import make_test_env, train
from robotrl.runs.train_config import TrainConfig, load_train_config

MODELS = Path(__file__).parents[1] / "envs" / "models"
DESK_ARM = Path(__file__).parents[2] / "configs" / "robots" / "desk_arm.yaml"
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


class Exported(NamedTuple):
    """A user's folder, a run of the arm in it, and its policy."""

    project: Path
    run: RunFolder
    policy: Path


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A user's folder: robots/, tasks/ and configs/."""
    return make_project(tmp_path)


@pytest.fixture(scope="module")
def arm(tmp_path_factory: pytest.TempPathFactory) -> Exported:
    path = tmp_path_factory.mktemp("arm")
    project = make_project(path)
    folder = trained(load_train_config(project / "configs" / "reach.yaml", []), path / "run")
    policy = path / "policy.onnx"
    export(folder, policy, evaluate_run(folder, episodes=2))
    return Exported(project, folder, policy)


def make_project(tmp_path: Path) -> Path:
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
    arm: Exported, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    _, folder, path = arm
    monkeypatch.chdir(tmp_path)  # the run needs no other folder
    contract = OnnxController(path).contract

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


WALK = SMALL | {
    "task": "velocity",
    "task_config": {
        "robot": str(MODELS / "strider.yaml"),
        "gait": {
            "feet": {f"toe_{end}_{side}": float(end + side in ("frontright", "backleft")) / 2
                     for end in ("front", "back") for side in ("left", "right")}
        },
    },
    "randomization": [{"field": "mass", "operation": "scale", "range": [0.9, 1.1]}],
}  # fmt: skip


def test_quadruped_of_tendons_and_meshes_walks_on_named_servos(tmp_path: Path):
    folder = trained(validate(WALK, TrainConfig, source="walk"), tmp_path / "run")
    path = tmp_path / "policy.onnx"

    contract = export(folder, path, {})

    legs = ["front_left", "front_right", "back_right", "back_left"]
    assert contract.joint_names == [
        f"{joint}_{leg}" for leg in legs for joint in ("yaw", "pitch", "knee", "ankle")
    ]
    # P 800 of `duty_per_p`, XL430 and XM430 at 12 V.
    kp = [joint.kp_nm_per_rad for joint in contract.joints]
    assert kp == pytest.approx([7.0434, 19.2005, 19.2005, 7.0434] * 4, rel=1e-3)
    assert contract.command is not None
    assert contract.command.elements == ["x", "y", "yaw"]
    assert run_in_simulation(folder.config(), path, 20).isfinite().all()


def test_quadruped_of_dm_control_trains_and_exports(tmp_path: Path):
    suite = pytest.importorskip("dm_control.suite")
    text = (MODELS / "strider.yaml").read_text()
    model = Path(suite.__file__).parent / "quadruped.xml"
    robot = tmp_path / "quadruped.yaml"
    robot.write_text(
        text.replace("strider.xml", str(model)).replace("[0, 0, 0.14]", "[0, 0, 0.57]")
    )
    settings = WALK["task_config"] | {"robot": str(robot)}
    config = validate(WALK | {"task_config": settings}, TrainConfig, source="walk")

    contract = export(trained(config, tmp_path / "run"), tmp_path / "policy.onnx", {})

    assert contract.robot == "quadruped"
    assert len(contract.joint_names) == 16


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


def test_robot_that_was_changed_since_the_training_is_refused(
    arm: Exported, tmp_path: Path, request: pytest.FixtureRequest
):
    _, folder, policy = arm
    robot = arm.project / "robots" / "arm.yaml"
    text = robot.read_text()
    robot.write_text(text.replace("p_gain: 800", "p_gain: 640"))
    request.addfinalizer(lambda: robot.write_text(text))

    users: list[tuple[str, Callable[[], object]]] = [
        ("this run", lambda: export(folder, tmp_path / "again.onnx", {})),
        ("this run", lambda: evaluate_run(folder, episodes=1)),
        ("this run", lambda: open_session(str(folder.path))),
        (str(policy), lambda: evaluate_policy(policy, episodes=1)),
        (str(policy), lambda: open_session(str(policy))),
    ]
    for what, use in users:
        with pytest.raises(ConfigError) as error:
            use()
        assert str(error.value) == (
            f"the files of robot {robot} are not those that {what} was trained with; restore them, "
            "or train again"
        )


def test_policy_of_another_robot_is_refused_on_a_robot_and_its_twin(arm: Exported):
    for more in ([], ["--twin"]):
        result = invoke("run", arm.policy, DESK_ARM, *more)

        assert result.exit_code == 1
        text = " ".join(result.output.split())
        assert "the policy is for 'maker_arm', this is 'desk_arm'" in text
        assert "Use a policy exported for this robot, or correct the robot's YAML." in text


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


def test_bare_model_is_told_and_the_yaml_to_begin_with_is_one(tmp_path: Path):
    shutil.copy(MODELS / "strider.xml", tmp_path)
    report = check_robot(load_robot(str(tmp_path / "strider.xml")))
    found = "\n".join(report.found)

    assert "robot 'strider': 16 joints, 8 actuators, 1.72 kg, free base by joint 'root'" in found
    assert (
        "yaw_front_left     -0.87 to +0.87 rad   servo: kp 10 N·m/rad, no limit of torque" in found
    )
    assert found.count("servo:") == 4  # the tendons' actuators are no servos of joints
    assert report.problems[2].endswith(
        "drives no joint, which a policy's targets are for: delete it"
    )
    assert "it cannot measure imu_angular_velocity and projected_gravity" in report.remarks[-1]
    assert report.beginning[0].endswith("To begin with, as strider.yaml:")
    (tmp_path / "strider.yaml").write_text("\n".join(line[2:] for line in report.beginning[1:]))
    again = load_robot(str(tmp_path / "strider.yaml"))
    assert check_robot(again).problems == []
    assert len(again.joints) == 16


def test_model_without_actuators_on_a_free_base_is_told_that_it_may_walk(tmp_path: Path):
    path = tmp_path / "legs.xml"
    path.write_text("""
<mujoco><worldbody><body name="trunk"><freejoint name="root"/><geom size="0.1" mass="1"/>
  <body name="shank"><joint name="knee" range="60 120"/><geom size="0.1" mass="12.3456"/></body>
</body></worldbody></mujoco>""")
    report = check_robot(load_robot(str(path)))

    assert report.found[0].startswith("robot 'legs': 1 joints, 0 actuators, 13.35 kg, free base by")
    assert "masses [g]: trunk 1000, shank 12346" in report.found
    assert report.remarks[0].startswith("it has nothing to stand on: add a plane, or `floor: true`")
    assert "  imu: {body: trunk}    # where yours sits" in report.beginning
    # 90°, the middle, as 0 is outside.
    assert any(line.startswith("  home: {joints: {knee: 1.57}}") for line in report.beginning)


LEG = """
<mujoco><compiler angle="{angle}"/><worldbody><geom type="plane" size="1 1 1"/>
  <body name="trunk" pos="0 0 {z}"><freejoint/><geom type="box" size="{half} {half} {half}"/>
    <site name="imu" euler="{turn} 0 0"/>
    <body pos="0 0 {half}"><joint name="neck" axis="0 1 0" range="{limits}"/>
      <geom size="{half}"/></body></body></worldbody>
  <actuator><position name="n" joint="neck" kp="9" forcerange="-9 9" inheritrange="1"/></actuator>
  <sensor><jointpos joint="neck"/><jointvel joint="neck"/><gyro site="imu"/></sensor>
  <keyframe><key name="home" {pose}/><key name="rest"/></keyframe></mujoco>"""


@pytest.mark.parametrize(
    ("change", "remark"),
    [
        ({}, None),
        # A box of 60 mm and a ball of 30 mm radius, written in mm: 3.3e8 kg at 1 kg/l.
        ({"half": 30, "z": 30}, "it weighs 3.291e+08 kg; masses are in kg"),
        ({"limits": "-90 90"}, "joint 'neck' turns from -90 to +90 rad: were these degrees?"),
        # 1.5 degrees.
        ({"angle": "degree"}, "joint 'neck' turns from -0.0262 to +0.0262 rad only: were these"),
        ({"turn": 3.1416}, "home: the IMU's z axis does not point up: at rest it reads a projected "
         "gravity of (-0.0, +0.0, +1.0)"),
        ({"z": 0.08}, "home: the base drops by 50 mm in 2 s"),
        # On an edge, 50 degrees from lying on the next side.
        ({"pose": 'qpos="0 0 0.045 0.9397 0 0.3420 0 0"'}, "home: the robot tips over by 0."),
    ],
    ids=["right", "mm", "degrees", "rad", "imu", "floating", "falling"],
)  # fmt: skip
def test_numbers_of_other_units_and_poses_that_fall_are_worth_a_look(
    tmp_path: Path, change: dict[str, object], remark: str | None
):
    path = tmp_path / "leg.xml"
    right = {"angle": "radian", "z": 0.03, "half": 0.03, "turn": 0, "limits": "-1.5 1.5"}
    path.write_text(LEG.format(**right | {"pose": ""} | change))
    report = check_robot(load_robot(str(path)))

    told = [text for text in report.remarks if "cannot measure" not in text]
    assert report.problems == []
    assert any(text.startswith(remark) for text in told) if remark else told == []


def test_pose_outside_its_limits_is_told_together_with_what_is_missing(tmp_path: Path):
    path = tmp_path / "robot.yaml"
    text = (MODELS / "arm.yaml").read_text().replace("model: ", f"model: {MODELS}/")
    path.write_text(text.replace("[elbow]", "[elbo]").replace("lift: 0.4", "lift: 30"))

    problems = check_robot(load_robot(str(path))).problems

    assert problems[0].startswith("servos.1: joint 'elbo' is not in the model")
    assert problems[-1].startswith("home: joint 'lift' is at +30 rad, its limits are")


def test_pictures_of_another_format_are_refused(tmp_path: Path):
    result = invoke("robot", "desk_arm", "--output", tmp_path / "arm.txt")

    assert result.exit_code == 1
    assert "arm.txt: pictures are written as .png, found '.txt'; rename it" in result.stderr


@pytest.mark.parametrize(
    ("joint", "begins", "problem"),
    [
        # A slide and a hinge: servos turn the hinge.
        ('<joint name="pole" range="-60 60"/>', "- {joints: [pole], servo", None),
        ('<joint name="pole"/>', "- {joints: [NAME], servo", "'NAME'"),
    ],
)
def test_servos_of_the_yaml_to_begin_with_turn_hinges(
    tmp_path: Path, joint: str, begins: str, problem: str | None
):
    path = tmp_path / "cart.xml"
    path.write_text(f"""
<mujoco><worldbody><body><joint name="slider" type="slide" range="-1 1"/><geom size=".1" mass="1"/>
  <body>{joint}<geom size="0.1" mass="1"/></body></body></worldbody></mujoco>""")
    beginning = [line[2:] for line in check_robot(load_robot(str(path))).beginning[1:]]
    assert any(line.strip().startswith(begins) for line in beginning)
    path.with_suffix(".yaml").write_text("\n".join(beginning))

    problems = check_robot(load_robot(str(path.with_suffix(".yaml")))).problems
    if problem is None:
        assert problems == []
    else:
        assert problem in problems[0]
