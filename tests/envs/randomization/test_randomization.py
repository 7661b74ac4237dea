"""All kinds of terms at work together: by ids and by mask, on both backends, saved and restored."""

from typing import Any

import mujoco
import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import _disable_current_modes

import envs
from deploy.contract import TrainedRange
from deploy.errors import ConfigError
from envs.batch_simulation import BatchSimulation
from envs.draws import Draws
from envs.randomization import Randomization, read_terms
from envs.randomization.randomization import bind
from envs.simulation import State
from envs.worlds import Worlds, choose, every
from tests.envs.no_sync import no_sync
from tests.envs.randomization.worlds import DT, WALKER, MaskedSimulation, begin, walkers

NUM_ENVS = 6
JOINTS = ["left", "right"]
EVERY_KIND: list[dict[str, Any]] = [
    {"field": "mass", "range": (0.8, 1.2)},
    {"field": "kp", "range": (0.9, 1.1), "when": "startup"},
    {"field": "opt.gravity", "operation": "rotate", "range": (0.0, 0.05)},
    {"field": "joint_zero", "operation": "add", "range": (-0.02, 0.02)},
    {"fields": ["dof_damping", "jnt_stiffness"], "match": "left", "operation": "add",
     "range": (0.1, 0.2)},
    {"inertia": "pseudo", "match": "base", "range": (-0.05, 0.05)},
    {"payload": "base", "at": (0.1, 0, 0.05), "range": (0, 0.5)},
    {"supply": "*", "range": (0.7, 1.1), "when": "interval", "interval_s": (0.05, 0.1)},
    {"field": "friction", "range": (0.5, 1.2), "shared": True, "when": "interval",
     "interval_s": (0.03, 0.06)},
    {"initial": "angle", "range": (-0.3, 0.3)},
    {"initial": "tilt", "range": (0, 0.2)},
    {"push": "base", "columns": ["x", "y"], "range": (-1, 1), "interval_s": (0.05, 0.1)},
    {"wrench": "left", "columns": "x", "range": (-3, 3), "interval_s": (0.1, 0.2),
     "duration_s": (0.05, 0.1), "schedule": {"start": 0.5, "over_steps": 100.0}},
    {"signal": "joint_position", "operation": "add", "range": (-0.1, 0.1)},
    {"signal": "joint_position", "operation": "add", "range": (-0.1, 0.1), "when": "step"},
    {"command": "hold", "probability": 0.3},
    {"field": "dof_armature", "operation": "add", "range": (0.01, 0.02),
     "adapt": {"metric": "error", "good": 0.1, "bad": 0.2, "samples": 5, "step": 0.2}},
]  # fmt: skip
FIELDS = ["body_mass", "body_inertia", "body_ipos", "actuator_gainprm", "actuator_forcerange",
          "opt.gravity", "qpos0", "dof_damping", "geom_friction", "dof_armature",
          "dof_invweight0"]  # fmt: skip


def make(kind: Any = BatchSimulation, **settings: Any) -> tuple[Any, Randomization]:
    simulation = kind(mujoco.MjModel.from_xml_string(WALKER), NUM_ENVS, **settings)
    randomization = Randomization(
        read_terms(EVERY_KIND, source="terms"),
        simulation,
        Draws(0, simulation.device),
        signals={"joint_position": JOINTS},
        control_dt_s=DT,
    )
    return simulation, randomization


def start(simulation: Any, randomization: Randomization, worlds: Worlds, episode: Tensor) -> None:
    """What an environment does where episodes begin."""
    model, dtype = simulation.model, simulation.data("qpos").dtype
    count = worlds.take(episode)
    randomization.begin(worlds, count)
    state = State(
        torch.zeros(len(worlds), model.nq, dtype=dtype),
        torch.zeros(len(worlds), model.nv, dtype=dtype),
        torch.zeros(len(worlds), model.nu, dtype=dtype),
    )
    state.qpos[:, 2], state.qpos[:, 3] = 0.5, 1
    simulation.reset(worlds, randomization.initial_state(worlds, count, state))


