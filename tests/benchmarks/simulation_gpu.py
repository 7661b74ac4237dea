"""Env-steps per second on a GPU, the share of physics, and how often the host waits. By hand:

    python tests/benchmarks/simulation_gpu.py                        # needs robotrl[dev] and a GPU
    python tests/benchmarks/simulation_gpu.py --num-envs 4096 --task configs/train/arm_reach.yaml
    python tests/benchmarks/simulation_gpu.py --device cpu --num-envs 16 --steps 20   # does it run?

A task is a name, or a training's YAML with its randomization. A step is everything that training
sees of it: action, physics, signals, observation, reward, and the reset of worlds that ended;
episodes are staggered, so that some end in each step. `physics` is the time of the simulation's own
step, measured alone, over that of the whole. `waits` are the CUDA calls, of torch and of Warp
alike, in which the host waits for the device, per step: with none, the GPU never runs dry. On the
CPU, where there are no such calls, it is whether any operation would have been one. The first run
compiles kernels, for minutes. mjlab_velocity.py measures mjlab, and gives us its robot.
"""

import argparse
from pathlib import Path

import torch

import envs
from deploy.errors import ConfigError
from envs.vector_env import VectorEnv
from robotrl.runs.train_config import load_train_config
from tests.benchmarks.gpu_timing import COUNTED, HEAD, count_waits, row, time_each
from tests.envs.no_sync import HostWaited, no_sync

TASKS = (
    "gym/HalfCheetah-v5",
    "arm_reach",
    "configs/train/microduck_walk.yaml",
    "configs/train/quadruped_walk.yaml",
)


def main() -> None:
    """Print one line for each task and number of worlds."""
    arguments = parse_arguments()
    if arguments.device == "cpu":
        torch.set_num_threads(1)
        print("CPU: whether it runs; these are no speeds")
    else:
        print(torch.cuda.get_device_name(arguments.device))
    print(HEAD)
    for task in arguments.task:
        for num_envs in arguments.num_envs:
            try:
                print(measure(task, num_envs, arguments.device, arguments.steps), flush=True)
            except ConfigError as error:
                print(f"{task:36}{num_envs:8}  {error}")


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
    env = make(task, num_envs, device)
    simulation, num_substeps = env.simulation, env.task.num_substeps
    action = torch.rand(num_envs, env.num_actions, device=device) * 2 - 1
    env.reset(stagger=True)

    whole = time_each(lambda: env.step(action), steps, device)
    physics = time_each(lambda: simulation.step(num_substeps), steps, device)
    env.reset(stagger=True)
    waits = find_wait(env, action) if device == "cpu" else count_waits(lambda: env.step(action))
    simulation.state_dict()  # raises if contacts were dropped
    return row(task.removeprefix("configs/train/"), num_envs, whole, physics, device, waits)


def make(task: str, num_envs: int, device: str) -> VectorEnv:
    """A task's worlds on Warp; those of a YAML differ as in training."""
    if not task.endswith((".yaml", ".yml")):
        return envs.make(task, num_envs=num_envs, device=device, backend="warp", seed=0)
    config = load_train_config(Path(task), [])
    return envs.make(
        config.task,
        num_envs=num_envs,
        device=device,
        backend="warp",
        seed=config.seed,
        task_config=config.task_config,
        randomization=config.terms,
    )


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
