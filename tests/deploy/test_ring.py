"""The ring: what is read is what was written, or nothing."""

import os
import subprocess
import sys
from collections.abc import Iterator

import pytest

from deploy.ring import Ring, allocate, map_memory

BYTES, CAPACITY = 40, 8


@pytest.fixture
def handle() -> Iterator[int]:
    handle = allocate(Ring.size(BYTES, CAPACITY))
    yield handle
    os.close(handle)


@pytest.fixture
def ring(handle: int) -> Ring:
    return Ring(map_memory(handle), BYTES, CAPACITY)


def record(number: int) -> memoryview:
    return memoryview(number.to_bytes(4, "little") * (BYTES // 4))


def test_another_process_reads_what_was_written(ring: Ring, handle: int):
    for number in range(3):
        ring.write(record(number))
    reader = f"""
from deploy.ring import *
ring = Ring(map_memory({handle}), {BYTES}, {CAPACITY})
print(ring.written, [ring.read(n) == n.to_bytes(4, "little") * 10 for n in range(3)])
"""
    command = [sys.executable, "-c", reader]
    found = subprocess.run(command, capture_output=True, text=True, pass_fds=(handle,), check=True)
    assert found.stdout == "3 [True, True, True]\n"


def test_overwritten_record_is_gone(ring: Ring):
    for number in range(CAPACITY + 2):
        ring.write(record(number))
    assert [ring.read(number) for number in (0, 1)] == [None, None]
    assert [ring.read(number) for number in range(2, 10)] == [record(n) for n in range(2, 10)]


def test_record_overwritten_while_it_is_read_is_gone(ring: Ring, handle: int):
    """The writer was stopped in the middle of record 8, before it counted it."""
    for number in range(CAPACITY):
        ring.write(record(number))
    first_slot = 8 + 4 * CAPACITY
    map_memory(handle)[first_slot : first_slot + BYTES // 2] = record(8)[: BYTES // 2]
    assert ring.read(0) is None
    assert ring.read(1) == record(1)


def test_record_is_not_taken_for_an_equal_one_a_round_later(ring: Ring):
    """A checksum of the bytes alone would not tell them apart."""
    for _ in range(CAPACITY):
        ring.write(record(5))
    written = ring._written[0]
    ring.write(record(5))
    ring._written[0] = written  # a reader whose core does not see the count yet
    assert ring.read(0) is None


WRITER = """
import itertools, sys
from deploy.ring import *
ring = Ring(map_memory(int(sys.argv[1])), 4000, 4)
print(flush=True)
for number in itertools.count():
    ring.write(memoryview(number.to_bytes(4, "little") * 1000))
"""


def test_no_torn_record_is_ever_read_beside_a_writer_in_a_hurry():
    handle = allocate(Ring.size(4000, 4))
    ring = Ring(map_memory(handle), 4000, 4)
    command = [sys.executable, "-c", WRITER, str(handle)]
    good = gone = 0
    with subprocess.Popen(command, stdout=subprocess.PIPE, pass_fds=(handle,)) as writer:
        assert writer.stdout
        writer.stdout.readline()
        while good < 20_000 or gone < 50:
            number = max(0, ring.written - 3)  # the next to be overwritten
            if (found := ring.read(number) if ring.written > number else None) is None:
                gone += 1
                continue
            good += 1
            assert found == number.to_bytes(4, "little") * 1000
        writer.kill()
    os.close(handle)
