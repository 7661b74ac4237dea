"""Lift: grasp a cube, lift it to a point, hold it there, carry it to the next point.

The command is a point over the desk in the base frame. Rewards draw the pinch point, midway between
fingertips that are at least as far apart as the cube is wide, to the cube, both fingers to its
sides and against them, and the cube to its goal. The gripper is a jaw on a hinge that opens with a
growing angle; its finger meets the tool when it is closed. What is shared with pushing, what the
actor sees and when an episode fails stands in `envs.tasks.arm_object`.
"""

from collections.abc import Mapping, Sequence
from typing import Annotated

import mujoco
import numpy as np
import torch
from pydantic import Field, model_validator
from torch import Tensor

from deploy.configuration import Section, did_you_mean
from deploy.errors import ConfigError
from deploy.quantities import Duration, Name
from envs.draws import Draws
from envs.objects import OBJECT, Thing, with_object
from envs.reach_features import XYZ
from envs.rewards import closeness, mean_square
from envs.robot import Robot
from envs.robot_joints import RobotJoints
from envs.simulation import Simulation
from envs.tasks.arm import Point, desk
from envs.tasks.arm_object import ArmObject, ArmObjectConfig
from envs.tasks.settings import Weight, require_names
from envs.worlds import Worlds, as_slice

_GRASP_N = 1.0
"""A finger that presses this hard holds."""
_LIFTED_M = 0.02
"""A cube this far over the desk is lifted."""


class LiftWeights(Section):
    """Weights of the reward terms; see `ArmLift.rewards`."""

    approach: Weight = 0.5
    pinch: Weight = 0.5
    grasp: Weight = 0.5
    lift: Weight = 1.0
    carry: Weight = 1.0
    hold: Weight = 2.0
    action_rate: Weight = -0.1
    joint_speed: Weight = -0.02
    posture: Weight = -0.02
    desk: Weight = -0.5
    strain: Weight = -0.5


class ArmLiftConfig(ArmObjectConfig):
    """Settings of the task."""

    arm_joints: Annotated[list[Name], Field(min_length=1)] = [
        "shoulder_pan",
        "shoulder_lift",
        "elbow_flex",
        "wrist_flex",
        "wrist_roll",
        "gripper",
    ]
    """Joints the policy moves; the others hold the home pose."""
    gripper: Name = "gripper"
    """Joint of the finger that meets the tool; closed at the low end of its range."""
    grip_effort: Annotated[float, Field(gt=0, le=0.9)] = 0.5
    """Share of its torque that the gripper is asked for at most: a servo that holds a thing for
    long has to stay cool. A motor that is stronger than its data sheet gives more."""
    thing: Thing = Thing(shape="cube", width_m=0.02, height_m=0.02, mass_kg=0.02, friction=0.8)
    start_yaw_rad: Annotated[float, Field(ge=0, le=3.2)] = 0.2
    """It starts with a side towards the base, turned by up to this much."""
    target_low_m: Point = (0.12, -0.12, 0.06)
    """Low corner of the box of goals."""
    target_high_m: Point = (0.22, 0.12, 0.14)
    """High corner of the box of goals."""
    target_interval_s: tuple[Duration, Duration] = (4.0, 6.0)
    """Time between goals."""
    rewards: LiftWeights = LiftWeights()

    @model_validator(mode="after")
    def _check_gripper(self) -> "ArmLiftConfig":
        moved = [name for name in self.arm_joints if name != self.gripper]
        if moved == self.arm_joints:
            near = did_you_mean(self.gripper, moved)
            raise ValueError(
                f"gripper: {self.gripper!r}{near} is not among arm_joints {moved}; add it"
            )
        if not moved:
            raise ValueError(
                f"arm_joints {self.arm_joints} must hold, beside the gripper {self.gripper!r}, "
                "a joint that moves it; add one"
            )
        return self

    def boxes(self, robot: Robot) -> Mapping[str, tuple[Point, Point]]:
        """See `ArmConfig.boxes`: where the cube starts, and its goals."""
        z = self.height_m(robot)
        starts = (*self.start_low_m, z), (*self.start_high_m, z)
        return {"start_low_m, start_high_m": starts, **super().boxes(robot)}

    @property
    def carrying(self) -> list[int]:
        """Places in `arm_joints` of all but the gripper."""
        return [place for place, name in enumerate(self.arm_joints) if name != self.gripper]


