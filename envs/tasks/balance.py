"""Balance: a robot on two driven wheels stays upright and follows a speed and a turning rate.

The actor sees gyro, gravity, the wheels' speeds, the last target and the command, at 100 Hz; not
the wheels' angles, which grow without end as it drives. Its action is a target speed for each
wheel. A share of the episodes starts in the keyframe `rest`, leaning on a bumper: it learns to get
up, and the others fall onto the bumpers of both sides, from where they may get up too. To go
forward, wheels first have to roll back, so the velocity that is rewarded is not smoothed, and it
counts only as far as the robot is upright: on its bumper it could drive as well.

The base's origin lies on the axle, x forward; its tyres are named by `wheels`.
"""

import math
from typing import Annotated, Any

import mujoco
import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from deploy.configuration import Section
from deploy.contract import CommandSpec
from deploy.errors import ConfigError
from deploy.quantities import Name, Period, Speed
from envs.action_decoder import ScaleDecoder
from envs.commands import TWIST, Share, Twist, VelocityCommand, VelocityCommandConfig
from envs.draws import Draws, Stream
from envs.mirror import DIRECTION_MIRROR, Mirror, imu_mirror, joint_mirror
from envs.observation_encoder import ObservationEncoder
from envs.reach_features import XYZ
from envs.rewards import kernel, mean_square
from envs.robot import load_robot
from envs.rotation import turn_quaternions
from envs.sensors import SensorReader
from envs.simulation import Simulation, State
from envs.task import Deployment
from envs.tasks.free_base import MEASURED, measured
from envs.tasks.settings import RobotTaskConfig, Weight, count_steps, require_different
from envs.walking.legs import Legs, Motion
from envs.worlds import Worlds, as_slice, choose, every

COMMAND = (TWIST[0], TWIST[2])
"""Speed forward [m/s] and of turning [rad/s]."""
SETTLED_S = 1.0
"""Start of a command, before which its error does not count."""
_UPRIGHT = 0.05
"""Squared sine of the tilt at which the robot counts as upright by a third: 13°."""


class BalanceWeights(Section):
    """Weights of the terms of `balance_terms`."""

    velocity: Weight = 2.0
    velocity_error: Weight = -0.5
    yaw_rate: Weight = 1.0
    upright: Weight = 1.0
    rocking: Weight = -0.02
    action_rate: Weight = -0.5
    torque: Weight = -0.2
    fall: Weight = -5.0


class WheelCommandConfig(VelocityCommandConfig):
    """What it is asked for; the second number of `low` and `high` is 0."""

    low: Twist = (-0.4, 0.0, -2.0)
    high: Twist = (0.4, 0.0, 2.0)
    heading_share: Share = 0.0

    @model_validator(mode="after")
    def _check_ahead(self) -> "WheelCommandConfig":
        if self.low[1] or self.high[1]:
            raise ValueError(
                f"wheels do not go sideways, found low {self.low} and high {self.high}; write 0 as "
                "the second number of each"
            )
        return self


class BalanceConfig(RobotTaskConfig):
    """Settings of the task."""

    robot: str = "balancer"
    control_dt_s: Period = 0.01
    wheels: Annotated[list[Name], Field(min_length=1, max_length=100)] = ["left_tyre", "right_tyre"]
    """Geoms that roll on the ground."""
    command: WheelCommandConfig = WheelCommandConfig()
    max_wheel_speed_rad_s: Speed = 30.0
    """What an action of 1 asks of a wheel."""
    rest_share: Annotated[float, Field(ge=0, le=1)] = 0.25
    """Episodes that start in the keyframe `rest`."""
    start_tilt_rad: Annotated[float, Field(ge=0, le=3.2)] = 0.2
    """The others start with up to so much pitch."""
    max_tilt_rad: Annotated[float, Field(gt=0, le=3.2)] = 1.0
    """One that is tilted more has fallen."""
    rewards: BalanceWeights = BalanceWeights()

    @model_validator(mode="after")
    def _check_start(self) -> "BalanceConfig":
        require_different("wheels", self.wheels)
        if self.start_tilt_rad >= self.max_tilt_rad:
            raise ValueError(
                f"start_tilt_rad {self.start_tilt_rad} is not below max_tilt_rad "
                f"{self.max_tilt_rad}, where it has fallen: episodes would end as they start. "
                "Lower start_tilt_rad"
            )
        return self


