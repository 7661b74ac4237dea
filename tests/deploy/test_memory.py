"""A steady tick on every kind of device takes little memory, and keeps none."""

import gc
import tracemalloc
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import pytest

from deploy.drive import Drive
from tests.deploy.faulty_arm import FAMILIES, FaultyArm

MOST_BYTES = 8_000
"""At once, between two uses of a port: bytes of packets, and what numpy's calls take themselves."""
TICKS = 10
OURS = (
    tracemalloc.Filter(True, "*/deploy/*"),
    tracemalloc.Filter(False, "*/deploy/twin/*"),
    tracemalloc.Filter(False, "*/tests/*"),
    tracemalloc.Filter(False, "*/reply_times.py"),  # numpy's cumsum fills a cache for a while
)


class Meter:
    """The most that a program takes, the twin behind its ports left out."""

    def __init__(self) -> None:
        self.most = self._begin = 0

    def begin(self) -> None:
        """From here on it is the program."""
        tracemalloc.reset_peak()
        self._begin, _ = tracemalloc.get_traced_memory()

    def end(self) -> None:
        """Up to here it was."""
        _, peak = tracemalloc.get_traced_memory()
        self.most = max(self.most, peak - self._begin)

    def leave_out(self, method: Callable) -> Callable:
        """The same method, whose memory does not count."""

        def uncounted(*arguments):
            self.end()
            try:
                return method(*arguments)
            finally:
                self.begin()

        return uncounted


def tick(drive: Drive) -> None:
    """One, that keeps the joints where they are."""
    times = drive.begin()
    drive.target[:] = drive.sent
    drive.finish(times)


def steady(arm: FaultyArm) -> Drive:
    """A robot that is driven, and has been for a while."""
    robot, clock = arm.robot, arm.clock
    drive = Drive(robot, arm.runtime.governor, clock, 0.02)
    drive.poll = lambda: arm.twin.advance(clock.now())
    robot.connect()
    robot.energise()
    drive.begin_run()
    for _ in range(60):  # more than a window of the board's clock, and a turn of every servo
        tick(drive)
    return drive


def kept() -> int:
    """Bytes that our own modules have taken and not given back."""
    gc.collect()  # empties the lists of free objects that Python keeps
    traces = tracemalloc.take_snapshot().filter_traces(OURS).statistics("filename")
    return sum(trace.size for trace in traces)


@pytest.mark.parametrize("family", FAMILIES)
def test_steady_tick_takes_little_memory_and_keeps_none(family: str, tmp_path: Path):
    arm, meter = FaultyArm(family, tmp_path), Meter()
    drive = steady(arm)
    drive.poll = meter.leave_out(drive.poll)
    drive.ticker.wait = meter.leave_out(drive.ticker.wait)
    for port in arm.robot._ports.values():
        for name in ("write", "read_into"):
            setattr(port, name, meter.leave_out(getattr(port, name)))
    tracemalloc.start()
    try:
        sizes = []
        for _ in range(4):
            meter.begin()
            for _ in range(TICKS):
                tick(drive)
            meter.end()
            sizes.append(kept())
    finally:
        tracemalloc.stop()
    assert meter.most < MOST_BYTES
    grown = [after - before for before, after in pairwise(sizes)]
    assert min(grown) < TICKS * 16, sizes  # the smallest objects
