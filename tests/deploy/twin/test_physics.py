"""The twin's physics against plain `mujoco` and closed forms, with the data sheets' numbers.

Nothing here uses our own unit conversions: numbers are the eManual's, written out.
"""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import mujoco
import numpy as np
import pytest
from numpy.typing import NDArray

from deploy.robot_config import RobotConfig
from deploy.twin.parameters import TwinParameters
from deploy.twin.robot import Twin

Floats = NDArray[np.float64]

XL430_STALL, XL430_NO_LOAD = 1.5, 61 * 2 * math.pi / 60
SHUTDOWN = 63
XL330_STALL, XL330_NO_LOAD = 0.52, 103 * 2 * math.pi / 60
COUNT = 2 * math.pi / 4096
GOAL_POSITION, TORQUE, P_GAIN, D_GAIN, GOAL_PWM, MODE, PWM_SLOPE = 116, 64, 84, 80, 100, 11, 62
DESK_ARM = Path(__file__).parents[3] / "envs/robots/desk_arm/desk_arm.xml"

WHEEL = """
<mujoco>
  <worldbody><body>
    <joint name="wheel" axis="0 0 1" armature="0.004" {joint}/>
    <inertial pos="0 0 0" mass="0.1" diaginertia="0.001 0.001 0.001"/>
    <site name="tool" pos="0.1 0 0"/>
  </body></worldbody>
  <keyframe><key name="rest" qpos="0"/></keyframe>
</mujoco>
"""
INERTIA = 0.005
"""Of `WHEEL` about its axis, rotor included."""


def wired(models: dict[str, str]) -> RobotConfig:
    joints = {
        name: {
            "id": id,
            "model": model,
            "position_limits_rad": [-3.0, 3.0],
            "velocity_limit_rad_s": 4.0,
            "rest_rad": 0.0,
        }
        for id, (name, model) in enumerate(models.items(), start=1)
    }
    bus = {"port": "/dev/unused", "baud_rate": 1_000_000}
    return RobotConfig.model_validate({"robot": "any", "bus": bus, "joints": joints})


def wheel(folder: Path, model: str, joint: str = "", **parameters: Any) -> Twin:
    path = folder / "wheel.xml"
    path.write_text(WHEEL.format(joint=joint))
    return Twin(path, wired({"wheel": model}), TwinParameters(**parameters))


def write(twin: Twin, joint: int, address: int, size: int, value: int) -> None:
    status = twin.servos[joint].write(address, value.to_bytes(size, "little", signed=True))
    assert not status.error


def send(twin: Twin, angles: Sequence[float]) -> None:
    for joint, angle in enumerate(angles):
        twin.servos[joint].hear(twin.time_s)
        write(twin, joint, GOAL_POSITION, 4, round(2048 + angle / COUNT))


def energise(twin: Twin, p_gains: Sequence[int], *, pwm_slope: bool = False) -> None:
    for joint, gain in enumerate(p_gains):
        if not pwm_slope and twin.servos[joint].model.name.startswith("XL330"):
            write(twin, joint, PWM_SLOPE, 1, 0)
        write(twin, joint, P_GAIN, 2, gain)
        write(twin, joint, D_GAIN, 2, 0)
        write(twin, joint, TORQUE, 1, 1)


def motion(twin: Twin, seconds: float) -> Floats:
    """Joint angles after each of the next milliseconds, (T, n)."""
    begin_s = twin.time_s
    angles = []
    for millisecond in range(1, round(seconds * 1000) + 1):
        twin.advance(begin_s + millisecond * 1e-3)
        angles.append(twin.joint_position)
    return np.array(angles)


# Closed forms


@pytest.mark.parametrize(
    ("model", "stall", "no_load"),
    [
        ("XL430-W250", XL430_STALL, XL430_NO_LOAD),
        ("XL330-M288", XL330_STALL, XL330_NO_LOAD),
        ("XM430-W350", 4.1, 46 * 2 * math.pi / 60),
    ],
)
def test_motor_follows_the_torque_speed_line_of_its_data_sheet(tmp_path, model, stall, no_load):
    """Half duty: J w' = stall/2 - stall w/w0, so w = w0/2 (1 - exp(-t stall/J/w0))."""
    twin = wheel(tmp_path, model)
    write(twin, 0, MODE, 1, 16)  # PWM control
    if model.startswith("XL330"):
        write(twin, 0, PWM_SLOPE, 1, 0)
    write(twin, 0, TORQUE, 1, 1)
    write(twin, 0, GOAL_PWM, 2, 442)
    angles = motion(twin, 0.3)[:, 0]
    time_s = np.arange(1, 301) * 1e-3
    rate, speed = stall / no_load / INERTIA, 442 / 885 * no_load
    expected = speed * (time_s - (1 - np.exp(-rate * time_s)) / rate)
    assert np.abs(angles - expected).max() < 1.01e-3 * speed  # a step of 1 ms
    assert twin.joint_velocity[0] == pytest.approx(speed * (1 - math.exp(-rate * 0.3)), rel=1e-3)


