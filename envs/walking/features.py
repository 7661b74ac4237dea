"""What an actor that walks makes of its signals, and what that is in a mirror."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from envs.commands import TWIST
from envs.mirror import (
    DIRECTION_MIRROR,
    TWIST_MIRROR,
    clock_mirror,
    geom_mirror,
    imu_mirror,
    joint_mirror,
)
from envs.reach_features import XYZ
from envs.robot import Robot
from envs.walking.gait import asked_to_move, clock, phase_of, tipping


class WalkFeatures(nn.Module):
    """Features of one tick, from signals only.

    In place of the last action it sees the last target, which is what the servos were really told:
    a governor that held a target back does not go unnoticed.

    Args:
        joints: names of all joints.
        home: (joints,) their angles in the home pose [rad].
        period_s: of the gait.
    """

    home: Tensor

    def __init__(self, joints: Sequence[str], home: Tensor, period_s: float):
        super().__init__()
        self.period_s = period_s
        self.register_buffer("home", home.float())
        self.columns = {
            "imu_angular_velocity": XYZ,
            "projected_gravity": XYZ,
            "command": TWIST,
            "clock": ("sin", "cos"),
            "joint_position": joints,
            "joint_velocity": joints,
            "joint_target": joints,
        }
        self.signals = ("time", *(name for name in self.columns if name != "clock"))

    def forward(self, signals: dict[str, Tensor]) -> dict[str, Tensor]:
        """Signals (n, ...) -> features (n, columns)."""
        command, spin = signals["command"], signals["imu_angular_velocity"]
        phase = phase_of(signals["time"][:, 0], self.period_s)
        stepping = asked_to_move(command) | tipping(spin, signals["projected_gravity"])
        return {
            "imu_angular_velocity": spin,
            "projected_gravity": signals["projected_gravity"],
            "command": command,
            "clock": clock(phase, stepping),
            "joint_position": signals["joint_position"] - self.home,
            "joint_velocity": signals["joint_velocity"],
            "joint_target": signals["joint_target"] - self.home,
        }


def walk_mirror(robot: Robot, base: int, feet: Mapping[str, float]) -> dict[str, Tensor]:
    """What each feature, of actor and critic, is in the mirror; see `envs.mirror`.

    Args:
        robot: the robot.
        base: id of the body whose frame has the mirror.
        feet: geoms, and their offsets in the gait.

    Raises:
        ConfigError: robot or gait are not their own mirror image.
    """
    joints, geoms = joint_mirror(robot, base), geom_mirror(robot, base, list(feet))
    direction, spin = imu_mirror(robot, base)
    return {
        "imu_angular_velocity": spin,
        "projected_gravity": direction,
        **dict.fromkeys(("command", "velocity_error"), TWIST_MIRROR),
        "clock": clock_mirror(torch.tensor(list(feet.values())), geoms),
        **dict.fromkeys(("joint_position", "joint_velocity", "joint_target"), joints),
        "velocity": DIRECTION_MIRROR,
        "spin": -DIRECTION_MIRROR,
        "height": torch.eye(1),
        **dict.fromkeys(("foot_height", "foot_down"), geoms),
        "foot_velocity": torch.kron(geoms, DIRECTION_MIRROR),
    }
