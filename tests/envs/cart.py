"""A small task without random numbers, so that every world of every environment is comparable.

A mass of 1 kg on a rail is pushed with up to 40 N. It has failed 5 cm from the middle; an episode
lasts six steps at most; episode n of any world starts n tenths of a millimetre from the middle.
"""

from typing import Any

import mujoco
import torch
from torch import Tensor, nn

from deploy.configuration import Section
from envs.action_decoder import ScaleDecoder
from envs.draws import Draws
from envs.observation_encoder import ObservationEncoder
from envs.simulation import Simulation, State
from envs.worlds import Worlds

MODEL = """
<mujoco>
  <option timestep="0.01"/>
  <worldbody>
    <body>
      <joint name="rail" type="slide" axis="1 0 0"/>
      <geom size="0.1" mass="1"/>
    </body>
  </worldbody>
  <actuator><motor joint="rail" gear="40"/></actuator>
</mujoco>
"""


class CartConfig(Section):
    pass


class CartFeatures(nn.Module):
    signals = ("position",)
    columns = {"position": ["x"]}

    def forward(self, signals: dict[str, Tensor]) -> dict[str, Tensor]:
        return {"position": signals["position"]}


class Cart:
    """See the module docstring."""

    Config = CartConfig
    control_dt_s, num_substeps, episode_steps = 0.02, 2, 6
    signals = {"position": ["x"]}
    privileged: dict[str, list[str]] = {}
    deployment = None

    @staticmethod
    def load_model(config: CartConfig) -> mujoco.MjModel:
        return mujoco.MjModel.from_xml_string(MODEL)

    def __init__(self, simulation: Simulation, config: CartConfig, draws: Draws):
        self.encoder = ObservationEncoder(CartFeatures(), history=2)
        self.decoder = ScaleDecoder(-torch.ones(1), torch.ones(1))
        self.actuators = torch.tensor([0])
        self._qpos = simulation.data("qpos")

    def initial_state(self, worlds: Worlds, episode: Tensor) -> State:
        zero = torch.zeros(len(worlds), 1, dtype=torch.float64)
        return State(1e-4 * episode[:, None].double(), zero, zero)

    def measure(self, worlds: Worlds) -> dict[str, Tensor]:
        return {"position": worlds.take(self._qpos).float()}

    def observe_privileged(self, worlds: Worlds) -> dict[str, Tensor]:
        return {}

    def rewards(self, action: Tensor, previous_action: Tensor) -> dict[str, Tensor]:
        return {"alive": torch.ones(len(self._qpos)), "middle": -self._qpos[:, 0].abs().float()}

    def terminated(self) -> Tensor:
        return self._qpos[:, 0].abs() > 0.05

    def advance(self) -> tuple[dict[str, Tensor], Tensor]:
        return {}, torch.ones(len(self._qpos), dtype=torch.bool)

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        pass
