"""Reach: bring the tool of an arm to a point, hold it there, go to the next point.

The command is a position in the base frame, drawn uniformly from a box every few seconds. The
actor sees measured joint angles and speeds, the targets last sent, and the command; where its tool
is it works out by forward kinematics, inside the exported graph.
"""

import operator
from typing import Annotated, Any

import mujoco
import torch
from pydantic import Field, model_validator
from torch import Tensor

from deploy.configuration import Section
from deploy.contract import CommandSpec
from deploy.quantities import Duration, Length, Name, Speed
from envs.action_decoder import JointStepDecoder
from envs.commands import UniformCommand
from envs.draws import Draws, Stream
from envs.forward_kinematics import ForwardKinematics
from envs.observation_encoder import ObservationEncoder
from envs.reach_features import XYZ, ReachFeatures
from envs.rewards import closeness, mean_square
from envs.robot import Robot, load_robot
from envs.sensors import SensorReader
from envs.simulation import Simulation, State
from envs.task import Deployment
from envs.tasks.settings import RobotTaskConfig, Weight, count_steps, require_names
from envs.worlds import Worlds, as_slice, choose

Point = tuple[Length, Length, Length]
MEASURED = ("joint_position", "joint_velocity")
SETTLED_S = 1.0
"""The end of a target's time, over which the error counts."""


class RewardWeights(Section):
    """Weights of the reward terms; see `ArmReach.rewards`."""

    reach: Weight = 1.0
    hold: Weight = 1.0
    action_rate: Weight = -0.3
    joint_speed: Weight = -0.02
    posture: Weight = -0.1
    desk: Weight = -1.0


