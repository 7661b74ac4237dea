"""Reach: bring the tool of an arm to a point, hold it there, go to the next point.

The command is a position in the base frame, drawn uniformly from a box every few seconds. The
actor sees measured joint angles and speeds, the targets last sent, and the command; where its tool
is it works out by forward kinematics, inside the exported graph.
"""

from typing import Any, Self

import mujoco
import torch
from torch import Tensor

from deploy.configuration import Section
from deploy.contract import CommandSpec
from deploy.quantities import Period
from envs.draws import Draws
from envs.forward_kinematics import ForwardKinematics
from envs.observation_encoder import ObservationEncoder
from envs.reach_features import XYZ, ReachFeatures
from envs.rewards import closeness, mean_square
from envs.robot_joints import RobotJoints
from envs.sensors import SensorReader
from envs.simulation import Simulation, State
from envs.task import Deployment
from envs.tasks.arm import MEASURED, TRUTH, ArmConfig, SettlingCommand, desk, joint_truth
from envs.tasks.settings import Weight, at_training_timestep, count_steps
from envs.worlds import Worlds, choose


class RewardWeights(Section):
    """Weights of the reward terms; see `ArmReach.rewards`."""

    reach: Weight = 1.0
    hold: Weight = 1.0
    action_rate: Weight = -0.3
    joint_speed: Weight = -0.02
    posture: Weight = -0.1
    desk: Weight = -1.0


class ArmReachConfig(ArmConfig):
    """Settings of the task."""

    rewards: RewardWeights = RewardWeights()
    training_timestep_s: Period | None = None
    """Timestep of the physics in training, where it may be coarser than the model's. Evaluation
    knows none."""

    def in_evaluation(self) -> Self:
        """Without what is of training alone."""
        return self.model_copy(update={"training_timestep_s": None})


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
        model = config.load_robot().model
        return at_training_timestep(model, config, config.training_timestep_s)

    def __init__(self, simulation: Simulation, config: ArmReachConfig, draws: Draws):
        self.config = config
        self._draws, self._compact = draws, simulation.compact
        robot = config.load_robot()
        config.check_robot(robot)
        config.check_reach(robot)
        model, device = simulation.model, simulation.device
        self.control_dt_s = config.control_dt_s
        self.num_substeps = config.num_substeps(model)
        self.episode_steps = count_steps(config.episode_s, config.control_dt_s)

        joints = self._joints = RobotJoints(simulation, robot, margin_rad=config.limit_margin_rad)
        self._arm = joints.columns(config.arm_joints)
        self._arm_home = joints.home[self._arm].float()
        arm = [joints.names.index(name) for name in config.arm_joints]
        kinematics = ForwardKinematics(robot.model, config.site, joints.names)
        self.encoder = ObservationEncoder(
            ReachFeatures(kinematics, joints.names, arm, joints.home.cpu()),
            config.history,
            changes=["joint_target"],  # see ReachFeatures
        ).to(device)
        self.decoder = config.decoder(joints).to(device)
        self.deployment = Deployment(
            robot,
            joints.specs(config.max_joint_speed_rad_s),
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
        self.signals = {name: joints.names for name in MEASURED} | {"command": XYZ}
        self.privileged = {"tool_error": XYZ, **dict.fromkeys(TRUTH, joints.names)}
        self.actuators = joints.actuators
        self._sensors = SensorReader(simulation, robot.sensors(MEASURED))
        self._tool = simulation.data("site_xpos")[:, model.site(config.site).id]
        self._command = SettlingCommand(simulation, draws, config, axes=3, count=1)
        self._distance = torch.zeros(simulation.num_envs, device=device)

    @property
    def command(self) -> Tensor:
        """(num_envs, 3) where the tool should be, base frame [m]."""
        return self._command.value

    def initial_state(self, worlds: Worlds, episode: Tensor) -> State:
        """See `Task.initial_state`."""
        state = self._joints.start(
            worlds, episode, self._draws, spread_rad=self.config.start_spread_rad
        )
        self._command.renew(worlds)
        return state

    def measure(self, worlds: Worlds) -> dict[str, Tensor]:
        """See `Task.measure`."""
        return self._sensors.read(worlds) | {"command": worlds.take(self.command).clone()}

    def advance(self) -> tuple[dict[str, Tensor], Tensor]:
        """See `Task.advance`; `reach_error_m` is the mean distance in a target's last second.

        The distance is that of the rewards, which come first.
        """
        ended = self._command.advance(self._distance)
        metrics = {"reach_error_m": self._command.mean[:, 0].clone()}
        worlds = choose(ended, compact=self._compact)
        if not worlds.none:
            self._command.renew(worlds)
        return metrics, ended

    def distance(self) -> Tensor:
        """(num_envs,) true distance of the tool from its target [m]."""
        return torch.linalg.vector_norm(self._tool.float() - self.command, dim=-1)

    def rewards(self, action: Tensor, previous_action: Tensor) -> dict[str, Tensor]:
        """See `Task.rewards`."""
        weights, joints = self.config.rewards, self._joints
        distance = self._distance = self.distance()
        bent = joints.angle[:, self._arm] - self._arm_home
        return {
            "reach": weights.reach * closeness(distance, 0.1),  # finds the way
            "hold": weights.hold * closeness(distance, 0.01),  # makes it precise
            "action_rate": weights.action_rate * mean_square(action - previous_action),
            "joint_speed": weights.joint_speed * mean_square(joints.speed[:, self._arm]),
            "posture": weights.posture * mean_square(bent),  # settles what the target leaves open
            "desk": weights.desk * desk(self._tool[:, 2].float()),
        }

    def terminated(self) -> Tensor:
        """Never: there is nothing to fall over."""
        return torch.zeros_like(self._distance, dtype=torch.bool)

    def observe_privileged(self, worlds: Worlds) -> dict[str, Tensor]:
        """True error, joint state and servo gain, delay and friction of this episode."""
        error = worlds.take(self._tool).float() - worlds.take(self.command)
        return {"tool_error": error, **joint_truth(self._joints, worlds)}

    def state_dict(self) -> dict[str, Any]:
        """See `Task.state_dict`."""
        return {"command": self._command.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """See `Task.load_state_dict`."""
        self._command.load_state_dict(state["command"])
