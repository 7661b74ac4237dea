"""BNO080, BNO085 and BNO086 in UART-RVC mode: 115200 baud, 100 Hz, the host only listens.

    AA AA | index | yaw pitch roll | x y z acceleration | 00 00 00 | sum

Little-endian, angles in 0.01°, accelerations in mg; BNO080 data sheet 1000-3927, section 1.3.5.2.
Its text turns pitch about y and roll about x. Its example disagrees, and decides here: pitch -1.10°
and roll 20.85° come with -371, -20 and 977 mg, which is yaw about z, then pitch about x, then roll
about y, to a tenth of a degree. `deploy.imu.device` compares angles and accelerations at start.

There is no gyro in this mode. The angular velocity is how far the orientation has turned between
two packets: 5 ms old on average when it comes, in steps of 1°/s. Enough to watch for a fall, poor
for balancing; use SHTP for that.
"""

import math
import struct
from collections.abc import Iterator

from deploy.imu.sample import Quaternion, Sample, turn_between
from deploy.packets import fixed_size

PERIOD_S = 0.01
LENGTH = 19
_GAP = 5
"""Packets lost in a row after which a difference says too little."""
_BODY = struct.Struct("<2xB6h4x")
_RAD = math.radians(0.01)


def sound(packet: bytes) -> bool:
    """Whether the sum is right."""
    return sum(packet[2:18]) & 0xFF == packet[18]


class RvcDecoder:
    """See `deploy.imu.sample.Decoder`; the banner at power-on is skipped."""

    def __init__(self) -> None:
        self.lost = self.restarts = 0
        self._packets = fixed_size(b"\xaa\xaa", LENGTH, sound)
        self._index = 0
        self._orientation: Quaternion | None = None

    @property
    def damaged(self) -> int:
        """Headers without a sound packet."""
        return self._packets.crc_errors

    def feed(self, received: bytes | memoryview) -> Iterator[Sample]:
        """The samples that `received` completes, from the second packet on."""
        for packet in self._packets.feed(received):
            index, yaw, pitch, roll, x, y, z = _BODY.unpack(packet)
            orientation = quaternion(yaw * _RAD, pitch * _RAD, roll * _RAD)
            before, self._orientation = self._orientation, orientation
            passed = (index - self._index) & 0xFF
            self._index = index
            if before is None:
                continue
            self.lost += max(passed - 1, 0)
            if not 0 < passed <= _GAP:
                continue
            turned, elapsed_s = turn_between(before, orientation), passed * PERIOD_S
            yield Sample(
                (turned[0] / elapsed_s, turned[1] / elapsed_s, turned[2] / elapsed_s),
                gravity(pitch * _RAD, roll * _RAD),
                packet[3:15],
                (x * 1e-3, y * 1e-3, z * 1e-3),
            )


def gravity(pitch: float, roll: float) -> tuple[float, float, float]:
    """Unit vector that points down, for angles [rad]."""
    return (
        math.sin(roll) * math.cos(pitch),
        -math.sin(pitch),
        -math.cos(roll) * math.cos(pitch),
    )


def quaternion(yaw: float, pitch: float, roll: float) -> Quaternion:
    """Orientation: yaw about z, then pitch about x, then roll about y [rad]."""
    cy, sy = math.cos(yaw / 2), math.sin(yaw / 2)
    cp, sp = math.cos(pitch / 2), math.sin(pitch / 2)
    cr, sr = math.cos(roll / 2), math.sin(roll / 2)
    return (
        cy * cp * cr - sy * sp * sr,
        cy * sp * cr - sy * cp * sr,
        cy * cp * sr + sy * sp * cr,
        cy * sp * sr + sy * cp * cr,
    )
