"""Signals of joints and IMU against closed forms, on a robot whose IMU is turned on its trunk."""

import math
from pathlib import Path

import mujoco
import numpy as np
import pytest
import torch
from torch import Tensor

from deploy.errors import ConfigError
from envs.batch_simulation import BatchSimulation
from envs.robot import Robot, load_robot
from envs.sensors import SENSORS, SensorReader, sensor_columns
from envs.simulation import State
from envs.worlds import Worlds, every

CRAWLER = Path(__file__).parent / "models" / "crawler.xml"
KINDS = ("imu_angular_velocity", "projected_gravity", "joint_position", "joint_velocity")
WORLDS = 6


def rotation(axis: str, angle: float) -> np.ndarray:
    """Matrix of a turn by `angle` [rad] about x, y or z, counter-clockwise seen from its tip."""
    i = "xyz".index(axis)
    j, k = (i + 1) % 3, (i + 2) % 3
    matrix = np.eye(3)
    matrix[[j, j, k, k], [j, k, j, k]] = (
        math.cos(angle), -math.sin(angle), math.sin(angle), math.cos(angle)
    )  # fmt: skip
    return matrix


# euler="0.2 -0.3 1.2" in the MJCF: about x, then the new y, then the new z.
TRUNK_IMU = rotation("x", 0.2) @ rotation("y", -0.3) @ rotation("z", 1.2)
"""Columns are the IMU's axes in the trunk's frame."""


@pytest.fixture(scope="module")
def robot() -> Robot:
    return load_robot(str(CRAWLER))


@pytest.fixture
def simulation(robot: Robot) -> BatchSimulation:
    return BatchSimulation(robot.model, WORLDS, num_threads=1)


@pytest.fixture
def reader(simulation: BatchSimulation, robot: Robot) -> SensorReader:
    return SensorReader(simulation, robot.sensors(KINDS))


def quaternions_of(angles: np.ndarray) -> np.ndarray:
    """(n, 4) wxyz of turns (n, 3) about x, then the new y, then the new z [rad]."""
    rows = []
    for turns in angles:
        total = np.array([1.0, 0, 0, 0])
        for axis, angle in enumerate(turns):
            one = np.zeros(4)
            one[0], one[1 + axis] = math.cos(angle / 2), math.sin(angle / 2)
            total = multiply(total, one)
        rows.append(total)
    return np.array(rows)


def multiply(p: np.ndarray, q: np.ndarray) -> np.ndarray:
    """Hamilton product of two quaternions wxyz."""
    scalar = p[0] * q[0] - p[1:] @ q[1:]
    return np.array([scalar, *(p[0] * q[1:] + q[0] * p[1:] + np.cross(p[1:], q[1:]))])


def place(
    simulation: BatchSimulation, robot: Robot, quat: np.ndarray, spin: np.ndarray | None = None
) -> None:
    """Worlds with the trunk turned (WORLDS, 4), spinning with (WORLDS, 3) rad/s in its frame."""
    qpos = torch.from_numpy(np.tile(robot.home_qpos, (WORLDS, 1)))
    qpos[:, 2] = 1.0  # no contact
    qpos[:, 3:7] = torch.from_numpy(quat)
    qvel = torch.zeros(WORLDS, robot.model.nv, dtype=torch.float64)
    if spin is not None:
        qvel[:, 3:6] = torch.from_numpy(spin)
    ctrl = torch.from_numpy(np.tile(robot.model.keyframe("home").ctrl, (WORLDS, 1)))
    simulation.reset(every(WORLDS), State(qpos, qvel, ctrl))


def test_projected_gravity_is_down_seen_from_the_turned_imu(
    simulation: BatchSimulation, robot: Robot, reader: SensorReader
):
    angles = np.random.default_rng(0).uniform(-3, 3, (WORLDS, 3))

    place(simulation, robot, quaternions_of(angles))

    measured = reader.read(every(WORLDS))["projected_gravity"]
    for (x, y, z), found in zip(angles, measured, strict=True):
        world_imu = rotation("x", x) @ rotation("y", y) @ rotation("z", z) @ TRUNK_IMU
        assert found.numpy() == pytest.approx(world_imu.T @ [0, 0, -1], abs=1e-6)


