"""Servos as native actuators: the data sheet, MuJoCo's own DC motor, play, and what is refused."""

import math
from pathlib import Path

import mujoco
import numpy as np
import pytest
import torch

from deploy.errors import ConfigError
from deploy.servos.models import SERVOS
from deploy.servos.physics import Rating
from envs.batch_simulation import BatchSimulation
from envs.robot import Robot
from envs.servos import add_backlash, add_servo, with_servos
from envs.simulation import Simulation

DATA_SHEETS = [
    pytest.param(name, rating, id=f"{name} {rating.voltage_v} V")
    for name, servo in SERVOS.items()
    for rating in servo.ratings
]
"""Compared with the printed ones in tests/deploy/servos/test_models.py."""
LOAD_FRICTION = pytest.mark.parametrize("load", [False, True], ids=["plain", "load friction"])
ARM = """
<mujoco>
  <compiler angle="{angle}"/>
  <option timestep="0.001" integrator="implicitfast"/>
  <default><joint damping="7" stiffness="3" frictionloss="2" margin="0.4"/></default>
  <worldbody>
    <body name="upper" pos="0 0 1">
      <joint name="lift" axis="0 -1 0" range="{range}" stiffness="0" margin="0"/>
      <inertial pos="{length} 0 0" mass="{mass}" diaginertia="1e-3 1e-3 1e-3"/>
    </body>
  </worldbody>
  <sensor>
    <jointpos name="position" joint="lift"/><jointvel name="velocity" joint="lift"/>
  </sensor>
  <keyframe><key name="home" qpos="0.2"/><key name="rest" qpos="0"/></keyframe>
</mujoco>
"""


def arm(*, mass: float = 0.1, length: float = 0.0, angle: str = "radian") -> mujoco.MjSpec:
    """A bar with a weight; without a length a wheel, which can turn for long."""
    text = ARM.format(angle=angle, mass=mass, length=length, range="-3000 3000")
    return mujoco.MjSpec.from_string(text)


def worlds(spec: mujoco.MjSpec, num_envs: int = 1) -> Simulation:
    return with_servos(BatchSimulation(spec.compile(), num_envs, num_threads=1))


def driven(spec: mujoco.MjSpec, name: str, rating: Rating, load: bool) -> mujoco.MjSpec:
    """With a P gain at which a small error is full duty."""
    p_gain = 200 if name.startswith("STS") else 5000
    volts = rating.voltage_v
    add_servo(spec, "lift", SERVOS[name], p_gain=p_gain, supply_v=volts, load_friction=load)
    return spec


# Data sheet


@LOAD_FRICTION
@pytest.mark.parametrize(("name", "rating"), DATA_SHEETS)
def test_wheel_turns_at_the_no_load_speed(name, rating, load):
    simulation = worlds(driven(arm(), name, rating, load))
    simulation.data("ctrl")[:] = 2900.0
    simulation.step(1500)
    assert simulation.data("qvel").item() == pytest.approx(rating.no_load_speed_rad_s, rel=0.05)


@LOAD_FRICTION
@pytest.mark.parametrize(("name", "rating"), DATA_SHEETS)
def test_servo_lifts_a_little_less_than_the_stall_torque_and_no_more(name, rating, load):
    def passes(torque: float) -> bool:
        """From 2.9° below the level, where the bar weighs almost all, to as much above, in 2 s."""
        bar = arm(mass=torque / 9.81 / 0.1, length=0.1)
        simulation = worlds(driven(bar, name, rating, load))
        simulation.data("qpos")[:] = -0.05
        simulation.data("ctrl")[:] = 1.0
        for _ in range(40):
            simulation.step(50)
            if simulation.data("qpos").item() > 0.05:
                return True
        return False

    # 14 %: data sheets are not proportional to voltage; 4 %: the speed that is left to pass
    tolerance = 0.04 if rating is SERVOS[name].nominal else 0.16
    assert passes((1 - tolerance) * rating.stall_torque_nm)
    assert not passes((1 + tolerance) * rating.stall_torque_nm)


# MuJoCo's own DC motor


