import pytest

from deploy.dynamixel import registers
from deploy.dynamixel.protocol import ErrorCode, FactoryReset, Instruction, Status
from deploy.dynamixel.registers import PWM_FULL, OperatingMode, Register
from deploy.dynamixel.servos import MODELS
from deploy.twin.control_table import FIRMWARE
from deploy.twin.servo import VELOCITY_FILTER_S, Servo


def write(servo: Servo, register: Register, value: int) -> int:
    """The error code the servo answers with."""
    return servo.write(register.address, register.encode(value)).error


def read(servo: Servo, register: Register) -> int:
    return register.decode(servo.read(register.address, register.size).data)


def hold(servo: Servo, *, since_s: float, until_s: float, ticks: float = 2048) -> float:
    """PWM after the shaft stood still for a while, one control period a millisecond."""
    pwm = 0.0
    for millisecond in range(round(since_s * 1000), round(until_s * 1000) + 1):
        pwm = servo.control(ticks, 0.0, millisecond / 1000)
    return pwm


def test_ping_tells_model_and_firmware(servo):
    assert servo.ping() == Status(1, (1200).to_bytes(2, "little") + bytes([FIRMWARE]))


@pytest.mark.parametrize("name", MODELS)
def test_leaves_the_factory_with_the_data_sheets_values(name):
    servo = Servo(7, MODELS[name], 57600, shaft_ticks=100)

    assert read(servo, registers.MODEL_NUMBER) == MODELS[name].model_number
    assert read(servo, registers.POSITION_P_GAIN) == MODELS[name].position_pid[0]
    assert read(servo, registers.SHUTDOWN) == MODELS[name].shutdown
    assert read(servo, registers.OPERATING_MODE) == OperatingMode.POSITION
    assert read(servo, registers.BAUD_RATE) == 1
    assert read(servo, registers.GOAL_POSITION) == 100


def test_eeprom_is_locked_while_torque_is_on(servo):
    assert write(servo, registers.RETURN_DELAY_TIME, 0) == 0
    write(servo, registers.TORQUE_ENABLE, 1)

    assert write(servo, registers.RETURN_DELAY_TIME, 10) == ErrorCode.ACCESS
    assert read(servo, registers.RETURN_DELAY_TIME) == 0
    write(servo, registers.TORQUE_ENABLE, 0)
    assert write(servo, registers.RETURN_DELAY_TIME, 10) == 0


@pytest.mark.parametrize(
    ("register", "value", "error"),
    [
        (registers.PRESENT_POSITION, 0, ErrorCode.ACCESS),
        (registers.TORQUE_ENABLE, 2, ErrorCode.DATA_RANGE),
        (registers.POSITION_P_GAIN, 16384, ErrorCode.DATA_RANGE),
        (registers.OPERATING_MODE, 2, ErrorCode.DATA_RANGE),
        (registers.DRIVE_MODE, 2, ErrorCode.DATA_RANGE),
        (registers.BAUD_RATE, 7, ErrorCode.DATA_RANGE),  # 4.5 M is not for X330
        (registers.MAX_VOLTAGE_LIMIT, 120, ErrorCode.DATA_RANGE),
        (registers.CURRENT_LIMIT, 1751, ErrorCode.DATA_RANGE),
        (registers.PROFILE_ACCELERATION, 32768, ErrorCode.DATA_RANGE),
        (registers.GOAL_CURRENT, 1751, ErrorCode.DATA_LIMIT),
        (registers.GOAL_VELOCITY, -446, ErrorCode.DATA_LIMIT),
        (registers.GOAL_POSITION, 4096, ErrorCode.DATA_LIMIT),
        (registers.GOAL_POSITION, -1, ErrorCode.DATA_LIMIT),
        (registers.GOAL_PWM, 886, ErrorCode.DATA_LIMIT),
    ],
)
def test_refused_write_changes_nothing(servo, register, value, error):
    before = read(servo, register)
    assert write(servo, register, value) == error
    assert read(servo, register) == before


def test_write_that_ends_inside_a_register_is_too_short(servo):
    assert servo.write(registers.GOAL_POSITION.address, b"\0\0").error == ErrorCode.DATA_LENGTH
    assert servo.write(registers.GOAL_POSITION.address, b"").error == ErrorCode.DATA_LENGTH


def test_write_that_starts_inside_a_register_or_in_a_gap_has_no_access(servo):
    assert servo.write(registers.GOAL_POSITION.address + 1, b"\0").error == ErrorCode.ACCESS
    assert servo.write(66, b"\0").error == ErrorCode.ACCESS


