"""Reach: bring the tool of an arm to a point, hold it there, go to the next point.

The command is a position in the base frame, drawn uniformly from a box every few seconds. The
actor sees measured joint angles and speeds, the targets last sent, and the command; where its tool
is it works out by forward kinematics, inside the exported graph.
"""

import operator
from collections.abc import Iterable, Sequence
from typing import Annotated, Any

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from deploy.configuration import Section, did_you_mean, validate
from deploy.contract import CommandSpec, JointSpec
from deploy.errors import ConfigError
from deploy.quantities import Duration, Length, Name, Period, Speed
from envs.action_decoder import JointStepDecoder
from envs.draws import Draws, Stream
from envs.forward_kinematics import ForwardKinematics
from envs.observation_encoder import ObservationEncoder
from envs.robot import Robot, load_robot
from envs.simulation import Simulation

Point = tuple[Length, Length, Length]
Weight = Annotated[float, Field(ge=-1000, le=1000)]


class RewardWeights(Section):
    """Weights of the reward terms; see the functions of the same names."""

    reach: Weight = 1.0
    hold: Weight = 1.0
    action_rate: Weight = -0.3
    joint_speed: Weight = -0.02
    posture: Weight = -0.1
    desk: Weight = -1.0


class ArmReachConfig(Section):
    """Settings of the task."""

    robot: str = "desk_arm"
    arm_joints: Annotated[list[Name], Field(min_length=1)] = [
        "shoulder_pan",
        "shoulder_lift",
        "elbow_flex",
        "wrist_flex",
        "wrist_roll",
    ]
    """Joints the policy moves; the others hold the home pose."""
    site: str = "tool"
    """Site of the robot that should reach the target."""
    control_dt_s: Period = 0.02
    """Period of the policy."""
    episode_s: Duration = 12.0
    """Length of an episode."""
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
    rewards: RewardWeights = RewardWeights()

    @model_validator(mode="after")
    def _check(self) -> "ArmReachConfig":
        if len(set(self.arm_joints)) < len(self.arm_joints):
            raise ValueError(f"arm_joints must be different joints, found {self.arm_joints}")
        if self.episode_s < self.control_dt_s:
            raise ValueError(
                f"episode_s {self.episode_s} is shorter than control_dt_s {self.control_dt_s}"
            )
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


def reach(distance: Tensor) -> Tensor:
    """1 at the target, falling over about 10 cm: finds the way."""
    return torch.exp(-distance / 0.1)


def hold(distance: Tensor) -> Tensor:
    """1 at the target, falling over about 1 cm: makes it precise."""
    return torch.exp(-distance / 0.01)


def action_rate(action: Tensor, previous: Tensor) -> Tensor:
    """Mean squared change of the action."""
    return (action - previous).square().mean(dim=-1)


def joint_speed(qvel: Tensor) -> Tensor:
    """Mean squared joint speed [rad²/s²]."""
    return qvel.square().mean(dim=-1)


def posture(angle: Tensor, home: Tensor) -> Tensor:
    """Mean squared angle from the home pose [rad²]: settles what the target leaves open."""
    return (angle - home).square().mean(dim=-1)


def desk(height: Tensor) -> Tensor:
    """How far the tool is below 2 cm over the desk, in units of 2 cm."""
    return torch.relu(0.02 - height) / 0.02


