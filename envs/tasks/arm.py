"""What the tasks of an arm on a desk share: their settings, and how an end of a command is judged.

Such a task moves some joints of an arm by steps of their targets, to bring the tool, or a thing, to
a point that is drawn anew every few seconds. How well it did is told by the last second of each.
"""

import itertools
import operator
from collections.abc import Mapping
from typing import Annotated

import numpy as np
import torch
from pydantic import Field, model_validator
from torch import Tensor

from deploy.errors import ConfigError
from deploy.quantities import Angle, Duration, Length, Name, Speed
from envs.action_decoder import JointStepDecoder
from envs.commands import UniformCommand
from envs.draws import Draws
from envs.forward_kinematics import ForwardKinematics
from envs.objects import plane_height
from envs.reach import reach_errors
from envs.robot import Robot, load_robot
from envs.robot_joints import RobotJoints
from envs.simulation import Simulation
from envs.tasks.settings import RobotTaskConfig, count_steps, require_names
from envs.worlds import Worlds

Point = tuple[Length, Length, Length]
MEASURED = ("joint_position", "joint_velocity")
SETTLED_S = 1.0
"""The end of a target's time, over which the error counts."""
_OUT_OF_REACH_M = 0.02
"""A point the tool stays this far from is out of reach."""


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
    home: dict[Name, Angle] = {}
    """Joints that start elsewhere than in the robot's home pose, and stay there if the policy does
    not move them."""
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

    def load_robot(self) -> Robot:
        """The robot, with this home.

        Raises:
            ConfigError: there is none, or it lacks a joint of `home`.
        """
        robot = load_robot(self.robot)
        if not self.home:
            return robot
        require_names("home", self.home, robot.joints, f"joint of {self.robot}")
        return robot.with_home(self.home)

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

    def boxes(self, robot: Robot) -> Mapping[str, tuple[Point, Point]]:
        """Low and high corners of boxes in which the tool is needed, by the settings behind it."""
        return {"target_low_m, target_high_m": (self.target_low_m, self.target_high_m)}

    def check_reach(self, robot: Robot) -> None:
        """Check that `boxes` are over the desk, and the tool gets to their corners somehow turned.

        Raises:
            ConfigError: it does not.
        """
        low, high = robot.target_range(self.limit_margin_rad)
        kinematics = ForwardKinematics(robot.model, self.site, robot.joints).double()
        moved = [robot.joints.index(name) for name in self.arm_joints]
        desk_m = plane_height(robot.model)
        for settings, box in self.boxes(robot).items():
            if desk_m is not None and (lowest_m := box[0][2]) < desk_m:
                raise ConfigError(
                    f"{settings}: {lowest_m:.3f} m is below the desk, whose height is {desk_m:.3f} "
                    "m; choose a box over it"
                )
            corners = np.array(list(itertools.product(*zip(*box, strict=True))))
            errors = reach_errors(
                kinematics, corners, home=robot.home, moved=moved, low=low, high=high
            )
            worst = errors.round(4).argmax()  # the first of a mirrored pair
            if errors[worst] > _OUT_OF_REACH_M:
                x, y, z = corners[worst]
                raise ConfigError(
                    f"{settings}: ({x:.3f}, {y:.3f}, {z:.3f}) m is out of reach: the site "
                    f"{self.site!r} of {self.robot} gets no nearer than "
                    f"{100 * errors[worst]:.1f} cm with {self.arm_joints}; choose a box that it "
                    "reaches, or more joints"
                )

    def decoder(self, joints: RobotJoints, lead: Tensor | None = None) -> JointStepDecoder:
        """From actions to joint targets, at most `lead` (joints,) [rad] from where joints are."""
        return JointStepDecoder(
            joints.names,
            self.arm_joints,
            step=self.max_joint_speed_rad_s * self.control_dt_s,
            low=joints.low,
            high=joints.high,
            default=joints.home,
            lead=lead,
        )


class SettlingCommand(UniformCommand):
    """Commands, and means over the last second of each.

    Args:
        simulation: the worlds.
        draws: the run's random numbers.
        config: says where targets lie and how long they last.
        axes: how many of x, y, z a target has.
        count: of how many quantities there are means.
    """

    def __init__(
        self, simulation: Simulation, draws: Draws, config: ArmConfig, *, axes: int, count: int
    ):
        super().__init__(
            simulation,
            draws,
            low=config.target_low_m[:axes],
            high=config.target_high_m[:axes],
            interval_s=config.target_interval_s,
            control_dt_s=config.control_dt_s,
        )
        self._settle_steps = count_steps(SETTLED_S, config.control_dt_s)
        self.mean = torch.zeros(simulation.num_envs, count, device=simulation.device)
        """(num_envs, count) so far; complete when the command ends."""

    def renew(self, worlds: Worlds) -> None:
        """See `UniformCommand.renew`; means begin anew."""
        super().renew(worlds)
        worlds.put(self.mean, 0)

    def advance(self, *values: Tensor, paused: Tensor | None = None) -> Tensor:
        """See `UniformCommand.advance`; counts (num_envs,) for each quantity in that step."""
        ended = super().advance(paused=paused)
        length = self.steps.clamp(max=self._settle_steps)
        settling = (self.remaining < length) / length
        self.mean += settling[:, None] * torch.stack(values, dim=1)
        return ended

    _STATE = (*UniformCommand._STATE, "mean")


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
