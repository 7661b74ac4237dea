"""What joints do and the counts of the servos that do it.

    scale = Scale(wirings)
    scale.values(counts)                    # (n,) counts -> angles [rad]
    scale.counts(angles, out=goals)         # (n,) [rad] -> the nearest counts
    Linear(zeros, direction * RAD_S_PER_COUNT)      # of speeds [rad/s]

Both are called every tick; given `out`, they allocate nothing.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from deploy.robot_config import JointWiring
from deploy.servos.catalog import MODELS


class Linear:
    """Counts that are in proportion to something.

    Args:
        zero: (n,) counts at zero.
        unit: (n,) of a count, negative where it counts the other way.
    """

    def __init__(self, zero: NDArray[np.int_], unit: NDArray[np.float64]):
        self.zero, self._unit, self._scratch = zero, unit, np.zeros(len(unit))

    def values(
        self,
        counts: NDArray[np.integer],
        out: NDArray[np.float64] | None = None,
        *,
        where: NDArray[np.bool_] | bool = True,
    ) -> NDArray[np.float64]:
        """What counts (n,) say; into `out`, and only `where` that is true, if given."""
        np.subtract(counts, self.zero, out=self._scratch)
        return np.multiply(self._scratch, self._unit, out=out, where=where)

    def counts(self, values: NDArray[np.float64], out: NDArray[np.int32]) -> NDArray[np.int32]:
        """The counts nearest to values (n,), in `out`."""
        np.divide(values, self._unit, out=self._scratch)
        np.add(self._scratch, self.zero, out=self._scratch)
        out[:] = np.rint(self._scratch, out=self._scratch)
        return out


class Scale(Linear):
    """Where the zeros of joints lie, and how far a count turns them [rad].

    Args:
        wirings: of the joints, in the order of all arrays.
    """

    def __init__(self, wirings: Sequence[JointWiring]):
        self.direction = np.array([wiring.direction for wiring in wirings])
        """1 where the count grows with the angle, else -1 (n,)."""
        self.rad_per_tick = np.array([MODELS[wiring.model].rad_per_tick for wiring in wirings])
        """Size of a count (n,) [rad]."""
        self.limits = np.array([_tick_limits(wiring) for wiring in wirings])
        """Lowest and highest count within the joints' limits, shape (n, 2)."""
        zero = np.array([wiring.zero_ticks for wiring in wirings])
        super().__init__(zero, self.direction * self.rad_per_tick)


def _tick_limits(wiring: JointWiring) -> tuple[int, int]:
    model = MODELS[wiring.model]
    ends = [
        wiring.zero_ticks + wiring.direction * round(limit / model.rad_per_tick)
        for limit in wiring.position_limits_rad
    ]
    return max(0, min(ends)), min(model.ticks - 1, max(ends))
