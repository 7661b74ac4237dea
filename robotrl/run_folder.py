"""The folder of a training run: `config.yaml`, `metrics.csv`, TensorBoard events, checkpoints.

Files that matter are written to a temporary name and renamed, so a kill leaves the old one whole.
"""

import csv
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import yaml

from deploy.configuration import load_yaml
from deploy.errors import ConfigError
from robotrl.train_config import TrainConfig


class RunFolder:
    """Paths and files of one run.

    Args:
        path: the folder.
    """

    def __init__(self, path: Path):
        self.path = path
        self.config_path = path / "config.yaml"
        self.checkpoint_path = path / "checkpoint.pt"
        self.metrics_path = path / "metrics.csv"
        self.diverged_path = path / "diverged"
        """Made when there is something in it; see `envs.divergence`."""

    def create(self, config: TrainConfig) -> None:
        """Start a new run.

        Raises:
            ConfigError: the folder already holds a run, or cannot be written.
        """
        if self.config_path.exists():
            raise ConfigError(
                f"{self.path} already holds a run; continue it with --resume, or choose another "
                "folder with --output"
            )
        text = yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False)
        temporary = self.config_path.with_suffix(".tmp")
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            temporary.write_text(text)
            os.replace(temporary, self.config_path)
        except OSError as error:
            raise ConfigError(
                f"{self.path} cannot be written: {error.strerror}; choose another --output"
            ) from error

    def config(self) -> TrainConfig:
        """The resolved configuration of the run."""
        if not self.config_path.exists():
            raise ConfigError(
                f"{self.path} is no training run (it has no config.yaml); "
                "give a folder that `robotrl train` wrote, such as runs/arm_reach"
            )
        return load_yaml(self.config_path, TrainConfig)

    def save_checkpoint(self, state: dict[str, Any]) -> None:
        """Replace the checkpoint."""
        temporary = self.checkpoint_path.with_suffix(".tmp")
        torch.save(state, temporary)
        os.replace(temporary, self.checkpoint_path)

    def load_checkpoint(self) -> dict[str, Any]:
        """Read the checkpoint; tensors and plain data only, nothing is executed.

        Raises:
            ConfigError: there is none yet, or it cannot be read.
        """
        if not self.checkpoint_path.exists():
            raise ConfigError(f"{self.path} has no checkpoint.pt yet; train it first")
        try:
            return torch.load(self.checkpoint_path, weights_only=True, map_location="cpu")
        except Exception as error:  # torch raises several unrelated types for a damaged file
            raise ConfigError(f"{self.checkpoint_path}: cannot be read: {error}") from error

    def append_metrics(self, row: dict[str, float]) -> None:
        """Add a line to metrics.csv; the first line names the columns."""
        _append_rows(self.metrics_path, [row])

    def drop_metrics_after(self, env_steps: int) -> None:
        """Forget lines written after the checkpoint that a run resumes from."""
        if not self.metrics_path.exists():
            return
        with self.metrics_path.open(newline="") as file:
            whole = (row for row in csv.DictReader(file) if None not in row.values())
            rows = [row for row in whole if int(row["env_steps"]) <= env_steps]
        temporary = self.metrics_path.with_suffix(".tmp")
        temporary.unlink(missing_ok=True)
        _append_rows(temporary, rows)
        os.replace(temporary, self.metrics_path)


def _append_rows(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    with path.open("a", newline="") as file:
        empty = file.tell() == 0
        writer = csv.DictWriter(file, fieldnames=list(rows[0]) if rows else [])
        if rows and empty:
            writer.writeheader()
        writer.writerows(rows)