def test_servo_on_another_supply_has_torque_and_speed_in_proportion(tmp_path):
    """An XL330 at 7.4 V: 0.52 · 7.4/5 N·m at rest, and 103 · 7.4/5 rev/min in the end."""
    path = tmp_path / "wheel.xml"
    path.write_text(WHEEL.format(joint=""))
    config = wired({"wheel": "XL330-M288"})
    fed = config.joints["wheel"].model_copy(update={"supply_v": 7.4})
    twin = Twin(path, config.model_copy(update={"joints": {"wheel": fed}}))
    for address, value in ((MODE, 16), (PWM_SLOPE, 0), (SHUTDOWN, 52), (TORQUE, 1)):
        write(twin, 0, address, 1, value)
    write(twin, 0, GOAL_PWM, 2, 885)
    motion(twin, 0.001)
    assert twin.motor_torque[0] == pytest.approx(XL330_STALL * 1.48)
    motion(twin, 1.0)
    assert twin.joint_velocity[0] == pytest.approx(XL330_NO_LOAD * 1.48, rel=1e-3)


def test_step_response_is_that_of_a_pd_law_without_delay(tmp_path):
    """J q'' = kp (goal - q) - d q' with kp = stall · P/128 / 885 / count and d = stall/no_load."""
    twin = wheel(tmp_path, "XL430-W250")
    energise(twin, [800])
    send(twin, [65 * COUNT])
    angles = motion(twin, 0.4)[:, 0]

    kp, damping = XL430_STALL * 800 / 128 / 885 / COUNT, XL430_STALL / XL430_NO_LOAD
    assert kp * 65 * COUNT < XL430_STALL
    decay = damping / (2 * INERTIA)
    ringing = math.sqrt(kp / INERTIA - decay**2)
    time_s = np.arange(1, 401) * 1e-3
    swing = np.cos(ringing * time_s) + decay / ringing * np.sin(ringing * time_s)
    expected = 65 * COUNT * (1 - np.exp(-decay * time_s) * swing)
    # a step of 1 ms at the fastest 1.9 rad/s, and half a count; 10 ms of delay would be 0.019 rad
    assert np.abs(angles - expected).max() < 0.0025


def test_motor_pushes_in_the_period_in_which_the_goal_arrives(tmp_path):
    twin = wheel(tmp_path, "XL430-W250")
    energise(twin, [800])
    motion(twin, 0.05)
    send(twin, [0.1])
    motion(twin, 0.001)
    assert twin.motor_torque[0] == pytest.approx(XL430_STALL * 65 * 800 / 128 / 885, rel=1e-9)


def test_joint_hangs_through_by_load_over_stiffness(tmp_path):
    arm = """
    <mujoco><worldbody><body>
      <joint name="lift" axis="0 1 0" armature="0.004"/>
      <inertial pos="0.1 0 0" mass="0.3" diaginertia="1e-4 1e-4 1e-4"/>
      <site name="tool" pos="0.1 0 0"/>
    </body></worldbody><keyframe><key name="rest" qpos="0"/></keyframe></mujoco>"""
    path = tmp_path / "arm.xml"
    path.write_text(arm)
    twin = Twin(path, wired({"lift": "XL430-W250"}))
    energise(twin, [800])
    angle = motion(twin, 2.0)[-1, 0]
    kp = XL430_STALL * 800 / 128 / 885 / COUNT
    sag = 0.0
    for _ in range(50):  # angle = load / stiffness, the load being 0.3 kg at 0.1 m · cos(angle)
        sag = 0.3 * 9.81 * 0.1 * math.cos(sag) / kp
    assert angle == pytest.approx(sag, abs=0.5 * COUNT)


