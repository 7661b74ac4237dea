"""What is written between physics steps: against the published equation, plain MuJoCo, algebra."""

import math
from typing import Any

import mujoco
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from deploy.servos.models import SERVOS
from deploy.servos.physics import Friction
from envs.batch_simulation import BatchSimulation
from envs.servos import add_backlash, add_servo, friction_limit, voltage_factor, with_servos
from envs.servos.friction import FrictionTable
from envs.simulation import Simulation, State
from envs.worlds import choose, every

Floats = NDArray[np.float64]
JOINTS = {
    "shoulder": ("XL430-W250", 1200),
    "elbow": ("XL330-M288", 3000),
    "wrist": ("XL330-M288", 1600),
}
ARM = """
<mujoco>
  <compiler angle="radian"/>
  <option timestep="0.004" integrator="implicitfast"/>
  <worldbody><body pos="0 0 1">
    <joint name="shoulder" axis="0 -1 0" range="-1 1"/>
    <geom type="capsule" size="0.01" fromto="0 0 0 0.1 0 0" mass="0.1"/>
    <body pos="0.1 0 0">
      <joint name="elbow" axis="0 -1 0" range="-1 1"/>
      <geom type="capsule" size="0.01" fromto="0 0 0 0.1 0 0" mass="0.1"/>
      <body pos="0.1 0 0">
        <joint name="wrist" axis="1 0 0" range="-1 1"/>
        <geom type="box" size="0.01 0.03 0.01" pos="0 0.03 0" mass="0.05"/>
      </body>
    </body>
  </body></worldbody>
</mujoco>
"""


def arm(**options: Any) -> mujoco.MjSpec:
    spec = mujoco.MjSpec.from_string(ARM)
    for joint, (servo, p_gain) in JOINTS.items():
        options = {"load_friction": True} | options
        add_servo(spec, joint, SERVOS[servo], p_gain=p_gain, **options)
    return spec


def simulate(spec: mujoco.MjSpec, num_envs: int = 1) -> Simulation:
    return with_servos(BatchSimulation(spec.compile(), num_envs, num_threads=1))


def state(simulation: Simulation) -> State:
    n, model = simulation.num_envs, simulation.model
    zeros = [torch.zeros(n, size, dtype=torch.float64) for size in (model.nq, model.nv, model.nu)]
    return State(*zeros)


# The published equation


def published(f: Friction, motor: float, external: float, speed: float) -> float:
    """BAM, docs/theory/models.rst, M5: tau_fm less K_v |speed|."""
    k_c, k_cs = f.base, f.stribeck
    k_m, k_e = f.load_motor, f.load_external
    k_ms, k_es = f.load_motor_stribeck, f.load_external_stribeck
    stribeck = math.exp(-(abs(speed / f.stribeck_speed) ** f.stribeck_exponent))
    return (
        k_c
        + abs(k_m * motor - k_e * external)
        + stribeck * (k_cs + abs(k_ms * motor - k_es * external))
    )


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_friction_is_that_of_the_published_equation(dtype):
    rng = np.random.default_rng(0)
    frictions = [
        Friction(base=a, viscous=9.0, stribeck=b, load_motor=c, load_external=d,
                 load_motor_stribeck=e, load_external_stribeck=g, stribeck_speed=h + 0.1,
                 stribeck_exponent=10 * i + 0.5)
        for a, b, c, d, e, g, h, i in rng.uniform(0, 1, (20, 8))
    ]  # fmt: skip
    table = FrictionTable(
        *(
            torch.tensor([getattr(f, name) for f in frictions], dtype=dtype)
            for name in FrictionTable._fields
        )
    )
    motor, external, speed = rng.normal(0, 1, (3, 50, 20))
    found = friction_limit(
        table, *(torch.tensor(values, dtype=dtype) for values in (motor, external, speed))
    )
    expected = [
        [published(f, *values) for f, *values in zip(frictions, *rows, strict=True)]
        for rows in zip(motor, external, speed, strict=True)
    ]
    tolerance = 1e-12 if dtype == torch.float64 else 3e-5
    assert found.numpy() == pytest.approx(np.array(expected), rel=tolerance)


