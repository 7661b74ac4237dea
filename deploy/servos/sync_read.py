"""Several servos at once: what is read from a bus every tick, whatever the family.

    feedback = SyncRead(bus, ids, address, length, replies)
    feedback.read(port.now() + 0.005)     # fills feedback.data where feedback.fresh

It neither waits past the deadline nor raises for a missing or damaged reply; a `BusError` means
that the port is gone. A tick in which every servo answers soundly allocates no buffers.

A reply may come late, even after the next request has gone out, and nothing in the protocol says
which request it answers. So a reading after one that was not answered in full asks for a few bytes
more than are needed, another number each time: the length of a reply then tells its reading.
Replies stay in order, so when one reading was answered, none before it is still under way.
"""

import math
from collections.abc import Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from deploy.servos.bus import ServoBus
from deploy.servos.codec import Status

SPARE_BYTES = 7
"""How many readings in a row are told apart: so many bytes behind those asked for must exist."""
LATEST_S = 0.1
"""A reply that came late belongs to a request at most this old; others share the bus."""


class Replies(Protocol):
    """A receive buffer for the replies of servos that knows whose blocks are sound."""

    buffer: bytearray
    merged: bool
    """Whether they come as one packet."""
    data: NDArray[np.uint8]
    """Bytes read, shape (n, length): live, so only what `check` approves means anything."""
    sound: NDArray[np.bool_]
    """Who answered soundly in what was checked last, shape (n,)."""

    @property
    def alert(self) -> NDArray[np.bool_]:
        """Who reports a fault of its own, shape (n,)."""
        ...

    def align(self, received: int) -> int:
        """Drop what precedes the replies; returns how many of `received` bytes are left."""
        ...

    def complete(self, received: int) -> int:
        """How many blocks the first `received` bytes hold."""
        ...

    def check(self, received: int) -> bool:
        """Whether every servo answered soundly and without error or alert; else see `sound`."""
        ...


class Feedback(Protocol):
    """What a tick reads of several servos."""

    data: NDArray[np.uint8]
    """Latest bytes of each servo, shape (n, length); kept where no new ones came."""
    fresh: NDArray[np.bool_]
    """Who answered soundly in the last `read`, shape (n,)."""
    alert: NDArray[np.bool_]
    """Who reported a fault of its own in its latest answer, shape (n,)."""
    wire_s: float
    """Longest time [s] requests and replies occupy the wire."""
    turns: int
    """How many requests that takes."""

    def read(self, deadline_s: float) -> int:
        """Bring them up to date until `deadline_s`; how many servos answered."""
        ...


