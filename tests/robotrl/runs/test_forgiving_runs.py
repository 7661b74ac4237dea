"""Runs forgive: kill -9, a full disk, Ctrl-C, a folder that is taken, a policy of another task."""

import resource
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import CliRunner

from deploy.configuration import validate
from deploy.errors import ConfigError
from robotrl.algorithms.ppo import PPO
from robotrl.cli import app
from robotrl.runs.continuing import fixed_settings, require_same_meaning, require_same_run
from robotrl.runs.evaluate import evaluate_run
from robotrl.runs.run_folder import RunFolder, StorageError, free_folder
from robotrl.runs.train import rehearse, train
from robotrl.runs.train_config import TrainConfig
from tests.robotrl.runs.test_train import (
    SMALL_SAC,
    STEPS_PER_ITERATION,
    assert_same_checkpoint,
    finish,
    metrics,
)

DYING = """
import sys, io, time
from pathlib import Path
import torch
from robotrl.runs.run_folder import RunFolder
from robotrl.runs.train import train

save, saves = torch.save, 0

def half(state, file):
    global saves
    saves += "env" in state                  # the policy of an evaluation has no worlds
    if saves < 3:
        return save(state, file)
    whole = io.BytesIO()
    save(state, whole)
    file.write(whole.getvalue()[: len(whole.getvalue()) // 2])
    file.flush()
    print("half", flush=True)
    time.sleep(600)

torch.save = half
folder = RunFolder(Path(sys.argv[1]))
train(folder.config(), folder)
"""


@pytest.mark.parametrize("algorithm", [None, SMALL_SAC], ids=["ppo", "sac"])
def test_process_killed_while_it_writes_a_checkpoint_resumes_to_the_same_bits(
    tiny_config: TrainConfig, tmp_path: Path, algorithm: Any
):
    config = tiny_config.model_copy(
        update={
            "env_steps": 5 * STEPS_PER_ITERATION,
            "algorithm": algorithm or tiny_config.algorithm,
        }
    )
    uninterrupted = finish(config, tmp_path / "uninterrupted")
    folder = RunFolder(tmp_path / "killed")
    folder.create(config)

    child = subprocess.Popen(
        [sys.executable, "-c", DYING, str(folder.path)], stdout=subprocess.PIPE, text=True
    )
    assert child.stdout is not None
    assert child.stdout.readline() == "half\n"
    child.kill()
    assert child.wait() == -signal.SIGKILL

    (torn,) = folder.path.glob(".*.tmp")
    assert torn.stat().st_size > 1000
    assert folder.load_checkpoint()["iteration"] == 2
    train(config, folder, resume=True)
    assert not torn.exists()
    assert_same_checkpoint(folder, uninterrupted)
    for found, expected in zip(metrics(folder), metrics(uninterrupted), strict=True):
        assert found == pytest.approx(expected, nan_ok=True, rel=0, abs=0)


@contextmanager
def files_no_larger_than(size: int) -> Iterator[None]:
    """Writing more than `size` bytes into a file fails, as on a full disk."""
    _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))  # Python ignores the signal
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))


