"""Make environments by name."""

import functools
from collections.abc import Sequence
from typing import Any

from deploy.configuration import did_you_mean, validate
from deploy.errors import ConfigError
from envs.batch_simulation import BatchSimulation
from envs.draws import Draws
from envs.randomization import Term
from envs.robot import load_robot
from envs.tasks.arm_reach import ArmReach
from envs.vector_env import VectorEnv

TASKS = {"arm_reach": ArmReach}


def make(
    name: str,
    *,
    num_envs: int = 1,
    device: str = "cpu",
    seed: int = 0,
    randomization: Sequence[Term | dict[str, Any]] = (),
    task_config: dict[str, Any] | None = None,
    num_threads: int = 0,
) -> VectorEnv:
    """Make a vectorised environment.

    Args:
        name: a task, see `TASKS`.
        num_envs: number of worlds.
        device: `cpu`.
        seed: of every random number in the environment.
        randomization: domain randomization terms, or what they say in YAML.
        task_config: settings of the task that differ from its defaults.
        num_threads: simulation threads, 0 for all cores; results do not depend on it.

    Raises:
        ConfigError: an unknown task or setting, a robot the task cannot use, or a randomization
            term that is wrong or without effect.
    """
    task_class = find_task(name)
    if device != "cpu":
        raise ConfigError(f"device {device!r} is not available; this version simulates on 'cpu'")
    config = validate(task_config or {}, task_class.Config, source=f"task {name}")
    terms = [
        validate(term, Term, source=f"randomization, term {number}")
        for number, term in enumerate(randomization, 1)
    ]
    recipe = functools.partial(
        make,
        name,
        num_envs=num_envs,
        device=device,
        seed=seed,
        randomization=terms,
        task_config=task_config,
        num_threads=num_threads,
    )
    robot = load_robot(config.robot)
    simulation = BatchSimulation(robot.model, num_envs, num_threads=num_threads)
    draws = Draws(seed, simulation.device)
    task = task_class(simulation, config, draws)
    return VectorEnv(task, simulation, draws, terms, recipe)


def find_task(name: str) -> type[ArmReach]:
    """The class of a task.

    Raises:
        ConfigError: there is no such task.
    """
    if name not in TASKS:
        raise ConfigError(
            f"unknown task {name!r}{did_you_mean(name, TASKS)}; there are {', '.join(TASKS)}"
        )
    return TASKS[name]
