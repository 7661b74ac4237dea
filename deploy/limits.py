"""The arithmetic of the governor, as pure functions: what a joint may be told, from where it is.

Each bound is an interval per joint, (n,) arrays `low` and `high`, written where the caller says; so
a tick allocates no array. Positions in rad, speeds in rad/s, torques in N·m. What the intervals are
for, and which overrules which, is for `deploy.governor` to say.
"""

import math

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

SPEED_FADE = 0.2
"""Last part of a joint's speed limit in which a torque that makes it faster fades."""
HOT, COOL = 1.0, 0.8
"""Squared current, over the one allowed for long, at which derating is complete, and begins."""


def clip(values: Floats, low: Floats | float, high: Floats | float) -> None:
    """Clip `values` in place, in a third of the time that `np.clip` takes of a few joints."""
    np.maximum(values, low, out=values)
    np.minimum(values, high, out=values)


def around(middle: Floats, reach: Floats, low: Floats, high: Floats) -> None:
    """`middle` ± `reach`."""
    np.subtract(middle, reach, out=low)
    np.add(middle, reach, out=high)


def servo_reach(
    measured: Floats,
    rate: Floats,
    kp: Floats,
    kd: Floats,
    torque: Floats,
    low: Floats,
    high: Floats,
) -> None:
    """Targets of a servo, torque = kp·(target - measured) - kd·rate, for which |torque| is allowed.

    Of one driven by speed, `measured` is its speed, `kp` its velocity gain and `kd` zero.
    """
    np.multiply(kd, rate, out=high)
    np.subtract(high, torque, out=low)
    np.add(high, torque, out=high)
    for bound in (low, high):
        np.divide(bound, kp, out=bound)
        np.add(measured, bound, out=bound)


def arriving_speed(
    position: Floats, lowest: Floats, highest: Floats, ahead_s: float, low: Floats, high: Floats
) -> None:
    """Speeds at which a joint is not past its limits `ahead_s` later; behind one, back to it."""
    np.subtract(lowest, position, out=low)
    np.subtract(highest, position, out=high)
    np.divide(low, ahead_s, out=low)
    np.divide(high, ahead_s, out=high)


def fading_torque(
    value: Floats, lowest: Floats, highest: Floats, zone: Floats, torque: Floats,
    low: Floats, high: Floats,
) -> None:  # fmt: skip
    """Torques that fade over `zone` before `value` is at its limit, and turn around behind it."""
    np.subtract(highest, value, out=high)
    np.subtract(lowest, value, out=low)
    for bound in (low, high):
        np.divide(bound, zone, out=bound)
        clip(bound, -1, 1)
        np.multiply(bound, torque, out=bound)


def derated(value: Floats, begin: float, end: float, floor: float, out: Floats) -> None:
    """Share of effort: 1 up to `begin`, `floor` from `end` on, linear between."""
    np.subtract(value, begin, out=out)
    np.divide(out, end - begin, out=out)
    clip(out, 0, 1)
    np.multiply(out, floor - 1, out=out)
    np.add(out, 1, out=out)


def warm(
    heat: Floats, current: Floats, allowed: Floats, share: float,
    scratch: Floats, known: NDArray[np.bool_],
) -> None:  # fmt: skip
    """Let `heat`, squared current over the one allowed for long, follow by `share` of the way.

    A current that is not a number changes nothing.
    """
    np.divide(current, allowed, out=scratch)
    np.square(scratch, out=scratch)
    np.subtract(scratch, heat, out=scratch)
    np.multiply(scratch, share, out=scratch)
    np.add(heat, scratch, out=heat, where=np.isfinite(scratch, out=known))


def tilt(gravity: Floats) -> float:
    """Angle [rad] between what points down (3,), in a body's frame, and the body's own -z."""
    x, y, z = gravity.tolist()
    return math.atan2(math.hypot(x, y), -z)


def tilt_ahead(gravity: Floats, angular_velocity: Floats, ahead_s: float) -> float:
    """The tilt `ahead_s` later if the body goes on turning (3,) [rad/s], by Rodrigues' formula.

    What points down turns against the body: d(gravity)/dt = gravity × angular_velocity.
    """
    wx, wy, wz = angular_velocity.tolist()
    speed = math.sqrt(wx * wx + wy * wy + wz * wz)
    if speed * ahead_s < 1e-9:
        return tilt(gravity)
    x, y, z = gravity.tolist()
    ax, ay, az = wx / speed, wy / speed, wz / speed
    c, s = math.cos(speed * ahead_s), -math.sin(speed * ahead_s)
    along = (ax * x + ay * y + az * z) * (1 - c)
    return math.atan2(
        math.hypot(
            c * x + s * (ay * z - az * y) + along * ax, c * y + s * (az * x - ax * z) + along * ay
        ),
        -(c * z + s * (ax * y - ay * x) + along * az),
    )
