"""Each world's level: up after an episode that led out of its tile, down after one that failed.

The rule is that of Rudin et al. (CoRL 2021), in terms of commands that change within an episode. A
world rises when it leaves its tile while covering at least half of the way that it was asked for.
It sinks when it falls, or when its time is up and it covered less than half. One that rises from
the hardest level starts again on a random one, so that no level is forgotten. Who was hardly asked
to go anywhere neither rises nor sinks for it.
"""

from typing import Any

import torch
from torch import Tensor

from envs.draws import Draws, Stream
from envs.simulation import Simulation
from envs.terrain.ground import Ground
from envs.worlds import Worlds

_ENOUGH = 0.5
_ASKED_HEIGHTS = 4.0
"""A shorter way that was asked for says nothing."""


class Levels:
    """Where worlds are in the field, and how far they came.

    Args:
        simulation: the worlds.
        ground: the field.
        draws: the run's random numbers.
        base_qpos: place of the base's x in `qpos`.
    """

    def __init__(self, simulation: Simulation, ground: Ground, draws: Draws, base_qpos: int):
        rows, device = simulation.num_envs, simulation.device
        self._ground, self._draws, self._field = ground, draws, ground.field
        self._qpos, self._base = simulation.data("qpos"), base_qpos
        worlds = torch.arange(rows, device=device)
        self.column = (worlds + draws.share.first) % self._field.columns
        """(num_envs,) kind of each world's tile."""
        self.level = torch.zeros(rows, dtype=torch.int64, device=device)
        """(num_envs,)"""
        self._asked = torch.zeros(rows, device=device)
        self._covered = torch.zeros(rows, device=device)
        self._fallen = torch.zeros(rows, dtype=torch.bool, device=device)
        self.left = torch.zeros(rows, dtype=torch.bool, device=device)
        """(num_envs,) bool: worlds whose robot has left its tile."""

    def add(self, velocity: Tensor, command: Tensor, fallen: Tensor, *, dt_s: float) -> None:
        """Count a step that was made, in all worlds.

        Args:
            velocity: (num_envs, 2) achieved forward and to the left [m/s].
            command: (num_envs, 2) asked for.
            fallen: (num_envs,) bool.
            dt_s: length of the step.
        """
        asked = torch.linalg.vector_norm(command, dim=-1)
        along = (velocity * command).sum(-1) / asked.clamp(min=1e-6)
        self._asked += asked * dt_s
        self._covered += torch.where(asked > 0, along, 0.0) * dt_s
        self._fallen.copy_(fallen)
        middle = self._ground.tile_of(self.level, self.column)
        way = (self._qpos[:, self._base : self._base + 2] - middle).abs().amax(dim=-1)
        self.left.copy_(way > self._field.reach_m)

    def begin(self, worlds: Worlds, episode: Tensor) -> Tensor:
        """Move worlds whose episode has ended up or down, and start anew.

        Args:
            worlds: which.
            episode: (n,) number of the episode that begins.

        Returns:
            (n, 3) place to add to the base's at home.
        """
        level, column = worlds.take(self.level), worlds.take(self.column)
        (uniform,) = self._draws.uniform([Stream("terrain", 2)], worlds.ids, episode)
        anywhere = (uniform[:, 0] * self._field.levels).long()
        if self._field.config.rise:
            level = self._next_level(worlds, level, anywhere)
        else:
            level, column = anywhere, (uniform[:, 1] * self._field.columns).long()
        worlds.put(self.level, level)
        worlds.put(self.column, column)
        for table in (self._asked, self._covered):
            worlds.put(table, 0)
        for table in (self._fallen, self.left):
            worlds.put(table, False)
        middle = self._ground.tile_of(level, column)
        return torch.cat([middle, self._ground.start_m[level, column][:, None]], dim=-1)

    def state_dict(self) -> dict[str, Any]:
        """Levels, and the episodes so far."""
        return {name: getattr(self, name).clone() for name in self._STATE}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        for name in self._STATE:
            getattr(self, name).copy_(state[name])

    _STATE = ("level", "column", "left", "_asked", "_covered", "_fallen")

    def _next_level(self, worlds: Worlds, level: Tensor, anywhere: Tensor) -> Tensor:
        asked, covered, fallen, left = (
            worlds.take(table) for table in (self._asked, self._covered, self._fallen, self.left)
        )
        enough = covered >= _ENOUGH * asked
        tried = asked >= _ASKED_HEIGHTS * self._field.height_m
        up = left & enough & ~fallen
        down = fallen | (tried & ~left & ~enough)
        following = (level + up.long() - down.long()).clamp(min=0)
        return torch.where(following >= self._field.levels, anywhere, following)