class BalanceFeatures(nn.Module):
    """What the robot measures, was told last and is asked for, as it is.

    Args:
        joints: names of the wheels' joints.
    """

    def __init__(self, joints: list[str]):
        super().__init__()
        self.columns = {
            **dict.fromkeys(("imu_angular_velocity", "projected_gravity"), XYZ),
            "command": COMMAND,
            **dict.fromkeys(("joint_velocity", "joint_target_velocity"), joints),
        }
        self.signals = tuple(self.columns)

    def forward(self, signals: dict[str, Tensor]) -> dict[str, Tensor]:
        """Signals (n, ...) -> features (n, columns)."""
        return {name: signals[name] for name in self.columns}


def balance_terms(
    motion: Motion,
    command: Tensor,
    change: Tensor,
    effort: Tensor,
    fallen: Tensor,
    weights: BalanceWeights,
) -> dict[str, Tensor]:
    """The weighted terms of a step, (n,) each.

    Args:
        motion: of the base.
        command: (n, 2) speed forward and of turning that is asked for [m/s, rad/s].
        change: (n, wheels) of the action.
        effort: (n, wheels) torque as a share of the servo's largest.
        fallen: (n,) bool.
        weights: of the terms.
    """
    error = motion.twist[:, ::2] - command
    upright = kernel(motion.up[:, :2].square().sum(-1), _UPRIGHT) * (motion.up[:, 2] > 0)
    return {
        "velocity": weights.velocity * upright * kernel(error[:, 0].square(), 0.02),
        "velocity_error": weights.velocity_error * error[:, 0].abs(),
        "yaw_rate": weights.yaw_rate * upright * kernel(error[:, 1].square(), 0.25),
        "upright": weights.upright * upright,
        "rocking": weights.rocking * motion.spin[:, :2].square().sum(-1),
        "action_rate": weights.action_rate * mean_square(change),
        "torque": weights.torque * mean_square(effort),
        "fall": weights.fall * fallen.float(),
    }