def test_projected_gravity_of_a_level_trunk_is_the_tilt_of_its_imu(
    simulation: BatchSimulation, robot: Robot, reader: SensorReader
):
    place(simulation, robot, np.tile([1.0, 0, 0, 0], (WORLDS, 1)))

    # Turned by a about x and b about the new y, the trunk's z axis is
    # (-cos a sin b, sin a, cos a cos b); then by c about that z: turn its x and y back by c.
    a, b, c = 0.2, -0.3, 1.2
    x, y = -math.cos(a) * math.sin(b), math.sin(a)
    up = [
        x * math.cos(c) + y * math.sin(c),
        -x * math.sin(c) + y * math.cos(c),
        math.cos(a) * math.cos(b),
    ]
    measured = reader.read(every(WORLDS))["projected_gravity"]
    assert measured[0].numpy() == pytest.approx(-np.array(up), abs=1e-6)


@pytest.mark.parametrize("axis", range(3))
def test_gyro_of_a_spinning_trunk_is_its_spin_in_the_frame_of_the_imu(
    simulation: BatchSimulation, robot: Robot, reader: SensorReader, axis: int
):
    angles = np.random.default_rng(axis).uniform(-3, 3, (WORLDS, 3))
    spin = np.zeros((WORLDS, 3))
    spin[:, axis] = np.arange(1, WORLDS + 1)

    place(simulation, robot, quaternions_of(angles), spin)

    measured = reader.read(every(WORLDS))["imu_angular_velocity"].numpy()
    assert measured == pytest.approx(spin @ TRUNK_IMU, abs=1e-5)  # rows: TRUNK_IMU.T @ spin


def test_gravity_turns_as_the_gyro_says(
    simulation: BatchSimulation, robot: Robot, reader: SensorReader
):
    # A vector that stands still in the world moves by -ω × v in a frame that turns with ω.
    spin = np.random.default_rng(1).uniform(-2, 2, (WORLDS, 3))
    quat = quaternions_of(np.random.default_rng(2).uniform(-3, 3, (WORLDS, 3)))
    place(simulation, robot, quat, spin)
    before = {name: value.double() for name, value in reader.read(every(WORLDS)).items()}

    simulation.step(1)

    after = {name: value.double() for name, value in reader.read(every(WORLDS)).items()}
    omega = (before["imu_angular_velocity"] + after["imu_angular_velocity"]) / 2
    gravity = (before["projected_gravity"] + after["projected_gravity"]) / 2
    rate = (after["projected_gravity"] - before["projected_gravity"]) / robot.model.opt.timestep
    assert rate.abs().max() > 0.5
    # float32 readings over 5 ms: 6e-8 / 0.005 s = 1e-5 1/s; the rest is the step's own length.
    torch.testing.assert_close(rate, -torch.linalg.cross(omega, gravity), atol=2e-2, rtol=0)


def test_joint_signals_are_those_of_the_named_joints(
    simulation: BatchSimulation, robot: Robot, reader: SensorReader
):
    place(simulation, robot, np.tile([1.0, 0, 0, 0], (WORLDS, 1)))
    generator = torch.Generator().manual_seed(0)
    for _ in range(10):
        command = torch.rand(WORLDS, robot.model.nu, generator=generator, dtype=torch.float64)
        simulation.data("ctrl").copy_(command)
        simulation.step(3)

    measured = reader.read(every(WORLDS))

    plain = mujoco.MjData(robot.model)
    for world in range(WORLDS):
        plain.qpos[:] = simulation.data("qpos")[world]
        plain.qvel[:] = simulation.data("qvel")[world]
        angles = [plain.joint(name).qpos[0] for name in robot.joints]
        speeds = [plain.joint(name).qvel[0] for name in robot.joints]
        assert np.ptp(angles) > 0.1
        assert np.ptp(speeds) > 0.1
        assert measured["joint_position"][world].numpy() == pytest.approx(angles, abs=1e-6)
        assert measured["joint_velocity"][world].numpy() == pytest.approx(speeds, abs=1e-5)


def test_delayed_sensor_shows_an_earlier_angle(
    simulation: BatchSimulation, robot: Robot, reader: SensorReader
):
    model = robot.model
    knee = robot.joints.index("rear_left_knee")
    column = int(robot.sensors(["joint_position"])["joint_position"][knee])
    sensor = int(np.flatnonzero(model.sensor_adr == column)[0])
    simulation.field("sensor_delay")[1, sensor] = 2 * model.opt.timestep
    place(simulation, robot, np.tile([1.0, 0, 0, 0], (WORLDS, 1)))
    simulation.data("ctrl").zero_()
    seen: list[Tensor] = []
    for _ in range(12):
        simulation.step(1)
        seen.append(reader.read(every(WORLDS))["joint_position"][:2].clone())

    now, late = torch.stack(seen).unbind(dim=1)
    assert (now[-1, knee] - now[0, knee]).abs() > 0.01
    torch.testing.assert_close(late[2:, knee], now[:-2, knee], atol=1e-6, rtol=0)
    others = [joint for joint in range(len(robot.joints)) if joint != knee]
    assert torch.equal(late[:, others], now[:, others])