def grip(tool: Tensor, tip: Tensor, forces: Tensor) -> Tensor:
    """How hard a thing is held between two fingers [N]: the weaker push towards the other finger.

    Args:
        tool: (n, 3) where the first finger ends [m].
        tip: (n, 3) where the other ends [m].
        forces: (n, 2, 3) what the finger of `tool` and the other do to the thing [N].

    Returns:
        (n,) at least 0.
    """
    across = torch.nn.functional.normalize(tip - tool, dim=1)
    return torch.minimum(
        (forces[:, 0] * across).sum(dim=1), -(forces[:, 1] * across).sum(dim=1)
    ).clamp(min=0)


def fingers_of(robot: Robot, config: ArmLiftConfig) -> tuple[list[str], np.ndarray]:
    """The bodies of both fingers, and where the second ends.

    Returns:
        Their names, that with the tool first; (3,) the point of the second, in its body's frame,
        that meets the tool when the gripper is closed [m].

    Raises:
        ConfigError: the robot has no such gripper.
    """
    config.check_robot(robot)
    model = robot.model
    require_names("gripper", [config.gripper], robot.joints, f"joint of {config.robot}")
    joint, data = model.joint(config.gripper), mujoco.MjData(model)
    data.qpos[joint.qposadr] = joint.range[0]
    mujoco.mj_kinematics(model, data)
    body = int(model.jnt_bodyid[joint.id])
    rotation = data.xmat[body].reshape(3, 3)
    tip = rotation.T @ (data.site(config.site).xpos - data.xpos[body])
    tool_body = model.site_bodyid[model.site(config.site).id]
    return [model.body(tool_body).name, model.body(body).name], tip


def check_width(robot: Robot, config: ArmLiftConfig, finger: str, tip: np.ndarray) -> None:
    """Check that the fingers open wider than the thing.

    Args:
        robot: whose fingers they are.
        config: says how wide the thing is.
        finger: the body of the second.
        tip: (3,) where that ends, see `fingers_of` [m].

    Raises:
        ConfigError: they do not.
    """
    joint, data = robot.model.joint(config.gripper), mujoco.MjData(robot.model)
    data.qpos[joint.qposadr] = joint.range[1]
    mujoco.mj_kinematics(robot.model, data)
    body = data.body(finger)
    end = body.xpos + body.xmat.reshape(3, 3) @ tip
    gap_m = float(np.linalg.norm(end - data.site(config.site).xpos))
    if gap_m <= config.thing.width_m:
        raise ConfigError(
            f"thing.width_m: {config.thing.width_m:.3f} m, but the fingers of {config.robot} open "
            f"to {gap_m:.3f} m; choose a narrower thing"
        )


