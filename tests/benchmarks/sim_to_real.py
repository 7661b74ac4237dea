"""How far policies miss on robots that differ from what they were trained on. Run by hand:

    python tests/benchmarks/sim_to_real.py                       # trains two policies first
    python tests/benchmarks/sim_to_real.py --arm so101           # over Feetech's bytes
    python tests/benchmarks/sim_to_real.py --policy a.onnx --policy b.onnx --twins 50

Every run is the whole robot side (`Runtime`, governor, bus) on a twin in virtual time, watched by
a `Monitor`. The distance is that of the twin's true tool to the target, mean over the last second
of each target; a run counts with the median over its targets. The second table switches one
element of the reality gap on at a time, so one sees what bites.
"""

import argparse
import contextlib
import itertools
import logging
import os
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, fields
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from rich.console import Console

from deploy.commands import random_commands
from deploy.controller import OnnxController
from deploy.errors import DeployError
from deploy.twin.parameters import TwinParameters, draw
from deploy.twin.robot import Twin
from tests.benchmarks.watched import only, watched

REPOSITORY = Path(__file__).parents[2]
SETTLE_S = 1.0
ELEMENTS = {
    "mass": ("mass_scale",),
    "friction": ("friction_scale",),
    "damping": ("damping_scale",),
    "strength": ("strength_scale",),
    "rotor inertia": ("armature_scale",),
    "zero error": ("zero_error_rad",),
    "backlash": ("backlash_rad",),
    "stribeck friction": ("stribeck_scale",),
    "load friction": ("load_friction",),
    "payload": ("payload_kg",),
    "supply and its sag": ("supply_scale", "supply_resistance_ohm"),
    "command latency": ("command_latency_s",),
    "USB latency": ("usb_latency_s",),
    "inertial sensor": ("imu_tilt_rad", "gyro_bias_rad_s"),  # an arm has none
    "whoever lifts and pushes it": ("let_go_after_s", "push_speed_m_s"),
}


@dataclass(frozen=True)
class Arm:
    """One that reaches."""

    robot: Path
    model: Path
    training: Path


ARMS = {
    name: Arm(
        REPOSITORY / f"configs/robots/{name}.yaml",
        REPOSITORY / f"envs/robots/{model}/{model}.xml",
        REPOSITORY / f"configs/train/{training}.yaml",
    )
    for name, model, training in (
        ("desk_arm", "desk_arm", "arm_reach"),
        ("so101", "so101_arm", "so101_reach"),
    )
}


@dataclass(frozen=True)
class Outcome:
    """One run."""

    error_m: float
    """Median over targets; not a number if the run failed."""
    violations: int
    failure: str = ""


class Witness:
    """A command source that notes where the tool really is whenever it is asked."""

    def __init__(self, twin: Twin, controller: OnnxController, seed: int):
        self._twin = twin
        self._source = random_commands(controller.contract.command, seed)
        self._period_s = controller.contract.control_dt_s
        self._shortest_s = controller.contract.command.interval_s[0]
        self._targets: list[list[float]] = []
        self._command: NDArray[np.float32] | None = None
        self._last_s = 0.0

    def __call__(self, time_s: float) -> NDArray[np.float32]:
        """The command now."""
        command = self._source(time_s)
        if time_s <= self._last_s:  # ramps and parking
            return command
        self._last_s = time_s
        if self._command is None or np.any(command != self._command):
            self._targets.append([])
            self._command = command.copy()
        self._targets[-1].append(float(np.linalg.norm(self._twin.tool_position - command)))
        return command

    def errors_m(self) -> list[float]:
        """Mean distance in the last second of each target that had its time."""
        settle, enough = round(SETTLE_S / self._period_s), round(self._shortest_s / self._period_s)
        return [float(np.mean(t[-settle:])) for t in self._targets if len(t) >= enough - 1]


def run(job: tuple[Path, TwinParameters], arm: Arm, seconds: float) -> Outcome:
    """Run a policy on a twin; twins of the same seed get the same targets."""
    policy, parameters = job
    setup = watched(policy, arm.robot, arm.model, parameters)
    witness = Witness(setup.twin, setup.controller, parameters.seed or 0)
    try:
        setup.runtime.run(witness, seconds)
    except DeployError as error:
        return Outcome(float("nan"), len(setup.monitor.violations), str(error))
    return Outcome(float(np.median(witness.errors_m())), len(setup.monitor.violations))


