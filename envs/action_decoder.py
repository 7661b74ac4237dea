"""From the policy's action in [-1, 1] to joint targets; exported with the policy."""

import torch
from torch import Tensor, nn


class JointStepDecoder(nn.Module):
    """Move each joint's target by at most one step per tick, within its limits.

    target = clip(last target + step · action, low, high); joints without an action hold a fixed
    target. Moving the last *commanded* target makes the controller integrate: the arm rests where
    the action is zero, whatever droop of a soft servo lies between target and angle. So droop,
    load and gains do not matter where it rests if the policy does not see them. One that is shown
    target minus angle learns the droop of the arm it was trained on: arm_reach then rested 0.71 cm
    off at twice the mass and at half the gain, and rests 0.05 cm off without (medians; 0.05 cm
    nominal). Speed is bounded by construction, and because the last target is a signal, whatever
    the governor on the robot limits does not wind up.

    Args:
        joints: all joints, in the order of targets.
        actions: joints that have an action, in the order of actions.
        step: largest change per tick of each action [rad].
        low, high: (joints,) limits of the targets [rad].
        default: (joints,) target of joints without an action [rad].
        lead: (joints,) farthest a target is from where its joint is [rad]; None for as far as may
            be. It bounds what a servo does to something in its way, as `step` bounds its speed;
            not that of joints without an action.
    """

    spread: Tensor
    active: Tensor
    low: Tensor
    high: Tensor
    default: Tensor
    lead: Tensor | None

    def __init__(
        self,
        joints: list[str],
        actions: list[str],
        *,
        step: float,
        low: Tensor,
        high: Tensor,
        default: Tensor,
        lead: Tensor | None = None,
    ):
        super().__init__()
        self.signals = ("joint_target",) if lead is None else ("joint_target", "joint_position")
        self.num_actions = len(actions)
        self.step = step
        spread = torch.zeros(len(actions), len(joints))
        for row, name in enumerate(actions):
            spread[row, joints.index(name)] = step
        self.register_buffer("spread", spread)
        self.register_buffer("active", spread.any(dim=0))
        self.register_buffer("low", low.float())
        self.register_buffer("high", high.float())
        self.register_buffer("default", default.float())
        self.register_buffer("lead", None if lead is None else lead.float())

    def forward(self, action: Tensor, signals: dict[str, Tensor]) -> Tensor:
        """Actions (n, actions) in [-1, 1] -> joint targets (n, joints) [rad]."""
        moved = signals["joint_target"] + action @ self.spread
        if self.lead is not None:
            angle = signals["joint_position"]
            moved = torch.minimum(torch.maximum(moved, angle - self.lead), angle + self.lead)
        moved = torch.minimum(torch.maximum(moved, self.low), self.high)
        return torch.where(self.active, moved, self.default)


class ScaleDecoder(nn.Module):
    """target = low + (action + 1) / 2 · (high - low).

    For wheels, whose targets are speeds, and for tasks in simulation only.

    Args:
        low, high: (actions,) ends of each target's range.
    """

    middle: Tensor
    reach: Tensor

    def __init__(self, low: Tensor, high: Tensor):
        super().__init__()
        self.signals = ()
        self.num_actions = len(low)
        self.register_buffer("middle", (0.5 * (low + high)).float())
        self.register_buffer("reach", (0.5 * (high - low)).float())

    def forward(self, action: Tensor, signals: dict[str, Tensor]) -> Tensor:
        """Actions (n, actions) in [-1, 1] -> targets (n, actions)."""
        return self.middle + self.reach * action


class JointOffsetDecoder(nn.Module):
    """target = clip(home + scale · action): what walking policies use.

    A pose belongs to each action, so nothing integrates; zero is the home pose. Two things may hold
    a target back, and both start from the signal `joint_target`, what was sent last, so there is no
    memory that a governor or a reset could make wrong: a filter (target = smoothing · last +
    (1 - smoothing) · new), and `step`, the most it may move in a tick, which makes the contract's
    velocity limit true by construction.

    Args:
        scale: of the action [rad].
        step: largest change per tick [rad].
        low, high: (joints,) limits of the targets [rad].
        home: (joints,) [rad].
        smoothing: in [0, 1); 0 is no filter.
    """

    low: Tensor
    high: Tensor
    home: Tensor

    def __init__(
        self,
        *,
        scale: float,
        step: float,
        low: Tensor,
        high: Tensor,
        home: Tensor,
        smoothing: float = 0.0,
    ):
        super().__init__()
        self.signals = ("joint_target",)
        self.num_actions = len(home)
        self.scale, self.step, self.smoothing = scale, step, smoothing
        self.register_buffer("low", low.float())
        self.register_buffer("high", high.float())
        self.register_buffer("home", home.float())

    def forward(self, action: Tensor, signals: dict[str, Tensor]) -> Tensor:
        """Actions (n, joints) in [-1, 1] -> joint targets (n, joints) [rad]."""
        last = signals["joint_target"]
        move = (1 - self.smoothing) * (self.home + self.scale * action - last)
        target = last + move.clamp(-self.step, self.step)
        return torch.minimum(torch.maximum(target, self.low), self.high)
