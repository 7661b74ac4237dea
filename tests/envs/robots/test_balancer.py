"""The balancer against its list of parts, its servo's data sheet and closed forms of rolling and
falling; and a robot whose joints are driven by velocity, up to its contract.

The closed form: body of mass m whose centre is l over the axle, wheels of mass M, inertia I_w and
radius r, rotors of inertia A between them (two of each in the sums). With the axle at x = r(q + θ),
θ the pitch and q the wheels' angle against the body, and torque τ on q from both servos,

    (m + M + I_w/r² + A/r²) x″ + (m l - A/r) θ″ = τ/r
    (m l - A/r) x″ + (I + m l² + A) θ″ = m g l θ - τ
"""

from pathlib import Path
from typing import NamedTuple

import mujoco
import numpy as np
import pytest
import torch

from deploy.dynamixel.registers import PWM_FULL, RAD_S_PER_COUNT, VELOCITY_P_GAIN
from deploy.errors import ConfigError
from deploy.servos.models import SERVOS
from envs.batch_simulation import BatchSimulation
from envs.robot import ENDLESS_RAD, Robot, load_robot
from envs.sensors import SensorReader
from envs.simulation import State
from envs.worlds import every

ROBOT = load_robot("balancer")
WHEELS = ["left_wheel", "right_wheel"]
RADIUS, TRACK, WHEEL_MASS, G = 0.035, 0.104, 0.030, 9.81
SERVO = SERVOS["XL330-M077"].plain


class Part(NamedTuple):
    """A box, or something as good as a box seen from the side; two of it where `pair`."""

    mass: float
    z: float
    half_x: float
    half_z: float
    x: float = 0.0
    pair: bool = False


PARTS = [  # as README.md of the robot lists them, the upper ones last
    Part(0.018, 0.0075, 0.010, 0.017, pair=True),  # servos
    Part(0.024, 0.027, 0.030, 0.002),  # lower plate
    Part(0.012, 0.031, 0.018, 0.002),  # microcontroller and inertial sensor
    Part(0.008, -0.010, 0, 0, x=0.055, pair=True),  # bumpers, front and rear
    Part(0.004, 0.0085, 0.0135, 0.0185, x=0.0415, pair=True),  # their arms
    Part(0.014, 0.073, 0.012, 0.045, pair=True),  # uprights
    Part(0.030, 0.050, 0.015, 0.012),  # cables, switch, screws
    Part(0.015, 0.069, 0.011, 0.004),  # 5 V converter
    Part(0.016, 0.075, 0.024, 0.002),  # middle plate
    Part(0.014, 0.081, 0.020, 0.004),  # battery holder
    Part(0.048, 0.090, 0.0046 * 3**0.5, 0.0046 * 3**0.5, x=0.010, pair=True),  # 18650: m r²/4
    Part(0.020, 0.117, 0.030, 0.002),  # top plate
    Part(0.046, 0.128, 0.028, 0.004),  # computer
]
COUNTS = [2 if part.pair else 1 for part in PARTS]
MASS = sum(n * part.mass for n, part in zip(COUNTS, PARTS, strict=True))
CENTRE = sum(n * part.mass * part.z for n, part in zip(COUNTS, PARTS, strict=True)) / MASS
INERTIA = sum(
    n * part.mass * ((part.half_x**2 + part.half_z**2) / 3 + part.x**2 + (part.z - CENTRE) ** 2)
    for n, part in zip(COUNTS, PARTS, strict=True)
)
"""Of the body about its centre of mass, around y."""


@pytest.fixture
def model() -> mujoco.MjModel:
    return mujoco.MjModel.from_xml_path(str(ROBOT.path))


def test_body_is_the_sum_of_its_parts(model):
    base = model.body("base")

    assert pytest.approx(0.361) == MASS
    assert pytest.approx(0.0692, abs=1e-4) == CENTRE
    assert base.mass == pytest.approx(MASS)
    assert base.ipos == pytest.approx([0, 0, CENTRE], abs=1e-6)
    # Capsules and slanting arms are no boxes: within 1 %.
    assert base.inertia[1] == pytest.approx(INERTIA, rel=0.01)


