"""The command line: help with examples, results on standard output, errors that say what to do."""

from __future__ import annotations

import io
import socket
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import yaml
from rich.console import Console
from typer.testing import CliRunner, Result

from deploy.controller import read_policy
from robotrl.cli import app
from robotrl.cli.export import compare_with_shipped_robots
from tests.robotrl.conftest import PythonWithout

ROOT = Path(__file__).parents[2]
ROBOT = ROOT / "configs/robots/desk_arm.yaml"
TRAINING = ROOT / "configs/train/arm_reach.yaml"
VERBS = [
    "demo",
    "train",
    "bench",
    "eval",
    "play",
    "export",
    "check",
    "robot",
    "twin",
    "run",
    "scan",
    "release",
    "restore",
    "report",
]


if TYPE_CHECKING:
    from robotrl.runs.run_folder import RunFolder


def invoke(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def words(text: str) -> str:
    """Help without the frames and line breaks it is set in."""
    return " ".join(text.replace("│", " ").split())


# Help


def test_help_lists_every_verb():
    assert len(app.registered_commands) == len(VERBS)
    result = invoke("--help")
    assert result.exit_code == 0
    for verb in VERBS:
        assert f" {verb} " in words(result.stdout)


@pytest.mark.parametrize("verb", VERBS)
def test_help_of_every_verb_has_an_example(verb: str):
    result = invoke(verb, "--help")
    assert result.exit_code == 0
    _, found, example = words(result.stdout).partition("Example")
    assert found
    assert f"robotrl {verb}" in example


def test_program_without_a_verb_explains_itself():
    result = invoke()
    assert "Usage: " in result.output
    assert " train " in words(result.output)


def test_unknown_verb_is_refused_with_the_nearest_one():
    result = invoke("chekc")
    assert result.exit_code == 2
    assert "'chekc'" in words(result.stderr)
    assert "'check'" in words(result.stderr)


# Without the extra


@pytest.fixture(scope="module")
def robot_environment(python_without: PythonWithout) -> dict[str, str]:
    """What `pip install robotrl` brings, and no more."""
    return python_without("torch", "mujoco", "gymnasium", "onnx", "matplotlib")


def on_a_robot(environment: dict[str, str], *arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "robotrl.cli", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, env=environment, check=False)


@pytest.mark.parametrize(
    ("arguments", "package"),
    [
        (["demo"], "onnx"),
        (["train", TRAINING], "torch"),
        (["eval", "runs/arm_reach"], "torch"),
        (["play", "runs/arm_reach"], "mujoco"),
        (["export", "runs/arm_reach"], "onnx"),
        (["check", TRAINING], "mujoco"),
        (["twin", ROBOT], "mujoco"),
        (["report", "run.mcap"], "matplotlib"),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else value,
)
def test_verb_that_needs_an_extra_says_which(
    robot_environment: dict[str, str], arguments: list[object], package: str
):
    result = on_a_robot(robot_environment, *arguments)
    assert (result.returncode, result.stdout) == (1, "")
    assert result.stderr == (
        f"error: this verb needs {package}, which is not installed; run `pip install "
        "'robotrl[train]'`\n"
    )


def test_check_needs_no_extra(robot_environment: dict[str, str], policy_path: Path):
    result = on_a_robot(robot_environment, "check", policy_path, ROBOT)
    assert result.returncode == 0, result.stderr


def test_twin_of_a_run_says_which_extra_it_needs(
    robot_environment: dict[str, str], policy_path: Path, tmp_path: Path
):
    log = tmp_path / "run.mcap"
    result = on_a_robot(robot_environment, "run", policy_path, ROBOT, "--twin", "--log", log)
    assert result.returncode == 1
    assert "the twin did not start: " in result.stderr
    assert "pip install 'robotrl[train]'" in result.stderr


# train


@pytest.fixture
def training(tmp_path: Path) -> Path:
    """A configuration with a misspelt key."""
    document = yaml.safe_load(TRAINING.read_text())
    document["num_env"] = document.pop("num_envs")
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump(document))
    return path


def test_unknown_key_of_a_configuration_is_refused_with_the_nearest_one(training: Path):
    result = invoke("train", training, "--output", training.parent / "run")
    assert result.exit_code == 1
    assert result.stderr.startswith(
        f"error: {training}: (top level): unknown key 'num_env' (did you mean 'num_envs'?); valid "
        "keys are algorithm, "
    )
    assert not (training.parent / "run").exists()


def test_unknown_key_of_an_override_is_refused_with_the_nearest_one(tmp_path: Path):
    result = invoke("train", TRAINING, "algorithm.gama=0.9", "--output", tmp_path / "run")
    assert result.exit_code == 1
    assert "algorithm: unknown key 'gama' (did you mean 'gamma'?)" in result.stderr
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("override", "problem"),
    [
        ("task=arm_reech", "task: unknown task 'arm_reech' (did you mean 'arm_reach'?)"),
        ("task_config.historry=3",
         "task_config: arm_reach: (top level): unknown key 'historry' (did you mean 'history'?)"),
        ("task_config.rewards.reech=1",
         "task_config: arm_reach: rewards: unknown key 'reech' (did you mean 'reach'?)"),
        ("task_config.episode_s=0", "task_config: arm_reach: episode_s: input should be greater"),
        ("task_config.robot=desk_amr", "unknown robot 'desk_amr' (did you mean 'desk_arm'?)"),
        ("task_config.site=tol", "site: 'tol' (did you mean 'tool'?) is no site"),
        ("task_config.control_dt_s=0.0137", "control_dt_s 0.0137 s is no multiple"),
        ("task_config.limit_margin_rad=1", "the home pose of ['gripper'] lies outside"),
        ("randomization=[{field: masss, range: [0.9, 1.1]}]",
         "randomization: 'masss' is no model field"),
        ("randomization=[{field: mass, match: legg, range: [0.9, 1.1]}]",
         "randomization: 'mass' has no element matching 'legg'"),
        ("randomization=[{field: mass, range: [1, 1]}]",
         "randomization.0: mass: scale [1.0, 1.0] changes nothing"),
        ("randomization=[{signal: joint_effort, operation: add, range: [0, 1]}]",
         "randomization: unknown signal 'joint_effort'"),
    ],
)  # fmt: skip
def test_mistake_is_refused_before_the_folder_is_made(override: str, problem: str, tmp_path: Path):
    result = invoke("train", TRAINING, override, "--output", tmp_path / "run")

    assert result.exit_code == 1
    assert result.stderr.startswith(f"error: {TRAINING}: {problem}")
    assert not (tmp_path / "run").exists()


