"""A servo as physics: a DC motor behind gears, driven by a duty of its supply voltage U.

At the joint, with the motor constant kt and the winding's resistance R,

    motor torque = kt/R · (duty·U - kt·speed);   friction opposes it (`Friction`)

Friction and rotor inertia are identified on hardware; `kt` and `R` are solved so that stall torque
and no-load speed are those of the data sheet at its nominal voltage. Stall is the largest load that
the servo still moves, slowly. The numbers of servos are in `deploy.servos.models`.
"""

import math
from dataclasses import dataclass, replace
from functools import cached_property

RAD_S_PER_RPM = 0.10471975511965977
SUPPLY_SHARES = (0.5, 2.0)
"""Supply voltages over the nominal one that make sense."""


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
    gear_ratio: float | None
    """None: not published."""
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
    """Fastest change of the motor's voltage, as it leaves the factory; None for no limit."""
    goal_speed_rad_s: float | None = None
    """How fast the firmware itself moves its goal at most; None for no limit. Keep the velocity
    limit of a policy below."""

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
