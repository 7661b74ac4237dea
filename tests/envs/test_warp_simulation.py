"""The GPU backend on Warp's CPU device: delays, fields, resets, failures, checkpoints, buffers.

What it computes is compared with MuJoCo in test_parity.py. One model and a few shared simulations:
Warp compiles its kernels when it first meets them, in about a minute for all of this file.
"""

import mujoco
import numpy as np
import pytest
import torch
from torch import Tensor

import envs
from deploy.errors import ConfigError
from envs import lagging_data
from envs.batch_simulation import BatchSimulation
from envs.simulation import State
from envs.warp_simulation import WarpSimulation
from envs.worlds import Worlds, choose, every
from tests.envs.no_sync import no_sync
from tests.envs.walker import XML, load_walker

NUM_ENVS = 4


@pytest.fixture(scope="module")
def model() -> mujoco.MjModel:
    return load_walker()


def make(model: mujoco.MjModel) -> WarpSimulation:
    """Four worlds that have stood still on the floor at joint angles of 0.1 rad."""
    simulation = WarpSimulation(model, NUM_ENVS, device="cpu")
    reset(simulation, every(NUM_ENVS))
    return simulation


@pytest.fixture
def simulation(model: mujoco.MjModel) -> WarpSimulation:
    return make(model)


def standing(num_worlds: int, *, angle: float = 0.1, height: float = 0.24) -> State:
    qpos = torch.tensor([0, 0, height, 1, 0, 0, 0, angle, angle]).repeat(num_worlds, 1)
    return State(qpos, torch.zeros(num_worlds, 8), torch.full((num_worlds, 2), angle))


def reset(simulation: WarpSimulation, worlds: Worlds, **state: float) -> None:
    simulation.reset(worlds, standing(len(worlds), **state))


def some(*ids: int) -> Worlds:
    mask = torch.zeros(NUM_ENVS, dtype=torch.bool)
    mask[list(ids)] = True
    return choose(mask, compact=False)


def run(simulation: WarpSimulation, steps: int, *, seed: int = 0) -> Tensor:
    """Random commands; returns every sensor and position after every step."""
    generator = torch.Generator().manual_seed(seed)
    seen = []
    for _ in range(steps):
        simulation.data("ctrl").copy_(torch.rand(NUM_ENVS, 2, generator=generator) - 0.5)
        simulation.step(2)
        seen.append(torch.cat([simulation.data("sensordata"), simulation.data("qpos")], dim=1))
    return torch.stack(seen)


def snapshot(simulation: WarpSimulation) -> dict[str, Tensor]:
    names = ("time", "qpos", "qvel", "ctrl", "history", "qacc_warmstart", "sensordata", "site_xpos")
    return {name: simulation.data(name).clone() for name in names}


def column(model: mujoco.MjModel, sensor: str) -> int:
    return int(model.sensor(sensor).adr[0])


def test_reset_puts_worlds_into_the_given_state_and_leaves_the_others_alone(
    simulation: WarpSimulation,
):
    simulation.data("xfrc_applied")[:, 1, 2] = 1.5
    run(simulation, 7)
    before = snapshot(simulation)

    reset(simulation, some(0, 2), angle=-0.3)

    after = snapshot(simulation)
    for name, values in before.items():
        assert torch.equal(after[name][[1, 3]], values[[1, 3]]), name
    assert torch.equal(after["qpos"][[0, 2]], standing(2, angle=-0.3).qpos)
    for name in ("time", "qvel", "qacc_warmstart"):
        assert not after[name][[0, 2]].any(), name
    assert simulation.data("xfrc_applied")[:, 1, 2].tolist() == [0, 1.5, 0, 1.5]


def test_worlds_can_be_chosen_by_ids_too(simulation: WarpSimulation, model: mujoco.MjModel):
    other = make(model)
    for each in (simulation, other):
        run(each, 3)

    reset(simulation, some(1, 3), angle=0.2)
    reset(other, Worlds(torch.tensor([1, 3])), angle=0.2)

    for name, values in snapshot(simulation).items():
        assert torch.equal(values, snapshot(other)[name]), name


