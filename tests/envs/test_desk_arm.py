"""The desk arm's MJCF against the servos' data sheets, at rest, at home and within its reach."""

import itertools

import mujoco
import numpy as np
import pytest

from deploy.dynamixel.servos import MODELS
from envs.robot import load_robot
from envs.tasks.arm_reach import ArmReachConfig

SERVOS = {
    "shoulder_pan": ("XL430-W250", 800),
    "shoulder_lift": ("XL430-W250", 1200),
    "elbow_flex": ("XL330-M288", 3000),
    "wrist_flex": ("XL330-M288", 1600),
    "wrist_roll": ("XL330-M288", 800),
    "gripper": ("XL330-M288", 800),
}
"""Joint -> servo model and Position P Gain, in the order of every joint array."""


@pytest.fixture
def model() -> mujoco.MjModel:
    return mujoco.MjModel.from_xml_path(str(load_robot("desk_arm").path))


def test_joints_and_actuators_have_the_same_names_in_the_same_order(model):
    assert [model.joint(index).name for index in range(model.njnt)] == list(SERVOS)
    assert [model.actuator(index).name for index in range(model.nu)] == list(SERVOS)


@pytest.mark.parametrize("joint", SERVOS)
def test_actuator_is_the_servo_of_the_data_sheet(model, joint):
    name, p_gain = SERVOS[joint]
    servo, actuator = MODELS[name], model.actuator(joint)

    assert actuator.gainprm[0] == pytest.approx(servo.kp(p_gain), rel=1e-12)
    assert actuator.biasprm[:3] == pytest.approx([0, -servo.kp(p_gain), 0], rel=1e-12)
    assert model.actuator_damping[actuator.id] == pytest.approx(servo.damping, rel=1e-12)
    assert actuator.forcerange == pytest.approx([-servo.stall_torque_nm, servo.stall_torque_nm])
    assert actuator.ctrlrange == pytest.approx(model.joint(joint).range)


def test_home_is_held_with_small_droop(model):
    home = model.key("home").qpos
    data = simulate(model, "home", seconds=4.0)

    assert np.abs(data.qpos - home).max() < 0.04  # rad; the elbow carries the hand
    assert np.abs(data.qvel).max() < 1e-3
    assert data.ncon == 0


def test_rest_is_stable_without_torque(model):
    model.opt.disableflags = mujoco.mjtDisableBit.mjDSBL_ACTUATION
    data = simulate(model, "rest", seconds=4.0)

    assert np.abs(data.qpos - model.key("rest").qpos).max() < 0.02  # rad
    assert np.abs(data.qvel).max() < 1e-2


@pytest.mark.parametrize("key", ["home", "rest"])
def test_unpowered_arm_comes_to_rest_within_its_ranges(model, key):
    model.opt.disableflags = mujoco.mjtDisableBit.mjDSBL_ACTUATION
    data = simulate(model, key, seconds=6.0)

    assert not any(warning.number for warning in data.warning)
    assert np.all(data.qpos >= model.jnt_range[:, 0])
    assert np.all(data.qpos <= model.jnt_range[:, 1])
    assert np.abs(data.qvel).max() < 0.02


def test_gripper_does_not_move_the_tool(model):
    data = mujoco.MjData(model)
    tool = []
    for angle in (0.0, 1.5):
        data.joint("gripper").qpos = angle
        mujoco.mj_kinematics(model, data)
        tool.append(data.site("tool").xpos.copy())

    assert np.array_equal(*tool)


def test_every_target_of_the_reach_task_is_within_ninety_percent_of_the_ranges(model):
    config = ArmReachConfig()
    corners = zip(config.target_low_m, config.target_high_m, strict=True)
    grid = [np.linspace(low, high, 4) for low, high in corners]

    for target in itertools.product(*grid):
        assert reach_error(model, np.array(target)) < 1e-3, f"out of reach: {target}"


def simulate(model, key: str, *, seconds: float) -> mujoco.MjData:
    """State after holding a keyframe's control, with delay buffers that start full."""
    data = mujoco.MjData(model)
    mujoco.mj_resetDataKeyframe(model, data, model.key(key).id)
    for actuator in range(model.nu):
        held = np.full(model.actuator_history[actuator, 0], data.ctrl[actuator])
        mujoco.mj_initCtrlHistory(model, data, actuator, None, held)
    mujoco.mj_step(model, data, nstep=round(seconds / model.opt.timestep))
    return data


def reach_error(model, target: np.ndarray) -> float:
    """Distance [m] left by damped least squares from home, kept inside 90 % of the ranges."""
    data = mujoco.MjData(model)
    data.qpos = model.key("home").qpos
    centre, half = model.jnt_range.mean(axis=1), 0.45 * np.ptp(model.jnt_range, axis=1)
    jacobian = np.empty((3, model.nv))
    error = np.zeros(3)
    for _ in range(200):
        mujoco.mj_kinematics(model, data)
        mujoco.mj_comPos(model, data)
        error = target - data.site("tool").xpos
        mujoco.mj_jacSite(model, data, jacobian, None, model.site("tool").id)
        step = jacobian.T @ np.linalg.solve(jacobian @ jacobian.T + 1e-4 * np.eye(3), error)
        data.qpos = np.clip(data.qpos + step, centre - half, centre + half)
    return float(np.linalg.norm(error))
