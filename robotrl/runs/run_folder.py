"""The folder of a training run: `config.yaml`, tables, TensorBoard events, checkpoints.

`metrics.csv` has a line for each iteration, `evaluations.csv` one for each evaluation;
`checkpoint.pt` is where the run goes on from, `best.pt` the policy of the best evaluation. Files
that matter are replaced as a whole, so a kill or a full disk leaves the old one as it was. One
process at a time trains in a folder.
"""

import csv
import fcntl
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import torch
import yaml

from deploy.configuration import load_yaml
from deploy.errors import ConfigError, DeployError
from deploy.whole_file import replaced
from robotrl.runs.train_config import TrainConfig


class StorageError(DeployError, OSError):
    """A run's folder cannot be written any more: the disk is full, or gone."""


class RunFolder:
    """Paths and files of one run.

    Args:
        path: the folder.
    """

    def __init__(self, path: Path):
        self.path = path
        self.config_path = path / "config.yaml"
        self.checkpoint_path = path / "checkpoint.pt"
        self.best_path = path / "best.pt"
        self.start_path = path / "start.pt"
        """Weights of another run that this one starts from, if it does."""
        self.metrics_path = path / "metrics.csv"
        self.evaluations_path = path / "evaluations.csv"
        self.diverged_path = path / "diverged"
        """Made when there is something in it; see `envs.divergence`."""

    def create(self, config: TrainConfig, start: dict[str, Any] | None = None) -> None:
        """Start a new run.

        Args:
            config: what it is.
            start: checkpoint of another run, whose weights it starts from.

        Raises:
            ConfigError: the folder already holds a run, or cannot be written.
        """
        if self.config_path.exists():
            raise self._taken()
        text = yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False)
        temporary = self.path / f".config.{os.getpid()}.tmp"
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            temporary.write_text(text)
            if start is not None:
                self._save(start, self.start_path)
            os.link(temporary, self.config_path)  # refuses where two start at the same time
        except FileExistsError:
            raise self._taken() from None
        except OSError as error:
            raise ConfigError(
                f"{self.path} cannot be written: {error.strerror or error}; choose another --output"
            ) from error
        finally:
            with suppress(OSError):
                temporary.unlink()

    def config(self) -> TrainConfig:
        """The resolved configuration of the run."""
        if not self.config_path.exists():
            raise ConfigError(
                f"{self.path} is no training run (it has no config.yaml); "
                "give a folder that `robotrl train` wrote, such as runs/arm_reach"
            )
        return load_yaml(self.config_path, TrainConfig)

    @contextmanager
    def claim(self) -> Iterator[None]:
        """Keep other processes from training in this folder.

        Raises:
            ConfigError: one does already.
        """
        with self.config_path.open() as file:  # the lock goes with the process, however it ends
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise ConfigError(
                    f"{self.path}: another process is training there; let it end, or choose "
                    "another folder with --output"
                ) from None
            yield

    def save_checkpoint(self, state: dict[str, Any]) -> None:
        """Replace the checkpoint.

        Raises:
            StorageError: it cannot be written; the one before stays.
        """
        self._save(state, self.checkpoint_path)

    def save_best(self, state: dict[str, Any]) -> None:
        """Replace the best policy; see `save_checkpoint`."""
        self._save(state, self.best_path)

    def load_checkpoint(self, *, best: bool = False) -> dict[str, Any]:
        """Read the checkpoint; tensors and plain data only, nothing is executed.

        Args:
            best: of the best evaluation, which has the policy alone, instead of the latest.

        Raises:
            ConfigError: there is none yet, or it cannot be read.
        """
        path = self.best_path if best else self.checkpoint_path
        if not path.exists():
            what = "let it train until its first evaluation" if best else "train it first"
            raise ConfigError(f"{self.path} has no {path.name} yet; {what}")
        return self._load(path)

    def load_start(self) -> dict[str, Any] | None:
        """What the run starts from, if from anything; see `create`."""
        return self._load(self.start_path) if self.start_path.exists() else None

    def append_metrics(self, row: Mapping[str, Any]) -> None:
        """Add a line to metrics.csv; the first line names the columns."""
        self._append(self.metrics_path, row)

    def append_evaluation(self, row: Mapping[str, Any]) -> None:
        """Add a line to evaluations.csv."""
        self._append(self.evaluations_path, row)

    def metrics(self) -> list[dict[str, str]]:
        """The lines of metrics.csv, without one that was cut short."""
        return _read_rows(self.metrics_path)

    def evaluations(self) -> list[dict[str, float]]:
        """The lines of evaluations.csv."""
        rows = _read_rows(self.evaluations_path)
        return [{name: float(value or "nan") for name, value in row.items()} for row in rows]

    def drop_rows_after(self, env_steps: int) -> None:
        """Forget lines written after the checkpoint that a run resumes from."""
        for path in (self.metrics_path, self.evaluations_path):
            if not path.exists():
                continue
            rows = [row for row in _read_rows(path) if int(row["env_steps"]) <= env_steps]
            temporary = path.with_suffix(".tmp")
            temporary.unlink(missing_ok=True)
            _append_rows(temporary, rows)
            os.replace(temporary, path)

    def cannot_write(self, path: Path, error: Exception) -> StorageError:
        """The error for a file that could not be written."""
        reason = getattr(error, "strerror", None) or str(error)
        kept = (
            "the checkpoint of before is whole"
            if self.checkpoint_path.exists()
            else "nothing was saved yet"
        )
        return StorageError(
            f"{path} cannot be written: {reason}; {kept}. Make room and go on with "
            f"robotrl train --resume {self.path}"
        )

    def _taken(self) -> ConfigError:
        return ConfigError(
            f"{self.path} already holds a run; continue it with --resume, or choose another folder "
            "with --output"
        )

    def _load(self, path: Path) -> dict[str, Any]:
        try:
            return torch.load(path, weights_only=True, map_location="cpu")
        except Exception as error:  # torch raises several unrelated types for a damaged file
            reason = str(error).split(". ")[0]
            raise ConfigError(
                f"{path}: cannot be read: {reason}; expected what `robotrl train` wrote. "
                f"{self._instead_of(path)}"
            ) from error

    def _instead_of(self, path: Path) -> str:
        """What is left where a file is damaged."""
        if path == self.checkpoint_path and self.best_path.exists():
            return (
                f"{self.best_path.name} beside it has the best policy: export it with --best, or "
                f"go on from it in a new run: robotrl train CONFIG --from {self.path} --best"
            )
        return "Copy it again from where it came, or train again"

    def _save(self, state: dict[str, Any], path: Path) -> None:
        try:
            with replaced(path) as file:
                torch.save(state, file)
        except (OSError, RuntimeError) as error:  # torch's writer raises the latter
            raise self.cannot_write(path, error) from error

    def _append(self, path: Path, row: Mapping[str, Any]) -> None:
        try:
            _append_rows(path, [row])
        except OSError as error:
            raise self.cannot_write(path, error) from error


def free_folder(path: Path) -> Path:
    """The path, or if it holds a run the first of `path-2`, `path-3` … that holds none."""
    found, number = path, 1
    while (found / "config.yaml").exists():
        number += 1
        found = path.with_name(f"{path.name}-{number}")
    return found


def _read_rows(path: Path) -> list[dict[str, str]]:
    if not path.exists():
        return []
    with path.open(newline="") as file:
        return [row for row in csv.DictReader(file) if None not in row.values()]


def _append_rows(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Add lines under the names that the first line has, which an earlier version may have set."""
    if not rows:
        path.touch()
        return
    names = list(rows[0])
    if path.exists() and path.stat().st_size:
        with path.open(newline="") as file:
            names = next(csv.reader(file))
    with path.open("a", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=names, extrasaction="ignore")
        if file.tell() == 0:
            writer.writeheader()
        writer.writerows(rows)
