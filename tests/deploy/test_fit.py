"""A policy that does not fit a robot is refused, and every difference is named at once."""

from collections.abc import Collection
from typing import Any

import pytest

from deploy.contract import Contract
from deploy.dynamixel.servos import MODELS
from deploy.errors import ContractError
from deploy.fit import lacking, matches
from deploy.robot_config import RobotConfig
from tests.deploy.conftest import driven_by, using


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
        "joint 'shoulder_lift': trained with a servo of 1.5 N·m, XL330-M288 has 0.52 N·m at 5 V"
    ]


def test_slower_hardware_is_refused(contract: Contract, desk_arm: RobotConfig):
    slower = wired(desk_arm, gripper={"velocity_limit_rad_s": 1.0})

    assert differences(contract, slower) == [
        "joint 'gripper': the policy moves at up to 2 rad/s, the hardware allows 1 rad/s"
    ]


def test_gain_that_the_servo_cannot_hold_is_refused(contract: Contract, desk_arm: RobotConfig):
    stiff = contract.joints[0].model_copy(update={"kp_nm_per_rad": 1000.0})
    stiff_contract = contract.model_copy(update={"joints": [stiff, *contract.joints[1:]]})

    (difference,) = differences(stiff_contract, desk_arm)

    assert difference.startswith("joint 'shoulder_pan': ")
    assert "1000" in difference


def test_damping_that_the_servo_cannot_hold_is_refused(contract: Contract, desk_arm: RobotConfig):
    damped = contract.joints[0].model_copy(update={"kd_nm_s_per_rad": 1000.0})
    changed = contract.model_copy(update={"joints": [damped, *contract.joints[1:]]})
    (difference,) = differences(changed, desk_arm)
    assert difference.startswith("joint 'shoulder_pan': XL430-W250 cannot be set to 1000 N·m·s/rad")


def test_stiffness_that_would_round_to_none_is_refused(contract: Contract, desk_arm: RobotConfig):
    limp = contract.joints[0].model_copy(update={"kp_nm_per_rad": 1e-3})
    limp_contract = contract.model_copy(update={"joints": [limp, *contract.joints[1:]]})

    assert differences(limp_contract, desk_arm) == [
        "joint 'shoulder_pan': XL430-W250 cannot be set to 0.001 N·m/rad, the nearest it has is 0 "
        "N·m/rad"
    ]


@pytest.mark.parametrize(("watchdog_ms", "period_s"), [(20, 0.02), (100, 0.051), (2540, 1.28)])
def test_watchdog_shorter_than_two_periods_is_refused(
    contract: Contract, desk_arm: RobotConfig, watchdog_ms: int, period_s: float
):
    slow = contract.model_copy(update={"control_dt_s": period_s})
    safety = desk_arm.safety.model_copy(
        update={"watchdog_ms": watchdog_ms, "stale_after_ms": 9999.0}
    )

    assert differences(slow, desk_arm.model_copy(update={"safety": safety})) == [
        f"safety.watchdog_ms: {watchdog_ms} ms is too short for a policy with a period of "
        f"{period_s * 1e3:g} ms, expected at least {period_s * 2e3:g} ms"
    ]


@pytest.mark.parametrize(("watchdog_ms", "period_s"), [(20, 0.01), (40, 0.02), (100, 0.05)])
def test_watchdog_of_two_periods_is_accepted(
    contract: Contract, desk_arm: RobotConfig, watchdog_ms: int, period_s: float
):
    safety = desk_arm.safety.model_copy(update={"watchdog_ms": watchdog_ms})
    policy = contract.model_copy(update={"control_dt_s": period_s})

    matches(policy, desk_arm.model_copy(update={"safety": safety}))


def test_readings_must_be_allowed_to_be_two_periods_old(contract: Contract, desk_arm: RobotConfig):
    safety = desk_arm.safety.model_copy(update={"stale_after_ms": 39.0})

    assert differences(contract, desk_arm.model_copy(update={"safety": safety})) == [
        "safety.stale_after_ms: 39 ms is too short for a policy with a period of 20 ms, expected "
        "at least 40 ms"
    ]


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
        "joint 'shoulder_lift': trained with a servo of 1.5 N·m, XL330-M288 has 0.52 N·m at 5 V",
    ]


