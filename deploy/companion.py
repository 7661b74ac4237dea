"""The companion process: turns the recorder's rings into an MCAP file, and watches the controller.

It is started by `deploy.recorder` with a JSON job as the first line on standard input, says `ready`
once the file has begun, and ends when the controller has closed the log or is gone. Then, however
that happened, the robot is brought into its safe state, by a thread that no slow disk delays and
that goes on where the log cannot be written (`deploy.supervisor`). Signals that end other programs
do not end it before. MCAP (https://mcap.dev) with JSON messages opens in Foxglove and PlotJuggler
as it is.

Every `FLUSH_S` a chunk is handed to the operating system, every `SYNC_S` and after every change of
state it is forced onto the disk (fdatasync), and so is the finished file before it gets its name.
"""

import contextlib
import json
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from mcap.writer import Writer
from numpy.typing import NDArray

from deploy.errors import DeployError
from deploy.process import take_job
from deploy.recorder import EVENT_TOPIC, VANISHED, refuse_target, share
from deploy.ring import Ring
from deploy.supervisor import Supervisor
from deploy.vigil import Vigil

FLUSH_S = 0.5
"""Most that is lost when this process is killed [s]."""
SYNC_S = 5.0
"""Most that is lost when the power fails [s]."""
_POLL_S = 0.05
VANISHED_TEXT = "the controller ended without closing this log: it was killed, or crashed"


def main() -> None:
    """Run the job on standard input."""
    job = take_job()
    layout = [(topic, _dtype(descr), capacity) for topic, descr, capacity in job["streams"]]
    vigil, rings = share(job["memory"], [(dtype.itemsize, count) for _, dtype, count in layout])
    robot = job["metadata"].get("robot")
    supervisor = Supervisor(robot, vigil, job["controller"], job["ports"])
    file = open(job["file"], "wb")  # noqa: SIM115 (no flush of a full disk on the way out)
    try:
        log = Log(file, job["metadata"])
        streams = [
            Stream(log, topic, dtype, ring)
            for (topic, dtype, _), ring in zip(layout, rings, strict=True)
        ]
        log.flush(sync=True)
        print("ready", flush=True)
        supervisor.start()
        copy_until_closed(log, streams, vigil, supervisor)
        log.finish()
        put_in_place(Path(job["incomplete"]), Path(job["path"]))
    except (OSError, DeployError) as error:
        _complain(error)
        vigil.fail_log()
        if supervisor.ident is not None:
            supervisor.over.wait()
        os._exit(1)  # the file stays as it is, readable up to the last whole chunk
    if lost := sum(stream.lost for stream in streams):
        sys.exit(f"{lost} records were overwritten before they could be saved")


def copy_until_closed(
    log: "Log", streams: "Sequence[Stream]", vigil: Vigil, supervisor: Supervisor
) -> None:
    """Copy all that comes, until the controller closes the log or is gone."""
    flushed_s = synced_s = time.monotonic()
    while True:
        gone = supervisor.over.wait(_POLL_S)
        ended = gone or vigil.closed  # before the last look: nothing is written after it
        copied = {stream.topic for stream in streams if stream.copy()}
        now_s = time.monotonic()
        sync = EVENT_TOPIC in copied or now_s - synced_s > SYNC_S
        if sync or now_s - flushed_s > FLUSH_S:
            log.flush(sync=sync)
            flushed_s, synced_s = now_s, now_s if sync else synced_s
        if ended:
            break
    if not vigil.closed:
        (events,) = (stream for stream in streams if stream.topic == EVENT_TOPIC)
        text = "; ".join([VANISHED_TEXT, *supervisor.said])
        events.add({"time_s": time.monotonic(), "state": VANISHED, "text": text})


def _complain(error: Exception) -> None:
    """Tell the controller, if there is one."""
    with contextlib.suppress(OSError):
        print(error, file=sys.stderr, flush=True)


class Log:
    """An MCAP file that can be read at any time."""

    def __init__(self, file: BinaryIO, metadata: dict[str, str]):
        """Begin `file`."""
        self.writer = Writer(file)
        self.wall_offset_s = time.time() - time.monotonic()
        """What to add to the monotonic clock."""
        self._file = file
        self.writer.start(profile="", library="robotrl")
        self.writer.add_metadata("robotrl", metadata)

    def flush(self, *, sync: bool) -> None:
        """Hand over what there is to the operating system; `sync`: and to the disk."""
        self.writer.flush()
        if sync:
            os.fdatasync(self._file.fileno())

    def finish(self) -> None:
        """Complete the file, on the disk too."""
        self.writer.finish()
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()


class Stream:
    """A ring, and the topic its records go to."""

    def __init__(self, log: Log, topic: str, dtype: np.dtype, ring: Ring):
        """Describe the records in the file."""
        self.topic = topic
        self.lost = 0
        """Records overwritten before they could be copied."""
        self._log, self._dtype, self._ring, self._read = log, dtype, ring, 0
        name = f"robotrl.{topic.strip('/').title()}"
        schema = log.writer.register_schema(name, "jsonschema", json.dumps(_schema(dtype)).encode())
        self._channel = log.writer.register_channel(topic, "json", schema)

    def copy(self) -> int:
        """Copy what has come; returns how many records that were."""
        written, copied = self._ring.written, 0
        while self._read < written:
            if (record := self._ring.read(self._read)) is None:
                oldest = max(self._read + 1, self._ring.written - self._ring.capacity)
                self.lost += oldest - self._read
                self._read = oldest
                continue
            self.add(to_message(np.frombuffer(record, self._dtype)[0]))
            copied += 1
        return copied

    def add(self, message: dict[str, Any]) -> None:
        """Write one message, at the time it names."""
        time_ns = int((message["time_s"] + self._log.wall_offset_s) * 1e9)
        data = json.dumps(message).encode()
        self._log.writer.add_message(self._channel, time_ns, data, time_ns, sequence=self._read)
        self._read += 1


def put_in_place(incomplete: Path, path: Path) -> None:
    """Give the finished file its name, on the disk too.

    Raises:
        DeployError: something other than a regular file has come to be there.
    """
    refuse_target(path)
    os.replace(incomplete, path)
    folder = os.open(path.parent, os.O_RDONLY)
    os.fsync(folder)
    os.close(folder)


def to_message(record: NDArray[Any]) -> dict[str, Any]:
    """A record as plain numbers, lists and strings."""
    values = {name: record[name].tolist() for name in record.dtype.names or ()}
    return {
        name: value.decode(errors="ignore") if isinstance(value, bytes) else value
        for name, value in values.items()
    }


def _dtype(description: list[list[Any]]) -> np.dtype:
    """A dtype whose `descr` went through JSON."""
    return np.dtype([(name, kind, *map(tuple, shape)) for name, kind, *shape in description])


def _schema(dtype: np.dtype) -> dict[str, Any]:
    kinds = {
        name: {"type": "string" if field.base.kind == "S" else "number"}
        for name, (field, *_) in (dtype.fields or {}).items()
    }
    properties = {
        name: {"type": "array", "items": kinds[name]} if field.shape else kinds[name]
        for name, (field, *_) in (dtype.fields or {}).items()
    }
    return {"type": "object", "properties": properties}


if __name__ == "__main__":
    main()
