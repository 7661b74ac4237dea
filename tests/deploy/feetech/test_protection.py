"""A gripper that holds for long: from which torque on its servo protects itself."""

from pathlib import Path
from typing import Any

import pytest

from deploy.clock import VirtualClock
from deploy.configuration import validate
from deploy.direct import driven
from deploy.errors import ConfigError, SafetyError
from deploy.feetech import registers, scs_registers
from deploy.robot import Robot, bare_joints
from deploy.robot_config import RobotConfig
from deploy.servos.models import SERVOS

pytest.importorskip("mujoco", reason="the twin needs robotrl[train]")

from deploy.twin.port import VirtualPort
from deploy.twin.robot import Twin
from tests.deploy.conftest import MakeBench
from tests.deploy.faulty_arm import MODEL, arm
from tests.deploy.test_faults import SO101_PATH


def test_gripper_of_an_so101_is_told_and_keeps_it(
    make_bench: MakeBench, so101: RobotConfig, so101_contract: Any
):
    bench = make_bench(so101, contract=so101_contract, model_path=SO101_PATH)
    bench.robot.connect()
    bench.servo("gripper").reboot()

    # LeRobot sets Overload_Torque of the gripper to 25 [%]; 80 is what leaves the factory
    found = {joint: bench.get(joint, registers.OVERLOAD_TORQUE) for joint in so101.joints}
    assert found == dict.fromkeys(so101.joints, 80) | {"gripper": 25}


def test_scs_keep_it_in_another_place(
    make_bench: MakeBench, scs_arm: RobotConfig, scs_contract: Any, scs_arm_path: Any
):
    bench = make_bench(scs_arm, contract=scs_contract, model_path=scs_arm_path)
    bench.robot.connect()
    assert bench.get("gripper", scs_registers.OVERLOAD_TORQUE) == 25
    assert bench.get("shoulder_pan", scs_registers.OVERLOAD_TORQUE) == 80


def test_servo_itself_gives_no_more_wherever_a_host_that_died_has_sent_it(so101: RobotConfig):
    clock, twin = VirtualClock(), Twin(SO101_PATH, so101)
    ports = {"bus": VirtualPort(twin, clock)}
    Robot(so101, bare_joints(so101), ports, approve=lambda changes: True).connect()
    row = twin.joints.index("gripper")
    servo = twin.servos[row]
    twin.block("gripper")
    for register, value in ((registers.GOAL_POSITION, 3000), (registers.TORQUE_ENABLE, 1)):
        servo.write(register.address, register.encode(value))
    twin.advance(clock.now() + 4.0)

    stall_nm = SERVOS["STS3215-12V"].nominal.stall_torque_nm
    assert abs(float(twin.motor_torque[row])) == pytest.approx(0.9 * 0.25 * stall_nm, rel=0.05)
    assert not servo.read(registers.STATUS.address, 1).data[0]  # nor does it protect itself


def squeeze(folder: Path, overload_share: float | None) -> float:
    """The most torque [N·m] with which the elbow goes for 6 s into something hard."""
    (folder / "arm.xml").write_text(MODEL)
    config = arm("Feetech STS", move_to_start_s=6.0, pose_tolerance_rad=0.3)
    elbow = config.joints["elbow"].model_copy(update={"overload_share": overload_share})
    config = config.model_copy(update={"joints": config.joints | {"elbow": elbow}})
    clock, twin = VirtualClock(), Twin(folder / "arm.xml", config)
    ports = {"bus": VirtualPort(twin, clock)}
    robot = Robot(config, bare_joints(config), ports, approve=lambda changes: True)
    robot.connect()
    register = registers.OVERLOAD_TORQUE
    twin.servos[1].write(register.address, register.encode(25))  # a servo that LeRobot has set up
    torques: list[float] = []
    twin.on_step = lambda: torques.append(abs(float(twin.motor_torque[1])))
    with driven(robot, clock) as direct:
        twin.block("elbow")
        try:
            direct.move({"elbow": 0.2})
        finally:
            twin.block("elbow", False)
    return max(torques)


def test_it_is_not_asked_for_what_it_protects_itself_from(tmp_path: Path):
    stall_nm = SERVOS["STS3215-12V"].nominal.stall_torque_nm
    assert squeeze(tmp_path, 0.25) == pytest.approx(0.9 * 0.25 * stall_nm, rel=0.05)

    with pytest.raises(SafetyError, match="elbow: overload"):
        squeeze(tmp_path, None)


def test_jaw_that_may_ask_for_little_is_given_the_time(so101: RobotConfig):
    clock, twin = VirtualClock(), Twin(SO101_PATH, so101)
    ports = {"bus": VirtualPort(twin, clock)}
    robot = Robot(so101, bare_joints(so101), ports, approve=lambda changes: True)
    with driven(robot, clock) as direct:
        for angle in (1.7, -0.1):
            direct.move({"gripper": angle, "wrist_roll": 0.1})
            assert direct.position["gripper"] == pytest.approx(angle, abs=0.01)


@pytest.mark.parametrize(
    ("joint", "device", "problem"),
    [
        ({"model": "XL330-M288"}, {}, r"overload_share 0\.25 is nothing that a XL330-M288"),
        ({"overload_share": 0.8}, {}, r"overload_share.*0\.5.*0\.8"),
        ({}, {"protocol": "microcontroller"}, "'gripper' has an overload_share on .*microcontroll"),
    ],
)
def test_it_is_refused_where_nobody_keeps_it(
    so101: RobotConfig, joint: dict[str, object], device: dict[str, object], problem: str
):
    document = so101.model_dump(exclude_unset=True)
    document["joints"]["gripper"] |= joint
    if device:
        del document["bus"]
        document["devices"] = {"board": {"port": "/dev/b", **device}}
        for id, wiring in enumerate(document["joints"].values()):
            wiring["id"] = id
    with pytest.raises(ConfigError, match=problem):
        validate(document, RobotConfig, source="arm.yaml")