def test_x330_raises_its_voltage_by_the_slope_of_the_manual(tmp_path):
    """PWM Slope 140 is 276.84 mV/ms: from 0 to full duty at 5 V in 18.06 ms (eManual's example)."""
    twin = wheel(tmp_path, "XL330-M288")
    write(twin, 0, MODE, 1, 16)
    write(twin, 0, TORQUE, 1, 1)
    write(twin, 0, GOAL_PWM, 2, 885)
    pwm = []
    for _ in range(25):
        motion(twin, 0.001)
        pwm.append(int.from_bytes(twin.servos[0].read(124, 2).data, "little"))
    assert pwm[0] == 49  # 885 · 0.27684 / 5
    assert pwm[17] == 882
    assert pwm[18:] == [885] * 7


# Against the model that policies are trained on

P_GAINS = (800, 1200, 3000, 1600, 800, 800)
GOALS = [
    [0.3, -0.9, 0.9, 0.5, 0.4, 0.2],
    [-0.2, -0.3, 0.4, 0.6, -0.5, 0.1],
    [0.1, -0.6, 0.2, -0.2, 0.2, 0.3],
]


def training_model(timestep: float, delay_s: float) -> mujoco.MjModel:
    """desk_arm.xml as it ships, except for its step and its delay."""
    spec = mujoco.MjSpec.from_file(str(DESK_ARM))
    spec.option.timestep = timestep
    for actuator in spec.actuators:
        actuator.delay, actuator.nsample = delay_s, 30 if delay_s else 0
    return spec.compile()


def desk_arm_difference(twin: Twin, timestep: float, delay_s: float) -> Floats:
    """Largest difference per joint while both follow the same goals, 50 a second [rad]."""
    model = training_model(timestep, delay_s)
    data = mujoco.MjData(model)
    mujoco.mj_resetDataKeyframe(model, data, model.keyframe("home").id)
    home = data.qpos.copy()
    twin._data.qpos[:] = home
    energise(twin, P_GAINS)
    send(twin, home)
    for _ in range(round(1.0 / timestep)):  # both come to rest
        data.ctrl = home
        mujoco.mj_step(model, data)
    motion(twin, 1.0)
    sent, worst = home.copy(), np.zeros(6)
    for goal in np.repeat(GOALS, 50, axis=0):
        sent = sent + np.clip(goal - sent, -0.04, 0.04)  # 2 rad/s, as policies are limited to
        counts = np.round(sent / COUNT)
        send(twin, counts * COUNT)
        data.ctrl = counts * COUNT
        for _ in range(round(0.005 / timestep) * 4):
            mujoco.mj_step(model, data)
            twin.advance(twin.time_s + timestep + 1e-9)
            worst = np.maximum(worst, np.abs(twin.joint_position - data.qpos))
    return worst


DESK_ARM_SERVOS = {
    "shoulder_pan": "XL430-W250",
    "shoulder_lift": "XL430-W250",
    "elbow_flex": "XL330-M288",
    "wrist_flex": "XL330-M288",
    "wrist_roll": "XL330-M288",
    "gripper": "XL330-M288",
}


@pytest.mark.parametrize(
    ("timestep", "delay_s", "latency_s", "tolerance"),
    [
        # Half a count of the encoder, and back-EMF taken at the beginning of a step instead of
        # implicitly: 0.0008 rad and a fraction of 1 ms · 2 rad/s.
        (0.001, 0.0, 0.0, 0.0016),
        (0.001, 0.0095, 0.0095, 0.0025),
        # The steps that policies are trained with: 2 ms later on average, at up to 3 rad/s.
        (0.005, 0.0, 0.0, 0.0065),
    ],
    ids=["same step", "same step and delay", "step of training"],
)
def test_desk_arm_moves_as_the_model_it_is_trained_on(timestep, delay_s, latency_s, tolerance):
    twin = Twin(DESK_ARM, wired(DESK_ARM_SERVOS), TwinParameters(command_latency_s=latency_s))
    assert desk_arm_difference(twin, timestep, delay_s).max() < tolerance


def test_hidden_delay_of_ten_milliseconds_would_be_seen():
    twin = Twin(DESK_ARM, wired(DESK_ARM_SERVOS))
    assert desk_arm_difference(twin, 0.001, 0.010).min() > 0.015


# What an MJCF may set