@pytest.mark.parametrize(
    ("accepted", "refused"),
    [
        (
            {"position_limits_rad": (-2.2 + 0.9e-6, 2.2)},
            {"position_limits_rad": (-2.2 + 2e-6, 2.2)},
        ),
        (
            {"position_limits_rad": (-2.2, 2.2 - 0.9e-6)},
            {"position_limits_rad": (-2.2, 2.2 - 2e-6)},
        ),
        ({"velocity_limit_rad_s": 2 - 1.9e-6}, {"velocity_limit_rad_s": 2 - 4e-6}),
    ],
)
def test_rounding_is_no_difference(
    contract: Contract, desk_arm: RobotConfig, accepted: dict[str, Any], refused: dict[str, Any]
):
    matches(contract, wired(desk_arm, shoulder_pan=accepted))

    assert len(differences(contract, wired(desk_arm, shoulder_pan=refused))) == 1


@pytest.mark.parametrize(
    ("pick", "share", "count"),
    [(min, 0.951, 0), (max, 1.049, 0), (min, 0.94, 1), (max, 1.06, 1)],
)
def test_servo_may_differ_by_a_twentieth_in_torque(
    contract: Contract, desk_arm: RobotConfig, pick: Any, share: float, count: int
):
    torque = pick(
        MODELS["XL430-W250"].full_duty_torques_nm(12.0)
    )  # of its models, with friction or not
    joint = contract.joints[0].model_copy(update={"effort_limit_nm": share * torque})
    policy = contract.model_copy(update={"joints": [joint, *contract.joints[1:]]})

    if not count:
        matches(policy, desk_arm)
    else:
        assert len(differences(policy, desk_arm)) == count


@pytest.mark.parametrize("which", [0, 1, 2])
def test_every_model_of_the_servo_gives_the_same_register(
    contract: Contract, desk_arm: RobotConfig, which: int
):
    # The gain is a duty per error: friction in the model raises the motor's torque at full duty
    # and the stiffness alike. Half the duty per radian is half the gain.
    joint = contract.joints[0]
    servo = MODELS[desk_arm.joints[joint.name].model]
    effort = servo.full_duty_torques_nm(12.0)[which]
    stiffness = effort * joint.kp_nm_per_rad / servo.stall_torque_nm
    changed = {"effort_limit_nm": effort, "kp_nm_per_rad": stiffness}
    joints = [joint.model_copy(update=changed), *contract.joints[1:]]

    matches(contract.model_copy(update={"joints": joints}), desk_arm)

    assert servo.p_gain(stiffness, effort) == servo.p_gain(joint.kp_nm_per_rad)


def test_signals_that_no_device_measures_are_named(contract: Contract, desk_arm: RobotConfig):
    policy = using(contract, "joint_position", "projected_gravity", "joint_effort", "time")

    assert differences(policy, desk_arm) == [
        "signal 'projected_gravity': the policy uses it, this robot measures only joint_position, "
        "joint_velocity, joint_current, joint_voltage, joint_temperature",
        "signal 'joint_effort': the policy uses it, this robot measures only joint_position, "
        "joint_velocity, joint_current, joint_voltage, joint_temperature",
    ]


def test_what_the_runtime_knows_by_itself_needs_no_device(
    contract: Contract, desk_arm: RobotConfig
):
    matches(using(contract, "joint_target", "command", "time"), desk_arm)


@pytest.mark.parametrize("mode", ["velocity", "torque"])
def test_target_that_the_joints_do_not_obey_is_named(
    so101_contract: Contract, so101: RobotConfig, mode: str
):
    assert differences(driven_by(so101_contract, mode), so101) == [
        f"target 'joint_{mode}_target': the policy sends it, this robot obeys only "
        "joint_position_target"
    ]


def test_torques_need_servos_that_measure_their_current(contract: Contract, desk_arm: RobotConfig):
    assert differences(driven_by(contract, "torque"), desk_arm) == [
        "target 'joint_torque_target': the policy sends it, this robot obeys only "
        "joint_position_target, joint_velocity_target"
    ]