class Balance:
    """See the module docstring.

    Args:
        simulation: the worlds, of the config's robot.
        config: settings.
        draws: the run's random numbers.

    Raises:
        ConfigError: the robot's joints are not driven by speed, or its base or tyres are wrong.
    """

    Config = BalanceConfig

    @staticmethod
    def load_model(config: BalanceConfig) -> mujoco.MjModel:
        """The model to simulate."""
        return load_robot(config.robot).model

    def __init__(self, simulation: Simulation, config: BalanceConfig, draws: Draws):
        self.config, self._draws, self._compact = config, draws, simulation.compact
        self._robot = robot = load_robot(config.robot)
        if robot.operating_mode != "velocity":
            raise ConfigError(
                f"robot {robot.name!r} ({robot.path}) is driven by {robot.operating_mode}, and "
                "this task sends wheel speeds; choose a robot of velocity servos, or another task"
            )
        model, joints, device = simulation.model, robot.joints, simulation.device
        dt = self.control_dt_s = config.control_dt_s
        self.num_substeps = config.num_substeps(model)
        self.episode_steps = count_steps(config.episode_s, dt)
        self.legs = Legs(simulation, robot, config.wheels, key="wheels")
        top = torch.full((len(joints),), config.max_wheel_speed_rad_s)
        self.encoder = ObservationEncoder(BalanceFeatures(joints)).to(device)
        self.decoder = ScaleDecoder(-top, top).to(device)
        self.deployment = Deployment(
            robot,
            robot.joint_specs(velocity_limit=config.max_wheel_speed_rad_s),
            command_spec(config.command),
        )
        self._sensors = SensorReader(simulation, robot.sensors(MEASURED))
        self.signals = measured(joints) | {"command": COMMAND}
        self.privileged = {"velocity": XYZ, "velocity_error": COMMAND, "height": ("",)}
        self.actuators = torch.from_numpy(robot.actuators).to(device)
        self._servos = as_slice(self.actuators)
        self._force = simulation.data("actuator_force")
        self._max_torque = torch.from_numpy(robot.max_torque).float().to(device)
        qpos, self._nv, self._nu = simulation.data("qpos"), model.nv, model.nu
        self._home, self._rest = (
            torch.from_numpy(model.keyframe(name).qpos.copy()).to(qpos) for name in ("home", "rest")
        )
        self._pitch = torch.tensor([0.0, 1.0, 0.0]).to(qpos)
        self._every = every(simulation.num_envs, device)
        self._command = VelocityCommand(simulation, draws, config.command, control_dt_s=dt)
        self._settle_steps = count_steps(SETTLED_S, dt)
        self._sums = torch.zeros(simulation.num_envs, 4, device=device)
        """Of the settled steps of the present command, and their squared error of speed, of
        turning, and squared tilt."""
        self._motion: Motion = self.legs.read(self._every)
        self._fallen = torch.zeros(simulation.num_envs, dtype=torch.bool, device=device)

    @property
    def command(self) -> Tensor:
        """(num_envs, 2) speed forward and of turning that is asked for."""
        return self._command.value[:, ::2]

    @property
    def motion(self) -> Motion:
        """What the base did at the end of the last step."""
        return self._motion

    def initial_state(self, worlds: Worlds, episode: Tensor) -> State:
        """See `Task.initial_state`."""
        (u,) = self._draws.uniform([Stream("initial_pose", 2)], worlds.ids, episode)
        u = u.to(self._home)
        qpos = self._home.repeat(len(worlds), 1)
        turn = slice(self.legs.qpos_at + 3, self.legs.qpos_at + 7)
        tilt = self.config.start_tilt_rad * (2 * u[:, 1] - 1)
        qpos[:, turn] = turn_quaternions(qpos[:, turn], tilt, self._pitch)
        qpos = torch.where(u[:, :1] < self.config.rest_share, self._rest, qpos)
        self._new_command(worlds)
        rows = len(worlds)
        return State(qpos, qpos.new_zeros(rows, self._nv), qpos.new_zeros(rows, self._nu))

    def measure(self, worlds: Worlds) -> dict[str, Tensor]:
        """See `Task.measure`."""
        return self._sensors.read(worlds) | {"command": worlds.take(self.command).clone()}

    def observe_privileged(self, worlds: Worlds) -> dict[str, Tensor]:
        """True velocity and height."""
        motion = self.legs.read(worlds)
        return {
            "velocity": motion.velocity,
            "velocity_error": motion.twist[:, ::2] - worlds.take(self.command),
            "height": motion.height[:, None],
        }

    def rewards(self, action: Tensor, previous_action: Tensor) -> dict[str, Tensor]:
        """See `Task.rewards` and `balance_terms`."""
        self._motion = motion = self.legs.read(self._every)
        self._fallen = motion.up[:, 2] < math.cos(self.config.max_tilt_rad)
        settled = self._command.steps - self._command.remaining >= self._settle_steps
        squares = torch.cat(
            [
                (motion.twist[:, ::2] - self.command).square(),
                torch.acos(motion.up[:, 2:].clamp(-1, 1)).square(),
            ],
            dim=-1,
        )
        self._sums += settled[:, None] * torch.cat([torch.ones_like(squares[:, :1]), squares], -1)
        effort = self._force[:, self._servos].float() / self._max_torque
        change = action - previous_action
        return balance_terms(
            motion, self.command, change, effort, self._fallen, self.config.rewards
        )

    def terminated(self) -> Tensor:
        """See `Task.terminated`: it has tipped over its bumper."""
        return self._fallen

    def advance(self) -> tuple[dict[str, Tensor], Tensor]:
        """See `Task.advance`; rms errors of the command that ended, by its time or by a fall."""
        ended = self._command.advance(self._motion.heading)
        steps, *squares = self._sums.unbind(-1)
        rms = [torch.where(steps > 0, square / steps, torch.nan).sqrt() for square in squares]
        names = ("velocity_error_m_s", "yaw_rate_error_rad_s", "tilt_rad")
        metrics = dict(zip(names, rms, strict=True)) | {"fell": self._fallen.float()}
        worlds = choose(ended, compact=self._compact)
        if not worlds.none:
            self._new_command(worlds)
        return metrics, ended | self._fallen

    @property
    def mirror(self) -> Mirror:
        """See `envs.mirror.Symmetric`."""
        joints = joint_mirror(self._robot, self.legs.base)
        direction, spin = imu_mirror(self._robot, self.legs.base)
        command = torch.diag(torch.tensor([1.0, -1.0]))
        actor = torch.block_diag(spin, direction, command, joints, joints)
        return Mirror(
            actor, torch.block_diag(actor, DIRECTION_MIRROR, command, torch.eye(1)), joints
        )

    def state_dict(self) -> dict[str, Any]:
        """See `Task.state_dict`."""
        return {"command": self._command.state_dict(), "sums": self._sums.clone()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """See `Task.load_state_dict`."""
        self._command.load_state_dict(state["command"])
        self._sums.copy_(state["sums"])

    def _new_command(self, worlds: Worlds) -> None:
        self._command.renew(worlds, self.config.command.shares)
        worlds.put(self._sums, 0)


def command_spec(config: VelocityCommandConfig) -> CommandSpec:
    """What the contract says of a velocity command without its sideways part."""
    whole = config.spec()
    return CommandSpec(
        name="velocity",
        elements=list(COMMAND),
        unit=["m/s", "rad/s"],
        frame="base",
        low=list(whole.low[::2]),
        high=list(whole.high[::2]),
        interval_s=config.interval_s,
    )
