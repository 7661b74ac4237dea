"""Feetech's own SDK, unmodified, over the pseudo-terminal: the twin speaks their bytes."""

import time
from collections.abc import Iterator
from typing import Any

import pytest
import scservo_sdk as sdk

from deploy.feetech import registers

OK = sdk.COMM_SUCCESS
DONE = (OK, 0)


@pytest.fixture(scope="module")
def servos(running_server, feetech_config) -> Iterator[Any]:
    with running_server(config=feetech_config) as path:
        port = sdk.PortHandler(path)
        assert port.openPort()
        assert port.setBaudRate(1_000_000)
        yield sdk.sms_sts(port)
        port.closePort()


def test_ping_says_the_model(servos: Any):
    assert servos.ping(1) == (777, OK, 0)
    assert servos.ping(2) == (777, OK, 0)
    assert servos.ping(3)[1] == sdk.COMM_RX_TIMEOUT


def test_position_is_read_and_a_goal_is_followed(servos: Any):
    assert servos.write1ByteTxRx(1, registers.TORQUE_ENABLE.address, 1) == DONE
    assert servos.WritePosEx(1, 2248, 1500, 50) == DONE
    time.sleep(1.0)
    ticks, result, error = servos.ReadPos(1)
    assert (result, error) == DONE
    assert ticks == pytest.approx(2248, abs=40)
    assert servos.write1ByteTxRx(1, registers.TORQUE_ENABLE.address, 0) == DONE


def test_speed_has_their_sign(servos: Any):
    assert servos.write1ByteTxRx(2, registers.TORQUE_ENABLE.address, 1) == DONE
    assert servos.WritePosEx(2, 2300, 0, 0) == DONE  # limp, it was anywhere
    time.sleep(1.0)
    assert servos.WritePosEx(2, 1700, 0, 0) == DONE
    speeds = [servos.ReadSpeed(2)[0] for _ in range(40)]
    assert min(speeds) < -200
    assert servos.write1ByteTxRx(2, registers.TORQUE_ENABLE.address, 0) == DONE


def test_sync_read_brings_all_servos(servos: Any):
    group = sdk.GroupSyncRead(servos, registers.PRESENT_POSITION.address, 15)
    for id in (1, 2):
        group.addParam(id)
    assert group.txRxPacket() == OK
    for id in (1, 2):
        assert group.isAvailable(id, registers.PRESENT_POSITION.address, 2) == (True, 0)
        volts = group.getData(id, registers.PRESENT_VOLTAGE.address, 1)
        assert volts == 120


def test_what_is_held_back_waits_for_the_action(servos: Any):
    goal = registers.GOAL_POSITION.address
    before = servos.read2ByteTxRx(1, goal)[0]
    assert servos.RegWritePosEx(1, 2100, 0, 0) == DONE
    assert servos.read2ByteTxRx(1, goal)[0] == before
    servos.RegAction()
    assert servos.read2ByteTxRx(1, goal) == (2100, OK, 0)


def test_lock_opens_and_closes(servos: Any):
    assert servos.unLockEprom(1) == DONE
    assert servos.read1ByteTxRx(1, registers.LOCK.address) == (0, OK, 0)
    assert servos.LockEprom(1) == DONE
