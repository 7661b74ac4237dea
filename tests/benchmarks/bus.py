"""CPU time of the bus per tick, beside ROBOTIS' dynamixel_sdk and Feetech's SDK. Run by hand:

    python tests/benchmarks/bus.py

A tick is one sync read of the block that holds position, speed and duty (12 bytes of a DYNAMIXEL
from 124, 15 of a Feetech servo from 56), of SCS servos a read of each (11 bytes), and one sync
write of Goal Position. Both sides talk to a
port in memory that has the right reply ready at once, so only their own work is timed: process
time, rounds interleaved, medians.
"""

import statistics
import time
from collections.abc import Callable, Sequence

import dynamixel_sdk
import numpy as np
import scservo_sdk

from deploy.dynamixel import protocol, registers
from deploy.dynamixel.bus import DynamixelBus
from deploy.dynamixel.protocol import Instruction, Status
from deploy.dynamixel.sync import SyncRead, SyncWrite
from deploy.feetech import protocol as feetech_protocol
from deploy.feetech import registers as feetech_registers
from deploy.feetech import scs_registers
from deploy.feetech import sync as feetech_sync
from deploy.servos.bus import ServoBus

ADDRESS, LENGTH = registers.PRESENT_PWM.address, 12
FEETECH_ADDRESS, FEETECH_LENGTH = feetech_registers.PRESENT_POSITION.address, 15
SCS_LENGTH = 11
TICKS_PER_ROUND, ROUNDS = 300, 15


def dynamixel_replies(servos: int) -> dict[int, bytes]:
    """The reply to each instruction."""
    rng = np.random.default_rng(0)
    statuses = [
        Status(id, rng.integers(0, 200, LENGTH, np.uint8).tobytes()) for id in ids_of(servos)
    ]
    return {
        Instruction.SYNC_READ: b"".join(status.encode() for status in statuses),
        Instruction.FAST_SYNC_READ: protocol.merge(statuses),
        Instruction.SYNC_WRITE: b"",
    }


def feetech_replies(servos: int) -> dict[int, bytes]:
    """The same from Feetech servos."""
    rng = np.random.default_rng(0)
    statuses = [
        feetech_protocol.Status(id, rng.integers(0, 200, FEETECH_LENGTH, np.uint8).tobytes())
        for id in ids_of(servos)
    ]
    return {
        Instruction.SYNC_READ: b"".join(status.encode() for status in statuses),
        Instruction.SYNC_WRITE: b"",
    }


class Replies:
    """The reply to every request, ready to be taken in whatever pieces are asked for."""

    def __init__(self, replies: dict[int, bytes]):
        self._replies = replies
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

    def __init__(self, replies: dict[int, bytes], instruction_at: int):
        self._replies, self._instruction_at = Replies(replies), instruction_at

    def now(self) -> float:
        return 0.0

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self._replies.request(data[self._instruction_at])

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
        self._replies = Replies(dynamixel_replies(servos))

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
    bus = DynamixelBus(InstantPort(dynamixel_replies(servos), 7), 1_000_000)
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


class FeetechInstantPort:
    """The port of Feetech's SDK."""

    def __init__(self, servos: int):
        self.is_using = False
        self._replies = Replies(feetech_replies(servos))

    def clearPort(self):  # noqa: N802
        pass

    def writePort(self, packet):  # noqa: N802
        self._replies.request(packet[4])
        return len(packet)

    def readPort(self, length):  # noqa: N802
        return self._replies.take(length)

    def setPacketTimeout(self, length):  # noqa: N802
        pass

    def isPacketTimeout(self):  # noqa: N802
        return False


def our_feetech_tick(servos: int) -> Callable[[], None]:
    """Read 15 bytes of every servo and write its goal."""
    ids = ids_of(servos)
    port = InstantPort(feetech_replies(servos), 4)
    bus = ServoBus(port, 1_000_000, feetech_protocol)
    reading = feetech_sync.SyncRead(bus, ids, FEETECH_ADDRESS, FEETECH_LENGTH)
    writing = feetech_sync.SyncWrite(bus, ids, feetech_registers.GOAL_POSITION)
    positions = reading.data[:, :2].view("<u2")[:, 0]

    def tick() -> None:
        assert reading.read(1.0) == servos
        writing.write(positions)

    return tick


