"""The vector environment against Gymnasium's own, made of single environments."""

import io
import pickle
from collections.abc import Callable
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium.error import ClosedEnvironmentError
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from gymnasium.vector.utils import batch_space
from gymnasium.wrappers.vector import RecordEpisodeStatistics

from deploy.errors import ConfigError
from envs.gymnasium_env import GymnasiumEnv
from envs.gymnasium_vector_env import GymnasiumVectorEnv
from envs.registry import TASKS
from tests.envs.cart import Cart
from tests.envs.same import assert_same

IDS = [name for name in gymnasium.registry if name.startswith("robotrl/")]
NOISE = {"signal": "joint_velocity", "operation": "add", "range": [-0.1, 0.1], "when": "step"}
BIAS = {"signal": "joint_position", "operation": "add", "range": [-0.01, 0.01]}

every_id = pytest.mark.parametrize("env_id", IDS)
every_mode = pytest.mark.parametrize("mode", AutoresetMode)


@pytest.fixture(autouse=True)
def cart(monkeypatch: pytest.MonkeyPatch) -> None:
    """The cart is a task in these tests."""
    monkeypatch.setitem(TASKS, "cart", Cart)


def pushes(env: Any, steps: int) -> np.ndarray:
    """Random actions (steps, num_envs, n); the same again for each environment."""
    shape = (steps, *env.action_space.shape)
    return np.random.default_rng(0).uniform(-1, 1, shape).astype(np.float32)


def run(env: Any, actions: np.ndarray) -> list[Any]:
    """What each step returns, and each reset of the worlds that ended where nothing else does."""
    results = []
    for action in actions:
        results.append(env.step(action))
        ended = results[-1][2] | results[-1][3]
        if env.metadata["autoreset_mode"] is AutoresetMode.DISABLED and ended.any():
            results.append(env.reset(options={"reset_mask": ended}))
    return results


@every_mode
def test_everything_returned_is_what_gymnasium_returns_for_single_environments(mode: AutoresetMode):
    ours = GymnasiumVectorEnv("cart", num_envs=5, autoreset_mode=mode)
    theirs = SyncVectorEnv([lambda: GymnasiumEnv("cart")] * 5, autoreset_mode=mode)
    actions = pushes(ours, 150)

    assert_same(ours.reset(seed=0), theirs.reset(seed=0))
    results = run(ours, actions)
    assert_same(results, run(theirs, actions))

    steps = [result for result in results if len(result) == 5]
    assert sum(terminated.sum() for _, _, terminated, _, _ in steps) > 50
    assert sum(truncated.sum() for *_, truncated, _ in steps) > 50


@every_mode
def test_worlds_that_all_end_together_are_returned_as_by_gymnasium(mode: AutoresetMode):
    ours = GymnasiumVectorEnv("cart", num_envs=3, autoreset_mode=mode)
    theirs = SyncVectorEnv([lambda: GymnasiumEnv("cart")] * 3, autoreset_mode=mode)
    still = np.zeros((15, 3, 1), np.float32)  # the sixth step is the time limit

    assert_same(ours.reset(seed=0), theirs.reset(seed=0))
    results = run(ours, still)

    assert results[5][3].all()
    assert_same(results, run(theirs, still))


@every_mode
def test_worlds_may_be_reset_in_the_middle_of_an_episode_as_in_gymnasium(mode: AutoresetMode):
    ours = GymnasiumVectorEnv("cart", num_envs=3, autoreset_mode=mode)
    theirs = SyncVectorEnv([lambda: GymnasiumEnv("cart")] * 3, autoreset_mode=mode)
    middle = np.array([True, False, True])
    assert_same(ours.reset(seed=0), theirs.reset(seed=0))
    for env in (ours, theirs):
        run(env, np.full((3, 3, 1), 0.1, np.float32))

    one = ours.reset(options={"reset_mask": middle})
    other = theirs.reset(options={"reset_mask": middle})

    assert_same(one, other)
    still = np.zeros((8, 3, 1), np.float32)
    assert_same(run(ours, still), run(theirs, still))


