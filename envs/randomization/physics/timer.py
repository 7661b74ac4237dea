"""Events at random times, in every world by itself."""

from typing import Any

import torch
from torch import Tensor

from envs.ahead import Ahead
from envs.draws import Draws, Stream
from envs.worlds import Worlds, choose


class Timer:
    """Counts the control steps to the next event.

    The numbers that an event needs are drawn for its `count`, which never comes again in a world.

    Args:
        name: of its draws.
        interval_s: shortest and longest time between two events [s].
        draws: the run's random numbers.
        num_envs: number of worlds.
        device: where they live.
        compact: whether worlds are chosen by ids.
        control_dt_s: period of the policy [s].
    """

    def __init__(
        self,
        name: str,
        interval_s: tuple[float, float],
        draws: Draws,
        *,
        num_envs: int,
        device: torch.device,
        compact: bool,
        control_dt_s: float,
    ):
        self._stream = Stream(f"{name}/interval", 1)
        self._draws, self._compact = draws, compact
        self._steps = Ahead(self._draw_steps, num_envs, device)
        self._low, self._span = interval_s[0], interval_s[1] - interval_s[0]
        self._control_dt_s = control_dt_s
        self.count = torch.zeros(num_envs, dtype=torch.int64, device=device)
        """(num_envs,) number of the latest event of each world; the start of an episode is one."""
        self._remaining = torch.zeros(num_envs, dtype=torch.int64, device=device)

    def begin(self, worlds: Worlds) -> None:
        """Start an episode: an event without effect, and the time to the next one."""
        count = worlds.take(self.count) + 1
        worlds.put(self.count, count)
        (steps,) = self._steps.of(worlds, count)
        worlds.put(self._remaining, steps)

    def due(self) -> Worlds:
        """Count one control step; the worlds with an event now."""
        self._remaining -= 1
        worlds = choose(self._remaining <= 0, compact=self._compact)
        if not worlds.none:
            self.begin(worlds)
        return worlds

    def _draw_steps(self, ids: Tensor, count: Tensor) -> list[Tensor]:
        """(n,) control steps from an event to the next."""
        (u,) = self._draws.uniform([self._stream], ids, count)
        steps = ((self._low + self._span * u[:, 0]) / self._control_dt_s).round().long()
        return [steps.clamp(min=1)]

    def state_dict(self) -> dict[str, Any]:
        """Times and counts."""
        return {"count": self.count.clone(), "remaining": self._remaining.clone()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        self.count.copy_(state["count"])
        self._remaining.copy_(state["remaining"])