class SyncRead:
    """The same bytes of several servos.

    Servos whose answer is missing or damaged are asked again if the bus's latency leaves time for
    another answer; if not, the one that may be under way is waited for. A servo speaks only after
    the one before it in the list, so a silent one silences the rest: the first missing one is the
    suspect and goes to the end of the list.
    """

    def __init__(
        self, bus: ServoBus, ids: Sequence[int], address: int, length: int, replies: Replies
    ):
        """Prepare to read `length` bytes from `address` of each of `ids`, into `replies`."""
        codec, fast = bus.codec, replies.merged
        self.ids = tuple(ids)
        self.data = np.zeros((len(ids), length), np.uint8)
        """Latest bytes of each servo, shape (n, length); kept where no new ones came."""
        self.fresh = np.zeros(len(ids), np.bool_)
        """Who answered soundly in the last `read`, shape (n,)."""
        self.alert = np.zeros(len(ids), np.bool_)
        """Whose Hardware Error Status was not zero in its latest answer, shape (n,)."""
        self._bus, self._address, self._fast = bus, address, fast
        self._row_of = {id: row for row, id in enumerate(ids)}
        self._request = codec.sync_read(ids, address, length, fast=fast)
        self._replies = replies
        self._received = memoryview(self._replies.buffer)
        self.wire_s = bus.wire_s(len(self._request), len(self._received), len(ids))
        """Longest time [s] the request and its whole reply occupy the wire."""
        self.turns = 1
        self._merged_length = length if fast else 0
        self._longest = max(
            codec.longest_status(length + SPARE_BYTES), 1 + len(ids) * (length + 4) if fast else 0
        )
        again = codec.sync_read(ids, address, length)
        again_bytes = len(ids) * (codec.STATUS_OVERHEAD + length + SPARE_BYTES)
        self._another_wire_s = bus.wire_s(len(again), again_bytes, len(ids))
        self._rows = self._all = list(range(len(ids)))
        self._alerted = False  # whether anybody may be in `alert`
        self._spare = 0  # bytes asked for beyond `length` in this reading
        self._asked_s = -math.inf  # when the first request of this reading was sent
        self._wire_s = 0.0  # what it and its reply occupy
        # When all had answered; a second answer that comes later then tells that the first was late
        self._done_s: float | None = None
        self._late = 0  # replies that had come late by then

    def read(self, deadline_s: float) -> int:
        """Bring `data`, `fresh` and `alert` up to date.

        A deadline nearer than `wire_s` reads nothing: no servo may still be speaking when the next
        command is sent.

        Args:
            deadline_s: time on the port's clock to be done at.

        Returns:
            How many servos answered.
        """
        bus, statistics, all = self._bus, self._bus.statistics, len(self.ids)
        asked_s, wire_s, done_s = self._asked_s, self._wire_s, self._done_s
        # whom to ask again, in which order: those silent in the last reading come last
        if not self._spare:
            self._rows = self._all
            kept = self._ask_all(deadline_s)
        else:
            begin_s = bus.port.now()
            self._rows = np.argsort(~self.fresh, kind="stable").tolist()
            self.fresh.fill(False)
            kept = self._ask_missing(deadline_s, first=True)
            if statistics.late > self._late and begin_s - asked_s < LATEST_S:
                bus.follow_latency((done_s or begin_s) - asked_s, wire_s)
        self._late = statistics.late
        answered = kept or 0
        if kept is not None:
            spare = 0 if answered == all else self._spare % SPARE_BYTES + 1
            while answered < all and (more := self._ask_missing(deadline_s)):
                answered += more
            self._spare = spare
        self._done_s = bus.port.now() if answered == all else None
        statistics.lost += all - answered
        return answered

    def _give_up_s(self, now_s: float, wire_s: float, deadline_s: float) -> float | None:
        """Until when to wait for replies that occupy the wire for `wire_s`, if asked for now.

        None if they could still be on the wire at `deadline_s`: a servo must not be speaking when
        the next command is sent.
        """
        latency_s = self._bus.latency_s
        if now_s + wire_s > deadline_s:
            return None
        patient_s = now_s + wire_s + latency_s
        another_s = self._another_wire_s + latency_s
        return patient_s if patient_s + another_s <= deadline_s else deadline_s

    def _ask_all(self, deadline_s: float) -> int | None:
        """How many answered; None if there was no time to ask."""
        bus, replies, wire_s, size = self._bus, self._replies, self.wire_s, len(self._received)
        port = bus.port
        asked_s = port.now()
        give_up_s = self._give_up_s(asked_s, wire_s, deadline_s)
        if give_up_s is None:
            self.fresh.fill(False)
            return None
        self._asked_s, self._wire_s = asked_s, wire_s
        bus.send(self._request)
        count = 0
        while count < size and (more := port.read_into(self._received[count:], give_up_s)):
            count = replies.align(count + more)
        if count == size:
            bus.follow_latency(port.now() - asked_s, wire_s)
        if replies.check(count):
            self.data[:] = replies.data
            self.fresh.fill(True)
            if self._alerted:
                self.alert.fill(False)
                self._alerted = False
            return len(self.ids)
        self.fresh.fill(False)
        if self._fast:
            return self._keep_sound(count)
        # noise, stuffing or a servo missing: find the packets wherever they lie
        length, received = self.data.shape[1], self._received[:count]
        return self._keep(bus.gather(self.ids, length, give_up_s, received, longest=self._longest))

    def _ask_missing(self, deadline_s: float, *, first: bool = False) -> int | None:
        """How many servos answered that had not; None if there was no time to ask.

        Any answer to this reading will do, also a late one to its first request.
        """
        bus, length = self._bus, self.data.shape[1] + self._spare
        rows = [row for row in self._rows if not self.fresh[row]]
        self._rows = rows if first else [*rows[1:], rows[0]]  # the first is the suspect
        ids = [self.ids[row] for row in self._rows]
        address = self._address - (self._spare if bus.codec.SPARE_BEFORE else 0)
        request = bus.codec.sync_read(ids, address, length)
        reply_bytes = len(ids) * (bus.codec.STATUS_OVERHEAD + length)
        wire_s = bus.wire_s(len(request), reply_bytes, len(ids))
        give_up_s = self._give_up_s(bus.port.now(), wire_s, deadline_s)
        if give_up_s is None:
            return None
        if not first and not self.fresh.any():
            give_up_s = deadline_s  # nobody has spoken, so the adapter may well be slow
        if first:
            self._asked_s, self._wire_s = bus.port.now(), wire_s
        else:
            bus.statistics.retried += len(ids)
        bus.send(request)
        statuses = bus.gather(
            ids, length, give_up_s, longest=self._longest, merged_length=self._merged_length
        )
        if first and len(statuses) == len(ids):
            bus.follow_latency(bus.port.now() - self._asked_s, wire_s)
        return self._keep(statuses)

    def _keep_sound(self, received: int) -> int:
        replies, sound = self._replies, self._replies.sound
        np.copyto(self.data, replies.data, where=sound[:, None])
        np.copyto(self.alert, replies.alert, where=sound)
        self._alerted = True
        np.copyto(self.fresh, sound)
        missing = len(self.ids) - replies.complete(received)
        self._bus.statistics.timeouts += missing > 0
        answered = int(np.count_nonzero(sound))
        self._bus.statistics.crc_errors += len(self.ids) - answered - missing
        return answered

    def _keep(self, statuses: dict[int, Status]) -> int:
        kept, length, self._alerted = 0, self.data.shape[1], True
        for id, status in statuses.items():
            if not status.error:
                row = self._row_of[id]
                before = len(status.data) - length if self._bus.codec.SPARE_BEFORE else 0
                self.data[row] = np.frombuffer(status.data, np.uint8, length, before)
                self.alert[row] = status.alert
                self.fresh[row] = True
                kept += 1
        return kept
