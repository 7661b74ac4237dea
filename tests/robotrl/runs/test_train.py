"""Training is reproducible to the bit, and a killed run goes on as if nothing had happened."""

import csv
import io
import math
import shutil
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console
from torch import Tensor

from deploy.configuration import validate
from deploy.errors import ConfigError
from envs.batch_simulation import BatchSimulation
from envs.divergence import replay
from envs.vector_env import VectorEnv
from envs.warp_simulation import WarpSimulation
from robotrl.algorithms.algorithm import TrainingError
from robotrl.algorithms.ppo import PPO, PPOConfig
from robotrl.algorithms.sac import SACConfig
from robotrl.runs.progress import train_with_progress
from robotrl.runs.run_folder import RunFolder
from robotrl.runs.train import _multiplying, make_env, make_test_env, train
from robotrl.runs.train_config import TrainConfig

STEPS_PER_ITERATION = 8 * 4


def finish(config: TrainConfig, path: Path) -> RunFolder:
    """A new run of `config`, trained to its end."""
    folder = RunFolder(path)
    folder.create(config)
    train(config, folder)
    return folder


def train_until_killed(config: TrainConfig, path: Path, *, after: int) -> RunFolder:
    """A new run that is interrupted when its iteration `after` is over."""
    folder = RunFolder(path)
    folder.create(config)

    def kill(metrics: dict[str, float]) -> None:
        if metrics["env_steps"] == after * STEPS_PER_ITERATION:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(config, folder, progress=kill)
    return folder


def tensors(state: Any, name: str = "") -> dict[str, Tensor]:
    """All tensors and numbers in nested containers, by path."""
    if isinstance(state, Tensor):
        return {name: state}
    if isinstance(state, dict):
        parts = [tensors(value, f"{name}.{key}") for key, value in state.items()]
    elif isinstance(state, list | tuple):
        parts = [tensors(value, f"{name}[{key}]") for key, value in enumerate(state)]
    else:
        return {name: torch.tensor(state)} if isinstance(state, int | float) else {}
    return {key: value for part in parts for key, value in part.items()}


def assert_same_checkpoint(one: RunFolder, other: RunFolder) -> None:
    """Weights, statistics, optimiser, random numbers and environment, to the bit."""
    a, b = tensors(one.load_checkpoint()), tensors(other.load_checkpoint())
    assert a.keys() == b.keys()
    assert [name for name in a if not torch.equal(a[name], b[name])] == []


def metrics(folder: RunFolder) -> list[dict[str, float]]:
    """The rows of metrics.csv without the measured speed."""
    with folder.metrics_path.open(newline="") as file:
        return [
            {name: float(value) for name, value in row.items() if not name.startswith("speed/")}
            for row in csv.DictReader(file)
        ]


def test_run_ends_at_the_configured_number_of_steps(tiny_run: RunFolder, tiny_config: TrainConfig):
    checkpoint = tiny_run.load_checkpoint()

    assert checkpoint["iteration"] == 3
    assert checkpoint["env_steps"] == tiny_config.env_steps == 3 * STEPS_PER_ITERATION


def test_training_changes_the_weights(
    tiny_run: RunFolder, tiny_config: TrainConfig, tmp_path: Path
):
    shorter = finish(tiny_config.model_copy(update={"env_steps": 32}), tmp_path / "shorter")

    trained = tiny_run.load_checkpoint()["algorithm"]["policy"]
    less_trained = shorter.load_checkpoint()["algorithm"]["policy"]
    assert not torch.equal(trained["network.0.weight"], less_trained["network.0.weight"])


def test_last_iteration_is_completed_when_steps_do_not_divide(
    tiny_config: TrainConfig, tmp_path: Path
):
    folder = finish(tiny_config.model_copy(update={"env_steps": 33}), tmp_path / "run")

    assert folder.load_checkpoint()["env_steps"] == 64