def test_servo_does_not_move_toward_zero_during_its_first_delay(simulation: WarpSimulation):
    reset(simulation, every(NUM_ENVS), height=1.0)  # in free fall only servos move the joints
    front = simulation.data("qpos")[:, 7]
    simulation.data("ctrl")[:, 0] = -0.5

    moved = []
    for _ in range(7):
        simulation.step(1)
        moved.append(bool((front < 0.0999).any()))

    assert moved == [False, False, False, False, False, True, True]  # 10 ms are five steps of 2 ms


def test_command_acts_after_the_delay_however_late_the_clock(simulation: WarpSimulation):
    """Sums of float32 time are off by microseconds; a delay of whole steps must not notice."""
    force, ctrl = simulation.data("actuator_force"), simulation.data("ctrl")
    reset(simulation, every(NUM_ENVS), height=1.0)
    simulation.data("qvel").zero_()
    simulation.field("opt.gravity").zero_()
    simulation.data("time").fill_(37.1234)  # history is older than that, as after a long episode
    ctrl.zero_()
    simulation.step(20)
    ctrl[:, 0] = 1.0

    seen = []
    for _ in range(7):
        simulation.step(1)
        seen.append(float(force[0, 0]) > 6)

    assert seen == [False, False, False, False, False, True, True]  # 10 ms are five steps of 2 ms


def test_delayed_sensor_starts_at_its_own_value_and_shows_the_past(
    simulation: WarpSimulation, model: mujoco.MjModel
):
    at = column(model, "front_position")
    measured, angles = [simulation.data("sensordata")[:, at].clone()], []
    angles.append(simulation.data("qpos")[:, 7].clone())
    simulation.data("ctrl").fill_(-0.5)
    for _ in range(12):
        simulation.step(1)
        measured.append(simulation.data("sensordata")[:, at].clone())
        angles.append(simulation.data("qpos")[:, 7].clone())

    assert torch.equal(torch.stack(measured[:4]), torch.full((4, NUM_ENVS), 0.1))
    assert torch.equal(torch.stack(measured[3:]), torch.stack(angles[:-3]))  # 6 ms ago
    assert (angles[-1] != angles[0]).all()


def test_delayed_sensors_are_not_moved_on_by_a_reset_of_others(
    simulation: WarpSimulation, model: mujoco.MjModel
):
    simulation.field("sensor_delay").fill_(0.012)  # the longest that six samples hold
    reset(simulation, every(NUM_ENVS))
    run(simulation, 9)
    before = simulation.data("sensordata")[1].clone()

    for _ in range(3):
        reset(simulation, some(0))

    assert torch.equal(simulation.data("sensordata")[1], before)


def test_sensors_describe_the_state_after_the_step(
    simulation: WarpSimulation, model: mujoco.MjModel
):
    run(simulation, 7)
    data = mujoco.MjData(model)

    for world in range(NUM_ENVS):
        data.qpos[:] = simulation.data("qpos")[world]
        data.qvel[:] = simulation.data("qvel")[world]
        mujoco.mj_forward(model, data)
        for sensor in ("rear_velocity", "gyro", "imu"):
            start, size = column(model, sensor), int(model.sensor(sensor).dim[0])
            measured = simulation.data("sensordata")[world, start : start + size]
            assert measured.numpy() == pytest.approx(data.sensor(sensor).data, abs=2e-6)
        assert simulation.data("xmat")[world].numpy() == pytest.approx(data.xmat, abs=2e-6)


def test_accelerometer_shows_gravity_of_a_robot_that_stands(
    simulation: WarpSimulation, model: mujoco.MjModel
):
    for _ in range(100):
        simulation.step(10)

    at = column(model, "accelerometer")
    acceleration = simulation.data("sensordata")[:, at : at + 3]
    assert acceleration.norm(dim=1).tolist() == pytest.approx([9.81] * NUM_ENVS, abs=0.02)


