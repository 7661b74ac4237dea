"""An inertial sensor on a serial port of its own, as a device of the robot.

    imu = Imu("imu", config, port)
    imu.connect()                                # set up; a second at rest gives the gyro's bias
    imu.read(deadline_s)
    imu.readings["projected_gravity"]

It has no joints, so it holds nothing and lets go of nothing. A sensor that streams is read without
waiting: its newest sample counts, and is older than its age says by at most the sensor's period.
"""

import math
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from deploy.contract import JointSpec
from deploy.device import Approve, Floats, Reading, refuse_changes
from deploy.errors import BusError, BusTimeout
from deploy.imu.config import ImuConfig
from deploy.imu.sample import Sample
from deploy.imu.sensors import SENSORS
from deploy.imu.signals import ImuSignals, bias_at_rest
from deploy.robot_config import RobotConfig
from deploy.serial_port import Port
from deploy.servos.reply_times import MARGIN_S
from deploy.signals import SignalKind
from deploy.statistics import Statistics

LISTEN_S = 1.0
"""How long `connect` watches: for the rate, the bias, and whether the axes are as documented."""
LOWEST_RATE_HZ = 40
AXES_TOLERANCE = 0.25
"""Between gravity by angles and by acceleration, at rest: 14°."""


class Imu:
    """See the module docstring, and `deploy.device.Device`.

    Args:
        name: as in the robot's YAML.
        config: sensor and mounting.
        port: the open port.
    """

    def __init__(self, name: str, config: ImuConfig, port: Port):
        self.name, self.config = name, config
        self.joints: Sequence[str] = ()
        self.energised = False
        self.signals = ImuSignals(config.mounting)
        self.readings: Mapping[SignalKind, Reading] = self.signals.readings
        self.effort: Floats = np.zeros(0)
        self.heard: NDArray[np.bool_] = np.zeros(0, np.bool_)
        self.statistics = Statistics()
        self.rate_hz = 0.0
        """Samples per second, as found."""
        self.rested = False
        """Whether it lay still in `connect`, so that its bias is known."""
        self._port, self._sensor = port, SENSORS[config.protocol]
        self._decoder = self._sensor.decoder()
        self._buffer = memoryview(bytearray(8192))
        self._restarts = 0
        exchanged = len(self._sensor.request) + self._sensor.answer_bytes
        self._wire_s = exchanged * 10 / config.baud_rate

    @property
    def target(self) -> Floats:
        """Nothing to drive."""
        return self.effort

    @property
    def read_s(self) -> float:
        """Time of an answer, where one is asked for."""
        return self._wire_s + self.adapter_s if self._sensor.request else 0.0

    @property
    def adapter_s(self) -> float:
        """What is reckoned for the adapter in that."""
        return MARGIN_S if self._sensor.request else 0.0

    def connect(self) -> None:
        """Start the sensor, and watch it for `LISTEN_S`.

        Raises:
            BusError: it does not answer, measures too rarely, or its axes are not as documented.
        """
        self._sensor.start(self._port, self.config, self._decoder)
        self._restarts = self._decoder.restarts
        samples = self._watch()
        self.rate_hz = len(samples) / LISTEN_S
        if self.rate_hz < LOWEST_RATE_HZ:
            raise BusTimeout(
                f"the {self.config.protocol} at {self.config.port} gives {self.rate_hz:.0f} "
                f"samples per second, expected at least {LOWEST_RATE_HZ}; check its mode, rate and "
                "baud rate (deploy/imu/README.md)"
            )
        bias = bias_at_rest([sample.angular_velocity for sample in samples])
        self.rested = bias is not None
        if bias is not None:
            self.signals.bias[:] = bias
            self._check_axes(samples)

    def energise(self) -> None:
        """Nothing to hold."""

    def read(self, deadline_s: float) -> int:
        """Take what has come; a sensor that must be asked is asked, and awaited until then."""
        port = self._port
        taken = 0
        if self._sensor.request:
            self.statistics.requests += 1
            asked_s = port.now()
            port.write(self._sensor.request)
            while not taken and (count := port.read_into(self._buffer, deadline_s)):
                taken = self._take(count, asked_s)
            self.statistics.timeouts += not taken
        else:
            while count := port.read_into(self._buffer, port.now()):
                taken += self._take(count, port.now())
        self.statistics.crc_errors = self._decoder.damaged
        self.statistics.lost = self._decoder.lost
        self.statistics.implausible = self.signals.implausible
        self.signals.grow_older(port.now())
        return int(taken > 0)

    def write(self, targets: Floats) -> None:
        """Nothing to drive."""

    def alarm(self) -> str:
        """A sensor that has frozen, fallen silent or restarted."""
        if self._decoder.restarts > self._restarts:
            return (
                f"the IMU {self.name!r} has restarted, expected it to run on, and measures nothing "
                "until it is set up; check its supply, then start again"
            )
        return self.signals.alarm(self._port.now())

    def health(self, deadline_s: float, *, due: bool = False) -> None:
        """Nothing to read back: it shows by what it sends."""
        return None

    def hold(self) -> None:
        """Nothing to hold."""

    def release(self) -> None:
        """Nothing to let go."""

    def rescue(self, *, let_go: bool) -> None:
        """Nothing to hold, or to let go."""

    def watchdog(self) -> str:
        """It drives nothing."""
        return ""

    guarded = False

    def prove(self) -> str:
        """Nothing to prove."""
        return ""

    def rest_differences(self) -> list[str]:
        """No joints."""
        return []

    def describe(self) -> str:
        """What was found when connecting."""
        bias = np.degrees(self.signals.bias)
        known = f"bias {bias[0]:+.2f} {bias[1]:+.2f} {bias[2]:+.2f} °/s"
        moved = "it moved, so no bias is taken off"
        return (
            f"{self.name}: {self.config.protocol}, {self.rate_hz:.0f} samples per second, "
            f"{known if self.rested else moved}"
        )

    def describe_reading(self) -> str:
        """How long a reading takes, and why."""
        if not self._sensor.request:
            return f"{self.name}: 0 ms, it streams"
        return f"{self.name}: {self.read_s * 1e3:.1f} ms, asked and answered"

    def advise(self) -> str:
        """Nothing that a user could do."""
        return ""

    def _take(self, count: int, at_s: float) -> int:
        return sum(
            self.signals.take(sample, at_s) for sample in self._decoder.feed(self._buffer[:count])
        )

    def _watch(self) -> list[Sample]:
        """The samples of `LISTEN_S`, kept as readings too."""
        port, samples = self._port, []
        until_s = port.now() + LISTEN_S
        while port.now() < until_s:
            slice_s = min(until_s, port.now() + 1 / LOWEST_RATE_HZ)
            if self._sensor.request:
                port.write(self._sensor.request)
            while count := port.read_into(self._buffer, slice_s):
                found = list(self._decoder.feed(self._buffer[:count]))
                samples += found
                for sample in found:
                    self.signals.take(sample, port.now())
                if found and self._sensor.request:
                    break
        return samples

    def _check_axes(self, samples: list[Sample]) -> None:
        felt = [sample.specific_force for sample in samples if sample.specific_force is not None]
        if not felt:
            return
        force = np.mean(felt, axis=0)
        down = np.mean([sample.gravity for sample in samples], axis=0)
        length = float(np.linalg.norm(force))
        if not 0.8 < length < 1.2 or math.dist(-force / length, down) > AXES_TOLERANCE:
            raise BusError(
                f"the {self.config.protocol} at {self.config.port} lies still and feels "
                f"{np.round(force, 2).tolist()} g, but its angles say that down is "
                f"{np.round(down, 2).tolist()}, expected the opposite of what it feels; its axes "
                "were remapped, or it needs calibration: reset it to the maker's settings"
            )


def make_imu(
    name: str,
    config: RobotConfig,
    joints: Sequence[JointSpec],
    port: Port,
    *,
    approve: Approve = refuse_changes,
) -> Imu:
    """A `deploy.device.MakeDevice`."""
    section = config.wired[name]
    assert isinstance(section, ImuConfig) and not joints
    return Imu(name, section, port)
