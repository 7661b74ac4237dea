"""The microduck's MJCF against what is published of the robot, and standing, sitting, fallen.

Published: the MJCF of pollen-robotics/microduck_rl (commit e1efc69; joint anchors, masses and
inertias summed from it with plain MuJoCo, trunk at 0.12 m), its policies' joint order, and the
XL330's data sheet as `deploy.servos.models` has it.
"""

import mujoco
import numpy as np
import pytest

from deploy.servos.models import SERVOS, servos_of
from envs.robot import Robot, load_robot
from tests.envs.robots.legged import (
    assert_mirrored,
    assert_stays_over_the_floor,
    height,
    inertia_about_com,
    nose_down,
    posed,
    simulated,
    stiffened,
    unpowered,
)

LEG = ("hip_yaw", "hip_roll", "hip_pitch", "knee", "ankle")
POLICY_ORDER = [
    *(f"left_{joint}" for joint in LEG),
    *("neck_pitch", "head_pitch", "head_yaw", "head_roll"),
    *(f"right_{joint}" for joint in LEG),
]
"""Of the actions of the published policies."""
AXES_AND_RANGES = {
    "left_hip_yaw": ((0, 0, -1), (-0.436, 0.524)),
    "left_hip_roll": ((1, 0, 0), (-0.384, 0.384)),
    "left_hip_pitch": ((0, 1, 0), (-1.571, 1.571)),
    "left_knee": ((0, -1, 0), (-1.571, 1.571)),
    "left_ankle": ((0, 1, 0), (-1.571, 1.571)),
    "right_hip_yaw": ((0, 0, -1), (-0.524, 0.436)),
    "right_hip_roll": ((1, 0, 0), (-0.384, 0.384)),
    "right_hip_pitch": ((0, -1, 0), (-1.571, 1.571)),
    "right_knee": ((0, 1, 0), (-1.571, 1.571)),
    "right_ankle": ((0, -1, 0), (-1.571, 1.571)),
    "neck_pitch": ((0, -1, 0), (-1.571, 1.047)),
    "head_pitch": ((0, 1, 0), (-1.571, 1.571)),
    "head_yaw": ((0, 0, 1), (-2.967, 2.967)),
    "head_roll": ((-1, 0, 0), (-0.436, 0.436)),
}
ANCHORS = {
    "left_hip_yaw": (0.006, 0.0175, 0.115),
    "left_hip_roll": (0.0225, 0.0175, 0.1025),
    "left_hip_pitch": (0.004, 0.0425, 0.1025),
    "left_knee": (-0.0318, 0.0385, 0.0805),
    "left_ankle": (-0.0318, 0.0645, 0.0385),
    "neck_pitch": (0.026, 0.0145, 0.1524),
    "head_pitch": (0.026, 0.0145, 0.2024),
    "head_yaw": (0.026, 0, 0.2211),
    "head_roll": (0.0081, 0, 0.2356),
}
"""With every joint at 0 and the trunk at 0.12 m."""
SUPPLY_V, P_GAIN = 7.4, 200
LEGS_BODIES = ("yaw_link", "roll_link", "thigh", "shin", "foot")
CORNERS = ("toe_left", "toe_right", "heel_left", "heel_right")


@pytest.fixture(scope="module")
def robot() -> Robot:
    return load_robot("microduck")


@pytest.fixture
def model(robot: Robot) -> mujoco.MjModel:
    return mujoco.MjModel.from_xml_path(str(robot.path))


def at_012(model: mujoco.MjModel, key: str | None = None, **angles: float) -> mujoco.MjData:
    """Kinematics with the trunk at the height that published figures are for."""
    data = posed(model, key, **angles)
    data.qpos[2] = 0.12
    mujoco.mj_forward(model, data)
    return data


def legs(**angles: float) -> dict[str, float]:
    """Joint angles of both legs; the right one's have the opposite sign."""
    left = {f"left_{joint}": angle for joint, angle in angles.items()}
    return left | {f"right_{joint}": -angle for joint, angle in angles.items()}


def test_it_has_all_that_training_needs_and_the_joint_order_of_published_policies(robot):
    robot.check()

    assert robot.joints == POLICY_ORDER
    assert robot.sensors(["imu_angular_velocity", "projected_gravity"])


def test_total_mass_is_that_published(model):
    assert model.body_subtreemass[1] == pytest.approx(0.73724, abs=2e-5)


def test_neck_and_head_are_38_percent_of_the_mass(model):
    assert model.body_subtreemass[model.body("neck").id] == pytest.approx(0.2799, abs=1e-4)


def test_centre_of_mass_is_that_published_at_stand_sit_and_fold(model):
    stand = at_012(model, "home")
    assert stand.subtree_com[1] == pytest.approx([0.0006, 0, 0.1417], abs=1.5e-4)

    sit = legs(hip_pitch=-0.5236, knee=1.0472) | {"neck_pitch": 0.5, "head_pitch": 1.6}
    assert at_012(model, None, **sit).subtree_com[1][2] == pytest.approx(0.1375, abs=1e-4)

    fold = legs(hip_pitch=1.57, knee=1.57) | {"neck_pitch": 1.0, "head_pitch": 1.0}
    assert at_012(model, None, **fold).subtree_com[1][2] == pytest.approx(0.150, abs=5e-4)


