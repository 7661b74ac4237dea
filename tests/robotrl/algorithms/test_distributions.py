"""The squashed Gaussian against numerical integration and the change of variables."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.distributions import Independent, Normal, TanhTransform, TransformedDistribution

from robotrl.algorithms.distributions import entropy, kl_divergence, log_det_tanh, log_prob, sample

GAUSSIANS = [(0.0, 0.1), (0.0, 0.87), (0.0, 2.0), (0.7, 0.5), (-1.5, 1.0)]
"""Mean and standard deviation before tanh."""

every_gaussian = pytest.mark.parametrize(("mean", "std"), GAUSSIANS)


def parameters(mean: float, std: float) -> tuple[Tensor, Tensor]:
    """Mean and log standard deviation of one action, (1,) each."""
    return (
        torch.tensor([mean], dtype=torch.float64),
        torch.tensor([math.log(std)], dtype=torch.float64),
    )


def actions() -> tuple[Tensor, Tensor]:
    """Points a (n,) in (-1, 1) and their weights, dense at both ends: a = sin(angle)."""
    edges = torch.linspace(-math.pi / 2, math.pi / 2, 400_001, dtype=torch.float64)
    angle = (edges[1:] + edges[:-1]) / 2
    return angle.sin(), angle.cos() * (math.pi / 400_000)


def density_of_actions(mean: float, std: float) -> tuple[Tensor, Tensor]:
    """Log density at the points of `actions`, and the weights."""
    a, weights = actions()
    return log_prob(torch.atanh(a)[:, None], *parameters(mean, std)), weights


@every_gaussian
def test_density_integrates_to_one_over_actions(mean: float, std: float):
    log_density, weights = density_of_actions(mean, std)

    assert float((log_density.exp() * weights).sum()) == pytest.approx(1, abs=1e-6)


@every_gaussian
def test_density_integrates_to_one_over_values_before_tanh(mean: float, std: float):
    u = torch.linspace(mean - 10 * std, mean + 10 * std, 10_001, dtype=torch.float64)

    # p(a) da = p(tanh u) (1 - tanh² u) du
    integrand = log_prob(u[:, None], *parameters(mean, std)).exp() * (1 - u.tanh().square())

    assert float(torch.trapezoid(integrand, u)) == pytest.approx(1, abs=1e-6)


def test_density_by_hand():
    mean, log_std = parameters(0.0, 1.0)
    # a = 0.5 is u = atanh 0.5 = 0.549306. Gaussian: -0.918939 - 0.549306²/2 = -1.069807.
    # d tanh/du = 1 - 0.5² = 0.75, log 0.75 = -0.287682. Difference: -0.782125.
    u = torch.tensor([math.atanh(0.5)], dtype=torch.float64)

    assert float(log_prob(u, mean, log_std)) == pytest.approx(-0.782125, abs=1e-6)


def test_density_equals_the_change_of_variables_at_moderate_values():
    u = torch.linspace(-3, 3, 61, dtype=torch.float64)
    mean, log_std = parameters(0.4, 0.6)

    gaussian = torch.distributions.Normal(0.4, 0.6).log_prob(u)
    expected = gaussian - torch.log(1 - u.tanh().square())

    torch.testing.assert_close(log_prob(u[:, None], mean, log_std), expected)


def test_density_of_several_actions_is_the_product():
    u, mean, log_std = torch.randn(3, 5, 4, generator=torch.Generator().manual_seed(0)).unbind()

    joint = log_prob(u, mean, log_std)

    assert joint.shape == (5,)
    each = [log_prob(u[:, [i]], mean[:, [i]], log_std[:, [i]]) for i in range(4)]
    torch.testing.assert_close(joint, torch.stack(each).sum(dim=0))


@pytest.mark.parametrize("u", [8.0, 12.0, 50.0, -8.0, -12.0, -50.0])
def test_log_determinant_keeps_value_and_gradient_far_out(u: float):
    point = torch.tensor(u, requires_grad=True)  # float32, where 1 - tanh(8)² is rounded to 2.4e-7

    value = log_det_tanh(point)
    value.backward()

    # log(1 - tanh² u) = log 4 - 2 |u| - 2 log(1 + e^(-2|u|)), the last term below 2.3e-7 here.
    assert value.item() == pytest.approx(math.log(4) - 2 * abs(u), abs=1e-5)
    assert gradient(point) == pytest.approx(-2 * math.copysign(1, u), abs=1e-5)


@pytest.mark.parametrize("u", [8.0, 12.0, 50.0])
def test_log_prob_pulls_a_saturated_action_back(u: float):
    mean = torch.tensor([u], requires_grad=True)

    # The sample follows its mean (reparametrised), so only the log-determinant has a gradient.
    log_prob(mean + 0.0, mean.detach(), torch.zeros(1)).backward()

    assert gradient(mean) == pytest.approx(2, abs=1e-5)


@pytest.mark.parametrize(
    ("old", "new"),
    [((0.0, 1.0), (1.0, 1.0)), ((0.3, 0.5), (0.0, 0.8)), ((-0.5, 0.9), (-0.4, 0.3))],
)
def test_divergence_equals_the_integral_over_actions(
    old: tuple[float, float], new: tuple[float, float]
):
    log_old, weights = density_of_actions(*old)
    log_new, _ = density_of_actions(*new)

    integral = float((log_old.exp() * (log_old - log_new) * weights).sum())

    closed = kl_divergence(*parameters(*old), *parameters(*new))
    assert float(closed) == pytest.approx(integral, rel=1e-4)


def test_divergence_by_hand():
    # Equal deviations: (difference of means)² / 2σ² = (1 / 0.5)² / 2 = 2.
    old, new = parameters(0.0, 0.5), parameters(1.0, 0.5)
    assert float(kl_divergence(*old, *new)) == pytest.approx(2)
    assert float(kl_divergence(*old, *old)) == 0


def test_divergence_and_entropy_of_several_actions_are_sums():
    numbers = torch.randn(5, 3, 4, generator=torch.Generator().manual_seed(0))  # 3 worlds
    mean, log_std, new_mean, new_log_std, noise = numbers.unbind()

    divergence = kl_divergence(mean, log_std, new_mean, new_log_std)
    estimate = entropy(mean, log_std, noise)

    assert divergence.shape == estimate.shape == (3,)
    columns = [slice(i, i + 1) for i in range(4)]
    each = [
        kl_divergence(mean[:, i], log_std[:, i], new_mean[:, i], new_log_std[:, i]) for i in columns
    ]
    torch.testing.assert_close(divergence, torch.stack(each).sum(dim=0))
    each = [entropy(mean[:, i], log_std[:, i], noise[:, i]) for i in columns]
    torch.testing.assert_close(estimate, torch.stack(each).sum(dim=0))


@every_gaussian
def test_entropy_estimate_averages_to_the_entropy(mean: float, std: float):
    log_density, weights = density_of_actions(mean, std)
    integral = -float((log_density.exp() * log_density * weights).sum())

    assert mean_entropy(mean, std) == pytest.approx(integral, abs=1e-4)


def test_entropy_is_greatest_near_a_standard_deviation_of_0_87():
    stds = [0.05 * k for k in range(1, 60)]
    entropies = [mean_entropy(0.0, std) for std in stds]
    best = max(range(len(stds)), key=entropies.__getitem__)

    assert stds[best] == pytest.approx(0.87, abs=0.03)
    assert 0.68 < entropies[best] < math.log(2)  # uniform on (-1, 1) has log 2 = 0.693
    assert mean_entropy(0.0, 2.0) == pytest.approx(0, abs=0.01)


def test_entropy_gradient_leads_to_the_best_standard_deviation_from_both_sides():
    noise = torch.randn(200_000, 1, generator=torch.Generator().manual_seed(0))
    gradients = []
    for std in (0.6, 1.2):
        log_std = torch.tensor([math.log(std)], requires_grad=True)
        entropy(torch.zeros(1), log_std, noise).mean().backward()
        gradients.append(gradient(log_std))

    assert gradients[0] > 0.1
    assert gradients[1] < -0.1


def test_samples_have_the_mean_and_the_standard_deviation():
    mean, log_std = torch.tensor([0.5, -1.0]), torch.tensor([0.1, 2.0]).log()

    u = sample(mean.expand(100_000, 2), log_std, torch.Generator().manual_seed(0))

    torch.testing.assert_close(u.mean(dim=0), mean, atol=0.03, rtol=0)  # 5 standard errors
    torch.testing.assert_close(u.std(dim=0), log_std.exp(), atol=0, rtol=0.02)


def numpy_density(mean: float, std: float, u: np.ndarray) -> np.ndarray:
    """Density of a = tanh(u) at tanh(u): the Gaussian's over da/du; nothing of ours."""
    gaussian = np.exp(-((u - mean) ** 2) / (2 * std**2)) / (std * math.sqrt(2 * math.pi))
    return gaussian * np.cosh(u) ** 2  # da/du = 1 / cosh² u


