"""Move forward: HalfCheetah-v5, Swimmer-v5, Hopper-v5, Walker2d-v5, Ant-v5."""

from typing import Any

import torch
from torch import Tensor

from deploy.configuration import Section
from envs.draws import Draws
from envs.simulation import Simulation
from envs.tasks.gym.gym_task import (
    GymTask,
    Noise,
    Reading,
    clip,
    square_sum,
)
from envs.tasks.settings import Weight
from envs.worlds import Worlds


class ForwardConfig(Section):
    """Settings; the names and defaults are Gymnasium's."""

    forward_reward_weight: Weight = 1.0
    """Reward for each m/s forward."""
    ctrl_cost_weight: Weight = 0.1
    """Cost of the sum of squared controls."""
    reset_noise_scale: Noise = 0.1
    """Size of the noise of the initial state."""


class Forward(GymTask):
    """Be paid for speed along x, pay for control."""

    Config = ForwardConfig

    def __init__(self, simulation: Simulation, config: ForwardConfig, draws: Draws):
        super().__init__(simulation, config, draws)
        self._last_x = torch.zeros_like(self._qpos[:, 0])

    def readings(self) -> dict[str, Reading]:
        """All but x."""
        return {"position": Reading("qpos", slice(1, None)), "velocity": Reading("qvel")}

    def x(self) -> Tensor:
        """(num_envs,) how far it has come [m]."""
        return self._qpos[:, 0]

    def measure(self, worlds: Worlds) -> dict[str, Tensor]:
        """See `GymTask.measure`; a new episode starts from where it is now."""
        if self._starting:
            worlds.put(self._last_x, worlds.take(self.x()))
        return super().measure(worlds)

    def rewards(self, action: Tensor, previous_action: Tensor) -> dict[str, Tensor]:
        """See `Task.rewards`."""
        x = self.x()
        forward = (self.config.forward_reward_weight / self.control_dt_s) * (x - self._last_x)
        self._last_x.copy_(x)
        control = -self.config.ctrl_cost_weight * square_sum(self._ctrl)
        return {"forward": forward.float(), "ctrl": control.float()}

    def state_dict(self) -> dict[str, Any]:
        """See `Task.state_dict`."""
        return {"last_x": self._last_x.clone()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """See `Task.load_state_dict`."""
        self._last_x.copy_(state["last_x"])


class HalfCheetah(Forward):
    """Two legs in a plane, which can fall but not fail."""

    model_file = "half_cheetah.xml"
    num_substeps = 5
    normal_velocity = True


class SwimmerConfig(ForwardConfig):
    """Settings; the names and defaults are Gymnasium's."""

    ctrl_cost_weight: Weight = 1e-4
    """Cost of the sum of squared controls."""


class Swimmer(Forward):
    """Three links in a viscous plane."""

    Config = SwimmerConfig
    model_file = "swimmer.xml"
    num_substeps = 4

    def readings(self) -> dict[str, Reading]:
        """All but x and y."""
        return {"position": Reading("qpos", slice(2, None)), "velocity": Reading("qvel")}


class HealthyConfig(ForwardConfig):
    """Settings; the names and defaults are Gymnasium's."""

    ctrl_cost_weight: Weight = 1e-3
    """Cost of the sum of squared controls."""
    reset_noise_scale: Noise = 5e-3
    """Size of the noise of the initial state."""
    healthy_reward: Weight = 1.0
    """Reward for each step on its feet."""
    terminate_when_unhealthy: bool = True
    """Whether a fall ends the episode."""


class Healthy(Forward):
    """Move forward without falling."""

    Config = HealthyConfig

    def healthy(self) -> Tensor:
        """(num_envs,) bool: has not fallen."""
        raise NotImplementedError

    def rewards(self, action: Tensor, previous_action: Tensor) -> dict[str, Tensor]:
        """See `Task.rewards`."""
        survive = self.config.healthy_reward * self.healthy()
        return super().rewards(action, previous_action) | {"survive": survive}

    def terminated(self) -> Tensor:
        """Where it has fallen."""
        return ~self.healthy() if self.config.terminate_when_unhealthy else self._none


class Hopper(Healthy):
    """One leg in a plane."""

    model_file = "hopper.xml"
    num_substeps = 4

    def readings(self) -> dict[str, Reading]:
        """All but x."""
        return super().readings() | {"velocity": Reading("qvel", function=clip(10))}

    def healthy(self) -> Tensor:
        """Above 0.7 m, leaning by less than 0.2 rad, no coordinate or speed beyond ±100."""
        z, angle = self._qpos[:, 1], self._qpos[:, 2]
        sane = (self._qpos[:, 2:].abs() < 100).all(-1) & (self._qvel.abs() < 100).all(-1)
        return sane & (z > 0.7) & (angle.abs() < 0.2)


class Walker2d(Healthy):
    """Two legs in a plane, which may fail."""

    model_file = "walker2d_v5.xml"
    num_substeps = 4

    def readings(self) -> dict[str, Reading]:
        """All but x."""
        return super().readings() | {"velocity": Reading("qvel", function=clip(10))}

    def healthy(self) -> Tensor:
        """Between 0.8 and 2 m, leaning by less than 1 rad."""
        z, angle = self._qpos[:, 1], self._qpos[:, 2]
        return (z > 0.8) & (z < 2) & (angle.abs() < 1)


class AntConfig(HealthyConfig):
    """Settings; the names and defaults are Gymnasium's."""

    ctrl_cost_weight: Weight = 0.5
    """Cost of the sum of squared controls."""
    contact_cost_weight: Weight = 5e-4
    """Cost of the sum of squared contact forces."""
    reset_noise_scale: Noise = 0.1
    """Size of the noise of the initial state."""
    include_cfrc_ext_in_observation: bool = True
    """Whether the actor feels contact forces."""


class Ant(Healthy):
    """Four legs."""

    Config = AntConfig
    model_file = "ant.xml"
    num_substeps = 5
    normal_velocity = True

    @staticmethod
    def feels_contact(config: Any) -> bool:
        """Unless both its sense and its cost are switched off."""
        return config.include_cfrc_ext_in_observation or config.contact_cost_weight != 0

    def __init__(self, simulation: Simulation, config: AntConfig, draws: Draws):
        super().__init__(simulation, config, draws)
        self._torso_x = simulation.data("xpos")[:, simulation.model.body("torso").id, 0]
        self._contact = simulation.data("cfrc_ext").flatten(1)

    def readings(self) -> dict[str, Reading]:
        """All but x and y."""
        readings = {"position": Reading("qpos", slice(2, None)), "velocity": Reading("qvel")}
        if self.config.include_cfrc_ext_in_observation:
            readings["contact_force"] = Reading("cfrc_ext", slice(1, None), clip(1))
        return readings

    def x(self) -> Tensor:
        """Of the torso."""
        return self._torso_x

    def healthy(self) -> Tensor:
        """Between 0.2 and 1 m."""
        z = self._qpos[:, 2]
        return (z >= 0.2) & (z <= 1)

    def rewards(self, action: Tensor, previous_action: Tensor) -> dict[str, Tensor]:
        """See `Task.rewards`."""
        contact = square_sum(self._contact.clamp(-1, 1))
        contact = -self.config.contact_cost_weight * contact
        return super().rewards(action, previous_action) | {"contact": contact.float()}
