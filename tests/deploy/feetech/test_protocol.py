"""Feetech's frames: beside their own SDK, and under whatever a wire may bring."""

from collections.abc import Callable
from typing import Any, Literal

import pytest
import scservo_sdk as sdk
from hypothesis import example, given
from hypothesis import strategies as st

from deploy.feetech import protocol, registers, scs_registers
from deploy.feetech.protocol import HEADER, Packet, PacketParser, Status, checksum

IDS = st.integers(0, 253)
DATA = st.binary(max_size=40)


class SdkPort:
    """The port of Feetech's SDK: keeps what it sends, and answers with what it is given."""

    def __init__(self, answer: bytes = b""):
        self.is_using = False
        self.sent, self._answer = b"", answer

    def clearPort(self) -> None:  # noqa: N802
        pass

    def writePort(self, packet: list[int]) -> int:  # noqa: N802
        self.sent = bytes(packet)
        return len(packet)

    def readPort(self, length: int) -> bytes:  # noqa: N802
        taken, self._answer = self._answer[:length], self._answer[length:]
        return taken

    def setPacketTimeout(self, length: int) -> None:  # noqa: N802
        pass

    def isPacketTimeout(self) -> bool:  # noqa: N802
        return True


def sent_by_sdk(action: Callable[[Any], object]) -> bytes:
    port = SdkPort()
    action(sdk.sms_sts(port))
    return port.sent


def sync_write(handler: Any) -> None:
    group = sdk.GroupSyncWrite(handler, 42, 2)
    for id, ticks in ((1, 2048), (5, 1000)):
        group.addParam(id, [ticks & 0xFF, ticks >> 8])
    group.txPacket()


def sync_read(handler: Any) -> None:
    group = sdk.GroupSyncRead(handler, 56, 15)
    for id in (1, 5, 253):
        group.addParam(id)
    group.txPacket()


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (protocol.ping(1), lambda h: h.ping(1)),
        (protocol.read(7, 56, 2), lambda h: h.read2ByteTxRx(7, 56)),
        (protocol.write(3, 40, b"\x01"), lambda h: h.write1ByteTxRx(3, 40, 1)),
        (protocol.write(3, 42, b"\x34\x12"), lambda h: h.write2ByteTxRx(3, 42, 0x1234)),
        (
            protocol.reg_write(2, 41, bytes([10, 0, 8, 0, 0, 0xF4, 1])),
            lambda h: h.RegWritePosEx(2, 2048, 500, 10),
        ),
        (protocol.action(), lambda h: h.RegAction()),
        (protocol.sync_write(42, 2, {1: b"\x00\x08", 5: b"\xe8\x03"}), sync_write),
        (protocol.sync_read([1, 5, 253], 56, 15), sync_read),
    ],
    ids=["ping", "read", "write", "two bytes", "reg write", "action", "sync write", "sync read"],
)
def test_what_is_sent_is_what_feetechs_sdk_sends(ours: bytes, theirs: Callable[[Any], object]):
    assert ours == sent_by_sdk(theirs)


def test_frames_of_the_manual():
    assert protocol.ping(1) == bytes.fromhex("FF FF 01 02 01 FB")
    assert protocol.read(1, 56, 15) == bytes.fromhex("FF FF 01 04 02 38 0F B1")
    assert protocol.sync_read([1, 2], 56, 15) == bytes.fromhex("FF FF FE 06 82 38 0F 01 02 2F")


@given(id=IDS, data=st.binary(min_size=2, max_size=2), faults=st.integers(0, 127))
def test_reply_means_to_feetechs_sdk_what_it_means_to_us(id: int, data: bytes, faults: int):
    frame = Status(id, data, faults).encode()
    (packet,) = PacketParser().feed(frame)
    value, result, error = sdk.sms_sts(SdkPort(frame)).read2ByteTxRx(id, 56)
    assert (result, error) == (sdk.COMM_SUCCESS, faults)
    assert protocol.statuses(packet, 0) == [Status(id, value.to_bytes(2, "little"), error)]


