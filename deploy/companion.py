"""The companion process: turns the recorder's ring into an MCAP file.

It is started by `deploy.recorder` with a JSON job on standard input, says `ready` once the file is
open, and ends when the controller is done or gone. MCAP (https://mcap.dev) with JSON messages opens
in Foxglove and PlotJuggler as it is.
"""

import json
import os
import sys
import time
from typing import Any, BinaryIO

import numpy as np
from mcap.writer import Writer
from numpy.typing import NDArray

from deploy.recorder import CAPACITY, Ring, wait_for_records

TOPIC = "/tick"
_POLL_S = 0.05


def main() -> None:
    """Run the job on standard input."""
    job = json.load(sys.stdin)
    dtype = np.dtype([(name, kind, *map(tuple, shape)) for name, kind, *shape in job["dtype"]])
    ring = Ring.map(job["ring"], dtype)
    temporary = f"{job['path']}.tmp"
    if os.path.isdir(job["path"]):
        sys.exit("it is a folder")
    try:
        file = open(temporary, "wb")  # noqa: SIM115 (closed below, before the rename)
    except OSError as error:
        sys.exit(str(error))
    print("ready", flush=True)
    try:
        with file:
            lost = write_log(file, ring, job["writer"], job["metadata"])
        os.replace(temporary, job["path"])
    finally:
        os.unlink(job["ring"])
    if lost:
        sys.exit(f"{lost} records were overwritten before they could be saved")


def write_log(file: BinaryIO, ring: Ring, writer_pid: int, metadata: dict[str, str]) -> int:
    """Copy the ring into an MCAP file until its writer is done; returns how many were lost."""
    writer = Writer(file)
    writer.start(profile="", library="robotrl")
    schema = writer.register_schema(
        "robotrl.Tick", "jsonschema", json.dumps(_schema(ring)).encode()
    )
    channel = writer.register_channel(TOPIC, "json", schema)
    writer.add_metadata("robotrl", metadata)
    wall_offset_s = time.time() - time.monotonic()
    read = lost = 0
    done = False
    while not done:
        written, done = wait_for_records(ring, read, writer_pid, _POLL_S)
        overwritten = max(0, written - CAPACITY - read)
        lost += overwritten
        read += overwritten
        while read < written:
            record = ring.records[read % CAPACITY]
            time_ns = int((record["time_s"] + wall_offset_s) * 1e9)
            data = json.dumps(to_message(record)).encode()
            writer.add_message(channel, time_ns, data, time_ns, sequence=read)
            read += 1
    writer.finish()
    return lost


def to_message(record: NDArray[Any]) -> dict[str, Any]:
    """A record as plain numbers and lists."""
    return {name: record[name].tolist() for name in record.dtype.names or ()}


def _schema(ring: Ring) -> dict[str, Any]:
    properties = {
        name: {"type": "array", "items": {"type": "number"}} if field.shape else {"type": "number"}
        for name, (field, *_) in (ring.records.dtype.fields or {}).items()
    }
    return {"type": "object", "properties": properties}


if __name__ == "__main__":
    main()
