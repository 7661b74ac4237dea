"""Train a policy."""

from pathlib import Path
from typing import Annotated

import typer

from robotrl.cli.terminal import console, needs, plain, reported


def train(
    config: Annotated[
        Path | None, typer.Argument(help="E.g. configs/train/arm_reach.yaml; not with --resume.")
    ] = None,
    overrides: Annotated[
        list[str] | None, typer.Argument(help="Changes, e.g. num_envs=128 algorithm.gamma=0.98.")
    ] = None,
    output: Annotated[
        Path | None, typer.Option(help="Folder of the run; default: a new one, runs/NAME.")
    ] = None,
    resume: Annotated[Path | None, typer.Option(help="Continue the run in this folder.")] = None,
    source: Annotated[
        Path | None,
        typer.Option("--from", help="Start from the weights of the run in this folder."),
    ] = None,
    best: Annotated[
        bool, typer.Option("--best", help="With --from: those of its best evaluation.")
    ] = False,
) -> None:
    """Train a policy into runs/NAME/, with progress bar, TensorBoard and metrics.csv.

    Ctrl-C saves and leaves; --resume goes on with the same bits. Now and then the policy is
    evaluated in worlds of its own (`evaluation:` in CONFIG) and the best one kept: checkpoint.pt is
    the latest, best.pt the best. To tune a policy for another task or robot with the same
    observations and actions, start --from its run. Under torchrun several processes train one
    policy, each with its share of the worlds:
    `torchrun --nproc-per-node 2 -m robotrl.cli train configs/train/arm_reach.yaml`.

    Examples: `robotrl train configs/train/arm_reach.yaml seed=1`,
    `robotrl train --resume runs/arm_reach` and
    `robotrl train my_arm.yaml --from runs/arm_reach --best`
    """
    with needs("train"):
        from robotrl.algorithms import parallel
        from robotrl.runs.progress import train_with_progress
        from robotrl.runs.run_folder import RunFolder, free_folder
        from robotrl.runs.train import rehearse
        from robotrl.runs.train_config import TrainConfig, load_train_config
    if resume is not None and (config or overrides or output or source):
        raise typer.BadParameter("--resume goes on as the run began; give it alone")
    if best and source is None:
        raise typer.BadParameter("--best chooses between the policies of --from; give both")
    if resume is None and config is None:
        raise typer.BadParameter("give a CONFIG, or --resume with the folder of a run")

    def prepare() -> tuple[TrainConfig, RunFolder]:
        if resume is not None:
            return RunFolder(resume).config(), RunFolder(resume)
        assert config is not None
        settings = load_train_config(config, overrides or [])
        start = RunFolder(source) if source is not None else None
        taken = rehearse(settings, source=config, start=start, best=best)
        folder = RunFolder(output or free_folder(Path("runs") / config.stem))
        folder.create(settings, taken)
        return settings, folder

    with reported(), parallel.joined():
        settings, folder = parallel.from_first(prepare)
        finished = train_with_progress(settings, folder, console, resume=resume is not None)
        if parallel.is_first():
            again = f"{parallel.program()} train --resume {plain(folder.path)}"
            onward = f"robotrl export {plain(folder.path)} -o policy.onnx"
            said = (
                f"Next: [bold]{onward}[/]" if finished else f"saved; go on with: [bold]{again}[/]"
            )
            console.print(said)
    if not finished:
        raise typer.Exit(130)
