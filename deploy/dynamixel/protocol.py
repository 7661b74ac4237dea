"""DYNAMIXEL Protocol 2.0 as pure functions on bytes: no port, no clock, no meaning of registers.

    FF FF FD 00 | id | length (2) | instruction | parameters ... | CRC-16 (2)

    protocol.read(1, 132, 4)                 # the bytes to send
    parser.feed(received)                    # -> [Packet(id, instruction, parameters), ...]
    Status.from_packet(packet)               # a reply: data, error code, alert bit

Length counts the bytes after it; numbers are little-endian. Wherever FF FF FD occurs between the
length and the CRC, an FD is stuffed behind it, so a header never appears inside a packet. The one
exception is the merged reply to a fast read: it is not stuffed, only its length delimits it.
Source: eManual, "DYNAMIXEL Protocol 2.0", https://emanual.robotis.com/docs/en/dxl/protocol2/
"""

import struct
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Self

from deploy.dynamixel.crc import crc16
from deploy.packets import PacketStream

HEADER = b"\xff\xff\xfd\x00"
BROADCAST_ID: int = 0xFE
MAX_LENGTH = 1024
"""Longest plausible length field (the packet limit of ROBOTIS' DynamixelSDK)."""
STATUS_OVERHEAD: int = 11
"""Bytes of a status packet around its data."""

IDENTITY_SIZE: int = 3
"""Bytes of data in the reply to `identify`."""
SPARE_BEFORE: bool = False
"""See `deploy.servos.bus.Codec`: behind the present position lie more registers."""

HEADER_MARK = HEADER[:3]
"""What parameters may contain only with an FD stuffed behind it."""

_STUFFED = HEADER_MARK + b"\xfd"
_ALERT_BIT = 0x80


class Instruction(IntEnum):
    """Instruction field of a packet; STATUS marks a reply."""

    PING = 0x01
    READ = 0x02
    WRITE = 0x03
    REG_WRITE = 0x04
    ACTION = 0x05
    FACTORY_RESET = 0x06
    REBOOT = 0x08
    CLEAR = 0x10
    STATUS = 0x55
    SYNC_READ = 0x82
    SYNC_WRITE = 0x83
    FAST_SYNC_READ = 0x8A
    BULK_READ = 0x92
    BULK_WRITE = 0x93
    FAST_BULK_READ = 0x9A


class FactoryReset(IntEnum):
    """What a factory reset resets."""

    ALL = 0xFF
    ALL_BUT_ID = 0x01
    ALL_BUT_ID_AND_BAUD_RATE = 0x02


class ErrorCode(IntEnum):
    """Why a servo refused an instruction: bits 0..6 of a status packet's error byte."""

    RESULT_FAIL = 1
    INSTRUCTION = 2
    CRC = 3
    DATA_RANGE = 4
    DATA_LENGTH = 5
    DATA_LIMIT = 6
    ACCESS = 7


DAMAGED: int = ErrorCode.CRC
"""What a servo answers to a damaged request."""
_ERROR_MESSAGES: dict[int, str] = {
    ErrorCode.RESULT_FAIL: "it could not process the instruction",
    ErrorCode.INSTRUCTION: "it does not know the instruction, or got an action without a reg write",
    ErrorCode.CRC: "the instruction arrived damaged; check cable and baud rate",
    ErrorCode.DATA_RANGE: "the value is out of range, or the bus watchdog tripped: write 0 to it",
    ErrorCode.DATA_LENGTH: "the data is shorter than the register",
    ErrorCode.DATA_LIMIT: "the value is beyond the limit registers; stay within or widen them",
    ErrorCode.ACCESS: "the register is read-only, or in EEPROM: switch torque off first",
}


def error_message(code: int) -> str:
    """An error code in words, with its number."""
    return f"error {code}: {_ERROR_MESSAGES.get(code, 'unknown to this protocol version')}"


