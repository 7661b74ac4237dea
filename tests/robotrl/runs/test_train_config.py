"""Training configurations: numbers as people write them, and mistakes named with their remedy."""

from pathlib import Path

import pytest

from deploy.errors import ConfigError
from envs.registry import TASKS
from robotrl.algorithms.sac import SACConfig
from robotrl.runs.train import make_env
from robotrl.runs.train_config import TrainConfig, load_train_config

SHIPPED = sorted((Path(__file__).parents[3] / "configs/train").glob("*.yaml"))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A file with a task, a seed and one setting of the algorithm."""
    path = tmp_path / "run.yaml"
    path.write_text("task: arm_reach\nseed: 3\nalgorithm: {gamma: 0.9}\n")
    return path


def refusal(path: Path, *overrides: str) -> str:
    with pytest.raises(ConfigError) as error:
        load_train_config(path, list(overrides))
    return str(error.value)


def test_file_is_read_over_the_defaults(path: Path):
    config = load_train_config(path, [])

    assert (config.task, config.seed, config.algorithm.gamma) == ("arm_reach", 3, 0.9)
    assert config.num_envs == TrainConfig(task="arm_reach").num_envs


@pytest.mark.parametrize(
    ("text", "env_steps"),
    [("3e6", 3_000_000), ("3.0e+06", 3_000_000), ("1_000", 1000), ("500", 500)],
)
def test_counts_may_be_written_with_exponents(path: Path, text: str, env_steps: int):
    path.write_text(
        f"task: arm_reach\nenv_steps: {text}\nalgorithm: {{name: sac, compile_after: {text}}}\n"
    )

    config = load_train_config(path, [])

    assert isinstance(config.algorithm, SACConfig)
    for count in (config.env_steps, config.algorithm.compile_after):
        assert count == env_steps
        assert isinstance(count, int)


def test_overrides_replace_values_of_the_file(path: Path):
    config = load_train_config(
        path,
        ["num_envs=128", "env_steps=3e6", "algorithm.gamma=0.99", "algorithm.learning_rate=1e-3"],
    )

    assert config.num_envs == 128
    assert config.env_steps == 3_000_000
    assert config.algorithm.gamma == 0.99
    assert config.algorithm.learning_rate == 1e-3
    assert config.seed == 3


def test_override_may_be_a_list_or_a_mapping(path: Path):
    config = load_train_config(
        path,
        [
            "algorithm.actor_hidden=[32, 16]",
            "task_config.episode_s=2",
            "randomization=[{field: mass, range: [0.9, 1.1]}]",
        ],
    )

    assert config.algorithm.actor_hidden == [32, 16]
    assert config.task_config == {"episode_s": 2}
    assert config.terms[0].describe()["range"] == (0.9, 1.1)


def test_unknown_key_is_refused_with_the_nearest_name(path: Path):
    text = refusal(path, "num_env=8")

    assert text.startswith(
        f"{path}: (top level): unknown key 'num_env' (did you mean 'num_envs'?); valid keys are "
        "algorithm, backend, checkpoint_interval"
    )


def test_unknown_key_of_a_section_names_the_section(path: Path):
    text = refusal(path, "algorithm.gama=0.9")

    assert text.startswith(
        f"{path}: algorithm: unknown key 'gama' (did you mean 'gamma'?); valid keys are "
    )


INVALID_INTEGER = "input should be a valid integer"


@pytest.mark.parametrize(
    ("override", "problem"),
    [
        ("algorithm.gamma=high",
         "input should be a valid number, found 'high'"),
        ("algorithm.gamma=1.5", "input should be less than or equal to 1, found 1.5"),
        ("num_envs=0", "input should be greater than 0, found 0"),
        ("num_envs=2.5", f"{INVALID_INTEGER}, found 2.5"),
        ("env_steps=many",
         f"{INVALID_INTEGER}, found 'many'"),
        ("seed=-1", "input should be greater than or equal to 0, found -1"),
    ],
)  # fmt: skip
def test_impossible_value_is_refused_with_key_expectation_and_value(
    path: Path, override: str, problem: str
):
    key, _ = override.split("=")

    assert refusal(path, override) == f"{path}: {key}: {problem}"


def test_algorithm_is_chosen_by_its_name_and_an_unknown_one_is_refused(path: Path):
    path.write_text("task: arm_reach\n")

    assert load_train_config(path, []).algorithm.name == "ppo"
    sac = load_train_config(path, ["algorithm.tau=0.01", "algorithm.name=sac"]).algorithm
    assert isinstance(sac, SACConfig)
    assert sac.tau == 0.01
    assert refusal(path, "algorithm.name=ddpg") == (
        f"{path}: algorithm: `name` must be ppo or sac, found {{'name': 'ddpg'}}"
    )
    assert refusal(path, "algorithm.name=sac", "algorithm.tua=0.1").startswith(
        f"{path}: algorithm: unknown key 'tua' (did you mean 'tau'?); valid keys are actor_hidden"
    )


def test_term_that_is_wrong_is_named_by_its_number(path: Path):
    text = refusal(
        path, "randomization=[{field: mass, range: [1, 2]}, {field: mass, range: [2, 1]}]"
    )

    assert text == f"{path}: randomization.1.range: range must be [low, high], found [2.0, 1.0]"


def test_missing_task_is_refused(path: Path):
    path.write_text("seed: 3\n")

    assert refusal(path) == f"{path}: task: field required"


def test_every_problem_is_reported_at_once(path: Path):
    lines = refusal(path, "num_envs=0", "seed=-1").splitlines()

    assert [line.removeprefix(f"{path}: ").split(":")[0] for line in lines] == ["seed", "num_envs"]


def test_identity_changes_with_any_value_and_with_nothing_else(path: Path):
    config = load_train_config(path, [])

    assert load_train_config(path, ["algorithm.gamma=0.9"]).sha256 == config.sha256
    assert load_train_config(path, ["algorithm.gamma=0.91"]).sha256 != config.sha256


@pytest.mark.parametrize("shipped", SHIPPED, ids=lambda path: path.stem)
def test_shipped_configuration_has_the_name_of_its_task_or_of_robot_and_skill(shipped: Path):
    config = load_train_config(shipped, [])

    robot = config.task_config.get("robot", "").removesuffix("_arm")
    walk = "terrain" if config.task_config.get("terrain") else "walk"
    skill = {"velocity": walk}.get(config.task, config.task.rpartition("_")[2])
    assert shipped.stem.removesuffix("_robust") in (config.task, f"{robot}_{skill}")
    assert config.task in TASKS
    env = make_env(config, num_envs=2)  # every randomization term has an effect
    assert env.reset()["actor"].isfinite().all()


@pytest.mark.parametrize(
    ("setting", "key"),
    [("actor_hidden=[64, 16384]", "actor_hidden.1"), ("recurrent=16384", "recurrent")],
)
def test_layer_that_would_take_minutes_to_begin_with_is_refused(path: Path, setting: str, key: str):
    assert refusal(path, f"algorithm.{setting}") == (
        f"{path}: algorithm.{key}: input should be less than or equal to 4096, found 16384"
    )