def test_hook_sees_current_sensors_and_what_it_writes_acts_at_once(
    simulation: WarpSimulation, model: mujoco.MjModel
):
    at = column(model, "rear_velocity")
    qvel, sensordata = simulation.data("qvel"), simulation.data("sensordata")
    simulation.data("ctrl").fill_(0.5)
    current = []

    def push() -> None:
        current.append(torch.equal(sensordata[:, at], qvel[:, 7]))
        simulation.data("xfrc_applied")[0, 1, 2] = 200.0

    simulation.step(4, push)

    # 200 N less weight and floor on 2.4 kg, for 8 ms
    assert current == [True] * 4
    assert qvel[0, 2] > 0.3
    assert abs(qvel[1, 2]) < 0.1


def test_field_differs_from_world_to_world(simulation: WarpSimulation):
    reset(simulation, every(NUM_ENVS), height=1.0)
    simulation.step(2)  # recorded before the field moves
    simulation.field("opt.gravity")[2] = torch.tensor([0.0, 0.0, 9.81])
    simulation.data("qvel").zero_()
    for _ in range(5):
        simulation.step(2)

    # 10 steps of 2 ms at 9.81 m/s², of which the springy legs take a little
    fall = simulation.data("qvel")[:, 2]
    assert fall.tolist() == pytest.approx([-0.1962, -0.1962, 0.1962, -0.1962], abs=0.01)


def test_floor_tilts_with_its_field(simulation: WarpSimulation):
    """mujoco_warp places the geoms of the world only once."""
    tilt = torch.tensor(0.2)
    simulation.field("geom_quat")[2, 0] = torch.tensor(
        [torch.cos(tilt / 2), 0, torch.sin(tilt / 2), 0]
    )
    simulation.field("geom_friction")[2] = 0.01
    for _ in range(10):
        simulation.step(10)

    # down the slope, to +x: sin(0.2) · 9.81 m/s² · 0.2 s = 0.39 m/s, less friction and settling
    speed = simulation.data("qvel")[:, 0]
    assert speed[2] > 0.2
    assert speed[[0, 1, 3]].abs().max() < 0.05


def test_constants_follow_the_masses_of_their_world(
    simulation: WarpSimulation, model: mujoco.MjModel
):
    for name in ("body_mass", "body_inertia"):
        simulation.field(name)[1] *= 2
    simulation.recompute_constants(some(1))

    spec = mujoco.MjSpec.from_string(XML)
    for geom in spec.geoms:
        geom.mass *= 2
    doubled = spec.compile()
    for name in ("body_subtreemass", "dof_invweight0", "body_invweight0", "actuator_acc0"):
        field = simulation.field(name)
        np.testing.assert_allclose(field[1], getattr(doubled, name), rtol=2e-5, err_msg=name)
        assert torch.equal(field[0], torch.from_numpy(getattr(model, name)).float()), name


def test_recomputing_constants_twice_changes_nothing(simulation: WarpSimulation):
    names = ("body_subtreemass", "dof_invweight0", "body_invweight0", "geom_rbound")
    for name in ("body_mass", "body_inertia"):
        simulation.field(name)[1:] *= 1.3
    simulation.recompute_constants(every(NUM_ENVS))
    first = [simulation.field(name).clone() for name in names]
    run(simulation, 3)
    before = snapshot(simulation)

    simulation.recompute_constants(some(0, 2))

    for name, values in zip(names, first, strict=True):
        assert torch.equal(simulation.field(name), values), name
    for name, values in snapshot(simulation).items():
        assert torch.equal(values, before[name]), name


