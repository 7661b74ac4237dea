"""Advantages and returns."""

import torch
from torch import Tensor


def compute_gae(
    rewards: Tensor,
    values: Tensor,
    next_values: Tensor,
    terminated: Tensor,
    truncated: Tensor,
    *,
    gamma: float,
    gae_lambda: float,
    failure_value: float | Tensor = 0.0,
) -> Tensor:
    """Generalised advantage estimation (Schulman et al. 2016, eq. 16), correct across time limits.

    A terminated step has no future; a truncated one has, so its value is bootstrapped from the
    final observation, but the trace is cut after both.

    Args:
        rewards: (T, B).
        values: (T, B) V(s_t).
        next_values: (T, B) V of the observation that followed s_t, the final one at an end; of
            terminated steps anything, also NaN.
        terminated: (T, B) bool.
        truncated: (T, B) bool.
        gamma: discount factor.
        gae_lambda: trace decay.
        failure_value: what follows a terminated step; not 0 if rewards were shifted.

    Returns:
        Advantages (T, B); advantages + values are the value targets.
    """
    # Selected, not multiplied by 0: what follows an end may be NaN, and 0 · NaN is NaN.
    delta = rewards + gamma * next_values.masked_fill(terminated, failure_value) - values
    ended = terminated | truncated
    running = torch.zeros_like(delta[0])
    advantages = []
    for now, end in zip(reversed(delta.unbind()), reversed(ended.unbind()), strict=True):
        running = torch.add(now, running.masked_fill(end, 0), alpha=gamma * gae_lambda)
        advantages.append(running)
    return torch.stack(advantages[::-1])
