"""Joints over servos, on a twin in virtual time."""

import math
import re
from collections.abc import Iterable

import numpy as np
import pytest

from deploy.contract import Contract
from deploy.device import SettingChange
from deploy.dynamixel import registers
from deploy.dynamixel.device import DynamixelServos
from deploy.dynamixel.protocol import Instruction, PacketParser
from deploy.dynamixel.registers import RAD_PER_TICK
from deploy.errors import BusError, DeployError, SafetyError
from deploy.robot import Robot, measured_signals
from deploy.robot_config import RobotConfig
from deploy.servos.device import HOLD_REACH_RAD
from deploy.twin.monitor import Unsafe
from tests.deploy.conftest import Bench, MakeBench
from tests.deploy.test_faults import SO101_PATH

JOINTS = [
    "shoulder_pan",
    "shoulder_lift",
    "elbow_flex",
    "wrist_flex",
    "wrist_roll",
    "gripper",
]
"""In the order of ids 1 to 6."""
SILENT = 0
"""Status Return Level of a servo that obeys and answers nothing but a ping."""


def rewired(config: RobotConfig, joint: str, **changes: object) -> RobotConfig:
    wiring = config.joints[joint].model_copy(update=changes)
    return config.model_copy(update={"joints": {**config.joints, joint: wiring}})


def refusal(robot: Robot) -> str:
    with pytest.raises(BusError) as caught:
        robot.connect()
    return str(caught.value)


def restarted(bench: Bench) -> list[int]:
    """Rows of the joints whose servo was seen to restart."""
    assert isinstance(bench.servos, DynamixelServos)
    return np.flatnonzero(bench.servos.restarted).tolist()


def energised(bench: Bench) -> Bench:
    bench.robot.connect()
    bench.robot.energise()
    return bench


def move(bench: Bench, joint: str, angle: float, seconds: float = 0.6) -> None:
    """Send one joint somewhere, no faster than it may, and hold the others; the bus stays alive."""
    robot = bench.robot
    targets, row = robot.position.copy(), JOINTS.index(joint)
    step = bench.config.joints[joint].velocity_limit_rad_s * 0.02
    for _ in range(round(seconds / 0.02)):
        targets[row] += np.clip(angle - targets[row], -step, step)
        robot.write(targets)
        bench.wait(0.02)
        robot.read(bench.clock.now() + 0.01)


# Connecting


def test_connected_robot_is_read_and_limp(bench: Bench):
    assert not bench.robot.energised
    bench.robot.connect()
    assert not bench.robot.energised
    assert bench.robot.position == pytest.approx(bench.twin.joint_position, abs=RAD_PER_TICK)
    assert np.all(bench.robot.age_s < 0.01)
    assert not any(bench.torque_on.values())


def test_readings_by_kind_are_those_that_the_wiring_promises(bench: Bench):
    robot = bench.robot
    before = {kind: reading.values for kind, reading in robot.readings.items()}
    assert tuple(before) == measured_signals(bench.config)
    assert all(np.isinf(reading.age_s).all() for reading in robot.readings.values())

    robot.connect()

    assert robot.readings["joint_position"].values is before["joint_position"]
    assert np.array_equal(before["joint_position"], robot.position)
    assert np.array_equal(before["joint_velocity"], robot.velocity)
    assert all(np.all(reading.age_s < 0.01) for reading in robot.readings.values())


def test_nothing_is_said_of_a_robot_that_was_never_read(bench: Bench):
    assert bench.robot.rest_differences() == []


def test_connecting_moves_nothing(bench: Bench):
    bench.wait(1.0)  # the arm settles in its rest pose
    pose = bench.twin.joint_position
    bench.robot.connect()
    bench.wait(0.5)
    assert bench.twin.joint_position == pytest.approx(pose, abs=2e-3)


def test_connecting_to_an_arm_that_holds_itself_up_does_not_let_it_fall(bench: Bench):
    energised(bench)
    move(bench, "elbow_flex", 0.4, seconds=1.5)  # nothing but its motor keeps it there
    pose = bench.twin.joint_position
    bench.with_another_host().robot.connect()
    assert bench.twin.joint_position == pytest.approx(pose, abs=0.02)


def test_setting_that_needs_torque_off_is_refused_while_the_arm_holds_itself_up(
    bench: Bench, desk_arm: RobotConfig
):
    energised(bench)
    narrower = rewired(desk_arm, "gripper", position_limits_rad=(-0.03, 1.5))
    robot = Robot(
        narrower, bench.contract.joints, {"bus": bench.port}, approve=lambda changes: True
    )
    # 2048 + 1.6 rad · 4096 / 2π = 3091, and for 1.5 rad 3026
    assert refusal(robot) == (
        "gripper (id 6) holds torque and its Max Position Limit (48) is 3091, expected 3026; "
        "support the robot and run `robotrl release`, then start again"
    )
    assert all(bench.torque_on.values())


