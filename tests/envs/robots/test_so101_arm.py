"""The SO-101 against the makers' model, the servo's data sheet, and what an arm must do at rest.

Published numbers are those of TheRobotStudio/SO-ARM100, Simulation/SO101/so101_new_calib.xml,
loaded in MuJoCo: read there, or worked out there where a comment says so.
"""

import itertools

import mujoco
import numpy as np
import pytest
import torch

import envs
from deploy.servos.models import SERVOS
from envs.robot import load_robot
from envs.servos import add_servo
from robotrl.runs.train_config import load_train_config
from robotrl.shipped import config_path

CONFIG = config_path("train") / "so101_reach.yaml"
PATH = load_robot("so101_arm").path
LINKS = {  # mass [kg], joint, its anchor at the zero pose [m], its axis, its range [rad]
    "shoulder": (0.1, "shoulder_pan", (0.0388, 0, 0.0624), (0, 0, -1), (-1.920, 1.920)),
    "upper_arm": (0.103, "shoulder_lift", (0.0692, -0.0183, 0.1166), (0, 1, 0), (-1.745, 1.745)),
    "lower_arm": (0.104, "elbow_flex", (0.0972, -0.0183, 0.2292), (0, 1, 0), (-1.69, 1.69)),
    "wrist": (0.079, "wrist_flex", (0.2321, -0.0183, 0.2344), (0, 1, 0), (-1.658, 1.658)),
    "gripper": (0.087, "wrist_roll", (0.2932, -0.0002, 0.2344), (-1, 0, 0), (-2.744, 2.841)),
    "moving_jaw": (0.012, "gripper", (0.3166, 0.0176, 0.2555), (0, -1, -0.05), (-0.175, 1.745)),
}  # fmt: skip
JOINTS = [joint for _, joint, *_ in LINKS.values()]
POSES = {  # joint angles: tool, centre of mass [m], torque against gravity [N·m], in MuJoCo
    (0, 0, 0, 0, 0, 0): (
        (0.3914, 0, 0.2265),
        (0.1432, 0.0012, 0.1600),
        (0, -0.5386, -0.4527, -0.1171, 0, 0.0035),
    ),
    (0.5, -0.8, 0.9, 0.6, 0, 0.3): (
        (0.2324, -0.1058, 0.0982),
        (0.0822, -0.0255, 0.1327),
        (0, -0.1982, -0.4269, -0.0917, 0, 0.0032),
    ),
    (-1, 0.6, -0.4, 1, 1.5, 1.0): (
        (0.2117, 0.2543, 0.0233),
        (0.1024, 0.1120, 0.1123),
        (0, -0.6718, -0.3738, -0.0424, -0.002, 0.0028),
    ),
}


@pytest.fixture
def model() -> mujoco.MjModel:
    return mujoco.MjModel.from_xml_path(str(PATH))


def test_joints_and_servos_are_in_the_order_of_the_bus(model):
    assert [model.joint(index).name for index in range(model.njnt)] == JOINTS
    assert [model.actuator(index).name for index in range(model.nu)] == JOINTS


def test_masses_are_the_published_ones(model):
    assert model.body("base").mass == pytest.approx(0.147)
    assert [model.body(body).mass for body in LINKS] == [
        pytest.approx(mass) for mass, *_ in LINKS.values()
    ]
    assert model.body_mass.sum() == pytest.approx(0.632, abs=1e-4)


@pytest.mark.parametrize("body", LINKS)
def test_axes_and_ranges_are_the_published_ones(model, body: str):
    _, joint, anchor, axis, limits = LINKS[body]
    data = mujoco.MjData(model)
    mujoco.mj_forward(model, data)

    assert data.joint(joint).xanchor == pytest.approx(anchor, abs=2e-4)
    assert data.joint(joint).xaxis == pytest.approx(axis, abs=2e-3)
    assert model.joint(joint).range == pytest.approx(limits, abs=1e-3)
    assert model.body_jntadr[model.body(body).id] == model.joint(joint).id


