"""What pushing and lifting share: a thing on the desk that the arm brings to a goal.

The actor sees measured joints, the targets last sent, the goal, and where the thing is as a camera
would tell it: the signal `object_position`, late and noisy as the randomization says. The critic
sees the truth. A thing that leaves the ground between starts and goals ends the episode as a
failure, and so does a joint that is blocked for so long that a robot would be stopped: no value is
bootstrapped, so all that could still have been earned there is lost.
"""

from collections.abc import Sequence
from typing import Annotated, Any, ClassVar

import torch
from pydantic import Field, model_validator
from torch import Tensor

from deploy.contract import CommandSpec
from deploy.quantities import Length
from envs.blocked_joints import LIMITS, BlockedJoints
from envs.draws import Draws, Stream
from envs.forward_kinematics import ForwardKinematics
from envs.object_features import ObjectFeatures
from envs.objects import OBJECT, FreeObject, Thing, desk_height, outside
from envs.observation_encoder import ObservationEncoder
from envs.reach_features import XYZ
from envs.rewards import mean_square
from envs.robot import Robot
from envs.robot_joints import RobotJoints
from envs.sensors import SensorReader
from envs.simulation import Simulation, State
from envs.task import Deployment
from envs.tasks.arm import MEASURED, TRUTH, ArmConfig, SettlingCommand, joint_truth
from envs.tasks.settings import count_steps
from envs.worlds import Worlds, choose

Spot = tuple[Length, Length]


class ArmObjectConfig(ArmConfig):
    """Settings of the task."""

    thing: Thing
    """What lies on the desk."""
    start_low_m: Spot = (0.12, -0.12)
    """Low corner of the ground where the thing starts, base frame."""
    start_high_m: Spot = (0.22, 0.12)
    """High corner of the ground."""
    start_yaw_rad: Annotated[float, Field(ge=0, le=3.2)] = 0.0
    """It starts with a side towards the base, turned by up to this much."""
    lost_margin_m: Annotated[float, Field(ge=0, le=1)] = 0.06
    """A thing this far outside the ground of starts and goals is lost."""

    @model_validator(mode="after")
    def _check_start(self) -> "ArmObjectConfig":
        (x, y), (far_x, far_y) = self.start_low_m, self.start_high_m
        if x > far_x or y > far_y:
            raise ValueError(
                f"start_low_m {self.start_low_m} is not below start_high_m {self.start_high_m}"
            )
        return self

    @property
    def ground(self) -> tuple[Spot, Spot]:
        """Low and high corner of the ground that holds all starts and goals."""
        low, high = (self.start_low_m, self.target_low_m), (self.start_high_m, self.target_high_m)
        return (
            (min(p[0] for p in low), min(p[1] for p in low)),
            (max(p[0] for p in high), max(p[1] for p in high)),
        )

    def height_m(self, robot: Robot) -> float:
        """Of a thing's middle where it lies, base frame [m]."""
        return desk_height(robot.model) + self.thing.height_m / 2