@dataclass(frozen=True, slots=True)
class Packet:
    """A packet whose CRC was right; parameters are free of stuffing."""

    id: int
    instruction: int
    parameters: bytes = b""

    def encode(self) -> bytes:
        """The bytes on the wire: stuffed, with header and CRC."""
        body = (bytes([self.instruction]) + self.parameters).replace(HEADER_MARK, _STUFFED)
        frame = HEADER + struct.pack("<BH", self.id, len(body) + 2) + body
        return frame + struct.pack("<H", crc16(frame))


@dataclass(frozen=True, slots=True)
class Status:
    """A servo's reply."""

    id: int
    data: bytes = b""
    error: int = 0
    """0, or an `ErrorCode`."""
    alert: bool = False
    """The servo's Hardware Error Status is not zero; the data is valid all the same."""

    @classmethod
    def from_packet(cls, packet: Packet) -> Self:
        """Read a packet whose instruction is STATUS (not a merged one)."""
        error, data = packet.parameters[0], packet.parameters[1:]
        return cls(packet.id, data, error & ~_ALERT_BIT, bool(error & _ALERT_BIT))

    @property
    def error_byte(self) -> int:
        """Error code and alert bit as sent."""
        return self.error | (_ALERT_BIT if self.alert else 0)

    def encode(self) -> bytes:
        """The bytes on the wire."""
        return Packet(self.id, Instruction.STATUS, bytes([self.error_byte]) + self.data).encode()


def merge(statuses: Sequence[Status]) -> bytes:
    """The one reply of several servos to a fast read.

    Each servo appends `error | id | data | CRC`, the CRC running over everything since the
    header, the earlier CRCs included.
    """
    length = 1 + sum(len(status.data) + 4 for status in statuses)
    frame = bytearray(HEADER + struct.pack("<BHB", BROADCAST_ID, length, Instruction.STATUS))
    crc, end = 0, 0
    for status in statuses:
        frame += bytes([status.error_byte, status.id]) + status.data
        crc, end = crc16(frame[end:], crc), len(frame)
        frame += struct.pack("<H", crc)
    return bytes(frame)


def split(packet: Packet, length: int) -> list[Status]:
    """What each servo says in a merged reply with `length` bytes of data each; see `merge`."""
    blocks = packet.parameters + bytes(2)  # the last CRC is the packet's own
    return [
        Status(block[1], block[2:-2], block[0] & ~_ALERT_BIT, bool(block[0] & _ALERT_BIT))
        for start in range(0, len(blocks) - length - 3, length + 4)
        for block in [blocks[start : start + length + 4]]
    ]


def ping(id: int = BROADCAST_ID) -> bytes:
    """Ask for model number (2 bytes) and firmware version (1)."""
    return Packet(id, Instruction.PING).encode()


identify = ping


def identity(data: bytes) -> tuple[int, int]:
    """Model number and firmware version in the reply to a ping."""
    return int.from_bytes(data[:2], "little"), data[2]


def read(id: int, address: int, length: int) -> bytes:
    """Ask for `length` bytes from `address`."""
    return Packet(id, Instruction.READ, struct.pack("<HH", address, length)).encode()


def write(id: int, address: int, data: bytes) -> bytes:
    """Write `data` from `address`; to BROADCAST_ID nobody answers."""
    return Packet(id, Instruction.WRITE, struct.pack("<H", address) + data).encode()


def reg_write(id: int, address: int, data: bytes) -> bytes:
    """As `write`, but held back until `action`."""
    return Packet(id, Instruction.REG_WRITE, struct.pack("<H", address) + data).encode()


def action(id: int = BROADCAST_ID) -> bytes:
    """Carry out what `reg_write` prepared."""
    return Packet(id, Instruction.ACTION).encode()


def factory_reset(id: int, what: FactoryReset) -> bytes:
    """Put registers back to their factory values."""
    return Packet(id, Instruction.FACTORY_RESET, bytes([what])).encode()


