"""A serial port with a twin behind it, in virtual time: deterministic, and as fast as it computes.

    clock = VirtualClock()
    bus = DynamixelBus(VirtualPort(twin, clock), 1_000_000)

Time passes only while somebody waits: a read until bytes arrive or its deadline, the caller in
`clock.sleep_until`. The twin catches up at its next use.
"""

from deploy.clock import VirtualClock
from deploy.errors import DeviceLost
from deploy.twin.robot import Twin


class VirtualPort:
    """A `deploy.serial_port.Port` on an in-process twin."""

    def __init__(
        self,
        twin: Twin,
        clock: VirtualClock,
        baud_rate: int | None = None,
        device: str | None = None,
    ):
        """Connect to `twin`, which keeps the time of `clock`.

        Args:
            twin: the robot.
            clock: its time.
            baud_rate: what the port is opened with; None for what the servos are set to.
            device: which of the robot's ports; None for the first.
        """
        self._twin, self._device = twin, device
        self._clock = clock
        self._baud_rate = baud_rate
        self._received = b""

    def now(self) -> float:
        """The clock of the deadlines [s]."""
        return self._clock.now()

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Send all of `data`."""
        self._check()
        self._twin.receive(bytes(data), self.now(), self._baud_rate, self._device)

    def read_into(self, buffer: memoryview, deadline_s: float) -> int:
        """Wait for bytes until `deadline_s`; returns how many came, 0 at the deadline.

        As from a USB adapter, a reply comes in one piece, or in part if the deadline cuts it.
        """
        self._check()
        while not self._received:
            self._clock.sleep_until(min(deadline_s, self._twin.wake_of(self._device)))
            self._receive()
            if self.now() >= deadline_s:
                break
        count = min(len(buffer), len(self._received))
        buffer[:count] = self._received[:count]
        self._received = self._received[count:]
        return count

    def close(self) -> None:
        """Nothing to give back."""

    def reopen(self) -> None:
        """What came while nobody had it open is gone.

        Raises:
            DeviceLost: the twin's cable is still off.
        """
        self._check()
        self._twin.take(self.now(), self._device)
        self._received = b""

    def _check(self) -> None:
        if self._twin.is_unplugged(self._device):
            raise DeviceLost("the twin's port is gone, expected it to stay: a fault unplugged it")

    def _receive(self) -> None:
        self._twin.advance(self.now())
        self._received += self._twin.take(self.now(), self._device)
