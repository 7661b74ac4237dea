"""Pushes and wrenches do what plain MuJoCo does with the same numbers, at the times they say."""

import mujoco
import numpy as np
import pytest
import torch

import envs
from deploy.errors import ConfigError
from envs.draws import Draws
from envs.randomization import Randomization, read_terms
from envs.worlds import Worlds
from tests.envs.randomization.worlds import BASE, DT, LEFT, RIGHT, WALKER, begin, walkers

PUSH = {"push": "base", "columns": ["x", "y", "rz"], "range": (-1.0, 1.0), "interval_s": (0.1, 0.3)}
WRENCH = {
    "wrench": "left",
    "columns": ["x", "z", "ry"],
    "range": (-3.0, 3.0),
    "interval_s": (0.2, 0.4),
    "duration_s": (0.05, 0.15),
}
STEPS = 300
X, Y, RZ = 0, 1, 5  # columns of qvel of the free joint


def plain(qpos: np.ndarray) -> tuple[mujoco.MjModel, mujoco.MjData]:
    model = mujoco.MjModel.from_xml_string(WALKER)
    data = mujoco.MjData(model)
    data.qpos[:] = qpos
    return model, data


def test_pushed_worlds_move_as_plain_mujoco_does_with_the_same_kicks():
    simulation, randomization = walkers([PUSH])
    state = begin(simulation, randomization)
    oracles = [plain(qpos.numpy()) for qpos in state.qpos]
    kicks = 0

    for step in range(STEPS):
        before = simulation.data("qvel").clone()
        randomization.before_step(step)
        kicked = simulation.data("qvel") - before
        kicks += int((kicked != 0).any(dim=1).sum())
        for world, (model, data) in enumerate(oracles):
            kick = kicked[world].numpy()
            assert set(np.flatnonzero(kick)) <= {X, Y, RZ}
            assert np.abs(kick).max() <= 1
            if kick.any():
                data.qvel[:] = simulation.data("qvel")[world].numpy()  # the sum, rounded once
            mujoco.mj_step(model, data)
        simulation.step(1)
        for world, (_, data) in enumerate(oracles):
            assert np.array_equal(simulation.data("qpos")[world].numpy(), data.qpos), step
            assert np.array_equal(simulation.data("qvel")[world].numpy(), data.qvel), step

    assert 2 * 3.0 / 0.3 - 2 <= kicks <= 2 * 3.0 / 0.1  # 3 s, every 0.1 to 0.3 s


def test_wrenched_worlds_move_as_plain_mujoco_does_with_the_same_forces():
    simulation, randomization = walkers([WRENCH])
    state = begin(simulation, randomization)
    oracles = [plain(qpos.numpy()) for qpos in state.qpos]
    acted = 0

    for step in range(STEPS):
        randomization.before_step(step)
        applied = simulation.data("xfrc_applied").numpy()
        acted += int(applied.any(axis=(1, 2)).sum())
        simulation.step(1)
        for world, (model, data) in enumerate(oracles):
            assert not applied[world, [0, BASE, RIGHT]].any()
            assert not applied[world, LEFT][[1, 3, 5]].any()
            data.xfrc_applied[:] = applied[world]
            mujoco.mj_step(model, data)
            assert np.array_equal(simulation.data("qpos")[world].numpy(), data.qpos), step

    assert 0.1 * STEPS * 2 < acted < 0.6 * STEPS * 2  # 0.1 of 0.3 s on average


def event_times(term: dict, read: str, num_envs: int = 200) -> tuple[list[float], list[float]]:
    """Times [s] between the starts of events, and how long they last."""
    simulation, randomization = walkers([term], num_envs)
    begin(simulation, randomization)
    rows = []
    for step in range(200):
        before = simulation.data(read).clone()
        randomization.before_step(step)
        now = simulation.data(read)
        changed = now - before if read == "qvel" else now
        rows.append(changed.reshape(num_envs, -1).clone())
    numbers = torch.stack(rows)  # (steps, worlds, numbers)
    on = (numbers != 0).any(dim=-1).numpy()
    between, lasting = [], []
    for column in on.T:
        starts = (
            np.flatnonzero(column & ~np.roll(column, 1))
            if read != "qvel"
            else (np.flatnonzero(column))
        )
        ends = np.flatnonzero(~column & np.roll(column, 1))
        between += list(np.diff(starts) * DT)
        lasting += [
            (ends[ends > start].min() - start) * DT for start in starts if (ends > start).any()
        ]
    return between, lasting


def test_time_between_pushes_is_uniform_in_its_interval():
    between, _ = event_times(PUSH, "qvel")

    assert min(between) >= 0.1 - 1e-9
    assert max(between) <= 0.3 + 1e-9
    # 0.2 ± 0.0577/√n
    assert np.mean(between) == pytest.approx(0.2, abs=5 * 0.0577 / np.sqrt(len(between)) + 0.002)


def test_wrench_lasts_as_long_as_it_says():
    between, lasting = event_times(WRENCH, "xfrc_applied")

    assert 0.2 - 1e-9 <= min(between) <= max(between) <= 0.4 + 1e-9
    assert 0.05 - 1e-9 <= min(lasting) <= max(lasting) <= 0.15 + 1e-9
    assert len(set(np.round(lasting, 6))) == 11  # 5 to 15 steps


def test_every_event_number_and_world_has_its_own_draw():
    simulation, randomization = walkers([PUSH], 100)
    begin(simulation, randomization)
    kicks = []
    for step in range(100):
        before = simulation.data("qvel").clone()
        randomization.before_step(step)
        kicked = (simulation.data("qvel") - before)[:, [X, Y, RZ]]
        kicks.append(kicked[kicked.any(dim=1)])
        simulation.data("qvel")[:] = 0
    numbers = torch.cat(kicks)

    assert len(numbers) > 300
    assert len(numbers.unique()) > 0.99 * numbers.numel()
    assert torch.corrcoef(numbers.T).fill_diagonal_(0).abs().max() < 5 / np.sqrt(len(numbers))
    assert numbers.min() < -0.9
    assert numbers.max() > 0.9


