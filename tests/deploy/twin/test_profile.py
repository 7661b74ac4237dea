"""Profiles against the travel times the eManual gives, and against their own derivative."""

import itertools

import numpy as np
import pytest

from deploy.twin.profile import Plan, ProfileType, by_time, by_velocity


def sampled(plan: Plan, step_s: float = 1e-4) -> np.ndarray:
    """Position, velocity and acceleration over time, shape (T, 3)."""
    times = np.arange(0.0, plan.duration_s + step_s, step_s)
    return np.array([plan.at(float(time_s)) for time_s in times])


def test_no_profile_velocity_is_a_step():
    plan = by_velocity(0, 0, 500, max_velocity=0, acceleration=1000)
    assert (plan.type, plan.at(0.0)) == (ProfileType.STEP, (500, 0, 0))


def test_rectangle_takes_the_way_over_the_speed():
    plan = by_velocity(100, 0, -400, max_velocity=1000, acceleration=0)
    assert plan.type == ProfileType.RECTANGULAR
    assert plan.duration_s == 0.5
    assert plan.at(0.1) == (0, -1000, 0)
    assert plan.at(0.5) == (-400, 0, 0)


def test_trapezoid_takes_the_time_of_the_manual():
    # t1 = V/A = 0.1 s, t2 = ΔPos/V = 2 s, t3 = t1 + t2
    plan = by_velocity(0, 0, 2000, max_velocity=1000, acceleration=10_000)
    assert plan.type == ProfileType.TRAPEZOIDAL
    assert plan.duration_s == pytest.approx(2.1)
    assert plan.at(0.1) == pytest.approx((50, 1000, 0))
    assert plan.at(1.999) == pytest.approx((1949, 1000, 0))
    assert plan.at(2.05) == pytest.approx((1987.5, 500, -10_000))


def test_short_way_is_a_triangle():
    # half of 100 counts at 10000 counts/s²: 0.1 s, up to 1000 counts/s
    plan = by_velocity(0, 0, 100, max_velocity=2000, acceleration=10_000)
    assert plan.type == ProfileType.TRIANGULAR
    assert plan.duration_s == pytest.approx(0.2)
    assert plan.at(0.1)[:2] == pytest.approx((50, 1000))


@pytest.mark.parametrize("velocity", [-800, -100, 300, 1200])
@pytest.mark.parametrize("goal", [-300, 20, 60, 2000])
def test_new_goal_on_the_way_is_reached_without_a_jump_within_the_limits(velocity, goal):
    plan = by_velocity(0, velocity, goal, max_velocity=1000, acceleration=8000)
    position, speed, acceleration = sampled(plan).T
    assert (position[0], speed[0]) == (0, velocity)
    assert (position[-1], speed[-1]) == pytest.approx((goal, 0), abs=1e-6)
    assert np.abs(acceleration).max() <= 8000
    assert np.abs(np.diff(speed)).max() <= 0.8 + 1e-6
    assert np.diff(position) == pytest.approx(speed[:-1] * 1e-4, abs=1e-4)
    assert np.abs(speed).max() <= max(1000, abs(velocity)) + 1e-6


def test_time_based_profile_arrives_in_its_time():
    plan = by_time(0, 0, 900, span_s=1.0, acceleration_s=0.1)
    assert plan.duration_s == pytest.approx(1.0)
    assert plan.at(0.1) == pytest.approx((50, 1000, 0))  # 1000 · (1.0 - 0.1) = 900
    assert plan.at(1.0)[:2] == pytest.approx((900, 0), abs=1e-9)


def test_time_based_profile_speeds_up_for_half_the_time_at_most():
    plan = by_time(0, 0, 100, span_s=0.2, acceleration_s=5.0)
    assert plan.type == ProfileType.TRIANGULAR
    assert plan.at(0.1)[:2] == pytest.approx((50, 1000))


def test_time_based_profile_without_acceleration_is_a_rectangle():
    plan = by_time(0, 0, 100, span_s=0.2, acceleration_s=0)
    assert (plan.type, plan.at(0.1)) == (ProfileType.RECTANGULAR, (50, 500, 0))


@pytest.mark.parametrize(("velocity", "goal"), itertools.product((-400, 300), (-200, 50)))
def test_time_based_profile_takes_over_the_speed(velocity, goal):
    plan = by_time(0, velocity, goal, span_s=0.5, acceleration_s=0.1)
    position, speed, _ = sampled(plan).T
    assert plan.duration_s == pytest.approx(0.5)
    assert (position[-1], speed[-1]) == pytest.approx((goal, 0), abs=1e-6)
    assert np.diff(position) == pytest.approx(speed[:-1] * 1e-4, abs=2e-4)
