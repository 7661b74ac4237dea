"""`robotrl scan` in virtual time: a line for each part, an error for what is not as in the YAML."""

import re
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from deploy.configuration import load_yaml
from deploy.device import Device
from deploy.errors import BusError
from deploy.robot import Robot, bare_joints
from deploy.robot_config import RobotConfig
from robotrl.scan import scan

pytest.importorskip("mujoco", reason="the twin needs robotrl[train]")

from deploy.clock import VirtualClock
from deploy.twin.imu import IMU_MODELS
from deploy.twin.port import VirtualPort
from deploy.twin.robot import Twin
from tests.deploy.imu.conftest import Bench

ROOT = Path(__file__).parents[2]
Scanned = tuple[list[str], str]
"""The lines, and the error after them; empty if there is none."""


def scanned(devices: Sequence[Device]) -> Scanned:
    lines: list[str] = []
    try:
        for line in scan(devices, range(21)):
            lines.append(line)
    except BusError as error:
        return lines, str(error)
    return lines, ""


def scanned_robot(
    name: str, *changes: str, before: Callable[[Twin], None] = lambda twin: None
) -> Scanned:
    """Of the twin of a shipped robot, whose YAML says something else than it is."""
    path = ROOT / f"configs/robots/{name}.yaml"
    config, real = load_yaml(path, RobotConfig, changes), load_yaml(path, RobotConfig)
    twin = Twin(ROOT / f"envs/robots/{real.robot}/{real.robot}.xml", real)
    clock = VirtualClock()
    port = VirtualPort(twin, clock)
    clock.sleep_until(1.0)  # switched on a while ago
    twin.advance(1.0)
    before(twin)
    return scanned(Robot(config, bare_joints(config), dict.fromkeys(real.wired, port)).devices)


def test_arm_as_in_its_yaml_has_a_line_for_each_servo():
    lines, error = scanned_robot("desk_arm")
    assert not error
    assert len(lines) == 6
    assert re.fullmatch(
        r"bus: id 1 \(shoulder_pan\): XL430-W250, firmware \d+, 12\.0 V, \d+ °C, at count 2048, "
        r"torque off",
        lines[0],
    )


def test_servo_under_another_id_is_missing_and_the_stranger_is_shown():
    lines, error = scanned_robot("desk_arm", "joints.gripper.id=9")
    assert lines[5].startswith("bus: id 6 (not wired): XL330-M288, ")
    assert lines[6] == "bus: id 9 (gripper): no answer"
    assert error == (
        "gripper (id 9) does not answer. Check power, cables and baud rate, and correct `id` and "
        "`model` in the robot's YAML"
    )


def test_servo_of_another_model_is_named_with_both():
    _, error = scanned_robot("desk_arm", "joints.wrist_roll.model=XL330-M077")
    assert error.startswith("wrist_roll (id 5) is XL330-M288, expected XL330-M077. Check")


def test_one_of_several_models_with_the_same_number_is_no_other_model():
    lines, error = scanned_robot("so101")
    assert not error
    assert " or " in lines[0]


def test_imu_among_the_servos_says_where_down_is():
    lines, error = scanned_robot("microduck")
    assert not error
    found = re.fullmatch(
        r"bus: id 200 \(imu\): imu_to_dxl, down is (.*) in the robot's frame", lines[-1]
    )
    assert found
    assert len(lines) == 15


def test_imu_among_the_servos_that_is_silent_is_an_error():
    def silence(twin: Twin) -> None:
        twin.imus[0].silent = True

    lines, error = scanned_robot("microduck", before=silence)
    assert lines[-1] == "bus: id 200 (imu): no answer"
    assert error.startswith("id 200 (imu): no answer. Check power")


def test_board_says_what_it_drives():
    lines, error = scanned_robot("balancer")
    assert not error
    (line,) = lines
    assert line.startswith("board: firmware ")
    assert "0.00 rad, down is [0." in line


def test_board_with_another_number_of_joints_is_an_error():
    _, error = scanned_robot("balancer", "joints.right_wheel.id=2")
    assert "board 'board' has 2 joints, the robot's YAML gives it 2, with id [0, 2]" in error


def test_imu_on_a_port_of_its_own_says_what_it_measures():
    bench = Bench(IMU_MODELS["bno055"]())
    (line,), error = scanned([bench.imu("bno055")])
    assert not error
    assert re.fullmatch(r"imu: bno055, \d+ samples per second, bias( [+-]0\.\d\d){3} °/s", line)


def test_imu_on_a_port_of_its_own_that_is_silent_is_an_error():
    (line,), error = scanned([Bench(IMU_MODELS["bno055"]()).imu("bno08x_rvc")])
    assert line.startswith("imu: the bno08x_rvc at /dev/ttyUSB0 gives 0 samples per second")
    assert error.startswith("the bno08x_rvc at /dev/ttyUSB0 gives 0 samples per second")