def test_block_write_is_all_or_nothing(servo):
    gains = registers.POSITION_D_GAIN.encode(1) + registers.POSITION_I_GAIN.encode(16384)
    assert servo.write(registers.POSITION_D_GAIN.address, gains).error == ErrorCode.DATA_RANGE
    assert read(servo, registers.POSITION_D_GAIN) == 0


def test_xl430_has_no_current_registers():
    servo = Servo(1, MODELS["XL430-W250"], 1_000_000, shaft_ticks=2048)
    assert write(servo, registers.GOAL_CURRENT, 0) == ErrorCode.ACCESS


def test_read_past_the_table_has_no_access(servo):
    assert servo.read(147, 1).error == 0
    assert servo.read(147, 2).error == ErrorCode.ACCESS
    assert servo.read(132, 0).error == ErrorCode.ACCESS


def test_new_id_does_not_sign_the_receipt_of_its_own_write(servo):
    status = servo.write(registers.ID.address, b"\x05")
    assert status.id == 1
    assert servo.id == 5


def test_status_return_level_decides_who_is_answered(servo):
    write(servo, registers.STATUS_RETURN_LEVEL, 1)
    assert servo.answers(Instruction.READ)
    assert not servo.answers(Instruction.WRITE)
    write(servo, registers.STATUS_RETURN_LEVEL, 0)
    assert servo.answers(Instruction.PING)
    assert not servo.answers(Instruction.READ)


def test_reg_write_waits_for_action(servo):
    servo.reg_write(registers.LED.address, b"\x01")
    assert (read(servo, registers.LED), read(servo, registers.REGISTERED_INSTRUCTION)) == (0, 1)
    assert servo.action().error == 0
    assert (read(servo, registers.LED), read(servo, registers.REGISTERED_INSTRUCTION)) == (1, 0)
    assert servo.action().error == ErrorCode.INSTRUCTION


def test_reboot_keeps_eeprom_and_resets_ram(servo):
    write(servo, registers.RETURN_DELAY_TIME, 0)
    write(servo, registers.TORQUE_ENABLE, 1)
    write(servo, registers.POSITION_P_GAIN, 1)
    servo.control(1000.4, 0.0, 1.0)
    servo.reboot()

    assert read(servo, registers.RETURN_DELAY_TIME) == 0
    assert read(servo, registers.TORQUE_ENABLE) == 0
    assert read(servo, registers.POSITION_P_GAIN) == 400
    assert read(servo, registers.GOAL_POSITION) == 1000


def test_rebooting_servo_is_silent_for_a_quarter_of_a_second(servo):
    servo.control(2048, 0.0, 1.0)
    assert servo.listens(1_000_000, 1.0)
    servo.reboot()
    assert not servo.listens(1_000_000, 1.249)
    assert servo.listens(1_000_000, 1.251)


def test_servo_names_itself_and_the_error_where_it_refuses(servo):
    assert servo.refuse(ErrorCode.CRC) == Status(1, b"", ErrorCode.CRC)


def test_servo_switched_on_at_its_goal_draws_no_current(servo):
    write(servo, registers.TORQUE_ENABLE, 1)
    assert read(servo, registers.PRESENT_CURRENT) == 0


@pytest.mark.parametrize(("away", "arrived"), [(10, 1), (-10, 1), (11, 0), (-11, 0)])
def test_servo_has_arrived_within_ten_counts_of_its_goal(servo, away, arrived):
    write(servo, registers.TORQUE_ENABLE, 1)
    write(servo, registers.GOAL_POSITION, 2048 + away)
    hold(servo, since_s=0.0, until_s=0.01)
    assert read(servo, registers.MOVING_STATUS) & 0x01 == arrived


def test_factory_reset_keeps_what_it_is_told_to(servo):
    write(servo, registers.ID, 9)
    write(servo, registers.RETURN_DELAY_TIME, 0)
    servo.factory_reset(FactoryReset.ALL_BUT_ID_AND_BAUD_RATE)
    assert (servo.id, read(servo, registers.BAUD_RATE)) == (9, 3)
    assert read(servo, registers.RETURN_DELAY_TIME) == 250
    servo.factory_reset(FactoryReset.ALL)
    assert (servo.id, read(servo, registers.BAUD_RATE)) == (1, 1)


def test_torque_on_drives_to_the_goal_it_had_before(servo):
    hold(servo, since_s=0.0, until_s=0.1, ticks=2148)  # moved by hand, 100 counts
    write(servo, registers.TORQUE_ENABLE, 1)
    # 400/256 PWM counts per count, 100 counts back
    assert hold(servo, since_s=0.101, until_s=0.111, ticks=2148) == pytest.approx(-156.25)


