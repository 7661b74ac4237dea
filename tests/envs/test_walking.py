"""The terms of a walk, by hand, and who wins: the walker, the stander or the skater."""

import math

import pytest
import torch

from deploy.errors import ConfigError
from envs.walking.legs import Motion
from envs.walking.terms import (
    Gait,
    Reference,
    Step,
    WalkWeights,
    as_speed,
    joint_weights,
    walk_terms,
)

GAIT = Gait(lift_m=0.02, contact_m=0.001)
REFERENCE = Reference(
    home=torch.tensor([0.5, -0.5]),
    low=torch.tensor([-1.0, -1.0]),
    high=torch.tensor([1.0, 1.0]),
    effort=torch.tensor([0.8, 0.4]),
    pose_weights=torch.tensor([1.0, 3.0]),
    height=0.1,
    foot_side=torch.tensor([0.04, -0.04]),
    gait=GAIT,
)
MOTION = Motion(  # stands at home
    velocity=torch.zeros(1, 3),
    spin=torch.zeros(1, 3),
    up=torch.tensor([[0.0, 0.0, 1.0]]),
    heading=torch.tensor([[1.0, 0.0]]),
    height=torch.tensor([0.1]),
    foot_height=torch.zeros(1, 2),
    foot_velocity=torch.zeros(1, 2, 3),
    foot_side=torch.tensor([[0.04, -0.04]]),
    foot_level=torch.ones(1, 2),
)
BOTH = torch.tensor([[True, True]])
STEP = Step(
    motion=MOTION,
    twist=torch.zeros(1, 3),
    command=torch.zeros(1, 3),
    moving=torch.tensor([False]),
    stepping=torch.tensor([False]),
    down=BOTH,
    lift=torch.zeros(1, 2),
    angle=REFERENCE.home[None],
    speed=torch.zeros(1, 2),
    torque=torch.zeros(1, 2),
    change=torch.zeros(1, 2),
    second_change=torch.zeros(1, 2),
    fallen=torch.tensor([False]),
)
EARNED = {"velocity", "yaw_rate", "gait", "upright", "alive"}
WEIGHTS = WalkWeights()
WIDTHS = {"velocity_width", "yaw_rate_width"}
UNIT = WEIGHTS.model_copy(update=dict.fromkeys(set(WalkWeights.model_fields) - WIDTHS, 1.0))


def terms(step: Step, weights: WalkWeights = UNIT) -> dict[str, float]:
    return {name: float(value) for name, value in walk_terms(step, REFERENCE, weights).items()}


def moved(**changes: object) -> Step:
    """Standing, with some of its motion changed."""
    return STEP._replace(motion=MOTION._replace(**changes))


def total(step: Step) -> float:
    return sum(terms(step, WEIGHTS).values())


def test_every_weight_has_its_term_and_counts_once():
    assert set(terms(STEP)) == set(WalkWeights.model_fields) - WIDTHS
    fallen = STEP._replace(fallen=torch.tensor([True]))
    assert terms(fallen, WEIGHTS)["fall"] == WEIGHTS.fall == -1


def test_standing_at_home_when_asked_to_earns_everything_and_costs_nothing():
    assert terms(STEP) == {name: float(name in EARNED) for name in terms(STEP)}


