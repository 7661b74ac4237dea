"""What an actor that reaches makes of its signals."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from envs.forward_kinematics import ForwardKinematics

XYZ = ("x", "y", "z")


class ReachFeatures(nn.Module):
    """Features of one tick, from signals only.

    `joint_target` is there to be seen as changes (see `ObservationEncoder`), never as a distance
    from the angles. At rest the policy then knows nothing of the droop, so the pose in which it
    rests does not depend on load and gains; shown the droop it learned that of the nominal arm, and
    at twice the mass rested 0.7 cm off the target.

    Args:
        kinematics: from joint angles to the tool position.
        joints: names of all joints.
        arm: indices of the joints the policy moves.
        home: (joints,) their angles in the home pose [rad].
    """

    arm: Tensor
    home: Tensor

    def __init__(
        self, kinematics: ForwardKinematics, joints: Sequence[str], arm: list[int], home: Tensor
    ):
        super().__init__()
        self.kinematics = kinematics
        self.register_buffer("arm", torch.tensor(arm))
        self.register_buffer("home", home[arm].float())
        self.signals = ("joint_position", "joint_velocity", "joint_target", "command")
        names = [joints[index] for index in arm]
        self.columns = {
            "joint_position": names,
            "joint_velocity": names,
            "target": XYZ,
            "error": XYZ,
            "fine_error": XYZ,
            "joint_target": names,
        }

    def forward(self, signals: dict[str, Tensor]) -> dict[str, Tensor]:
        """Signals (n, ...) -> features (n, columns)."""
        position = signals["joint_position"]
        command = signals["command"]
        error = command - self.kinematics(position)  # (n, 3)
        return {
            "joint_position": position.index_select(1, self.arm) - self.home,
            "joint_velocity": signals["joint_velocity"].index_select(1, self.arm),
            "target": command,
            "error": error,
            "fine_error": torch.tanh(error / 0.03),  # keeps millimetres visible beside decimetres
            "joint_target": signals["joint_target"].index_select(1, self.arm),
        }
