"""Reward terms that tasks share: pure functions of tensors, (num_envs,) each."""

import torch
from torch import Tensor


def closeness(distance: Tensor, scale: float) -> Tensor:
    """exp(-distance / scale): 1 at the goal, falling over `scale`, never flat before it."""
    return torch.exp(-distance / scale)


def mean_square(values: Tensor) -> Tensor:
    """Mean of the squares over the last axis."""
    return values.square().mean(dim=-1)


def kernel(squared_error: Tensor, width: float) -> Tensor:
    """exp(-error² / width): 1 at the goal, flat there, and without pull far away."""
    return torch.exp(-squared_error / width)


def progress(achieved: Tensor, asked: Tensor) -> Tensor:
    """Share of a motion asked for (n, k) that is achieved along it, within ±1; 0 if none is asked.

    A pull of the same strength everywhere, also where `kernel` has none. What is too fast counts
    for as much less as what is too slow: were it merely cut off at 1, a motion that sways about
    what was asked would gain from being faster on average.
    """
    along = (achieved * asked).sum(dim=-1)
    share = along / asked.square().sum(dim=-1).clamp(min=1e-6)
    return torch.where(share > 1, 2 - share, share).clamp(-1, 1)


def beyond(values: Tensor, low: Tensor, high: Tensor) -> Tensor:
    """How far values (n, k) are outside [low, high], summed."""
    return (torch.relu(low - values) + torch.relu(values - high)).sum(dim=-1)


def masked_mean(values: Tensor, mask: Tensor) -> Tensor:
    """Mean over the last axis of the values where a mask holds, counting 0 for the others."""
    return (values * mask).mean(dim=-1)
