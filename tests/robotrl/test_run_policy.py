"""`robotrl run` as a user starts it: in real time, on a twin behind a port, each in a process."""

import contextlib
import fcntl
import os
import re
import resource
import select
import signal
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import yaml
from typer.testing import CliRunner, Result

pytest.importorskip("torch", reason="training a policy to run needs robotrl[train]")

import onnx

from deploy.configuration import load_yaml
from deploy.contract import HASH_KEY, METADATA_KEY, hash_metadata
from deploy.dynamixel import registers
from deploy.dynamixel.bus import DynamixelBus
from deploy.dynamixel.registers import Register
from deploy.errors import BusError, ConfigError
from deploy.reconnect import Reconnect
from deploy.robot_config import RobotConfig
from deploy.runtime import State
from deploy.serial_port import SerialPort
from robotrl.cli import app
from robotrl.report.log import Log, read_log
from robotrl.report.page import write_report
from robotrl.report.verdict import violations
from robotrl.run_policy import _after_loss, running_twin
from tests.robotrl.conftest import PythonWithout
from tests.until import PATIENCE_S, until

SHIPPED = Path(__file__).parents[2] / "configs/robots/desk_arm.yaml"
HOLDS = "the robot holds its pose with torque on, confirmed by reading every servo back"
STATES = ["idle", "moving to start", "ready", "running", "stopping", "idle"]
SAFETY = {"move_to_start_s": 0.2, "watchdog_ms": 1000, "stale_after_ms": 1000, "max_overruns": 1000}
"""Ramps as short as the speed limits allow; patience for a machine that does something else."""


@pytest.fixture(scope="module")
def robot_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The shipped robot, with `SAFETY`."""
    path = tmp_path_factory.mktemp("robot") / "desk_arm.yaml"
    document = yaml.safe_load(SHIPPED.read_text())
    document["safety"] |= SAFETY
    path.write_text(yaml.safe_dump(document))
    return path


@pytest.fixture(scope="module")
def twin_port(robot_path: Path) -> Iterator[str]:
    with running_twin(robot_path) as port:
        yield port


StartRun = Callable[..., subprocess.Popen[str]]


@pytest.fixture(scope="module")
def start_run(
    policy_path: Path, robot_path: Path, python_without: PythonWithout
) -> Iterator[StartRun]:
    """Start `robotrl run` on a port, in a Python that has only what a robot has."""
    environment = python_without("torch", "mujoco", "gymnasium", "onnx", "matplotlib", "envs")
    with contextlib.ExitStack() as processes:

        def start(
            port: str,
            log: Path,
            *,
            duration_s: float,
            yes: bool = True,
            prove: bool = False,
            terminal: int = subprocess.PIPE,
        ) -> subprocess.Popen[str]:
            command = [sys.executable, "-m", "robotrl.cli", "run", policy_path, robot_path]
            command += ["--port", port, "--log", log, "--duration", duration_s]
            command += ["--yes"] * yes
            command += ["--no-prove"] * (not prove)  # which waits for the watchdogs
            process = subprocess.Popen(
                list(map(str, command)),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=terminal,
                text=True,
                env=environment,
                preexec_fn=None if terminal < 0 else lambda: take_terminal(terminal),
            )
            processes.enter_context(process)
            processes.callback(process.kill)
            return process

        yield start


def take_terminal(terminal: int) -> None:
    """Make it this process's own, so that it is told (SIGHUP) when the window is closed."""
    os.setsid()
    fcntl.ioctl(terminal, termios.TIOCSCTTY, 0)


def wait_for_state(run: subprocess.Popen[str], state: str) -> None:
    assert run.stderr
    seen = []
    while (line := run.stderr.readline()) != f"{state}\n":
        seen.append(line)
        assert line, f"the run ended before it was {state}:\n{''.join(seen)}"


def wait_for_ticks(log: Path, found: Callable[[Log], object] = lambda log: True) -> None:
    """Until the policy has run, as far as the unfinished log tells, and that was found in it."""
    (left,) = log.parent.glob("run.*.incomplete.mcap")
    until(lambda: found(read_log(left)), ConfigError)


