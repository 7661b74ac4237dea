"""Torque comes on, and watchdogs with it, on a cable that loses replies; nothing trips by that."""

from pathlib import Path

import pytest

from deploy.dynamixel import protocol, registers
from deploy.errors import ServoError
from deploy.twin.faults import Fault, FaultScript
from tests.deploy.conftest import Bench
from tests.deploy.faulty_arm import FaultyArm


@pytest.mark.parametrize("at_ms", range(6, 18))
def test_two_replies_in_a_row_are_lost_while_watchdogs_are_switched_on(at_ms: int, tmp_path: Path):
    # The third attempt comes 110 ms after the first, and as long again is waited for late replies;
    # the watchdogs trip after 100 ms of silence.
    lost = Fault(kind="drop", at_s=at_ms / 1000, replies=2)
    arm = FaultyArm("DYNAMIXEL", tmp_path, FaultScript(faults=[lost]))
    assert arm.run() is None
    assert arm.monitor.violations == []


def lose_requests_to_arm(bench: Bench, count: int) -> None:
    """The first so many do not arrive; nobody answers them either."""
    send, lost = bench.port.write, []

    def write(data: bytes | bytearray | memoryview) -> None:
        arms = data[7] == protocol.Instruction.SYNC_WRITE and (
            data[8] == registers.BUS_WATCHDOG.address
        )
        if arms and len(lost) < count:
            lost.append(bytes(data))
        else:
            send(data)

    bench.port.write = write


def test_request_to_arm_that_is_lost_is_sent_again(bench: Bench):
    bench.robot.connect()
    lose_requests_to_arm(bench, 2)
    bench.robot.energise()
    assert {bench.get(joint, registers.BUS_WATCHDOG) for joint in bench.twin.joints} == {5}


def test_servos_that_do_not_arm_are_refused(bench: Bench):
    bench.robot.connect()
    lose_requests_to_arm(bench, 1000)
    with pytest.raises(ServoError, match=r"Bus Watchdog \(98\) reads .*'gripper': 0.* expected 5"):
        bench.robot.energise()
