"""A policy that was trained elsewhere is exported as what its own library computes."""

import json
import pickle
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from typer.testing import CliRunner

import envs
from deploy.controller import read_policy
from deploy.errors import ConfigError
from envs.vector_env import VectorEnv
from robotrl.cli import app
from robotrl.foreign import load_foreign
from robotrl.runs.run_folder import RunFolder
from robotrl.runs.train import make_test_env
from robotrl.runs.train_config import TrainConfig


@pytest.fixture(scope="module")
def env(tiny_config: TrainConfig) -> VectorEnv:
    return make_test_env(tiny_config, num_envs=2, num_threads=1)


class Saved:
    """Models of Stable-Baselines3 on arm_reach, barely trained, and their normaliser."""

    def __init__(self, folder: Path):
        sb3 = pytest.importorskip("stable_baselines3", reason="needs robotrl[dev]")
        import gymnasium
        from stable_baselines3.common.vec_env import VecNormalize

        from envs.sb3_vec_env import SB3VecEnv

        assert envs  # registers our tasks with Gymnasium
        worlds = gymnasium.make_vec("robotrl/ArmReach-v0", num_envs=8, autoreset_mode="SameStep")
        self.worlds = VecNormalize(SB3VecEnv(worlds), clip_obs=3.0)
        self.models: dict[str, Any] = {
            "ppo": sb3.PPO(
                "MlpPolicy", self.worlds, n_steps=8, batch_size=64, seed=0,
                policy_kwargs={"net_arch": [16, 8], "log_std_init": 0.0},
            ),
            "sac": sb3.SAC(
                "MlpPolicy", self.worlds, learning_starts=8, train_freq=4, seed=0,
                policy_kwargs={"net_arch": [16, 8], "activation_fn": nn.SiLU},
            ),
            "ppo_gsde": sb3.PPO(
                "MlpPolicy", self.worlds, n_steps=8, batch_size=64, seed=0, use_sde=True,
                policy_kwargs={"net_arch": {"pi": [16], "vf": [8]}, "activation_fn": nn.ELU},
            ),
            "ppo_squashed": sb3.PPO(
                "MlpPolicy", self.worlds, n_steps=8, batch_size=64, seed=0, use_sde=True,
                policy_kwargs={"net_arch": [], "squash_output": True},
            ),
            "sac_gsde": sb3.SAC(
                "MlpPolicy", self.worlds, learning_starts=8, train_freq=4, seed=0, use_sde=True,
                policy_kwargs={"net_arch": [16, 8], "clip_mean": 0.1},
            ),
        }  # fmt: skip
        self.normalizer = folder / "vecnormalize.pkl"
        for name, model in self.models.items():
            model.learn(64)
            model.save(folder / f"{name}.zip")
        self.worlds.save(str(self.normalizer))
        self.folder = folder


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Saved:
    return Saved(tmp_path_factory.mktemp("sb3"))


@pytest.mark.parametrize("name", ["ppo", "sac", "ppo_gsde", "ppo_squashed", "sac_gsde"])
def test_action_is_what_stable_baselines3_predicts(saved: Saved, env: VectorEnv, name: str):
    observation = np.random.default_rng(0).normal(
        0, 3, size=(200, env.observation_sizes["actor"])
    ).astype(np.float32)  # fmt: skip
    saved.worlds.training = False

    policy, origin = load_foreign(saved.folder / f"{name}.zip", env, normalizer=saved.normalizer)
    raw, _ = load_foreign(saved.folder / f"{name}.zip", env)

    for actor, seen in ((policy, saved.worlds.normalize_obs(observation)), (raw, observation)):
        expected, _ = saved.models[name].predict(seen, deterministic=True)
        with torch.no_grad():
            found = actor(torch.from_numpy(observation)).numpy()
        assert np.abs(expected).max() > 0.02
        np.testing.assert_allclose(found, expected, atol=2e-6)
    assert origin.env_steps == 64
    assert set(origin.versions) == {"stable-baselines3"}


def test_model_of_stable_baselines3_becomes_the_same_controller_and_contract(
    saved: Saved, tiny_run: RunFolder, policy_path: Path, tmp_path: Path
):
    path = tmp_path / "sb3.onnx"

    result = CliRunner().invoke(
        app,
        [
            *("export", str(saved.folder / "ppo.zip"), "-o", str(path)),
            *("--config", str(tiny_run.config_path), "--normalizer", str(saved.normalizer)),
        ],
    )

    assert result.exit_code == 0, result.stderr
    ours, theirs = read_policy(policy_path)[0], read_policy(path)[0]
    assert theirs.inputs == ours.inputs
    assert theirs.outputs == ours.outputs
    assert theirs.observation == ours.observation
    assert theirs.joints == ours.joints
    assert theirs.provenance.env_steps == 64
    assert "stable-baselines3" in theirs.provenance.versions


def test_model_whose_observation_is_changed_before_its_layers_is_refused(
    saved: Saved, env: VectorEnv, tmp_path: Path
):
    from stable_baselines3 import PPO
    from stable_baselines3.common.torch_layers import BaseFeaturesExtractor

    class Tenth(BaseFeaturesExtractor):  # without weights: nothing in the state dict tells
        def __init__(self, space: Any):
            super().__init__(space, space.shape[0])

        def forward(self, observations: Tensor) -> Tensor:
            return observations * 0.1

    model = PPO("MlpPolicy", saved.worlds, policy_kwargs={"features_extractor_class": Tenth})
    model.save(tmp_path / "tenth.zip")

    with pytest.raises(ConfigError, match=r"has a features extractor; expected an MlpPolicy"):
        load_foreign(tmp_path / "tenth.zip", env)


