"""Advantages by hand, across the two ways an episode can end."""

import math

import pytest
import torch
from torch import Tensor

from robotrl.algorithms.returns import compute_gae

REWARDS = [1.0, 2.0, 3.0]
VALUES = [4.0, 2.0, 6.0]
NEXT_VALUES = [2.0, 6.0, 8.0]


def advantages(
    *, terminated: tuple[int, ...] = (), truncated: tuple[int, ...] = (), gae_lambda: float = 0.5
) -> list[float]:
    """Advantages of the three steps above with γ = 1/2, in one world."""
    result = compute_gae(
        column(REWARDS),
        column(VALUES),
        column(NEXT_VALUES),
        flags(terminated),
        flags(truncated),
        gamma=0.5,
        gae_lambda=gae_lambda,
    )
    return result[:, 0].tolist()


def column(values: list[float]) -> Tensor:
    return torch.tensor(values)[:, None]


def flags(steps: tuple[int, ...]) -> Tensor:
    return torch.tensor([[step in steps] for step in range(3)])


# In all tests δ_t = r_t + γ V(s'_t) - V(s_t) is
#   δ_0 = 1 + 2/2 - 4 = -2,  δ_1 = 2 + 6/2 - 2 = 3,  δ_2 = 3 + 8/2 - 6 = 1,
# and with λ = 1/2 the trace decays by γλ = 1/4 per step.


def test_running_episode_discounts_later_differences():
    # A_2 = 1, A_1 = 3 + 1/4 = 3.25, A_0 = -2 + 3.25/4 = -1.1875
    assert advantages() == [-1.1875, 3.25, 1.0]


def test_terminated_step_has_no_future():
    # δ_1 = 2 + 0 - 2 = 0 and nothing comes after it: A_1 = 0, A_0 = -2 + 0/4
    assert advantages(terminated=(1,)) == [-2.0, 0.0, 1.0]


def test_truncated_step_bootstraps_from_the_final_value_but_ends_the_trace():
    # A_1 = δ_1 = 3 without A_2, A_0 = -2 + 3/4 = -1.25
    assert advantages(truncated=(1,)) == [-1.25, 3.0, 1.0]


def test_step_that_is_both_counts_as_terminated():
    assert advantages(terminated=(1,), truncated=(1,)) == advantages(terminated=(1,))


def test_zero_lambda_leaves_one_step_differences():
    assert advantages(gae_lambda=0.0) == [-2.0, 3.0, 1.0]


def test_lambda_of_one_gives_the_discounted_return_minus_the_value():
    # Return of the first step: 1 + 2/2 + 3/4 + 8/8 = 3.75; minus V(s_0) = 4.
    assert advantages(gae_lambda=1.0)[0] == pytest.approx(-0.25)


def test_exact_values_have_no_advantage_across_time_limits():
    # Reward 1 for ever at γ = 0.9 is worth 1 / (1 - 0.9) = 10 from every state, also a final one.
    rewards, values = torch.ones(50, 4), torch.full((50, 4), 10.0)
    truncated = torch.rand(50, 4, generator=torch.Generator().manual_seed(0)) < 0.2
    terminated = torch.zeros_like(truncated)

    result = compute_gae(rewards, values, values, terminated, truncated, gamma=0.9, gae_lambda=0.95)

    assert truncated.any()
    torch.testing.assert_close(result, torch.zeros(50, 4), atol=1e-5, rtol=0)


def test_rewards_less_a_constant_have_the_same_advantages_where_all_values_know_it():
    draw, gamma, constant = torch.Generator().manual_seed(0), 0.9, 3.0
    rewards, values, following = torch.randn(3, 20, 4, generator=draw)
    terminated, truncated = torch.rand(2, 20, 4, generator=draw) < 0.1
    common = (terminated, truncated & ~terminated)

    expected = compute_gae(rewards, values, following, *common, gamma=gamma, gae_lambda=0.8)
    less = constant / (1 - gamma)  # Σ γᵏ c, also where all rewards are 0 after a failure
    found = compute_gae(
        *(rewards - constant, values - less, following - less, *common),
        gamma=gamma,
        gae_lambda=0.8,
        failure_value=-less,
    )

    assert terminated.any() and truncated.any()
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=0)


