"""What an actor that moves a thing makes of its signals."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from envs.forward_kinematics import ForwardKinematics
from envs.reach_features import XYZ


class ObjectFeatures(nn.Module):
    """Features of one tick, from signals only.

    Where the thing is, is as old as a tracker makes it; the encoder's memory of the last ticks
    tells how it moves. `joint_target` is to be seen as changes, for the reason that
    `envs.reach_features` gives.

    Args:
        kinematics: from joint angles to the tool position.
        joints: names of all joints.
        arm: indices of the joints the policy moves.
        home: (joints,) their angles in the home pose [rad].
        axes: those of x, y, z that the goal has.
    """

    arm: Tensor
    home: Tensor

    def __init__(
        self,
        kinematics: ForwardKinematics,
        joints: Sequence[str],
        arm: list[int],
        home: Tensor,
        axes: Sequence[str],
    ):
        super().__init__()
        self.kinematics = kinematics
        self.register_buffer("arm", torch.tensor(arm))
        self.register_buffer("home", home[arm].float())
        self.signals = (
            *("joint_position", "joint_velocity", "joint_target"),
            *("command", "object_position"),
        )
        names = [joints[index] for index in arm]
        self.columns = {
            "joint_position": names,
            "joint_velocity": names,
            "object": XYZ,
            "goal": axes,
            "reach": XYZ,
            "fine_reach": XYZ,
            "way": axes,
            "fine_way": axes,
            "joint_target": names,
        }

    def forward(self, signals: dict[str, Tensor]) -> dict[str, Tensor]:
        """Signals (n, ...) -> features (n, columns)."""
        position, thing, goal = (
            signals[name] for name in ("joint_position", "object_position", "command")
        )
        reach = thing - self.kinematics(position)  # (n, 3) from the tool to the thing
        way = goal - thing[:, : goal.shape[1]]  # (n, axes) from the thing to its goal
        return {
            "joint_position": position.index_select(1, self.arm) - self.home,
            "joint_velocity": signals["joint_velocity"].index_select(1, self.arm),
            "object": thing,
            "goal": goal,
            "reach": reach,
            "fine_reach": torch.tanh(reach / 0.03),  # keeps millimetres visible
            "way": way,
            "fine_way": torch.tanh(way / 0.03),
            "joint_target": signals["joint_target"].index_select(1, self.arm),
        }