def run(simulation: Any, randomization: Randomization, steps: int, first: int = 0) -> list[Tensor]:
    """Steps in which worlds end at different times; everything that can be seen, step by step."""
    episode = torch.ones(NUM_ENVS, dtype=torch.int64)
    if first == 0:
        start(simulation, randomization, every(NUM_ENVS), episode)
    seen = []
    for step in range(first, first + steps):
        targets = torch.full((NUM_ENVS, 2), 0.01 * step)
        received = randomization.receive(targets, simulation.data("ctrl").float(), step)
        simulation.data("ctrl")[:] = received
        randomization.before_step(step)
        simulation.step(1)
        error = torch.full((NUM_ENVS,), 0.05)
        randomization.adapt({"error": error}, error > 0)
        signals = {"joint_position": simulation.data("qpos")[:, 7:].float().clone()}
        randomization.sense(signals, every(NUM_ENVS), step + 1, None)
        ended = (torch.arange(NUM_ENVS) + step) % 7 == 0
        worlds = choose(ended, compact=simulation.compact)
        if not worlds.none:
            worlds.put(episode, worlds.take(episode) + 1)
            start(simulation, randomization, worlds, episode)
        parts = [simulation.data(name) for name in ("qpos", "qvel", "ctrl", "xfrc_applied")]
        parts += [simulation.field(name) for name in FIELDS]
        parts.append(signals["joint_position"])
        seen.append(torch.cat([part.reshape(NUM_ENVS, -1).double() for part in parts], dim=1))
    return seen


def test_worlds_chosen_by_mask_are_to_the_bit_those_chosen_by_ids():
    by_ids = run(*make(num_threads=1), 40)
    by_mask = run(*make(MaskedSimulation, num_threads=1), 40)

    for step, (ids, mask) in enumerate(zip(by_ids, by_mask, strict=True)):
        assert torch.equal(ids, mask), step
    assert len(torch.stack(by_ids)[:, :, 0].unique()) > 200  # and they did move


def test_saved_in_mid_episode_it_goes_on_with_the_same_bits():
    simulation, randomization = make(num_threads=1)
    run(simulation, randomization, 25)
    saved = simulation.state_dict(), randomization.state_dict()
    expected = run(simulation, randomization, 25, first=25)

    other, restored = make(num_threads=1)
    run(other, restored, 3)
    other.load_state_dict(saved[0])
    restored.load_state_dict(saved[1])

    for found, row in zip(run(other, restored, 25, first=25), expected, strict=True):
        assert torch.equal(found, row)
    assert restored.metrics() == randomization.metrics()


def test_nothing_waits_for_a_gpu(monkeypatch: pytest.MonkeyPatch):
    true = Draws.uniform

    def uniform(self: Draws, *args: Any) -> list[Tensor]:
        with _disable_current_modes():  # on the CPU it draws in numpy; see test_draws.py
            return true(self, *args)

    monkeypatch.setattr(Draws, "uniform", uniform)
    simulation, randomization = make(MaskedSimulation, num_threads=1)
    run(simulation, randomization, 2)
    episode = torch.full((NUM_ENVS,), 5)
    worlds = choose(torch.arange(NUM_ENVS) < 3, compact=False)
    state = State(*(simulation.data(name).clone() for name in ("qpos", "qvel", "ctrl")))
    monkeypatch.setattr(simulation, "recompute_constants", lambda worlds: None)
    signals = {"joint_position": torch.zeros(NUM_ENVS, 2)}
    error = torch.full((NUM_ENVS,), 0.05)

    with no_sync():
        randomization.begin(worlds, episode)
        randomization.initial_state(worlds, episode, state)
        for step in range(20):
            randomization.receive(torch.zeros(NUM_ENVS, 2), torch.zeros(NUM_ENVS, 2), step)
            randomization.before_step(step)
            randomization.sense(signals, worlds, step, None)
            randomization.adapt({"error": error}, error > 0)


