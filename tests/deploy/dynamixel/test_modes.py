"""Servos driven by speed and by torque: a balancer whose wheels hang on the computer's own bus, and
an arm whose torques are currents. What moves is the twin's; what it should do is the manual's."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from deploy.clock import VirtualClock
from deploy.configuration import load_yaml, validate
from deploy.direct import driven
from deploy.drive import Drive
from deploy.dynamixel import registers
from deploy.dynamixel.registers import OperatingMode
from deploy.errors import ConfigError, ServoError
from deploy.governor import Governor
from deploy.reconnect import find_again
from deploy.robot import Robot, bare_joints, understood_targets
from deploy.robot_config import RobotConfig

pytest.importorskip("mujoco", reason="the twin needs robotrl[train]")

from deploy.twin.port import VirtualPort
from deploy.twin.robot import Twin
from deploy.twin.servo import Servo
from tests.deploy.balancer import PERIOD_S, REPOSITORY, Wheels, balance, joint
from tests.deploy.faulty_arm import MODEL, arm, arm_contract

COUNT_RAD_S = 0.229 * 2 * math.pi / 60
"""eManual, "Goal Velocity(104)": 0.229 rev/min."""


@pytest.fixture
def wheels() -> Wheels:
    """Connected, driven and at rest."""
    wheels = Wheels()
    wheels.robot.connect()
    wheels.robot.energise()
    return wheels


def test_it_stands_up_and_balances_on_its_own_bus(wheels: Wheels):
    assert wheels.pitch == pytest.approx(0.384, abs=0.02)  # it leans on its bumper
    for tick in range(400):
        wheels.tick(balance(wheels))
        assert not wheels.robot.alarm()
        assert not wheels.robot.health(wheels.clock.now() + 0.006)
        if tick > 250:
            assert abs(wheels.pitch) < 0.05
    assert np.abs(wheels.twin._data.qpos[:2]).max() < 0.1
    assert wheels.monitor.violations == []


def test_servos_are_set_up_for_speed_and_nothing_else_is_changed(wheels: Wheels):
    assert {change.register for change in wheels.changes} == {
        "Return Delay Time",
        "Operating Mode",
        "Velocity Limit",
    }
    assert wheels.held(registers.OPERATING_MODE) == [1, 1]
    fastest = [counts * COUNT_RAD_S for counts in wheels.held(registers.VELOCITY_LIMIT)]
    assert fastest == pytest.approx([38.0, 38.0], rel=2e-3)
    # kd 0.0322 N·m·s/rad of a motor of 0.2 N·m: duty = P/128 · counts/885, so that an error of
    # 0.2 / 0.0322 = 6.21 rad/s, 259 counts, is full duty: P = 128 · 885 / 259 = 437
    assert wheels.held(registers.VELOCITY_P_GAIN) == pytest.approx([437, 437], abs=1)
    assert wheels.held(registers.VELOCITY_I_GAIN) == [0, 0]


def test_what_is_kept_in_the_servos_is_not_changed_unasked():
    wheels = Wheels()
    robot = Robot(wheels.config, wheels.robot.joints, {"bus": wheels.port})
    with pytest.raises(ServoError, match=r"left_wheel \(id 1\): Operating Mode \(11\) 3 -> 1"):
        robot.connect()
    assert wheels.held(registers.OPERATING_MODE) == [3, 3]


def test_a_speed_reaches_each_wheel_as_it_is_mounted(wheels: Wheels):
    wheels.tick(np.array([5.0, -5.0]))
    left, right = (counts * COUNT_RAD_S for counts in wheels.held(registers.GOAL_VELOCITY))
    assert (left, right) == pytest.approx((5.0, 5.0), abs=COUNT_RAD_S)  # mounted the other way
    np.testing.assert_allclose(wheels.robot.target, [5.0, -5.0], atol=COUNT_RAD_S)


def test_silence_stops_the_wheels_in_the_watchdogs_time(wheels: Wheels):
    for _ in range(20):
        wheels.tick(np.array([10.0, -10.0]))
    assert np.abs(wheels.twin.joint_velocity).min() > 5
    wheels.wait(0.104)
    assert wheels.held(registers.BUS_WATCHDOG) == [registers.BUS_WATCHDOG_TRIPPED] * 2
    wheels.wait(1.0)  # it rocks on its bumpers
    assert np.abs(wheels.twin.joint_velocity).max() < 0.05
    assert wheels.wheels_driven


def test_watchdogs_are_proved_and_the_wheels_still_afterwards(wheels: Wheels):
    assert wheels.robot.prove(wheels.clock) == [
        "bus: 2 servos had stopped by themselves after 140 ms of silence"
    ]
    for _ in range(10):
        wheels.tick(np.zeros(2))
    assert np.abs(wheels.twin.joint_velocity).max() < 0.1
    wheels.tick(np.array([5.0, -5.0]))  # they obey again
    assert all(wheels.held(registers.GOAL_VELOCITY))


@pytest.mark.parametrize("silent_s", [0.0, 0.3])
def test_holding_stands_still_for_good_also_after_the_watchdog_has_acted(
    wheels: Wheels, silent_s: float
):
    for _ in range(20):
        wheels.tick(np.array([10.0, -10.0]))
    wheels.wait(silent_s)
    wheels.robot.hold()
    wheels.monitor.stopped()
    wheels.wait(1.0)
    assert np.abs(wheels.twin.joint_velocity).max() < 0.1
    assert wheels.held(registers.GOAL_VELOCITY) == wheels.held(registers.BUS_WATCHDOG) == [0, 0]
    assert wheels.wheels_driven and wheels.monitor.violations == []
    wheels.robot.release()
    wheels.wait(0.1)
    assert not wheels.wheels_driven


@pytest.mark.parametrize("silent_s", [0.0, 0.3])
@pytest.mark.parametrize("mode", ["position", "velocity", "torque"])
def test_whoever_connects_next_stops_wheels_that_were_left_turning(
    wheels: Wheels, mode: str, silent_s: float
):
    for _ in range(20):
        wheels.tick(np.array([10.0, -10.0]))
    wheels.wait(silent_s)  # a watchdog that has tripped locks the goals, but keeps them
    joints = [joint(name, mode) for name in wheels.config.joints]
    again = Robot(wheels.config, joints, {"bus": wheels.port})
    if mode == "velocity":
        again.connect()
    else:
        with pytest.raises(ServoError, match=r"holds torque and its Operating Mode \(11\) is 1"):
            again.connect()
    wheels.wait(1.0)
    assert np.abs(wheels.twin.joint_velocity).max() < 0.1
    assert wheels.held(registers.GOAL_VELOCITY) == [0, 0]


@pytest.mark.parametrize("how", ["hold", "rescue", "connect"])
def test_a_joint_whose_watchdog_kept_its_goal_is_held_where_it_is(tmp_path: Path, how: str):
    config = arm("DYNAMIXEL")
    (tmp_path / "arm.xml").write_text(MODEL)
    clock, twin = VirtualClock(), Twin(tmp_path / "arm.xml", config)
    ports = {"bus": VirtualPort(twin, clock)}
    robot = Robot(config, bare_joints(config), ports, approve=lambda changes: True)
    robot.connect()
    robot.energise()
    clock.sleep_until(clock.now() + 0.3)
    twin.advance(clock.now())
    goal = registers.GOAL_POSITION
    for servo in twin.servos:  # the manual does not say what is in it by then
        assert isinstance(servo, Servo)
        servo._table.set(goal, 2048 + 400)
    {"hold": robot.hold, "rescue": lambda: robot.rescue(let_go=False), "connect": robot.connect}[
        how
    ]()
    held = [goal.decode(servo.read(goal.address, goal.size).data) for servo in twin.servos]
    assert held == pytest.approx([2048 + 65] * 2, abs=2)  # 0.1 rad from where they are


def test_no_speed_is_sent_that_the_servo_would_not_take(wheels: Wheels):
    robot = wheels.config.model_dump(exclude_unset=True)
    for wiring in robot["joints"].values():
        wiring["velocity_limit_rad_s"] = 55.0  # 2295 counts, Velocity Limit takes up to 2047
    config = validate(robot, RobotConfig, source="fast.yaml")
    wheels.robot.release()
    fast = Robot(config, wheels.robot.joints, {"bus": wheels.port}, approve=lambda changes: True)
    fast.connect()
    fast.energise()
    assert wheels.held(registers.VELOCITY_LIMIT) == [2047, 2047]
    fast.write(np.array([3.0, -3.0]))
    fast.write(np.array([55.0, 55.0]))  # else the 3 rad/s would stay
    wheels.twin.advance(wheels.clock.now() + 0.002)
    assert wheels.held(registers.GOAL_VELOCITY) == [2047, -2047]
    fast.release()


@pytest.mark.parametrize("let_go", [True, False])
@pytest.mark.parametrize("mode", ["position", "velocity"])
def test_another_program_stops_wheels_whatever_it_takes_them_for(
    wheels: Wheels, let_go: bool, mode: str
):
    for _ in range(20):
        wheels.tick(np.array([10.0, -10.0]))
    joints = [joint(name, mode) for name in wheels.config.joints]
    Robot(wheels.config, joints, {"bus": wheels.port}).rescue(let_go=let_go)
    wheels.wait(1.0)
    assert wheels.wheels_driven != let_go
    assert wheels.held(registers.BUS_WATCHDOG) == [0, 0]
    if not let_go:
        assert np.abs(wheels.twin.joint_velocity).max() < 0.1


def test_wheels_that_are_let_go_keep_no_speed_for_whoever_comes_next(wheels: Wheels):
    wheels.tick(np.array([10.0, -10.0]))
    assert all(wheels.held(registers.GOAL_VELOCITY))
    wheels.robot.release()
    assert wheels.held(registers.GOAL_VELOCITY) == [0, 0] and not wheels.wheels_driven


def test_wheels_that_have_turned_often_are_no_reason_to_refuse(wheels: Wheels):
    for _ in range(200):
        wheels.tick(np.array([30.0, -30.0]))
    wheels.robot.release()
    wheels.wait(0.5)
    assert np.abs(wheels.twin.joint_position).min() > 4 * math.pi
    again = Robot(wheels.config, wheels.robot.joints, {"bus": wheels.port})
    again.connect()
    assert again.rest_differences() == []
    again.energise()
    np.testing.assert_allclose(again.position, wheels.twin.joint_position, atol=0.1)


def test_wheels_that_rolled_on_while_they_were_lost_are_back_and_stand_still(wheels: Wheels):
    governor = Governor(wheels.robot.joints, PERIOD_S, wheels.config)
    drive = Drive(wheels.robot, governor, wheels.clock, PERIOD_S)
    drive.begin_run()
    for _ in range(100):
        wheels.tick(np.array([10.0, -10.0]))
    drive.sent[:] = 10.0, -10.0
    before = wheels.robot.position.copy()
    wheels.wait(1.0)  # without a cable; the watchdogs stop them
    find_again(drive)
    assert np.abs(wheels.robot.position - before).max() > wheels.config.safety.pose_tolerance_rad
    wheels.wait(1.0)  # until somebody resumes
    assert np.abs(wheels.twin.joint_velocity).max() < 0.1
    assert wheels.monitor.violations == []


def test_only_what_measures_its_current_obeys_torques():
    wheels = load_yaml(REPOSITORY / "configs/robots/balancer_bus.yaml", RobotConfig)
    kinds = ("joint_position_target", "joint_velocity_target", "joint_torque_target")
    assert understood_targets(wheels) == kinds
    assert understood_targets(arm("DYNAMIXEL")) == kinds[:2]  # an XL430 is among them
    assert understood_targets(arm("Feetech STS")) == kinds[:1]


def test_joints_driven_in_two_ways_are_refused():
    wheels = load_yaml(REPOSITORY / "configs/robots/balancer_bus.yaml", RobotConfig)
    joints = [joint("left_wheel", "velocity"), joint("right_wheel", "torque")]
    with pytest.raises(ConfigError, match="'bus' are driven by torque and velocity, expected one"):
        Wheels(joints)
    assert {spec.operating_mode for spec in bare_joints(wheels)} == {"velocity"}
    assert {spec.operating_mode for spec in bare_joints(arm("DYNAMIXEL"))} == {"position"}


class Torques:
    """The arm of the fault matrix, driven by torque."""

    def __init__(self, folder: Path):
        path = folder / "arm.xml"
        path.write_text(MODEL)
        config = arm("DYNAMIXEL by torque")
        self.clock, self.twin = VirtualClock(), Twin(path, config)
        self.contract = arm_contract(config, "torque")
        ports = {"bus": VirtualPort(self.twin, self.clock)}
        self.robot = Robot(config, self.contract.joints, ports, approve=lambda changes: True)
        self.robot.connect()
        self.robot.energise()

    def drive(self, torques: list[float], ticks: int) -> None:
        for _ in range(ticks):
            self.clock.sleep_until(self.clock.now() + 0.02)
            self.robot.read(self.clock.now() + 0.005)
            self.robot.write(np.array(torques))
        self.twin.advance(self.clock.now() + 0.01)


def test_a_torque_is_a_current_in_proportion_to_the_stall_torque(tmp_path: Path):
    arm = Torques(tmp_path)
    arm.drive([0.0, 0.05], 20)
    register = registers.GOAL_CURRENT
    reply = arm.twin.servos[1].read(register.address, register.size)
    # eManual: an XL330-M288 stalls with 0.52 N·m at 1.47 A, and a count is 1 mA. The contract's
    # motor has friction to overcome in addition, so its 0.05 N·m are a smaller part of more.
    full_nm = arm.contract.joints[1].effort_limit_nm
    assert full_nm > 0.52
    assert register.decode(reply.data) == round(1470 * 0.05 / full_nm)


def test_the_motor_gives_the_torque_that_was_asked_for(tmp_path: Path):
    arm = Torques(tmp_path)
    for torque in (0.05, -0.08, 0.0):
        arm.drive([0.0, torque], 30)
        # the twin's motor knows the data sheet's stall torque alone
        share = 0.52 / arm.contract.joints[1].effort_limit_nm
        assert arm.twin.motor_torque[1] == pytest.approx(share * torque, abs=0.004)


def test_more_than_the_servo_may_draw_is_cut_off_before_it_is_sent(tmp_path: Path):
    arm = Torques(tmp_path)
    arm.drive([0.0, 9.0], 1)  # no governor stands in between here
    register = registers.GOAL_CURRENT
    reply = arm.twin.servos[1].read(register.address, register.size)
    assert register.decode(reply.data) == 1750  # Current Limit, as it leaves the factory
    assert arm.robot.health(arm.clock.now() + 0.02) in ("", None)


def test_holding_what_is_driven_by_torque_drives_it_no_more(tmp_path: Path):
    arm = Torques(tmp_path)
    arm.drive([0.0, 0.1], 10)
    arm.robot.hold()
    arm.clock.sleep_until(arm.clock.now() + 1.0)
    arm.twin.advance(arm.clock.now())
    assert np.abs(arm.twin.motor_torque).max() < 0.002
    modes = [servo.read(11, 1).data[0] for servo in arm.twin.servos]
    assert modes == [OperatingMode.CURRENT] * 2


def squeeze(folder: Path, current_limit_a: float | None) -> float:
    """The most current [A] with which the elbow goes half a radian into something hard."""
    path = folder / "arm.xml"
    path.write_text(MODEL)
    config = arm("DYNAMIXEL")
    elbow = config.joints["elbow"].model_copy(update={"current_limit_a": current_limit_a})
    config = config.model_copy(update={"joints": config.joints | {"elbow": elbow}})
    clock, twin = VirtualClock(), Twin(path, config)
    ports = {"bus": VirtualPort(twin, clock)}
    robot = Robot(config, bare_joints(config), ports, approve=lambda changes: True)
    currents: list[float] = []
    a_per_nm = 1.47 / 0.52  # eManual, XL330-M288 at 5 V
    twin.on_step = lambda: currents.append(abs(twin.motor_torque[1]) * a_per_nm)
    with driven(robot, clock) as direct:
        twin.block("elbow")
        direct.move({"elbow": 0.5})
        clock.sleep_until(clock.now() + 1.0)
        assert abs(direct.position["elbow"]) < 0.1
        twin.block("elbow", False)
    return max(currents)


def test_a_current_limit_holds_gently(tmp_path: Path):
    assert squeeze(tmp_path, 0.15) == pytest.approx(0.15, rel=0.1)
    # factory gains: 0.5 rad · 400/256 · 4096/2π / 885 is 0.58 of full duty
    assert squeeze(tmp_path, None) == pytest.approx(0.58 * 1.47, rel=0.1)


def test_a_current_limit_is_the_servos_own_too(tmp_path: Path):
    config = arm("DYNAMIXEL")
    elbow = config.joints["elbow"].model_copy(update={"current_limit_a": 0.15})
    config = config.model_copy(update={"joints": config.joints | {"elbow": elbow}})
    (tmp_path / "arm.xml").write_text(MODEL)
    clock, twin = VirtualClock(), Twin(tmp_path / "arm.xml", config)
    ports = {"bus": VirtualPort(twin, clock)}
    Robot(config, bare_joints(config), ports, approve=lambda changes: True).connect()
    mode, goal = registers.OPERATING_MODE, registers.GOAL_CURRENT
    found = [
        [register.decode(servo.read(register.address, register.size).data) for servo in twin.servos]
        for register in (mode, goal)
    ]
    assert found[0] == [OperatingMode.POSITION, OperatingMode.CURRENT_BASED_POSITION]
    assert found[1][1] == 150  # a count is 1 mA


@pytest.mark.parametrize(
    ("model", "limit_a", "problem"),
    [
        ("XL430-W250", 0.2, "for a XL430-W250, which cannot be told one; leave it out"),
        ("STS3215-12V", 0.2, "for a STS3215-12V, which cannot be told one"),
        ("XL330-M288", 1.8, "for a XL330-M288, expected at most 1.75 A"),
    ],
)
def test_a_current_limit_is_refused_where_it_would_be_none(
    model: str, limit_a: float, problem: str
):
    document = arm("DYNAMIXEL").model_dump(exclude_unset=True)
    document["joints"]["elbow"] |= {"model": model, "current_limit_a": limit_a}
    with pytest.raises(ConfigError, match=problem):
        validate(document, RobotConfig, source="arm.yaml")


def by_vendor(address: int, size: int, goals: dict[int, int]) -> bytes:
    """What dynamixel_sdk sends to give servos, by id, their goals [counts]."""
    from tests.deploy.dynamixel.vendor import Wire, sdk

    wire = Wire()
    group = sdk.GroupSyncWrite(wire, sdk.PacketHandler(2.0), address, size)
    for id, goal in goals.items():
        assert group.addParam(id, list(goal.to_bytes(size, "little", signed=True)))
    assert group.txPacket() == sdk.COMM_SUCCESS
    return wire.bytes


def test_speeds_are_the_bytes_that_the_vendors_sdk_sends(
    wheels: Wheels, monkeypatch: pytest.MonkeyPatch
):
    sent: list[bytes] = []
    monkeypatch.setattr(wheels.port, "write", lambda data: sent.append(bytes(data)))
    wheels.robot.write(np.array([5.0, 3.0]))
    # eManual: Goal Velocity (104) has 4 bytes; 5 rad/s is 47.75 rev/min, 208.5 counts of 0.229,
    # which is 0.2289 rounded; the right wheel is mounted the other way round
    assert sent == [by_vendor(104, 4, {1: 209, 2: -125})]


def test_torques_are_the_bytes_that_the_vendors_sdk_sends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    arm, sent = Torques(tmp_path), list[bytes]()
    device = arm.robot.devices[0]
    monkeypatch.setattr(device._port, "write", lambda data: sent.append(bytes(data)))  # pyright: ignore[reportAttributeAccessIssue]
    arm.robot.write(np.array([-0.5, 0.05]))
    # eManual: Goal Current (102) has 2 bytes; an XM430 stalls at 2.3 A, 2.69 mA a count
    shoulder, elbow = (joint.effort_limit_nm for joint in arm.contract.joints)
    counts = {1: round(2300 / 2.69 * -0.5 / shoulder), 2: round(1470 * 0.05 / elbow)}
    assert sent == [by_vendor(102, 2, counts)]
