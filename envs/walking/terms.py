"""What a walk is rewarded for: settings, and the terms as one pure function of a step.

A term is of order 1 where a robot does badly, or where it does well if it is earned; its weight,
with the sign, stands in `WalkWeights`. Lengths are compared with the robot's own (its height, the
distance of its feet), torques with the servos', so that weights carry over to another robot.
"""

from collections.abc import Sequence
from fnmatch import fnmatchcase
from typing import Annotated, NamedTuple

import numpy as np
import torch
from pydantic import Field, model_validator
from torch import Tensor

from deploy.configuration import Section
from deploy.errors import ConfigError
from deploy.quantities import Duration, Name
from envs.rewards import beyond, kernel, masked_mean, mean_square, progress
from envs.robot import Robot
from envs.tasks.settings import Weight
from envs.walking.legs import Legs, Motion

Share = Annotated[float, Field(ge=0, le=1)]
Width = Annotated[float, Field(ge=1e-6, le=1000)]
TURN_M = 0.2
"""Arm on which a turning speed counts as a speed: 1 rad/s is worth 0.2 m/s."""
_CROSSING, _SOFT_LIMIT = 0.7, 0.9
"""Feet closer to the middle than this share of home, and joints beyond this share of their range,
are penalised."""


class Gait(Section):
    """When each foot should be down; see `envs.walking.gait`."""

    feet: Annotated[dict[Name, Share], Field(min_length=1)] = {"left_foot": 0.0, "right_foot": 0.5}
    """Geoms that touch the ground, and how far each is ahead in the gait."""
    period_s: Duration = 0.5
    """Time of a stride of each foot."""
    stance_share: Annotated[float, Field(ge=0.05, le=0.95)] = 0.55
    """Share of it that a foot is down."""
    lift_m: Annotated[float, Field(gt=0, le=10)] = 0.02
    """How high it swings."""
    contact_m: Annotated[float, Field(gt=0, le=1)] = 0.0015
    """A foot lower than this is down."""

    @model_validator(mode="after")
    def _check(self) -> "Gait":
        if self.contact_m >= self.lift_m:
            raise ValueError(
                f"contact_m {self.contact_m} is not below lift_m {self.lift_m}: a foot would be "
                "down as it swings. Lower contact_m"
            )
        return self


class WalkWeights(Section):
    """Weights of the terms of `walk_terms`, and the widths of the kernels of two of them."""

    velocity: Weight = 3.0
    velocity_width: Width = 0.02
    """[m²/s²]"""
    yaw_rate: Weight = 1.5
    yaw_rate_width: Width = 0.25
    """[rad²/s²]"""
    progress: Weight = 1.0
    gait: Weight = 1.5
    swing: Weight = -1.0
    slip: Weight = -2.0
    flat: Weight = -0.3
    crossing: Weight = -0.5
    upright: Weight = 1.0
    sway: Weight = -0.04
    bounce: Weight = -0.5
    height: Weight = -1.0
    action_rate: Weight = -0.1
    action_jerk: Weight = -0.03
    torque: Weight = -0.4
    power: Weight = -0.01
    joint_limits: Weight = -1.0
    pose: Weight = -0.3
    still: Weight = -0.1
    alive: Weight = 0.5
    fall: Weight = -1.0


class Stage(Section):
    """What differs from the other settings until so many steps have been made, in all worlds."""

    until_steps: Annotated[float, Field(gt=0, le=1e15)]
    rewards: dict[str, Weight] = {}
    """Of `WalkWeights`."""
    command: dict[str, Share] = {}
    """Shares, of `VelocityCommandConfig`."""


class Reference(NamedTuple):
    """What a step is compared with."""

    home: Tensor
    """(joints,) [rad]"""
    low: Tensor
    high: Tensor
    """(joints,) joint range less its outer part [rad]."""
    effort: Tensor
    """(joints,) largest torque of the servos [N·m]."""
    pose_weights: Tensor
    """(joints,)"""
    height: float
    """Of the base [m]."""
    foot_side: Tensor
    """(feet,) how far each is to the left [m]."""
    gait: Gait


