"""Operating modes, drive modes and profiles of an emulated servo on a wheel, as LeRobot uses them.

Expected numbers are the eManual's: XL330-M288 at 5 V stalls at 0.52 N·m with 1.47 A and turns 103
rev/min unloaded; a velocity count is 0.229 rev/min, an acceleration count 214.577 rev/min².
"""

import math

import pytest

from deploy.dynamixel import registers
from deploy.dynamixel.protocol import ErrorCode
from deploy.dynamixel.registers import OperatingMode, Register
from deploy.dynamixel.servos import MODELS
from deploy.twin.servo import Servo

INERTIA = 0.002
"""Rotor of an XL330 at its shaft (BAM: 0.0018 to 0.0020 kg·m²)."""
STALL, NO_LOAD = 0.52, 103 * 2 * math.pi / 60
COUNT = 2 * math.pi / 4096
VELOCITY_COUNT = 0.229 * 2 * math.pi / 60
REVERSE, TIME_BASED, TORQUE_ON_BY_GOAL = 1, 4, 8
POSITION_MODES = [
    OperatingMode.POSITION,
    OperatingMode.EXTENDED_POSITION,
    OperatingMode.CURRENT_BASED_POSITION,
]


class Wheel:
    """An XL330 and what it turns; `load` is a torque against it [N·m]."""

    def __init__(self, **options: float):
        self.servo = Servo(1, MODELS["XL330-M288"], 1_000_000, shaft_ticks=2048, **options)  # pyright: ignore[reportArgumentType]
        self.angle, self.speed, self.time_s, self.load = 0.0, 0.0, 0.0, 0.0
        self.blocked = False
        self.write(registers.PWM_SLOPE, 0)

    def write(self, register: Register, value: int) -> None:
        assert not self.servo.write(register.address, register.encode(value)).error

    def read(self, register: Register) -> int:
        return register.decode(self.servo.read(register.address, register.size).data)

    def run(self, seconds: float) -> None:
        for _ in range(round(seconds * 1000)):
            pwm = self.servo.control(2048 + self.angle / COUNT, self.speed, self.time_s)
            self.time_s += 1e-3
            if self.blocked:
                continue
            torque = STALL * (pwm / 885 - self.speed / NO_LOAD * self.servo.torque_on) - self.load
            self.speed += torque / INERTIA * 1e-3
            self.angle += self.speed * 1e-3

    def start(self, mode: int, drive_mode: int = 0) -> None:
        self.write(registers.DRIVE_MODE, drive_mode)
        self.write(registers.OPERATING_MODE, mode)
        self.write(registers.TORQUE_ENABLE, 1)


@pytest.fixture
def wheel() -> Wheel:
    return Wheel()


@pytest.mark.parametrize("mode", list(OperatingMode))
def test_torque_switched_on_in_any_mode_stays_at_rest(wheel, mode):
    wheel.start(mode)
    wheel.run(0.2)
    assert abs(wheel.angle) < COUNT


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("mode", list(OperatingMode))
def test_only_the_modes_of_the_model_are_accepted(model, mode):
    servo = Servo(1, MODELS[model], 57600, shaft_ticks=0)
    has_current_sensor = not model.startswith("XL430")
    needs_one = mode in (OperatingMode.CURRENT, OperatingMode.CURRENT_BASED_POSITION)
    error = servo.write(registers.OPERATING_MODE.address, bytes([mode])).error
    assert error == (0 if has_current_sensor or not needs_one else ErrorCode.DATA_RANGE)


@pytest.mark.parametrize("mode", POSITION_MODES)
def test_position_modes_reach_their_goal(wheel, mode):
    wheel.start(mode)
    wheel.write(registers.GOAL_POSITION, 2348)
    wheel.run(2.0)
    assert wheel.read(registers.PRESENT_POSITION) == pytest.approx(2348, abs=1)
    assert wheel.read(registers.MOVING_STATUS) == 1  # in position, no profile
    assert wheel.read(registers.MOVING) == 0


@pytest.mark.parametrize("mode", POSITION_MODES)
def test_position_limits_count_in_position_mode_only(wheel, mode):
    wheel.write(registers.MAX_POSITION_LIMIT, 3000)
    wheel.start(mode)
    goal = registers.GOAL_POSITION
    error = wheel.servo.write(goal.address, goal.encode(9000)).error
    assert error == (ErrorCode.DATA_LIMIT if mode == OperatingMode.POSITION else 0)


def test_extended_position_goes_beyond_a_turn(wheel):
    wheel.start(OperatingMode.EXTENDED_POSITION)
    wheel.write(registers.GOAL_POSITION, -5000)
    wheel.run(4.0)
    assert wheel.read(registers.PRESENT_POSITION) == pytest.approx(-5000, abs=1)


