"""Env-steps per second of our CPU simulation, beside EnvPool and Gymnasium. Run by hand:

    python tests/benchmarks/simulation.py                                # needs robotrl[dev]
    python tests/benchmarks/simulation.py --num-envs 64 256 512 --threads 2

Everyone steps HalfCheetah-v5 on the same model: 5 physics steps, observation, reward, truncation
after 1000 steps, reset with noise. First, the peers' observations and rewards are compared with
ours. A round is one whole episode of random actions; rounds are interleaved, medians printed.

`cores` is the CPU time of this process over wall time; the processes of AsyncVectorEnv are not in
it. Well below the number of threads, it says that the machine did not let the threads run side by
side, and that the ratios of that run mean little.
"""

import argparse
import os
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
ROUNDS = 5
MAX_PROCESSES = 64  # AsyncVectorEnv starts one for each world


class HalfCheetah:
    """HalfCheetah-v5 in torch, on our `Simulation`.

    Args:
        simulation: the worlds, of Gymnasium's model.
        seed: of the reset noise.
    """

    def __init__(self, simulation: Simulation, seed: int = 0):
        self._simulation = simulation
        self._qpos, self._qvel = simulation.data("qpos"), simulation.data("qvel")
        self._ctrl = simulation.data("ctrl")
        self._control_dt_s = NUM_SUBSTEPS * simulation.model.opt.timestep
        self._episode_step = torch.zeros(simulation.num_envs, dtype=torch.int64)
        self._generator = torch.Generator().manual_seed(seed)

    def reset(self) -> Tensor:
        """Start an episode in every world."""
        self._begin_episodes(torch.arange(len(self._qpos)))
        return self._observe()

    def step(self, action: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, dict[str, Tensor]]:
        """Actions (num_envs, nu) in [-1, 1] -> what `envs.VectorEnv.step` returns."""
        x = self._qpos[:, 0].clone()
        self._ctrl.copy_(action)
        diverged = self._simulation.step(NUM_SUBSTEPS)
        self._episode_step += 1

        speed = (self._qpos[:, 0] - x) / self._control_dt_s
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
        """Start an episode in worlds `ids` (n,), in states (n, nq), (n, nv)."""
        self._simulation.reset(ids, qpos, qvel, ctrl=torch.zeros_like(self._ctrl[ids]))
        self._episode_step[ids] = 0

    def _begin_episodes(self, ids: Tensor) -> None:
        noise = torch.empty(2, len(ids), self._qpos.shape[1], dtype=self._qpos.dtype)
        qpos = noise[0].uniform_(-RESET_NOISE, RESET_NOISE, generator=self._generator)
        qvel = noise[1].normal_(0, RESET_NOISE, generator=self._generator)
        self.start(ids, qpos, qvel)  # the model's qpos0 is zero

    def _observe(self) -> Tensor:
        return torch.cat([self._qpos[:, 1:], self._qvel], dim=-1)


class Contender(NamedTuple):
    """Someone who steps HalfCheetah-v5."""

    name: str
    env: Any
    """`HalfCheetah`, or a peer with the interface of Gymnasium's vector environments."""
    actions: list[Any]
    """(num_envs, nu) for each step of an episode, of the type that `env` takes."""


def contenders(num_envs: int, num_threads: int) -> list[Contender]:
    """We first, then the peers; all take the same actions."""
    rng = np.random.default_rng(0)
    actions = rng.uniform(-1, 1, (EPISODE_STEPS, num_envs, 6)).astype(np.float32)
    model = mujoco.MjModel.from_xml_path(str(MODEL))
    ours = HalfCheetah(BatchSimulation(model, num_envs, num_threads=num_threads))
    pool = envpool.make(TASK, env_type="gymnasium", num_envs=num_envs, num_threads=num_threads)
    return [
        Contender("ours", ours, list(torch.from_numpy(actions))),
        Contender("EnvPool", pool, list(actions.astype(np.float64))),
        *(
            Contender(f"Gymnasium {mode}", gymnasium.make_vec(TASK, num_envs, mode), list(actions))
            for mode in ("sync", "async")
            if mode == "sync" or num_envs <= MAX_PROCESSES
        ),
    ]


def largest_difference(ours: Contender, peer: Contender) -> float:
    """Between the observations and rewards of episodes that both start where `peer` does."""
    observation, info = peer.env.reset()
    nq = observation.shape[1] // 2 + 1
    state = torch.from_numpy(np.column_stack([info["x_position"], observation]))
    ours.env.start(torch.arange(len(state)), state[:, :nq], state[:, nq:])
    difference = 0.0
    for our_action, peer_action in zip(ours.actions, peer.actions[:CHECKED_STEPS], strict=False):
        for our_value, peer_value in zip(
            ours.env.step(our_action)[:2], peer.env.step(peer_action)[:2], strict=True
        ):
            difference = max(difference, float(np.abs(our_value.numpy() - peer_value).max()))
    return difference


def measure(contender: Contender, num_envs: int) -> tuple[float, float]:
    """Env-steps per second and cores used in one round."""
    start_s, start_cpu_s = time.perf_counter(), time.process_time()
    for action in contender.actions:
        contender.env.step(action)
    wall_s, cpu_s = time.perf_counter() - start_s, time.process_time() - start_cpu_s
    return num_envs * EPISODE_STEPS / wall_s, cpu_s / wall_s


def compare(num_envs: int, num_threads: int, rounds: int) -> None:
    """Check physics, then time and print."""
    ours, *peers = everyone = contenders(num_envs, num_threads)
    for peer in peers:
        difference = largest_difference(ours, peer)
        verdict = "agrees" if difference <= TOLERANCE else "DISAGREES"
        print(f"{peer.name} {verdict}: {difference:.1e} over {CHECKED_STEPS} steps")
    ...


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])


if __name__ == "__main__":
    main()
