"""The CPU backend against plain `MjData`, through its delays, failures and checkpoints."""

import mujoco
import numpy as np
import pytest
import torch
from torch import Tensor

from envs.batch_simulation import BatchSimulation
from envs.simulation import State
from envs.worlds import Worlds, every

# Two separate servos without gravity. The command of `slow` takes 30 ms and its measured angle
# 20 ms; `fast` has no delay.
ARMS = """
<mujoco>
  <option timestep="0.01" gravity="0 0 0" integrator="implicitfast"/>
  <default><joint axis="0 1 0" damping="0.1" armature="0.01"/></default>
  <worldbody>
    <body>
      <joint name="slow"/>
      <geom type="capsule" size="0.02" fromto="0 0 0 0 0 0.3" mass="0.5"/>
    </body>
    <body pos="0 1 0">
      <joint name="fast"/>
      <geom type="capsule" size="0.02" fromto="0 0 0 0 0 0.3" mass="0.3"/>
      <body pos="0 0 0.3"><geom size="0.02" mass="0.1"/><site name="tip"/></body>
    </body>
  </worldbody>
  <actuator>
    <position name="slow" joint="slow" kp="5" nsample="5" delay="0.03"/>
    <position name="fast" joint="fast" kp="5"/>
  </actuator>
  <sensor>
    <jointpos name="fast_position" joint="fast"/>
    <jointvel name="fast_velocity" joint="fast"/>
    <jointpos name="slow_position" joint="slow" nsample="4" delay="0.02"/>
    <framepos name="tip" objtype="site" objname="tip"/>
    <framepos name="slow_tip" objtype="site" objname="tip" nsample="4" delay="0.02"/>
  </sensor>
</mujoco>
"""


@pytest.fixture(scope="module")
def model() -> mujoco.MjModel:
    return mujoco.MjModel.from_xml_string(ARMS)


@pytest.fixture
def simulation(model: mujoco.MjModel) -> BatchSimulation:
    """Four worlds at rest with both joints at 1 rad, commanded to stay there."""
    simulation = BatchSimulation(model, 4, num_threads=1)
    reset(simulation, range(4), angle=1.0)
    return simulation


def reset(simulation: BatchSimulation, ids, *, angle: float) -> None:
    ids = torch.tensor(list(ids))
    pose = torch.full((len(ids), 2), angle, dtype=torch.float64)
    simulation.reset(Worlds(ids), State(pose, torch.zeros_like(pose), pose))


def run(simulation: BatchSimulation, steps: int, *, seed: int = 0) -> Tensor:
    """Random commands; returns every sensor after every step, (steps, num_envs, sensors)."""
    generator = torch.Generator().manual_seed(seed)
    sensors = []
    for _ in range(steps):
        command = torch.rand(simulation.num_envs, 2, generator=generator, dtype=torch.float64)
        simulation.data("ctrl").copy_(command)
        simulation.step(2)
        sensors.append(simulation.data("sensordata").clone())
    return torch.stack(sensors)


def test_reset_puts_worlds_into_the_given_state(simulation: BatchSimulation):
    assert torch.equal(simulation.data("qpos"), torch.ones(4, 2, dtype=torch.float64))
    assert not simulation.data("qvel").any()


def test_reset_leaves_other_worlds_alone(simulation: BatchSimulation):
    run(simulation, 5)
    before = simulation.data("qpos").clone()

    reset(simulation, [0, 2], angle=-0.5)

    assert torch.equal(simulation.data("qpos")[[1, 3]], before[[1, 3]])
    assert (simulation.data("qpos")[[0, 2]] == -0.5).all()


def test_servo_does_not_move_toward_zero_during_its_first_delay(simulation: BatchSimulation):
    simulation.step(10)

    assert torch.equal(simulation.data("qpos"), torch.ones(4, 2, dtype=torch.float64))


def test_command_acts_after_the_delay(simulation: BatchSimulation):
    simulation.data("ctrl").zero_()
    moved = []
    for _ in range(4):
        simulation.step(1)
        moved.append((simulation.data("qpos")[0] != 1).tolist())

    # (slow, fast): 30 ms are three steps.
    assert moved == [[False, True], [False, True], [False, True], [True, True]]


def test_delays_are_filled_per_world_when_some_are_reset(simulation: BatchSimulation):
    run(simulation, 5)

    reset(simulation, [3], angle=0.4)
    simulation.step(2)

    assert simulation.data("qpos")[3].tolist() == [0.4, 0.4]


def test_delayed_sensor_starts_at_its_own_value(simulation: BatchSimulation, model: mujoco.MjModel):
    column = int(model.sensor("slow_position").adr[0])

    assert simulation.data("sensordata")[:, column].tolist() == [1.0] * 4
    simulation.step(1)
    assert simulation.data("sensordata")[:, column].tolist() == [1.0] * 4