INHERITING = """
<mujoco>
  <compiler angle="{angle}"/>
  <default>{default}</default>
  <worldbody><body>
    <joint name="wheel" axis="0 0 1" type="hinge" armature="0.004" damping="0.01" {joint}/>
    <inertial pos="0 0 0" mass="0.1" diaginertia="0.001 0.001 0.001"/>
    <site name="tool" pos="0.1 0 0"/>
  </body></worldbody>
  <actuator>{actuator}</actuator>
  <keyframe><key name="rest" qpos="0"/></keyframe>
</mujoco>
"""
PLAIN_JOINT = (
    'frictionloss="0.02" stiffness="0" margin="0" springref="0" ref="0" solreflimit="0.02 1"'
    ' solimplimit="0.9 0.95 0.001 0.5 2" limited="false" actuatorfrclimited="false"'
)
HOSTILE_DEFAULTS = """
  <position nsample="10" delay="0.010" gear="7" forcerange="-0.001 0.001" ctrlrange="-0.1 0.1"
            damping="3" kp="99" kv="5" timeconst="0.3"/>
  <motor nsample="10" delay="0.010" gear="7" forcerange="-0.001 0.001" ctrlrange="-0.1 0.1"
         damping="3"/>
  <general nsample="10" delay="0.010" gear="7" forcerange="-0.001 0.001" ctrlrange="-0.1 0.1"
           damping="3" dyntype="filter" dynprm="0.5" biastype="affine" biasprm="1 2 3"/>
"""
HOSTILE_JOINT = (
    '<joint damping="9" armature="9" stiffness="9" springref="1" ref="0.3" frictionloss="9"'
    ' margin="0.5" range="-40 40" actuatorfrcrange="-0.001 0.001" actuatorgravcomp="true"'
    ' solreflimit="0.5 3" solimplimit="0.1 0.2 0.3 0.4 1"/>'
)


def spun(folder: Path, **parameters: Any) -> Floats:
    """How the wheel of `INHERITING` follows a goal."""
    path = folder / "inheriting.xml"
    options = {"angle": "radian", "default": "", "joint": PLAIN_JOINT, "actuator": ""}
    options |= {name: parameters.pop(name) for name in options if name in parameters}
    path.write_text(INHERITING.format(**options))
    twin = Twin(path, wired({"wheel": "XL430-W250"}), TwinParameters(**parameters))
    energise(twin, [800])
    send(twin, [0.5])
    return motion(twin, 0.3)[:, 0]


@pytest.mark.parametrize(
    "actuator",
    [
        '<position joint="wheel" kp="3" delay="0.02" nsample="9"/>',
        '<general joint="wheel"/>',
        '<motor joint="wheel"/>',
        '<dcmotor joint="wheel" motorconst="0.1" resistance="1"/>',
    ],
)
def test_nothing_set_on_an_actuator_or_inherited_by_one_reaches_the_twin(tmp_path, actuator):
    expected = spun(tmp_path)
    hostile = spun(tmp_path, default=HOSTILE_DEFAULTS, actuator=actuator)
    assert expected[-1] > 0.4
    assert np.array_equal(hostile, expected)


@pytest.mark.parametrize("angle", ["radian", "degree"])
def test_play_inherits_nothing_from_the_joints_of_the_model(tmp_path, angle):
    play = {"wheel": 0.01}
    expected = spun(tmp_path, backlash_rad=play)
    hostile = spun(tmp_path, backlash_rad=play, default=HOSTILE_JOINT, angle=angle)
    assert not np.array_equal(expected, spun(tmp_path))
    assert hostile == pytest.approx(expected, abs=1e-12)


def test_rotor_inertia_set_on_an_actuator_is_kept(tmp_path):
    geared = '<position joint="wheel" armature="0.001" gear="2"/>'
    twice = spun(tmp_path, armature_scale={"wheel": 2.0})  # 0.004 more: as 0.001 behind a gear of 2
    assert spun(tmp_path, actuator=geared) == pytest.approx(twice, abs=1e-12)


# Differences that a policy meets


def test_zero_error_is_seen_by_nobody_but_the_tool(tmp_path):
    twin = wheel(tmp_path, "XL430-W250", zero_error_rad={"wheel": 20 * COUNT})
    energise(twin, [800])
    send(twin, [0.0])
    motion(twin, 1.0)
    assert int.from_bytes(twin.servos[0].read(132, 4).data, "little") == 2048
    assert twin.joint_position[0] == pytest.approx(-20 * COUNT, abs=COUNT)


