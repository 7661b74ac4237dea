"""Evaluate a policy."""

from pathlib import Path
from typing import Annotated

import typer

from robotrl.cli.terminal import BestOption, needs, reported


def evaluate(
    policy: Annotated[Path, typer.Argument(help="A run's folder or an exported ONNX file.")],
    episodes: Annotated[
        int, typer.Option(min=1, max=1_000_000, help="Episodes; more narrow the intervals.")
    ] = 64,
    best: BestOption = False,
    record: Annotated[
        Path | None,
        typer.Option(help="Keep a run's transitions in this .npz file, for SAC to learn from."),
    ] = None,
) -> None:
    """Evaluate a policy in fresh randomized worlds, with 95 % intervals.

    Of a run it takes the latest policy, as `export` and `play` do; the one of the best evaluation
    while training is --best. What --record keeps is for algorithm.demonstrations of SAC.

    Examples: `robotrl eval runs/arm_reach`, `robotrl eval policy.onnx --episodes 4` and
    `robotrl eval runs/arm_reach --record expert.npz`
    """
    with needs("train"):
        from robotrl.runs.evaluate import evaluate_policy, evaluate_run
        from robotrl.runs.run_folder import RunFolder
    if best and not policy.is_dir():
        raise typer.BadParameter("--best chooses between the policies of a run; give its folder")
    if record and not policy.is_dir():
        raise typer.BadParameter("--record needs the rewards of training; give a run's folder")
    with reported():
        if policy.is_dir():
            folder = RunFolder(policy)
            result = evaluate_run(folder, episodes=episodes, best=best, record=record)
        else:
            result = evaluate_policy(policy, episodes=episodes)
        for name, value in result.items():
            print(f"{name:32s} {value:.6g}")
