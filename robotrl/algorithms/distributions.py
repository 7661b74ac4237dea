"""Squashed Gaussian: a = tanh(u), u ~ N(mean, exp(log_std)²), with an exact density.

Everything is a function of u, the value before tanh; recovering u from a stored action loses it.
The log-determinant of tanh is written as 2 (log 2 - u - softplus(-2u)), which keeps its value and
its gradient for any u (the usual log(1 - a² + ε) is wrong beyond |u| = 7). Haarnoja et al., "Soft
Actor-Critic", 2018, appendix C, in the form of Spinning Up.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

HALF_LOG_2PI = 0.5 * math.log(2 * math.pi)


def sample(mean: Tensor, log_std: Tensor, generator: torch.Generator) -> Tensor:
    """Draw u, the value before tanh; (..., actions)."""
    noise = torch.randn(mean.shape, generator=generator, dtype=mean.dtype, device=mean.device)
    return mean + log_std.exp() * noise


def log_det_tanh(u: Tensor) -> Tensor:
    """Logarithm of d tanh(u)/du, elementwise."""
    return 2 * (math.log(2) - u - F.softplus(-2 * u))


def gaussian_log_prob(u: Tensor, mean: Tensor, log_std: Tensor) -> Tensor:
    """Log density of u itself, before tanh; (...,) from (..., d)."""
    normalised = (u - mean) * (-log_std).exp()
    return -(0.5 * normalised.square() + log_std + HALF_LOG_2PI).sum(dim=-1)


def log_prob(u: Tensor, mean: Tensor, log_std: Tensor) -> Tensor:
    """Log density of the action tanh(u) in (-1, 1)^d; (...,) from (..., d)."""
    return gaussian_log_prob(u, mean, log_std) - log_det_tanh(u).sum(dim=-1)


def kl_divergence(mean: Tensor, log_std: Tensor, new_mean: Tensor, new_log_std: Tensor) -> Tensor:
    """KL(old ‖ new) of two squashed Gaussians, (...,).

    tanh is a bijection, so it is the divergence of the Gaussians before it, in closed form.
    """
    ratio = (2 * (log_std - new_log_std)).exp()
    shift = ((mean - new_mean) * (-new_log_std).exp()).square()
    return (new_log_std - log_std + 0.5 * (ratio + shift - 1)).sum(dim=-1)


def entropy(mean: Tensor, log_std: Tensor, noise: Tensor) -> Tensor:
    """Estimate of the entropy from one standard normal `noise` (..., d), differentiable; (...,).

    The entropy of the Gaussian is exact, only the expected log-determinant is sampled. Without
    that term the bonus would push σ up for ever; with it the optimum is near uniform, σ ≈ 0.87.
    """
    u = mean + log_std.exp() * noise
    gaussian = log_std + 0.5 + HALF_LOG_2PI
    return (gaussian + log_det_tanh(u)).sum(dim=-1)


def entropy_slopes(mean: Tensor, log_std: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
    """Derivatives of `entropy` in the mean and in log σ, (..., d) each."""
    scaled = log_std.exp() * noise
    slope = -2 * torch.tanh(mean + scaled)  # of the log-determinant in u
    return slope, 1 + slope * scaled


def sample_slopes(
    scaled: Tensor, action: Tensor, action_slope: Tensor, log_prob_slope: Tensor
) -> tuple[Tensor, Tensor]:
    """Slopes of a loss in mean and log σ, (n, d) each, with the noise held (eq. 12 and 13 of SAC).

    Args:
        scaled: (n, d) σ times the noise, u - mean.
        action: (n, d) tanh(u).
        action_slope: (n, d) of the loss in the action.
        log_prob_slope: of the loss in each action's log density, a number.
    """
    slope = action_slope * (1 - action.square()) + (2 * log_prob_slope) * action
    return slope, slope * scaled - log_prob_slope