def test_same_seed_gives_the_same_bits_at_any_number_of_simulation_threads(
    tiny_run: RunFolder, tiny_config: TrainConfig, tmp_path: Path
):
    assert tiny_config.simulation_threads == 0  # all cores
    torch.manual_seed(123)  # the state of the global generator does not matter either
    serial = finish(tiny_config.model_copy(update={"simulation_threads": 1}), tmp_path / "serial")
    parallel = finish(tiny_config.model_copy(update={"simulation_threads": 2}), tmp_path / "two")

    assert_same_checkpoint(serial, parallel)
    assert_same_checkpoint(serial, tiny_run)


def test_another_seed_gives_other_weights(
    tiny_run: RunFolder, tiny_config: TrainConfig, tmp_path: Path
):
    other = finish(tiny_config.model_copy(update={"seed": 1}), tmp_path / "other")

    key = "network.0.weight"
    assert not torch.equal(
        other.load_checkpoint()["algorithm"]["policy"][key],
        tiny_run.load_checkpoint()["algorithm"]["policy"][key],
    )


SMALL_SAC = SACConfig(
    iteration_steps=4,
    learning_starts=40,  # within the second iteration
    buffer_size=80,  # it is full in the third
    batch_size=16,
    updates_per_step=0.3,
    n_step=2,
    actor_hidden=[16],
    critic_hidden=[16],
)


SMALL_GRU = PPOConfig(rollout_steps=4, actor_hidden=[16], critic_hidden=[16], recurrent=8)


@pytest.mark.parametrize(
    "algorithm", [None, SMALL_SAC, SMALL_GRU], ids=["ppo", "sac", "ppo with a memory"]
)
@pytest.mark.parametrize(
    ("checkpoint_interval", "killed_after"),
    [(1, 2), (2, 3)],
    ids=["at a checkpoint", "an iteration after a checkpoint"],
)
def test_killed_run_resumes_to_the_same_bits(
    tiny_config: TrainConfig,
    tmp_path: Path,
    checkpoint_interval: int,
    killed_after: int,
    algorithm: SACConfig | PPOConfig | None,
):
    config = tiny_config.model_copy(
        update={
            "env_steps": 5 * STEPS_PER_ITERATION,
            "checkpoint_interval": checkpoint_interval,
            "algorithm": algorithm or tiny_config.algorithm,
        }
    )
    uninterrupted = finish(config, tmp_path / "uninterrupted")
    killed = train_until_killed(config, tmp_path / "killed", after=killed_after)
    assert killed.load_checkpoint()["iteration"] == 2 < 5

    train(config, killed, resume=True)

    assert_same_checkpoint(killed, uninterrupted)


def test_metrics_have_one_row_per_iteration_after_resuming_from_an_older_checkpoint(
    tiny_config: TrainConfig, tmp_path: Path
):
    config = tiny_config.model_copy(
        update={"env_steps": 5 * STEPS_PER_ITERATION, "checkpoint_interval": 2}
    )
    uninterrupted = finish(config, tmp_path / "uninterrupted")
    killed = train_until_killed(config, tmp_path / "killed", after=3)
    assert [row["env_steps"] for row in metrics(killed)] == [32, 64, 96]

    train(config, killed, resume=True)

    assert [row["env_steps"] for row in metrics(killed)] == [32, 64, 96, 128, 160]
    for found, expected in zip(metrics(killed), metrics(uninterrupted), strict=True):
        assert found == pytest.approx(expected, nan_ok=True, rel=0, abs=0)


def test_run_killed_before_its_first_checkpoint_starts_again(
    tiny_config: TrainConfig, tiny_run: RunFolder, tmp_path: Path
):
    config = tiny_config.model_copy(update={"checkpoint_interval": 3})
    killed = train_until_killed(config, tmp_path / "killed", after=1)
    assert not killed.checkpoint_path.exists()

    train(config, killed, resume=True)

    assert_same_checkpoint(killed, tiny_run)
    assert [row["env_steps"] for row in metrics(killed)] == [32, 64, 96]