class ArmReachConfig(RobotTaskConfig):
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
    site: str = "tool"
    """Site of the robot that should reach the target."""
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

    @staticmethod
    def load_model(config: ArmReachConfig) -> mujoco.MjModel:
        """The model to simulate."""
        return load_robot(config.robot).model

    def __init__(self, simulation: Simulation, config: ArmReachConfig, draws: Draws):
        self.config = config
        self._draws, self._compact = draws, simulation.compact
        robot: Robot = load_robot(config.robot)
        robot.check(fixed_base=True)
        model, joints, device = simulation.model, robot.joints, simulation.device
        require_names("arm_joints", config.arm_joints, joints, f"joint of {config.robot}")
        sites = [model.site(index).name for index in range(model.nsite)]
        require_names("site", [config.site], sites, "site")
        self.control_dt_s = config.control_dt_s
        self.num_substeps = config.num_substeps(model)
        self.episode_steps = count_steps(config.episode_s, config.control_dt_s)

        home = torch.from_numpy(robot.home)
        low, high = map(torch.from_numpy, robot.target_range(config.limit_margin_rad))
        arm = [joints.index(name) for name in config.arm_joints]
        self.encoder = ObservationEncoder(
            ReachFeatures(ForwardKinematics(model, config.site, joints), joints, arm, home),
            config.history,
            changes=["joint_target"],  # see ReachFeatures
        ).to(device)
        step = config.max_joint_speed_rad_s * config.control_dt_s
        self.decoder = JointStepDecoder(
            joints, config.arm_joints, step=step, low=low, high=high, default=home
        ).to(device)
        self.deployment = Deployment(
            robot,
            robot.joint_specs(
                low=low.tolist(), high=high.tolist(), velocity_limit=config.max_joint_speed_rad_s
            ),
            CommandSpec(
                name="target_position",
                elements=list(XYZ),
                unit="m",
                frame="base",
                low=list(config.target_low_m),
                high=list(config.target_high_m),
                interval_s=config.target_interval_s,
                site=config.site,
            ),
        )
        self.signals = {name: joints for name in MEASURED} | {"command": XYZ}
        self.privileged = {
            "tool_error": XYZ,
            **{f"true_{name}": joints for name in MEASURED},
            "joint_target": joints,
            "friction_loss": joints,
            "actuator_delay": joints,
        }

        self.actuators = torch.from_numpy(robot.actuators).to(device)
        self._sensors = SensorReader(simulation, robot.sensors(MEASURED))
        self._qpos, self._qvel = simulation.data("qpos"), simulation.data("qvel")
        self._ctrl = simulation.data("ctrl")
        self._friction = simulation.field("dof_frictionloss")
        self._delay = simulation.field("actuator_delay")
        self._tool = simulation.data("site_xpos")[:, model.site(config.site).id]
        self._home_qpos = torch.from_numpy(robot.home_qpos).to(self._qpos)
        qpos, dofs = (torch.from_numpy(v).to(device) for v in (robot.qpos, robot.dofs))
        self._joint_qpos, self._joint_dofs = as_slice(qpos), as_slice(dofs)
        self._arm_qpos, self._arm_dofs = as_slice(qpos[arm]), as_slice(dofs[arm])
        self._servos = as_slice(self.actuators)
        self._home, self._low, self._high = (v.to(self._qpos) for v in (home, low, high))
        self._arm_home = home[arm].float().to(device)
        self._command = UniformCommand(
            simulation,
            draws,
            low=config.target_low_m,
            high=config.target_high_m,
            interval_s=config.target_interval_s,
            control_dt_s=config.control_dt_s,
        )
        self._settled_error = torch.zeros(simulation.num_envs, device=device)
        self._distance = torch.zeros_like(self._settled_error)
        self._settle_steps = count_steps(SETTLED_S, config.control_dt_s)

    @property
    def command(self) -> Tensor:
        """(num_envs, 3) where the tool should be, base frame [m]."""
        return self._command.value

    def initial_state(self, worlds: Worlds, episode: Tensor) -> State:
        """See `Task.initial_state`."""
        spread = self.config.start_spread_rad
        (u,) = self._draws.uniform([Stream("initial_pose", len(self._home))], worlds.ids, episode)
        pose = (self._home + spread * (2 * u - 1)).clamp(self._low, self._high)
        qpos = self._home_qpos.repeat(len(worlds), 1)
        qpos[:, self._joint_qpos] = pose
        ctrl = qpos.new_zeros(len(worlds), self._ctrl.shape[1])
        ctrl[:, self.actuators] = pose
        self._new_command(worlds)
        return State(qpos, qpos.new_zeros(len(worlds), self._qvel.shape[1]), ctrl)

    def measure(self, worlds: Worlds) -> dict[str, Tensor]:
        """See `Task.measure`."""
        return self._sensors.read(worlds) | {"command": worlds.take(self.command).clone()}

    def advance(self) -> tuple[dict[str, Tensor], Tensor]:
        """See `Task.advance`; `reach_error_m` is the mean distance in a target's last second.

        The distance is that of the rewards, which come first.
        """
        ended = self._command.advance()
        length = self._command.steps.clamp(max=self._settle_steps)
        settling = self._command.remaining < length
        self._settled_error += settling * self._distance / length
        metrics = {"reach_error_m": self._settled_error.clone()}
        worlds = choose(ended, compact=self._compact)
        if not worlds.none:
            self._new_command(worlds)
        return metrics, ended

    def distance(self) -> Tensor:
        """(num_envs,) true distance of the tool from its target [m]."""
        return torch.linalg.vector_norm(self._tool.float() - self.command, dim=-1)

    def rewards(self, action: Tensor, previous_action: Tensor) -> dict[str, Tensor]:
        """See `Task.rewards`."""
        weights = self.config.rewards
        distance = self._distance = self.distance()
        angle = self._qpos[:, self._arm_qpos].float()
        speed = self._qvel[:, self._arm_dofs].float()
        return {
            "reach": weights.reach * closeness(distance, 0.1),  # finds the way
            "hold": weights.hold * closeness(distance, 0.01),  # makes it precise
            "action_rate": weights.action_rate * mean_square(action - previous_action),
            "joint_speed": weights.joint_speed * mean_square(speed),
            # settles what the target leaves open
            "posture": weights.posture * mean_square(angle - self._arm_home),
            "desk": weights.desk * desk(self._tool[:, 2].float()),
        }

    def terminated(self) -> Tensor:
        """Never: there is nothing to fall over."""
        return torch.zeros_like(self._settled_error, dtype=torch.bool)

    def observe_privileged(self, worlds: Worlds) -> dict[str, Tensor]:
        """True error, joint state and servo gain, delay and friction of this episode."""
        tool, qpos, qvel, ctrl, friction, delay = (
            worlds.take(table).float()
            for table in (
                self._tool,
                self._qpos,
                self._qvel,
                self._ctrl,
                self._friction,
                self._delay,
            )
        )
        return {
            "tool_error": tool - worlds.take(self.command),
            "true_joint_position": qpos[:, self._joint_qpos],
            "true_joint_velocity": qvel[:, self._joint_dofs],
            "joint_target": ctrl[:, self._servos],
            "friction_loss": friction[:, self._joint_dofs],
            "actuator_delay": 50 * delay[:, self._servos],
        }

    def state_dict(self) -> dict[str, Any]:
        """See `Task.state_dict`."""
        return {
            "command": self._command.state_dict(),
            "settled_error": self._settled_error.clone(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """See `Task.load_state_dict`."""
        self._command.load_state_dict(state["command"])
        self._settled_error.copy_(state["settled_error"])

    def _new_command(self, worlds: Worlds) -> None:
        self._command.renew(worlds)
        worlds.put(self._settled_error, 0)
