"""Wire timing to the byte. At 1 Mbaud a byte takes 10 µs; replies come 1 ms later over USB."""

import math

import pytest

from deploy.dynamixel import protocol, registers
from deploy.dynamixel.protocol import ErrorCode, Instruction, Packet, PacketParser, Status
from deploy.dynamixel.servos import MODELS
from deploy.twin.servo import BOOT_S, Servo
from deploy.twin.wire import PING_SLOT_S, Wire

MICROSECOND = 1e-6
POSITION = registers.PRESENT_POSITION


@pytest.fixture
def servos() -> list[Servo]:
    model = MODELS["XL330-M288"]
    return [Servo(id, model, 1_000_000, shaft_ticks=1000 + id) for id in (3, 1, 2)]


@pytest.fixture
def wire(servos) -> Wire:
    return Wire(servos, 1_000_000, usb_latency_s=0.001)


def received(wire: Wire, until_us: float) -> bytes:
    """What the host has by a time."""
    while wire.next_event_s <= until_us * MICROSECOND:
        wire.run_event()
    return wire.take(until_us * MICROSECOND)


def statuses(data: bytes) -> list[Status]:
    return [Status.from_packet(packet) for packet in PacketParser().feed(data)]


def no_return_delay(servos: list[Servo]) -> None:
    for servo in servos:
        servo.write(registers.RETURN_DELAY_TIME.address, b"\0")


def test_reply_arrives_byte_by_byte(wire):
    # request 10 bytes = 100 µs, return delay 250 · 2 µs, USB 1000 µs: first byte at 1610 µs
    wire.send(protocol.ping(1), 0.0)

    for early_us in (100, 600, 1590, 1609.9):
        assert received(wire, early_us) == b""
    assert received(wire, 1610) == b"\xff"
    assert received(wire, 1629.9) == b"\xff"
    assert len(received(wire, 1740 - 0.1)) == 11
    assert len(received(wire, 1740)) == 1
    assert received(wire, 10_000) == b""


def test_reply_time_is_known_as_soon_as_the_servo_speaks(wire):
    wire.send(protocol.ping(1), 0.0)
    assert wire.next_event_s == pytest.approx(100 * MICROSECOND)
    assert wire.reply_s == math.inf
    wire.run_event()
    assert wire.reply_s == pytest.approx(1740 * MICROSECOND)


def test_request_in_pieces_ends_with_its_last_byte(wire):
    request = protocol.ping(1)
    wire.send(request[:4], 0.0)
    assert wire.next_event_s == math.inf
    wire.send(request[4:], 0.002)
    assert wire.next_event_s == pytest.approx(2060 * MICROSECOND)


def test_second_request_follows_the_first_on_the_wire(wire):
    wire.send(protocol.ping(1), 0.0)
    wire.send(protocol.ping(2), 0.0)
    wire.run_event()
    assert wire.next_event_s == pytest.approx(200 * MICROSECOND)


def test_sync_read_is_answered_in_the_order_asked(wire, servos):
    no_return_delay(servos)
    wire.send(protocol.sync_read([2, 3, 1], POSITION.address, POSITION.size), 0.0)
    # request 17 bytes, replies 15 bytes each
    first = received(wire, 170 + 150 + 1000)
    assert statuses(first) == [Status(2, POSITION.encode(1002))]
    assert received(wire, 170 + 450 + 1000) != b""


def test_sync_read_takes_the_wire_time_of_all_replies_and_return_delays(wire):
    wire.send(protocol.sync_read([1, 2, 3], POSITION.address, POSITION.size), 0.0)
    end_us = 170 + 3 * (500 + 150) + 1000
    early = received(wire, end_us - 0.1)
    assert len(early) == 3 * 15 - 1
    reply = early + received(wire, end_us)
    assert [status.id for status in statuses(reply)] == [1, 2, 3]


def test_absent_id_silences_those_behind_it(wire):
    wire.send(protocol.sync_read([1, 9, 2], POSITION.address, POSITION.size), 0.0)
    assert [status.id for status in statuses(received(wire, 1e6))] == [1]


