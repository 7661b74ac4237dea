"""The YAML of `robotrl bench`: tasks × algorithms × seeds.

    seeds: [0, 1, 2]
    common: {env_steps: 1e6}
    tasks:
      HalfCheetah: {task: gym/HalfCheetah-v5, num_envs: 8}
      reach: {config: arm_reach.yaml}           # a training YAML, relative to this file
    algorithms:
      ppo: {algorithm: {name: ppo, gamma: 0.99}}
      sac: {algorithm: {name: sac}, num_envs: 1}
    normalize: {HalfCheetah: [-280, 12135], reach: [0, 500]}    # if there is to be a line over all

A run's configuration is what its task says, then `common`, then what its algorithm says, then the
seed; later values replace earlier ones key by key, but an `algorithm` of another name as a whole.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, NamedTuple

from pydantic import Field

from deploy.configuration import Section, load_yaml, validate
from deploy.errors import ConfigError
from deploy.quantities import Seed
from robotrl.runs.train_config import TrainConfig, load_train_config

Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$", max_length=64)]
Score = Annotated[float, Field(ge=-1e12, le=1e12)]
Table = Annotated[dict[Name, dict[str, Any]], Field(min_length=1, max_length=1000)]


class BenchConfig(Section):
    """See the module docstring."""

    seeds: Annotated[list[Seed], Field(min_length=1, max_length=1000)]
    """Each task is trained with each algorithm once for each."""
    processes: Annotated[int, Field(ge=0, le=1024)] = 0
    """Trainings at a time; 0: one for each core, of all machines with --ray."""
    common: dict[str, Any] = {}
    """Training settings of all runs."""
    tasks: Table
    """Training settings of each task, `task` or a `config` among them."""
    algorithms: Table
    """Training settings of each algorithm."""
    normalize: dict[Name, tuple[Score, Score]] = {}
    """Returns of each task that count 0 and 1 in a line over all tasks; without, there is none."""


class BenchRun(NamedTuple):
    """One training."""

    task: str
    algorithm: str
    seed: int
    config: TrainConfig

    @property
    def name(self) -> Path:
        """Where it is, below the bench's folder."""
        return Path(self.task) / self.algorithm / f"seed-{self.seed}"


def load_bench(path: Path) -> tuple[BenchConfig, list[BenchRun]]:
    """Read a bench and every training in it.

    Raises:
        ConfigError: a setting is wrong, in the file or in one of the trainings.
    """
    bench = load_yaml(path, BenchConfig)
    if len(set(bench.seeds)) < len(bench.seeds):
        raise ConfigError(f"{path}: seeds: {bench.seeds} has one twice; give each once")
    if bench.normalize and {*bench.normalize} != {*bench.tasks}:
        raise ConfigError(
            f"{path}: normalize has {sorted(bench.normalize)}, the tasks are "
            f"{sorted(bench.tasks)}; give two returns for each of them, or leave it out"
        )
    for task, (low, high) in bench.normalize.items():
        if not low < high:
            raise ConfigError(f"{path}: normalize: {task}: {low} must be less than {high}")
    return bench, list(_runs(bench, path))


def _runs(bench: BenchConfig, path: Path) -> Iterator[BenchRun]:
    for task, settings in bench.tasks.items():
        base = dict(settings)
        if (file := base.pop("config", None)) is not None:
            loaded = load_train_config(path.parent / str(file), [])
            base = _merged(loaded.model_dump(mode="json"), base)
        # trainings side by side: one thread each does not cost the others theirs
        base = _merged(base, {"simulation_threads": 1} | bench.common)
        for algorithm, changes in bench.algorithms.items():
            for seed in bench.seeds:
                document = _merged(base, changes) | {"seed": seed}
                source = f"{path}: {task} with {algorithm}"
                yield BenchRun(
                    task, algorithm, seed, validate(document, TrainConfig, source=source)
                )


def _merged(base: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in changes.items():
        old = merged.get(key)
        if isinstance(old, dict) and isinstance(value, dict):
            name = old.get("name")
            value = _merged(old, value) if value.get("name", name) == name else value
        merged[key] = value
    return merged
