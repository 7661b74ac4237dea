"""What worlds will need for their next episodes, made for many of them at once.

    ahead = Ahead(make, num_envs, device)      # make(ids, index) -> tensors (n, ...) each
    ahead.of(worlds, index)                    # the same rows as make(worlds.ids, index)

Few worlds start in one step, and hundreds of small operations take as long for one row as for a
hundred. So a world that finds nothing made has the next few of every world made with its own. What
is made must follow from world and index alone, as draws do: then nobody can tell, and there is
nothing to save with a run. Where there is a row for every world, as on a GPU, nothing waits.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from envs.worlds import Worlds

_DEPTH = 4  # of 512 worlds that end at random, one restart in 400 finds nothing; with 1, in 30


class Ahead:
    """See the module docstring.

    Args:
        make: rows for worlds (n,), which may repeat, and an index (n,) of each.
        num_envs: number of worlds.
        device: where they live.
    """

    def __init__(
        self,
        make: Callable[[Tensor, Tensor], Sequence[Tensor]],
        num_envs: int,
        device: torch.device,
    ):
        self._make = make
        self._steps = torch.arange(_DEPTH, device=device)
        self._next = torch.zeros(num_envs, dtype=torch.int64, device=device)
        self._made = torch.full((num_envs, _DEPTH), -1, device=device)  # for which index
        self._tables: list[Tensor] = []

    def of(self, worlds: Worlds, index: Tensor) -> Sequence[Tensor]:
        """Rows (n, ...) for an index (n,) of each world, which is not negative."""
        worlds.put(self._next, index)
        if worlds.complete:
            return self._make(worlds.ids, index)
        place = worlds.ids, index % _DEPTH
        if not torch.equal(self._made[place], index):
            self._fill()
        return [table[place] for table in self._tables]

    def _fill(self) -> None:
        """Make what is missing of the next few indices of every world."""
        wanted = self._next[:, None] + (self._steps - self._next[:, None]) % _DEPTH
        missing = torch.nonzero(self._made != wanted).unbind(-1)
        rows = self._make(missing[0], wanted[missing])
        self._tables = self._tables or [
            row.new_zeros(*wanted.shape, *row.shape[1:]) for row in rows
        ]
        for table, row in zip(self._tables, rows, strict=True):
            table[missing] = row
        self._made = wanted
