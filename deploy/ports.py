"""The serial ports of a robot, all open or none; and what else is done while one is waited for."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager

from deploy.robot_config import RobotConfig
from deploy.serial_port import Port, SerialPort

EVERY_S = 0.01
"""A wait that is no longer is not interrupted."""


@contextmanager
def open_ports(config: RobotConfig) -> Iterator[dict[str, SerialPort]]:
    """The serial port of each device, by its name, for as long as the block runs."""
    with ExitStack() as stack:
        yield {
            name: stack.enter_context(closing(SerialPort(bus.port, bus.baud_rate)))
            for name, bus in config.wired.items()
        }


class AttentivePort:
    """A `Port` that calls others while it is waited for, and not less often than `EVERY_S`.

    Args:
        port: which it is otherwise.
        others: what is called, if anything: live.
    """

    def __init__(self, port: Port, others: Sequence[Callable[[], object]]):
        self._port, self._others = port, others

    def now(self) -> float:
        """The time on its clock [s]."""
        return self._port.now()

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Send bytes."""
        self._port.write(data)

    def close(self) -> None:
        """Give it back."""
        self._port.close()

    def reopen(self) -> None:
        """Open it again, wherever it is by now."""
        self._port.reopen()

    def read_into(self, buffer: memoryview, deadline_s: float) -> int:
        """Wait for bytes until `deadline_s`; returns how many came, 0 at the deadline."""
        while self._others:
            for other in self._others:
                other()
            until_s = min(deadline_s, self.now() + EVERY_S)
            if (count := self._port.read_into(buffer, until_s)) or until_s == deadline_s:
                return count
        return self._port.read_into(buffer, deadline_s)
