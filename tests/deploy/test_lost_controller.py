"""A controller that is killed, stopped or hangs leaves every kind of robot in its safe state."""

import itertools
from concurrent.futures import ThreadPoolExecutor
from typing import get_args

import pytest

pytest.importorskip("mujoco", reason="the twin needs robotrl[train]")

from mcap.records import Message
from mcap.stream_reader import StreamReader

from tests.deploy.lost import Family, Fault, Trial, lose

FAMILIES: tuple[Family, ...] = get_args(Family)
FAULTS: tuple[Fault, ...] = ("kill -9", "SIGSTOP", "hang")
WATCHDOG_MS = 500
"""Patience for a machine that does something else meanwhile."""
GRACE_S = 0.2
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
    before = trial.seen.speed[trial.seen.time_s <= trial.fault_s][-500:]
    assert before.max() > 0.5
    assert trial.rest_s < trial.seen.time_s[-1] - trial.fault_s - 0.3  # 300 ms and more of rest


@every_loss
def test_safe_state_is_the_robots_own(trials: Trials, family: Family, fault: Fault):
    limp = family == "microcontroller"  # the balancer says torque_off, the arms hold
    assert trials[family, fault].seen.torque_on == [not limp] * (2 if limp else 6)


@every_loss
def test_companion_waits_for_the_end_of_the_controller_or_of_its_patience(
    trials: Trials, family: Family, fault: Fault
):
    acted_s = trials[family, fault].companion_s
    if fault == "kill -9":
        assert acted_s < WATCHDOG_MS / 1000
    else:  # its last promise was given in a tick before the fault, 20 ms ago at most
        assert acted_s > WATCHDOG_MS / 1000 + GRACE_S - 0.1


@every_loss
def test_log_is_complete_and_tells_what_the_companion_did(
    trials: Trials, family: Family, fault: Fault
):
    log = trials[family, fault].log
    with log.open("rb") as file:
        events = [
            record.data for record in StreamReader(file).records if isinstance(record, Message)
        ]
    last = next(data.decode() for data in reversed(events) if b'"vanished"' in data)
    assert "the companion has made the robot safe" in last
    assert ("it stood still, and was ended" in last) == (fault != "kill -9")