def test_corrected_command_is_accepted_after_a_refused_one(tiny_run: RunFolder, tmp_path: Path):
    wrong = ["train", tiny_run.config_path, "task_config.site=tol", "--output", tmp_path / "run"]

    assert invoke(*wrong).exit_code == 1
    wrong.remove("task_config.site=tol")
    assert invoke(*wrong).exit_code == 0


def test_folder_that_cannot_be_made_is_explained(tiny_run: RunFolder, tmp_path: Path):
    (tmp_path / "file").write_text("")

    result = invoke("train", tiny_run.config_path, "--output", tmp_path / "file" / "run")

    assert result.exit_code == 1
    assert result.stderr.startswith(
        f"error: {tmp_path / 'file' / 'run'} cannot be written: Not a directory; choose another "
    )


def test_resumed_run_takes_no_changes(tiny_run: RunFolder):
    result = invoke("train", TRAINING, "seed=5", "--resume", tiny_run.path)

    assert result.exit_code == 2
    assert "--resume goes on as the run began; give it alone" in words(result.stderr)


@pytest.mark.parametrize(
    "arguments",
    [
        ["demo", "--seed", "-1"],
        ["demo", "--seconds", "0"],
        ["demo", "--seconds", "nan"],
        ["eval", "runs/arm_reach", "--episodes", "0"],
        ["twin", ROBOT, "--seed", "-1"],
        ["run", "policy.onnx", ROBOT, "--seed", "-1"],
        ["run", "policy.onnx", ROBOT, "--duration", "nan"],
    ],
    ids=str,
)
def test_number_out_of_range_is_refused(arguments: list[object]):
    result = invoke(*arguments)

    assert result.exit_code == 2
    assert str(arguments[-2]) in words(result.stderr)


