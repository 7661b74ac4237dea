"""A 200 Hz policy on the twin of an arm with six servos, in real time. Run by hand:

    python tests/benchmarks/fast_policy.py [--policy policy.onnx] [--seconds 20]

`robotrl run` drives the twin of the desk arm, another process behind a pseudo-terminal, through
1 Mbps and an adapter that takes 1 ms. Without a policy one is trained for 400,000 steps with
`control_dt_s: 0.005`, which is not good yet, but as fast as any. Printed is what a tick took, over
those of the policy alone: the period leaves 5 ms. Both processes need a core of their own; where
others want it too, start it with `chrt -f 10`.
"""

import argparse
import subprocess
import tempfile
from pathlib import Path

import numpy as np

from deploy.process import command_of
from robotrl.report.log import read_log

ROOT = Path(__file__).parents[2]
TRAIN = "configs/train/arm_reach.yaml"
ROBOT = "configs/robots/desk_arm.yaml"
STAGES = ("lateness_s", "read_s", "controller_s", "write_s")
QUANTILES = (0.5, 0.99, 0.999, 1.0)


def robotrl(*arguments: object) -> None:
    """Run a verb of the command line, which shows its progress."""
    subprocess.run([*command_of("robotrl.cli"), *map(str, arguments)], cwd=ROOT, check=True)


def trained(folder: Path) -> Path:
    """A policy at 200 Hz."""
    short = ("env_steps=400000", "algorithm.anneal_steps=400000")
    fast = "task_config.control_dt_s=0.005"
    robotrl("train", TRAIN, fast, *short, "--output", folder / "run")
    robotrl("export", folder / "run", "-o", folder / "policy.onnx")
    return folder / "policy.onnx"


def main() -> None:
    """Run it and print the table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--policy", type=Path)
    parser.add_argument("--seconds", type=float, default=20.0)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        policy, path = options.policy or trained(folder), folder / "run.mcap"
        robotrl(
            "run", policy.absolute(), ROBOT, "--twin", "--duration", options.seconds, "--log", path
        )
        log = read_log(path)
    ran = log.running
    stages = {name.removesuffix("_s"): log.ticks[name][ran] for name in STAGES}
    stages["from deadline to write"] = np.sum(list(stages.values()), axis=0)
    rate_hz = 1 / log.contract.control_dt_s
    print(f"{np.count_nonzero(ran)} ticks at {rate_hz:.0f} Hz [ms]     p50    p99  p99.9    max")
    for name, seconds in stages.items():
        numbers = "".join(f"{value:7.3f}" for value in np.quantile(seconds, QUANTILES) * 1e3)
        print(f"  {name:27}{numbers}")
    missed, lost = (np.ptp(log.ticks[counter][ran]) for counter in ("overruns", "lost"))
    print(f"{missed} deadlines missed, {lost} readings of a joint lost")


if __name__ == "__main__":
    main()
