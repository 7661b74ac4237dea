"""From `robotrl run` to a robot that could move: its time and its memory. Run by hand:

    python tests/benchmarks/startup.py [TURNS]

A twin of the desk arm runs behind a pseudo-terminal. Measured is from the start of the process to
the state IDLE: policy loaded and replayed, black box begun, every servo identified, checked and set
up, latency measured, limp and at rest. The same of a program on `deploy.open_robot`, which has no
policy and no black box; beside them imports alone. In turns, medians: seconds on the clock; of a
processor, of the process alone; its peak memory, and that of its companion. On a busy machine start
it with `chrt -f 10`.
"""

import os
import select
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from deploy.process import command_of

ROOT = Path(__file__).parents[2]
POLICY = ROOT / "tests/deploy/data/arm_reach_schema_1.onnx"
ROBOT = ROOT / "configs/robots/desk_arm.yaml"
PATIENCE_S = 60.0
IMPORTS = "import {}; print('idle', flush=True); input()"
DIRECT = """import deploy, sys
with deploy.open_robot(*sys.argv[1:], change_settings=True):
    print("idle", flush=True)
    input()"""
MEGABYTE = 1e6


class Cost(NamedTuple):
    """Of a process until it has said `idle`."""

    seconds: float
    cpu_s: float
    megabytes: float
    companion_megabytes: float


def cost(command: list[str]) -> Cost:
    """Start a process, measure it once a line of it is `idle`, and end it."""
    began_s = time.monotonic()
    process = subprocess.Popen(
        command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    assert process.stdout
    try:
        said = []
        while not said or said[-1].strip() not in (b"idle", b""):
            said.append(process.stdout.readline())
        if not said[-1]:
            raise SystemExit(b"".join([b"not idle: ", *said]).decode())
        seconds = time.monotonic() - began_s
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        return Cost(
            seconds,
            cpu_seconds(process.pid),
            peak_bytes(process.pid) / MEGABYTE,
            sum(peak_bytes(int(child)) for child in children) / MEGABYTE,
        )
    finally:
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=PATIENCE_S)


def cpu_seconds(pid: int) -> float:
    """What a process has used of all processors so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return sum(map(int, fields[11:13])) / os.sysconf("SC_CLK_TCK")


def peak_bytes(pid: int) -> int:
    """The most memory a process has had at once."""
    status = Path(f"/proc/{pid}/status").read_text().splitlines()
    (peak,) = (line.split()[1] for line in status if line.startswith("VmHWM"))
    return int(peak) * 1024


@contextmanager
def twin(folder: str) -> Iterator[str]:
    """A twin of the robot; gives the path of its port."""
    link = f"{folder}/arm"
    process = subprocess.Popen(
        [*command_of("robotrl.cli"), "twin", str(ROBOT), "--link", link],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    assert process.stdout
    try:
        if not select.select((process.stdout,), (), (), PATIENCE_S)[0]:
            raise SystemExit("the twin does not start")
        while not Path(link).exists():
            time.sleep(0.05)
        yield link
    finally:
        process.terminate()
        process.wait()


def main() -> None:
    """Print the table."""
    turns = int(sys.argv[1]) if len(sys.argv) > 1 else 7
    with tempfile.TemporaryDirectory() as folder, twin(folder) as port:
        run = [*command_of("robotrl.cli"), "run", str(POLICY), str(ROBOT), "--port", port]
        run += ["--yes", "--log", f"{folder}/run.mcap"]
        python = [sys.executable, "-c"]
        contenders = {
            "numpy and onnxruntime": [*python, IMPORTS.format("numpy, onnxruntime")],
            "its own imports": [*python, IMPORTS.format("robotrl.cli, robotrl.run_policy")],
            "its companion's": [*python, IMPORTS.format("deploy.companion")],
            "open_robot": [*python, DIRECT, str(ROBOT), port],
            "robotrl run, idle": run,
        }
        costs = {name: [] for name in contenders}
        for _ in range(turns):
            for name, command in contenders.items():
                costs[name].append(cost(command))
    print(f"{'':24}{'seconds':>9}{'CPU s':>9}{'MB':>7}{'companion MB':>14}")
    for name, found in costs.items():
        seconds, cpu_s, megabytes, companion = map(statistics.median, zip(*found, strict=True))
        print(f"{name:24}{seconds:9.2f}{cpu_s:9.2f}{megabytes:7.0f}{companion:14.0f}")
    print("allowed are 1 s and 120 MB")


if __name__ == "__main__":
    main()