def test_action_of_a_world_that_waits_for_its_reset_is_ignored():
    actions = np.zeros((7, 2, 1), np.float32)
    spoilt = actions.copy()
    spoilt[6] = np.nan  # the sixth step was the last of the episode
    runs = []
    for sent in (actions, spoilt):
        env = GymnasiumVectorEnv("cart", num_envs=2)
        env.reset(seed=0)
        runs.append(run(env, sent))

    assert_same(*runs)
    observation, reward, terminated, truncated, _ = runs[1][6]
    assert observation == pytest.approx(2e-4)  # where second episodes start
    assert not (reward.any() or terminated.any() or truncated.any())


@pytest.mark.parametrize("mode", [AutoresetMode.SAME_STEP, AutoresetMode.DISABLED])
def test_first_world_lives_the_episodes_of_the_single_environment_with_its_seed(
    mode: AutoresetMode,
):
    settings: dict[str, Any] = {
        "randomization": [NOISE, BIAS],
        "task_config": {"episode_s": 0.1, "target_interval_s": [0.04, 0.08]},
    }
    ours = GymnasiumVectorEnv("arm_reach", num_envs=3, autoreset_mode=mode, **settings)
    theirs = SyncVectorEnv([lambda: GymnasiumEnv("arm_reach", **settings)], autoreset_mode=mode)
    actions = pushes(ours, 12)  # two ends of episodes of five steps
    first, _ = ours.reset(seed=3)
    expected, _ = theirs.reset(seed=3)
    np.testing.assert_allclose(first[:1], expected, atol=1e-6)

    found = run(ours, actions)

    for one, other in zip(found, run(theirs, actions[:, :1]), strict=True):
        # sums over a row may be rounded differently in a batch of another size
        np.testing.assert_allclose(one[0][:1], other[0], atol=1e-5)
        if len(one) == 5:
            np.testing.assert_allclose(one[1][:1], other[1], atol=1e-5)
            assert np.array_equal(one[3][:1], other[3])


@every_id
@every_mode
def test_every_task_is_made_as_one_batch_by_its_name(env_id: str, mode: AutoresetMode):
    env = gymnasium.make_vec(env_id, num_envs=3, autoreset_mode=mode.value)
    single = gymnasium.make(env_id)

    assert isinstance(env.unwrapped, GymnasiumVectorEnv)
    assert env.metadata["autoreset_mode"] is mode
    assert env.single_observation_space == single.observation_space
    assert env.single_action_space == single.action_space
    assert env.observation_space == batch_space(single.observation_space, 3)
    assert env.action_space == batch_space(single.action_space, 3)
    assert env.reset()[0] in env.observation_space
    observation, reward, terminated, truncated, _ = env.step(env.action_space.sample())
    assert observation in env.observation_space
    assert (reward.dtype, terminated.dtype, truncated.dtype) == (np.float64, np.bool_, np.bool_)


@every_id
def test_specification_of_an_environment_makes_it_again(env_id: str):
    env = gymnasium.make_vec(
        env_id,
        num_envs=2,
        autoreset_mode="SameStep",
        seed=5,
        vectorization_mode="vector_entry_point",
    )
    assert env.spec is not None

    again = gymnasium.make_vec(env.spec)

    assert again.num_envs == 2
    assert again.metadata["autoreset_mode"] is AutoresetMode.SAME_STEP
    assert_same(again.reset(), env.reset())


@every_id
def test_every_column_of_the_observation_has_a_name(env_id: str):
    single, many = gymnasium.make(env_id).unwrapped, gymnasium.make_vec(env_id).unwrapped
    assert isinstance(single, GymnasiumEnv)
    assert isinstance(many, GymnasiumVectorEnv)

    assert single.observation_space.shape == (len(set(single.columns)),)
    assert many.columns == single.columns


@every_id
def test_same_seed_gives_the_same_worlds_and_another_seed_others(env_id: str):
    one, other = (gymnasium.make_vec(env_id, num_envs=2) for _ in range(2))
    actions = pushes(one, 5)
    first = [one.reset(seed=3), run(one, actions)]

    assert_same([other.reset(seed=3), run(other, actions)], first)
    assert_same([one.reset(seed=3), run(one, actions)], first)
    assert (one.reset()[0] != first[0][0]).any(axis=1).all()
    assert (one.reset(seed=4)[0] != first[0][0]).any(axis=1).all()