def test_everything_bound_lies_on_the_device():
    model = mujoco.MjModel.from_xml_string(WALKER)
    terms = read_terms(EVERY_KIND, source="terms")

    with torch.device("meta"):
        bound = bind(terms, model, [None] * len(terms))

    found = [tensor for entry in bound for tensor in tensors(vars(entry.change))]
    assert len(found) > 20
    assert {tensor.device.type for tensor in found} == {"meta"}


def tensors(value: Any) -> list[Tensor]:
    """Everything of torch within."""
    if isinstance(value, Tensor):
        return [value]
    parts = value.values() if isinstance(value, dict) else value
    return (
        [t for part in parts for t in tensors(part)]
        if isinstance(value, dict | list | tuple)
        else []
    )


def test_both_backends_have_the_same_draws():
    # Warp has single precision: values agree to its rounding, 6e-8 of each number.
    warp_simulation = pytest.importorskip("envs.warp_simulation")
    simulation, randomization = make(num_threads=1)
    warp, on_warp = make(warp_simulation.WarpSimulation, device="cpu")
    episode = torch.arange(NUM_ENVS) + 1
    for worlds, sim, work in (
        (every(NUM_ENVS), simulation, randomization),
        (choose(torch.ones(NUM_ENVS, dtype=torch.bool), compact=False), warp, on_warp),
    ):
        start(sim, work, worlds, episode)
        for step in range(12):
            work.before_step(step)

    for name in FIELDS:
        expected = simulation.field(name)
        exact = name != "dof_invweight0"  # which each computes by itself
        torch.testing.assert_close(
            warp.field(name).double().reshape(expected.shape), expected,
            rtol=1e-6 if exact else 1e-4, atol=1e-7,
        )  # fmt: skip
    for name in ("qpos", "qvel", "ctrl", "xfrc_applied"):
        torch.testing.assert_close(
            warp.data(name).double(), simulation.data(name), rtol=1e-6, atol=1e-6
        )
    assert simulation.data("qvel").any()


def test_contract_can_say_what_every_kind_varied():
    for term in read_terms(EVERY_KIND, source="terms"):
        said = TrainedRange(**term.describe())
        assert said.target in str(term)
        assert said.operation
        assert said.range[0] <= said.range[1]


# --- draws within episodes ----------------------------------------------------------------------

VOLTAGE = {"field": "kp", "range": (0.5, 1.5), "when": "interval", "interval_s": (0.03, 0.05)}


def test_interval_term_is_drawn_again_within_an_episode_at_its_times():
    simulation, randomization = walkers([VOLTAGE], 50)
    begin(simulation, randomization)
    gains = []
    for step in range(100):
        gains.append(simulation.field("actuator_gainprm")[..., 0].clone())
        randomization.before_step(step)
    course = torch.stack(gains) / 20  # (steps, worlds, servos)
    changed = (course[1:] != course[:-1]).any(dim=-1)

    for world in changed.T:
        times = torch.nonzero(world).flatten()
        assert 3 <= times.diff().min() <= times.diff().max() <= 5
    values = course[-1]
    assert 0.5 <= course.min() < 0.55
    assert 1.45 < course.max() <= 1.5
    assert len(values.unique()) == 100


def test_interval_term_leaves_the_draws_of_others_alone_and_follows_their_order():
    doubled = {"field": "kp", "range": (2.0, 2.0)}
    mass = {"field": "mass", "range": (0.5, 2.0)}
    simulation, randomization = walkers([mass, VOLTAGE, doubled], 20)
    begin(simulation, randomization)
    before = simulation.field("body_mass").clone()
    for step in range(20):
        randomization.before_step(step)

    factors = simulation.field("actuator_gainprm")[..., 0] / 20
    assert torch.equal(simulation.field("body_mass"), before)
    assert 1.0 <= factors.min() < factors.max() <= 3.0
    bias = -simulation.field("actuator_biasprm")[..., 1]
    torch.testing.assert_close(bias, simulation.field("actuator_gainprm")[..., 0])


