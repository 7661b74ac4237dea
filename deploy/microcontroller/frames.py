"""Frames of the microcontroller link: COBS and CRC-16 around a type, a number and a time.

    wire = encode_frame(MessageType.POLL, sequence, time_us)
    for frame in parser.feed(received):
        frame.type, frame.sequence, frame.time_us, frame.payload

The format is on one page, deploy/firmware/README.md. COBS (Cheshire and Baker, 1999) takes the
zeros out of a frame, so that a zero ends it: after garbage the next zero starts afresh, at the cost
of one frame at most. The CRC is CRC-16/CCITT-FALSE, whose check value of "123456789" is 0x29B1;
nothing of a frame counts before it is right.
"""

import binascii
import struct
from collections.abc import Iterator
from enum import IntEnum
from typing import NamedTuple

VERSION = 1
MAX_RAW = 253
"""Longest frame before COBS; below 254 bytes every COBS encoder gives the same bytes."""
MAX_PAYLOAD = MAX_RAW - 10

_HEAD = struct.Struct("<BBHI")
_CRC_START = 0xFFFF
_CODES = [bytes([code]) for code in range(256)]
_MAX_ENCODED = MAX_RAW + 1


class MessageType(IntEnum):
    """What a frame says; a type that is not listed is ignored."""

    HELLO = 0x01
    WELCOME = 0x02
    POLL = 0x03
    STATE = 0x10
    COMMAND = 0x20
    STOP = 0x30
    CLEAR = 0x31


class Frame(NamedTuple):
    """A frame that has passed its CRC."""

    type: int
    """A `MessageType`, or one of a later version."""
    sequence: int
    """The sender's count of frames, 16 bits."""
    time_us: int
    """The sender's clock when it was sent [us], 32 bits."""
    payload: memoryview


def encode_frame(type: int, sequence: int, time_us: int, payload: bytes = b"") -> bytes:
    """A frame as it goes on the wire, with the zero that ends it.

    Raises:
        ValueError: the payload is longer than `MAX_PAYLOAD`.
    """
    if len(payload) > MAX_PAYLOAD:
        raise ValueError(
            f"payload of {len(payload)} bytes, expected at most {MAX_PAYLOAD}; send fewer joints"
        )
    raw = _HEAD.pack(VERSION, type, sequence & 0xFFFF, time_us & 0xFFFFFFFF) + payload
    crc = binascii.crc_hqx(raw, _CRC_START).to_bytes(2, "little")
    return cobs_encode(raw + crc) + b"\0"


def cobs_encode(raw: bytes | bytearray) -> bytes:
    """COBS of fewer than 254 bytes, without the zero behind it."""
    return b"".join([_CODES[len(part) + 1] + part for part in raw.split(b"\0")])


def cobs_decode(encoded: bytes) -> bytes | None:
    """What `encoded`, which holds no zero, stands for; None if it is no COBS."""
    decoded = bytearray()
    at, size = 0, len(encoded)
    while at < size:
        code = encoded[at]
        end = at + code
        if not code or end > size:
            return None
        decoded += encoded[at + 1 : end]
        at = end
        if code < 0xFF and at < size:
            decoded.append(0)
    return bytes(decoded)


class FrameParser:
    """Cuts what is received into frames, however it is chopped up."""

    def __init__(self) -> None:
        self.damaged = 0
        """Blocks between zeros that were no frame: a wrong CRC, length or version, or no COBS."""
        self._rest = b""
        self._overlong = False

    def feed(self, received: bytes | bytearray | memoryview) -> Iterator[Frame]:
        """The frames that `received` completes."""
        *blocks, self._rest = (self._rest + bytes(received)).split(b"\0")
        for block in blocks:
            overlong, self._overlong = self._overlong, False
            if not block and not overlong:
                continue
            frame = None if overlong else decode_block(block)
            if frame is None:
                self.damaged += 1
            else:
                yield frame
        if len(self._rest) > _MAX_ENCODED:  # nothing to keep up to the next zero
            self._rest, self._overlong = b"", True


def decode_block(block: bytes) -> Frame | None:
    """The frame between two zeros of the wire; None if it is none."""
    raw = cobs_decode(block) if len(block) <= _MAX_ENCODED else None
    if raw is None or len(raw) < _HEAD.size + 2 or raw[0] != VERSION:
        return None
    if binascii.crc_hqx(raw[:-2], _CRC_START) != int.from_bytes(raw[-2:], "little"):
        return None
    _, type, sequence, time_us = _HEAD.unpack_from(raw)
    return Frame(type, sequence, time_us, memoryview(raw)[_HEAD.size : -2])
