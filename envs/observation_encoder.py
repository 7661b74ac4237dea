"""From signals to the observation: features of one instant, stacked over the last few ticks.

The environment uses this module in training and `robotrl export` puts the very same module into
the ONNX graph, so there is no observation code on the robot.
"""

import torch
from torch import Tensor, nn


class ObservationEncoder(nn.Module):
    """Stack the features of the last `history` ticks, oldest first.

    Its memory is explicit: state goes in and comes out. All state starts at zero; `started` tells
    the first tick, which fills the whole history with the first features.

    Args:
        features: module from signals (dict of (n, ...) tensors) to features (n, feature_size).
        feature_size: number of features.
        history: number of ticks the policy sees.
        changes: so many of the features, the last ones, are seen only as their change from one
            tick to the next: the policy learns that something moves, but not where it stands.
    """

    def __init__(self, features: nn.Module, feature_size: int, history: int, *, changes: int = 0):
        super().__init__()
        self.features = features
        self.changes = changes
        self.size = feature_size * history - changes
        self.state_shapes: dict[str, tuple[int, ...]] = {}
        if history > 1:
            self.state_shapes = {
                "started": (1,),
                "observation_history": (history - 1, feature_size),
            }

    def initial_state(self, num_envs: int) -> dict[str, Tensor]:
        """All zeros, (num_envs, ...) each."""
        return {name: torch.zeros(num_envs, *shape) for name, shape in self.state_shapes.items()}

    def forward(
        self, signals: dict[str, Tensor], state: dict[str, Tensor]
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Signals (n, ...) and state -> observation (n, size) and the next state."""
        now = self.features(signals)[:, None]  # (n, 1, feature_size)
        if not state:
            return self._view(now), {}
        history = state["observation_history"]
        past = torch.where(state["started"][..., None] > 0, history, now.expand_as(history))
        window = torch.cat([past, now], dim=1)
        return self._view(window), {
            "started": torch.ones_like(state["started"]),
            "observation_history": window[:, 1:],
        }

    def _view(self, window: Tensor) -> Tensor:
        """What the policy sees of (n, history, feature_size)."""
        if not self.changes:
            return window.flatten(1)
        seen, moving = window[..., : -self.changes], window[..., -self.changes :]
        return torch.cat([seen.flatten(1), (moving[:, 1:] - moving[:, :-1]).flatten(1)], dim=1)