def test_delayed_sensor_shows_the_angle_of_two_steps_ago(
    simulation: BatchSimulation, model: mujoco.MjModel
):
    column = int(model.sensor("slow_position").adr[0])
    simulation.data("ctrl").zero_()
    angles, measured = [], []
    for _ in range(12):
        simulation.step(1)
        angles.append(simulation.data("qpos")[0, 0].item())
        measured.append(simulation.data("sensordata")[0, column].item())

    assert angles[-1] < 0.99
    assert measured[2:] == angles[:-2]


def test_delayed_vector_starts_at_its_own_value_and_then_lags_by_two_steps(
    simulation: BatchSimulation, model: mujoco.MjModel
):
    now, late = (
        slice(int(sensor.adr[0]), int(sensor.adr[0]) + 3)
        for sensor in (model.sensor("tip"), model.sensor("slow_tip"))
    )
    sensordata = simulation.data("sensordata")
    assert torch.equal(sensordata[:, late], sensordata[:, now])
    simulation.data("ctrl").zero_()
    true, measured = [], []
    for _ in range(6):
        simulation.step(1)
        true.append(sensordata[0, now].tolist())
        measured.append(sensordata[0, late].tolist())

    assert true[-1] != true[0]
    assert measured[2:] == true[:-2]


def test_sensors_describe_the_state_after_the_step(
    simulation: BatchSimulation, model: mujoco.MjModel
):
    run(simulation, 7)
    data = mujoco.MjData(model)

    for world in range(4):
        data.qpos[:] = simulation.data("qpos")[world]
        data.qvel[:] = simulation.data("qvel")[world]
        mujoco.mj_forward(model, data)
        for sensor in ("fast_position", "fast_velocity", "tip"):
            start, size = int(model.sensor(sensor).adr[0]), int(model.sensor(sensor).dim[0])
            measured = simulation.data("sensordata")[world, start : start + size]
            assert measured.numpy() == pytest.approx(data.sensor(sensor).data, abs=1e-12)
        site = simulation.data("site_xpos")[world, model.site("tip").id]
        assert site.numpy() == pytest.approx(data.site("tip").xpos, abs=1e-12)


@pytest.mark.parametrize("num_envs", [4, 400])  # in memory of their own, or in turn in that of few
def test_data_asked_for_late_are_current_and_stay_so(model: mujoco.MjModel, num_envs: int):
    simulation = BatchSimulation(model, num_envs, num_threads=1)
    reset(simulation, range(num_envs), angle=1.0)
    simulation.data("ctrl")[:] = torch.linspace(-1, 1, num_envs)[:, None]
    simulation.step(7)

    for _ in range(2):
        tips, sensors = simulation.data("site_xpos"), simulation.data("sensordata")
        for world in (0, num_envs - 1):
            data = mujoco.MjData(model)
            data.qpos[:], data.qvel[:] = (simulation.data(n)[world] for n in ("qpos", "qvel"))
            mujoco.mj_forward(model, data)
            np.testing.assert_array_equal(tips[world], data.site_xpos)
            np.testing.assert_array_equal(sensors[world, :2], data.sensordata[:2])
        simulation.step(1)


def test_number_of_worlds_does_not_change_their_bits(model: mujoco.MjModel):
    few, many = (BatchSimulation(model, num_envs, num_threads=1) for num_envs in (4, 400))
    assert few._refreshed_when_bound != many._refreshed_when_bound  # the two ways of stepping
    for simulation in (few, many):
        reset(simulation, range(simulation.num_envs), angle=1.0)
        simulation.data("ctrl")[:, 0] = 0.5
        simulation.step(40)

    for name in ("qpos", "qvel", "sensordata", "history"):
        assert torch.equal(few.data(name), many.data(name)[:4])


def test_steps_equal_those_of_plain_mujoco(simulation: BatchSimulation, model: mujoco.MjModel):
    data = mujoco.MjData(model)
    data.qpos[:] = data.ctrl[:] = 1
    mujoco.mj_initCtrlHistory(model, data, 0, None, np.ones(5))
    mujoco.mj_forward(model, data)

    simulation.data("ctrl").copy_(torch.tensor([0.25, -0.75]))
    simulation.step(25)
    data.ctrl[:] = [0.25, -0.75]
    mujoco.mj_step(model, data, nstep=25)

    assert simulation.data("qpos")[0].tolist() == data.qpos.tolist()
    assert simulation.data("qvel")[0].tolist() == data.qvel.tolist()


def test_field_differs_from_world_to_world(simulation: BatchSimulation):
    simulation.field("dof_damping")[2] = 100.0
    simulation.data("ctrl").zero_()
    simulation.step(5)

    fast = simulation.data("qpos")[:, 1]
    assert fast[0] == fast[1] == fast[3] < 0.95
    assert fast[2] > 0.99


def test_constants_follow_the_masses_of_their_world(
    simulation: BatchSimulation, model: mujoco.MjModel
):
    simulation.field("body_mass")[1] *= 2
    simulation.field("body_inertia")[1] *= 2
    simulation.recompute_constants(Worlds(torch.tensor([1])))

    doubled = mujoco.MjModel.from_xml_string(
        ARMS.replace('mass="0.5"', 'mass="1.0"')
        .replace('mass="0.3"', 'mass="0.6"')
        .replace('mass="0.1"', 'mass="0.2"')
    )
    for name in ("body_subtreemass", "dof_invweight0", "body_invweight0", "dof_M0"):
        field = simulation.field(name)
        np.testing.assert_allclose(field[1], getattr(doubled, name), rtol=1e-9, err_msg=name)
        np.testing.assert_allclose(field[0], getattr(model, name), rtol=1e-9, err_msg=name)


