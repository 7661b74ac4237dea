"""The file in which a twin wrote what it really did (`deploy.twin.truth`), beside a run's log."""

import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from deploy.errors import ConfigError
from robotrl.report.log import Array


@contextmanager
def open_truth(path: Path) -> Iterator[np.lib.npyio.NpzFile]:
    """Open it; what cannot be read from it within the block is an error, too.

    Raises:
        ConfigError: it is no such file.
    """
    try:
        with np.load(path) as file:
            yield file
    except ConfigError:
        raise
    except (OSError, KeyError, ValueError, TypeError, zipfile.BadZipFile) as error:
        raise ConfigError(f"{path}: is no truth file of `robotrl twin`: {error}") from error


def require_same_run(path: Path, times: Array, ticks: Array) -> None:
    """Refuse a truth whose times do not cover those of the log's ticks [s].

    Raises:
        ConfigError: it is of another run.
    """
    if not len(times) or times[0] > ticks[0] or times[-1] < ticks[-1]:
        raise ConfigError(f"{path}: belongs to another run, its times do not cover the log's")
