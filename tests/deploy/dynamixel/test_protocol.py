"""Wire format: frames worked out by hand or printed in the eManual, both ways."""

import random
from typing import NamedTuple

import pytest

from deploy.dynamixel import protocol
from deploy.dynamixel.crc import crc16
from deploy.dynamixel.protocol import (
    BROADCAST_ID,
    HEADER,
    HEADER_MARK,
    MAX_LENGTH,
    ErrorCode,
    FactoryReset,
    Instruction,
    Packet,
    PacketParser,
    Status,
)


class Vector(NamedTuple):
    what: str
    built: bytes
    packet: Packet
    frame: str
    """Hex, without the FF FF FD 00 in front."""


def _vector(what: str, built: bytes, frame: str, id: int, instruction: int, parameters: str = ""):
    return Vector(what, built, Packet(id, instruction, bytes.fromhex(parameters)), frame)


INSTRUCTIONS = [
    _vector("ping", protocol.ping(1), "01 03 00 01 19 4E", 1, Instruction.PING),
    _vector("broadcast ping", protocol.ping(), "FE 03 00 01 31 42", BROADCAST_ID, Instruction.PING),
    _vector(
        "read present position", protocol.read(1, 132, 4),
        "01 07 00 02 84 00 04 00 1D 15", 1, Instruction.READ, "84 00 04 00",
    ),
    _vector(
        "write goal position", protocol.write(1, 116, bytes.fromhex("00 02 00 00")),
        "01 09 00 03 74 00 00 02 00 00 CA 89", 1, Instruction.WRITE, "74 00 00 02 00 00",
    ),
    _vector(
        "write a goal position that looks like a header",
        protocol.write(1, 116, bytes.fromhex("FF FF FD FF")),
        "01 0A 00 03 74 00 FF FF FD FD FF 23 E5", 1, Instruction.WRITE, "74 00 FF FF FD FF",
    ),
    _vector(
        "torque on", protocol.write(1, 64, b"\x01"),
        "01 06 00 03 40 00 01 DB 66", 1, Instruction.WRITE, "40 00 01",
    ),
    _vector(
        "broadcast torque off", protocol.write(BROADCAST_ID, 64, b"\x00"),
        "FE 06 00 03 40 00 00 2E 16", BROADCAST_ID, Instruction.WRITE, "40 00 00",
    ),
    _vector(
        "bus watchdog of 100 ms", protocol.write(1, 98, b"\x05"),
        "01 06 00 03 62 00 05 68 E4", 1, Instruction.WRITE, "62 00 05",
    ),
    _vector(
        "reg write goal velocity", protocol.reg_write(1, 104, bytes.fromhex("C8 00 00 00")),
        "01 09 00 04 68 00 C8 00 00 00 AE 8E", 1, Instruction.REG_WRITE, "68 00 C8 00 00 00",
    ),
    _vector("action", protocol.action(1), "01 03 00 05 02 CE", 1, Instruction.ACTION),
    _vector("reboot", protocol.reboot(1), "01 03 00 08 2F 4E", 1, Instruction.REBOOT),
    _vector(
        "factory reset of all but the id", protocol.factory_reset(1, FactoryReset.ALL_BUT_ID),
        "01 04 00 06 01 A1 E6", 1, Instruction.FACTORY_RESET, "01",
    ),
    _vector(
        "sync read present position of 1, 2", protocol.sync_read((1, 2), 132, 4),
        "FE 09 00 82 84 00 04 00 01 02 CE FA",
        BROADCAST_ID, Instruction.SYNC_READ, "84 00 04 00 01 02",
    ),
    _vector(
        "sync read feedback of 1, 2, 3", protocol.sync_read((1, 2, 3), 124, 12),
        "FE 0A 00 82 7C 00 0C 00 01 02 03 6A 98",
        BROADCAST_ID, Instruction.SYNC_READ, "7C 00 0C 00 01 02 03",
    ),
    _vector(
        "fast sync read feedback of 1, 2, 3", protocol.sync_read((1, 2, 3), 124, 12, fast=True),
        "FE 0A 00 8A 7C 00 0C 00 01 02 03 5A 18",
        BROADCAST_ID, Instruction.FAST_SYNC_READ, "7C 00 0C 00 01 02 03",
    ),
    _vector(
        "fast sync read present position of 3, 7, 4",
        protocol.sync_read((3, 7, 4), 132, 4, fast=True),
        "FE 0A 00 8A 84 00 04 00 03 07 04 20 F2",
        BROADCAST_ID, Instruction.FAST_SYNC_READ, "84 00 04 00 03 07 04",
    ),
    _vector(
        "sync write goal position of 1, 2",
        protocol.sync_write(116, 4, {1: bytes([150, 0, 0, 0]), 2: bytes([170, 0, 0, 0])}),
        "FE 11 00 83 74 00 04 00 01 96 00 00 00 02 AA 00 00 00 82 87",
        BROADCAST_ID, Instruction.SYNC_WRITE, "74 00 04 00 01 96 00 00 00 02 AA 00 00 00",
    ),
    _vector(
        "bulk read voltage of 1 and temperature of 2",
        protocol.bulk_read([(1, 144, 2), (2, 146, 1)]),
        "FE 0D 00 92 01 90 00 02 00 02 92 00 01 00 1A 05",
        BROADCAST_ID, Instruction.BULK_READ, "01 90 00 02 00 02 92 00 01 00",
    ),
    _vector(
        "bulk write voltage limit of 1 and temperature limit of 2",
        protocol.bulk_write([(1, 32, bytes([160, 0])), (2, 31, bytes([80]))]),
        "FE 10 00 93 01 20 00 02 00 A0 00 02 1F 00 01 00 50 B7 68",
        BROADCAST_ID, Instruction.BULK_WRITE, "01 20 00 02 00 A0 00 02 1F 00 01 00 50",
    ),
    _vector(  # the eManual prints another CRC here, which does not fit its own bytes
        "fast bulk read of 3, 7 and 4",
        protocol.bulk_read([(3, 132, 4), (7, 124, 2), (4, 146, 1)], fast=True),
        "FE 12 00 9A 03 84 00 04 00 07 7C 00 02 00 04 92 00 01 00 DA 2D",
        BROADCAST_ID, Instruction.FAST_BULK_READ, "03 84 00 04 00 07 7C 00 02 00 04 92 00 01 00",
    ),
]  # fmt: skip

