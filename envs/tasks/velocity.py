"""Walk: follow a velocity (forward, left, turning) on any robot with legs, or stand still.

The actor sees gyro, gravity, joints, the last target, the command and the clock of a gait (see
`envs.walking`); its action is an offset from the home pose. Rewards compare the velocity, smoothed
over 0.3 s as a stride sways, with the command. A robot brings an MJCF with a free base, an IMU and
the names of its feet; its own settings are in `configs/train/`. Training may go through `stages`
with other weights and commands: the first of microduck_walk.yaml pulls it out of standing still.
"""

import math
from typing import Annotated, Any, Self

import mujoco
import torch
from pydantic import Field, model_validator
from torch import Tensor

from deploy.configuration import validate
from deploy.quantities import Period
from envs.ahead import Ahead
from envs.commands import TWIST, VelocityCommand, VelocityCommandConfig
from envs.draws import Draws, Stream
from envs.mirror import Mirror
from envs.observation_encoder import ObservationEncoder
from envs.reach_features import XYZ
from envs.robot import load_robot
from envs.robot_joints import RobotJoints
from envs.sensors import SensorReader
from envs.simulation import Simulation, State
from envs.task import Deployment
from envs.tasks.free_base import MEASURED, OffsetConfig, measured
from envs.tasks.settings import at_training_timestep, count_steps
from envs.terrain import Field as TerrainField
from envs.terrain import Ground, Levels, Scan, TerrainConfig, with_terrain
from envs.walking.features import WalkFeatures, walk_mirror
from envs.walking.gait import asked_to_move, expected_lift, phase_of, tipping
from envs.walking.legs import Legs, Motion, home_height
from envs.walking.score import CommandScore
from envs.walking.terms import Gait, Stage, Step, WalkWeights, reference, walk_terms
from envs.worlds import Worlds, choose, every

SMOOTHED_S = 0.3
"""Time constant of the velocity that is compared with the command."""


class VelocityConfig(OffsetConfig):
    """Settings of the task."""

    robot: str = "microduck"
    history: Annotated[int, Field(ge=1, le=100)] = 1
    """Ticks that the actor sees: more than one let it notice what its robot is like."""
    gait: Gait = Gait()
    command: VelocityCommandConfig = VelocityCommandConfig()
    start_spread_rad: Annotated[float, Field(ge=0, le=7)] = 0.05
    """Episodes start this far around the home pose."""
    max_tilt_rad: Annotated[float, Field(gt=0, le=3.2)] = 1.0
    """A base that is tilted more has fallen."""
    min_height_share: Annotated[float, Field(ge=0, le=1)] = 0.6
    """So has one that is lower than this share of its height at home."""
    pose_weights: dict[str, Annotated[float, Field(ge=0, le=1000)]] = {"*": 1.0}
    """How much each joint counts in the term `pose`, by patterns of names; the last that fits."""
    rewards: WalkWeights = WalkWeights()
    stages: Annotated[list[Stage], Field(max_length=20)] = []
    """What differs early in training; in order of `until_steps`. Evaluation knows none."""
    training_timestep_s: Period | None = None
    """Timestep of the physics in training, where it may be coarser than the model's. Evaluation
    knows none."""
    terrain: TerrainConfig | None = None
    """Uneven ground; without it, a plane."""

    @model_validator(mode="after")
    def _check(self) -> "VelocityConfig":
        if self.gait.period_s < 4 * self.control_dt_s:
            raise ValueError(
                f"gait.period_s {self.gait.period_s} has less than 4 control steps of "
                f"{self.control_dt_s} s, too few to lift a foot in. Raise it"
            )
        ends = [stage.until_steps for stage in self.stages]
        if ends != sorted(set(ends)):
            raise ValueError(f"stages must be in order of until_steps, found {ends}")
        for stage in self.stages:
            self.during(stage)
        return self

    def in_evaluation(self) -> Self:
        """Without what is of training alone; on all levels of the ground from the beginning."""
        ground = self.terrain and self.terrain.model_copy(update={"rise": False})
        return self.model_copy(
            update={"stages": [], "training_timestep_s": None, "terrain": ground}
        )

    def during(self, stage: Stage) -> tuple[WalkWeights, VelocityCommandConfig]:
        """Weights and commands of a stage."""
        return (
            validate(self.rewards.model_dump() | stage.rewards, WalkWeights, source="stages"),
            validate(
                self.command.model_dump() | stage.command, VelocityCommandConfig, source="stages"
            ),
        )


