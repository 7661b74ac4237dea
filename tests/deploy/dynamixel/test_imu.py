"""The inertial sensor on the servos' bus, from how the robot really turns to what a policy sees."""

from __future__ import annotations

import copy
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from deploy.configuration import load_yaml, validate
from deploy.dynamixel.device import DynamixelServos
from deploy.dynamixel.protocol import Instruction, PacketParser
from deploy.errors import BusError, ConfigError
from deploy.robot import Robot, bare_joints, measured_signals
from deploy.robot_config import RobotConfig
from deploy.servos.scan import scan

pytest.importorskip("mujoco", reason="the twin needs robotrl[train]")
import mujoco

from deploy.clock import VirtualClock
from deploy.twin.parameters import TwinParameters
from deploy.twin.port import VirtualPort
from deploy.twin.robot import Twin

BODY = """
<mujoco>
  <option gravity="0 0 0"/>
  <worldbody>
    <body name="trunk" pos="0 0 0.5">
      <freejoint/><geom type="sphere" size="0.05" mass="0.3"/><site name="imu"/>
      <body name="flap">
        <joint name="flap" axis="0 0 1" range="-1 1" armature="0.002"/>
        <geom type="sphere" size="0.01" mass="0.01"/>
      </body>
    </body>
  </worldbody>
  <keyframe><key name="rest" qpos="0 0 0.5 1 0 0 0 0"/></keyframe>
</mujoco>
"""
LIMITS = {"position_limits_rad": [-1.0, 1.0], "velocity_limit_rad_s": 5.0, "rest_rad": 0.0}
CONFIG: dict[str, Any] = {
    "robot": "body",
    "bus": {"port": "/dev/unused", "imu": {"mounting": [0.7071, 0.0, 0.7071, 0.0]}},
    "joints": {"flap": {"id": 1, "model": "XL330-M288", **LIMITS}},
}
TICK_S = 0.02


@dataclass
class Tapped(VirtualPort):
    """A port that remembers what is sent."""

    twin: Twin
    clock: VirtualClock
    sent: list[bytes] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__init__(self.twin, self.clock)

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.sent.append(bytes(data))
        super().write(data)


class Rig:
    """A body that floats in space, a flap and a sensor on its bus."""

    def __init__(self, path: Path, **parameters: Any):
        self.config = RobotConfig.model_validate(CONFIG)
        self.twin = Twin(path, self.config, TwinParameters(**parameters))
        (self.sensor,) = self.twin.imus
        self.clock = VirtualClock()
        self.port = Tapped(self.twin, self.clock)
        self.robot = Robot(
            self.config,
            bare_joints(self.config),
            {"bus": self.port},
            approve=lambda changes: True,
        )

    def read(self, ticks: int = 1) -> np.ndarray:
        """The last of some ticks' readings: angular velocity and gravity, (6,)."""
        begin_s = self.clock.now()
        for tick in range(1, ticks + 1):
            self.clock.sleep_until(begin_s + tick * TICK_S)
            self.robot.read(self.clock.now() + 0.015)
        kinds = ("imu_angular_velocity", "projected_gravity")
        return np.concatenate([self.robot.readings[kind].values for kind in kinds])

    def turn(self, axis: list[float], angle: float, spin: list[float]) -> np.ndarray:
        """Turn the body, and let it spin in its own frame; its quaternion."""
        quaternion = np.zeros(4)
        mujoco.mju_axisAngle2Quat(quaternion, np.array(axis) / np.linalg.norm(axis), angle)
        self.twin._data.qpos[3:7] = quaternion
        self.twin._data.qvel[3:6] = spin
        return quaternion


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "body.xml"
    path.write_text(BODY)
    return path


@pytest.mark.parametrize("axis", range(3))
def test_spin_and_gravity_come_in_the_frame_of_the_robot(path: Path, axis: int) -> None:
    rig = Rig(path, let_go_after_s=0.0)
    rig.robot.connect()
    spin = [0.0, 0.0, 0.0]
    spin[axis] = 2.0
    rig.turn([1, 2, -1], 0.8, spin)
    seen = rig.read(10)
    assert rig.twin.base
    inverse, down = np.zeros(4), np.zeros(3)
    mujoco.mju_negQuat(inverse, rig.twin.base.pose[3:])
    mujoco.mju_rotVecQuat(down, np.array([0.0, 0.0, -1.0]), inverse)
    assert seen[:3] == pytest.approx(spin, abs=0.015)  # noise 0.003 rad/s
    # 1/120 s and 3 ms of replies at 2 rad/s
    assert seen[3:] == pytest.approx(down, abs=0.03)