def test_inertia_of_the_whole_body_is_that_published_at_stand(model):
    inertia = inertia_about_com(model, at_012(model, "home"))
    assert np.diag(inertia) == pytest.approx([5062e-6, 4958e-6, 1250e-6], rel=2e-3)


@pytest.mark.parametrize("joint", ANCHORS)
def test_joint_sits_where_it_is_published_to_on_both_sides(model, joint):
    data = at_012(model)

    assert data.joint(joint).xanchor == pytest.approx(ANCHORS[joint], abs=1e-4)
    if joint.startswith("left"):
        mirrored = np.multiply(ANCHORS[joint], [1, -1, 1])
        assert data.joint(joint.replace("left", "right")).xanchor == pytest.approx(
            mirrored, abs=1e-4
        )


def test_thigh_and_shin_are_42_mm_and_the_neck_is_50_mm_long(model):
    def length(body: str) -> float:
        return float(np.linalg.norm(model.body(body).pos[[0, 2]]))  # in the plane of the pitch

    assert length("left_shin") == pytest.approx(0.042, abs=1e-4)  # starts where the thigh ends
    assert length("left_foot") == pytest.approx(0.042, abs=1e-4)
    assert length("neck_top") == pytest.approx(0.050, abs=1e-4)


@pytest.mark.parametrize("joint", POLICY_ORDER)
def test_axis_and_range_are_those_published_and_targets_keep_the_range(model, joint):
    axis, limits = AXES_AND_RANGES[joint]

    assert at_012(model).joint(joint).xaxis == pytest.approx(axis, abs=1e-9)
    assert model.joint(joint).range == pytest.approx(limits, abs=5e-4)
    assert model.actuator(joint).ctrlrange == pytest.approx(model.joint(joint).range)


@pytest.mark.parametrize("body", LEGS_BODIES)
def test_right_leg_mirrors_the_left(model, body):
    assert_mirrored(model, f"left_{body}", f"right_{body}")


def test_mirrored_angles_mirror_the_feet(model):
    random = np.random.default_rng(0)
    for _ in range(20):
        left = dict(zip(LEG, random.uniform(-0.38, 0.38, len(LEG)), strict=True))
        data = posed(model, None, **legs(**left))
        for corner, opposite in zip(CORNERS, np.array(CORNERS)[[1, 0, 3, 2]], strict=True):
            mirrored = data.site(f"left_foot_{corner}").xpos * [1, -1, 1]
            right = data.site(f"right_foot_{opposite}").xpos
            np.testing.assert_allclose(right, mirrored, atol=1e-12)


def test_sole_is_level_at_home_and_has_the_published_flat_part(model):
    data = posed(model, "home")
    corners = np.array([data.site(f"left_foot_{corner}").xpos for corner in CORNERS])

    assert np.abs(corners[:, 2]).max() < 1e-4  # on the floor, and level
    low, high = corners.min(axis=0), corners.max(axis=0)
    assert (low[0], high[0]) == pytest.approx((-0.017, 0.031), abs=2e-4)
    assert (low[1], high[1]) == pytest.approx((0.0279, 0.0573), abs=2e-4)
    ankle = data.joint("left_ankle").xanchor
    assert ankle[0] == pytest.approx(0, abs=2e-4)
    assert ankle[2] == pytest.approx(0.0225, abs=2e-4)
    assert data.qpos[2] == pytest.approx(0.117, abs=3e-4)


def test_lowest_corner_site_is_as_high_as_the_sole_is_over_the_floor(model):
    random = np.random.default_rng(1)
    for _ in range(20):
        data = posed(
            model, None, **dict(zip(POLICY_ORDER, random.uniform(-0.4, 0.4, 14), strict=True))
        )
        for side in ("left", "right"):
            lowest = min(data.site(f"{side}_foot_{corner}").xpos[2] for corner in CORNERS)
            assert lowest == pytest.approx(height(model, data, f"{side}_foot"), abs=1e-6)


def test_feet_do_not_pass_through_each_other(model):
    crossed = posed(model, "home", left_hip_roll=-0.384, right_hip_roll=0.384)

    touching = {frozenset(model.geom(int(g)).name for g in c.geom) for c in crossed.contact}
    assert frozenset(("left_foot", "right_foot")) in touching


@pytest.mark.parametrize("joint", POLICY_ORDER)
def test_actuator_is_the_servo_of_the_data_sheet_at_the_batterys_voltage(model, joint):
    servo, actuator = SERVOS["XL330-M288"].plain, model.actuator(joint)

    assert servos_of(model)[joint] == servo
    assert actuator.gainprm[0] == pytest.approx(servo.kp(P_GAIN, SUPPLY_V), rel=1e-9)
    assert actuator.biasprm[:3] == pytest.approx([0, -actuator.gainprm[0], 0])
    full = servo.drive_torque(SUPPLY_V)
    assert actuator.forcerange == pytest.approx([-full, full], rel=1e-9)
    assert model.actuator_damping[actuator.id] == pytest.approx(servo.back_emf_damping, rel=1e-9)
    dof = model.joint(joint).dofadr[0]
    assert model.dof_frictionloss[dof] == pytest.approx(servo.friction.at_rest)
    assert model.dof_damping[dof] == pytest.approx(servo.friction.viscous)
    assert model.dof_armature[dof] == pytest.approx(servo.armature)