@contextlib.contextmanager
def bus_at(port: str) -> Iterator[DynamixelBus]:
    serial_port = SerialPort(port, 1_000_000)
    try:
        yield DynamixelBus(serial_port, 1_000_000)
    finally:
        serial_port.close()


def values(port: str, register: Register) -> list[int]:
    """A register of all six servos."""
    with bus_at(port) as bus:
        return [bus.read(id, register) for id in range(1, 7)]


def values_later(port: str, register: Register) -> list[int]:
    """The same after a silence in which a watchdog acts."""
    time.sleep(1.5 * SAFETY["watchdog_ms"] / 1e3)
    return values(port, register)


# A run as planned


@dataclass
class Finished:
    """A run that has ended."""

    exit_code: int
    stdout: str
    stderr: str
    log_path: Path
    torque: list[int]

    @property
    def log(self) -> Log:
        return read_log(self.log_path)


@pytest.fixture(scope="module")
def finished(
    start_run: StartRun, twin_port: str, tmp_path_factory: pytest.TempPathFactory
) -> Finished:
    """A run of two seconds."""
    log = tmp_path_factory.mktemp("logs") / "of_today" / "run.mcap"
    run = start_run(twin_port, log, duration_s=2.0, prove=True)
    stdout, stderr = run.communicate(timeout=PATIENCE_S)
    torque = values(twin_port, registers.TORQUE_ENABLE)
    return Finished(run.returncode, stdout, stderr, log, torque)


def test_run_needs_nothing_but_what_a_robot_has(finished: Finished):
    assert finished.exit_code == 0, finished.stderr


def test_run_tells_its_states_and_what_to_do_next(finished: Finished):
    *_, last = lines = finished.stderr.splitlines()
    assert [line for line in lines if line in STATES] == STATES
    assert last == f"Next: robotrl report {finished.log_path}"


PROOFS = [
    r"proved: the companion noticed \d+ ms of silence, and had seen to every joint \d+ ms later, "
    "read back",
    "proved: bus: 6 servos had stopped by themselves after 1040 ms of silence",
]


def test_run_tells_who_was_seen_to_notice_its_silence(finished: Finished):
    said = [line for line in finished.stderr.splitlines() if line.startswith("proved: ")]
    assert len(said) == len(PROOFS)
    for line, pattern in zip(said, PROOFS, strict=True):
        assert re.fullmatch(pattern, line)


def test_log_and_report_tell_it_too(finished: Finished, tmp_path: Path):
    assert finished.log.run["watchdogs"] == "proved at the start"
    write_report(finished.log_path, tmp_path / "run.html")
    page = (tmp_path / "run.html").read_text()
    assert "proved at the start" in page
    assert re.search(PROOFS[0], page)


def test_run_ends_with_a_summary(finished: Finished):
    assert finished.stdout.startswith("ran 2 s; replies took ")
    assert finished.stdout.endswith(f" damaged; log: {finished.log_path}\n")


def test_run_ends_with_torque_off(finished: Finished):
    assert finished.torque == [0] * 6


def test_log_holds_every_tick_of_the_run(finished: Finished):
    ticks = finished.log.ticks
    running = ticks["state"] == State.RUNNING
    assert running.sum() + ticks["overruns"][-1] >= 99  # 2 s at 50 Hz
    assert set(ticks["state"]) == {State.MOVING_TO_START, State.RUNNING, State.STOPPING}
    assert np.all(np.diff(ticks["time_s"]) > 0.019)


def test_log_names_the_policy_and_the_robot(finished: Finished, robot_path: Path, twin_port: str):
    assert finished.log.contract.provenance.task == "arm_reach"
    robot = load_yaml(robot_path, RobotConfig)
    used = robot.wired["bus"].model_copy(update={"port": twin_port})
    assert finished.log.robot == robot.model_copy(update={"bus": used})


