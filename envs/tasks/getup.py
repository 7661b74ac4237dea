"""Get up: a fallen robot with legs, in whatever pose, stands up to its home pose and stays there.

The actor sees gyro, gravity, joints and the last target; its action is an offset from the home
pose, as in walking, but a large one. Episodes start from a pool of robots that fell
(`envs.walking.fallen`); a share of them starts at home, so that standing is known before anybody
has got there. Nothing ends an episode but its time: lying is no failure, only unrewarded. What is
rewarded comes in this order: turn the trunk upright, lift it, then hold home, on flat feet, still.

An episode counts as stood up if at its end the tilt is below `STANDING_RAD` and the trunk higher
than `STANDING_HEIGHT` of home. Only what collides in the MJCF does so here: limbs may pass through
the trunk where the model lets them.
"""

import math
from typing import Annotated, Any

import mujoco
import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from deploy.configuration import Section
from deploy.contract import CommandSpec
from deploy.quantities import Duration, Name, Speed
from envs.draws import Draws, Stream
from envs.mirror import DIRECTION_MIRROR, Mirror, geom_mirror, imu_mirror, joint_mirror
from envs.observation_encoder import ObservationEncoder
from envs.reach_features import XYZ
from envs.rewards import kernel, mean_square
from envs.robot import load_robot
from envs.robot_joints import RobotJoints
from envs.sensors import SensorReader
from envs.simulation import Simulation, State
from envs.task import Deployment
from envs.tasks.free_base import MEASURED, OffsetConfig, Scale, Smoothing, measured
from envs.tasks.settings import Weight, count_steps, require_different
from envs.walking.fallen import fallen_states
from envs.walking.legs import Legs, Motion
from envs.worlds import Worlds, every

STANDING_RAD, STANDING_HEIGHT = 0.3, 0.9
_CONTACT_M = 0.0015
"""A foot lower than this is down."""


class GetupWeights(Section):
    """Weights of the terms of `getup_terms`."""

    upright: Weight = 1.0
    height: Weight = 1.5
    feet: Weight = 0.5
    pose: Weight = 1.0
    still: Weight = 1.0
    speed: Weight = -0.005
    action_rate: Weight = -0.05
    torque: Weight = -0.2
    joint_limits: Weight = -0.1


class GetupConfig(OffsetConfig):
    """Settings of the task."""

    robot: str = "microduck"
    episode_s: Duration = 6.0
    feet: Annotated[list[Name], Field(min_length=1, max_length=100)] = ["left_foot", "right_foot"]
    """Geoms that stand on the ground."""
    flat_feet: bool = True
    """Whether a foot has a sole that should be level."""
    action_scale_rad: Scale = 1.5
    target_smoothing: Smoothing = 0.5
    max_target_speed_rad_s: Speed = 10.0
    falls: Annotated[int, Field(ge=1, le=100_000)] = 256
    """Fallen robots that episodes start from."""
    settle_s: Duration = 1.5
    """Time from their drop to the start."""
    home_share: Annotated[float, Field(ge=0, le=1)] = 0.3
    """Episodes that start at home instead."""
    home_spread_rad: Annotated[float, Field(ge=0, le=7)] = 0.2
    """These start this far around the home pose."""
    rewards: GetupWeights = GetupWeights()

    @model_validator(mode="after")
    def _check_feet(self) -> "GetupConfig":
        require_different("feet", self.feet)
        return self


class GetupFeatures(nn.Module):
    """What the robot measures and was told last; angles as seen from home.

    Args:
        joints: names of all joints.
        home: (joints,) their angles in the home pose [rad].
    """

    home: Tensor

    def __init__(self, joints: list[str], home: Tensor):
        super().__init__()
        self.register_buffer("home", home.float())
        self.columns = measured(joints) | {"joint_target": joints}
        self.signals = tuple(self.columns)

    def forward(self, signals: dict[str, Tensor]) -> dict[str, Tensor]:
        """Signals (n, ...) -> features (n, columns)."""
        from_home = {name: signals[name] - self.home for name in ("joint_position", "joint_target")}
        return {name: from_home.get(name, signals[name]) for name in self.columns}


