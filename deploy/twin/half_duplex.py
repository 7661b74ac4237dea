"""A half-duplex bus between host and servos, in time: who speaks when, and when a byte is there.

    wire.send(request, now)            # the host writes; a byte takes 10 bits
    while wire.next_event_s <= now:    # a request has arrived, or it is a servo's turn
        wire.run_event()
    reply = wire.take(now)             # what the host has received by now

What the host receives comes `usb_latency_s` after it was on the wire. What servos say to which
request is their family's: `deploy.twin.wire`, `deploy.twin.feetech_wire`. Not modelled: collisions
of a new request with a reply still under way.
"""

import heapq
import itertools
import math
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from typing import Generic, Protocol, TypeVar

_BYTE_TOLERANCE = 1e-6  # of a byte: rounding of times must not hold a byte back


class Listener(Protocol):
    """A servo, as far as the bus goes."""

    @property
    def id(self) -> int:
        """Id it answers to."""
        ...

    def listens(self, baud_rate: int, now_s: float) -> bool:
        """Whether it understands what is sent at `baud_rate` now."""
        ...


ServoT = TypeVar("ServoT", bound=Listener)
RequestT = TypeVar("RequestT")
_RequestT = TypeVar("_RequestT", covariant=True)


class _Receiver(Protocol[_RequestT]):
    def feed(self, byte: int, now_s: float) -> _RequestT | None: ...


class HalfDuplex(Generic[ServoT, RequestT]):
    """The traffic of one bus. Times are seconds on one clock, which is the caller's."""

    def __init__(
        self,
        servos: Sequence[ServoT],
        baud_rate: int,
        receiver: _Receiver[RequestT],
        *,
        usb_latency_s: float,
    ):
        """Connect servos.

        Args:
            servos: who hangs on the bus.
            baud_rate: of the host's port, until `send` says otherwise [bit/s].
            receiver: what cuts the host's bytes into requests.
            usb_latency_s: what the adapter adds to a reply.
        """
        self._servos = servos
        self._listening = list(servos)
        self._set_baud_rate(baud_rate)
        self._usb_latency_s = usb_latency_s
        self._receiver = receiver
        self._sent_s = -math.inf
        self._events: list[tuple[float, int, Callable[[float], None]]] = []
        self._order = itertools.count()
        self._replies: deque[tuple[float, bytes]] = deque()
        self._taken = 0

    @property
    def next_event_s(self) -> float:
        """When something happens next on the servos' side; inf if nothing is due."""
        return self._events[0][0] if self._events else math.inf

    @property
    def reply_s(self) -> float:
        """When the host will have received the whole reply now on its way; inf if there is none."""
        if not self._replies:
            return math.inf
        start_s, reply = self._replies[0]
        return start_s + len(reply) * self._byte_s + self._usb_latency_s

    def send(self, data: bytes, now_s: float, baud_rate: int | None = None) -> None:
        """The host writes `data`; it follows what is still being sent.

        Args:
            data: the bytes.
            now_s: the time.
            baud_rate: what the host's port is set to by now; None for as before.
        """
        if baud_rate is not None:
            self._set_baud_rate(baud_rate)
        start_s = max(now_s, self._sent_s)
        for count, byte in enumerate(data, 1):
            arrived_s = start_s + count * self._byte_s
            if request := self._receiver.feed(byte, arrived_s):
                self._at(arrived_s, partial(self._receive, request, self._baud_rate))
        self._sent_s = start_s + len(data) * self._byte_s

    def run_event(self) -> None:
        """Let the next event happen."""
        time_s, _, event = heapq.heappop(self._events)
        event(time_s)

    def take(self, now_s: float) -> bytes:
        """Bytes the host has received by now and not yet taken."""
        taken = bytearray()
        while self._replies:
            start_s, reply = self._replies[0]
            elapsed = (now_s - self._usb_latency_s - start_s) / self._byte_s
            count = min(max(self._taken, math.floor(elapsed + _BYTE_TOLERANCE)), len(reply))
            taken += reply[self._taken : count]
            self._taken = count
            if count < len(reply):
                break
            self._replies.popleft()
            self._taken = 0
        return bytes(taken)

    def _at(self, time_s: float, event: Callable[[float], None]) -> None:
        heapq.heappush(self._events, (time_s, next(self._order), event))

    def _set_baud_rate(self, baud_rate: int) -> None:
        self._baud_rate = baud_rate
        self._byte_s = 10 / baud_rate  # a start bit, 8 data bits, a stop bit

    def _receive(self, packet: RequestT, baud_rate: int, now_s: float) -> None:
        """A request has arrived at the servos."""
        raise NotImplementedError

    def _listen(self, baud_rate: int, now_s: float) -> None:
        """Find out who understands what is sent at `baud_rate` now."""
        self._listening = [servo for servo in self._servos if servo.listens(baud_rate, now_s)]

    def _transmit(self, reply: bytes, start_s: float) -> float:
        """A servo speaks from `start_s`; returns when it has finished."""
        self._replies.append((start_s, reply))
        return start_s + len(reply) * self._byte_s

    def _find(self, id: int) -> ServoT | None:
        return next((servo for servo in self._listening if servo.id == id), None)
