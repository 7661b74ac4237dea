"""How a robot on legs moves, against MuJoCo's own contacts and velocities."""

import mujoco
import numpy as np
import pytest
import torch

from deploy.errors import ConfigError
from envs.batch_simulation import BatchSimulation
from envs.robot import load_robot
from envs.simulation import State
from envs.walking.legs import Legs, reach
from envs.worlds import every
from tests.envs.test_mirror import CRAWLER, CRAWLER_FEET

WORLDS = 6
ZERO = [0.0, 0.0, 0.0]
SHAPES = {
    "sphere": ("0.03", ZERO, ZERO, 0.03),
    "capsule": ("0.02 0.05", [0, 0, 0.05], ZERO, 0.02),
    "cylinder": ("0.03 0.01", [0, 0, 0.01], [0.03, 0.03, 0], 0.0),
    "box": ("0.05 0.02 0.01", [0.05, 0.02, 0.01], ZERO, 0.0),
    "ellipsoid": ("0.05 0.02 0.01", ZERO, [0.05, 0.02, 0.01], 0.0),
}


@pytest.mark.parametrize("shape", SHAPES)
def test_lowest_point_of_a_shape_is_where_mujoco_finds_its_contact(shape: str):
    size, *parts = SHAPES[shape]
    straight, rounded, radius = (torch.tensor(part, dtype=torch.float64) for part in parts)
    model = mujoco.MjModel.from_xml_string(f"""
      <mujoco><worldbody>
        <geom type="plane" size="1 1 1"/>
        <body pos="0 0 0.02"><freejoint/><geom type="{shape}" size="{size}" margin="1"/></body>
      </worldbody></mujoco>""")
    data = mujoco.MjData(model)
    random = np.random.default_rng(0)
    for _ in range(20):
        data.qpos[3:] = random.normal(size=4)
        mujoco.mj_forward(model, data)

        up = torch.from_numpy(data.geom_xmat[1].reshape(3, 3)[2])
        lowest = data.geom_xpos[1, 2] - float(reach(up, straight, rounded, radius))

        # A contact lies where the shape is closest; an ellipsoid's is found by iteration.
        assert lowest == pytest.approx(data.contact.dist.min(), abs=1e-5)