def test_training_needs_a_configuration():
    result = invoke("train")
    assert result.exit_code == 2
    assert "give a CONFIG, or --resume with the folder of a run" in words(result.stderr)


def test_folder_without_a_run_cannot_be_resumed(tmp_path: Path):
    result = invoke("train", "--resume", tmp_path)
    assert result.exit_code == 1
    assert result.stderr == (
        f"error: {tmp_path} is no training run (it has no config.yaml); give a folder that "
        "`robotrl train` wrote, such as runs/arm_reach\n"
    )


def test_training_ends_with_what_to_do_next(tiny_run: RunFolder, tmp_path: Path):
    result = invoke("train", tiny_run.config_path, "seed=5", "--output", tmp_path / "run")
    assert result.exit_code == 0, result.stderr
    assert result.stdout == ""
    assert result.stderr.endswith(f"Next: robotrl export {tmp_path / 'run'} -o policy.onnx\n")
    assert yaml.safe_load((tmp_path / "run" / "config.yaml").read_text())["seed"] == 5


# check


def test_check_prints_what_the_policy_demands(policy_path: Path):
    result = invoke("check", policy_path, ROBOT)
    assert (result.exit_code, result.stderr) == (0, "")
    first, *joints, last = result.stdout.splitlines()
    assert first.startswith(
        f"{policy_path}: sound; arm_reach for desk_arm, 50 Hz, 96 training steps, commit "
    )
    assert [line.split()[0] for line in joints] == read_policy(policy_path)[0].joint_names
    assert joints[0] == (
        "  shoulder_pan     kp   6.906 N·m/rad  kd  0.000  start +0.000 rad  "
        "range -2.17 to +2.17 rad"
    )
    assert last == f"fits {ROBOT}"


def test_check_refuses_a_robot_the_policy_does_not_fit(policy_path: Path, tmp_path: Path):
    robot = tmp_path / "robot.yaml"
    robot.write_text(ROBOT.read_text().replace("robot: desk_arm", "robot: tall_arm"))
    result = invoke("check", policy_path, robot)
    assert result.exit_code == 1
    assert result.stderr == (
        "error: the policy does not fit this robot:\n"
        "  robot: the policy is for 'desk_arm', this is 'tall_arm'\n"
        "Use a policy exported for this robot, or correct the robot's YAML.\n"
    )
    assert "fits" not in result.stdout


def test_check_refuses_a_file_that_is_no_policy():
    result = invoke("check", ROBOT)
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr.startswith(f"error: {ROBOT}: ")


def test_check_of_a_configuration_measures_its_randomization(tmp_path: Path):
    config = tmp_path / "arm.yaml"
    terms = "[{field: kp, range: [0.8, 1.2]}, {signal: joint_velocity, quantize: 0.024}]"
    config.write_text(f"task: arm_reach\nrandomization: {terms}\n")
    result = invoke("check", config)
    assert (result.exit_code, result.stderr) == (0, "")
    first, second, *lines = result.stdout.splitlines()
    assert first.startswith(f"{config}: each term alone against the nominal robot")
    assert second.endswith("in shares of its spread.")
    _, strongest, other = lines
    assert "kp scale [0.8, 1.2] on *" in strongest
    assert "joint_velocity quantize 0.024 on *" in other


def test_check_of_a_configuration_fails_for_a_term_without_effect(tmp_path: Path):
    config = tmp_path / "arm.yaml"
    config.write_text(
        "task: arm_reach\nrandomization: [{field: geom_rgba, columns: all, range: [0, 1]}]"
    )
    result = invoke("check", config)
    assert result.exit_code == 1
    assert result.stdout.splitlines()[-1].startswith("ERROR  randomization: 'geom_rgba ")


def test_check_of_a_configuration_takes_no_robot():
    result = invoke("check", TRAINING, ROBOT)
    assert result.exit_code == 2
    assert "a configuration is checked alone; leave the robot out" in words(result.stderr)


