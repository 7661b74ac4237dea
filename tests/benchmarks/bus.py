"""What a tick on a bus costs: CPU time beside the makers' SDKs, and time beside the wire's.

    python tests/benchmarks/bus.py

A tick is one sync read of the block that holds position, speed and duty (12 bytes of a DYNAMIXEL
from 124, 15 of a Feetech servo from 56), of SCS
servos a read of each (11 bytes), and one sync write of Goal Position.

CPU time: both sides talk to a port in memory that has the right reply ready at once, so only their
own work is timed: process time in rounds that take turns; medians, also of the ratios.

Whole tick: the same on the twin's wire at 1 Mbps, in its time, behind an adapter that adds nothing
and servos without a Return Delay Time, plus our CPU time; beside it what the bytes alone take.
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
from deploy.dynamixel.servos import MODELS
from deploy.dynamixel.sync import SyncRead, SyncWrite
from deploy.feetech import protocol as feetech_protocol
from deploy.feetech import registers as feetech_registers
from deploy.feetech import scs_registers
from deploy.feetech import sync as feetech_sync
from deploy.feetech.servos import MODELS as FEETECH_MODELS
from deploy.servos.bus import ServoBus
from deploy.servos.sync_read import Feedback
from deploy.twin.feetech_servo import FeetechServo
from deploy.twin.feetech_wire import FeetechWire
from deploy.twin.scs_servo import ScsServo
from deploy.twin.servo import Servo
from deploy.twin.wire import Wire

ADDRESS, LENGTH = registers.PRESENT_PWM.address, 12
FEETECH_ADDRESS, FEETECH_LENGTH = feetech_registers.PRESENT_POSITION.address, 15
SCS_LENGTH = 11
MODEL, FEETECH_MODEL = MODELS["XL330-M288"], FEETECH_MODELS["STS3215-12V"]
SCS_MODEL = FEETECH_MODELS["SCS15"]
BAUD_RATE = 1_000_000
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

    def reopen(self) -> None:
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


def on_bus(bus: ServoBus, kind: str, servos: int) -> tuple[Feedback, Callable[[], None]]:
    """What reads all servos, and what writes their goals."""
    ids = ids_of(servos)
    if kind == "SCS":
        reading = feetech_sync.ReadInTurn(bus, ids, FEETECH_ADDRESS, SCS_LENGTH)
        writing = feetech_sync.SyncWrite(bus, ids, scs_registers.GOAL_POSITION)
        positions = reading.data[:, :2].view(">u2")[:, 0]
        return reading, lambda: writing.write(positions)
    if kind == "Feetech":
        reading = feetech_sync.SyncRead(bus, ids, FEETECH_ADDRESS, FEETECH_LENGTH)
        writing = feetech_sync.SyncWrite(bus, ids, feetech_registers.GOAL_POSITION)
        positions = reading.data[:, :2].view("<u2")[:, 0]
        return reading, lambda: writing.write(positions)
    assert isinstance(bus, DynamixelBus)
    reading = SyncRead(bus, ids, ADDRESS, LENGTH, fast=kind == "fast")
    goals = SyncWrite(bus, ids, registers.GOAL_POSITION)
    values = reading.data[:, 8:].view("<i4")[:, 0]
    return reading, lambda: goals.write(values)


def our_tick(kind: str, servos: int) -> Callable[[], None]:
    """Read a block of every servo and write its goal."""
    if kind == "SCS":
        bus = ServoBus(ScsPort({}, 4), BAUD_RATE, feetech_protocol)
    elif kind == "Feetech":
        port = InstantPort(feetech_replies(servos), 4)
        bus = ServoBus(port, BAUD_RATE, feetech_protocol)
    else:
        bus = DynamixelBus(InstantPort(dynamixel_replies(servos), 7), BAUD_RATE)
    reading, write = on_bus(bus, kind, servos)

    def tick() -> None:
        assert reading.read(1.0) == servos
        write()

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


class WirePort:
    """Our `Port` on a twin's wire, in its time."""

    def __init__(self, wire: Wire | FeetechWire):
        self._wire, self._now_s = wire, 0.0
        self.bytes = 0
        """That have gone over the wire."""

    def now(self) -> float:
        return self._now_s

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self._wire.send(bytes(data), self._now_s)
        self.bytes += len(data)

    def read_into(self, buffer: memoryview, deadline_s: float) -> int:
        while not (received := self._wire.take(self._now_s)):
            next_s = min(self._wire.next_event_s, self._wire.reply_s)
            self._now_s = max(self._now_s, min(next_s, deadline_s))
            if next_s > deadline_s:
                return 0
            if self._wire.next_event_s <= self._now_s:
                self._wire.run_event()
        buffer[: len(received)] = received
        self.bytes += len(received)
        return len(received)

    def close(self) -> None:
        pass

    def reopen(self) -> None:
        pass