def test_log_tells_what_was_really_used(finished: Finished, twin_port: str):
    run = finished.log.run
    assert (run["port"], run["device"]) == (twin_port, os.path.realpath(twin_port))
    assert run["twin"] is True
    assert run["command_line"][1] == "run"
    assert run["command_line"][4:6] == ["--port", twin_port]
    assert run["versions"]["onnxruntime"] == onnxruntime.__version__


def test_log_tells_what_answered_and_how_the_run_went(finished: Finished):
    events = finished.log.events
    # what was proved is told in the state it was proved in
    assert [state.replace("_", " ") for state, _ in groupby(e["state"] for e in events)] == STATES
    assert "gripper: XL330-M288 firmware" in events[0]["text"]
    assert "for the adapter (measured" in events[0]["text"]
    assert finished.log.damage == ""


def test_report_can_be_written_of_the_run(finished: Finished, tmp_path: Path):
    verdict = write_report(finished.log_path, tmp_path / "report.html")
    assert verdict.violations == []
    assert verdict.errors_m and len(verdict.errors_m) >= 3  # targets last at most 0.4 s


def test_run_starts_a_twin_of_its_own_when_asked(
    policy_path: Path, robot_path: Path, tmp_path: Path
):
    command = [sys.executable, "-m", "robotrl.cli", "run", str(policy_path), str(robot_path)]
    command += ["--twin", "--duration", "0.1", "--log", str(tmp_path / "run.mcap")]
    run = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_S, check=False)
    assert run.returncode == 0, run.stderr


@pytest.mark.parametrize(
    ("command", "listen", "alone", "expected"),
    [
        ("random", None, False, Reconnect.NEVER),  # with a --thing, too: nobody knows its port
        ("random", "5555", False, Reconnect.ASKED),
        ("udp", None, False, Reconnect.ASKED),
        ("gamepad:/dev/input/event5", None, False, Reconnect.ASKED),
        ("random", None, True, Reconnect.ALONE),
        ("keyboard", None, True, Reconnect.ALONE),
    ],
)
def test_run_waits_for_a_lost_device_only_if_somebody_can_resume_it(
    command: str, listen: str | None, alone: bool, expected: Reconnect
):
    assert _after_loss(command, listen, alone=alone) is expected


