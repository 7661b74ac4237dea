"""Env-steps per second of our CPU simulation, beside EnvPool and Gymnasium. Run by hand:

    python tests/benchmarks/simulation.py                                # needs robotrl[dev]
    python tests/benchmarks/simulation.py --num-envs 64 256 512 --threads 2

Everyone steps HalfCheetah-v5 on the same model: 5 physics steps, observation, reward, truncation
after 1000 steps, reset with noise. First the peers' observations and rewards are compared with
ours. A round is one whole episode of random actions; rounds are interleaved, medians printed.

`cores` is the CPU time of this process over wall time, so it leaves out the processes of
AsyncVectorEnv. Well below the number of threads, it says that the machine or its scheduler did
not let the threads run side by side, and that the ratios of that run mean little.
"""

import argparse
import statistics
import time
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

TASK = "HalfCheetah-v5"
MODEL = Path(gymnasium.envs.mujoco.__file__).parent / "assets" / "half_cheetah.xml"
NUM_SUBSTEPS, EPISODE_STEPS = 5, 1000
RESET_NOISE, CONTROL_COST = 0.1, 0.1
CHECKED_STEPS, TOLERANCE = 100, 1e-6
ASYNC_MAX_ENVS = 64  # one process each


class HalfCheetah:
    """HalfCheetah-v5 in torch, on our `Simulation`.

    Args:
        simulation: the worlds, of Gymnasium's model.
        seed: of the reset noise.
    """

    def __init__(self, simulation: Simulation, seed: int = 0):
        self._simulation = simulation
        self._qpos, self._qvel, self._ctrl = (
            simulation.data(name) for name in ("qpos", "qvel", "ctrl")
        )
        self._qpos0 = torch.from_numpy(simulation.model.qpos0.copy())
        self._control_dt_s = NUM_SUBSTEPS * simulation.model.opt.timestep
        self._episode_step = torch.zeros(simulation.num_envs, dtype=torch.int64)
        self._generator = torch.Generator().manual_seed(seed)

    def reset(self) -> Tensor:
        """Start an episode in every world."""
        self._begin_episodes(torch.arange(len(self._qpos)))
        return self._observe()

    def step(self, action: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, dict[str, Tensor]]:
        """Actions (num_envs, nu) in [-1, 1] -> what `VectorEnv.step` returns."""
        before = self._qpos[:, 0].clone()
        self._ctrl.copy_(action)
        diverged = self._simulation.step(NUM_SUBSTEPS)
        self._episode_step += 1

        speed = (self._qpos[:, 0] - before) / self._control_dt_s
        reward = speed - CONTROL_COST * action.square().sum(dim=-1)
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

    def start(self, ids: Tensor, qpos: Tensor, qvel: Tensor) -> None:
        """Start episodes in worlds `ids` (n,), in states (n, nq), (n, nv)."""
        self._simulation.reset(ids, qpos, qvel, ctrl=torch.zeros_like(self._ctrl[ids]))
        self._episode_step[ids] = 0

    def _begin_episodes(self, ids: Tensor) -> None:
        qpos = self._qpos0.repeat(len(ids), 1)
        uniform = torch.empty_like(qpos).uniform_(-1, 1, generator=self._generator)
        normal = torch.empty_like(qpos).normal_(generator=self._generator)
        self.start(ids, qpos + RESET_NOISE * uniform, RESET_NOISE * normal)

    def _observe(self) -> Tensor:
        return torch.cat([self._qpos[:, 1:], self._qvel], dim=-1)


class Contender(NamedTuple):
    """Someone who steps HalfCheetah-v5."""

    name: str
    env: Any
    """`HalfCheetah`, or a peer with Gymnasium's vector interface."""
    actions: list[Any]
    """One (num_envs, nu) array per step, of the type and precision that `env` takes."""


def contenders(num_envs: int, num_threads: int) -> list[Contender]:
    """Us first, then the peers, all with the same actions."""
    ours = HalfCheetah(BatchSimulation(load_model(), num_envs, num_threads=num_threads))
    pool = envpool.make(
        TASK, env_type="gymnasium", num_envs=num_envs, num_threads=num_threads, seed=0
    )
    sync = gymnasium.make_vec(TASK, num_envs, vectorization_mode="sync")
    rng = np.random.default_rng(0)
    actions = rng.uniform(-1, 1, (EPISODE_STEPS, num_envs, 6)).astype(np.float32)
    everyone = [
        Contender("ours", ours, list(torch.from_numpy(actions).double())),
        Contender("EnvPool", pool, list(actions.astype(np.float64))),
        Contender("SyncVectorEnv", sync, list(actions)),
    ]
    if num_envs <= ASYNC_MAX_ENVS:
        processes = gymnasium.make_vec(TASK, num_envs, vectorization_mode="async")
        everyone.append(Contender("AsyncVectorEnv", processes, list(actions)))
    return everyone


def load_model() -> mujoco.MjModel:
    """Gymnasium's model."""
    return mujoco.MjModel.from_xml_path(str(MODEL))


def largest_difference(ours: HalfCheetah, peer: Contender) -> tuple[float, float]:
    """Of observations and of rewards, when both start where `peer` does."""
    observation, info = peer.env.reset()
    observation = torch.from_numpy(observation)
    x = torch.from_numpy(info["x_position"])[:, None]
    nq = load_model().nq
    ours.start(torch.arange(len(x)), torch.cat([x, observation[:, : nq - 1]], dim=-1),