@every_id
def test_instances_without_a_seed_live_different_episodes(env_id: str):
    one, other = gymnasium.make_vec(env_id, num_envs=2), gymnasium.make_vec(env_id, num_envs=2)

    rows = np.concatenate([one.reset()[0], other.reset()[0]])

    assert len(np.unique(rows, axis=0)) == 4


@every_mode
def test_gymnasiums_statistics_know_each_episode(mode: AutoresetMode):
    env = RecordEpisodeStatistics(GymnasiumVectorEnv("cart", num_envs=2, autoreset_mode=mode))
    env.reset(seed=0)
    # World 0 stands still, its n-th episode n tenths of a millimetre from the middle, for six
    # steps. World 1 is pushed with 40 N: v_k = 0.4 k and x_k = 0.004 k (k + 1) / 2 m after k
    # physics steps, so 0.012 m after one control step, 0.04 m after two and 0.084 m after three.
    push = np.array([[0.0], [1.0]], np.float32)

    infos = [result[-1] for result in run(env, np.stack([push] * 6))]

    returns = [r for info in infos if "episode" in info for r in info["episode"]["r"] if r]
    expected = [3 - 0.136 - 3e-4, 6 - 6e-4, 3 - 0.136 - 6e-4]
    if mode is AutoresetMode.NEXT_STEP:  # the step of its reset costs world 1 its second end
        del expected[2]
    assert returns == pytest.approx(expected, abs=1e-6)


def test_statistics_of_worlds_that_are_not_reset_go_on():
    env = RecordEpisodeStatistics(GymnasiumVectorEnv("cart", num_envs=2, autoreset_mode="Disabled"))
    env.reset(seed=0)
    for _ in range(4):
        env.step(np.zeros((2, 1), np.float32))
    env.reset(options={"reset_mask": np.array([True, False])})
    steps = [env.step(np.zeros((2, 1), np.float32)) for _ in range(2)]

    assert steps[-1][4]["episode"]["l"].tolist() == [0, 6]


def test_options_are_left_as_they_are():
    env = GymnasiumVectorEnv("cart", num_envs=2)
    env.reset()
    options = {"reset_mask": np.array([True, False])}

    env.reset(options=options)

    assert options["reset_mask"].tolist() == [True, False]


def carry(env: GymnasiumVectorEnv) -> GymnasiumVectorEnv:
    """The state by way of a file into an environment with another seed."""
    file = io.BytesIO()
    torch.save(env.state_dict(), file)
    file.seek(0)
    other = GymnasiumVectorEnv(
        "arm_reach", env.num_envs, env.autoreset_mode, **SETTINGS | {"seed": 99}
    )
    other.load_state_dict(torch.load(file, weights_only=True))
    return other


SETTINGS: dict[str, Any] = {
    "randomization": [NOISE, BIAS, {"field": "mass", "range": [0.8, 1.25]}],
    "task_config": {"episode_s": 0.08},
    "num_threads": 1,
}


@every_mode
@pytest.mark.parametrize("copy_of", [carry, lambda env: pickle.loads(pickle.dumps(env))])
def test_copy_continues_with_the_same_bits_in_mid_episode_and_where_worlds_wait(
    mode: AutoresetMode, copy_of: Callable[[GymnasiumVectorEnv], GymnasiumVectorEnv]
):
    env = GymnasiumVectorEnv("arm_reach", 2, mode, **SETTINGS)
    env.reset(seed=1)
    env.step(pushes(env, 1)[0])
    env.reset(options={"reset_mask": np.array([True, False])})
    truncated = [env.step(action)[3] for action in pushes(env, 3)][-1]
    assert truncated.tolist() == [False, True]  # episodes are four steps

    other = copy_of(env)

    if mode is AutoresetMode.DISABLED:
        with pytest.raises(RuntimeError, match=r"worlds \[1\] have ended"):
            other.step(pushes(env, 1)[0])
        where = {"reset_mask": truncated}
        assert_same(other.reset(options=where), env.reset(options=where))
    actions = pushes(env, 10)
    assert_same(run(other, actions), run(env, actions))