def feetech_sdk_tick(servos: int) -> Callable[[], None]:
    """The same through the SDK's groups, as its examples do it."""
    handler = scservo_sdk.sms_sts(FeetechInstantPort(servos))
    reading = scservo_sdk.GroupSyncRead(handler, FEETECH_ADDRESS, FEETECH_LENGTH)
    goal = feetech_registers.GOAL_POSITION
    writing = scservo_sdk.GroupSyncWrite(handler, goal.address, goal.size)
    for id in ids_of(servos):
        reading.addParam(id)

    def tick() -> None:
        assert reading.txRxPacket() == scservo_sdk.COMM_SUCCESS
        for id in ids_of(servos):
            position = reading.getData(id, FEETECH_ADDRESS, 2)
            writing.addParam(id, list(position.to_bytes(2, "little")))
        writing.txPacket()
        writing.clearParam()

    return tick


class ScsPort(InstantPort):
    """Our port with a servo behind it that is asked on its own."""

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self._replies = Replies({0: scs_reply(data)})
        self._replies.request(0)


class ScsInstantPort(FeetechInstantPort):
    """The same for the SDK."""

    def writePort(self, packet):  # noqa: N802
        self._replies = Replies({0: scs_reply(packet)})
        self._replies.request(0)
        return len(packet)


def scs_reply(request: Sequence[int] | memoryview) -> bytes:
    """What is asked for, zeros; nothing to a sync write."""
    if request[4] != Instruction.READ:
        return b""
    return feetech_protocol.Status(request[2], bytes(request[6])).encode()


def our_scs_tick(servos: int) -> Callable[[], None]:
    """Read 11 bytes of every servo, one after the other, and write its goal."""
    ids = ids_of(servos)
    bus = ServoBus(ScsPort({}, 4), 1_000_000, feetech_protocol)
    reading = feetech_sync.ReadInTurn(bus, ids, FEETECH_ADDRESS, SCS_LENGTH)
    writing = feetech_sync.SyncWrite(bus, ids, scs_registers.GOAL_POSITION)
    positions = reading.data[:, :2].view(">u2")[:, 0]

    def tick() -> None:
        assert reading.read(1.0) == servos
        writing.write(positions)

    return tick


def scs_sdk_tick(servos: int) -> Callable[[], None]:
    """The same through the SDK."""
    handler, ids = scservo_sdk.scscl(ScsInstantPort(servos)), ids_of(servos)
    goal = scs_registers.GOAL_POSITION
    writing = scservo_sdk.GroupSyncWrite(handler, goal.address, goal.size)

    def tick() -> None:
        for id in ids:
            data, result, _ = handler.readTxRx(id, FEETECH_ADDRESS, SCS_LENGTH)
            assert result == scservo_sdk.COMM_SUCCESS
            writing.addParam(id, data[:2])
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
    print(f"{'servos':>6}  {'sync read':10}  {'ours':>7}  {'SDK':>7}  {'ratio':>6}")
    for servos in (6, 12, 15):
        sides = {
            "fast": (our_tick(servos, fast=True), sdk_tick(servos, fast=True)),
            "plain": (our_tick(servos, fast=False), sdk_tick(servos, fast=False)),
            "Feetech": (our_feetech_tick(servos), feetech_sdk_tick(servos)),
            "SCS": (our_scs_tick(servos), scs_sdk_tick(servos)),
        }
        for kind, (ours, sdk) in sides.items():
            rounds = [(cpu_us(ours), cpu_us(sdk)) for _ in range(ROUNDS)]
            our_us, sdk_us = (statistics.median(column) for column in zip(*rounds, strict=True))
            print(f"{servos:6}  {kind:10}  {our_us:7.1f}  {sdk_us:7.1f}  {our_us / sdk_us:6.3f}")


if __name__ == "__main__":
    main()
