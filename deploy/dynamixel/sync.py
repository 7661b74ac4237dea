"""Several servos at once: what runs on the bus every tick.

    feedback = SyncRead(bus, ids, registers.PRESENT_POSITION.address, 4, fast=True)
    targets = SyncWrite(bus, ids, registers.GOAL_POSITION)

    feedback.read(port.now() + 0.005)     # fills feedback.data where feedback.fresh
    targets.write(target_ticks)

Neither waits past the deadline nor raises for a missing or damaged reply; a `BusError` means that
the port is gone. With `fast`, a tick in which every servo answers allocates no buffers.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from deploy.dynamixel import protocol
from deploy.dynamixel.bus import DynamixelBus
from deploy.dynamixel.crc import RowCrc, contributions
from deploy.dynamixel.protocol import Status
from deploy.dynamixel.registers import Register
from deploy.dynamixel.replies import Replies

_ITEMS = 12
"""Where the items of a sync write begin: behind header, id, length, instruction, address, size."""


class SyncRead:
    """The same bytes of several servos.

    With `fast`, all servos answer in one merged packet; each needs at least the firmware
    `ServoModel.fast_read_firmware`. Otherwise each sends a packet of its own.

    Servos whose answer is missing or damaged are asked again while time remains. A servo speaks
    only after the one before it in the list, so a silent one silences the rest: the first missing
    one is the suspect and goes to the end of the list.
    """

    def __init__(
        self, bus: DynamixelBus, ids: Sequence[int], address: int, length: int, *, fast: bool
    ):
        """Prepare to read `length` bytes from `address` of each of `ids`."""
        self.ids = tuple(ids)
        self.data = np.zeros((len(ids), length), np.uint8)
        """Latest bytes of each servo, shape (n, length); kept where no new ones came."""
        self.fresh = np.zeros(len(ids), np.bool_)
        """Who answered soundly in the last `read`, shape (n,)."""
        self.alert = np.zeros(len(ids), np.bool_)
        """Whose Hardware Error Status was not zero in its latest answer, shape (n,)."""
        self._bus, self._address, self._fast = bus, address, fast
        self._row_of = {id: row for row, id in enumerate(ids)}
        self._request = protocol.sync_read(ids, address, length, fast=fast)
        self._replies = Replies(ids, length, merged=fast)
        self._received = memoryview(self._replies.buffer)
        self.wire_s = bus.wire_s(len(self._request), len(self._received), len(ids))
        """Longest time [s] the request and its whole reply occupy the wire."""

    def read(self, deadline_s: float) -> int:
        """Bring `data`, `fresh` and `alert` up to date.

        A deadline nearer than `wire_s` reads nothing: no servo may still be speaking when the next
        command is sent.

        Args:
            deadline_s: time on the port's clock to be done at.

        Returns:
            How many servos answered.
        """
        self.fresh.fill(False)
        give_up_s = self._bus.give_up_s(self.wire_s, deadline_s)
        if give_up_s is not None and self._ask_all(give_up_s):
            return len(self.ids)
        while not self.fresh.all() and self._ask_missing(deadline_s):
            pass
        answered = int(np.count_nonzero(self.fresh))
        self._bus.statistics.lost += len(self.ids) - answered
        return answered

    def _ask_all(self, give_up_s: float) -> bool:
        """Whether all went as usual; otherwise `fresh` tells who answered."""
        bus, replies = self._bus, self._replies
        bus.send(self._request)
        count = 0
        while count < len(self._received):
            received = bus.port.read_into(self._received[count:], give_up_s)
            if not received:
                break
            count = replies.align(count + received)
        if replies.check(count):
            np.copyto(self.data, replies.data)
            self.fresh.fill(True)
            self.alert.fill(False)
            return True
        if self._fast:
            self._keep_sound(count)
        else:  # noise, stuffing or a servo missing: find the packets wherever they lie
            length = self.data.shape[1]
            self._keep(bus.gather(self.ids, length, give_up_s, self._received[:count]))
        return False

    def _ask_missing(self, deadline_s: float) -> int:
        """How many servos answered that had not."""
        bus, length = self._bus, self.data.shape[1]
        suspect, *others = (self.ids[row] for row in np.flatnonzero(~self.fresh))
        ids = (*others, suspect)
        request = protocol.sync_read(ids, self._address, length)
        reply_bytes = len(ids) * (protocol.STATUS_OVERHEAD + length)
        give_up_s = bus.give_up_s(bus.wire_s(len(request), reply_bytes, len(ids)), deadline_s)
        if give_up_s is None:
            return 0
        bus.statistics.retried += len(ids)
        return self._keep(bus.ask(request, ids, length, give_up_s))

    def _keep_sound(self, received: int) -> None:
        replies, sound = self._replies, self._replies.sound
        np.copyto(self.data, replies.data, where=sound[:, None])
        np.copyto(self.alert, replies.alert, where=sound)
        np.copyto(self.fresh, sound)
        missing = len(self.ids) - replies.complete(received)
        self._bus.statistics.timeouts += missing > 0
        self._bus.statistics.crc_errors += int(np.count_nonzero(~sound)) - missing

    def _keep(self, statuses: dict[int, Status]) -> int:
        kept = 0
        for id, status in statuses.items():
            if not status.error:
                row = self._row_of[id]
                self.data[row] = np.frombuffer(status.data, np.uint8)
                self.alert[row] = status.alert
                self.fresh[row] = True
                kept += 1
        return kept


class SyncWrite:
    """One register of several servos; nobody answers."""

    def __init__(self, bus: DynamixelBus, ids: Sequence[int], register: Register):
        """Prepare to write `register` of each of `ids`."""
        self._port, self._ids, self._register = bus.port, tuple(ids), register
        blank = {id: bytes(register.size) for id in ids}
        self._frame = bytearray(protocol.sync_write(register.address, register.size, blank))
        whole = np.frombuffer(self._frame, np.uint8)
        items = whole[_ITEMS:-2].reshape(len(ids), 1 + register.size)  # id, value
        kind = "i" if register.signed else "u"
        self._values = items[:, 1:].view(f"<{kind}{register.size}")[:, 0]
        self._crc = whole[-2:].view("<u2")
        self._row_crc = RowCrc(whole[None, :-2], contributions(len(whole) - 2))

    def write(self, values: NDArray[np.integer]) -> None:
        """Send one value to each servo.

        Args:
            values: raw counts, shape (n,), of the register's own type: int32 for Goal Position.

        Raises:
            TypeError: the type could hold values that the register cannot.
        """
        np.copyto(self._values, values, casting="safe")
        if self._frame.find(protocol.HEADER_MARK, _ITEMS, -2) < 0:
            self._crc[:] = self._row_crc.compute()
            self._port.write(self._frame)
        else:  # the values need stuffing, so the packet is longer
            data = {id: item.tobytes() for id, item in zip(self._ids, self._values, strict=True)}
            register = self._register
            self._port.write(protocol.sync_write(register.address, register.size, data))