STATUSES = [
    ("answer to a ping", Status(1, bytes.fromhex("06 04 26")), "01 07 00 55 00 06 04 26 65 5D"),
    ("position 166", Status(1, bytes([166, 0, 0, 0])), "01 08 00 55 00 A6 00 00 00 8C C0"),
    ("position 2079", Status(2, bytes([0x1F, 8, 0, 0])), "02 08 00 55 00 1F 08 00 00 BA BE"),
    ("consent to a write", Status(1), "01 04 00 55 00 A1 0C"),
]

MERGED = [
    (
        "fast sync read",
        [
            Status(3, bytes([0xA6, 0, 0, 0])),
            Status(7, bytes([0x1F, 8, 0, 0])),
            Status(4, bytes([0xFF, 3, 0, 0])),
        ],
        "FE 19 00 55 00 03 A6 00 00 00 84 08 00 07 1F 08 00 00 16 CA 00 04 FF 03 00 00 D1 9E",
    ),
    (
        "fast bulk read",
        [Status(3, bytes([0xA6, 0, 0, 0])), Status(7, bytes([0xA5, 1])), Status(4, bytes([0x1F]))],
        "FE 14 00 55 00 03 A6 00 00 00 67 A4 00 07 A5 01 24 74 00 04 1F D9 C1",
    ),
]


def _frame(hexadecimal: str) -> bytes:
    return HEADER + bytes.fromhex(hexadecimal)


