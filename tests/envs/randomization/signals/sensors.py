"""Worlds with nothing but sensors: true values in, readings out."""

from typing import Any

import torch
from torch import Tensor

from envs.draws import Draws
from envs.randomization.signals.kinds import SIGNAL_KINDS, signal_kind
from envs.randomization.signals.sensing import SignalTerm
from envs.randomization.signals.terms import SignalTerms
from envs.worlds import Worlds, choose, every

CONTROL_DT_S = 0.02
JOINTS = ["shoulder", "elbow"]
AXES = ["x", "y", "z"]
ELEMENTS = {
    "joint_position": JOINTS,
    "joint_velocity": JOINTS,
    "imu_angular_velocity": AXES,
    "projected_gravity": AXES,
}
CPU = torch.device("cpu")


def parse(**document: Any) -> SignalTerm:
    return SIGNAL_KINDS[signal_kind(document)].model_validate(document)


def some(*ids: int) -> Worlds:
    return Worlds(torch.tensor(ids))


class Sensors:
    """Signals of `num_envs` worlds under signal terms; a `step` is one control step."""

    def __init__(self, *terms: dict[str, Any], num_envs: int = 4, compact: bool = True):
        self.num_envs = num_envs
        self.compact = compact
        self.every = every(num_envs)
        self.terms = SignalTerms(
            [parse(**term) for term in terms],
            ELEMENTS,
            Draws(0, CPU),
            num_envs=num_envs,
            device=CPU,
            control_dt_s=CONTROL_DT_S,
        )
        self.episode = torch.zeros(num_envs, dtype=torch.int64)
        self.count = 0

    def start(self, *ids: int, **true: Tensor | float) -> dict[str, Tensor]:
        """Begin episodes of worlds `ids`, of all if none are given; their first readings."""
        mask = torch.zeros(self.num_envs, dtype=torch.bool)
        mask[list(ids or range(self.num_envs))] = True
        worlds = choose(mask, compact=self.compact)
        worlds.put(self.episode, worlds.take(self.episode) + 1)
        episode = worlds.take(self.episode)
        self.terms.begin(worlds, episode)
        signals = {name: worlds.take(table).clone() for name, table in self._tables(true).items()}
        self.terms.sense(signals, worlds, self.count, episode)
        return signals if self.compact else {name: t[mask] for name, t in signals.items()}

    def step(self, **true: Tensor | float) -> dict[str, Tensor]:
        """The next readings of all worlds."""
        self.count += 1
        signals = self._tables(true)
        self.terms.sense(signals, self.every, self.count, None)
        return signals

    def _tables(self, true: dict[str, Tensor | float]) -> dict[str, Tensor]:
        """True signals of all worlds; zero, and gravity down, where nothing is said."""
        tables = {n: torch.zeros(self.num_envs, len(e)) for n, e in ELEMENTS.items()}
        tables["projected_gravity"][:, 2] = -1.0
        for name, value in true.items():
            tables[name] = torch.as_tensor(value).float().expand_as(tables[name]).clone()
        return tables
