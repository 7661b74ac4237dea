"""Export a controller."""

import functools
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from deploy.errors import ContractError
from deploy.whole_file import require_writable
from robotrl.cli.terminal import BestOption, console, needs, out, plain, reported

if TYPE_CHECKING:
    from deploy.contract import Contract


def export(
    run: Annotated[
        Path,
        typer.Argument(
            metavar="RUN|MODEL",
            help="A run's folder; or a model of Stable-Baselines3 (.zip: PPO, SAC) or the state "
            "dict of a torch actor (.pt) that was trained on our environment.",
        ),
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="The file to write.")] = Path(
        "policy.onnx"
    ),
    best: BestOption = False,
    config: Annotated[
        Path | None, typer.Option(help="Of a MODEL: the training YAML with its task.")
    ] = None,
    normalizer: Annotated[
        Path | None, typer.Option(help="Of a MODEL: the .pkl of its VecNormalize, if any.")
    ] = None,
    activation: Annotated[
        str | None, typer.Option(help="Of a .pt: between its linear layers, e.g. ReLU.")
    ] = None,
    squash: Annotated[
        Literal["clip", "tanh"], typer.Option(help="Of a .pt: what brings its output to [-1, 1].")
    ] = "clip",
) -> None:
    """Export the whole controller as one checked ONNX file.

    Of a run, the latest policy, or with --best that of the best evaluation while training.

    Examples: `robotrl export runs/arm_reach -o policy.onnx` and
    `robotrl export model.zip --config configs/train/arm_reach.yaml --normalizer vecnormalize.pkl`
    """
    with needs("train"):
        from robotrl.export import export as export_run
        from robotrl.export import export_policy
        from robotrl.foreign import load_foreign
        from robotrl.runs.evaluate import evaluate_actor, evaluate_run
        from robotrl.runs.run_folder import RunFolder
        from robotrl.runs.train_config import load_train_config
    if run.suffix in (".zip", ".pt") and config is None:
        raise typer.BadParameter(f"{run} does not say its task; give --config with its YAML")
    if config is not None and (best or run.is_dir()):
        raise typer.BadParameter("--config is for a model that was trained elsewhere")
    with reported():
        require_writable(output, "--output")
        if config is None:
            folder = RunFolder(run)
            contract = export_run(folder, output, evaluate_run(folder, best=best), best=best)
        else:
            settings = load_train_config(config, [])
            load = functools.partial(
                load_foreign, run, normalizer=normalizer, activation=activation, squash=squash
            )
            scorecard = evaluate_actor(settings, lambda env: load(env)[0])
            contract = export_policy(settings, load, output, scorecard)
        out.print(
            f"{output}: {contract.provenance.task} for {contract.robot} at "
            f"{1 / contract.control_dt_s:.0f} Hz; onnxruntime agrees with torch, "
            f"{len(next(iter(contract.golden.outputs.values())))} golden vectors inside"
        )
        compare_with_shipped_robots(contract, output)


def compare_with_shipped_robots(contract: "Contract", policy: Path) -> None:
    """Say at once what `run` would refuse, and what to do next."""
    from deploy.fit import from_elsewhere, matches
    from robotrl.shipped import shipped_robots

    known = list(shipped_robots(contract.robot))
    for path, config in known:
        try:
            matches(contract, config, from_elsewhere(contract))
        except ContractError as error:
            console.print(
                f"[yellow]warning:[/] with {plain(_near(path))} {plain(error)}", highlight=False
            )
    robot = _near(known[0][0]) if known else "ROBOT.yaml"
    console.print(f"Next: [bold]robotrl check {plain(policy)} {plain(robot)}[/]")


def _near(path: Path) -> Path:
    """A path from the present folder, where it lies below."""
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path
