"""The merged reply to a fast sync read, received and checked in place.

    header | error id data CRC | error id data CRC | ...

All servos asked answer in one packet, each behind the other (`protocol.merge`). Each CRC runs over
everything since the header, the earlier CRCs included. So whoever trusts the CRC a servo found
before it can check that servo's block alone: a damaged block costs itself (and the next one where
its CRC was hit), not the rest of the reply. All blocks have one length, so one table look-up per
byte checks them all at once.
"""

import struct
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from deploy.dynamixel.crc import RowCrc, contributions, crc16
from deploy.dynamixel.protocol import BROADCAST_ID, HEADER, Instruction


class MergedReply:
    """A receive buffer that knows which servos' blocks are sound."""

    def __init__(self, ids: Sequence[int], length: int):
        """Lay out the reply of `ids`, each with `length` bytes of data."""
        self._ids_asked = np.array(ids, np.uint8)
        self._block = length + 4
        body = len(ids) * self._block
        self.header = HEADER + struct.pack("<BHB", BROADCAST_ID, 1 + body, Instruction.STATUS)
        self.buffer = bytearray(len(self.header) + body)

        whole = np.frombuffer(self.buffer, np.uint8)
        blocks = whole[len(self.header) :].reshape(len(ids), self._block)
        self._errors, self._ids, self._crcs = blocks[:, 0], blocks[:, 1], blocks[:, -2:].view("<u2")
        self.data = blocks[:, 2:-2]
        """Bytes read, shape (n, length): live, so only what `check` approves means anything."""

        # A row is what a block's CRC is found from: the CRC before it, then error, id, data. The
        # CRC before stands for the state as well as being two bytes of the message, and a state
        # acts as if xored, high byte first, onto the next two bytes: hence the sum of both tables.
        rows = whole[len(self.header) - 2 : -2].reshape(len(ids), self._block)
        table = contributions(self._block)
        table[:2] = table[0] ^ table[1]
        self._row_crc = RowCrc(rows, table)
        # The first row begins with the end of the header instead, which is always the same.
        self._seed = np.zeros(len(ids), np.uint16)
        self._seed[0] = (
            crc16(self.header + bytes(length + 2))
            ^ int(table[0, self.header[-2]])
            ^ int(table[1, self.header[-1]])
        )
        self._sound = np.empty(len(ids), np.bool_)

    @property
    def alert(self) -> NDArray[np.bool_]:
        """Whose Hardware Error Status is not zero, shape (n,)."""
        return self._errors >= 0x80

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

    def check(self, received: int) -> NDArray[np.bool_]:
        """Which servos answered soundly and without an error, shape (n,); reused by the next call.

        Args:
            received: bytes in `buffer`; what lies behind them is from an earlier reply.
        """
        expected = self._row_crc.compute()
        np.bitwise_xor(expected, self._seed, out=expected)
        np.equal(expected, self._crcs[:, 0], out=self._sound)
        self._sound &= self._ids == self._ids_asked
        self._sound &= (self._errors & 0x7F) == 0
        self._sound[self.complete(received) :] = False
        return self._sound