def test_pwm_is_clipped_to_goal_pwm(servo):
    write(servo, registers.TORQUE_ENABLE, 1)
    write(servo, registers.GOAL_POSITION, 4000)
    assert hold(servo, since_s=0.0, until_s=0.02) == PWM_FULL
    write(servo, registers.GOAL_PWM, 100)
    assert hold(servo, since_s=0.021, until_s=0.04) == 100
    assert read(servo, registers.PRESENT_PWM) == 100


def test_stalled_motor_at_full_voltage_draws_its_stall_current(servo):
    write(servo, registers.TORQUE_ENABLE, 1)
    write(servo, registers.GOAL_POSITION, 4000)
    hold(servo, since_s=0.0, until_s=0.02)
    assert read(servo, registers.PRESENT_CURRENT) == 1470  # mA


def test_limp_motor_draws_no_current_however_it_is_turned(servo):
    for millisecond in range(20):
        servo.control(2048.0 + millisecond, 3.0, millisecond / 1000)
    assert read(servo, registers.PRESENT_CURRENT) == 0


def test_servo_without_a_current_sensor_reports_its_load_in_thousandths():
    servo = Servo(1, MODELS["XL430-W250"], 1_000_000, shaft_ticks=2048)  # eManual, "Present Load"
    write(servo, registers.TORQUE_ENABLE, 1)
    assert read(servo, registers.PRESENT_CURRENT) == 0
    write(servo, registers.GOAL_POSITION, 0)
    write(servo, registers.GOAL_PWM, 177)  # a fifth of 885
    hold(servo, since_s=0.0, until_s=0.1)
    assert read(servo, registers.PRESENT_CURRENT) == -200


def test_goal_waits_for_the_command_latency():
    servo = Servo(1, MODELS["XL330-M288"], 1_000_000, shaft_ticks=2048, command_latency_s=0.004)
    write(servo, registers.TORQUE_ENABLE, 1)
    write(servo, registers.GOAL_POSITION, 2058)
    assert hold(servo, since_s=0.0, until_s=0.003) == 0
    assert hold(servo, since_s=0.004, until_s=0.004) == pytest.approx(15.625)  # 10 counts


def test_profile_velocity_ramps_the_goal(servo):
    write(servo, registers.TORQUE_ENABLE, 1)
    write(servo, registers.PROFILE_VELOCITY, 100)  # 22.9 rev/min = 1563.3 counts/s
    write(servo, registers.GOAL_POSITION, 4000)
    hold(servo, since_s=0.0, until_s=1.0)
    assert read(servo, registers.POSITION_TRAJECTORY) == 2048 + 1563
    assert read(servo, registers.VELOCITY_TRAJECTORY) == 100


def test_present_velocity_is_filtered(servo):
    speed_rad_s = 100 * registers.RAD_S_PER_COUNT
    for millisecond in range(round(VELOCITY_FILTER_S * 1000)):
        servo.control(2048, speed_rad_s, millisecond / 1000)
    assert read(servo, registers.PRESENT_VELOCITY) == 67  # 1 - (1 - 1/5)^5 = 0.672


def test_position_beyond_a_turn_is_counted_until_torque_is_on_in_position_mode(servo):
    servo.control(4200.0, 0.0, 0.0)
    assert read(servo, registers.PRESENT_POSITION) == 4200
    write(servo, registers.TORQUE_ENABLE, 1)
    assert read(servo, registers.PRESENT_POSITION) == 104


def test_torque_on_in_extended_position_mode_forgets_no_turn(servo):
    write(servo, registers.OPERATING_MODE, OperatingMode.EXTENDED_POSITION)
    servo.control(4200.0, 0.0, 0.0)
    write(servo, registers.TORQUE_ENABLE, 1)
    assert read(servo, registers.PRESENT_POSITION) == 4200


def test_change_to_position_mode_forgets_turns(servo):
    write(servo, registers.OPERATING_MODE, OperatingMode.EXTENDED_POSITION)
    servo.control(4200.0, 0.0, 0.0)
    write(servo, registers.OPERATING_MODE, OperatingMode.POSITION)
    assert read(servo, registers.PRESENT_POSITION) == 104


CLEAR_TURNS = bytes([0x01, 0x44, 0x58, 0x4C, 0x22])
"""eManual, "Clear"."""


def test_clear_forgets_turns(servo):
    write(servo, registers.OPERATING_MODE, OperatingMode.EXTENDED_POSITION)
    servo.control(4200.0, 0.0, 0.0)
    assert servo.clear(CLEAR_TURNS).error == 0
    assert read(servo, registers.PRESENT_POSITION) == 104