@pytest.mark.parametrize("vector", INSTRUCTIONS, ids=lambda vector: vector.what)
def test_instruction_is_built_byte_for_byte(vector: Vector):
    assert vector.built.hex(" ") == _frame(vector.frame).hex(" ")


@pytest.mark.parametrize("vector", INSTRUCTIONS, ids=lambda vector: vector.what)
def test_instruction_is_read_back(vector: Vector):
    assert PacketParser().feed(_frame(vector.frame)) == [vector.packet]


@pytest.mark.parametrize(
    ("status", "frame"), [v[1:] for v in STATUSES], ids=[v[0] for v in STATUSES]
)
def test_status_is_built_and_read_back_byte_for_byte(status: Status, frame: str):
    assert status.encode() == _frame(frame)
    (packet,) = PacketParser().feed(_frame(frame))
    assert Status.from_packet(packet) == status


@pytest.mark.parametrize(("statuses", "frame"), [v[1:] for v in MERGED], ids=[v[0] for v in MERGED])
def test_merged_reply_is_built_byte_for_byte_and_parsed_as_one_packet(
    statuses: list[Status], frame: str
):
    assert protocol.merge(statuses).hex(" ") == _frame(frame).hex(" ")
    (packet,) = PacketParser().feed(_frame(frame))
    assert packet == Packet(BROADCAST_ID, Instruction.STATUS, _frame(frame)[8:-2])


def test_multi_turn_information_is_cleared_with_its_magic_bytes():
    (packet,) = PacketParser().feed(protocol.clear_turns(7))
    assert packet == Packet(7, Instruction.CLEAR, b"\x01DXL\x22")


def test_alert_bit_is_not_part_of_the_error_code():
    alerted = Status(1, b"\x2a", error=0, alert=True)
    (packet,) = PacketParser().feed(alerted.encode())
    assert packet.parameters == b"\x80\x2a"
    assert Status.from_packet(packet) == alerted

    refused = Status(1, error=ErrorCode.ACCESS, alert=True)
    (packet,) = PacketParser().feed(refused.encode())
    assert Status.from_packet(packet) == refused


def test_every_error_code_has_words_and_unknown_ones_a_number():
    messages = {protocol.error_message(code) for code in ErrorCode}
    assert len(messages) == len(ErrorCode)
    assert "switch torque off" in protocol.error_message(7)
    assert protocol.error_message(99) == "error 99: unknown to this protocol version"


def _spiteful_bytes(rng: random.Random) -> bytes:
    """Random bytes in which FF, FD and 00 are common, so headers and stuffing occur."""
    return bytes(rng.choices((0xFF, 0xFD, 0x00, rng.randrange(256)), k=rng.randrange(40)))


def test_any_parameters_survive_the_wire_and_never_contain_a_header():
    rng = random.Random(1)
    for _ in range(2000):
        packet = Packet(rng.randrange(253), Instruction.WRITE, _spiteful_bytes(rng))
        frame = packet.encode()
        assert frame.count(HEADER) == 1
        assert len(frame) == 7 + int.from_bytes(frame[5:7], "little")
        assert PacketParser().feed(frame) == [packet]


def test_vendor_sdk_builds_the_same_bytes_and_reads_ours():
    from tests.deploy.dynamixel.vendor import Wire, sdk

    wire, handler, rng = Wire(), sdk.PacketHandler(2.0), random.Random(5)
    for _ in range(300):
        data = _spiteful_bytes(rng)
        if HEADER_MARK in data:
            continue  # version 4.1.0 sends such data unstuffed, and unstuffs too much of it
        handler.writeTxOnly(wire, 1, 116, len(data), list(data))
        assert wire.bytes == protocol.write(1, 116, data)
        wire.bytes = Status(1, data, alert=True).encode()
        assert handler.readRx(wire, 1, len(data)) == (list(data), sdk.COMM_SUCCESS, 0x80)