def test_stepping_and_resetting_never_wait_for_the_device(simulation: WarpSimulation):
    simulation.field("body_mass")
    simulation.recompute_constants(every(NUM_ENVS))
    worlds, state = some(1, 2), standing(NUM_ENVS)
    simulation.step(2)
    simulation.step(1, lambda: None)

    with no_sync():
        for _ in range(2):
            simulation.step(2)
            simulation.step(2, lambda: None)
            simulation.reset(worlds, state)
            simulation.recompute_constants(worlds)


def test_restored_simulation_continues_with_the_same_bits(
    simulation: WarpSimulation, model: mujoco.MjModel
):
    generator = torch.Generator().manual_seed(3)
    for name in ("body_mass", "actuator_delay", "sensor_delay", "dof_damping", "geom_friction"):
        field = simulation.field(name)
        field *= 0.5 + torch.rand(field.shape, generator=generator)
    simulation.recompute_constants(every(NUM_ENVS))
    run(simulation, 30)  # commands are on their way through the delay
    state = simulation.state_dict()
    kept = {name: values.clone() for name, values in state["state"].items()}
    now = snapshot(simulation)
    expected = run(simulation, 30, seed=1)

    restored = WarpSimulation(model, NUM_ENVS, device="cpu")
    run(restored, 3, seed=2)
    restored.load_state_dict(state)

    for name, values in snapshot(restored).items():
        assert torch.equal(values, now[name]), name
    assert torch.equal(run(restored, 30, seed=1), expected)
    for name, values in state["state"].items():  # it is a copy
        assert torch.equal(values, kept[name]), name


def test_field_that_did_not_differ_yet_is_the_models_again_when_a_state_is_restored(
    simulation: WarpSimulation, model: mujoco.MjModel
):
    state = simulation.state_dict()
    expected = run(simulation, 6)
    simulation.load_state_dict(state)

    for name in ("opt.gravity", "body_mass", "body_inertia", "geom_friction", "dof_damping"):
        simulation.field(name)[1] *= 2
    simulation.recompute_constants(every(NUM_ENVS))
    run(simulation, 3)
    simulation.load_state_dict(state)

    assert torch.equal(run(simulation, 6), expected)


def test_steps_of_a_whole_task_never_wait_for_the_device():
    env = envs.make("arm_reach", num_envs=NUM_ENVS, backend="warp", task_config={"episode_s": 0.4})
    action = torch.zeros(NUM_ENVS, env.num_actions)
    env.reset(stagger=True)
    env.step(action)

    ended = torch.zeros(NUM_ENVS)
    with no_sync():
        for _ in range(20):
            ended += env.step(action).truncated

    assert (ended > 0).all()


@pytest.mark.parametrize("name", ["qpos", "qvel", "ctrl"])
@pytest.mark.parametrize("bad", [float("nan"), float("inf"), 1e12])
def test_diverged_world_is_reported_once_and_the_others_are_untouched(
    simulation: WarpSimulation, model: mujoco.MjModel, name: str, bad: float
):
    healthy = make(model)
    for each in (healthy, simulation):
        each.data("ctrl").zero_()
        each.data("actuator_force")
    simulation.data(name)[2, -1] = bad

    healthy.step(2)
    assert simulation.step(2).tolist() == [False, False, True, False]

    others = [0, 1, 3]
    for key, values in snapshot(healthy).items():
        assert torch.equal(simulation.data(key)[others], values[others]), key
    for key in ("qpos", "qvel", "sensordata", "history", "actuator_force", "xpos", "cvel"):
        assert simulation.data(key).isfinite().all(), key
    assert not simulation.step(1).any()


