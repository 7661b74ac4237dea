"""The servos we know: data sheets, friction, control laws, and where each number is from.

    servo = SERVOS["XL330-M288"]
    servo.stall_torque(6.0), servo.no_load_speed(6.0)      # at 6 V [N·m], [rad/s]
    servo.plain                     # the same servo with friction that does not depend on load

Friction and rotor inertia are those of Rhoban BAM (github.com/Rhoban/bam, commit 1b5a1ce,
bam/params, Apache-2.0; M. Duclusaud, G. Passault et al., "Extended Friction Models for the Physics
Simulation of Servo Actuators", 2024), its model m4; `plain` takes m1. Where BAM identifies kt and R
too, those solved from the data sheet differ by at most 16 %. Data sheets are not linear in voltage:
at other voltages than the nominal one the model's speed differs from theirs by at most 5 %, its
stall torque by at most 14 %.
"""

import math
from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import Any

from deploy.configuration import did_you_mean
from deploy.dynamixel.registers import POSITION_D_GAIN, POSITION_P_GAIN, PWM_FULL, RAD_PER_TICK
from deploy.errors import ConfigError
from deploy.feetech.scs_registers import FASTEST_TICKS_S
from deploy.feetech.scs_registers import TICKS as SCS_TICKS
from deploy.servos.physics import Friction, Rating, ServoPhysics

CONTROL_PERIOD_S = 1e-3
"""Assumed period of an X servo's own position controller; ROBOTIS does not publish it."""
SERVO_TEXT = "servo/"
"""A custom text of an MJCF by this and a joint's name says which servo drives it: the servo's name,
with `PLAIN` behind it if its friction does not depend on load. What `MjSpec.attach` adds to names
is before and behind both."""
PLAIN = " plain"
BACKLASH_HINGE = "/backlash"
"""A joint's name and this is the hinge behind it that is its play."""


def _m4(
    base: float,
    stribeck: float,
    viscous: float,
    load: float,
    load_stribeck: float,
    speed: float,
    exponent: float,
) -> Friction:
    """BAM's m4: friction under load is the same from either side."""
    return Friction(
        base=base,
        viscous=viscous,
        stribeck=stribeck,
        load_motor=load,
        load_external=load,
        load_motor_stribeck=load_stribeck,
        load_external_stribeck=load_stribeck,
        stribeck_speed=speed,
        stribeck_exponent=exponent,
    )


def _sheet(*rows: tuple[float, float, float, float | None]) -> tuple[Rating, ...]:
    """Voltage, stall torque, no-load speed [rev/min], stall current."""
    return tuple(
        Rating(voltage_v=volts, stall_torque_nm=torque, no_load_rpm=rpm, stall_current_a=current)
        for volts, torque, rpm, current in rows
    )


# Both gains, eManual "Position PID Gain": duty = P/128 · ticks of error / 885.
_X_DUTY_PER_P = POSITION_P_GAIN.scale / (PWM_FULL * RAD_PER_TICK)
# The XL330 is half as stiff as its manual says: BAM observed P/256 (bam/dynamixel/actuator.py,
# XL330_KP_DIVISOR), and the microduck's published fits agree: 0.55 N·m/rad and 0.96 N·m, earlier
# 0.43 and 0.75, at P 200 are 0.573 of full duty per rad; P/256 gives 0.575. On D nobody says
# anything, so the manual's is kept.
_XL330_DUTY_PER_P = _X_DUTY_PER_P * 128 / 256
_X_DUTY_PER_D = POSITION_D_GAIN.scale / (PWM_FULL * RAD_PER_TICK) * CONTROL_PERIOD_S
_X330_SLOPE_V_S = 276.84  # eManual, "PWM Slope(62)": 140 · 1.977 mV/ms

# BAM, xl330/m4.json and m1.json
_XL330 = _m4(0.008759, 0.0, 0.004621, 0.06803, 0.07381, 2.558, 0.7601)
_XL330_COULOMB = Friction(base=0.01283, viscous=0.003662)
_XL330_RATIO, _M077_RATIO = 288.35, 77.5
_M077 = _M077_RATIO / _XL330_RATIO

# BAM, feetech_sts3215_7_4V: m4 of version 2 (pull request, commit 31e5b97); m1.json
_STS3215 = _m4(0.0519, 0.0111, 0.0338, 0.2079, 0.0, 0.443, 9.99)
_STS3215_COULOMB = Friction(base=0.05239, viscous=0.05909)
_STS_RATIO, _STS_ARMATURE = 345.0, 0.02336
# BAM, bam/feetech/actuator.py, by oscilloscope
_STS_DUTY_PER_P, _STS_MAX_DUTY = 0.166, 0.97

