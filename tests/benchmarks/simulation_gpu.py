"""Env-steps per second on a GPU, the share of physics, and how often the host waits. By hand:

    python tests/benchmarks/simulation_gpu.py                        # needs robotrl[dev] and a GPU
    python tests/benchmarks/simulation_gpu.py --num-envs 4096 --task arm_reach
    python tests/benchmarks/simulation_gpu.py --device cpu --num-envs 16 --steps 20   # does it run?

A step is everything that training sees of it: action, physics, signals, observation, reward, and
the reset of worlds that ended; episodes are staggered, so that some end in each step. `physics` is
the time of the simulation's own step, measured alone, over that of the whole. `waits` are the CUDA
calls, of torch and of Warp alike, in which the host waits for the device, per step: with none, the
GPU never runs dry. On the CPU, where there are no such calls, it is whether any operation would
have been one. The first run compiles kernels, for minutes.
"""

import argparse
import statistics
import time
from collections.abc import Callable

import torch
from torch.profiler import ProfilerActivity, profile

import envs
from deploy.errors import ConfigError
from envs.vector_env import VectorEnv
from tests.envs.no_sync import HostWaited, no_sync

TASKS = ("gym/HalfCheetah-v5", "arm_reach")
WARM_UP, ROUNDS, COUNTED = 5, 5, 10
WAITS = ("cudaStreamSynchronize", "cudaDeviceSynchronize", "cudaEventSynchronize", "cudaMemcpy")


def main() -> None:
    """Print one line for each task and number of worlds."""
    arguments = parse_arguments()
    if arguments.device == "cpu":
        torch.set_num_threads(1)
        print("CPU: whether it runs; these are no speeds")
    else:
        print(torch.cuda.get_device_name(arguments.device))
    print(f"{'task':20}{'worlds':>8}{'steps/s':>12}{'ms/step':>9}{'physics':>9}{'GiB':>7}  waits")
    for task in arguments.task:
        for num_envs in arguments.num_envs:
            try:
                print(measure(task, num_envs, arguments.device, arguments.steps), flush=True)
            except ConfigError as error:
                print(f"{task:20}{num_envs:8}  {error}")


def parse_arguments() -> argparse.Namespace:
    """What to measure."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--num-envs", type=int, nargs="+", default=[1024, 4096, 16384])
    parser.add_argument("--task", nargs="+", default=TASKS)
    parser.add_argument("--steps", type=int, default=200, help="control steps in a round")
    return parser.parse_args()


def measure(task: str, num_envs: int, device: str, steps: int) -> str:
    """One line of the table."""
    env = envs.make(task, num_envs=num_envs, device=device, backend="warp", seed=0)
    simulation, num_substeps = env._simulation, env.task.num_substeps
    action = torch.rand(num_envs, env.num_actions, device=device) * 2 - 1
    env.reset(stagger=True)

    whole = time_each(lambda: env.step(action), steps, device)
    physics = time_each(lambda: simulation.step(num_substeps), steps, device)
    env.reset(stagger=True)
    waits = count_waits(env, action) if device != "cpu" else find_wait(env, action)
    memory = 0.0
    if device != "cpu":
        free, total = torch.cuda.mem_get_info(device)
        memory = (total - free) / 2**30
    simulation.state_dict()  # raises if contacts were dropped
    return (
        f"{task:20}{num_envs:8}{num_envs / whole:12,.0f}{1e3 * whole:9.2f}{physics / whole:9.0%}"
        f"{memory:7.1f}  {waits}"
    )


def time_each(call: Callable[[], object], steps: int, device: str) -> float:
    """Seconds per call, the median of some rounds."""
    for _ in range(WARM_UP):
        call()
    rounds = []
    for _ in range(ROUNDS):
        wait(device)
        start = time.perf_counter()
        for _ in range(steps):
            call()
        wait(device)
        rounds.append((time.perf_counter() - start) / steps)
    return statistics.median(rounds)


def wait(device: str) -> None:
    """Until the device has caught up."""
    if device != "cpu":
        torch.cuda.synchronize(device)


def count_waits(env: VectorEnv, action: torch.Tensor) -> str:
    """Calls in which the host waits, per step; what the profiler adds itself cancels out."""
    counts = []
    for steps in (COUNTED, 2 * COUNTED):
        with profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]) as profiler:
            for _ in range(steps):
                env.step(action)
        averages = profiler.key_averages()
        counts.append(sum(event.count for event in averages if event.key in WAITS))
    return f"{(counts[1] - counts[0]) / COUNTED:g}"


def find_wait(env: VectorEnv, action: torch.Tensor) -> str:
    """The first operation that would make a GPU's host wait."""
    try:
        with no_sync():
            for _ in range(COUNTED):
                env.step(action)
    except HostWaited as waited:
        return str(waited)
    return "none"


if __name__ == "__main__":
    main()
