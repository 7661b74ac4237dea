"""A run's folder is written to by one run, and survives being killed at any moment."""

import re
from pathlib import Path
from typing import BinaryIO

import pytest
import torch

from deploy.errors import ConfigError
from robotrl.runs.run_folder import RunFolder
from robotrl.runs.train_config import TrainConfig


@pytest.fixture
def folder(tmp_path: Path, tiny_config: TrainConfig) -> RunFolder:
    folder = RunFolder(tmp_path / "runs" / "reach")
    folder.create(tiny_config)
    return folder


def test_configuration_is_kept_in_full(folder: RunFolder, tiny_config: TrainConfig):
    assert folder.config() == tiny_config
    assert folder.config().sha256 == tiny_config.sha256


def test_folder_of_another_run_is_refused_and_left_alone(
    folder: RunFolder, tiny_config: TrainConfig
):
    before = folder.config_path.read_text()

    with pytest.raises(ConfigError) as error:
        folder.create(tiny_config.model_copy(update={"seed": 7}))

    assert str(error.value) == (
        f"{folder.path} already holds a run; continue it with --resume, or choose another folder "
        "with --output"
    )
    assert folder.config_path.read_text() == before


def test_folder_without_a_run_is_refused(tmp_path: Path):
    with pytest.raises(ConfigError) as error:
        RunFolder(tmp_path).config()

    assert str(error.value) == (
        f"{tmp_path} is no training run (it has no config.yaml); give a folder that "
        "`robotrl train` wrote, such as runs/arm_reach"
    )


def test_run_without_a_checkpoint_is_refused(folder: RunFolder):
    with pytest.raises(ConfigError) as error:
        folder.load_checkpoint()

    assert str(error.value) == f"{folder.path} has no checkpoint.pt yet; train it first"


def test_checkpoint_comes_back_as_it_was(folder: RunFolder):
    folder.save_checkpoint({"weights": torch.arange(3.0), "iteration": 5})

    state = folder.load_checkpoint()

    assert torch.equal(state["weights"], torch.arange(3.0))
    assert state["iteration"] == 5


def test_kill_during_a_save_leaves_the_old_checkpoint_whole(
    folder: RunFolder, monkeypatch: pytest.MonkeyPatch
):
    folder.save_checkpoint({"iteration": 1})

    def die_half_way(state: object, file: BinaryIO) -> None:
        file.write(b"half a checkpoint")
        raise KeyboardInterrupt

    monkeypatch.setattr(torch, "save", die_half_way)
    with pytest.raises(KeyboardInterrupt):
        folder.save_checkpoint({"iteration": 2})

    assert folder.load_checkpoint() == {"iteration": 1}


@pytest.mark.parametrize("damage", [b"", b"half a checkpoint"])
def test_damaged_checkpoint_is_refused(folder: RunFolder, damage: bytes):
    folder.checkpoint_path.write_bytes(damage)

    with pytest.raises(ConfigError, match=f"^{re.escape(str(folder.checkpoint_path))}: cannot be"):
        folder.load_checkpoint()


def test_damaged_checkpoint_leads_to_the_best_policy_if_there_is_one(folder: RunFolder):
    folder.save_checkpoint({"iteration": 1})
    folder.checkpoint_path.write_bytes(folder.checkpoint_path.read_bytes()[:300])  # copied in part
    with pytest.raises(ConfigError) as alone:
        folder.load_checkpoint()
    folder.save_best({"iteration": 1})
    with pytest.raises(ConfigError) as beside:
        folder.load_checkpoint()

    assert "; expected what `robotrl train` wrote. " in str(alone.value)
    assert str(alone.value).endswith("Copy it again from where it came, or train again")
    assert str(beside.value).endswith(
        "best.pt beside it has the best policy: export it with --best, or go on from it in a new "
        f"run: robotrl train CONFIG --from {folder.path} --best"
    )


class Exploit:
    """An object that would run code when unpickled."""

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return print, ("executed",)


def test_checkpoint_cannot_execute_anything(folder: RunFolder, capsys: pytest.CaptureFixture[str]):
    folder.save_checkpoint({"iteration": Exploit()})

    with pytest.raises(ConfigError, match="cannot be read"):
        folder.load_checkpoint()
    assert capsys.readouterr().out == ""


def test_metrics_have_one_header_and_a_line_per_row(folder: RunFolder):
    folder.append_metrics({"env_steps": 32, "reward/mean": 0.5})
    folder.append_metrics({"env_steps": 64, "reward/mean": 0.25})

    assert folder.metrics_path.read_text().splitlines() == [
        "env_steps,reward/mean",
        "32,0.5",
        "64,0.25",
    ]


def test_rows_after_the_checkpoint_are_dropped(folder: RunFolder):
    for env_steps in (32, 64, 96):
        folder.append_metrics({"env_steps": env_steps, "reward/mean": env_steps / 7})

    folder.drop_rows_after(64)

    assert folder.metrics_path.read_text().splitlines() == [
        "env_steps,reward/mean",
        f"32,{32 / 7}",
        f"64,{64 / 7}",
    ]


def test_dropping_rows_of_a_run_without_metrics_is_fine(folder: RunFolder):
    folder.drop_rows_after(0)

    assert not folder.metrics_path.exists()


def test_row_cut_short_by_a_power_failure_is_dropped(folder: RunFolder):
    folder.append_metrics({"env_steps": 320, "reward/mean": 0.5})
    with folder.metrics_path.open("a") as file:
        file.write("64")  # of "640,0.25"

    folder.drop_rows_after(320)

    assert folder.metrics_path.read_text().splitlines() == ["env_steps,reward/mean", "320,0.5"]
