"""The adapter against Stable-Baselines3's own vector environment, and in its PPO."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium.wrappers.vector import ClipReward, RecordEpisodeStatistics

from deploy.errors import ConfigError
from envs.gymnasium_env import GymnasiumEnv
from envs.gymnasium_vector_env import GymnasiumVectorEnv
from envs.registry import TASKS
from envs.sb3_vec_env import SB3VecEnv
from tests.envs.cart import Cart
from tests.envs.same import assert_same

pytest.importorskip("stable_baselines3", reason="the adapter needs stable-baselines3")

from stable_baselines3 import PPO
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import DummyVecEnv, VecMonitor, VecNormalize

NUM_ENVS = 4


@pytest.fixture(autouse=True)
def cart(monkeypatch: pytest.MonkeyPatch) -> None:
    """The cart is a task in these tests."""
    monkeypatch.setitem(TASKS, "cart", Cart)


def make(num_envs: int = NUM_ENVS) -> SB3VecEnv:
    return SB3VecEnv(GymnasiumVectorEnv("cart", num_envs, autoreset_mode="SameStep"))


def test_everything_returned_is_what_stable_baselines3_returns_for_single_environments():
    ours = make()
    theirs = DummyVecEnv([lambda: GymnasiumEnv("cart")] * NUM_ENVS)
    for env in (ours, theirs):
        env.seed(0)
    ends = 0

    assert_same(ours.reset(), theirs.reset())
    for action in np.random.default_rng(0).uniform(-1, 1, (100, NUM_ENVS, 1)).astype(np.float32):
        found, expected = ours.step(action), theirs.step(action)

        assert_same(found, expected)
        assert_same(ours.reset_infos, theirs.reset_infos)
        ends += found[2].sum()

    assert ours.observation_space == theirs.observation_space
    assert ours.action_space == theirs.action_space
    assert ends > 50


def test_end_by_the_time_limit_is_told_from_failure_and_comes_with_its_last_observation():
    env = make(2)
    env.reset()
    push = np.array([[0], [1]], np.float32)  # world 1 fails at 8.4 cm in its third step

    infos = [env.step(push)[3] for _ in range(6)]  # six steps are the time limit

    assert [info[0]["TimeLimit.truncated"] for info in infos] == [False] * 5 + [True]
    assert not any(info[1]["TimeLimit.truncated"] for info in infos)
    # the cart now and one tick before: 1e-4 m, and 0.004 k (k + 1) / 2 m after k physics steps
    assert infos[5][0]["terminal_observation"] == pytest.approx([1e-4, 1e-4])
    assert infos[2][1]["terminal_observation"] == pytest.approx([0.0401, 0.0841], abs=1e-6)
    assert "terminal_observation" not in infos[1][1]


def test_seed_is_used_by_the_next_reset_only():
    env = SB3VecEnv(GymnasiumVectorEnv("arm_reach", 2, autoreset_mode="SameStep"))
    env.seed(7)
    first = env.reset()
    second = env.reset()
    env.seed(7)

    again = env.reset()

    assert np.array_equal(first, again)
    assert not np.array_equal(first, second)


def test_options_are_used_by_the_next_reset_only():
    env = make()
    env.reset()
    before = env.step(np.full((NUM_ENVS, 1), 0.1, np.float32))[0]
    env.set_options({"reset_mask": np.array([True, False, False, False])})

    some, every = env.reset(), env.reset()

    assert (some == before).all(axis=1).tolist() == [False, True, True, True]
    assert (every != before).all()


def test_attributes_are_those_of_all_worlds():
    env = make()

    assert env.get_attr("columns") == [["position.x[t-1]", "position.x"]] * NUM_ENVS
    assert env.get_attr("render_mode", indices=2) == [None]
    assert not env.has_attr("colums")
    env.set_attr("note", 5)
    assert env.get_attr("note", indices=[0, 3]) == [5, 5]
    with pytest.raises(ValueError, match=r"'note' for worlds 1: all 4 worlds are one object"):
        env.set_attr("note", 6, indices=1)


def test_method_is_called_once_for_all_worlds():
    env = make()
    env.reset()

    states = env.env_method("state_dict")

    assert len(states) == NUM_ENVS
    assert states[0] is states[3]
    with pytest.raises(ValueError, match=r"'reset' for worlds \[0\]: all 4 worlds are one"):
        env.env_method("reset", indices=[0])


def test_wrappers_are_found():
    inner = RecordEpisodeStatistics(GymnasiumVectorEnv("cart", 2, autoreset_mode="SameStep"))
    env = SB3VecEnv(ClipReward(inner, max_reward=0.5))

    assert env.env_is_wrapped(RecordEpisodeStatistics) == [True, True]
    assert env.env_is_wrapped(ClipReward, indices=[0]) == [True]
    assert env.env_is_wrapped(Monitor) == [False, False]


def test_statistics_of_a_gymnasium_wrapper_reach_the_infos():
    inner = RecordEpisodeStatistics(GymnasiumVectorEnv("cart", 2, autoreset_mode="SameStep"))
    env = SB3VecEnv(inner)
    env.reset()

    steps = [env.step(np.zeros((2, 1), np.float32)) for _ in range(6)]

    # six rewards of 1 - 1e-4 m
    assert [info["episode"]["r"] for info in steps[-1][3]] == pytest.approx([5.9994] * 2)


class Bootstraps(BaseCallback):
    """Collects what PPO adds to the rewards of its buffer, and what it should add."""

    def __init__(self, critic: Callable[[torch.Tensor], torch.Tensor]):
        super().__init__()
        self.critic = critic
        self.expected: list[np.ndarray] = []
        self.ends = 0

    def _on_step(self) -> bool:
        expected = self.locals["rewards"].copy()
        for world, info in enumerate(self.locals["infos"]):
            if info["TimeLimit.truncated"]:
                last = torch.as_tensor(info["terminal_observation"])[None]
                with torch.no_grad():
                    expected[world] += 0.9 * self.critic(last).item()
                self.ends += 1
        self.expected.append(expected)
        return True

    def _on_rollout_end(self) -> None:
        found = self.locals["rollout_buffer"].rewards
        np.testing.assert_allclose(found, np.stack(self.expected), atol=1e-6)
        self.expected.clear()


def test_ppo_of_stable_baselines3_learns_and_bootstraps_at_the_time_limit():
    env = VecMonitor(make(8))
    torch.set_num_threads(1)
    model = PPO("MlpPolicy", env, n_steps=16, batch_size=64, gamma=0.9, device="cpu", seed=0)
    callback = Bootstraps(model.policy.predict_values)

    model.learn(8 * 16 * 3, callback=callback)

    assert callback.ends > 10
    assert model.ep_info_buffer is not None
    lengths = [episode["l"] for episode in model.ep_info_buffer]
    assert len(lengths) > 30
    assert max(lengths) == 6
    mean, _ = evaluate_policy(model, env, n_eval_episodes=8)
    assert 2 < float(np.mean(mean)) < 6


def test_observations_may_be_normalised_by_stable_baselines3():
    worlds = gymnasium.make_vec("robotrl/ArmReach-v0", num_envs=3, autoreset_mode="SameStep")
    env = VecNormalize(SB3VecEnv(worlds))
    env.reset()

    observation, reward, *_ = env.step(np.zeros((3, 5), np.float32))

    assert isinstance(observation, np.ndarray)
    assert observation.shape == (3, 67)
    assert np.isfinite(observation).all()
    assert np.isfinite(reward).all()


def test_environment_that_resets_at_another_time_is_refused():
    with pytest.raises(ConfigError) as error:
        SB3VecEnv(GymnasiumVectorEnv("cart", 2))

    assert str(error.value) == (
        "autoreset_mode is NextStep; Stable-Baselines3 expects worlds that start anew at once: "
        'make the environment with autoreset_mode="SameStep"'
    )


def test_missing_package_is_named_and_nothing_else_needs_it():
    program = """
import sys
sys.modules["stable_baselines3"] = None
import envs.sb3_vec_env
try:
    envs.sb3_vec_env.SB3VecEnv(envs.GymnasiumVectorEnv("arm_reach", 1, "SameStep"))
except envs.sb3_vec_env.ConfigError as error:
    print(error)
"""
    done = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        cwd=Path(__file__).parents[2],
    )

    assert done.returncode == 0, done.stderr
    assert done.stdout.strip().endswith("is not installed; pip install stable-baselines3")