@pytest.mark.parametrize("pose", POSES)
def test_tool_centre_of_mass_and_gravity_are_those_of_the_makers_model(model, pose):
    tool, centre, gravity = POSES[pose]
    data = mujoco.MjData(model)
    data.qpos = pose
    mujoco.mj_forward(model, data)

    assert data.site("tool").xpos == pytest.approx(tool, abs=4e-4)
    assert data.subtree_com[model.body("base").id] == pytest.approx(centre, abs=2e-4)
    assert data.qfrc_bias == pytest.approx(gravity, abs=1e-3)


def test_servos_are_the_sts3215_of_the_table(model):
    spec = mujoco.MjSpec.from_file(str(PATH))
    for element in [*spec.actuators, *spec.texts]:
        spec.delete(element)
    for joint in JOINTS:
        add_servo(spec, joint, SERVOS["STS3215-12V"], p_gain=16, delay_s=0.01)
    table = spec.compile()

    for name in (
        "actuator_gainprm",
        "actuator_biasprm",
        "actuator_forcerange",
        "actuator_damping",
        "actuator_ctrlrange",
        "actuator_delay",
        "dof_damping",
        "dof_frictionloss",
        "dof_armature",
    ):
        assert getattr(model, name) == pytest.approx(getattr(table, name), rel=1e-12), name
    assert model.text_data == table.text_data  # which names the servo


def test_stall_torque_and_free_speed_are_those_of_the_data_sheet(model):
    torque, friction = model.actuator_forcerange[:, 1], model.dof_frictionloss
    lost_with_speed = model.actuator_damping + model.dof_damping

    assert torque - friction == pytest.approx(30 * 0.0980665, rel=1e-3)  # 30 kg·cm at 12 V
    # 45 rev/min = 4.712 rad/s
    assert (torque - friction) / lost_with_speed == pytest.approx(45 * 2 * np.pi / 60, rel=1e-6)


def test_home_is_held_with_the_droop_of_soft_servos(model):
    data = simulate(model, "home", seconds=4.0)

    # The elbow's 0.43 N·m, less 0.05 N·m of friction, over 8.2 N·m/rad are 0.05 rad.
    assert np.abs(data.qpos - model.key("home").qpos).max() == pytest.approx(0.05, abs=0.005)
    assert np.abs(data.qvel).max() < 1e-3
    assert data.ncon == 0


def test_rest_is_stable_without_torque(model):
    cut_power(model)
    data = simulate(model, "rest", seconds=3.0)

    assert np.abs(data.qpos - model.key("rest").qpos).max() < 0.01  # rad
    assert np.abs(data.qvel).max() < 1e-2


@pytest.mark.parametrize("key", ["home", "rest"])
def test_unpowered_arm_comes_to_rest_within_its_ranges(model, key: str):
    cut_power(model)
    data = simulate(model, key, seconds=6.0)

    assert not any(warning.number for warning in data.warning)
    assert np.all(data.qpos >= model.jnt_range[:, 0])
    assert np.all(data.qpos <= model.jnt_range[:, 1])
    assert np.abs(data.qvel).max() < 0.02


@pytest.mark.parametrize("roll", [0.0, 1.57, 2.8])
def test_closed_gripper_holds_a_cube(roll: float):
    """20 mm, 20 g, between the pads; held for two seconds in any direction of gravity."""
    spec = mujoco.MjSpec.from_file(str(PATH))
    for key in spec.keys:
        spec.delete(key)
    cube = spec.worldbody.add_body(name="cube")
    cube.add_freejoint()
    cube.add_geom(
        type=mujoco.mjtGeom.mjGEOM_BOX, size=[0.01] * 3, mass=0.02, contype=1, conaffinity=1
    )
    model = spec.compile()
    data = mujoco.MjData(model)
    data.qpos[:6] = [0, -0.8, 0.9, 0.6, roll, 0.09]
    mujoco.mj_forward(model, data)
    hand = data.body("gripper")
    data.qpos[6:9] = hand.xpos + hand.xmat.reshape(3, 3) @ [0.092, 0, 0.003]
    data.qpos[9:13] = hand.xquat
    data.ctrl = [*data.qpos[:5], -0.175]
    fill_delays(model, data)

    held = []
    for _ in range(4):
        mujoco.mj_step(model, data, nstep=100)
        held.append(hand.xmat.reshape(3, 3).T @ (data.body("cube").xpos - hand.xpos))

    assert np.ptp(held, axis=0).max() < 5e-4  # m, within the hand
    assert held[-1] == pytest.approx([0.092, 0, 0], abs=4e-3)