@pytest.mark.parametrize("wheel", WHEELS)
def test_wheel_is_a_solid_disc_driven_by_the_servo_of_the_table(model, wheel: str):
    actuator, joint = model.actuator(wheel), model.joint(wheel)
    full_duty = SERVO.drive_torque(5.0)
    # P Gain 400: PWM counts per count of velocity, of which 885 are full duty
    per_rad_s = 400 * VELOCITY_P_GAIN.scale / (PWM_FULL * RAD_S_PER_COUNT)

    assert model.body(wheel).mass == pytest.approx(WHEEL_MASS)
    assert max(model.body(wheel).inertia) == pytest.approx(0.5 * WHEEL_MASS * RADIUS**2)
    assert actuator.gainprm[0] == pytest.approx(per_rad_s * full_duty, rel=1e-12)
    assert actuator.biasprm[:3] == pytest.approx([0, 0, -per_rad_s * full_duty], rel=1e-12)
    assert actuator.forcerange == pytest.approx([-full_duty, full_duty], rel=1e-12)
    assert model.actuator_damping[actuator.id] == pytest.approx(SERVO.back_emf_damping, rel=1e-12)
    assert joint.armature == pytest.approx([SERVO.armature], rel=1e-12)
    assert joint.frictionloss == pytest.approx([SERVO.friction.at_rest], rel=1e-12)
    assert joint.damping[0] == pytest.approx(SERVO.friction.viscous, rel=1e-12)


def test_free_wheels_turn_as_fast_as_the_data_sheet_says(model):
    model.opt.gravity[:] = 0
    data = start(model, "home", [47.0, 47.0])
    data.qpos[2] = 1.0
    mujoco.mj_step(model, data, nstep=500)

    assert data.qvel[6:] == pytest.approx(383 * 2 * np.pi / 60, rel=1e-3)  # rev/min at 5 V


def test_wheels_roll_without_slipping(model):
    data = start(model, "home", [1.5, 1.5])
    worst = fastest = 0.0
    mujoco.mj_step(model, data, nstep=20)  # the tyres settle on the floor
    for _ in range(130):
        mujoco.mj_step(model, data)
        speed = RADIUS * (data.qvel[6] + data.qvel[4])  # qvel[4]: pitch rate, body frame
        worst = max(worst, abs(data.qvel[0] - speed))
        fastest = max(fastest, abs(speed))

    assert fastest > 0.028  # m/s
    assert worst < 0.02 * fastest


def test_opposite_wheels_turn_it_on_the_spot(model):
    data = start(model, "home", [-2.0, 2.0])
    mujoco.mj_step(model, data, nstep=100)
    left, right = data.qvel[6:]

    assert data.qvel[5] == pytest.approx(RADIUS * (right - left) / TRACK, rel=0.05)
    assert data.qvel[5] > 0.3  # rad/s, to the left
    assert np.abs(data.qpos[:2]).max() < 1e-3


def equations(damping: float) -> tuple[np.ndarray, np.ndarray]:
    """x, θ and their rates: state' = A state + B torque, of the closed form.

    Args:
        damping: of both servos together, against q' [N·m·s/rad].
    """
    wheels = 2 * WHEEL_MASS * 1.5  # with the inertia of solid discs
    rotors = 2 * SERVO.armature
    cross = MASS * CENTRE - rotors / RADIUS
    inertia = np.array(
        [
            [MASS + wheels + rotors / RADIUS**2, cross],
            [cross, INERTIA + MASS * CENTRE**2 + rotors],
        ]
    )
    torque = np.array([1 / RADIUS, -1.0])
    a, b = np.zeros((4, 4)), np.zeros(4)
    a[:2, 2:] = np.eye(2)
    a[2:, :2] = np.linalg.solve(inertia, [[0, 0], [0, MASS * G * CENTRE]])
    a[2:, 2:] = np.linalg.solve(inertia, -damping * np.outer(torque, [1 / RADIUS, -1]))
    b[2:] = np.linalg.solve(inertia, torque)
    return a, b


