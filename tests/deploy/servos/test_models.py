"""The servos' numbers against their data sheets and against published identifications."""

import math

import pytest

from deploy.dynamixel.servos import MODELS
from deploy.servos.models import SERVOS
from deploy.servos.physics import Friction

RPM = 2 * math.pi / 60
DATA_SHEETS = [
    # servo, voltage, stall torque [N·m], no-load speed [rev/min]; eManual "Specifications", Feetech
    ("XL330-M288", 3.7, 0.42, 76),
    ("XL330-M288", 5.0, 0.52, 103),
    ("XL330-M288", 6.0, 0.60, 123),
    ("XL330-M077", 3.7, 0.18, 278),
    ("XL330-M077", 5.0, 0.215, 383),
    ("XL330-M077", 6.0, 0.228, 456),
    ("XL430-W250", 9.0, 1.0, 47),
    ("XL430-W250", 11.1, 1.4, 57),
    ("XL430-W250", 12.0, 1.5, 61),
    ("XM430-W350", 11.1, 3.8, 43),
    ("XM430-W350", 12.0, 4.1, 46),
    ("XM430-W350", 14.8, 4.8, 57),
    ("STS3215-7.4V", 6.0, 1.62, 42),
    ("STS3215-7.4V", 7.4, 1.91, 52),
    ("STS3215-12V", 12.0, 2.94, 45),
    ("SCS0009", 6.0, 0.226, 100),
    ("SCS15", 6.0, 1.47, 55),
    ("SCS15", 7.4, 1.62, 65),
    ("SCS15", 8.4, 1.67, 73),
]


@pytest.mark.parametrize(("name", "volts", "stall", "rpm"), DATA_SHEETS)
@pytest.mark.parametrize("plain", [False, True], ids=["load friction", "plain"])
def test_stall_torque_and_speed_are_those_of_the_data_sheet(name, volts, stall, rpm, plain):
    servo = SERVOS[name].plain if plain else SERVOS[name]
    # Data sheets are not proportional to voltage; a DC motor nearly is.
    nominal = volts == servo.nominal_voltage_v
    assert servo.stall_torque(volts) == pytest.approx(stall, rel=1e-9 if nominal else 0.14)
    assert servo.no_load_speed(volts) == pytest.approx(rpm * RPM, rel=1e-9 if nominal else 0.05)


def test_every_servo_has_a_data_sheet_here():
    assert {row[0] for row in DATA_SHEETS} == set(SERVOS)
    assert set(MODELS) <= set(SERVOS)


@pytest.mark.parametrize(
    ("name", "kt", "ohm"),
    # BAM: xl330/m4.json, and feetech_sts3215_7_4V m4 of version 2
    [("XL330-M288", 0.38617, 3.40257), ("STS3215-7.4V", 1.2653, 2.472)],
)
def test_solved_constants_are_near_the_identified_ones(name, kt, ohm):
    assert SERVOS[name].kt == pytest.approx(kt, rel=0.10)
    assert SERVOS[name].resistance_ohm == pytest.approx(ohm, rel=0.16)


@pytest.mark.parametrize(
    ("name", "friction"),
    [
        # m4.json, m1.json
        ("XL330-M288", (0.0087586, 0.0, 0.0046210, 0.0680336, 0.0738118, 2.5577, 0.7601159)),
        ("STS3215-7.4V", (0.0519, 0.0111, 0.0338, 0.2079, 0.0, 0.443, 9.99)),
    ],
)
def test_friction_is_the_published_one(name, friction):
    f = SERVOS[name].friction
    assert (f.load_motor, f.load_motor_stribeck) == (f.load_external, f.load_external_stribeck)
    assert (
        f.base, f.stribeck, f.viscous, f.load_motor, f.load_motor_stribeck, f.stribeck_speed,
        f.stribeck_exponent,
    ) == pytest.approx(friction, rel=1e-3)  # fmt: skip


