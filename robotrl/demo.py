"""`robotrl demo`: train, export, twin, run, report; each step is what a user would type.

The twin differs from the model the policy was trained on, in kind and beyond the trained ranges:
zero errors the encoders do not see, play and load-dependent friction in the gears, a payload, a
supply that sags, late commands and replies, all drawn from `deploy.twin.parameters`. The verdict of
`reach` and `so101` is about where the tool really was; that of `walk` about how the base really
went, while it was pushed every few seconds. Walking takes ten minutes to learn; `policy` skips it.
"""

import shutil
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from deploy.errors import DeployError
from deploy.process import command_of
from robotrl.export import export
from robotrl.report.log import read_log
from robotrl.report.page import write_report
from robotrl.report.walk_video import film_truth
from robotrl.run_policy import running_twin
from robotrl.runs.evaluate import evaluate_run
from robotrl.runs.progress import train_with_progress
from robotrl.runs.run_folder import RunFolder
from robotrl.runs.train import rehearse
from robotrl.runs.train_config import load_train_config
from robotrl.shipped import config_path

_FILM_S = 20.0
"""How much is filmed: without a GPU a picture takes a tenth of a second."""
_STALL_S = 30.0
"""A run that takes this much longer than planned is stuck."""


@dataclass(frozen=True)
class Road:
    """One that can be shown."""

    task: str
    training: tuple[str, ...]
    """Configurations; each goes on from the policy of the one before."""
    robot: str
    seconds: float
    """How long the policy runs, unless told otherwise."""
    film: bool = False


ROADS = {
    # 14 targets: seven would have a median of their own
    "reach": Road("arm_reach", ("train/arm_reach.yaml",), "robots/desk_arm.yaml", 40.0),
    "so101": Road("arm_reach", ("train/so101_reach.yaml",), "robots/so101.yaml", 40.0),
    "walk": Road(
        "walking",
        ("train/microduck_walk.yaml", "train/microduck_walk_robust.yaml"),
        "robots/microduck.yaml",
        60.0,
        film=True,
    ),
}


def run_demo(
    output: Path,
    *,
    road: str = "reach",
    policy: Path | None = None,
    seed: int,
    twin_seed: int,
    seconds: float | None,
    console: Console,
) -> bool:
    """Run the whole road; returns the report's verdict.

    Args:
        output: folder for everything that is made; an earlier demo there is replaced.
        road: of `ROADS`.
        policy: an exported one, instead of training.
        seed: of the training.
        twin_seed: of the twin's physical mismatch.
        seconds: how long the policy runs; None for as long as the road says.
        console: where to tell the story.
    """
    started = time.monotonic()
    shown = ROADS[road]
    seconds = seconds or shown.seconds

    def step(number: int, text: str) -> None:
        console.print(
            f"[bold cyan]{number}/5[/] {text}  [dim]{time.monotonic() - started:.0f} s[/]"
        )

    robot = config_path(shown.robot)
    exported, log, page = output / "policy.onnx", output / "run.mcap", output / "report.html"
    truth, film = output / "truth.npz", output / "run.mp4"
    for stale in (log, page, truth, film):
        stale.unlink(missing_ok=True)
    output.mkdir(parents=True, exist_ok=True)
    if policy is None:
        _train(shown, output / "train", exported, seed, console, step)
        policy = exported

    step(3, f"starting a twin, physically different from the model (seed {twin_seed})")
    with running_twin(robot, seed=twin_seed, truth=truth) as port:
        step(4, f"running the policy on {port} for {seconds:g} s")
        _run(policy, robot, port, log, seconds)

    step(5, "writing the report")
    verdict = write_report(log, page, truth)
    if shown.film:
        _film(log, truth, film, console)
    colour = "green" if verdict.passed else "red"
    console.print(f"[bold {colour}]{verdict.summary()}[/]")
    console.print(f"report: {page}   [dim]{time.monotonic() - started:.0f} s in total[/]")
    return verdict.passed


def _train(
    road: Road,
    training: Path,
    exported: Path,
    seed: int,
    console: Console,
    step: Callable[[int, str], None],
) -> None:
    shutil.rmtree(training, ignore_errors=True)
    exported.unlink(missing_ok=True)
    run = None
    for name in road.training:
        step(1, f"training {road.task}" if run is None else "training it further")
        path = config_path(name)
        config = load_train_config(path, [f"seed={seed}", "evaluation=null"])
        begin = rehearse(config, source=path, start=run) if run else None
        run = RunFolder(training / path.stem)
        run.create(config, begin)
        if not train_with_progress(config, run, console):
            raise KeyboardInterrupt
    assert run

    step(2, "exporting the controller, checking it against onnxruntime")
    export(run, exported, evaluate_run(run))


def _run(policy: Path, robot: Path, port: str, log: Path, seconds: float) -> None:
    """`robotrl run` in a process of its own, as on a robot: no torch, no training memory."""
    command = command_of("robotrl.cli", "run", policy, robot, "--port", port)
    command += ["--duration", str(seconds), "--log", str(log), "--yes"]
    done = subprocess.run(command, timeout=seconds + _STALL_S, check=False)
    if done.returncode:
        raise DeployError(f"the run ended with exit code {done.returncode}; its message is above")


def _film(log: Path, truth: Path, film: Path, console: Console) -> None:
    """What the twin really did, from when it is picked up; no film where nothing can be drawn."""
    console.print(f"filming {_FILM_S:g} s of it, about a minute without a GPU", style="dim")
    run = read_log(log)
    begin_s = float(run.ticks["time_s"][0])
    try:
        film_truth(truth, run.contract.robot, film, begin_s=begin_s, end_s=begin_s + _FILM_S)
    except DeployError as error:
        console.print(f"no film: {error}", style="yellow", markup=False, highlight=False)
    else:
        console.print(f"film: {film}")
