"""The controllers inside an X servo: encoder counts in, PWM out, once a millisecond.

    position  PWM = P/128 · error + I/65536 · Σ error - D/16 · moved + FF1/4 · v + FF2/4 · a
    velocity  PWM = P/128 · error + I/65536 · Σ error

clipped to the PWM limit; an XL330's position controller has P/256 (`servos.models`). Position
errors are in whole counts, as the encoder's are, and in velocity units in the other case; `moved`
is what the shaft, v what the trajectory moved in the period, a the change of v. ROBOTIS publishes
the laws (eManual, "Position PID Gain", "Velocity PI Gain") but neither the period nor what D and
the feedforwards act on: `CONTROL_PERIOD_S`, the measured speed, so that a step of the goal does not
kick, and counts per period are assumptions.
"""

from dataclasses import dataclass, field

from deploy.dynamixel.registers import RAD_PER_TICK, RAD_S_PER_COUNT
from deploy.servos.models import CONTROL_PERIOD_S


@dataclass(slots=True)
class PositionController:
    """Gains, limit and state of a position controller; positions in counts."""

    p: float = 0.0
    """PWM counts per count of error."""
    i: float = 0.0
    """PWM counts per count of error and period."""
    d: float = 0.0
    """PWM counts per count moved in a period."""
    feedforward_1st: float = 0.0
    """PWM counts per count the trajectory moves in a period."""
    feedforward_2nd: float = 0.0
    """PWM counts per count by which that changes in a period."""
    pwm_limit: float = 0.0
    _integral: float = field(default=0.0, init=False)

    def start(self) -> None:
        """Begin at rest."""
        self._integral = 0.0

    def step(
        self,
        target: tuple[float, float, float],
        position: int,
        speed_rad_s: float,
    ) -> float:
        """PWM counts for the next period.

        Args:
            target: position, velocity and acceleration of the trajectory [counts, s].
            position: measured.
            speed_rad_s: measured.
        """
        limit = self.pwm_limit
        error = target[0] - position
        self._integral = clip(self._integral + self.i * error, limit)  # against windup
        moved = speed_rad_s * (CONTROL_PERIOD_S / RAD_PER_TICK)
        pwm = self.p * error + self._integral - self.d * moved
        pwm += self.feedforward_1st * (target[1] * CONTROL_PERIOD_S)
        pwm += self.feedforward_2nd * (target[2] * CONTROL_PERIOD_S**2)
        return clip(pwm, limit)


@dataclass(slots=True)
class VelocityController:
    """Gains, limits and state of a velocity controller; velocities in counts of 0.229 rev/min."""

    p: float = 0.0
    """PWM counts per count of error."""
    i: float = 0.0
    """PWM counts per count of error and period."""
    pwm_limit: float = 0.0
    max_change: float = 0.0
    """Fastest change of the trajectory per period; 0 for no limit."""
    trajectory: float = 0.0
    """Where Profile Acceleration has got to on its way to the goal."""
    _integral: float = field(default=0.0, init=False)

    def start(self) -> None:
        """Begin at rest."""
        self.trajectory = self._integral = 0.0

    def step(self, goal: float, speed_rad_s: float) -> float:
        """PWM counts for the next period, towards the velocity `goal`."""
        change = goal - self.trajectory
        self.trajectory += clip(change, self.max_change) if self.max_change else change
        error = self.trajectory - speed_rad_s / RAD_S_PER_COUNT
        self._integral = clip(self._integral + self.i * error, self.pwm_limit)  # against windup
        return clip(self.p * error + self._integral, self.pwm_limit)


def clip(value: float, limit: float) -> float:
    """`value`, at most `limit` from 0."""
    return min(max(value, -limit), limit)
