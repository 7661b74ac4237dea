"""A bus of servos behind one serial port, whatever family: the codec is an argument.

    bus = ServoBus(SerialPort("/dev/ttyUSB0", 1_000_000), 1_000_000, codec)
    model_number, firmware = bus.ping(1)
    bus.write_verified(1, registers.POSITION_P_GAIN, 640)

These are for setting up: they wait, try again, and raise. What runs every tick is in
`deploy.servos.sync_read`. A bus carries one conversation at a time, so it belongs to one thread.
Every method raises `BusError` when the port itself is gone; `statistics` counts lesser troubles.
"""

from collections.abc import Iterable, Sequence

from deploy.errors import BusTimeout, ServoError
from deploy.serial_port import Port
from deploy.servos.codec import Codec, Status
from deploy.servos.register import Register
from deploy.servos.reply_times import MARGIN_S, followed_latency, measured_latency
from deploy.statistics import Statistics

ATTEMPTS = 3
"""How often a request to a single servo is sent before the servo counts as silent."""
SETUP_ALLOWANCE_S = 0.05
"""Extra patience while setting up, where time does not matter."""
PINGS = 8
"""How often each servo is asked to measure the latency."""
LONGEST_RETURN_DELAY_S = 254 * 2e-6
"""Largest Return Delay Time a servo can be set to."""