def numpy_integral(integrand: np.ndarray, u: np.ndarray) -> float:
    """∫ f(a) da by the trapezoidal rule in u."""
    return float(np.trapezoid(integrand / np.cosh(u) ** 2, u))


@every_gaussian
def test_density_entropy_and_divergence_equal_quadrature_in_numpy(mean: float, std: float):
    u = np.linspace(mean - 12 * std, mean + 12 * std, 40_001)
    density, other = numpy_density(mean, std, u), numpy_density(0.2, 0.7 * std + 0.3, u)

    ours = log_prob(torch.from_numpy(u)[:, None], *parameters(mean, std)).numpy()
    kl = kl_divergence(*parameters(mean, std), *parameters(0.2, 0.7 * std + 0.3))

    inner = slice(10_000, 30_001)  # ±6 σ; beyond, numpy's exp loses digits
    np.testing.assert_allclose(ours[inner], np.log(density[inner]), rtol=1e-9, atol=1e-9)
    with np.errstate(divide="ignore", invalid="ignore"):
        surprise = np.where(density > 0, -density * np.log(density), 0)
        gain = np.where(density > 0, density * np.log(density / other), 0)
    assert mean_entropy(mean, std) == pytest.approx(numpy_integral(surprise, u), abs=1e-6)
    assert float(kl) == pytest.approx(numpy_integral(gain, u), rel=1e-6)