def test_resuming_a_finished_run_changes_nothing(
    tiny_run: RunFolder, tiny_config: TrainConfig, tmp_path: Path
):
    folder = finish(tiny_config, tmp_path / "run")
    before = metrics(folder)

    train(tiny_config, folder, resume=True)

    assert_same_checkpoint(folder, tiny_run)
    assert [row["env_steps"] for row in metrics(folder)] == [row["env_steps"] for row in before]


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("num_envs", 4),
        ("seed", 1),
        ("backend", "warp"),
        ("algorithm", {"rollout_steps": 2}),
        ("algorithm", {"actor_hidden": [7]}),
        ("task_config", {"episode_s": 3.0}),
        ("randomization", [{"field": "mass", "range": [0.9, 1.1]}]),
    ],
)
def test_what_the_checkpoint_does_not_fit_is_refused_and_nothing_is_written(
    tiny_config: TrainConfig, tiny_run: RunFolder, tmp_path: Path, key: str, value: Any
):
    shutil.copytree(tiny_run.path, tmp_path / "run")
    folder = RunFolder(tmp_path / "run")
    before = folder.metrics_path.read_text()
    written = tiny_config.model_dump(mode="json")
    changed = {**written[key], **value} if isinstance(value, dict) else value
    config = validate({**written, key: changed, "env_steps": 1000}, TrainConfig, source="test")

    with pytest.raises(ConfigError, match=f"config.yaml: {key}.* was .*, found .*: change it back"):
        train(config, folder, resume=True)

    assert folder.metrics_path.read_text() == before
    assert_same_checkpoint(folder, tiny_run)


def test_checkpoint_of_an_earlier_version_is_refused(
    tiny_config: TrainConfig, tiny_run: RunFolder, tmp_path: Path
):
    shutil.copytree(tiny_run.path, tmp_path / "run")
    folder, checkpoint = RunFolder(tmp_path / "run"), tiny_run.load_checkpoint()
    del checkpoint["algorithm"]["actor_step"]  # it had one optimiser for both
    folder.save_checkpoint(checkpoint)

    with pytest.raises(ConfigError, match=r"is not of this version's ppo \('actor_step'\); go on"):
        train(tiny_config, folder, resume=True)


def test_learning_rate_and_length_of_a_run_may_be_changed_before_it_goes_on(
    tiny_config: TrainConfig, tiny_run: RunFolder, tmp_path: Path
):
    shutil.copytree(tiny_run.path, tmp_path / "run")
    folder = RunFolder(tmp_path / "run")
    algorithm = tiny_config.algorithm.model_copy(update={"learning_rate": 1e-5})

    longer = tiny_config.model_copy(update={"env_steps": 128, "algorithm": algorithm})
    train(longer, folder, resume=True)

    assert [row["env_steps"] for row in metrics(folder)] == [32, 64, 96, 128]


def test_parts_that_do_not_fit_the_worlds_are_refused_before_a_run_goes_on(
    tiny_config: TrainConfig, tiny_run: RunFolder
):
    algorithm = tiny_config.algorithm.model_copy(update={"minibatches": 10**5})
    config = tiny_config.model_copy(update={"algorithm": algorithm})

    with pytest.raises(ConfigError, match=r"config\.yaml: algorithm\.minibatches: 100000 parts of"):
        train(config, tiny_run, resume=True)


def test_learner_of_lower_precision_is_as_reproducible_and_leaves_torch_as_it_was(
    tiny_config: TrainConfig, tiny_run: RunFolder, tmp_path: Path
):
    config = tiny_config.model_copy(update={"learner_precision": "bfloat16"})

    one, other = finish(config, tmp_path / "one"), finish(config, tmp_path / "other")

    assert_same_checkpoint(one, other)
    assert torch.get_float32_matmul_precision() == "highest"
    rewards = [[row["reward/mean"] for row in metrics(folder)] for folder in (one, tiny_run)]
    assert rewards[0][0] == rewards[1][0]  # nothing was learned yet, and acting is exact
    assert rewards[0] == pytest.approx(rewards[1], rel=0.05)


