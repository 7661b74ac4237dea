"""What the tasks of robots that may fall share: what these measure, and targets around home."""

from collections.abc import Sequence
from typing import Annotated

from pydantic import Field

from deploy.quantities import Speed
from envs.action_decoder import JointOffsetDecoder
from envs.reach_features import XYZ
from envs.robot_joints import RobotJoints
from envs.tasks.settings import RobotTaskConfig

Scale = Annotated[float, Field(gt=0, le=7)]
Smoothing = Annotated[float, Field(ge=0, lt=1)]
MEASURED = ("imu_angular_velocity", "projected_gravity", "joint_position", "joint_velocity")


def measured(joints: Sequence[str]) -> dict[str, Sequence[str]]:
    """The signals `MEASURED`, and a name for each of their numbers."""
    return {**dict.fromkeys(MEASURED[:2], XYZ), **dict.fromkeys(MEASURED[2:], joints)}


class OffsetConfig(RobotTaskConfig):
    """Settings of a task whose actions are offsets from the home pose."""

    action_scale_rad: Scale = 0.5
    """What an action of 1 adds to the home pose."""
    target_smoothing: Smoothing = 0.0
    """Share of the last target in the next one."""
    max_target_speed_rad_s: Speed = 30.0
    """Fastest change of a joint target."""
    limit_margin_rad: Annotated[float, Field(ge=0, le=1)] = 0.02
    """Targets stay this far inside the joint limits."""

    def decoder(self, joints: RobotJoints) -> JointOffsetDecoder:
        """From actions to joint targets."""
        return JointOffsetDecoder(
            scale=self.action_scale_rad,
            step=self.max_target_speed_rad_s * self.control_dt_s,
            smoothing=self.target_smoothing,
            low=joints.low,
            high=joints.high,
            home=joints.home,
        )
