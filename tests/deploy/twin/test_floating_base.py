"""A box with a flap on the floor: nobody touches it limp; when it holds, a hand stands it up."""

from pathlib import Path

import numpy as np
import pytest

from deploy.dynamixel import registers
from deploy.robot_config import RobotConfig
from deploy.twin.floating_base import LIFT_S, LOWER_S, PATIENCE_S, PUSH_S
from deploy.twin.parameters import TwinParameters
from deploy.twin.robot import Twin

MASS_KG = 0.5
STANDING_M = 0.05
BOX = """
<mujoco>
  <option gravity="0 0 -9.81"/>
  <worldbody>
    <geom type="plane" size="5 5 0.1" friction="0.01"/>
    <body name="box" pos="0 0 0.05">
      <freejoint/><geom type="box" size="0.04 0.02 0.05" mass="0.49" friction="0.01"/>
      <body name="flap" pos="0 0 0.04">
        <joint name="flap" axis="0 0 1" range="-1 1" armature="0.002"/>
        <geom type="sphere" size="0.01" mass="0.01" contype="0" conaffinity="0"/>
      </body>
    </body>
  </worldbody>
  <keyframe><key name="rest" qpos="0.3 0 0.04 0.5 -0.5 0.5 0.5 0"/></keyframe>
</mujoco>
"""
CONFIG = RobotConfig.model_validate(
    {
        "robot": "box",
        "bus": {"port": "/dev/unused"},
        "joints": {
            "flap": {
                "id": 1,
                "model": "XL330-M288",
                "position_limits_rad": [-1.0, 1.0],
                "velocity_limit_rad_s": 5.0,
                "rest_rad": 0.0,
            }
        },
    }
)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "box.xml"
    path.write_text(BOX)
    return path


def switch(twin: Twin, torque: int) -> None:
    assert not twin.servos[0].write(registers.TORQUE_ENABLE.address, bytes([torque])).error


def height(twin: Twin) -> float:
    assert twin.base
    return float(twin.base.pose[2])


def test_limp_robot_is_left_lying(path: Path) -> None:
    twin = Twin(path, CONFIG)
    twin.advance(4.0)
    assert height(twin) == pytest.approx(0.04, abs=0.002)


STANDS_S = 1.0 + LOWER_S
"""When it has been put down, after its servos began to hold: it has no home pose to wait for."""


def test_robot_that_holds_is_lifted_upright_and_put_down_where_it_stands(path: Path) -> None:
    twin = Twin(path, CONFIG)
    twin.advance(0.5)
    switch(twin, 1)
    twin.advance(0.5 + LIFT_S)  # in the air
    assert twin.base
    pose = twin.base.pose
    assert pose[2] == pytest.approx(STANDING_M + 0.03, abs=0.003)
    assert np.hypot(*pose[4:6]) < 0.03  # upright: no turn about x or y
    twin.advance(0.5 + STANDS_S + 0.2)  # it stands, held
    assert height(twin) == pytest.approx(STANDING_M, abs=0.002)
    assert twin._data.eq_active[0]
    twin.advance(0.5 + STANDS_S + 1.21)  # and stands by itself
    assert height(twin) == pytest.approx(STANDING_M, abs=0.002)
    assert not twin._data.eq_active[0]


@pytest.mark.parametrize("held_s", [0.1, 3.0])
def test_hand_holds_a_robot_that_stands_for_as_long_as_it_is_told(path: Path, held_s: float):
    twin = Twin(path, CONFIG, TwinParameters(let_go_after_s=held_s))
    switch(twin, 1)
    twin.advance(STANDS_S + held_s - 0.01)
    assert twin._data.eq_active[0]
    assert height(twin) == pytest.approx(STANDING_M, abs=0.002)
    twin.advance(STANDS_S + held_s + 0.01)
    assert not twin._data.eq_active[0]