def test_world_that_blows_up_between_two_physics_steps_has_diverged_as_in_mujoco():
    """Damping stops it within a step, by an acceleration beyond 1e10; at the end it is slow."""
    model = mujoco.MjModel.from_xml_string("""
        <mujoco><worldbody><body>
          <joint type="slide" axis="1 0 0" damping="1e5"/><geom size="0.1" mass="1"/>
        </body></worldbody></mujoco>
    """)
    speed = torch.tensor([[1e3], [1e8], [-1e8], [0.0]])
    nothing = torch.zeros(NUM_ENVS, 0)
    found = []
    for simulation in (
        WarpSimulation(model, NUM_ENVS, device="cpu"),
        BatchSimulation(model, NUM_ENVS, num_threads=1),
    ):
        dtype = simulation.data("qpos").dtype
        start = State(torch.zeros(NUM_ENVS, 1), speed, nothing)
        simulation.reset(every(NUM_ENVS), State(*(part.to(dtype) for part in start)))
        found.append(simulation.step(5).tolist())
        assert not simulation.step(5).any()

    assert found == [[False, True, True, False]] * 2


def test_healthy_worlds_are_not_reported(simulation: WarpSimulation):
    assert not any(simulation.step(10).any() for _ in range(5))


def test_more_contacts_than_buffers_are_an_error_that_names_the_setting(model: mujoco.MjModel):
    expected = r"nconmax=2 is too little: falling .* needs 4; leave nconmax out, or set nconmax=16"
    with pytest.raises(ConfigError, match=expected):
        WarpSimulation(model, NUM_ENVS, device="cpu", nconmax=2)


def test_constraints_dropped_in_a_run_are_an_error_that_names_the_setting(model: mujoco.MjModel):
    # Four feet and two joint limits are 4 · 3 + 2 rows; falling without power needs 12.
    simulation = WarpSimulation(model, NUM_ENVS, device="cpu", njmax=12)
    reset(simulation, every(NUM_ENVS), height=0.235)
    simulation.step(1)
    simulation.check()

    simulation.data("qpos")[1, 7:] = 1.2
    simulation.data("qpos")[1, 2] = 0.05
    simulation.step(1)
    reset(simulation, every(NUM_ENVS))  # does not forget

    expected = r"1 of 4 worlds had more than fits into njmax=12 \(NEFC\).*set njmax=24"
    with pytest.raises(ConfigError, match=expected):
        simulation.check()
    with pytest.raises(ConfigError, match=expected):
        simulation.state_dict()


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        (
            '<position name="rear" joint="rear" kp="12" kv="0.2"/>',
            '<pid name="rear" joint="rear" kp="12" ki="1"/>',
            r"\['mjDYN_PID'\] not supported \(actuator rear\); replace <pid> by <position>",
        ),
        (
            '<option timestep="0.002"',
            '<option timestep="0.002" solver="PGS"',
            r'mjSOL_PGS is unsupported; set <option solver="Newton"/>, or use device \'cpu\'',
        ),
    ],
)
def test_model_that_warp_cannot_simulate_is_refused_with_what_to_use(
    old: str, new: str, expected: str
):
    assert old in XML
    with pytest.raises(ConfigError, match=expected):
        WarpSimulation(mujoco.MjModel.from_xml_string(XML.replace(old, new)), 1, device="cpu")


def test_plugin_of_the_whole_model_is_refused():
    spec = mujoco.MjSpec.from_string(XML)
    lagging_data.request(spec, contact_forces=True)

    with pytest.raises(ConfigError, match=r"plugin instances .* not supported; remove the plugin"):
        WarpSimulation(spec.compile(), 1, device="cpu")


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("geom_contype", "'geom_contype' cannot vary between worlds on a GPU"),
        ("body_mas", r"did you mean 'body_mass'\?"),
        ("opt.gravit", r"did you mean 'opt.gravity'\?"),
        ("opt.iterations", "cannot vary"),
        ("actuator_armature", "vary dof_armature"),
    ],
)
def test_field_that_cannot_vary_is_refused(simulation: WarpSimulation, name: str, expected: str):
    with pytest.raises(ConfigError, match=expected):
        simulation.field(name)


@pytest.mark.parametrize("name", ["contact", "efc_force", "qpoz"])
def test_data_that_warp_lacks_is_refused(simulation: WarpSimulation, name: str):
    with pytest.raises(ConfigError, match=f"no data '{name}'"):
        simulation.data(name)