def test_mute_servo_silences_those_behind_it(wire, servos):
    servos[1].write(registers.STATUS_RETURN_LEVEL.address, b"\0")  # id 1: answers only pings
    wire.send(protocol.sync_read([3, 1, 2], POSITION.address, POSITION.size), 0.0)
    assert [status.id for status in statuses(received(wire, 1e6))] == [3]


def test_bulk_read_gives_each_servo_its_own_request(wire):
    wire.send(protocol.bulk_read([(1, 132, 4), (2, 146, 1)]), 0.0)
    assert statuses(received(wire, 1e6)) == [
        Status(1, POSITION.encode(1001)),
        Status(2, bytes([25])),  # the air's temperature
    ]


def test_fast_sync_read_is_one_packet_with_one_return_delay(wire):
    wire.send(protocol.sync_read([2, 3], POSITION.address, POSITION.size, fast=True), 0.0)
    expected = protocol.merge([Status(id, POSITION.encode(1000 + id)) for id in (2, 3)])
    end_us = 160 + 500 + 10 * len(expected) + 1000
    early = received(wire, end_us - 0.1)
    assert early == expected[:-1]
    assert received(wire, end_us) == expected[-1:]


def test_fast_sync_read_stops_before_the_first_absent_id(wire):
    wire.send(protocol.sync_read([1, 9, 2], POSITION.address, POSITION.size, fast=True), 0.0)
    whole = protocol.merge(
        [Status(1, POSITION.encode(1001)), Status(9, bytes(4)), Status(2, bytes(4))]
    )
    assert received(wire, 1e6) == whole[: 8 + 8]


def test_fast_sync_read_to_an_absent_first_id_is_silence(wire):
    wire.send(protocol.sync_read([9, 1], POSITION.address, POSITION.size, fast=True), 0.0)
    assert received(wire, 1e6) == b""


def test_broadcast_ping_is_answered_in_slots_by_id(wire, servos):
    no_return_delay(servos)
    wire.send(protocol.ping(), 0.0)
    last_us = 100 + 3 * PING_SLOT_S / MICROSECOND + 140 + 1000
    early = received(wire, last_us - 0.1)
    reply = early + received(wire, last_us)
    assert len(early) == 3 * 14 - 1
    assert [status.id for status in statuses(reply)] == [1, 2, 3]


def test_sync_write_is_not_answered(wire, servos):
    goal = registers.GOAL_POSITION
    wire.send(protocol.sync_write(goal.address, 4, {1: goal.encode(7), 9: goal.encode(8)}), 0.0)
    assert received(wire, 1e6) == b""
    assert goal.decode(servos[1].read(goal.address, 4).data) == 7


def test_bulk_write_reaches_each_servo(wire, servos):
    wire.send(protocol.bulk_write([(1, 65, b"\x01"), (2, 65, b"\x01")]), 0.0)
    assert received(wire, 1e6) == b""
    assert [servo.read(65, 1).data for servo in servos] == [b"\0", b"\x01", b"\x01"]


def test_broadcast_write_reaches_everybody_and_is_not_answered(wire, servos):
    wire.send(protocol.write(protocol.BROADCAST_ID, 65, b"\x01"), 0.0)
    assert received(wire, 1e6) == b""
    assert [servo.read(65, 1).data for servo in servos] == [b"\x01"] * 3


def test_broadcast_reset_of_everything_is_ignored(wire, servos):
    wire.send(protocol.factory_reset(protocol.BROADCAST_ID, protocol.FactoryReset.ALL), 0.0)
    received(wire, 1e6)
    assert [servo.id for servo in servos] == [3, 1, 2]


def test_write_takes_effect_when_the_request_has_arrived(wire, servos):
    wire.send(protocol.write(1, 65, b"\x01"), 0.0)  # 13 bytes
    received(wire, 129)
    assert servos[1].read(65, 1).data == b"\0"
    received(wire, 130.1)
    assert servos[1].read(65, 1).data == b"\x01"


def test_unknown_instruction_is_refused_by_its_addressee(wire):
    wire.send(Packet(1, 0x77).encode(), 0.0)
    assert [status.error for status in statuses(received(wire, 1e6))] == [ErrorCode.INSTRUCTION]


