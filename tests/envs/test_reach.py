"""How near a tool gets: planar arms, whose reach is known in closed form."""

import math

import mujoco
import numpy as np
import pytest
from numpy.typing import ArrayLike

from envs.forward_kinematics import ForwardKinematics
from envs.reach import reach_errors

ARM = """
<mujoco>
  <compiler angle="radian"/>
  <worldbody>
    <body>
      <joint name="shoulder" axis="0 0 1"/>
      <geom size="0.01"/>
      <body pos="0.2 0 0">
        <joint name="elbow" axis="0 0 1"/>
        <geom size="0.01"/>
        <site name="tool" pos="0.1 0 0"/>
      </body>
    </body>
  </worldbody>
</mujoco>
"""
TURN = np.array([math.pi, math.pi])


def errors(
    points: ArrayLike,
    *,
    moved: tuple[int, ...] = (0, 1),
    low: ArrayLike = -TURN,
    high: ArrayLike = TURN,
    home: ArrayLike = (0.0, 0.0),
) -> np.ndarray:
    model = mujoco.MjModel.from_xml_string(ARM)
    kinematics = ForwardKinematics(model, "tool", ["shoulder", "elbow"]).double()
    return reach_errors(
        kinematics,
        np.array(points),
        home=np.array(home),
        moved=list(moved),
        low=np.array(low),
        high=np.array(high),
    )


def test_two_links_reach_a_ring_about_the_shoulder():
    # links of 0.2 and 0.1 m reach from 0.1 to 0.3 m
    found = errors([[0.5, 0, 0], [0.15, 0.2, 0], [0, -0.05, 0], [0.2, 0, 0.07]])
    assert found == pytest.approx([0.2, 0, 0.05, 0.07], abs=1e-6)


def test_limits_hold():
    # the stretched arm turns from 0 to 90 degrees: of what lies behind it, its ends are nearest
    found = errors(
        [[0.3, -0.4, 0], [-0.4, 0.3, 0], [0.3 * 0.6, 0.3 * 0.8, 0]],
        low=(0.0, 0.0),
        high=(math.pi / 2, 0.0),  # the elbow has no range left
    )
    assert found == pytest.approx([0.4, 0.4, 0], abs=1e-6)


def test_joints_that_are_not_moved_stay_at_home():
    # a right angle at the elbow: the tool turns at a radius of sqrt(5) / 10 m
    radius = math.sqrt(0.2**2 + 0.1**2)
    found = errors([[0.3, 0, 0], [0, radius, 0]], moved=(0,), home=(0.0, math.pi / 2))
    assert found == pytest.approx([0.3 - radius, 0], abs=1e-6)
