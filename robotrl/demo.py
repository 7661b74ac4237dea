"""`robotrl demo`: train, export, twin, run, report; each step is what a user would type.

The twin differs from the model the policy was trained on, in kind and beyond the trained ranges:
zero errors the encoders do not see, play and load-dependent friction in the gears, a payload, a
supply that sags, late commands and replies, all drawn from `deploy.twin.parameters`. The verdict is
about where its tool really was.
"""

import shutil
import subprocess
import time
from pathlib import Path

from rich.console import Console

from deploy.errors import DeployError
from deploy.process import command_of
from robotrl.evaluate import evaluate_run
from robotrl.export import export
from robotrl.progress import train_with_progress
from robotrl.report import write_report
from robotrl.run_folder import RunFolder
from robotrl.run_policy import running_twin
from robotrl.shipped import config_path
from robotrl.train_config import load_train_config

_STALL_S = 30.0
"""A run that takes this much longer than planned is stuck."""


def run_demo(output: Path, *, seed: int, twin_seed: int, seconds: float, console: Console) -> bool:
    """Run the whole road; returns the report's verdict.

    Args:
        output: folder for everything that is made; an earlier demo there is replaced.
        seed: of the training.
        twin_seed: of the twin's physical mismatch.
        seconds: how long the policy runs.
        console: where to tell the story.
    """
    started = time.monotonic()

    def step(number: int, text: str) -> None:
        console.print(
            f"[bold cyan]{number}/5[/] {text}  [dim]{time.monotonic() - started:.0f} s[/]"
        )

    robot = config_path("robots/desk_arm.yaml")
    training = output / "train"
    policy, log, page = output / "policy.onnx", output / "run.mcap", output / "report.html"
    truth = output / "truth.npz"
    shutil.rmtree(training, ignore_errors=True)
    for stale in (policy, log, page, truth):
        stale.unlink(missing_ok=True)

    step(1, "training arm_reach")
    config = load_train_config(
        config_path("train/arm_reach.yaml"), [f"seed={seed}", "evaluation=null"]
    )
    folder = RunFolder(training)
    folder.create(config)
    if not train_with_progress(config, folder, console):
        raise KeyboardInterrupt

    step(2, "exporting the controller, checking it against onnxruntime")
    export(folder, policy, evaluate_run(folder))

    step(3, f"starting a twin, physically different from the model (seed {twin_seed})")
    with running_twin(robot, seed=twin_seed, truth=truth) as port:
        step(4, f"running the policy on {port} for {seconds:g} s")
        _run(policy, robot, port, log, seconds)

    step(5, "writing the report")
    verdict = write_report(log, page, truth)
    colour = "green" if verdict.passed else "red"
    console.print(f"[bold {colour}]{verdict.summary()}[/]")
    console.print(f"report: {page}   [dim]{time.monotonic() - started:.0f} s in total[/]")
    return verdict.passed


def _run(policy: Path, robot: Path, port: str, log: Path, seconds: float) -> None:
    """`robotrl run` in a process of its own, as on a robot: no torch, no training memory."""
    command = command_of("robotrl.cli", "run", policy, robot, "--port", port)
    command += ["--duration", str(seconds), "--log", str(log), "--yes"]
    done = subprocess.run(command, timeout=seconds + _STALL_S, check=False)
    if done.returncode:
        raise DeployError(f"the run ended with exit code {done.returncode}; its message is above")
