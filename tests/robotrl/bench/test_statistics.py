"""The interquartile mean and its interval, by numbers worked by hand."""

import numpy as np
import pytest

from robotrl.bench.statistics import interquartile_mean, stratified_interval


@pytest.mark.parametrize(
    ("scores", "expected"),
    [
        ([8, 1, 7, 2, 6, 3, 5, 4], 4.5),  # the middle half is 3, 4, 5, 6
        ([100, 2, 3, 4, -50], 3.0),  # a quarter of 5 is one run: 2, 3, 4
        ([100, 2, 3], 35.0),  # a quarter of 3 is no run
        ([7], 7.0),
    ],
)
def test_interquartile_mean_is_the_mean_of_the_middle_half(scores: list[float], expected: float):
    assert interquartile_mean(np.array(scores)) == expected


def test_it_is_taken_along_the_last_axis():
    found = interquartile_mean(np.array([[1, 2, 3, 100], [-9, 5, 7, 8]]))

    np.testing.assert_array_equal(found, [2.5, 6.0])


def test_runs_are_resampled_within_their_task_only():
    # whichever runs are drawn, half of the scores are 0 and half are 10; the middle half too
    assert stratified_interval([np.zeros(4), np.full(4, 10.0)]) == (5.0, 5.0)


def test_interval_of_two_runs_is_that_of_their_four_draws():
    # 0 0, 0 1, 1 0, 1 1 are equally likely: means 0, 1/2, 1 with 1/4, 1/2, 1/4
    assert stratified_interval([np.array([0.0, 1.0])]) == (0.0, 1.0)


def test_interval_of_many_runs_has_the_width_of_the_normal_distribution():
    # the middle half of n normal scores is a mean with a standard error of about 1.09 / √n
    scores = np.random.default_rng(1).normal(size=1000)

    low, high = stratified_interval([scores])

    assert high - low == pytest.approx(2 * 1.96 * 1.09 / 1000**0.5, rel=0.1)


def test_single_runs_have_no_interval():
    assert np.isnan(stratified_interval([np.ones(1), np.ones(1)])).all()
