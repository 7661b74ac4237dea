"""Stand: keep the trunk level, at the height that is asked for. A task on a robot with a free base,
written as a user would write it, with a robot of the user's own beside it."""

from pathlib import Path
from typing import Any

import mujoco
import torch
from torch import Tensor, nn

from deploy.contract import CommandSpec
from envs.action_decoder import JointStepDecoder
from envs.commands import UniformCommand
from envs.draws import Draws, Stream
from envs.observation_encoder import ObservationEncoder
from envs.reach_features import XYZ
from envs.rewards import closeness
from envs.robot import load_robot
from envs.sensors import SensorReader
from envs.simulation import Simulation, State
from envs.task import Deployment
from envs.tasks.settings import RobotTaskConfig, count_steps
from envs.worlds import Worlds, choose

MEASURED = ("imu_angular_velocity", "projected_gravity", "joint_position", "joint_velocity")
HEIGHT_M = (0.10, 0.15)
TIME_S = (1.0, 2.0)
SPEED_RAD_S = 2.0


class StandConfig(RobotTaskConfig):
    robot: str = str(Path(__file__).parent / "crawler.xml")


class StandFeatures(nn.Module):
    """What the robot measures and is asked for, as it is."""

    signals = (*MEASURED, "command")

    def __init__(self, joints: list[str]):
        super().__init__()
        self.columns = {
            **dict.fromkeys(MEASURED[:2], XYZ),
            **dict.fromkeys(MEASURED[2:], joints),
            "command": ["height"],
        }

    def forward(self, signals: dict[str, Tensor]) -> dict[str, Tensor]:
        return {name: signals[name] for name in self.columns}


class Stand:
    Config = StandConfig

    @staticmethod
    def load_model(config: StandConfig) -> mujoco.MjModel:
        return load_robot(config.robot).model

    def __init__(self, simulation: Simulation, config: StandConfig, draws: Draws):
        robot, model = load_robot(config.robot), simulation.model
        joints, dt, device = robot.joints, config.control_dt_s, simulation.device
        self.control_dt_s, self.num_substeps = dt, config.num_substeps(model)
        self.episode_steps = count_steps(config.episode_s, dt)
        self.actuators = torch.from_numpy(robot.actuators).to(device)
        low, high = map(torch.from_numpy, robot.target_range(0.02))
        self.encoder = ObservationEncoder(StandFeatures(joints)).to(device)
        home, step = torch.from_numpy(robot.home), SPEED_RAD_S * dt
        self.decoder = JointStepDecoder(
            joints, joints, step=step, low=low, high=high, default=home
        ).to(device)
        self.signals = {**self.encoder.features.columns}
        self.privileged = {"base_linear_velocity": XYZ, "base_height": [""]}
        low_m, high_m = ([value] for value in HEIGHT_M)
        spec = CommandSpec(
            name="height", elements=["height"], unit="m", low=low_m, high=high_m, interval_s=TIME_S
        )
        specs = robot.joint_specs(low=low.tolist(), high=high.tolist(), velocity_limit=SPEED_RAD_S)
        self.deployment = Deployment(robot, specs, spec)
        self._command = UniformCommand(
            simulation, draws, low=low_m, high=high_m, interval_s=TIME_S, control_dt_s=dt
        )
        self._sensors = SensorReader(simulation, robot.sensors(MEASURED))
        start = int(model.sensor("base_velocity").adr[0])
        self._velocity = simulation.data("sensordata")[:, start : start + 3]
        self._qpos, self._qvel = simulation.data("qpos"), simulation.data("qvel")
        self._home = torch.from_numpy(robot.home_qpos).to(self._qpos)
        self._joint_qpos = torch.from_numpy(robot.qpos).to(device)
        base = int(model.joint("base").qposadr[0])
        self._height, self._quat = self._qpos[:, base + 2], slice(base + 3, base + 7)
        self._draws, self._compact = draws, simulation.compact

    @property
    def command(self) -> Tensor:
        return self._command.value

    def initial_state(self, worlds: Worlds, episode: Tensor) -> State:
        """Standing, turned in any direction, joints up to 0.1 rad off the home pose."""
        streams = [Stream("yaw", 1), Stream("pose", len(self._joint_qpos))]
        yaw, pose = self._draws.uniform(streams, worlds.ids, episode)
        half = torch.pi * (yaw[:, 0].to(self._qpos) - 0.5)  # of an angle within ±π
        qpos = self._home.repeat(len(worlds), 1)
        qpos[:, self._quat] = torch.stack([half.cos(), 0 * half, 0 * half, half.sin()], dim=1)
        qpos[:, self._joint_qpos] += 0.2 * (pose.to(qpos) - 0.5)
        ctrl = qpos.new_zeros(len(worlds), len(self.actuators))
        ctrl[:, self.actuators] = qpos[:, self._joint_qpos]
        self._command.renew(worlds)
        return State(qpos, qpos.new_zeros(len(worlds), self._qvel.shape[1]), ctrl)

    def measure(self, worlds: Worlds) -> dict[str, Tensor]:
        return self._sensors.read(worlds) | {"command": worlds.take(self._command.value).clone()}

    def observe_privileged(self, worlds: Worlds) -> dict[str, Tensor]:
        velocity, height = worlds.take(self._velocity), worlds.take(self._height)
        return {"base_linear_velocity": velocity.float(), "base_height": height[:, None].float()}

    def rewards(self, action: Tensor, previous_action: Tensor) -> dict[str, Tensor]:
        return {"height": closeness(self._error(), 0.02), "upright": self._upright().float()}

    def terminated(self) -> Tensor:
        """Fallen: tilted by more than 60°."""
        return self._upright() < 0.5

    def advance(self) -> tuple[dict[str, Tensor], Tensor]:
        error = self._error()
        ended = self._command.advance()
        worlds = choose(ended, compact=self._compact)
        if not worlds.none:
            self._command.renew(worlds)
        return {"height_error_m": error}, ended

    def state_dict(self) -> dict[str, Any]:
        return {"command": self._command.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._command.load_state_dict(state["command"])

    def _error(self) -> Tensor:
        return (self._height.float() - self._command.value[:, 0]).abs()

    def _upright(self) -> Tensor:
        """(num_envs,) cosine of the trunk's tilt: z component of its z axis."""
        x, y = self._qpos[:, self._quat][:, 1:3].T
        return 1 - 2 * (x * x + y * y)
