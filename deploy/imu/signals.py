"""Samples of an inertial sensor as the signals of a robot: mounted, unbiased, and with an age.

    imu = ImuSignals(mounting)
    imu.take(sample, at_s)
    imu.grow_older(now_s)
    imu.readings["projected_gravity"]

A sensor that lies is worse than one that is silent. What cannot be is not taken: spins beyond 40
rad/s, or one wild value between two that agree, which a sum of eight bits lets through now and
then. One that repeats itself to the last bit for half a second has frozen, since a living one has
noise: from then on its readings grow old like those of a silent one, and `alarm` says so.
"""

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from deploy.device import Reading
from deploy.imu.sample import Quaternion, Sample
from deploy.signals import SignalKind

MAX_SPIN_RAD_S = 40.0
"""Sensors end at 2000°/s, 35 rad/s."""
MAX_JUMP_RAD_S, MAX_JUMP = 15.0, 0.5
"""Largest change between two samples, of the spin and of gravity's direction, that is believed at
once; a larger one is when the next sample confirms it."""
FROZEN_AFTER_S = 0.5
REST_SPREAD_RAD_S, REST_MAX_RAD_S = 0.02, 0.1
"""Of a sensor at rest: largest standard deviation of each axis, and largest bias."""
KINDS: tuple[SignalKind, ...] = ("imu_angular_velocity", "projected_gravity")


def rotation_matrix(quaternion: Quaternion) -> NDArray[np.float64]:
    """The rotation (3, 3) of a unit quaternion."""
    w, x, y, z = quaternion
    return np.array(
        [
            [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
            [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
            [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
        ]
    )


def bias_at_rest(spins: Sequence[Sequence[float]]) -> NDArray[np.float64] | None:
    """Mean (3,) of the angular velocities (n, 3) of a sensor that lies still; None if it moves."""
    values = np.array(spins)
    bias = values.mean(axis=0)
    if values.std(axis=0).max() > REST_SPREAD_RAD_S or np.abs(bias).max() > REST_MAX_RAD_S:
        return None
    return bias


class ImuSignals:
    """See the module docstring.

    Args:
        mounting: turns vectors from the sensor's frame into that of the robot's `imu` site.
    """

    def __init__(self, mounting: Quaternion = (1.0, 0.0, 0.0, 0.0)):
        self.angular_velocity: NDArray[np.float64] = np.zeros(3)
        self.gravity: NDArray[np.float64] = np.array([0.0, 0.0, -1.0])
        self.age_s: NDArray[np.float64] = np.full(1, np.inf)
        self.readings: dict[SignalKind, Reading] = {
            "imu_angular_velocity": Reading(self.angular_velocity, self.age_s),
            "projected_gravity": Reading(self.gravity, self.age_s),
        }
        self.bias: NDArray[np.float64] = np.zeros(3)
        """Taken off every angular velocity, in the sensor's frame [rad/s]."""
        self.implausible = 0
        """Samples that were not taken."""
        self._turn = rotation_matrix(mounting)
        self._buffer = np.zeros(3)
        self._at_s = self._changed_s = -math.inf
        self._last: Sample | None = None
        self._doubted = False

    def take(self, sample: Sample, at_s: float) -> bool:
        """Make a sample, measured at `at_s`, the reading; False if it is not believed."""
        last, self._last = self._last, sample
        if last is None or last.raw != sample.raw:
            self._changed_s = at_s
        if not self._believed(sample, last):
            self.implausible += 1
            return False
        np.subtract(sample.angular_velocity, self.bias, out=self._buffer)
        np.matmul(self._turn, self._buffer, out=self.angular_velocity)
        np.matmul(self._turn, sample.gravity, out=self.gravity)
        if not self.frozen(at_s):
            self._at_s = at_s
        return True

    def frozen(self, now_s: float) -> bool:
        """Whether samples come, but have not changed for long."""
        return now_s - self._changed_s > FROZEN_AFTER_S

    def grow_older(self, now_s: float) -> None:
        """Bring the age of the readings up to date."""
        self.age_s[0] = now_s - self._at_s

    def alarm(self, now_s: float) -> str:
        """What must stop the robot; empty if nothing does."""
        if self._last is not None and self.frozen(now_s):
            return (
                f"the IMU has said the same to the last bit for {now_s - self._changed_s:.1f} s, "
                "expected noise: it has frozen, or is silent; switch its power off and on"
            )
        return ""

    def _believed(self, sample: Sample, last: Sample | None) -> bool:
        if max(map(abs, sample.angular_velocity)) > MAX_SPIN_RAD_S:
            return False
        jumped = last is not None and (
            math.dist(sample.angular_velocity, last.angular_velocity) > MAX_JUMP_RAD_S
            or math.dist(sample.gravity, last.gravity) > MAX_JUMP
        )
        self._doubted = jumped and not self._doubted
        return not self._doubted
