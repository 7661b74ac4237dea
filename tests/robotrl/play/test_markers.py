"""What is asked for is drawn where it is meant."""

import mujoco
import numpy as np
import pytest

from deploy.contract import CommandSpec
from robotrl.play.markers import command_markers

WALKER = """
<mujoco><statistic extent="1"/><worldbody><body name="trunk" pos="1 2 0.3"><freejoint/>
  <geom size="0.1"/><body><joint/><geom size="0.1" pos="0.3 0 0"/></body></body></worldbody>
</mujoco>
"""
REACH = CommandSpec(
    name="target", elements=["x", "y", "z"], unit="m", frame="base", site="tool",
    low=[-1, -1, -1], high=[1, 1, 1], interval_s=(1, 2),
)  # fmt: skip
WALK = CommandSpec(
    name="velocity", elements=["x", "y", "yaw"], unit=["m/s", "m/s", "rad/s"],
    low=[-1, -1, -1], high=[1, 1, 1], interval_s=(1, 2),
)  # fmt: skip


@pytest.fixture
def walker() -> mujoco.MjData:
    """It looks to its left, along the world's y axis."""
    model = mujoco.MjModel.from_xml_string(WALKER)
    data = mujoco.MjData(model)
    data.qpos[3:7] = np.sqrt(0.5), 0, 0, np.sqrt(0.5)
    mujoco.mj_forward(model, data)
    return data


def test_target_is_a_ball_at_its_place(walker: mujoco.MjData):
    (ball,) = command_markers(REACH, [0.1, -0.2, 0.3], walker)
    assert ball.type == mujoco.mjtGeom.mjGEOM_SPHERE
    np.testing.assert_allclose(ball.pos, [0.1, -0.2, 0.3], atol=1e-6)


def test_velocity_is_an_arrow_in_the_frame_of_the_robot(walker: mujoco.MjData):
    (arrow,) = command_markers(WALK, [0.5, 0.0, 0.3], walker)
    assert arrow.type == mujoco.mjtGeom.mjGEOM_ARROW
    # Forward is the world's y; an arrow points along its own z, and size[2] is its length.
    np.testing.assert_allclose(arrow.mat[:, 2], [0, 1, 0], atol=1e-6)
    assert arrow.size[2] == pytest.approx(0.5, rel=0.01)
    np.testing.assert_allclose(arrow.pos[:2], [1, 2], atol=1e-6)

    (left,) = command_markers(WALK, [0.0, 0.2, 0.0], walker)
    np.testing.assert_allclose(left.mat[:, 2], [-1, 0, 0], atol=1e-6)


def test_standing_has_no_arrow(walker: mujoco.MjData):
    assert command_markers(WALK, [0.0, 0.0, 0.5], walker) == []


def test_task_without_a_command_has_no_marker(walker: mujoco.MjData):
    assert command_markers(None, [], walker) == []


def test_goal_on_the_desk_is_a_ball_there(walker: mujoco.MjData):
    push = REACH.model_copy(
        update={"elements": ["x", "y"], "site": "", "low": [-1, -1], "high": [1, 1]}
    )
    (ball,) = command_markers(push, [0.1, -0.2], walker)
    assert ball.type == mujoco.mjtGeom.mjGEOM_SPHERE
    np.testing.assert_allclose(ball.pos, [0.1, -0.2, 0.0], atol=1e-6)