def test_servo_that_restarts_is_noticed(bench: Bench):
    robot = energised(bench).robot
    bench.wait(0.5)
    robot.read(bench.clock.now() + 0.01)
    assert not restarted(bench)
    bench.twin.servos[3].reboot()
    bench.wait(bench.twin.servos[3].boot_s)
    robot.read(bench.clock.now() + 0.01)
    assert restarted(bench) == [3]


def test_restart_is_not_forgotten(bench: Bench):
    robot = energised(bench).robot
    bench.wait(0.5)
    robot.read(bench.clock.now() + 0.01)
    bench.twin.servos[3].reboot()
    bench.wait(0.5)
    for _ in range(3):
        robot.read(bench.clock.now() + 0.01)
        bench.wait(0.02)
    assert restarted(bench) == [3]


def test_servos_clock_that_wraps_is_no_restart(bench: Bench):
    robot = energised(bench).robot
    for _ in range(5):
        bench.wait(9.0)  # 45 s; a servo counts milliseconds up to 32767
        robot.read(bench.clock.now() + 0.01)
    assert not restarted(bench)


def test_absent_servo_is_named_with_the_ids_that_answer(bench: Bench):
    bench.set("elbow_flex", registers.ID, 9)
    assert refusal(bench.robot) == (
        "no answer from elbow_flex (id 3); ids that do answer at 1000000 baud: [1, 2, 4, 5, 6, 9]. "
        "Check power, cables, servo ids and `bus.baud_rate`"
    )


def test_silent_bus_is_reported_as_such(bench: Bench):
    bench.port.replies_to_lose = math.inf
    message = refusal(bench.robot)
    assert "no answer from shoulder_pan (id 1), shoulder_lift (id 2), elbow_flex (id 3)" in message
    assert "ids that do answer at 1000000 baud: none. Check power" in message


def test_one_lost_reply_is_no_absent_servo(bench: Bench):
    bench.port.replies_to_lose = 1
    bench.robot.connect()
    assert np.all(bench.robot.age_s < 0.01)


def test_servo_that_answers_everything_but_a_sync_read_is_named(bench: Bench):
    bus = bench.servos.bus
    measure = bus.measure_latency

    def measure_and_silence(ids: Iterable[int]) -> float:
        latency_s = measure(ids)  # the last that is asked of a servo alone
        bench.set("gripper", registers.STATUS_RETURN_LEVEL, SILENT)
        return latency_s

    bus.measure_latency = measure_and_silence
    assert "'gripper'] do not answer a sync read; check the cables" in refusal(bench.robot)


def test_servos_of_other_models_are_all_named(make_bench: MakeBench, desk_arm: RobotConfig):
    built = rewired(desk_arm, "elbow_flex", model="XL430-W250")
    built = rewired(built, "gripper", model="XL330-M077")
    assert refusal(make_bench(desk_arm, built=built).robot) == (
        "elbow_flex (id 3) is XL430-W250, expected XL330-M288; gripper (id 6) is XL330-M077, "
        "expected XL330-M288; correct the robot's YAML or the servo ids"
    )


def test_servo_in_error_is_refused(bench: Bench):
    bench.twin.servos[1].voltage_v = 15.0
    bench.wait(0.01)
    bench.twin.servos[1].voltage_v = 12.0  # the error stays until a power cycle
    assert refusal(bench.robot) == (
        "shoulder_lift (id 2) reports input voltage; remove the cause, then switch its power off "
        "and on"
    )


def test_supply_of_another_voltage_is_refused(bench: Bench):
    bench.set("elbow_flex", registers.MIN_VOLTAGE_LIMIT, 31)  # so the servo does not mind
    bench.twin.servos[2].voltage_v = 3.2
    assert refusal(bench.robot) == (
        "elbow_flex (id 3) is supplied with 3.2 V, expected 5 V ± 15%; check power supply or "
        "battery, or correct `supply_v` in the robot's YAML"
    )


def test_gain_the_servo_does_not_reach_is_refused(make_bench: MakeBench, contract: Contract):
    # 16383 is the largest Position P Gain, 16383 / 800 · 6.9 = 141 N·m/rad
    stiff = contract.joints[0].model_copy(update={"kp_nm_per_rad": 150.0})
    bench = make_bench(
        contract=contract.model_copy(update={"joints": [stiff, *contract.joints[1:]]})
    )
    with pytest.raises(DeployError, match=r"XL430-W250 cannot be set to 150 N·m/rad"):
        bench.robot.connect()


