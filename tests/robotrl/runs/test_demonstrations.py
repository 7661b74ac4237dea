"""Transitions in a file: what was recorded comes out again, and only where it fits."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from deploy.errors import ConfigError
from envs.vector_env import VectorEnv
from robotrl.algorithms.sac import SAC, SACConfig
from robotrl.cli import app
from robotrl.runs.demonstrations import Recording, load_demonstrations
from robotrl.runs.evaluate import evaluate_run
from robotrl.runs.run_folder import RunFolder
from robotrl.runs.train import make_env, make_test_env, rehearse
from robotrl.runs.train_config import TrainConfig


@pytest.fixture
def recorded(tiny_config: TrainConfig, tmp_path: Path) -> tuple[Path, list[dict[str, Any]]]:
    """A file of some steps in two worlds past the end of an episode, and each transition of it."""
    env = make_test_env(tiny_config, num_envs=2)
    recording, known = Recording(env), []
    observation, generator = env.reset(stagger=True), torch.Generator().manual_seed(0)
    for _ in range(env.task.episode_steps + 3):
        action = torch.rand(2, env.num_actions, generator=generator) * 2 - 1
        step = env.step(action)
        recording.add(observation, action, step)
        known += [
            {
                "action": action[world].tolist(),
                "reward": step.reward[world].item(),
                "seen": observation["critic"][world].tolist(),
                "following": step.info.final_observation["critic"][world].tolist(),
                "ended": bool(step.terminated[world]),
            }
            for world in range(2)
        ]
        observation = step.observation
    recording.save(tmp_path / "shown.npz")
    return tmp_path / "shown.npz", known


def test_what_was_recorded_is_what_is_learned_from(
    recorded: tuple[Path, list[dict[str, Any]]], tiny_config: TrainConfig
):
    path, known = recorded
    replay = load_demonstrations(path, make_env(tiny_config, num_envs=1))
    drawn = replay.sample(400, n_step=1, gamma=0.9, generator=torch.Generator().manual_seed(0))

    assert len(replay) == len(known)
    by_action = {tuple(one["action"]): one for one in known}
    for row in range(400):
        one = by_action[tuple(drawn.action[row].tolist())]
        assert drawn.reward[row].item() == one["reward"]
        assert drawn.observation["critic"][row].tolist() == one["seen"]
        assert drawn.next_observation["critic"][row].tolist() == one["following"]
        assert drawn.discount[row].item() == pytest.approx(0 if one["ended"] else 0.9)


def test_evaluation_records_what_a_run_of_sac_then_learns_from(
    tiny_run: RunFolder, tiny_config: TrainConfig, tmp_path: Path
):
    path = tmp_path / "expert.npz"
    result = CliRunner().invoke(
        app, ["eval", str(tiny_run.path), "--episodes", "2", "--record", str(path)]
    )
    assert result.exit_code == 0, result.output

    algorithm = SACConfig(demonstrations=path, actor_hidden=[8], critic_hidden=[8])
    config = tiny_config.model_copy(update={"algorithm": algorithm})
    rehearse(config, source=path)  # refuses what does not fit

    shown = load_demonstrations(path, env := make_env(tiny_config, num_envs=1))
    learner = SAC(algorithm, env.observation_sizes, env.num_actions, seed=0, demonstrations=shown)
    observation = env.reset()
    learner.learn(env.step(learner.act(observation)))
    assert len(learner._sample().reward) == algorithm.batch_size
    assert len(shown) == 2 * env.task.episode_steps


def test_demonstrations_of_another_contract_are_refused(
    recorded: tuple[Path, list[dict[str, Any]]], tiny_config: TrainConfig, tmp_path: Path
):
    path, _ = recorded
    with np.load(path) as file:
        arrays = {name: file[name] for name in file.files}
    changed = tmp_path / "changed.npz"
    column = make_env(tiny_config, num_envs=1).columns["actor"][0]
    contract = str(arrays["contract"]).replace(column, "warp_drive")
    np.savez(changed, **{**arrays, "contract": contract})

    with pytest.raises(ConfigError) as error:
        load_demonstrations(changed, make_env(tiny_config, num_envs=1))

    assert str(error.value).startswith(
        f"algorithm.demonstrations: compared with {changed} this run has columns of the actor's "
        f"observation without warp_drive"
    )
    assert f"with {column}" in str(error.value)


def test_demonstrations_that_do_not_know_their_home_yet_are_taken(
    recorded: tuple[Path, list[dict[str, Any]]], tiny_config: TrainConfig, tmp_path: Path
):
    path, _ = recorded
    with np.load(path) as file:
        arrays = {name: file[name] for name in file.files}
    contract = json.loads(str(arrays["contract"]))
    assert contract.pop("home")
    np.savez(tmp_path / "earlier.npz", **{**arrays, "contract": json.dumps(contract)})

    load_demonstrations(tmp_path / "earlier.npz", make_env(tiny_config, num_envs=1))


@pytest.mark.parametrize(
    ("place", "problem"),
    [
        ("nowhere/expert.npz", "{}/nowhere is no folder; make it first, or choose another --rec"),
        (".", "{} cannot be written: Is a directory; make room, or choose another --record"),
        ("/proc/expert.npz", "/proc/expert.npz cannot be written: "),
    ],
)
def test_bad_place_for_a_recording_is_refused_before_the_first_step(
    tiny_run: RunFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str, problem: str
):
    monkeypatch.setattr(VectorEnv, "step", lambda *_: pytest.fail("a step was made"))

    with pytest.raises(ConfigError) as error:
        evaluate_run(tiny_run, episodes=2, record=tmp_path / place)

    assert str(error.value).startswith(problem.format(tmp_path))


@pytest.mark.parametrize("content", [None, b"", b"PK\x03\x04 cut short"])
def test_file_that_cannot_be_read_is_refused(
    content: bytes | None, tiny_config: TrainConfig, tmp_path: Path
):
    path = tmp_path / "shown.npz"
    if content is not None:
        path.write_bytes(content)

    with pytest.raises(ConfigError, match=f"^algorithm.demonstrations: {path} cannot be read"):
        load_demonstrations(path, make_env(tiny_config, num_envs=1))


def test_file_that_lacks_tables_or_rows_is_refused(
    recorded: tuple[Path, list[dict[str, Any]]], tiny_config: TrainConfig, tmp_path: Path
):
    path, _ = recorded
    with np.load(path) as file:
        whole = {name: file[name] for name in file.files}
    env, damaged = make_env(tiny_config, num_envs=1), tmp_path / "damaged.npz"
    steps, worlds, actions = whole["action"].shape
    size = env.observation_sizes["critic"]
    ends = len(whole["final/critic"])
    cases = {
        "it has no reward; it has no final/critic": {"reward": None, "final/critic": None},
        f"reward is ({steps - 1}, {worlds}), expected ({steps}, {worlds})": {
            "reward": whole["reward"][1:]
        },
        f"final/critic is ({ends - 1}, {size}), expected ({ends}, {size})": {
            "final/critic": whole["final/critic"][1:]
        },
        f"action is ({steps}, {worlds}, {actions - 1}), expected ({steps}, {worlds}, {actions})": {
            "action": whole["action"][:, :, 1:]
        },
    }
    for problem, changes in cases.items():
        arrays = {name: rows for name, rows in (whole | changes).items() if rows is not None}
        np.savez(damaged, **arrays)

        with pytest.raises(ConfigError) as error:
            load_demonstrations(damaged, env)

        assert str(error.value) == (
            f"algorithm.demonstrations: {damaged} is not whole: {problem}. Record it again with "
            "`robotrl eval RUN --record FILE`"
        )
