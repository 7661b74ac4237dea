"""The contract keeps every digit, refuses what is inconsistent, and names every difference."""

import json
import math
from collections.abc import Callable
from typing import Any

import pytest

from deploy.contract import HASH_KEY, Contract, hash_metadata, matches, parse_contract
from deploy.errors import ContractError, DeployError
from deploy.robot_config import RobotConfig

Document = dict[str, Any]
JOINTS = ["shoulder_pan", "shoulder_lift", "elbow_flex", "wrist_flex", "wrist_roll", "gripper"]


@pytest.fixture
def document(contract: Contract) -> Document:
    """The contract of the desk arm as plain data, to be changed."""
    return contract.model_dump(mode="json")


def refusal(document: object) -> str:
    text = document if isinstance(document, str) else json.dumps(document)
    with pytest.raises(ContractError) as error:
        parse_contract(text, source="policy.onnx")
    return str(error.value)


def wired(robot: RobotConfig, **joints: dict[str, Any] | None) -> RobotConfig:
    """The robot with some joints changed, added, or removed (None)."""
    document = robot.model_dump()
    for name, changes in joints.items():
        if changes is None:
            del document["joints"][name]
        else:
            document["joints"][name] = document["joints"].get(name, {}) | changes
    return RobotConfig.model_validate(document)


def differences(contract: Contract, robot: RobotConfig) -> list[str]:
    """The lines of the refusal between its first and its last."""
    with pytest.raises(ContractError) as error:
        matches(contract, robot)
    first, *lines, last = str(error.value).splitlines()
    assert first == "the policy does not fit this robot:"
    assert last == "Use a policy exported for this robot, or correct the robot's YAML."
    return [line.strip() for line in lines]


def test_contract_survives_its_json_to_the_last_digit(contract: Contract):
    joint = contract.joints[0].model_copy(update={"kp": 0.1 + 0.2, "default_position": 1 / 3})
    exact = contract.model_copy(update={"joints": [joint, *contract.joints[1:]]})

    parsed = parse_contract(exact.model_dump_json(), source="")

    assert parsed == exact
    assert parsed.joints[0].kp == 0.30000000000000004


def test_other_schema_version_is_refused_with_both_versions(document: Document):
    document["schema_version"] = 7

    assert refusal(document) == (
        "policy.onnx: the contract has schema version 7, this robotrl reads 1. Export the policy "
        "again with this version, or install the robotrl that exported it."
    )


def test_version_is_checked_before_fields_that_it_may_have_changed():
    assert "schema version 2" in refusal({"schema_version": 2, "anything": "else"})


@pytest.mark.parametrize("text", ["", "{", "[]", "3", "{}", '"text"'])
def test_text_that_is_no_contract_is_refused(text: str):
    assert refusal(text) == (
        "policy.onnx: the metadata 'robotrl.contract' is not a robotrl contract; export the policy "
        "again with `robotrl export`"
    )


def test_missing_and_unknown_fields_are_named(document: Document):
    del document["control_dt_s"]
    document["joints"][1]["kpp"] = document["joints"][1].pop("kp")

    text = refusal(document)

    assert text.startswith("policy.onnx: the contract is not valid: ")
    assert "control_dt_s: field required" in text
    assert "joints.1: unknown key 'kpp' (did you mean 'kp'?)" in text


def drop_element(document: Document) -> None:
    document["inputs"][0]["elements"].pop()


def rename_element(document: Document) -> None:
    document["inputs"][0]["elements"][5] = "tail"


def repeat_joint(document: Document) -> None:
    document["joints"][1]["name"] = "shoulder_pan"
    for tensor in document["inputs"][:3] + document["outputs"]:
        tensor["elements"][1] = "shoulder_pan"


def reverse_limits(document: Document) -> None:
    document["joints"][0]["position_limits"].reverse()


def start_outside_limits(document: Document) -> None:
    document["joints"][0]["default_position"] = 3.0


def shorten_command(document: Document) -> None:
    document["command"]["low"].pop()


def reverse_command(document: Document) -> None:
    low, high = document["command"]["low"], document["command"]["high"]
    low[2], high[2] = high[2], low[2]


def lose_stiffness(document: Document) -> None:
    document["joints"][0]["kp"] = math.nan


def stop_time(document: Document) -> None:
    document["control_dt_s"] = 0


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (
            drop_element,
            f"(top level): 'joint_position': expected the elements {JOINTS}, found {JOINTS[:5]}",
        ),
        (
            rename_element,
            f"(top level): 'joint_position': expected the elements {JOINTS}, found "
            f"{[*JOINTS[:5], 'tail']}",
        ),
        (stop_time, "control_dt_s: input should be greater than or equal to 0.001, found 0"),
        (lose_stiffness, "joints.0.kp: input should be a finite number, found nan"),
        (
            reverse_limits,
            "joints.0: shoulder_pan: position_limits must be [low, high], found [2.2, -2.2]",
        ),
        (
            start_outside_limits,
            "joints.0: shoulder_pan: default_position 3.0 is outside position_limits [-2.2, 2.2]",
        ),
        (
            shorten_command,
            "command: command 'target_position': [0.12, -0.14] to [0.22, 0.14, 0.2] is no range",
        ),
        (
            reverse_command,
            "command: command 'target_position': [0.12, -0.14, 0.2] to [0.22, 0.14, 0.05] is no "
            "range",
        ),
        (
            repeat_joint,
            "(top level): joints must have different names, found ['shoulder_pan', "
            "'shoulder_pan', 'elbow_flex', 'wrist_flex', 'wrist_roll', 'gripper']",
        ),
    ],
)
def test_inconsistent_contract_is_refused(
    document: Document, change: Callable[[Document], None], problem: str
):
    change(document)

    assert refusal(document) == f"policy.onnx: the contract is not valid: {problem}"


