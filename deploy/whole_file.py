"""Files that are there whole or not at all, whatever ends the program or fills the disk.

require_writable(path, "--output")              # before an hour's work for it
with explained(path, "--output"), replaced(path) as file:
file.write(...)                             # beside its place, under a name of its own
"""

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from deploy.errors import ConfigError


@contextmanager
def replaced(path: Path) -> Iterator[BinaryIO]:
    """A file that takes the place of `path` when all is written; after an error nothing is left.

    Raises:
        OSError: it cannot be written; what stood there before stays.
    """
    temporary = _beside(path)
    try:
        with temporary.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())  # else a power failure may keep the new name and no content
        os.replace(temporary, path)
    finally:
        with suppress(OSError):
            temporary.unlink()


@contextmanager
def explained(path: Path, option: str) -> Iterator[None]:
    """Say of a file that cannot be written which option names another.

    Raises:
        ConfigError: in place of OSError.
    """
    try:
        yield
    except OSError as error:
        raise ConfigError(
            f"{path} cannot be written: {error.strerror or error}; make room, or choose another "
            f"{option}"
        ) from error


def require_writable(path: Path, option: str) -> None:
    """Refuse a place that no file can be written to.

    Raises:
        ConfigError: says why, and which option names another.
    """
    if not path.parent.is_dir():
        raise ConfigError(f"{path.parent} is no folder; make it first, or choose another {option}")
    with explained(path, option):
        if path.is_dir():
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        _beside(path).touch()
        _beside(path).unlink()


def _beside(path: Path) -> Path:
    """Always the same name: what a killed program left there is written over."""
    return path.with_name(f".{path.name}.tmp")