@pytest.mark.parametrize(
    ("algorithm", "kind", "expected"),
    [
        # 8 worlds × 32 steps in 4 parts: 64 rows, times 64² or 256²
        (PPOConfig(actor_hidden=[64], critic_hidden=[64]), "float32", None),
        (PPOConfig(actor_hidden=[64], critic_hidden=[64, 256]), "float32", "float32"),
        (PPOConfig(actor_hidden=[64], critic_hidden=[64]), "bfloat16", "bfloat16"),
        (PPOConfig(actor_hidden=[], critic_hidden=[]), "float32", None),
        (SACConfig(), "float32", "float32"),  # batches of 256, times 256²
        (SACConfig(actor_hidden=[16], critic_hidden=[16]), "float32", None),
    ],
)
def test_small_products_are_left_to_what_begins_them_quickly(
    tiny_config: TrainConfig,
    algorithm: PPOConfig | SACConfig,
    kind: str,
    expected: str | None,
    monkeypatch: pytest.MonkeyPatch,
):
    asked: list[str] = []
    monkeypatch.setattr(
        "robotrl.runs.train.precision", lambda kind: nullcontext(asked.append(kind))
    )
    settings = {"num_envs": 8, "algorithm": algorithm, "learner_precision": kind}

    with _multiplying(tiny_config.model_copy(update=settings))():
        pass

    assert asked == ([] if expected is None else [expected])


def test_progress_is_told_what_is_written_down(tiny_config: TrainConfig, tmp_path: Path):
    folder, told = RunFolder(tmp_path / "run"), []
    folder.create(tiny_config)

    train(tiny_config, folder, progress=told.append)

    with folder.metrics_path.open(newline="") as file:
        written = [
            {name: float(value) for name, value in row.items()} for row in csv.DictReader(file)
        ]
    assert written == [pytest.approx(row, nan_ok=True) for row in told]


def test_reward_is_the_sum_of_its_terms(tiny_run: RunFolder):
    for row in metrics(tiny_run):
        terms = [
            value for name, value in row.items()
            if name.startswith("reward/") and name != "reward/mean"
        ]  # fmt: skip
        assert len(terms) > 3
        assert row["reward/mean"] == pytest.approx(math.fsum(terms), abs=1e-6)


def test_environment_of_a_run_takes_changes(tiny_config: TrainConfig):
    env = make_env(tiny_config, num_envs=2, randomization=[])

    assert env.num_envs == 2
    assert env.task.episode_steps == 30  # 0.6 s of the run's own task settings


def spoil_step(monkeypatch: pytest.MonkeyPatch, number: int, what: str) -> None:
    """From now on, the environment's step `number` has a NaN in world 3."""
    step, taken = VectorEnv.step, 0

    def spoilt(self: VectorEnv, *arguments: Any, **settings: Any) -> Any:
        nonlocal taken
        taken += 1
        answer = step(self, *arguments, **settings)
        observation, reward, *_, info = answer
        if taken == number:
            bad = {"reward": [reward, info.rewards["hold"]]}
            for tensor in bad.get(what) or [observation[what]]:
                tensor[3] = math.nan
        return answer

    monkeypatch.setattr(VectorEnv, "step", spoilt)


@pytest.mark.parametrize(
    ("what", "found"),
    [
        ("reward", "the reward (hold) is nan in world 3, 2 steps on"),
        ("actor", "the actor's observation is nan in world 3, 3 steps on"),
        ("critic", "the critic's observation is nan in world 3, 3 steps on"),
    ],
)
def test_nan_stops_the_run_and_the_last_good_checkpoint_stays(
    tiny_config: TrainConfig, tmp_path: Path, what: str, found: str
):
    config = tiny_config.model_copy(
        update={"env_steps": 5 * STEPS_PER_ITERATION, "checkpoint_interval": 2}
    )
    uninterrupted = finish(config, tmp_path / "uninterrupted")
    folder = RunFolder(tmp_path / "run")
    folder.create(config)

    with pytest.MonkeyPatch.context() as patch, pytest.raises(TrainingError) as error:
        spoil_step(patch, 3 * 4 + 2, what)  # the second step of the fourth rollout
        train(config, folder)

    assert str(error.value) == (
        f"training stopped after 96 env steps: {found}. A reward or an observation: look for a "
        "division, a root or a logarithm in the task. A loss or a weight: lower "
        f"algorithm.learning_rate or algorithm.max_grad_norm in {folder.config_path}. The "
        "checkpoint of 64 env steps is good: export it, or go on from there with --resume; "
        "without a change it would come to the same end"
    )
    assert folder.load_checkpoint()["env_steps"] == 64
    train(config, folder, resume=True)  # without the NaN
    assert_same_checkpoint(folder, uninterrupted)


