"""Compare algorithms and tasks over seeds."""

from pathlib import Path
from typing import Annotated

import typer

from robotrl.cli.terminal import console, needs, reported


def run_bench(
    config: Annotated[Path, typer.Argument(help="Tasks, algorithms and seeds, e.g. bench.yaml.")],
    output: Annotated[
        Path | None, typer.Option(help="Folder of its runs and results; default: runs/NAME.")
    ] = None,
    ray: Annotated[
        bool, typer.Option("--ray", help="Spread over a Ray cluster; else local processes.")
    ] = False,
) -> None:
    """Train tasks × algorithms × seeds, several at a time, and compare them.

    Writes table.md (interquartile mean over seeds with 95 % interval, CPU seconds), results.csv and
    curves.png. The same command again goes on where it was interrupted. How to write CONFIG:
    robotrl/bench/bench_config.py.

    Example: `robotrl bench bench.yaml`
    """
    with needs("train"):
        from robotrl.bench.bench import bench
    with reported():
        bench(config, output or Path("runs") / config.stem, console, ray=ray)
