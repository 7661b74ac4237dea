"""The model that policies are trained on against the twin, which computes the same servo its own way.

A bar hangs from one joint, and the servo is told to swing it up. The twin has encoder counts, a
period of 1 ms, per-row friction and, on an XL330, a voltage that cannot jump.
"""

import math
from pathlib import Path

import mujoco
import numpy as np
import pytest
import torch

from deploy.robot_config import RobotConfig
from deploy.servo_models import SERVOS
from deploy.twin.robot import Twin
from envs.batch_simulation import BatchSimulation
from envs.servos import add_backlash, add_servo, with_servos
from envs.simulation import State
from envs.worlds import every

COUNT = 2 * math.pi / 4096
TARGET = 256  # counts: 0.39 rad
SECONDS = 0.6
BARS = {  # mass [kg] at 0.1 m, so that gravity takes a fifth of the stall torque; P gain
    "XL330-M077": (0.044, 300),
    "XL330-M288": (0.106, 800),
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


@pytest.mark.parametrize("load_friction", [False, True], ids=["plain", "load friction"])
@pytest.mark.parametrize("servo", BARS)
def test_step_response_is_that_of_the_twin(servo, load_friction, tmp_path):
    spec = bar(servo, load_friction=load_friction)
    model = trained(spec)
    twin = emulated(spec, servo, tmp_path, pwm_slope=False)
    sloped = emulated(spec, servo, tmp_path, pwm_slope=True)
    print(
        f"{servo}, load friction {load_friction}: final {model[-1]:.4f}, top speed "
        f"{np.diff(model).max() / 0.005:.2f} rad/s, differs by {np.abs(model - twin).max():.4f} rad"
        f" at most, {abs(model[-1] - twin[-1]):.4f} at rest,"
        f" {np.abs(model - sloped).max():.4f} with the twin's PWM slope"
    )
    play=bar(servo, load_friction=load_friction, play=.009)
    a=trained(play); b=emulated(play, servo, tmp_path, pwm_slope=False); print("   play:", np.abs(a-b).max(), abs(a[-1]-b[-1]), np.abs(a-model).max())
