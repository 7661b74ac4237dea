"""Each kind of unsafe write, made by hand on the bus of a twin, is caught; safe ones are not."""

import subprocess
import sys

import pytest

from deploy.dynamixel import registers
from deploy.dynamixel.bus import DynamixelBus
from deploy.dynamixel.registers import RAD_PER_TICK
from deploy.errors import ServoError
from deploy.twin.monitor import Limits, Monitor, Unsafe
from deploy.twin.port import VirtualPort

PERIOD_S = 0.02
SHOULDER, ELBOW = 1, 2


@pytest.fixture
def monitor(twin, arm_config) -> Monitor:
    limits = Limits((-1.4, 1.4), max_speed_rad_s=5.0, overspeed_rad_s=5.5)
    return Monitor(
        twin, arm_config.joints, {"shoulder": limits, "elbow": limits}, period_s=PERIOD_S
    )


@pytest.fixture
def bus(port: VirtualPort, monitor: Monitor) -> DynamixelBus:
    bus = DynamixelBus(port, 1_000_000)
    for id in (SHOULDER, ELBOW):
        bus.write(id, registers.POSITION_D_GAIN, 0)
        bus.write(id, registers.GOAL_POSITION, bus.read(id, registers.PRESENT_POSITION))
        bus.write(id, registers.TORQUE_ENABLE, 1)
    assert monitor.violations == []
    return bus


def send(bus: DynamixelBus, angle: float) -> None:
    """A goal for the shoulder, a period after the last one."""
    bus.port._clock.sleep_until(bus.port.now() + PERIOD_S)  # pyright: ignore[reportAttributeAccessIssue]
    bus.write(SHOULDER, registers.GOAL_POSITION, round(2048 + angle / RAD_PER_TICK))


def kinds(monitor: Monitor) -> list[Unsafe]:
    return [violation.kind for violation in monitor.violations]


def test_motion_at_the_allowed_speed_is_no_violation(bus, monitor):
    for tick in range(10):
        send(bus, 0.1 * tick)
    for tick in range(10):
        send(bus, 0.9 - 0.1 * tick)
    assert monitor.violations == []


def test_goal_that_jumps_away_is_caught_with_its_numbers(bus, monitor):
    send(bus, 0.05)
    send(bus, 0.25)
    (violation,) = monitor.violations
    assert (violation.kind, violation.joint, violation.tick) == (Unsafe.JUMP, "shoulder", 2)
    assert "0.051 to 0.250 rad, joint at 0.0" in str(violation)
    assert "allowed 0.102 rad away" in str(violation)


def test_goal_for_a_servo_whose_id_another_has_taken_is_not_the_others(bus, monitor, twin):
    twin.servos[0].force(registers.ID, ELBOW)
    bus.write(ELBOW, registers.GOAL_POSITION, 2048 + 300)  # 0.46 rad for the shoulder
    assert twin.servos[0].read(registers.GOAL_POSITION.address, 4).data == (2348).to_bytes(
        4, "little"
    )
    assert monitor.violations == []


def test_goal_may_jump_to_where_the_joint_is_but_not_beyond(bus, monitor):
    for tick in range(1, 7):
        send(bus, 0.1 * tick)
    here = bus.read(SHOULDER, registers.PRESENT_POSITION)
    assert 0.6 - (here - 2048) * RAD_PER_TICK > 0.15  # it lags behind
    bus.write(SHOULDER, registers.GOAL_POSITION, here)
    assert monitor.violations == []
    bus.write(SHOULDER, registers.GOAL_POSITION, here - 300)
    assert kinds(monitor) == [Unsafe.JUMP]


def test_many_small_steps_within_one_period_are_a_jump(bus, monitor):
    send(bus, 0.09)
    bus.write(SHOULDER, registers.GOAL_POSITION, 2048 + round(0.18 / RAD_PER_TICK))
    assert kinds(monitor) == [Unsafe.JUMP]


def test_long_pause_does_not_allow_a_long_way(bus, monitor):
    bus.port._clock.sleep_until(1.0)
    send(bus, 0.3)
    assert kinds(monitor) == [Unsafe.JUMP]


def test_goal_outside_the_given_range_is_caught(bus, monitor):
    for tick in range(1, 15):
        send(bus, 0.1 * tick)
    assert monitor.violations == []
    send(bus, 1.45)
    assert kinds(monitor) == [Unsafe.LIMIT]
    assert "1.450 rad, allowed -1.400 to 1.400" in str(monitor.violations[0])


def test_goal_that_the_servo_refuses_is_caught_all_the_same(port, monitor):
    bus = DynamixelBus(port, 1_000_000)
    bus.write(SHOULDER, registers.MAX_POSITION_LIMIT, 2100)
    with pytest.raises(ServoError):
        bus.write(SHOULDER, registers.GOAL_POSITION, 2130)
    assert kinds(monitor) == [Unsafe.LIMIT]
    assert "2130 counts, its servo allows 0 to 2100" in str(monitor.violations[0])


@pytest.mark.parametrize("ticks", [-(2**31), 2**31 - 1])
def test_goal_made_of_no_number_is_caught(bus, monitor, ticks):
    with pytest.raises(ServoError):  # what numpy makes of NaN and infinity as int32
        bus.write(SHOULDER, registers.GOAL_POSITION, ticks)
    assert kinds(monitor) == [Unsafe.IMPLAUSIBLE]


