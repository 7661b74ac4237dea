"""Comparison of what environments return, for tests against Gymnasium's and SB3's own."""

from typing import Any

import numpy as np


def assert_same(one: Any, other: Any) -> None:
    """To the bit, and of the same type, through tuples, lists, dictionaries and object arrays."""
    assert type(one) is type(other)
    if isinstance(one, dict):
        assert one.keys() == other.keys()
        for key in one:
            assert_same(one[key], other[key])
    elif isinstance(one, np.ndarray) and one.dtype != object:
        assert one.dtype == other.dtype
        np.testing.assert_array_equal(one, other, strict=True)
    elif isinstance(one, (tuple, list, np.ndarray)):
        for pair in zip(one, other, strict=True):
            assert_same(*pair)
    else:
        assert one == other