@pytest.mark.parametrize(
    ("register", "joint", "value"),
    [
        (registers.RETURN_DELAY_TIME, "gripper", 0),
        (registers.OPERATING_MODE, "shoulder_pan", 3),
        (registers.MIN_POSITION_LIMIT, "shoulder_lift", 1070),  # 2048 - 1.5 rad · 4096 / 2π
        (registers.MAX_POSITION_LIMIT, "shoulder_lift", 3071),  # 2048 + 1.57 rad · 4096 / 2π
        (registers.POSITION_P_GAIN, "shoulder_pan", 800),
        (registers.POSITION_P_GAIN, "elbow_flex", 3000),
        (registers.POSITION_I_GAIN, "elbow_flex", 0),
        (registers.POSITION_D_GAIN, "shoulder_pan", 0),
        (registers.FEEDFORWARD_1ST_GAIN, "wrist_flex", 0),
        (registers.FEEDFORWARD_2ND_GAIN, "wrist_flex", 0),
        (registers.PROFILE_ACCELERATION, "wrist_flex", 0),
        (registers.PROFILE_VELOCITY, "wrist_flex", 0),
        (registers.BUS_WATCHDOG, "wrist_flex", 0),
    ],
    ids=str,
)
def test_servo_is_set_up_as_the_contract_and_the_wiring_say(
    bench: Bench, register: registers.Register, joint: str, value: int
):
    other_mode = register is registers.OPERATING_MODE
    bench.set(joint, register, 4 if other_mode else value + 7)

    bench.robot.connect()

    assert bench.get(joint, register) == value


@pytest.mark.parametrize(
    ("register", "left_behind", "expected"),
    [
        (registers.HOMING_OFFSET, 300, 0),
        (registers.PWM_LIMIT, 400, 885),
        (registers.GOAL_PWM, 200, 885),
    ],
    ids=str,
)
def test_setting_left_behind_by_another_program_is_undone(
    bench: Bench, register: registers.Register, left_behind: int, expected: int
):
    bench.set("elbow_flex", register, left_behind)
    bench.robot.connect()
    assert bench.get("elbow_flex", register) == expected
    assert bench.robot.position == pytest.approx(bench.twin.joint_position, abs=RAD_PER_TICK)


def test_limits_of_a_reversed_joint_are_swapped(make_bench: MakeBench, desk_arm: RobotConfig):
    bench = make_bench(rewired(desk_arm, "shoulder_lift", direction=-1))
    bench.robot.connect()
    assert bench.get("shoulder_lift", registers.MIN_POSITION_LIMIT) == 2048 - 1023
    assert bench.get("shoulder_lift", registers.MAX_POSITION_LIMIT) == 2048 + 978


def test_settings_that_are_right_are_not_written_again(bench: Bench):
    bench.robot.connect()
    bench.port.sent.clear()
    bench.robot.connect()
    packets = PacketParser().feed(b"".join(bench.port.sent))
    written = {
        int.from_bytes(packet.parameters[:2], "little")
        for packet in packets
        if packet.instruction == Instruction.WRITE
    }
    assert written <= {registers.TORQUE_ENABLE.address, registers.BUS_WATCHDOG.address}


def test_tripped_watchdog_of_an_earlier_run_is_cleared(bench: Bench):
    energised(bench)
    bench.wait(0.5)
    assert bench.get("gripper", registers.BUS_WATCHDOG) == registers.BUS_WATCHDOG_TRIPPED
    bench.robot.connect()
    assert bench.get("gripper", registers.BUS_WATCHDOG) == 0


def test_reading_takes_its_bytes_on_the_wire_and_the_adapters_latency(bench: Bench):
    bench.robot.connect()
    # request 20 bytes, merged reply 8 + 6 · 20 bytes, 10 bits each at 1 Mbps; 1 ms, 0.5 ms margin
    assert bench.robot.read_s == pytest.approx(1.48e-3 + 1.5e-3, abs=0.1e-3)


# Energising


def test_energised_robot_holds_where_it_is_although_an_old_goal_is_elsewhere(bench: Bench):
    bench.robot.connect()
    bench.set("wrist_roll", registers.GOAL_POSITION, 3500)
    pose = bench.twin.joint_position

    bench.robot.energise()

    assert all(bench.torque_on.values())
    bench.wait(0.5)
    assert bench.twin.joint_position == pytest.approx(pose, abs=0.01)


def test_joint_that_moves_while_torque_is_switched_on_is_held_where_it_is(bench: Bench):
    bench.robot.connect()
    sent, angle = bench.port.write, 1.0

    def push_when_the_first_has_torque(data: bytes | bytearray | memoryview) -> None:
        sent(data)
        if bench.torque_on["shoulder_pan"] and not bench.torque_on["wrist_roll"]:
            bench.push("wrist_roll", angle)

    bench.port.write = push_when_the_first_has_torque
    bench.robot.energise()
    assert bench.robot.target[4] == pytest.approx(angle, abs=0.01)


def test_joint_that_leaves_its_limits_while_torque_is_switched_on_gets_none(bench: Bench):
    bench.robot.connect()
    sent = bench.port.write

    def push_when_the_first_has_torque(data: bytes | bytearray | memoryview) -> None:
        sent(data)
        if bench.torque_on["shoulder_pan"]:
            bench.push("wrist_roll", 3.0)

    bench.port.write = push_when_the_first_has_torque
    with pytest.raises(SafetyError, match=r"wrist_roll is at (2\.99|3\.00) rad"):
        bench.robot.energise()
    assert not bench.torque_on["wrist_roll"]


