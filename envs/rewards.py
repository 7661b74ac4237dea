"""Reward terms that tasks share: pure functions of tensors, (num_envs,) each."""

import torch
from torch import Tensor


def closeness(distance: Tensor, scale: float) -> Tensor:
    """exp(-distance / scale): 1 at the goal, falling over `scale`, never flat before it."""
    return torch.exp(-distance / scale)


def mean_square(values: Tensor) -> Tensor:
    """Mean of the squares over the last axis."""
    return values.square().mean(dim=-1)
