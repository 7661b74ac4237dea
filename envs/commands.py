"""Where commands come from in training: drawn anew after a random time."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from envs.draws import Draws, Stream
from envs.simulation import Simulation
from envs.worlds import Worlds

_PAGE = 8  # commands drawn at once: the generator costs the same for 1 as for 8


class UniformCommand:
    """Commands from a box, each for a time of its own.

    Args:
        simulation: the worlds.
        draws: the run's random numbers.
        low, high: corners of the box.
        interval_s: shortest and longest time of a command [s].
        control_dt_s: period of the policy [s].
    """

    def __init__(
        self,
        simulation: Simulation,
        draws: Draws,
        *,
        low: Sequence[float],
        high: Sequence[float],
        interval_s: tuple[float, float],
        control_dt_s: float,
    ):
        self._draws = draws
        self._interval_s, self._control_dt_s = interval_s, control_dt_s
        device, num_envs = simulation.device, simulation.num_envs
        self._low = torch.tensor(low, device=device)
        self._span = torch.tensor(high, device=device) - self._low
        self._stream = Stream("command", _PAGE * (len(low) + 1))
        self.value = torch.zeros(num_envs, len(low), device=device)
        """(num_envs, n) what is asked for."""
        self.steps = torch.zeros(num_envs, dtype=torch.int64, device=device)
        """(num_envs,) control steps that the command lasts."""
        self.remaining = torch.zeros_like(self.steps)
        """(num_envs,) control steps that it has left."""
        self._count = torch.zeros_like(self.steps)
        self._compact = simulation.compact
        self._page = torch.zeros(num_envs, _PAGE, len(low) + 1, device=device)

    def renew(self, worlds: Worlds) -> None:
        """Draw the next command of some worlds."""
        count = worlds.take(self._count)
        place = count % _PAGE
        if not self._compact or (place == 0).any():
            self._turn_page(worlds, count)
        u = worlds.take(self._page)[torch.arange(len(worlds), device=count.device), place]
        shortest, longest = self._interval_s
        interval_s = shortest + (longest - shortest) * u[:, -1]
        steps = (interval_s / self._control_dt_s).round().long().clamp(min=1)
        worlds.put(self.value, self._low + self._span * u[:, :-1])
        worlds.put(self.steps, steps)
        worlds.put(self.remaining, steps)
        worlds.put(self._count, count + 1)

    def _turn_page(self, worlds: Worlds, count: Tensor) -> None:
        """Draw the next commands of those worlds that have used theirs up."""
        page, place = count // _PAGE, count % _PAGE
        (u,) = self._draws.uniform([self._stream], worlds.ids, page)
        drawn = u.unflatten(1, (_PAGE, -1))
        worlds.put(
            self._page, torch.where((place == 0)[:, None, None], drawn, worlds.take(self._page))
        )

    def advance(self) -> Tensor:
        """Let a step pass; returns (num_envs,) bool: worlds whose command has ended."""
        self.remaining -= 1
        return self.remaining <= 0

    def state_dict(self) -> dict[str, Any]:
        """Commands and their times."""
        return {name: getattr(self, name).clone() for name in self._STATE}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        for name in self._STATE:
            getattr(self, name).copy_(state[name])

    _STATE = ("value", "steps", "remaining", "_count", "_page")
