"""The governor's arithmetic against closed forms."""

import math

import numpy as np
import pytest

from deploy import limits

PERIOD_S = 0.01


def interval(bound, *arguments: object) -> tuple[float, float]:
    """The interval of one joint."""
    low, high = np.zeros((2, 1))
    arrays = [np.array([value]) if isinstance(value, float) else value for value in arguments]
    bound(*arrays, low, high)
    return low[0], high[0]


def test_servo_reach_ends_where_its_law_gives_the_torque_allowed():
    kp, kd, q, v, torque = 5.0, 0.2, 0.3, 1.5, 0.4
    low, high = interval(limits.servo_reach, q, v, kp, kd, torque)
    # the servo's own law: torque = kp (target - q) - kd v
    assert kp * (high - q) - kd * v == pytest.approx(torque)
    assert kp * (low - q) - kd * v == pytest.approx(-torque)


@pytest.mark.parametrize(
    ("angle", "low", "high"),
    # at 0.1 s from limits of ±1 rad: (±1 - angle) / 0.1
    [(0.0, -10.0, 10.0), (0.9, -19.0, 1.0), (1.0, -20.0, 0.0), (1.1, -21.0, -1.0)],
)
def test_speed_is_one_at_which_the_joint_does_not_arrive_in_time(
    angle: float, low: float, high: float
):
    found = interval(
        lambda position, lowest, highest, low, high: limits.arriving_speed(
            position, lowest, highest, 0.1, low, high
        ),
        angle, -1.0, 1.0,
    )  # fmt: skip
    assert found == pytest.approx((low, high))


@pytest.mark.parametrize(
    ("value", "low", "high"),
    # zone 0.2, torque 2: full inside, half 0.1 before the limit, none at it, back behind it
    [(0.0, -2, 2), (0.9, -2, 1.0), (1.0, -2, 0.0), (1.1, -2, -1.0), (9.0, -2, -2), (-0.9, -1.0, 2)],
)
def test_torque_fades_towards_a_limit_and_turns_around_behind_it(
    value: float, low: float, high: float
):
    found = interval(limits.fading_torque, value, -1.0, 1.0, 0.2, 2.0)
    assert found == pytest.approx((low, high))


@pytest.mark.parametrize(("celsius", "share"), [(20, 1), (60, 1), (64, 0.65), (68, 0.3), (90, 0.3)])
def test_share_of_effort_falls_between_two_temperatures(celsius: float, share: float):
    out = np.zeros(1)
    limits.derated(np.array([float(celsius)]), 60.0, 68.0, 0.3, out)
    assert out[0] == pytest.approx(share)


def test_heat_follows_the_squared_current_and_forgets_what_was_no_number():
    heat, scratch, known = np.zeros(1), np.zeros(1), np.zeros(1, np.bool_)
    for _ in range(500):  # a time constant of 5 s, in ticks of 10 ms
        limits.warm(heat, np.array([2.0]), np.array([1.0]), PERIOD_S / 5.0, scratch, known)
    assert heat[0] == pytest.approx(4 * (1 - math.exp(-1)), rel=0.01)
    before = heat.copy()
    limits.warm(heat, np.array([math.nan]), np.array([1.0]), 0.5, scratch, known)
    assert heat == before


@pytest.mark.parametrize("angle", [0.0, 0.3, -1.2, 2.9])
@pytest.mark.parametrize("axis", [0, 1])
def test_tilt_is_the_angle_a_body_has_turned_about_a_level_axis(angle: float, axis: int):
    # turned about x, what points down is (0, -sin, -cos) in the body; about y, (sin, 0, -cos)
    gravity = np.array([(0, -math.sin(angle)), (math.sin(angle), 0)][axis] + (-math.cos(angle),))
    assert limits.tilt(gravity) == pytest.approx(abs(angle))


def test_turning_about_the_vertical_is_no_tilt():
    assert limits.tilt_ahead(
        np.array([0.0, 0.0, -1.0]), np.array([0.0, 0.0, 30.0]), 0.3
    ) == pytest.approx(0.0)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_tilt_ahead_is_where_steady_turning_leads(axis: int):
    # Integrated in small steps of d(gravity)/dt = gravity × omega.
    omega = np.roll([2.0, -1.0, 0.7], axis)
    gravity = np.array([0.2, -0.3, -math.sqrt(1 - 0.04 - 0.09)])
    expected, steps = gravity.copy(), 20_000
    for _ in range(steps):
        expected += np.cross(expected, omega) * 0.3 / steps
    assert limits.tilt_ahead(gravity, omega, 0.3) == pytest.approx(limits.tilt(expected), abs=1e-3)


def test_falling_forwards_is_foreseen_with_the_right_sign():
    # Tilted by 0.5 rad about y and turning on by 2 rad/s: 1.1 rad after 0.3 s; or back: 0.1 rad.
    gravity = np.array([math.sin(0.5), 0.0, -math.cos(0.5)])
    assert limits.tilt_ahead(gravity, np.array([0.0, 2.0, 0.0]), 0.3) == pytest.approx(1.1)
    assert limits.tilt_ahead(gravity, np.array([0.0, -2.0, 0.0]), 0.3) == pytest.approx(0.1)
