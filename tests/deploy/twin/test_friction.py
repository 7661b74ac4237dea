"""Friction under load in the twin: the equation by hand, and what it does to a joint."""

import math

import mujoco
import pytest

from deploy.servos.physics import Friction
from deploy.twin.friction import LoadFriction, friction_limit

FRICTION = Friction(
    base=0.1,
    viscous=9.0,
    stribeck=0.02,
    load_motor=0.3,
    load_external=0.1,
    load_motor_stribeck=0.05,
    load_external_stribeck=0.2,
    stribeck_speed=2.0,
    stribeck_exponent=3.0,
)


@pytest.mark.parametrize(
    ("motor", "external", "speed", "expected"),
    [
        (0.0, 0.0, 0.0, 0.1 + 0.02),
        # lifting: 0.3 · 2 + 0.1 · 1, and at rest 0.05 · 2 + 0.2 · 1
        (2.0, -1.0, 0.0, 0.1 + 0.7 + 0.02 + 0.3),
        # the load helps: 0.3 · 2 - 0.1 · 1, and 0.05 · 2 - 0.2 · 1
        (2.0, 1.0, 0.0, 0.1 + 0.5 + 0.02 + 0.1),
        (-2.0, -1.0, 0.0, 0.1 + 0.5 + 0.02 + 0.1),
        # (1/2)³
        (2.0, -1.0, 1.0, 0.1 + 0.7 + 0.32 * math.exp(-0.125)),
        (2.0, -1.0, -1.0, 0.1 + 0.7 + 0.32 * math.exp(-0.125)),
        (2.0, -1.0, 100.0, 0.1 + 0.7),
    ],
)
def test_friction_by_hand(motor, external, speed, expected):
    assert friction_limit(FRICTION, motor, external, speed) == pytest.approx(expected)


def test_world_pulls_by_gravity_and_by_stops_but_not_by_the_friction_itself():
    model = mujoco.MjModel.from_xml_string("""
    <mujoco><compiler angle="radian"/><option timestep="0.001"/><worldbody><body>
      <joint name="lift" axis="0 -1 0" range="0 1" limited="true" frictionloss="0.24"/>
      <inertial pos="0.1 0 0" mass="0.2" diaginertia="1e-4 1e-4 1e-4"/>
    </body></worldbody></mujoco>""")
    data = mujoco.MjData(model)
    friction = LoadFriction(model, {0: FRICTION})  # 0.24 is twice its 0.12: all of it doubles
    weight = 0.2 * 9.81 * 0.1

    data.qpos[0] = 0.3  # in the air, held by the friction
    mujoco.mj_step(model, data)
    assert data.qfrc_constraint[0] == pytest.approx(weight * math.cos(0.3), rel=0.2)
    friction.update(data, {0: 0.5})
    external = -weight * math.cos(0.3)
    expected = 2 * friction_limit(FRICTION, 0.5, external, data.qvel[0])
    assert model.dof_frictionloss[0] == pytest.approx(expected, rel=1e-3)

    data.qpos[0], model.dof_frictionloss[0] = 0.0, 0.01  # on the stop, which carries the rest
    mujoco.mj_step(model, data, 500)
    friction.update(data, {0: 0.5})
    assert model.dof_frictionloss[0] == pytest.approx(
        2 * friction_limit(FRICTION, 0.5, 0.0, 0.0), rel=0.05
    )
