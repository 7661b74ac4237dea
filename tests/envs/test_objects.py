"""A puck and a cube on the desk, against closed forms and in plain MuJoCo."""

from pathlib import Path

import mujoco
import numpy as np
import pytest
import torch

from deploy.errors import ConfigError
from envs.batch_simulation import BatchSimulation
from envs.objects import FreeObject, Thing, outside, with_object
from envs.robot import load_robot
from envs.worlds import every

ARMS = ("desk_arm", "so101_arm")
FINGERS = {"desk_arm": ["hand", "jaw"], "so101_arm": ["gripper", "moving_jaw"]}
GRAVITY = 9.81
PUCK = Thing(shape="puck", width_m=0.05, height_m=0.03, mass_kg=0.05, friction=0.4)


def cube(width_m: float) -> Thing:
    return Thing(shape="cube", width_m=width_m, height_m=width_m, mass_kg=0.03, friction=0.8)


@pytest.mark.parametrize("robot", ARMS)
@pytest.mark.parametrize(("friction", "mass_kg"), [(0.4, 0.05), (0.4, 0.2), (0.2, 0.05)])
def test_sliding_puck_stops_where_coulomb_says(robot: str, friction: float, mass_kg: float):
    thing = PUCK.model_copy(update={"friction": friction, "mass_kg": mass_kg})
    model = with_object(load_robot(robot), thing)
    data = at_home(model, spot=(0.3, 0.3))
    for _ in range(100):
        mujoco.mj_step(model, data)
    joint, start, speed = model.joint("object"), data.qpos[-7:-5].copy(), 0.5
    data.qvel[joint.dofadr[0]] = speed

    for _ in range(200):
        mujoco.mj_step(model, data)

    # v²/(2 μ g), less v dt/2: MuJoCo moves things with the speed that a step ends with
    way = speed**2 / (2 * friction * GRAVITY) - speed * model.opt.timestep / 2
    assert data.qpos[-7:-5] - start == pytest.approx([way, 0], abs=0.02 * way)
    assert abs(data.qvel[joint.dofadr[0]]) < 1e-3


def at_home(model: mujoco.MjModel, *, spot: tuple[float, float]) -> mujoco.MjData:
    """The arm in its home pose, and the thing on a spot of the desk."""
    data = mujoco.MjData(model)
    mujoco.mj_resetDataKeyframe(model, data, model.keyframe("home").id)
    data.qpos[-7:-5] = spot
    return data


@pytest.mark.parametrize(("name", "width_m"), [("desk_arm", 0.02), ("so101_arm", 0.025)])
def test_cube_in_a_closed_gripper_does_not_slip(name: str, width_m: float):
    """The servo closes as the policy may, and presses with what its gain and torque limit give."""
    robot = load_robot(name)
    model = with_object(robot, cube(width_m), fingers=FINGERS[name])
    data, opened, closed = at_home(model, spot=(0, 0)), 0.6, model.joint("gripper").range[0]
    gripper = robot.actuators[robot.joints.index("gripper")]
    data.joint("gripper").qpos = opened
    mujoco.mj_kinematics(model, data)
    across = 1 if name == "desk_arm" else 2  # where the other finger is, in the frame of the tool
    put_beside(model, data, across, width_m / 2 + 0.002)
    model.opt.gravity[:] = 0  # until it is held
    for step in range(200):
        data.ctrl[gripper] = max(closed, opened - 2.0 * step * model.opt.timestep)
        mujoco.mj_step(model, data)
    model.opt.gravity[2] = -GRAVITY
    for _ in range(200):
        mujoco.mj_step(model, data)
    before = in_hand(data)
    torque = abs(data.joint("gripper").qfrc_actuator[0])

    for _ in range(800):  # 4 s
        mujoco.mj_step(model, data)

    assert np.linalg.norm(in_hand(data) - before) < 0.5e-3
    assert torque <= model.actuator_forcerange[gripper, 1] + 1e-9
    forces = np.array([data.sensor(f"object/{finger}").data for finger in FINGERS[name]])
    assert forces.sum(axis=0) == pytest.approx([0, 0, 0.03 * GRAVITY], abs=0.02)
    assert np.linalg.norm(forces, axis=1).min() > 1.0


