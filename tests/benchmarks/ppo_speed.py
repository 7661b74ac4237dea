"""PPO's speed beside Stable-Baselines3's, in one run, in turns. Run by hand:

    python tests/benchmarks/ppo_speed.py                     # needs robotrl[dev]
    python tests/benchmarks/ppo_speed.py --threads 1 --turns 7
    python tests/benchmarks/ppo_speed.py --reach 1500        # a quarter of an hour, or more

Identical settings: HalfCheetah-v5, 8 worlds × 256 steps, 10 epochs of minibatches of 256, networks
of 64-64 with tanh, float32; ours as it is by default, and compiled (`compile_after`). The two
differ in who steps the worlds (ours are `envs`, SB3's are Gymnasium's own in one process, the
faster of its two) and in what threads are for: ours step the worlds, SB3's are torch's. What counts
is the ratio, of CPU seconds as of wall time: learners take turns, and medians bear what else the
machine does.

With `--reach`, each learns with the settings that its own side recommends (configs/bench/ppo.yaml,
and RL-Zoo's for HalfCheetah) until the mean return of its last ten episodes is that high.
"""

import argparse
import statistics
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path

import mujoco
import torch
from stable_baselines3 import PPO as SB3PPO
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.vec_env import VecNormalize
from torch import nn

import envs
from robotrl.algorithms.ppo import PPO, PPOConfig
from robotrl.bench.bench_config import load_bench

WORLDS, STEPS, EPOCHS, MINIBATCH, HIDDEN = 8, 256, 10, 256, [64, 64]
TASK = "HalfCheetah-v5"
BENCH = Path(__file__).parents[2] / "configs/bench/ppo.yaml"
"""What we recommend."""
ZOO = {
    "n_steps": 512,
    "batch_size": 64,
    "gamma": 0.98,
    "learning_rate": 2.0633e-5,
    "ent_coef": 0.000401762,
    "clip_range": 0.1,
    "n_epochs": 20,
    "gae_lambda": 0.92,
    "max_grad_norm": 0.8,
    "vf_coef": 0.58096,
    "policy_kwargs": {
        "log_std_init": -2,
        "ortho_init": False,
        "activation_fn": nn.ReLU,
        "net_arch": [256, 256],
    },
}
"""hyperparams/ppo.yml of DLR-RM/rl-baselines3-zoo, with one world and `VecNormalize`."""


def ours(threads: int, *, compiled: bool) -> Callable[[], None]:
    """One iteration of ours, in Python or in machine code."""
    env = envs.make(f"gym/{TASK}", num_envs=WORLDS, seed=0, num_threads=threads)
    config = PPOConfig(
        rollout_steps=STEPS,
        epochs=EPOCHS,
        minibatches=WORLDS * STEPS // MINIBATCH,
        gamma=0.99,
        entropy_coef=0,
        actor_hidden=HIDDEN,
        critic_hidden=HIDDEN,
        activation="tanh",
        compile_after=0 if compiled else None,
    )
    learner = PPO(config, env.observation_sizes, env.num_actions, seed=0)
    observation = env.reset(stagger=True)

    def iterate() -> None:
        nonlocal observation
        torch.set_num_threads(1)
        for _ in range(STEPS):
            step = env.step(learner.act(observation))
            learner.learn(step)
            observation = step.observation

    return iterate


def theirs(threads: int) -> Callable[[], None]:
    """One iteration of SB3's."""
    learner = SB3PPO(
        "MlpPolicy",
        make_vec_env(TASK, WORLDS, seed=0),
        n_steps=STEPS,
        batch_size=MINIBATCH,
        n_epochs=EPOCHS,
        policy_kwargs={"net_arch": HIDDEN},
        device="cpu",
        seed=0,
    )

    def iterate() -> None:
        torch.set_num_threads(threads)
        learner.learn(WORLDS * STEPS, reset_num_timesteps=False)

    return iterate