@pytest.mark.parametrize("instruction", [*Instruction, 0x77])
@pytest.mark.parametrize("id", [1, protocol.BROADCAST_ID])
@pytest.mark.parametrize("size", range(7))
def test_no_packet_stops_the_bus(wire, instruction, id, size):
    wire.send(Packet(id, instruction, b"\x84" * size).encode(), 0.0)
    received(wire, 1e6)
    wire.send(protocol.ping(2), 10.0)
    assert [status.id for status in statuses(received(wire, 2e7))] == [2]


def test_damaged_request_is_answered_with_a_crc_error_by_the_servo_it_names(wire):
    wire.send(protocol.ping(1)[:-1] + b"\0", 0.0)
    assert statuses(received(wire, 1e5)) == [Status(1, b"", ErrorCode.CRC)]


def test_damaged_broadcast_is_answered_by_nobody(wire):
    wire.send(protocol.ping()[:-1] + b"\0", 0.0)
    assert received(wire, 1e5) == b""


def test_damaged_request_does_not_feed_the_watchdog(wire, servos):
    for register, value in ((registers.TORQUE_ENABLE, 1), (registers.BUS_WATCHDOG, 1)):  # 20 ms
        servos[1].write(register.address, register.encode(value))
    for millisecond in range(0, 40, 5):
        wire.send(protocol.ping(2)[:-1] + b"\0", millisecond / 1000)
        received(wire, millisecond * 1000 + 4000)
        servos[1].control(1001, 0.0, millisecond / 1000)
    assert servos[1].read(registers.BUS_WATCHDOG.address, 1).data == b"\xff"


def test_request_with_a_damaged_length_costs_only_what_follows_at_once(wire):
    ping = protocol.ping(1)
    wire.send(ping[:5] + b"\xf0\x01" + ping[7:], 0.0)  # says 496 bytes
    wire.send(protocol.ping(2), 0.02)
    assert [status.id for status in statuses(received(wire, 1e5))] == [2]


def test_servos_hear_nothing_at_another_baud_rate(wire):
    wire.send(protocol.ping(1), 0.0, 57600)
    assert received(wire, 1e5) == b""
    wire.send(protocol.ping(1), 0.2, 1_000_000)
    assert len(received(wire, 1e6)) == 14


def test_new_baud_rate_holds_after_the_status(wire, servos):
    wire.send(protocol.write(1, registers.BAUD_RATE.address, b"\x01"), 0.0)
    assert statuses(received(wire, 1e5)) == [Status(1)]
    wire.send(protocol.ping(1), 0.2)
    assert received(wire, 3e5) == b""
    wire.send(protocol.ping(1), 0.4, 57600)
    wire.send(protocol.ping(2), 0.5, 57600)
    assert [status.id for status in statuses(received(wire, 1e6))] == [1]


def test_reboot_is_acknowledged_and_then_silent_for_a_while(wire, servos):
    wire.send(protocol.reboot(1), 0.0)
    assert statuses(received(wire, 1e4)) == [Status(1)]
    wire.send(protocol.ping(1), 0.9 * BOOT_S)
    wire.send(protocol.ping(2), 0.92 * BOOT_S)
    assert [status.id for status in statuses(received(wire, 1e6 * BOOT_S))] == [2]
    wire.send(protocol.ping(1), 1.1 * BOOT_S)
    assert [status.id for status in statuses(received(wire, 1e6))] == [1]


def test_reset_servo_is_back_at_57600(wire):
    wire.send(protocol.factory_reset(1, protocol.FactoryReset.ALL_BUT_ID), 0.0)
    received(wire, 1e5)
    wire.send(protocol.ping(1), 1.0, 57600)
    assert [status.id for status in statuses(received(wire, 2e6))] == [1]


def test_clear_passes_its_parameters_on(wire, servos):
    servos[1].control(5000.0, 0.0, 0.0)
    wire.send(Packet(1, Instruction.CLEAR, b"\x01DXL\x22").encode(), 0.0)
    wire.send(Packet(1, Instruction.CLEAR, b"\x01DXL\x23").encode(), 0.01)
    assert [status.error for status in statuses(received(wire, 1e5))] == [0, ErrorCode.DATA_RANGE]
    assert POSITION.decode(servos[1].read(132, 4).data) == 5000 - 4096
