"""A policy that moves a thing needs to be told where it is: trained, exported, refused, and run."""

from pathlib import Path

import numpy as np
import pytest

from deploy.commands import random_commands
from deploy.controller import OnnxController
from deploy.device import Reading
from deploy.errors import ContractError, SafetyError
from deploy.fit import matches
from deploy.robot_config import RobotConfig
from robotrl.export import export
from robotrl.runs.run_folder import RunFolder
from robotrl.runs.train import train
from robotrl.runs.train_config import TrainConfig
from tests.deploy.conftest import MakeBench, contract, desk_arm, make_bench
from tests.deploy.test_runtime import make_trial

__all__ = ["contract", "desk_arm", "make_bench"]  # fixtures

PUCK = [0.2, 0.05, 0.015]


@pytest.fixture(params=["arm_push", "arm_lift"])
def policy(request: pytest.FixtureRequest, tiny_config: TrainConfig, tmp_path: Path) -> Path:
    """An exported policy of each task, hardly trained."""
    document = tiny_config.model_dump(mode="json", by_alias=True)
    document |= {"task": request.param, "env_steps": 32, "randomization": []}
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
