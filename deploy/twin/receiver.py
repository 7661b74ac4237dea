"""How a servo cuts what it hears into requests.

Written for the twin alone, so that a fault in the host's parser cannot hide behind the same fault
here.

    receiver = Receiver()
    for byte in data:
        if request := receiver.feed(byte, now_s):
            ...                      # request.sound: its CRC was right

As the eManual describes it ("DYNAMIXEL Protocol 2.0", Processing Order of Reception): find FF FF FD
00, take as many bytes as the length says, check the CRC, then remove the stuffing. A packet that
pauses is given up after `BYTE_TIMEOUT_S`, or a damaged length would swallow the requests behind it;
ROBOTIS publishes no number, so this one is assumed.
"""

import struct
from dataclasses import dataclass

from deploy.dynamixel.crc import crc16

BYTE_TIMEOUT_S = 0.01
"""Longest pause between two bytes of a packet."""
LONGEST_PACKET = 1024
"""Receive buffer of a servo; assumed, as long as the one of ROBOTIS' DynamixelSDK."""

_HEADER = b"\xff\xff\xfd\x00"
_LENGTH_AT, _INSTRUCTION_AT = 5, 7
_SHORTEST_LENGTH = 3  # instruction and CRC


@dataclass(frozen=True, slots=True)
class Request:
    """A complete packet as a servo has understood it."""

    id: int
    instruction: int
    parameters: bytes
    sound: bool
    """Its CRC was right; otherwise nothing of it can be relied on."""


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
        if len(buffer) <= len(_HEADER):
            while not _HEADER.startswith(buffer):  # the empty one is the start of anything
                del buffer[0]
            return None
        if len(buffer) < _INSTRUCTION_AT:
            return None
        (length,) = struct.unpack_from("<H", buffer, _LENGTH_AT)
        if not _SHORTEST_LENGTH <= length <= LONGEST_PACKET - _INSTRUCTION_AT:
            buffer.clear()
            return None
        if len(buffer) < _INSTRUCTION_AT + length:
            return None
        frame = bytes(buffer)
        buffer.clear()
        return Request(
            id=frame[4],
            instruction=frame[_INSTRUCTION_AT],
            parameters=frame[_INSTRUCTION_AT + 1 : -2].replace(
                b"\xff\xff\xfd\xfd", b"\xff\xff\xfd"
            ),
            sound=crc16(frame[:-2]) == int.from_bytes(frame[-2:], "little"),
        )
