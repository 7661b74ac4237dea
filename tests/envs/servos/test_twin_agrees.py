"""The model that policies are trained on against the twin, which computes a servo its own way.

A bar hangs from one joint, and the servo is told to swing it up. The twin has encoder counts, a
period of 1 ms, per-row friction and, on an XL330, a voltage that cannot jump.
"""

import math
from pathlib import Path

import mujoco
import numpy as np
import pytest
import torch

from deploy.errors import ConfigError
from deploy.robot_config import RobotConfig
from deploy.servos.models import SERVOS
from deploy.twin.robot import Twin
from envs.batch_simulation import BatchSimulation
from envs.servos import add_backlash, add_servo, with_servos
from envs.simulation import State
from envs.worlds import every

COUNT = 2 * math.pi / 4096
TARGET = 256  # counts: 0.39 rad
SECONDS = 0.6
BARS = {  # mass [kg] at 0.1 m, so that gravity takes a fifth of the stall torque; P gain
    "XL330-M077": (0.044, 600),
    "XL330-M288": (0.106, 1600),
    "XL430-W250": (0.306, 800),
    "XM430-W350": (0.836, 800),
}


def bar(servo: str, *, load_friction: bool, play: float = 0.0) -> mujoco.MjSpec:
    mass, p_gain = BARS[servo]
    spec = mujoco.MjSpec.from_string(f"""
    <mujoco>
      <compiler angle="radian"/>
      <option timestep="0.005" integrator="implicitfast"/>
      <worldbody><body pos="0 0 1">
        <joint name="lift" axis="0 -1 0" range="-3 3"/>
        <inertial pos="0.1 0 0" mass="{mass}" diaginertia="1e-5 1e-5 1e-5"/>
        <site name="tool" pos="0.1 0 0"/>
      </body></worldbody>
      <sensor><jointpos joint="lift"/><jointvel joint="lift"/></sensor>
      <keyframe><key name="home" qpos="0"/><key name="rest" qpos="-1.5"/></keyframe>
    </mujoco>""")
    add_servo(spec, "lift", SERVOS[servo], p_gain=p_gain, load_friction=load_friction)
    if play:
        add_backlash(spec, "lift", play)
    return spec


def trained(spec: mujoco.MjSpec) -> np.ndarray:
    """Angle of the output every 5 ms."""
    model = spec.compile()
    simulation = with_servos(BatchSimulation(model, 1, num_threads=1))
    rest = torch.from_numpy(model.keyframe("rest").qpos)[None]
    none = torch.zeros(1, model.nv, dtype=torch.float64)
    simulation.reset(every(1), State(rest, none, torch.full((1, 1), -1.5, dtype=torch.float64)))
    simulation.step(100)  # comes to rest in what play and droop there are
    simulation.data("ctrl")[:] = TARGET * COUNT
    angles = []
    for _ in range(round(SECONDS / 0.005)):
        simulation.step(1)
        angles.append(float(simulation.data("sensordata")[0, 0]))
    return np.array(angles)


def emulated(spec: mujoco.MjSpec, servo: str, folder: Path, *, pwm_slope: bool) -> np.ndarray:
    """The same, from the twin."""
    path = folder / "bar.xml"
    path.write_text(spec.to_xml())
    joint = {
        "id": 1,
        "model": servo,
        "position_limits_rad": [-3.0, 3.0],
        "velocity_limit_rad_s": 4.0,
        "rest_rad": -1.5,
    }
    bus = {"port": "/dev/unused", "baud_rate": 1_000_000}
    twin = Twin(
        path, RobotConfig.model_validate({"robot": "bar", "bus": bus, "joints": {"lift": joint}})
    )

    def write(address: int, size: int, value: int) -> None:
        twin.servos[0].hear(twin.time_s)
        assert not twin.servos[0].write(address, value.to_bytes(size, "little")).error

    if servo.startswith("XL330") and not pwm_slope:
        write(62, 1, 0)
    write(84, 2, BARS[servo][1])  # Position P, I and D Gain
    write(82, 2, 0)
    write(80, 2, 0)
    write(64, 1, 1)  # torque
    write(116, 4, 2048 + round(-1.5 / COUNT))
    twin.advance(0.5 + 1e-9)
    write(116, 4, 2048 + TARGET)
    angles = []
    for step in range(1, round(SECONDS / 0.005) + 1):
        twin.advance(0.5 + step * 0.005 + 1e-9)
        angles.append(twin.joint_position[0])
    return np.array(angles)


@pytest.mark.parametrize("play", [0.0, 0.009], ids=["stiff", "play"])
@pytest.mark.parametrize("load_friction", [False, True], ids=["plain", "load friction"])
@pytest.mark.parametrize("servo", BARS)
def test_step_response_is_that_of_the_twin(servo, load_friction, play, tmp_path):
    spec = bar(servo, load_friction=load_friction, play=play)
    model = trained(spec)
    twin = emulated(spec, servo, tmp_path, pwm_slope=load_friction)

    top_speed = np.diff(model).max() / 0.005
    worst, at_rest = np.abs(model - twin).max(), abs(model[-1] - twin[-1])
    print(
        f"{servo}, load friction {load_friction}, play {play}: up to {top_speed:.1f} rad/s, ends "
        f"at {model[-1]:.3f} rad; differs by {worst:.4f} rad, at rest by {at_rest:.4f} rad"
    )
    # Steps of 5 and of 1 ms: torques change 2 ms later on average, 3 with a slope of 5 ms steps.
    # Inside its friction and its play a joint may rest anywhere.
    physics = SERVOS[servo] if load_friction else SERVOS[servo].plain
    kp = physics.kp(BARS[servo][1], physics.nominal_voltage_v)
    anywhere = 2 * physics.friction.at_rest / kp + 2 * play + COUNT
    assert at_rest < anywhere
    assert worst < 0.003 * top_speed + anywhere
    assert np.abs(model[2:] - twin[:-2]).max() > 2 * worst  # 10 ms would be seen


def test_voltage_slope_of_the_twin_is_seen_by_the_model_with_load_friction(tmp_path):
    spec = bar("XL330-M288", load_friction=True)
    model = trained(spec)
    with_slope = emulated(spec, "XL330-M288", tmp_path, pwm_slope=True)
    without = emulated(spec, "XL330-M288", tmp_path, pwm_slope=False)
    # from 0 to 5 V in 18 ms: half of it is lost, at 9 rad/s
    assert np.abs(with_slope - without).max() == pytest.approx(0.009 * 9, rel=0.2)
    assert np.abs(model - with_slope).max() < 0.35 * np.abs(model - without).max()


def test_twin_refuses_another_servo_than_the_model_names(tmp_path):
    with pytest.raises(ConfigError) as error:
        emulated(bar("XL330-M288", load_friction=True), "XL430-W250", tmp_path, pwm_slope=True)
    assert str(error.value) == (
        "joint 'lift': the model has XL330-M288 there, the robot file XL430-W250; correct "
        "`model` in the robot file, or train with this servo"
    )
