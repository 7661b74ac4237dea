"""The black box: every tick and every change of state, off the control path.

    with Recorder(Path("run.mcap"), contract, {"robot": "..."}) as recorder:
        recorder.record["time_s"] = ...
        recorder.commit()                            # every tick: one copy into shared memory
        recorder.note(time_s, "fault", "why")        # at a change of state

A companion process (`deploy.companion`) turns the ring in shared memory into an MCAP file. Nothing
it does can delay a tick: a full ring is overwritten, and the companion counts what it lost. It
outlives a killed controller, finishes the file, and notes there that the controller vanished.

Until the file is complete it is called NAME.XXXXXXXX.incomplete.mcap, in the folder it will be in.
It can be read all the time. A kill of the companion costs at most `companion.FLUSH_S`, a power cut
at most `companion.SYNC_S`; a change of state is on the disk at once.

Only a regular file is replaced. A device, a folder or a symbolic link in its place is refused: who
can plant a link must not choose which file is overwritten, and replacing the link itself would lose
it without a word.
"""

import contextlib
import json
import os
import secrets
import select
import stat
import subprocess
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from deploy.contract import Contract
from deploy.errors import DeployError
from deploy.process import command_of
from deploy.ring import Ring, allocate, map_memory

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

_START_TIMEOUT_S = 30.0
_FINISH_TIMEOUT_S = 10.0


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
        metadata: more text to store, by name.

    Raises:
        DeployError: it cannot be recorded there, or there is not enough memory.
    """

    def __init__(self, path: Path, contract: Contract, metadata: dict[str, str]):
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
                self._closed, (self._ticks, self._events) = share(memory, rings)
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
                "metadata": {"contract": contract.model_dump_json(), **metadata},
            }
            self._companion = _start_companion(job, (memory, file))
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
        if not self._trouble and self._companion.poll():
            reason = self._last_words() or (
                f"its companion process was killed (signal {-self._companion.returncode})"
            )
            self._trouble = f"{self._path}: the log is not complete: {reason}"
            if self._incomplete.exists():
                self._trouble += (
                    f"; what was saved is in {self._incomplete}, which `robotrl report` can read"
                )
        return self._trouble

    def close(self) -> None:
        """Let the companion finish the file.

        Raises:
            DeployError: it could not, or some records are missing; says where the rest is.
        """
        self._closed[0] = 1
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
        stdout = self._companion.stdout
        assert stdout
        begun = select.select((stdout,), (), (), _START_TIMEOUT_S)[0]
        if not begun or stdout.readline() != "ready\n":
            self._companion.kill()
            reason = self._last_words() or "its companion process does not start"
            raise DeployError(f"{self._path}: cannot be recorded: {reason}")

    def _last_words(self) -> str:
        """What the companion, which has ended, said last."""
        self._companion.wait()
        assert self._companion.stderr
        return "".join(self._companion.stderr.read().strip().splitlines()[-1:])


def _start_companion(job: dict[str, Any], handles: tuple[int, ...]) -> "subprocess.Popen[str]":
    # A session of its own: Ctrl-C in the terminal is for the controller alone.
    companion = subprocess.Popen(
        command_of("deploy.companion"),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        pass_fds=handles,
        start_new_session=True,
        text=True,
    )
    assert companion.stdin
    with contextlib.suppress(BrokenPipeError):
        companion.stdin.write(json.dumps(job) + "\n")
        companion.stdin.flush()  # and stays open: its end tells the companion of ours
    return companion


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
    return 8 + sum(Ring.size(*ring) for ring in rings)


def share(handle: int, rings: list[tuple[int, int]]) -> tuple[memoryview, list[Ring]]:
    """Map `rings` (bytes of a record, capacity) in memory that `allocate` made.

    Returns:
        A byte that is 1 once the log is closed, and the rings.
    """
    memory = map_memory(handle)
    start, found = 8, []
    for ring in rings:
        found.append(Ring(memory[start : start + Ring.size(*ring)], *ring))
        start += Ring.size(*ring)
    return memory[:1], found


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