def plain_mujoco(model: mujoco.MjModel, targets: Floats, substeps: int) -> tuple[Floats, Floats]:
    """Angles and friction after each substep; what rubs is read from the solver's own rows."""
    servos = [SERVOS[name] for name, _ in JOINTS.values()]
    data = mujoco.MjData(model)
    angles, limits = [], []
    for target in np.repeat(targets, substeps, axis=0):
        data.ctrl[:] = target
        rows = data.efc_type == int(mujoco.mjtConstraint.mjCNSTR_FRICTION_DOF)
        rubbing = np.zeros(3)
        rubbing[data.efc_id[rows]] = data.efc_force[rows]
        constraint = data.qfrc_constraint - rubbing
        force = data.actuator_force.copy()
        mujoco.mj_fwdPosition(model, data)
        mujoco.mj_fwdVelocity(model, data)
        limits.append(
            [
                published(
                    servo.friction,
                    force[i] - servo.back_emf_damping * data.qvel[i],
                    constraint[i] - data.qfrc_bias[i],
                    data.qvel[i],
                )
                for i, servo in enumerate(servos)
            ]
        )
        model.dof_frictionloss[:] = limits[-1]
        for i, servo in enumerate(servos):
            if servo.name.startswith("XL330"):  # its voltage rises by 276.84 V/s at most
                most = servo.drive_torque(5.0)
                step = servo.kt / servo.resistance_ohm * 276.84 * 0.004
                model.actuator_forcerange[i] = force[i] - step, force[i] + step
                np.clip(model.actuator_forcerange[i], -most, most, model.actuator_forcerange[i])
        mujoco.mj_step(model, data)
        angles.append(data.qpos.copy())
    return np.array(angles), np.array(limits)


def compared(targets: Floats) -> tuple[float, Floats]:
    """Largest difference from plain MuJoCo [rad], and the friction there was."""
    simulation = simulate(arm())
    simulation.reset(every(1), state(simulation))
    angles, limits = plain_mujoco(arm().compile(), targets, 5)
    worst = 0.0
    for step, target in enumerate(targets):
        simulation.data("ctrl")[:] = torch.from_numpy(target)
        simulation.step(5)
        found = simulation.data("qpos")[0].numpy()
        worst = max(worst, np.abs(found - angles[5 * step + 4]).max())
    return worst, limits


def test_worlds_move_as_plain_mujoco_with_the_published_friction():
    targets = np.random.default_rng(1).uniform(-0.6, 0.6, (12, 3)).repeat(8, axis=0)
    worst, limits = compared(targets)
    print(f"differs from plain MuJoCo by {worst:.1e} rad in {len(targets) * 0.02:.1f} s")
    assert np.ptp(limits, axis=0).min() > 0.05  # N·m: it mattered
    assert worst < 1e-8


def test_joints_that_lean_on_their_stops_move_almost_so():
    targets = np.random.default_rng(2).uniform(-2, 2, (12, 3)).repeat(8, axis=0)
    worst, _ = compared(targets)
    print(f"differs from plain MuJoCo by {worst:.1e} rad against the stops")
    assert worst < 0.02


# A world's own numbers


def test_friction_scales_with_the_worlds_own_and_is_given_back():
    simulation = simulate(arm(), 3)
    own = simulation.field("dof_frictionloss")
    own *= torch.tensor([[0.5], [1.0], [2.0]], dtype=torch.float64)
    before = own.clone()
    seen: list[Tensor] = []
    simulation.reset(every(3), state(simulation))
    simulation.step(1)
    assert torch.equal(own, before)
    # read after it is written: by a sensor of the solver, which is the friction itself
    simulation.data("ctrl")[:] = 0.5

    def look() -> None:
        seen.append(own.clone())

    simulation.step(3, look)
    assert torch.equal(own, before)
    ratio = seen[1] / seen[1][1]
    assert ratio[0] == pytest.approx(torch.full((3,), 0.5, dtype=torch.float64), rel=0.1)
    assert ratio[2] == pytest.approx(torch.full((3,), 2.0, dtype=torch.float64), rel=0.1)
    assert not torch.equal(seen[1][1], before[1])


def test_all_fields_are_the_worlds_own_between_steps():
    spec = arm()
    add_backlash(spec, "shoulder", 0.01)
    simulation = simulate(spec, 4)
    simulation.field("supply_resistance_ohm")[:] = 0.5
    names = ("actuator_gainprm", "actuator_biasprm", "actuator_forcerange", "dof_frictionloss")
    fields = {name: simulation.field(name) for name in names}
    for table in fields.values():
        table *= torch.linspace(0.8, 1.2, 4, dtype=torch.float64).view(4, *[1] * (table.dim() - 1))
    before = {name: table.clone() for name, table in fields.items()}
    simulation.reset(every(4), state(simulation))
    for _ in range(5):
        simulation.data("ctrl")[:] = 0.8
        simulation.step(4)
        assert all(torch.equal(fields[name], before[name]) for name in names)


