"""SAC's updates per second beside Stable-Baselines3's, in one run, in turns. Run by hand:

    python tests/benchmarks/sac_speed.py                     # needs robotrl[dev]
    python tests/benchmarks/sac_speed.py --threads 1 --turns 7

Identical settings: HalfCheetah-v5, one world, an update after every step, batches of 256, two
critics of 256-256 with ReLU, float32; ours once more with products in bfloat16, and as it learns
before it is compiled. A step of the world is in all.
If SBX (sbx-rl) is installed it takes part too. What counts is the ratio, of CPU seconds as of wall
time: learners take turns, and medians bear what else the machine does.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from importlib import import_module
from importlib.util import find_spec

import mujoco
import torch
from stable_baselines3 import SAC as SB3SAC

import envs
from robotrl.algorithms.products import Precision, precision
from robotrl.algorithms.sac import SAC, SACConfig

TASK, WARM_UP, UPDATES = "HalfCheetah-v5", 1000, 200


def ours(kind: Precision, compile_after: int | None = 0) -> Callable[[], None]:
    """Some updates of ours."""
    env = envs.make(f"gym/{TASK}", num_envs=1, seed=0, num_threads=1)
    config = SACConfig(
        learning_starts=WARM_UP,
        buffer_size=100_000,
        iteration_steps=UPDATES,
        compile_after=compile_after,
    )
    learner = SAC(config, env.observation_sizes, env.num_actions, seed=0)
    observation = env.reset()

    def iterate(steps: int = UPDATES) -> None:
        nonlocal observation
        for _ in range(steps):
            step = env.step(learner.act(observation))
            with precision(kind):
                learner.learn(step)
            observation = step.observation

    iterate(WARM_UP)
    return iterate


def peer(algorithm: type) -> Callable[[], None]:
    """Some updates of SB3's or of SBX's."""
    learner = algorithm("MlpPolicy", TASK, learning_starts=WARM_UP, buffer_size=100_000, seed=0)
    learner.learn(WARM_UP)

    def iterate() -> None:
        learner.learn(UPDATES, reset_num_timesteps=False)

    return iterate


def main() -> None:
    """Take turns; print updates/s and the ratios."""
    parser = argparse.ArgumentParser(formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="of torch")
    parser.add_argument("--turns", type=int, default=7)
    arguments = parser.parse_args()

    torch.set_num_threads(arguments.threads)
    torch.set_flush_denormal(True)
    mujoco.set_mju_user_warning(lambda _: None)  # Gymnasium's XML is written for an older MuJoCo
    learners = {
        "robotrl": ours("float32"),
        "bfloat16": ours("bfloat16"),
        "Python": ours("float32", compile_after=None),
        "SB3": peer(SB3SAC),
    }
    if find_spec("sbx"):
        learners["SBX"] = peer(import_module("sbx").SAC)
    for iterate in learners.values():
        iterate()  # first calls allocate and compile
    wall: dict[str, list[float]] = {name: [] for name in learners}
    cpu: dict[str, list[float]] = {name: [] for name in learners}
    for _ in range(arguments.turns):
        for name, iterate in learners.items():
            cpu_s, wall_s = time.process_time(), time.perf_counter()
            iterate()
            cpu[name].append(UPDATES / (time.process_time() - cpu_s))
            wall[name].append(UPDATES / (time.perf_counter() - wall_s))
    for name in learners:
        print(
            f"{name:8} {statistics.median(wall[name]):8,.0f} updates/s "
            f"{statistics.median(cpu[name]):8,.0f} per CPU second"
        )
        for of, rates in (("wall time", wall), ("CPU time", cpu)):
            if name != "robotrl":
                ratios = [a / b for a, b in zip(rates["robotrl"], rates[name], strict=True)]
                print(f"         robotrl beside it, in {of}: {statistics.median(ratios):.2f}")


if __name__ == "__main__":
    main()
