"""Shared reward terms, by hand."""

import math

import pytest
import torch

from envs.rewards import beyond, closeness, kernel, masked_mean, mean_square, progress


def test_closeness_falls_over_its_scale():
    assert closeness(torch.tensor([0.0, 0.1, 0.2]), 0.1).tolist() == pytest.approx(
        [1, math.exp(-1), math.exp(-2)]
    )


def test_mean_square_is_over_the_last_axis():
    # (3² + 1²) / 2 and (1² + 3²) / 2
    assert mean_square(torch.tensor([[3.0, -1.0], [1.0, -3.0]])).tolist() == [5, 5]


def test_kernel_is_one_at_the_goal_and_falls_with_the_square():
    # exp(-0.2² / 0.04)
    squared = torch.tensor([0.0, 0.04])
    assert kernel(squared, 0.04).tolist() == pytest.approx([1, math.exp(-1)])


def test_progress_is_the_share_along_what_is_asked():
    asked = torch.tensor([[0.4, 0.0]]).expand(5, 2)
    achieved = torch.tensor([[0.4, 0.0], [0.1, 0.3], [0.0, 0.4], [-0.2, 0.0], [0.9, 0.0]])

    # sideways does not count, backwards counts against; 2.25 times is as far off as -0.25 times
    assert progress(achieved, asked).tolist() == pytest.approx([1, 0.25, 0, -0.5, -0.25])


def test_progress_gives_nothing_for_being_faster_to_a_motion_that_sways():
    asked = torch.tensor([[0.3]]).expand(100, 1)
    sway = 0.1 * torch.linspace(0, 2 * math.pi, 101)[:100, None].sin()
    means = {speed: float(progress(speed + sway, asked).mean()) for speed in (0.27, 0.3, 0.33)}

    assert max(means, key=means.__getitem__) == 0.3


def test_progress_is_zero_where_nothing_is_asked():
    assert progress(torch.tensor([[0.3, 0.1]]), torch.zeros(1, 2)).tolist() == [0]


def test_beyond_adds_up_what_is_outside():
    low, high = torch.tensor([-1.0, -1.0, 0.0]), torch.tensor([1.0, 1.0, 2.0])

    # 0.5 over, nothing, 0.25 under
    assert beyond(torch.tensor([[1.5, 1.0, -0.25]]), low, high).tolist() == [0.75]


def test_masked_mean_counts_zero_for_the_others():
    mask = torch.tensor([[True, False], [True, True], [False, False]])
    assert masked_mean(torch.full((3, 2), 4.0), mask).tolist() == [2, 4, 0]