def test_some_worlds_are_read_in_the_order_of_their_ids(
    simulation: BatchSimulation, robot: Robot, reader: SensorReader
):
    angles = np.random.default_rng(3).uniform(-3, 3, (WORLDS, 3))
    place(simulation, robot, quaternions_of(angles))
    everything = reader.read(every(WORLDS))

    some = reader.read(Worlds(torch.tensor([1, 4])))

    for name, value in everything.items():
        assert torch.equal(some[name], value[[1, 4]])
        assert value.dtype == torch.float32


@pytest.mark.parametrize(
    ("kind", "sensor"),
    [
        ("imu_angular_velocity", '<gyro site="imu"/>'),
        ("projected_gravity", SENSORS["projected_gravity"].xml),
    ],
)
def test_missing_sensor_is_named_with_the_line_to_write(tmp_path: Path, kind: str, sensor: str):
    text = CRAWLER.read_text()
    assert sensor in text
    path = tmp_path / "blind.xml"
    path.write_text(text.replace(sensor, ""))

    with pytest.raises(ConfigError) as error:
        load_robot(str(path)).sensors(KINDS)

    assert str(error.value) == (
        f"robot 'blind' ({path}) lacks sensors for {kind}: {sensor}. Add them under <sensor>."
    )


@pytest.mark.parametrize(
    "wrong",
    [
        '<framezaxis objtype="site" objname="imu"/>',  # the IMU in the world: the other way round
        '<framezaxis objtype="xbody" objname="trunk" reftype="site" refname="imu"/>',
        '<framezaxis objtype="xbody" objname="world" reftype="xbody" refname="trunk"/>',
        '<framexaxis objtype="xbody" objname="world" reftype="site" refname="imu"/>',
    ],
)
def test_axis_of_something_else_is_not_taken_for_gravity(wrong: str):
    text = CRAWLER.read_text().replace(SENSORS["projected_gravity"].xml, wrong)
    assert wrong in text

    model = mujoco.MjModel.from_xml_string(text)

    assert sensor_columns(model, "projected_gravity") is None


def test_imu_on_a_floor_that_is_not_level_feels_gravity_as_an_accelerometer_does():
    """At rest an accelerometer shows what holds it up; MuJoCo has one."""
    robot = load_robot("quadruped")
    spec = robot.spec()
    spec.add_sensor(
        name="felt",
        type=mujoco.mjtSensor.mjSENS_ACCELEROMETER,
        objtype=mujoco.mjtObj.mjOBJ_SITE,
        objname="imu",
    )
    model = spec.compile()
    simulation = BatchSimulation(model, 3, num_threads=1)
    reader = SensorReader(simulation, robot.sensors(["projected_gravity"]))
    tilts = [[0.0, 0.0], [0.1, 0.0], [-0.03, 0.08]]
    gravity = torch.tensor([[x, y, -math.sqrt(1 - x * x - y * y)] for x, y in tilts])
    simulation.field("opt.gravity")[:] = 9.81 * gravity
    home = model.keyframe("home")
    qpos, ctrl = (torch.from_numpy(row).repeat(3, 1) for row in (home.qpos, home.ctrl))
    simulation.reset(every(3), State(qpos, torch.zeros(3, model.nv), ctrl))
    simulation.step(round(2 / model.opt.timestep))  # it stands, and is still

    felt = simulation.data("sensordata")[:, model.sensor("felt").adr[0] :][:, :3]
    expected = -felt / torch.linalg.vector_norm(felt, dim=1, keepdim=True)
    sensed = reader.read(every(3))["projected_gravity"]

    assert sensed == pytest.approx(expected.float(), abs=2e-3)
    assert (sensed[1:] - sensed[0]).norm(dim=1).min() > 0.05
    some = Worlds(torch.tensor([2]))
    assert torch.equal(reader.read(some)["projected_gravity"], sensed[2:])


def test_without_gravity_its_direction_is_that_of_the_worlds_minus_z(
    simulation: BatchSimulation, reader: SensorReader, robot: Robot
):
    before = reader.read(every(WORLDS))["projected_gravity"]
    simulation.field("opt.gravity")[:] = 0
    assert torch.equal(reader.read(every(WORLDS))["projected_gravity"], before)
