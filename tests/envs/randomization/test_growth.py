"""Ranges that grow: by the schedule's straight line, and by what a metric says."""

import pytest
import torch

from deploy.errors import ConfigError
from envs.randomization import at_full_range, read_terms
from envs.worlds import every
from tests.envs.randomization.worlds import begin, walkers

MASS = {"field": "mass", "match": "base", "range": (2.0, 2.0)}  # 3 kg nominal, 6 kg in full
NUM_ENVS = 8


def schedule(start: float, over_steps: float) -> dict:
    return {"schedule": {"start": start, "over_steps": over_steps}}


def adapt(**values: object) -> dict:
    return {"adapt": {"metric": "error", "good": 0.1, "bad": 0.3, "samples": 10} | values}


def mass_after(term: dict, step: int) -> float:
    simulation, randomization = walkers([term], NUM_ENVS)
    randomization.before_step(step)
    begin(simulation, randomization)
    (mass,) = simulation.field("body_mass")[:, 1].unique().tolist()
    return mass


@pytest.mark.parametrize(
    ("start", "step", "mass"),
    [(0.0, 0, 3.0), (0.0, 25, 3.75), (0.0, 50, 4.5), (0.0, 100, 6.0), (0.0, 10_000, 6.0),
     (0.4, 0, 4.2), (0.4, 50, 5.1), (1.0, 0, 6.0)],
)  # fmt: skip
def test_schedule_counts_the_steps_of_all_worlds(start: float, step: int, mass: float):
    # 100 steps of 8 worlds are 800; mass = 3 (1 + share).
    assert mass_after(MASS | schedule(start, 800.0), step) == pytest.approx(mass)


@pytest.mark.parametrize(
    ("term", "table", "places", "full"),
    [
        ({"field": "dof_damping", "operation": "add", "range": (1, 1)}, "dof_damping", 6, 1.2),
        ({"field": "dof_damping", "operation": "set", "range": (1, 1)}, "dof_damping", 6, 1.0),
        ({"field": "dof_damping", "range": (4, 4)}, "dof_damping", 6, 0.8),
        ({"payload": "base", "range": (2, 2)}, "body_mass", 1, 5.0),
        ({"supply": "*", "range": (0.5, 0.5)}, "actuator_forcerange", 0, (-2.5, 2.5)),
    ],
)
def test_half_a_share_is_half_the_change(term: dict, table: str, places: int, full: object):
    half = term | schedule(0.5, 1e12)
    simulation, randomization = walkers([half], NUM_ENVS)
    nominal = torch.as_tensor(getattr(simulation.model, table)[places])
    begin(simulation, randomization)

    found = simulation.field(table)[0, places]
    torch.testing.assert_close(found, (nominal + torch.tensor(full).double()) / 2)


def test_share_holds_for_pushes_initial_states_and_rotations():
    terms = [
        {"push": "base", "columns": "x", "range": (1, 1), "interval_s": (0.01, 0.01)},
        {"initial": "angle", "match": "left", "range": (0.4, 0.4)},
        {"field": "opt.gravity", "operation": "rotate", "range": (0.4, 0.4)},
    ]
    simulation, randomization = walkers([t | schedule(0.5, 1e12) for t in terms], NUM_ENVS)
    state = begin(simulation, randomization)
    randomization.before_step(0)

    assert state.qpos[:, 7].tolist() == pytest.approx([0.2] * NUM_ENVS)
    assert simulation.data("qvel")[:, 0].tolist() == pytest.approx([0.5] * NUM_ENVS)
    down = -simulation.field("opt.gravity")[:, 2] / 9.81
    assert down.arccos().tolist() == pytest.approx([0.2] * NUM_ENVS)


def test_inertial_parameters_grow_from_the_nominal_body():
    term = {"inertia": "pseudo", "match": "base", "columns": "mass", "range": (0.2, 0.2)}
    assert mass_after(term | schedule(0.5, 1e12), 0) == pytest.approx(3 * 2.718281828**0.2)


