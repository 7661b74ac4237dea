"""Replies checked where they were received: what one damaged byte costs, and what it does not."""

import random

import pytest

from deploy.dynamixel import protocol
from deploy.dynamixel.protocol import ErrorCode, Status
from deploy.dynamixel.replies import Replies

IDS = (3, 7, 4)
FRAME = bytes.fromhex(  # eManual, fast sync read of Present Position
    "FF FF FD 00 FE 19 00 55 00 03 A6 00 00 00 84 0800 07 1F 08 00 00 16 CA 00 04 FF 03 00 00 D1 9E"
)
HEADER_BYTES, BLOCK_BYTES = 8, 8


def _merged(frame: bytes | bytearray = FRAME, ids: tuple[int, ...] = IDS) -> Replies:
    replies = Replies(ids, 4, merged=True)
    replies.buffer[: len(frame)] = frame
    return replies


def _sound(replies: Replies, received: int = len(FRAME)) -> list[bool]:
    assert not replies.check(received)
    return replies.sound.tolist()


def test_published_frame_is_sound_and_holds_the_positions():
    replies = _merged()
    assert replies.check(len(FRAME))
    assert replies.data.copy().view("<i4")[:, 0].tolist() == [166, 2079, 1023]


def test_damaged_data_costs_only_its_own_block():
    for position in range(HEADER_BYTES + BLOCK_BYTES, HEADER_BYTES + 2 * BLOCK_BYTES - 2):
        damaged = bytearray(FRAME)
        damaged[position] ^= 0x40
        assert _sound(_merged(damaged)) == [True, False, True]


def test_damaged_crc_costs_the_block_behind_it_too():
    damaged = bytearray(FRAME)
    damaged[HEADER_BYTES + BLOCK_BYTES - 1] ^= 0x01
    assert _sound(_merged(damaged)) == [False, False, True]


def test_short_reply_keeps_the_complete_blocks_and_no_leftovers_of_the_one_before():
    replies = _merged()
    assert replies.check(len(FRAME))
    assert _sound(replies, HEADER_BYTES + 2 * BLOCK_BYTES + 7) == [True, True, False]
    assert _sound(replies, HEADER_BYTES + BLOCK_BYTES) == [True, False, False]
    assert _sound(replies, 5) == [False, False, False]


def test_block_of_another_servo_is_refused():
    assert _sound(_merged(ids=(3, 8, 4))) == [True, False, True]


def test_error_code_refuses_the_block_and_alert_bit_does_not():
    statuses = [
        Status(3, bytes(4), alert=True),
        Status(7, bytes(4), error=ErrorCode.DATA_RANGE),
        Status(4, bytes(4)),
    ]
    replies = _merged(protocol.merge(statuses))
    assert _sound(replies) == [True, False, True]
    assert replies.alert.tolist() == [True, False, False]


@pytest.mark.parametrize("merged", [True, False], ids=["merged", "single"])
def test_alert_is_no_fault_of_a_reply(merged: bool):
    statuses = [Status(id, bytes(4), alert=id == 7) for id in IDS]
    replies = Replies(IDS, 4, merged=merged)
    replies.buffer[:] = (
        protocol.merge(statuses) if merged else b"".join(s.encode() for s in statuses)
    )
    assert _sound(replies, len(replies.buffer)) == [True, True, True]
    assert replies.alert.tolist() == [False, True, False]


@pytest.mark.parametrize("alert", [False, True])
def test_every_error_code_refuses_the_block_and_none_is_an_alert(alert: bool):
    for error in range(1, 0x80):
        statuses = [Status(3, bytes(4)), Status(7, bytes(4), error, alert), Status(4, bytes(4))]
        replies = _merged(protocol.merge(statuses))
        assert _sound(replies) == [True, False, True]
        assert replies.alert.tolist() == [False, alert, False]


@pytest.mark.parametrize("merged", [True, False], ids=["merged", "single"])
def test_any_reply_is_checked_as_its_servos_wrote_it(merged: bool):
    rng = random.Random(0)
    for _ in range(200):
        ids, length = rng.sample(range(253), rng.randrange(1, 14)), rng.randrange(1, 20)
        statuses = [Status(id, bytes(rng.choices(range(250), k=length))) for id in ids]
        frame = protocol.merge(statuses) if merged else b"".join(s.encode() for s in statuses)
        replies = Replies(ids, length, merged=merged)
        replies.buffer[:] = frame
        assert replies.check(len(frame))
        assert [row.tobytes() for row in replies.data] == [status.data for status in statuses]

        damaged = rng.randrange(len(frame))
        replies.buffer[damaged] ^= 1 << rng.randrange(8)
        assert damaged < len(replies.header) or not replies.check(len(frame))


def test_align_drops_what_precedes_the_header():
    echo = protocol.sync_read(IDS, 132, 4, fast=True)
    replies = _merged((echo + FRAME)[: len(FRAME)])
    kept = replies.align(len(FRAME))
    assert kept == len(FRAME) - len(echo)
    assert replies.buffer[:kept] == FRAME[:kept]


def test_align_keeps_all_while_less_than_a_header_has_come():
    replies = _merged(b"no" + FRAME[:1])
    assert replies.align(3) == 3
    assert replies.buffer[:3] == b"no" + FRAME[:1]


def test_align_keeps_what_may_be_the_beginning_of_a_header():
    replies = _merged(b"noise" + FRAME[:3])
    assert replies.align(8) == 7  # one byte less than a header
    assert replies.buffer[4:7] == FRAME[:3]