# Supply


def test_voltage_under_load_by_hand():
    # one motor of 2 ohm at half duty, at rest, behind 1 ohm: it takes 0.5 · (0.5 U)/2 = U/8, so
    # U = U0 / (1 + 1/8)
    found = voltage_factor(torch.tensor(0.25 / 2), torch.tensor(0.0), torch.tensor(1.0))
    assert found == pytest.approx(8 / 9)
    # turning so fast that back-EMF is 0.4 U0: it takes 0.5 · (0.5 U - 0.4 U0)/2 = U/8 - U0/10, so
    # U = U0 (1 + 1/10) / (1 + 1/8)
    found = voltage_factor(torch.tensor(0.25 / 2), torch.tensor(0.1), torch.tensor(1.0))
    assert found == pytest.approx(1.1 / 1.125)
    # braking gives nothing back to the supply
    found = voltage_factor(torch.tensor(0.0), torch.tensor(0.3), torch.tensor(1.0))
    assert found == 1.0
    # however many motors stall on however poor a cable, there is a solution
    found = voltage_factor(torch.tensor(50.0), torch.tensor(0.0), torch.tensor(2.0))
    assert found == pytest.approx(0.05)


def test_stalled_motors_share_what_their_supply_gives():
    spec = arm()
    for actuator in spec.actuators:
        actuator.inheritrange, actuator.ctrlrange = 0.0, [-100, 100]
    simulation = simulate(spec, 2)
    simulation.reset(every(2), state(simulation))
    simulation.field("supply_resistance_ohm").copy_(torch.tensor([[0.0], [1.5]]))
    simulation.data("ctrl")[:] = 40.0
    simulation.step(500)
    assert simulation.data("qvel").abs().max() < 0.01
    free, sagged = simulation.data("actuator_force").tolist()
    xl430, xl330 = SERVOS["XL430-W250"], SERVOS["XL330-M288"]
    assert free == pytest.approx([xl430.drive_torque(12), *[xl330.drive_torque(5)] * 2], rel=1e-6)
    # one motor at 12 V behind 1.5 ohm: U = 12 R / (R + 1.5); two at 5 V: U = 5 R / (R + 2 · 1.5)
    expected = [
        xl430.drive_torque(12 / (1 + 1.5 / xl430.resistance_ohm)),
        *[xl330.drive_torque(5 / (1 + 3.0 / xl330.resistance_ohm))] * 2,
    ]
    assert sagged == pytest.approx(expected, rel=1e-3)


def test_wheel_slows_down_with_its_supply():
    spec = mujoco.MjSpec.from_string(
        '<mujoco><option timestep="0.002" integrator="implicitfast"/><worldbody><body>'
        '<joint name="w" axis="0 0 1" range="-90000 90000" damping="0"/>'
        '<inertial pos="0 0 0" mass="1" diaginertia="1e-3 1e-3 1e-3"/></body></worldbody></mujoco>'
    )
    servo = SERVOS["XL330-M288"]
    add_servo(spec, "w", servo, p_gain=400, load_friction=True)
    simulation = simulate(spec, 2)
    simulation.reset(every(2), state(simulation))
    simulation.field("supply_resistance_ohm").copy_(torch.tensor([[0.0], [4.0]]))
    simulation.data("ctrl")[:] = 1500.0
    simulation.step(1000)
    free, sagged = simulation.data("qvel")[:, 0].tolist()
    assert free == pytest.approx(servo.no_load_speed(5.0), rel=2e-3)
    # at a speed w, full duty takes (U - kt w)/R from the supply: 5 - U = 4 (U - kt w)/R
    volts = (5 + 4 * servo.kt * sagged / servo.resistance_ohm) / (1 + 4 / servo.resistance_ohm)
    assert volts < 4.8
    assert sagged == pytest.approx(servo.no_load_speed(volts), rel=2e-3)