def test_servos_out_of_reach_are_not_each_said_to_be(bench: Bench):
    energised(bench)
    bench.clock.sleep_until(bench.clock.now() + 1.0)  # what was read last is old
    bench.port.unplugged = True
    with pytest.raises(BusError) as caught:
        bench.robot.hold()
    assert str(caught.value) == "the port is gone"


def test_energised_servos_watch_the_bus(bench: Bench):
    energised(bench)
    for joint in JOINTS:
        assert bench.get(joint, registers.BUS_WATCHDOG) == 5  # 100 ms in steps of 20 ms


def test_watchdog_is_never_disarmed_by_rounding(make_bench: MakeBench, desk_arm: RobotConfig):
    safety = desk_arm.safety.model_copy(update={"watchdog_ms": 20})
    bench = energised(make_bench(desk_arm.model_copy(update={"safety": safety})))
    assert bench.get("gripper", registers.BUS_WATCHDOG) == 1


def test_servos_stop_by_themselves_when_the_bus_falls_silent(bench: Bench):
    energised(bench)
    bench.expect(Unsafe.JUMP, Unsafe.OVERSPEED)  # there is no governor in between
    row, target = JOINTS.index("wrist_roll"), np.array([0.0, -1.4, 1.3, 0.8, 2.0, 0.1])
    bench.robot.write(target)
    bench.wait(0.6)
    angle = bench.twin.joint_position[row]
    assert 0.2 < angle < 1.5  # on its way, it was stopped
    assert bench.get("wrist_roll", registers.BUS_WATCHDOG) == registers.BUS_WATCHDOG_TRIPPED
    bench.wait(0.5)
    assert bench.twin.joint_position[row] == pytest.approx(angle, abs=5e-3)


def turned_horn(config: RobotConfig, joint: str, ticks: int) -> RobotConfig:
    """The robot as built, with one horn mounted some counts off."""
    wiring = config.joints[joint]
    return rewired(config, joint, zero_ticks=wiring.zero_ticks + ticks)


def assert_stays_limp(bench: Bench) -> str:
    """Torque is refused; nothing moves. Returns the message."""
    bench.wait(1.0)
    bench.robot.connect()
    pose = bench.twin.joint_position
    with pytest.raises(SafetyError) as caught:
        bench.robot.energise()
    bench.wait(0.5)
    assert not any(bench.torque_on.values())
    assert bench.twin.joint_position == pytest.approx(pose, abs=3e-3)
    return str(caught.value)


def test_joint_outside_its_limits_is_not_driven_inside(
    make_bench: MakeBench, desk_arm: RobotConfig
):
    # One tooth off: the elbow rests at 1.43 rad, its servo at 1650 + 932 - 398 counts too few.
    bench = make_bench(desk_arm, built=turned_horn(desk_arm, "shoulder_lift", -398))
    message = assert_stays_limp(bench)
    assert "shoulder_lift is at -2.09 rad" in message
    assert "its limits are [-1.5, 1.57] rad. Torque stays off" in message


def test_joint_a_few_counts_outside_its_limits_is_held_at_the_limit(
    make_bench: MakeBench, desk_arm: RobotConfig
):
    bench = make_bench()
    bench.wait(1.0)
    resting = bench.twin.joint_position[2]
    ticks = 6
    limit = resting - ticks * RAD_PER_TICK
    narrow = rewired(desk_arm, "elbow_flex", position_limits_rad=(-1.57, limit), rest_rad=limit)
    bench = make_bench(narrow, built=desk_arm)
    bench.wait(1.0)
    energised(bench)
    assert held(bench, "elbow_flex") == pytest.approx(limit, abs=RAD_PER_TICK)
    bench.wait(0.05)
    assert bench.twin.joint_position[2] == pytest.approx(resting, abs=0.02)


def test_joint_more_than_a_few_counts_outside_its_limits_is_not_held(
    make_bench: MakeBench, desk_arm: RobotConfig
):
    bench = make_bench()
    bench.wait(1.0)
    limit = bench.twin.joint_position[2] - 11 * RAD_PER_TICK
    narrow = rewired(desk_arm, "elbow_flex", position_limits_rad=(-1.57, limit), rest_rad=limit)
    assert "elbow_flex is at" in assert_stays_limp(make_bench(narrow, built=desk_arm))


@pytest.mark.parametrize("count", [4096, 4097])
def test_joint_turned_past_the_last_count_is_not_sent_around(
    make_bench: MakeBench, desk_arm: RobotConfig, count: int
):
    # A limp servo goes on counting past 4095; switched on, it takes itself back into one turn,
    # and a goal at the old side is a whole turn away.
    wide = rewired(desk_arm, "wrist_roll", zero_ticks=2400, position_limits_rad=(-2.9, 2.6))
    bench = make_bench(wide)
    bench.robot.connect()
    bench.push("wrist_roll", (count - 2400) * RAD_PER_TICK)
    with pytest.raises(SafetyError, match=rf"wrist_roll is at .* rad \(count {count}\)"):
        bench.robot.energise()
    assert not bench.torque_on["wrist_roll"]