@pytest.mark.parametrize(
    ("kd", "problem"),
    # the largest gain of an XL430: 1.5 N·m · 16383/128 / (885 · 0.02397 rad/s)
    [
        (0.0, "trained with no gain, a speed needs a kd above zero"),
        (
            9.1,
            "XL430-W250 cannot be set to 9.1 N·m·s/rad, expected 0..9.051 (Velocity P Gain (78) "
            "0..16383); lower the gain, or use a stronger servo",
        ),
        (2e-4, "XL430-W250 cannot be set to 0.0002 N·m·s/rad, the nearest it has is 0 N·m·s/rad"),
    ],
)
def test_gain_of_a_speed_is_one_that_the_servo_has(
    contract: Contract, desk_arm: RobotConfig, kd: float, problem: str
):
    assert f"joint 'shoulder_pan': {problem}" in differences(by_speed(contract, kd), desk_arm)
    matches(by_speed(contract, 0.05), desk_arm)


def by_speed(contract: Contract, kd: float) -> Contract:
    driven = driven_by(contract, "velocity")
    joints = [joint.model_copy(update={"kd_nm_s_per_rad": kd}) for joint in driven.joints]
    return driven.model_copy(update={"joints": joints})


@pytest.mark.parametrize(
    ("measured", "understood", "count"),
    [
        (["joint_position", "imu_angular_velocity"], ["joint_torque_target"], 0),
        (["joint_position"], ["joint_torque_target"], 1),
        (["joint_position"], [], 2),
    ],
)
def test_a_device_is_all_that_a_signal_or_target_needs(
    contract: Contract, measured: Collection[str], understood: Collection[str], count: int
):
    policy = driven_by(using(contract, "joint_position", "imu_angular_velocity"), "torque")

    assert len(list(lacking(policy, measured, understood))) == count


def test_wheel_fits_a_policy_that_drives_it_by_speed_alone(
    contract: Contract, desk_arm: RobotConfig
):
    wheel = wired(desk_arm, gripper={"continuous": True})
    assert differences(contract, wheel) == [
        "joint 'gripper': the policy sends it to angles, but it turns without end "
        "(`continuous: true`)"
    ]
    endless = contract.model_copy(
        update={"joints": [joint.model_copy(update={"position_limits_rad": (-1000.0, 1000.0)})
                           for joint in contract.joints]}
    )  # fmt: skip
    named = "\n".join(differences(driven_by(endless, "torque"), wheel))
    assert "'gripper'" not in named
    assert (
        "joint 'wrist_roll': the policy uses [-1000.0, 1000.0] rad, the hardware allows "
        "[-2.9, 2.9]; say `continuous: true` of a wheel"
    ) in named


def gripping(contract: Contract, share: float) -> Contract:
    """The policy, with a gripper that presses with a share of its torque."""
    *others, gripper = contract.joints
    lead_rad = share * gripper.effort_limit_nm / gripper.kp_nm_per_rad
    held = gripper.model_copy(update={"lead_rad": lead_rad})
    return contract.model_copy(update={"joints": [*others, held]})


def test_gripper_that_may_draw_too_little_for_what_it_is_to_press_is_refused(
    contract: Contract, desk_arm: RobotConfig
):
    policy = gripping(contract, 0.5)
    matches(policy, desk_arm)
    # an XL330-M288 draws 1.47 A at full duty, so says its data sheet
    matches(policy, wired(desk_arm, gripper={"current_limit_a": 0.736}))
    assert differences(policy, wired(desk_arm, gripper={"current_limit_a": 0.7})) == [
        "joint 'gripper': the policy presses with up to 50 % of its torque, its "
        "current_limit_a leaves 47.6 %; train it to press less (arm_lift: `grip_effort`)"
    ]


def test_gripper_that_protects_itself_is_asked_for_less(
    so101_contract: Contract, so101: RobotConfig
):
    matches(gripping(so101_contract, 0.18), so101)
    assert differences(gripping(so101_contract, 0.23), so101) == [
        "joint 'gripper': the policy presses with up to 23 % of its torque, its "
        "overload_share leaves 22.5 %; train it to press less (arm_lift: `grip_effort`)"
    ]
    freed = wired(so101, gripper={"overload_share": None})
    matches(gripping(so101_contract, 3.0), freed)  # as hard as it can
