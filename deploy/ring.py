"""A ring of records in memory that two processes share: one writes, one reads, nobody waits.

    handle = allocate(Ring.size(len(record), 4096))
    ring = Ring(map_memory(handle), len(record), 4096)
    ring.write(record)              # in one process
    ring.read(0)                    # in the other; None if it was overwritten meanwhile

A full ring is overwritten. Beside each record lies its CRC-32, begun with the record's number, so
a record that was overwritten while it was being copied, or that another processor core does not
see as a whole yet, is never taken for one. The memory belongs to no file system: a full /dev/shm
does not matter, and nothing is left behind however the processes end. Linux only.
"""

import mmap
import os
import time
import zlib

_LOOKS = 10
_LOOK_S = 0.001
_HEAD_BYTES = 8


def allocate(size: int) -> int:
    """File descriptor of `size` bytes of memory, all of them there.

    Raises:
        OSError: there is not enough; touching them later would be a SIGBUS.
    """
    handle = os.memfd_create("robotrl-ring")
    try:
        os.posix_fallocate(handle, 0, size)
    except OSError:
        os.close(handle)
        raise
    return handle


def map_memory(handle: int) -> memoryview:
    """Map what `allocate` made, every page at once: no page fault is left for the first writes."""
    flags = mmap.MAP_SHARED | mmap.MAP_POPULATE
    return memoryview(mmap.mmap(handle, os.fstat(handle).st_size, flags))


class Ring:
    """Records of one size; see the module docstring."""

    def __init__(self, memory: memoryview, record_bytes: int, capacity: int):
        """Lay the ring over `memory`, `Ring.size` bytes that were zero at first."""
        checks_end = _HEAD_BYTES + 4 * capacity
        self._written = memory[:_HEAD_BYTES].cast("Q")
        self._checks = memory[_HEAD_BYTES:checks_end].cast("I")
        self._slots = [
            memory[start : start + record_bytes]
            for start in range(checks_end, checks_end + capacity * record_bytes, record_bytes)
        ]

    @staticmethod
    def size(record_bytes: int, capacity: int) -> int:
        """Bytes of memory a ring takes, a multiple of 8."""
        return -(-(_HEAD_BYTES + capacity * (4 + record_bytes)) // 8) * 8

    @property
    def capacity(self) -> int:
        """Records it holds."""
        return len(self._slots)

    @property
    def written(self) -> int:
        """Records written since the beginning."""
        return self._written[0]

    def write(self, record: memoryview) -> None:
        """Append one record: one copy and one checksum, nothing else."""
        number = self._written[0]
        slot = number % len(self._slots)
        self._slots[slot][:] = record
        self._checks[slot] = zlib.crc32(record, number & 0xFFFFFFFF)
        self._written[0] = number + 1

    def read(self, number: int) -> bytes | None:
        """The record `number` (from 0, less than `written`), None if it was overwritten."""
        slot = number % len(self._slots)
        for _ in range(_LOOKS):
            if self.written - number > len(self._slots):
                return None
            record = bytes(self._slots[slot])
            if zlib.crc32(record, number & 0xFFFFFFFF) == self._checks[slot]:
                return record
            time.sleep(_LOOK_S)  # being overwritten, or not visible to this core yet
        return None
