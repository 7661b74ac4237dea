"""Kinds of ground, against what can be worked out by hand; lengths in heights of the robot."""

import math

import numpy as np
import pytest

from envs.terrain import KINDS, Field, TerrainConfig
from envs.terrain.kinds import PLATFORM, RIM, Blocks, Pyramid

CONFIG = TerrainConfig(kinds=list(KINDS), levels=3, tile=20)
HALF, END = 10.0, 8.0
FIELD = Field(CONFIG, height_m=1.0)
CENTRES = np.arange(-HALF, HALF, 0.05) + 0.025


def tile(kind: str, difficulty: float = 1.0, seed: int = 0) -> Blocks | Pyramid:
    return KINDS[kind](difficulty, CONFIG.hardest, np.random.default_rng(seed))


def heights(kind: str, difficulty: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    """Places along an axis, and (places, places) how high the tile is there."""
    made = tile(kind, difficulty)
    assert isinstance(made, Blocks)
    return CENTRES, FIELD.raster(made)


def profile(kind: str, difficulty: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    """From the middle outwards along x: places, and heights."""
    axis, table = heights(kind, difficulty)
    middle = len(axis) // 2
    return axis[middle:], table[middle, middle:]


@pytest.mark.parametrize("kind", [kind for kind in KINDS if not kind.startswith("slope")])
@pytest.mark.parametrize("difficulty", [0.25, 1.0])
def test_every_tile_is_level_in_the_middle_and_level_at_zero_along_its_rim(
    kind: str, difficulty: float
):
    axis, table = heights(kind, difficulty)
    distance = np.maximum(np.abs(axis), np.abs(axis)[:, None])

    assert np.ptp(table[distance <= PLATFORM]) == 0
    assert (table[distance >= HALF - RIM] == 0).all()


@pytest.mark.parametrize(("kind", "sign"), [("slope_down", 1), ("slope_up", -1)])
def test_middle_of_a_slope_is_as_high_as_its_angle_makes_the_way_to_the_rim(kind: str, sign: int):
    made = tile(kind, 0.5)
    assert isinstance(made, Pyramid)

    # 6 from the middle to the rim, half as steep as tan 0.1 rad
    assert made.top == pytest.approx(sign * 6 * 0.5 * math.tan(0.1))


@pytest.mark.parametrize(("kind", "sign"), [("stairs_down", -1), ("stairs_up", 1)])
def test_stairs_have_risers_of_one_height_one_tread_apart(kind: str, sign: int):
    place, height = profile(kind, 0.75)

    rise = np.diff(height)
    (risers,) = np.nonzero(rise)
    assert rise[risers] == pytest.approx(sign * 0.75 * 0.12)
    # at 2, 3, 4, 5, 6 and 7: the last tread ends at 8, where the rim begins
    assert place[risers] + 0.025 == pytest.approx([2, 3, 4, 5, 6, 7])


def test_stairs_are_as_steep_sideways_and_backwards():
    for kind in ("stairs_up", "stairs_down"):
        _, table = heights(kind)
        assert (table == table.T).all()
        assert (table == table[::-1]).all()


@pytest.mark.parametrize(("difficulty", "gap"), [(1.0, 0.3), (0.5, 0.15), (0.01, 0.05)])
def test_gaps_are_as_wide_as_they_should_be_and_two_heights_apart(difficulty: float, gap: float):
    place, height = profile("gaps", difficulty)

    hole = np.diff(np.concatenate([[0], height < -1, [0]]))
    start, end = np.nonzero(hole == 1)[0], np.nonzero(hole == -1)[0]
    assert (end - start) * 0.05 == pytest.approx(gap)
    assert (start[1:] - end[:-1]) * 0.05 == pytest.approx(2.0)
    assert place[start[0]] - 0.025 == pytest.approx(PLATFORM)
    assert set(height[height > -1]) == {0.0}


@pytest.mark.parametrize(("difficulty", "gap"), [(1.0, 0.3), (0.5, 0.15)])
def test_stones_are_apart_by_the_gap_in_both_directions(difficulty: float, gap: float):
    axis, table = heights("stones", difficulty)
    row = table[np.argmax(np.abs(axis - 3.5) < 0.03)]  # clear of the middle

    for line in (table[len(axis) // 4], table[:, len(axis) // 4], row):
        hole = np.diff((line < -1).astype(int))
        start, end = np.nonzero(hole == 1)[0], np.nonzero(hole == -1)[0]
        inner = (end - start)[1:-1] * 0.05  # the outermost is what the stones leave to the rim
        if len(start):
            assert inner == pytest.approx(gap)
            assert (start[1:] - end[:-1]) * 0.05 == pytest.approx(1.5)
    assert (table < -1).any()


def test_blocks_are_no_higher_than_asked_and_cover_a_good_part_of_the_ground():
    axis, table = heights("steps", 0.5)
    inner = np.maximum(np.abs(axis), np.abs(axis)[:, None])
    strewn = table[(inner > PLATFORM) & (inner < END)]

    assert 0.04 < table.max() <= 0.5 * 0.1
    assert table.min() == 0
    assert 0.2 < (strewn > 0).mean() < 0.7


def test_rough_ground_is_paved_with_cells_of_random_heights_up_to_that_asked_for():
    axis, table = heights("rough", 0.5)
    # 16 from rim to rim are 10 cells of 1.5 and a rest of 1 that stays level
    row = table[np.argmax(axis > -3), np.abs(axis + 0.5) < 7.5]

    cells = row.reshape(10, 30)
    assert (np.ptp(cells, axis=1) == 0).all()
    assert len(np.unique(cells)) == 10
    assert 0.03 < table.max() <= 0.5 * 0.08
    assert table[table > 0].mean() == pytest.approx(0.02, rel=0.15)  # of U(0, 0.04)


@pytest.mark.parametrize("kind", ["rough", "steps"])
def test_random_ground_is_that_of_its_seed(kind: str):
    one, same, other = (np.asarray(tile(kind, 1.0, seed)[0]) for seed in (0, 0, 1))

    assert np.array_equal(one, same)
    assert not np.array_equal(one, other)


@pytest.mark.parametrize("width", [0.05, 1.0, 1.5, 2.0])
def test_widest_gap_leaves_the_rim_of_the_smallest_tile_level(width: float):
    side = max(16, math.ceil(2 * (2 * width + 2 + PLATFORM + RIM)))
    config = TerrainConfig(kinds=["gaps"], tile=side, gap=width)
    made = KINDS["gaps"](1.0, config.hardest, np.random.default_rng(0))
    assert isinstance(made, Blocks)
    table = Field(config, height_m=1.0).raster(made)
    axis = np.arange(len(table)) * 0.05 + 0.025 - side / 2
    distance = np.maximum(np.abs(axis), np.abs(axis)[:, None])
    assert (table[distance >= side / 2 - RIM] == 0).all()
    assert (table < 0).any()
