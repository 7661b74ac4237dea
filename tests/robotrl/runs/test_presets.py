"""Presets: a name in a configuration stands for the terms of a file."""

from pathlib import Path

import mujoco
import pytest
import torch

import envs
from deploy.errors import ConfigError
from envs.batch_simulation import BatchSimulation
from envs.draws import Draws
from envs.randomization import Randomization
from robotrl.runs.presets import load_preset
from robotrl.runs.train_config import TrainConfig, load_train_config
from robotrl.shipped import config_path
from tests.envs.randomization.worlds import WALKER

NAMES = sorted(path.stem for path in config_path("randomization").glob("*.yaml"))


def config(tmp_path: Path, randomization: str) -> TrainConfig:
    path = tmp_path / "train.yaml"
    path.write_text(f"task: arm_reach\nrandomization: {randomization}\n")
    return load_train_config(path, [])


def test_preset_stands_for_its_terms_in_its_place(tmp_path: Path):
    terms = config(
        tmp_path, "[{field: kd, range: [1, 2]}, {preset: servo_arm}, {field: kp, range: [1, 2]}]"
    ).terms

    preset = load_preset("servo_arm")
    assert len(preset) >= 8
    assert terms[1:-1] == preset
    assert [terms[0].target, terms[-1].target] == ["kd", "kp"]


def test_resolved_configuration_holds_the_terms_and_reads_as_the_same(tmp_path: Path):
    resolved = config(tmp_path, "[{preset: servo_arm}]")

    again = TrainConfig.model_validate(resolved.model_dump(mode="json"))

    assert again == resolved
    assert again.sha256 == resolved.sha256
    assert "preset" not in str(resolved.model_dump()["randomization"])


def test_unknown_preset_is_refused_with_the_nearest_name(tmp_path: Path):
    with pytest.raises(ConfigError) as error:
        config(tmp_path, "[{preset: servo_arms}]")
    assert "unknown preset 'servo_arms' (did you mean 'servo_arm'?); there are " in str(error.value)


def test_line_of_no_kind_is_refused_with_what_there_is(tmp_path: Path):
    with pytest.raises(ConfigError) as error:
        config(tmp_path, "[{field: mass, range: [1, 2]}, {presets: servo_arm}]")
    text = str(error.value)
    assert "randomization.1: a term has one of the keys field, fields, inertia, payload" in text
    assert "command, which tells what it is; or it is a `preset`, found {'presets'" in text


def test_mistake_in_a_term_is_named_by_its_key_without_the_kind(tmp_path: Path):
    with pytest.raises(ConfigError) as error:
        config(tmp_path, "[{supply: '*', rnge: [1, 2], schedule: {over_step: 5}}]")
    problems = [line.partition("train.yaml: ")[2] for line in str(error.value).splitlines()]
    assert sorted(problems) == [
        "randomization.0.range: field required",
        "randomization.0.schedule.over_steps: field required",
        "randomization.0.schedule: unknown key 'over_step' (did you mean 'over_steps'?); valid "
        "keys are over_steps, start",
        "randomization.0: unknown key 'rnge' (did you mean 'range'?); valid keys are adapt, "
        "distribution, interval_s, range, schedule, supply, when",
    ]


@pytest.mark.parametrize("name", NAMES)
def test_preset_says_what_it_is_for(name: str):
    text = (config_path("randomization") / f"{name}.yaml").read_text()

    assert text.startswith("# ")
    assert f"randomization: [{{preset: {name}}}, ...]" in text


def test_servo_arm_is_for_the_shipped_arm():
    env = envs.make("arm_reach", num_envs=2, num_threads=1, randomization=load_preset("servo_arm"))
    env.reset()


def test_floating_base_is_for_a_robot_on_a_free_base():
    simulation = BatchSimulation(mujoco.MjModel.from_xml_string(WALKER), 2, num_threads=1)
    Randomization(load_preset("floating_base"), simulation, Draws(0, torch.device("cpu")),
                  signals={}, control_dt_s=0.02)  # fmt: skip