def test_targets_of_the_reach_configuration_are_within_ninety_percent_of_the_ranges(model):
    config = load_train_config(CONFIG, []).task_config
    corners = zip(config["target_low_m"], config["target_high_m"], strict=True)
    targets = np.array(list(itertools.product(*(np.linspace(*ends, 5) for ends in corners))))
    data = mujoco.MjData(model)
    poses = np.random.default_rng(0).uniform(*ninety_percent(model), (4000, 4))
    tools = np.array([tool(model, data, pose) for pose in poses])

    for target in targets:  # the corners of the box are among them
        nearest = np.argsort(np.linalg.norm(tools - target, axis=1))[:8]
        assert any(
            np.linalg.norm(refine(model, data, poses[start], target)) < 1e-3 and data.ncon == 0
            for start in nearest
        ), f"out of reach, or the arm lies on the desk: {target}"


def test_reach_runs_on_it_from_the_shipped_configuration():
    config = load_train_config(CONFIG, [])
    env = envs.make(
        config.task,
        num_envs=4,
        num_threads=1,
        task_config=config.task_config,
        randomization=config.terms,
    )
    env.reset()
    generator = torch.Generator().manual_seed(0)

    for _ in range(50):
        observation, *_ = env.step(2 * torch.rand(4, env.num_actions, generator=generator) - 1)
        assert observation["critic"].isfinite().all()

    assert env.diverged == 0
    assert [joint.name for joint in env.deployment.joints] == JOINTS


def cut_power(model: mujoco.MjModel) -> None:
    """No torque, nor back-EMF: an open bridge."""
    model.opt.disableflags = int(mujoco.mjtDisableBit.mjDSBL_ACTUATION)
    model.actuator_damping[:] = 0


def fill_delays(model: mujoco.MjModel, data: mujoco.MjData) -> None:
    """What was commanded before the start is what is commanded now."""
    for actuator in range(model.nu):
        held = np.full(model.actuator_history[actuator, 0], data.ctrl[actuator])
        mujoco.mj_initCtrlHistory(model, data, actuator, None, held)


def simulate(model: mujoco.MjModel, key: str, *, seconds: float) -> mujoco.MjData:
    """State after holding a keyframe's control."""
    data = mujoco.MjData(model)
    mujoco.mj_resetDataKeyframe(model, data, model.key(key).id)
    fill_delays(model, data)
    mujoco.mj_step(model, data, nstep=round(seconds / model.opt.timestep))
    return data


def tool(model: mujoco.MjModel, data: mujoco.MjData, pose: np.ndarray) -> np.ndarray:
    """Where the tool is at angles of the first four joints [m]."""
    data.qpos[:4] = pose
    mujoco.mj_kinematics(model, data)
    return data.site("tool").xpos.copy()


def ninety_percent(model: mujoco.MjModel) -> tuple[np.ndarray, np.ndarray]:
    """(4,) ends of what the test uses of the first four joints' ranges."""
    centre, half = model.jnt_range[:4].mean(axis=1), 0.45 * np.ptp(model.jnt_range[:4], axis=1)
    return centre - half, centre + half


def refine(
    model: mujoco.MjModel, data: mujoco.MjData, pose: np.ndarray, target: np.ndarray
) -> np.ndarray:
    """What is left to a target [m] after damped least squares from a pose; contacts in `data`."""
    jacobian = np.empty((3, model.nv))
    for _ in range(30):
        error = target - tool(model, data, pose)
        mujoco.mj_comPos(model, data)
        mujoco.mj_jacSite(model, data, jacobian, None, model.site("tool").id)
        moved = jacobian[:, :4]
        step = moved.T @ np.linalg.solve(moved @ moved.T + 1e-4 * np.eye(3), error)
        pose = np.clip(pose + step, *ninety_percent(model))
    error = target - tool(model, data, pose)
    mujoco.mj_forward(model, data)
    return error
