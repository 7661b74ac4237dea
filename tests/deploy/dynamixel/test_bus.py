"""Setting up single servos: what is sent, what is waited for, what is raised."""

from collections.abc import Callable

import pytest

from deploy.dynamixel import protocol, registers
from deploy.dynamixel.bus import DynamixelBus
from deploy.dynamixel.protocol import ErrorCode, Status
from deploy.errors import BusError, BusTimeout, ServoError
from deploy.servos.bus import ATTEMPTS
from deploy.statistics import Statistics

OK = Status(1).encode()
SILENCE = b""


def _position(ticks: int, id: int = 1) -> bytes:
    return Status(id, registers.PRESENT_POSITION.encode(ticks)).encode()


@pytest.fixture
def bus(scripted_port: Callable) -> Callable[..., DynamixelBus]:
    """A bus whose n-th request gets the n-th answer."""
    return lambda *answers: DynamixelBus(scripted_port(*answers), 1_000_000)


def test_ping_tells_model_and_firmware(bus: Callable):
    talking = bus(Status(1, bytes.fromhex("24 04 2D")).encode())
    assert talking.ping(1) == (1060, 45)
    assert talking.port.sent == [protocol.ping(1)]


def test_scan_finds_who_answers_and_asks_each_once(bus: Callable):
    talking = bus(SILENCE, Status(2, bytes.fromhex("B0 04 2E")).encode(), SILENCE)
    assert talking.scan((1, 2, 3)) == {2: (1200, 46)}
    assert talking.port.sent == [protocol.ping(id) for id in (1, 2, 3)]


def test_register_is_read_with_its_sign(bus: Callable):
    talking = bus(_position(-5))
    assert talking.read(1, registers.PRESENT_POSITION) == -5
    assert talking.port.sent == [protocol.read(1, 132, 4)]


def test_write_waits_for_the_consent_of_the_servo(bus: Callable):
    talking = bus(OK)
    talking.write(1, registers.TORQUE_ENABLE, 1)
    assert talking.port.sent == [protocol.write(1, 64, b"\x01")]


def test_broadcast_write_waits_for_nobody(bus: Callable):
    talking = bus()
    talking.broadcast_write(registers.TORQUE_ENABLE, 0)
    assert talking.port.sent == [protocol.write(0xFE, 64, b"\x00")]
    assert talking.port.now() == 100.0


def test_reboot_waits_for_the_consent_of_the_servo(bus: Callable):
    talking = bus(OK)
    talking.reboot(1)
    assert talking.port.sent == [protocol.reboot(1)]
    with pytest.raises(ServoError, match=r"^servo 1 refused to reboot: error 1: "):
        bus(Status(1, error=ErrorCode.RESULT_FAIL).encode()).reboot(1)


def test_value_read_back_must_be_the_one_written(bus: Callable):
    gain = Status(1, registers.POSITION_P_GAIN.encode(640)).encode()
    bus(OK, gain).write_verified(1, registers.POSITION_P_GAIN, 640)
    with pytest.raises(ServoError) as error:
        bus(OK, gain).write_verified(1, registers.POSITION_P_GAIN, 500)
    assert str(error.value) == (
        "servo 1: Position P Gain (84) reads 640 after 500 was written, expected 500; "
        "look for a second servo with this id, or a limit or lock that overrules it"
    )


def test_silent_servo_is_asked_again_and_then_reported(bus: Callable):
    talking = bus()
    with pytest.raises(BusTimeout) as error:
        talking.read(3, registers.PRESENT_POSITION)
    assert str(error.value) == (
        "servo 3 does not answer (read Present Position (132), 3 attempts), expected a reply "
        "within milliseconds; check its power, cable, id and baud rate"
    )
    assert len(talking.port.sent) == ATTEMPTS
    assert talking.statistics.timeouts == ATTEMPTS
    assert talking.port.now() - 100.0 < 0.2


@pytest.mark.parametrize(
    "first",
    [
        SILENCE,
        _position(1)[:-1] + b"\x00",
        _position(1)[:8],
        Status(1, error=ErrorCode.CRC).encode(),
        _position(1, id=2),
    ],
    ids=["silence", "wrong CRC", "half a reply", "servo heard a wrong CRC", "another servo"],
)
def test_one_mishap_is_forgiven(bus: Callable, first: bytes):
    assert bus(first, _position(7)).read(1, registers.PRESENT_POSITION) == 7


def test_damaged_reply_is_not_waited_out(bus: Callable):
    talking = bus(_position(1)[:-1] + b"\x00", _position(7))
    talking.read(1, registers.PRESENT_POSITION)
    assert talking.port.now() == 100.0
    assert talking.statistics.crc_errors == 1
    assert talking.statistics.timeouts == 0


