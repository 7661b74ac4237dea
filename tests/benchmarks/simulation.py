"""Env-steps per second of our CPU simulation, beside EnvPool and Gymnasium. Run by hand:

    python tests/benchmarks/simulation.py                            # needs robotrl[dev]
    python tests/benchmarks/simulation.py --num-envs 64 256 512 --threads 2

Everybody steps HalfCheetah-v5: the same model, 5 physics steps, observation, reward, truncation
after 1000 steps, reset with noise. First the observations and rewards of the peers are compared
with ours. Then come rounds of one whole episode of random actions, interleaved; medians. "cores"
is CPU time by wall time of this process: a value far below the number of threads means that the
machine was busy with something else, and the round should not be believed.
"""

import argparse
import statistics
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NamedTuple

import envpool
import gymnasium
import gymnasium.envs.mujoco
import mujoco
import numpy as np
import torch
from torch import Tensor

from envs.batch_simulation import BatchSimulation
from envs.simulation import Simulation

NAME = "HalfCheetah-v5"
MODEL = Path(gymnasium.envs.mujoco.__file__).parent / "assets" / "half_cheetah.xml"
NUM_SUBSTEPS, EPISODE_STEPS = 5, 1000
CONTROL_COST, RESET_NOISE = 0.1, 0.1
CHECKED_STEPS, TOLERANCE = 100, 1e-6
MAX_PROCESSES = 64


class HalfCheetah:
    """HalfCheetah-v5 in torch, on top of our `Simulation`.

    Args:
        simulation: the worlds, of Gymnasium's model.
        seed: of the reset noise.
    """

    def __init__(self, simulation: Simulation, seed: int = 0):
        self._simulation = simulation
        self._qpos, self._qvel = simulation.data("qpos"), simulation.data("qvel")
        self._ctrl = simulation.data("ctrl")
        self._start = torch.from_numpy(simulation.model.qpos0.copy())
        self._control_dt_s = NUM_SUBSTEPS * simulation.model.opt.timestep
        self._episode_step = torch.zeros(simulation.num_envs, dtype=torch.int64)
        self._generator = torch.Generator().manual_seed(seed)

    def reset(self) -> Tensor:
        """Start an episode in every world."""
        self._begin_episodes(torch.arange(self._simulation.num_envs))
        return self._observe()

    def reset_to(self, qpos: Tensor, qvel: Tensor) -> None:
        """Start an episode in every world, in a given state."""
        ids = torch.arange(self._simulation.num_envs)
        self._episode_step[ids] = 0
        self._simulation.reset(ids, qpos, qvel, torch.zeros_like(self._ctrl))

    def step(self, action: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, dict[str, Tensor]]:
        """Observation, reward, terminated, truncated and the last observations of episodes."""
        before = self._qpos[:, 0].clone()
        self._ctrl.copy_(action)
        diverged = self._simulation.step(NUM_SUBSTEPS)
        self._episode_step += 1
        speed = (self._qpos[:, 0] - before) / self._control_dt_s
        reward = speed - CONTROL_COST * action.square().sum(dim=1)
        terminated = torch.zeros(len(action), dtype=torch.bool)
        terminated[diverged] = True
        truncated = self._episode_step >= EPISODE_STEPS
        observation = self._observe()
        (done,) = torch.nonzero(terminated | truncated, as_tuple=True)
        info = {"done": done, "final_observation": observation[done]}
        if len(done):
            self._begin_episodes(done)
            observation = self._observe()
        return observation, reward, terminated, truncated, info

    def _observe(self) -> Tensor:
        return torch.cat([self._qpos[:, 1:], self._qvel], dim=1)

    def _begin_episodes(self, ids: Tensor) -> None:
        shape = (len(ids), len(self._start))
        noise = torch.rand(shape, generator=self._generator, dtype=torch.float64)
        qvel = torch.randn(shape, generator=self._generator, dtype=torch.float64)
        self._simulation.reset(
            ids,
            self._start + RESET_NOISE * (2 * noise - 1),
            RESET_NOISE * qvel,
            self._ctrl[ids],
        )
        self._episode_step[ids] = 0
