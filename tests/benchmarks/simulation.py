"""Env-steps per second of our environments on the CPU, beside EnvPool and Gymnasium. By hand:

    python tests/benchmarks/simulation.py                                # needs robotrl[dev]
    python tests/benchmarks/simulation.py --num-envs 64 256 1024 --threads 1 2 --no-gymnasium

An env-step is everything a learner waits for: actions in, physics, observation, reward, ends and
resets. That our tasks are Gymnasium's, step by step, is tested in tests/envs/test_gym_tasks.py.
Rounds are short and interleaved, medians are printed. `physics` is the share of our time inside
calls of mujoco.batch, and what remains is all that better Python could win; the floor line is the
rate if nothing remained. arm_reach, a task of our own, is timed without peers.

`cores` is the CPU time of this process over wall time; the processes of AsyncVectorEnv are not in
it. Well below the number of threads, it says that the machine did not let the threads run side by
side, and that the ratios of that run mean little.
"""

import argparse
import os
import statistics
import time
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import envpool
import gymnasium
import mujoco
import torch
from torch import Tensor

import envs

GYM_TASKS = ("HalfCheetah-v5", "Ant-v5", "Humanoid-v5")
OWN_TASKS = ("arm_reach",)
MAX_PROCESSES = 64  # AsyncVectorEnv starts one for each world
FEWEST_STEPS = 8


class Contender(NamedTuple):
    """Someone who steps a task."""

    name: str
    step: Callable[[Any], Any]
    actions: list[Any]
    """For each step of a round, of the type that `step` takes."""
    close: Callable[[], Any] = lambda: None


class Round(NamedTuple):
    """One measurement."""

    rate: float
    """Env-steps per second."""
    cores: float
    physics: float
    """Share of the time inside mujoco.batch."""


class Stopwatch:
    """Sums the time inside the calls of a `mujoco.batch.Batch` that simulate."""

    def __init__(self, batch: Any):
        self.seconds = 0.0
        for name in ("step", "reset", "forward"):
            setattr(batch, name, self._timed(getattr(batch, name)))

    def _timed(self, call: Callable[..., Any]) -> Callable[..., Any]:
        def timed(*args: Any, **keywords: Any) -> Any:
            start_s = time.perf_counter()
            try:
                return call(*args, **keywords)
            finally:
                self.seconds += time.perf_counter() - start_s

        return timed


def ours(task: str, num_envs: int, num_threads: int, steps: int) -> tuple[Contender, Stopwatch]:
    """Our environment, in the middle of its episodes."""
    env = envs.make(task, num_envs=num_envs, num_threads=num_threads)
    env.reset(stagger=True)
    generator = torch.Generator().manual_seed(0)
    actions = 2 * torch.rand(steps, num_envs, env.num_actions, generator=generator) - 1
    simulation: Any = env._simulation
    return Contender("ours", env.step, list(actions)), Stopwatch(simulation._batch)


def peers(
    task: str, num_envs: int, num_threads: int, actions: Iterable[Tensor], with_gymnasium: bool
) -> list[Contender]:
    """EnvPool and Gymnasium, with the same actions in their own units."""
    space: Any = gymnasium.make(task).action_space
    reach = space.high  # of the actuators; all ranges are symmetric
    scaled = [(action.numpy() * reach).astype("float64") for action in actions]
    pool: Any = envpool.make(task, env_type="gymnasium", num_envs=num_envs, num_threads=num_threads)
    pool.reset()
    contenders = [Contender("EnvPool", pool.step, scaled)]
    for mode in ("sync", "async") if with_gymnasium else ():
        if mode == "sync" or num_envs <= MAX_PROCESSES:
            env = gymnasium.make_vec(task, num_envs, mode)
            env.reset(seed=0)
            contenders.append(Contender(f"Gymnasium {mode}", env.step, scaled, env.close))
    return contenders


def measure(contender: Contender, num_envs: int, stopwatch: Stopwatch) -> Round:
    """One round; only ours moves the stopwatch."""
    stopwatch.seconds = 0.0
    start_s, start_cpu_s = time.perf_counter(), time.process_time()
    for action in contender.actions:
        contender.step(action)
    wall_s, cpu_s = time.perf_counter() - start_s, time.process_time() - start_cpu_s
    env_steps = num_envs * len(contender.actions)
    return Round(env_steps / wall_s, cpu_s / wall_s, stopwatch.seconds / wall_s)


def compare(task: str, num_envs: int, num_threads: int, arguments: argparse.Namespace) -> None:
    """Time everyone on a task; print."""
    steps = max(FEWEST_STEPS, arguments.env_steps // num_envs)
    is_gym = task in GYM_TASKS
    us, stopwatch = ours(f"gym/{task}" if is_gym else task, num_envs, num_threads, steps)
    everyone = [us]
    if is_gym:
        everyone += peers(task, num_envs, num_threads, us.actions, arguments.gymnasium)
    rounds: dict[str, list[Round]] = {contender.name: [] for contender in everyone}
    for _ in range(arguments.rounds):
        for contender in everyone:
            rounds[contender.name].append(measure(contender, num_envs, stopwatch))
    medians = {
        name: Round(*(statistics.median(column) for column in zip(*measured, strict=True)))
        for name, measured in rounds.items()
    }
    mine = medians["ours"]
    where = f"{task:15} {num_envs:5} {num_threads:3} "
    print(f"{where} {'floor':16} {mine.rate / mine.physics:9.0f}")
    for name, result in medians.items():
        pairs = zip(rounds["ours"], rounds[name], strict=True)
        ratio = statistics.median(one.rate / other.rate for one, other in pairs)
        note = f"physics {mine.physics:.0%}" if name == "ours" else f"ours is {ratio:.2f} x as fast"
        print(f"{where} {name:16} {result.rate:9.0f}  {result.cores:5.2f}  {note}", flush=True)
    for contender in everyone:
        contender.close()


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--tasks", nargs="+", default=[*GYM_TASKS, *OWN_TASKS], help="tasks")
    parser.add_argument("--num-envs", type=int, nargs="+", default=[64, 256], help="worlds")
    parser.add_argument(
        "--threads", type=int, nargs="+", default=[os.cpu_count()], help="simulation threads"
    )
    parser.add_argument("--rounds", type=int, default=9, help="rounds of each")
    parser.add_argument("--env-steps", type=int, default=16384, help="env-steps of a round")
    parser.add_argument(
        "--gymnasium", action=argparse.BooleanOptionalAction, default=True, help="time it, too"
    )
    arguments = parser.parse_args()

    mujoco.set_mju_user_warning(lambda _: None)  # Gymnasium's XML is written for an older MuJoCo
    torch.set_num_threads(1)  # such small tensors gain nothing from threads
    print(f"medians of {arguments.rounds} interleaved rounds of {arguments.env_steps} env-steps")
    print("task             envs thr  who             env-steps/s  cores")
    for task in arguments.tasks:
        for num_threads in arguments.threads:
            for num_envs in arguments.num_envs:
                compare(task, num_envs, num_threads, arguments)


if __name__ == "__main__":
    main()
