"""The line of a training on a terminal fits 80 columns, whatever the task measures."""

import io
import logging
import re
from pathlib import Path

import pytest
from rich.console import Console

import robotrl.runs.progress
from robotrl.runs.progress import _short, train_with_progress
from robotrl.runs.run_folder import RunFolder
from robotrl.runs.train_config import TrainConfig


@pytest.mark.parametrize("width", [80, 60, 200])
def test_progress_line_fits_the_terminal(
    tmp_path: Path, tiny_config: TrainConfig, monkeypatch: pytest.MonkeyPatch, width: int
):
    metrics = {
        "env_steps": 123_456_789.0,
        "reward/mean": -1.23456e-5,
        "velocity_error_m_per_s": 0.123456789,
        "joint_torque_rms_nm": 12.3456789,
        "diverged": 12.0,
        "speed/env_steps_per_s": 123456.789,
    }

    def train(*arguments: object, progress: object, **settings: object) -> bool:
        assert callable(progress)
        progress(metrics)
        return True

    monkeypatch.setattr(robotrl.runs.progress, "train", train)
    shown = io.StringIO()
    console = Console(file=shown, width=width, force_terminal=True, soft_wrap=True)
    config = tiny_config.model_copy(update={"env_steps": 3_000_000_000})
    train_with_progress(config, RunFolder(tmp_path / "a_robot_with_a_long_name"), console)

    lines = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", shown.getvalue()).replace("\r", "\n").split("\n")
    line = next(line for line in lines if "123M/3G" in line)
    assert max(len(line) for line in lines) <= width
    assert "123k/s" in line
    assert ("velocity_error_m_per_s 0.123" in line) == (width == 200)


def test_what_learners_tell_is_shown_while_they_train_and_not_after(
    tmp_path: Path, tiny_config: TrainConfig, monkeypatch: pytest.MonkeyPatch
):
    log = logging.getLogger("robotrl.algorithms.any")

    def train(*arguments: object, **settings: object) -> bool:
        log.info("compiling [all]")
        return True

    monkeypatch.setattr(robotrl.runs.progress, "train", train)
    shown = io.StringIO()
    train_with_progress(tiny_config, RunFolder(tmp_path / "run"), Console(file=shown))
    log.info("too late")

    assert shown.getvalue() == "compiling [all]\n"
    assert not log.isEnabledFor(logging.INFO)


@pytest.mark.parametrize(
    ("number", "text"), [(999, "999"), (14_236, "14.2k"), (3_250_000, "3.25M"), (2e9, "2G")]
)
def test_numbers_are_short(number: float, text: str):
    assert _short(number) == text
