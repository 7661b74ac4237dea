"""Shared reward terms, by hand."""

import math

import pytest
import torch

from envs.rewards import closeness, mean_square


def test_closeness_falls_over_its_scale():
    assert closeness(torch.tensor([0.0, 0.1, 0.2]), 0.1).tolist() == pytest.approx(
        [1, math.exp(-1), math.exp(-2)]
    )


def test_mean_square_is_over_the_last_axis():
    # (3² + 1²) / 2 and (1² + 3²) / 2
    assert mean_square(torch.tensor([[3.0, -1.0], [1.0, -3.0]])).tolist() == [5, 5]