@pytest.mark.parametrize("name", SERVOS)
def test_position_servo_moves_as_mujocos_dcmotor_under_the_firmwares_law(name):
    servo = SERVOS[name].plain
    p_gain = 12 if name.startswith("STS") else 800
    spec = arm(mass=0.3 * servo.stall_torque(servo.nominal_voltage_v) / 9.81 / 0.1, length=0.1)
    actuator = add_servo(spec, "lift", servo=SERVOS[name], p_gain=p_gain)
    ours = spec.compile()
    spec.delete(actuator)
    motor = spec.add_actuator(name="motor", target="lift", trntype=mujoco.mjtTrn.mjTRN_JOINT)
    motor.set_to_dcmotor(motorconst=[servo.kt, servo.kt], resistance=servo.resistance_ohm)
    theirs = spec.compile()

    position, voltage = mujoco.MjData(ours), mujoco.MjData(theirs)
    worst, top_speed = 0.0, 0.0
    position.ctrl[0] = 0.6
    for _ in range(1000):
        duty = p_gain * servo.duty_per_p * (0.6 - voltage.qpos[0])
        duty = np.clip(duty, -servo.max_duty, servo.max_duty)
        voltage.ctrl[0] = duty * servo.nominal_voltage_v
        mujoco.mj_step(ours, position)
        mujoco.mj_step(theirs, voltage)
        worst = max(worst, abs(position.qpos[0] - voltage.qpos[0]))
        top_speed = max(top_speed, position.qvel[0])
    assert top_speed > 0.15 * servo.no_load_speed(servo.nominal_voltage_v)
    assert worst < 2e-4 * top_speed  # a fifth of a step: gains are integrated implicitly


def test_damping_gain_brakes_within_the_limit_of_the_voltage():
    servo = SERVOS["XL430-W250"].plain
    spec = arm()
    add_servo(spec, "lift", SERVOS["XL430-W250"], p_gain=10, d_gain=4000)
    model = spec.compile()
    data = mujoco.MjData(model)
    data.qvel[0] = 1.0
    mujoco.mj_forward(model, data)
    # D 4000 is full duty at 5.4303 rad/s
    assert data.actuator_force[0] == pytest.approx(-servo.drive_torque(12.0) / 5.4303, rel=1e-4)
    data.qvel[0] = 20.0
    mujoco.mj_forward(model, data)
    assert data.actuator_force[0] == pytest.approx(-servo.drive_torque(12.0), rel=1e-9)


# What the contract reads


def test_robot_reads_gains_limits_and_sensors_of_servos_with_play(tmp_path: Path):
    spec = mujoco.MjSpec.from_string(
        ARM.format(angle="radian", mass=0.1, length=0.1, range="-1 1.5")
    )
    servo = SERVOS["XM430-W350"]
    add_servo(spec, "lift", servo, p_gain=640, supply_v=11.1, load_friction=True, delay_s=0.01)
    add_backlash(spec, "lift", 0.004)
    path = tmp_path / "arm.xml"
    path.write_text(spec.to_xml())

    robot = Robot("arm", path)
    (joint,) = robot.joint_specs(low=[-1.0], high=[1.0], velocity_limit=2.0)
    assert robot.joints == ["lift"]
    assert joint.name == "lift"
    # P 640 is full duty at 177 ticks
    assert joint.effort_limit_nm == pytest.approx(servo.drive_torque(11.1))
    assert joint.kp_nm_per_rad == pytest.approx(
        joint.effort_limit_nm / (177 * 2 * math.pi / 4096), rel=1e-6
    )
    assert joint.kd_nm_s_per_rad == 0
    assert joint.default_position_rad == 0.2
    assert robot.home_qpos.tolist() == [0.2, 0.0]
    low, high = robot.target_range(0.0)
    assert (low.item(), high.item()) == (-1.0, 1.5)
    assert robot.model.actuator_delay.tolist() == [0.01]
    assert robot.sensors(["joint_position", "joint_velocity"]).keys() == {
        "joint_position",
        "joint_velocity",
    }


# Play


def played(angle: str = "radian") -> mujoco.MjModel:
    spec = arm(mass=0.5, length=0.1, angle=angle)
    add_servo(spec, "lift", SERVOS["XL430-W250"], p_gain=5000)
    add_backlash(spec, "lift", 0.008)
    return spec.compile()


@pytest.mark.parametrize("angle", ["radian", "degree"])
def test_bar_swings_through_the_play_of_a_motor_that_stands(angle):
    model = played(angle)
    model.dof_frictionloss[0] = 50.0  # holds the motor, but not what is behind the play
    data = mujoco.MjData(model)
    ends = []
    for gravity in (-9.81, 9.81):
        model.opt.gravity[2] = gravity
        mujoco.mj_step(model, data, 1000)
        ends.append(data.qpos[1])
        assert abs(data.qpos[0]) < 0.02  # MuJoCo's friction creeps
    assert ends == pytest.approx([-0.008, 0.008], abs=3e-4)


def test_play_inherits_nothing_and_weighs_nothing():
    model = played()
    assert model.dof_frictionloss[1] == model.jnt_stiffness[1] == model.dof_armature[1] == 0
    assert model.jnt_margin[1] == 0
    assert model.dof_damping[1] == pytest.approx(2e-4)
    assert model.jnt_range[1] == pytest.approx([-0.008, 0.008])
    assert model.body_mass.sum() == pytest.approx(0.5)