class ArmLift(ArmObject):
    """See the module docstring.

    Args:
        simulation: the worlds, of the config's robot and cube.
        config: settings.
        draws: the run's random numbers.
    """

    Config = ArmLiftConfig
    config: ArmLiftConfig
    axes = XYZ
    scores = ("lift_error_m", "lifted")

    @staticmethod
    def load_model(config: ArmLiftConfig) -> mujoco.MjModel:
        """The model to simulate."""
        robot = config.load_robot()
        fingers, tip = fingers_of(robot, config)
        model = with_object(robot, config.thing, fingers=fingers)
        check_width(robot, config, fingers[1], tip)
        return model

    def __init__(self, simulation: Simulation, config: ArmLiftConfig, draws: Draws):
        super().__init__(simulation, config, draws)
        model, device = simulation.model, simulation.device
        lead = self.decoder.lead
        assert lead is not None
        self.deployment = self.deployment._replace(
            joints=[
                spec.model_copy(update={"lead_rad": ahead}) if spec.name == config.gripper else spec
                for spec, ahead in zip(self.deployment.joints, lead.tolist(), strict=True)
            ]
        )
        names, tip = fingers_of(config.load_robot(), config)
        body = model.body(names[1]).id
        self._carrying = as_slice(torch.tensor(config.carrying, device=device))
        self._place = simulation.data("xpos")[:, body]
        self._turn = simulation.data("xmat")[:, body]
        self._offset = torch.from_numpy(tip).float().to(device)
        starts = [int(model.sensor(f"{OBJECT}/{name}").adr[0]) for name in names]
        sensors = simulation.data("sensordata")
        self._forces = [sensors[:, start : start + 3] for start in starts]
        self.privileged = {
            **self.privileged,
            "true_pinch": XYZ,
            "grip": ("",),
            "lift": ("",),
        }

    @property
    def tip(self) -> Tensor:
        """(num_envs, 3) end of the finger that the gripper moves [m]."""
        turn = self._turn.float().view(-1, 3, 3)
        return self._place.float() + turn @ self._offset

    @property
    def pinch(self) -> Tensor:
        """(num_envs, 3) midway between the fingertips [m]."""
        return (self.tool + self.tip) / 2

    @property
    def width(self) -> Tensor:
        """(num_envs,) of the cube [m]."""
        return 2 * self._size[:, 0].float()

    @property
    def grip(self) -> Tensor:
        """(num_envs,) see `grip` [N]."""
        forces = torch.stack([force.float() for force in self._forces], dim=1)
        return grip(self.tool, self.tip, forces)

    def score(self) -> Sequence[Tensor]:
        """Distance of the cube from its goal [m]; whether it is lifted."""
        distance = torch.linalg.vector_norm(self.way, dim=1)
        return distance, (self.object.lift > _LIFTED_M).float()

    def rewards(self, action: Tensor, previous_action: Tensor) -> dict[str, Tensor]:
        """See `Task.rewards`."""
        weights, joints = self.config.rewards, self._joints
        reach = torch.linalg.vector_norm(self.pinch - self.object.position, dim=1)
        distance = torch.linalg.vector_norm(self.way, dim=1)
        lifted = (self.object.lift / _LIFTED_M).clamp(0, 1)
        gap = torch.linalg.vector_norm(self.tip - self.tool, dim=1)
        around = (gap / self.width).clamp(max=1)  # closed fingers could only stand on it
        near, fitting = closeness(reach, 0.02), around * (self.width / gap).clamp(max=1)
        # part of it before they touch, else some stay open for good
        grasp = torch.maximum((self.grip / _GRASP_N).clamp(max=1), near * fitting / 2)
        bent = (joints.angle[:, self._arm] - self._arm_home)[:, self._carrying]
        return {
            "approach": weights.approach * around * closeness(reach, 0.1),
            "pinch": weights.pinch * around * near,
            "grasp": weights.grasp * grasp,
            "lift": weights.lift * lifted,
            "carry": weights.carry * lifted * closeness(distance, 0.1),  # finds the way
            "hold": weights.hold * lifted * closeness(distance, 0.02),  # makes it precise
            "action_rate": weights.action_rate * mean_square(action - previous_action),
            "joint_speed": weights.joint_speed * mean_square(joints.speed[:, self._arm]),
            "posture": weights.posture * mean_square(bent),
            "desk": weights.desk * desk(self.clearance, 0.005),
            "strain": weights.strain * self.strain(),
        }

    def _lead(self, joints: RobotJoints) -> Tensor:
        """See `ArmObject`; less for the gripper."""
        lead, gripper = super()._lead(joints), joints.columns([self.config.gripper])
        lead[gripper] = joints.lead(self.config.grip_effort)[gripper]
        return lead

    def observe_privileged(self, worlds: Worlds) -> dict[str, Tensor]:
        """Truth about thing, arm and grasp."""
        return {
            **super().observe_privileged(worlds),
            "true_pinch": worlds.take(self.object.position - self.pinch),
            "grip": worlds.take(self.grip)[:, None] / _GRASP_N,
            "lift": worlds.take(self.object.lift)[:, None],
        }
