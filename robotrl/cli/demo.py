"""The whole road in one command."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from robotrl.cli.terminal import console, needs, reported


def demo(
    road: Annotated[
        Literal["reach", "so101", "walk"],
        typer.Argument(
            help="What to show: the desk arm or an SO-101 that reaches, or a duck that walks."
        ),
    ] = "reach",
    output: Annotated[
        Path | None,
        typer.Option(help="Folder for the run, policy, log, report; default: runs/demo[_ROAD]."),
    ] = None,
    policy: Annotated[
        Path | None, typer.Option(help="An exported policy, instead of training one.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the training.")] = 0,
    twin_seed: Annotated[
        int, typer.Option(min=0, help="Seed of the twin's physical mismatch.")
    ] = 7,
    seconds: Annotated[
        float | None,
        typer.Option(
            min=1, max=3600, help="How long the policy runs on the twin; default: 40, walking 60."
        ),
    ] = None,
) -> None:
    """The whole road: train, export, twin, run, report. Reaching takes two minutes, walking 15.

    Examples: `robotrl demo so101` and `robotrl demo walk`
    """
    with needs("train"):
        from robotrl.demo import run_demo
    with reported():
        passed = run_demo(
            output or Path("runs/demo" if road == "reach" else f"runs/demo_{road}"),
            road=road,
            policy=policy,
            seed=seed,
            twin_seed=twin_seed,
            seconds=seconds,
            console=console,
        )
    raise typer.Exit(0 if passed else 1)
