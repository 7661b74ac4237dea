"""An inertial sensor that is one more member of a DYNAMIXEL bus: Pollen Robotics' imu_to_dxl v2.

    imu = BusImu(config, bus)
    imu.connect()                        # is it there, and has its fusion started
    imu.rest()                           # what its gyroscope says while the robot lies still
    imu.take(block, at_s)                # 12 bytes of the sync read that reads the servos too

It answers first, as Pollen's own runtime asks it: the only place in the list where the board is
known to work. All members of a sync read answer the same addresses, 124 to 135, which leaves the
servos' clock out; a servo that restarts is found by reading its settings back, one servo a tick.
Pollen's runtime takes the median of three readings. Here a wild one between two that agree is left
out (`deploy.imu.signals`), which costs no delay; the filter is the board's fusion.
"""

from collections.abc import Iterator

import numpy as np

from deploy.dynamixel.bus import DynamixelBus
from deploy.dynamixel.sync import SyncRead
from deploy.errors import BusError, BusTimeout
from deploy.imu.config import BusImuConfig
from deploy.imu.imu_to_dxl import ADDRESS, LENGTH, decode
from deploy.imu.sample import Sample
from deploy.imu.signals import ImuSignals, bias_at_rest

START_S = 1.0
"""Longest time its fusion may take to start."""
REST_READINGS = 25
REST_PERIOD_S = 0.01
"""While `rest` listens; the board measures every 8 ms."""


class BusImu(ImuSignals):
    """Its readings, and what is read to have them.

    Args:
        config: id and mounting.
        bus: the bus.
    """

    def __init__(self, config: BusImuConfig, bus: DynamixelBus):
        super().__init__(config.mounting)
        self.id = config.id
        self.rested = False
        """Whether it lay still in `rest`, so that its bias is known."""
        self._bus, self._model = bus, config.model
        self._name = f"the IMU {config.model} (id {config.id})"
        self._alone = SyncRead(bus, [config.id], ADDRESS, LENGTH, fast=True)

    def connect(self) -> None:
        """Wait for its first measurement.

        Raises:
            BusError: it is silent, or measures nothing.
        """
        answered, began_s = False, self._bus.port.now()
        while self._bus.port.now() < began_s + START_S:
            for sample in self._listen():
                answered = True
                if sample is not None:
                    return
        raise BusError(
            f"{self._name} "
            + ("answers but measures nothing" if answered else "does not answer")
            + ", expected its angular velocity and orientation; check its cable and `imu.id`, "
            "then switch its power off and on"
        )

    def rest(self) -> None:
        """Take the mean of its gyroscope for its bias, if it lies still."""
        spins = []
        for _ in range(REST_READINGS):
            spins += [sample.angular_velocity for sample in self._listen() if sample is not None]
        bias = bias_at_rest(spins) if len(spins) > REST_READINGS // 2 else None
        self.rested = bias is not None
        if bias is not None:
            self.bias[:] = bias

    def take_block(self, block: bytes, at_s: float) -> None:
        """Make 12 bytes the reading, if they are one."""
        if (sample := decode(block)) is not None:
            self.take(sample, at_s)

    def look(self) -> str:
        """What it says now, in a line; nothing needs to be connected.

        Raises:
            BusError: it does not answer, or measures nothing.
        """
        who = f"id {self.id} (imu)"
        answers = list(self._listen())
        if not answers:
            raise BusTimeout(f"{who}: no answer")
        if answers == [None]:
            raise BusError(f"{who}: {self._model}, measures nothing, or has just been switched on")
        down = (self.gravity.round(2) + 0.0).tolist()  # which makes a negative zero positive
        return f"{who}: {self._model}, down is {down} in the robot's frame"

    def describe(self) -> str:
        """What was found."""
        bias = ", ".join(f"{value:+.1f}" for value in np.degrees(self.bias))
        known = f"at rest its gyroscope says {bias} °/s" if self.rested else "it moved, no bias"
        return f"{self._name}: {known}"

    def _listen(self) -> Iterator[Sample | None]:
        """What it says now, if it answers; takes `REST_PERIOD_S`."""
        port = self._bus.port
        begin_s = port.now()
        if self._alone.read(begin_s + REST_PERIOD_S + self._bus.latency_s):
            block = self._alone.data[0].tobytes()
            self.take_block(block, begin_s)
            yield decode(block)
        port.read_into(memoryview(bytearray(64)), begin_s + REST_PERIOD_S)