def test_full_disk_stops_the_run_and_the_checkpoint_of_before_stays(
    tiny_config: TrainConfig, tmp_path: Path
):
    longer = tiny_config.model_copy(update={"env_steps": 4 * STEPS_PER_ITERATION})
    uninterrupted = finish(longer, tmp_path / "uninterrupted")
    folder = finish(
        longer.model_copy(update={"env_steps": 2 * STEPS_PER_ITERATION}), tmp_path / "run"
    )
    before = folder.checkpoint_path.read_bytes()

    with files_no_larger_than(len(before) // 2), pytest.raises(StorageError) as error:
        train(longer, folder, resume=True)

    assert str(error.value).startswith(f"{folder.path}")
    assert "cannot be written: " in str(error.value)
    assert str(error.value).endswith(
        "; the checkpoint of before is whole. Make room and go on with robotrl train --resume "
        f"{folder.path}"
    )
    assert folder.checkpoint_path.read_bytes() == before
    assert not list(folder.path.glob(".*"))
    train(longer, folder, resume=True)
    assert_same_checkpoint(folder, uninterrupted)


def test_table_that_cannot_be_written_stops_the_run_too(tiny_run: RunFolder, tmp_path: Path):
    shutil.copytree(tiny_run.path, tmp_path / "run")
    folder = RunFolder(tmp_path / "run")

    with files_no_larger_than(10), pytest.raises(StorageError, match=r"metrics.csv cannot be writ"):
        folder.append_metrics({"env_steps": 128})


def test_ctrl_c_saves_and_prints_the_command_that_resumes(
    tiny_config: TrainConfig, tiny_run: RunFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    config = tiny_config.model_copy(update={"checkpoint_interval": 100})
    update, path = PPO.update, tmp_path / "run"
    source = RunFolder(tmp_path / "source")
    source.create(config)

    def interrupted(self: PPO, *arguments: Any) -> Any:
        signal.raise_signal(signal.SIGINT)
        return update(self, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(PPO, "update", interrupted)
        stopped = CliRunner().invoke(app, ["train", str(source.config_path), "--output", str(path)])

    assert stopped.exit_code == 130
    assert stopped.stderr.endswith(f"saved; go on with: robotrl train --resume {path}\n")
    assert RunFolder(path).load_checkpoint()["iteration"] == 1
    resumed = CliRunner().invoke(app, ["train", "--resume", str(path)])
    assert resumed.exit_code == 0
    assert_same_checkpoint(RunFolder(path), tiny_run)


def test_second_ctrl_c_stops_at_once(
    tiny_run: RunFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    def impatient(self: PPO, *arguments: Any) -> Any:
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(PPO, "update", impatient)
    before = signal.getsignal(signal.SIGINT)
    stopped = CliRunner().invoke(
        app, ["train", str(tiny_run.config_path), "--output", str(tmp_path / "run")]
    )

    assert stopped.exit_code == 130
    assert not RunFolder(tmp_path / "run").checkpoint_path.exists()
    assert signal.getsignal(signal.SIGINT) is before


def test_folder_that_another_process_trains_in_is_refused(tiny_config: TrainConfig, tmp_path: Path):
    folder = RunFolder(tmp_path / "run")
    folder.create(tiny_config)

    with (
        RunFolder(folder.path).claim(),
        pytest.raises(ConfigError, match="another process is training there; let it end, or"),
    ):
        train(tiny_config, folder)

    assert not folder.checkpoint_path.exists()


def test_new_runs_take_the_next_free_folder(tiny_config: TrainConfig, tmp_path: Path):
    wanted = tmp_path / "reach"
    for expected in ("reach", "reach-2", "reach-3"):
        assert free_folder(wanted).name == expected
        RunFolder(free_folder(wanted)).create(tiny_config)


def changed(config: TrainConfig, **changes: Any) -> TrainConfig:
    return validate({**config.model_dump(mode="json"), **changes}, TrainConfig, source="test")


@pytest.mark.parametrize("best", [False, True])
def test_run_starts_from_the_weights_of_another_and_from_nothing_else_of_it(
    tiny_config: TrainConfig, tiny_run: RunFolder, tmp_path: Path, best: bool
):
    config = changed(tiny_config, seed=5, num_envs=4, env_steps=16, randomization=[])
    taken = rehearse(config, source=tmp_path / "new.yaml", start=tiny_run, best=best)
    folder = RunFolder(tmp_path / "tuned")
    folder.create(config, taken)
    frozen = {"learning_rate": 1e-12}

    algorithm = config.algorithm.model_copy(update=frozen)
    train(config.model_copy(update={"algorithm": algorithm}), folder)

    source = tiny_run.load_checkpoint(best=best)["algorithm"]
    tuned = folder.load_checkpoint()["algorithm"]
    assert torch.allclose(
        tuned["policy"]["network.0.weight"], source["policy"]["network.0.weight"], atol=1e-9
    )
    # 96 steps of the other run, and 16 of this one
    assert tuned["policy"]["normalizer.count"] == source["policy"]["normalizer.count"] + 16
    assert tuned["steps"] == 16


def test_tuned_run_that_is_killed_at_once_still_knows_where_it_started(
    tiny_config: TrainConfig, tiny_run: RunFolder, tmp_path: Path
):
    config = changed(tiny_config, seed=5)
    taken = rehearse(config, source=tmp_path / "new.yaml", start=tiny_run)
    for name in ("whole", "killed"):
        RunFolder(tmp_path / name).create(config, taken)

    train(config, RunFolder(tmp_path / "whole"))
    train(config, RunFolder(tmp_path / "killed"), resume=True)  # before its first checkpoint

    assert_same_checkpoint(RunFolder(tmp_path / "whole"), RunFolder(tmp_path / "killed"))


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        (
            {"task_config": {"history": 2}},
            "compared with that run this one has columns of the actor's observation without ",
        ),
        (
            {"task_config": {"home": {"elbow_flex": 0.5}}},
            "this one has home without elbow_flex at 0.2 and with elbow_flex at 0.5. Its policy",
        ),
        ({"task": "gym/HalfCheetah-v5", "task_config": {}}, "without joint_position"),
        (
            {"algorithm": {"actor_hidden": [8], "critic_hidden": [16]}},
            "policy.network.0.weight is (16, ",
        ),
        ({"algorithm": {"name": "sac"}}, "its checkpoint has no target and log_alpha and skilled"),
    ],
)
def test_weights_that_do_not_fit_are_refused_with_what_differs(
    tiny_config: TrainConfig, tiny_run: RunFolder, changes: dict[str, Any], problem: str
):
    config = changed(tiny_config, randomization=[], **changes)

    with pytest.raises(ConfigError) as error:
        rehearse(config, source=Path("new.yaml"), start=tiny_run)

    assert str(error.value).startswith(f"new.yaml: --from {tiny_run.path}: ")
    assert problem in str(error.value)


def test_best_policy_is_that_of_the_best_evaluation(tiny_config: TrainConfig, tmp_path: Path):
    config = changed(
        tiny_config,
        env_steps=6 * STEPS_PER_ITERATION,
        evaluation={"episodes": 3, "interval": STEPS_PER_ITERATION},
    )
    folder = finish(config, tmp_path / "run")

    rows = folder.evaluations()
    best = folder.load_checkpoint(best=True)
    assert [row["env_steps"] for row in rows] == [32, 64, 96, 128, 160, 192]
    assert best["return"] == max(row["return"] for row in rows)
    assert best["env_steps"] == next(
        row["env_steps"] for row in rows if row["return"] == best["return"]
    )
    assert {row["length"] for row in rows} == {30.0}
    assert evaluate_run(folder, episodes=2, best=True)["reward_per_step"] != 0


def test_training_is_the_same_to_the_bit_with_and_without_evaluation(
    tiny_config: TrainConfig, tiny_run: RunFolder, tmp_path: Path
):
    without = finish(changed(tiny_config, evaluation=None), tmp_path / "without")

    assert not without.best_path.exists()
    assert tiny_run.best_path.exists()
    assert_same_checkpoint(without, tiny_run)


def test_tables_say_how_long_the_run_has_taken_across_an_interruption(
    tiny_config: TrainConfig, tmp_path: Path
):
    folder = finish(tiny_config, tmp_path / "run")
    before = folder.metrics()[-1]

    train(tiny_config.model_copy(update={"env_steps": 160}), folder, resume=True)

    for name in ("speed/wall_s", "speed/cpu_s"):
        times = [float(row[name]) for row in folder.metrics()]
        assert times == sorted(times)
        assert times[2] == float(before[name]) > 0


def test_weights_that_would_mean_something_else_are_refused(
    tiny_config: TrainConfig, tiny_run: RunFolder
):
    algorithm = tiny_config.algorithm.model_copy(update={"activation": "tanh"})
    config = tiny_config.model_copy(update={"algorithm": algorithm})

    with pytest.raises(ConfigError, match=r"algorithm\.activation is silu there and tanh here; "):
        rehearse(config, source=Path("new.yaml"), start=tiny_run)


def test_weights_of_another_normalisation_are_refused_by_its_name(
    tiny_config: TrainConfig, tiny_run: RunFolder
):
    algorithm = tiny_config.algorithm.model_copy(update={"sparse_observations": True})
    config = tiny_config.model_copy(update={"algorithm": algorithm})

    with pytest.raises(ConfigError, match=r"sparse_observations is False there and True here; "):
        rehearse(config, source=Path("new.yaml"), start=tiny_run)


@pytest.mark.parametrize(
    ("name", "setting", "was", "now"),
    [
        ("ppo", "activation", "silu", "tanh"),
        ("ppo", "observation_clip", 10.0, 3.0),
        ("ppo", "sparse_observations", False, True),
        ("ppo", "reward_centering", 0.0, 0.1),
        ("sac", "layer_norm", True, False),
    ],
)
def test_what_was_not_yet_a_setting_is_known_of_earlier_checkpoints(
    tmp_path: Path, name: str, setting: str, was: Any, now: Any
):
    def config(value: Any) -> TrainConfig:
        algorithm = {"name": name, setting: value}
        return TrainConfig.model_validate({"task": "arm_reach", "algorithm": algorithm})

    run = {k: v for k, v in fixed_settings(config(was)).items() if not k.endswith(setting)}
    folder, checkpoint = RunFolder(tmp_path), {"run": run}

    require_same_run(config(was), checkpoint, folder)
    require_same_meaning(config(was), checkpoint, tmp_path)
    with pytest.raises(ConfigError, match=f"algorithm.{setting} was {was}, found {now}"):
        require_same_run(config(now), checkpoint, folder)
    with pytest.raises(ConfigError, match=f"algorithm.{setting} is {was} there and {now} here"):
        require_same_meaning(config(now), checkpoint, tmp_path)


@pytest.mark.parametrize(
    ("interval", "episode_steps", "expected"),
    [
        (None, 600, 768_000),  # 5 × 600 × 256 is more than a tenth of 3 million
        (None, 100, 300_000),
        (5000, 600, 5000),
    ],
)
def test_evaluation_takes_a_fifth_of_the_control_steps_at_most(
    interval: int | None, episode_steps: int, expected: int
):
    config = TrainConfig.model_validate({"task": "arm_reach", "evaluation": {"interval": interval}})

    assert config.evaluation_interval(episode_steps) == expected


def test_checkpoint_of_another_task_is_refused_in_one_line(
    tiny_config: TrainConfig, tiny_run: RunFolder, tmp_path: Path
):
    config = changed(tiny_config, task="gym/Reacher-v5", task_config={}, randomization=[])
    folder = RunFolder(tmp_path / "run")
    folder.create(config)
    shutil.copy(tiny_run.checkpoint_path, folder.checkpoint_path)

    with pytest.raises(ConfigError) as error:
        train(config, folder, resume=True)

    assert str(error.value) == (
        f"{folder.config_path}: task was arm_reach, found gym/Reacher-v5; the checkpoint does not "
        "fit that: change it back, or start a new run with --output"
    )


@pytest.mark.parametrize(
    ("algorithm", "problem"),
    [
        (
            {"rollout_steps": 4, "minibatches": 33},
            "algorithm.minibatches: 33 parts of 32 rows (8 worlds × 4 steps), expected 32 or fewer",
        ),
        ({"name": "sac", "buffer_size": 20}, "room for 20 steps of 8 worlds is 2 of each"),
    ],
)
def test_batch_that_cannot_be_made_is_refused_before_the_folder(
    tiny_config: TrainConfig, algorithm: dict[str, Any], problem: str
):
    with pytest.raises(ConfigError) as error:
        rehearse(changed(tiny_config, algorithm=algorithm), source=Path("new.yaml"))

    assert problem in str(error.value)