@pytest.fixture
def undelayed() -> mujoco.MjModel:
    """Without what `mjd_transitionFD` does not know: delays; and without dry friction."""
    spec = mujoco.MjSpec.from_file(str(ROBOT.path))
    for delayed in [*spec.actuators, *spec.sensors]:
        delayed.nsample, delayed.delay = 0, 0.0
    for joint in spec.joints:
        joint.frictionloss = 0.0
    return spec.compile()


def pole(model: mujoco.MjModel) -> float:
    """Fastest rate at which the upright model falls [1/s], by finite differences."""
    data = mujoco.MjData(model)
    mujoco.mj_resetDataKeyframe(model, data, model.key("home").id)
    mujoco.mj_step(model, data, nstep=200)  # tyres settle; upright it stays
    a = np.zeros((2 * model.nv, 2 * model.nv))
    mujoco.mjd_transitionFD(model, data, 1e-6, True, a, None, None, None)
    return float(np.log(np.abs(np.linalg.eigvals(a)).max()) / model.opt.timestep)


def test_it_falls_as_fast_as_an_inverted_pendulum_on_free_wheels(undelayed):
    cut_power(undelayed)
    undelayed.dof_damping[:] = 0
    wheels, rotors = 3 * WHEEL_MASS, 2 * SERVO.armature
    about_axle = INERTIA + MASS * CENTRE**2 + rotors
    cross = MASS * CENTRE - rotors / RADIUS
    effective = about_axle - cross**2 / (MASS + wheels + rotors / RADIUS**2)
    expected = np.sqrt(MASS * G * CENTRE / effective)

    assert max(np.linalg.eigvals(equations(0.0)[0]).real) == pytest.approx(expected, rel=1e-9)
    assert 9 < expected < 14  # rad/s
    assert pole(undelayed) == pytest.approx(expected, rel=0.01)


def test_servos_that_hold_the_wheels_slow_its_fall(undelayed):
    servo = undelayed.actuator_gainprm[0, 0] + undelayed.actuator_damping[0]
    damping = 2 * (servo + SERVO.friction.viscous)
    expected = max(np.linalg.eigvals(equations(damping)[0]).real)

    assert pole(undelayed) == pytest.approx(expected, rel=0.01)


def test_it_stands_up_and_balances_on_what_it_measures(model):
    """LQR of the closed form at 100 Hz, through the servos and their 5 ms, from the bumper."""
    damping = 2 * (model.actuator_gainprm[0, 0] + model.actuator_damping[0])
    a, torque = equations(damping)
    per_target = 2 * model.actuator_gainprm[0, 0]
    gain = lqr(a, torque * per_target, weights=[20.0, 1.0, 1.0, 0.1], dt=0.01)
    data = start(model, "rest", [0, 0])

    for tick in range(500):
        up, rate = data.sensor("imu_up").data, data.sensor("imu_angular_velocity").data[1]
        pitch = np.arctan2(-up[0], up[2])
        angle = np.mean([data.sensor(f"{wheel}_position").data[0] for wheel in WHEELS])
        speed = np.mean([data.sensor(f"{wheel}_velocity").data[0] for wheel in WHEELS])
        state = [RADIUS * (angle + pitch), pitch, RADIUS * (speed + rate), rate]
        data.ctrl[:] = np.clip(-gain @ state, -47, 47)
        mujoco.mj_step(model, data, nstep=5)
        if tick > 300:
            assert abs(pitch) < 0.03
    assert np.abs(data.qpos[:2]).max() < 0.05  # m, back where it started


def test_rest_is_stable_without_torque(model):
    cut_power(model)
    data = start(model, "rest", [0, 0])
    mujoco.mj_step(model, data, nstep=1500)

    assert data.qpos == pytest.approx(model.key("rest").qpos, abs=3e-3)
    assert np.abs(data.qvel).max() < 1e-3
    touching = {model.geom(geom).name for geom in np.ravel(data.contact.geom)}
    assert touching == {"floor", "left_tyre", "right_tyre", "front_bumper"}


