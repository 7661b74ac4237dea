"""The black box: every tick and every change of state, off the control path.

    with Recorder(Path("run.mcap"), contract, {"robot": "..."}) as recorder:
        recorder.record["time_s"] = ...
        recorder.commit()                            # every tick: one copy into shared memory
        recorder.note(time_s, "fault", "why")        # at a change of state

A companion process (`deploy.companion`) turns the ring in shared memory into an MCAP file. Nothing
it does can delay a tick: a full ring is overwritten, and the companion counts what it lost. It
outlives a killed controller, makes the robot safe, finishes the file, and notes there what it did.
A controller that promises to be back (`promise`), and is not, is ended.

Until the file is complete it is called NAME.XXXXXXXX.incomplete.mcap, in the folder it will be in.
It can be read all the time. A kill of the companion costs at most `companion.FLUSH_S`, a power cut
at most `companion.SYNC_S`; a change of state is on the disk at once.

Only a regular file is replaced. A device, a folder or a symbolic link in its place is refused: who
can plant a link must not choose which file is overwritten, and replacing the link itself would lose
it without a word.
"""

import contextlib
import json
import math
import os
import secrets
import select
import stat
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from deploy.contract import Contract
from deploy.errors import DeployError, SafetyError
from deploy.process import comes_up, start_companion
from deploy.ring import Ring, allocate, map_memory
from deploy.supervisor import NOT_SAFE
from deploy.vigil import VIGIL_BYTES, Vigil

TOPIC = "/tick"
EVENT_TOPIC = "/event"
CAPACITY = 4096
"""Ticks in the ring: more than a minute at 50 Hz."""
EVENT_CAPACITY = 64
"""Changes of state in their ring; the companion looks 20 times a second."""
EVENT_DTYPE = np.dtype([("time_s", "<f8"), ("state", "S24"), ("text", "S4064")])
"""When on the monotonic clock, what the robot does from now on, and why; longer texts are cut."""
COUNTERS = ("requests", "crc_errors", "timeouts", "retried", "lost", "late")
"""What of `deploy.statistics.Statistics` is recorded, over all devices."""
VANISHED = "vanished"
"""State the companion notes last when the controller ended without closing the log."""

_FINISH_TIMEOUT_S = 10.0
_DRILL_TIMEOUT_S = 5.0


class Drill(NamedTuple):
    """How an exercise went [s]."""

    noticed_s: float
    """From the last sign of life until the companion noticed."""
    done_s: float
    """From there until the robot was safe, read back."""

    def __str__(self) -> str:
        return (
            f"the companion noticed {self.noticed_s * 1e3:.0f} ms of silence, and had seen to "
            f"every joint {self.done_s * 1e3:.0f} ms later, read back"
        )


def record_dtype(contract: Contract) -> np.dtype:
    """Layout of one record: times, signals, targets, what the governor did, bus counters.

    Signals are the joints' angles and speeds, and whatever the policy was shown, by kind.
    """
    joints = len(contract.joints)
    seen = {"joint_position": joints, "joint_velocity": joints}
    seen |= {spec.kind: len(spec.elements) for spec in contract.inputs}
    return np.dtype(
        [
            ("time_s", "<f8"),  # deadline of the tick, monotonic clock
            ("state", "u1"),
            ("lateness_s", "<f4"),
            ("read_s", "<f4"),
            ("controller_s", "<f4"),
            ("write_s", "<f4"),
            *((kind, "<f4", size) for kind, size in seen.items()),
            ("joint_age_s", "<f4", joints),
            ("policy_target", "<f4", joints),
            ("sent_target", "<f4", joints),
            ("limited_by", "u1", joints),
            ("overruns", "<u4"),
            *((counter, "<u4") for counter in COUNTERS),
        ]
    )


