"""A bus of DYNAMIXEL servos behind one serial port.

    bus = DynamixelBus(SerialPort("/dev/ttyUSB0", 1_000_000), 1_000_000)
    model_number, firmware = bus.ping(1)
    bus.write_verified(1, registers.POSITION_P_GAIN, 640)

These are for setting up: they wait, try again, and raise. What runs every tick is in
`deploy.dynamixel.sync`. A bus carries one conversation at a time, so it belongs to one thread.
Every method raises `BusError` when the port itself is gone; `statistics` counts lesser troubles.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from deploy.dynamixel import protocol
from deploy.dynamixel.protocol import ErrorCode, Instruction, PacketParser, Status
from deploy.dynamixel.registers import Register
from deploy.errors import BusTimeout, ServoError
from deploy.serial_port import Port

ATTEMPTS = 3
"""How often a request to a single servo is sent before the servo counts as silent."""
SETUP_ALLOWANCE_S = 0.05
"""Extra patience while setting up, where time does not matter."""
LONGEST_RETURN_DELAY_S = 254 * 2e-6
"""Largest Return Delay Time a servo can be set to."""


@dataclass(slots=True)
class BusStatistics:
    """What happened on the bus since it was opened."""

    requests: int = 0
    """Requests sent that expect a reply."""
    crc_errors: int = 0
    """Servo replies that arrived damaged."""
    timeouts: int = 0
    """Requests whose reply stayed away, in part or as a whole."""
    retried: int = 0
    """Servo readings asked for again within a sync read."""
    lost: int = 0
    """Servo readings a sync read had to do without."""


class DynamixelBus:
    """Request and reply over one port, with what they take and what went wrong."""

    def __init__(
        self,
        port: Port,
        baud_rate: int,
        *,
        usb_latency_s: float = 0.004,
        return_delay_s: float = LONGEST_RETURN_DELAY_S,
    ):
        """Talk through an open port.

        Args:
            port: the serial port; closed by whoever opened it.
            baud_rate: bits per second the port and all servos are set to.
            usb_latency_s: longest delay the adapter adds to a reply.
            return_delay_s: longest Return Delay Time (9) any servo is set to. Once they are all
                set lower, lower the attribute too, before making a `SyncRead`.
        """
        self.port = port
        self.usb_latency_s = usb_latency_s
        self.return_delay_s = return_delay_s
        self.statistics = BusStatistics()
        self._byte_s = 10 / baud_rate  # a start bit, 8 data bits, a stop bit
        self._received = memoryview(bytearray(1024))

    def ping(self, id: int) -> tuple[int, int]:
        """Model number and firmware version of a servo.

        Raises:
            BusTimeout: it does not answer.
        """
        return _identity(self._request(protocol.ping(id), id, 3, "ping"))

    def scan(self, ids: Iterable[int]) -> dict[int, tuple[int, int]]:
        """Model number and firmware version of every servo that answers, by id; asks each once."""
        found = {}
        for id in ids:
            status = self._ask_once(protocol.ping(id), id, 3)
            if status is not None:
                found[id] = _identity(status)
        return found

    def read(self, id: int, register: Register) -> int:
        """Value of a register, in counts.

        Raises:
            BusTimeout: the servo does not answer.
            ServoError: it refuses.
        """
        request = protocol.read(id, register.address, register.size)
        return register.decode(self._request(request, id, register.size, f"read {register}").data)

    def write(self, id: int, register: Register, value: int) -> None:
        """Write a register, in counts, and wait for the servo's consent.

        Raises:
            BusTimeout: the servo does not answer.
            ServoError: it refuses.
        """
        request = protocol.write(id, register.address, register.encode(value))
        self._request(request, id, 0, f"write {value} to {register}")

    def write_verified(self, id: int, register: Register, value: int) -> None:
        """Write a register and read it back.

        Raises:
            BusTimeout: the servo does not answer.
            ServoError: it refuses, or holds another value afterwards.
        """
        self.write(id, register, value)
        found = self.read(id, register)
        if found != value:
            raise ServoError(
                f"servo {id}: {register} reads {found} after {value} was written, expected {value};"
                " look for a second servo with this id, or a limit or lock that overrules it"
            )

    def reboot(self, id: int) -> None:
        """Restart a servo: clears a tripped shutdown, torque goes off, RAM is back to defaults.

        Raises:
            BusTimeout: the servo does not answer.
            ServoError: it refuses.
        """
        self._request(protocol.reboot(id), id, 0, "reboot")

    def broadcast_write(self, register: Register, value: int) -> None:
        """Write a register of every servo on the bus; nobody answers, so read back what matters."""
        data = register.encode(value)
        self.port.write(protocol.write(protocol.BROADCAST_ID, register.address, data))

    def wire_s(self, request_bytes: int, reply_bytes: int, servos: int) -> float:
        """Longest time [s] a request and the replies of `servos` servos occupy the wire."""
        return (request_bytes + reply_bytes) * self._byte_s + servos * self.return_delay_s

    def give_up_s(self, wire_s: float, deadline_s: float) -> float | None:
        """When to stop waiting for replies that occupy the wire for `wire_s`, if asked for now.

        None if they could still be on the wire at `deadline_s`: a servo must not be speaking when
        the next command is sent.
        """
        now_s = self.port.now()
        if now_s + wire_s > deadline_s:
            return None
        return min(deadline_s, now_s + wire_s + self.usb_latency_s)

    def send(self, request: bytes) -> None:
        """Send a request that expects a reply; what came in before it is stale and discarded."""
        self.statistics.requests += 1
        self.port.discard_input()
        self.port.write(request)

    def ask(
        self, request: bytes, ids: Sequence[int], length: int, deadline_s: float
    ) -> dict[int, Status]:
        """Send a request and `gather` the replies."""
        self.send(request)
        return self.gather(ids, length, deadline_s)

    def gather(
        self,
        ids: Sequence[int],
        length: int,
        deadline_s: float,
        received: bytes | memoryview = b"",
    ) -> dict[int, Status]:
        """Receive one status packet from each of `ids`, skipping echoes, noise and other servos.

        Stops early once every servo has spoken, though some of it arrived damaged.

        Args:
            ids: servos that will answer.
            length: bytes of data each reply carries.
            deadline_s: time on the port's clock to give up at.
            received: bytes that have come already.

        Returns:
            The replies that arrived, by id.
        """
        # An intact reply is not longer than this, stuffing included; a damaged length that says so
        # would swallow the replies behind it.
        parser = PacketParser(max_length=4 + length + length // 3)
        replies: dict[int, Status] = {}
        while True:
            for packet in parser.feed(received):
                if packet.instruction == Instruction.STATUS and packet.id in ids:
                    status = Status.from_packet(packet)
                    if status.error or len(status.data) == length:
                        replies[packet.id] = status
            if len(replies) + parser.crc_errors >= len(ids):
                break
            count = self.port.read_into(self._received, deadline_s)
            if not count:
                self.statistics.timeouts += 1
                break
            received = self._received[:count]
        self.statistics.crc_errors += parser.crc_errors
        return replies

    def _ask_once(self, request: bytes, id: int, length: int) -> Status | None:
        wire_s = self.wire_s(len(request), protocol.STATUS_OVERHEAD + length, 1)
        deadline_s = self.port.now() + wire_s + self.usb_latency_s + SETUP_ALLOWANCE_S
        return self.ask(request, (id,), length, deadline_s).get(id)

    def _request(self, request: bytes, id: int, length: int, what: str) -> Status:
        status = None
        for _ in range(ATTEMPTS):
            status = self._ask_once(request, id, length)
            if status is not None and status.error != ErrorCode.CRC:
                break
        if status is None:
            raise BusTimeout(
                f"servo {id} does not answer ({what}, {ATTEMPTS} attempts), expected a reply "
                "within milliseconds; check its power, cable, id and baud rate"
            )
        if status.error:
            raise ServoError(
                f"servo {id} refused to {what}: {protocol.error_message(status.error)}"
            )
        return status


def _identity(status: Status) -> tuple[int, int]:
    return int.from_bytes(status.data[:2], "little"), status.data[2]
