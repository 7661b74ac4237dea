"""The replies to a sync read, received into one buffer and checked there all at once.

    merged:  header | error id data CRC | error id data CRC | ...      (fast sync read)
    single:  header id length 55 error data CRC | header id ...        (sync read)

Either way each servo contributes one block, all blocks have one length, and only error, data and
CRC are unknown before they come. So one table look-up per byte gives all CRCs at once (`RowCrc`),
and comparing bytes with a template does the rest.

In a merged reply each CRC runs over everything since the header, the earlier CRCs included. Whoever
trusts the CRC before a block can check that block alone: a damaged block costs itself, and the next
one where its CRC was hit, not the rest of the reply.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from deploy.dynamixel import protocol
from deploy.dynamixel.crc import RowCrc, contributions
from deploy.dynamixel.protocol import Status


class Replies:
    """A receive buffer that knows which servos' blocks are sound."""

    def __init__(self, ids: Sequence[int], length: int, *, merged: bool):
        """Lay out the replies of `ids`, in this order, each with `length` bytes of data."""
        statuses = [Status(id, bytes(length)) for id in ids]
        template = protocol.merge(statuses) if merged else b"".join(s.encode() for s in statuses)
        self.buffer, self.merged = bytearray(template), merged
        self.header = template[:8] if merged else b""
        """What all servos' blocks follow."""

        whole = np.frombuffer(self.buffer, np.uint8)
        blocks = whole[len(self.header) :].reshape(len(ids), -1)
        self.data = blocks[:, -2 - length : -2]
        """Bytes read, shape (n, length): live, so only what `check` approves means anything."""
        self._block = blocks.shape[1]
        self._tags = blocks[:, : -2 - length]  # all that precedes the data
        self._usual_tags, self._usual = self._tags.copy(), self._tags.tobytes()
        self._error = 0 if merged else -1  # where in a tag the error byte is
        self._crcs = blocks[:, -2:].view("<u2")

        if merged:
            # Rows begin with the CRC before the block (or the end of the header). It counts twice,
            # as two bytes of the message and as the state so far; a state acts as if xored, high
            # byte first, onto the next two bytes, hence the sum of both tables for both.
            rows = whole[len(self.header) - 2 : -2].reshape(len(ids), -1)
            table = contributions(rows.shape[1])
            table[:2] = table[0] ^ table[1]
        else:
            rows = blocks[:, 8:-2]  # what precedes is always the same
            table = contributions(rows.shape[1])
        left_out = self._crcs[:, 0] ^ RowCrc(rows, table).compute()  # what those bytes contribute
        self._row_crc = RowCrc(rows, table, left_out)
        self.sound = np.zeros(len(ids), np.bool_)
        """Who answered soundly and without an error in what was checked last, shape (n,)."""

    @property
    def alert(self) -> NDArray[np.bool_]:
        """Whose Hardware Error Status is not zero, shape (n,)."""
        return self._tags[:, self._error] >= 0x80

    def align(self, received: int) -> int:
        """Drop what precedes the header: an echo of the request, or the end of a late reply.

        Args:
            received: bytes in `buffer` so far.

        Returns:
            How many of them are left, moved to the front.
        """
        if self.buffer.startswith(self.header):
            return received
        start = self.buffer.find(self.header, 0, received)
        if start < 0:  # the last bytes may be the beginning of the header
            start = max(0, received - len(self.header) + 1)
        self.buffer[: received - start] = self.buffer[start:received]
        return received - start

    def complete(self, received: int) -> int:
        """How many blocks the first `received` bytes hold."""
        return max(0, received - len(self.header)) // self._block

    def check(self, received: int) -> bool:
        """Whether every servo answered soundly and without error or alert; else see `sound`.

        Args:
            received: bytes in `buffer`; what lies behind them is from an earlier reply.
        """
        expected = self._row_crc.compute()
        if (
            received == len(self.buffer)
            and expected.tobytes() == self._crcs.tobytes()
            and self._tags.tobytes() == self._usual
        ):
            return True
        unusual = self._tags ^ self._usual_tags
        unusual[:, self._error] &= 0x7F  # the alert bit is no fault of the reply
        np.equal(expected, self._crcs[:, 0], out=self.sound)
        self.sound &= ~unusual.any(axis=1)
        self.sound[self.complete(received) :] = False
        return False
