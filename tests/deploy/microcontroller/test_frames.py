"""Frames of the microcontroller link, against the `cobs` package and published check values."""

import binascii
import itertools
import random
import struct

import pytest
from cobs import cobs
from hypothesis import example, given
from hypothesis import strategies as st

from deploy.microcontroller.frames import (
    MAX_PAYLOAD,
    Frame,
    FrameParser,
    MessageType,
    cobs_decode,
    cobs_encode,
    encode_frame,
)

HELLO = bytes.fromhex("0401010103E803010355D300")
"""Sequence 1 at 1000 us, worked by hand on the page of the format."""


def parse(data: bytes) -> tuple[list[Frame], FrameParser]:
    parser = FrameParser()
    return list(parser.feed(data)), parser


@pytest.mark.parametrize(
    ("raw", "encoded"),
    [("", "01"), ("00", "0101"), ("11220033", "0311220233"), ("11000000", "0211010101")],
)
def test_cobs_is_as_in_the_paper(raw: str, encoded: str) -> None:
    assert cobs_encode(bytes.fromhex(raw)).hex() == encoded
    assert cobs_decode(bytes.fromhex(encoded)) == bytes.fromhex(raw)


@given(st.binary(max_size=253))
@example(bytes(253))
@example(b"\xff" * 253)
def test_cobs_gives_the_same_bytes_as_the_cobs_package(raw: bytes) -> None:
    assert cobs_encode(raw) == cobs.encode(raw)
    assert cobs_decode(cobs_encode(raw)) == raw


@given(st.binary(max_size=600).map(lambda data: data.replace(b"\0", b"\1")))
def test_cobs_refuses_what_the_cobs_package_refuses(encoded: bytes) -> None:
    try:
        expected = cobs.decode(encoded)
    except cobs.DecodeError:
        expected = None
    assert cobs_decode(encoded) == expected


def test_a_frame_ends_with_the_crc_that_is_published_as_ccitt_false() -> None:
    assert binascii.crc_hqx(b"123456789", 0xFFFF) == 0x29B1
    assert encode_frame(MessageType.HELLO, 1, 1000) == HELLO


def test_a_frame_says_what_was_put_into_it() -> None:
    (frame,), parser = parse(encode_frame(0x20, 0x1FFFF, 0x1_0000_0005, b"\0ab\0"))
    assert (frame.type, frame.sequence, frame.time_us) == (0x20, 0xFFFF, 5)
    assert bytes(frame.payload) == b"\0ab\0"
    assert parser.damaged == 0


@given(
    payloads=st.lists(st.binary(max_size=MAX_PAYLOAD), max_size=5),
    cuts=st.lists(st.integers(0, 1400), max_size=8),
)
def test_frames_come_out_however_the_bytes_are_chopped_up(
    payloads: list[bytes], cuts: list[int]
) -> None:
    wire = b"".join(encode_frame(0x10, n, n, payload) for n, payload in enumerate(payloads))
    parser, found = FrameParser(), []
    ends = [0, *sorted(cuts), len(wire)]
    for start, end in itertools.pairwise(ends):
        found += [bytes(frame.payload) for frame in parser.feed(wire[start:end])]
    assert found == payloads


@given(garbage=st.binary(max_size=700))
def test_after_garbage_at_most_one_frame_is_lost(garbage: bytes) -> None:
    good = [encode_frame(0x10, number, 0, b"x" * number) for number in range(3)]
    frames, _ = parse(garbage + b"".join(good))
    assert [bytes(frame.payload) for frame in frames][-2:] == [b"x", b"xx"]


@given(payload=st.binary(max_size=60), place=st.integers(0, 10_000), flip=st.integers(1, 255))
def test_a_byte_that_changed_on_the_way_never_changes_what_is_understood(
    payload: bytes, place: int, flip: int
) -> None:
    """A CRC of 16 bits finds every error within 16 bits; COBS can turn one into more, or none."""
    wire = bytearray(encode_frame(0x20, 7, 9, payload))
    wire[place % (len(wire) - 1)] ^= flip
    for frame in parse(bytes(wire))[0]:
        assert (frame.type, frame.sequence, frame.time_us) == (0x20, 7, 9)
        assert bytes(frame.payload) == payload


def test_a_wrong_crc_is_dropped_and_counted() -> None:
    raw = struct.pack("<BBHI", 1, 3, 1, 0)
    crc = binascii.crc_hqx(raw, 0xFFFF)
    wrong = [cobs_encode(raw + struct.pack("<H", crc ^ 1 << bit)) + b"\0" for bit in range(16)]
    frames, parser = parse(b"".join(wrong))
    assert (frames, parser.damaged) == ([], 16)


def test_a_frame_of_another_version_is_dropped_and_counted() -> None:
    raw = struct.pack("<BBHI", 2, 3, 1, 0)
    crc = struct.pack("<H", binascii.crc_hqx(raw, 0xFFFF))
    frames, parser = parse(cobs_encode(raw + crc) + b"\0" + HELLO)
    assert (len(frames), parser.damaged) == (1, 1)


def test_a_line_without_a_zero_takes_no_memory() -> None:
    parser = FrameParser()
    noise = random.Random(1).randbytes(100_000).replace(b"\0", b"\1")
    assert not list(parser.feed(noise))
    assert len(parser._rest) <= 254
    assert len(list(parser.feed(b"\0" + HELLO))) == 1
    assert parser.damaged == 1


def test_a_payload_that_is_too_long_is_refused() -> None:
    with pytest.raises(ValueError, match="payload of 244 bytes, expected at most 243"):
        encode_frame(0x10, 1, 1, bytes(244))
