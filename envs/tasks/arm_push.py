"""Push: move a puck over the desk to a point, leave it there, move it to the next point.

The command is a point on the desk in the base frame. Rewards draw the tool to the far side of the
puck, seen from the goal, and the puck to the goal. What is shared with lifting, what the actor sees
and when an episode fails stands in `envs.tasks.arm_object`.
"""

from collections.abc import Mapping, Sequence

import mujoco
import torch
from torch import Tensor

from deploy.configuration import Section
from deploy.quantities import Duration
from envs.object_features import ObjectFeatures, behind
from envs.objects import Thing, with_object
from envs.rewards import closeness, mean_square
from envs.robot import Robot
from envs.tasks.arm import Point, desk
from envs.tasks.arm_object import ArmObject, ArmObjectConfig
from envs.tasks.settings import Weight

_BEHIND_M = 0.01
"""From the rim of the puck to where a push begins."""
_TIPPED = 0.8
"""Cosine of the tilt from which a puck is tipped over."""


class PushWeights(Section):
    """Weights of the reward terms; see `ArmPush.rewards`."""

    approach: Weight = 0.5
    behind: Weight = 0.5
    push: Weight = 1.0
    settle: Weight = 1.0
    action_rate: Weight = -0.1
    joint_speed: Weight = -0.02
    posture: Weight = -0.02
    desk: Weight = -0.5
    strain: Weight = -0.5


class ArmPushConfig(ArmObjectConfig):
    """Settings of the task."""

    thing: Thing = Thing(shape="puck", width_m=0.05, height_m=0.03, mass_kg=0.05, friction=0.4)
    target_low_m: Point = (0.12, -0.12, 0.0)
    """Low corner of the goals; their height is of no meaning here."""
    target_high_m: Point = (0.22, 0.12, 0.0)
    """High corner of the goals."""
    target_interval_s: tuple[Duration, Duration] = (4.0, 6.0)
    """Time between goals."""
    rewards: PushWeights = PushWeights()

    @property
    def push_m(self) -> float:
        """From the middle of the puck to where a push begins."""
        return self.thing.width_m / 2 + _BEHIND_M

    def boxes(self, robot: Robot) -> Mapping[str, tuple[Point, Point]]:
        """See `ArmConfig.boxes`: before, behind and beside the puck, wherever it is."""
        (x, y), (far_x, far_y) = self.ground
        z, more = self.height_m(robot), self.push_m
        ground = "start_low_m, start_high_m, target_low_m, target_high_m, thing.width_m"
        return {
            f"{ground}: behind the puck": ((x - more, y, z), (far_x + more, far_y, z)),
            f"{ground}: beside the puck": ((x, y - more, z), (far_x, far_y + more, z)),
        }


class ArmPush(ArmObject):
    """See the module docstring."""

    Config = ArmPushConfig
    config: ArmPushConfig
    axes = ("x", "y")
    scores = ("push_error_m",)

    @staticmethod
    def load_model(config: ArmPushConfig) -> mujoco.MjModel:
        """The model to simulate."""
        return with_object(config.load_robot(), config.thing)

    def _features(self, robot: Robot, push_m: float | None = None) -> ObjectFeatures:
        return super()._features(robot, self.config.push_m)

    def score(self) -> Sequence[Tensor]:
        """Distance of the puck from its goal [m]."""
        return (torch.linalg.vector_norm(self.way, dim=1),)

    def lost(self) -> Tensor:
        """See `ArmObject.lost`: one that is tipped over rolls away."""
        return super().lost() | (self.object.upright < _TIPPED)

    def rewards(self, action: Tensor, previous_action: Tensor) -> dict[str, Tensor]:
        """See `Task.rewards`."""
        weights, joints, tool, way = self.config.rewards, self._joints, self.tool, self.way
        distance = torch.linalg.vector_norm(way, dim=1)
        start = behind(self.object.position, way, self.config.push_m)
        reach = torch.linalg.vector_norm(start - tool, dim=1)
        bent = joints.angle[:, self._arm] - self._arm_home
        return {
            "approach": weights.approach * closeness(reach, 0.1),
            "behind": weights.behind * closeness(reach, 0.02),  # not on top of it
            "push": weights.push * closeness(distance, 0.1),  # finds the way
            "settle": weights.settle * closeness(distance, 0.02),  # makes it precise
            "action_rate": weights.action_rate * mean_square(action - previous_action),
            "joint_speed": weights.joint_speed * mean_square(joints.speed[:, self._arm]),
            "posture": weights.posture * mean_square(bent),
            "desk": weights.desk * desk(self.clearance, 0.01),
            "strain": weights.strain * self.strain(),
        }
