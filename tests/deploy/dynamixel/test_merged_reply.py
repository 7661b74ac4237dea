"""A merged reply, checked in place: what one damaged byte costs, and what it does not."""

import random

from deploy.dynamixel import protocol
from deploy.dynamixel.merged_reply import MergedReply
from deploy.dynamixel.protocol import ErrorCode, Status

IDS = (3, 7, 4)
FRAME = bytes.fromhex(  # eManual, fast sync read of Present Position
    "FF FF FD 00 FE 19 00 55 00 03 A6 00 00 00 84 0800 07 1F 08 00 00 16 CA 00 04 FF 03 00 00 D1 9E"
)
HEADER_BYTES, BLOCK_BYTES = 8, 8


def _received(frame: bytes, ids: tuple[int, ...] = IDS) -> MergedReply:
    reply = MergedReply(ids, 4)
    reply.buffer[: len(frame)] = frame
    return reply


def test_published_frame_is_sound_and_holds_the_positions():
    reply = _received(FRAME)
    assert reply.check(len(FRAME)).tolist() == [True, True, True]
    assert reply.data.copy().view("<i4")[:, 0].tolist() == [166, 2079, 1023]
    assert not reply.alert.any()


def test_damaged_data_costs_only_its_own_block():
    for position in range(HEADER_BYTES + BLOCK_BYTES, HEADER_BYTES + 2 * BLOCK_BYTES - 2):
        damaged = bytearray(FRAME)
        damaged[position] ^= 0x40
        assert _received(damaged).check(len(FRAME)).tolist() == [True, False, True]


def test_damaged_crc_costs_the_block_behind_it_too():
    damaged = bytearray(FRAME)
    damaged[HEADER_BYTES + BLOCK_BYTES - 1] ^= 0x01
    assert _received(damaged).check(len(FRAME)).tolist() == [False, False, True]


def test_short_reply_keeps_the_complete_blocks_and_no_leftovers_of_the_one_before():
    reply = _received(FRAME)
    assert reply.check(HEADER_BYTES + 2 * BLOCK_BYTES + 7).tolist() == [True, True, False]
    assert reply.check(HEADER_BYTES + BLOCK_BYTES).tolist() == [True, False, False]
    assert reply.check(5).tolist() == [False, False, False]


def test_block_of_another_servo_is_refused():
    assert _received(FRAME, (3, 8, 4)).check(len(FRAME)).tolist() == [True, False, True]


def test_error_code_refuses_the_block_and_alert_bit_does_not():
    statuses = [
        Status(3, bytes(4), alert=True),
        Status(7, bytes(4), error=ErrorCode.DATA_RANGE),
        Status(4, bytes(4)),
    ]
    reply = _received(protocol.merge(statuses))
    assert reply.check(len(FRAME)).tolist() == [True, False, True]
    assert reply.alert.tolist() == [True, False, False]


def test_any_reply_is_checked_as_its_servos_wrote_it():
    rng = random.Random(0)
    for _ in range(200):
        ids, length = rng.sample(range(253), rng.randrange(1, 14)), rng.randrange(1, 20)
        statuses = [Status(id, rng.randbytes(length), alert=rng.random() < 0.5) for id in ids]
        reply = MergedReply(ids, length)
        reply.buffer[:] = protocol.merge(statuses)
        assert reply.check(len(reply.buffer)).all()
        assert [row.tobytes() for row in reply.data] == [status.data for status in statuses]
        assert reply.alert.tolist() == [status.alert for status in statuses]


def test_align_drops_what_precedes_the_header():
    echo = protocol.sync_read(IDS, 132, 4, fast=True)
    reply = _received((echo + FRAME)[: len(FRAME)])
    kept = reply.align(len(FRAME))
    assert kept == len(FRAME) - len(echo)
    assert reply.buffer[:kept] == FRAME[:kept]


def test_align_keeps_what_may_be_the_beginning_of_a_header():
    reply = _received(b"noise" + FRAME[:3])
    assert reply.align(8) == 7  # one byte less than a header
    assert reply.buffer[4:7] == FRAME[:3]
