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
from tests.deploy.lost import Family, Fault, SpoiltError, Trial, lose

FAMILIES: tuple[Family, ...] = get_args(Family)
FAULTS: tuple[Fault, ...] = ("kill -9", "SIGSTOP", "hang")
WATCHDOG_MS = 1000
"""Patience for a machine that does something else meanwhile."""
Trials = dict[tuple[Family, Fault], Trial | SpoiltError]


@pytest.fixture(scope="module")
def trials(tmp_path_factory: pytest.TempPathFactory) -> Trials:
    """All of them, two at a time: they mostly wait."""
    pairs = list(itertools.product(FAMILIES, FAULTS))

    def run(pair: tuple[Family, Fault]) -> Trial | SpoiltError:
        folder = tmp_path_factory.mktemp("lost")
        try:
            return lose(*pair, folder, watchdog_ms=WATCHDOG_MS)
        except SpoiltError as error:
            return error

    with ThreadPoolExecutor(2) as pool:
        return dict(zip(pairs, pool.map(run, pairs), strict=True))


@pytest.fixture
def trial(trials: Trials, family: Family, fault: Fault) -> Trial:
    found = trials[family, fault]
    if isinstance(found, SpoiltError):
        pytest.skip(str(found))
    return found


every_loss = pytest.mark.parametrize(("family", "fault"), list(itertools.product(FAMILIES, FAULTS)))


@every_loss
def test_joints_that_were_moving_come_to_rest(trial: Trial):
    assert trial.rest_s < trial.seen.time_s[-1] - trial.fault_s - 0.3  # 300 ms and more of rest


@every_loss
def test_safe_state_is_the_robots_own(trial: Trial, family: Family):
    limp = family == "microcontroller"  # the balancer says torque_off, the arms hold
    assert trial.seen.torque_on == [not limp] * (2 if limp else 6)


@every_loss
def test_companion_waits_for_the_end_of_the_controller_or_of_its_patience(
    trial: Trial, fault: Fault
):
    *ticks, vanished = messages(trial.log)
    assert "the companion has made the robot safe" in vanished["text"]
    stood_still = "it stood still, and was ended" in vanished["text"]
    assert stood_still == (fault != "kill -9")
    if stood_still:  # the promise before the last was given after the tick before the last
        before_s = [tick["time_s"] for tick in ticks if "overruns" in tick][-2]
        assert vanished["time_s"] > before_s + WATCHDOG_MS / 1000 + GRACE_S


def test_controller_that_spins_before_all_others_is_ended_on_a_lone_core(tmp_path: Path):
    """Where SCHED_FIFO is allowed: the companion comes before it, or never."""
    try:
        trial = lose("feetech_sts", "hang", tmp_path, watchdog_ms=WATCHDOG_MS, lone_core=True)
    except SpoiltError as error:
        pytest.skip(str(error))
    assert "it stood still, and was ended" in [*messages(trial.log)][-1]["text"]


def messages(log: Path) -> list[dict[str, Any]]:
    """All of a log, which is complete."""
    with log.open("rb") as file:
        return [json.loads(message.data) for *_, message in make_reader(file).iter_messages()]
