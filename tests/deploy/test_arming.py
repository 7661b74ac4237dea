"""Torque comes on, and watchdogs with it, on a cable that loses replies; nothing trips by that."""

from pathlib import Path

import pytest

from deploy.twin.faults import Fault, FaultScript
from tests.deploy.faulty_arm import FaultyArm


@pytest.mark.parametrize("at_ms", range(6, 18))
def test_two_replies_in_a_row_are_lost_while_watchdogs_are_switched_on(at_ms: int, tmp_path: Path):
    # The third attempt comes 110 ms after the first, and as long again is waited for late replies;
    # the watchdogs trip after 100 ms of silence.
    lost = Fault(kind="drop", at_s=at_ms / 1000, replies=2)
    arm = FaultyArm("DYNAMIXEL", tmp_path, FaultScript(faults=[lost]))
    assert arm.run() is None
    assert arm.monitor.violations == []
