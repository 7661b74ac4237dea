"""The quadruped's MJCF against what is published of the XGO-Mini, and standing, lying, fallen.

Published: the MJCF of LuwuDynamics/luwu_mjlab (commit ef49992), its arm's bodies left out of the
sums; anchors, masses and inertias summed from it with plain MuJoCo.
"""

import math

import mujoco
import numpy as np
import pytest

from envs.robot import Robot, load_robot
from tests.envs.robots.legged import (
    assert_mirrored,
    assert_stays_over_the_floor,
    height,
    inertia_about_com,
    nose_down,
    posed,
    simulated,
    unpowered,
)

LEGS = ("front_left", "front_right", "rear_left", "rear_right")
JOINTS = [f"{leg}_{joint}" for leg in LEGS for joint in ("hip", "thigh", "calf")]
RANGES = {"hip": (-0.6, 0.6), "thigh": (-1.22, 1.91), "calf": (-1.134, 1.047)}
HIPS = {  # from the trunk's origin
    "front_left": (0.0495, 0.0225, -0.0221),
    "front_right": (0.0495, -0.0225, -0.0221),
    "rear_left": (-0.1006, 0.0225, -0.0221),
    "rear_right": (-0.1006, -0.0225, -0.0221),
}
FEET = {  # centres of the foot spheres at home, from the trunk's origin
    "front_left": (0.01930, 0.05348, -0.11857),
    "front_right": (0.01931, -0.05348, -0.11857),
    "rear_left": (-0.13072, 0.05348, -0.11856),
    "rear_right": (-0.13112, -0.05349, -0.11905),
}
FOOT_RADIUS = 0.01


@pytest.fixture(scope="module")
def robot() -> Robot:
    return load_robot("quadruped")


@pytest.fixture
def model(robot: Robot) -> mujoco.MjModel:
    return mujoco.MjModel.from_xml_path(str(robot.path))


def test_it_has_all_that_training_needs_and_the_published_joint_order(robot):
    robot.check()

    assert robot.joints == JOINTS
    assert robot.sensors(["imu_angular_velocity", "projected_gravity"])


def test_total_mass_is_that_published_less_the_arm(model):
    arm = 0.01 + 0.018812 + 0.017297 + 2 * 0.0010815  # base, upper arm, forearm, two jaws
    assert model.body_subtreemass[1] == pytest.approx(0.748814 - arm, abs=5e-5)


def test_centre_of_mass_and_inertia_are_those_published_at_home(model):
    data = posed(model, "home")

    from_trunk = data.subtree_com[1] - data.body("trunk").xpos
    assert from_trunk == pytest.approx([-0.05335, 0, -0.03207], abs=2e-4)
    inertia = inertia_about_com(model, data)
    assert np.diag(inertia) == pytest.approx([1757.1e-6, 4349.8e-6, 5093e-6], rel=5e-3)
    assert inertia[0, 2] == pytest.approx(-331.8e-6, rel=0.01)


@pytest.mark.parametrize("leg", LEGS)
def test_hip_and_foot_are_where_they_are_published_to_be(model, leg):
    data = posed(model, "home")
    trunk = data.body("trunk").xpos

    assert data.joint(f"{leg}_hip").xanchor - trunk == pytest.approx(HIPS[leg], abs=1e-4)
    foot = data.geom(f"{leg}_foot").xpos - trunk
    assert foot == pytest.approx(FEET[leg], abs=6e-4)  # the robot's own sides differ by as much
    assert model.geom(f"{leg}_foot").size[0] == FOOT_RADIUS


@pytest.mark.parametrize("joint", JOINTS)
def test_axis_and_range_are_those_published_and_targets_keep_the_range(model, joint):
    leg, _, name = joint.rpartition("_")
    side = -1 if leg.endswith("left") else 1
    axis = (side, 0, 0) if name == "hip" else (0, 1, 0)

    assert posed(model).joint(joint).xaxis == pytest.approx(axis, abs=1e-12)
    assert model.joint(joint).range == pytest.approx(RANGES[name])
    assert model.actuator(joint).ctrlrange == pytest.approx(RANGES[name])


@pytest.mark.parametrize("end", ["front", "rear"])
@pytest.mark.parametrize("body", ["shoulder", "thigh", "calf"])
def test_right_legs_mirror_the_left(model, end, body):
    assert_mirrored(model, f"{end}_left_{body}", f"{end}_right_{body}")