def test_stiffness_sags_with_the_supply():
    simulation = simulate(arm(), 2)
    simulation.reset(every(2), state(simulation))
    simulation.field("supply_resistance_ohm").copy_(torch.tensor([[0.0], [3.0]]))
    simulation.data("ctrl")[:, 0] = 0.3
    simulation.step(400)
    error = 0.3 - simulation.data("qpos")[:, 0]
    stiffness = simulation.data("actuator_force")[:, 0] / error
    kp = SERVOS["XL430-W250"].kp(1200, 12.0)
    assert stiffness[0].item() == pytest.approx(kp, rel=1e-4)
    duty = kp * error[1].item() / SERVOS["XL430-W250"].drive_torque(12.0)
    ohm = SERVOS["XL430-W250"].resistance_ohm
    assert stiffness[1].item() == pytest.approx(kp / (1 + 3 * duty**2 / ohm), rel=1e-3)


# The other backend


def test_worlds_of_mujoco_warp_move_alike():
    warp_simulation = pytest.importorskip("envs.warp_simulation")
    spec = arm(delay_s=0.008)
    add_backlash(spec, "elbow", 0.01)
    model = spec.compile()
    batch = BatchSimulation(model, 2, num_threads=1)
    warp = warp_simulation.WarpSimulation(model, 2, device="cpu")
    bare = warp_simulation.WarpSimulation(model, 2, device="cpu")
    simulations = [with_servos(batch), with_servos(warp), bare]
    for simulation in simulations:
        if simulation is not bare:
            simulation.field("supply_resistance_ohm")[:] = 0.3
        start = State(*(part.to(simulation.data("qpos").dtype) for part in state(simulation)))
        simulation.reset(every(2), start)
    generator = torch.Generator().manual_seed(0)
    for _ in range(40):
        targets = torch.rand(2, 3, generator=generator, dtype=torch.float64) - 0.5
        for simulation in simulations:
            ctrl = simulation.data("ctrl")
            ctrl.copy_(targets)
            simulation.step(5)
    ours, theirs, without = (simulation.data("qpos").double() for simulation in simulations)
    worst = (ours - theirs).abs().max().item()
    print(f"batch and warp differ by {worst:.1e} rad after 0.8 s")
    assert worst < 1e-3
    assert (ours - without).abs().max() > 30 * max(worst, 1e-4)


# Episodes and checkpoints


def lively(num_envs: int = 3) -> Simulation:
    spec = arm(delay_s=0.008)
    add_backlash(spec, "elbow", 0.01)
    simulation = simulate(spec, num_envs)
    simulation.field("supply_resistance_ohm")[:] = 0.3
    simulation.reset(every(num_envs), state(simulation))
    return simulation


def drive(simulation: Simulation, steps: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    for _ in range(steps):
        targets = torch.rand(simulation.num_envs, 3, generator=generator, dtype=torch.float64) - 0.5
        simulation.data("ctrl")[:] = targets
        assert not simulation.step(5).any()
    return torch.cat([simulation.data("qpos"), simulation.data("qvel")], dim=1).clone()


def test_saved_worlds_continue_to_the_bit():
    original = lively()
    drive(original, 20)
    saved = original.state_dict()
    expected = drive(original, 20, seed=1)
    copy = lively()
    copy.load_state_dict(saved)
    assert torch.equal(drive(copy, 20, seed=1), expected)


def test_episode_does_not_depend_on_the_one_before():
    simulation = lively()
    fresh = drive(simulation, 10)
    worlds = choose(torch.tensor([False, True, False]), compact=True)
    simulation.reset(worlds, State(*(part[1:2] for part in state(simulation))))
    again = drive(simulation, 10)
    assert torch.equal(again[1], fresh[1])
    assert not torch.equal(again[0], fresh[0])


def test_world_that_diverged_lives_again_after_a_reset():
    simulation = lively()
    fresh = drive(simulation, 10)
    simulation.data("qvel")[1] = 1e12
    assert simulation.step(5).tolist() == [False, True, False]
    worlds = choose(torch.tensor([False, True, False]), compact=True)
    simulation.reset(worlds, State(*(part[1:2] for part in state(simulation))))
    assert torch.equal(drive(simulation, 10)[1], fresh[1])


def test_other_work_between_substeps_is_still_done():
    simulation, calls = lively(), []
    simulation.step(4, lambda: calls.append(1))
    assert len(calls) == 4


def test_simulation_is_the_one_inside_for_everything_else():
    simulation = lively()
    assert (simulation.num_envs, simulation.compact) == (3, True)
    simulation.field("body_mass")[1] *= 2
    simulation.recompute_constants(every(3))
    assert simulation.field("supply_resistance_ohm").shape == (3, 1)
