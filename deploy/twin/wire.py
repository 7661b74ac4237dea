"""The half-duplex bus between host and servos, in time: who speaks when, and when a byte is there.

    wire = Wire(servos, 1_000_000, usb_latency_s=0.001)
    wire.send(request, now)            # the host writes; a byte takes 10 bits
    while wire.next_event_s <= now:    # a request has arrived, or it is a servo's turn
        wire.run_event()
    reply = wire.take(now)             # what the host has received by now

A servo answers its Return Delay Time after the end of the request; in a sync or bulk read it waits
for the one before it in the list instead, so an absent one silences all behind it (DynamixelSDK
#331). In a fast read the blocks follow each other without a pause after the first servo's delay.
What the host receives comes `usb_latency_s` after it was on the wire. A servo hears and is heard
only at its own baud rate. A damaged request is answered with a CRC error by the servo it names. Not
modelled: collisions of a new request with a reply still under way.
"""

import heapq
import itertools
import math
import struct
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial

from deploy.dynamixel.protocol import (
    BROADCAST_ID,
    ErrorCode,
    Instruction,
    Status,
    merge,
)
from deploy.twin.receiver import Receiver, Request
from deploy.twin.servo import Servo

PING_SLOT_S = 0.003
"""In a broadcast ping each id has its own time to answer (DynamixelSDK waits 3 ms per id)."""

_MERGED_HEADER_SIZE = 8
_BYTE_TOLERANCE = 1e-6  # of a byte: rounding of times must not hold a byte back

ReadJob = tuple[int, int, int]
"""Id, address, length."""


class Wire:
    """All traffic of one bus. Times are seconds on one clock, which is the caller's."""

    def __init__(self, servos: Sequence[Servo], baud_rate: int, *, usb_latency_s: float):
        """Connect servos.

        Args:
            servos: who hangs on the bus.
            baud_rate: of the host's port, until `send` says otherwise [bit/s].
            usb_latency_s: what the adapter adds to a reply.
        """
        self._servos = servos
        self._listening = list(servos)
        self._set_baud_rate(baud_rate)
        self._usb_latency_s = usb_latency_s
        self._receiver = Receiver()
        self._sent_s = -math.inf
        self._events: list[tuple[float, int, Callable[[float], None]]] = []
        self._order = itertools.count()
        self._replies: deque[tuple[float, bytes]] = deque()
        self._taken = 0

    @property
    def next_event_s(self) -> float:
        """When something happens next on the servos' side; inf if nothing is due."""
        return self._events[0][0] if self._events else math.inf

    @property
    def reply_s(self) -> float:
        """When the host will have received the whole reply now on its way; inf if there is none."""
        if not self._replies:
            return math.inf
        start_s, reply = self._replies[0]
        return start_s + len(reply) * self._byte_s + self._usb_latency_s

    def send(self, data: bytes, now_s: float, baud_rate: int | None = None) -> None:
        """The host writes `data`; it follows what is still being sent.

        Args:
            data: the bytes.
            now_s: the time.
            baud_rate: what the host's port is set to by now; None for as before.
        """
        if baud_rate is not None:
            self._set_baud_rate(baud_rate)
        start_s = max(now_s, self._sent_s)
        for count, byte in enumerate(data, 1):
            arrived_s = start_s + count * self._byte_s
            if request := self._receiver.feed(byte, arrived_s):
                self._at(arrived_s, partial(self._receive, request, self._baud_rate))
        self._sent_s = start_s + len(data) * self._byte_s

    def run_event(self) -> None:
        """Let the next event happen."""
        time_s, _, event = heapq.heappop(self._events)
        event(time_s)

    def take(self, now_s: float) -> bytes:
        """Bytes the host has received by now and not yet taken."""
        taken = bytearray()
        while self._replies:
            start_s, reply = self._replies[0]
            elapsed = (now_s - self._usb_latency_s - start_s) / self._byte_s
            count = min(max(self._taken, math.floor(elapsed + _BYTE_TOLERANCE)), len(reply))
            taken += reply[self._taken : count]
            self._taken = count
            if count < len(reply):
                break
            self._replies.popleft()
            self._taken = 0
        return bytes(taken)

    def _at(self, time_s: float, event: Callable[[float], None]) -> None:
        heapq.heappush(self._events, (time_s, next(self._order), event))

    def _set_baud_rate(self, baud_rate: int) -> None:
        self._baud_rate = baud_rate
        self._byte_s = 10 / baud_rate  # a start bit, 8 data bits, a stop bit

    def _receive(self, packet: Request, baud_rate: int, now_s: float) -> None:
        """A request has arrived at the servos."""
        self._listening = [servo for servo in self._servos if servo.listens(baud_rate, now_s)]
        if not packet.sound:
            servo = self._find(packet.id)
            if servo and servo.answers(packet.instruction):
                status = servo.refuse(ErrorCode.CRC)
                self._transmit(status.encode(), now_s + servo.return_delay_s)
            return
        if packet.instruction == Instruction.STATUS:
            return
        for servo in self._listening:
            servo.hear(now_s)
        parameters = packet.parameters
        match packet.instruction:
            case Instruction.SYNC_READ | Instruction.BULK_READ:
                self._answer_in_turn(_read_jobs(packet), now_s)
            case Instruction.FAST_SYNC_READ | Instruction.FAST_BULK_READ:
                self._answer_merged(_read_jobs(packet), now_s)
            case Instruction.SYNC_WRITE | Instruction.BULK_WRITE:
                for id, address, data in _write_jobs(packet):
                    if servo := self._find(id):
                        servo.write(address, data)
            case Instruction.PING if packet.id == BROADCAST_ID:
                for servo in sorted(self._listening, key=lambda servo: servo.id):
                    slot_s = now_s + servo.id * PING_SLOT_S
                    self._transmit(servo.ping().encode(), slot_s + servo.return_delay_s)
            case Instruction.FACTORY_RESET if packet.id == BROADCAST_ID and parameters == b"\xff":
                pass  # firmware 42 and later does not let one packet wipe every id
            case instruction if packet.id == BROADCAST_ID:
                for servo in self._listening:
                    _execute(servo, instruction, parameters)
            case instruction:
                if servo := self._find(packet.id):
                    answers, delay_s = servo.answers(instruction), servo.return_delay_s
                    status = _execute(servo, instruction, parameters)
                    if answers:
                        self._transmit(status.encode(), now_s + delay_s)

    def _answer_in_turn(self, jobs: list[ReadJob], now_s: float) -> None:
        """The first of `jobs` answers, and the rest when it has spoken; silence ends the chain."""
        if not jobs:
            return
        (id, address, length), *rest = jobs
        servo = self._find(id)
        if servo and servo.answers(Instruction.READ):
            reply = servo.read(address, length).encode()
            end_s = self._transmit(reply, now_s + servo.return_delay_s)
            self._at(end_s, partial(self._answer_in_turn, rest))

    def _answer_merged(self, jobs: list[ReadJob], now_s: float) -> None:
        """One packet, which ends before the block of the first silent servo."""
        blocks = [Status(id, bytes(length)) for id, _, length in jobs]
        end, delay_s = 0, 0.0
        for index, (id, address, length) in enumerate(jobs):
            servo = self._find(id)
            if not servo or not servo.answers(Instruction.READ):
                break
            if index == 0:
                end, delay_s = _MERGED_HEADER_SIZE, servo.return_delay_s
            status = servo.read(address, length)
            blocks[index] = Status(id, status.data or bytes(length), status.error, status.alert)
            end += length + 4
        if end:
            self._transmit(merge(blocks)[:end], now_s + delay_s)

    def _transmit(self, reply: bytes, start_s: float) -> float:
        """A servo speaks from `start_s`; returns when it has finished."""
        self._replies.append((start_s, reply))
        return start_s + len(reply) * self._byte_s

    def _find(self, id: int) -> Servo | None:
        return next((servo for servo in self._listening if servo.id == id), None)