def test_imu_sees_gravity_ahead_when_it_leans_forward():
    simulation = BatchSimulation(ROBOT.model, 1)
    kinds = ["imu_angular_velocity", "projected_gravity", "joint_position", "joint_velocity"]
    reader = SensorReader(simulation, ROBOT.sensors(kinds))
    simulation.field("sensor_delay")[:] = 0.008  # what is read comes out of the delay buffers
    rest = ROBOT.model.key("rest")
    state = (torch.from_numpy(row.copy())[None] for row in (rest.qpos, rest.qvel, rest.ctrl))
    simulation.reset(every(1), State(*state))

    signals = reader.read(every(1))

    # leaning by 0.384 rad: sin 0.375, cos 0.927
    assert signals["projected_gravity"][0].tolist() == pytest.approx([0.375, 0, -0.927], abs=1e-3)
    assert signals["imu_angular_velocity"][0].tolist() == pytest.approx([0, 0, 0], abs=1e-6)
    assert signals["joint_position"].shape == signals["joint_velocity"].shape == (1, 2)


# --- driven by velocity --------------------------------------------------------------------------


def test_contract_asks_for_velocity_mode_and_endless_joints():
    left, right = ROBOT.joint_specs(velocity_limit=40.0)

    assert ROBOT.operating_mode == left.operating_mode == "velocity"
    assert (left.name, right.name) == tuple(WHEELS)
    assert left.kp_nm_per_rad == 0
    assert left.kd_nm_s_per_rad == pytest.approx(0.0322, abs=1e-4)  # N·m·s/rad of P Gain 400
    assert left.position_limits_rad == ENDLESS_RAD
    assert left.default_position_rad == 0
    assert left.effort_limit_nm == pytest.approx(0.215, rel=0.02)  # and friction


def test_task_that_sends_angles_refuses_it():
    with pytest.raises(ConfigError) as error:
        ROBOT.target_range(0.0)

    assert str(error.value) == (
        f"robot 'balancer' ({ROBOT.path}) is driven by velocity, and this task sends joint angles; "
        "choose a robot of position servos, or another task"
    )


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        (
            '<velocity name="left_wheel" joint="left_wheel"/>',
            '<position name="left_wheel" joint="left_wheel" kp="1" ctrlrange="-1 1"'
            ' forcerange="-1 1"/>',
            "some of its servos follow a position and others a velocity: a policy has one kind of "
            "target",
        ),
        (
            ' ctrlrange="-47 47"',
            "",
            "each of the actuators left_wheel, right_wheel has no ctrlrange: give the fastest "
            "target",
        ),
    ],
    ids=["mixed", "no ctrlrange"],
)
def test_what_is_wrong_is_named(tmp_path: Path, old: str, new: str, problem: str):
    path = tmp_path / "own.xml"
    text = ROBOT.path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))

    with pytest.raises(ConfigError) as error:
        Robot("own", path).check()

    assert str(error.value).splitlines()[1] == f"  {problem}"


def cut_power(model: mujoco.MjModel) -> None:
    """No torque, nor back-EMF: an open bridge."""
    model.opt.disableflags = int(mujoco.mjtDisableBit.mjDSBL_ACTUATION)
    model.actuator_damping[:] = 0


def start(model: mujoco.MjModel, key: str, speed: list[float]) -> mujoco.MjData:
    """A keyframe with these targets, which were the targets before, too."""
    data = mujoco.MjData(model)
    mujoco.mj_resetDataKeyframe(model, data, model.key(key).id)
    data.ctrl[:] = speed
    for actuator in range(model.nu):
        held = np.full(model.actuator_history[actuator, 0], data.ctrl[actuator])
        mujoco.mj_initCtrlHistory(model, data, actuator, None, held)
    mujoco.mj_forward(model, data)
    return data


def lqr(a: np.ndarray, b: np.ndarray, *, weights: list[float], dt: float) -> np.ndarray:
    """(4,) gain that minimises the weighted squares, of the state sampled every dt."""
    step = np.zeros((5, 5))
    step[:4] = np.column_stack([a, b]) * dt
    exact = np.eye(5)  # exp(step)
    for order in range(20, 0, -1):
        exact = np.eye(5) + step @ exact / order
    a, b, q = exact[:4, :4], exact[:4, 4:], np.diag(weights)
    p, gain = q, np.zeros((1, 4))
    for _ in range(3000):
        gain = np.linalg.solve(0.01 + b.T @ p @ b, b.T @ p @ a)
        p = q + a.T @ p @ (a - b @ gain)
    return gain[0]