def test_wrenches_of_several_terms_on_a_body_add_up():
    force = {"wrench": "base", "columns": "z", "interval_s": (0.1, 0.1), "duration_s": (0.1, 0.1)}
    simulation, randomization = walkers([force | {"range": (2, 2)}, force | {"range": (5, 5)}])
    begin(simulation, randomization)
    for step in range(10):
        randomization.before_step(step)

    assert simulation.data("xfrc_applied")[:, BASE, 2].tolist() == [7, 7]


def test_shared_draw_pushes_all_joints_alike():
    simulation, randomization = walkers(
        [{"push": ["left", "right"], "range": (1, 2), "shared": True, "interval_s": (0.01, 0.01)}]
    )
    begin(simulation, randomization)
    randomization.before_step(0)

    left, right = simulation.data("qvel")[:, 6:].T
    assert torch.equal(left, right)
    assert left[0] != left[1]


def test_episode_starts_without_forces_and_leaves_other_worlds_theirs():
    simulation, randomization = walkers([WRENCH | {"interval_s": (0.15, 0.15)}], 4)
    begin(simulation, randomization)
    for step in range(15):
        randomization.before_step(step)
    acting = simulation.data("xfrc_applied").clone()
    assert acting.flatten(1).any(dim=1).all()

    begin(simulation, randomization, Worlds(torch.tensor([1, 2])), episode=2)
    randomization.before_step(15)

    now = simulation.data("xfrc_applied")
    assert not now[[1, 2]].any()
    assert torch.equal(now[[0, 3]], acting[[0, 3]])


def test_saved_state_goes_on_with_the_same_bits_while_a_force_acts():
    terms = [PUSH, WRENCH]
    simulation, randomization = walkers(terms, 8)
    begin(simulation, randomization)

    def go(sim, work, first: int) -> torch.Tensor:
        for step in range(first, first + 60):
            work.before_step(step)
            sim.step(1)
        return torch.cat([sim.data("qpos"), sim.data("qvel")], dim=1).clone()

    while not simulation.data("xfrc_applied").any():
        go(simulation, randomization, 0)
    saved = simulation.state_dict(), randomization.state_dict()
    expected = go(simulation, randomization, 60)

    other, restored = walkers(terms, 8)
    begin(other, restored, episode=7)
    other.load_state_dict(saved[0])
    restored.load_state_dict(saved[1])

    assert torch.equal(go(other, restored, 60), expected)


@pytest.mark.parametrize(
    ("term", "problem"),
    [
        (PUSH | {"push": "bse"}, "'push' has no element matching 'bse' (did you mean 'base'?)"),
        (PUSH | {"columns": None}, "the columns of 'push' are different things; name those"),
        (PUSH | {"columns": "w"}, "'push' has no column 'w'"),
        (PUSH | {"push": ["base", "left"], "columns": None}, "are of different kinds; write a"),
        (PUSH | {"push": "left"}, "'push' has no element matching 'left'"),
        (PUSH | {"interval_s": (2, 1)}, "interval_s must be [shortest, longest]"),
        (PUSH | {"range": (0, 0)}, "push: add [0.0, 0.0] changes nothing"),
        (PUSH | {"when": "reset"}, "unknown key 'when'"),
        (WRENCH | {"wrench": "world"}, "'wrench' has no element matching 'world'"),
        (WRENCH | {"columns": None}, "the columns of 'wrench' are different things"),
        (WRENCH | {"duration_s": (0.3, 0.1)}, "duration_s must be [shortest, longest]"),
        (WRENCH | {"duration_s": (0.1, 0.3)}, "a wrench must end before the next one starts"),
    ],
)
def test_term_that_means_nothing_is_refused(term: dict, problem: str):
    with pytest.raises(ConfigError) as error:
        walkers([term])
    assert problem in str(error.value)


@pytest.mark.parametrize("term", [PUSH, WRENCH])
def test_event_that_no_episode_lives_to_see_is_refused(term: dict):
    simulation, _ = walkers([])
    terms = read_terms([term | {"interval_s": (2.0, 4.0)}], source="terms")
    for episode_s in (2.0, 1.99):
        settings = {"signals": {}, "control_dt_s": DT, "episode_s": episode_s}
        if episode_s == 2.0:
            Randomization(terms, simulation, Draws(0, simulation.device), **settings)
            continue
        with pytest.raises(ConfigError) as error:
            Randomization(terms, simulation, Draws(0, simulation.device), **settings)
        assert str(error.value).endswith(
            "never happens: the first comes 2 s or more after an episode starts, and none is "
            "longer than 1.99 s; lower interval_s"
        )


def test_episodes_of_an_environment_are_as_long_as_its_task_says():
    push = {"push": "elbow_flex", "range": (-1.0, 1.0), "interval_s": (2.0, 4.0)}
    envs.make("arm_reach", randomization=[push], task_config={"episode_s": 2.0})
    with pytest.raises(ConfigError, match="never happens"):
        envs.make("arm_reach", randomization=[push], task_config={"episode_s": 1.0})


def test_wrench_on_a_body_that_cannot_move_is_refused():
    post = WALKER.replace('<body name="base"', '<body name="post"><geom size="0.1"/></body>'
                          '<body name="base"')  # fmt: skip
    with pytest.raises(ConfigError, match=r"'wrench add \[-3.0, 3.0\] on post' has no effect"):
        walkers([WRENCH | {"wrench": "post"}], xml=post)