@pytest.mark.parametrize(("kp", "full"), [(0.55, 0.96), (0.43, 0.75)])
def test_stiffness_is_between_the_two_fits_that_upstream_published(model, kp, full):
    """N·m/rad and N·m at P 200 and 7.4 V. The error that gives full duty is firmware alone, and
    the same to rounding; the torque then differs with the friction that each fit subtracts."""
    stiffness, limit = model.actuator_gainprm[0, 0], model.actuator_forcerange[0, 1]

    assert limit / stiffness == pytest.approx(full / kp, rel=0.01)
    assert stiffness == pytest.approx(kp, rel=0.20)
    assert 0.43 < stiffness < 0.55


def test_a_target_turns_into_torque_15_ms_later(model):
    data = simulated(model, "home", seconds=0.5)
    data.ctrl[:] += 0.1
    before = data.actuator_force.copy()
    forces = []
    for _ in range(5):
        mujoco.mj_step(model, data)
        forces.append(np.abs(data.actuator_force - before).max())

    jump = 0.1 * model.actuator_gainprm[0, 0]
    # Steps are 5 ms: those that begin 0, 5 and 10 ms after the new target know nothing of it.
    assert max(forces[:3]) < 0.1 * jump
    assert forces[3] > 0.8 * jump


def test_imu_is_where_and_as_it_is_mounted(model, robot):
    assert model.site("imu").pos == pytest.approx([-0.021, 0, -0.0147], abs=1e-4)
    columns = robot.sensors(["projected_gravity"])["projected_gravity"]
    for angle in (0.0, 0.3):
        seen = -nose_down(model, angle).sensordata[columns]
        assert seen == pytest.approx([np.sin(angle), 0, -np.cos(angle)], abs=1e-9)


def test_home_is_a_stance_once_the_servos_are_stiffer(model):
    """With P 200 it leans more and more: standing is a skill, as it is on the robot."""
    data = simulated(stiffened(model, 8), "home", seconds=3.0)

    assert data.qpos[:3] == pytest.approx([0, 0, 0.117], abs=3e-3)
    assert np.abs(data.qpos[7:] - model.key("home").qpos[7:]).max() < 0.03
    assert np.abs(data.qvel).max() < 0.01
    feet = {model.geom(int(geom)).name for contact in data.contact for geom in contact.geom}
    assert feet == {"floor", "left_foot", "right_foot"}


def test_rest_is_stable_without_torque(model):
    data = simulated(unpowered(model), "rest", seconds=3.0)

    assert np.abs(data.qpos - model.key("rest").qpos).max() < 0.02  # m, rad
    assert np.abs(data.qvel).max() < 0.02


@pytest.mark.parametrize("key", ["home", "rest"])
def test_feet_and_shins_touch_no_other_part_of_the_robot(model, key):
    """The model would let them through, the robot not."""
    data, ends = posed(model, key), np.empty(6)
    for foot, others in (
        ("left_foot", ("trunk", "left_yaw_link", "left_roll_link", "left_thigh", "right_shin")),
        ("left_shin", ("trunk", "left_yaw_link", "left_roll_link", "right_shin")),
    ):
        geoms = np.flatnonzero(model.geom_bodyid == model.body(foot).id)
        for other in others:
            for geom in np.flatnonzero(model.geom_bodyid == model.body(other).id):
                gaps = [mujoco.mj_geomDistance(model, data, g, geom, 1.0, ends) for g in geoms]
                assert min(gaps) > 0, f"{foot} in {other}: {min(gaps):.4f} m"


@pytest.mark.parametrize("key", ["home", "rest"])
def test_keyframes_are_within_the_ranges(model, key):
    low, high = model.jnt_range[1:].T
    assert np.all((low <= model.key(key).qpos[7:]) & (model.key(key).qpos[7:] <= high))


def test_a_fallen_robot_lies_on_the_floor(model):
    assert_stays_over_the_floor(model, sunk=0.020, falls=15)


def test_on_its_back_it_lies_on_its_battery(model):
    model, data = unpowered(model), posed(model, "home")
    data.qpos[2], data.qpos[3:7] = 0.05, np.sqrt([0.5, 0, 0.5, 0]) * [1, 1, -1, 1]  # nose up
    mujoco.mj_step(model, data, nstep=200)

    assert height(model, data, "battery") == pytest.approx(0, abs=1e-3)
    # Published: an NP-F pack, 20.6 x 38.6 x 70.8 mm.
    assert 2 * model.geom("battery").size == pytest.approx([0.0206, 0.0386, 0.0708], abs=1e-4)
