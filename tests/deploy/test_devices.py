"""A robot on two buses with servos of two families: one order of joints, no fault that spreads."""

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from deploy.clock import VirtualClock
from deploy.configuration import parse_yaml, validate
from deploy.errors import BusError, ConfigError
from deploy.feetech import registers
from deploy.feetech.device import FeetechServos
from deploy.robot import Robot, bare_joints, measured_signals, understood_targets
from deploy.robot_config import RobotConfig
from deploy.servos.device import ServoDevice
from deploy.twin.half_duplex import HalfDuplex
from deploy.twin.port import VirtualPort
from deploy.twin.robot import Twin
from tests.deploy.conftest import FlakyPort
from tests.deploy.twin.conftest import ARM

LIMITS = {"position_limits_rad": [-1.5, 1.5], "velocity_limit_rad_s": 5.0}
DOCUMENT = {
    "robot": "arm",
    "devices": {
        "upper": {"port": "/dev/upper"},
        "lower": {"port": "/dev/lower", "protocol": "feetech_sts"},
    },
    "joints": {
        "elbow": {
            "device": "lower",
            "id": 1,  # of each bus
            "model": "STS3215-12V",
            "direction": -1,
            "rest_rad": 0.5,
            **LIMITS,
        },
        "shoulder": {"device": "upper", "id": 1, "model": "XL430-W250", "rest_rad": 0.0, **LIMITS},
    },
}
"""The elbow comes first, its bus second."""


def with_changes(**changes: object) -> RobotConfig:
    return validate(DOCUMENT | changes, RobotConfig, source="arm.yaml")


def refusal(**changes: object) -> str:
    with pytest.raises(ConfigError) as caught:
        with_changes(**changes)
    return str(caught.value)


@dataclass
class Rig:
    twin: Twin
    clock: VirtualClock
    ports: dict[str, FlakyPort]
    robot: Robot

    def servos(self, device: str) -> ServoDevice:
        found = next(item for item in self.robot.devices if item.name == device)
        assert isinstance(found, ServoDevice)
        return found

    def tick(self, target: np.ndarray | None = None) -> int:
        self.clock.sleep_until(self.clock.now() + 0.01)
        answered = self.robot.read(self.clock.now() + 0.008)
        if target is not None:
            self.robot.write(target)
        return answered


@pytest.fixture
def rig(tmp_path: Path) -> Rig:
    path = tmp_path / "arm.xml"
    path.write_text(ARM)
    config = with_changes()
    twin, clock = Twin(path, config), VirtualClock()
    ports = {
        name: FlakyPort(VirtualPort(twin, clock, 1_000_000, device=name)) for name in twin.devices
    }
    joints = bare_joints(config)
    return Rig(twin, clock, ports, Robot(config, joints, ports, approve=lambda changes: True))


def moving(rig: Rig) -> Rig:
    rig.robot.connect()
    rig.robot.energise()
    target = rig.robot.target
    for _ in range(30):
        target += (-0.01, 0.01)
        rig.tick(target)
    return rig


def test_readings_of_all_devices_are_in_the_order_of_the_joints(rig: Rig):
    rig.robot.connect()
    assert [joint.name for joint in rig.robot.joints] == ["elbow", "shoulder"]
    assert [device.name for device in rig.robot.devices] == ["upper", "lower"]
    assert rig.robot.position == pytest.approx(rig.twin.joint_position, abs=0.02)  # limp, it falls
    assert rig.robot.position == pytest.approx([0.5, 0.0], abs=0.05)
    assert rig.tick() == 2
    assert rig.robot.readings["joint_position"].values is rig.robot.position


def test_targets_reach_the_joint_they_are_for(rig: Rig):
    moving(rig)
    assert rig.robot.target == pytest.approx([0.2, 0.3], abs=0.02)
    for _ in range(50):
        rig.tick(rig.robot.target)
    assert rig.twin.joint_position == pytest.approx([0.2, 0.3], abs=0.05)


def test_what_it_measures_and_obeys_is_told_by_the_file_alone():
    assert measured_signals(with_changes()) == (
        "joint_position",
        "joint_velocity",
        "joint_current",
        "joint_voltage",
        "joint_temperature",
    )
    assert understood_targets(with_changes()) == ("joint_position_target",)


