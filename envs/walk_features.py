"""What an actor that walks makes of its signals."""

from collections.abc import Sequence

from torch import Tensor, nn

from envs.gait import asked_to_move, clock, phase_of
from envs.reach_features import XYZ

TWIST = ("x", "y", "yaw")
"""Elements of a command: forward and sideways speed [m/s], turning speed [rad/s]."""


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
        command = signals["command"]
        phase = phase_of(signals["time"][:, 0], self.period_s)
        return {
            "imu_angular_velocity": signals["imu_angular_velocity"],
            "projected_gravity": signals["projected_gravity"],
            "command": command,
            "clock": clock(phase, asked_to_move(command)),
            "joint_position": signals["joint_position"] - self.home,
            "joint_velocity": signals["joint_velocity"],
            "joint_target": signals["joint_target"] - self.home,
        }
