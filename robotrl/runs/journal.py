"""What a run writes down while it trains: metrics.csv, evaluations.csv, TensorBoard, W&B if wanted.

Every line says how long the run has taken so far, `speed/wall_s` [s] of the clock and `speed/cpu_s`
[s] of all threads, of the first process if several train; evaluations included. A run that is
resumed counts on from its checkpoint. On Weights & Biases (`logging: {wandb: PROJECT}`, after
`pip install wandb`) a run keeps its id, so a resumed one goes on in the same curves.
"""

import importlib.util
import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import yaml
from torch.utils.tensorboard import SummaryWriter

from deploy.errors import ConfigError
from robotrl.runs.run_folder import RunFolder, StorageError
from robotrl.runs.train_config import LoggingConfig

CLOCKS = {"speed/wall_s": time.monotonic, "speed/cpu_s": time.process_time}


class Journal:
    """See the module docstring. Anything raises StorageError where the folder cannot be written.

    Args:
        folder: the run's.
        env_steps: those done before; what was written after them is dropped.
    """

    def __init__(self, folder: RunFolder, env_steps: int):
        self._folder = folder
        with self._writing():
            folder.drop_rows_after(env_steps)
            self._writer = SummaryWriter(str(folder.path), purge_step=env_steps)
            if env_steps == 0:
                settings = folder.config().model_dump(mode="json")
                text = yaml.safe_dump(settings, sort_keys=False)
                self._writer.add_text("configuration", "    " + text.replace("\n", "\n    "))
        with self._writing():
            self._wandb = _open_wandb(folder)
        last = (folder.metrics() or [{}])[-1]
        self._since = {name: clock() - float(last.get(name) or 0) for name, clock in CLOCKS.items()}

    def close(self) -> None:
        """Close TensorBoard's file, and the run at Weights & Biases."""
        with self._writing():
            self._writer.close()
        if self._wandb:
            self._wandb.finish()

    def times(self) -> dict[str, float]:
        """How long the run has taken [s]."""
        return {name: clock() - self._since[name] for name, clock in CLOCKS.items()}

    def write_metrics(self, metrics: dict[str, float]) -> None:
        """Take down an iteration; `env_steps` is one of its metrics."""
        self._folder.append_metrics(metrics)
        self._board(metrics, "")

    def write_evaluation(self, found: dict[str, float]) -> None:
        """Take down an evaluation, likewise."""
        self._folder.append_evaluation(found)
        self._board(found, "evaluation/")

    def _board(self, values: dict[str, float], prefix: str) -> None:
        with self._writing():
            for name, value in values.items():
                self._writer.add_scalar(f"{prefix}{name}", value, int(values["env_steps"]))
        if self._wandb:
            named = {f"{prefix}{name}": value for name, value in values.items()}
            self._wandb.log(named | {"env_steps": values["env_steps"]})

    @contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except StorageError:
            raise
        except OSError as error:
            raise self._folder.cannot_write(self._folder.path, error) from error


def require_loggers(logging: LoggingConfig) -> None:
    """Refuse to log to what is not installed.

    Raises:
        ConfigError: says what to install.
    """
    if logging.wandb is not None and importlib.util.find_spec("wandb") is None:
        raise ConfigError(
            f"logging.wandb: {logging.wandb!r} needs Weights & Biases, which is not installed; "
            "pip install wandb, or leave it out: TensorBoard and metrics.csv are always written"
        )


def _open_wandb(folder: RunFolder) -> Any:
    """The run at Weights & Biases, if it is to be there; offline with WANDB_MODE=offline."""
    config = folder.config()
    if config.logging.wandb is None:
        return None
    require_loggers(config.logging)
    import wandb  # pyright: ignore[reportMissingImports]

    kept = folder.path / "wandb_id.txt"
    if not kept.exists():
        kept.write_text(secrets.token_hex(8))
    try:
        run = wandb.init(
            project=config.logging.wandb,
            name=folder.path.resolve().name,
            id=kept.read_text(),
            resume="allow",
            dir=folder.path,
            config=config.model_dump(mode="json"),
        )
    except wandb.Error as error:
        raise ConfigError(
            f"logging.wandb: {config.logging.wandb!r} cannot be opened: {error}; `wandb login`, or "
            "set WANDB_MODE=offline and `wandb sync` later"
        ) from error
    run.define_metric("*", step_metric="env_steps")
    return run