def test_encoder_sees_the_output_shaft():
    model = played()
    data = mujoco.MjData(model)
    data.qpos[:], data.qvel[:] = [0.3, -0.006], [1.0, 0.25]
    mujoco.mj_forward(model, data)
    assert data.sensor("position").data.item() == pytest.approx(0.294)
    assert data.sensor("velocity").data.item() == pytest.approx(1.25)


def test_actuator_stays_on_the_motors_side():
    model = played()
    data = mujoco.MjData(model)
    data.ctrl[0] = 0.1
    mujoco.mj_forward(model, data)
    assert data.qfrc_actuator[0] > 0.1
    assert data.qfrc_actuator[1] == 0


def test_controller_sees_the_play_without_delay():
    simulation = with_servos(BatchSimulation(played(), 2, num_threads=1))
    bare = BatchSimulation(played(), 2, num_threads=1)
    for worlds_ in (simulation, bare):
        worlds_.data("qpos")[:] = torch.tensor([[0.3, 0.006], [0.3, 0.0]], dtype=torch.float64)
        worlds_.data("ctrl")[:] = 0.31
        worlds_.step(1)
    kp = SERVOS["XL430-W250"].plain.kp(5000, 12.0)
    seen = simulation.data("actuator_force").flatten().tolist()
    assert seen == pytest.approx([kp * (0.31 - 0.306), kp * (0.31 - 0.3)], rel=1e-6)
    assert bare.data("actuator_force").flatten().tolist() == pytest.approx([kp * 0.01] * 2)


def test_keyframes_of_several_joints_get_a_zero_each_in_its_place():
    spec = mujoco.MjSpec.from_string("""
    <mujoco><worldbody>
      <body><freejoint name="base"/><geom size="0.1"/>
        <body><joint name="a" range="-90 90"/><geom size="0.1"/>
          <body><joint name="b" range="-90 90"/><geom size="0.1"/></body></body></body>
    </worldbody>
    <keyframe><key name="home" qpos="1 2 3 1 0 0 0 0.4 0.5" qvel="1 2 3 4 5 6 7 8"/></keyframe>
    </mujoco>""")
    for joint in ("b", "a"):
        add_servo(spec, joint, SERVOS["XL330-M288"], p_gain=400)
        add_backlash(spec, joint, 0.01)
    key = spec.compile().keyframe("home")
    assert key.qpos.tolist() == [1, 2, 3, 1, 0, 0, 0, 0.4, 0, 0.5, 0]
    assert key.qvel.tolist() == [1, 2, 3, 4, 5, 6, 7, 0, 8, 0]


def test_servo_inherits_nothing_from_the_model_it_is_put_into():
    """Neither from defaults, whose ctrlrange MuJoCo would refuse, nor from a converted URDF."""
    plain, full = arm(), arm()
    position = "<position kp='9' kv='3' ctrlrange='-1 1' forcerange='-9 9' timeconst='0.1'/>"
    general = (
        "<general gear='5' dyntype='filter' biastype='affine' biasprm='1 2 3' gainprm='3 4 5' "
        "actlimited='true' actrange='-1 1' actearly='true' ctrllimited='false'/>"
    )
    for inherited in (position, general):
        text = ARM.replace("<default>", f"<default>{inherited}").replace(
            'name="lift"', 'name="lift" actuatorfrcrange="-0.1 0.1"'
        )
        full = mujoco.MjSpec.from_string(
            text.format(angle="radian", mass=0.1, length=0, range="-3000 3000")
        )
        plain = arm()
        models = []
        for spec in (plain, full):
            add_servo(spec, "lift", SERVOS["XL430-W250"], p_gain=800)
            models.append(spec.compile())
        expected, found = models
        assert found.na == 0
        assert not found.jnt_actfrclimited.any()
        for name in dir(expected):
            value = getattr(expected, name)
            if name.startswith("actuator_") and isinstance(value, np.ndarray):
                assert np.array_equal(getattr(found, name), value), name


@pytest.mark.parametrize("prefix", ["left_", "left/"])
def test_robot_that_is_attached_with_a_prefix_keeps_its_servos_and_play(prefix: str):
    def motion(spec: mujoco.MjSpec) -> torch.Tensor:
        simulation = worlds(spec)
        simulation.data("ctrl")[:] = 0.5
        simulation.step(300)
        return simulation.data("qpos").clone()

    alone = arm(mass=0.3, length=0.1)
    add_servo(alone, "lift", SERVOS["XL430-W250"], p_gain=800, load_friction=True)
    add_backlash(alone, "lift", 0.02)
    table = mujoco.MjSpec.from_string(
        "<mujoco><option timestep='0.001' integrator='implicitfast'/><worldbody/></mujoco>"
    )
    table.attach(alone.copy(), prefix=prefix, frame=table.worldbody.add_frame())

    assert torch.equal(motion(table), motion(alone))


