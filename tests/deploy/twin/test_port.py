"""Our own bus on a twin, in virtual time."""

import numpy as np
import pytest

from deploy.clock import VirtualClock
from deploy.dynamixel import protocol, registers
from deploy.dynamixel.bus import DynamixelBus
from deploy.dynamixel.sync import SyncRead, SyncWrite
from deploy.errors import ServoError
from deploy.twin.port import VirtualPort


@pytest.fixture
def bus(port) -> DynamixelBus:
    return DynamixelBus(port, 1_000_000)


def test_clock_never_runs_backwards():
    clock = VirtualClock(5.0)
    clock.sleep_until(4.0)
    assert clock.now() == 5.0


def test_read_returns_at_the_deadline_with_nothing(port, clock):
    assert port.read_into(memoryview(bytearray(8)), 0.25) == 0
    assert clock.now() == 0.25


def test_bus_finds_the_servos(bus):
    assert {id: model for id, (model, _) in bus.scan(range(4)).items()} == {1: 1060, 2: 1200}


def test_refusal_arrives_as_an_error(bus):
    bus.write(1, registers.TORQUE_ENABLE, 1)
    with pytest.raises(ServoError, match="switch torque off"):
        bus.write(1, registers.RETURN_DELAY_TIME, 0)


@pytest.mark.parametrize("fast", [True, False])
def test_tick_moves_a_joint(bus, clock, twin, fast):
    for id in (1, 2):
        bus.write_verified(id, registers.RETURN_DELAY_TIME, 0)
        bus.write_verified(id, registers.GOAL_POSITION, bus.read(id, registers.PRESENT_POSITION))
        bus.write_verified(id, registers.TORQUE_ENABLE, 1)
    feedback = SyncRead(bus, [1, 2], 124, 12, fast=fast)
    targets = SyncWrite(bus, [1, 2], registers.GOAL_POSITION)
    begin_s = clock.now()
    for tick in range(1, 51):
        assert feedback.read(clock.now() + 0.008) == 2
        targets.write(np.array([2300, 1800], np.int32))
        clock.sleep_until(begin_s + tick * 0.02)

    positions = feedback.data[:, 8:].copy().view("<i4")[:, 0]
    assert positions == pytest.approx([2300, 1800], abs=20)
    assert bus.statistics.timeouts == 0
    # 252 counts forward; 200 counts down from 2000 with direction -1
    assert twin.joint_position == pytest.approx([0.387, 0.307], abs=0.03)


def test_sync_read_takes_as_long_as_the_wire(bus, clock):
    feedback = SyncRead(bus, [1, 2], 124, 12, fast=True)
    begin_s = clock.now()
    feedback.read(begin_s + 0.1)
    # request 16 bytes, return delay 0.5 ms, reply 8 + 2 · 16 bytes, USB 1 ms
    assert clock.now() - begin_s == pytest.approx(0.16e-3 + 0.5e-3 + 0.4e-3 + 1e-3)


def test_deadline_cuts_a_reply(port, clock):
    port.write(protocol.ping(1))
    buffer = memoryview(bytearray(64))
    assert port.read_into(buffer, 1.655e-3) == 5  # first byte at 1.61 ms, then every 10 µs
    assert port.read_into(buffer, 1.0) == 9


def test_port_opened_at_another_baud_rate_meets_silence(twin, clock):
    bus = DynamixelBus(VirtualPort(twin, clock, 57600), 57600)
    assert bus.scan(range(4)) == {}


def test_program_follows_a_servo_to_its_new_baud_rate(twin, clock, bus):
    bus.write(1, registers.BAUD_RATE, 4)
    assert set(bus.scan(range(4))) == {2}
    fast = DynamixelBus(VirtualPort(twin, clock, 2_000_000), 2_000_000)
    assert set(fast.scan(range(4))) == {1}