def test_result_does_not_depend_on_the_number_of_threads(model: mujoco.MjModel):
    runs = []
    for num_threads in (1, 2):
        simulation = BatchSimulation(model, 7, num_threads=num_threads)
        reset(simulation, range(7), angle=0.3)
        runs.append(run(simulation, 40))

    assert torch.equal(*runs)


def test_restored_simulation_continues_with_the_same_bits(
    simulation: BatchSimulation, model: mujoco.MjModel
):
    generator = torch.Generator().manual_seed(3)
    for name in ("body_mass", "actuator_delay", "dof_damping"):
        field = simulation.field(name)
        field *= 0.5 + torch.rand(field.shape, generator=generator, dtype=torch.float64)
    simulation.recompute_constants(every(4))
    run(simulation, 6)  # commands are on their way through the delay
    state = simulation.state_dict()
    expected = run(simulation, 20, seed=1)

    restored = BatchSimulation(model, 4, num_threads=2)
    restored.load_state_dict(state)
    assert torch.equal(run(restored, 20, seed=1), expected)
    assert torch.equal(restored.field("body_subtreemass"), simulation.field("body_subtreemass"))


def test_field_that_did_not_differ_yet_is_the_models_again_when_a_state_is_restored(
    simulation: BatchSimulation, model: mujoco.MjModel
):
    state = simulation.state_dict()
    expected = run(simulation, 6)
    simulation.load_state_dict(state)

    for name in ("opt.gravity", "body_mass", "body_inertia", "geom_friction", "dof_damping"):
        simulation.field(name)[1] *= 2
    simulation.recompute_constants(every(4))
    run(simulation, 3)
    simulation.load_state_dict(state)

    assert torch.equal(run(simulation, 6), expected)


def test_sensors_are_current_as_soon_as_a_state_is_restored(
    simulation: BatchSimulation, model: mujoco.MjModel
):
    run(simulation, 6)
    restored = BatchSimulation(model, 4, num_threads=1)

    restored.load_state_dict(simulation.state_dict())

    assert torch.equal(restored.data("sensordata"), simulation.data("sensordata"))
    assert torch.equal(restored.data("site_xpos"), simulation.data("site_xpos"))


def test_state_is_a_copy(simulation: BatchSimulation, model: mujoco.MjModel):
    simulation.field("body_mass")
    state = simulation.state_dict()
    kept = state["state"].clone()
    mass = state["fields"]["body_mass"].clone()

    run(simulation, 5)
    simulation.field("body_mass").mul_(2)

    assert torch.equal(state["state"], kept)
    assert torch.equal(state["fields"]["body_mass"], mass)


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), 1e12])
def test_diverged_world_is_reported_once_and_the_others_are_untouched(
    model: mujoco.MjModel, bad: float, in_tmp_path
):
    healthy, failing = (BatchSimulation(model, 4, num_threads=1) for _ in range(2))
    for simulation in (healthy, failing):
        reset(simulation, range(4), angle=1.0)
        simulation.data("ctrl").zero_()
    failing.data("qvel")[2, 0] = bad

    healthy.step(2)
    assert failing.step(2).nonzero().tolist() == [[2]]

    others = [0, 1, 3]
    assert torch.equal(failing.data("qpos")[others], healthy.data("qpos")[others])
    assert torch.equal(failing.data("qvel")[others], healthy.data("qvel")[others])
    assert failing.data("qpos").isfinite().all()
    assert failing.data("sensordata").isfinite().all()
    assert not failing.step(1).any()


def test_healthy_worlds_are_not_reported(simulation: BatchSimulation):
    assert not simulation.step(50).any()


@pytest.fixture
def in_tmp_path(tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    """MuJoCo writes its warnings to MUJOCO_LOG.TXT in the working folder."""
    monkeypatch.chdir(tmp_path)


def test_what_happens_between_substeps_is_seen_by_each_of_them():
    # A controller that runs at every physics step, as plain MuJoCo does it.
    model = mujoco.MjModel.from_xml_string(ARMS)
    simulation, plain = BatchSimulation(model, 2, num_threads=1), mujoco.MjData(model)
    qpos, applied = simulation.data("qpos"), simulation.data("qfrc_applied")
    seen = []

    def spring() -> None:
        seen.append(qpos[0, 0].item())
        applied[:] = -3.0 * (qpos - 0.2)

    simulation.reset(every(2), State(*torch.zeros(3, 2, 2)))
    simulation.step(5, spring)
    for _ in range(5):
        plain.qfrc_applied[:] = -3.0 * (plain.qpos - 0.2)
        mujoco.mj_step(model, plain)

    assert len(set(seen)) == 5
    assert simulation.data("qpos")[1].tolist() == plain.qpos.tolist()