@given(
    value=st.integers(-32767, 65535),
    bit=st.sampled_from([None, 10, 11, 15]),
    byte_order=st.sampled_from(["little", "big"]),
)
def test_numbers_are_written_as_feetechs_sdk_writes_them(
    value: int, bit: int | None, byte_order: Literal["little", "big"]
):
    register = registers.Register(0, 2, "any", sign_bit=bit, byte_order=byte_order)
    low, high = register.range
    value = max(low, min(high, value))
    handler = (sdk.sms_sts if byte_order == "little" else sdk.scscl)(SdkPort())
    signed = value if bit is None else handler.scs_toscs(value, bit)
    ours = register.encode(value)
    assert ours == bytes([handler.scs_lobyte(signed), handler.scs_hibyte(signed)])
    word = handler.scs_makeword(*ours)
    assert register.decode(ours) == (word if bit is None else handler.scs_tohost(word, bit))
    assert register.decode(ours) == value


@pytest.mark.parametrize("table", [registers.CONTROL_TABLE, scs_registers.CONTROL_TABLE])
@given(data=st.binary(min_size=2, max_size=2))
def test_every_register_reads_whatever_bytes_it_is_given(
    table: tuple[registers.Register, ...], data: bytes
):
    for register in table:
        low, high = register.range
        assert low <= register.decode(data[: register.size]) <= high


@given(
    packets=st.lists(st.tuples(IDS, st.integers(0, 127), DATA), max_size=4),
    noise=st.binary(max_size=20).map(lambda data: data.replace(b"\xff", b"")),
    cut=st.integers(1, 7),
)
def test_packets_are_found_whatever_pieces_they_come_in(
    packets: list[tuple[int, int, bytes]], noise: bytes, cut: int
):
    sent = [Packet(*packet) for packet in packets]
    stream = noise + b"".join(packet.encode() for packet in sent)
    parser, found = PacketParser(), []
    for start in range(0, len(stream), cut):
        found += parser.feed(stream[start : start + cut])
    assert found == sent


@given(stream=st.binary(max_size=300))
@example(stream=HEADER * 20)
@example(stream=b"\xff\xff\x01\x02")
def test_no_stream_of_bytes_brings_an_exception_or_a_packet_with_a_wrong_sum(stream: bytes):
    for packet in PacketParser().feed(stream):
        frame = packet.encode()
        assert frame in stream
        assert checksum(frame[2:-1]) == frame[-1]


@given(
    id=IDS, data=DATA, place=st.integers(0, 45), bits=st.integers(1, 255), faults=st.integers(0, 47)
)
def test_frame_with_one_damaged_byte_is_never_taken_for_what_was_sent(
    id: int, data: bytes, place: int, bits: int, faults: int
):
    # One byte changed changes the sum; a shorter packet that fits by chance is another servo's or
    # of another length, which the bus counts as late.
    frame = bytearray(Status(id, data, faults).encode())
    frame[place % len(frame)] ^= bits
    for packet in PacketParser(protocol.longest_status(len(data))).feed(frame):
        assert (packet.id, len(packet.parameters)) != (id, len(data))


def test_echo_of_the_request_is_no_reply():
    request = protocol.write(1, 40, b"\x01")  # as a reply: id 1, fault 3, two bytes
    parser = protocol.parser(request=request)
    assert parser.feed(request + Status(1).encode()) == [Packet(1, 0)]


def test_echo_may_come_in_pieces():
    request = protocol.read(1, 56, 2)
    parser = protocol.parser(request=request)
    assert parser.feed(request[:3]) == []
    assert parser.feed(request[3:] + Status(1, b"\x00\x08").encode()) == [Packet(1, 0, b"\x00\x08")]


def test_reply_to_a_question_for_the_model_is_never_its_echo():
    # Were it a ping, a servo with an input voltage fault would answer with the very same bytes.
    assert Status(1, faults=1).encode() == protocol.ping(1)
    reply = Status(1, bytes([3, 10, 0, 9, 3]), faults=2).encode()
    assert len(reply) != len(protocol.identify(1))
    assert protocol.identity(reply[5:-1]) == (777, 310)
