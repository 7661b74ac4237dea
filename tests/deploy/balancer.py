"""The two-wheeled balancer in virtual time, behind its board or on the computer's own bus."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np

from deploy.clock import VirtualClock
from deploy.configuration import load_yaml
from deploy.contract import JointSpec
from deploy.device import SettingChange
from deploy.robot import Robot
from deploy.robot_config import RobotConfig
from deploy.serial_port import Port
from deploy.servos.register import Register
from deploy.twin.monitor import Limits, Monitor
from deploy.twin.port import VirtualPort
from deploy.twin.robot import Twin

REPOSITORY = Path(__file__).parents[2]
MODEL = REPOSITORY / "envs/robots/balancer/balancer.xml"
RADIUS, TRACK, PERIOD_S = 0.035, 0.104, 0.01
GAIN = np.array([-33.849, -59.650, -69.441, -6.165])
"""LQR of place, pitch, speed and pitch rate: `lqr` and `equations` of
tests/envs/robots/test_balancer.py, weights 20, 1, 1 and 0.1, 100 Hz."""


class Balancer:
    """A twin of it, on a port.

    Args:
        config: its wiring.
    """

    robot: Robot

    def __init__(self, config: RobotConfig):
        self.config, self.clock = config, VirtualClock()
        self.twin = Twin(MODEL, config)
        self.port: Port = VirtualPort(self.twin, self.clock)

    def tick(self, targets: np.ndarray | None = None) -> None:
        """Wait for the next period, read, and send, if there is something."""
        self.clock.sleep_until(self.clock.now() + PERIOD_S)
        self.robot.read(self.clock.now() + 0.004)
        if targets is not None:
            self.robot.write(targets)

    def wait(self, duration_s: float) -> None:
        """Nothing is sent."""
        self.clock.sleep_until(self.clock.now() + duration_s)
        self.twin.advance(self.clock.now())

    @property
    def pitch(self) -> float:
        """Of the true base [rad]."""
        up = self.twin._data.body("base").xmat.reshape(3, 3)[:, 2]
        return float(np.arctan2(up[0], up[2]))

    @property
    def wheels_driven(self) -> bool:
        """Whether any has torque."""
        return any(servo.torque_on for servo in self.twin.servos)


class Wheels(Balancer):
    """On its own bus, watched by a monitor.

    Args:
        joints: what drives them; by default speeds.
    """

    def __init__(self, joints: list[JointSpec] | None = None):
        path = REPOSITORY / "configs/robots/balancer_bus.yaml"
        super().__init__(load_yaml(path, RobotConfig))
        limits = dict.fromkeys(self.config.joints, Limits((-math.inf, math.inf), 38.0))
        self.monitor = Monitor(self.twin, self.config.joints, limits, period_s=PERIOD_S)
        self.changes: list[SettingChange] = []
        joints = joints or [joint(name, "velocity") for name in self.config.joints]
        self.robot = Robot(self.config, joints, {"bus": self.port}, approve=self._approve)

    def _approve(self, changes: list[SettingChange]) -> bool:
        self.changes += changes
        return True

    def tick(self, targets: np.ndarray | None = None) -> None:
        """See `Balancer`; until what was sent is there."""
        super().tick(targets)
        self.twin.advance(self.clock.now() + 0.002)

    def held(self, register: Register) -> list[int]:
        """What a register of both servos holds."""
        replies = [servo.read(register.address, register.size) for servo in self.twin.servos]
        return [register.decode(reply.data) for reply in replies]


def joint(name: str, mode: str) -> JointSpec:
    """What a policy that drives it in a mode demands of a wheel."""
    return JointSpec.model_validate(
        {
            "name": name,
            "operating_mode": mode,
            "kp_nm_per_rad": 0.5 if mode == "position" else 0.0,
            "kd_nm_s_per_rad": 0.0322,
            "default_position_rad": 0.0,
            "position_limits_rad": (-100.0, 100.0),
            "velocity_limit_rad_s": 30.0,
            "effort_limit_nm": 0.2,
        }
    )


def balance(balancer: Balancer) -> np.ndarray:
    """Targets of the LQR, from the robot's signals alone."""
    robot = balancer.robot
    gravity = robot.readings["projected_gravity"].values
    rate = robot.readings["imu_angular_velocity"].values[1]
    pitch = np.arctan2(gravity[0], -gravity[2])
    place = RADIUS * (robot.position.mean() + pitch)
    speed = RADIUS * (robot.velocity.mean() + rate)
    return np.full(2, np.clip(-GAIN @ [place, pitch, speed, rate], -40, 40))
