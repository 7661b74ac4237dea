"""Trainings side by side: each a process of its own, on this machine or, with Ray, on any of many.

    with RayTrainings() as trainings:                # or LocalTrainings()
        exit_code = trainings.run(folder)            # from as many threads as may train at a time
        trainings.stop()                             # from another: all save and end

A training is `robotrl train --resume` of a run's folder, whose `train.log` has what it says. The
machines of a Ray cluster must see that folder at the same path, and have robotrl installed.
"""

import contextlib
import importlib.util
import subprocess
import threading
import time
from pathlib import Path
from typing import Any, Protocol, Self

from deploy.errors import ConfigError
from deploy.process import command_of

INTERRUPTED = 130
_POLL_S = 0.2


class Trainings(Protocol):
    """See the module docstring."""

    def __enter__(self) -> Self:
        """Reach the machines."""
        ...

    def __exit__(self, *error: object) -> None:
        """Leave them."""
        ...

    def run(self, folder: Path) -> int:
        """Train to the end; returns the exit code, `INTERRUPTED` if it was stopped."""
        ...

    def stop(self) -> None:
        """Make all that run save and end, and start no more."""
        ...


class LocalTrainings:
    """On this machine."""

    def __init__(self) -> None:
        self._children: list[subprocess.Popen[bytes]] = []
        self._stopping = False
        self._starting = threading.Lock()
        """Else one that begins while all are told to end would not hear of it."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        pass

    def run(self, folder: Path) -> int:
        """See `Trainings`."""
        with self._starting:
            if self._stopping:
                return INTERRUPTED
            child = _start(folder)
            self._children.append(child)
        return child.wait()

    def stop(self) -> None:
        """See `Trainings`."""
        with self._starting:
            self._stopping = True
        for child in self._children:
            if child.poll() is None:
                child.terminate()  # it saves; SIGINT is blocked below Ray


class RayTrainings:
    """On the machines of a Ray cluster, one core for each; of this one where there is none.

    Raises:
        ConfigError: Ray is not installed.
    """

    def __init__(self) -> None:
        if importlib.util.find_spec("ray") is None:
            raise ConfigError(
                "--ray needs Ray, which is not installed; pip install ray, or leave --ray out: "
                "trainings then run in processes of this machine"
            )
        import ray  # pyright: ignore[reportMissingImports]

        self._ray: Any = ray
        self._train = ray.remote(num_cpus=1, max_retries=0)(_train_until_interrupted)
        self._running: list[Any] = []
        self._stopping = False
        self._starting = threading.Lock()

    def __enter__(self) -> Self:
        self._ray.init(ignore_reinit_error=True, log_to_driver=False)
        return self

    def __exit__(self, *error: object) -> None:
        self._ray.shutdown()

    def run(self, folder: Path) -> int:
        """See `Trainings`."""
        with self._starting:
            if self._stopping:
                return INTERRUPTED
            task = self._train.remote(folder.resolve())
            self._running.append(task)
        try:
            return self._ray.get(task)
        except self._ray.exceptions.TaskCancelledError:
            return INTERRUPTED
        except self._ray.exceptions.RayError as error:  # its machine is gone
            with contextlib.suppress(OSError), (folder / "train.log").open("a") as log:
                log.write(f"ray: {error}\n")
            return 1

    def stop(self) -> None:
        """See `Trainings`."""
        with self._starting:
            self._stopping = True
        for task in self._running:
            self._ray.cancel(task)  # a KeyboardInterrupt there
        self._ray.wait(self._running, num_returns=len(self._running))


def _start(folder: Path) -> subprocess.Popen[bytes]:
    with (folder / "train.log").open("ab") as log:
        return subprocess.Popen(
            command_of("robotrl.cli", "train", "--resume", folder),
            stdout=log,
            stderr=log,
            process_group=0,  # Ctrl-C comes through us, once; a new session would not be as nice
        )


def _train_until_interrupted(folder: Path) -> int:
    """What Ray runs, maybe on another machine."""
    child = _start(folder)
    try:
        while child.poll() is None:  # Ray's interrupt does not end a `wait`
            time.sleep(_POLL_S)
        return child.returncode
    except KeyboardInterrupt:
        child.terminate()
        child.wait()
        raise
