"""The clock of a gait, by hand."""

import pytest
import torch
from torch import Tensor

from envs.walking.gait import asked_to_move, clock, expected_lift, phase_of, tipping

OFFSETS = torch.tensor([0.0, 0.5])
MOVING, STANDING = torch.tensor([True]), torch.tensor([False])


def lift(phase: float, moving: Tensor = MOVING) -> tuple[list[bool], list[float]]:
    down, height = expected_lift(torch.tensor([phase]), OFFSETS, 0.6, moving)
    return down[0].tolist(), height[0].tolist()


def test_phase_is_the_share_of_the_stride_that_has_passed():
    # 1.3 s is 2 strides of 0.5 s and 0.3 s more
    assert phase_of(torch.tensor([0.0, 0.125, 1.3]), 0.5).tolist() == pytest.approx([0, 0.25, 0.6])


def test_phase_is_still_good_after_an_hour():
    assert float(phase_of(torch.tensor(3600.1), 0.5)) == pytest.approx(0.2, abs=1e-3)


def test_clock_is_a_point_on_the_circle():
    seen = clock(torch.tensor([0.0, 0.25, 0.5]), torch.ones(3, dtype=torch.bool))

    assert seen.flatten().tolist() == pytest.approx([0, 1, 1, 0, 0, -1], abs=1e-6)


def test_there_is_no_clock_while_standing():
    assert clock(torch.tensor([0.3]), STANDING).tolist() == [[0, 0]]


@pytest.mark.parametrize(
    ("spin", "vertical", "tips"),
    [([0.8, 0.0, 0.0], [0.0, 0.0, -1.0], True), ([0.5, -0.6, 3.0], [0.0, 0.0, 1.0], True),
     ([0.4, 0.4, 3.0], [0.0, 0.0, 1.0], False),  # it turns, and tilts by 0.57 rad/s
     ([3.0, 0.4, 0.4], [1.0, 0.0, 0.0], False)],  # the same, by an IMU that lies on its side
)  # fmt: skip
def test_what_tilts_by_more_than_seven_tenths_of_a_radian_per_second_tips_over(
    spin: list[float], vertical: list[float], tips: bool
):
    assert tipping(torch.tensor([spin]), torch.tensor([vertical])).tolist() == [tips]


@pytest.mark.parametrize(
    ("command", "moves"),
    [([0.0, 0.0, 0.0], False), ([0.04, 0.0, 0.0], False), ([0.0, 0.06, 0.0], True),
     ([0.04, 0.0, 0.04], True), ([0.0, 0.0, -0.3], True)],
)  # fmt: skip
def test_a_command_is_to_move_from_5_cm_s_on(command: list[float], moves: bool):
    assert asked_to_move(torch.tensor([command])).tolist() == [moves]


def test_a_foot_stands_for_its_share_and_then_swings_to_the_middle_of_the_rest():
    # Down up to 0.6 of its own stride, highest at 0.8; the right foot is half a stride ahead.
    assert lift(0.0)[0] == [True, True]  # right at 0.5
    assert lift(0.3) == ([True, False], pytest.approx([0, 1]))  # right at 0.8
    assert lift(0.8) == ([False, True], pytest.approx([1, 0]))  # right at 0.3
    assert lift(0.7) == ([False, True], pytest.approx([0.5, 0]))  # sin²(π/4)


def test_every_foot_stays_down_while_standing():
    for phase in (0.0, 0.3, 0.8):
        assert lift(phase, STANDING) == ([True, True], [0, 0])
