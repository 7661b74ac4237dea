"""The position controller inside an X servo: encoder counts in, PWM out, once a millisecond.

PWM = P/128 · error + I/65536 · Σ error - D/16 · counts moved in the period, clipped to the PWM
limit. The error is in whole counts, as the encoder's are. ROBOTIS publishes the law (eManual,
"Position PID Gain") but neither the period nor what D acts on: `CONTROL_PERIOD_S` and the measured
speed, so that a step of the goal does not kick, are assumptions.
"""

import math
from dataclasses import dataclass, field

from deploy.dynamixel.registers import RAD_PER_TICK
from deploy.dynamixel.servos import CONTROL_PERIOD_S


@dataclass(slots=True)
class PositionController:
    """Gains, limits and state of one controller; positions in counts."""

    p: float = 0.0
    """PWM counts per count of error."""
    i: float = 0.0
    """PWM counts per count of error and period."""
    d: float = 0.0
    """PWM counts per count moved in a period."""
    pwm_limit: float = 0.0
    max_step: float = math.inf
    """Fastest change of the trajectory per period; Profile Velocity, inf where that is 0."""
    trajectory: float = 0.0
    """Where the profile has got to on its way to the goal."""
    _integral: float = field(default=0.0, init=False)

    def start(self, position: float) -> None:
        """Begin at rest at `position`."""
        self.trajectory, self._integral = position, 0.0

    def step(self, goal: float, position: int, speed_rad_s: float) -> float:
        """PWM counts for the next period, towards `goal` from the measured `position`."""
        limit = self.pwm_limit
        self.trajectory += _clip(goal - self.trajectory, self.max_step)
        error = self.trajectory - position
        self._integral = _clip(self._integral + self.i * error, limit)  # against windup
        moved = speed_rad_s * (CONTROL_PERIOD_S / RAD_PER_TICK)
        return _clip(self.p * error + self._integral - self.d * moved, limit)


def _clip(value: float, limit: float) -> float:
    return min(max(value, -limit), limit)