@pytest.mark.parametrize(
    ("entry", "changes", "problem"),
    [
        ("policy_class", {"__module__": "__main__"}, "its policy is of __main__, expected the Mlp"),
        (
            "policy_kwargs",
            {"activation_fn": "<class '__main__.ReLU'>"},
            "the activation \"<class '__main__.ReLU'>\" cannot be exported; those that can are",
        ),
        (
            "observation_space",
            {":type:": "<class 'gymnasium.spaces.dict.Dict'>"},
            "was trained on observations that are no vector, expected the [67] of this task; give",
        ),
        (
            "observation_space",
            {"_shape": "[3, 36, 36]"},
            "was trained on observations of [3, 36, 36] numbers, expected the [67] of this task; ",
        ),
        (
            "observation_space",
            {"_shape": "(268,)"},
            "was trained on observations of [268] numbers, expected the [67] of this task; frames "
            "that a wrapper stacks are not in the controller: let the task keep them "
            "(task_config.history) and train again",
        ),
        (
            "action_space",
            {"high": "[1. 1. 1. 1. 2.]"},
            "its actions are [5] from [-1. -1. -1. -1. -1.] to [1. 1. 1. 1. 2.], expected 5 from "
            "-1 to 1, which is what the environment takes; train it without a wrapper that changes",
        ),
        (
            "action_space",
            {":type:": "<class 'gymnasium.spaces.discrete.Discrete'>"},
            "its actions are a Discrete, expected 5 from -1 to 1, which is what the environment",
        ),
    ],
)
def test_archive_that_says_it_is_another_kind_of_policy_is_refused(
    saved: Saved,
    env: VectorEnv,
    tmp_path: Path,
    entry: str,
    changes: dict[str, str],
    problem: str,
):
    path = tmp_path / "changed.zip"
    with zipfile.ZipFile(saved.folder / "ppo.zip") as source, zipfile.ZipFile(path, "w") as changed:
        for name in source.namelist():
            content = source.read(name)
            if name == "data":
                data = json.loads(content)
                data[entry] |= changes
                content = json.dumps(data)
            changed.writestr(name, content)

    with pytest.raises(ConfigError) as error:
        load_foreign(path, env)

    assert str(error.value).startswith(f"{path}: {problem}")


def plain_actor(env: VectorEnv) -> nn.Sequential:
    torch.manual_seed(0)
    size = env.observation_sizes["actor"]
    return nn.Sequential(nn.Linear(size, 12), nn.ELU(), nn.Linear(12, env.num_actions))


@pytest.mark.parametrize("squash", ["clip", "tanh"])
def test_state_dict_of_a_plain_actor_is_taken(env: VectorEnv, tmp_path: Path, squash: Any):
    actor = plain_actor(env)
    torch.save(actor.state_dict(), tmp_path / "actor.pt")
    observation = torch.randn(50, env.observation_sizes["actor"]) * 5

    policy, _ = load_foreign(tmp_path / "actor.pt", env, activation="ELU", squash=squash)

    output = actor(observation)
    expected: Tensor = output.clamp(-1, 1) if squash == "clip" else output.tanh()
    torch.testing.assert_close(policy(observation), expected)


@pytest.mark.parametrize(
    ("name", "settings", "problem"),
    [
        ("actor.pt", {}, "does not say its activation; give --activation"),
        ("actor.pt", {"activation": "Relu"}, "'Relu' (did you mean 'ReLU'?) cannot be exported"),
        ("short.pt", {"activation": "ReLU"}, "does not take two observations of "),
        ("wide.pt", {"activation": "ReLU"}, "gives (99,) actions, this task takes ("),
        ("cleanrl.pt", {"activation": "ReLU"}, "linear layers alone, found actor_logstd"),
        ("damaged.pt", {"activation": "ReLU"}, "cannot be read as a state dict"),
        ("damaged.zip", {}, "cannot be read as a model of Stable-Baselines3"),
        ("actor.h5", {}, "expected a run's folder, a .zip of Stable-Baselines3 or a .pt"),
    ],
)
def test_model_that_does_not_fit_is_refused(
    env: VectorEnv, tmp_path: Path, name: str, settings: dict[str, Any], problem: str
):
    state, size = plain_actor(env).state_dict(), env.observation_sizes["actor"]
    states = {
        "actor": state,
        "short": nn.Sequential(nn.Linear(3, env.num_actions)).state_dict(),
        "wide": nn.Sequential(nn.Linear(size, 99)).state_dict(),
        "cleanrl": {"actor_logstd": torch.zeros(1, 6), **state},
    }
    for key, value in states.items():
        torch.save(value, tmp_path / f"{key}.pt")
    for suffix in ("pt", "zip"):
        (tmp_path / f"damaged.{suffix}").write_bytes(b"PK damaged")

    with pytest.raises(ConfigError) as error:
        load_foreign(tmp_path / name, env, **settings)

    assert str(error.value).startswith(f"{tmp_path / name}: ")
    assert problem in str(error.value)


class Exploit:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return print, ("executed",)


def test_normalizer_that_would_run_code_is_refused(
    env: VectorEnv, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    torch.save(plain_actor(env).state_dict(), tmp_path / "actor.pt")
    (tmp_path / "evil.pkl").write_bytes(pickle.dumps({"obs_rms": Exploit()}))

    with pytest.raises(ConfigError, match=r"evil.pkl: cannot be .*: it names builtins.print"):
        load_foreign(tmp_path / "actor.pt", env, activation="ELU", normalizer=tmp_path / "evil.pkl")
    assert "executed" not in capsys.readouterr().out


def test_model_without_its_task_is_refused(tmp_path: Path):
    result = CliRunner().invoke(app, ["export", str(tmp_path / "model.zip")])

    assert result.exit_code == 2
    assert "--config" in result.stderr