class Step(NamedTuple):
    """A control step that was made, in all worlds; float32."""

    motion: Motion
    twist: Tensor
    """(n, 3) smoothed speed forward, to the left, and of turning."""
    command: Tensor
    """(n, 3) what was asked for."""
    moving: Tensor
    """(n,) bool: whether that is to move."""
    stepping: Tensor
    """(n,) bool: whether the robot is to step, as it is to move or tips over."""
    down: Tensor
    """(n, feet) bool: whether the gait has them down."""
    lift: Tensor
    """(n, feet) how high the gait has them, in [0, 1]."""
    angle: Tensor
    speed: Tensor
    torque: Tensor
    """(n, joints) [rad, rad/s, N·m]."""
    change: Tensor
    second_change: Tensor
    """(n, joints) first and second difference of the action."""
    fallen: Tensor
    """(n,) bool"""


def reference(robot: Robot, legs: Legs, gait: Gait, pose: dict[str, float]) -> Reference:
    """The robot at home, on the device of `legs`."""
    device = legs.home_foot_side.device
    low, high = robot.target_range(0.0)
    middle, reach = 0.5 * (low + high), 0.5 * _SOFT_LIMIT * (high - low)
    rows = (robot.home, middle - reach, middle + reach, robot.max_torque)
    home, low, high, effort = (torch.from_numpy(np.array(row)).float().to(device) for row in rows)
    return Reference(
        home=home,
        low=torch.minimum(low, home),  # home itself is never penalised
        high=torch.maximum(high, home),
        effort=effort,
        pose_weights=joint_weights(pose, robot.joints).to(device),
        height=legs.home_height,
        foot_side=legs.home_foot_side,
        gait=gait,
    )


def walk_terms(step: Step, reference: Reference, weights: WalkWeights) -> dict[str, Tensor]:
    """The weighted terms of a step, (n,) each."""
    motion, gait = step.motion, reference.gait
    error = step.twist - step.command
    down = motion.foot_height < gait.contact_m
    short = torch.relu(step.lift - motion.foot_height / gait.lift_m)
    slip = torch.linalg.vector_norm(motion.foot_velocity[..., :2], dim=-1)
    tilt = (1 - motion.foot_level.square()).clamp(min=0).sqrt()
    side = reference.foot_side
    inward = torch.relu(_CROSSING * side.abs() - motion.foot_side * side.sign()) / side.abs()
    still = mean_square(step.speed) * ~step.stepping
    return {
        "velocity": weights.velocity
        * kernel(error[:, :2].square().sum(-1), weights.velocity_width),
        "yaw_rate": weights.yaw_rate * kernel(error[:, 2].square(), weights.yaw_rate_width),
        "progress": weights.progress
        * progress(as_speed(step.twist), as_speed(step.command))
        * step.moving,
        "gait": weights.gait * (down == step.down).float().mean(-1),
        "swing": weights.swing * short.mean(-1),
        "slip": weights.slip * masked_mean(slip, down),
        "flat": weights.flat * masked_mean(tilt, down),
        "crossing": weights.crossing * inward.mean(-1),
        "upright": weights.upright * kernel(motion.up[:, :2].square().sum(-1), 0.05),
        "sway": weights.sway * motion.spin[:, :2].square().sum(-1),
        "bounce": weights.bounce * motion.velocity[:, 2].square(),
        "height": weights.height * (motion.height / reference.height - 1).abs(),
        "action_rate": weights.action_rate * mean_square(step.change),
        "action_jerk": weights.action_jerk * mean_square(step.second_change),
        "torque": weights.torque * mean_square(step.torque / reference.effort),
        "power": weights.power * (step.torque * step.speed).abs().sum(-1),
        "joint_limits": weights.joint_limits * beyond(step.angle, reference.low, reference.high),
        "pose": weights.pose
        * (reference.pose_weights * (step.angle - reference.home).square()).sum(-1),
        "still": weights.still * still,
        "alive": weights.alive * torch.ones_like(still),
        "fall": weights.fall * step.fallen.float(),
    }


def as_speed(twist: Tensor) -> Tensor:
    """(n, 3) [m/s]: the turning speed as that of a point `TURN_M` away."""
    return torch.cat([twist[:, :2], TURN_M * twist[:, 2:]], dim=-1)


def joint_weights(patterns: dict[str, float], joints: Sequence[str]) -> Tensor:
    """(joints,) the number of the last pattern that fits each name; 0 where none does.

    Raises:
        ConfigError: a pattern fits no joint.
    """
    for pattern in patterns:
        if not any(fnmatchcase(name, pattern) for name in joints):
            raise ConfigError(
                f"pose_weights: {pattern!r} fits no joint; there are {', '.join(joints)}"
            )
    return torch.tensor(
        [
            next((w for p, w in reversed(patterns.items()) if fnmatchcase(name, p)), 0.0)
            for name in joints
        ]
    )