def test_constants_follow_a_mass_drawn_within_an_episode():
    term = {"field": "mass", "range": (0.5, 2.0), "when": "interval", "interval_s": (0.02, 0.02)}
    simulation, randomization = walkers([term], 3)
    begin(simulation, randomization)
    first = simulation.field("body_mass").clone()
    for step in range(2):
        randomization.before_step(step)

    assert (simulation.field("body_mass")[:, 1:] != first[:, 1:]).all()
    for world in range(3):
        model = mujoco.MjModel.from_xml_string(WALKER)
        model.body_mass[:] = simulation.field("body_mass")[world].numpy()
        model.body_inertia[:] = simulation.field("body_inertia")[world].numpy()
        mujoco.mj_setConst(model, mujoco.MjData(model))
        expected = torch.from_numpy(model.dof_invweight0)
        assert torch.equal(simulation.field("dof_invweight0")[world], expected)


@pytest.mark.parametrize(
    ("term", "problem"),
    [
        (VOLTAGE | {"interval_s": None}, "kp: `when: interval` and `interval_s: [shortest, longes"),
        (VOLTAGE | {"when": "reset"}, "kp: `when: interval` and `interval_s: [shortest, longest]`"),
        (VOLTAGE | {"interval_s": (2, 1)}, "interval_s must be [shortest, longest]"),
    ],
)
def test_interval_that_means_nothing_is_refused(term: dict, problem: str):
    with pytest.raises(ConfigError) as error:
        walkers([term])
    assert problem in str(error.value)


# --- groups that follow one draw ----------------------------------------------------------------


def test_fields_of_one_element_follow_one_draw_and_elements_their_own():
    term = {"fields": ["kp", "actuator_forcerange"], "range": (0.5, 1.5)}
    simulation, randomization = walkers([term], 50)
    begin(simulation, randomization)
    gain = simulation.field("actuator_gainprm")[..., 0] / 20
    limit = simulation.field("actuator_forcerange") / 5

    torch.testing.assert_close(limit[..., 1], gain)
    torch.testing.assert_close(limit[..., 0], -gain)
    assert len(gain.unique()) == 100


def test_one_supply_for_all_servos_of_a_world():
    simulation, randomization = walkers([{"supply": "*", "range": (0.5, 1.5)}], 50)
    begin(simulation, randomization)
    gain = simulation.field("actuator_gainprm")[..., 0] / 20

    assert torch.equal(gain[:, 0], gain[:, 1])
    assert len(gain.unique()) == 50
    # P and D gains are both duties; back-EMF is the actuator's damping and stays
    torch.testing.assert_close(simulation.field("actuator_biasprm")[..., 2], -gain)


def test_no_load_speed_and_stall_torque_of_a_dcmotor_follow_the_supply():
    # K = 0.8 V s/rad and R = 4 ohm at the output, 6 V: 7.5 rad/s and 1.2 N·m.
    motor = """
    <mujoco><option timestep="0.001" gravity="0 0 0"/>
      <worldbody><body><joint name="j" axis="0 0 1"/>
        <inertial pos="0 0 0" mass="1" diaginertia="0.02 0.02 0.02"/></body></worldbody>
      <actuator><dcmotor name="j" joint="j" input="pos" resistance="4" motorconst="0.8"
        controller="50 0 0 0 0 6"/></actuator>
    </mujoco>"""
    simulation, randomization = walkers([{"supply": "j", "range": (0.5, 1.0)}], 20, xml=motor)
    begin(simulation, randomization)
    voltage = simulation.field("actuator_gainprm")[:, 0, 7]
    force, speed = simulation.data("qfrc_actuator"), simulation.data("qvel")
    simulation.data("ctrl")[:] = 1000.0

    simulation.step(1)
    torch.testing.assert_close(force[:, 0], voltage * 0.8 / 4)
    simulation.step(2000)

    torch.testing.assert_close(speed[:, 0], voltage / 0.8, rtol=1e-3, atol=0)
    assert 3 <= voltage.min() < voltage.max() <= 6
    assert len(voltage.unique()) == 20


