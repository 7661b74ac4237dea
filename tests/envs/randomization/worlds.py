"""What the tests of this folder share: a walker on a free base, and worlds chosen by mask."""

from collections.abc import Sequence
from typing import Any

import mujoco
import torch

from envs.batch_simulation import BatchSimulation
from envs.draws import Draws
from envs.randomization import Randomization, read_terms
from envs.simulation import State
from envs.worlds import Worlds, every

DT = 0.01
WALKER = f"""
<mujoco>
  <compiler angle="radian"/>
  <option timestep="{DT}"/>
  <worldbody>
    <geom name="floor" type="plane" size="5 5 0.1"/>
    <body name="base" pos="0 0 0.5" simple="false">
      <freejoint/>
      <geom type="box" size="0.2 0.1 0.05" mass="3"/>
      <body name="left" pos="0 0.1 0" simple="false">
        <joint name="left" axis="0 1 0" range="-0.5 1" limited="true" damping="0.2"/>
        <geom name="left" type="capsule" fromto="0 0 0 0 0 -0.3" size="0.03" mass="0.5"/>
      </body>
      <body name="right" pos="0 -0.1 0" simple="false">
        <joint name="right" axis="0 1 0" range="-0.5 1" limited="true" damping="0.2"/>
        <geom name="right" type="capsule" fromto="0 0 0 0 0 -0.3" size="0.03" mass="0.5"/>
      </body>
    </body>
  </worldbody>
  <actuator>
    <position name="left" joint="left" kp="20" kv="1" ctrlrange="-0.4 0.9" forcerange="-5 5"/>
    <position name="right" joint="right" kp="20" kv="1" ctrlrange="-0.4 0.9" forcerange="-5 5"/>
  </actuator>
</mujoco>
"""
BASE, LEFT, RIGHT = 1, 2, 3  # bodies


class MaskedSimulation(BatchSimulation):
    """A simulation whose worlds are chosen by mask, as on a GPU."""

    def __init__(self, model: mujoco.MjModel, num_envs: int, **settings: Any):
        super().__init__(model, num_envs, **settings)
        self.compact = False

    def reset(self, worlds: Worlds, state: State) -> None:
        ids = torch.arange(self.num_envs) if worlds.mask is None else worlds.mask.nonzero()[:, 0]
        super().reset(Worlds(ids), State(*(part[ids] for part in state)))


def walkers(
    terms: Sequence[dict[str, Any]],
    num_envs: int = 2,
    kind: type[BatchSimulation] = BatchSimulation,
    xml: str = WALKER,
) -> tuple[BatchSimulation, Randomization]:
    """Worlds with terms, before their first episode."""
    simulation = kind(mujoco.MjModel.from_xml_string(xml), num_envs, num_threads=1)
    parsed = read_terms(terms, source="terms")
    draws = Draws(0, simulation.device)
    return simulation, Randomization(parsed, simulation, draws, signals={}, control_dt_s=DT)


def begin(
    simulation: BatchSimulation,
    randomization: Randomization,
    worlds: Worlds | None = None,
    episode: int = 1,
) -> State:
    """Start an episode in worlds, all of them if none are given; where they start."""
    worlds = worlds or every(simulation.num_envs)
    number = torch.full_like(worlds.ids, episode)
    model, n = simulation.model, len(worlds)
    randomization.begin(worlds, number)
    state = State(
        torch.from_numpy(model.qpos0).expand(n, -1).clone(),
        torch.zeros(n, model.nv, dtype=torch.float64),
        torch.zeros(n, model.nu, dtype=torch.float64),
    )
    state = randomization.initial_state(worlds, number, state)
    simulation.reset(worlds, state)
    return state
