"""Data sheets and the gains that follow from them."""

import math

import pytest

from deploy.dynamixel.servos import MAX_GAIN, MODELS, ServoModel

every_model = pytest.mark.parametrize("servo", MODELS.values(), ids=MODELS)


@every_model
def test_model_is_filed_under_its_name_and_number(servo: ServoModel):
    assert MODELS[servo.name] is servo
    assert [other.model_number for other in MODELS.values()].count(servo.model_number) == 1


@pytest.mark.parametrize(
    ("name", "number", "volts", "torque_nm", "rev_per_min", "limits", "gains", "shutdown"),
    # eManual, "Specifications" at the recommended voltage, and the initial values of the control
    # table: Min and Max Voltage Limit in 0.1 V, Temperature, Current and Velocity Limit; Position
    # P, I and D Gain, Velocity P and I Gain; Shutdown.
    [
        ("XL430-W250", 1060, 12, 1.5, 61, (60, 140, 72, None, 265), (640, 0, 4000, 100, 1000), 52),
        ("XL330-M288", 1200, 5, 0.52, 103, (35, 70, 70, 1750, 445), (400, 0, 0, 180, 1600), 53),
        ("XL330-M077", 1190, 5, 0.215, 383, (35, 70, 70, 1750, 1620), (400, 400, 0, 40, 400), 53),
        ("XM430-W350", 1020, 12, 4.1, 46, (95, 160, 80, 1193, 350), (800, 0, 0, 100, 1920), 52),
    ],
)  # fmt: skip
def test_data_sheet_is_that_of_the_manual(
    name: str, number: int, volts: float, torque_nm: float, rev_per_min: float,
    limits: tuple[int, int, int, int | None, int], gains: tuple[int, ...], shutdown: int,
):  # fmt: skip
    servo = MODELS[name]
    low, high, temperature, current, velocity = limits
    assert servo.model_number == number
    assert servo.nominal_voltage_v == volts
    assert servo.stall_torque_nm == torque_nm
    assert servo.no_load_speed_rad_s == pytest.approx(rev_per_min * 2 * math.pi / 60)
    assert servo.voltage_limits_v == pytest.approx((low / 10, high / 10))
    assert servo.temperature_limit_c == temperature
    assert (servo.current_limit, servo.velocity_limit) == (current, velocity)
    assert servo.position_pid + servo.velocity_pi == gains
    assert servo.shutdown == shutdown


@pytest.mark.parametrize(
    ("name", "milliampere", "modes"),
    # eManual, "Current Limit(38)" and "Operating Mode(11)"; the XL430 measures no current
    [
        ("XL430-W250", None, (1, 3, 4, 16)),
        ("XL330-M288", 1.0, (0, 1, 3, 4, 5, 16)),
        ("XL330-M077", 1.0, (0, 1, 3, 4, 5, 16)),
        ("XM430-W350", 2.69, (0, 1, 3, 4, 5, 16)),
    ],
)
def test_current_and_modes_are_those_of_the_manual(
    name: str, milliampere: float | None, modes: tuple[int, ...]
):
    servo = MODELS[name]
    assert servo.operating_modes == modes
    if milliampere is None:
        assert servo.current_unit_a is None
    else:
        assert servo.current_unit_a == pytest.approx(milliampere / 1000)


@every_model
def test_data_sheet_is_consistent(servo: ServoModel):
    low, high = servo.voltage_limits_v
    assert low < servo.nominal_voltage_v < high
    assert (servo.current_unit_a is None) == (servo.current_limit is None)
    assert (0 in servo.operating_modes) == (servo.current_unit_a is not None)
    velocity_limit_rad_s = servo.velocity_limit * 0.0239691
    assert velocity_limit_rad_s == pytest.approx(servo.no_load_speed_rad_s, rel=0.75)


def test_stiffness_is_stall_torque_at_the_error_that_gives_full_duty():
    servo = MODELS["XL430-W250"]
    # P = 640 is 5 PWM counts per tick, so 885 / 5 = 177 ticks = 0.27151 rad give 1.5 N·m.
    assert servo.kp(640) == pytest.approx(1.5 / (177 * 2 * math.pi / 4096))
    assert servo.kp(640) == pytest.approx(5.5246, rel=1e-4)


def test_xl330_is_half_as_stiff_as_its_manual_says():
    servo = MODELS["XL330-M288"]
    # Measured: P = 400 is 400/256 PWM counts per tick, so 566.4 ticks = 0.86885 rad give 0.52 N·m.
    assert servo.kp(400) == pytest.approx(0.52 / 0.86885, rel=1e-4)
    assert servo.p_gain(0.5985) == 400


def test_damping_gain_is_torque_at_the_speed_that_gives_full_duty():
    servo = MODELS["XL430-W250"]
    # D = 4000 is 250 PWM counts per tick of change within 1 ms: 885 / 250 ticks/ms = 5.4303 rad/s.
    assert servo.kd(4000) == pytest.approx(1.5 / (885 / 250 * 1000 * 2 * math.pi / 4096))
    assert servo.kd(4000) == pytest.approx(0.27623, rel=1e-4)


def test_back_emf_takes_all_torque_at_the_no_load_speed():
    servo = MODELS["XL330-M288"]
    assert servo.no_load_speed_rad_s == pytest.approx(10.786, rel=1e-4)  # 103 rev/min
    assert servo.damping * servo.no_load_speed_rad_s == pytest.approx(0.52)


@every_model
def test_gains_survive_the_round_trip_through_si_units(servo: ServoModel):
    for gain in (0, 1, 400, 640, MAX_GAIN):
        assert servo.p_gain(servo.kp(gain)) == gain
        assert servo.d_gain(servo.kd(gain)) == gain


@every_model
def test_register_is_the_same_for_models_of_other_torque(servo: ServoModel):
    # as add_servo makes them: plain, with friction under load, at nine tenths of the voltage
    for motor in (servo.physics, servo.physics.plain):
        for volts in (servo.nominal_voltage_v, 0.9 * servo.nominal_voltage_v):
            torque = motor.drive_torque(volts)
            assert servo.p_gain(motor.kp(640, volts), torque) == 640
            assert servo.d_gain(motor.kd(400, volts), torque) == 400
            assert servo.kp(640, torque) == pytest.approx(motor.kp(640, volts))
    torques = servo.full_duty_torques_nm(servo.nominal_voltage_v)
    assert torques[0] == servo.stall_torque_nm
    assert torques[0] < torques[1]
    assert torques[2] == servo.physics.drive_torque(servo.nominal_voltage_v)


def test_gain_is_the_nearest_one():
    servo = MODELS["XL330-M288"]
    assert servo.p_gain(servo.kp(100) + 0.4 * servo.kp(1)) == 100
    assert servo.p_gain(servo.kp(100) + 0.6 * servo.kp(1)) == 101


@pytest.mark.parametrize("kp", [-0.1, 500.0, math.inf, math.nan])
def test_stiffness_out_of_reach_is_refused(kp: float):
    with pytest.raises(ValueError, match=r"XL430-W250 cannot be set to .* N·m/rad"):
        MODELS["XL430-W250"].p_gain(kp)


def test_refusal_says_what_is_possible():
    with pytest.raises(ValueError, match="cannot be set") as error:
        MODELS["XL430-W250"].p_gain(500)
    assert str(error.value) == (
        "XL430-W250 cannot be set to 500 N·m/rad, expected 0..141.4 (Position P Gain (84) "
        "0..16383); lower the gain, or use a stronger servo"
    )
