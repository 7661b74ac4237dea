"""Initial states: what the task gives, with draws applied; rotations against MuJoCo's own."""

import mujoco
import numpy as np
import pytest
import torch

from deploy.errors import ConfigError
from envs.batch_simulation import BatchSimulation
from envs.simulation import State
from envs.worlds import Worlds, choose
from tests.envs.randomization.worlds import WALKER, MaskedSimulation, begin, walkers

ANGLE = {"initial": "angle", "range": (-0.3, 0.3)}
WEIGHTLESS = WALKER.replace("<option", '<option gravity="0 0 0"')
ORIENTATION, JOINTS = slice(3, 7), [7, 8]


def start(*terms: dict, num_envs: int = 200, episode: int = 1) -> State:
    simulation, randomization = walkers(terms, num_envs)
    return begin(simulation, randomization, episode=episode)


def test_angles_are_added_to_those_of_the_task_one_draw_each():
    state = start(ANGLE)
    angles = state.qpos[:, JOINTS]

    assert len(angles.unique()) == 400
    assert -0.3 <= angles.min() < -0.29
    assert 0.29 < angles.max() <= 0.3
    nominal = torch.tensor([0, 0, 0.5, 1, 0, 0, 0], dtype=torch.float64)
    assert torch.equal(state.qpos[:, :7], nominal.expand(200, 7))
    assert not state.qvel.any()


def test_angles_stay_within_the_limits_of_their_joints():
    angles = start(ANGLE | {"range": (-5.0, 5.0)}).qpos[:, JOINTS]

    assert angles.min() == -0.5
    assert angles.max() == 1.0
    assert ((angles > -0.5) & (angles < 1.0)).any()


def test_limits_are_those_that_the_world_has():
    limits = {"field": "jnt_range", "match": ["left", "right"], "range": (0.5, 0.9)}
    simulation, randomization = walkers([limits, ANGLE | {"range": (5.0, 6.0)}], 50)
    state = begin(simulation, randomization)

    assert torch.equal(state.qpos[:, JOINTS], simulation.field("jnt_range")[:, 1:, 1])
    assert len(state.qpos[:, JOINTS].unique()) == 100


def test_servo_is_told_where_its_joint_starts_as_far_as_it_can_be_told():
    state = start(ANGLE | {"range": (-2.0, 2.0)})

    assert torch.equal(state.ctrl, state.qpos[:, JOINTS].clamp(-0.4, 0.9))
    assert state.ctrl.min() == -0.4


def test_joint_at_rest_on_its_target_does_not_start_with_a_jerk():
    simulation, randomization = walkers([ANGLE], 20, xml=WEIGHTLESS)
    state = begin(simulation, randomization)
    simulation.step(50)

    torch.testing.assert_close(simulation.data("qpos"), state.qpos, atol=1e-12, rtol=0)


def test_velocity_of_joints_and_of_the_base():
    state = start(
        {"initial": "velocity", "columns": ["x", "rz"], "range": (0.5, 1.0)},
        {"initial": "velocity", "match": ["left", "right"], "range": (2, 3)},
    )

    changed = [0, 5, 6, 7]
    assert state.qvel[:, changed].min() >= 0.5
    assert len(state.qvel[:, changed].unique()) == 800
    assert not state.qvel[:, 1:5].any()
    assert state.qvel[:, 6:].min() >= 2


def test_height_of_the_base_may_be_set():
    state = start({"initial": "position", "columns": "z", "operation": "set", "range": (0.7, 0.8)})

    assert 0.7 <= state.qpos[:, 2].min() < state.qpos[:, 2].max() <= 0.8
    assert not state.qpos[:, :2].any()


def turn_of(quaternion: np.ndarray) -> np.ndarray:
    """Rotation vector [rad], by MuJoCo."""
    vector = np.zeros(3)
    mujoco.mju_quat2Vel(vector, quaternion, 1.0)
    return vector


def test_yaw_turns_about_the_vertical():
    vectors = np.array(
        [turn_of(q) for q in start({"initial": "yaw", "range": (-3.0, 3.0)}).qpos[:, 3:7].numpy()]
    )

    assert np.abs(vectors[:, :2]).max() < 1e-12
    assert -3 <= vectors[:, 2].min() < -2.9
    assert 2.9 < vectors[:, 2].max() <= 3