class ArmReach:
    """See the module docstring.

    Args:
        simulation: the worlds, of the config's robot.
        config: settings.
        draws: the run's random numbers.
    """

    Config = ArmReachConfig

    def __init__(self, simulation: Simulation, config: ArmReachConfig, draws: Draws):
        self.config = config
        self.robot: Robot = load_robot(config.robot)
        self._simulation = simulation
        self._draws = draws
        self.robot.check(fixed_base=True)
        model, joints = simulation.model, self.robot.joints
        _require("arm_joints", config.arm_joints, joints, f"joint of {config.robot}")
        _require("site", [config.site], [model.site(i).name for i in range(model.nsite)], "site")
        self.control_dt_s = config.control_dt_s
        self.num_substeps = round(config.control_dt_s / model.opt.timestep)
        if abs(self.num_substeps * model.opt.timestep - config.control_dt_s) > 1e-9:
            raise ConfigError(
                f"control_dt_s {config.control_dt_s} s is no multiple of the physics timestep "
                f"{model.opt.timestep} s; choose one that is"
            )
        self.episode_steps = round(config.episode_s / config.control_dt_s)

        home = torch.from_numpy(self.robot.home)
        limits = torch.from_numpy(model.actuator_ctrlrange[self.robot.actuators])
        margin = config.limit_margin_rad * torch.tensor([[1, -1]], dtype=limits.dtype)
        low, high = (limits + margin).unbind(1)
        outside = (home < low) | (home > high)
        if names := [name for name, out in zip(joints, outside.tolist(), strict=True) if out]:
            raise ConfigError(
                f"the home pose of {names} lies outside their limits, less limit_margin_rad "
                f"{config.limit_margin_rad}; lower the margin, or correct the keyframe `home`"
            )
        arm = [joints.index(name) for name in config.arm_joints]
        features = ArmReachFeatures(ForwardKinematics(model, config.site, joints), arm, home[arm])
        self.encoder = ObservationEncoder(features, features.size, config.history, changes=len(arm))
        step = config.max_joint_speed_rad_s * config.control_dt_s
        self.decoder = JointStepDecoder(
            joints, config.arm_joints, step=step, low=low, high=high, default=home
        )
        self.command_spec = CommandSpec(
            name="target_position",
            low=list(config.target_low_m),
            high=list(config.target_high_m),
            interval_s=config.target_interval_s,
            site=config.site,
        )
        self.joint_specs = [
            validate(
                {
                    "name": name,
                    "kp": float(model.actuator_gainprm[actuator, 0]),
                    "kd": 0.0 - float(model.actuator_biasprm[actuator, 2]),
                    "default_position": float(home[index]),
                    "position_limits": (float(low[index]), float(high[index])),
                    "velocity_limit": config.max_joint_speed_rad_s,
                    "effort_limit": float(model.actuator_forcerange[actuator, 1]),
                },
                JointSpec,
                source=f"robot {self.robot.name}",
            )
            for index, (name, actuator) in enumerate(zip(joints, self.robot.actuators, strict=True))
        ]

        num_envs = simulation.num_envs
        self._qpos, self._qvel = simulation.data("qpos"), simulation.data("qvel")
        self._home_qpos = torch.from_numpy(self.robot.home_qpos)
        self._joint_qpos = torch.from_numpy(self.robot.qpos)
        self._joint_dofs = torch.from_numpy(self.robot.dofs)
        self._actuators = torch.from_numpy(self.robot.actuators)
        self._arm_qpos, self._arm_dofs = self._joint_qpos[arm], self._joint_dofs[arm]
        self._tool = simulation.data("site_xpos")[:, model.site(config.site).id]
        self._home, self._low, self._high = home, low, high
        self._arm_home = home[arm].float()
        self._target_low = torch.tensor(config.target_low_m)
        self._target_span = torch.tensor(config.target_high_m) - self._target_low
        self.command = torch.zeros(num_envs, 3)
        self._countdown = torch.zeros(num_envs, dtype=torch.int64)
        self._commands = torch.zeros(num_envs, dtype=torch.int64)
        self._settle_steps = round(1.0 / config.control_dt_s)
        self._settle_length = torch.zeros(num_envs, dtype=torch.int64)
        self._settled_error = torch.zeros(num_envs)
        self.critic_size = 3 + 5 * len(joints)

    def initial_state(self, ids: Tensor, episode: Tensor) -> tuple[Tensor, Tensor]:
        """See `Task.initial_state`."""
        spread = self.config.start_spread_rad
        (u,) = self._draws.uniform([Stream("initial_pose", len(self._home))], ids, episode)
        qpos = self._home_qpos.repeat(len(ids), 1)
        pose = self._home + spread * (2 * u - 1)
        qpos[:, self._joint_qpos] = torch.clamp(pose, self._low, self._high)
        self._new_command(ids)
        return qpos, torch.zeros(len(ids), self._qvel.shape[1], dtype=qpos.dtype)

    def advance(self) -> tuple[Tensor, dict[str, Tensor]]:
        """See `Task.advance`; `reach_error_m` is the mean distance in a target's last second."""
        self._countdown -= 1
        settling = self._countdown < self._settle_length
        self._settled_error += settling * self.distance() / self._settle_length
        (ended,) = torch.nonzero(self._countdown <= 0, as_tuple=True)
        metrics = {"reach_error_m": self._settled_error[ended]}
        if len(ended):
            self._new_command(ended)
        return ended, metrics

    def distance(self) -> Tensor:
        """(num_envs,) true distance of the tool from its target [m]."""
        return (self._tool.float() - self.command).norm(dim=-1)

    def rewards(self, action: Tensor, previous_action: Tensor) -> dict[str, Tensor]:
        """See `Task.rewards`."""
        weights, distance = self.config.rewards, self.distance()
        angle = self._qpos[:, self._arm_qpos].float()
        speed = self._qvel[:, self._arm_dofs].float()
        return {
            "reach": weights.reach * reach(distance),
            "hold": weights.hold * hold(distance),
            "action_rate": weights.action_rate * action_rate(action, previous_action),
            "joint_speed": weights.joint_speed * joint_speed(speed),
            "posture": weights.posture * posture(angle, self._arm_home),
            "desk": weights.desk * desk(self._tool[:, 2].float()),
        }

    def terminated(self) -> Tensor:
        """Never: there is nothing to fall over."""
        return torch.zeros(len(self.command), dtype=torch.bool)

    def critic_observation(self) -> Tensor:
        """True error, joint state and servo gain, delay and friction of this episode."""
        return torch.cat(
            [
                self._tool.float() - self.command,
                self._qpos[:, self._joint_qpos].float(),
                self._qvel[:, self._joint_dofs].float(),
                self._simulation.data("ctrl")[:, self._actuators].float(),
                self._simulation.field("dof_frictionloss")[:, self._joint_dofs].float(),
                self._simulation.field("actuator_delay")[:, self._actuators].float() * 50,
            ],
            dim=-1,
        )

    def state_dict(self) -> dict[str, Any]:
        """See `Task.state_dict`."""
        return {name: getattr(self, name).clone() for name in self._STATE}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """See `Task.load_state_dict`."""
        for name in self._STATE:
            getattr(self, name).copy_(state[name])

    _STATE = ("command", "_countdown", "_commands", "_settle_length", "_settled_error")

    def _new_command(self, ids: Tensor) -> None:
        stream = Stream("command", 4)
        (u,) = self._draws.uniform([stream], ids, self._commands[ids])
        shortest, longest = self.config.target_interval_s
        interval_s = shortest + (longest - shortest) * u[:, 3]
        self.command[ids] = self._target_low + self._target_span * u[:, :3]
        steps = (interval_s / self.config.control_dt_s).round().long().clamp(min=1)
        self._countdown[ids] = steps
        self._settle_length[ids] = steps.clamp(max=self._settle_steps)
        self._commands[ids] += 1
        self._settled_error[ids] = 0


