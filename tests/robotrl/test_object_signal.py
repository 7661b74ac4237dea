"""A policy that moves a thing needs to be told where it is: trained, exported, refused, and run."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from deploy.commands import random_commands
from deploy.controller import OnnxController
from deploy.device import Reading
from deploy.errors import ContractError, SafetyError
from deploy.fit import matches
from deploy.robot_config import RobotConfig
from deploy.state import State
from robotrl.cli import app
from robotrl.export import export
from robotrl.report.log import read_log
from robotrl.report.page import write_report
from robotrl.report.reaching import OBJECT_ERROR_LIMIT_M
from robotrl.runs.run_folder import RunFolder
from robotrl.runs.train import train
from robotrl.runs.train_config import TrainConfig
from robotrl.shipped import config_path
from tests.deploy.conftest import MakeBench, contract, desk_arm, make_bench
from tests.deploy.test_runtime import make_trial
from tests.robotrl.test_run_policy import robot_path
from tests.until import PATIENCE_S

__all__ = ["contract", "desk_arm", "make_bench", "robot_path"]  # fixtures

PUCK = [0.2, 0.05, 0.015]


@pytest.fixture(params=["arm_push", "arm_lift"])
def policy(request: pytest.FixtureRequest, tiny_config: TrainConfig, tmp_path: Path) -> Path:
    """An exported policy of each task, hardly trained."""
    document = tiny_config.model_dump(mode="json", by_alias=True)
    document |= {"task": request.param, "env_steps": 32, "randomization": []}
    document |= {"task_config": {"target_interval_s": [0.2, 0.3]}}
    config = TrainConfig.model_validate(document)
    folder, path = RunFolder(tmp_path / "run"), tmp_path / "policy.onnx"
    folder.create(config)
    train(config, folder)
    export(folder, path, {})
    return path


def test_policy_takes_the_thing_and_no_truth(
    policy: Path, make_bench: MakeBench, desk_arm: RobotConfig
):
    controller = OnnxController(policy)
    contract = controller.contract
    kinds = {spec.kind for spec in contract.inputs}
    assert kinds == {
        *("joint_position", "joint_velocity", "joint_target", "object_position", "command"),
    }
    (spec,) = [spec for spec in contract.inputs if spec.kind == "object_position"]
    assert (spec.unit, spec.frame, spec.elements) == ("m", "base", ["x", "y", "z"])

    with pytest.raises(ContractError) as error:
        matches(contract, desk_arm)  # nothing on this robot sees things
    assert (
        "  signal 'object_position': the policy uses it, this robot measures only joint_position, "
        "joint_velocity, joint_current, joint_voltage, joint_temperature\n" in str(error.value)
    )

    bench = make_bench(contract=contract)
    bench.robot.readings["object_position"] = Reading(np.array(PUCK), np.zeros(1))
    trial = make_trial(bench, controller)
    trial.runtime.run(random_commands(contract.command, seed=0), duration_s=0.2)
    assert trial.recorder.running["object_position"] == pytest.approx(np.tile(PUCK, (10, 1)))


def test_thing_that_was_seen_too_long_ago_stops_the_policy(policy: Path, make_bench: MakeBench):
    controller = OnnxController(policy)
    bench = make_bench(contract=controller.contract)
    bench.robot.readings["object_position"] = Reading(np.array(PUCK), np.full(1, 0.6))
    trial = make_trial(bench, controller)

    with pytest.raises(SafetyError, match="'object_position' is 600 ms old, allowed 500 ms"):
        trial.runtime.run(random_commands(controller.contract.command, seed=0), duration_s=0.2)


def test_policy_runs_on_a_twin_with_a_thing_before_it(
    policy: Path, robot_path: Path, tmp_path: Path
):
    log = tmp_path / "run.mcap"
    command = [sys.executable, "-m", "robotrl.cli", "run", str(policy), str(robot_path)]
    command += ["--twin", "--thing", str(config_path("things/cube.xml")), "--no-prove"]
    command += ["--duration", "1.5", "--log", str(log)]
    run = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_S, check=False)
    assert run.returncode == 0, run.stderr

    ticks = read_log(log).ticks
    seen, running = ticks["object_position"], ticks["state"] == State.RUNNING
    assert seen[running] == pytest.approx(np.tile([0.2, 0.08, 0.01], (running.sum(), 1)), abs=3e-3)

    verdict = write_report(log, tmp_path / "run.html")
    goals, axes = ticks["command"][running], ticks["command"].shape[1]
    distances = np.linalg.norm(seen[running][:, :axes] - goals, axis=1)
    assert verdict.source == "as its camera saw it"
    assert verdict.limit_m == OBJECT_ERROR_LIMIT_M
    assert verdict.errors_m
    assert len(verdict.errors_m) >= 4
    assert distances.min() - 1e-6 <= min(verdict.errors_m)
    assert max(verdict.errors_m) <= distances.max() + 1e-6
    assert verdict.errors_m[0] == pytest.approx(distances[0], abs=2e-3)  # nothing has moved
    assert "Target and thing" in (tmp_path / "run.html").read_text()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["twin", "robot.yaml", "--camera", "5555"], "--camera sees nothing; give a --thing, too"),
        (
            ["run", "policy.onnx", "robot.yaml", "--thing", "puck.xml"],
            "--thing lies before a twin; give --twin, too",
        ),
    ],
)
def test_thing_without_a_twin_and_a_camera_without_a_thing_are_refused(
    arguments: list[str], message: str
):
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 2
    assert message in " ".join(result.stderr.replace("│", " ").split())
