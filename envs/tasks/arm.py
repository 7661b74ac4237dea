"""What the tasks of an arm on a desk share: their settings, and how an end of a command is judged.

Such a task moves some joints of an arm by steps of their targets, to bring the tool, or a thing, to
a point that is drawn anew every few seconds. How well it did is told by the last second of each.
"""

import operator
from typing import Annotated

import torch
from pydantic import Field, model_validator
from torch import Tensor

from deploy.quantities import Duration, Length, Name, Speed
from envs.action_decoder import JointStepDecoder
from envs.commands import UniformCommand
from envs.robot import Robot
from envs.robot_joints import RobotJoints
from envs.tasks.settings import RobotTaskConfig, count_steps, require_names
from envs.worlds import Worlds

Point = tuple[Length, Length, Length]
MEASURED = ("joint_position", "joint_velocity")
SETTLED_S = 1.0
"""The end of a target's time, over which the error counts."""


class ArmConfig(RobotTaskConfig):
    """Settings of the task."""

    robot: str = "desk_arm"
    episode_s: Duration = 12.0
    arm_joints: Annotated[list[Name], Field(min_length=1)] = [
        "shoulder_pan",
        "shoulder_lift",
        "elbow_flex",
        "wrist_flex",
        "wrist_roll",
    ]
    """Joints the policy moves; the others hold the home pose."""
    site: str = "tool"
    """Site of the robot that touches or reaches."""
    target_low_m: Point = (0.12, -0.14, 0.05)
    """Low corner of the box of targets, base frame."""
    target_high_m: Point = (0.22, 0.14, 0.20)
    """High corner of the box of targets."""
    target_interval_s: tuple[Duration, Duration] = (2.0, 4.0)
    """Time between targets."""
    max_joint_speed_rad_s: Speed = 2.0
    """Fastest change of a joint target."""
    limit_margin_rad: Annotated[float, Field(ge=0, le=1)] = 0.03
    """Targets stay this far inside the joint limits."""
    start_spread_rad: Annotated[float, Field(ge=0, le=7)] = 0.4
    """Episodes start this far around the home pose."""
    history: Annotated[int, Field(ge=1, le=100)] = 3
    """Ticks the policy sees."""

    @model_validator(mode="after")
    def _check(self) -> "ArmConfig":
        if len(set(self.arm_joints)) < len(self.arm_joints):
            raise ValueError(f"arm_joints must be different joints, found {self.arm_joints}")
        shortest, longest = self.target_interval_s
        if not shortest <= longest:
            raise ValueError(
                f"target_interval_s must be [shortest, longest], found {shortest, longest}"
            )
        if any(map(operator.gt, self.target_low_m, self.target_high_m)):
            raise ValueError(
                f"target_low_m {self.target_low_m} is not below target_high_m {self.target_high_m}"
            )
        return self

    def check_robot(self, robot: Robot) -> None:
        """Check that a robot can do it: it stands fast and has these joints and this site.

        Raises:
            ConfigError: lists what is missing, or names the nearest that is there.
        """
        robot.check(fixed_base=True)
        model = robot.model
        require_names("arm_joints", self.arm_joints, robot.joints, f"joint of {self.robot}")
        sites = [model.site(index).name for index in range(model.nsite)]
        require_names("site", [self.site], sites, "site")

    def decoder(self, joints: RobotJoints) -> JointStepDecoder:
        """From actions to joint targets."""
        return JointStepDecoder(
            joints.names,
            self.arm_joints,
            step=self.max_joint_speed_rad_s * self.control_dt_s,
            low=joints.low,
            high=joints.high,
            default=joints.home,
        )


class Settling:
    """Means over the last second of each command.

    Args:
        command: where targets come from.
        count: how many quantities.
        control_dt_s: period of the policy [s].
    """

    def __init__(self, command: UniformCommand, count: int, *, control_dt_s: float):
        self._command = command
        self._steps = count_steps(SETTLED_S, control_dt_s)
        self.mean = torch.zeros(len(command.steps), count, device=command.steps.device)
        """(num_envs, count) so far; complete when the command ends."""

    def add(self, *values: Tensor) -> None:
        """Count a step that a command has just gone through, (num_envs,) for each quantity."""
        length = self._command.steps.clamp(max=self._steps)
        settling = (self._command.remaining < length) / length
        self.mean += settling[:, None] * torch.stack(values, dim=1)

    def restart(self, worlds: Worlds) -> None:
        """Begin anew with a new command."""
        worlds.put(self.mean, 0)


def desk(height: Tensor, clearance_m: float = 0.02) -> Tensor:
    """How far the tool is below a clearance over the desk, as a share of it."""
    return torch.relu(clearance_m - height) / clearance_m


TRUTH = (
    "true_joint_position",
    "true_joint_velocity",
    "joint_target",
    "friction_loss",
    "actuator_delay",
)
"""What `joint_truth` returns, a number for each joint."""


def joint_truth(joints: RobotJoints, worlds: Worlds) -> dict[str, Tensor]:
    """What the critic may know of the arm, (n, joints) each."""
    values = joints.angle, joints.speed, joints.target, joints.friction_loss, 50 * joints.delay
    return {name: worlds.take(value) for name, value in zip(TRUTH, values, strict=True)}
