"""Feetech's own SDK, unmodified, over the pseudo-terminal: the twin speaks their bytes."""

import importlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import scservo_sdk as sdk

from deploy.feetech import registers, scs_registers
from deploy.robot_config import RobotConfig
from tests.deploy.twin.conftest import RunServer
from tests.until import PATIENCE_S, until

OK = sdk.COMM_SUCCESS
DONE = (OK, 0)
PORT_HANDLER = importlib.import_module("scservo_sdk.port_handler")
"""Whose `LATENCY_TIMER` is what the SDK grants the adapter: 50 ms."""


@contextmanager
def driving(run: RunServer, config: RobotConfig, handler: type[Any]) -> Iterator[Any]:
    """The SDK's `handler` on a twin of `config`, with patience for a busy machine."""
    with run(config=config) as path, pytest.MonkeyPatch.context() as patch:
        patch.setattr(PORT_HANDLER, "LATENCY_TIMER", 1e3 * PATIENCE_S)
        port = sdk.PortHandler(path)
        assert port.openPort()
        assert port.setBaudRate(1_000_000)
        yield handler(port)
        port.closePort()


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Silence is expected, and waited for as long as the SDK does by itself."""
    monkeypatch.setattr(PORT_HANDLER, "LATENCY_TIMER", 50)


def speeds_to(servos: Any, id: int, goal: int) -> list[int]:
    """What a servo says on its way."""
    speeds = []

    def arrived() -> bool:
        speeds.append(servos.ReadSpeed(id)[0])
        return abs(servos.ReadPos(id)[0] - goal) <= 40

    until(arrived)
    return speeds


@pytest.fixture(scope="module")
def servos(running_server, feetech_config) -> Iterator[Any]:
    with driving(running_server, feetech_config, sdk.sms_sts) as handler:
        yield handler


def test_ping_says_the_model(servos: Any):
    assert servos.ping(1) == (777, OK, 0)
    assert servos.ping(2) == (777, OK, 0)


def test_nobody_else_answers(servos: Any, impatient: None):
    assert servos.ping(3)[1] == sdk.COMM_RX_TIMEOUT


def test_position_is_read_and_a_goal_is_followed(servos: Any):
    assert servos.write1ByteTxRx(1, registers.TORQUE_ENABLE.address, 1) == DONE
    assert servos.WritePosEx(1, 2248, 1500, 50) == DONE
    until(lambda: servos.ReadPos(1)[0] == pytest.approx(2248, abs=40))
    assert servos.ReadPos(1)[1:] == DONE
    assert servos.write1ByteTxRx(1, registers.TORQUE_ENABLE.address, 0) == DONE


def test_speed_has_their_sign(servos: Any):
    assert servos.write1ByteTxRx(2, registers.TORQUE_ENABLE.address, 1) == DONE

    def slowest() -> int:
        assert servos.WritePosEx(2, 2300, 0, 0) == DONE  # limp, it was anywhere
        speeds_to(servos, 2, 2300)
        assert servos.WritePosEx(2, 1700, 500, 0) == DONE  # for 1.2 s
        return min(speeds_to(servos, 2, 1700))

    until(lambda: slowest() < -200)
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


@pytest.fixture(scope="module")
def scs_servos(running_server, scs_config) -> Iterator[Any]:
    with driving(running_server, scs_config, sdk.scscl) as handler:
        yield handler


def test_scs_ping_says_the_model(scs_servos: Any):
    assert scs_servos.ping(1) == (1284, OK, 0)


def test_scs_nobody_else_answers(scs_servos: Any, impatient: None):
    assert scs_servos.ping(3)[1] == sdk.COMM_RX_TIMEOUT


def test_scs_position_is_read_and_a_goal_is_followed(scs_servos: Any):
    assert scs_servos.write1ByteTxRx(1, scs_registers.P_GAIN.address, 60) == DONE
    assert scs_servos.write1ByteTxRx(1, scs_registers.TORQUE_ENABLE.address, 1) == DONE
    assert scs_servos.WritePos(1, 600, 0, 800) == DONE
    until(lambda: scs_servos.ReadPos(1)[0] == pytest.approx(600, abs=8))
    assert scs_servos.ReadPos(1)[1:] == DONE
    assert scs_servos.write1ByteTxRx(1, scs_registers.TORQUE_ENABLE.address, 0) == DONE


def test_scs_goals_are_taken_from_a_sync_write(scs_servos: Any):
    for id, goal in ((1, 400), (2, 700)):
        assert scs_servos.SyncWritePos(id, goal, 0, 500)
    assert scs_servos.groupSyncWrite.txPacket() == OK
    goal = scs_registers.GOAL_POSITION.address
    assert [scs_servos.read2ByteTxRx(id, goal)[0] for id in (1, 2)] == [400, 700]


def test_scs_speed_has_their_sign(scs_servos: Any):
    assert scs_servos.write1ByteTxRx(2, scs_registers.TORQUE_ENABLE.address, 1) == DONE

    def slowest() -> int:
        assert scs_servos.WritePos(2, 600, 0, 1000) == DONE
        speeds_to(scs_servos, 2, 600)
        assert scs_servos.WritePos(2, 400, 0, 250) == DONE  # for 0.8 s
        return min(speeds_to(scs_servos, 2, 400))

    until(lambda: slowest() < -100)
    assert scs_servos.write1ByteTxRx(2, scs_registers.TORQUE_ENABLE.address, 0) == DONE


def test_scs_motor_turns_at_the_duty_it_is_given(scs_servos: Any):
    limits = scs_registers.MIN_POSITION_LIMIT.address
    before = scs_servos.readTxRx(1, limits, 4)[0]
    assert scs_servos.PWMMode(1) == DONE
    assert scs_servos.WritePWM(1, -400) == DONE
    assert scs_servos.write1ByteTxRx(1, scs_registers.TORQUE_ENABLE.address, 1) == DONE
    load = scs_registers.PRESENT_LOAD.address
    until(lambda: scs_servos.scs_tohost(scs_servos.read2ByteTxRx(1, load)[0], 10) == -400)
    assert scs_servos.write1ByteTxRx(1, scs_registers.TORQUE_ENABLE.address, 0) == DONE
    assert scs_servos.writeTxRx(1, limits, 4, before) == DONE


def test_scs_knows_no_sync_read(scs_servos: Any, impatient: None):
    group = sdk.GroupSyncRead(scs_servos, scs_registers.PRESENT_POSITION.address, 4)
    for id in (1, 2):
        group.addParam(id)
    assert group.txRxPacket() == sdk.COMM_RX_TIMEOUT


def test_scs_lock_opens_and_closes(scs_servos: Any):
    assert scs_servos.unLockEprom(1) == DONE
    assert scs_servos.read1ByteTxRx(1, scs_registers.LOCK.address) == (0, OK, 0)
    assert scs_servos.LockEprom(1) == DONE
