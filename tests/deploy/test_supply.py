"""Servos on another supply than their nominal one: the microduck's XL330s on two lithium cells."""

from collections.abc import Callable
from pathlib import Path

import pytest

from deploy.clock import VirtualClock
from deploy.configuration import load_yaml
from deploy.contract import Contract
from deploy.device import SettingChange
from deploy.dynamixel import registers
from deploy.dynamixel.registers import HardwareError, Register
from deploy.errors import ContractError, ServoError
from deploy.fit import matches
from deploy.robot import Robot
from deploy.robot_config import RobotConfig

pytest.importorskip("mujoco", reason="the twin needs robotrl[train]")

from deploy.twin.parameters import draw
from deploy.twin.port import VirtualPort
from deploy.twin.robot import Twin
from deploy.twin.servo import Servo
from envs.robot import load_robot

DUCK = Path(__file__).parents[2] / "configs/robots/microduck.yaml"
MODEL = load_robot("microduck")
JOINTS = MODEL.joint_specs(velocity_limit=20.0)
KNEE = "left_knee"

Approve = Callable[[list[SettingChange]], bool]


@pytest.fixture
def config() -> RobotConfig:
    return load_yaml(DUCK, RobotConfig)


@pytest.fixture
def twin(config: RobotConfig) -> Twin:
    return Twin(MODEL.path, config)


def agreed(changes: list[SettingChange]) -> bool:
    return True


def connected(config: RobotConfig, twin: Twin, approve: Approve = agreed) -> Robot:
    robot = Robot(config, JOINTS, {"bus": VirtualPort(twin, VirtualClock())}, approve=approve)
    robot.connect()
    return robot


def get(twin: Twin, register: Register, joint: str = KNEE) -> int:
    servo = twin.servos[twin.joints.index(joint)]
    return register.decode(servo.read(register.address, register.size).data)


def live(robot: Robot, twin: Twin, ticks: int) -> list[str]:
    """What is found wrong while the robot runs."""
    found, start_s = [], twin.time_s
    for tick in range(1, ticks + 1):
        now_s = start_s + 0.02 * tick
        port = robot.devices[0]._port._port  # pyright: ignore[reportAttributeAccessIssue]
        port._clock.sleep_until(now_s)
        robot.read(now_s + 0.01)
        robot.write(robot.target)
        if alarm := robot.alarm():
            found.append(alarm.removeprefix("a servo reports an error: "))
        if wrong := robot.health(now_s + 0.019):
            found.append(wrong)
    return found


def test_a_policy_of_the_shipped_model_fits_the_shipped_robot(
    contract: Contract, config: RobotConfig
):
    policy = contract.model_copy(update={"robot": "microduck", "joints": JOINTS})

    matches(policy, config)


def test_a_policy_for_another_supply_is_refused(contract: Contract):
    policy = contract.model_copy(update={"robot": "microduck", "joints": JOINTS})
    changes = [f"joints.{KNEE}.supply_v=6.5", f"joints.{KNEE}.velocity_limit_rad_s=20"]
    converted = load_yaml(DUCK, RobotConfig, changes)

    with pytest.raises(ContractError) as error:
        matches(policy, converted)
    assert str(error.value).splitlines()[1] == (  # 0.52 N·m · 6.5/5
        "  joint 'left_knee': trained with a servo of 0.789 N·m, XL330-M288 has 0.676 N·m at 6.5 V"
    )


def test_servos_get_the_gain_that_upstream_walks_with(config: RobotConfig, twin: Twin):
    connected(config, twin)

    assert {get(twin, registers.POSITION_P_GAIN, joint) for joint in config.joints} == {200}


def test_servos_above_their_limit_are_told_to_put_up_with_it_if_that_is_approved(
    config: RobotConfig, twin: Twin
):
    asked: list[SettingChange] = []
    with pytest.raises(ServoError, match="Approve it"):
        connected(config, twin, lambda changes: bool(asked.extend(changes)))
    assert f"{KNEE} (id 23): Shutdown (63) 53 -> 52" in map(str, asked)

    connected(config, twin)

    assert get(twin, registers.SHUTDOWN) == 52  # as upstream sets it


def test_servos_that_always_complain_of_their_supply_run(config: RobotConfig, twin: Twin):
    robot = connected(config, twin)
    assert get(twin, registers.HARDWARE_ERROR_STATUS) == HardwareError.INPUT_VOLTAGE
    robot.energise()

    assert live(robot, twin, 30) == []
    assert all(servo.torque_on for servo in twin.servos)


def test_any_other_fault_of_such_a_servo_is_found_within_a_round(config: RobotConfig, twin: Twin):
    robot = connected(config, twin)
    robot.energise()
    errors = HardwareError.INPUT_VOLTAGE | HardwareError.OVERHEATING
    servo = twin.servos[twin.joints.index(KNEE)]
    assert isinstance(servo, Servo)
    servo._table.set(registers.HARDWARE_ERROR_STATUS, errors)

    assert live(robot, twin, len(JOINTS)) == ["left_knee: overheating"]
    with pytest.raises(ServoError, match=r"left_knee \(id 23\) reports overheating; remove"):
        robot.connect()


@pytest.mark.parametrize("volts", [6.2, 8.6])
def test_another_battery_than_the_yaml_says_is_refused(
    config: RobotConfig, twin: Twin, volts: float
):
    for servo in twin.servos:
        servo.voltage_v = volts
    twin.advance(0.002)
    with pytest.raises(ServoError) as error:
        connected(config, twin)
    assert f"is supplied with {volts} V, expected 7.4 V ± 15%; check" in str(error.value)


@pytest.mark.parametrize("volts", [6.6, 8.4])
def test_two_cells_are_accepted_from_full_to_empty(config: RobotConfig, twin: Twin, volts: float):
    for servo in twin.servos:
        servo.voltage_v = volts
    connected(config, twin)


def test_a_robot_without_a_tool_is_drawn_without_a_payload(config: RobotConfig):
    parameters = draw(3, MODEL.path)

    assert parameters.payload_kg == 0
    connected(config, Twin(MODEL.path, config, parameters))
