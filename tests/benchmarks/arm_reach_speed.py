"""How fast arm_reach trains, all in, beside another commit, in turns. Run by hand:

    git worktree add /tmp/old ca1651d
    python tests/benchmarks/arm_reach_speed.py /tmp/old

Each turn trains the shipped configuration of a checkout for some iterations, in a process of its
own, without evaluation. Given are medians over iterations, of wall time and of the CPU time of all
threads; the first iterations, which allocate, do not count.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from importlib import import_module
from pathlib import Path

REPOSITORY = Path(__file__).parents[2]
FIRST = 3


def measure(env_steps: int) -> None:
    """Train what is found in this folder; print the microseconds of an environment step as JSON."""
    package = "robotrl.runs" if Path("robotrl/runs").exists() else "robotrl"  # older checkouts
    names = ("run_folder", "train", "train_config")
    run_folder, training, train_config = (import_module(f"{package}.{name}") for name in names)

    path = Path("configs/train/arm_reach.yaml")
    config = train_config.load_train_config(path, [f"env_steps={env_steps}"])
    if hasattr(config, "evaluation"):
        config = config.model_copy(update={"evaluation": None})
    marks: list[tuple[float, float, float]] = []
    with tempfile.TemporaryDirectory() as temporary:
        folder = run_folder.RunFolder(Path(temporary) / "run")
        folder.create(config)
        training.train(
            config,
            folder,
            progress=lambda found: marks.append(
                (time.perf_counter(), time.process_time(), found["env_steps"])
            ),
        )
    wall, cpu = [], []
    for before, after in zip(marks[FIRST:-1], marks[FIRST + 1 :], strict=True):
        steps = after[2] - before[2]
        wall.append(1e6 * (after[0] - before[0]) / steps)
        cpu.append(1e6 * (after[1] - before[1]) / steps)
    print(json.dumps([statistics.median(wall), statistics.median(cpu)]))


def main() -> None:
    """Take turns; print the medians and the ratio."""
    parser = argparse.ArgumentParser(formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("other", type=Path, help="checkout of another commit")
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--env-steps", type=int, default=250_000, help="of each turn")
    arguments = parser.parse_args()
    checkouts = {"this": REPOSITORY, "other": arguments.other.resolve()}
    found: dict[str, list[list[float]]] = {name: [] for name in checkouts}
    call = f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r}); " + (
        f"from arm_reach_speed import measure; measure({arguments.env_steps})"
    )
    for _ in range(arguments.turns):
        for name, checkout in checkouts.items():
            out = subprocess.run(
                [sys.executable, "-c", call],
                cwd=checkout,
                env=os.environ | {"PYTHONPATH": str(checkout)},
                check=True,
                stdout=subprocess.PIPE,
            )
            found[name].append(json.loads(out.stdout.splitlines()[-1]))
    for name, turns in found.items():
        wall, cpu = map(statistics.median, zip(*turns, strict=True))
        print(f"{name:6} {wall:6.1f} us, {cpu:6.1f} CPU us for an environment step, all in")
    for place, of in enumerate(("wall time", "CPU time")):
        ratios = [
            other[place] / this[place]
            for this, other in zip(found["this"], found["other"], strict=True)
        ]
        print(f"ratio in {of}: {statistics.median(ratios):.2f}")


if __name__ == "__main__":
    main()