def test_numbers_are_those_of_the_vendor_sdk():
    sdk = pytest.importorskip("dynamixel_sdk")
    handler = pytest.importorskip("dynamixel_sdk.protocol2_packet_handler")
    assert protocol.BROADCAST_ID == sdk.BROADCAST_ID
    assert MAX_LENGTH == handler.RXPACKET_MAX_LEN
    for instruction in Instruction:
        assert instruction == getattr(sdk, f"INST_{instruction.name}")
    for code in ErrorCode:
        assert code == getattr(handler, f"ERRNUM_{code.name}")


def test_factory_reset_knows_the_numbers_of_the_manual():
    # eManual, "DYNAMIXEL Protocol 2.0 > Factory Reset"
    assert [what.value for what in FactoryReset] == [0xFF, 0x01, 0x02]


def test_parser_does_not_care_how_the_stream_is_cut():
    rng = random.Random(2)
    packets = [Packet(i, Instruction.WRITE, _spiteful_bytes(rng)) for i in range(50)]
    stream = b"".join(packet.encode() for packet in packets)
    parser, found = PacketParser(), []
    while stream:
        cut = rng.randrange(1, 30)
        found += parser.feed(stream[:cut])
        stream = stream[cut:]
    assert found == packets


def test_parser_finds_packets_between_noise():
    rng = random.Random(3)
    packets = [Packet(i, Instruction.WRITE, rng.randbytes(8)) for i in range(50)]
    noise = (b"\xff", b"\xff\xff\xfd", b"\x00\xff\xff", b"hello", b"\xff\xff\xfd\x00\xff\xff")
    stream = b"".join(rng.choice(noise) + packet.encode() for packet in packets)
    assert PacketParser().feed(stream) == packets


def test_damaged_packet_is_dropped_counted_and_does_not_swallow_the_next():
    good = Status(2, bytes(4)).encode()
    damaged = bytearray(Status(1, bytes(4)).encode())
    damaged[9] ^= 0x10
    parser = PacketParser()
    assert [packet.id for packet in parser.feed(bytes(damaged) + good)] == [2]
    assert parser.crc_errors == 1


def test_truncated_packet_does_not_swallow_the_next():
    first, second = Status(1, bytes(4)).encode(), Status(2, bytes(4)).encode()
    assert [packet.id for packet in PacketParser().feed(first[:-3] + second)] == [2]


def test_implausible_length_is_not_waited_for():
    absurd = HEADER + bytes.fromhex("01 FF 7F 55")
    good = Status(2).encode()
    assert [packet.id for packet in PacketParser().feed(absurd + good)] == [2]


def test_longest_packet_is_read_and_a_longer_one_is_not():
    longest = Packet(1, Instruction.WRITE, bytes(MAX_LENGTH - 3))
    assert PacketParser().feed(longest.encode()) == [longest]
    longer = Packet(1, Instruction.WRITE, bytes(MAX_LENGTH - 2))
    assert PacketParser().feed(longer.encode()) == []


def test_packet_without_an_instruction_is_none():
    frame = HEADER + bytes.fromhex("01 02 00")
    frame += crc16(frame).to_bytes(2, "little")
    assert PacketParser().feed(frame + bytes(8)) == []


def test_status_without_room_for_an_error_byte_is_no_packet():
    frame = Packet(1, Instruction.STATUS).encode()  # the CRC is right all the same
    assert PacketParser().feed(frame) == []


def test_parser_survives_any_stream():
    rng = random.Random(4)
    parser = PacketParser()
    for _ in range(3000):
        frame = bytearray(
            Packet(rng.randrange(256), rng.randrange(256), _spiteful_bytes(rng)).encode()
        )
        for _ in range(rng.randrange(3)):
            frame[rng.randrange(len(frame))] = rng.randrange(256)
        for packet in parser.feed(frame[: rng.randrange(1, len(frame) + 1)]):
            if packet.instruction == Instruction.STATUS:
                Status.from_packet(packet)
