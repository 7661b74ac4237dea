"""From signals to the observation: named features of one tick, stacked over the last few ticks.

The environment uses this module in training and `robotrl export` puts the very same module into
the ONNX graph, so there is no observation code on the robot. Every column has a name, the same in
Gymnasium, in the contract and in error messages.
"""

from collections.abc import Mapping, Sequence
from typing import Protocol

import torch
from torch import Tensor, nn


class Features(Protocol):
    """What the actor makes of one tick's signals; a `torch.nn.Module`, exported with the policy."""

    @property
    def signals(self) -> Sequence[str]:
        """Signals it reads."""
        ...

    @property
    def columns(self) -> Mapping[str, Sequence[str]]:
        """Names of the features, in order, and of each one's columns."""
        ...

    def __call__(self, signals: dict[str, Tensor]) -> dict[str, Tensor]:
        """Signals (n, ...) -> features (n, columns)."""
        ...


class ObservationEncoder(nn.Module):
    """Stack the features of the last `history` ticks, oldest first.

    Its memory is explicit: state goes in and comes out. All state starts at zero; `started` tells
    the first tick, which fills the whole history with the first features.

    Args:
        features: module from signals to features.
        history: number of ticks the policy sees.
        changes: features that are seen only as their change from one tick to the next: the policy
            learns that something moves, but not where it stands.
    """

    def __init__(self, features: Features, history: int = 1, *, changes: Sequence[str] = ()):
        super().__init__()
        self.features = features
        self.signals = tuple(features.signals)
        self._order = [name for name in features.columns if name not in changes] + list(changes)
        names = {name: column_names({name: features.columns[name]}) for name in self._order}
        width = sum(map(len, names.values()))
        self.changes = sum(len(names[name]) for name in changes)
        seen = [column for name in self._order if name not in changes for column in names[name]]
        moving = [column for name in changes for column in names[name]]
        ages = [f"[t-{age}]" if age else "" for age in range(history - 1, -1, -1)]
        self.columns = [column + age for age in ages for column in seen]
        self.columns += [f"{column}{age} change" for age in ages[1:] for column in moving]
        """Name of each number of the observation: feature, element and, but for now, its age."""
        self.size = len(self.columns)
        self.state_shapes: dict[str, tuple[int, ...]] = {}
        if history > 1:
            self.state_shapes = {
                "started": (1,),
                "observation_history": (history - 1, width),
            }

    def initial_state(self, num_envs: int, device: torch.device | str = "cpu") -> dict[str, Tensor]:
        """All zeros, (num_envs, ...) each."""
        return {
            name: torch.zeros(num_envs, *shape, device=device)
            for name, shape in self.state_shapes.items()
        }

    def forward(
        self, signals: dict[str, Tensor], state: dict[str, Tensor]
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Signals (n, ...) and state -> observation (n, size) and the next state."""
        features = self.features(signals)
        now = torch.cat([features[name] for name in self._order], dim=-1)
        if not (state or self.changes):
            return now, {}
        now = now[:, None]  # (n, 1, width)
        if not state:
            return self._view(now), {}
        history = state["observation_history"]
        past = torch.where(state["started"][..., None] > 0, history, now)
        window = torch.cat([past, now], dim=1)
        return self._view(window), {
            "started": torch.ones_like(state["started"]),
            "observation_history": window[:, 1:],
        }

    def _view(self, window: Tensor) -> Tensor:
        """What the policy sees of (n, history, width)."""
        if not self.changes:
            return window.flatten(1)
        seen, moving = window[..., : -self.changes], window[..., -self.changes :]
        return torch.cat([seen.flatten(1), (moving[:, 1:] - moving[:, :-1]).flatten(1)], dim=1)


def column_names(features: Mapping[str, Sequence[str]]) -> list[str]:
    """`feature.column` for each column in order; just `feature` where the column's name is ''."""
    return [
        f"{name}.{column}" if column else name
        for name, columns in features.items()
        for column in columns
    ]
