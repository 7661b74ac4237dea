"""Bring a fingertip to a point, push an object to one: Reacher-v5, Pusher-v5."""

import math

import mujoco
import torch
from torch import Tensor

from deploy.configuration import Section
from envs.draws import Draws, Stream
from envs.simulation import Simulation, State
from envs.tasks.gym.gym_task import GymTask, Reading, square_sum, symmetric
from envs.tasks.settings import Weight
from envs.worlds import Worlds

POSE_NOISE, SPEED_NOISE = 0.1, 0.005
TARGET_RADIUS = 0.2
OBJECT_DISTANCE = 0.17
TRIES = 32  # of which 38 % fall too close to the goal, all of them never: 0.38³² = 3e-14


class ReacherConfig(Section):
    """Settings; the names and defaults are Gymnasium's."""

    reward_dist_weight: Weight = 1.0
    """Cost of each metre between fingertip and target."""
    reward_control_weight: Weight = 1.0
    """Cost of the sum of squared controls."""


class Reacher(GymTask):
    """Two links in a plane."""

    Config = ReacherConfig
    model_file = "reacher.xml"
    num_substeps = 2
    episode_steps = 50

    def __init__(self, simulation: Simulation, config: ReacherConfig, draws: Draws):
        super().__init__(simulation, config, draws)
        model, xpos = simulation.model, simulation.data("xpos")
        self._fingertip = xpos[:, model.body("fingertip").id]
        self._target = xpos[:, model.body("target").id]

    def readings(self) -> dict[str, Reading]:
        """Angles as cosine and sine, the target, speeds; `measure` adds the way to the target."""
        return {
            "cos": Reading("qpos", slice(0, 2), torch.cos),
            "sin": Reading("qpos", slice(0, 2), torch.sin),
            "target": Reading("qpos", slice(2, None)),
            "velocity": Reading("qvel", slice(0, 2)),
        }

    def name_signals(self, model: mujoco.MjModel) -> dict[str, list[str]]:
        """See `GymTask.name_signals`."""
        return super().name_signals(model) | {"from_target": ["x", "y"]}

    def measure(self, worlds: Worlds) -> dict[str, Tensor]:
        """See `GymTask.measure`."""
        from_target = worlds.take(self._fingertip - self._target)[:, :2]
        return super().measure(worlds) | {"from_target": from_target.float()}

    def initial_state(self, worlds: Worlds, episode: Tensor) -> State:
        """The arm near its own pose, the target anywhere in a disc."""
        state = super().initial_state(worlds, episode)
        (place,) = self._draws.uniform([Stream("gym_target", 2)], worlds.ids, episode)
        radius, angle = TARGET_RADIUS * place[:, 0].sqrt(), 2 * math.pi * place[:, 1]
        state.qpos[:, -2:] = torch.stack([radius * angle.cos(), radius * angle.sin()], dim=-1)
        state.qvel[:, -2:] = 0
        return state

    def start(self, position: Tensor, velocity: Tensor) -> tuple[Tensor, Tensor]:
        """See `GymTask.start`."""
        return self._qpos0 + POSE_NOISE * symmetric(position), SPEED_NOISE * symmetric(velocity)

    def rewards(self, action: Tensor, previous_action: Tensor) -> dict[str, Tensor]:
        """See `Task.rewards`."""
        distance = (self._fingertip - self._target).norm(dim=-1)
        return {
            "distance": (-self.config.reward_dist_weight * distance).float(),
            "ctrl": (-self.config.reward_control_weight * square_sum(self._ctrl)).float(),
        }


class PusherConfig(Section):
    """Settings; the names and defaults are Gymnasium's."""

    reward_near_weight: Weight = 0.5
    """Cost of each metre between fingertip and object."""
    reward_dist_weight: Weight = 1.0
    """Cost of each metre between object and goal."""
    reward_control_weight: Weight = 0.1
    """Cost of the sum of squared controls."""


class Pusher(GymTask):
    """An arm with seven joints and a cylinder on a table."""

    Config = PusherConfig
    model_file = "pusher_v5.xml"
    num_substeps = 5
    episode_steps = 100

    def __init__(self, simulation: Simulation, config: PusherConfig, draws: Draws):
        super().__init__(simulation, config, draws)
        model, xpos = simulation.model, simulation.data("xpos")
        self._tip, self._object, self._goal = (
            xpos[:, model.body(name).id] for name in ("tips_arm", "object", "goal")
        )

    def readings(self) -> dict[str, Reading]:
        """The arm, and where the three bodies are that the reward speaks of."""
        return {
            "position": Reading("qpos", slice(0, 7)),
            "velocity": Reading("qvel", slice(0, 7)),
            "tip": Reading("xpos", "tips_arm"),
            "object": Reading("xpos", "object"),
            "goal": Reading("xpos", "goal"),
        }

    def initial_state(self, worlds: Worlds, episode: Tensor) -> State:
        """The arm at rest in its own pose, the object beside the goal, but not close to it."""
        state = super().initial_state(worlds, episode)
        (place,) = self._draws.uniform([Stream("gym_object", 2 * TRIES)], worlds.ids, episode)
        tries = place.view(len(worlds), TRIES, 2).to(state.qpos)
        tries = torch.stack([0.3 * (tries[..., 0] - 1), 0.2 * symmetric(tries[..., 1])], dim=-1)
        allowed = tries.norm(dim=-1) > OBJECT_DISTANCE
        first = allowed.to(torch.uint8).argmax(dim=-1)[:, None, None].expand(-1, 1, 2)
        state.qpos[:, -4:-2] = tries.gather(1, first).squeeze(1)
        state.qpos[:, -2:] = 0
        state.qvel[:, -4:] = 0
        return state

    def start(self, position: Tensor, velocity: Tensor) -> tuple[Tensor, Tensor]:
        """See `GymTask.start`."""
        return self._qpos0.repeat(len(position), 1), SPEED_NOISE * symmetric(velocity)

    def rewards(self, action: Tensor, previous_action: Tensor) -> dict[str, Tensor]:
        """See `Task.rewards`."""
        near = (self._object - self._tip).norm(dim=-1)
        distance = (self._object - self._goal).norm(dim=-1)
        return {
            "near": (-self.config.reward_near_weight * near).float(),
            "distance": (-self.config.reward_dist_weight * distance).float(),
            "ctrl": (-self.config.reward_control_weight * square_sum(self._ctrl)).float(),
        }