class Velocity:
    """See the module docstring.

    Args:
        simulation: the worlds, of the config's robot.
        config: settings.
        draws: the run's random numbers.
    """

    Config = VelocityConfig
    held: Tensor | None = None
    """See `envs.task.Held`."""

    @staticmethod
    def load_model(config: VelocityConfig) -> mujoco.MjModel:
        """The model to simulate."""
        robot = load_robot(config.robot)
        model = robot.model if config.terrain is None else with_terrain(robot, _field(config))
        return at_training_timestep(model, config, config.training_timestep_s)

    def __init__(self, simulation: Simulation, config: VelocityConfig, draws: Draws):
        self.config, self._draws, self._compact = config, draws, simulation.compact
        self._robot = robot = load_robot(config.robot)
        device, dt, gait = simulation.device, config.control_dt_s, config.gait
        self.control_dt_s, self.num_substeps = dt, config.num_substeps(simulation.model)
        self.episode_steps = count_steps(config.episode_s, dt)
        ground = None if config.terrain is None else Ground(_field(config), device)
        self.legs = Legs(simulation, robot, list(gait.feet), ground)
        self._scan = None if ground is None else Scan(ground)
        self._levels = (
            None if ground is None else Levels(simulation, ground, draws, self.legs.qpos_at)
        )
        joints = self._joints = RobotJoints(simulation, robot, margin_rad=config.limit_margin_rad)
        features = WalkFeatures(joints.names, joints.home, gait.period_s)
        self.encoder = ObservationEncoder(features, config.history).to(device)
        self.decoder, self.actuators = config.decoder(joints).to(device), joints.actuators
        self.deployment = Deployment(
            robot, joints.specs(config.max_target_speed_rad_s), config.command.spec()
        )
        self._sensors = SensorReader(simulation, robot.sensors(MEASURED))
        feet = list(gait.feet)
        self.signals = measured(joints.names) | {"command": TWIST, "time": ("time",)}
        self.privileged = {
            "velocity": XYZ,
            "spin": XYZ,
            "velocity_error": TWIST,
            "height": ("",),
            "foot_height": feet,
            "foot_down": feet,
            "foot_velocity": [f"{foot}.{axis}" for foot in feet for axis in XYZ],
            **({"ground": self._scan.columns} if self._scan else {}),
        }
        self._base = simulation.data("qpos")[:, self.legs.qpos_at : self.legs.qpos_at + 3]
        self._reference = reference(robot, self.legs, gait, config.pose_weights)
        self._every = every(simulation.num_envs, device)
        self._command = VelocityCommand(simulation, draws, config.command, control_dt_s=dt)
        self._offsets = torch.tensor(list(gait.feet.values()), device=device)
        rows, k = simulation.num_envs, len(joints.names)
        streams = [joints.pose_stream, Stream("initial_phase", 1)]
        self._start = Ahead(lambda ids, episode: draws.uniform(streams, ids, episode), rows, device)
        self._ticks = torch.zeros(rows, dtype=torch.int64, device=device)
        self._twist = torch.zeros(rows, 3, device=device)
        """Smoothed."""
        self._change = torch.zeros(rows, k, device=device)
        self._score = CommandScore(rows, joints.names, control_dt_s=dt, device=device)
        self._motion: Motion = self.legs.read(self._every)
        self._unobserved = False
        """Whether `_motion` is of now, as it is from the rewards of a step to its observation."""
        self._fallen = torch.zeros(rows, dtype=torch.bool, device=device)
        self._steps = 0
        self._stages = [(stage.until_steps, config.during(stage)) for stage in config.stages]

    @property
    def command(self) -> Tensor:
        """(num_envs, 3) speed forward, to the left, and of turning, that is asked for."""
        return self._command.value

    @property
    def twist(self) -> Tensor:
        """(num_envs, 3) achieved, smoothed over `SMOOTHED_S`."""
        return self._twist

    @property
    def motion(self) -> Motion:
        """What base and feet did at the end of the last step."""
        return self._motion

    def initial_state(self, worlds: Worlds, episode: Tensor) -> State:
        """See `Task.initial_state`; the clock starts anywhere."""
        pose, phase = self._start.of(worlds, episode)
        state = self._joints.around_home(pose, spread_rad=self.config.start_spread_rad)
        if self._levels:
            state.qpos[:, self.legs.qpos_at : self.legs.qpos_at + 3] += self._levels.begin(
                worlds, episode
            )
        period = self.config.gait.period_s / self.control_dt_s
        worlds.put(self._ticks, (period * phase[:, 0]).long())
        for table in (self._twist, self._change):
            worlds.put(table, 0)
        self._new_command(worlds)
        return state

    def measure(self, worlds: Worlds) -> dict[str, Tensor]:
        """See `Task.measure`."""
        return self._sensors.read(worlds) | {
            "command": worlds.take(self.command).clone(),
            "time": worlds.take(self._ticks)[:, None].float() * self.control_dt_s,
        }

    def observe_privileged(self, worlds: Worlds) -> dict[str, Tensor]:
        """True velocities, heights and contacts."""
        all_now = self._unobserved and worlds.complete and worlds.mask is None
        motion = self._motion if all_now else self.legs.read(worlds)
        self._unobserved = False
        return {
            "velocity": motion.velocity,
            "spin": motion.spin,
            "velocity_error": worlds.take(self._twist) - worlds.take(self.command),
            "height": motion.height[:, None],
            "foot_height": motion.foot_height,
            "foot_down": (motion.foot_height < self.config.gait.contact_m).float(),
            "foot_velocity": motion.foot_velocity.flatten(1),
            **self._see_ground(worlds, motion),
        }

    def rewards(self, action: Tensor, previous_action: Tensor) -> dict[str, Tensor]:
        """See `Task.rewards` and `envs.walking.terms`."""
        config, weights, motion = self.config, self._settings()[0], self.legs.read(self._every)
        self._motion, self._unobserved = motion, True
        self._ticks += 1
        self._twist += (motion.twist - self._twist) * (self.control_dt_s / SMOOTHED_S)
        low = motion.height < config.min_height_share * self.legs.home_height
        self._fallen = low | (motion.up[:, 2] < math.cos(config.max_tilt_rad))
        moving = asked_to_move(self.command)
        stepping = moving | tipping(motion.spin, motion.up)
        phase = phase_of(self._ticks * self.control_dt_s, config.gait.period_s)
        down, lift = expected_lift(phase, self._offsets, config.gait.stance_share, stepping)
        change = action - previous_action
        step = Step(
            motion=motion,
            twist=self._twist,
            command=self.command,
            moving=moving,
            stepping=stepping,
            down=down,
            lift=lift,
            angle=self._joints.angle,
            speed=self._joints.speed,
            torque=self._joints.torque,
            change=change,
            second_change=change - self._change,
            fallen=self._fallen,
        )
        self._change = change
        self._score.add(step, self._command)
        if self._levels:
            self._levels.add(
                motion.twist[:, :2], self.command[:, :2], self._fallen, dt_s=self.control_dt_s
            )
        return walk_terms(step, self._reference, weights)

    def terminated(self) -> Tensor:
        """See `Task.terminated`: it is tilted too much, or its base is too low."""
        return self._fallen

    @property
    def out_of_bounds(self) -> Tensor | None:
        """See `Bounded`: it has left its tile."""
        return self._levels.left if self._levels else None

    def advance(self) -> tuple[dict[str, Tensor], Tensor]:
        """See `Task.advance` and `CommandScore`; a command ends by its time or by a fall."""
        ended = self._command.advance(self._motion.heading, self.held)
        if self.held is not None:  # a command begins when the hand lets go
            self._score.sums.masked_fill_(self.held[:, None], 0)
        metrics = self._score.metrics(self._command, self._fallen)
        if self._levels:
            metrics |= {"terrain_level": self._levels.level.float()}
            ended = ended | self._levels.left
        self._steps += len(ended) * self._draws.share.processes
        worlds = choose(ended, compact=self._compact)
        if not worlds.none:
            self._new_command(worlds)
        return metrics, ended | self._fallen

    @property
    def mirror(self) -> Mirror:
        """See `envs.mirror.Symmetric`."""
        maps = walk_mirror(self._robot, self.legs.base, self.config.gait.feet)
        actor = [maps[name] for name in self.encoder.features.columns] * self.config.history
        if self._scan:
            maps["ground"] = self._scan.mirror
        critic = actor + [maps[name] for name in self.privileged]
        return Mirror(torch.block_diag(*actor), torch.block_diag(*critic), maps["joint_target"])

    def state_dict(self) -> dict[str, Any]:
        """See `Task.state_dict`."""
        return {
            "command": self._command.state_dict(),
            "score": self._score.sums.clone(),
            "steps": self._steps,
            **({"levels": self._levels.state_dict()} if self._levels else {}),
            **{name: getattr(self, name).clone() for name in self._STATE},
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """See `Task.load_state_dict`."""
        self._command.load_state_dict(state["command"])
        self._score.sums.copy_(state["score"])
        self._steps = state["steps"]
        if self._levels:
            self._levels.load_state_dict(state["levels"])
        for name in self._STATE:
            getattr(self, name).copy_(state[name])

    _STATE = ("_ticks", "_twist", "_change")

    def _see_ground(self, worlds: Worlds, motion: Motion) -> dict[str, Tensor]:
        if self._scan is None:
            return {}
        return {"ground": self._scan.read(worlds.take(self._base), motion.heading)}

    def _settings(self) -> tuple[WalkWeights, VelocityCommandConfig]:
        """Weights and commands of now."""
        for until, settings in self._stages:
            if self._steps < until:
                return settings
        return self.config.rewards, self.config.command

    def _new_command(self, worlds: Worlds) -> None:
        self._command.renew(worlds, self._settings()[1].shares)
        self._score.restart(worlds)


def _field(config: VelocityConfig) -> TerrainField:
    """The ground of a config that has one.

    Raises:
        ConfigError: its tiles do not fit the commands.
    """
    assert config.terrain is not None
    field, command = (
        TerrainField(config.terrain, home_height(load_robot(config.robot))),
        config.command,
    )
    fastest = [
        max(abs(low), abs(high)) for low, high in zip(command.low, command.high, strict=True)
    ]
    field.check_reach(
        math.hypot(*fastest[:2]), episode_s=config.episode_s, command_s=command.interval_s[0]
    )
    return field