@pytest.mark.parametrize(
    ("name", "feet"),
    [(CRAWLER, list(CRAWLER_FEET)), ("microduck", ["left_foot", "right_foot"])],
)
def test_velocities_heights_and_contacts_are_those_of_mujoco(name: str, feet: list[str]):
    robot = load_robot(name)
    model = robot.model
    simulation = BatchSimulation(model, WORLDS, num_threads=1)
    legs = Legs(simulation, robot, feet)
    random = np.random.default_rng(1)
    qpos = np.tile(robot.home_qpos, (WORLDS, 1)) + 0.1 * random.normal(size=(WORLDS, model.nq))
    qpos[:, 3:7] = np.array([0.6, 0, 0, 0.8]) + 0.1 * random.normal(size=(WORLDS, 4))
    qpos[:, 3:7] /= np.linalg.norm(qpos[:, 3:7], axis=1, keepdims=True)
    qvel = random.normal(size=(WORLDS, model.nv))
    ctrl = np.zeros((WORLDS, model.nu))
    simulation.reset(every(WORLDS), State(*map(torch.from_numpy, (qpos, qvel, ctrl))))

    motion = legs.read(every(WORLDS))

    data, velocity = mujoco.MjData(model), np.zeros(6)
    for world in range(WORLDS):
        data.qpos[:], data.qvel[:] = qpos[world], qvel[world]
        mujoco.mj_forward(model, data)
        base = data.body(legs.base)
        forward = base.xmat.reshape(3, 3)[:, 0]
        yaw = np.arctan2(forward[1], forward[0])
        heading = np.array(
            [[np.cos(yaw), np.sin(yaw), 0], [-np.sin(yaw), np.cos(yaw), 0], [0, 0, 1]]
        )
        assert motion.heading[world].tolist() == pytest.approx([np.cos(yaw), np.sin(yaw)], abs=1e-6)
        # mj_objectVelocity: rotation, then translation, of a body's frame in the world's axes
        mujoco.mj_objectVelocity(model, data, mujoco.mjtObj.mjOBJ_XBODY, legs.base, velocity, 0)
        assert motion.velocity[world].tolist() == pytest.approx(heading @ velocity[3:], abs=1e-5)
        assert motion.twist[world, 2] == pytest.approx(velocity[2], abs=1e-5)
        local = base.xmat.reshape(3, 3).T @ velocity[:3]
        assert motion.spin[world].tolist() == pytest.approx(local, abs=1e-5)
        assert motion.up[world].tolist() == pytest.approx(base.xmat.reshape(3, 3)[2], abs=1e-6)
        assert motion.height[world] == pytest.approx(base.xpos[2], abs=1e-6)
        for foot, geom in enumerate(feet):
            index = model.geom(geom).id
            mujoco.mj_objectVelocity(model, data, mujoco.mjtObj.mjOBJ_GEOM, index, velocity, 0)
            seen = motion.foot_velocity[world, foot].tolist()
            assert seen == pytest.approx(heading @ velocity[3:], abs=1e-4)
            side = (heading @ (data.geom(geom).xpos - base.xpos))[1]
            assert motion.foot_side[world, foot] == pytest.approx(side, abs=1e-5)
            touching = any(
                {index, model.geom("floor").id} == set(pair) for pair in data.contact.geom
            )
            assert touching == (motion.foot_height[world, foot] < 0)
    assert (motion.foot_height < 0).any()
    assert (motion.foot_height > 0).any()


def test_foot_is_level_at_home_and_when_turned_about_the_vertical():
    robot = load_robot("microduck")
    simulation = BatchSimulation(robot.model, 3, num_threads=1)
    legs = Legs(simulation, robot, ["left_foot", "right_foot"])
    qpos = np.tile(robot.home_qpos, (3, 1))
    qpos[1, 3:7] = [np.cos(0.5), 0, 0, np.sin(0.5)]  # 1 rad about z
    qpos[2, 3:7] = [np.cos(0.1), 0, np.sin(0.1), 0]  # 0.2 rad about y
    state = (qpos, np.zeros((3, robot.model.nv)), np.zeros((3, robot.model.nu)))

    simulation.reset(every(3), State(*map(torch.from_numpy, state)))

    level = legs.read(every(3)).foot_level
    assert level[:2].flatten().tolist() == pytest.approx([1, 1, 1, 1], abs=1e-6)
    assert level[2].tolist() == pytest.approx([np.cos(0.2)] * 2, abs=1e-5)


def test_robot_that_stands_fast_cannot_walk():
    robot = load_robot("desk_arm")
    with pytest.raises(ConfigError) as error:
        Legs(BatchSimulation(robot.model, 1, num_threads=1), robot, ["desk"])

    assert "cannot walk: its base, body " in str(error.value)
    assert str(error.value).endswith("is fixed. Give that body a <freejoint/>")


def test_foot_that_is_no_geom_is_refused_with_the_nearest_that_is():
    robot = load_robot("microduck")
    with pytest.raises(
        ConfigError, match=r"feet: 'left_fot' \(did you mean 'left_foot'\?\) is no "
    ):
        Legs(BatchSimulation(robot.model, 1, num_threads=1), robot, ["left_fot"])


def test_feet_that_are_not_on_the_ground_at_home_are_refused():
    robot = load_robot("microduck")
    with pytest.raises(ConfigError) as error:
        Legs(BatchSimulation(robot.model, 1, num_threads=1), robot, ["head"])

    assert "the lowest foot of the home pose of 'microduck' is " in str(error.value)
    assert "Correct the height of the base in the keyframe `home`, or what `feet` names" in str(
        error.value
    )