_SCS0009 = 0.226 / 0.60  # stall torques at 6 V
_SCS15_RATIO = 275.0
_SCS15 = _SCS15_RATIO / _STS_RATIO

SERVOS: Mapping[str, ServoPhysics] = MappingProxyType(
    {
        servo.name: servo
        for servo in (
            ServoPhysics(
                name="XL330-M288",
                nominal_voltage_v=5.0,
                ratings=_sheet(  # eManual, "Specifications"
                    (3.7, 0.42, 76, 1.11),
                    (5.0, 0.52, 103, 1.47),
                    (6.0, 0.60, 123, 1.74),
                ),
                gear_ratio=_XL330_RATIO,
                armature=0.001895,  # BAM, xl330/m4.json
                friction=_XL330,
                coulomb=_XL330_COULOMB,
                duty_per_p=_XL330_DUTY_PER_P,
                duty_per_d=_X_DUTY_PER_D,
                pwm_slope_v_s=_X330_SLOPE_V_S,
            ),
            # Not identified: the M288's motor behind fewer gears. Rotor inertia and viscous
            # friction go with the square of the ratio, Coulomb friction with the ratio. Stall
            # torque over stall current is more than no-load voltage over speed here, so the data
            # sheet leaves no room for friction under load.
            ServoPhysics(
                name="XL330-M077",
                nominal_voltage_v=5.0,
                ratings=_sheet(  # eManual, "Specifications"
                    (3.7, 0.18, 278, 1.11),
                    (5.0, 0.215, 383, 1.47),
                    (6.0, 0.228, 456, 1.74),
                ),
                gear_ratio=_M077_RATIO,
                armature=0.001895 * _M077**2,
                friction=Friction(base=0.008759 * _M077, viscous=0.004621 * _M077**2),
                coulomb=Friction(base=0.01283 * _M077, viscous=0.003662 * _M077**2),
                duty_per_p=_XL330_DUTY_PER_P,
                duty_per_d=_X_DUTY_PER_D,
                pwm_slope_v_s=_X330_SLOPE_V_S,
            ),
            # XL430 and XM430 are not identified: interpolated over the logarithm of the stall
            # torque between BAM's XL330 (0.52 N·m) and MX-64 (6.0 N·m; m4.json: 0.06155, 0.02390,
            # 0.01475, 0, 0.2343, 1.521, 1.334, armature 0.01096; m1.json: 0.09039, 0.01169),
            # 43 % and 84 % of the way.
            ServoPhysics(
                name="XL430-W250",
                nominal_voltage_v=12.0,
                ratings=_sheet(  # eManual, "Specifications"
                    (9.0, 1.0, 47, 1.0),
                    (11.1, 1.4, 57, 1.3),
                    (12.0, 1.5, 61, 1.4),
                ),
                gear_ratio=258.5,
                armature=0.0040,
                friction=_m4(0.0204, 0.0030, 0.0076, 0.0386, 0.143, 2.04, 0.97),
                coulomb=Friction(base=0.0299, viscous=0.0061),
                duty_per_p=_X_DUTY_PER_P,
                duty_per_d=_X_DUTY_PER_D,
            ),
            ServoPhysics(
                name="XM430-W350",
                nominal_voltage_v=12.0,
                ratings=_sheet(  # eManual, "Specifications"
                    (11.1, 3.8, 43, 2.1),
                    (12.0, 4.1, 46, 2.3),
                    (14.8, 4.8, 57, 2.7),
                ),
                gear_ratio=353.5,
                armature=0.0083,
                friction=_m4(0.0454, 0.0145, 0.0123, 0.0106, 0.209, 1.65, 1.22),
                coulomb=Friction(base=0.0667, viscous=0.0098),
                duty_per_p=_X_DUTY_PER_P,
                duty_per_d=_X_DUTY_PER_D,
            ),
            ServoPhysics(
                name="STS3215-7.4V",
                nominal_voltage_v=7.4,
                ratings=_sheet(  # Feetech, STS3215-C001: 19.5 kg·cm, and 16.5 at 6 V
                    (6.0, 1.62, 42, None),
                    (7.4, 1.91, 52, None),
                ),
                gear_ratio=_STS_RATIO,
                armature=_STS_ARMATURE,
                friction=_STS3215,
                coulomb=_STS3215_COULOMB,
                duty_per_p=_STS_DUTY_PER_P,
                duty_per_d=None,
                max_duty=_STS_MAX_DUTY,
                goal_speed_rad_s=5.07,
            ),
            # BAM's 12 V fit (commit ce4176b: kt 1.44, R 2.03) has a free speed of 72 rpm and a
            # motor torque of 8.3 N·m, far from the data sheet and from bench tests (46 rpm,
            # 3.4 N·m; SO-ARM100 #134), so the friction of the 7.4 V servo, whose gears it has, is
            # taken. Nothing is published on its goal's own speed.
            ServoPhysics(
                name="STS3215-12V",
                nominal_voltage_v=12.0,
                ratings=_sheet(  # Feetech, STS3215-C018: 30 kg·cm
                    (12.0, 2.94, 45, 2.7),
                ),
                gear_ratio=_STS_RATIO,
                armature=_STS_ARMATURE,
                friction=_STS3215,
                coulomb=_STS3215_COULOMB,
                duty_per_p=_STS_DUTY_PER_P,
                duty_per_d=None,
                max_duty=_STS_MAX_DUTY,
            ),
            # SCS servos are not identified, neither motor and gears nor what a unit of P is: that
            # is taken as the STS3215's. SCS0009: as fast as an XL330-M288 and with 0.38 of its
            # torque at 6 V, to which rotor inertia and constant friction are in proportion.
            ServoPhysics(
                name="SCS0009",
                nominal_voltage_v=6.0,
                ratings=_sheet(  # Waveshare, SC09: 2.3 kg·cm, as Feetech's catalogue says
                    (6.0, 0.226, 100, 1.0),
                ),
                gear_ratio=None,
                armature=0.001895 * _SCS0009,
                friction=replace(
                    _XL330, base=_XL330.base * _SCS0009, viscous=_XL330.viscous * _SCS0009
                ),
                coulomb=Friction(base=0.01283 * _SCS0009, viscous=0.003662 * _SCS0009),
                duty_per_p=_STS_DUTY_PER_P,
                duty_per_d=None,
                goal_speed_rad_s=FASTEST_TICKS_S * math.radians(300) / SCS_TICKS,
            ),
            # The STS3215's motor behind fewer gears, as the XL330-M077 is the M288's.
            ServoPhysics(
                name="SCS15",
                nominal_voltage_v=7.4,
                ratings=_sheet(  # Feetech, FT-SCServo: 15, 16.5 and 17 kg·cm
                    (6.0, 1.47, 55, None),
                    (7.4, 1.62, 65, 1.5),
                    (8.4, 1.67, 73, None),
                ),
                gear_ratio=_SCS15_RATIO,
                armature=_STS_ARMATURE * _SCS15**2,
                friction=replace(
                    _STS3215,
                    base=_STS3215.base * _SCS15,
                    stribeck=_STS3215.stribeck * _SCS15,
                    viscous=_STS3215.viscous * _SCS15**2,
                ),
                coulomb=Friction(base=0.05239 * _SCS15, viscous=0.05909 * _SCS15**2),
                duty_per_p=_STS_DUTY_PER_P,
                duty_per_d=None,
                goal_speed_rad_s=FASTEST_TICKS_S * math.radians(215) / SCS_TICKS,
            ),
        )
    }
)
"""Known servos by name."""


def servos_of(model: Any) -> dict[str, ServoPhysics]:
    """The servos that a model's custom texts say it has, by joint.

    Args:
        model: a `mujoco.MjModel`, which robots know nothing of.

    Raises:
        ConfigError: a servo is not known.
    """
    servos: dict[str, ServoPhysics] = {}
    for name_start, start in zip(model.name_textadr.tolist(), model.text_adr.tolist(), strict=True):
        name, data = _string(model.names, name_start), _string(model.text_data, start)
        prefix, mark, joint = name.partition(SERVO_TEXT)
        if mark:
            servo = data.removesuffix(PLAIN)
            if servo not in SERVOS:
                raise ConfigError(
                    f"the model's text {name!r} names the servo {servo!r}"
                    f"{did_you_mean(servo, SERVOS)}; there are {', '.join(SERVOS)}"
                )
            known = SERVOS[servo]
            servos[prefix + joint] = known.plain if data.endswith(PLAIN) else known
    return servos


def _string(text: bytes, start: int) -> str:
    return text[start : text.index(b"\0", start)].decode()