def test_goal_through_an_indirect_address_is_caught(port, monitor):
    bus = DynamixelBus(port, 1_000_000)
    for byte in range(4):
        address = registers.Register(168 + 2 * byte, 2, "Indirect Address")
        bus.write(SHOULDER, address, registers.GOAL_POSITION.address + byte)
    bus.write(SHOULDER, registers.Register(224, 4, "Indirect Data"), 4095)
    assert kinds(monitor) == [Unsafe.LIMIT]


def test_goal_after_the_stop_is_caught_until_torque_is_switched_on_anew(bus, monitor):
    send(bus, 0.08)
    monitor.stopped()
    bus.write(SHOULDER, registers.GOAL_POSITION, bus.read(SHOULDER, registers.PRESENT_POSITION))
    assert monitor.violations == []
    send(bus, 0.03)
    assert monitor.violations == []
    send(bus, 0.12)
    assert kinds(monitor) == [Unsafe.AFTER_STOP]
    bus.write(SHOULDER, registers.TORQUE_ENABLE, 0)
    bus.write(SHOULDER, registers.GOAL_POSITION, bus.read(SHOULDER, registers.PRESENT_POSITION))
    bus.write(SHOULDER, registers.TORQUE_ENABLE, 1)
    send(bus, 0.12)
    assert kinds(monitor) == [Unsafe.AFTER_STOP]


def test_torque_switched_on_with_the_goal_elsewhere_is_caught(port, monitor):
    bus = DynamixelBus(port, 1_000_000)
    bus.write(SHOULDER, registers.GOAL_POSITION, 2248)
    assert monitor.violations == []  # nothing moves without torque
    bus.write(SHOULDER, registers.TORQUE_ENABLE, 1)
    assert kinds(monitor) == [Unsafe.TORQUE_ON]


def test_driven_joint_that_turns_too_fast_is_caught_once(bus, monitor):
    bus.write(SHOULDER, registers.GOAL_POSITION, 2048 + 800)
    bus.port._clock.sleep_until(1.0)
    bus.read(SHOULDER, registers.PRESENT_POSITION)
    assert kinds(monitor) == [Unsafe.JUMP, Unsafe.OVERSPEED]
    assert monitor.violations[1].joint == "shoulder"
    assert "rad/s, allowed 5.50" in str(monitor.violations[1])


def test_joint_that_falls_fast_without_torque_is_no_violation(port, clock, twin, monitor):
    twin.advance(2.0)
    assert monitor.violations == []


def test_joint_pushed_out_of_its_range_by_its_motor_is_caught(twin, arm_config):
    narrow = Limits((-0.2, 0.2), max_speed_rad_s=100.0)
    monitor = Monitor(
        twin,
        arm_config.joints,
        {"shoulder": narrow, "elbow": Limits((-2, 2), max_speed_rad_s=100.0)},
        period_s=PERIOD_S,
    )
    shoulder = twin.servos[0]
    for register, value in (
        (registers.OPERATING_MODE, registers.OperatingMode.PWM),  # no goal position at all
        (registers.TORQUE_ENABLE, 1),
        (registers.GOAL_PWM, 200),
    ):
        assert not shoulder.write(register.address, register.encode(value)).error
    twin.advance(2.0)  # until it leans on its stop
    assert kinds(monitor) == [Unsafe.DRIVEN_OUT]
    assert "allowed -0.200 to 0.200, pushed with 0." in str(monitor.violations[0])


def test_monitor_shares_no_code_with_what_it_judges():
    program = "import sys, deploy.twin.monitor; print(*sys.modules)"
    loaded = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    ).stdout.split()
    assert "deploy.twin.servo" in loaded
    assert not {"deploy.governor", "deploy.runtime", "deploy.robot", "deploy.dynamixel.bus"} & set(
        loaded
    )


@pytest.fixture
def by_speed(port: VirtualPort, monitor: Monitor) -> DynamixelBus:
    """The shoulder is driven by speed."""
    bus = DynamixelBus(port, 1_000_000)
    bus.write(SHOULDER, registers.OPERATING_MODE, 1)
    bus.write(SHOULDER, registers.TORQUE_ENABLE, 1)
    assert monitor.violations == []
    return bus


def test_goal_that_is_a_speed_keeps_the_limit(by_speed: DynamixelBus, monitor: Monitor):
    fastest = int(5.0 / registers.RAD_S_PER_COUNT)
    by_speed.write(SHOULDER, registers.GOAL_VELOCITY, -fastest)
    assert monitor.violations == []
    by_speed.write(SHOULDER, registers.GOAL_VELOCITY, fastest + 3)
    assert [violation.kind for violation in monitor.violations] == [Unsafe.LIMIT]


def test_speed_after_a_stop_is_caught_and_so_is_one_at_the_start(
    by_speed: DynamixelBus, monitor: Monitor
):
    by_speed.write(SHOULDER, registers.GOAL_VELOCITY, 5)
    monitor.stopped()
    by_speed.write(SHOULDER, registers.GOAL_VELOCITY, 0)
    assert monitor.violations == []
    by_speed.write(SHOULDER, registers.GOAL_VELOCITY, 5)
    by_speed.write(SHOULDER, registers.TORQUE_ENABLE, 0)
    by_speed.write(SHOULDER, registers.TORQUE_ENABLE, 1)
    kinds = [violation.kind for violation in monitor.violations]
    assert kinds == [Unsafe.AFTER_STOP, Unsafe.TORQUE_ON]
