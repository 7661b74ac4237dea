"""The bus between host and Feetech servos: who says what, and when; see `half_duplex`.

A servo answers its Return Delay Time after the end of the request; in a sync read it is assumed to
wait for the one before it in the list, so that an absent one silences all behind it, as an SCS
servo does, which knows no sync read. A damaged request is answered by nobody. The receiver is
written for the twin alone, so that a fault in the host's parser cannot hide behind the same one
here.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

from deploy.feetech.protocol import BROADCAST_ID, Instruction, Status
from deploy.twin.feetech_servo import FeetechServo
from deploy.twin.half_duplex import HalfDuplex

BYTE_TIMEOUT_S = 0.01
"""Longest pause between two bytes of a packet; assumed."""
PING_SLOT_S = 0.001
"""In a broadcast ping each id has its own time to answer; assumed."""
_SHORTEST_LENGTH, _LONGEST_LENGTH = 2, 250


@dataclass(frozen=True, slots=True)
class Request:
    """A sound packet as a servo has understood it."""

    id: int
    instruction: int
    parameters: bytes


class Receiver:
    """The receiving half of one servo, or of several that hear the same."""

    def __init__(self) -> None:
        """Begin between two packets."""
        self._buffer = bytearray()
        self._heard_s = 0.0

    def feed(self, byte: int, now_s: float) -> Request | None:
        """One more byte, which has arrived at `now_s`; the packet it completes, if any."""
        buffer = self._buffer
        if now_s - self._heard_s > BYTE_TIMEOUT_S:
            buffer.clear()
        self._heard_s = now_s
        buffer.append(byte)
        if len(buffer) <= 2 and byte != 0xFF:
            buffer.clear()
        if len(buffer) == 3 and byte == 0xFF:
            del buffer[0]  # no id is 255: the header begins one byte later
        if len(buffer) < 4:
            return None
        length = buffer[3]
        if not _SHORTEST_LENGTH <= length <= _LONGEST_LENGTH:
            buffer.clear()
            return None
        if len(buffer) < 4 + length:
            return None
        frame = bytes(buffer)
        buffer.clear()
        if sum(frame[2:]) & 0xFF != 0xFF:
            return None
        return Request(frame[2], frame[4], frame[5:-1])


class FeetechWire(HalfDuplex[FeetechServo, Request]):
    """All traffic of one bus."""

    def __init__(self, servos: Sequence[FeetechServo], baud_rate: int, *, usb_latency_s: float):
        """Connect servos; arguments as for `HalfDuplex`."""
        super().__init__(servos, baud_rate, Receiver(), usb_latency_s=usb_latency_s)

    def _receive(self, packet: Request, baud_rate: int, now_s: float) -> None:
        self._listen(baud_rate, now_s)
        for servo in self._listening:
            servo.hear(now_s)
        parameters = packet.parameters
        match packet.instruction:
            case Instruction.SYNC_READ:
                if len(parameters) > 2:
                    address, length, *ids = parameters
                    self._answer_in_turn(ids, address, length, now_s)
            case Instruction.SYNC_WRITE:
                for id, address, data in _write_jobs(parameters):
                    if servo := self._find(id):
                        servo.write(address, data)
            case Instruction.PING if packet.id == BROADCAST_ID:
                for servo in self._listening:
                    slot_s = now_s + servo.id * PING_SLOT_S
                    self._transmit(servo.ping().encode(), slot_s + servo.return_delay_s)
            case instruction if packet.id == BROADCAST_ID:
                for servo in self._listening:
                    _execute(servo, instruction, parameters)
            case instruction:
                if servo := self._find(packet.id):
                    answers = servo.answers_writes
                    answers |= instruction in (Instruction.PING, Instruction.READ)
                    delay_s = servo.return_delay_s
                    status = _execute(servo, instruction, parameters)
                    if status and answers:
                        self._transmit(status.encode(), now_s + delay_s)

    def _answer_in_turn(self, ids: list[int], address: int, length: int, now_s: float) -> None:
        """The first of `ids` answers, the rest when it has spoken; silence ends the chain."""
        if (servo := self._find(ids[0])) and servo.SYNC_READS:
            reply = servo.read(address, length).encode()
            end_s = self._transmit(reply, now_s + servo.return_delay_s)
            if rest := ids[1:]:
                self._at(end_s, partial(self._answer_in_turn, rest, address, length))


def _execute(servo: FeetechServo, instruction: int, parameters: bytes) -> Status | None:
    """Let one servo carry out an instruction; None for one that it can make nothing of."""
    match instruction:
        case Instruction.PING:
            return servo.ping()
        case Instruction.READ if len(parameters) == 2:
            return servo.read(*parameters)
        case Instruction.WRITE if len(parameters) > 1:
            return servo.write(parameters[0], parameters[1:])
        case Instruction.REG_WRITE if len(parameters) > 1:
            return servo.reg_write(parameters[0], parameters[1:])
        case Instruction.ACTION:
            return servo.action()
    return None


def _write_jobs(parameters: bytes) -> list[tuple[int, int, bytes]]:
    """Id, address and data of each servo in a sync write; a torn last item is dropped."""
    if len(parameters) < 2:
        return []
    address, length = parameters[:2]
    items = parameters[2:]
    return [
        (items[start], address, items[start + 1 : start + 1 + length])
        for start in range(0, len(items) - length, length + 1)
    ]