def feed(randomization, value: float, count: int) -> float:
    """Measure a value in some worlds, `count` times in all; the share after it."""
    for _ in range(count // 4):
        measured = torch.arange(NUM_ENVS) < 4
        values = torch.where(measured, value, float("nan"))  # what is not measured does not count
        randomization.adapt({"error": values}, measured)
    (share,) = randomization.metrics().values()
    return share


def test_range_widens_while_the_metric_is_good_and_narrows_while_it_is_bad():
    _, randomization = walkers([MASS | adapt(step=0.25)], NUM_ENVS)

    assert feed(randomization, 0.05, 8) == 0  # 8 of 10 samples: no decision yet
    assert feed(randomization, 0.05, 4) == 0.25
    assert feed(randomization, 0.2, 12) == 0.25  # neither good nor bad
    assert feed(randomization, 0.099, 12) == 0.5
    assert feed(randomization, 0.301, 12) == 0.25
    assert [feed(randomization, 1.0, 12) for _ in range(3)] == [0, 0, 0]
    assert [feed(randomization, 0.0, 12) for _ in range(5)] == [0.25, 0.5, 0.75, 1, 1]


def test_large_values_are_good_where_good_is_above_bad():
    _, randomization = walkers([MASS | adapt(good=0.9, bad=0.5, step=0.25, start=0.5)], NUM_ENVS)

    assert feed(randomization, 0.95, 12) == 0.75
    assert feed(randomization, 0.4, 12) == 0.5


def test_decision_is_about_the_mean_of_the_samples():
    _, randomization = walkers([MASS | adapt(step=0.25, start=0.5, samples=8)], NUM_ENVS)

    feed(randomization, 0.0, 4)
    assert feed(randomization, 0.19, 4) == 0.75  # mean 0.095
    feed(randomization, 0.0, 4)
    assert feed(randomization, 0.21, 4) == 0.75  # mean 0.105


def test_metric_that_does_not_apply_in_a_world_is_no_sample():
    _, randomization = walkers([MASS | adapt(step=0.25, start=0.5, samples=8)], NUM_ENVS)
    values, measured = torch.zeros(NUM_ENVS), torch.ones(NUM_ENVS, dtype=torch.bool)
    values[0] = torch.nan

    randomization.adapt({"error": values}, measured)  # 7 samples
    assert list(randomization.metrics().values()) == [0.5]

    randomization.adapt({"error": values}, measured)  # 14
    assert list(randomization.metrics().values()) == [0.75]


def test_new_share_holds_from_the_next_episode_on():
    simulation, randomization = walkers([MASS | adapt(step=0.5)], NUM_ENVS)
    begin(simulation, randomization)
    feed(randomization, 0.0, 12)
    assert simulation.field("body_mass")[0, 1] == 3.0

    begin(simulation, randomization, episode=2)

    assert simulation.field("body_mass")[0, 1] == 4.5


def test_growth_is_named_and_restored():
    terms = [MASS | adapt(step=0.25), {"field": "kp", "range": (0.9, 1.1)}]
    _, randomization = walkers(terms, NUM_ENVS)
    feed(randomization, 0.0, 12)
    feed(randomization, 0.0, 8)
    _, other = walkers(terms, NUM_ENVS)
    other.load_state_dict(randomization.state_dict())

    assert other.metrics() == {"share/mass scale [2.0, 2.0] on base": 0.25}
    assert feed(other, 0.0, 4) == 0.5  # the 8 samples are remembered


def test_extremes_are_those_of_the_full_range_however_little_is_used_of_it():
    with pytest.raises(ConfigError, match=r"body_mass of 'base' could become -1\.0"):
        walkers([{"field": "mass", "match": "base", "operation": "add", "range": (-4, 0)}
                 | schedule(0.0, 1e6)])  # fmt: skip


def test_finished_policy_is_judged_at_the_full_range():
    terms = read_terms([MASS | schedule(0, 1e6), MASS | adapt()], source="terms")

    assert all(term.schedule is None and term.adapt is None for term in at_full_range(terms))


def test_metric_that_the_task_does_not_have_is_refused():
    _, randomization = walkers([MASS | adapt(metric="eror")], NUM_ENVS)

    with pytest.raises(ConfigError) as error:
        randomization.adapt({"error": torch.zeros(8)}, torch.ones(8, dtype=torch.bool))
    assert str(error.value) == (
        "randomization: 'mass scale [2.0, 2.0] on base' adapts to the metric 'eror' (did you mean "
        "'error'?); this task measures ['error']"
    )


@pytest.mark.parametrize(
    ("growth", "problem"),
    [
        (schedule(0, 1e6) | adapt(), "a range grows by `schedule` or by `adapt`, not by both"),
        (adapt(good=1, bad=1), "`good` and `bad` must differ"),
        (schedule(2, 1e6), "schedule.start: input should be less than or equal to 1"),
        (schedule(0, 0), "schedule.over_steps: input should be greater than or equal to 1"),
        ({"schedule": {"over": 1}}, "schedule: unknown key 'over' (did you mean 'over_steps'?)"),
    ],
)
def test_growth_that_means_nothing_is_refused(growth: dict, problem: str):
    with pytest.raises(ConfigError) as error:
        walkers([MASS | growth])
    assert problem in str(error.value)


@pytest.mark.parametrize(
    ("counts", "name"),
    [
        ({"signal": "joint_position", "quantize": 0.01}, "joint_position quantize 0.01 on *"),
        ({"command": "quantize", "step": 0.01}, "command quantize 0.01 on *"),
    ],
)
def test_counts_cannot_grow(counts: dict, name: str):
    for key, growth in (("schedule", schedule(0, 1e6)), ("adapt", adapt())):
        with pytest.raises(ConfigError) as error:
            read_terms([counts | growth], source="terms")
        assert f"{name}: counts are there from the start; delete `{key}`" in str(error.value)


def test_terms_without_growth_cost_nothing_and_are_not_reported():
    simulation, randomization = walkers([MASS], NUM_ENVS)
    randomization.begin(every(NUM_ENVS), torch.zeros(NUM_ENVS, dtype=torch.int64))
    randomization.adapt({}, torch.ones(NUM_ENVS, dtype=torch.bool))

    assert randomization.metrics() == {}
    assert simulation.field("body_mass")[0, 1] == 6.0
