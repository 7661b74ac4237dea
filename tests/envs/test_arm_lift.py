"""Lifting: fingers, grip and rewards by hand, and a cube that is really grasped."""

import mujoco
import numpy as np
import pytest
import torch
from torch import Tensor

import envs
from deploy.errors import ConfigError
from envs.rewards import closeness
from envs.robot import load_robot
from envs.tasks.arm_lift import ArmLift, ArmLiftConfig, fingers_of, grip

X, NOTHING = torch.tensor([1.0, 0.0, 0.0]), torch.zeros(3)


def make(robot: str = "desk_arm", num_envs: int = 2, *, weights: bool = True) -> envs.VectorEnv:
    rewards = {} if weights else dict.fromkeys(("approach", "pinch"), 0.0)
    settings = {"robot": robot, "rewards": rewards, "start_spread_rad": 0.0}
    return envs.make("arm_lift", num_envs=num_envs, num_threads=1, task_config=settings)


def lift(env: envs.VectorEnv) -> ArmLift:
    assert isinstance(env.task, ArmLift)
    return env.task


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        (3 * X, -2 * X, 2.0),  # both press towards the other: the weaker counts
        (3 * X, NOTHING, 0.0),  # one finger
        (3 * X, 2 * X, 0.0),  # both push the same way
        (-3 * X, 2 * X, 0.0),  # it is torn apart
        (3 * X + torch.tensor([0, 5.0, 0]), -2 * X, 2.0),  # what is across does not count
    ],
)
def test_grip_is_the_weaker_of_two_fingers_that_press_towards_each_other(
    first: Tensor, second: Tensor, expected: float
):
    tool, tip = torch.zeros(1, 3), 0.02 * X[None]
    found = grip(tool, tip, torch.stack([first, second])[None])
    assert found.item() == pytest.approx(expected)


@pytest.mark.parametrize(
    ("robot", "bodies"), [("desk_arm", ["hand", "jaw"]), ("so101_arm", ["gripper", "moving_jaw"])]
)
def test_fingers_are_those_of_the_tool_and_of_the_gripper_and_meet_when_it_is_closed(
    robot: str, bodies: list[str]
):
    names, tip = fingers_of(load_robot(robot), ArmLiftConfig(robot=robot))
    assert names == bodies
    model = load_robot(robot).model
    for angle, gap in ((model.joint("gripper").range[0], 0.0), (0.5, None)):
        data = mujoco.MjData(model)
        data.joint("gripper").qpos = angle
        mujoco.mj_kinematics(model, data)
        body = data.body(names[1])
        end = body.xpos + body.xmat.reshape(3, 3) @ tip
        found = float(((end - data.site("tool").xpos) ** 2).sum() ** 0.5)
        if gap == 0.0:
            assert found < 1e-9
        else:
            assert 0.025 < found < 0.06  # wide enough for a cube


@pytest.mark.parametrize("robot", ["desk_arm", "so101_arm"])
def test_pinch_point_is_between_the_fingertips_of_the_worlds(robot: str):
    env = make(robot)
    env.reset()
    task, model = lift(env), env.simulation.model
    data = mujoco.MjData(model)
    data.qpos[:] = env.simulation.data("qpos")[0].numpy()
    mujoco.mj_kinematics(model, data)
    names, tip = fingers_of(load_robot(robot), task.config)
    body = data.body(names[1])
    end = body.xpos + body.xmat.reshape(3, 3) @ tip
    expected = (end + data.site("tool").xpos) / 2
    assert task.pinch[0].tolist() == pytest.approx(expected.tolist(), abs=1e-6)


