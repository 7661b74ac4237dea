"""What a simulation remembers of its last calls, in case a world blows up in the next."""

from collections.abc import Sequence
from typing import NamedTuple, Protocol, runtime_checkable

import mujoco
import numpy as np

CALLS = 4
"""Calls of the physics that are remembered. The last one is replayed; those before tell how it came
to that, because a world may be beyond repair before MuJoCo notices."""

INTEGRATION = int(mujoco.mjtState.mjSTATE_INTEGRATION)
"""All that a world's future depends on: positions, velocities, inputs, delays, warm start."""

WARNINGS = tuple(
    int(warning)
    for warning in (
        mujoco.mjtWarning.mjWARN_BADQPOS,
        mujoco.mjtWarning.mjWARN_BADQVEL,
        mujoco.mjtWarning.mjWARN_BADQACC,
        mujoco.mjtWarning.mjWARN_BADCTRL,
    )
)
"""MuJoCo's warnings that a world has diverged."""


class Divergence(NamedTuple):
    """How one world came to diverge."""

    world: int
    cause: str
    """MuJoCo's warnings with the index of what is bad, e.g. `BADQACC at 3`, or its error."""
    model: mujoco.MjModel
    """With this world's own fields."""
    states: np.ndarray
    """(calls, n) float64, `INTEGRATION` before each call, oldest first; it diverged in the last.
    The model is that of the last call: before, randomization may have had others."""
    num_substeps: np.ndarray
    """(calls,) physics steps of each."""


@runtime_checkable
class Recordable(Protocol):
    """A `Simulation` that can look back."""

    def record_divergences(self, limit: int) -> list[Divergence]:
        """Remember, from now on, what leads to divergences.

        Args:
            limit: number of divergences after which nothing is remembered any more.

        Returns:
            The divergences of the last step; each step fills it anew.
        """
        ...


class Trail:
    """The states of all worlds before each of the last `CALLS` calls.

    Args:
        state: (num_envs, n) the live states.
    """

    def __init__(self, state: np.ndarray):
        self._state = state
        self._past = np.zeros((CALLS, *state.shape))
        self._num_substeps = np.zeros(CALLS, dtype=np.int64)
        self._calls = 0

    def remember(self, num_substeps: int) -> None:
        """Keep the states before a call."""
        slot = self._calls % CALLS
        np.copyto(self._past[slot], self._state)
        self._num_substeps[slot] = num_substeps
        self._calls += 1

    def of(self, world: int) -> tuple[np.ndarray, np.ndarray]:
        """States (calls, n) of a world since it was last reset, and substeps (calls,)."""
        slots = np.arange(max(0, self._calls - CALLS), self._calls) % CALLS
        states = self._past[slots, world]
        time = states[:, 0]  # mjSTATE_TIME is the first of MuJoCo's components
        resets = np.flatnonzero(np.diff(time) <= 0) + 1
        since = resets[-1] if len(resets) else 0
        return states[since:], self._num_substeps[slots[since:]]


def describe_warnings(counters: Sequence[Sequence[int]] | np.ndarray) -> str:
    """Name those of `WARNINGS` that were raised.

    Args:
        counters: (7, 2) last index and count of each of MuJoCo's warnings.
    """
    return ", ".join(
        f"{mujoco.mjtWarning(warning).name.removeprefix('mjWARN_')} at {counters[warning][0]}"
        for warning in WARNINGS
        if counters[warning][1]
    )