def test_current_mode_gives_torque_by_current(wheel):
    wheel.start(OperatingMode.CURRENT)
    wheel.write(registers.GOAL_CURRENT, 147)  # a tenth of the stall current
    wheel.run(0.01)
    # 0.052 N·m on 0.002 kg·m² for 10 ms, whatever the back-EMF
    assert wheel.speed == pytest.approx(0.052 / INERTIA * 0.01, rel=1e-6)
    assert wheel.read(registers.PRESENT_CURRENT) == 147


def test_present_current_has_the_sign_of_the_torque(wheel):
    wheel.start(OperatingMode.CURRENT)
    wheel.load, wheel.blocked = 0.0, True
    for current in (300, -300):
        wheel.write(registers.GOAL_CURRENT, current)
        wheel.run(0.01)
        assert wheel.read(registers.PRESENT_CURRENT) == current
        assert math.copysign(1, wheel.read(registers.PRESENT_PWM)) == math.copysign(1, current)


def test_current_based_position_pushes_no_harder_than_goal_current(wheel):
    """How LeRobot's grippers hold things."""
    wheel.start(OperatingMode.CURRENT_BASED_POSITION)
    wheel.blocked = True
    wheel.write(registers.GOAL_CURRENT, 200)
    wheel.write(registers.GOAL_POSITION, 4000)
    wheel.run(0.1)
    assert wheel.read(registers.PRESENT_CURRENT) == 200
    assert wheel.read(registers.PRESENT_PWM) == round(200 / 1470 * 885)


def test_goal_current_is_no_limit_in_the_other_position_modes(wheel):
    wheel.start(OperatingMode.EXTENDED_POSITION)
    wheel.blocked = True
    wheel.write(registers.GOAL_CURRENT, 200)
    wheel.write(registers.GOAL_POSITION, 4000)
    wheel.run(0.1)
    assert wheel.read(registers.PRESENT_PWM) == 885


def test_velocity_mode_holds_its_speed_under_load(wheel):
    wheel.start(OperatingMode.VELOCITY)
    wheel.write(registers.GOAL_VELOCITY, -100)
    wheel.run(1.0)
    wheel.load = 0.1
    wheel.run(3.0)
    assert wheel.speed == pytest.approx(-100 * VELOCITY_COUNT, rel=0.01)
    assert wheel.read(registers.PRESENT_VELOCITY) == pytest.approx(-100, abs=1)


def test_velocity_mode_speeds_up_by_profile_acceleration(wheel):
    wheel.start(OperatingMode.VELOCITY)
    wheel.write(registers.PROFILE_ACCELERATION, 10)  # 64 · 200 / 10 = 1280 ms (eManual)
    wheel.write(registers.GOAL_VELOCITY, 200)
    wheel.run(0.641)
    assert wheel.read(registers.VELOCITY_TRAJECTORY) == pytest.approx(100, abs=1)
    wheel.run(0.641)
    assert wheel.read(registers.VELOCITY_TRAJECTORY) == 200


def test_velocity_mode_gets_to_any_speed_in_the_milliseconds_of_a_time_based_profile(wheel):
    wheel.start(OperatingMode.VELOCITY, TIME_BASED)
    wheel.write(registers.PROFILE_ACCELERATION, 500)  # ms (eManual, "Profile Acceleration")
    for goal, halfway in ((200, 100), (100, 150), (-100, 0)):
        wheel.write(registers.GOAL_VELOCITY, goal)
        wheel.run(0.251)
        assert wheel.read(registers.VELOCITY_TRAJECTORY) == pytest.approx(halfway, abs=1)
        wheel.run(0.251)
        assert wheel.read(registers.VELOCITY_TRAJECTORY) == goal


def test_pwm_mode_is_the_voltage_itself(wheel):
    wheel.start(OperatingMode.PWM)
    wheel.write(registers.GOAL_PWM, -442)
    wheel.run(1.0)
    assert wheel.speed == pytest.approx(-442 / 885 * NO_LOAD, rel=1e-3)


def test_change_of_mode_resets_gains_profile_and_limits(wheel):
    for register, value in (
        (registers.POSITION_P_GAIN, 1),
        (registers.PROFILE_VELOCITY, 5),
        (registers.PROFILE_ACCELERATION, 5),
        (registers.GOAL_PWM, 100),
        (registers.GOAL_CURRENT, 100),
    ):
        wheel.write(register, value)
    wheel.write(registers.OPERATING_MODE, OperatingMode.CURRENT_BASED_POSITION)
    assert wheel.read(registers.POSITION_P_GAIN) == 400
    assert wheel.read(registers.PROFILE_VELOCITY) == 0
    assert wheel.read(registers.PROFILE_ACCELERATION) == 0
    assert wheel.read(registers.GOAL_PWM) == 885
    assert wheel.read(registers.GOAL_CURRENT) == 1750