def test_port_is_found_from_the_folder_one_is_in(
    robot_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(app, ["release", str(robot_path), "--port", "links/arm"])
    assert result.exit_code == 1
    assert result.stderr.startswith(f"error: {tmp_path}/links/arm does not exist; ")


# Settings another program left in the servos


def run_after_lerobot(
    start_run: StartRun, robot_path: Path, log: Path, answer: str | None
) -> tuple[int, str, list[int]]:
    """Run on a factory-new arm with a homing offset; the exit code, what it said, the offsets."""
    with running_twin(robot_path) as port:
        with bus_at(port) as bus:
            bus.write_verified(3, registers.HOMING_OFFSET, 40)
        run = start_run(port, log, duration_s=0.1, yes=False)
        _, stderr = run.communicate(answer, timeout=PATIENCE_S)
        offsets = values(port, registers.HOMING_OFFSET)
        if answer == "y\n":
            (saved,) = log.parent.glob("desk_arm-servos-*.yaml")
            arguments = ["restore", str(saved), str(robot_path), "--port", port]
            result = CliRunner().invoke(app, arguments)
            assert result.exit_code == 0, result.output
            assert "elbow_flex (id 3): Homing Offset (20) is 40" in result.stdout
            assert values(port, registers.HOMING_OFFSET) == [0, 0, 40, 0, 0, 0]
    return run.returncode, stderr, offsets


@pytest.mark.parametrize("answer", ["n\n", "\n", ""])
def test_settings_in_the_servos_are_shown_and_kept_unless_the_user_agrees(
    start_run: StartRun, robot_path: Path, tmp_path: Path, answer: str
):
    code, said, offsets = run_after_lerobot(start_run, robot_path, tmp_path / "run.mcap", answer)
    assert code == 1
    assert "elbow_flex (id 3): Homing Offset (20) 40 -> 0" in said
    assert "nothing was changed" in said
    assert offsets == [0, 0, 40, 0, 0, 0]
    assert not list(tmp_path.glob("desk_arm-servos-*"))


def test_settings_in_the_servos_are_saved_and_can_be_written_back(
    start_run: StartRun, robot_path: Path, tmp_path: Path
):
    code, said, offsets = run_after_lerobot(start_run, robot_path, tmp_path / "run.mcap", "y\n")
    assert code == 0, said
    assert offsets == [0] * 6


# An end that was not planned


def test_interrupted_run_holds_and_says_so(start_run: StartRun, twin_port: str, tmp_path: Path):
    log = tmp_path / "run.mcap"
    run = start_run(twin_port, log, duration_s=60.0)
    wait_for_state(run, "running")
    wait_for_ticks(log)

    run.send_signal(signal.SIGINT)
    _, stderr = run.communicate(timeout=PATIENCE_S)

    assert run.returncode == 1
    assert stderr.splitlines()[:3] == ["fault", "error: stopped: SIGINT received", HOLDS]
    assert values(twin_port, registers.TORQUE_ENABLE) == [1] * 6
    assert read_log(log).ticks["state"][-1] == State.RUNNING


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_run_that_is_told_to_end_holds(
    start_run: StartRun, twin_port: str, tmp_path: Path, number: signal.Signals
):
    log = tmp_path / "run.mcap"
    run = start_run(twin_port, log, duration_s=60.0)
    wait_for_state(run, "running")
    wait_for_ticks(log)
    run.send_signal(number)
    _, stderr = run.communicate(timeout=PATIENCE_S)
    assert run.returncode == 1
    assert HOLDS in stderr.splitlines()
    assert events_of(log)[-2][1] == f"SafetyError: stopped: {number.name} received"


def test_run_that_can_tell_nobody_anything_holds(
    start_run: StartRun, twin_port: str, tmp_path: Path
):
    log = tmp_path / "run.mcap"
    run = start_run(twin_port, log, duration_s=1.0)
    wait_for_state(run, "running")
    assert run.stderr
    run.stderr.close()  # as `robotrl run … 2>&1 | head`
    assert run.wait(PATIENCE_S) != 0
    assert values(twin_port, registers.TORQUE_ENABLE) == [1] * 6
    assert events_of(log)[-1][1].splitlines()[0] == HOLDS


def test_run_whose_terminal_is_closed_holds(start_run: StartRun, twin_port: str, tmp_path: Path):
    window, terminal = os.openpty()
    log = tmp_path / "run.mcap"
    run = start_run(twin_port, log, duration_s=60.0, terminal=terminal)
    os.close(terminal)
    shown = b""
    while b"running" not in shown:
        shown += os.read(window, 4096)
    wait_for_ticks(log)
    os.close(window)
    assert run.wait(PATIENCE_S) != 0
    assert values(twin_port, registers.TORQUE_ENABLE) == [1] * 6
    assert events_of(log)[-2] == ("fault", "SafetyError: stopped: SIGHUP received")


def interrupt_often(run: subprocess.Popen[str], every_s: float) -> None:
    """Ctrl-C until the process has ended."""
    give_up_s = time.monotonic() + PATIENCE_S
    while run.poll() is None:
        assert time.monotonic() < give_up_s
        run.send_signal(signal.SIGINT)
        time.sleep(every_s)


@pytest.mark.parametrize("every_s", [0.001, 0.02, 0.15])
def test_ctrl_c_again_and_again_loses_neither_safe_state_nor_message_nor_log(
    start_run: StartRun, twin_port: str, tmp_path: Path, every_s: float
):
    log = tmp_path / "run.mcap"
    run = start_run(twin_port, log, duration_s=60.0)
    wait_for_state(run, "moving to start" if every_s == 0.02 else "running")
    time.sleep(0.3)  # wherever it is by then

    interrupt_often(run, every_s)

    assert run.stderr
    shown = run.stderr.read().splitlines()
    assert run.returncode == 1
    assert {"fault", "error: stopped: SIGINT received", HOLDS} <= set(shown)
    assert values(twin_port, registers.TORQUE_ENABLE) == [1] * 6
    *_, fault, (kind, safe) = events_of(log)
    assert fault == ("fault", "SafetyError: stopped: SIGINT received")
    what, *_ = safe.splitlines()  # on a slow machine it goes on with how late replies came
    assert (kind, what) == ("fault", HOLDS)


def test_signals_while_the_log_is_closed_do_not_spoil_a_good_run(
    start_run: StartRun, twin_port: str, tmp_path: Path
):
    log = tmp_path / "run.mcap"
    run = start_run(twin_port, log, duration_s=0.2)
    wait_for_state(run, "moving to start")
    (companion,) = children(run)
    os.kill(companion, signal.SIGSTOP)
    wait_for_state(run, "idle")  # the robot is limp, and the log waits for its companion
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
        run.send_signal(number)
        time.sleep(0.05)
    os.kill(companion, signal.SIGCONT)
    stdout, _ = run.communicate(timeout=PATIENCE_S)
    assert run.returncode == 0
    assert stdout.startswith("ran 0.2 s; ")
    assert read_log(log).damage == ""


def children(run: subprocess.Popen[str]) -> list[int]:
    """The process that writes the log."""
    return list(map(int, Path(f"/proc/{run.pid}/task/{run.pid}/children").read_text().split()))


def events_of(log: Path) -> list[tuple[str, str]]:
    return [(event["state"], event["text"]) for event in read_log(log).events]


def test_full_disk_ends_in_an_error_after_the_robot_was_parked(
    start_run: StartRun, twin_port: str, tmp_path: Path
):
    log = tmp_path / "run.mcap"
    run = start_run(twin_port, log, duration_s=3.0)
    wait_for_state(run, "running")
    wait_for_ticks(log)
    (companion,) = children(run)
    (left,) = tmp_path.glob("run.*.incomplete.mcap")
    limit = left.stat().st_size + 10  # as when others have filled the disk
    resource.prlimit(companion, resource.RLIMIT_FSIZE, (limit, limit))
    stdout, stderr = run.communicate(timeout=PATIENCE_S)

    trouble = (
        f"{log}: the log is not complete: [Errno 27] File too large; what was saved is in {left}, "
        "which `robotrl report` can read"
    )
    assert run.returncode == 1
    assert stdout == ""
    assert stderr.splitlines()[-1] == f"error: {trouble}"
    assert stderr.splitlines()[-2] == f"warning: {trouble}"
    assert "idle" in stderr.splitlines()
    assert values(twin_port, registers.TORQUE_ENABLE) == [0] * 6
    assert not log.exists()
    verdict = write_report(left, tmp_path / "run.html")
    assert "the log is not complete" in verdict.summary()


def test_run_goes_on_without_its_companion_and_says_so(
    start_run: StartRun, twin_port: str, tmp_path: Path
):
    log = tmp_path / "run.mcap"
    run = start_run(twin_port, log, duration_s=3.0)
    wait_for_state(run, "running")
    wait_for_ticks(log, lambda log: log.running.sum() > 5)
    (companion,) = children(run)
    os.kill(companion, signal.SIGKILL)
    _, stderr = run.communicate(timeout=PATIENCE_S)
    assert run.returncode == 1
    assert stderr.splitlines()[0] == "stopping"
    assert stderr.splitlines()[1].startswith(
        f"warning: {log}: the log is not complete: its companion process was killed (signal 9)"
    )
    assert stderr.splitlines()[-1].startswith(f"error: {log}: the log is not complete")
    (left,) = tmp_path.glob("run.*.incomplete.mcap")
    assert read_log(left).running.sum() > 5


@pytest.mark.parametrize("companion_too", [True, False])
def test_killed_run_leaves_an_arm_that_stops(
    start_run: StartRun, robot_path: Path, tmp_path: Path, companion_too: bool
):
    truth_path, log = tmp_path / "truth.npz", tmp_path / "run.mcap"
    with running_twin(robot_path, truth=truth_path) as port:
        run = start_run(port, log, duration_s=60.0)
        wait_for_state(run, "running")
        wait_for_ticks(log, lambda log: np.abs(log.ticks["joint_velocity"]).max() > 0.7)

        if companion_too:
            (companion,) = children(run)
            os.kill(companion, signal.SIGKILL)
        run.kill()
        killed_s = time.monotonic()
        # the servos by themselves, unless the companion was there in time to hold them
        stopped = {registers.BUS_WATCHDOG_TRIPPED, *([] if companion_too else [0])}
        until(lambda: set(values_later(port, registers.BUS_WATCHDOG)) <= stopped, BusError)
        stopped_s = time.monotonic()
        assert values_later(port, registers.TORQUE_ENABLE) == [1] * 6

    with np.load(truth_path) as truth:
        time_s, position = truth["time_s"], truth["joint_position"]
    speed = np.abs(np.diff(position, axis=0) / np.diff(time_s)[:, None]).max(axis=1)
    assert speed[time_s[1:] < killed_s].max() > 0.7
    assert speed[time_s[1:] > stopped_s].max() < 0.05
    joints = load_yaml(robot_path, RobotConfig).joints.values()
    low, high = np.array([joint.position_limits_rad for joint in joints]).T
    assert np.all((position > low - 0.02) & (position < high + 0.02))


def test_killed_run_leaves_a_complete_log(start_run: StartRun, twin_port: str, tmp_path: Path):
    log = tmp_path / "run.mcap"
    run = start_run(twin_port, log, duration_s=60.0)
    wait_for_state(run, "running")
    wait_for_ticks(log)

    run.kill()
    killed_s = time.monotonic()
    until(log.exists)

    found = read_log(log)
    assert found.ticks["time_s"][-1] == pytest.approx(killed_s, abs=SAFETY["watchdog_ms"] / 1e3)
    assert found.damage == ""
    assert found.events[-1]["state"] == "vanished"
    assert violations(found)[-1].startswith(
        "the run ended before the robot was parked; its last state is vanished\nthe controller "
        "ended without closing this log"
    )


def test_next_run_takes_over_from_a_killed_one(start_run: StartRun, twin_port: str, tmp_path: Path):
    killed = start_run(twin_port, tmp_path / "killed.mcap", duration_s=60.0)
    wait_for_state(killed, "running")
    killed.kill()

    run = start_run(twin_port, tmp_path / "run.mcap", duration_s=0.2)
    _, stderr = run.communicate(timeout=PATIENCE_S)
    assert run.returncode == 0, stderr


def test_release_lets_go_of_every_servo(twin_port: str, robot_path: Path):
    with bus_at(twin_port) as bus:
        for id in range(1, 7):
            bus.write_verified(id, registers.TORQUE_ENABLE, 1)
    result = CliRunner().invoke(app, ["release", str(robot_path), "--port", twin_port])
    assert (result.exit_code, result.stdout) == (0, "torque is off on every servo, read back\n")
    assert values(twin_port, registers.TORQUE_ENABLE) == [0] * 6


def test_scan_of_a_robot_that_is_another_than_its_yaml_fails_and_ends_with_what_to_do(
    twin_port: str, robot_path: Path, tmp_path: Path
):
    document = yaml.safe_load(robot_path.read_text())
    document["joints"]["wrist_roll"]["model"] = "XL330-M077"
    other = tmp_path / "other.yaml"
    other.write_text(yaml.safe_dump(document))

    sound = CliRunner().invoke(app, ["scan", str(robot_path), "--port", twin_port])
    wrong = CliRunner().invoke(app, ["scan", str(other), "--port", twin_port])

    assert (sound.exit_code, sound.stdout.count("\n"), sound.stderr) == (0, 6, "")
    assert (wrong.exit_code, wrong.stdout.count("\n")) == (1, 6)
    assert wrong.stderr == (
        "error: wrist_roll (id 5) is XL330-M288, expected XL330-M077. Check power, cables and baud "
        "rate, and correct `id` and `model` in the robot's YAML\n"
    )


# Refusals, before a byte is sent


class Cable:
    """A serial port, and the end of it on which a robot would hear."""

    def __init__(self):
        self.far_end, self._near_end = os.openpty()
        self.path = os.ttyname(self._near_end)

    def close(self) -> None:
        os.close(self.far_end)
        os.close(self._near_end)

    @property
    def silent(self) -> bool:
        """Nothing has been sent."""
        return not select.select((self.far_end,), (), (), 0.0)[0]


@pytest.fixture
def cable() -> Iterator[Cable]:
    cable = Cable()
    yield cable
    cable.close()


@dataclass
class Refusal:
    """Runs that must not begin."""

    cable: Cable
    policy: Path
    robot: Path
    folder: Path

    def run(self, *options: str) -> Result:
        """Try it."""
        arguments = ["run", self.policy, self.robot, "--log", self.folder / "log" / "run.mcap"]
        if "--port" not in options:
            arguments += ["--port", self.cable.path]
        return CliRunner().invoke(app, [*map(str, arguments), *options])

    def __call__(self, *options: str) -> str:
        """What `robotrl run` says when it refuses."""
        result = self.run(*options)
        assert result.exit_code == 1, result.output
        assert result.stdout == ""
        assert self.cable.silent
        assert not (self.folder / "log").exists()
        return result.stderr

    def change_robot(self, change: Callable[[dict], None]) -> None:
        """Edit the robot's YAML."""
        document = yaml.safe_load(self.robot.read_text())
        change(document)
        self.robot = self.folder / "robot.yaml"
        self.robot.write_text(yaml.safe_dump(document))

    def change_contract(self, found: str, replacement: str, *, sign: bool) -> None:
        """Edit the contract inside the policy; `sign` it as export would."""
        model = onnx.load(self.policy)
        metadata = {entry.key: entry.value for entry in model.metadata_props}
        assert found in metadata[METADATA_KEY]
        metadata[METADATA_KEY] = metadata[METADATA_KEY].replace(found, replacement)
        if sign:
            metadata[HASH_KEY] = hash_metadata(metadata)
        onnx.helper.set_model_props(model, metadata)
        self.policy = self.folder / "policy.onnx"
        onnx.save(model, self.policy)


@pytest.fixture
def refusal(cable: Cable, policy_path: Path, tmp_path: Path) -> Refusal:
    return Refusal(cable, policy_path, SHIPPED, tmp_path)


def test_missing_port_is_explained(refusal: Refusal):
    message = refusal("--port", "/dev/ttyUSB99")
    assert message.startswith("error: /dev/ttyUSB99 does not exist; serial ports found: ")
    assert message.endswith("or start a simulated robot with `robotrl twin`\n")


def test_port_of_another_process_is_refused_with_its_name(refusal: Refusal):
    hold = "import sys, serial; s = serial.Serial(sys.argv[1], exclusive=True); print(); input()"
    with subprocess.Popen(
        [sys.executable, "-c", hold, refusal.cable.path],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as owner:
        assert owner.stdout
        owner.stdout.readline()
        message = refusal()
        owner.communicate(b"\n")
    assert f"(pid {owner.pid})" in message
    assert message.startswith(f"error: {refusal.cable.path} is in use by ")
    assert message.endswith(" expected to be its only user; end that program first\n")


def test_policy_of_another_robot_is_refused(refusal: Refusal):
    refusal.change_contract('"robot":"desk_arm"', '"robot":"tall_arm"', sign=True)
    assert refusal() == (
        "error: the policy does not fit this robot:\n"
        "  robot: the policy is for 'tall_arm', this is 'desk_arm'\n"
        "Use a policy exported for this robot, or correct the robot's YAML.\n"
    )


def test_every_difference_between_policy_and_robot_is_named(refusal: Refusal):
    def change(document: dict) -> None:
        joints = document["joints"]
        joints["claw"] = joints.pop("gripper")
        joints["elbow_flex"]["model"] = "XL430-W250"
        joints["wrist_roll"]["position_limits_rad"] = [-1.5, 1.5]

    refusal.change_robot(change)
    lines = refusal().splitlines()
    assert lines[0] == "error: the policy does not fit this robot:"
    assert lines[1:-1] == [
        "  joint 'gripper': in the policy but not wired on this robot",
        "  joint 'claw': wired on this robot but not in the policy",
        "  joint 'elbow_flex': trained with a servo of 0.52 N·m, XL430-W250 has 1.5 N·m at 12 V",
        "  joint 'wrist_roll': the policy uses [-2.87, 2.87] rad, the hardware allows [-1.5, 1.5]",
    ]


def test_edited_contract_is_refused(refusal: Refusal):
    refusal.change_contract('"control_dt_s":0.02', '"control_dt_s":0.01', sign=False)
    assert refusal() == (
        f"error: {refusal.policy}: the contract was edited after export; export it again\n"
    )


def test_truncated_policy_is_refused(refusal: Refusal, policy_path: Path):
    refusal.policy = refusal.folder / "policy.onnx"
    data = policy_path.read_bytes()
    refusal.policy.write_bytes(data[: len(data) // 2])
    assert refusal() == (
        f"error: {refusal.policy}: is damaged or truncated ({len(data) // 2} bytes); copy or "
        "export it again\n"
    )


def test_missing_policy_is_refused(refusal: Refusal):
    refusal.policy = refusal.folder / "policy.onnx"
    assert refusal() == (f"error: {refusal.policy}: cannot be read: No such file or directory\n")


def test_unknown_key_of_the_robot_is_refused_with_the_nearest_one(refusal: Refusal):
    refusal.change_robot(lambda document: document["safety"].update(watchdog=200))
    message = refusal()
    assert message.startswith(
        f"error: {refusal.robot}: safety: unknown key 'watchdog' (did you mean 'watchdog_ms'?); "
        "valid keys are "
    )


def test_command_outside_the_promised_range_is_refused(refusal: Refusal):
    assert refusal("--command", "0.2,0.0,9.0") == (
        "error: command 'target_position' [0.2, 0.0, 9.0] is outside what the policy promises: "
        "[0.12, -0.14, 0.05] to [0.22, 0.14, 0.2] (x [m], y [m], z [m])\n"
    )


@pytest.mark.parametrize("duration", ["-1", "0", "nan"])
def test_duration_must_be_longer_than_nothing(refusal: Refusal, duration: str):
    result = refusal.run("--duration", duration)
    assert result.exit_code != 0
    assert "duration" in result.stderr
    assert refusal.cable.silent


def test_log_that_cannot_be_written_is_refused(refusal: Refusal):
    (refusal.folder / "log").write_text("a file where the log's folder should be")
    result = refusal.run()
    assert result.exit_code == 1
    assert result.stderr.startswith(
        f"error: {refusal.folder / 'log' / 'run.mcap'}: cannot be recorded: "
    )
    assert refusal.cable.silent


def test_command_that_is_none_is_refused_with_what_there_is(refusal: Refusal):
    assert refusal("--command", "gampad") == (
        "error: --command takes numbers like 0.2,0.0,0.1 (x [m], y [m], z [m]), a .yaml or .csv "
        "file, or one of random, keyboard, gamepad, udp, found 'gampad' (did you mean 'gamepad'?)\n"
    )


def test_keyboard_is_refused_where_there_is_no_terminal(refusal: Refusal):
    assert refusal("--command", "keyboard").startswith(
        "error: --command keyboard reads keys, but standard input is no terminal"
    )


def test_listening_to_other_machines_without_a_token_is_refused(
    refusal: Refusal, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.delenv("ROBOTRL_TOKEN", raising=False)
    assert refusal("--listen", "0.0.0.0:5555").startswith(
        "error: listening on 0.0.0.0 lets other machines move the robot: set a secret, `export "
        "ROBOTRL_TOKEN=...`"
    )