def _require(key: str, names: Iterable[str], valid: Sequence[str], what: str) -> None:
    for name in names:
        if name not in valid:
            raise ConfigError(
                f"{key}: {name!r}{did_you_mean(name, valid)} is no {what}; "
                f"there are {', '.join(valid)}"
            )


class ArmReachFeatures(nn.Module):
    """Features of one tick, from signals only.

    The policy sees the targets' changes (the last columns, see `ObservationEncoder`), never how far
    they are from the angles. At rest it then knows nothing of the droop, so the pose in which it
    rests does not depend on load and gains; shown the droop it learned that of the nominal arm, and
    at twice the mass rested 0.7 cm off the target.

    Args:
        kinematics: from joint angles to the tool position.
        arm: indices of the joints the policy moves.
        home: (arm,) their angles in the home pose [rad].
    """

    arm: Tensor
    home: Tensor

    def __init__(self, kinematics: ForwardKinematics, arm: list[int], home: Tensor):
        super().__init__()
        self.kinematics = kinematics
        self.register_buffer("arm", torch.tensor(arm))
        self.register_buffer("home", home.float())
        self.size = 3 * len(arm) + 9

    def forward(self, signals: dict[str, Tensor]) -> Tensor:
        """Signals (n, ...) -> features (n, size)."""
        position = signals["joint_position"]
        command = signals["command"]
        error = command - self.kinematics(position)  # (n, 3)
        return torch.cat(
            [
                position.index_select(1, self.arm) - self.home,
                signals["joint_velocity"].index_select(1, self.arm),
                command,
                error,
                torch.tanh(error / 0.03),  # keeps millimetres visible beside decimetres
                signals["joint_target"].index_select(1, self.arm),  # seen as changes only
            ],
            dim=-1,
        )
