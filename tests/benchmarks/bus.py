"""CPU time of the bus per tick, beside ROBOTIS' dynamixel_sdk. Run by hand:

    python tests/benchmarks/bus.py

A tick is one sync read of the 12-byte block 124..135 (PWM, current, velocity, position) and one
sync write of Goal Position. Both sides talk to a port in memory that has the right reply ready at
once, so only their own work is timed: process time, rounds interleaved, medians.
"""

import statistics
import time
from collections.abc import Callable

import dynamixel_sdk
import numpy as np

from deploy.dynamixel import protocol, registers
from deploy.dynamixel.bus import DynamixelBus
from deploy.dynamixel.protocol import Instruction, Status
from deploy.dynamixel.sync import SyncRead, SyncWrite

ADDRESS, LENGTH = registers.PRESENT_PWM.address, 12
TICKS_PER_ROUND, ROUNDS = 300, 15


class Replies:
    """The reply to every request, ready to be taken in whatever pieces are asked for."""

    def __init__(self, servos: int):
        rng = np.random.default_rng(0)
        statuses = [
            Status(id, rng.integers(0, 200, LENGTH, np.uint8).tobytes()) for id in ids_of(servos)
        ]
        self._replies: dict[int, bytes] = {
            Instruction.SYNC_READ: b"".join(status.encode() for status in statuses),
            Instruction.FAST_SYNC_READ: protocol.merge(statuses),
            Instruction.SYNC_WRITE: b"",
        }
        self._pending, self._position = b"", 0

    def request(self, instruction: int) -> None:
        self._pending, self._position = self._replies[instruction], 0

    def take(self, count: int) -> bytes:
        piece = self._pending[self._position : self._position + count]
        self._position += count
        return piece


def ids_of(servos: int) -> range:
    return range(1, servos + 1)


class InstantPort:
    """Our `Port`."""

    def __init__(self, servos: int):
        self._replies = Replies(servos)

    def now(self) -> float:
        return 0.0

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self._replies.request(data[7])

    def read_into(self, buffer: memoryview, deadline_s: float) -> int:
        piece = self._replies.take(len(buffer))
        buffer[: len(piece)] = piece
        return len(piece)

    def close(self) -> None:
        pass


class InstantPortHandler(dynamixel_sdk.PortHandler):
    """The SDK's port."""

    def __init__(self, servos: int):
        super().__init__("instant")
        self._replies = Replies(servos)

    def clearPort(self):  # noqa: N802
        pass

    def writePort(self, packet):  # noqa: N802
        self._replies.request(packet[7])
        return len(packet)

    def readPort(self, length):  # noqa: N802
        return self._replies.take(length)


def our_tick(servos: int, *, fast: bool) -> Callable[[], None]:
    """Read 12 bytes of every servo and write its goal."""
    ids = ids_of(servos)
    bus = DynamixelBus(InstantPort(servos), 1_000_000)
    reading = SyncRead(bus, ids, ADDRESS, LENGTH, fast=fast)
    writing = SyncWrite(bus, ids, registers.GOAL_POSITION)
    positions = reading.data[:, 8:].view("<i4")[:, 0]

    def tick() -> None:
        assert reading.read(1.0) == servos
        writing.write(positions)

    return tick


def sdk_tick(servos: int, *, fast: bool) -> Callable[[], None]:
    """The same through the SDK's groups, as its examples do it."""
    port, handler = InstantPortHandler(servos), dynamixel_sdk.PacketHandler(2.0)
    reading = dynamixel_sdk.GroupSyncRead(port, handler, ADDRESS, LENGTH)
    writing = dynamixel_sdk.GroupSyncWrite(port, handler, registers.GOAL_POSITION.address, 4)
    for id in ids_of(servos):
        reading.addParam(id)
    read = reading.fastSyncRead if fast else reading.txRxPacket

    def tick() -> None:
        assert read() == dynamixel_sdk.COMM_SUCCESS
        for id in ids_of(servos):
            position = reading.getData(id, registers.PRESENT_POSITION.address, 4)
            writing.addParam(id, list(position.to_bytes(4, "little")))
        writing.txPacket()
        writing.clearParam()

    return tick


def cpu_us(tick: Callable[[], None]) -> float:
    """Process time of one tick [µs]."""
    start_s = time.process_time()
    for _ in range(TICKS_PER_ROUND):
        tick()
    return (time.process_time() - start_s) / TICKS_PER_ROUND * 1e6


def main() -> None:
    """Print the table."""
    print("CPU time per tick [µs], medians of interleaved rounds")
    print(f"{'servos':>6}  {'sync read':10}  {'ours':>7}  {'dynamixel_sdk':>13}  {'ratio':>6}")
    for servos in (6, 12):
        for fast in (True, False):
            ours, sdk = our_tick(servos, fast=fast), sdk_tick(servos, fast=fast)
            rounds = [(cpu_us(ours), cpu_us(sdk)) for _ in range(ROUNDS)]
            our_us, sdk_us = (statistics.median(column) for column in zip(*rounds, strict=True))
            kind = "fast" if fast else "plain"
            print(f"{servos:6}  {kind:10}  {our_us:7.1f}  {sdk_us:13.1f}  {our_us / sdk_us:6.3f}")


if __name__ == "__main__":
    main()