def test_robot_is_kept_in_the_air_until_its_joints_have_come_home(path: Path) -> None:
    key = '<key name="home" qpos="0 0 0.05 1 0 0 0 0.8"/>'
    path.write_text(BOX.replace("<keyframe>", f"<keyframe>{key}"))
    twin = Twin(path, CONFIG)
    switch(twin, 1)
    twin.advance(4.0)
    assert height(twin) == pytest.approx(STANDING_M + 0.03, abs=0.003)
    twin._data.qpos[7] = 0.6  # home but for a quarter of the way
    twin.advance(5.0)
    assert height(twin) == pytest.approx(STANDING_M, abs=0.002)


def test_robot_that_never_comes_home_is_put_down_in_the_end(path: Path) -> None:
    key = '<key name="home" qpos="0 0 0.05 1 0 0 0 0.8"/>'
    path.write_text(BOX.replace("<keyframe>", f"<keyframe>{key}"))
    twin = Twin(path, CONFIG)
    switch(twin, 1)
    twin.advance(PATIENCE_S - 0.01)
    assert height(twin) == pytest.approx(STANDING_M + 0.03, abs=0.003)
    twin.advance(PATIENCE_S + LOWER_S + 0.1)
    assert height(twin) == pytest.approx(STANDING_M, abs=0.002)


def test_hand_lets_the_robot_down_on_a_floor_that_is_lower_before_it_lets_go(path: Path) -> None:
    path.write_text(BOX.replace('"plane"', '"plane" pos="0 0 -0.005"'))
    twin = Twin(path, CONFIG)
    switch(twin, 1)
    twin.advance(STANDS_S + 0.1)  # just put down, where it stands in the model: still in the air
    assert height(twin) == pytest.approx(STANDING_M, abs=0.002)
    twin.advance(STANDS_S + 1.1)
    assert twin._data.eq_active[0]
    assert height(twin) == pytest.approx(STANDING_M - 0.005, abs=0.001)


def test_robot_nobody_picks_up_stays_where_it_is(path: Path) -> None:
    twin = Twin(path, CONFIG, TwinParameters(let_go_after_s=0.0))
    switch(twin, 1)
    twin.advance(2.0)
    assert height(twin) == pytest.approx(0.04, abs=0.002)


def test_robot_on_wheels_gets_up_by_itself(path: Path) -> None:
    wheel = CONFIG.joints["flap"].model_copy(update={"continuous": True})
    twin = Twin(path, CONFIG.model_copy(update={"joints": {"flap": wheel}}))
    switch(twin, 1)
    twin.advance(2.0)
    assert height(twin) == pytest.approx(0.04, abs=0.002)


def test_push_gives_the_whole_robot_its_speed(path: Path) -> None:
    twin = Twin(path, CONFIG, TwinParameters(seed=3, push_speed_m_s=0.25))
    switch(twin, 1)
    twin.advance(STANDS_S + 1.21)  # it has just been let go
    while not twin._data.xfrc_applied.any():
        twin.advance(twin.time_s + 0.01)
    begin_s = twin.time_s
    assert STANDS_S + 1.2 + 3 < begin_s < STANDS_S + 1.2 + 6.1
    assert twin.base
    before = twin.base.velocity[:2]
    force = twin._data.xfrc_applied[1, :2].copy()
    twin.advance(begin_s + PUSH_S)
    assert not twin._data.xfrc_applied.any()
    # force · time / mass, less the friction of 0.01 g in 0.1 s
    assert twin.base.velocity[:2] - before == pytest.approx(force * PUSH_S / MASS_KG, abs=0.03)
    assert np.abs(force * PUSH_S / MASS_KG).max() <= 0.25


def test_same_seed_same_pushes(path: Path) -> None:
    poses = []
    for _ in range(2):
        twin = Twin(path, CONFIG, TwinParameters(seed=5, push_speed_m_s=0.25))
        switch(twin, 1)
        twin.advance(10.0)
        assert twin.base
        poses.append(twin.base.pose)
    assert np.array_equal(*poses)
