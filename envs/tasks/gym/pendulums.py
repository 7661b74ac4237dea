"""Balance poles on a cart: InvertedPendulum-v5, InvertedDoublePendulum-v5."""

import torch
from torch import Tensor

from deploy.configuration import Section
from envs.draws import Draws
from envs.simulation import Simulation
from envs.tasks.gym.gym_task import GymTask, Noise, Reading, clip
from envs.tasks.settings import Weight


class InvertedPendulumConfig(Section):
    """Settings; the names and defaults are Gymnasium's."""

    reset_noise_scale: Noise = 0.01
    """Size of the noise of the initial state."""


class InvertedPendulum(GymTask):
    """One pole, which must stay within 0.2 rad."""

    Config = InvertedPendulumConfig
    model_file = "inverted_pendulum.xml"
    num_substeps = 2

    def readings(self) -> dict[str, Reading]:
        """Everything."""
        return {"position": Reading("qpos"), "velocity": Reading("qvel")}

    def rewards(self, action: Tensor, previous_action: Tensor) -> dict[str, Tensor]:
        """1 for each step that does not end the episode."""
        return {"survive": (~self.terminated()).float()}

    def terminated(self) -> Tensor:
        """Where the pole leans too far."""
        return self._qpos[:, 1].abs() > 0.2


class InvertedDoublePendulumConfig(Section):
    """Settings; the names and defaults are Gymnasium's."""

    healthy_reward: Weight = 10.0
    """Reward for each step that does not end the episode."""
    reset_noise_scale: Noise = 0.1
    """Size of the noise of the initial state."""


class InvertedDoublePendulum(GymTask):
    """Two poles, one on the other; the tip must stay above 1 m."""

    Config = InvertedDoublePendulumConfig
    model_file = "inverted_double_pendulum.xml"
    num_substeps = 5
    normal_velocity = True

    def __init__(self, simulation: Simulation, config: InvertedDoublePendulumConfig, draws: Draws):
        super().__init__(simulation, config, draws)
        self._tip = simulation.data("site_xpos")[:, simulation.model.site("tip").id]

    def readings(self) -> dict[str, Reading]:
        """The cart's place, the angles as sine and cosine, speeds, the force of the rail's ends."""
        return {
            "position": Reading("qpos", slice(0, 1)),
            "sin": Reading("qpos", slice(1, None), torch.sin),
            "cos": Reading("qpos", slice(1, None), torch.cos),
            "velocity": Reading("qvel", function=clip(10)),
            "constraint_force": Reading("qfrc_constraint", slice(0, 1), clip(10)),
        }

    def rewards(self, action: Tensor, previous_action: Tensor) -> dict[str, Tensor]:
        """See `Task.rewards`: at 2 m the tip stands straight up."""
        x, _, z = self._tip.unbind(dim=-1)
        _, lower, upper = self._qvel.unbind(dim=-1)
        distance = 0.01 * x.square() + (z - 2).square()
        velocity = 1e-3 * lower.square() + 5e-3 * upper.square()
        return {
            "survive": self.config.healthy_reward * ~self.terminated(),
            "distance": -distance.float(),
            "velocity": -velocity.float(),
        }

    def terminated(self) -> Tensor:
        """Where the tip is at 1 m or lower."""
        return self._tip[:, 2] <= 1
