"""What every inertial sensor comes down to, and the few rotations that takes.

    Sample(angular_velocity, gravity, raw)

Vectors are in the sensor's frame. Quaternions are wxyz and turn the sensor's frame into the
world's, whose z points up; then gravity in the sensor's frame is the negative of the rotation
matrix's last row.
"""

import math
from collections.abc import Iterator
from typing import NamedTuple, Protocol

Vector = tuple[float, float, float]
Quaternion = tuple[float, float, float, float]


class Sample(NamedTuple):
    """One measurement."""

    angular_velocity: Vector
    """[rad/s]"""
    gravity: Vector
    """Unit vector that points down."""
    raw: bytes
    """What was measured, without counters and sums: a sensor that lives never repeats it long."""
    specific_force: Vector | None = None
    """What its accelerometer feels [g]: minus gravity while it rests."""


class Decoder(Protocol):
    """Bytes in, samples out, however they are chopped up."""

    lost: int
    """Packets that did not come, where the sensor counts them."""
    restarts: int
    """Times the sensor said that it has restarted."""

    @property
    def damaged(self) -> int:
        """Packets that were none: a wrong sum, length or content."""
        ...

    def feed(self, received: bytes | memoryview) -> Iterator[Sample]:
        """The samples that `received` completes."""
        ...


def gravity_of_quaternion(quaternion: Quaternion) -> Vector | None:
    """Unit vector that points down; None for what is no unit quaternion, within 5 %."""
    w, x, y, z = quaternion
    squared = w * w + x * x + y * y + z * z
    if not 0.9 < squared < 1.1:  # also where it is not a number
        return None
    return (
        2 * (w * y - x * z) / squared,
        -2 * (w * x + y * z) / squared,
        (x * x + y * y - w * w - z * z) / squared,
    )


def unit(vector: Vector, low: float, high: float) -> Vector | None:
    """The direction of a vector; None if its length is not between the bounds."""
    length = math.hypot(*vector)
    if not low <= length <= high:
        return None
    return (vector[0] / length, vector[1] / length, vector[2] / length)


def turn_between(before: Quaternion, after: Quaternion) -> Vector:
    """Rotation vector [rad], in the sensor's frame, that leads from one orientation to another."""
    a, b, c, d = before
    w, x, y, z = after
    real = a * w + b * x + c * y + d * z  # conjugate(before) * after
    i = a * x - b * w - c * z + d * y
    j = a * y + b * z - c * w - d * x
    k = a * z - b * y + c * x - d * w
    sine = math.hypot(i, j, k)
    scale = 2 * math.atan2(sine, abs(real)) / sine if sine else 0.0
    scale = math.copysign(scale, real)  # the shorter way round
    return (i * scale, j * scale, k * scale)