@pytest.mark.parametrize(("count", "zero"), [(0, 1800), (4095, 2400)])
def test_joint_at_an_end_of_its_servos_turn_is_held_there(
    make_bench: MakeBench, desk_arm: RobotConfig, count: int, zero: int
):
    limits = (-zero * RAD_PER_TICK, (4095 - zero) * RAD_PER_TICK)
    bench = make_bench(rewired(desk_arm, "wrist_roll", zero_ticks=zero, position_limits_rad=limits))
    bench.robot.connect()
    bench.push("wrist_roll", (count - zero) * RAD_PER_TICK)
    bench.robot.energise()
    assert bench.get("wrist_roll", registers.GOAL_POSITION) == count


# Settings in EEPROM

LEFT_BY_ANOTHER_PROGRAM = {registers.HOMING_OFFSET: -512, registers.MAX_POSITION_LIMIT: 3000}


def test_calibration_of_another_program_is_not_overwritten_without_approval(bench: Bench):
    for register, value in LEFT_BY_ANOTHER_PROGRAM.items():
        bench.set("elbow_flex", register, value)
    asked: list[SettingChange] = []

    def refuse(changes: list[SettingChange]) -> bool:
        asked.extend(changes)
        return False

    robot = Robot(bench.config, bench.contract.joints, {"bus": bench.port}, approve=refuse)
    message = refusal(robot)

    assert "elbow_flex (id 3): Homing Offset (20) -512 -> 0" in message
    assert "elbow_flex (id 3): Max Position Limit (48) 3000 -> 2993" in message
    shown = {change.register: change.found for change in asked if change.joint == "elbow_flex"}
    left = {register.name: value for register, value in LEFT_BY_ANOTHER_PROGRAM.items()}
    assert shown.items() >= left.items()
    for register, value in LEFT_BY_ANOTHER_PROGRAM.items():
        assert bench.get("elbow_flex", register) == value


def test_nothing_in_eeprom_changes_unless_somebody_says_so(bench: Bench):
    before = [bench.twin.servos[row].read(0, 64).data for row in range(6)]
    with pytest.raises(BusError, match="nothing was changed"):
        Robot(bench.config, bench.contract.joints, {"bus": bench.port}).connect()
    assert [bench.twin.servos[row].read(0, 64).data for row in range(6)] == before


def test_servos_set_up_once_need_no_approval_again(bench: Bench):
    bench.robot.connect()
    Robot(bench.config, bench.contract.joints, {"bus": bench.port}).connect()


# Reading back while running


def verify_all(bench: Bench) -> list[str]:
    """What is wrong with any servo, each asked once."""
    complaints = [bench.robot.health(bench.clock.now() + 0.01) for _ in JOINTS]
    return [complaint for complaint in complaints if complaint]


def test_servos_as_they_were_set_up_give_no_complaint(bench: Bench):
    energised(bench)
    assert verify_all(bench) == []


@pytest.mark.parametrize(
    ("register", "value", "expected"),
    [
        (registers.TORQUE_ENABLE, 0, 1),
        (registers.POSITION_P_GAIN, 0, 3000),
        (registers.POSITION_I_GAIN, 9, 0),
        (registers.POSITION_D_GAIN, 9, 0),
        (registers.BUS_WATCHDOG, 0, 5),
        (registers.GOAL_PWM, 100, 885),
        (registers.PROFILE_VELOCITY, 1, 0),
    ],
    ids=str,
)
def test_setting_that_changes_while_running_is_found(
    bench: Bench, register: registers.Register, value: int, expected: int
):
    energised(bench)
    bench.set("elbow_flex", register, value)
    assert verify_all(bench) == [f"elbow_flex: its {register} reads {value}, expected {expected}"]


def test_servo_that_its_own_watchdog_has_stopped_is_found(bench: Bench):
    energised(bench)
    bench.wait(0.2)
    assert len(verify_all(bench)) == 6
    assert "Bus Watchdog (98) reads -1, expected 5" in str(
        bench.robot.health(bench.clock.now() + 0.01)
    )


def test_reading_back_waits_no_longer_than_its_deadline(bench: Bench):
    energised(bench)
    bench.port.replies_to_lose = math.inf
    begin_s = bench.clock.now()
    assert bench.robot.health(begin_s + 0.005) == ""
    assert bench.clock.now() <= begin_s + 0.005


# Radians


@pytest.fixture
def rewired_bench(make_bench: MakeBench, desk_arm: RobotConfig) -> Bench:
    """The elbow's servo is mounted the other way round, and its horn 248 counts off."""
    return make_bench(rewired(desk_arm, "elbow_flex", direction=-1, zero_ticks=1800))


def test_angles_are_read_through_direction_and_zero(rewired_bench: Bench):
    robot = rewired_bench.robot
    robot.connect()
    assert rewired_bench.get("elbow_flex", registers.PRESENT_POSITION) < 1800
    assert robot.position[2] == pytest.approx(1.43, abs=0.02)
    assert robot.position == pytest.approx(rewired_bench.twin.joint_position, abs=RAD_PER_TICK)