def test_refusal_says_what_to_do(bus: Callable):
    with pytest.raises(ServoError) as error:
        bus(Status(1, error=ErrorCode.ACCESS).encode()).write(1, registers.OPERATING_MODE, 3)
    assert str(error.value) == (
        "servo 1 refused to write 3 to Operating Mode (11): error 7: the register is read-only, or "
        "in EEPROM: switch torque off first"
    )


def test_alert_bit_is_no_refusal(bus: Callable):
    overheated = Status(1, bytes([4]), alert=True).encode()
    assert bus(overheated).read(1, registers.HARDWARE_ERROR_STATUS) == 4


def test_stale_bytes_echo_and_noise_before_the_reply_are_skipped(bus: Callable):
    request = protocol.read(1, 132, 4)
    talking = bus(request + b"\xff\xff\xfd" + _position(7))
    talking.port.arrive(_position(666))
    assert talking.read(1, registers.PRESENT_POSITION) == 7
    assert len(talking.port.sent) == 1


def test_reply_may_trickle_in(bus: Callable):
    pieces = [(0.0001 * i, _position(7)[i : i + 1]) for i in range(15)]
    assert bus(pieces).read(1, registers.PRESENT_POSITION) == 7


def test_wire_time_is_ten_bits_per_byte_and_one_return_delay_per_servo(bus: Callable):
    talking = bus()
    assert talking.wire_s(26, 200, 12) == pytest.approx(226e-5 + 12 * 508e-6)
    talking.return_delay_s = 0
    assert talking.wire_s(26, 200, 12) == pytest.approx(226e-5)


def test_latency_is_judged_by_the_median_and_awaited_as_nine_tenths_of_the_pings_need(
    bus: Callable,
):
    # a ping is 10 bytes, its reply 14; two of sixteen pings meet a hiccup
    after_s = [0.00024 + 0.002 + 0.0001 * (i % 5) for i in range(16)]
    after_s[3], after_s[9] = 0.03, 0.04
    talking = bus(*([(s, Status(1 + i % 2, bytes(3)).encode())] for i, s in enumerate(after_s)))
    talking.return_delay_s = 0.0
    assert talking.measure_latency([1, 2]) == pytest.approx(0.0022)
    assert talking.latency_s == pytest.approx(0.0024 + 0.0005)
    assert talking.port.sent == [protocol.ping(1), protocol.ping(2)] * 8


def test_return_delay_is_no_latency(bus: Callable):
    talking = bus(*([(0.00024 + 0.000508, Status(1, bytes(3)).encode())] for _ in range(8)))
    assert talking.measure_latency([1]) == pytest.approx(0.0, abs=1e-9)


def test_reply_to_an_earlier_attempt_does_not_pass_for_the_answer_to_the_next_question(
    bus: Callable,
):
    slow_s = 0.07  # longer than an attempt is waited for
    gain = Status(1, registers.POSITION_P_GAIN.encode(640)).encode()
    talking = bus(
        [(slow_s, gain)],
        [(slow_s, gain)],
        [(slow_s, Status(1, registers.POSITION_D_GAIN.encode(7)).encode())],
        [(slow_s, Status(1, registers.POSITION_D_GAIN.encode(7)).encode())],
    )
    assert talking.read(1, registers.POSITION_P_GAIN) == 640
    assert talking.read(1, registers.POSITION_D_GAIN) == 7


def test_silence_costs_the_wire_time_and_the_patience_of_setting_up(bus: Callable):
    talking = bus()
    with pytest.raises(BusTimeout):
        talking.read(1, registers.PRESENT_POSITION)
    # three times: 14 bytes out and 15 back at 10 µs, 508 µs return delay, 4 ms USB, 50 ms patience
    assert talking.port.now() - 100 == pytest.approx(3 * (290e-6 + 508e-6 + 0.004 + 0.05))


def test_statistics_begin_at_zero_and_add_up(bus: Callable):
    damaged = _position(1)[:-1] + b"\x00"
    talking = bus(damaged, SILENCE, _position(7), damaged, SILENCE, _position(7))
    fields = ("requests", "crc_errors", "timeouts", "retried", "lost")
    assert [getattr(talking.statistics, name) for name in fields] == [0, 0, 0, 0, 0]
    for _ in range(2):
        talking.read(1, registers.PRESENT_POSITION)
    assert talking.statistics == Statistics(requests=6, crc_errors=2, timeouts=2)


def test_reply_of_another_servo_or_length_is_no_answer(bus: Callable):
    talking = bus(_position(5, id=2) + Status(1, bytes(3)).encode() + _position(7))
    assert talking.read(1, registers.PRESENT_POSITION) == 7
    assert len(talking.port.sent) == 1


def test_unplugged_port_ends_every_conversation(bus: Callable):
    talking = bus()
    talking.port.unplugged = True
    with pytest.raises(BusError, match="unplugged"):
        talking.ping(1)