class ArmObject:
    """A task with a thing, but for its rewards; see the module docstring.

    Args:
        simulation: the worlds, of the config's robot and thing.
        config: settings.
        draws: the run's random numbers.
    """

    axes: ClassVar[Sequence[str]]
    """Those of x, y, z that a goal has."""
    scores: ClassVar[Sequence[str]]
    """What `score` returns: names of metrics, each of which is a mean over the last second of a
    command; where the episode fails, what it is at that moment."""

    def __init__(self, simulation: Simulation, config: ArmObjectConfig, draws: Draws):
        self.config = config
        self._draws, self._compact = draws, simulation.compact
        robot = config.load_robot()
        config.check_robot(robot)
        config.check_reach(robot)
        model, device, dt = simulation.model, simulation.device, config.control_dt_s
        self.control_dt_s, self.num_substeps = dt, config.num_substeps(model)
        self.episode_steps = count_steps(config.episode_s, dt)
        joints = self._joints = RobotJoints(simulation, robot, margin_rad=config.limit_margin_rad)
        self._arm = joints.columns(config.arm_joints)
        self._arm_home = joints.home[self._arm].float()
        self.encoder = ObservationEncoder(
            self._features(robot), config.history, changes=["joint_target"]
        ).to(device)
        self.decoder = config.decoder(joints, self._lead(joints)).to(device)
        self.actuators = joints.actuators
        size = len(self.axes)
        low, high = config.target_low_m[:size], config.target_high_m[:size]
        self.deployment = Deployment(
            robot,
            joints.specs(config.max_joint_speed_rad_s),
            CommandSpec(
                name="object_goal",
                elements=list(self.axes),
                unit="m",
                frame="base",
                low=list(low),
                high=list(high),
                interval_s=config.target_interval_s,
            ),
        )
        self.signals = {
            **dict.fromkeys(MEASURED, joints.names),
            "object_position": XYZ,
            "command": self.axes,
        }
        self.privileged = {
            "true_way": self.axes,
            "true_reach": XYZ,
            "object_velocity": XYZ,
            "object_size": XYZ,
            "object_friction": ("",),
            "object_mass": ("",),
            **dict.fromkeys(TRUTH, joints.names),
        }
        self._sensors = SensorReader(simulation, robot.sensors(MEASURED))
        self._tool = simulation.data("site_xpos")[:, model.site(config.site).id]
        self.object = FreeObject(simulation)
        geom, body = model.geom(OBJECT).id, model.body(OBJECT).id
        self._size = simulation.field("geom_size")[:, geom]
        self._friction = simulation.field("geom_friction")[:, geom, :1]
        self._mass = simulation.field("body_mass")[:, body, None]
        self._command = SettlingCommand(
            simulation, draws, config, axes=size, count=len(self.scores)
        )
        self._lost = torch.zeros(simulation.num_envs, dtype=torch.bool, device=device)
        self._blocked = torch.zeros_like(self._lost)
        self._blocked_joints = BlockedJoints(
            joints, step_rad=config.max_joint_speed_rad_s * dt, control_dt_s=dt
        )

    @property
    def command(self) -> Tensor:
        """(num_envs, axes) where the thing should be, base frame [m]."""
        return self._command.value

    @property
    def way(self) -> Tensor:
        """(num_envs, axes) true way of the thing to its goal [m]."""
        return self.command - self.object.position[:, : len(self.axes)]

    @property
    def tool(self) -> Tensor:
        """(num_envs, 3) true position of the tool [m]."""
        return self._tool.float()

    @property
    def clearance(self) -> Tensor:
        """(num_envs,) of the tool over the desk [m]."""
        return self.tool[:, 2] - self.object.desk_m

    def initial_state(self, worlds: Worlds, episode: Tensor) -> State:
        """See `Task.initial_state`."""
        config = self.config
        state = self._joints.start(worlds, episode, self._draws, spread_rad=config.start_spread_rad)
        (u,) = self._draws.uniform([Stream("initial_object", 3)], worlds.ids, episode)
        (x, y), (far_x, far_y) = config.start_low_m, config.start_high_m
        spot = torch.stack([x + (far_x - x) * u[:, 0], y + (far_y - y) * u[:, 1]], dim=1)
        yaw = torch.atan2(spot[:, 1], spot[:, 0]) + config.start_yaw_rad * (2 * u[:, 2] - 1)
        self.object.put_down(state.qpos, worlds, spot, yaw)
        self._command.renew(worlds)
        self._blocked_joints.forget(worlds)
        return state

    def measure(self, worlds: Worlds) -> dict[str, Tensor]:
        """See `Task.measure`."""
        return self._sensors.read(worlds) | {
            "object_position": worlds.take(self.object.position).clone(),
            "command": worlds.take(self.command).clone(),
        }

    def score(self) -> Sequence[Tensor]:
        """(num_envs,) for each of `scores`, now."""
        raise NotImplementedError

    def rewards(self, action: Tensor, previous_action: Tensor) -> dict[str, Tensor]:
        """See `Task.rewards`."""
        raise NotImplementedError

    def strain(self) -> Tensor:
        """(num_envs,) by how much motors give more than half of what they can; 1 for all of all."""
        return 4 * mean_square(torch.relu(self._joints.effort.abs() - 0.5))

    def lost(self) -> Tensor:
        """(num_envs,) bool: the thing left the ground on which it can be reached."""
        low, high = self.config.ground
        return outside(self.object.position[:, :2], low, high, self.config.lost_margin_m)

    def terminated(self) -> Tensor:
        """See `Task.terminated`: the thing is lost, or a joint is blocked."""
        self._lost = self.lost()
        self._blocked = self._blocked_joints.update()
        return self._lost | self._blocked

    def advance(self) -> tuple[dict[str, Tensor], Tensor]:
        """See `Task.advance` and `scores`.

        `lost` and `blocked` are the shares of commands that ended for the one or the other.
        """
        failed, now = self._lost | self._blocked, self.score()
        ended = self._command.advance(*now)
        means = torch.where(failed[:, None], torch.stack(list(now), dim=1), self._command.mean)
        metrics = dict(zip(self.scores, means.unbind(1), strict=True))
        metrics |= {"lost": self._lost.float(), "blocked": self._blocked.float()}
        worlds = choose(ended, compact=self._compact)
        if not worlds.none:
            self._command.renew(worlds)
        return metrics, ended | failed

    def observe_privileged(self, worlds: Worlds) -> dict[str, Tensor]:
        """Truth about thing and arm."""
        thing = self.object
        return {
            "true_way": worlds.take(self.way),
            "true_reach": worlds.take(thing.position - self.tool),
            "object_velocity": worlds.take(thing.velocity),
            "object_size": worlds.take(self._size).float(),
            "object_friction": worlds.take(self._friction).float(),
            "object_mass": worlds.take(self._mass).float(),
            **joint_truth(self._joints, worlds),
        }

    def state_dict(self) -> dict[str, Any]:
        """See `Task.state_dict`."""
        return {
            "command": self._command.state_dict(),
            "blocked_joints": self._blocked_joints.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """See `Task.load_state_dict`."""
        self._command.load_state_dict(state["command"])
        if "blocked_joints" in state:  # earlier versions had none
            self._blocked_joints.load_state_dict(state["blocked_joints"])

    def _lead(self, joints: RobotJoints) -> Tensor:
        """(joints,) farthest a target is from its joint [rad]: nothing is pushed harder than that.

        It takes 3/4 of a servo's torque; 9/10 where the governor does not mind the distance yet,
        which a stiff joint needs to move.
        """
        near = joints.lead(0.9).clamp(max=0.9 * LIMITS.following_error_rad)
        return torch.maximum(joints.lead(0.75), near)

    def _features(self, robot: Robot, push_m: float | None = None) -> ObjectFeatures:
        """What the actor makes of its signals."""
        config, home = self.config, torch.from_numpy(robot.home)
        arm = [robot.joints.index(name) for name in config.arm_joints]
        kinematics = ForwardKinematics(robot.model, config.site, robot.joints)
        return ObjectFeatures(kinematics, robot.joints, arm, home, self.axes, push_m)
