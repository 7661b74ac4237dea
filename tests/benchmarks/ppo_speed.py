"""PPO's speed beside Stable-Baselines3's, in one run, in turns. Run by hand:

    python tests/benchmarks/ppo_speed.py                     # needs robotrl[dev]
    python tests/benchmarks/ppo_speed.py --threads 1 --turns 7

Identical settings: HalfCheetah-v5, 8 worlds × 256 steps, 10 epochs of minibatches of 256, networks
of 64-64, float32. The two differ in the activation (SiLU and tanh, as each comes) and in who steps
the worlds: ours are `envs`, SB3's are Gymnasium's own in one process, the faster of its two. What
counts is the ratio, of CPU seconds as of wall time: learners take turns, and medians bear what else
the machine does.
"""

import argparse
import statistics
import time
from collections.abc import Callable

import mujoco
import torch
from stable_baselines3 import PPO as SB3PPO
from stable_baselines3.common.env_util import make_vec_env

import envs
from robotrl.ppo import PPO, PPOConfig

WORLDS, STEPS, EPOCHS, MINIBATCH, HIDDEN = 8, 256, 10, 256, [64, 64]
TASK = "HalfCheetah-v5"


def ours(threads: int) -> Callable[[], None]:
    """One iteration of ours."""
    env = envs.make(f"gym/{TASK}", num_envs=WORLDS, seed=0, num_threads=threads)
    config = PPOConfig(
        rollout_steps=STEPS,
        epochs=EPOCHS,
        minibatches=WORLDS * STEPS // MINIBATCH,
        gamma=0.99,
        entropy_coef=0,
        actor_hidden=HIDDEN,
        critic_hidden=HIDDEN,
    )
    learner = PPO(config, env.observation_sizes, env.num_actions, seed=0)
    observation = env.reset(stagger=True)

    def iterate() -> None:
        nonlocal observation
        for _ in range(STEPS):
            step = env.step(learner.act(observation))
            learner.learn(step)
            observation = step.observation

    return iterate


def theirs() -> Callable[[], None]:
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
        learner.learn(WORLDS * STEPS, reset_num_timesteps=False)

    return iterate


def main() -> None:
    """Take turns; print steps/s and the ratio."""
    parser = argparse.ArgumentParser(formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="of both")
    parser.add_argument("--turns", type=int, default=7)
    arguments = parser.parse_args()

    torch.set_num_threads(arguments.threads)
    torch.set_flush_denormal(True)
    mujoco.set_mju_user_warning(lambda _: None)  # Gymnasium's XML is written for an older MuJoCo
    learners = {"robotrl": ours(arguments.threads), "SB3": theirs()}
    for iterate in learners.values():
        iterate()  # first calls allocate
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
        ratios = [a / b for a, b in zip(rates["robotrl"], rates["SB3"], strict=True)]
        print(f"ratio in {of}: {statistics.median(ratios):.2f}")


if __name__ == "__main__":
    main()
