"""Several Feetech servos at once: what runs on the bus every tick; see `deploy.servos.sync_read`.

feedback = SyncRead(bus, ids, registers.PRESENT_POSITION.address, 15)      # or ReadInTurn
targets = SyncWrite(bus, ids, registers.GOAL_POSITION)
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from deploy.feetech import protocol
from deploy.feetech.protocol import Status
from deploy.servos import sync_read
from deploy.servos.bus import ServoBus
from deploy.servos.register import Register

_TAG = 4
"""Header, id and length come before the error byte."""
_ITEMS = 7
"""Where the items of a sync write begin: behind header, id, length, instruction, address, size."""


class Replies:
    """The replies to a sync read in one buffer, checked all at once; see `servos.sync_read`."""

    merged = False

    def __init__(self, ids: Sequence[int], length: int):
        """Lay out the replies of `ids`, in this order, each with `length` bytes of data."""
        self.buffer = bytearray(b"".join(Status(id, bytes(length)).encode() for id in ids))
        blocks = np.frombuffer(self.buffer, np.uint8).reshape(len(ids), -1)
        self.data = blocks[:, _TAG + 1 : -1]
        """Bytes read, shape (n, length): live, so only what `check` approves means anything."""
        self.sound = np.zeros(len(ids), np.bool_)
        """Who answered soundly in what was checked last, shape (n,)."""
        self.faults = blocks[:, _TAG]
        """What each servo complains about, shape (n,)."""
        self._block = blocks.shape[1]
        self._tags, self._usual_tags = blocks[:, :_TAG], blocks[:, :_TAG].copy()
        self._heads = blocks[:, : _TAG + 1]  # tag and faults
        self._usual_heads = self._heads.tobytes()
        self._summed = blocks[:, 2:]  # with the checksum all bytes add up to 255
        self._ones = np.ones(self._summed.shape[1], np.uint8)
        self._sums = np.zeros(len(ids), np.uint8)
        self._usual_sums = bytes([0xFF]) * len(ids)

    @property
    def alert(self) -> NDArray[np.bool_]:
        """Who complains, shape (n,)."""
        return self.faults > 0

    def align(self, received: int) -> int:
        """Nothing to drop: what precedes the first reply is found packet by packet."""
        return received

    def complete(self, received: int) -> int:
        """How many replies the first `received` bytes hold."""
        return received // self._block

    def check(self, received: int) -> bool:
        """Whether every servo answered soundly and without a complaint; else see `sound`.

        Args:
            received: bytes in `buffer`; what lies behind them is from an earlier reply.
        """
        self._summed.dot(self._ones, self._sums)  # a third of the time of a sum
        if (
            received == len(self.buffer)
            and self._sums.tobytes() == self._usual_sums
            and self._heads.tobytes() == self._usual_heads
        ):
            return True
        np.equal(self._sums, 0xFF, out=self.sound)
        self.sound &= (self._tags == self._usual_tags).all(axis=1)
        self.sound &= self.faults <= protocol.LARGEST_ERROR
        self.sound[self.complete(received) :] = False
        return False


class SyncRead(sync_read.SyncRead):
    """The same bytes of several servos; each sends a packet of its own."""

    def __init__(self, bus: ServoBus, ids: Sequence[int], address: int, length: int):
        """Prepare to read `length` bytes from `address` of each of `ids`."""
        super().__init__(bus, ids, address, length, Replies(ids, length))


class ReadInTurn:
    """The same bytes of several servos, each asked on its own; see `servos.sync_read.Feedback`.

    A silent one is asked again only in the time that those behind it do not need, and comes last
    in the next reading.
    """

    def __init__(self, bus: ServoBus, ids: Sequence[int], address: int, length: int):
        """Prepare to read `length` bytes from `address` of each of `ids`."""
        self.data = np.zeros((len(ids), length), np.uint8)
        self.fresh, self.alert = np.zeros((2, len(ids)), np.bool_)
        self._bus = bus
        self._parts = [SyncRead(bus, [id], address, length) for id in ids]
        for row, part in enumerate(self._parts):  # views: what a part learns stands here
            rows = slice(row, row + 1)
            part.data, part.fresh, part.alert = self.data[rows], self.fresh[rows], self.alert[rows]
        self.wire_s = sum(part.wire_s for part in self._parts)
        self.turns = len(ids)
        self._missed = False  # whether anybody was silent in the last reading

    def read(self, deadline_s: float) -> int:
        """Bring `data`, `fresh` and `alert` up to date; how many servos answered."""
        parts, bus, answered = self._parts, self._bus, 0
        if self._missed:
            parts = [parts[row] for row in np.argsort(~self.fresh, kind="stable")]
        left = len(parts)
        for part in parts:
            left -= 1
            answered += part.read(deadline_s - left * (part.wire_s + bus.latency_s))
        self._missed = answered < len(parts)
        return answered


class SyncWrite:
    """Two bytes of several servos; nobody answers."""

    def __init__(self, bus: ServoBus, ids: Sequence[int], register: Register):
        """Prepare to write `register` of each of `ids`."""
        self._port = bus.port
        blank = {id: bytes(register.size) for id in ids}
        self._frame = bytearray(protocol.sync_write(register.address, register.size, blank))
        whole = np.frombuffer(self._frame, np.uint8)
        items = whole[_ITEMS:-1].reshape(len(ids), 1 + register.size)  # id, value
        number = np.dtype(np.uint16).newbyteorder(register.byte_order)
        self._values = items[:, 1:].view(number)[:, 0]
        self._body = memoryview(self._frame)[2:-1]

    def write(self, values: NDArray[np.uint16]) -> None:
        """Send one value to each servo.

        Args:
            values: raw counts as the register has them, shape (n,).

        Raises:
            TypeError: the type could hold values that the register cannot.
        """
        np.copyto(self._values, values, casting="safe")
        self._frame[-1] = protocol.checksum(self._body)
        self._port.write(self._frame)
