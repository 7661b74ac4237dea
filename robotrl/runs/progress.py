"""Training as a person watches it: one line with the numbers that matter, and Ctrl-C that saves."""

import logging
import math
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from deploy.process import handling
from robotrl.algorithms import parallel
from robotrl.runs.run_folder import RunFolder
from robotrl.runs.train import train
from robotrl.runs.train_config import TrainConfig

_LINES = 10
"""Lines printed over a whole run when the output is no terminal."""
_BAR, _NAME = 10, 16
"""Columns of the bar, and most of the run's name."""
_ELSEWHERE = 30
"""Columns that bar, name, steps, times and the gaps between them leave to no metric."""


def train_with_progress(
    config: TrainConfig, folder: RunFolder, console: Console, *, resume: bool = False
) -> bool:
    """Train, showing steps, speed, reward and the task's own metrics in one line.

    Returns:
        Whether the run came to its end; else it was asked to stop (Ctrl-C, SIGTERM), and was saved.
    """
    if not parallel.is_first():
        console = Console(quiet=True)
    name = folder.path.resolve().name
    columns = (
        TextColumn("[bold]{task.description}"),
        BarColumn(_BAR),
        TextColumn("{task.fields[steps]}"),
        TextColumn("{task.fields[metrics]}"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    printed, diverged = 0, 0.0

    with (
        _stop_on_signal(console) as stop,
        _telling(console),
        Progress(*columns, console=console, disable=not console.is_terminal) as bar,
    ):
        task = bar.add_task(name[:_NAME], total=config.env_steps, steps="", metrics="")

        def show(metrics: dict[str, float]) -> None:
            nonlocal printed, diverged
            diverged = metrics["diverged"]
            done = min(metrics["env_steps"], config.env_steps)
            steps = f"{_short(done)}/{_short(config.env_steps)}"
            room = console.width - _ELSEWHERE - min(len(name), _NAME) - len(steps)
            bar.update(task, completed=done, steps=steps, metrics=_fitting(_parts(metrics), room))
            due = int(_LINES * metrics["env_steps"] / config.env_steps)
            if not console.is_terminal and due > printed:
                printed = due
                console.print(
                    f"{name} {metrics['env_steps']:>10,.0f} steps  " + "  ".join(_parts(metrics))
                )

        finished = train(config, folder, resume=resume, progress=show, stop=stop.is_set)
    if diverged and folder.diverged_path.exists():  # not every backend can look back
        console.print(f"diverged {diverged:.0f}, see {folder.diverged_path}", markup=False)
    return finished


class _Told(logging.Handler):
    """Prints what is logged on lines of its own, above the bar."""

    def __init__(self, console: Console):
        super().__init__()
        self._console = console

    def emit(self, record: logging.LogRecord) -> None:
        """See `logging.Handler`."""
        self._console.print(record.getMessage(), markup=False, highlight=False)


@contextmanager
def _telling(console: Console) -> Iterator[None]:
    """Show what a training has to tell beside its numbers, such as why it stands still."""
    logger, told = logging.getLogger("robotrl"), _Told(console)
    level = logger.level
    logger.addHandler(told)
    logger.setLevel(logging.INFO)
    try:
        yield
    finally:
        logger.removeHandler(told)
        logger.setLevel(level)


@contextmanager
def _stop_on_signal(console: Console) -> Iterator[threading.Event]:
    """An event that the first Ctrl-C or SIGTERM sets; the second ends the program at once."""
    asked = threading.Event()

    def ask(number: int, frame: FrameType | None) -> None:
        if asked.is_set():
            raise KeyboardInterrupt
        asked.set()
        console.print("finishing this iteration, then saving; once more to stop at once")

    with handling(ask, signal.SIGINT, signal.SIGTERM):
        yield asked


def _parts(metrics: dict[str, float]) -> list[str]:
    """What is worth telling, the most important first."""
    parts = [f"{_short(metrics['speed/env_steps_per_s'])}/s"]
    if metrics["diverged"]:
        parts.append(f"diverged {metrics['diverged']:.0f}")
    shown = {"reward": metrics["reward/mean"]}
    shown |= {
        name: value
        for name, value in metrics.items()
        if "/" not in name and name not in ("env_steps", "diverged")
    }
    return parts + [f"{name} {value:.3g}" for name, value in shown.items() if not math.isnan(value)]


def _fitting(parts: list[str], room: int) -> str:
    """As many parts as fit into so many columns."""
    text = ""
    for part in parts:
        longer = f"{text} {part}".strip()
        if len(longer) > room:
            break
        text = longer
    return text


def _short(number: float) -> str:
    """14200 as 14k, 3250000 as 3.25M."""
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if number >= size:
            return f"{number / size:.3g}{letter}"
    return f"{number:.0f}"
