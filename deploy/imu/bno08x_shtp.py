"""BNO080, BNO085 and BNO086 in UART-SHTP mode: 3 Mbaud, gyro and fused orientation.

    7E | 01 | length u16, channel, sequence | reports | 7E           7D escapes: 7D x is x ^ 20

BNO080 data sheet 1000-3927 (sections 1.3.3, 1.4, 5) and the SH-2 reference manual. The sensor sends
nothing until reports are set (`set_feature`), and takes bytes no closer than 100 us. We ask for the
calibrated gyroscope (02) and the game rotation vector (08), which needs no magnetometer; the
gyro-integrated rotation vector (2A) is understood too. Nothing protects a frame: lengths must fit,
and quaternions be of unit length.
"""

import struct
from collections.abc import Iterator

from deploy.imu.sample import Sample, Vector, gravity_of_quaternion

BYTE_GAP_S = 1e-4
GYROSCOPE, GAME_ROTATION, GYRO_ROTATION = 0x02, 0x08, 0x2A
COMMAND, EXECUTABLE, CONTROL, REPORTS, WAKE_REPORTS, GYRO_CHANNEL = range(6)
"""Channels."""
RESET = b"\x01"
"""To and from the executable channel: reset, and reset complete."""
PRODUCT_ID_REQUEST, PRODUCT_ID, FEATURE, SET_FEATURE = 0xF9, 0xF8, 0xFC, 0xFD

_FLAG, _ESCAPE, _SHTP = 0x7E, 0x7D, 0x01
_MAX_BLOCK = 4096
_LENGTHS = {
    0x01: 10, 0x02: 10, 0x03: 10, 0x04: 10, 0x05: 14, 0x06: 10, 0x07: 16, 0x08: 12, 0x09: 14,
    0x0F: 16, 0x10: 5, 0x11: 12, 0x13: 6, 0x14: 16, 0x15: 16, 0x16: 16, 0x18: 8, 0x19: 6, 0x1B: 6,
    0x1C: 6, 0x1E: 16, 0xFA: 5, 0xFB: 5,
}  # fmt: skip
"""Bytes of each input report, its id included."""


def encode(channel: int, sequence: int, cargo: bytes) -> bytes:
    """A frame."""
    length = len(cargo) + 4
    body = bytes([_SHTP]) + struct.pack("<HBB", length, channel, sequence & 0xFF) + cargo
    escaped = body.replace(b"\x7d", b"\x7d\x5d").replace(b"\x7e", b"\x7d\x5e")
    return b"\x7e" + escaped + b"\x7e"


def set_feature(report: int, interval_us: int) -> bytes:
    """Cargo for the control channel: send this report at that interval."""
    return struct.pack("<BBBHIII", SET_FEATURE, report, 0, 0, interval_us, 0, 0)


class Unframer:
    """Cuts what is received into (channel, sequence, cargo)."""

    def __init__(self) -> None:
        """Begin between two frames."""
        self.damaged = 0
        self._rest = b""

    def feed(self, received: bytes | memoryview) -> Iterator[tuple[int, int, bytes]]:
        """The frames that `received` completes; those of other protocols are left out."""
        *blocks, self._rest = (self._rest + bytes(received)).split(b"\x7e")
        if len(self._rest) > _MAX_BLOCK:
            self._rest = b""
            self.damaged += 1
        for block in blocks:
            if not block:
                continue
            body = _unescape(block)
            if body is None or len(body) < 5:
                self.damaged += body is None or body[0] == _SHTP
                continue
            protocol, length, channel, sequence = struct.unpack_from("<BHBB", body)
            if protocol != _SHTP:
                continue
            if length & 0x7FFF != len(body) - 1:
                self.damaged += 1
                continue
            yield channel, sequence, body[5:]


class ShtpDecoder:
    """See `deploy.imu.sample.Decoder`; a sample when gyro and orientation are both new."""

    def __init__(self) -> None:
        self.lost = self.restarts = 0
        self.features: dict[int, int] = {}
        """Interval [us] of each report, as the sensor confirms it."""
        self.identified = False
        self._bad = 0
        self._unframer = Unframer()
        self._sequences: dict[int, int] = {}
        self._gyro: tuple[Vector, bytes] | None = None
        self._gravity: tuple[Vector, bytes] | None = None

    @property
    def damaged(self) -> int:
        """Frames and reports that were none."""
        return self._unframer.damaged + self._bad

    def feed(self, received: bytes | memoryview) -> Iterator[Sample]:
        """The samples that `received` completes."""
        for channel, sequence, cargo in self._unframer.feed(received):
            expected = self._sequences.get(channel, sequence)
            self.lost += (sequence - expected) & 0xFF
            self._sequences[channel] = (sequence + 1) & 0xFF
            if channel in (REPORTS, WAKE_REPORTS):
                yield from self._reports(cargo)
            elif channel == GYRO_CHANNEL:
                yield from self._gyro_rotation(cargo)
            elif channel == EXECUTABLE and cargo == RESET:
                self.restarts += 1
                self._sequences.clear()
                self.features.clear()
            elif channel == CONTROL:
                self._control(cargo)

    def _control(self, cargo: bytes) -> None:
        if len(cargo) >= 17 and cargo[0] == FEATURE:
            (interval_us,) = struct.unpack_from("<I", cargo, 5)
            self.features[cargo[1]] = interval_us
        self.identified |= len(cargo) >= 16 and cargo[0] == PRODUCT_ID

    def _reports(self, cargo: bytes) -> Iterator[Sample]:
        at = 0
        while at < len(cargo):
            length = _LENGTHS.get(cargo[at])
            if length is None or at + length > len(cargo):
                self._bad += 1
                return
            report = cargo[at : at + length]
            at += length
            if report[0] == GYROSCOPE:
                x, y, z = struct.unpack_from("<3h", report, 4)
                self._gyro = (x / 512, y / 512, z / 512), report[4:]
            elif report[0] == GAME_ROTATION:
                i, j, k, real = struct.unpack_from("<4h", report, 4)
                down = gravity_of_quaternion((real / 16384, i / 16384, j / 16384, k / 16384))
                if down is None:
                    self._bad += 1
                    continue
                self._gravity = down, report[4:]
            if self._gyro and self._gravity:
                yield Sample(self._gyro[0], self._gravity[0], self._gyro[1] + self._gravity[1])
                self._gyro = self._gravity = None

    def _gyro_rotation(self, cargo: bytes) -> Iterator[Sample]:
        if len(cargo) != 14:
            self._bad += 1
            return
        i, j, k, real, x, y, z = struct.unpack("<7h", cargo)
        down = gravity_of_quaternion((real / 16384, i / 16384, j / 16384, k / 16384))
        if down is None:
            self._bad += 1
            return
        yield Sample((x / 1024, y / 1024, z / 1024), down, cargo)


def _unescape(block: bytes) -> bytes | None:
    """None if it ends in the middle of an escape."""
    first, *rest = block.split(b"\x7d")
    if not rest:
        return first
    if not all(rest):
        return None
    return first + b"".join([bytes([part[0] ^ 0x20]) + part[1:] for part in rest])
