"""The single environment against Gymnasium's own checker, and as a user meets it."""

import os
import pickle
import subprocess
import sys
import types
import warnings
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env
from gymnasium.wrappers import RecordVideo

from deploy.errors import ConfigError
from envs.gymnasium_env import GymnasiumEnv  # registers the tasks
from envs.registry import TASKS

IDS = [name for name in gymnasium.registry if name.startswith("robotrl/")]

HARMLESS = ("minimum value is -infinity", "maximum value is infinity")
"""Observations are physical quantities without bounds."""

every_id = pytest.mark.parametrize("env_id", IDS)


@every_id
def test_gymnasium_finds_nothing_to_complain_about(env_id: str):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        check_env(gymnasium.make(env_id).unwrapped, skip_render_check=True)  # see below

    complaints = [str(warning.message) for warning in caught]
    assert [text for text in complaints if not any(known in text for known in HARMLESS)] == []


def test_every_task_is_registered():
    tasks = {gymnasium.spec(name).kwargs["task"] for name in IDS}

    assert tasks == set(TASKS)


def test_environments_are_made_by_name_without_importing_ours_first():
    program = """
import gymnasium
print(gymnasium.make("envs:robotrl/ArmReach-v0").reset()[0].shape)
print(gymnasium.make_vec("envs:robotrl/ArmReach-v0", num_envs=2))
"""

    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)

    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [
        "(67,)",
        "GymnasiumVectorEnv(robotrl/ArmReach-v0, num_envs=2)",
    ]


@every_id
def test_same_seed_gives_the_same_episode(env_id: str):
    env = gymnasium.make(env_id)

    assert_same(episode(env, seed=3), episode(env, seed=3))
    assert_same(episode(env, seed=3), episode(gymnasium.make(env_id), seed=3))


@every_id
def test_another_seed_gives_another_episode(env_id: str):
    env = gymnasium.make(env_id)

    assert not np.array_equal(episode(env, seed=3)[0], episode(env, seed=4)[0])


@every_id
def test_reset_without_a_seed_goes_on_to_another_episode(env_id: str):
    env = gymnasium.make(env_id)
    first, _ = env.reset(seed=3)

    second, _ = env.reset()

    assert not np.array_equal(first, second)


def test_episode_ends_by_truncation_with_its_final_observation():
    settings: dict[str, Any] = {"task_config": {"episode_s": 0.1}}  # 5 steps of 20 ms
    env, longer = GymnasiumEnv("arm_reach", **settings), GymnasiumEnv("arm_reach")
    env.reset(seed=0)
    longer.reset(seed=0)
    action = np.full(5, 0.3, np.float32)
    for _ in range(4):
        *_, terminated, truncated, _ = env.step(action)
        longer.step(action)
        assert not terminated
        assert not truncated

    observation, _, terminated, truncated, _ = env.step(action)

    assert (terminated, truncated) == (False, True)
    assert np.array_equal(observation, longer.step(action)[0])


def test_steps_after_the_end_give_nothing_until_the_reset():
    env = GymnasiumEnv("arm_reach", task_config={"episode_s": 0.1})  # 5 steps of 20 ms
    env.reset(seed=0)
    steps = [env.step(np.zeros(5, np.float32)) for _ in range(5)]
    assert steps[-1][3]

    _, reward, terminated, truncated, info = env.step(np.zeros(5, np.float32))

    assert (reward, terminated, truncated) == (0, False, False)
    assert set(info["rewards"].values()) == {0}


def test_episode_is_of_the_same_number_whether_the_one_before_was_finished_or_not():
    finished, left = (GymnasiumEnv("arm_reach", task_config={"episode_s": 0.1}) for _ in range(2))
    finished.reset(seed=0)
    left.reset(seed=0)
    for _ in range(5):
        finished.step(np.zeros(5, np.float32))

    assert np.array_equal(finished.reset()[0], left.reset()[0])


def test_info_holds_the_reward_terms():
    env = GymnasiumEnv("arm_reach")
    env.reset(seed=0)

    _, reward, *_, info = env.step(np.zeros(5, np.float32))

    assert isinstance(reward, float)
    assert sum(info["rewards"].values()) == pytest.approx(reward, abs=1e-6)


def test_observation_is_not_changed_by_later_calls():
    env = GymnasiumEnv("arm_reach")
    env.reset(seed=0)
    observation, *_ = env.step(np.ones(5, np.float32))
    kept = observation.copy()

    env.step(np.zeros(5, np.float32))
    env.reset()

    assert np.array_equal(observation, kept)


def test_seed_may_be_given_at_construction_and_again_at_reset():
    by_construction, by_reset = GymnasiumEnv("arm_reach", seed=3), GymnasiumEnv("arm_reach")
    first, _ = by_construction.reset()

    assert np.array_equal(first, by_reset.reset(seed=3)[0])
    assert np.array_equal(first, by_construction.reset(seed=3)[0])


@every_id
def test_instances_without_a_seed_live_different_episodes(env_id: str):
    one, other = gymnasium.make(env_id), gymnasium.make(env_id)

    assert not np.array_equal(one.reset()[0], other.reset()[0])