def test_tilt_turns_by_its_angle_about_every_horizontal_axis():
    vectors = np.array(
        [turn_of(q) for q in start({"initial": "tilt", "range": (0.1, 0.2)}).qpos[:, 3:7].numpy()]
    )
    angle = np.linalg.norm(vectors, axis=1)

    assert np.abs(vectors[:, 2]).max() < 1e-12
    assert 0.1 - 1e-9 <= angle.min() < 0.11
    assert 0.19 < angle.max() <= 0.2 + 1e-9
    quadrants = {(x > 0, y > 0) for x, y, _ in vectors}
    assert len(quadrants) == 4


def test_turn_is_about_axes_of_the_world_not_of_the_tilted_base():
    both = [{"initial": "tilt", "range": (1.0, 1.0)}, {"initial": "yaw", "range": (0.7, 0.7)}]
    tilted = start(both[0], num_envs=5).qpos[:, ORIENTATION].numpy()

    turned = start(*both, num_envs=5).qpos[:, ORIENTATION].numpy()

    yaw = np.array([np.cos(0.35), 0, 0, np.sin(0.35)])
    for before, after in zip(tilted, turned, strict=True):
        mujoco.mju_mulQuat(expected := np.zeros(4), yaw, before)
        np.testing.assert_allclose(after, expected, atol=1e-12)


def test_task_that_starts_a_joint_beyond_its_limit_is_left_alone():
    simulation, randomization = walkers([{"initial": "yaw", "range": (0.1, 0.2)}], 2)
    nominal = torch.from_numpy(simulation.model.qpos0).expand(2, -1).clone()
    nominal[:, 7] = 1.3
    zero = torch.zeros(2, 8, dtype=torch.float64)
    worlds = Worlds(torch.arange(2))

    state = randomization.initial_state(worlds, worlds.ids, State(nominal, zero, zero[:, :2] + 5))

    assert state.qpos[:, 7].tolist() == [1.3, 1.3]
    assert (state.ctrl == 5).all()


def test_episodes_start_at_their_own_places_whatever_starts_with_them():
    together = start(ANGLE, num_envs=4, episode=3)
    simulation, randomization = walkers([ANGLE], 4)
    begin(simulation, randomization)

    apart = begin(simulation, randomization, Worlds(torch.tensor([1, 3])), episode=3)

    assert torch.equal(apart.qpos, together.qpos[[1, 3]])


def test_chosen_by_mask_worlds_start_where_they_do_by_ids():
    terms = [ANGLE, {"initial": "tilt", "range": (0, 0.5)}]
    mask = torch.tensor([False, True, False, True])
    states = []
    for kind in (MaskedSimulation, BatchSimulation):
        simulation, randomization = walkers(terms, 4, kind)
        begin(simulation, randomization)
        begin(simulation, randomization, choose(mask, compact=simulation.compact), episode=2)
        states.append(simulation.data("qpos").clone())

    assert torch.equal(*states)


@pytest.mark.parametrize(
    ("term", "problem"),
    [
        (ANGLE | {"match": "base"}, "'initial angle' has no element matching 'base'"),
        (ANGLE | {"columns": "x"}, "angle is one number; delete `columns`"),
        (ANGLE | {"initial": "angel"}, "input should be 'angle', 'velocity', 'position', 'tilt'"),
        (
            {"initial": "tilt", "range": (0, 30)},
            "tilt is an angle in rad, found [0.0, 30.0]",
        ),
        ({"initial": "yaw", "operation": "set", "range": (0, 1)}, "yaw turns the base; delete"),
        ({"initial": "position", "range": (0, 1)}, "name the columns you mean, of ['x', 'y', 'z']"),
        ({"initial": "velocity", "range": (0, 1)}, "are of different kinds"),
        ({"initial": "yaw", "match": "left", "range": (0, 1)}, "has no element matching 'left'"),
    ],
)
def test_term_that_means_nothing_is_refused(term: dict, problem: str):
    with pytest.raises(ConfigError) as error:
        walkers([term])
    assert problem in str(error.value)


def test_base_that_does_not_move_freely_is_refused():
    fixed = WEIGHTLESS.replace("<freejoint/>", "")
    with pytest.raises(ConfigError, match="'initial tilt' needs a joint that moves freely"):
        walkers([{"initial": "tilt", "range": (0, 0.1)}], xml=fixed)