def test_density_equals_torch_distributions():
    u, mean, log_std = torch.randn(
        3, 100, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64
    ).unbind()
    squashed = TransformedDistribution(Normal(mean, log_std.exp()), [TanhTransform(cache_size=1)])

    expected = Independent(squashed, 1).log_prob(u.tanh())

    torch.testing.assert_close(log_prob(u, mean, log_std), expected, rtol=1e-7, atol=1e-7)


def test_divergence_equals_torch_distributions():
    old, log_old, new, log_new = torch.randn(
        4, 100, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64
    ).unbind()

    expected = torch.distributions.kl_divergence(
        Normal(old, log_old.exp()), Normal(new, log_new.exp())
    )

    torch.testing.assert_close(kl_divergence(old, log_old, new, log_new), expected.sum(dim=-1))


def gradient(variable: Tensor) -> float:
    assert variable.grad is not None
    return variable.grad.item()


def mean_entropy(mean: float, std: float) -> float:
    """Estimate of `entropy` averaged over its noise by the trapezoidal rule."""
    noise = torch.linspace(-9, 9, 4001, dtype=torch.float64)
    weights = (-0.5 * noise.square()).exp() / math.sqrt(2 * math.pi)
    estimates = entropy(*parameters(mean, std), noise[:, None])
    return float(torch.trapezoid(estimates * weights, noise))
