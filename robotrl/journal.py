"""What a run writes down while it trains: metrics.csv, evaluations.csv, TensorBoard.

Every line says how long the run has taken so far, `speed/wall_s` [s] of the clock and `speed/cpu_s`
[s] of all threads, of the first process if several train; evaluations included. A run that is
resumed counts on from its checkpoint.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager

import yaml
from torch.utils.tensorboard import SummaryWriter

from robotrl.run_folder import RunFolder, StorageError

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
        last = (folder.metrics() or [{}])[-1]
        self._since = {name: clock() - float(last.get(name) or 0) for name, clock in CLOCKS.items()}

    def close(self) -> None:
        """Close TensorBoard's file."""
        with self._writing():
            self._writer.close()

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

    @contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except StorageError:
            raise
        except OSError as error:
            raise self._folder.cannot_write(self._folder.path, error) from error