def wire_us(kind: str, servos: int) -> tuple[float, float]:
    """Time of a tick without its CPU time, and of its bytes [µs]."""
    ids = ids_of(servos)
    bus: ServoBus
    if kind in ("Feetech", "SCS"):
        made, model = (ScsServo, SCS_MODEL) if kind == "SCS" else (FeetechServo, FEETECH_MODEL)
        members = [made(id, model, BAUD_RATE, shaft_ticks=model.ticks // 2) for id in ids]
        port = WirePort(FeetechWire(members, BAUD_RATE, usb_latency_s=0.0))
        bus = ServoBus(port, BAUD_RATE, feetech_protocol)
    else:
        members = [Servo(id, MODEL, BAUD_RATE, shaft_ticks=2048) for id in ids]
        port = WirePort(Wire(members, BAUD_RATE, usb_latency_s=0.0))
        bus = DynamixelBus(port, BAUD_RATE)
    for servo in members if kind != "SCS" else ():  # which have none
        servo.write(servo.registers.RETURN_DELAY_TIME.address, b"\0")
    reading, write = on_bus(bus, kind, servos)
    began_s = port.now()
    assert reading.read(began_s + 1.0) == servos
    read_s, before = port.now() - began_s, port.bytes
    write()
    byte_s = 10 / BAUD_RATE
    return (read_s + (port.bytes - before) * byte_s) * 1e6, port.bytes * byte_s * 1e6


def cpu_us(tick: Callable[[], None]) -> float:
    """Process time of one tick [µs]."""
    start_s = time.process_time()
    for _ in range(TICKS_PER_ROUND):
        tick()
    return (time.process_time() - start_s) / TICKS_PER_ROUND * 1e6


def main() -> None:
    """Print the table."""
    print(f"{'':17}{'CPU time [µs]':^26}{'whole tick [µs]':^26}")
    print(f"servos  sync read{'ours':>8}{'SDK':>9}{'ratio':>9}{'ours':>8}{'bytes':>9}{'ratio':>9}")
    for servos in (6, 12, 15):
        sdk = {
            "fast": sdk_tick(servos, fast=True),
            "plain": sdk_tick(servos, fast=False),
            "Feetech": feetech_sdk_tick(servos),
            "SCS": scs_sdk_tick(servos),
        }
        for kind, theirs in sdk.items():
            ours = our_tick(kind, servos)
            rounds = [(cpu_us(ours), cpu_us(theirs)) for _ in range(ROUNDS)]
            rows = [(our_us, sdk_us, our_us / sdk_us) for our_us, sdk_us in rounds]
            our_us, sdk_us, ratio = map(statistics.median, zip(*rows, strict=True))
            bus_us, bytes_us = wire_us(kind, servos)
            whole_us = bus_us + our_us
            print(
                f"{servos:6}  {kind:9}{our_us:8.1f}{sdk_us:9.1f}{ratio:9.3f}"
                f"{whole_us:8.0f}{bytes_us:9.0f}{whole_us / bytes_us:9.3f}"
            )
    print("allowed are ratios of 0.25 and 1.1")


if __name__ == "__main__":
    main()
