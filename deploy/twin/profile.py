"""The trajectory an X servo makes of a new goal: step, rectangle, triangle or trapezoid of speed.

    plan = by_velocity(position, velocity, goal, max_velocity=1563.0, acceleration=8000.0)
    plan = by_time(position, velocity, goal, span_s=0.5, acceleration_s=0.1)
    position, velocity, acceleration = plan.at(0.02)      # 20 ms after the goal came

A goal that comes on the way continues from the speed reached ("Velocity Override"). Source:
eManual, "What is the Profile"; positions in counts, times in seconds.
"""

import math
from dataclasses import dataclass
from enum import IntEnum

Motion = tuple[float, float, float]
"""Position, velocity, acceleration."""


class ProfileType(IntEnum):
    """As in the bits 4 and 5 of Moving Status."""

    STEP = 0
    RECTANGULAR = 1
    TRIANGULAR = 2
    TRAPEZOIDAL = 3


@dataclass(frozen=True, slots=True)
class Plan:
    """Pieces of constant acceleration that end at rest in `goal`."""

    goal: float
    type: ProfileType = ProfileType.STEP
    position: float = 0.0
    """Where it begins."""
    velocity: float = 0.0
    """How fast it begins."""
    pieces: tuple[tuple[float, float], ...] = ()
    """Duration [s] and acceleration of each."""

    @property
    def duration_s(self) -> float:
        """Time from the beginning to the goal."""
        return sum(duration for duration, _ in self.pieces)

    def at(self, elapsed_s: float) -> Motion:
        """Where the trajectory is some time after its beginning."""
        position, velocity = self.position, self.velocity
        for duration, acceleration in self.pieces:
            if elapsed_s < duration:
                moved = (velocity + 0.5 * acceleration * elapsed_s) * elapsed_s
                return position + moved, velocity + acceleration * elapsed_s, acceleration
            position += (velocity + 0.5 * acceleration * duration) * duration
            velocity += acceleration * duration
            elapsed_s -= duration
        return self.goal, 0.0, 0.0


def by_velocity(
    position: float, velocity: float, goal: float, *, max_velocity: float, acceleration: float
) -> Plan:
    """Velocity-based profile; 0 means no limit, of either.

    Args:
        position: where the trajectory is.
        velocity: its speed.
        goal: where it should come to rest.
        max_velocity: Profile Velocity [counts/s].
        acceleration: Profile Acceleration [counts/s²].
    """
    if not max_velocity:
        return Plan(goal)
    distance = goal - position
    if not acceleration:
        duration = abs(distance) / max_velocity
        speed = math.copysign(max_velocity, distance)
        return Plan(goal, ProfileType.RECTANGULAR, position, speed, ((duration, 0.0),))
    to_rest = velocity * abs(velocity) / (2 * acceleration)
    direction = math.copysign(1.0, distance - to_rest)
    start, distance = direction * velocity, direction * distance
    peak = math.sqrt(max(0.0, acceleration * distance + 0.5 * start * start))
    cruise = min(peak, max_velocity)
    speeding_s = abs(cruise - start) / acceleration
    braking_s = cruise / acceleration
    moved = 0.5 * (start + cruise) * speeding_s + 0.5 * cruise * braking_s
    cruising_s = max(0.0, distance - moved) / cruise if cruise else 0.0
    speed_up = math.copysign(acceleration, cruise - start) * direction
    return Plan(
        goal,
        ProfileType.TRAPEZOIDAL if peak > max_velocity else ProfileType.TRIANGULAR,
        position,
        velocity,
        ((speeding_s, speed_up), (cruising_s, 0.0), (braking_s, -direction * acceleration)),
    )


def by_time(
    position: float, velocity: float, goal: float, *, span_s: float, acceleration_s: float
) -> Plan:
    """Time-based profile: there in `span_s`, of which `acceleration_s` to get up to speed.

    Args:
        position: where the trajectory is.
        velocity: its speed.
        goal: where it should come to rest.
        span_s: Profile Velocity, which here is a time; 0 means a step.
        acceleration_s: Profile Acceleration, which here is a time; at most half the span counts.
    """
    if not span_s:
        return Plan(goal)
    ramp_s = min(acceleration_s, span_s / 2)
    cruise = (goal - position - 0.5 * velocity * ramp_s) / (span_s - ramp_s)
    if not ramp_s:
        return Plan(goal, ProfileType.RECTANGULAR, position, cruise, ((span_s, 0.0),))
    cruising_s = span_s - 2 * ramp_s
    return Plan(
        goal,
        ProfileType.TRAPEZOIDAL if cruising_s else ProfileType.TRIANGULAR,
        position,
        velocity,
        ((ramp_s, (cruise - velocity) / ramp_s), (cruising_s, 0.0), (ramp_s, -cruise / ramp_s)),
    )
