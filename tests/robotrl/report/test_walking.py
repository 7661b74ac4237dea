"""The report of a walk: a made-up log, and a made-up truth beside it."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("matplotlib", reason="reports need robotrl[train]")

from deploy.configuration import load_yaml
from deploy.controller import read_policy
from deploy.errors import ConfigError
from deploy.recorder import Recorder, record_dtype
from deploy.robot_config import RobotConfig
from deploy.runtime import State
from robotrl.report.log import Log
from robotrl.report.page import write_report
from robotrl.report.walking import _plot_effort, judge_walk, read_truth

DT_S = 0.02
TICKS = 400
JOINTS = ["knee", "ankle"]
SPEED = 0.2


@pytest.fixture(scope="module")
def log(policy_path: Path) -> Log:
    """A command of 0.2 m/s forward for 8 s; what its joints did is not looked at."""
    contract = read_policy(policy_path)[0]
    command = contract.command.model_copy(update={"name": "velocity", "site": ""})
    contract = contract.model_copy(update={"command": command, "robot": "microduck"})
    robot = load_yaml(Path("configs/robots/desk_arm.yaml"), RobotConfig)
    ticks = np.zeros(TICKS, record_dtype(contract))
    ticks["time_s"] = 50.0 + DT_S * np.arange(TICKS)
    ticks["state"] = State.RUNNING
    ticks["command"] = [SPEED, 0.0, 0.0]
    return Log(contract, robot, {name: ticks[name] for name in ticks.dtype.names or ()}, [])


def write_truth(path: Path, **changes: Any) -> Path:
    """A base that goes 0.18 m/s forward, upright, its first motor at ±0.3 N·m."""
    samples = 1000
    pose = np.tile([0.0, 0.0, 0.117, 1.0, 0.0, 0.0, 0.0], (samples, 1))
    torque = np.zeros((samples, 2))
    torque[:, 0] = 0.3 * (-1.0) ** np.arange(samples)
    columns: dict[str, Any] = {
        "time_s": 49.0 + 0.01 * np.arange(samples),
        "base_pose": pose,
        "base_velocity": np.tile([0.9 * SPEED, 0, 0, 0, 0, 0], (samples, 1)),
        "motor_torque": torque,
        "temperature_c": np.tile([40.0, 26.0], (samples, 1)),
        "joints": np.array(JOINTS),
        "parameters": np.array("{}"),
    }
    np.savez(path, **(columns | changes))
    return path


def test_walk_is_judged_by_the_true_base(log: Log, tmp_path: Path) -> None:
    truth = read_truth(log, write_truth(tmp_path / "truth.npz"))
    assert truth
    walk = judge_walk(log, truth)
    assert walk.share == pytest.approx(0.9)
    assert walk.falls == 0
    assert walk.torque_rms_nm == pytest.approx({"knee": 0.3, "ankle": 0.0})
    assert walk.temperature_c == {"knee": 40.0, "ankle": 26.0}
    assert walk.passed
    assert "0 falls, 90% of the speed" in walk.summary()


def test_walk_with_a_fall_does_not_pass(log: Log, tmp_path: Path) -> None:
    pose = np.tile([0.0, 0.0, 0.117, 1.0, 0.0, 0.0, 0.0], (1000, 1))
    pose[500:, 2] = 0.03
    truth = read_truth(log, write_truth(tmp_path / "truth.npz", base_pose=pose))
    assert truth
    walk = judge_walk(log, truth)
    assert walk.falls == 1
    assert not walk.passed
    assert ", fell" in next(iter(walk.rows().values()))


def test_walk_that_is_too_slow_does_not_pass(log: Log, tmp_path: Path) -> None:
    slow = np.tile([0.7 * SPEED, 0, 0, 0, 0, 0], (1000, 1))
    truth = read_truth(log, write_truth(tmp_path / "truth.npz", base_velocity=slow))
    assert truth
    assert not judge_walk(log, truth).passed


def test_truth_of_a_robot_on_a_table_is_none_of_a_walk(log: Log, tmp_path: Path) -> None:
    np.savez(tmp_path / "truth.npz", time_s=np.zeros(1))
    assert read_truth(log, tmp_path / "truth.npz") is None


def test_truth_of_another_run_is_refused(log: Log, tmp_path: Path) -> None:
    other = write_truth(tmp_path / "truth.npz", time_s=0.01 * np.arange(1000))
    with pytest.raises(ConfigError, match="belongs to another run"):
        read_truth(log, other)


def test_page_tells_each_command_and_each_joint(log: Log, tmp_path: Path) -> None:
    path = tmp_path / "run.mcap"
    with Recorder(path, log.contract, {"robot": log.robot.model_dump_json()}) as recorder:
        for row in range(TICKS):
            for name, values in log.ticks.items():
                recorder.record[name] = values[row]
            recorder.commit()
    page = tmp_path / "report.html"
    verdict = write_report(path, page, write_truth(tmp_path / "truth.npz"))
    assert verdict.walk
    text = page.read_text()
    for words in ("+0.20 m/s forward", "+0.18 m/s forward", "0.300 N·m rms, 40 °C"):
        assert words in text
    for plot in ("Speed: asked for and achieved", "Tilt of the base", "Torque and temperature"):
        assert f"<h2>{plot}</h2>" in text


def test_walk_shorter_than_the_window_of_its_plots_is_drawn() -> None:
    figure = _plot_effort(0.02 * np.arange(6.0), np.ones((6, 1)), 25 * np.ones((6, 1)), ["knee"])
    (line,) = figure.axes[0].lines
    assert len(np.asarray(line.get_ydata())) == 6