def test_observation_is_the_callers_to_keep_and_to_change():
    polite, rude = (GymnasiumVectorEnv("cart", 3, "Disabled") for _ in range(2))
    for env in (polite, rude):
        env.reset(seed=0)
    mask = np.array([True, False, False])
    action = np.full((3, 1), 0.2, np.float32)
    kept, *_ = polite.step(action)
    before = kept.copy()
    rude.step(action)[0].fill(1e6)

    expected, _ = polite.reset(options={"reset_mask": mask})
    found, _ = rude.reset(options={"reset_mask": mask})

    assert np.array_equal(found, expected)
    assert np.array_equal(kept, before)


def test_observation_is_not_copied_on_its_way_out_of_torch(monkeypatch: pytest.MonkeyPatch):
    env = GymnasiumVectorEnv("cart", num_envs=2)
    env.reset()
    step, tables = env._env.step, []

    def spy(*args: Any, **settings: Any) -> Any:
        result = step(*args, **settings)
        tables.append(result.observation["actor"].numpy())
        return result

    monkeypatch.setattr(env._env, "step", spy)

    observation, *_ = env.step(np.zeros((2, 1), np.float32))

    assert np.shares_memory(observation, tables[0])


@pytest.mark.parametrize(
    ("mask", "error", "message"),
    [
        ([True, False], TypeError, "must be a numpy array of bool, found list"),
        (np.array([1, 0]), TypeError, "must be a numpy array of bool, found dtype int64"),
        (np.array([True]), ValueError, r"must have shape \(2,\), found \(1,\)"),
        (np.array([False, False]), ValueError, "chooses no world"),
    ],
)
def test_mask_that_does_not_choose_worlds_is_refused_as_by_gymnasium(
    mask: Any, error: type[Exception], message: str
):
    ours = GymnasiumVectorEnv("cart", num_envs=2)
    theirs = SyncVectorEnv([lambda: GymnasiumEnv("cart")] * 2)
    ours.reset()
    theirs.reset()

    with pytest.raises(error):
        theirs.reset(options={"reset_mask": mask})
    with pytest.raises(error, match=message):
        ours.reset(options={"reset_mask": mask})


def test_seed_for_some_worlds_is_refused():
    env = GymnasiumVectorEnv("cart", num_envs=2)
    env.reset()

    with pytest.raises(ValueError, match=r"seed 1 with a `reset_mask`.* leave the seed out"):
        env.reset(seed=1, options={"reset_mask": np.array([True, False])})


def test_step_after_an_end_that_nothing_resets_is_refused_with_the_worlds():
    env = GymnasiumVectorEnv("cart", num_envs=2, autoreset_mode=AutoresetMode.DISABLED)
    env.reset()
    for _ in range(6):
        env.step(np.zeros((2, 1), np.float32))

    with pytest.raises(RuntimeError, match=r"worlds \[0, 1\] have ended.* call reset\(options="):
        env.step(np.zeros((2, 1), np.float32))


def test_unknown_autoreset_mode_is_refused_with_those_there_are():
    with pytest.raises(ConfigError) as error:
        GymnasiumVectorEnv("cart", autoreset_mode="SameStop")

    assert str(error.value) == (
        "unknown autoreset_mode 'SameStop' (did you mean 'SameStep'?); "
        "there are NextStep, SameStep, Disabled"
    )


@pytest.mark.parametrize("make", [GymnasiumEnv, GymnasiumVectorEnv])
def test_constraints_dropped_in_a_step_are_an_error_that_names_the_setting(make: Any):
    env = make("arm_reach", backend="warp", njmax=15)
    env.reset(seed=0)
    env.step(env.action_space.sample())

    env._env.simulation.data("qpos").fill_(4.0)  # every joint far beyond its limit

    with pytest.raises(ConfigError, match=r"more than fits into njmax=15 .*; set njmax=30"):
        env.step(env.action_space.sample())


def test_closed_environment_says_so():
    env = GymnasiumVectorEnv("cart", num_envs=2)
    env.close()
    env.close()

    with pytest.raises(ClosedEnvironmentError):
        env.reset()
    with pytest.raises(ClosedEnvironmentError):
        env.step(np.zeros((2, 1), np.float32))