def test_brackets_in_a_path_are_no_markup(policy_path: Path, tmp_path: Path):
    path = tmp_path / "[bold]" / "policy.onnx"
    path.parent.mkdir()
    path.write_bytes(policy_path.read_bytes())
    assert invoke("check", path).stdout.startswith(f"{path}: sound; ")


# export and eval


def test_folder_without_a_run_cannot_be_exported(tmp_path: Path):
    result = invoke("export", tmp_path, "-o", tmp_path / "policy.onnx")
    assert result.exit_code == 1
    assert result.stderr.startswith(f"error: {tmp_path} is no training run")
    assert not (tmp_path / "policy.onnx").exists()


def test_export_into_a_missing_folder_is_explained(tiny_run: RunFolder, tmp_path: Path):
    result = invoke("export", tiny_run.path, "-o", tmp_path / "missing" / "policy.onnx")
    assert result.exit_code == 1
    assert result.stderr.startswith(f"error: {tmp_path / 'missing'}")


def test_eval_prints_one_number_a_line(tiny_run: RunFolder):
    result = invoke("eval", tiny_run.path, "--episodes", 4)
    assert result.exit_code == 0, result.stderr
    numbers = {name: float(value) for name, value in map(str.split, result.stdout.splitlines())}
    assert 0.0 < numbers["reach_error_m/median"] < 1.0


# play


def test_play_writes_a_video(policy_path: Path, tmp_path: Path, opengl: None):
    pytest.importorskip("imageio_ffmpeg", reason="films need robotrl[train]")
    video = tmp_path / "arm.mp4"
    options = ["--seconds", 0.2, "--seed", 1, "--command", "0.2,0,0.1"]
    result = invoke("play", policy_path, "--video", video, *options)
    assert (result.exit_code, result.stdout) == (0, f"video: {video}\n"), result.stderr
    assert video.stat().st_size > 1000


def test_play_without_the_encoder_says_what_to_install(
    python_without: PythonWithout, tmp_path: Path
):
    environment = python_without("imageio_ffmpeg")
    result = on_a_robot(environment, "play", "arm_reach", "--video", tmp_path / "arm.mp4")
    assert result.returncode == 1
    assert result.stderr == (
        "error: this verb needs imageio_ffmpeg, which is not installed; run `pip install "
        "'robotrl[train]'`\n"
    )


def test_play_tells_how_a_world_diverged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    import torch

    import envs

    monkeypatch.chdir(tmp_path)  # MuJoCo writes MUJOCO_LOG.TXT
    env = envs.make("arm_reach", num_threads=1)
    env.reset()
    env.record_divergences(tmp_path)
    env.simulation.data("xfrc_applied")[0, 3, 0] = 1e15
    env.step(torch.zeros(1, env.num_actions))
    (dump,) = tmp_path.glob("*.npz")

    result = invoke("play", dump)

    assert result.exit_code == 0, result.stderr
    assert result.stdout.startswith("world 0 diverged in control step 0: BADQACC at ")
    assert "replayed with plain MuJoCo" in result.stdout


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        (["arm_reech"], "arm_reech is no folder of a run, no .onnx, .yaml or .npz file, and as a"),
        (["arm_reach", "--command", "9,0,0"], "command 'target_position' [9.0, 0.0, 0.0] is outs"),
        (["gym/Ant-v5", "--command", "1"], "gym/Ant-v5, zero actions takes no command; leave --c"),
        (["missing.onnx"], "missing.onnx"),
        (["missing.npz"], "missing.npz: expected a file that a training run wrote"),
    ],
)
def test_play_explains_what_it_cannot_show(options: list[str], problem: str):
    result = invoke("play", *options)
    assert result.exit_code == 1
    assert result.stderr.startswith(f"error: {problem}"), result.stderr


def test_policy_takes_no_random_actions(tiny_run: RunFolder):
    result = invoke("play", tiny_run.path, "--random")
    assert result.exit_code == 1
    assert result.stderr == (
        f"error: {tiny_run.path} acts by itself; random actions are for a bare task\n"
    )


