"""What is watched is what was trained, and what is deployed."""

from pathlib import Path

import numpy as np
import pytest
import torch

from deploy.errors import ConfigError, ContractError
from envs.render import look_at
from robotrl.play.session import Session, open_session
from robotrl.runs.evaluate import load_policy
from robotrl.runs.run_folder import RunFolder
from robotrl.runs.train import make_test_env


def path_of(session: Session, steps: int) -> np.ndarray:
    """(steps, nq) where the robot is after each step."""
    places = []
    for _ in range(steps):
        session.step()
        places.append(session.data.qpos.copy())
    return np.array(places)


def test_run_is_played_as_its_policy_says(tiny_run: RunFolder):
    config = tiny_run.config()
    env = make_test_env(config, num_envs=1, seed=4)
    policy = load_policy(config, env, tiny_run.load_checkpoint())
    observation, expected = env.reset()["actor"], []
    for _ in range(40):  # over an end of an episode, after 30
        with torch.no_grad():
            observation = env.step(policy(observation)).observation["actor"]
        expected.append(look_at(env.simulation).qpos.copy())

    found = path_of(open_session(str(tiny_run.path), seed=4), 40)

    np.testing.assert_array_equal(found, expected)


def test_exported_file_moves_the_robot_as_its_run_does(tiny_run: RunFolder, policy_path: Path):
    run = path_of(open_session(str(tiny_run.path), seed=4), 40)
    file = path_of(open_session(str(policy_path), seed=4), 40)

    np.testing.assert_allclose(file, run, atol=1e-4)  # float32 in another order
    assert np.abs(np.diff(file, axis=0)).max() > 1e-3  # it moves


def test_same_seed_shows_the_same_and_another_seed_another_world(tiny_run: RunFolder):
    first, again, other = (path_of(open_session(str(tiny_run.path), seed=s), 5) for s in (1, 1, 2))

    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)


def test_worlds_are_those_of_evaluation_unless_a_seed_is_given(tiny_run: RunFolder):
    trained_in = tiny_run.config().seed
    assert not np.array_equal(
        path_of(open_session(str(tiny_run.path)), 3),
        path_of(open_session(str(tiny_run.path), seed=trained_in), 3),
    )


@pytest.mark.parametrize("task", ["arm_reach", "gym/Hopper-v5"])
def test_task_is_played_with_zero_or_random_actions(task: str):
    still, moving = open_session(task), open_session(task, action="random")
    assert not np.allclose(path_of(still, 10)[-1], path_of(moving, 10)[-1], atol=1e-3)


def test_random_actions_repeat_with_their_seed():
    first, again, other = (
        path_of(open_session("gym/Hopper-v5", seed=seed, action="random"), 10) for seed in (3, 3, 4)
    )
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)


def test_training_configuration_is_played_as_its_task(tiny_run: RunFolder):
    session = open_session(str(tiny_run.config_path))
    assert session.title == "arm_reach, zero actions"
    assert session.env.task.episode_steps == 30  # its 0.6 s, not the task's 12


def test_time_and_reward_are_those_of_the_episode(tiny_run: RunFolder):
    session = open_session(str(tiny_run.path))
    total = sum(float(session.step().reward[0]) for _ in range(29))
    assert session.time_s == pytest.approx(29 * 0.02)
    assert session.total_reward == pytest.approx(total)

    session.step()  # the 30th and last
    assert (session.time_s, session.total_reward) == (0.0, 0.0)


def test_held_command_is_shown_and_followed_by_the_signal():
    session = open_session("arm_reach")
    session.hold_command([0.2, 0.0, 0.1])
    session.step()
    assert session.command == pytest.approx([0.2, 0.0, 0.1])


def test_command_outside_of_training_is_refused():
    with pytest.raises(ConfigError, match=r"'target_position' .* outside what the policy"):
        open_session("arm_reach").hold_command([0.9, 0.0, 0.1])


def test_task_without_a_command_refuses_one():
    with pytest.raises(ConfigError, match="gym/Ant-v5, zero actions takes no command"):
        open_session("gym/Ant-v5").hold_command([1.0])


def test_name_that_is_nothing_is_explained():
    with pytest.raises(ConfigError) as caught:
        open_session("arm_reech")
    assert str(caught.value).startswith(
        "arm_reech is no folder of a run, no .onnx, .yaml or .npz file, and as a task: "
        "unknown task 'arm_reech' (did you mean 'arm_reach'?)"
    )


def test_run_without_a_checkpoint_says_so(tiny_run: RunFolder, tmp_path: Path):
    folder = RunFolder(tmp_path)
    folder.create(tiny_run.config())
    with pytest.raises(ConfigError, match=r"has no checkpoint\.pt yet; train it first"):
        open_session(str(tmp_path))


def test_damaged_file_is_refused(tmp_path: Path):
    path = tmp_path / "policy.onnx"
    path.write_bytes(b"no graph")
    with pytest.raises(ContractError):
        open_session(str(path))
