"""Packets in a stream: whatever noise lies between them, and in whatever pieces they come."""

from hypothesis import given
from hypothesis import strategies as st

from deploy.packets import fixed_size


def sound(packet: bytes) -> bool:
    return packet[-1] == sum(packet[:-1]) & 0xFF


def packet(mark: bytes, number: int) -> bytes:
    body = mark + bytes([number])
    return body + bytes([sum(body) & 0xFF])


@given(
    mark=st.sampled_from([b"\x55", b"\xaa\xaa", b"\xff\xff\xfd\x00"]),
    numbers=st.lists(st.integers(0, 84)),  # which begin no mark
    noise=st.binary(max_size=9).filter(lambda noise: not set(noise) & set(b"\x55\xaa\xff\xfd\x00")),
    piece=st.integers(1, 7),
)
def test_packets_come_out_whole_whatever_pieces_they_arrive_in(mark, numbers, noise, piece):
    sent = [packet(mark, number) for number in numbers]
    stream = noise.join([b"", *sent, b""])
    packets = fixed_size(mark, len(mark) + 2, sound)
    found = [
        each
        for start in range(0, len(stream), piece)
        for each in packets.feed(stream[start : start + piece])
    ]
    assert found == sent
    assert packets.crc_errors == 0


def test_damaged_packet_is_counted_and_costs_nothing_behind_it():
    packets = fixed_size(b"\x55", 3, sound)
    assert packets.feed(b"\x55\x01\x00" + packet(b"\x55", 2)) == [b"\x55\x02\x57"]  # 55 + 2 is 57
    assert packets.crc_errors == 1


def test_mark_inside_a_damaged_packet_may_begin_a_sound_one():
    packets = fixed_size(b"\xaa\xaa", 4, sound)
    assert packets.feed(b"\xaa\xaa\xaa\x01\x55") == [b"\xaa\xaa\x01\x55"]  # aa + aa + 1 is 155
    assert packets.crc_errors == 1


def test_noise_is_not_kept():
    packets = fixed_size(b"\x55", 3, sound)
    for _ in range(100):
        assert packets.feed(bytes(1000)) == []
    assert packets.feed(packet(b"\x55", 7)) == [b"\x55\x07\x5c"]
    assert len(packets._buffer) == 0
