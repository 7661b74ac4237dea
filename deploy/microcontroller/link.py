"""Questions to a board and its answers, over one port.

    link = Link(port, baud_rate)
    welcome = link.hello()
    link.send(MessageType.POLL)
    if link.receive(deadline_s): link.state, link.measured_s

The board answers every frame once, in order, so an answer to an earlier frame is recognised by its
number: it is counted as late where nobody waited for it, and brings nothing out of step.
"""

from deploy.errors import BusTimeout
from deploy.microcontroller.clocks import Clocks
from deploy.microcontroller.frames import Frame, FrameParser, MessageType, encode_frame
from deploy.microcontroller.messages import AGE_STEP_S, State, Welcome, decode_state, decode_welcome
from deploy.serial_port import Port
from deploy.servos.reply_times import MARGIN_S
from deploy.statistics import Statistics

ATTEMPTS = 5
ANSWER_S = 0.2
"""How long one that is just being reset, as many boards are by opening their port, may take."""
_LONGEST_STATE = 255
_POLL_BYTES = 12


class Link:
    """One board."""

    def __init__(self, port: Port, baud_rate: int):
        """Talk through an open port."""
        self.port = port
        self.state = State()
        """The latest answer."""
        self.clocks = Clocks()
        self.statistics = Statistics()
        self.sent_s = 0.0
        """When the state was said, on the host's clock."""
        self._welcome: Welcome | None = None
        self._parser = FrameParser()
        self._buffer = memoryview(bytearray(4096))
        self._sequence = 0
        self._asked_s: dict[int, float] = {}
        self._byte_s = 10 / baud_rate

    @property
    def wire_s(self) -> float:
        """Time on the wire of a poll and its answer [s]."""
        size = 41 + 12 * self.state.count + 26
        return (_POLL_BYTES + min(size, _LONGEST_STATE)) * self._byte_s

    def hello(self) -> Welcome:
        """Ask the board what it is; resets its count of frames, and nothing else.

        Raises:
            BusTimeout: it does not answer.
        """
        self.port.write(b"\0")  # ends what may be left of an earlier program's frame
        for _ in range(ATTEMPTS):
            self._welcome = None
            self.send(MessageType.HELLO)
            deadline_s = self.port.now() + ANSWER_S
            while self._welcome is None and self._take(deadline_s):
                pass
            if self._welcome is not None:
                return self._welcome
        raise BusTimeout(
            f"no board answers ({ATTEMPTS} attempts), expected one that runs robotrl's firmware, "
            "wire format version 1; check its cable, its sketch and the baud rate of both sides"
        )

    def send(self, type: MessageType, payload: bytes = b"") -> int:
        """Send a frame; returns its number."""
        self._sequence = (self._sequence + 1) & 0xFFFF
        now_s = self.port.now()
        if len(self._asked_s) > 64:
            self._asked_s.clear()
        self._asked_s[self._sequence] = now_s
        self.statistics.requests += 1
        self.port.write(encode_frame(type, self._sequence, int(now_s * 1e6), payload))
        return self._sequence

    def receive(self, deadline_s: float) -> bool:
        """Wait for the answer to the frame sent last; False if it does not come in time."""
        while self._sequence in self._asked_s:
            if not self._take(deadline_s):
                self.statistics.timeouts += 1
                return False
        return True

    def ask(self, type: MessageType, payload: bytes = b"", patience_s: float = ANSWER_S) -> State:
        """Send a frame until it is answered, again every `patience_s`.

        Raises:
            BusTimeout: no answer came.
        """
        for _ in range(ATTEMPTS):
            self.send(type, payload)
            if self.receive(self.port.now() + self.wire_s + patience_s):
                return self.state
        raise BusTimeout(
            f"the board does not answer ({type.name.lower()}, {ATTEMPTS} attempts), expected a "
            "reply within milliseconds; check its power and cable"
        )

    def _take(self, deadline_s: float) -> bool:
        """Take what comes until the deadline, once; False if nothing does."""
        count = self.port.read_into(self._buffer, deadline_s)
        received_s = self.port.now()
        for frame in self._parser.feed(self._buffer[:count]):
            self._understand(frame, received_s)
        self.statistics.crc_errors = self._parser.damaged
        return count > 0

    def _understand(self, frame: Frame, received_s: float) -> None:
        if frame.type == MessageType.WELCOME:
            self._welcome = decode_welcome(frame.payload)
            self._asked_s.clear()
            return
        if frame.type != MessageType.STATE or not decode_state(frame.payload, self.state):
            return
        asked_s = self._asked_s.pop(self.state.acknowledged, None)
        if asked_s is None:  # its number was given up
            self.statistics.late += 1
            asked_s = self.sent_s
        else:
            self.statistics.reply_times.add(received_s - asked_s)
            self.clocks.add(asked_s, self.state.heard_us, frame.time_us, received_s)
        self.sent_s = min(max(self.clocks.host_s(frame.time_us), asked_s), received_s)

    def measured_s(self, age: int) -> float:
        """When that was, on the host's clock, which was so old when the state was said."""
        return self.sent_s - age * AGE_STEP_S

    @property
    def adapter_s(self) -> float:
        """What adapter, operating system and board add to an answer, in the median [s]."""
        return max(0.0, self.statistics.reply_times.quantile(0.5) - self.wire_s) + MARGIN_S
