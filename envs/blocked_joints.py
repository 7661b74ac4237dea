"""Joints that do not get where they are told, which ends an episode as it would end a run.

    blocked = BlockedJoints(joints, step_rad=0.04, control_dt_s=0.02)
    stopped = blocked.update()              # (num_envs,) bool, once after each step
    blocked.forget(worlds)                  # where episodes begin

An arm that leans on the desk, or on what it should push, with all its motors have is learned easily
and stopped on the robot after half a second. This is the governor's rule for joints driven by
position (`deploy.governor.Governor.check_following`), with the limits that a robot has unless its
YAML says otherwise, and for servos as they should be: none has let go, none is hot or badly fed. As
in their firmware, distance alone asks for all a motor has.
"""

import torch
from torch import Tensor

from deploy.governor import SATURATED
from deploy.safety_config import SafetyConfig
from envs.robot_joints import RobotJoints
from envs.worlds import Worlds

LIMITS = SafetyConfig()


class BlockedJoints:
    """See the module docstring.

    Args:
        joints: of a robot driven by position.
        step_rad: farthest a target moves in a step.
        control_dt_s: how long a step takes.
    """

    def __init__(self, joints: RobotJoints, *, step_rad: float, control_dt_s: float):
        self._joints = joints
        farthest = joints.lead(SATURATED).clamp(max=LIMITS.max_step_rad - step_rad)
        self._allowed = farthest.clamp(min=LIMITS.following_error_rad)
        self._most = round(LIMITS.following_time_ms / 1000 / control_dt_s)
        self._steps = torch.zeros_like(joints.angle, dtype=torch.int64)

    def update(self) -> Tensor:
        """Count this step; (num_envs,) bool: worlds in which the governor would stop the robot."""
        astray = (self._joints.target - self._joints.angle).abs() >= self._allowed
        self._steps = (self._steps + torch.where(astray, 1, -1)).clamp_(min=0)
        return (self._steps > self._most).any(dim=1)

    def forget(self, worlds: Worlds) -> None:
        """Begin anew in some worlds."""
        worlds.put(self._steps, 0)

    def state_dict(self) -> dict[str, Tensor]:
        """See `Task.state_dict`."""
        return {"steps": self._steps.clone()}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """See `Task.load_state_dict`."""
        self._steps.copy_(state["steps"])
