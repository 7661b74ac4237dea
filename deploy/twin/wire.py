"""The bus between host and DYNAMIXEL servos: who says what, and when; see `half_duplex`.

A servo answers its Return Delay Time after the end of the request; in a sync or bulk read it waits
for the one before it in the list instead, so an absent one silences all behind it (DynamixelSDK
#331). In a fast read the blocks follow each other without a pause after the first servo's delay.
A servo hears and is heard only at its own baud rate. A damaged request is answered with a CRC error
by the servo it names.
"""

import struct
from collections.abc import Sequence
from functools import partial

from deploy.dynamixel.protocol import (
    BROADCAST_ID,
    ErrorCode,
    Instruction,
    Status,
    merge,
)
from deploy.twin.half_duplex import HalfDuplex
from deploy.twin.imu_slave import ImuSlave
from deploy.twin.receiver import Receiver, Request
from deploy.twin.servo import Servo

PING_SLOT_S = 0.003
"""In a broadcast ping each id has its own time to answer (DynamixelSDK waits 3 ms per id)."""

_MERGED_HEADER_SIZE = 8

ReadJob = tuple[int, int, int]
"""Id, address, length."""


Member = Servo | ImuSlave


class Wire(HalfDuplex[Member, Request]):
    """All traffic of one bus with Protocol 2.0."""

    def __init__(self, servos: Sequence[Member], baud_rate: int, *, usb_latency_s: float):
        """Connect servos; arguments as for `HalfDuplex`."""
        super().__init__(servos, baud_rate, Receiver(), usb_latency_s=usb_latency_s)

    def _receive(self, packet: Request, baud_rate: int, now_s: float) -> None:
        """A request has arrived at the servos."""
        self._listen(baud_rate, now_s)
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
            if not (servo and servo.reads_fast and servo.answers(Instruction.READ)):
                break
            if index == 0:
                end, delay_s = _MERGED_HEADER_SIZE, servo.return_delay_s
            status = servo.read(address, length)
            blocks[index] = Status(id, status.data or bytes(length), status.error, status.alert)
            end += length + 4
        if end:
            self._transmit(merge(blocks)[:end], now_s + delay_s)


def _execute(servo: Member, instruction: int, parameters: bytes) -> Status:
    """Let one servo carry out an instruction that concerns it alone."""
    address, data = int.from_bytes(parameters[:2], "little"), parameters[2:]
    match instruction:
        case Instruction.PING:
            return servo.ping()
        case Instruction.READ:
            return servo.read(address, int.from_bytes(data, "little"))
        case Instruction.WRITE:
            return servo.write(address, data)
        case _ if isinstance(servo, ImuSlave):
            pass
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