def put_beside(model: mujoco.MjModel, data: mujoco.MjData, axis: int, way_m: float) -> None:
    """Put the thing beside the tool, along an axis of its frame, and turned as the tool is."""
    tool = data.site("tool")
    turn, quat = tool.xmat.reshape(3, 3), np.zeros(4)
    mujoco.mju_mat2Quat(quat, tool.xmat)
    data.qpos[-7:-4] = tool.xpos + turn[:, axis] * way_m
    data.qpos[-4:] = quat
    for actuator in range(model.nu):  # as if it had held the pose for ever
        samples = int(model.actuator_history[actuator, 0])
        target = data.qpos[model.jnt_qposadr[model.actuator_trnid[actuator, 0]]]
        mujoco.mj_initCtrlHistory(model, data, actuator, None, np.full(samples, target))


def in_hand(data: mujoco.MjData) -> np.ndarray:
    """(3,) place of the thing in the frame of the tool [m]."""
    tool = data.site("tool")
    return tool.xmat.reshape(3, 3).T @ (data.body("object").xpos - tool.xpos)


@pytest.mark.parametrize("name", ARMS)
def test_arm_beside_a_thing_moves_as_it_does_alone(name: str):
    robot = load_robot(name)
    alone, both = robot.model, with_object(robot, PUCK)
    one, two = mujoco.MjData(alone), at_home(both, spot=(0.5, 0.5))
    mujoco.mj_resetDataKeyframe(alone, one, 0)
    for model, data in ((alone, one), (both, two)):
        data.ctrl[:] -= 0.15  # up and away from the desk
        for _ in range(100):
            mujoco.mj_step(model, data)

    assert two.qpos[: alone.nq] == pytest.approx(one.qpos, abs=1e-9)
    assert two.sensordata[: alone.nsensordata] == pytest.approx(one.sensordata, abs=1e-9)
    assert not one.ncon
    assert np.abs(one.qpos - alone.key_qpos[0]).max() > 0.1  # it moved


@pytest.mark.parametrize("name", ARMS)
@pytest.mark.parametrize("thing", [PUCK, cube(0.03)], ids=["puck", "cube"])
def test_thing_is_put_down_as_tall_as_it_is_in_each_world(name: str, thing: Thing):
    simulation = BatchSimulation(with_object(load_robot(name), thing), 3, num_threads=1)
    tall = 1 if thing.shape == "puck" else 2
    simulation.field("geom_size")[:, simulation.model.geom("object").id, tall] *= torch.tensor(
        [0.8, 1.0, 1.2]
    )
    seen, worlds = FreeObject(simulation), every(3)
    qpos = torch.from_numpy(simulation.model.keyframe("home").qpos).repeat(3, 1)
    xy = torch.tensor([[0.3, 0.2], [0.3, 0.0], [0.35, -0.2]])

    seen.put_down(qpos, worlds, xy, torch.tensor([0.0, 0.5, 1.0]))
    simulation.data("qpos").copy_(qpos)
    simulation.data("ctrl").copy_(torch.from_numpy(simulation.model.keyframe("home").ctrl))
    simulation.step(20)

    assert seen.lift.abs().max() < 2e-4
    assert (seen.position[:, :2] - xy).abs().max() < 1e-3
    assert seen.velocity.abs().max() < 1e-2


def test_thing_is_outside_a_box_and_its_margin():
    points = torch.tensor([[0.1, 0.0], [0.3, 0.0], [0.311, 0.0], [0.2, -0.11], [0.2, -0.09]])
    found = outside(points, (0.1, -0.08), (0.3, 0.1), 0.01)
    assert found.tolist() == [False, False, True, True, False]


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (('name="desk" type="plane" size="0.6 0.6 0.01"', 'type="sphere" size="0.01"'), "no desk"),
        (('geom conaffinity="1" friction', "geom friction"), "no geom of it touches things"),
        (('body name="wrist"', 'body name="object"'), "has a part named 'object'"),
    ],
)
def test_robot_that_has_no_place_for_things_is_refused(
    change: tuple[str, str], expected: str, tmp_path: Path
):
    text = load_robot("desk_arm").path.read_text()
    assert change[0] in text
    path = tmp_path / "arm.xml"
    path.write_text(text.replace(*change))

    with pytest.raises(ConfigError, match=expected):
        with_object(load_robot(str(path)), PUCK)


def test_finger_that_cannot_touch_is_refused():
    with pytest.raises(ConfigError, match=r"no geom of \['wrist'\] touches things"):
        with_object(load_robot("desk_arm"), PUCK, fingers=["wrist", "jaw"])
