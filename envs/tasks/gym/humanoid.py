"""A humanoid that walks or stands up: Humanoid-v5, HumanoidStandup-v5.

The observation is large (348): beside pose and speeds, inertia and velocity of every body about the
centre of mass, actuator torques and contact forces.
"""

from typing import Any

import torch
from torch import Tensor

from deploy.configuration import Section
from envs.draws import Draws
from envs.simulation import Simulation
from envs.tasks.gym.gym_task import GymTask, Noise, Reading, square_sum
from envs.tasks.gym.locomotion import Healthy, HealthyConfig
from envs.tasks.settings import Weight

LARGEST_CONTACT_COST = 10.0


class HumanoidConfig(HealthyConfig):
    """Settings; the names and defaults are Gymnasium's."""

    forward_reward_weight: Weight = 1.25
    """Reward for each m/s forward."""
    ctrl_cost_weight: Weight = 0.1
    """Cost of the sum of squared controls."""
    contact_cost_weight: Weight = 5e-7
    """Cost of the sum of squared contact forces, which is at most 10."""
    healthy_reward: Weight = 5.0
    """Reward for each step on its feet."""
    reset_noise_scale: Noise = 0.01
    """Size of the noise of the initial state."""
    include_cfrc_ext_in_observation: bool = True
    """Whether the actor feels contact forces."""


class Humanoid(Healthy):
    """Walk."""

    Config = HumanoidConfig
    model_file = "humanoid.xml"
    num_substeps = 5

    @staticmethod
    def feels_contact(config: Any) -> bool:
        """Unless both its sense and its cost are switched off."""
        return config.include_cfrc_ext_in_observation or config.contact_cost_weight != 0

    def __init__(self, simulation: Simulation, config: HumanoidConfig, draws: Draws):
        super().__init__(simulation, config, draws)
        mass = torch.from_numpy(simulation.model.body_mass)
        self._mass_share = (mass / mass.sum()).to(self._qpos)
        self._body_x = simulation.data("xipos")[:, :, 0]
        self._contact = simulation.data("cfrc_ext").flatten(1)

    def readings(self) -> dict[str, Reading]:
        """See `_readings`."""
        return _readings(self.config.include_cfrc_ext_in_observation)

    def x(self) -> Tensor:
        """Of the centre of mass."""
        return self._body_x @ self._mass_share

    def healthy(self) -> Tensor:
        """Between 1 and 2 m."""
        z = self._qpos[:, 2]
        return (z > 1) & (z < 2)

    def rewards(self, action: Tensor, previous_action: Tensor) -> dict[str, Tensor]:
        """See `Task.rewards`."""
        contact = _contact_cost(self._contact, self.config.contact_cost_weight)
        return super().rewards(action, previous_action) | {"contact": -contact.float()}


class HumanoidStandupConfig(Section):
    """Settings; the names and defaults are Gymnasium's."""

    ctrl_cost_weight: Weight = 0.1
    """Cost of the sum of squared controls."""
    impact_cost_weight: Weight = 5e-7
    """Cost of the sum of squared contact forces, which is at most 10."""
    reset_noise_scale: Noise = 0.01
    """Size of the noise of the initial state."""
    include_cfrc_ext_in_observation: bool = True
    """Whether the actor feels contact forces."""


class HumanoidStandup(GymTask):
    """Get up from the floor; an episode ends only by its time."""

    Config = HumanoidStandupConfig
    model_file = "humanoidstandup.xml"
    num_substeps = 5

    @staticmethod
    def feels_contact(config: Any) -> bool:
        """Unless both its sense and its cost are switched off."""
        return config.include_cfrc_ext_in_observation or config.impact_cost_weight != 0

    def __init__(self, simulation: Simulation, config: HumanoidStandupConfig, draws: Draws):
        super().__init__(simulation, config, draws)
        self._timestep = simulation.model.opt.timestep
        self._contact = simulation.data("cfrc_ext").flatten(1)

    def readings(self) -> dict[str, Reading]:
        """See `_readings`."""
        return _readings(self.config.include_cfrc_ext_in_observation)

    def rewards(self, action: Tensor, previous_action: Tensor) -> dict[str, Tensor]:
        """Gymnasium's: height over the time of one physics step, costs, and a constant 1."""
        control = -self.config.ctrl_cost_weight * square_sum(self._ctrl)
        impact = -_contact_cost(self._contact, self.config.impact_cost_weight)
        height = self._qpos[:, 2] / self._timestep
        return {
            "height": height.float(),
            "ctrl": control.float(),
            "impact": impact.float(),
            "constant": torch.ones_like(height, dtype=torch.float32),
        }


def _readings(contact_forces: bool) -> dict[str, Reading]:
    """All but x and y, without the world and the free joint, which has no actuator."""
    bodies = slice(1, None)
    readings = {
        "position": Reading("qpos", slice(2, None)),
        "velocity": Reading("qvel"),
        "inertia": Reading("cinert", bodies),
        "body_velocity": Reading("cvel", bodies),
        "actuator_force": Reading("qfrc_actuator", slice(6, None)),
    }
    return readings | ({"contact_force": Reading("cfrc_ext", bodies)} if contact_forces else {})


def _contact_cost(contact: Tensor, weight: float) -> Tensor:
    return (weight * square_sum(contact)).clamp(max=LARGEST_CONTACT_COST)
