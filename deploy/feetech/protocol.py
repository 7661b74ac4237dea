"""The protocol of Feetech's servos as pure functions on bytes, a `servos.codec.Codec`.

    FF FF | id | length | instruction, or error in a reply | parameters ... | checksum

    protocol.read(1, 56, 2)                  # the bytes to send
    parser.feed(received)                    # -> [Packet(id, code, parameters), ...]

Length counts the bytes after it; the checksum is the inverted sum of all between header and itself.
Nothing is stuffed, and a reply looks like a request: an adapter's echo of what was sent is told by
being the same bytes. One byte of checksum lets one damaged frame in 256 pass, so whoever uses what
comes asks whether it can be true (`deploy.feetech.device`). Frames of STS, SMS and SCS are alike;
numbers in registers are not (`deploy.feetech.registers`, `scs_registers`). Source: Feetech's own
SDK, https://github.com/ftservo/FTServo_Python, with which all frames here are compared.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum

from deploy.packets import PacketStream

HEADER = b"\xff\xff"
BROADCAST_ID: int = 0xFE
MAX_LENGTH = 250
"""Longest plausible length field (the buffers of Feetech's SDK)."""
STATUS_OVERHEAD: int = 6
IDENTITY_SIZE: int = 5
SPARE_BEFORE: bool = True
"""See `servos.codec.Codec`: goals and limits lie before the present position, nothing behind it."""
DAMAGED: int = -1
"""A servo is silent when a request is damaged."""
LARGEST_ERROR = 0x7F

_ID, _LENGTH, _CODE = 2, 3, 4
_SHORTEST_LENGTH = 2


class Instruction(IntEnum):
    """What a request asks for."""

    PING = 0x01
    READ = 0x02
    WRITE = 0x03
    REG_WRITE = 0x04
    ACTION = 0x05
    RESET = 0x0A
    SYNC_READ = 0x82
    SYNC_WRITE = 0x83


@dataclass(frozen=True, slots=True)
class Packet:
    """A packet whose checksum was right."""

    id: int
    code: int
    """The instruction of a request, the error byte of a reply."""
    parameters: bytes = b""

    def encode(self) -> bytes:
        """The bytes on the wire."""
        body = bytes([self.id, len(self.parameters) + 2, self.code]) + self.parameters
        return HEADER + body + bytes([checksum(body)])


@dataclass(frozen=True, slots=True)
class Status:
    """A servo's reply."""

    id: int
    data: bytes = b""
    faults: int = 0
    """What the servo complains about (`deploy.feetech.registers.Fault`); the data is valid."""

    @property
    def error(self) -> int:
        """0: these servos answer what they obey, or not at all."""
        return 0

    @property
    def alert(self) -> bool:
        """The servo complains."""
        return self.faults != 0

    def encode(self) -> bytes:
        """The bytes on the wire."""
        return Packet(self.id, self.faults, self.data).encode()


def checksum(body: bytes | bytearray | memoryview) -> int:
    """Of all bytes between header and checksum."""
    return ~sum(body) & 0xFF


def identify(id: int) -> bytes:
    """Ask what a servo is: firmware, byte order and model lie at the start of its table.

    Its ping says nothing but that it is there, in the very bytes of the request's echo.
    """
    return read(id, 0, IDENTITY_SIZE)


def identity(data: bytes) -> tuple[int, int]:
    """Model number, and firmware version times 100, in the reply, which tells its byte order."""
    byte_order = "big" if data[2] else "little"
    return int.from_bytes(data[3:5], byte_order), 100 * data[0] + data[1]


def ping(id: int) -> bytes:
    """Ask whether a servo is there; at BROADCAST_ID all answer."""
    return Packet(id, Instruction.PING).encode()


def read(id: int, address: int, length: int) -> bytes:
    """Ask for `length` bytes from `address`."""
    return Packet(id, Instruction.READ, bytes([address, length])).encode()


def write(id: int, address: int, data: bytes) -> bytes:
    """Write `data` from `address`; to BROADCAST_ID nobody answers."""
    return Packet(id, Instruction.WRITE, bytes([address]) + data).encode()


def reg_write(id: int, address: int, data: bytes) -> bytes:
    """As `write`, but held back until `action`."""
    return Packet(id, Instruction.REG_WRITE, bytes([address]) + data).encode()


def action(id: int = BROADCAST_ID) -> bytes:
    """Carry out what `reg_write` prepared."""
    return Packet(id, Instruction.ACTION).encode()


def sync_read(ids: Sequence[int], address: int, length: int, *, fast: bool = False) -> bytes:
    """Ask several servos for the same bytes; each sends a reply of its own, `fast` or not.

    One alone is just asked: the reply is the same, and SCS servos know no sync read.
    """
    if len(ids) == 1:
        return read(ids[0], address, length)
    return Packet(BROADCAST_ID, Instruction.SYNC_READ, bytes([address, length, *ids])).encode()


def sync_write(address: int, length: int, data: Mapping[int, bytes]) -> bytes:
    """Write `length` bytes to the same address of several servos ({id: bytes}); unanswered."""
    items = b"".join(bytes([id]) + values for id, values in data.items())
    parameters = bytes([address, length]) + items
    return Packet(BROADCAST_ID, Instruction.SYNC_WRITE, parameters).encode()


class PacketParser(PacketStream[Packet]):
    """Cuts a stream of bytes into packets, whatever pieces it arrives in.

    What counts is a plausible id and length and a right checksum. An echo of `request` is left out,
    once.
    """

    def __init__(self, max_length: int = MAX_LENGTH, request: bytes = b"") -> None:
        super().__init__(HEADER, self._size_of, _decode)
        self._max_length, self._request = max_length, request

    def feed(self, data: bytes | bytearray | memoryview) -> list[Packet]:
        """Append received bytes and return the packets they complete."""
        packets = super().feed(data)
        if self._request and (echo := _decode(self._request)) in packets:
            packets.remove(echo)
            self._request = b""
        return packets

    def _size_of(self, buffer: bytearray) -> int | None:
        request = self._request
        if request and request.startswith(buffer[: len(request)]):
            return len(request)
        if len(buffer) <= _CODE:
            return None
        id, length, code = buffer[_ID : _CODE + 1]
        plausible = (
            id <= BROADCAST_ID
            and _SHORTEST_LENGTH <= length <= self._max_length
            and (id == BROADCAST_ID or code <= LARGEST_ERROR)
        )
        return _CODE + length if plausible else 0


def _decode(frame: bytes) -> Packet | None:
    if frame[-1] != checksum(frame[_ID:-1]):
        return None
    return Packet(frame[_ID], frame[_CODE], frame[_CODE + 1 : -1])


def parser(max_length: int | None = None, request: bytes = b"") -> PacketParser:
    """A parser of what comes after `request` was sent, whose echo is skipped."""
    return PacketParser(max_length or MAX_LENGTH, request)


def longest_status(length: int) -> int:
    """Length field of a status with `length` bytes of data."""
    return _SHORTEST_LENGTH + length


def is_reply(packet: Packet) -> bool:
    """Whether a packet is a servo's."""
    return packet.id != BROADCAST_ID


def statuses(packet: Packet, merged_length: int) -> list[Status]:
    """What a servo says in a packet; nothing in one to all, such as an echo."""
    return [Status(packet.id, packet.parameters, packet.code)] if is_reply(packet) else []


def error_message(code: int) -> str:
    """An error code in words; there are none."""
    return f"error {code}"
