"""Several servos at once: what runs on the bus every tick; see `deploy.servos.sync_read`.

feedback = SyncRead(bus, ids, registers.PRESENT_POSITION.address, 4, fast=True)
targets = SyncWrite(bus, ids, registers.GOAL_POSITION)

feedback.read(port.now() + 0.005)     # fills feedback.data where feedback.fresh
targets.write(target_ticks)
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from deploy.dynamixel import protocol
from deploy.dynamixel.bus import DynamixelBus
from deploy.dynamixel.crc import RowCrc, contributions
from deploy.dynamixel.replies import Replies
from deploy.servos import sync_read
from deploy.servos.register import Register

_ITEMS = 12
"""Where the items of a sync write begin: behind header, id, length, instruction, address, size."""


class SyncRead(sync_read.SyncRead):
    """The same bytes of several servos.

    With `fast`, all servos answer in one merged packet; each needs at least the firmware
    `ServoModel.fast_read_firmware`. Otherwise each sends a packet of its own.
    """

    def __init__(
        self, bus: DynamixelBus, ids: Sequence[int], address: int, length: int, *, fast: bool
    ):
        """Prepare to read `length` bytes from `address` of each of `ids`."""
        super().__init__(bus, ids, address, length, Replies(ids, length, merged=fast))


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
