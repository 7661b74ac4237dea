"""The black box: every tick, off the control path.

The control process copies one record into a ring in shared memory and goes on. A companion process
(`deploy.companion`) turns the ring into an MCAP file; it outlives a killed controller and finishes
the file. Nothing the companion does can delay a tick: a full ring is overwritten, and the
companion notes how many records it lost.
"""

import json
import logging
import mmap
import os
import subprocess
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deploy.contract import Contract
from deploy.errors import DeployError
from deploy.process import command_of

_log = logging.getLogger(__name__)

CAPACITY = 4096
"""Records in the ring: more than a minute at 50 Hz."""
_COUNTER_BYTES = 16
_TIMEOUT_S = 10.0


def record_dtype(contract: Contract) -> np.dtype:
    """Layout of one record: times, signals, targets, what the governor did, bus counters."""
    joints = len(contract.joints)
    return np.dtype(
        [
            ("time_s", "<f8"),  # deadline of the tick, monotonic clock
            ("state", "u1"),
            ("lateness_s", "<f4"),
            ("read_s", "<f4"),
            ("controller_s", "<f4"),
            ("write_s", "<f4"),
            ("joint_position", "<f4", joints),
            ("joint_velocity", "<f4", joints),
            ("joint_age_s", "<f4", joints),
            ("command", "<f4", len(contract.command.low)),
            ("policy_target", "<f4", joints),
            ("sent_target", "<f4", joints),
            ("limited_by", "u1", joints),
            ("overruns", "<u4"),
            ("requests", "<u4"),
            ("crc_errors", "<u4"),
            ("timeouts", "<u4"),
            ("retried", "<u4"),
            ("lost", "<u4"),
        ]
    )


@dataclass(frozen=True)
class Ring:
    """A ring of records in memory that two processes share."""

    memory: mmap.mmap
    counter: NDArray[np.int64]
    """[records written, 1 when the writer is done]."""
    records: NDArray[Any]

    @classmethod
    def map(cls, path: str, dtype: np.dtype) -> "Ring":
        """Map the ring in the file at `path`, which has the right size."""
        with open(path, "r+b") as file:
            memory = mmap.mmap(file.fileno(), _size(dtype))
        counter = np.frombuffer(memory, np.int64, 2)
        records = np.frombuffer(memory, dtype, CAPACITY, _COUNTER_BYTES)
        return cls(memory, counter, records)


class Recorder:
    """Writes records; starts and ends the companion process.

    Args:
        path: the MCAP file.
        contract: the policy's contract, stored in the file.
        metadata: more text to store, by name.

    Raises:
        DeployError: the companion did not start, e.g. the file cannot be written.
    """

    def __init__(self, path: Path, contract: Contract, metadata: dict[str, str]):
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise DeployError(f"{path}: cannot be recorded: {error}") from error
        dtype = record_dtype(contract)
        self.record: NDArray[Any] = np.zeros((), dtype)
        """The record to fill in; `commit` copies it."""
        folder = "/dev/shm" if os.path.isdir("/dev/shm") else None
        handle, self._ring_path = tempfile.mkstemp(prefix="robotrl-", suffix=".ring", dir=folder)
        os.truncate(handle, _size(dtype))
        os.close(handle)
        self._path = path
        self._ring = Ring.map(self._ring_path, dtype)
        job = {
            "ring": self._ring_path,
            "dtype": dtype.descr,
            "path": str(path),
            "writer": os.getpid(),
            "metadata": {"contract": contract.model_dump_json(), **metadata},
        }
        # A session of its own: Ctrl-C in the terminal is for the controller alone.
        self._companion = subprocess.Popen(
            command_of("deploy.companion"),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
            text=True,
        )
        stdin, stdout, stderr = (
            self._companion.stdin,
            self._companion.stdout,
            self._companion.stderr,
        )
        assert stdin and stdout and stderr
        stdin.write(json.dumps(job))
        stdin.close()
        if stdout.readline().strip() != "ready":
            os.unlink(self._ring_path)
            reason = stderr.read().strip().splitlines()[-1:] or ["the companion process ended"]
            raise DeployError(f"{path}: cannot be recorded: {reason[0]}")

    def commit(self) -> None:
        """Publish `record`: one copy into shared memory."""
        written = int(self._ring.counter[0])
        self._ring.records[written % CAPACITY] = self.record
        self._ring.counter[0] = written + 1

    def close(self) -> None:
        """Let the companion finish the file; what went wrong with it is logged."""
        self._ring.counter[1] = 1
        try:
            self._companion.wait(_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self._companion.kill()
        assert self._companion.stderr
        message = self._companion.stderr.read().strip()
        if self._companion.wait():
            Path(self._ring_path).unlink(missing_ok=True)
            _log.warning("%s: %s", self._path, message or "the companion process was killed")


def wait_for_records(ring: Ring, read: int, writer: int, poll_s: float) -> tuple[int, bool]:
    """Wait until there is something to do.

    Returns:
        Records written so far, and whether the writer is done or dead.
    """
    while True:
        done = bool(ring.counter[1]) or not _alive(writer)
        written = int(ring.counter[0])
        if done or written > read:
            return written, done
        time.sleep(poll_s)


def _alive(pid: int) -> bool:
    try:
        status = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
    return status.rpartition(")")[2].split()[0] != "Z"  # a zombie only waits to be noticed


def _size(dtype: np.dtype) -> int:
    return _COUNTER_BYTES + CAPACITY * dtype.itemsize
