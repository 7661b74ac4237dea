"""The two ways to a CRC agree, with each other and with the published check value."""

import numpy as np

from deploy.dynamixel.crc import RowCrc, contributions, crc16


def test_check_value_is_the_published_one():
    assert crc16(b"123456789") == 0xFEE8


def test_crc_continues_where_it_stopped():
    assert crc16(b"6789", crc16(b"12345")) == 0xFEE8


def test_row_crc_equals_the_byte_by_byte_crc_of_each_row():
    rng = np.random.default_rng(0)
    rows = np.empty((5, 33), np.uint8)
    row_crc = RowCrc(rows, contributions(33))
    for _ in range(20):
        rows[:] = rng.integers(0, 256, rows.shape)  # bound to the array, not to its first contents
        assert row_crc.compute().tolist() == [crc16(row.tobytes()) for row in rows]