def test_statistics_are_those_of_all_devices(rig: Rig):
    rig.robot.connect()
    parts = [device.statistics.requests for device in rig.robot.devices]
    assert rig.robot.statistics.requests == sum(parts)
    assert min(parts) > 0
    longest = max(device.statistics.reply_times.max_s for device in rig.robot.devices)
    assert rig.robot.statistics.reply_times.max_s == longest


def test_bus_that_falls_silent_leaves_the_other_its_time(rig: Rig):
    moving(rig)
    rig.ports["upper"].replies_to_lose = math.inf  # read first
    assert rig.tick() == 1
    assert rig.robot.age_s[0] < 0.01
    assert rig.robot.age_s[1] > 0.01


@pytest.mark.parametrize("gone", ["upper", "lower"])
def test_bus_that_is_gone_keeps_none_of_the_others_from_holding(rig: Rig, gone: str):
    moving(rig)
    rig.ports[gone].unplugged = True
    with pytest.raises(BusError, match="the port is gone"):
        rig.robot.hold()
    (other,) = (name for name in rig.ports if name != gone)
    joint = rig.servos(other).joints[0]
    row = rig.twin.joints.index(joint)
    assert rig.twin.servos[row].torque_on
    reached = rig.twin.joint_position[row]
    rig.clock.sleep_until(rig.clock.now() + 1.0)
    rig.twin.advance(rig.clock.now())
    assert rig.twin.joint_position[row] == pytest.approx(reached, abs=0.15)


@pytest.mark.parametrize("gone", ["upper", "lower"])
def test_bus_that_is_gone_keeps_none_of_the_others_from_letting_go(rig: Rig, gone: str):
    moving(rig)
    rig.ports[gone].unplugged = True
    with pytest.raises(BusError, match="the port is gone"):
        rig.robot.release()
    (other,) = (name for name in rig.ports if name != gone)
    assert not rig.twin.servos[rig.twin.joints.index(rig.servos(other).joints[0])].torque_on


def test_device_that_could_not_be_energised_is_let_go_where_the_other_holds(rig: Rig):
    rig.robot.connect()
    rig.robot.devices[0].energise()
    rig.robot.hold()
    assert {
        name: servo.torque_on for name, servo in zip(rig.twin.joints, rig.twin.servos, strict=True)
    } == {"elbow": False, "shoulder": True}


def test_watchdog_of_one_device_does_not_trip_while_a_slow_one_is_energised(rig: Rig):
    rig.robot.connect()
    slow = rig.twin._wires["lower"]
    assert isinstance(slow, HalfDuplex)
    slow._usb_latency_s = 0.016  # seven requests take longer than 100 ms
    rig.robot.energise()
    assert rig.robot.health(rig.clock.now() + 0.02) == ""  # of the upper


def test_watchdog_of_one_device_does_not_trip_while_another_one_loses_replies(rig: Rig):
    rig.robot.connect()
    rig.ports["lower"].replies_to_lose = 2  # costs 110 ms, and as long again for late replies
    rig.robot.energise()
    assert rig.robot.health(rig.clock.now() + 0.02) == ""  # of the upper


def test_health_of_every_device_is_asked_for_in_turn(rig: Rig):
    moving(rig)
    rig.twin.servos[0].write(registers.ACCELERATION.address, b"\x05")
    found = [rig.robot.health(rig.clock.now() + 0.02) for _ in range(2)]
    assert sorted(found, key=str) == ["", "elbow: its Acceleration (41) reads 5, expected 0"]


def test_each_device_says_what_stops_it(rig: Rig):
    upper, lower = rig.robot.watchdogs()
    assert upper == "upper: its servos stop by themselves, torque on, after 100 ms of silence"
    assert lower.startswith("lower: its servos have NO watchdog of their own")


def test_reading_that_cannot_be_is_not_used(rig: Rig):
    moving(rig)
    before, servos = rig.robot.position[0], rig.servos("lower")
    assert isinstance(servos, FeetechServos)

    def spoil(received: memoryview) -> None:
        received[6] ^= 0x08  # half a turn; the checksum follows, as if the noise had been unlucky
        received[-1] = ~sum(received[2:-1]) & 0xFF

    rig.ports["lower"].damage = spoil
    rig.tick()
    rig.ports["lower"].damage = lambda received: None
    assert servos.statistics.implausible == 1
    assert rig.robot.position[0] == before
    rig.tick()
    assert rig.robot.position == pytest.approx(rig.twin.joint_position, abs=0.03)


