"""Joints of a robot, read by name in all worlds."""

import mujoco
import pytest
import torch

from envs.batch_simulation import BatchSimulation
from envs.draws import Draws
from envs.objects import Thing, with_object
from envs.robot import load_robot
from envs.robot_joints import RobotJoints
from envs.worlds import every

PUCK = Thing(shape="puck", width_m=0.05, height_m=0.03, mass_kg=0.05, friction=0.4)


@pytest.fixture(params=["desk_arm", "so101_arm"])
def arm(request: pytest.FixtureRequest) -> tuple[BatchSimulation, RobotJoints]:
    robot = load_robot(request.param)
    simulation = BatchSimulation(with_object(robot, PUCK), 3, num_threads=1)
    return simulation, RobotJoints(simulation, robot, margin_rad=0.05)


def test_tables_are_what_mujoco_calls_by_name(arm: tuple[BatchSimulation, RobotJoints]):
    simulation, joints = arm
    model, data = simulation.model, mujoco.MjData(simulation.model)
    data.qpos[:], data.qvel[:] = range(model.nq), range(100, 100 + model.nv)
    data.ctrl[:] = range(200, 200 + model.nu)
    for name in ("qpos", "qvel", "ctrl"):
        simulation.data(name)[:] = torch.from_numpy(getattr(data, name))

    for column, name in enumerate(joints.names):
        assert joints.angle[1, column] == data.joint(name).qpos[0]
        assert joints.speed[1, column] == data.joint(name).qvel[0]
        assert joints.target[1, column] == data.actuator(name).ctrl[0]
        dof = model.joint(name).dofadr[0]
        assert joints.friction_loss[1, column] == pytest.approx(model.dof_frictionloss[dof])
        assert joints.delay[1, column] == pytest.approx(0.01)


def test_torques_and_angles_from_home_are_those_of_mujoco(
    arm: tuple[BatchSimulation, RobotJoints],
):
    simulation, joints = arm
    model, data = simulation.model, mujoco.MjData(simulation.model)
    data.qpos[:] = model.keyframe("home").qpos
    for name in joints.names:  # 0.3 rad above the highest target, which is 0.05 rad inside
        data.joint(name).qpos[0] = model.actuator(name).ctrlrange[1] + 0.25
    data.qvel[:] = 0
    mujoco.mj_forward(model, data)
    for name in ("qpos", "actuator_force"):
        simulation.data(name)[:] = torch.from_numpy(getattr(data, name))

    home = model.keyframe("home").qpos
    for column, name in enumerate(joints.names):
        moved = data.joint(name).qpos[0] - home[model.joint(name).qposadr[0]]
        assert joints.from_home[1, column] == pytest.approx(moved)
        force, largest = data.actuator(name).force[0], model.actuator(name).forcerange[1]
        assert force != 0
        assert joints.torque[1, column] == pytest.approx(force)
        assert joints.effort[1, column] == pytest.approx(force / largest)
    assert joints.outside.tolist() == pytest.approx([0.3 * len(joints.names)] * 3)


def test_worlds_differ_only_in_the_fields_that_are_asked_for(
    arm: tuple[BatchSimulation, RobotJoints],
):
    simulation, joints = arm
    assert not simulation.state_dict()["fields"]
    assert joints.delay.shape == (3, len(joints.names))
    assert list(simulation.state_dict()["fields"]) == ["actuator_delay"]


def test_columns_pick_joints_in_the_order_of_their_names(
    arm: tuple[BatchSimulation, RobotJoints],
):
    _, joints = arm
    names = torch.arange(len(joints.names))
    for chosen in (["wrist_roll", "shoulder_pan"], ["shoulder_lift", "elbow_flex"]):
        found = names[joints.columns(chosen)].tolist()
        assert [joints.names[place] for place in found] == chosen


def test_episodes_start_around_home_within_the_margin_and_hold_what_they_have(
    arm: tuple[BatchSimulation, RobotJoints],
):
    simulation, joints = arm
    draws = Draws(0, simulation.device)

    state = joints.start(every(3), torch.zeros(3, dtype=torch.int64), draws, spread_rad=9.0)

    home = torch.from_numpy(simulation.model.keyframe("home").qpos)
    assert torch.equal(state.qpos[:, -7:], home[-7:].repeat(3, 1))  # the puck
    angle = state.qpos[:, joints.robot.qpos]
    assert ((angle >= joints.low) & (angle <= joints.high)).all()
    assert len({tuple(row) for row in angle.tolist()}) == 3
    assert torch.equal(state.ctrl[:, joints.robot.actuators], angle)
    assert not state.qvel.any()
    low = simulation.model.actuator_ctrlrange[joints.robot.actuators, 0]
    assert joints.low.tolist() == pytest.approx((low + 0.05).tolist())
