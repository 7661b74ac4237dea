"""WitMotion sensors of the standard protocol (WT901, JY901, HWT905; also sold as HiWonder IM10A).

    55 | type | 4 × i16 | sum            51 acceleration, 52 angular velocity, 53 angles

Little-endian; 16 g, 2000°/s and 180° are 32768. WT901 data sheet v20-0702, section 5.1. Angles turn
about z, then y, then x. The sensor ships at 9600 baud and 10 Hz, too slow for any control: raise
both with the maker's program, or with `configuration`, once. A sample is complete when 52 and 53
have come; 51 is used to check the axes, if it comes.
"""

import math
import struct
from collections.abc import Iterator

from deploy.imu.sample import Sample, Vector
from deploy.packets import fixed_size

LENGTH = 11
ACCELERATION, ANGULAR_VELOCITY, ANGLES = 0x51, 0x52, 0x53
RATES = {10: 0x06, 20: 0x07, 50: 0x08, 100: 0x09, 200: 0x0B}
"""Register 03 for each rate [Hz]."""
BAUD_RATES = {9600: 0x02, 115200: 0x06, 230400: 0x07, 460800: 0x08}
"""Register 04."""
_GYRO = math.radians(2000) / 32768
_ANGLE = math.pi / 32768
_FORCE = 16 / 32768


def configuration(rate_hz: int, baud_rate: int) -> list[bytes]:
    """What to send, 0.2 s apart: unlock, output 51 to 53, rate, baud rate, save."""
    return [
        bytes.fromhex("FFAA6988B5"),
        bytes([0xFF, 0xAA, 0x02, 0x0E, 0x00]),
        bytes([0xFF, 0xAA, 0x03, RATES[rate_hz], 0x00]),
        bytes([0xFF, 0xAA, 0x04, BAUD_RATES[baud_rate], 0x00]),
        bytes.fromhex("FFAA000000"),
    ]


def sound(packet: bytes) -> bool:
    """Whether the type is one of theirs, and the sum is right."""
    return 0x50 <= packet[1] <= 0x5F and sum(packet[:10]) & 0xFF == packet[10]


class WitMotionDecoder:
    """See `deploy.imu.sample.Decoder`."""

    def __init__(self) -> None:
        self.lost = self.restarts = 0
        self._packets = fixed_size(b"\x55", LENGTH, sound)
        self._force: tuple[Vector, bytes] | None = None
        self._gyro: tuple[Vector, bytes] | None = None

    @property
    def damaged(self) -> int:
        """Marks without a sound packet."""
        return self._packets.crc_errors

    def feed(self, received: bytes | memoryview) -> Iterator[Sample]:
        """The samples that `received` completes."""
        for packet in self._packets.feed(received):
            x, y, z = struct.unpack_from("<3h", packet, 2)
            content = packet[2:8]
            if packet[1] == ACCELERATION:
                self._force = (x * _FORCE, y * _FORCE, z * _FORCE), content
            elif packet[1] == ANGULAR_VELOCITY:
                self._gyro = (x * _GYRO, y * _GYRO, z * _GYRO), content
            elif packet[1] == ANGLES and self._gyro is not None:
                force, felt = self._force or (None, b"")
                down = gravity(x * _ANGLE, y * _ANGLE)
                yield Sample(self._gyro[0], down, self._gyro[1] + content + felt, force)
                self._gyro = self._force = None


def gravity(roll: float, pitch: float) -> Vector:
    """Unit vector that points down, for angles about x and y [rad]."""
    return (
        math.sin(pitch),
        -math.sin(roll) * math.cos(pitch),
        -math.cos(roll) * math.cos(pitch),
    )