def test_motor_constants_follow_from_the_data_sheet():
    # XL330-M288 with m1's friction: at a stall of 0.52 N·m the motor gives 0.52 + 0.01283; at
    # 103 rev/min = 10.786 rad/s it gives 0.01283 + 0.003662 · 10.786 = 0.05233, of which 1 -
    # 0.05233/0.53283 = 0.90179 of 5 V is back-EMF: kt = 4.50895 / 10.786
    servo = SERVOS["XL330-M288"].plain
    assert servo.kt == pytest.approx(0.41803, rel=1e-4)
    assert servo.resistance_ohm == pytest.approx(0.41803 * 5 / 0.53283, rel=1e-4)
    assert servo.back_emf_damping == pytest.approx(0.53283 * 0.41803 / 5, rel=1e-4)
    assert servo.drive_torque(6.0) == pytest.approx(0.53283 * 6 / 5, rel=1e-6)


def test_stiffness_is_motor_torque_at_the_error_that_gives_full_duty():
    # eManual: P 640 is 5 PWM counts per tick, 885 of which are full duty: 177 ticks
    servo = SERVOS["XL430-W250"]
    expected = servo.drive_torque(12.0) / (177 * 2 * math.pi / 4096)
    assert servo.kp(640, 12.0) == pytest.approx(expected, rel=1e-9)
    assert servo.kp(640, 9.0) == pytest.approx(0.75 * expected, rel=1e-9)


@pytest.mark.parametrize(
    ("name", "p_gain", "volts", "published"),
    # Published stiffnesses of BAM's m1 and m6, as the MJCFs of SO-101 and microduck have them.
    [("STS3215-7.4V", 32, 7.4, 17.8), ("XL330-M288", 200, 7.4, 0.55)],
)
def test_stiffness_is_near_the_published_one(name, p_gain, volts, published):
    assert SERVOS[name].kp(p_gain, volts) == pytest.approx(published, rel=0.10)


@pytest.mark.parametrize("name", ["XL330-M288", "XL330-M077"])
def test_xl330_gives_half_the_duty_per_gain_that_its_manual_says(name):
    # BAM, XL330_KP_DIVISOR: P 400 is 400/256 PWM counts per tick, 566.4 ticks are full duty
    servo = SERVOS[name]
    expected = servo.drive_torque(5.0) / (885 * 256 / 400 * 2 * math.pi / 4096)
    assert servo.kp(400, 5.0) == pytest.approx(expected, rel=1e-9)


def test_damping_gain_is_motor_torque_at_the_speed_that_gives_full_duty():
    # D 4000 is 250 PWM counts per tick of change within 1 ms: full duty at 5.4303 rad/s
    servo = SERVOS["XM430-W350"]
    expected = servo.drive_torque(12.0) / (885 / 250 * 1000 * 2 * math.pi / 4096)
    assert servo.kd(4000, 12.0) == pytest.approx(expected, rel=1e-9)


def test_unknown_damping_gain_is_refused():
    servo = SERVOS["STS3215-7.4V"]
    assert servo.kd(0, 7.4) == 0
    with pytest.raises(ValueError, match="nobody has published what D gain 32 does in STS3215"):
        servo.kd(32, 7.4)


def test_additional_friction_fades_with_speed():
    friction = Friction(base=0.1, viscous=0.0, stribeck_speed=2.0, stribeck_exponent=2.0)
    assert friction.fading(0.0) == 1.0
    assert friction.fading(2.0) == friction.fading(-2.0) == pytest.approx(1 / math.e)
    assert friction.fading(4.0) == pytest.approx(math.exp(-4.0))


def test_geared_down_sister_has_the_friction_and_inertia_of_its_ratio():
    slow, fast = SERVOS["XL330-M288"], SERVOS["XL330-M077"]
    ratio = 77.5 / 288.35
    assert fast.armature == pytest.approx(slow.armature * ratio**2)
    assert fast.coulomb.base == pytest.approx(slow.coulomb.base * ratio)
    assert fast.coulomb.viscous == pytest.approx(slow.coulomb.viscous * ratio**2)