def test_hash_of_the_metadata_covers_every_entry_but_itself():
    metadata = {"contract": "{}", "joint_names": "a,b"}
    expected = hash_metadata(metadata)

    assert hash_metadata(dict(reversed(metadata.items())) | {HASH_KEY: expected}) == expected
    for other in (
        {"contract": "{ }", "joint_names": "a,b"},
        {"contract": "{}", "joint_names": "b,a"},
        {"contract": "{}"},
        {"contract": "{}", "joint_name": "sa,b"},
        {"contract": "{}joint_names", "": "a,b"},
    ):
        assert hash_metadata(other) != expected


def test_policy_of_this_robot_is_accepted(contract: Contract, desk_arm: RobotConfig):
    matches(contract, desk_arm)


def test_policy_of_another_robot_is_refused(contract: Contract, desk_arm: RobotConfig):
    other = desk_arm.model_copy(update={"robot": "so101"})

    assert differences(contract, other) == ["robot: the policy is for 'desk_arm', this is 'so101'"]


def test_missing_joint_is_named(contract: Contract, desk_arm: RobotConfig):
    assert differences(contract, wired(desk_arm, gripper=None)) == [
        "joint 'gripper': in the policy but not wired on this robot"
    ]


def test_extra_joint_is_named(contract: Contract, desk_arm: RobotConfig):
    extra = desk_arm.joints["gripper"].model_dump() | {"id": 9}

    assert differences(contract, wired(desk_arm, tail=extra)) == [
        "joint 'tail': wired on this robot but not in the policy"
    ]


@pytest.mark.parametrize("limits", [(-2.0, 2.2), (-2.2, 2.0)])
def test_hardware_with_less_range_is_refused(
    contract: Contract, desk_arm: RobotConfig, limits: tuple[float, float]
):
    narrower = wired(desk_arm, shoulder_pan={"position_limits_rad": limits})

    assert differences(contract, narrower) == [
        f"joint 'shoulder_pan': the policy uses [-2.2, 2.2] rad, the hardware allows {list(limits)}"
    ]


def test_hardware_with_more_range_is_accepted(contract: Contract, desk_arm: RobotConfig):
    matches(contract, wired(desk_arm, shoulder_pan={"position_limits_rad": (-3.0, 3.0)}))


def test_servo_of_another_torque_is_refused(contract: Contract, desk_arm: RobotConfig):
    weaker = wired(desk_arm, shoulder_lift={"model": "XL330-M288"})

    assert differences(contract, weaker) == [
        "joint 'shoulder_lift': trained with a servo of 1.5 N·m, XL330-M288 has 0.52 N·m"
    ]


def test_slower_hardware_is_refused(contract: Contract, desk_arm: RobotConfig):
    slower = wired(desk_arm, gripper={"velocity_limit_rad_s": 1.0})

    assert differences(contract, slower) == [
        "joint 'gripper': the policy moves at up to 2 rad/s, the hardware allows 1 rad/s"
    ]


def test_gain_that_the_servo_cannot_hold_is_refused(contract: Contract, desk_arm: RobotConfig):
    stiff = contract.joints[0].model_copy(update={"kp": 1000.0})
    stiff_contract = contract.model_copy(update={"joints": [stiff, *contract.joints[1:]]})

    (difference,) = differences(stiff_contract, desk_arm)

    assert difference.startswith("joint 'shoulder_pan': ")
    assert "1000" in difference


def test_order_of_the_wiring_does_not_matter(contract: Contract, desk_arm: RobotConfig):
    reordered = desk_arm.model_copy(update={"joints": dict(reversed(desk_arm.joints.items()))})

    matches(contract, reordered)


def test_every_difference_is_named_at_once(contract: Contract, desk_arm: RobotConfig):
    extra = desk_arm.joints["gripper"].model_dump() | {"id": 9}
    other = wired(
        desk_arm,
        gripper=None,
        tail=extra,
        shoulder_lift={"model": "XL330-M288", "position_limits_rad": (-1.5, 1.0)},
    ).model_copy(update={"robot": "so101"})

    assert differences(contract, other) == [
        "robot: the policy is for 'desk_arm', this is 'so101'",
        "joint 'gripper': in the policy but not wired on this robot",
        "joint 'tail': wired on this robot but not in the policy",
        "joint 'shoulder_lift': the policy uses [-1.5, 1.57] rad, the hardware allows [-1.5, 1.0]",
        "joint 'shoulder_lift': trained with a servo of 1.5 N·m, XL330-M288 has 0.52 N·m",
    ]


def test_error_is_both_ours_and_a_value_error():
    assert issubclass(ContractError, DeployError)
    assert issubclass(ContractError, ValueError)