@every_id
def test_environment_continues_in_another_process_with_the_same_bits(env_id: str):
    env = gymnasium.make(env_id).unwrapped
    env.reset(seed=3)
    env.step(env.action_space.sample())

    other = pickle.loads(pickle.dumps(env))

    action = env.action_space.sample()
    assert np.array_equal(env.step(action)[0], other.step(action)[0])
    assert np.array_equal(env.reset()[0], other.reset()[0])


def test_worlds_of_a_vector_of_environments_are_different():
    env = gymnasium.make_vec("robotrl/ArmReach-v0", num_envs=2, vectorization_mode="async")
    observation, _ = env.reset()
    env.close()

    assert not np.array_equal(observation[0], observation[1])


def episode(env: gymnasium.Env, *, seed: int) -> list[np.ndarray]:
    """Observations and rewards of twenty random actions."""
    observation, _ = env.reset(seed=seed)
    env.action_space.seed(0)
    values = [observation]
    for _ in range(20):
        observation, reward, *_ = env.step(env.action_space.sample())
        values += [observation, np.array(reward)]
    return values


def assert_same(one: list[np.ndarray], other: list[np.ndarray]) -> None:
    """To the bit."""
    assert len(one) == len(other)
    assert all(np.array_equal(a, b) for a, b in zip(one, other, strict=True))


# Pictures


@pytest.mark.usefixtures("opengl")
@every_id
def test_pictures_are_what_gymnasium_expects(env_id: str):
    env = gymnasium.make(env_id, render_mode="rgb_array")  # whose checker warns of the first frame
    env.reset(seed=0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        before = np.asarray(env.render())
        for _ in range(20):
            env.step(np.ones(env.action_space.shape or (), np.float32))
        after = np.asarray(env.render())
    env.close()

    assert before.shape == after.shape == (540, 960, 3)
    assert np.abs(after.astype(int) - before).max() > 50  # it moved


@pytest.mark.usefixtures("opengl")
def test_picture_after_a_seeded_reset_is_of_the_new_episode():
    env = gymnasium.make("robotrl/ArmReach-v0", render_mode="rgb_array")
    env.reset(seed=1)
    first = np.asarray(env.render())
    env.reset(seed=2)
    second = np.asarray(env.render())
    env.reset(seed=1)
    again = np.asarray(env.render())
    env.close()

    assert np.abs(first.astype(int) - second).max() > 50
    np.testing.assert_array_equal(again, first)


class Encoder:
    """Stands in for moviepy, which wants an older pillow than the rest: keeps what it is given."""

    def __init__(self, frames: list[np.ndarray], fps: float):
        self.frames, self.fps = frames, fps

    def write_videofile(self, path: str, **settings: object) -> None:
        np.savez(f"{path}.npz", frames=np.array(self.frames), fps=self.fps)


@pytest.mark.usefixtures("opengl")
@pytest.mark.parametrize("task", ["arm_reach", "gym/HalfCheetah-v5"])
def test_record_video_films_an_episode(task: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    clip = types.SimpleNamespace(ImageSequenceClip=Encoder)
    monkeypatch.setitem(sys.modules, "moviepy", types.ModuleType("moviepy"))
    monkeypatch.setitem(sys.modules, "moviepy.video.io.ImageSequenceClip", clip)
    inner = GymnasiumEnv(task, render_mode="rgb_array", seed=0)
    env = RecordVideo(inner, str(tmp_path / "films"), episode_trigger=lambda episode: True)
    env.reset()
    for _ in range(10):
        env.step(env.action_space.sample())
    env.close()

    (path,) = (tmp_path / "films").glob("*.npz")
    film = np.load(path)
    assert film["fps"] == pytest.approx(1 / inner._env.task.control_dt_s)
    assert film["frames"].shape == (11, 540, 960, 3)  # the first state and ten steps
    assert np.abs(film["frames"][-1].astype(int) - film["frames"][0]).max() > 50


def test_people_watch_at_the_speed_of_the_world():
    # In another process: the viewer's libraries are not made to be closed and opened in tests.
    program = """
import time
import envs, gymnasium
env = gymnasium.make("robotrl/ArmReach-v0", render_mode="human")
env.reset(seed=0)
started = time.perf_counter()
for _ in range(25):
    env.step(env.action_space.sample())
print(env.render(), time.perf_counter() - started >= 0.45)  # 25 steps of 20 ms, the first at once
env.close()
"""
    without = {k: v for k, v in os.environ.items() if k not in ("DISPLAY", "WAYLAND_DISPLAY")}

    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, env=without
    )

    assert done.returncode == 0, done.stderr
    assert "http://localhost:" in done.stdout
    assert done.stdout.splitlines()[-1] == "None True"


def test_unknown_render_mode_is_refused_with_the_nearest_one():
    with pytest.raises(ConfigError, match=r"found 'rgb_aray' \(did you mean 'rgb_array'\?\)"):
        GymnasiumEnv("arm_reach", render_mode="rgb_aray")
