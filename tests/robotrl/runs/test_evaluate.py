"""Intervals that are honest about values which share a world."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

import envs
from deploy.errors import ConfigError
from envs.randomization.physics.fields import FieldTerm
from envs.registry import TASKS
from envs.tasks.arm_reach import ArmReach, ArmReachConfig
from envs.vector_env import StepInfo
from robotrl.export import export
from robotrl.play.session import open_session
from robotrl.runs import train
from robotrl.runs.evaluate import _summarise, evaluate_policy, evaluate_run, interval
from robotrl.runs.run_folder import RunFolder
from robotrl.runs.train_config import TrainConfig
from tests.deploy.conftest import SCHEMA_1_PATH


def test_repeating_the_values_of_each_world_makes_no_interval_narrower():
    values = np.random.default_rng(0).normal(size=20)

    once = interval(values, np.arange(20), np.median)
    tenfold = interval(values.repeat(10), np.arange(20).repeat(10), np.median)

    assert tenfold == once


def test_interval_of_a_mean_has_the_width_that_independent_worlds_give():
    # 50 worlds with offsets of deviation 1, each with 20 values that scatter by 0.1 around them:
    # the mean's standard error is 1/√50 = 0.141, not 1/√1000 = 0.032.
    rng = np.random.default_rng(0)
    offsets = rng.normal(size=50)
    offsets = (offsets - offsets.mean()) / offsets.std()
    values = offsets.repeat(20) + 0.1 * rng.normal(size=1000)

    low, high = interval(values, np.arange(50).repeat(20), np.mean)

    assert (high - low) / 2 == pytest.approx(1.96 * 0.1414, rel=0.1)
    assert (high + low) / 2 == pytest.approx(values.mean(), abs=0.03)


def test_intervals_contain_the_truth_about_as_often_as_they_say():
    rng = np.random.default_rng(0)
    hits = 0
    for _ in range(60):
        values = (rng.normal(size=30)[:, None] + 0.2 * rng.normal(size=(30, 5))).ravel()
        low, high = interval(values, np.arange(30).repeat(5), np.median)
        hits += low < 0 < high

    # 95 % of 60 are 57; values resampled as if they were independent contain it in 38 of 60.
    assert hits >= 53


def test_order_of_the_values_does_not_matter():
    rng = np.random.default_rng(0)
    values, worlds, order = rng.normal(size=40), np.arange(40) // 4, rng.permutation(40)

    shuffled = interval(values[order], worlds[order], np.median)
    assert shuffled == interval(values, worlds, np.median)


def test_one_world_has_no_interval():
    assert np.isnan(interval(np.arange(5.0), np.zeros(5), np.median)).all()


def test_metrics_are_counted_for_the_world_they_come_from(
    tiny_run: RunFolder, monkeypatch: pytest.MonkeyPatch
):
    found = []

    def recorded(values: np.ndarray, worlds: np.ndarray, statistic: object) -> tuple[float, float]:
        found.append((values, worlds))
        return 0.0, 0.0

    monkeypatch.setattr("robotrl.runs.evaluate.interval", recorded)
    result = evaluate_run(tiny_run, episodes=5)

    (rewards, each), (errors, worlds) = found
    assert torch.get_num_threads() == tiny_run.config().torch_threads
    assert (len(rewards), each.tolist()) == (5, [0, 1, 2, 3, 4])
    assert rewards.mean() == pytest.approx(result["reward_per_step"])
    # 0.6 s of targets that last 0.2 to 0.4 s: 1 to 3 end in each world.
    assert len(errors) == len(worlds) == result["reach_error_m/count"]
    assert all(1 <= count <= 3 for count in np.bincount(worlds, minlength=5))


def test_episodes_of_a_policy_file_differ_in_what_is_drawn_at_startup(
    policy_path: Path, monkeypatch: pytest.MonkeyPatch
):
    masses = []

    def make_env(config: TrainConfig, **changes: Any) -> envs.VectorEnv:
        env = train.make_test_env(config, **changes)
        step = env.step_targets

        def recorded(*arguments: Any) -> Any:
            masses.append(env._simulation.field("body_mass")[0, 1].item())
            return step(*arguments)

        monkeypatch.setattr(env, "step_targets", recorded)
        return env

    def validate(document: object, section: type[TrainConfig], *, source: str) -> TrainConfig:
        config = TrainConfig.model_validate(document)
        return config.model_copy(
            update={"randomization": [FieldTerm(field="mass", range=(0.5, 2), when="startup")]}
        )

    monkeypatch.setattr("robotrl.runs.evaluate.make_test_env", make_env)
    monkeypatch.setattr("robotrl.runs.evaluate.validate", validate)
    evaluate_policy(policy_path, episodes=4)

    assert len(set(masses)) == 4


def test_metric_is_described_by_the_worlds_in_which_it_applies():
    def step() -> Any:
        nothing = torch.zeros(4)
        metrics = {
            "share": torch.tensor([torch.nan, 0.5, 0.7, 9.0]),
            "none": torch.full((4,), torch.nan),
        }
        measured = torch.tensor([True, True, True, False])
        return torch.arange(4), None, StepInfo({}, {"reward": nothing}, metrics, measured)

    result = _summarise(step, 3)

    assert result["share/count"] == 6
    assert result["share/median"] == pytest.approx(0.6)
    assert not any(name.startswith("none") for name in result)


def test_stages_and_the_timestep_of_training_do_not_count_in_evaluation():
    stages = [{"until_steps": 1e6, "rewards": {"alive": 9.0}}]
    settings = {"rewards": {"alive": 3.0}, "stages": stages, "training_timestep_s": 0.01}
    config = TrainConfig.model_validate({"task": "velocity", "task_config": settings})
    earned, timesteps = {}, {}
    for make in (train.make_env, train.make_test_env):
        env = make(config, num_envs=1, num_threads=1)
        env.reset()
        earned[make] = float(env.step(torch.zeros(1, 14)).info.rewards["alive"])
        timesteps[make] = env.simulation.model.opt.timestep

    assert list(earned.values()) == [9, 3]
    assert list(timesteps.values()) == [0.01, 0.005]


@pytest.mark.parametrize("terrain", [{}, {"levels": 3}])
def test_uneven_ground_is_evaluated_on_all_its_levels_also_if_its_settings_are_the_defaults(
    terrain: dict[str, Any],
):
    config = TrainConfig.model_validate({"task": "velocity", "task_config": {"terrain": terrain}})
    env = train.make_test_env(config, num_envs=24, num_threads=1)
    env.reset()
    # a robot on the flat level starts at x = 0; of 24 on 3 or more levels, some do not
    assert env.simulation.data("qpos")[:, 0].unique().numel() > 1


class OwnTask(ArmReach):
    """A user's, whose setting has the name of one that other tasks have for training alone."""

    class Config(ArmReachConfig):
        """With a course of its own."""

        stages: list[str] = []