class Getup:
    """See the module docstring.

    Args:
        simulation: the worlds, of the config's robot.
        config: settings.
        draws: the run's random numbers.
    """

    Config = GetupConfig

    @staticmethod
    def load_model(config: GetupConfig) -> mujoco.MjModel:
        """The model to simulate."""
        return load_robot(config.robot).model

    def __init__(self, simulation: Simulation, config: GetupConfig, draws: Draws):
        self.config, self._draws = config, draws
        self._robot = robot = load_robot(config.robot)
        device, dt = simulation.device, config.control_dt_s
        self.control_dt_s, self.num_substeps = dt, config.num_substeps(simulation.model)
        self.episode_steps = count_steps(config.episode_s, dt)
        self.legs = Legs(simulation, robot, config.feet)
        joints = self._joints = RobotJoints(simulation, robot, margin_rad=config.limit_margin_rad)
        self.encoder = ObservationEncoder(GetupFeatures(joints.names, joints.home)).to(device)
        self.decoder, self.actuators = config.decoder(joints).to(device), joints.actuators
        self.deployment = Deployment(
            robot,
            joints.specs(config.max_target_speed_rad_s),
            standing_spec(self.legs.home_height, config.episode_s),
        )
        self._sensors = SensorReader(simulation, robot.sensors(MEASURED))
        self.signals = measured(joints.names)
        feet = list(config.feet)
        self.privileged = {
            "velocity": XYZ,
            "height": ("",),
            "foot_height": feet,
            "foot_level": feet,
            "joint_torque": joints.names,
        }
        self._falls = State(
            *(
                table.to(joints.home)
                for table in fallen_states(
                    config.robot, seed=draws.seed, count=config.falls, settle_s=config.settle_s
                )
            )
        )
        self._every = every(simulation.num_envs, device)
        self._steps = torch.zeros(simulation.num_envs, dtype=torch.int64, device=device)
        """Of the episode, so far."""
        self._down_steps = torch.zeros_like(self._steps)
        """Up to the last one at which it did not stand."""
        self._never = torch.zeros(simulation.num_envs, dtype=torch.bool, device=device)
        self._motion: Motion = self.legs.read(self._every)

    @property
    def motion(self) -> Motion:
        """What base and feet did at the end of the last step."""
        return self._motion

    @property
    def standing(self) -> Tensor:
        """(num_envs,) bool: whether it stood at the end of the last step."""
        motion = self._motion
        upright = motion.up[:, 2] > math.cos(STANDING_RAD)
        return upright & (motion.height > STANDING_HEIGHT * self.legs.home_height)

    def initial_state(self, worlds: Worlds, episode: Tensor) -> State:
        """See `Task.initial_state`."""
        streams = [Stream("initial_kind", 2), self._joints.pose_stream]
        kind, pose = self._draws.uniform(streams, worlds.ids, episode)
        fall = (kind[:, 1] * len(self._falls.qpos)).long().clamp(max=len(self._falls.qpos) - 1)
        fallen = State(*(table[fall] for table in self._falls))
        home = self._joints.around_home(pose, spread_rad=self.config.home_spread_rad)
        at_home = kind[:, :1] < self.config.home_share
        for table in (self._steps, self._down_steps):
            worlds.put(table, 0)
        return State(
            *(torch.where(at_home, one, other) for one, other in zip(home, fallen, strict=True))
        )

    def measure(self, worlds: Worlds) -> dict[str, Tensor]:
        """See `Task.measure`."""
        return self._sensors.read(worlds)

    def observe_privileged(self, worlds: Worlds) -> dict[str, Tensor]:
        """True velocity, heights and torques."""
        motion = self.legs.read(worlds)
        return {
            "velocity": motion.velocity,
            "height": motion.height[:, None],
            "foot_height": motion.foot_height,
            "foot_level": motion.foot_level,
            "joint_torque": worlds.take(self._joints.effort),
        }

    def rewards(self, action: Tensor, previous_action: Tensor) -> dict[str, Tensor]:
        """See `Task.rewards` and `getup_terms`."""
        self._motion = self.legs.read(self._every)
        self._steps += 1
        self._down_steps.copy_(torch.where(self.standing, self._down_steps, self._steps))
        joints = self._joints
        return getup_terms(
            self._motion,
            height=self._motion.height / self.legs.home_height,
            offset=joints.from_home,
            speed=joints.speed,
            effort=joints.effort,
            change=action - previous_action,
            outside=joints.outside,
            flat_feet=self.config.flat_feet,
            weights=self.config.rewards,
        )

    def terminated(self) -> Tensor:
        """See `Task.terminated`: never."""
        return self._never

    def advance(self) -> tuple[dict[str, Tensor], Tensor]:
        """See `Task.advance`; of whole episodes, at their end.

        `stood_up` is whether it stands, `getup_s` since when it has without a break; nan if not.
        """
        standing = self.standing
        since = self._down_steps.float() * self.control_dt_s
        metrics = {
            "stood_up": standing.float(),
            "getup_s": torch.where(standing, since, torch.nan),
        }
        return metrics, self._steps >= self.episode_steps

    @property
    def mirror(self) -> Mirror:
        """See `envs.mirror.Symmetric`."""
        base, config = self.legs.base, self.config
        joints = joint_mirror(self._robot, base)
        feet = geom_mirror(self._robot, base, config.feet)
        direction, spin = imu_mirror(self._robot, base)
        actor = torch.block_diag(spin, direction, joints, joints, joints)
        critic = torch.block_diag(actor, DIRECTION_MIRROR, torch.eye(1), feet, feet, joints)
        return Mirror(actor, critic, joints)

    def state_dict(self) -> dict[str, Any]:
        """See `Task.state_dict`."""
        return {name: getattr(self, name).clone() for name in self._STATE}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """See `Task.load_state_dict`."""
        for name in self._STATE:
            getattr(self, name).copy_(state[name])

    _STATE = ("_steps", "_down_steps")


