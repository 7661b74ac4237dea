"""CRC-16 of DYNAMIXEL Protocol 2.0: byte by byte, and for whole rows of bytes at once.

Polynomial 0x8005, initial value 0, no reflection, no final xor (CRC-16/UMTS, alias BUYPASS); the
check value of b"123456789" is 0xFEE8. On the wire the low byte comes first. Source: eManual,
"DYNAMIXEL Protocol 2.0 > CRC", https://emanual.robotis.com/docs/en/dxl/crc/

An initial value of 0 makes the CRC linear over xor: every byte contributes on its own, whatever
the others are. So the CRC of a row of known length is one table look-up per byte and one xor over
the row, which numpy does for all rows of a reply without a Python loop.
"""

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

POLYNOMIAL = 0x8005


def _byte_table() -> tuple[int, ...]:
    table = []
    for byte in range(256):
        crc = byte << 8
        for _ in range(8):
            crc = (crc << 1) ^ (POLYNOMIAL if crc & 0x8000 else 0)
            crc &= 0xFFFF
        table.append(crc)
    return tuple(table)


_TABLE = _byte_table()


def crc16(data: Iterable[int], crc: int = 0) -> int:
    """CRC of `data`, continuing from `crc`."""
    for byte in data:
        crc = ((crc & 0xFF) << 8) ^ _TABLE[(crc >> 8) ^ byte]
    return crc


def contributions(length: int) -> NDArray[np.uint16]:
    """What each byte of a message adds to its CRC, shape (length, 256).

    `crc16(message) == xor over i of contributions(len(message))[i, message[i]]`.
    """
    table = np.array(_TABLE, np.uint16)
    rows = np.empty((length, 256), np.uint16)
    rows[-1] = table  # the last byte; each one before it is moved on by one more zero byte
    for i in range(length - 2, -1, -1):
        rows[i] = (rows[i + 1] << 8) ^ table[rows[i + 1] >> 8]
    return rows


class RowCrc:
    """CRC of every row of a byte array, recomputed in place as the bytes change."""

    def __init__(
        self,
        rows: NDArray[np.uint8],
        table: NDArray[np.uint16],
        constant: NDArray[np.uint16] | None = None,
    ):
        """Bind to live bytes.

        Args:
            rows: bytes, shape (n, length); read anew at each `compute`.
            table: contribution of each byte value at each position, shape (length, 256).
            constant: what bytes outside a row contribute to its CRC, shape (n,); nothing if None.
        """
        self._rows, (count, length) = rows, rows.shape
        constant = np.zeros(count, np.uint16) if constant is None else constant
        # The constant of a row costs nothing in a table of the row's own for its first byte.
        self._table = np.concatenate([(table[0] ^ constant[:, None]).ravel(), table[1:].ravel()])
        self._index = np.broadcast_to(256 * (np.arange(length) + count - 1), rows.shape).copy()
        self._index[:, 0] = 256 * np.arange(count)
        self._low = self._index.view(np.uint8)[:, :: self._index.itemsize]  # where a byte goes
        self._terms = np.empty(rows.shape, np.uint16)
        self._crc = np.empty(len(rows), np.uint16)

    def compute(self) -> NDArray[np.uint16]:
        """CRC of each row, shape (n,); the array is reused by the next call."""
        self._low[:] = self._rows
        # The index cannot leave the table; mode="raise" would copy `out` to say so.
        self._table.take(self._index, out=self._terms, mode="clip")
        return np.bitwise_xor.reduce(self._terms, axis=1, out=self._crc)
