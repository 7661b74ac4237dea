"""How well a robot on legs went where it was told, from where its base really was.

    twist = base_twist(pose, velocity)                       # (T, 3) forward, left, turning
    for leg in judge_legs(time_s, command, twist, fallen(pose, home_height_m)): ...

A command is judged from `SETTLED_S` after it was given, as in training (`envs.walking.score`), by
the mean over a whole number of ticks: a stride's sway is gone over a second and more.
"""

import itertools
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

SETTLED_S = 1.0
SHORTEST_S = 1.0
"""A command that lasts less than this beyond `SETTLED_S` is not judged."""
MAX_TILT_RAD, MIN_HEIGHT_SHARE = 1.0, 0.6
"""A base tilted more, or lower than this share of its height at home, has fallen."""
SMOOTHED_S = 0.3
"""Time constant of the velocity whose error is told."""
TURN_RADIUS_M = 0.1
"""What a turn counts as, in the speed along a command that mixes both."""


@dataclass(frozen=True)
class Leg:
    """What was made of one command."""

    begin_s: float
    command: tuple[float, ...]
    """Asked for: forward [m/s], left [m/s], turning [rad/s]."""
    achieved: tuple[float, ...]
    """The mean of the same."""
    error_m_s: float
    """Rms of what the smoothed velocity on the ground lacks."""
    fell: bool

    @property
    def share(self) -> float:
        """Speed along the command by that asked for; not a number for standing still."""
        scale = np.array([1.0, 1.0, TURN_RADIUS_M])
        asked, achieved = scale * self.command, scale * self.achieved
        square = float(asked @ asked)
        return float(asked @ achieved) / square if square > 0.02**2 else float("nan")


def rotation(quaternion: Array) -> Array:
    """Rotation matrices (..., 3, 3) of unit quaternions (..., 4), wxyz."""
    w, x, y, z = np.moveaxis(quaternion, -1, 0)
    rows = [
        [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
        [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
        [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
    ]
    return np.moveaxis(np.array(rows), (0, 1), (-2, -1))


def base_twist(pose: Array, velocity: Array) -> Array:
    """Velocity (T, 3) in the base's heading: forward [m/s], left [m/s], turning [rad/s].

    Args:
        pose: (T, 7) position, and quaternion wxyz.
        velocity: (T, 6) of the base in the world [m/s], and angular, in its own frame [rad/s].
    """
    turn = rotation(pose[:, 3:])
    ahead = turn[:, :2, 0] / np.linalg.norm(turn[:, :2, 0], axis=1, keepdims=True)
    forward = (velocity[:, :2] * ahead).sum(axis=1)
    left = velocity[:, 1] * ahead[:, 0] - velocity[:, 0] * ahead[:, 1]
    spin = np.einsum("ti,ti->t", turn[:, 2], velocity[:, 3:])
    return np.stack([forward, left, spin], axis=1)


def tilt(pose: Array) -> Array:
    """Angle (T,) between the base's z axis and the vertical [rad]."""
    return np.arccos(np.clip(rotation(pose[:, 3:])[:, 2, 2], -1.0, 1.0))


def fallen(pose: Array, home_height_m: float) -> NDArray[np.bool_]:
    """Whether the base is tilted too much, or too low, (T,)."""
    return (tilt(pose) > MAX_TILT_RAD) | (pose[:, 2] < MIN_HEIGHT_SHARE * home_height_m)


def count_falls(down: NDArray[np.bool_]) -> int:
    """How often it went down in (T,)."""
    return int(np.count_nonzero(np.diff(down.astype(int), prepend=0) > 0))


def judge_legs(time_s: Array, command: Array, twist: Array, down: NDArray[np.bool_]) -> list[Leg]:
    """What was made of each command that had its time.

    Args:
        time_s: (T,) ticks, evenly spaced.
        command: (T, 3) asked for.
        twist: (T, 3) achieved, see `base_twist`.
        down: (T,) see `fallen`.
    """
    dt = float(np.median(np.diff(time_s)))
    smooth = smoothed(twist, dt)
    begins = [0, *(np.flatnonzero(np.any(command[1:] != command[:-1], axis=1)) + 1), len(command)]
    legs = []
    for begin, end in itertools.pairwise(begins):
        settled = slice(begin + round(SETTLED_S / dt), end)
        if end - settled.start < round(SHORTEST_S / dt):
            continue
        lacking = smooth[settled, :2] - command[begin, :2]
        legs.append(
            Leg(
                begin_s=float(time_s[begin] - time_s[0]),
                command=tuple(command[begin].tolist()),
                achieved=tuple(twist[settled].mean(axis=0).tolist()),
                error_m_s=float(np.sqrt((lacking**2).sum(axis=1).mean())),
                fell=bool(down[begin:end].any()),
            )
        )
    return legs


def smoothed(values: Array, dt_s: float) -> Array:
    """First-order low-pass of (T, n), from rest."""
    state, result = np.zeros(values.shape[1]), np.empty_like(values)
    for row, value in enumerate(values):
        state = state + (value - state) * (dt_s / SMOOTHED_S)
        result[row] = state
    return result