@pytest.mark.parametrize(("bad_iteration", "kept"), [(2, 32), (1, None)])
def test_weights_that_are_not_finite_are_never_saved(
    tiny_config: TrainConfig,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    bad_iteration: int,
    kept: int | None,
):
    folder, update, updates = RunFolder(tmp_path / "run"), PPO.update, 0
    folder.create(tiny_config)  # saves after every iteration

    def spoilt(self: PPO, *arguments: Any) -> Any:
        nonlocal updates
        updates += 1
        if updates == bad_iteration:
            with torch.no_grad():
                self.policy.log_std[0] = math.nan
        return update(self, *arguments)

    monkeypatch.setattr(PPO, "update", spoilt)
    with pytest.raises(TrainingError) as error:
        train(tiny_config, folder)

    assert "loss/policy is nan" in str(error.value)
    assert folder.checkpoint_path.exists() == (kept is not None)
    if kept is None:
        assert str(error.value).endswith("Nothing was saved yet; --resume starts the run again")
    else:
        checkpoint = folder.load_checkpoint()
        assert checkpoint["env_steps"] == kept
        assert all(value.isfinite().all() for value in tensors(checkpoint["algorithm"]).values())


def test_run_goes_on_when_a_world_diverges_and_keeps_what_led_to_it(
    tiny_config: TrainConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    def make_broken(config: TrainConfig, **changes: Any) -> VectorEnv:
        env = make_env(config, **changes)
        env._simulation.field("dof_damping")[3] = -1.0  # joints that push themselves
        return env

    monkeypatch.setattr("robotrl.runs.train.make_env", make_broken)
    monkeypatch.chdir(tmp_path)  # MuJoCo writes its warnings to MUJOCO_LOG.TXT
    folder, shown = RunFolder(tmp_path / "run"), io.StringIO()
    folder.create(tiny_config)

    train_with_progress(tiny_config, folder, Console(file=shown, width=300))

    dumps = sorted(folder.diverged_path.iterdir())
    rows = list(csv.DictReader(folder.metrics_path.open()))
    assert len(rows) == 3
    assert int(rows[-1]["diverged"]) >= len(dumps) == 5
    assert f"diverged {rows[-1]['diverged']}, see {folder.diverged_path}" in shown.getvalue()
    assert {replay(path).dump.divergence.world for path in dumps} == {3}
    assert all(replay(path).cause for path in dumps)


def test_divergence_that_nothing_was_kept_of_is_shown_without_a_folder(
    tiny_config: TrainConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    def make_broken(config: TrainConfig, **changes: Any) -> VectorEnv:
        env = make_env(config, **changes)
        env.simulation.field("dof_damping")[3] = -1.0
        return env

    monkeypatch.setattr("robotrl.runs.train.make_env", make_broken)
    folder, shown = RunFolder(tmp_path / "run"), io.StringIO()
    config = tiny_config.model_copy(update={"backend": "warp"})  # it cannot look back
    folder.create(config)

    train_with_progress(config, folder, Console(file=shown, width=300))

    assert "diverged" in shown.getvalue()
    assert not folder.diverged_path.exists()
    assert "see" not in shown.getvalue()


def test_run_on_the_other_backend_trains_resumes_and_is_evaluated_by_mujoco(
    tiny_config: TrainConfig, tmp_path: Path
):
    config = tiny_config.model_copy(update={"backend": "warp"})
    whole = finish(config, tmp_path / "whole")
    stopped = train_until_killed(config, tmp_path / "stopped", after=2)

    train(config, stopped, resume=True)

    assert type(make_env(config).simulation) is WarpSimulation
    assert type(make_test_env(config).simulation) is BatchSimulation
    assert_same_checkpoint(whole, stopped)
