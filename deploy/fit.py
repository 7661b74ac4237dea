"""Does a policy fit a robot: every difference between a contract and a robot is named at once.

    matches(contract, load_yaml(path, RobotConfig))      # ContractError, or all is well

What a robot can measure and obey is told by its devices (`deploy.robot`), from its wiring alone:
nothing is connected.
"""

from collections.abc import Collection, Iterator

from deploy.contract import Contract, JointSpec
from deploy.dynamixel.servos import ServoModel as DynamixelModel
from deploy.errors import ConfigError, ContractError
from deploy.families import FAMILIES
from deploy.robot import measured_signals, understood_targets
from deploy.robot_config import BusConfig, JointWiring, RobotConfig
from deploy.servos.catalog import MODELS
from deploy.signals import SIGNALS, SignalKind

MIN_PERIODS = 2
"""Shortest watchdog and oldest reading in control periods: two writes lie a period and some jitter
apart, and one tick may have to do without a reading."""


def matches(contract: Contract, robot: RobotConfig, streams: Collection[str] = ()) -> None:
    """Check that `robot` is the robot the policy was trained for.

    Args:
        contract: the policy's.
        robot: the robot's.
        streams: kinds of signal that come from elsewhere.

    Raises:
        ContractError: names every difference.
    """
    differences = []
    if contract.robot != robot.robot:
        differences.append(f"robot: the policy is for {contract.robot!r}, this is {robot.robot!r}")
    for name in contract.joint_names:
        if name not in robot.joints:
            differences.append(f"joint {name!r}: in the policy but not wired on this robot")
    for name in robot.joints:
        if name not in contract.joint_names:
            differences.append(f"joint {name!r}: wired on this robot but not in the policy")
    differences += lacking(
        contract, (*measured_signals(robot), *streams), understood_targets(robot)
    )
    for joint in contract.joints:
        if wiring := robot.joints.get(joint.name):
            on_bus = isinstance(robot.wired[robot.device_of(joint.name)], BusConfig)
            differences += _joint_differences(joint, wiring, on_bus=on_bus)
    period_ms, safety = contract.control_dt_s * 1e3, robot.safety
    for name, value_ms in (
        ("watchdog_ms", safety.watchdog_ms),
        ("stale_after_ms", safety.stale_after_ms),
    ):
        if value_ms < MIN_PERIODS * period_ms * (1 - 1e-9):
            differences.append(
                f"safety.{name}: {value_ms:g} ms is too short for a policy with a period of "
                f"{period_ms:g} ms, expected at least {MIN_PERIODS * period_ms:g} ms"
            )
    if differences:
        listed = "\n  ".join(differences)
        raise ContractError(
            f"the policy does not fit this robot:\n  {listed}\n"
            "Use a policy exported for this robot, or correct the robot's YAML."
        )


def from_elsewhere(contract: Contract) -> list[SignalKind]:
    """Kinds of signal that the policy uses and no device measures, such as a camera tracker's."""
    measured = {kind for row in FAMILIES.values() for kind in row.measures + row.measures_with_imu}
    return [
        spec.kind
        for spec in contract.inputs
        if SIGNALS[spec.kind].measured and spec.kind not in measured
    ]


def lacking(
    contract: Contract, measured: Collection[str], understood: Collection[str]
) -> Iterator[str]:
    """What the policy needs that a robot does not have; a line each.

    Args:
        contract: the policy's.
        measured: kinds of signal that the robot's devices measure.
        understood: kinds of target that its joints obey.
    """
    for spec in contract.inputs:
        if SIGNALS[spec.kind].measured and spec.kind not in measured:
            yield (
                f"signal {spec.kind!r}: the policy uses it, this robot measures only "
                f"{', '.join(measured)}"
            )
    for spec in contract.outputs:
        if spec.kind not in understood:
            yield (
                f"target {spec.kind!r}: the policy sends it, this robot obeys only "
                f"{', '.join(understood)}"
            )


def _joint_differences(joint: JointSpec, wiring: JointWiring, *, on_bus: bool) -> Iterator[str]:
    low, high = wiring.range_rad
    servo = MODELS[wiring.model]
    beyond = joint.position_limits_rad[0] < low - 1e-6 or joint.position_limits_rad[1] > high + 1e-6
    if wiring.continuous and joint.operating_mode == "position":
        yield (
            f"joint {joint.name!r}: the policy sends it to angles, but it turns without end "
            "(`continuous: true`)"
        )
    if beyond:
        wheel = joint.operating_mode != "position"
        yield (
            f"joint {joint.name!r}: the policy uses {list(joint.position_limits_rad)} rad, "
            f"the hardware allows [{low}, {high}]{'; say `continuous: true` of a wheel' * wheel}"
        )
    if joint.velocity_limit_rad_s > wiring.velocity_limit_rad_s * (1 + 1e-6):
        yield (
            f"joint {joint.name!r}: the policy moves at up to {joint.velocity_limit_rad_s:.3g} "
            f"rad/s, the hardware allows {wiring.velocity_limit_rad_s:.3g} rad/s"
        )
    by_speed = joint.operating_mode == "velocity" and on_bus  # a board has gains of its own
    if joint.operating_mode == "position" or by_speed:
        yield from _gain_differences(joint, wiring.model)
    effort, known = joint.effort_limit_nm, servo.full_duty_torques_nm(wiring.voltage_v)
    if not any(abs(effort / torque - 1) <= 0.05 for torque in known):
        yield (
            f"joint {joint.name!r}: trained with a servo of {effort:.3g} N·m, "
            f"{wiring.model} has {known[0]:.3g} N·m at {wiring.voltage_v:g} V"
        )
    pressed = min(joint.kp_nm_per_rad * joint.lead_rad / effort, 1) if joint.lead_rad else 0
    if pressed > wiring.own_share * (1 + 1e-3):
        limit = "overload_share" if wiring.current_limit_a is None else "current_limit_a"
        yield (
            f"joint {joint.name!r}: the policy presses with up to {100 * pressed:.3g} % of its "
            f"torque, its {limit} leaves {100 * wiring.own_share:.3g} %; train it to press less "
            "(arm_lift: `grip_effort`)"
        )


def _gain_differences(joint: JointSpec, model: str) -> Iterator[str]:
    servo, kp, kd = MODELS[model], joint.kp_nm_per_rad, joint.kd_nm_s_per_rad
    effort = joint.effort_limit_nm
    try:
        if joint.operating_mode == "position":
            wanted, nearest, unit = kp, servo.kp(servo.p_gain(kp, effort), effort), "N·m/rad"
            servo.d_gain(kd, effort)
        elif isinstance(servo, DynamixelModel):
            nearest = servo.velocity_kd(servo.velocity_p_gain(kd, effort), effort)
            wanted, unit = kd, "N·m·s/rad"
        else:
            return  # which `lacking` says
    except ConfigError as error:
        yield f"joint {joint.name!r}: {error}"
        return
    if not wanted:
        yield f"joint {joint.name!r}: trained with no gain, a speed needs a kd above zero"
    elif abs(nearest / wanted - 1) > 0.05:
        yield (
            f"joint {joint.name!r}: {model} cannot be set to {wanted:.3g} {unit}, "
            f"the nearest it has is {nearest:.3g} {unit}"
        )
