"""A controller that is killed, stopped or hangs leaves every kind of robot in its safe state."""

import itertools
import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, get_args

import pytest

pytest.importorskip("mujoco", reason="the twin needs robotrl[train]")

from mcap.reader import make_reader

from deploy.supervisor import GRACE_S
from tests.deploy.lost import Family, Fault, Trial, lose

FAMILIES: tuple[Family, ...] = get_args(Family)
FAULTS: tuple[Fault, ...] = ("kill -9", "SIGSTOP", "hang")
WATCHDOG_MS = 1000
"""Patience for a machine that does something else meanwhile."""
Trials = dict[tuple[Family, Fault], Trial]


@pytest.fixture(scope="module")
def trials(tmp_path_factory: pytest.TempPathFactory) -> Trials:
    """All of them, three at a time: they mostly wait."""
    pairs = list(itertools.product(FAMILIES, FAULTS))

    def run(pair: tuple[Family, Fault]) -> Trial:
        folder = tmp_path_factory.mktemp("lost")
        return lose(*pair, folder, watchdog_ms=WATCHDOG_MS)

    with ThreadPoolExecutor(3) as pool:
        return dict(zip(pairs, pool.map(run, pairs), strict=True))


every_loss = pytest.mark.parametrize(("family", "fault"), list(itertools.product(FAMILIES, FAULTS)))


@every_loss
def test_joints_that_were_moving_come_to_rest(trials: Trials, family: Family, fault: Fault):
    trial = trials[family, fault]
    assert trial.rest_s < trial.seen.time_s[-1] - trial.fault_s - 0.3  # 300 ms and more of rest


@every_loss
def test_safe_state_is_the_robots_own(trials: Trials, family: Family, fault: Fault):
    limp = family == "microcontroller"  # the balancer says torque_off, the arms hold
    assert trials[family, fault].seen.torque_on == [not limp] * (2 if limp else 6)


@every_loss
def test_companion_waits_for_the_end_of_the_controller_or_of_its_patience(
    trials: Trials, family: Family, fault: Fault
):
    *ticks, vanished = messages(trials[family, fault].log)
    assert "the companion has made the robot safe" in vanished["text"]
    stood_still = "it stood still, and was ended" in vanished["text"]
    assert stood_still == (fault != "kill -9")
    if stood_still:  # the promise before the last was given after the tick before the last
        before_s = [tick["time_s"] for tick in ticks if "overruns" in tick][-2]
        assert vanished["time_s"] > before_s + WATCHDOG_MS / 1000 + GRACE_S


def messages(log: Path) -> list[dict[str, Any]]:
    """All of a log, which is complete."""
    with log.open("rb") as file:
        return [json.loads(message.data) for *_, message in make_reader(file).iter_messages()]
