"""ROBOTIS' own dynamixel_sdk, unmodified, over the pseudo-terminal: the twin speaks their bytes."""

import importlib
from collections.abc import Iterator

import dynamixel_sdk as sdk
import pytest

from deploy.dynamixel import registers
from tests.until import PATIENCE_S, until

OK = sdk.COMM_SUCCESS
POSITION = registers.PRESENT_POSITION
GOAL = registers.GOAL_POSITION
PORT_HANDLER = importlib.import_module("dynamixel_sdk.port_handler")
"""Whose `LATENCY_TIMER`, twice, is what the SDK grants the adapter: 16 ms."""


@pytest.fixture(scope="module")
def port(running_server) -> Iterator[sdk.PortHandler]:
    """Open, with patience for a busy machine."""
    with running_server() as path, pytest.MonkeyPatch.context() as patch:
        patch.setattr(PORT_HANDLER, "LATENCY_TIMER", 1e3 * PATIENCE_S)
        handler = sdk.PortHandler(path)
        assert handler.openPort()
        assert handler.setBaudRate(1_000_000)
        yield handler
        handler.closePort()


@pytest.fixture
def packets() -> sdk.Protocol2PacketHandler:
    return sdk.PacketHandler(2.0)


def silent(port: sdk.PortHandler, packets: sdk.Protocol2PacketHandler, id: int) -> bool:
    """Nobody answers a ping within 0.2 s."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(PORT_HANDLER, "LATENCY_TIMER", 100)
        return packets.ping(port, id)[1] == sdk.COMM_RX_TIMEOUT


def test_ping(port, packets):
    assert packets.ping(port, 1) == (1060, OK, 0)
    assert packets.ping(port, 2) == (1200, OK, 0)
    assert silent(port, packets, 3)


def test_broadcast_ping(port, packets):
    def found() -> dict[int, int]:
        answers, result = packets.broadcastPing(port)
        assert result == OK
        return {id: model for id, (model, _) in answers.items()}

    until(lambda: found() == {1: 1060, 2: 1200})


def test_read_and_write_one_byte(port, packets):
    address = registers.LED.address
    assert packets.write1ByteTxRx(port, 1, address, 1) == (OK, 0)
    assert packets.read1ByteTxRx(port, 1, address) == (1, OK, 0)


def test_read_and_write_two_bytes(port, packets):
    address = registers.POSITION_P_GAIN.address
    assert packets.write2ByteTxRx(port, 2, address, 1500) == (OK, 0)
    assert packets.read2ByteTxRx(port, 2, address) == (1500, OK, 0)


def test_read_and_write_four_bytes(port, packets):
    address = registers.PROFILE_VELOCITY.address
    assert packets.write4ByteTxRx(port, 2, address, 300) == (OK, 0)
    assert packets.read4ByteTxRx(port, 2, address) == (300, OK, 0)
    assert packets.write4ByteTxRx(port, 2, address, 0) == (OK, 0)


def test_refusal_has_a_text_of_the_vendor(port, packets):
    result, error = packets.write4ByteTxRx(port, 1, GOAL.address, 5000)
    assert result == OK
    assert "limit" in packets.getRxPacketError(error)


def test_data_that_looks_like_a_header_is_stuffed_both_ways(port, packets):
    register = registers.HOMING_OFFSET
    offset = list(register.encode(-131_073))
    assert offset == [0xFF, 0xFF, 0xFD, 0xFF]
    assert packets.writeTxRx(port, 1, register.address, 4, offset) == (OK, 0)
    assert packets.readTxRx(port, 1, register.address, 4) == (offset, OK, 0)
    assert packets.write4ByteTxRx(port, 1, register.address, 0) == (OK, 0)


def test_fast_sync_read_gives_what_sync_read_gives(port, packets):
    reader = sdk.GroupSyncRead(port, packets, registers.MODEL_NUMBER.address, 2)
    for id in (2, 1):
        assert reader.addParam(id)
    assert reader.fastSyncRead() == OK
    assert [reader.getData(id, registers.MODEL_NUMBER.address, 2) for id in (1, 2)] == [1060, 1200]


def test_damaged_request_is_refused_with_the_vendors_crc_text(port, packets):
    packet = [0xFF, 0xFF, 0xFD, 0x00, 1, 3, 0, sdk.INST_PING, 0, 0]  # its CRC is 0x4E19
    port.clearPort()
    port.writePort(packet)
    port.setPacketTimeoutMillis(1e3 * PATIENCE_S)
    reply, result = packets.rxPacket(port, False)
    assert result == OK
    assert packets.getRxPacketError(reply[8]) == packets.getRxPacketError(3)
    assert "CRC" in packets.getRxPacketError(3)


@pytest.mark.parametrize("baud_rate", [57600, 115_200, 2_000_000])
def test_wrong_baud_rate_is_silence(port, packets, baud_rate):
    try:
        assert port.setBaudRate(baud_rate)
        assert silent(port, packets, 1)
    finally:
        assert port.setBaudRate(1_000_000)
    assert packets.ping(port, 1)[1] == OK


def test_servo_follows_its_baud_rate_register_after_the_status(port, packets):
    assert packets.write1ByteTxRx(port, 1, registers.BAUD_RATE.address, 4) == (OK, 0)
    assert silent(port, packets, 1)
    assert port.setBaudRate(2_000_000)
    assert packets.write1ByteTxRx(port, 1, registers.BAUD_RATE.address, 3) == (OK, 0)
    assert port.setBaudRate(1_000_000)
    assert packets.ping(port, 1)[1] == OK


def test_rebooting_servo_is_silent_until_it_is_up(port, packets):
    until(lambda: packets.reboot(port, 2) == (OK, 0) and silent(port, packets, 2))
    until(lambda: not silent(port, packets, 2))


def test_clear_multi_turn_of_the_sdk_is_understood(port, packets):
    assert packets.clearMultiTurn(port, 1) == (OK, 0)


def test_gripper_is_set_up_as_lerobot_does_it(port, packets):
    """Mode 5 with a low goal current, reversed: a Koch leader's gripper (lerobot, koch_leader)."""
    for register, value in (
        (registers.TORQUE_ENABLE, 0),
        (registers.DRIVE_MODE, 1),
        (registers.OPERATING_MODE, registers.OperatingMode.CURRENT_BASED_POSITION),
    ):
        assert packets.write1ByteTxRx(port, 2, register.address, value) == (OK, 0)
    position, _, _ = packets.read4ByteTxRx(port, 2, POSITION.address)
    assert packets.write2ByteTxRx(port, 2, registers.GOAL_CURRENT.address, 100) == (OK, 0)
    assert packets.write4ByteTxRx(port, 2, GOAL.address, position) == (OK, 0)
    assert packets.write1ByteTxRx(port, 2, registers.TORQUE_ENABLE.address, 1) == (OK, 0)
    for register, value in (
        (registers.TORQUE_ENABLE, 0),
        (registers.DRIVE_MODE, 0),
        (registers.OPERATING_MODE, registers.OperatingMode.POSITION),
    ):
        assert packets.write1ByteTxRx(port, 2, register.address, value) == (OK, 0)


def test_sync_write_moves_both_joints_and_sync_read_sees_them_arrive(port, packets):
    for id in (1, 2):
        assert packets.write1ByteTxRx(port, id, registers.TORQUE_ENABLE.address, 1) == (OK, 0)
    writer = sdk.GroupSyncWrite(port, packets, GOAL.address, GOAL.size)
    goals = {1: 2300, 2: 1700}
    for id, ticks in goals.items():
        assert writer.addParam(id, list(GOAL.encode(ticks)))
    assert writer.txPacket() == OK

    reader = sdk.GroupSyncRead(port, packets, POSITION.address, POSITION.size)
    for id in goals:
        assert reader.addParam(id)

    def arrived() -> bool:
        assert reader.txRxPacket() == OK
        positions = {id: reader.getData(id, POSITION.address, POSITION.size) for id in goals}
        return positions == pytest.approx(goals, abs=25)

    until(arrived)
