"""Angles of joints and the counts of the servos that turn them.

    scale = Scale(wirings)
    scale.angles(counts)                    # (n,) counts -> [rad]
    scale.counts(angles, out=goals)         # (n,) [rad] -> the nearest counts

Both are called every tick; given `out`, they allocate nothing.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from deploy.robot_config import JointWiring
from deploy.servos.catalog import MODELS


class Scale:
    """Where the zeros of joints lie, and how far a count turns them.

    Args:
        wirings: of the joints, in the order of all arrays.
    """

    def __init__(self, wirings: Sequence[JointWiring]):
        self.zero = np.array([wiring.zero_ticks for wiring in wirings])
        """Counts at angle 0 (n,)."""
        self.direction = np.array([wiring.direction for wiring in wirings])
        """1 where the count grows with the angle, else -1 (n,)."""
        self.rad_per_tick = np.array([MODELS[wiring.model].rad_per_tick for wiring in wirings])
        """Size of a count (n,) [rad]."""
        self.limits = np.array([_tick_limits(wiring) for wiring in wirings])
        """Lowest and highest count within the joints' limits, shape (n, 2)."""
        self._rad_per_count = self.direction * self.rad_per_tick
        self._scratch = np.zeros(len(wirings))

    def angles(
        self,
        counts: NDArray[np.integer],
        out: NDArray[np.float64] | None = None,
        *,
        where: NDArray[np.bool_] | bool = True,
    ) -> NDArray[np.float64]:
        """Counts (n,) -> angles [rad]; into `out`, and only `where` that is true, if given."""
        np.subtract(counts, self.zero, out=self._scratch)
        return np.multiply(self._scratch, self._rad_per_count, out=out, where=where)

    def counts(self, angles: NDArray[np.float64], out: NDArray[np.int32]) -> NDArray[np.int32]:
        """Angles (n,) [rad] -> the nearest counts, in `out`."""
        np.divide(angles, self._rad_per_count, out=self._scratch)
        np.add(self._scratch, self.zero, out=self._scratch)
        out[:] = np.rint(self._scratch, out=self._scratch)
        return out


def _tick_limits(wiring: JointWiring) -> tuple[int, int]:
    model = MODELS[wiring.model]
    ends = [
        wiring.zero_ticks + wiring.direction * round(limit / model.rad_per_tick)
        for limit in wiring.position_limits_rad
    ]
    return max(0, min(ends)), min(model.ticks - 1, max(ends))