def test_worlds_do_not_mix():
    rewards = torch.tensor([[1.0, 10.0], [2.0, 20.0]])
    values = torch.zeros(2, 2)
    terminated = torch.tensor([[False, True], [False, False]])

    result = compute_gae(
        rewards, values, values, terminated, torch.zeros_like(terminated), gamma=1.0, gae_lambda=1.0
    )

    # World 0 sums 1 + 2; world 1 ends after 10.
    assert result.tolist() == [[3.0, 10.0], [2.0, 20.0]]


def test_rollout_may_be_a_single_step():
    one = torch.ones(1, 2)
    ends = torch.tensor([[True, False]])

    result = compute_gae(
        one, 2 * one, 4 * one, ends, torch.zeros_like(ends), gamma=0.5, gae_lambda=0.9
    )

    assert result.tolist() == [[1 - 2, 1 + 4 / 2 - 2]]


def advantage_from_the_paper(
    rewards: list[float], values: list[float], last_value: float, gamma: float, gae_lambda: float
) -> list[float]:
    """Eq. 14 of Schulman et al. 2016 for one trajectory: (1 - λ) Σ_n λ^(n-1) A_n, term by term.

    A_n is the n-step advantage; the last one takes the weight of all longer ones.
    """
    length, result = len(rewards), []
    for t in range(length):
        total = 0.0
        for n in range(1, length - t + 1):
            bootstrap = values[t + n] if t + n < length else last_value
            n_step = sum(gamma**k * rewards[t + k] for k in range(n)) + gamma**n * bootstrap
            last = n == length - t
            weight = gae_lambda ** (n - 1) * (1 if last else 1 - gae_lambda)
            total += weight * (n_step - values[t])
        result.append(total)
    return result


@pytest.mark.parametrize(
    ("gamma", "gae_lambda"), [(0.97, 0.95), (0.5, 0.3), (1.0, 1.0), (0.9, 0.0)]
)
def test_every_trajectory_has_the_advantages_of_the_paper(gamma: float, gae_lambda: float):
    generator = torch.Generator().manual_seed(0)
    rewards, values, next_values = torch.randn(3, 40, 6, generator=generator, dtype=torch.float64)
    terminated, truncated = torch.rand(2, 40, 6, generator=generator) < 0.1

    going_on = ~(terminated | truncated)[:-1]
    next_values[:-1] = torch.where(going_on, values[1:], next_values[:-1])  # V(s'_t) = V(s_{t+1})

    found = compute_gae(
        rewards, values, next_values, terminated, truncated, gamma=gamma, gae_lambda=gae_lambda
    )

    for world in range(6):
        ends = [step for step in range(39) if not going_on[step, world]] + [39]
        expected = []
        for end in ends:
            part = slice(len(expected), end + 1)
            last = 0.0 if terminated[end, world] else next_values[end, world].item()
            expected += advantage_from_the_paper(
                rewards[part, world].tolist(), values[part, world].tolist(), last, gamma, gae_lambda
            )
        assert found[:, world].tolist() == pytest.approx(expected, rel=1e-9, abs=1e-9)
    assert terminated.any() and truncated.any()


def test_what_follows_a_terminated_step_may_be_nan():
    result = compute_gae(
        column(REWARDS),
        column(VALUES),
        column([2.0, math.nan, 8.0]),
        flags((1,)),
        flags(()),
        gamma=0.5,
        gae_lambda=0.5,
    )

    assert result[:, 0].tolist() == [-2.0, 0.0, 1.0]


def test_a_nan_stays_within_its_episode():
    result = compute_gae(
        column([1.0, 2.0, math.nan]),
        column(VALUES),
        column(NEXT_VALUES),
        flags(()),
        flags((1,)),
        gamma=0.5,
        gae_lambda=0.5,
    )

    assert result[:2, 0].tolist() == [-1.25, 3.0]
    assert result[2, 0].isnan()