# Drive modes


@pytest.mark.parametrize(
    ("mode", "goal"),
    [
        (OperatingMode.POSITION, registers.GOAL_POSITION),
        (OperatingMode.VELOCITY, registers.GOAL_VELOCITY),
        (OperatingMode.CURRENT, registers.GOAL_CURRENT),
        (OperatingMode.PWM, registers.GOAL_PWM),
    ],
)
def test_reverse_mode_mirrors_every_quantity(mode, goal):
    values, angles = [], []
    for drive_mode in (0, REVERSE):
        wheel = Wheel()
        wheel.start(mode, drive_mode)
        wheel.write(goal, 2248 if goal is registers.GOAL_POSITION else 100)
        wheel.run(0.05)
        angles.append(wheel.angle)
        present = (
            registers.PRESENT_PWM,
            registers.PRESENT_CURRENT,
            registers.PRESENT_VELOCITY,
            registers.PRESENT_POSITION,
        )
        values.append([wheel.read(register) for register in present])
    assert angles[1] == pytest.approx(-angles[0])
    assert abs(angles[0]) > 5 * COUNT
    assert values[1] == values[0]  # 2048 is the middle, so also the position


def test_homing_offset_is_not_reversed(wheel):
    wheel.write(registers.DRIVE_MODE, REVERSE)
    wheel.write(registers.HOMING_OFFSET, 100)
    wheel.servo.control(2000, 0.0, 0.0)
    assert wheel.read(registers.PRESENT_POSITION) == 4096 - 2000 + 100


def test_homing_offset_beyond_a_quarter_turn_is_ignored_in_position_mode(wheel):
    wheel.write(registers.HOMING_OFFSET, 1025)
    assert wheel.read(registers.PRESENT_POSITION) == 2048
    wheel.write(registers.OPERATING_MODE, OperatingMode.EXTENDED_POSITION)
    wheel.write(registers.HOMING_OFFSET, 1025)
    assert wheel.read(registers.PRESENT_POSITION) == 2048 + 1025


def test_goal_switches_torque_on_where_drive_mode_says_so(wheel):
    wheel.write(registers.DRIVE_MODE, TORQUE_ON_BY_GOAL)
    wheel.write(registers.GOAL_POSITION, 2100)
    assert wheel.read(registers.TORQUE_ENABLE) == 1
    wheel.run(1.0)
    assert wheel.read(registers.PRESENT_POSITION) == pytest.approx(2100, abs=1)


# Profiles, in position mode


def test_trapezoid_is_in_the_trajectory_registers(wheel):
    wheel.start(OperatingMode.POSITION)
    wheel.write(registers.PROFILE_VELOCITY, 100)
    wheel.write(registers.PROFILE_ACCELERATION, 32)
    wheel.write(registers.GOAL_POSITION, 3048)
    wheel.run(0.101)
    # 100 ms at 32 · 214.577 rev/min² = 1.907 rev/s²: 0.1907 rev/s, 0.00954 rev
    assert wheel.read(registers.VELOCITY_TRAJECTORY) == round(0.1907 * 60 / 0.229)
    assert wheel.read(registers.POSITION_TRAJECTORY) == round(2048 + 0.5 * 1.907 * 0.01 * 4096)
    assert wheel.read(registers.MOVING_STATUS) == 0x32  # trapezoid, under way
    assert wheel.read(registers.MOVING) == 1
    # t3 = 64 · 100/32 + 64 · 1000/100 = 200 + 640 ms
    wheel.run(0.725)
    assert wheel.read(registers.MOVING_STATUS) & 0x02
    wheel.run(0.02)
    assert not wheel.read(registers.MOVING_STATUS) & 0x02
    assert wheel.read(registers.POSITION_TRAJECTORY) == 3048


def test_time_based_profile_arrives_in_its_milliseconds(wheel):
    wheel.start(OperatingMode.POSITION, TIME_BASED)
    wheel.write(registers.PROFILE_VELOCITY, 500)
    wheel.write(registers.PROFILE_ACCELERATION, 100)
    wheel.write(registers.GOAL_POSITION, 2448)
    wheel.run(0.101)
    # top speed 400 / (500 - 100) = 1 count/ms, reached after 100 ms and 50 counts
    assert wheel.read(registers.POSITION_TRAJECTORY) == 2048 + 50
    wheel.run(0.399)
    assert wheel.read(registers.MOVING_STATUS) & 0x02
    wheel.run(0.002)
    assert wheel.read(registers.POSITION_TRAJECTORY) == 2448
    assert not wheel.read(registers.MOVING_STATUS) & 0x02