def test_fingers_earn_by_going_around_the_cube_and_then_by_closing():
    env = make(num_envs=3)
    env.reset()
    task, simulation = lift(env), env.simulation
    simulation.field("opt.gravity").zero_()
    model, qpos = simulation.model, simulation.data("qpos")
    qpos[:, -8] = torch.tensor([float(model.joint("gripper").range[0]), 0.2, 0.6])
    qpos[:, -7:-4] = torch.tensor([0.23, 0.01, 0.14])  # before them, so that nothing is touched

    terms = env.step(torch.zeros(3, 6)).info.rewards

    gaps, reaches = [], []
    names, tip = fingers_of(load_robot("desk_arm"), task.config)
    for world in range(3):
        data = mujoco.MjData(model)
        data.qpos[:] = qpos[world].numpy()
        mujoco.mj_kinematics(model, data)
        body, tool = data.body(names[1]), data.site("tool").xpos
        end = body.xpos + body.xmat.reshape(3, 3) @ tip
        gaps.append(float(np.linalg.norm(end - tool)))
        reaches.append(float(np.linalg.norm((end + tool) / 2 - data.body("object").xpos)))
    assert gaps[0] < 0.002 < 0.005 < gaps[1] < 0.018 < 0.022 < gaps[2]
    gap, far = torch.tensor(gaps), closeness(torch.tensor(reaches), 0.1)
    near, around = far**5, (gap / 0.02).clamp(max=1)
    assert not task.grip.any()
    assert near.min() > 0.1
    found = [terms[name].tolist() for name in ("approach", "pinch", "grasp")]
    shares = [around * far, around * near, near * torch.minimum(gap / 0.02, 0.02 / gap) / 2]
    for values, share in zip(found, shares, strict=True):
        assert values == pytest.approx((0.5 * share).tolist(), abs=2e-3)


def hold_cube(env: envs.VectorEnv) -> None:
    """Close the grippers of a desk arm around its cubes in the air, and then let gravity act."""
    simulation, task = env.simulation, lift(env)
    gravity, qpos = simulation.field("opt.gravity"), simulation.data("qpos")
    gravity.zero_()
    opened = torch.tensor([[0.0, 0.0, 0.0, 0.0, 0.0, 1.0]]).repeat(env.num_envs, 1)
    for _ in range(12):
        env.step(opened)
    tool = simulation.data("site_xpos")[:, simulation.model.site("tool").id]
    turn = simulation.data("site_xmat")[:, simulation.model.site("tool").id].view(-1, 3, 3)
    qpos[:, -7:-4] = tool + 0.012 * turn[:, :, 1]
    for world in range(env.num_envs):
        mujoco.mju_mat2Quat(qpos[world, -4:].numpy(), turn[world].flatten().numpy())
    simulation.data("qvel").zero_()
    for _ in range(40):
        env.step(-opened)
    gravity[:, 2] = -9.81
    for _ in range(20):
        env.step(-opened)
    assert (task.grip > 1).all()


def test_held_cube_earns_grasp_and_lift_and_is_told_to_the_critic():
    env = make(weights=False)
    env.reset()
    first = env.step(torch.zeros(2, 6))
    assert (lift(env).grip == 0).all()
    assert (first.info.rewards["grasp"].abs() < 0.05).all()
    assert (first.info.rewards["lift"].abs() < 0.05).all()
    hold_cube(env)
    task = lift(env)
    task.command[:] = task.object.position + torch.tensor([0.0, 0.0, 0.02])

    step = env.step(torch.tensor([[0.0, 0.0, 0.0, 0.0, 0.0, -1.0]]).repeat(2, 1))

    terms = step.info.rewards
    weights = task.config.rewards
    assert terms["grasp"].tolist() == pytest.approx([weights.grasp] * 2)
    assert terms["lift"].tolist() == pytest.approx([weights.lift] * 2)
    near = closeness(torch.linalg.vector_norm(task.way, dim=1), 0.1)
    torch.testing.assert_close(terms["carry"], weights.carry * near)
    columns = env.columns["critic"]
    seen = step.observation["critic"]
    torch.testing.assert_close(seen[:, columns.index("grip")], task.grip)
    torch.testing.assert_close(seen[:, columns.index("lift")], task.object.lift)
    distance, lifted = task.score()
    assert lifted.tolist() == [1, 1]
    torch.testing.assert_close(distance, torch.linalg.vector_norm(task.way, dim=1))