def test_own_settings_of_a_task_count_in_evaluation_whatever_their_name(
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setitem(TASKS, "own", OwnTask)
    settings = {"stages": ["far", "near"], "training_timestep_s": 0.01}
    config = TrainConfig.model_validate({"task": "own", "task_config": settings})
    task = train.make_test_env(config, num_envs=1, num_threads=1).task
    assert isinstance(task, OwnTask)
    assert isinstance(task.config, OwnTask.Config)
    assert (task.config.stages, task.config.training_timestep_s) == (["far", "near"], None)


def test_policy_of_an_earlier_version_is_refused_in_a_line_that_says_what_to_do():
    with pytest.raises(ConfigError) as caught:
        evaluate_policy(SCHEMA_1_PATH)
    assert str(caught.value) == (
        f"{SCHEMA_1_PATH}: its training configuration is of another robotrl (version 0.1.0, commit "
        "cf0aed50d984), this one cannot read its 'randomization.0'. It still runs on robots and "
        "twins with `robotrl run`; to evaluate or play it, export it again from a new training"
    )


@pytest.mark.parametrize("use", ["evaluate", "export", "play"])
def test_run_whose_configuration_was_changed_since_is_refused(
    tiny_run: RunFolder, tiny_config: TrainConfig, tmp_path: Path, use: str
):
    shutil.copytree(tiny_run.path, tmp_path / "run")
    folder, hidden = RunFolder(tmp_path / "run"), tiny_config.algorithm.actor_hidden
    settings = yaml.safe_load(folder.config_path.read_text())
    settings["algorithm"]["actor_hidden"] = [7]
    folder.config_path.write_text(yaml.safe_dump(settings))

    with pytest.raises(ConfigError) as error:
        match use:
            case "evaluate":
                evaluate_run(folder, episodes=1)
            case "export":
                export(folder, tmp_path / "policy.onnx", {})
            case _:
                open_session(str(folder.path))

    assert str(error.value) == (
        f"{folder.config_path}: algorithm.actor_hidden was {hidden}, found [7]; the checkpoint "
        "does not fit that: change it back, or start a new run with --output"
    )