def trained(arm: Arm, folder: Path, console: Console) -> Iterator[Path]:
    """Policies with and without randomization, as the shipped configuration trains them."""
    from robotrl.export import export
    from robotrl.runs.evaluate import evaluate_run
    from robotrl.runs.progress import train_with_progress
    from robotrl.runs.run_folder import RunFolder
    from robotrl.runs.train_config import load_train_config

    shipped = load_train_config(arm.training, [])
    for name, config in (
        ("randomized", shipped),
        ("plain", shipped.model_copy(update={"randomization": []})),
    ):
        path = folder / f"{name}.onnx"
        if not path.exists():
            run_folder = RunFolder(folder / name)
            run_folder.create(config)
            train_with_progress(config, run_folder, console)
            export(run_folder, path, evaluate_run(run_folder))
        yield path


def table(title: str, rows: list[tuple[str, list[list[Outcome]]]], policies: list[Path]) -> None:
    """Print median and 90th percentile over the twins of a row, per policy."""
    print(f"\n{title}: true distance to the target [mm], median and p90 over twins")
    heading = "".join(f"{policy.stem[:24]:>26}" for policy in policies)
    print(f"{'':22}{heading}\n{'':22}" + f"{'median    p90 fail unsafe':>26}" * len(policies))
    for name, outcomes in rows:
        cells = []
        for runs in outcomes:
            errors = 1e3 * np.array([run.error_m for run in runs if not run.failure])
            median, p90 = np.percentile(errors, [50, 90]) if len(errors) else (np.nan, np.nan)
            failed = sum(bool(run.failure) for run in runs)
            unsafe = sum(run.violations > 0 for run in runs)
            cells.append(f"{median:12.2f} {p90:6.2f} {failed:4} {unsafe:1}".rjust(26))
        print(f"{name:22}{''.join(cells)}", flush=True)


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])  # pyright: ignore[reportOptionalMemberAccess]
    parser.add_argument("--policy", type=Path, action="append", help="ONNX file; repeat for more")
    parser.add_argument("--arm", choices=ARMS, default="desk_arm", help="wired like this")
    parser.add_argument("--twins", type=int, default=20, help="twins of the whole gap")
    parser.add_argument("--alone", type=int, default=8, help="twins per element of the gap")
    parser.add_argument("--seconds", type=float, default=10.0, help="how long each runs")
    parser.add_argument("--folder", type=Path, help="of what is trained")
    parser.add_argument("--workers", type=int, default=os.cpu_count())
    arguments = parser.parse_args()
    logging.disable()
    arm = ARMS[arguments.arm]
    folder = arguments.folder or REPOSITORY / "runs/sim_to_real" / arguments.arm
    policies = arguments.policy or list(trained(arm, folder, Console(stderr=True)))
    drawn = [draw(seed, arm.model) for seed in range(arguments.twins)]
    unknown = {item.name for item in fields(TwinParameters)} - {"seed"}
    unknown -= set(itertools.chain(*ELEMENTS.values()))
    assert not unknown, f"in no row of the table: {unknown}"

    rows = {"nominal": [TwinParameters(seed=twin.seed) for twin in drawn], "drawn": drawn}
    alone = {
        name: [only(twin, elements) for twin in drawn[: arguments.alone]]
        for name, elements in ELEMENTS.items()
    }
    failures: dict[str, int] = {}
    with contextlib.ExitStack() as stack:
        pool = stack.enter_context(ProcessPoolExecutor(arguments.workers))
        for title, group in (("Whole gap", rows), ("One element at a time", alone)):
            finished = []
            for name, twins in group.items():
                outcomes = [
                    list(
                        pool.map(
                            partial(run, arm=arm, seconds=arguments.seconds),
                            ((policy, twin) for twin in twins),
                        )
                    )
                    for policy in policies
                ]
                finished.append((name, outcomes))
                for outcome in itertools.chain(*outcomes):
                    if outcome.failure:
                        failures[outcome.failure] = failures.get(outcome.failure, 0) + 1
            table(title, finished, policies)
    for message, count in failures.items():
        print(f"{count} × {message}")


if __name__ == "__main__":
    main()