@pytest.mark.parametrize(
    "options", [["arm_reach", "--video", "a.mp4", "--port", "8080"], ["a.npz", "--seconds", "3"]]
)
def test_play_refuses_options_that_exclude_each_other(options: list[str]):
    assert invoke("play", *options).exit_code == 2


def test_port_that_is_taken_is_explained():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        command = [sys.executable, "-m", "robotrl.cli", "play", "arm_reach"]
        done = subprocess.run([*command, "--port", str(port)], capture_output=True, text=True)
    assert done.returncode == 1
    assert "error: the page cannot be served: " in done.stderr
    assert f"{port}" in done.stderr


# report


def test_report_of_a_file_that_is_no_log_is_refused(tmp_path: Path):
    result = invoke("report", ROBOT, "-o", tmp_path / "report.html")
    assert result.exit_code == 1
    assert result.stderr.startswith(f"error: {ROBOT}: is no log of `robotrl run`: ")
    assert not (tmp_path / "report.html").exists()


def test_report_of_a_missing_log_is_refused(tmp_path: Path):
    result = invoke("report", tmp_path / "run.mcap")
    assert result.exit_code == 1
    assert result.stderr == (
        f"error: {tmp_path / 'run.mcap'}: cannot be read: No such file or directory\n"
    )


@pytest.mark.parametrize(("error_m", "exit_code"), [(0.004, 0), (0.006, 1)])
def test_report_tells_its_verdict_by_the_exit_code(
    monkeypatch: pytest.MonkeyPatch, error_m: float, exit_code: int
):
    report = pytest.importorskip("robotrl.report.page")
    verdict = report.Verdict([error_m] * 5, [], "from the measured joint angles")
    monkeypatch.setattr(report, "write_report", lambda log, output, truth: verdict)
    result = invoke("report", "logs/run.mcap")
    assert result.exit_code == exit_code
    assert result.stdout == f"{verdict.summary()}\nreport: logs/run.html\n"


def test_check_calls_nothing_sound_that_does_not_fit(policy_path: Path):
    result = invoke("check", policy_path, ROOT / "configs/robots/so101.yaml")
    assert (result.exit_code, result.stdout) == (1, "")
    assert "the policy does not fit this robot:" in result.stderr


def test_export_warns_of_limits_that_the_robots_yaml_refuses(
    policy_path: Path, monkeypatch: pytest.MonkeyPatch
):
    contract = read_policy(policy_path)[0]
    fast = contract.joints[0].model_copy(update={"velocity_limit_rad_s": 9.0})
    console = Console(file=(said := io.StringIO()), soft_wrap=True)
    monkeypatch.setattr("robotrl.cli.export.console", console)
    monkeypatch.chdir(ROOT)

    compare_with_shipped_robots(contract, Path("policy.onnx"))
    assert said.getvalue() == "Next: robotrl check policy.onnx configs/robots/desk_arm.yaml\n"
    joints = [fast, *contract.joints[1:]]
    compare_with_shipped_robots(contract.model_copy(update={"joints": joints}), Path("policy.onnx"))
    assert "warning: with configs/robots/desk_arm.yaml the policy does not fit" in said.getvalue()
    assert (
        "joint 'shoulder_pan': the policy moves at up to 9 rad/s, the hardware allows 3.5 rad/s"
    ) in said.getvalue()


# Robots that are not there


@pytest.mark.parametrize("verb", ["twin", "release"])
def test_missing_robot_file_is_refused(verb: str, tmp_path: Path):
    result = invoke(verb, tmp_path / "robot.yaml")
    assert result.exit_code == 1
    assert result.stderr == (
        f"error: {tmp_path / 'robot.yaml'}: cannot be read: No such file or directory\n"
    )


def test_twin_of_an_unknown_robot_is_refused_with_those_there_are(tmp_path: Path):
    robot = tmp_path / "robot.yaml"
    robot.write_text(ROBOT.read_text().replace("robot: desk_arm", "robot: desk_armm"))
    result = invoke("twin", robot)
    assert result.exit_code == 1
    assert result.stderr.startswith(
        "error: unknown robot 'desk_armm' (did you mean 'desk_arm'?); there are "
    )