def test_targets_are_written_through_direction_and_zero(rewired_bench: Bench):
    energised(rewired_bench)
    rewired_bench.expect(Unsafe.JUMP)  # there is no governor in between
    rewired_bench.robot.write(np.array([0.5, -1.0, 0.5, 0.0, 0.0, 0.0]))
    rewired_bench.wait(0.001)
    assert rewired_bench.get("shoulder_pan", registers.GOAL_POSITION) == 2048 + 326
    assert rewired_bench.get("shoulder_lift", registers.GOAL_POSITION) == 2048 - 652
    assert rewired_bench.get("elbow_flex", registers.GOAL_POSITION) == 1800 - 326


def test_every_count_survives_the_way_to_radians_and_back(rewired_bench: Bench):
    robot = rewired_bench.robot
    energised(rewired_bench)
    rewired_bench.expect(Unsafe.JUMP)  # there is no governor in between
    for ticks in range(1000, 2600, 37):
        robot.write(np.array([0.0, 0.0, (1800 - ticks) * RAD_PER_TICK, 0.0, 0.0, 0.0]))
        rewired_bench.wait(0.001)
        assert rewired_bench.get("elbow_flex", registers.GOAL_POSITION) == ticks


def test_speed_has_the_sign_of_the_joint(rewired_bench: Bench):
    energised(rewired_bench)
    move(rewired_bench, "elbow_flex", 0.9, seconds=0.06)  # from 1.43: backwards
    assert rewired_bench.robot.velocity[2] < -0.3
    speeds = rewired_bench.twin.joint_velocity
    assert rewired_bench.robot.velocity == pytest.approx(speeds, abs=0.6)  # filtered
    assert rewired_bench.robot.position[2] < 1.40


def test_effort_is_the_duty_that_turns_the_joint_forwards(rewired_bench: Bench):
    energised(rewired_bench)
    move(rewired_bench, "elbow_flex", 0.9, seconds=0.3)  # which counts backwards
    rewired_bench.robot.read(rewired_bench.clock.now() + 0.01)
    assert rewired_bench.config.joints["elbow_flex"].direction == -1
    for row, joint in enumerate(JOINTS):
        duty = rewired_bench.get(joint, registers.PRESENT_PWM) / 885
        direction = rewired_bench.config.joints[joint].direction
        assert rewired_bench.robot.effort[row] == pytest.approx(direction * duty, abs=0.03)
    assert abs(rewired_bench.robot.effort[2]) > 0.1


def test_joint_arrives_where_it_is_sent(rewired_bench: Bench):
    energised(rewired_bench)
    move(rewired_bench, "elbow_flex", 0.9, seconds=1.0)
    assert rewired_bench.twin.joint_position[2] == pytest.approx(0.9, abs=0.08)


# Faults


def test_silent_servo_keeps_its_last_reading_and_ages(bench: Bench):
    energised(bench)
    robot = bench.robot
    asked_s = bench.clock.now()
    robot.read(asked_s + 0.01)
    position = robot.position.copy()
    bench.set("elbow_flex", registers.STATUS_RETURN_LEVEL, SILENT)
    move(bench, "shoulder_pan", 0.3, seconds=0.3)

    assert robot.position[2] == position[2]
    assert robot.age_s[2] == pytest.approx(bench.clock.now() - asked_s)
    assert np.all(np.delete(robot.age_s, 2) < 0.02)
    assert robot.position[0] == pytest.approx(bench.twin.joint_position[0], abs=0.02)


def test_answered_joints_are_counted(bench: Bench):
    robot = energised(bench).robot
    assert robot.read(bench.clock.now() + 0.01) == 6
    bench.set("gripper", registers.STATUS_RETURN_LEVEL, SILENT)
    assert robot.read(bench.clock.now() + 0.01) == 5


def test_dropped_reply_keeps_the_last_reading_and_ages_it(bench: Bench):
    robot = energised(bench).robot
    robot.read(bench.clock.now() + 0.01)
    position, read_s = robot.position.copy(), bench.clock.now() - robot.age_s
    bench.port.replies_to_lose = math.inf
    begin_s = bench.clock.now()
    assert robot.read(begin_s + 0.01) == 0
    assert bench.clock.now() <= begin_s + 0.01
    assert np.array_equal(robot.position, position)
    assert robot.age_s == pytest.approx(bench.clock.now() - read_s)


def test_reading_is_as_old_as_its_request(bench: Bench):
    robot = energised(bench).robot
    # the program is suspended when the reply has come, and woken half a second later
    bench.port.after_reply = lambda: bench.wait(0.5)
    robot.read(bench.clock.now() + 0.01)
    assert robot.age_s.min() >= 0.5


def test_program_that_was_suspended_in_a_reading_finds_no_restart(bench: Bench):
    robot = energised(bench).robot
    bench.port.after_reply = lambda: bench.wait(0.5)
    robot.read(bench.clock.now() + 0.01)
    bench.port.after_reply = lambda: None
    robot.read(bench.clock.now() + 0.01)
    assert not restarted(bench)