def test_sensor_and_servos_are_read_in_one_fast_sync_read(path: Path) -> None:
    rig = Rig(path)
    rig.robot.connect()
    rig.port.sent.clear()
    rig.read(3)
    packets = PacketParser().feed(b"".join(rig.port.sent))
    asked = bytes([124, 0, 12, 0, 200, 1])  # address, length, the sensor's id first
    assert [(p.instruction, p.parameters) for p in packets] == [
        (Instruction.FAST_SYNC_READ, asked)
    ] * 3


def test_bias_of_the_gyroscope_at_rest_is_taken_off(path: Path) -> None:
    rig = Rig(path, gyro_bias_rad_s=(0.0157, -0.0105, 0.0192))
    rig.robot.connect()
    assert rig.read()[:3] == pytest.approx([0, 0, 0], abs=0.012)
    (device,) = rig.robot.devices
    assert isinstance(device, DynamixelServos)
    assert device.imu
    assert device.imu.bias == pytest.approx([0.0157, -0.0105, 0.0192], abs=0.003)
    assert "at rest its gyroscope says" in rig.robot.describe()


def test_bias_of_a_robot_that_moves_is_left_alone(path: Path) -> None:
    rig = Rig(path)
    rig.turn([0, 0, 1], 0.0, [0.0, 0.0, 1.0])
    rig.robot.connect()
    assert rig.read()[2] == pytest.approx(1.0, abs=0.015)
    assert "it moved, no bias" in rig.robot.describe()


def test_sensor_that_says_the_same_for_25_ticks_has_frozen(path: Path) -> None:
    rig = Rig(path)
    rig.robot.connect()
    rig.read()
    rig.sensor.frozen = True
    rig.read(24)
    assert rig.robot.alarm() == ""
    rig.read(2)
    assert "it has frozen, or is silent" in rig.robot.alarm()
    assert rig.robot.age_s.max() < TICK_S  # the joints are fine


def test_sensor_that_falls_silent_grows_old_and_the_joints_are_still_read(path: Path) -> None:
    rig = Rig(path)
    rig.robot.connect()
    rig.read()
    rig.sensor.silent = True
    rig.read(10)
    age_s = rig.robot.readings["imu_angular_velocity"].age_s
    assert age_s == pytest.approx(10 * TICK_S, abs=TICK_S)
    assert rig.robot.age_s.max() < TICK_S


def test_sensor_that_is_not_there_is_named(path: Path) -> None:
    rig = Rig(path)
    rig.sensor.silent = True
    with pytest.raises(BusError, match=r"imu_to_dxl \(id 200\) does not answer"):
        rig.robot.connect()


def test_sensor_whose_fusion_has_not_started_is_no_sensor(path: Path) -> None:
    rig = Rig(path)
    rig.sensor.frozen = True  # it never says anything but zeros
    with pytest.raises(BusError, match="answers but measures nothing"):
        rig.robot.connect()


def test_scan_names_it_beside_the_servos(path: Path) -> None:
    rig = Rig(path)
    (device,) = rig.robot.devices
    assert isinstance(device, DynamixelServos)
    assert device.imu
    with pytest.raises(BusError, match="imu_to_dxl, measures nothing, or has just been switched"):
        device.imu.look()
    rig.clock.sleep_until(0.05)
    assert device.imu.look() == (
        "id 200 (imu): imu_to_dxl, down is [0.0, 0.0, -1.0] in the robot's frame"
    )
    assert [servo.id for servo in scan(device, [1, 2, 200])] == [1]
    rig.sensor.silent = True
    with pytest.raises(BusError, match=r"^id 200 \(imu\): no answer$"):
        device.imu.look()


@pytest.mark.parametrize(
    ("bus", "message"),
    [
        ({"imu": {"id": 1}}, "bus.imu.id 1 is also the servo of 'flap'"),
        ({"imu": {"mounting": [1.0, 1.0, 0.0, 0.0]}}, "must be a unit quaternion"),
    ],
)
def test_sensor_that_cannot_be_is_refused(bus: dict[str, Any], message: str) -> None:
    document = copy.deepcopy(CONFIG)
    document["bus"] |= bus
    with pytest.raises(ConfigError, match=message):
        validate(document, RobotConfig, source="body.yaml")


def test_the_microduck_measures_what_its_policies_need() -> None:
    config = load_yaml(Path("configs/robots/microduck.yaml"), RobotConfig)
    assert {"imu_angular_velocity", "projected_gravity"} <= set(measured_signals(config))
