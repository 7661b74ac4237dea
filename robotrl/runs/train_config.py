"""`configs/train/<task>.yaml`: one file is one reproducible run."""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag, ValidationInfo, field_validator

from deploy.configuration import Section, load_yaml, validate
from deploy.quantities import Seed
from envs.randomization import RandomTerm
from envs.registry import Backend, Device, find_task
from envs.robot_file import SUFFIXES
from envs.user_task import absolute_task, is_path
from robotrl.algorithms.algorithm import Whole
from robotrl.algorithms.ppo import PPOConfig
from robotrl.algorithms.sac import SACConfig
from robotrl.runs.presets import Line, expand

Count = Annotated[Whole, Field(gt=0, le=10**15)]
Threads = Annotated[int, Field(ge=0, le=1024)]


def _algorithm(value: Any) -> Any:
    """Name of an algorithm's section or of a mapping; ppo where it says nothing."""
    return value.get("name", "ppo") if isinstance(value, dict) else getattr(value, "name", None)


AnyAlgorithm = Annotated[
    Annotated[PPOConfig, Tag("ppo")] | Annotated[SACConfig, Tag("sac")],
    Discriminator(
        _algorithm,
        custom_error_type="no_algorithm",
        custom_error_message="`name` must be ppo or sac",
    ),
]
"""Every algorithm, by its name; see `robotrl.algorithms.algorithm`."""


class EvaluationConfig(Section):
    """Evaluation while training: without noise, in worlds of its own, always the same episodes."""

    episodes: Annotated[Count, Field(le=1_000_000)] = 16
    """Episodes, all at once; those that are good to compare runs are 10 and more."""
    interval: Count | None = None
    """Environment steps of training between two; by default a tenth of `env_steps`, or more where
    that would take more than a fifth as many control steps as training does."""


class LoggingConfig(Section):
    """Where a run is written down beside its folder."""

    wandb: Annotated[str, Field(min_length=1, max_length=128)] | None = None
    """Project at Weights & Biases; needs `pip install wandb`."""


class TrainConfig(Section):
    """A training run."""

    task: str
    """Task, e.g. `arm_reach`, or where one of your own is, e.g. `./my_task.py:Walk`."""
    seed: Seed = 0
    """Seed of everything random."""
    num_envs: Annotated[Count, Field(le=1_000_000)] = 256
    """Worlds simulated together."""
    env_steps: Count = 3_000_000
    """Control steps to train for, summed over worlds."""
    device: Device = "cpu"
    """Where worlds live: `cpu`, or a GPU, e.g. `cuda`."""
    backend: Backend = "auto"
    """Physics: MuJoCo on CPU threads, or mujoco_warp; `auto` chooses by device."""
    nconmax: Annotated[Count, Field(le=1_000_000)] | None = None
    """Room for contacts of each world, on `warp`; by default what a rehearsal needed."""
    njmax: Annotated[Count, Field(le=1_000_000)] | None = None
    """Room for constraints of each world, on `warp`."""
    simulation_threads: Threads = 0
    """Threads of the simulation, 0 for all cores; results do not depend on it."""
    torch_threads: Annotated[Threads, Field(ge=1)] = 1
    """Threads of the learner; part of what makes a run reproducible to the bit. Small networks gain
    nothing from a second one, and lose much when something else runs on the machine."""
    learner_precision: Literal["float32", "bfloat16"] = "float32"
    """What factors of matrix products are rounded to while learning, and where there are 256 worlds
    or more while acting; never in what is exported. A CPU without AMX does it for SAC alone,
    others multiply in float32 there; see `robotrl.algorithms.products`."""
    checkpoint_interval: Count = 50
    """Iterations between checkpoints."""
    evaluation: EvaluationConfig | None = EvaluationConfig()
    """Evaluation while training, at an interval and at the end; null for none."""
    logging: LoggingConfig = LoggingConfig()
    """Beside TensorBoard and metrics.csv, which there always are."""
    task_config: dict[str, Any] = {}
    """Settings of the task that differ from its defaults."""
    algorithm: AnyAlgorithm = PPOConfig()
    """Algorithm and hyper-parameters."""
    randomization: list[Line] = []
    """Domain randomization terms, and presets of them; see `robotrl.runs.presets`."""

    @field_validator("task")
    @classmethod
    def _check_task(cls, task: str) -> str:
        task = absolute_task(task, Path())
        find_task(task)
        return task

    @field_validator("task_config")
    @classmethod
    def _check_task_config(cls, settings: dict[str, Any], info: ValidationInfo) -> dict[str, Any]:
        if task := info.data.get("task"):  # else the task is what is wrong
            validate(settings, find_task(task).Config, source=task)
        return _with_robot(settings, Path())

    @field_validator("randomization")
    @classmethod
    def _expand_presets(cls, lines: Sequence[Line]) -> Sequence[RandomTerm]:
        return list(expand(lines))

    @property
    def terms(self) -> list[RandomTerm]:
        """The terms of `randomization`, those of its presets among them."""
        return [line for line in self.randomization if isinstance(line, RandomTerm)]

    def evaluation_interval(self, episode_steps: int) -> int:
        """Environment steps between evaluations, for episodes of so many control steps.

        A control step of training is several times as expensive as one of evaluation: it is made in
        more worlds, and learned from. So what evaluation takes stays below a tenth of the time.
        """
        if self.evaluation is not None and self.evaluation.interval is not None:
            return self.evaluation.interval
        return max(self.env_steps // 10, 5 * episode_steps * self.num_envs, 1)

    @property
    def sha256(self) -> str:
        """Identity of the configuration."""
        return hashlib.sha256(json.dumps(self.model_dump(), sort_keys=True).encode()).hexdigest()


def load_train_config(path: Path, overrides: list[str]) -> TrainConfig:
    """Read a training configuration; see `deploy.configuration.load_yaml`.

    Paths of a task and a robot are relative to the file's folder; those of `overrides`, to the
    present one. In the configuration they are absolute, so that a run can be used from anywhere.
    """

    def prepare(document: dict[str, Any]) -> None:
        if isinstance(task := document.get("task"), str) and is_path(task):
            document["task"] = absolute_task(task, path.parent)
        if isinstance(settings := document.get("task_config"), dict):
            document["task_config"] = _with_robot(settings, path.parent)

    return load_yaml(path, TrainConfig, overrides, prepare=prepare)


def _with_robot(settings: dict[str, Any], folder: Path) -> dict[str, Any]:
    """A task's settings with its robot's path, if it is one, made absolute."""
    robot = settings.get("robot")
    if isinstance(robot, str) and Path(robot).suffix in SUFFIXES:
        return settings | {"robot": str((folder / robot).resolve())}
    return settings