@pytest.mark.parametrize(
    ("parameters", "error"),
    [
        (b"", ErrorCode.DATA_LENGTH),
        (CLEAR_TURNS[:4], ErrorCode.DATA_LENGTH),
        (b"\x02" + CLEAR_TURNS[1:], ErrorCode.DATA_RANGE),
        (CLEAR_TURNS + b"\0", ErrorCode.DATA_RANGE),
    ],
)
def test_clear_wants_its_fixed_parameters(servo, parameters, error):
    servo.control(4200.0, 0.0, 0.0)
    assert servo.clear(parameters).error == error
    assert read(servo, registers.PRESENT_POSITION) == 4200


def test_clear_is_refused_while_the_shaft_turns(servo):
    for millisecond in range(50):
        servo.control(4200.0 + millisecond, 1.0, millisecond / 1000)
    assert servo.clear(CLEAR_TURNS).error == ErrorCode.RESULT_FAIL


def test_homing_offset_shifts_the_position(servo):
    write(servo, registers.HOMING_OFFSET, -1000)
    assert read(servo, registers.PRESENT_POSITION) == 1048


def test_realtime_tick_counts_milliseconds_and_wraps(servo):
    servo.control(2048, 0.0, 32.0)
    assert read(servo, registers.REALTIME_TICK) == 32000
    servo.control(2048, 0.0, 33.0)
    assert read(servo, registers.REALTIME_TICK) == 33000 - 32768


class TestBusWatchdog:
    def arm(self, servo: Servo) -> None:
        write(servo, registers.TORQUE_ENABLE, 1)
        write(servo, registers.GOAL_POSITION, 2100)
        write(servo, registers.BUS_WATCHDOG, 5)  # 100 ms
        servo.hear(0.0)

    def test_trips_after_its_time_and_holds(self, servo):
        self.arm(servo)
        hold(servo, since_s=0.0, until_s=0.1, ticks=2060)
        assert read(servo, registers.BUS_WATCHDOG) == 5
        pwm = hold(servo, since_s=0.101, until_s=0.105, ticks=2060)
        assert read(servo, registers.BUS_WATCHDOG) == -1
        assert read(servo, registers.TORQUE_ENABLE) == 1
        assert read(servo, registers.GOAL_POSITION) == 2060
        assert pwm == 0

    def test_any_packet_on_the_bus_keeps_it_quiet(self, servo):
        self.arm(servo)
        hold(servo, since_s=0.0, until_s=0.09)
        servo.hear(0.09)
        hold(servo, since_s=0.091, until_s=0.19)
        assert read(servo, registers.BUS_WATCHDOG) == 5

    def test_tripped_it_locks_the_goals_until_cleared_with_zero(self, servo):
        self.arm(servo)
        hold(servo, since_s=0.0, until_s=0.2)
        assert write(servo, registers.GOAL_POSITION, 2048) == ErrorCode.DATA_RANGE
        assert write(servo, registers.GOAL_PWM, 10) == ErrorCode.DATA_RANGE
        assert write(servo, registers.BUS_WATCHDOG, 5) == ErrorCode.DATA_RANGE
        assert write(servo, registers.BUS_WATCHDOG, 0) == 0
        assert write(servo, registers.GOAL_POSITION, 2048) == 0

    def test_sleeps_while_torque_is_off(self, servo):
        self.arm(servo)
        write(servo, registers.TORQUE_ENABLE, 0)
        hold(servo, since_s=0.0, until_s=1.0)
        assert read(servo, registers.BUS_WATCHDOG) == 5


class TestShutdown:
    @pytest.fixture
    def browned_out(self, servo) -> Servo:
        write(servo, registers.TORQUE_ENABLE, 1)
        servo.voltage_v = 3.0  # below the 3.5 V limit; the XL330's mask includes input voltage
        hold(servo, since_s=0.0, until_s=0.001)
        servo.voltage_v = 5.0
        return servo

    def test_drops_torque_and_raises_the_alert_bit(self, browned_out):
        assert read(browned_out, registers.TORQUE_ENABLE) == 0
        assert read(browned_out, registers.HARDWARE_ERROR_STATUS) == 1
        assert browned_out.ping().alert

    def test_only_a_reboot_gives_torque_back(self, browned_out):
        write(browned_out, registers.TORQUE_ENABLE, 1)
        assert read(browned_out, registers.TORQUE_ENABLE) == 0
        browned_out.reboot()
        write(browned_out, registers.TORQUE_ENABLE, 1)
        assert read(browned_out, registers.TORQUE_ENABLE) == 1
        assert not browned_out.ping().alert
