"""Philox against its published vectors; a draw depends on nothing but its own four numbers."""

import zlib
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from envs.draws import Draws, Stream, philox

CPU = torch.device("cpu")
MASS, FRICTION = Stream("mass", 3), Stream("friction", 6)


def draw(
    streams: list[Stream], env: list[int], index: list[int] | None = None, *, seed: int = 0
) -> list[Tensor]:
    index = index or [0] * len(env)
    rows = torch.tensor([env, index], dtype=torch.int64)
    return Draws(seed, CPU).uniform(streams, rows[0], rows[1])


@pytest.mark.parametrize(
    ("counter", "key", "expected"),
    [
        ("00000000 00000000 00000000 00000000", "00000000 00000000",
         "6627e8d5 e169c58d bc57ac4c 9b00dbd8"),
        ("ffffffff ffffffff ffffffff ffffffff", "ffffffff ffffffff",
         "408f276d 41c83b0e a20bc7c6 6d5451fd"),
        ("243f6a88 85a308d3 13198a2e 03707344", "a4093822 299f31d0",
         "d16cfe09 94fdcceb 5001e420 24126ea1"),
    ],
    ids=["zeros", "ones", "pi"],
)  # fmt: skip
@pytest.mark.parametrize("array", [torch.tensor, lambda word: np.array([word])])
def test_philox_gives_the_known_answers_of_random123(
    array: Callable[[int], Any], counter: str, key: str, expected: str
):
    c0, c1, c2, c3 = (array(int(word, 16)) for word in counter.split())
    k0, k1 = (array(int(word, 16)) for word in key.split())

    words = philox((c0, c1, c2, c3), (k0, k1))

    assert " ".join(f"{word.item():08x}" for word in words) == expected


def test_draw_is_philox_of_world_index_and_block_under_stream_and_seed():
    # Later versions must draw the same: a run is resumed, and reported, by its seed.
    world, index, seed = 7, (3 << 32) + 5, (9 << 32) + 11
    (numbers,) = draw([Stream("mass", 6)], [world], [index], seed=seed)

    key = torch.tensor(zlib.crc32(b"mass")), torch.tensor(11)
    counters = [[torch.tensor(word) for word in (world, 5, 3, block)] for block in (0, 1)]
    words = torch.stack(
        [torch.stack(philox((c0, c1, c2, c3), key)) for c0, c1, c2, c3 in counters]
    ).flatten()
    assert (numbers[0] * 2**24).tolist() == (words[:6] // 2**8).tolist()


def test_draw_does_not_depend_on_which_worlds_are_drawn_with_it_or_in_which_order():
    (together,) = draw([MASS], [0, 1, 2, 3])
    (alone,) = draw([MASS], [2])
    (shuffled,) = draw([MASS], [3, 0, 2, 1])

    assert torch.equal(alone[0], together[2])
    assert torch.equal(shuffled, together[[3, 0, 2, 1]])


def test_draw_does_not_depend_on_which_streams_are_drawn_with_it_or_in_which_order():
    (alone,) = draw([FRICTION], [0, 1])
    _, after = draw([MASS, FRICTION], [0, 1])
    before, _ = draw([FRICTION, MASS], [0, 1])

    assert torch.equal(after, alone)
    assert torch.equal(before, alone)


def test_draw_does_not_depend_on_what_was_drawn_earlier():
    draws, world, first = Draws(0, CPU), torch.tensor([1]), torch.tensor([0])
    (before,) = draws.uniform([MASS], world, first)

    for index in range(1, 10):
        draws.uniform([MASS, FRICTION], world, first + index)

    (after,) = draws.uniform([MASS], world, first)
    assert torch.equal(before, after)


@pytest.mark.parametrize(
    ("other", "why"),
    [
        (draw([Stream("inertia", 1000)], [0]), "stream"),
        (draw([Stream("mass", 1000)], [1]), "world"),
        (draw([Stream("mass", 1000)], [0], [1]), "index"),
        (draw([Stream("mass", 1000)], [0], [1 << 32]), "index beyond 32 bits"),
        (draw([Stream("mass", 1000)], [0], seed=1), "seed"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_sequences_are_independent(other: list[Tensor], why: str):
    (one,), (two,) = draw([Stream("mass", 1000)], [0]), other

    # 1000 pairs of independent numbers correlate by 0 ± 1/sqrt(1000) = 0.03.
    correlation = torch.corrcoef(torch.stack([one[0], two[0]]))[0, 1]
    assert abs(correlation) < 0.15, why
    assert (one == two).sum() <= 1


def test_numbers_of_one_vector_differ():
    (numbers,) = draw([Stream("mass", 1000)], [0])

    assert len(numbers.unique()) > 990


def test_numbers_are_uniform():
    (numbers,) = Draws(0, CPU).uniform(
        [Stream("mass", 10)], torch.arange(10_000), torch.zeros(10_000, dtype=torch.int64)
    )

    # 1e5 numbers: the mean is 1/2 ± sqrt(1/12/1e5) = 0.0009, the variance 1/12 ± 0.0002.
    assert numbers.mean().item() == pytest.approx(1 / 2, abs=0.004)
    assert numbers.var().item() == pytest.approx(1 / 12, abs=0.001)
    counts = torch.histc(numbers, bins=10, min=0, max=1)  # 10000 ± 95 in each tenth
    assert (counts - 10_000).abs().max() < 500


def test_numbers_are_float32_from_zero_to_below_one():
    (numbers,) = draw([Stream("mass", 100_000)], [0])

    assert numbers.dtype == torch.float32
    assert 0 <= numbers.min() < 1e-3
    assert 1 - 1e-3 < numbers.max() < 1


def test_each_stream_has_its_own_size():
    mass, friction = draw([MASS, FRICTION], [0, 1, 2])

    assert mass.shape == (3, 3)
    assert friction.shape == (3, 6)


def test_nothing_to_draw_is_nothing():
    assert draw([], [0, 1]) == []
    (empty,) = draw([MASS], [])
    assert empty.shape == (0, 3)


def test_negative_seed_is_refused():
    with pytest.raises(ValueError, match=r"^seed must not be negative, found -1$"):
        Draws(-1, CPU)


def test_philox_is_the_same_in_numpy_and_in_torch():
    # numpy makes the numbers on the CPU, torch's int64 tensors on a GPU.
    words = torch.randint(0, 2**32, (6, 1000), generator=torch.Generator().manual_seed(0))

    with_torch = philox(tuple(words[:4]), tuple(words[4:]))
    with_numpy = philox(tuple(words[:4].numpy()), tuple(words[4:].numpy()))

    assert [word.tolist() for word in with_torch] == [word.tolist() for word in with_numpy]
