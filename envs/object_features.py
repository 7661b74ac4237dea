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
        push_m: how far behind the thing a push begins; None: it is not pushed. See `behind`.
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
        push_m: float | None = None,
    ):
        super().__init__()
        self.kinematics, self.push_m = kinematics, push_m
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
            **({} if push_m is None else {"start": XYZ, "fine_start": XYZ}),
            "joint_target": names,
        }

    def forward(self, signals: dict[str, Tensor]) -> dict[str, Tensor]:
        """Signals (n, ...) -> features (n, columns)."""
        position, thing, goal = (
            signals[name] for name in ("joint_position", "object_position", "command")
        )
        tool = self.kinematics(position)
        reach = thing - tool  # (n, 3)
        way = goal - thing[:, : goal.shape[1]]  # (n, axes) from the thing to its goal
        features = {
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
        if self.push_m is not None:
            start = behind(thing, way, self.push_m) - tool  # (n, 3) from the tool
            features |= {"start": start, "fine_start": torch.tanh(start / 0.03)}
        return features


def behind(puck: Tensor, way: Tensor, distance_m: float) -> Tensor:
    """Where a push along a way begins.

    Args:
        puck: (n, 3) its middle [m].
        way: (n, 2) from the puck to its goal [m].
        distance_m: from the middle to that point; less where the way is shorter than 2 cm, as its
            direction means less there.

    Returns:
        (n, 3) [m].
    """
    length = torch.linalg.vector_norm(way, dim=1, keepdim=True)
    back = way / length.clamp(min=0.02) * distance_m
    return puck - torch.cat([back, torch.zeros_like(back[:, :1])], dim=1)