def test_play_that_is_not_found_by_its_joints_name_is_refused():
    alone = arm()
    add_servo(alone, "lift", SERVOS["XL430-W250"], p_gain=800, load_friction=True)
    add_backlash(alone, "lift", 0.02)
    table = mujoco.MjSpec.from_string(
        "<mujoco><option timestep='0.001' integrator='implicitfast'/><worldbody/></mujoco>"
    )
    table.attach(alone, prefix="", suffix="_left", frame=table.worldbody.add_frame())
    with pytest.raises(ConfigError) as error:
        worlds(table)
    assert str(error.value) == (
        "joint 'lift/backlash_left' is the play of 'lift_left' and is found by its name, which "
        "must then be 'lift_left/backlash': attach a robot with a prefix instead of a suffix, or "
        "add its play afterwards"
    )


# What is refused


def test_servo_on_a_joint_without_a_range_is_refused():
    spec = mujoco.MjSpec.from_string(
        '<mujoco><worldbody><body><joint name="wheel"/><geom size="0.1"/></body></worldbody>'
        "</mujoco>"
    )
    with pytest.raises(ConfigError, match="joint 'wheel' has no range"):
        add_servo(spec, "wheel", SERVOS["XL430-W250"], p_gain=800)


def refusal(**options: object) -> str:
    arguments = {"joint": "lift", "servo": SERVOS["XL430-W250"], "p_gain": 800} | options
    with pytest.raises(ConfigError) as error:
        add_servo(arm(), **arguments)  # pyright: ignore[reportArgumentType]
    return str(error.value)


def test_wrong_servos_are_refused_with_what_to_do():
    assert refusal(joint="lifd") == (
        "joint 'lifd' is not in the model (did you mean 'lift'?); it has lift"
    )
    assert refusal(supply_v=5.0) == (
        "joint 'lift': a supply of 5 V, expected 6..24 for XL430-W250; correct supply_v"
    )
    assert refusal(p_gain=0) == (
        "joint 'lift': p_gain 0, d_gain 0, delay_s 0; expected a positive p_gain, and the others "
        "not negative"
    )
    assert refusal(servo=SERVOS["STS3215-12V"], d_gain=32) == (
        "joint 'lift': nobody has published what D gain 32 does in STS3215-12V; use d_gain 0"
    )
    assert "is not as in the table of servos" in refusal(servo=SERVOS["XL430-W250"].plain)


def test_joint_is_driven_once():
    spec = arm()
    add_servo(spec, "lift", SERVOS["XL430-W250"], p_gain=800)
    with pytest.raises(ConfigError, match="has an actuator already; delete that one"):
        add_servo(spec, "lift", SERVOS["XL430-W250"], p_gain=800)


def test_wrong_plays_are_refused_with_what_to_do():
    spec = arm()
    with pytest.raises(ConfigError, match="is not in the model"):
        add_backlash(spec, "elbow", 0.01)
    with pytest.raises(ConfigError, match=r"no armature.*; add its servo first"):
        add_backlash(spec, "lift", 0.01)
    add_servo(spec, "lift", SERVOS["XL430-W250"], p_gain=800)
    with pytest.raises(ConfigError, match=r"1 rad of play to either side, expected more than 0"):
        add_backlash(spec, "lift", 1.0)
    add_backlash(spec, "lift", 0.01)
    with pytest.raises(ConfigError, match="has play already; add it once"):
        add_backlash(spec, "lift", 0.01)


def test_unknown_servo_in_a_model_is_refused():
    spec = arm()
    spec.add_text(name="servo/lift", data="XL430-W25")
    with pytest.raises(ConfigError) as error:
        worlds(spec)
    assert str(error.value).startswith(
        "the model's text 'servo/lift' names the servo 'XL430-W25' (did you mean 'XL430-W250'?)"
    )


def test_servo_without_a_position_actuator_is_refused():
    spec = arm()
    spec.add_text(name="servo/lift", data="XL430-W250")
    with pytest.raises(ConfigError, match="0 position actuators drive it, expected one"):
        worlds(spec)


def test_model_without_named_servos_is_simulated_as_it_is():
    simulation = BatchSimulation(arm().compile(), 1, num_threads=1)
    assert with_servos(simulation) is simulation
