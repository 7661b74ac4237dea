"""Servos as physics: data sheets, identified friction, and the motor constants that follow.

    servo = SERVOS["XL330-M288"]
    servo.stall_torque(6.0), servo.no_load_speed(6.0)      # at 6 V [N·m], [rad/s]
    servo.plain                     # the same servo with friction that does not depend on load

A servo is a DC motor behind gears, driven by a duty of its supply voltage U. At the joint:

    motor torque = kt/R · (duty·U - kt·speed);   friction opposes it (`Friction`)

Friction and rotor inertia are identified on hardware by Rhoban BAM (github.com/Rhoban/bam, commit
1b5a1ce, bam/params, Apache-2.0; M. Duclusaud, G. Passault et al., "Extended Friction Models for the
Physics Simulation of Servo Actuators", 2024), its model m4; `plain` takes m1. `kt` and `R` are
solved so that stall torque and no-load speed are those of the data sheet at its nominal voltage.
Stall is the largest load that the servo still moves, slowly. Where BAM identifies kt and R too, the
solved ones differ from them by at most 15 %, and data sheets are not linear in voltage: at other
voltages the model's speed differs by at most 5 %, its stall torque by at most 13 %.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from types import MappingProxyType

from deploy.dynamixel.registers import (
    POSITION_D_GAIN,
    POSITION_P_GAIN,
    PWM_FULL,
    RAD_PER_TICK,
    TICKS_PER_TURN,
)

RAD_S_PER_RPM = 0.10471975511965977
CONTROL_PERIOD_S = 1e-3
"""Assumed period of an X servo's own position controller; ROBOTIS does not publish it."""


@dataclass(frozen=True, kw_only=True)
class Rating:
    """What a data sheet states at one supply voltage."""

    voltage_v: float
    stall_torque_nm: float
    no_load_rpm: float
    stall_current_a: float | None = None

    @property
    def no_load_speed_rad_s(self) -> float:
        """Speed without a load."""
        return self.no_load_rpm * RAD_S_PER_RPM


@dataclass(frozen=True, kw_only=True)
class Friction:
    """Friction of motor and gears at the joint: BAM's m5, of which m1 to m4 are special cases.

    It resists with at most `viscous·|w|` and, with the motor's torque m, the torque e that the
    world puts on the joint, and s = exp(-|w / stribeck_speed|^stribeck_exponent),

        base + |load_motor·m - load_external·e|
             + s · (stribeck + |load_motor_stribeck·m - load_external_stribeck·e|)
    """

    base: float
    """[N·m]"""
    viscous: float
    """[N·m·s/rad]"""
    stribeck: float = 0.0
    """Additional at rest [N·m]."""
    load_motor: float = 0.0
    load_external: float = 0.0
    load_motor_stribeck: float = 0.0
    load_external_stribeck: float = 0.0
    stribeck_speed: float = 1.0
    """[rad/s]"""
    stribeck_exponent: float = 1.0

    @property
    def at_rest(self) -> float:
        """Without a load [N·m]."""
        return self.base + self.stribeck

    def fading(self, speed_rad_s: float) -> float:
        """Share of the additional friction at rest that is left at a speed."""
        return math.exp(-(abs(speed_rad_s / self.stribeck_speed) ** self.stribeck_exponent))