def test_servo_in_alert_is_described(bench: Bench):
    robot = energised(bench).robot
    bench.twin.servos[3].voltage_v = 8.0
    bench.wait(0.01)
    robot.read(bench.clock.now() + 0.01)
    assert np.flatnonzero(bench.servos.alerts).tolist() == [3]
    assert bench.servos.describe_alerts() == "wrist_flex: input voltage"


# Hold


def hold_in_motion(bench: Bench) -> None:
    """Hold while the wrist rolls at speed."""
    energised(bench)
    move(bench, "wrist_roll", 1.5, seconds=0.1)
    assert abs(bench.robot.velocity[4]) > 1.0
    bench.robot.hold()


def held(bench: Bench, joint: str) -> float:
    """The angle a joint's servo is told to hold [rad]; all directions are 1, all zeros 2048."""
    return (bench.get(joint, registers.GOAL_POSITION) - 2048) * RAD_PER_TICK


def test_hold_stops_a_moving_joint_within_its_reach(bench: Bench):
    hold_in_motion(bench)
    seen = bench.robot.position.copy()
    assert held(bench, "wrist_roll") == pytest.approx(seen[4] + HOLD_REACH_RAD, abs=2e-3)
    bench.wait(1.0)
    assert bench.twin.joint_position == pytest.approx(seen, abs=HOLD_REACH_RAD + 0.02)


def test_hold_keeps_a_still_arm_where_it_is_also_after_the_bus_falls_silent(bench: Bench):
    energised(bench)
    stretched = np.array([0.0, 0.6, -0.4, 0.3, 0.0, 0.2])  # the elbow's load pulls it down
    for _ in range(150):
        bench.robot.write(bench.robot.target + np.clip(stretched - bench.robot.target, -0.03, 0.03))
        bench.wait(0.02)
        bench.robot.read(bench.clock.now() + 0.01)
    pose = bench.twin.joint_position
    assert bench.robot.target[2] - pose[2] < -0.02  # it droops

    bench.robot.hold()
    bench.wait(2.0)  # longer than any watchdog

    assert bench.twin.joint_position == pytest.approx(pose, abs=3e-3)
    again = bench.with_another_host().robot
    again.connect()
    again.energise()
    bench.wait(0.05)
    assert bench.twin.joint_position == pytest.approx(pose, abs=3e-3)


def test_hold_without_recent_readings_leaves_the_targets_alone(bench: Bench):
    energised(bench)
    move(bench, "wrist_roll", 0.5, seconds=0.1)
    bench.port.replies_to_lose = math.inf  # writing still works
    for _ in range(8):
        bench.robot.write(bench.robot.target + np.array([0, 0, 0, 0, 0.04, 0]))
        bench.wait(0.02)
        bench.robot.read(bench.clock.now() + 0.01)
    target, angle = bench.robot.target, bench.twin.joint_position[4]
    assert target[4] - bench.robot.position[4] > 2 * HOLD_REACH_RAD  # as it was seen long ago

    with pytest.raises(BusError):
        bench.robot.hold()

    bench.wait(0.02)
    assert held(bench, "wrist_roll") == pytest.approx(target[4], abs=RAD_PER_TICK)
    assert bench.twin.joint_position[4] > angle - 1e-3  # it is not thrown back


def test_hold_does_not_send_joints_on_to_targets_that_they_have_missed(
    make_bench: MakeBench, so101: RobotConfig, so101_contract: Contract
):
    bench = energised(make_bench(so101, contract=so101_contract, model_path=SO101_PATH))
    goal = bench.servo("wrist_roll").registers.GOAL_POSITION
    before = bench.get("wrist_roll", goal)
    bench.port.requests_to_lose = math.inf
    for _ in range(8):
        bench.robot.write(bench.robot.target + np.array([0, 0, 0, 0, 0.04, 0]))
        bench.wait(0.02)
        bench.robot.read(bench.clock.now() + 0.01)
    bench.port.requests_to_lose = 0  # the cable has contact again

    bench.robot.hold()

    assert bench.get("wrist_roll", goal) == before
    assert all(bench.torque_on.values())


def test_hold_gives_way_to_what_blocks_a_joint(bench: Bench):
    energised(bench)
    bench.expect(Unsafe.JUMP)  # there is no governor in between
    bench.robot.write(bench.robot.position + np.array([0, 0, 0, 0, 0.6, 0]))
    bench.robot.hold()
    assert held(bench, "wrist_roll") == pytest.approx(
        bench.robot.position[4] + HOLD_REACH_RAD, abs=2e-3
    )


def test_hold_tells_the_servos_to_stop_watching_the_bus(bench: Bench):
    energised(bench).robot.hold()
    assert {bench.get(joint, registers.BUS_WATCHDOG) for joint in JOINTS} == {0}