@pytest.mark.parametrize("joint", JOINTS)
def test_actuator_is_the_one_published(model, joint):
    actuator, dof = model.actuator(joint), model.joint(joint).dofadr[0]

    assert actuator.gainprm[0] == 1.1
    assert actuator.biasprm[:3] == pytest.approx([0, -1.1, 0])
    assert actuator.forcerange == pytest.approx([-0.46, 0.46])
    assert model.actuator_damping[actuator.id] + model.dof_damping[dof] == pytest.approx(0.04)
    assert model.dof_frictionloss[dof] == 1e-4
    assert model.dof_armature[dof] == 0.0025


def test_a_target_turns_into_torque_20_ms_later(model):
    data = simulated(model, "home", seconds=1.0)
    data.ctrl[:] += 0.1
    before = data.actuator_force.copy()
    forces = []
    for _ in range(6):
        mujoco.mj_step(model, data)
        forces.append(np.abs(data.actuator_force - before).max())

    # Steps are 5 ms: those that begin 0, 5, 10 and 15 ms after the new target know nothing of it.
    assert max(forces[:4]) < 0.1 * 0.11
    assert forces[4] > 0.8 * 0.11


def test_feet_stand_on_the_floor_at_home_at_the_height_of_the_closed_form(model):
    data = posed(model, "home")
    # Thigh 59.9 mm at 1 rad; calf, 71.5 mm forward and 22.6 mm down, at 1 - 16° = 0.7208 rad.
    # 0.0221 + 0.0599 cos 1 + 0.0715 sin 0.7208 + 0.0226 cos 0.7208 + 0.01 = 0.1286 m
    pitch = 1 - math.radians(16)
    leg = 0.0599 * math.cos(1) + 0.0715 * math.sin(pitch) + 0.0226 * math.cos(pitch)
    assert data.qpos[2] == pytest.approx(0.0221 + leg + FOOT_RADIUS, abs=2e-4)

    for leg in LEGS:
        assert height(model, data, f"{leg}_foot") == pytest.approx(0, abs=2e-4)
        assert data.site(f"{leg}_foot").xpos == pytest.approx(
            data.geom(f"{leg}_foot").xpos - [0, 0, FOOT_RADIUS], abs=1e-4
        )


@pytest.mark.parametrize("swing", [-0.4, 0.4])
def test_foot_site_tells_the_foots_height_within_a_millimetre(model, swing):
    # The sphere's lowest point moves away from the site: 0.01 (1 - cos 0.4) = 0.8 mm.
    data = posed(model, "home", front_left_thigh=1 + swing)

    site = data.site("front_left_foot").xpos[2]
    assert 0 <= site - height(model, data, "front_left_foot") < 1e-3


def test_imu_reads_gravity_in_the_trunks_frame(model, robot):
    columns = robot.sensors(["projected_gravity"])["projected_gravity"]
    for angle in (0.0, 0.3):
        seen = -nose_down(model, angle).sensordata[columns]
        assert seen == pytest.approx([np.sin(angle), 0, -np.cos(angle)], abs=1e-9)


def test_it_stands_at_home_with_its_own_gains(model):
    data = simulated(model, "home", seconds=3.0)

    assert data.qpos[2] == pytest.approx(0.1286, abs=5e-3)  # servos of 1.1 N·m/rad sag
    assert data.qpos[3:7] == pytest.approx([1, 0, 0, 0], abs=5e-3)
    assert np.abs(data.qpos[7:] - model.key("home").qpos[7:]).max() < 0.1
    assert np.abs(data.qvel).max() < 0.01
    touching = {model.geom(int(geom)).name for contact in data.contact for geom in contact.geom}
    assert touching == {"floor", *(f"{leg}_foot" for leg in LEGS)}


def test_rest_is_stable_without_torque(model):
    data = simulated(unpowered(model), "rest", seconds=3.0)

    assert np.abs(data.qpos - model.key("rest").qpos).max() < 2e-3  # m, rad
    assert np.abs(data.qvel).max() < 1e-3


@pytest.mark.parametrize("key", ["home", "rest"])
def test_keyframes_are_within_the_ranges(model, key):
    low, high = model.jnt_range[1:].T
    assert np.all((low <= model.key(key).qpos[7:]) & (model.key(key).qpos[7:] <= high))


def test_a_fallen_robot_lies_on_the_floor(model):
    assert_stays_over_the_floor(model, sunk=0.010, falls=15)
