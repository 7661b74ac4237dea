"""Walks made of closed forms: a straight line, a circle, a fall."""

import mujoco
import numpy as np
import pytest

from robotrl.report.walk_score import base_twist, count_falls, fallen, judge_legs, rotation, tilt

DT_S = 0.02


def poses(quaternions: np.ndarray, height: float = 0.1) -> np.ndarray:
    place = np.tile([1.0, 2.0, height], (len(quaternions), 1))
    return np.hstack([place, quaternions])


def about(axis: list[float], angle: float) -> np.ndarray:
    quaternion = np.zeros(4)
    mujoco.mju_axisAngle2Quat(quaternion, np.array(axis), angle)
    return quaternion


def test_rotation_is_mujocos():
    quaternion = np.array([0.5, -0.1, 0.7, 0.2])
    quaternion /= np.linalg.norm(quaternion)
    expected = np.zeros(9)
    mujoco.mju_quat2Mat(expected, quaternion)
    assert rotation(quaternion[None])[0] == pytest.approx(expected.reshape(3, 3))


def test_velocity_is_told_in_the_heading_of_the_base():
    # it looks along +y and moves along -x: 0.3 m/s to its left
    pose = poses(about([0, 0, 1], np.pi / 2)[None])
    velocity = np.array([[-0.3, 0.0, 0.0, 0.0, 0.0, 0.7]])
    assert base_twist(pose, velocity)[0] == pytest.approx([0.0, 0.3, 0.7])


def test_turning_of_a_tilted_base_is_about_the_vertical():
    # rolled by 60°, spinning about its own z axis at 1 rad/s: cos 60° of it is about the vertical
    pose = poses(about([1, 0, 0], np.pi / 3)[None])
    velocity = np.array([[0.0, 0.0, 0.0, 0.0, 0.0, 1.0]])
    assert base_twist(pose, velocity)[0, 2] == pytest.approx(0.5)
    assert tilt(pose)[0] == pytest.approx(np.pi / 3)


def test_base_that_is_tilted_or_low_has_fallen_and_each_time_counts_once():
    upright, tipped = about([0, 1, 0], 0.2), about([0, 1, 0], 1.1)
    pose = poses(np.array([upright, tipped, tipped, upright, upright]))
    pose[4, 2] = 0.05  # of 0.1 m at home
    down = fallen(pose, 0.1)
    assert down.tolist() == [False, True, True, False, True]
    assert count_falls(down) == 2


def test_commands_are_judged_one_by_one_after_their_first_second():
    ticks = round(6.0 / DT_S)
    time_s = 100.0 + DT_S * np.arange(ticks, dtype=np.float64)
    command = np.tile([0.2, 0.0, 0.0], (ticks, 1))
    command[150:] = [0.0, 0.0, 0.0]
    twist = np.zeros((ticks, 3))
    twist[:50] = 5.0  # before it is judged, anything
    twist[50:150, 0] = 0.16
    first, second = judge_legs(time_s, command, twist, np.zeros(ticks, bool))
    assert first.achieved[0] == pytest.approx(0.16)
    assert first.share == pytest.approx(0.8)
    assert first.begin_s == 0.0
    assert second.begin_s == pytest.approx(3.0)
    assert np.isnan(second.share)  # standing still has none
    assert second.error_m_s == pytest.approx(0.0, abs=0.005)


def test_command_that_had_no_time_is_not_judged():
    command = np.zeros((90, 3))  # 1.8 s
    assert (
        judge_legs(DT_S * np.arange(90, dtype=np.float64), command, command, np.zeros(90, bool))
        == []
    )


def test_fall_belongs_to_the_command_it_happened_in():
    command = np.zeros((300, 3))
    command[150:, 0] = 0.2
    down = np.zeros(300, bool)
    down[200:] = True
    legs = judge_legs(DT_S * np.arange(300, dtype=np.float64), command, command, down)
    assert [leg.fell for leg in legs] == [False, True]
