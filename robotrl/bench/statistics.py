"""Scores of several seeds on several tasks in one number, with what it is worth.

The definitions are those of rliable (Agarwal et al. 2021, "Deep reinforcement learning at the edge
of the statistical precipice", arXiv 2108.13264): the interquartile mean is that of the middle half
of all runs of all tasks together, scipy's `trim_mean` with a quarter cut at each end, and its
interval comes from a bootstrap that resamples the runs of each task apart.
"""

from collections.abc import Sequence

import numpy as np

_RESAMPLES = 2000


def interquartile_mean(scores: np.ndarray) -> np.ndarray:
    """Mean of the middle half along the last axis; of fewer than four scores, of all.

    Args:
        scores: (..., n).
    """
    ordered = np.sort(scores, axis=-1)
    cut = ordered.shape[-1] // 4
    return ordered[..., cut : ordered.shape[-1] - cut].mean(axis=-1)


def stratified_interval(tasks: Sequence[np.ndarray]) -> tuple[float, float]:
    """The 95 % interval of the interquartile mean of all scores together.

    Args:
        tasks: scores (runs,) of each task, which are resampled apart.

    Returns:
        Its ends, the 2.5th and 97.5th percentile; nan if no task has two runs, which tells nothing
        about others.
    """
    if max(len(scores) for scores in tasks) < 2:
        return np.nan, np.nan
    rng = np.random.default_rng(0)
    drawn = [
        scores[rng.integers(len(scores), size=(_RESAMPLES, len(scores)))]
        for scores in map(np.asarray, tasks)
    ]
    found = interquartile_mean(np.concatenate(drawn, axis=1))
    low, high = np.quantile(found, [0.025, 0.975])
    return float(low), float(high)