def test_complaint_that_the_servo_does_not_confirm_stops_nothing(rig: Rig):
    moving(rig)

    def spoil(received: memoryview) -> None:
        received[4] |= 0x20  # overload
        received[-1] = ~sum(received[2:-1]) & 0xFF

    rig.ports["lower"].damage = spoil
    rig.tick()
    rig.ports["lower"].damage = lambda received: None
    assert rig.servos("lower").alerts.any()
    assert rig.robot.alarm() == ""


def test_servo_that_complains_raises_the_alarm(rig: Rig):
    moving(rig)
    rig.twin.servos[0].voltage_v = 15.0
    rig.tick(rig.robot.target)
    rig.tick(rig.robot.target)
    assert rig.robot.alarm() == "a servo reports an error: elbow: input voltage"


# The file


def test_one_bus_is_short_for_one_device():
    joint = DOCUMENT["joints"]["elbow"] | {"device": None}
    bus = {"port": "/dev/lower", "protocol": "feetech_sts"}
    short = with_changes(devices={}, bus=bus, joints={"elbow": joint})
    assert list(short.wired) == ["bus"]
    assert short.device_of("elbow") == "bus"
    assert short.at_ports({"bus": "/dev/pts/1"}).wired["bus"].port == "/dev/pts/1"


def test_other_ports_are_by_name():
    moved = with_changes().at_ports({"lower": "/dev/pts/1"})
    assert {name: bus.port for name, bus in moved.wired.items()} == {
        "upper": "/dev/upper",
        "lower": "/dev/pts/1",
    }


def test_file_without_a_bus_is_told_both_forms():
    message = refusal(devices={})
    assert "expected `bus:` or `devices:`, found neither; write `bus: {port: ...}`" in message


def test_file_with_both_forms_is_shown_how_it_is_written_in_one():
    assert refusal(bus={"port": "/dev/ttyUSB0", "baud_rate": 57600}) == (
        "arm.yaml: (top level): expected `bus:` with servos or `devices:`, found both; write in "
        "place of `bus:`\n"
        "devices:\n"
        "  bus: {port: /dev/ttyUSB0, baud_rate: 57600}\n"
        "  upper: {port: /dev/upper}\n"
        "  lower: {protocol: feetech_sts, port: /dev/lower}\n"
        "and `device: bus` at its joints"
    )


@pytest.mark.parametrize("protocol", ["microcontroller", "bno055"])
def test_device_that_is_no_bus_of_servos_is_shown_how_it_is_written(protocol: str):
    bus = {"protocol": protocol, "port": "/dev/ttyACM0", "baud_rate": 115200}
    message = refusal(devices={}, bus=bus)
    assert message == (
        "arm.yaml: (top level): expected `bus:` with servos or `devices:`, found a device with "
        f"protocol {protocol!r}; write in place of `bus:`\n"
        "devices:\n"
        f"  bus: {{protocol: {protocol}, port: /dev/ttyACM0, baud_rate: 115200}}"
    )
    lines = message.partition("`bus:`\n")[2]
    assert parse_yaml(lines, source="")["devices"] == {"bus": bus}


def elbow(**changes: object) -> dict[str, object]:
    return DOCUMENT["joints"] | {"elbow": DOCUMENT["joints"]["elbow"] | changes}


def test_joint_on_no_device_is_refused():
    message = refusal(joints=elbow(device=None))
    assert (
        "joint 'elbow' does not say on which device it is; add `device:` with one of upper"
        in message
    )


def test_joint_on_an_unknown_device_is_refused():
    message = refusal(joints=elbow(device="lowr"))
    assert "'elbow' is on device 'lowr' (did you mean 'lower'?); there are upper, lower" in message


def test_bus_without_a_joint_is_refused():
    message = refusal(joints={"elbow": DOCUMENT["joints"]["elbow"]})
    assert "no joint is on device 'upper'; add `device: upper` to those that are" in message


def test_servo_on_a_bus_of_another_family_is_refused():
    message = refusal(joints=elbow(device="upper", id=2))
    assert (
        "devices.upper.protocol dynamixel2 is none of 'elbow', a STS3215-12V; it speaks feetech_sts"
        in message
    )


def test_baud_rate_that_a_servo_does_not_have_is_refused():
    lower = DOCUMENT["devices"]["lower"] | {"baud_rate": 2_000_000}
    message = refusal(devices=DOCUMENT["devices"] | {"lower": lower})
    assert (
        "devices.lower.baud_rate 2000000 is none of 'elbow', a STS3215-12V; it can be set to"
        in message
    )
