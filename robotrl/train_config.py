"""`configs/train/<task>.yaml`: one file is one reproducible run."""

import hashlib
import json
from pathlib import Path
from typing import Annotated, Any

from pydantic import BeforeValidator, Field

from deploy.configuration import Section, load_yaml
from envs.randomization import Term
from robotrl.ppo import PPOConfig


def _whole_number(value: Any) -> Any:
    """Accept 3e6 for three million; PyYAML reads it as a string."""
    try:
        number = float(value)
    except (TypeError, ValueError):
        return value  # the validation that follows says what is wrong with it
    return int(number) if number.is_integer() else value


Count = Annotated[int, BeforeValidator(_whole_number), Field(gt=0)]


class TrainConfig(Section):
    """A training run."""

    task: str
    """Task, e.g. `arm_reach`."""
    seed: Annotated[int, Field(ge=0)] = 0
    """Seed of everything random."""
    num_envs: Count = 256
    """Worlds simulated together."""
    env_steps: Count = 3_000_000
    """Control steps to train for, summed over worlds."""
    simulation_threads: Annotated[int, Field(ge=0)] = 0
    """Threads of the simulation, 0 for all cores; results do not depend on it."""
    torch_threads: Annotated[int, Field(ge=1)] = 1
    """Threads of the learner; part of what makes a run reproducible to the bit. Small networks gain
    nothing from a second one, and lose much when something else runs on the machine."""
    checkpoint_interval: Count = 50
    """Iterations between checkpoints."""
    task_config: dict[str, Any] = {}
    """Settings of the task that differ from its defaults."""
    algorithm: PPOConfig = PPOConfig()
    """Algorithm and hyper-parameters."""
    randomization: list[Term] = []
    """Domain randomization terms."""

    @property
    def sha256(self) -> str:
        """Identity of the configuration."""
        return hashlib.sha256(json.dumps(self.model_dump(), sort_keys=True).encode()).hexdigest()


def load_train_config(path: Path, overrides: list[str]) -> TrainConfig:
    """Read a training configuration; see `deploy.configuration.load_yaml`."""
    return load_yaml(path, TrainConfig, overrides)
