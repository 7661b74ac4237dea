"""TensorBoard has what the tables have, and Weights & Biases gets it where it is asked for."""

import importlib.machinery
import importlib.util
import sys
import types
from pathlib import Path
from typing import Any

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from deploy.configuration import validate
from deploy.errors import ConfigError
from robotrl.runs.run_folder import RunFolder
from robotrl.runs.train import rehearse, train
from robotrl.runs.train_config import TrainConfig
from tests.robotrl.runs.test_train import finish


def test_tensorboard_has_every_number_of_the_tables_and_the_configuration(
    tiny_config: TrainConfig, tmp_path: Path
):
    algorithm = tiny_config.algorithm.model_copy(update={"rollout_steps": 40})  # episodes end
    config = tiny_config.model_copy(update={"env_steps": 2 * 320, "algorithm": algorithm})
    run = finish(config, tmp_path / "run")

    board = EventAccumulator(str(run.path)).Reload()

    for rows, prefix in ((run.metrics(), ""), (run.evaluations(), "evaluation/")):
        for name in rows[0]:
            shown = {event.step: event.value for event in board.Scalars(prefix + name)}
            written = {int(float(row["env_steps"])): float(row[name]) for row in rows}
            assert shown == pytest.approx(written, rel=1e-6, nan_ok=True), name
    episodes = {"episode/return", "episode/length", "evaluation/return", "evaluation/length"}
    assert episodes <= set(board.Tags()["scalars"])
    assert board.Scalars("episode/length")[-1].value == 30  # 0.6 s
    text = board.Tensors("configuration/text_summary")[0].tensor_proto.string_val[0].decode()
    assert text.strip() == run.config_path.read_text().strip().replace("\n", "\n    ")


class FakeRun:
    def __init__(self, **settings: Any):
        self.settings, self.logged, self.finished = settings, [], False

    def define_metric(self, name: str, *, step_metric: str) -> None:
        assert (name, step_metric) == ("*", "env_steps")

    def log(self, values: dict[str, float]) -> None:
        self.logged.append(values)

    def finish(self) -> None:
        self.finished = True


@pytest.fixture
def wandb(monkeypatch: pytest.MonkeyPatch) -> list[FakeRun]:
    """The runs that were opened; `pip install wandb` is checked by hand (WANDB_MODE=offline)."""
    module: Any = types.ModuleType("wandb")
    module.__spec__ = importlib.machinery.ModuleSpec("wandb", None)
    runs: list[FakeRun] = []

    def init(**settings: Any) -> FakeRun:
        if settings["project"] == "closed":
            raise module.Error("no API key configured")
        runs.append(FakeRun(**settings))
        return runs[-1]

    module.init, module.Error = init, type("Error", (Exception,), {})
    monkeypatch.setitem(sys.modules, "wandb", module)
    return runs


def logged_to(project: str, config: TrainConfig) -> TrainConfig:
    document = {**config.model_dump(mode="json"), "logging": {"wandb": project}}
    return validate(document, TrainConfig, source="test")


def test_weights_and_biases_gets_what_is_written_and_a_resumed_run_goes_on(
    tiny_config: TrainConfig, tmp_path: Path, wandb: list[FakeRun]
):
    config = logged_to("arm", tiny_config)
    folder = finish(config, tmp_path / "run")
    train(config.model_copy(update={"env_steps": 128}), folder, resume=True)

    first, second = wandb
    assert first.settings["project"] == "arm"
    assert first.settings["name"] == "run"
    assert first.settings["config"]["algorithm"]["rollout_steps"] == 4
    assert first.settings["id"] == second.settings["id"]
    assert second.settings["resume"] == "allow"
    assert first.finished and second.finished
    metrics = [row for row in first.logged if "reward/mean" in row]
    assert [row["env_steps"] for row in metrics] == [32, 64, 96]
    assert [row["env_steps"] for row in second.logged if "reward/mean" in row] == [128]
    assert metrics[1]["reward/mean"] == float(folder.metrics()[1]["reward/mean"])
    evaluated = [row for row in first.logged if "evaluation/return" in row]
    assert evaluated[-1]["evaluation/return"] == folder.evaluations()[0]["return"]


def test_weights_and_biases_that_cannot_be_opened_is_explained(
    tiny_config: TrainConfig, tmp_path: Path, wandb: list[FakeRun]
):
    with pytest.raises(ConfigError, match="'closed' cannot be opened: no API key configured; `wan"):
        finish(logged_to("closed", tiny_config), tmp_path / "run")


def test_weights_and_biases_that_is_not_installed_is_refused_before_anything_is_made(
    tiny_config: TrainConfig, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setitem(sys.modules, "wandb", None)
    find = importlib.util.find_spec
    monkeypatch.setattr(
        "importlib.util.find_spec", lambda name: None if name == "wandb" else find(name)
    )

    with pytest.raises(ConfigError, match=r"new.yaml: logging.wandb: 'arm' needs Weights & Bias"):
        rehearse(logged_to("arm", tiny_config), source=Path("new.yaml"))


def test_a_run_without_it_opens_none(
    tiny_config: TrainConfig, tmp_path: Path, wandb: list[FakeRun]
):
    folder = RunFolder(tmp_path / "run")
    folder.create(tiny_config)
    train(tiny_config, folder)

    assert wandb == []