def test_play_lets_the_joint_move_that_far_behind_a_motor_that_is_held(tmp_path):
    joint = 'frictionloss="0.5"'  # holds the motor, but not what is behind the play
    twin = wheel(tmp_path, "XL430-W250", joint, backlash_rad={"wheel": 0.008})
    ends = []
    for push in (0.05, -0.05):
        twin._data.xfrc_applied[1, 5] = push
        motion(twin, 0.5)
        ends.append(twin._data.qpos[1])
    assert ends == pytest.approx([0.004, -0.004], abs=2e-4)
    # the encoder sits on the output shaft, behind the gears: it sees the play
    both = twin._data.qpos.sum()
    assert twin.joint_position[0] == both
    assert int.from_bytes(twin.servos[0].read(132, 4).data, "little") == round(2048 + both / COUNT)


def test_play_is_about_the_axis_of_a_joint_in_a_turned_frame(tmp_path):
    path = tmp_path / "framed.xml"
    joint = '<joint name="wheel" axis="0 0 1" armature="0.004" {joint}/>'
    framed = WHEEL.replace(joint, f'<frame euler="0 90 0">{joint}</frame>')
    path.write_text(framed.format(joint=""))
    twin = Twin(path, wired({"wheel": "XL430-W250"}), TwinParameters(backlash_rad={"wheel": 0.01}))
    assert twin._model.jnt_axis == pytest.approx(np.array([[1, 0, 0], [1, 0, 0]]), abs=1e-9)


def test_payload_hangs_where_the_tool_is(tmp_path):
    twin = wheel(tmp_path, "XL430-W250", payload_kg=0.05)
    assert twin._data.body("payload").xipos == pytest.approx(twin.tool_position)
    assert twin.tool_position == pytest.approx([0.1, 0.0, 0.0])


def test_payload_adds_its_mass_at_the_tool(tmp_path):
    twin = wheel(tmp_path, "XL430-W250", payload_kg=0.05)
    inertia = np.zeros((1, 1))
    mujoco.mj_fullM(twin._model, twin._data, inertia)
    # 0.05 kg at 0.1 m, and its own 2/5 · 0.05 · 0.01²
    assert inertia[0, 0] == pytest.approx(INERTIA + 0.05 * 0.1**2 + 0.4 * 0.05 * 0.01**2)


def test_supply_sags_by_resistance_times_current_and_says_so(tmp_path):
    twin = wheel(
        tmp_path, "XL430-W250", 'range="-0.001 0.001" limited="true"', supply_resistance_ohm=2.0
    )
    energise(twin, [800])
    send(twin, [2.0])
    motion(twin, 0.3)
    # stalled at full duty: I = 1.4 A · U/12 V and U = 12 V - 2 ohm · I, so U = 12 / (1 + 2.8/12)
    assert int.from_bytes(twin.servos[0].read(144, 2).data, "little") == round(120 / (1 + 2.8 / 12))
    assert twin.motor_torque[0] == pytest.approx(XL430_STALL / (1 + 2.8 / 12), rel=1e-3)


def test_friction_grows_with_the_torque_and_at_rest(tmp_path):
    def speed(pwm: int = 36, **parameters: Any) -> float:
        joint = 'frictionloss="0.05"'
        twin = wheel(tmp_path, "XL430-W250", joint, **parameters)
        write(twin, 0, MODE, 1, 16)
        write(twin, 0, TORQUE, 1, 1)
        write(twin, 0, GOAL_PWM, 2, pwm)  # 36 is 0.061 N·m at rest
        motion(twin, 1.0)
        return float(twin.joint_velocity[0])

    # at a steady speed: duty · stall - stall w/no_load = friction
    duty = 36 / 885 * XL430_STALL
    assert speed() == pytest.approx((duty - 0.05) * XL430_NO_LOAD / XL430_STALL, rel=0.02)
    assert speed(stribeck_scale=1.0) == pytest.approx(0.0, abs=0.02)  # it does not break loose
    # at 0.5 rad/s nothing is left of it: exp(-0.5 / 0.1) is 0.7 %
    assert speed(100, stribeck_scale=1.0) == pytest.approx(speed(100), rel=0.01)
    # 0.05 + 0.2 · torque = torque, of a motor with 1/0.8 of the torque: the data sheet's line stays
    assert speed(load_friction=0.2) == pytest.approx(speed(), rel=0.02)
