"""BNO055 over UART: 115200 baud, asked for registers, answered without any check sum.

    AA 01 register length   ->   BB length data...   or   EE status

Bosch data sheet BST-BNO055-DS000-14, sections 3.6.5, 4.3 and 4.7. One request reads the gyroscope
(14, 1/16 °/s) up to the gravity vector (2E, 0.01 m/s², +z when level). Status 07, "bus over-run",
is common and means: ask again. A reading takes 3.3 ms and new values come at 100 Hz. Values must be
plausible, since nothing else protects them: gravity as long as it should be, the quaternion too.
"""

import math
import struct
from collections.abc import Iterator
from enum import IntEnum

from deploy.imu.sample import Sample, unit

CHIP_ID = 0xA0
CHIP_ID_REGISTER, OPERATION_MODE, UNITS = 0x00, 0x3D, 0x3B
CONFIGURE, IMU = 0x00, 0x08
"""Operation modes; in IMU mode gyroscope and accelerometer are fused, without the magnetometer."""
DEFAULT_UNITS = 0x00
"""m/s², °/s, degrees."""
BLOCK, BLOCK_LENGTH = 0x14, 0x34 - 0x14
MODE_CHANGE_S = 0.025
_ANSWER, _STATUS = 0xBB, 0xEE
_GYRO = math.radians(1 / 16)
_STANDARD_GRAVITY = 980.665


class Response(IntEnum):
    """What EE is followed by."""

    WRITTEN = 0x01
    READ_FAILED = 0x02
    WRITE_FAILED = 0x03
    INVALID_ADDRESS = 0x04
    WRITE_DISABLED = 0x05
    WRONG_START = 0x06
    BUS_OVER_RUN = 0x07
    TOO_LONG = 0x08
    TOO_SHORT = 0x09
    CHARACTER_TIMEOUT = 0x0A


def read(register: int, length: int) -> bytes:
    """Request to read registers."""
    return bytes([0xAA, 0x01, register, length])


def write(register: int, value: int) -> bytes:
    """Request to write one register."""
    return bytes([0xAA, 0x00, register, 0x01, value])


def parse(data: bytes, length: int) -> tuple[bytes | Response | None, int]:
    """The first answer in `data`.

    Args:
        data: what was received.
        length: bytes that were asked for; 0 after a write.

    Returns:
        The registers, a status, or None if no answer is complete; and how many bytes are done with.
    """
    at = 0
    while at + 1 < len(data):
        kind, second = data[at], data[at + 1]
        if kind == _STATUS and second in _RESPONSES:
            return Response(second), at + 2
        if kind == _ANSWER and length and second == length:
            end = at + 2 + length
            return (data[at + 2 : end], end) if end <= len(data) else (None, at)
        at += 1
    keep = at < len(data) and data[at] in (_ANSWER, _STATUS)
    return None, at if keep else len(data)


_RESPONSES = frozenset(Response)


class Bno055Decoder:
    """See `deploy.imu.sample.Decoder`; for answers to `read(BLOCK, BLOCK_LENGTH)`."""

    def __init__(self) -> None:
        self.damaged = self.lost = self.restarts = 0
        self.refused = 0
        """Answers that were only a status."""
        self._rest = b""

    def feed(self, received: bytes | memoryview) -> Iterator[Sample]:
        """The samples that `received` completes."""
        self._rest += bytes(received)
        while True:
            answer, done = parse(self._rest, BLOCK_LENGTH)
            self._rest = self._rest[done:]
            if answer is None:
                return
            if isinstance(answer, Response):
                self.refused += 1
                continue
            sample = decode_block(answer)
            if sample is None:
                self.damaged += 1
            else:
                yield sample


def decode_block(block: bytes) -> Sample | None:
    """Registers 14 to 33; None if they cannot be true."""
    x, y, z = struct.unpack_from("<3h", block, 0x14 - BLOCK)
    quaternion = struct.unpack_from("<4h", block, 0x20 - BLOCK)
    up = struct.unpack_from("<3h", block, 0x2E - BLOCK)
    down = unit((-up[0], -up[1], -up[2]), 0.95 * _STANDARD_GRAVITY, 1.05 * _STANDARD_GRAVITY)
    if down is None or not 0.95 < math.hypot(*quaternion) / 16384 < 1.05:
        return None
    return Sample((x * _GYRO, y * _GYRO, z * _GYRO), down, block)