@pytest.mark.parametrize(
    ("name", "step", "expected"),
    [
        # exp(-(0.1² + 0.1²) / 0.02)
        ("velocity", STEP._replace(twist=torch.tensor([[0.1, -0.1, 0.0]])), math.exp(-1)),
        # exp(-0.5² / 0.25)
        ("yaw_rate", STEP._replace(twist=torch.tensor([[0.0, 0.0, -0.5]])), math.exp(-1)),
        # one of two feet is up that should be down
        ("gait", moved(foot_height=torch.tensor([[0.0, 0.01]])), 0.5),
        # it should be 0.8 · 20 mm high and is 6 mm: 10 of 20 mm short, over two feet
        (
            "swing",
            STEP._replace(
                lift=torch.tensor([[0.0, 0.8]]),
                motion=MOTION._replace(foot_height=torch.tensor([[0.0, 0.006]])),
            ),
            0.25,
        ),
        # 0.3 m/s of one foot on the ground; the other is in the air
        (
            "slip",
            moved(
                foot_height=torch.tensor([[0.0, 0.01]]),
                foot_velocity=torch.tensor([[[0.0, 0.3, 0.2], [1.0, 0.0, 0.0]]]),
            ),
            0.15,
        ),
        ("flat", moved(foot_level=torch.tensor([[math.cos(0.2), 1.0]])), math.sin(0.2) / 2),
        # 70 % of 40 mm is 28 mm; the left foot is at 8 mm: half of its distance short
        ("crossing", moved(foot_side=torch.tensor([[0.008, -0.04]])), 0.25),
        # as far on the wrong side: (28 + 12) / 40
        ("crossing", moved(foot_side=torch.tensor([[0.04, 0.012]])), 0.5),
        # a tilt of 0.2 rad: exp(-sin²(0.2) / 0.05)
        (
            "upright",
            moved(up=torch.tensor([[math.sin(0.2), 0.0, math.cos(0.2)]])),
            math.exp(-(math.sin(0.2) ** 2) / 0.05),
        ),
        ("sway", moved(spin=torch.tensor([[0.3, -0.4, 5.0]])), 0.25),
        ("bounce", moved(velocity=torch.tensor([[1.0, 1.0, -0.2]])), 0.04),
        ("height", moved(height=torch.tensor([0.09])), 0.1),
        ("action_rate", STEP._replace(change=torch.tensor([[0.2, 0.4]])), 0.1),
        ("action_jerk", STEP._replace(second_change=torch.tensor([[0.2, 0.4]])), 0.1),
        # (0.5² + 1²) / 2
        ("torque", STEP._replace(torque=torch.tensor([[0.4, -0.4]])), 0.625),
        (
            "power",
            STEP._replace(torque=torch.tensor([[0.4, -0.2]]), speed=torch.tensor([[2.0, 1.0]])),
            1.0,
        ),
        ("joint_limits", STEP._replace(angle=torch.tensor([[1.25, -0.5]])), 0.25),
        # 1 · 0.1² + 3 · 0.2²
        ("pose", STEP._replace(angle=torch.tensor([[0.6, -0.7]])), 0.13),
        ("still", STEP._replace(speed=torch.tensor([[0.3, -0.1]])), 0.05),
        ("fall", STEP._replace(fallen=torch.tensor([True])), 1.0),
    ],
)
def test_term(name: str, step: Step, expected: float):
    assert terms(step)[name] == pytest.approx(expected, abs=1e-6)


def test_moving_joints_cost_nothing_extra_when_stepping():
    step = STEP._replace(stepping=torch.tensor([True]), speed=torch.tensor([[0.3, -0.1]]))
    assert terms(step)["still"] == 0


def test_turning_counts_as_the_speed_of_a_point_20_cm_away():
    assert as_speed(torch.tensor([[0.3, -0.1, 1.5]])).flatten().tolist() == pytest.approx(
        [0.3, -0.1, 0.3]
    )
    # Asked for 0.3 m/s and 1.5 rad/s (0.3 m/s); goes ahead and does not turn: half.
    asked, ahead = torch.tensor([[0.3, 0.0, 1.5]]), torch.tensor([[0.3, 0.0, 0.0]])
    step = STEP._replace(moving=torch.tensor([True]), command=asked, twist=ahead)
    assert terms(step)["progress"] == pytest.approx(0.5)


def test_walking_pays_more_than_standing_still_or_skating():
    asked = torch.tensor([[0.3, 0.0, 0.0]])
    right_up = torch.tensor([[True, False]])
    lift = torch.tensor([[0.0, 1.0]])
    yes = torch.tensor([True])
    asks = STEP._replace(command=asked, moving=yes, stepping=yes, down=right_up, lift=lift)
    stander = asks
    skater = asks._replace(
        twist=asked, motion=MOTION._replace(foot_velocity=torch.tensor([[[0.3, 0, 0]] * 2]))
    )
    walker = asks._replace(
        twist=asked,
        motion=MOTION._replace(
            foot_height=torch.tensor([[0.0, 0.02]]),
            foot_velocity=torch.tensor([[[0.03, 0, 0], [0.6, 0, 0]]]),
        ),
        torque=torch.tensor([[0.2, 0.1]]),
        speed=torch.tensor([[3.0, 3.0]]),
    )

    assert total(walker) > total(skater) + 1 > total(stander) + 2


def test_last_pattern_that_fits_a_joint_says_its_weight():
    names = ["left_hip", "left_knee", "neck"]

    assert joint_weights({"*": 0.5, "*_hip": 2.0}, names).tolist() == [2, 0.5, 0.5]
    assert joint_weights({"left_*": 1.0}, names).tolist() == [1, 1, 0]


def test_pattern_that_fits_no_joint_is_refused():
    with pytest.raises(ConfigError) as error:
        joint_weights({"*_hipp": 1.0}, ["left_hip"])

    assert str(error.value) == "pose_weights: '*_hipp' fits no joint; there are left_hip"
