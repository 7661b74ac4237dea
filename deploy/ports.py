"""The serial ports of a robot, all open or none."""

from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager

from deploy.robot_config import RobotConfig
from deploy.serial_port import SerialPort


@contextmanager
def open_ports(config: RobotConfig) -> Iterator[dict[str, SerialPort]]:
    """The serial port of each device, by its name, for as long as the block runs."""
    with ExitStack() as stack:
        yield {
            name: stack.enter_context(closing(SerialPort(bus.port, bus.baud_rate)))
            for name, bus in config.wired.items()
        }