def reboot(id: int) -> bytes:
    """Restart the servo: the only way out of a tripped shutdown besides cutting its power."""
    return Packet(id, Instruction.REBOOT).encode()


def clear_turns(id: int) -> bytes:
    """Bring the multi-turn Present Position back into one turn."""
    return Packet(id, Instruction.CLEAR, bytes.fromhex("01 44 58 4C 22")).encode()


def sync_read(ids: Sequence[int], address: int, length: int, *, fast: bool = False) -> bytes:
    """Ask several servos for the same bytes; fast: for one merged reply."""
    instruction = Instruction.FAST_SYNC_READ if fast else Instruction.SYNC_READ
    parameters = struct.pack("<HH", address, length) + bytes(ids)
    return Packet(BROADCAST_ID, instruction, parameters).encode()


def sync_write(address: int, length: int, data: Mapping[int, bytes]) -> bytes:
    """Write `length` bytes to the same address of several servos ({id: bytes}); unanswered."""
    parameters = struct.pack("<HH", address, length)
    parameters += b"".join(bytes([id]) + values for id, values in data.items())
    return Packet(BROADCAST_ID, Instruction.SYNC_WRITE, parameters).encode()


def bulk_read(items: Iterable[tuple[int, int, int]], *, fast: bool = False) -> bytes:
    """Ask each servo for its own (id, address, length); fast: for one merged reply."""
    instruction = Instruction.FAST_BULK_READ if fast else Instruction.BULK_READ
    parameters = b"".join(struct.pack("<BHH", *item) for item in items)
    return Packet(BROADCAST_ID, instruction, parameters).encode()


def bulk_write(items: Iterable[tuple[int, int, bytes]]) -> bytes:
    """Write to each servo its own (id, address, data); unanswered."""
    parameters = b"".join(
        struct.pack("<BHH", id, address, len(data)) + data for id, address, data in items
    )
    return Packet(BROADCAST_ID, Instruction.BULK_WRITE, parameters).encode()


class PacketParser(PacketStream[Packet]):
    """Cuts a stream of bytes into packets, whatever pieces it arrives in.

    What counts is a plausible length and a right CRC. A merged reply comes out as one packet, id
    BROADCAST_ID, not unstuffed.
    """

    def __init__(self, max_length: int = MAX_LENGTH) -> None:
        super().__init__(HEADER, self._size_of, _decode)
        self._max_length = max_length

    def _size_of(self, buffer: bytearray) -> int | None:
        if len(buffer) < 8:
            return None
        id, length, instruction = struct.unpack_from("<BHB", buffer, 4)
        shortest = 4 if instruction == Instruction.STATUS else 3
        plausible = id <= BROADCAST_ID and shortest <= length <= self._max_length
        return 7 + length if plausible else 0


def _decode(frame: bytes) -> Packet | None:
    if crc16(frame[:-2]) != int.from_bytes(frame[-2:], "little"):
        return None
    id, instruction, parameters = frame[4], frame[7], frame[8:-2]
    merged = id == BROADCAST_ID and instruction == Instruction.STATUS
    return Packet(
        id, instruction, parameters if merged else parameters.replace(_STUFFED, HEADER_MARK)
    )


def parser(max_length: int | None = None, request: bytes = b"") -> PacketParser:
    """A parser; an echo of `request` is no status, so it needs not be known."""
    return PacketParser(max_length or MAX_LENGTH)


def longest_status(length: int) -> int:
    """Length field of an intact status with `length` bytes of data, at most: with stuffing."""
    return 4 + length + length // 3


def is_reply(packet: Packet) -> bool:
    """Whether a packet is a servo's."""
    return packet.instruction == Instruction.STATUS


def statuses(packet: Packet, merged_length: int) -> list[Status]:
    """What servos say in a packet; nothing in one that is no reply, such as an echo."""
    if not is_reply(packet):
        return []
    if packet.id == BROADCAST_ID:
        return split(packet, merged_length) if merged_length else []
    return [Status.from_packet(packet)]