class Recorder:
    """Writes records; starts and ends the companion process.

    Args:
        path: the MCAP file.
        contract: the policy's contract, stored in the file.
        metadata: more text to store, by name; `robot`: the `RobotConfig` of the one looked after.
        ports: file descriptors of its open serial ports, by the name of the device.

    Raises:
        DeployError: it cannot be recorded there, or there is not enough memory.
    """

    def __init__(
        self,
        path: Path,
        contract: Contract,
        metadata: dict[str, str],
        ports: Mapping[str, int] | None = None,
    ):
        self._path = path
        self._trouble = ""
        self.record: NDArray[Any] = np.zeros((), record_dtype(contract))
        """The record to fill in; `commit` copies it."""
        self._event = np.zeros((), EVENT_DTYPE)
        self._record_bytes, self._event_bytes = _bytes_of(self.record), _bytes_of(self._event)
        streams = [
            (TOPIC, self.record.dtype.descr, CAPACITY),
            (EVENT_TOPIC, EVENT_DTYPE.descr, EVENT_CAPACITY),
        ]
        rings = [(len(self._record_bytes), CAPACITY), (len(self._event_bytes), EVENT_CAPACITY)]
        with contextlib.ExitStack() as handed_over, contextlib.ExitStack() as failed:
            try:
                memory = allocate(shared_size(rings))
                handed_over.callback(os.close, memory)
                self._vigil, (self._ticks, self._events) = share(memory, rings)
                refuse_target(path)
                path.parent.mkdir(parents=True, exist_ok=True)
                self._incomplete, file = _create_beside(path)
            except OSError as error:
                raise DeployError(f"{path}: cannot be recorded: {error}") from error
            handed_over.callback(os.close, file)
            failed.callback(self._incomplete.unlink)
            job = {
                "memory": memory,
                "file": file,
                "incomplete": str(self._incomplete.absolute()),
                "path": str(path.absolute()),
                "streams": streams,
                "controller": os.getpid(),
                "ports": ports or {},
                "metadata": {"contract": contract.model_dump_json(), **metadata},
            }
            self._companion = start_companion(
                "deploy.companion",
                job,
                (memory, file, *job["ports"].values()),
                stderr=subprocess.PIPE,
            )
            self._wait_until_ready()
            failed.pop_all()

    def __enter__(self) -> Self:
        """The recorder itself."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Finish the log. What went wrong with it is raised, or noted on the error there is."""
        try:
            self.close()
        except DeployError as trouble:
            if error is None:
                raise
            error.add_note(str(trouble))

    def commit(self) -> None:
        """Publish `record`: one copy into shared memory."""
        self._ticks.write(self._record_bytes)

    def note(self, time_s: float, state: str, text: str = "") -> None:
        """Put a change of state into the log, or more about the present state; never waits.

        Not for signal handlers: one that interrupts another note would spoil both.

        Args:
            time_s: when, on the monotonic clock.
            state: what the robot does from now on.
            text: why, and whatever else should be known.
        """
        event = self._event
        event["time_s"], event["state"] = time_s, state.encode()
        event["text"] = text.encode(errors="backslashreplace")  # a file's name may be no Unicode
        self._events.write(self._event_bytes)

    def trouble(self) -> str:
        """Why the log will not be complete, as far as is known; empty while all is well.

        A system call: for changes of state, not for every tick.
        """
        if not self._trouble and (self._vigil.log_failed or self._companion.poll()):
            reason = self._last_words() or (
                f"its companion process was killed (signal {-self._companion.returncode})"
            )
            self._trouble = f"{self._path}: the log is not complete: {reason}"
            if self._incomplete.exists():
                self._trouble += (
                    f"; what was saved is in {self._incomplete}, which `robotrl report` can read"
                )
        return self._trouble

    def watches(self) -> bool:
        """Whether the companion is still there; a system call, as of `trouble`."""
        return self._companion.poll() is None

    def promise(self, back_by_s: float) -> None:
        """Have the companion act if nothing more is promised by then, on the monotonic clock.

        Args:
            back_by_s: the time; inf to have it wait for our end only.
        """
        self._vigil.promise(back_by_s)

    def drill(self, silent_s: float, *, let_go: bool) -> Drill:
        """Fall silent, and see the companion bring a robot at rest into its safe state.

        Args:
            silent_s: what is promised.
            let_go: let go of what holds itself up; else hold it.

        Raises:
            SafetyError: it does nothing, or cannot do it.
        """
        began_s = time.monotonic()
        self._vigil.drill = "let_go" if let_go else "hold"
        self._vigil.promise(began_s + silent_s)
        stdout = self._companion.stdout
        assert stdout
        acted = select.select((stdout,), (), (), silent_s + _DRILL_TIMEOUT_S)[0]
        self._vigil.promise(math.inf)
        report = json.loads(stdout.readline() or "{}") if acted else {}
        if not report:
            raise SafetyError(
                f"the companion process did nothing in {time.monotonic() - began_s:.1f} s of "
                "silence, expected it to make the robot safe; this machine is too busy"
            )
        if report["done"].startswith(NOT_SAFE):
            raise SafetyError(f"{report['done']}; this was the exercise at the start")
        return Drill(report["noticed_s"] - began_s, report["done_s"] - report["noticed_s"])

    def close(self) -> None:
        """Let the companion finish the file.

        Raises:
            DeployError: it could not, or some records are missing; says where the rest is.
        """
        self._vigil.close()
        assert self._companion.stdin
        self._companion.stdin.close()  # wakes it
        try:
            self._companion.wait(_FINISH_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            raise DeployError(
                f"{self._path}: the log is not finished after {_FINISH_TIMEOUT_S:.0f} s, the disk "
                f"is too slow; process {self._companion.pid} goes on. Wait until "
                f"{self._incomplete} has been renamed"
            ) from None
        if trouble := self.trouble():
            raise DeployError(trouble)

    def _wait_until_ready(self) -> None:
        if not comes_up(self._companion):
            self._companion.kill()
            reason = self._last_words() or "its companion process does not start"
            raise DeployError(f"{self._path}: cannot be recorded: {reason}")

    def _last_words(self) -> str:
        """What the companion, which has ended or lost its log, said last."""
        assert self._companion.stderr
        if self._vigil.log_failed:
            return self._companion.stderr.readline().strip()
        self._companion.wait()
        return "".join(self._companion.stderr.read().strip().splitlines()[-1:])


def refuse_target(path: Path) -> None:
    """Refuse to put a log where there is something other than a regular file.

    Raises:
        DeployError: says what is there.
    """
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        return
    kinds = {stat.S_ISDIR: "a folder", stat.S_ISLNK: "a symbolic link"}
    if not stat.S_ISREG(mode):
        found = next((kind for is_it, kind in kinds.items() if is_it(mode)), "a device or a pipe")
        raise DeployError(
            f"{path}: cannot be recorded: it is {found}, expected a regular file or nothing; give "
            "--log another name"
        )


def shared_size(rings: list[tuple[int, int]]) -> int:
    """Bytes of memory that `rings` (bytes of a record, capacity) take together."""
    return VIGIL_BYTES + sum(Ring.size(*ring) for ring in rings)


def share(handle: int, rings: list[tuple[int, int]]) -> tuple[Vigil, list[Ring]]:
    """Map `rings` (bytes of a record, capacity) in memory that `allocate` made.

    Returns:
        What the two processes know of each other, and the rings.
    """
    memory = map_memory(handle)
    start, found = VIGIL_BYTES, []
    for ring in rings:
        found.append(Ring(memory[start : start + Ring.size(*ring)], *ring))
        start += Ring.size(*ring)
    return Vigil(memory[:VIGIL_BYTES]), found


def _create_beside(path: Path) -> tuple[Path, int]:
    """A new file in the same folder: its name cannot be guessed, and nothing that exists is opened.

    Returns:
        Its path and descriptor.
    """
    name = f"{path.stem}.{secrets.token_hex(4)}.incomplete{path.suffix}"
    flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
    return path.with_name(name), os.open(path.with_name(name), flags, 0o666)


def _bytes_of(record: NDArray[Any]) -> memoryview:
    return record.reshape(1).view(np.uint8).data