class ServoBus:
    """Request and reply over one port, with what they take and what went wrong."""

    def __init__(
        self,
        port: Port,
        baud_rate: int,
        codec: Codec,
        *,
        usb_latency_s: float = 0.004,
        return_delay_s: float = LONGEST_RETURN_DELAY_S,
    ):
        """Talk through an open port.

        Args:
            port: the serial port; closed by whoever opened it.
            baud_rate: bits per second the port and all servos are set to.
            codec: the family's self.codec.
            usb_latency_s: longest delay the adapter is expected to add to a reply.
            return_delay_s: longest Return Delay Time (9) any servo is set to. Once they are all
                set lower, lower the attribute too, before making a `SyncRead`.
        """
        self.port, self.codec = port, codec
        self.latency_s = usb_latency_s
        """What is waited for a reply beyond its time on the wire [s]: as expected until
        `measure_latency`, then as measured, and followed by every `SyncRead`."""
        self.return_delay_s = return_delay_s
        self.statistics = Statistics()
        self._byte_s = 10 / baud_rate  # a start bit, 8 data bits, a stop bit
        self._received = memoryview(bytearray(1024))
        self._sent = b""

    def measure_latency(self, ids: Iterable[int]) -> float:
        """Ping each servo `PINGS` times; from now on `latency_s` is what nine tenths needed.

        A ping's reply is 14 bytes, so an FTDI adapter holds it back as long as it ever does. Set
        `return_delay_s` before: it counts as time on the wire.

        Returns:
            The median latency [s].
        """
        wire_s = self.wire_s(
            len(self.codec.identify(0)), self.codec.STATUS_OVERHEAD + self.codec.IDENTITY_SIZE, 1
        )
        samples_s = []
        for id in PINGS * tuple(ids):
            asked_s = self.port.now()
            if self._ask_who(id):
                samples_s.append(self.port.now() - asked_s - wire_s)
        if not samples_s:
            return self.latency_s
        median_s, most_s = measured_latency(samples_s)
        self.latency_s = most_s + MARGIN_S
        return median_s

    def follow_latency(self, taken_s: float, wire_s: float) -> None:
        """Reckon with replies that take `taken_s`, `wire_s` of it on the wire."""
        self.statistics.reply_times.add(taken_s)
        self.latency_s = followed_latency(self.latency_s, taken_s - wire_s)

    def ping(self, id: int) -> tuple[int, int]:
        """Model number and firmware version of a servo.

        Raises:
            BusTimeout: it does not answer.
        """
        codec = self.codec
        status = self._request(codec.identify(id), id, codec.IDENTITY_SIZE, "say what it is")
        return codec.identity(status.data)

    def scan(self, ids: Iterable[int]) -> dict[int, tuple[int, int]]:
        """Model number and firmware version of every servo that answers, by id; asks each once."""
        found = {}
        for id in ids:
            status = self._ask_who(id)
            if status is not None:
                found[id] = self.codec.identity(status.data)
        return found

    def read(self, id: int, register: Register) -> int:
        """Value of a register, in counts.

        Raises:
            BusTimeout: the servo does not answer.
            ServoError: it refuses.
        """
        request = self.codec.read(id, register.address, register.size)
        return register.decode(self._request(request, id, register.size, f"read {register}").data)

    def write(self, id: int, register: Register, value: int) -> None:
        """Write a register, in counts, and wait for the servo's consent.

        Raises:
            BusTimeout: the servo does not answer.
            ServoError: it refuses.
        """
        request = self.codec.write(id, register.address, register.encode(value))
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

    def broadcast_write(self, register: Register, value: int) -> None:
        """Write a register of every servo on the bus; nobody answers, so read back what matters."""
        data = register.encode(value)
        self.port.write(self.codec.write(self.codec.BROADCAST_ID, register.address, data))

    def wire_s(self, request_bytes: int, reply_bytes: int, servos: int) -> float:
        """Longest time [s] a request and the replies of `servos` servos occupy the wire."""
        return (request_bytes + reply_bytes) * self._byte_s + servos * self.return_delay_s

    def send(self, request: bytes) -> None:
        """Send a request that expects a reply; what came in before it is late, or noise."""
        self.statistics.requests += 1
        parser = None
        while count := self.port.read_into(self._received, self.port.now()):
            parser = parser or self.codec.parser(request=self._sent)
            for packet in parser.feed(self._received[:count]):
                self.statistics.late += self.codec.is_reply(packet)
        self.port.write(request)
        self._sent = request

    def gather(
        self,
        ids: Sequence[int],
        length: int,
        deadline_s: float,
        received: bytes | memoryview = b"",
        *,
        longest: int | None = None,
        merged_length: int = 0,
    ) -> dict[int, Status]:
        """Receive a status from each of `ids`, skipping echoes, noise and other servos.

        Stops early once every servo has spoken, though some of it arrived damaged. A reply with
        another length of data answers an earlier request: it is counted as late.

        Args:
            ids: servos that will answer.
            length: bytes of data each reply carries.
            deadline_s: time on the port's clock to give up at.
            received: bytes that have come already.
            longest: longest length field of a reply that may come, answers to earlier requests
                included; None for no such answers.
            merged_length: bytes of data of each servo in a merged reply that may come.

        Returns:
            The replies that arrived, by id.
        """
        # A damaged length that says more would swallow the replies behind it.
        parser = self.codec.parser(longest or self.codec.longest_status(length), self._sent)
        replies: dict[int, Status] = {}
        while True:
            for packet in parser.feed(received):
                statuses = self.codec.statuses(packet, merged_length)
                if any(len(status.data) != length and not status.error for status in statuses):
                    self.statistics.late += 1
                else:
                    replies |= {status.id: status for status in statuses if status.id in ids}
            if len(replies) + parser.crc_errors >= len(ids):
                break
            count = self.port.read_into(self._received, deadline_s)
            if not count:
                self.statistics.timeouts += 1
                break
            received = self._received[:count]
        self.statistics.crc_errors += parser.crc_errors
        return replies

    def _ask_who(self, id: int) -> Status | None:
        return self._ask_once(self.codec.identify(id), id, self.codec.IDENTITY_SIZE)

    def _ask_once(self, request: bytes, id: int, length: int) -> Status | None:
        wire_s = self.wire_s(len(request), self.codec.STATUS_OVERHEAD + length, 1)
        deadline_s = self.port.now() + wire_s + self.latency_s + SETUP_ALLOWANCE_S
        self.send(request)
        return self.gather((id,), length, deadline_s).get(id)

    def _wait_for_stragglers(self, began_s: float) -> None:
        """Every attempt may be answered as late as the first, which was sent at `began_s`."""
        until_s = 2 * self.port.now() - began_s
        while self.port.read_into(self._received, until_s):
            pass

    def _request(self, request: bytes, id: int, length: int, what: str) -> Status:
        status, timeouts, began_s = None, self.statistics.timeouts, self.port.now()
        for _ in range(ATTEMPTS):
            status = self._ask_once(request, id, length)
            if status is not None and status.error != self.codec.DAMAGED:
                break
        if status is not None and self.statistics.timeouts > timeouts:
            self._wait_for_stragglers(began_s)  # they would pass for answers to the next request
        if status is None:
            raise BusTimeout(
                f"servo {id} does not answer ({what}, {ATTEMPTS} attempts), expected a reply "
                "within milliseconds; check its power, cable, id and baud rate"
            )
        if status.error:
            raise ServoError(
                f"servo {id} refused to {what}: {self.codec.error_message(status.error)}"
            )
        return status