def _execute(servo: Servo, instruction: int, parameters: bytes) -> Status:
    """Let one servo carry out an instruction that concerns it alone."""
    address, data = int.from_bytes(parameters[:2], "little"), parameters[2:]
    match instruction:
        case Instruction.PING:
            return servo.ping()
        case Instruction.READ:
            return servo.read(address, int.from_bytes(data, "little"))
        case Instruction.WRITE:
            return servo.write(address, data)
        case Instruction.REG_WRITE:
            return servo.reg_write(address, data)
        case Instruction.ACTION:
            return servo.action()
        case Instruction.REBOOT:
            return servo.reboot()
        case Instruction.FACTORY_RESET:
            return servo.factory_reset(int.from_bytes(parameters, "little"))
        case Instruction.CLEAR:
            return servo.clear(parameters)
    return servo.refuse(ErrorCode.INSTRUCTION)


def _read_jobs(packet: Request) -> list[ReadJob]:
    """Whom a sync or bulk read asks for what."""
    parameters = packet.parameters
    if packet.instruction in (Instruction.BULK_READ, Instruction.FAST_BULK_READ):
        return [item for item in struct.iter_unpack("<BHH", parameters[: len(parameters) // 5 * 5])]
    address, length = struct.unpack_from("<HH", parameters.ljust(4, b"\0"))
    return [(id, address, length) for id in parameters[4:]]


def _write_jobs(packet: Request) -> list[tuple[int, int, bytes]]:
    """Id, address and data of each servo in a sync or bulk write; a torn last item is dropped."""
    parameters, jobs = packet.parameters, []
    if packet.instruction == Instruction.SYNC_WRITE:
        address, length = struct.unpack_from("<HH", parameters.ljust(4, b"\0"))
        items = parameters[4:]
        for start in range(0, len(items) - length, length + 1):
            jobs.append((items[start], address, items[start + 1 : start + 1 + length]))
        return jobs
    while len(parameters) >= 5:
        id, address, length = struct.unpack_from("<BHH", parameters)
        data, parameters = parameters[5 : 5 + length], parameters[5 + length :]
        if len(data) == length:
            jobs.append((id, address, data))
    return jobs