@pytest.mark.parametrize(
    ("term", "problem"),
    [
        (
            {"fields": ["kp", "dof_damping"], "range": (0.5, 2)},
            "different numbers of elements",
        ),
        ({"fields": ["kp", "body_quat"], "range": (0.5, 2)}, "body_quat is an orientation; rotate"),
        ({"fields": ["kp", "geom_friction"], "range": (0.5, 2)}, "'geom_friction' are different"),
        ({"fields": ["kp"], "range": (0.5, 2)}, "fields: list should have at least 2 items"),
        ({"fields": ["kp", "kpp"], "range": (0.5, 2)}, "'kpp' is no model field that can differ"),
        ({"field": "joint_zero", "range": (0.5, 2)}, "an angle is added to a joint's zero"),
        ({"field": "friction", "operation": "add", "range": (0, 1)}, "are scaled together; for an"),
        ({"supply": "*", "range": (0, 1)}, "supply: without voltage nothing moves"),
        (
            {"supply": "*", "range": (11.1, 12.6)},
            "supply is a factor on the nominal voltage, at "
            "most 2, found [11.1, 12.6]; is it in volts?",
        ),
        ({"supply": "lefft", "range": (0.8, 1)}, "'supply' has no element matching 'lefft' (did"),
    ],
)
def test_group_that_means_nothing_is_refused(term: dict, problem: str):
    with pytest.raises(ConfigError) as error:
        walkers([term])
    assert problem in str(error.value)


def test_supply_of_an_actuator_that_knows_no_voltage_is_refused():
    motors = WALKER.replace('<position name="left" joint="left" kp="20" kv="1"',
                            '<motor name="left" joint="left"')  # fmt: skip
    with pytest.raises(ConfigError, match=r"\['left'\] are neither position servos nor"):
        walkers([{"supply": "*", "range": (0.8, 1)}], xml=motors)


# --- in an environment --------------------------------------------------------------------------


def test_environment_with_every_kind_is_copied_in_mid_episode():
    terms = [
        {"field": "mass", "range": (0.8, 1.2), "schedule": {"over_steps": 100.0}},
        {"supply": "*", "range": (0.8, 1.1)},
        {"field": "kd", "operation": "add", "range": (0.0, 0.1), "when": "interval",
         "interval_s": (0.05, 0.1)},
        {"initial": "angle", "match": "elbow_flex", "range": (-0.1, 0.1)},
        {"push": "shoulder_*", "range": (-1, 1), "interval_s": (0.1, 0.2)},
        {"wrench": "hand", "columns": ["x", "z"], "range": (-1, 1), "interval_s": (0.1, 0.2),
         "duration_s": (0.05, 0.1)},
        {"signal": "joint_position", "delay": (0.0, 0.03)},
        {"command": "hold", "probability": 0.2},
    ]  # fmt: skip
    env = envs.make("arm_reach", num_envs=4, num_threads=1, randomization=terms)
    env.reset(stagger=True)
    generator = torch.Generator().manual_seed(0)
    actions = 2 * torch.rand(60, 4, env.num_actions, generator=generator) - 1
    for action in actions[:30]:
        env.step(action)

    recipe, arguments, state = env.__reduce__()
    copy = recipe(*arguments)
    copy.reset()
    copy.load_state_dict(state)

    for action in actions[30:]:
        one, other = env.step(action), copy.step(action)
        assert torch.equal(one.observation["critic"], other.observation["critic"])
        assert torch.equal(one.reward, other.reward)
    assert env.randomization.metrics() == copy.randomization.metrics()