def test_cube_on_the_desk_is_not_lifted_however_near_its_goal_is():
    env = make()
    env.reset()
    task = lift(env)
    task.command[:] = task.object.position

    terms = env.step(torch.zeros(2, 6)).info.rewards

    for name in ("lift", "carry", "hold"):
        assert terms[name].abs().max() < 0.02


def test_gripper_whose_finger_cannot_touch_is_refused():
    with pytest.raises(ConfigError, match=r"no geom of \['wrist', 'jaw'\]|\['wrist'\] touches"):
        envs.make("arm_lift", task_config={"gripper": "wrist_flex"})


def test_cube_that_is_wider_than_the_fingers_open_is_refused():
    thing = {"shape": "cube", "width_m": 0.3, "height_m": 0.02, "mass_kg": 0.02, "friction": 0.8}
    message = (
        r"thing\.width_m: 0\.300 m, but the fingers of desk_arm open to 0\.0\d\d m; choose a na"
    )
    with pytest.raises(ConfigError, match=message):
        envs.make("arm_lift", task_config={"thing": thing})


@pytest.mark.parametrize(
    ("joints", "message"),
    [
        (
            ["shoulder_pan"],
            r"gripper: 'gripper' is not among arm_joints \['shoulder_pan'\]; add it",
        ),
        (["gripper"], r"must hold, beside the gripper 'gripper', a joint that moves it; add one"),
    ],
)
def test_arm_that_does_not_move_its_gripper_or_nothing_else_is_refused(
    joints: list[str], message: str
):
    with pytest.raises(ConfigError, match=message):
        envs.make("arm_lift", task_config={"arm_joints": joints})


ARM = ["shoulder_pan", "shoulder_lift", "elbow_flex", "wrist_flex"]


@pytest.mark.parametrize("grip_effort", [0.18, 0.5])
def test_contract_says_how_hard_the_gripper_presses(grip_effort: float):
    settings = {"robot": "so101_arm", "start_low_m": [0.2, -0.1], "grip_effort": grip_effort}
    env = envs.make("arm_lift", num_envs=1, task_config=settings)
    env.reset()
    *arm, gripper = env.deployment.joints
    assert gripper.lead_rad and gripper.name == "gripper"
    torque_nm = gripper.kp_nm_per_rad * gripper.lead_rad
    assert torque_nm == pytest.approx(grip_effort * gripper.effort_limit_nm)
    assert {joint.lead_rad for joint in arm} == {None}

    targets = env.task.decoder(  # to one that is sent far away, and stays where it is
        torch.ones(1, env.num_actions), env.signals | {"joint_target": torch.full((1, 6), 1.7)}
    )
    ahead = targets - env.signals["joint_position"]
    assert float(ahead[0, -1]) == pytest.approx(gripper.lead_rad, rel=1e-4)


@pytest.mark.parametrize("joints", [["gripper", *ARM], [*ARM, "gripper"]])
def test_posture_is_that_of_all_but_the_gripper_wherever_it_stands(joints: list[str]):
    settings = {"arm_joints": joints, "start_spread_rad": 0.0, "rewards": {"posture": 1.0}}
    env = envs.make("arm_lift", num_threads=1, task_config=settings)
    task = lift(env)
    env.reset()
    still = torch.zeros(1, env.num_actions)
    robot = load_robot("desk_arm")
    angles = dict(zip(robot.joints, robot.qpos.tolist(), strict=True))
    qpos = env.simulation.data("qpos")

    qpos[0, angles["gripper"]] += 0.5
    assert task.rewards(still, still)["posture"].item() == pytest.approx(0, abs=1e-4)
    qpos[0, angles["shoulder_lift"]] += 0.1
    assert task.rewards(still, still)["posture"].item() == pytest.approx(0.01 / 4, abs=1e-4)