@dataclass(frozen=True, kw_only=True)
class ServoPhysics:
    """A servo model's data sheet and identification, and what follows from them."""

    name: str
    nominal_voltage_v: float
    """The rating that holds exactly."""
    ratings: tuple[Rating, ...]
    gear_ratio: float
    armature: float
    """Rotor inertia at the joint [kg·m²]."""
    friction: Friction
    coulomb: Friction
    """Friction that does not depend on load, identified on its own."""
    duty_per_p: float
    """Duty per radian of error and unit of the position P gain [1/rad]."""
    duty_per_d: float | None
    """Duty per rad/s and unit of the position D gain [s/rad]; None: not known."""
    max_duty: float = 1.0
    pwm_slope_v_s: float | None = None
    """Fastest change of the motor's voltage, as it leaves the factory; None for no limit. The
    training model has none; it delays a full step by its duration, 18 ms of an XL330 at 5 V."""
    goal_speed_rad_s: float | None = None
    """How fast the firmware itself moves its goal at most; None for no limit. Keep the velocity
    limit of a policy below."""
    ticks_per_turn: int = TICKS_PER_TURN

    @cached_property
    def nominal(self) -> Rating:
        """The rating at the nominal voltage."""
        return next(r for r in self.ratings if r.voltage_v == self.nominal_voltage_v)

    @cached_property
    def plain(self) -> "ServoPhysics":
        """The same data sheet with friction that does not depend on load."""
        return replace(self, friction=self.coulomb)

    @cached_property
    def _stalled_nm(self) -> float:
        """Motor torque at the nominal voltage that leaves the rated torque after friction."""
        f, rated = self.friction, self.nominal.stall_torque_nm
        external = rated * (1 + f.load_external + f.load_external_stribeck)
        return (external + f.at_rest) / (1 - f.load_motor - f.load_motor_stribeck)

    @cached_property
    def kt(self) -> float:
        """Torque constant at the joint, also of the back-EMF [N·m/A = V·s/rad]."""
        speed = self.nominal.no_load_speed_rad_s
        drive_v = self.max_duty * self.nominal_voltage_v
        return drive_v * (1 - self._idle_nm(speed) / self._stalled_nm) / speed

    @cached_property
    def resistance_ohm(self) -> float:
        """Of the winding."""
        return self.kt * self.max_duty * self.nominal_voltage_v / self._stalled_nm

    @property
    def back_emf_damping(self) -> float:
        """Motor torque lost per speed [N·m·s/rad]."""
        return self.kt**2 / self.resistance_ohm

    def drive_torque(self, voltage_v: float) -> float:
        """Motor torque at rest and full duty, before friction [N·m]."""
        return self.kt * self.max_duty * voltage_v / self.resistance_ohm

    def stall_torque(self, voltage_v: float) -> float:
        """Largest load that it still moves [N·m]."""
        f = self.friction
        left = self.drive_torque(voltage_v) * (1 - f.load_motor - f.load_motor_stribeck)
        return (left - f.at_rest) / (1 + f.load_external + f.load_external_stribeck)

    def no_load_speed(self, voltage_v: float) -> float:
        """Speed at full duty without a load [rad/s]."""
        low, high = 0.0, self.max_duty * voltage_v / self.kt
        for _ in range(60):  # what is left of the motor's torque falls with speed
            middle = 0.5 * (low + high)
            left = self.drive_torque(voltage_v) - self.back_emf_damping * middle
            low, high = (middle, high) if left > self._idle_nm(middle) else (low, middle)
        return low

    def kp(self, p_gain: float, voltage_v: float) -> float:
        """Motor torque per error [N·m/rad] of a position P gain."""
        return p_gain * self.duty_per_p / self.max_duty * self.drive_torque(voltage_v)

    def kd(self, d_gain: float, voltage_v: float) -> float:
        """Motor torque per speed [N·m·s/rad] of a position D gain, on top of back-EMF.

        Raises:
            ValueError: what the gain means is not known for this servo.
        """
        if self.duty_per_d is None:
            if d_gain:
                raise ValueError(f"nobody has published what D gain {d_gain:g} does in {self.name}")
            return 0.0
        return d_gain * self.duty_per_d / self.max_duty * self.drive_torque(voltage_v)

    def _idle_nm(self, speed: float) -> float:
        """Motor torque that turns the gears alone."""
        f = self.friction
        fading = f.fading(speed)
        lost = f.base + f.viscous * speed + fading * f.stribeck
        return lost / (1 - f.load_motor - fading * f.load_motor_stribeck)


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


# Both gains, eManual "Position PID Gain": duty = P/128 · ticks of error / 885. BAM saw 256 instead
# of 128 on an oscilloscope for the XL330 (bam/dynamixel/actuator.py), which would make it half as
# stiff as the manual says; the manual is kept, as what the registers are set by.
_X_DUTY_PER_P = POSITION_P_GAIN.scale / (PWM_FULL * RAD_PER_TICK)
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
# BAM, bam/feetech/actuator.py, by oscilloscope
_STS_DUTY_PER_P, _STS_MAX_DUTY = 0.166, 0.97

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
                duty_per_p=_X_DUTY_PER_P,
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
                duty_per_p=_X_DUTY_PER_P,
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
                gear_ratio=345.0,
                armature=0.02336,
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
                gear_ratio=345.0,
                armature=0.02336,
                friction=_STS3215,
                coulomb=_STS3215_COULOMB,
                duty_per_p=_STS_DUTY_PER_P,
                duty_per_d=None,
                max_duty=_STS_MAX_DUTY,
            ),
        )
    }
)
"""Known servos by name."""