def test_hold_names_servos_that_do_not_confirm_and_stops_the_others(bench: Bench):
    energised(bench)
    move(bench, "wrist_roll", 1.5, seconds=0.1)
    bench.set("elbow_flex", registers.STATUS_RETURN_LEVEL, SILENT)
    with pytest.raises(BusError) as caught:
        bench.robot.hold()
    assert str(caught.value) == (
        "elbow_flex: servo 3 does not answer (read Goal Position (116), 3 attempts), expected a "
        "reply within milliseconds; check its power, cable, id and baud rate"
    )
    goal = bench.robot.position[4] + HOLD_REACH_RAD
    assert held(bench, "wrist_roll") == pytest.approx(goal, abs=2e-3)


def test_hold_repeats_a_command_that_got_lost(bench: Bench):
    energised(bench)
    move(bench, "wrist_roll", 1.5, seconds=0.1)
    bench.port.requests_to_lose = 1  # the sync write
    bench.robot.hold()
    goal = bench.robot.position[4] + HOLD_REACH_RAD
    assert held(bench, "wrist_roll") == pytest.approx(goal, abs=2e-3)


def test_servo_that_its_watchdog_has_stopped_counts_as_held(bench: Bench):
    energised(bench)
    move(bench, "wrist_roll", 1.5, seconds=0.1)
    bench.wait(0.3)
    assert bench.get("wrist_roll", registers.BUS_WATCHDOG) == registers.BUS_WATCHDOG_TRIPPED
    bench.robot.hold()
    angle = bench.twin.joint_position[4]
    bench.wait(0.5)
    assert bench.twin.joint_position[4] == pytest.approx(angle, abs=0.01)


def test_servo_that_has_shut_down_does_not_count_as_held(bench: Bench):
    energised(bench)
    bench.twin.servos[2].voltage_v = 8.0
    bench.wait(0.01)
    bench.robot.read(bench.clock.now() + 0.01)
    assert not bench.torque_on["elbow_flex"]
    with pytest.raises(BusError, match=r"elbow_flex: .*Torque Enable"):
        bench.robot.hold()


# The rest pose


def test_arm_at_rest_shows_no_difference(bench: Bench):
    bench.wait(1.0)
    bench.robot.connect()
    assert bench.robot.rest_differences() == []


def test_zero_that_is_off_shows_as_a_difference_with_the_right_one(
    make_bench: MakeBench, desk_arm: RobotConfig
):
    bench = make_bench(desk_arm, built=turned_horn(desk_arm, "elbow_flex", -250))  # 22°
    bench.wait(1.0)
    bench.robot.connect()
    (difference,) = bench.robot.rest_differences()
    found = re.search(r"its zero is at count (\d+), not 2048", difference)
    assert found and int(found[1]) == pytest.approx(2048 - 250, abs=20)


def test_direction_that_is_wrong_shows_as_a_difference(
    make_bench: MakeBench, desk_arm: RobotConfig
):
    bench = make_bench(desk_arm, built=rewired(desk_arm, "elbow_flex", direction=-1))
    bench.wait(1.0)
    bench.robot.connect()
    (difference,) = bench.robot.rest_differences()
    assert difference.startswith("elbow_flex reads -1.4")
    assert difference.endswith("or its direction is -1")


# Release


def test_release_turns_every_torque_off(bench: Bench):
    energised(bench).robot.release()
    assert not any(bench.torque_on.values())


def test_release_begins_with_one_command_to_all(bench: Bench):
    energised(bench)
    bench.port.sent.clear()
    bench.robot.release()
    (first,) = PacketParser().feed(bench.port.sent[0])
    torque_off = registers.TORQUE_ENABLE.address.to_bytes(2, "little") + b"\x00"
    assert (first.id, first.instruction, first.parameters) == (0xFE, Instruction.WRITE, torque_off)


def test_released_servos_do_not_watch_the_bus(bench: Bench):
    energised(bench).robot.release()
    bench.wait(1.0)
    assert {bench.get(joint, registers.BUS_WATCHDOG) for joint in JOINTS} == {0}
    bench.set("gripper", registers.GOAL_POSITION, 2100)  # the next program's goals are taken


def test_release_names_a_dead_servo_and_lets_go_of_the_others(bench: Bench):
    energised(bench)
    bench.set("shoulder_lift", registers.STATUS_RETURN_LEVEL, SILENT)
    with pytest.raises(BusError) as caught:
        bench.robot.release()
    assert str(caught.value) == (
        "shoulder_lift: servo 2 does not answer (write 0 to Torque Enable (64), 3 attempts), "
        "expected a reply within milliseconds; check its power, cable, id and baud rate"
    )
    assert not any(bench.torque_on.values())


def test_release_reaches_servos_whose_replies_are_lost(bench: Bench):
    energised(bench)
    bench.port.replies_to_lose = math.inf
    with pytest.raises(BusError) as caught:
        bench.robot.release()
    for joint in JOINTS:
        assert f"{joint}: servo" in str(caught.value)
    assert not any(bench.torque_on.values())


def test_released_robot_can_be_energised_again(bench: Bench):
    energised(bench).robot.release()
    bench.wait(1.0)
    energised(bench)
    assert all(bench.torque_on.values())