def getup_terms(
    motion: Motion,
    *,
    height: Tensor,
    offset: Tensor,
    speed: Tensor,
    effort: Tensor,
    change: Tensor,
    outside: Tensor,
    flat_feet: bool,
    weights: GetupWeights,
) -> dict[str, Tensor]:
    """The weighted terms of a step, (n,) each.

    Args:
        motion: of base and feet.
        height: (n,) of the trunk, as a share of its height at home.
        offset: (n, joints) angles from home [rad].
        speed: (n, joints) [rad/s].
        effort: (n, joints) torque as a share of the servo's largest.
        change: (n, joints) of the action.
        outside: (n,) how far joints are beyond their limits [rad].
        flat_feet: whether feet should be level.
        weights: of the terms.
    """
    turned = (0.5 * (1 + motion.up[:, 2])).square()  # 1 upright, 1/4 on its side, 0 on its head
    tilt = motion.up[:, :2].square().sum(-1)
    low = torch.relu(1 - height)
    stands = kernel(tilt, 0.1) * (motion.up[:, 2] > 0) * kernel(low.square(), 0.02)
    down = (motion.foot_height < _CONTACT_M).float()
    level = motion.foot_level.clamp(min=0).square() if flat_feet else torch.ones_like(down)
    moving = mean_square(speed) + 10 * motion.velocity.square().sum(-1)
    return {
        "upright": weights.upright * turned,
        "height": weights.height * turned * height.clamp(0, 1),
        "feet": weights.feet * stands * (down * level).mean(-1),
        "pose": weights.pose * stands * kernel(mean_square(offset), 0.1),
        "still": weights.still * stands * kernel(moving, 0.5),
        "speed": weights.speed * mean_square(speed),
        "action_rate": weights.action_rate * mean_square(change),
        "torque": weights.torque * mean_square(effort),
        "joint_limits": weights.joint_limits * outside,
    }


def standing_spec(height: float, interval_s: float) -> CommandSpec:
    """The command that the contract needs: to stand, at the one height there is."""
    return CommandSpec(
        name="stand",
        elements=["height"],
        unit="m",
        low=[height],
        high=[height],
        interval_s=(interval_s, interval_s),
    )
