"""A gripper that holds for long: from which torque on its servo protects itself."""

from typing import Any

import pytest

from deploy.configuration import validate
from deploy.errors import ConfigError
from deploy.feetech import registers, scs_registers
from deploy.robot_config import RobotConfig
from tests.deploy.conftest import MakeBench
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


def test_it_is_refused_where_nobody_keeps_it(so101: RobotConfig):
    document = so101.model_dump(exclude_unset=True)
    document["joints"]["gripper"] |= {"model": "XL330-M288"}
    with pytest.raises(ConfigError, match=r"overload_share 0\.25 is nothing that a XL330-M288"):
        validate(document, RobotConfig, source="arm.yaml")
