"""Env-steps per second of our CPU simulation, beside EnvPool and Gymnasium. Run by hand:

    python tests/benchmarks/simulation.py                                # needs robotrl[dev]
    python tests/benchmarks/simulation.py --num-envs 64 256 512 --threads 2

Everyone steps HalfCheetah-v5 on the same model: 5 physics steps, observation, reward, truncation
after 1000 steps, reset with noise. First, the peers' observations and rewards are compared with
ours, from the same states with the same actions: Gymnasium runs the same MuJoCo; EnvPool brings its
own build of it, and round-off grows fast where feet hit the floor. A round is one whole episode of
random actions; rounds are interleaved, medians printed.

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
        self._ctrl, self._qvel = simulation.data("ctrl"), simulation.data("qvel")
        self._x, self._posture = simulation.data("qpos").tensor_split([1], dim=-1)
        self._control_dt_s = NUM_SUBSTEPS * simulation.model.opt.timestep
        self._episode_step = torch.zeros(simulation.num_envs, dtype=torch.int64)
        self._generator = torch.Generator().manual_seed(seed)

    def reset(self) -> Tensor:
        """Start an episode in every world."""
        self._begin_episodes(torch.arange(len(self._qvel)))
        return self._observe()

    def step(self, action: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, dict[str, Tensor]]:
        """Actions (num_envs, nu) in [-1, 1] -> what `envs.VectorEnv.step` returns."""
        x = self._x.clone()
        self._ctrl.copy_(action)
        diverged = self._simulation.step(NUM_SUBSTEPS)
        self._episode_step += 1

        speed = (self._x - x).squeeze(-1) / self._control_dt_s
        reward = speed - CONTROL_COST * action.square().sum(dim=-1)
        terminated = torch.zeros(len(action), dtype=torch.bool)
        if len(diverged):
            terminated[diverged] = True
        truncated = self._episode_step >= EPISODE_STEPS

        observation, info = self._observe(), {}
        (done,) = torch.nonzero(terminated | truncated, as_tuple=True)
        if len(done):
            info = {"done": done, "final_observation": observation[done]}
            self._begin_episodes(done)
            observation = self._observe()
        return observation, reward, terminated, truncated, info

    def start(self, ids: Tensor, qpos: Tensor, qvel: Tensor) -> None:
        """Start an episode in worlds `ids` (n,), in states (n, nq), (n, nv)."""
        self._simulation.reset(ids, qpos, qvel, ctrl=torch.zeros_like(self._ctrl[ids]))
        self._episode_step[ids] = 0

    def _begin_episodes(self, ids: Tensor) -> None:
        qpos, qvel = torch.empty(2, len(ids), self._qvel.shape[1], dtype=torch.float64)
        qpos.uniform_(-RESET_NOISE, RESET_NOISE, generator=self._generator)
        qvel.normal_(0, RESET_NOISE, generator=self._generator)
        self.start(ids, qpos, qvel)  # the model's qpos0 is zero

    def _observe(self) -> Tensor:
        return torch.cat([self._posture, self._qvel], dim=-1)


class Contender(NamedTuple):
    """Someone who steps HalfCheetah-v5."""

    name: str
    env: Any
    """`HalfCheetah`, or a peer with the interface of Gymnasium's vector environments."""
    actions: list[Any]
    """(num_envs, nu) for each step of an episode, of the type that `env` takes."""


def contenders(num_envs: int, num_threads: int) -> list[Contender]:
    """We, then the peers; all take the same actions."""
    model = mujoco.MjModel.from_xml_path(str(MODEL))
    rng = np.random.default_rng(0)
    actions = rng.uniform(-1, 1, (EPISODE_STEPS, num_envs, model.nu)).astype(np.float32)
    ours = HalfCheetah(BatchSimulation(model, num_envs, num_threads=num_threads))
    pool = envpool.make(TASK, env_type="gymnasium", num_envs=num_envs, num_threads=num_threads)
    everyone = [
        Contender("ours", ours, list(torch.from_numpy(actions))),
        Contender("EnvPool", pool, list(actions.astype(np.float64))),
        Contender("Gymnasium sync", gymnasium.make_vec(TASK, num_envs, "sync"), list(actions)),
    ]
    if num_envs <= MAX_PROCESSES:
        processes = gymnasium.make_vec(TASK, num_envs, "async")
        everyone.append(Contender("Gymnasium async", processes, list(actions)))
    return everyone


def steps_in_agreement(ours: Contender, peer: Contender) -> int:
    """Steps until an observation or a reward differs, when both start where `peer` does."""
    observation, info = peer.env.reset()
    state = torch.from_numpy(np.column_stack([info["x_position"], observation]))
    qpos, qvel = state.chunk(2, dim=-1)
    ours.env.start(torch.arange(len(state)), qpos, qvel)
    for step in range(CHECKED_STEPS):
        our_result = ours.env.step(ours.actions[step])
        peer_result = peer.env.step(peer.actions[step])
        for our_value, peer_value in zip(our_result[:2], peer_result[:2], strict=True):
            if not np.allclose(our_value.numpy(), peer_value, rtol=0, atol=TOLERANCE):
                return step
    return CHECKED_STEPS


def measure(contender: Contender, num_envs: int) -> tuple[float, float]:
    """Env-steps per second and cores in use, over one round."""
    start_s, start_cpu_s = time.perf_counter(), time.process_time()
    for action in contender.actions:
        contender.env.step(action)
    wall_s, cpu_s = time.perf_counter() - start_s, time.process_time() - start_cpu_s
    return num_envs * EPISODE_STEPS / wall_s, cpu_s / wall_s


def compare(num_envs: int, num_threads: int, rounds: int) -> None:
    """Check and time everyone with `num_envs` worlds; print."""
    ours, *peers = everyone = contenders(num_envs, num_threads)
    agreement = {peer.name: steps_in_agreement(ours, peer) for peer in peers}
    for contender in everyone:
        contender.env.reset()
    results = {contender.name: [] for contender in everyone}
    for _ in range(rounds):
        for contender in everyone:
            results[contender.name].append(measure(contender, num_envs))
    our_rate = statistics.median(rate for rate, _ in results[ours.name])
    for name, measured in results.items():
        rate, cores = (statistics.median(column) for column in zip(*measured, strict=True))
        same = f"{agreement[name]:10}  {our_rate / rate:7.2f}" if name in agreement else ""
        print(f"{num_envs:5}  {name:15}  {rate:11.0f}  {cores:5.2f}  {same}", flush=True)
    for peer in peers:
        peer.env.close()


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--num-envs", type=int, nargs="+", default=[64], help="numbers of worlds")
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="simulation threads")
    parser.add_argument("--rounds", type=int, default=ROUNDS, help="episodes each")
    arguments = parser.parse_args()

    mujoco.set_mju_user_warning(lambda _: None)  # Gymnasium's XML is written for an older MuJoCo
    torch.set_num_threads(1)  # such small tensors gain nothing from threads
    print(
        f"{TASK}, {arguments.threads} threads, medians of {arguments.rounds} interleaved rounds; "
        f"same steps: of the first {CHECKED_STEPS},\n"
        f"how many have observations and rewards within {TOLERANCE:g} of ours in every world"
    )
    print(" envs  who              env-steps/s  cores  same steps  speedup")
    for num_envs in arguments.num_envs:
        compare(num_envs, arguments.threads, arguments.rounds)


if __name__ == "__main__":
    main()
