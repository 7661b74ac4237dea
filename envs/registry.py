"""Make environments by name."""

import functools
from collections.abc import Sequence
from typing import Annotated, Any, Literal

import mujoco
import numpy as np
import torch
from pydantic import Field

from deploy.configuration import Section, did_you_mean, validate
from deploy.errors import ConfigError
from envs.batch_simulation import BatchSimulation
from envs.draws import Draws
from envs.randomization import RandomTerm, read_terms
from envs.servos import with_servos
from envs.simulation import Simulation
from envs.tasks.arm_lift import ArmLift
from envs.tasks.arm_push import ArmPush
from envs.tasks.arm_reach import ArmReach
from envs.tasks.balance import Balance
from envs.tasks.getup import Getup
from envs.tasks.gym import GYM_TASKS
from envs.tasks.velocity import Velocity
from envs.user_task import blamed, check_user_task, find_user_task, is_user_task
from envs.vector_env import VectorEnv
from envs.worlds import ALL_HERE, Share

TASKS = {
    "arm_reach": ArmReach,
    "arm_push": ArmPush,
    "arm_lift": ArmLift,
    "balance": Balance,
    "getup": Getup,
    "velocity": Velocity,
}
"""Tasks of our own, on robots; beside them there are Gymnasium's, `GYM_TASKS`."""

Device = Annotated[str, Field(pattern=r"^(cpu|cuda(:\d+)?)$")]
Backend = Literal["auto", "batch", "warp"]
Room = Annotated[int, Field(ge=1, le=1_000_000)] | None


class WorldSettings(Section):
    """How many worlds, and where they are simulated."""

    num_envs: Annotated[int, Field(ge=1, le=1_000_000)]
    device: Device
    backend: Backend
    seed: Annotated[int, Field(ge=0, le=2**64 - 1)]
    num_threads: Annotated[int, Field(ge=0, le=1024)]
    nconmax: Room
    njmax: Room


def make(
    name: str,
    *,
    num_envs: int = 1,
    device: str = "cpu",
    backend: Backend = "auto",
    seed: int = 0,
    randomization: Sequence[RandomTerm | dict[str, Any]] = (),
    task_config: dict[str, Any] | None = None,
    num_threads: int = 0,
    nconmax: int | None = None,
    njmax: int | None = None,
    share: Share = ALL_HERE,
) -> VectorEnv:
    """Make a vectorised environment.

    Args:
        name: a task of `TASKS` or `GYM_TASKS`, or where one of your own is (`envs.user_task`).
        num_envs: number of worlds.
        device: `cpu`, or a GPU, e.g. `cuda`.
        backend: `batch` is MuJoCo on CPU threads, `warp` is mujoco_warp; `auto` chooses by device.
        seed: of every random number in the environment.
        randomization: domain randomization terms, or what they say in YAML.
        task_config: settings of the task that differ from its defaults.
        num_threads: simulation threads, 0 for all cores; results do not depend on it.
        nconmax: room for contacts per world on a GPU; by default what a rehearsal needs.
        njmax: room for constraint rows in each world on a GPU.
        share: which worlds of a training these are; others are in other processes.

    Raises:
        ConfigError: an unknown task, setting, device or backend, a robot the task cannot use, or a
            randomization term that is wrong or without effect.
    """
    task_class = find_task(name)
    settings = {
        "num_envs": num_envs,
        "device": str(device),
        "backend": backend,
        "seed": seed,
        "num_threads": num_threads,
        "nconmax": nconmax,
        "njmax": njmax,
    }
    for key, value in settings.items():
        settings[key] = int(value) if isinstance(value, np.integer) else value
    worlds = validate(settings, WorldSettings, source=f"worlds of {name}")
    config = validate(
        {} if task_config is None else task_config, task_class.Config, source=f"task {name}"
    )
    terms = read_terms(randomization, source="randomization")
    recipe = functools.partial(
        make,
        name,
        randomization=terms,
        task_config=task_config,
        share=share,
        **settings,
    )
    with blamed(name):
        model = task_class.load_model(config)
    simulation = with_servos(_simulate(model, worlds))
    draws = Draws(worlds.seed, simulation.device, in_torch=not simulation.compact, share=share)
    with blamed(name):
        task = task_class(simulation, config, draws)
        if is_user_task(name):
            check_user_task(name, task)
        return VectorEnv(task, simulation, draws, terms, recipe)


def _simulate(model: mujoco.MjModel, worlds: WorldSettings) -> Simulation:
    device, backend = torch.device(worlds.device), worlds.backend
    if device.type == "cuda" and not torch.cuda.is_available():
        raise ConfigError(f"device {worlds.device!r}: torch finds no GPU here; use device 'cpu'")
    if backend == "batch" and device.type != "cpu":
        raise ConfigError(f"backend 'batch' simulates on the CPU, found device {worlds.device!r}")
    if backend == "batch" or (backend == "auto" and device.type == "cpu"):
        return BatchSimulation(model, worlds.num_envs, num_threads=worlds.num_threads)
    try:
        from envs.warp_simulation import WarpSimulation
    except ImportError as error:
        raise ConfigError(
            f"backend 'warp' needs mujoco_warp ({error}); pip install 'robotrl[gpu]'"
        ) from error
    return WarpSimulation(
        model, worlds.num_envs, device=device, nconmax=worlds.nconmax, njmax=worlds.njmax
    )


def find_task(name: str) -> type[Any]:
    """The class of a task.

    Raises:
        ConfigError: there is no such task, or one of a user's own is none.
    """
    tasks = {**TASKS, **GYM_TASKS}
    if is_user_task(name):
        return find_user_task(name)
    if name not in tasks:
        if "/" in name.removeprefix("gym/") or name.endswith(".py"):
            raise ConfigError(
                f"task {name!r} does not say which class; expected e.g. {name}:Walk, the file and "
                "a class in it"
            )
        raise ConfigError(
            f"unknown task {name!r}{did_you_mean(name, tasks)}; there are {', '.join(tasks)}"
        )
    return tasks[name]
