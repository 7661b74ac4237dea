"""Some of the worlds: as ids where that is faster, as a mask where nothing may wait for the GPU.

    worlds = choose(terminated | truncated, compact=simulation.compact)
    values = compute(worlds.take(table))          # (n, ...) rows of the chosen worlds
    worlds.put(table, values)                     # the other rows stay as they are

On the CPU a compact choice has one row per chosen world. On a GPU, reading how many there are would
stop the host until the device has caught up, and a captured graph has fixed sizes: there a choice
has one row per world, and `put` keeps the old values of those that were not chosen. Code written
with `take` and `put` is right in both.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor


@dataclass(frozen=True)
class Worlds:
    """See the module docstring."""

    ids: Tensor
    """(n,) worlds that rows are computed for, sorted and unique."""
    mask: Tensor | None = None
    """(n,) bool: rows that `put` writes; None: all."""
    complete: bool = False
    """Whether there is a row for every world, in order."""

    @property
    def none(self) -> bool:
        """Whether it is certain, without asking the device, that no world is chosen."""
        return len(self.ids) == 0

    def __len__(self) -> int:
        return len(self.ids)

    def take(self, table: Tensor) -> Tensor:
        """Rows (n, ...) of a table (num_envs, ...); the table itself if there is a row for all."""
        return table if self.complete else table[self.ids]

    def put(self, table: Tensor, values: Tensor | float) -> None:
        """Write rows (n, ...), or one number, into a table (num_envs, ...)."""
        if isinstance(values, Tensor):
            values = values.to(table.dtype)
        if self.mask is not None:
            chosen = self.mask.view(-1, *(1,) * (table.dim() - 1))
            table.copy_(torch.where(chosen, values, table))
        elif self.complete:
            table[:] = values
        else:
            table[self.ids] = values


def _itself(values: Tensor) -> Tensor:
    return values


class Share(NamedTuple):
    """Which worlds of a training are here, where several processes simulate as many each."""

    first: int = 0
    """Id, among those of all processes, of the first one here."""
    processes: int = 1
    sum: Callable[[Tensor], Tensor] = _itself
    """Adds a tensor up over all processes, which must all call it."""


ALL_HERE = Share()


def as_slice(columns: Tensor) -> Tensor | slice:
    """Columns as a slice if they lie side by side: a view costs nothing, an index a copy."""
    start = int(columns[0])
    if torch.equal(columns, torch.arange(start, start + len(columns), device=columns.device)):
        return slice(start, start + len(columns))
    return columns


def all_finite(values: Tensor) -> bool:
    """Whether no number is NaN or infinite; waits for the device.

    A sum is cheaper than to ask each of them; it may overflow, and then each is asked.
    """
    return math.isfinite(values.sum()) or bool(values.isfinite().all())


def every(num_envs: int, device: torch.device | str = "cpu") -> Worlds:
    """All worlds."""
    return Worlds(torch.arange(num_envs, device=device), complete=True)


def choose(mask: Tensor, *, compact: bool) -> Worlds:
    """The worlds where `mask` (num_envs,) is true.

    Args:
        mask: bool.
        compact: one row per chosen world, which asks the device how many there are; else one row
            per world.
    """
    if compact:
        return Worlds(torch.nonzero(mask).flatten())
    return Worlds(torch.arange(len(mask), device=mask.device), mask=mask, complete=True)
