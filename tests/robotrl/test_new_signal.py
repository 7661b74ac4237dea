"""A signal that no shipped task uses goes all the way from the model to the arm.

What has to be written for it is here: a sensor in the MJCF, a task that uses it, and a device that
measures it. Training, export, runtime, recorder and report need nothing.
"""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from deploy.commands import random_commands
from deploy.controller import OnnxController
from deploy.device import Reading
from deploy.errors import ContractError
from deploy.fit import matches
from deploy.robot_config import RobotConfig
from envs import registry
from envs.draws import Draws
from envs.observation_encoder import ObservationEncoder
from envs.reach_features import XYZ, ReachFeatures
from envs.robot import load_robot
from envs.sensors import SensorReader
from envs.simulation import Simulation
from envs.tasks.arm import MEASURED
from envs.tasks.arm_reach import ArmReach, ArmReachConfig
from robotrl.export import export
from robotrl.runs.run_folder import RunFolder
from robotrl.runs.train import train
from robotrl.runs.train_config import TrainConfig
from tests.deploy.conftest import MODEL_PATH, MakeBench, contract, desk_arm, make_bench
from tests.deploy.test_runtime import make_trial

__all__ = ["contract", "desk_arm", "make_bench"]  # fixtures

IMU = '<framezaxis objtype="xbody" objname="world" reftype="site" refname="imu"/>'
TILT_DEG = 30


class TiltFeatures(torch.nn.Module):
    """Those of a reaching arm, and how the base is tilted."""

    def __init__(self, features: ReachFeatures):
        super().__init__()
        self.features = features
        self.signals = (*features.signals, "projected_gravity")
        self.columns = {**features.columns, "gravity": XYZ}

    def forward(self, signals: dict[str, Tensor]) -> dict[str, Tensor]:
        return self.features(signals) | {"gravity": signals["projected_gravity"]}


class TiltReach(ArmReach):
    """Reaches, and sees gravity."""

    elements = XYZ

    def __init__(self, simulation: Simulation, config: ArmReachConfig, draws: Draws):
        super().__init__(simulation, config, draws)
        features = self.encoder.features
        assert isinstance(features, ReachFeatures)
        self.encoder = ObservationEncoder(TiltFeatures(features), 3, changes=["joint_target"])
        sensors = load_robot(config.robot).sensors([*MEASURED, "projected_gravity"])
        self._sensors = SensorReader(simulation, sensors)
        self.signals = {**self.signals, "projected_gravity": self.elements}


@pytest.fixture
def run(tiny_config: TrainConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RunFolder:
    """A run of that task on a desk arm with an IMU in its base, which is mounted askew."""
    monkeypatch.setitem(registry.TASKS, "tilt_reach", TiltReach)
    site = f'<site name="imu" euler="{np.deg2rad(TILT_DEG)} 0 0"/>'
    text = MODEL_PATH.read_text().replace("</sensor>", f"{IMU}</sensor>")
    text = text.replace("<worldbody>", f"<worldbody>{site}")
    assert 'angle="radian"' in text
    model = tmp_path / "desk_arm.xml"
    model.write_text(text)
    document = tiny_config.model_dump(mode="json", by_alias=True)
    document |= {"task": "tilt_reach", "env_steps": 32}
    document["task_config"] = {**document["task_config"], "robot": str(model)}
    config = TrainConfig.model_validate_json(TrainConfig.model_validate(document).model_dump_json())
    folder = RunFolder(tmp_path / "run")
    folder.create(config)
    train(config, folder)
    return folder


def test_policy_with_a_new_signal_is_exported_checked_and_run(
    run: RunFolder, make_bench: MakeBench, desk_arm: RobotConfig, tmp_path: Path
):
    contract = export(run, tmp_path / "policy.onnx", {})

    (spec,) = [spec for spec in contract.inputs if spec.kind == "projected_gravity"]
    assert (spec.unit, spec.frame, spec.elements) == ("1", "imu", ["x", "y", "z"])
    # turned by 30° about x, the IMU sees (0, 0, -1) as (0, -sin 30°, -cos 30°)
    assert contract.golden.inputs["projected_gravity"][0] == pytest.approx(
        [0.0, -0.5, -0.8660254], abs=1e-6
    )
    assert [name for name in contract.observation if name.startswith("gravity")][:2] == [
        "gravity.x[t-2]", "gravity.y[t-2]",
    ]  # fmt: skip

    with pytest.raises(ContractError, match="signal 'projected_gravity': the policy uses it"):
        matches(contract, desk_arm)  # the arm as it ships has no IMU

    bench = make_bench(contract=contract)
    bench.robot.readings["projected_gravity"] = Reading(np.array([0.0, -0.5, -0.866]), np.zeros(1))
    trial = make_trial(bench, OnnxController(tmp_path / "policy.onnx"))
    trial.runtime.run(random_commands(contract.command, seed=0), duration_s=0.2)

    running = trial.recorder.running
    assert running["projected_gravity"] == pytest.approx(np.tile([0.0, -0.5, -0.866], (10, 1)))


def test_task_that_measures_other_elements_than_the_table_says_is_refused(
    run: RunFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(TiltReach, "elements", ("z", "y", "x"))

    with pytest.raises(ContractError) as error:
        export(run, tmp_path / "policy.onnx", {})

    assert str(error.value) == (
        f"{tmp_path / 'policy.onnx'} was not written: the task measures 'projected_gravity' as "
        "['z', 'y', 'x'], a robot as ['x', 'y', 'z']; correct `signals` of the task"
    )
