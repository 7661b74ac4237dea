"""A bus of DYNAMIXEL servos behind one serial port: see `deploy.servos.bus`.

bus = DynamixelBus(SerialPort("/dev/ttyUSB0", 1_000_000), 1_000_000)
bus.reboot(1)
"""

from deploy.dynamixel import protocol
from deploy.serial_port import Port
from deploy.servos.bus import LONGEST_RETURN_DELAY_S, ServoBus


class DynamixelBus(ServoBus):
    """Protocol 2.0."""

    def __init__(
        self,
        port: Port,
        baud_rate: int,
        *,
        usb_latency_s: float = 0.004,
        return_delay_s: float = LONGEST_RETURN_DELAY_S,
    ):
        """Talk through an open port; arguments as for `ServoBus`."""
        super().__init__(
            port,
            baud_rate,
            protocol,
            usb_latency_s=usb_latency_s,
            return_delay_s=return_delay_s,
        )

    def reboot(self, id: int) -> None:
        """Restart a servo: clears a tripped shutdown, torque goes off, RAM is back to defaults.

        Raises:
            BusTimeout: the servo does not answer.
            ServoError: it refuses.
        """
        self._request(protocol.reboot(id), id, 0, "reboot")
