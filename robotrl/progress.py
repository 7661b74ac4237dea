"""Training as a person watches it: a progress bar with the numbers that matter."""

import math

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from robotrl.run_folder import RunFolder
from robotrl.train import train
from robotrl.train_config import TrainConfig

_LINES = 10
"""Lines printed over a whole run when the output is no terminal."""


def train_with_progress(
    config: TrainConfig, folder: RunFolder, console: Console, *, resume: bool = False
) -> None:
    """Train, showing steps, speed, reward and the task's own metrics."""
    columns = (
        TextColumn("[bold]{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[metrics]}"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    printed = 0

    with Progress(*columns, console=console, disable=not console.is_terminal) as bar:
        task = bar.add_task(config.task, total=config.env_steps, metrics="")

        def show(metrics: dict[str, float]) -> None:
            nonlocal printed
            text = _describe(metrics)
            if metrics["diverged"]:
                text += f"  diverged {metrics['diverged']:.0f}"
                if folder.diverged_path.exists():  # not every backend can look back
                    text += f", see {folder.diverged_path}"
            bar.update(task, completed=min(metrics["env_steps"], config.env_steps), metrics=text)
            due = int(_LINES * metrics["env_steps"] / config.env_steps)
            if not console.is_terminal and due > printed:
                printed = due
                console.print(f"{config.task} {metrics['env_steps']:>10,.0f} steps  {text}")

        train(config, folder, resume=resume, progress=show)


def _describe(metrics: dict[str, float]) -> str:
    shown = {"reward": metrics["reward/mean"]}
    shown |= {
        name: value
        for name, value in metrics.items()
        if "/" not in name and name not in ("env_steps", "diverged")
    }
    parts = [f"{name} {value:.4g}" for name, value in shown.items() if not math.isnan(value)]
    return "  ".join([*parts, f"{metrics['speed/env_steps_per_s']:,.0f} steps/s"])