def ours_until(goal: float, threads: int) -> int:
    """Learn until the last episodes return that much; returns the steps it took."""
    torch.set_num_threads(1)
    config = next(run.config for run in load_bench(BENCH)[1] if run.task == TASK)
    worlds = config.num_envs
    env = envs.make(config.task, num_envs=worlds, seed=0, num_threads=threads)
    assert isinstance(config.algorithm, PPOConfig)
    learner = PPO(config.algorithm, env.observation_sizes, env.num_actions, seed=0)
    observation = env.reset(stagger=True)
    returns, latest = torch.zeros(worlds), deque[float](maxlen=10)
    whole, steps = env.episode_step == 0, 0
    while len(latest) < 10 or statistics.mean(latest) < goal:
        step = env.step(learner.act(observation))
        learner.learn(step)
        observation, steps = step.observation, steps + worlds
        returns += step.reward
        ended = step.terminated | step.truncated
        latest.extend(returns[ended & whole].tolist())
        returns, whole = returns.masked_fill(ended, 0), whole | ended
    return steps


def theirs_until(goal: float, threads: int) -> int:
    """See `ours_until`."""
    torch.set_num_threads(threads)
    learner = SB3PPO("MlpPolicy", VecNormalize(make_vec_env(TASK, 1, seed=0)), **ZOO, seed=0)
    latest: deque[dict[str, float]] = deque()
    while len(latest) < 10 or statistics.mean(episode["r"] for episode in latest) < goal:
        learner.learn(ZOO["n_steps"], reset_num_timesteps=False)
        latest = deque(learner.ep_info_buffer or (), maxlen=10)
    return learner.num_timesteps


def race(goal: float, threads: int) -> None:
    """Print the time of each to a return, and the ratio."""
    wall: dict[str, float] = {}
    for name, until in (("robotrl", ours_until), ("SB3", theirs_until)):
        cpu_s, wall_s = time.process_time(), time.perf_counter()
        steps = until(goal, threads)
        wall[name] = time.perf_counter() - wall_s
        cpu_s = time.process_time() - cpu_s
        print(f"{name:8} {wall[name]:7.1f} s, {cpu_s:7.1f} CPU s, {steps:9,} steps to {goal:g}")
    print(f"ratio in wall time: {wall['SB3'] / wall['robotrl']:.2f}")


def main() -> None:
    """Take turns; print steps/s and the ratio."""
    parser = argparse.ArgumentParser(formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="of both")
    parser.add_argument("--turns", type=int, default=7)
    parser.add_argument("--reach", type=float, help="a return to race to, instead")
    arguments = parser.parse_args()

    torch.set_flush_denormal(True)
    mujoco.set_mju_user_warning(lambda _: None)  # Gymnasium's XML is written for an older MuJoCo
    if arguments.reach is not None:
        race(arguments.reach, arguments.threads)
        return
    learners = {
        "robotrl": ours(arguments.threads, compiled=False),
        "compiled": ours(arguments.threads, compiled=True),
        "SB3": theirs(arguments.threads),
    }
    for iterate in learners.values():
        iterate()  # first calls allocate, and compile
    wall: dict[str, list[float]] = {name: [] for name in learners}
    cpu: dict[str, list[float]] = {name: [] for name in learners}
    for _ in range(arguments.turns):
        for name, iterate in learners.items():
            cpu_s, wall_s = time.process_time(), time.perf_counter()
            iterate()
            cpu[name].append(WORLDS * STEPS / (time.process_time() - cpu_s))
            wall[name].append(WORLDS * STEPS / (time.perf_counter() - wall_s))
    for name in learners:
        print(
            f"{name:8} {statistics.median(wall[name]):8,.0f} env-steps/s "
            f"{statistics.median(cpu[name]):8,.0f} per CPU second"
        )
    for of, rates in (("wall time", wall), ("CPU time", cpu)):
        for name in ("robotrl", "compiled"):
            ratios = [a / b for a, b in zip(rates[name], rates["SB3"], strict=True)]
            print(f"{name:8} to SB3 in {of}: {statistics.median(ratios):.2f}")


if __name__ == "__main__":
    main()