def test_feedforward_makes_up_for_the_back_emf(wheel):
    """At v counts/ms it is v · COUNT · 1000 / NO_LOAD of the full PWM of 885, so FF1/4 is 126."""

    def lag(gain: int) -> float:
        wheel = Wheel()
        wheel.start(OperatingMode.EXTENDED_POSITION)
        wheel.write(registers.FEEDFORWARD_1ST_GAIN, gain)
        wheel.write(registers.PROFILE_VELOCITY, 100)
        wheel.write(registers.GOAL_POSITION, 100_000)
        wheel.run(1.0)
        return wheel.read(registers.POSITION_TRAJECTORY) - wheel.read(registers.PRESENT_POSITION)

    assert lag(0) > 50
    assert abs(lag(round(4 * COUNT * 1000 / NO_LOAD * 885))) <= 2


# The watchdog outside position mode


@pytest.mark.parametrize(
    ("mode", "goal"),
    [
        (OperatingMode.VELOCITY, registers.GOAL_VELOCITY),
        (OperatingMode.CURRENT, registers.GOAL_CURRENT),
        (OperatingMode.PWM, registers.GOAL_PWM),
    ],
)
def test_bus_watchdog_stops_a_servo_in_any_mode(wheel, mode, goal):
    wheel.start(mode)
    wheel.write(goal, 100)
    wheel.write(registers.BUS_WATCHDOG, 5)
    wheel.servo.hear(0.0)
    wheel.run(0.09)
    assert wheel.speed > 0.5
    wheel.load = 0.0
    wheel.run(2.0)
    assert wheel.read(registers.BUS_WATCHDOG) == -1
    if mode != OperatingMode.CURRENT:  # which has nothing but friction to brake with
        assert abs(wheel.speed) < 0.01
    assert wheel.servo.write(goal.address, goal.encode(1)).error == ErrorCode.DATA_RANGE


# Indirect addresses


@pytest.mark.parametrize(
    ("model", "firmware", "address", "data"),
    [
        ("XL330-M288", 52, 168, 208),
        ("XL330-M288", 51, 168, 224),
        ("XL430-W250", 52, 168, 224),
        ("XL430-W250", 45, 578, 634),
    ],
)
def test_indirect_data_are_the_registers_their_addresses_name(model, firmware, address, data):
    servo = Servo(1, MODELS[model], 1_000_000, shaft_ticks=2048, firmware=firmware)
    assert servo.read(address, 2).data == data.to_bytes(2, "little")
    for index, target in enumerate((116, 117, 118, 119, 65)):
        assert not servo.write(address + 2 * index, target.to_bytes(2, "little")).error
    assert not servo.write(data, (2222).to_bytes(4, "little") + b"\x01").error
    assert servo.read(116, 4).data == (2222).to_bytes(4, "little")
    assert servo.read(data, 5).data == (2222).to_bytes(4, "little") + b"\x01"
    assert servo.write(data, (9999).to_bytes(4, "little")).error == ErrorCode.DATA_LIMIT
    assert servo.write(data, b"\0\0").error == ErrorCode.DATA_LENGTH
    assert servo.write(address, (132).to_bytes(2, "little")).error == 0
    assert servo.write(data, b"\0").error == ErrorCode.ACCESS  # present position is read-only


@pytest.mark.parametrize(
    ("model", "last"), [("XL330-M288", 227), ("XL430-W250", 661), ("XM430-W350", 661)]
)
def test_indirect_area_ends_where_the_manual_says(model, last):
    servo = Servo(1, MODELS[model], 1_000_000, shaft_ticks=2048)
    assert servo.read(last, 1).error == 0
    assert servo.read(last, 2).error == ErrorCode.ACCESS
    assert servo.read(150, 1).error == ErrorCode.ACCESS
    assert servo.write(168, (63).to_bytes(2, "little")).error == ErrorCode.DATA_RANGE  # EEPROM
    assert servo.write(168, (last + 1).to_bytes(2, "little")).error == ErrorCode.DATA_RANGE


def test_indirect_addresses_are_locked_while_torque_is_on_and_forgotten_by_a_reboot(wheel):
    wheel.write(Register(168, 2, "Indirect Address 1"), 65)
    wheel.write(registers.TORQUE_ENABLE, 1)
    assert wheel.servo.write(168, b"\x41\0").error == ErrorCode.ACCESS
    wheel.servo.reboot()
    assert wheel.servo.read(168, 2).data == (208).to_bytes(2, "little")
