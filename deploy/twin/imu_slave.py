"""The inertial sensor that answers on a DYNAMIXEL bus like one more servo (Pollen's imu_to_dxl v2).

    slave = ImuSlave(200, 1_000_000, motion)
    slave.measure(now_s)                 # after every step of the physics
    slave.read(124, 12)                  # what it measured last

What is known of it is what Pollen's runtime reads (pollen-robotics/microduck, duck-control/src):
12 bytes at address 124, 20 with the diagnostics behind them, here zeros. Its other registers are
unknown, so all else is refused.
"""

import math
from collections.abc import Callable

import numpy as np

from deploy.dynamixel.protocol import ErrorCode, Status
from deploy.twin.imu import Motion, imu_to_dxl_block, with_noise

PERIOD_S = 1 / 120
"""Between two of its measurements: the LSM6DSV16X's fusion at 120 Hz."""
MODEL_NUMBER = b"\x00\x00\x02"
"""Of a ping: nothing is published, so no model, and version 2."""

_ADDRESS, _LENGTH = 124, 20


class ImuSlave:
    """As far as the bus sees it."""

    return_delay_s = 0.0
    reads_fast = True

    def __init__(
        self,
        id: int,
        baud_rate: int,
        motion: Callable[[float], Motion],
        *,
        seed: int | None = None,
    ):
        """Switch it on; it says zeros until it has measured.

        Args:
            id: its id.
            baud_rate: at which it listens.
            motion: how the sensor moves now, in its own frame.
            seed: of its noise.
        """
        self.id = id
        self.frozen = False
        """It goes on saying what it said last."""
        self.silent = False
        """Its cable is off."""
        self._baud_rate = baud_rate
        self._block = bytes(_LENGTH)
        self._motion, self._rng = motion, np.random.default_rng(seed)
        self._next_s = -math.inf

    def measure(self, now_s: float) -> None:
        """A new measurement, if it is time for one."""
        if now_s >= self._next_s and not self.frozen:
            self._next_s = now_s + PERIOD_S
            motion = with_noise(self._motion(now_s), self._rng)
            self._block = imu_to_dxl_block(motion).ljust(_LENGTH, b"\0")

    def listens(self, baud_rate: int, now_s: float) -> bool:
        """Whether it understands what is sent at `baud_rate`."""
        return baud_rate == self._baud_rate and not self.silent

    def answers(self, instruction: int) -> bool:
        """Always."""
        return True

    def hear(self, now_s: float) -> None:
        """It has no watchdog."""

    def ping(self) -> Status:
        """That it is there."""
        return Status(self.id, MODEL_NUMBER)

    def read(self, address: int, length: int) -> Status:
        """Part of the 20 bytes."""
        start = address - _ADDRESS
        if start < 0 or not 0 < length <= _LENGTH - start:
            return self.refuse(ErrorCode.ACCESS)
        return Status(self.id, self._block[start : start + length])

    def write(self, address: int, data: bytes) -> Status:
        """Nothing can be written."""
        return self.refuse(ErrorCode.ACCESS)

    def refuse(self, error: ErrorCode) -> Status:
        """Its answer to what it can make nothing of."""
        return Status(self.id, b"", error)
