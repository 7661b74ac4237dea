"""What the governor lets through, clips and refuses, on a made-up two-joint robot."""

import contextlib
import tracemalloc

import numpy as np
import pytest

from deploy.contract import Contract
from deploy.device import Reading
from deploy.errors import SafetyError
from deploy.governor import Governor, LimitedBy
from deploy.robot_config import RobotConfig
from deploy.signals import SignalKind
from tests.deploy.conftest import make_governor

LOW, HIGH = np.array([-1.0, 0.0]), np.array([1.0, 2.0])
MAX_CHANGE = 0.04  # 2 rad/s at 50 Hz
MAX_STEP = 0.5
FRESH = np.zeros(2)
STILL = np.zeros(2)
MIDDLE = np.array([0.0, 1.0])


@pytest.fixture
def governor(contract: Contract) -> Governor:
    joints = {
        "hip": {"id": 1, "position_limits_rad": (-1.0, 1.0), "rest_rad": 0.0},
        "knee": {"id": 2, "position_limits_rad": (0.0, 2.0), "rest_rad": 0.0},
    }
    robot = RobotConfig.model_validate(
        {
            "robot": "leg",
            "bus": {"port": "/dev/unused"},
            "joints": {
                name: {"model": "XL430-W250", "velocity_limit_rad_s": 2.0, **joint}
                for name, joint in joints.items()
            },
            "safety": {"max_step_rad": MAX_STEP, "stale_after_ms": 60, "overspeed_factor": 3},
        }
    )
    specs = [contract.joints[0].model_copy(update={"name": name}) for name in joints]
    return Governor(specs, contract.control_dt_s, robot)


def limit(
    governor: Governor, target: list[float], *, last: list[float], position: list[float]
) -> np.ndarray:
    out = np.full(2, np.nan)
    governor.limit(np.array(target), np.array(last), np.array(position), STILL, out)
    return out


def test_permitted_target_passes_unchanged(governor: Governor):
    target = [0.01, 1.03]
    assert limit(governor, target, last=[0.0, 1.0], position=[0.1, 0.9]).tolist() == target
    assert governor.limited_by.tolist() == [0, 0]


def test_target_stays_the_policys_own(governor: Governor):
    target = np.array([5.0, 5.0])
    governor.limit(target, MIDDLE, MIDDLE, STILL, np.zeros(2))
    assert target.tolist() == [5.0, 5.0]


def test_target_outside_the_range_ends_at_its_edge(governor: Governor):
    out = limit(governor, [1.02, -0.02], last=[1.0, 0.0], position=[1.0, 0.0])
    assert out.tolist() == [1.0, 0.0]
    assert governor.limited_by.tolist() == [LimitedBy.POSITION, LimitedBy.POSITION]


def test_target_moves_at_most_at_the_velocity_limit(governor: Governor):
    out = limit(governor, [0.3, 0.8], last=[0.0, 1.0], position=[0.0, 1.0])
    assert out == pytest.approx([MAX_CHANGE, 1.0 - MAX_CHANGE])
    assert governor.limited_by.tolist() == [LimitedBy.VELOCITY, LimitedBy.VELOCITY]


def test_target_does_not_run_away_from_a_joint_that_is_stuck(governor: Governor):
    last = target = 0.0
    for _ in range(50):  # 50 · 0.04 rad would be 2 rad
        target += 0.04
        last = limit(governor, [target, 1.0], last=[last, 1.0], position=[0.2, 1.0])[0]
    assert last == pytest.approx(0.2 + MAX_STEP)
    assert governor.limited_by.tolist() == [LimitedBy.STEP | LimitedBy.VELOCITY, 0]


def test_target_of_a_joint_that_is_not_heard_of_goes_one_ticks_way_until_it_is(governor: Governor):
    ahead = []
    for heard in (True, False, False, True, True, True):
        governor.hear(np.array([heard, True]))
        last = [ahead[-1] if ahead else 0.0, 1.0]
        ahead.append(limit(governor, [1.0, 1.0], last=last, position=[0.0, 1.0])[0])
    # 0.04 rad a tick are its limit too: none while the last target may be lost, and none in the
    # tick in which it answers again; from then on it goes on
    assert ahead == pytest.approx([0.04, 0.04, 0.04, 0.04, 0.08, 0.12])


def test_joint_whose_every_other_answer_is_lost_goes_on_at_half_the_speed(governor: Governor):
    last = 0.0
    for tick in range(10):
        governor.hear(np.array([tick % 2 == 0, True]))
        last = limit(governor, [1.0, 1.0], last=[last, 1.0], position=[0.0, 1.0])[0]
    assert last == pytest.approx(10 * MAX_CHANGE / 2)


def test_target_comes_after_a_joint_that_is_pushed_away_whatever_the_velocity_limit(
    governor: Governor,
):
    out = limit(governor, [0.0, 1.0], last=[0.0, 1.0], position=[-0.9, 1.0])
    assert out[0] == pytest.approx(-0.9 + MAX_STEP)
    assert governor.limited_by.tolist() == [LimitedBy.STEP, 0]


def test_velocity_limit_is_the_smaller_one_of_policy_and_hardware(
    contract: Contract, desk_arm: RobotConfig
):
    names = contract.joint_names
    hardware = {
        name: wiring.model_copy(update={"velocity_limit_rad_s": 1.5 if name == names[1] else 9.0})
        for name, wiring in desk_arm.joints.items()
    }
    governor = make_governor(contract, desk_arm.model_copy(update={"joints": hardware}))
    assert governor.speed.tolist() == [2.0, 1.5, 2.0, 2.0, 2.0, 2.0]  # the contract says 2.0
    home = np.array([joint.default_position_rad for joint in contract.joints])
    out = np.zeros(6)
    governor.limit(home + 0.3, home, home, np.zeros(6), out)
    assert out - home == pytest.approx(governor.speed * 0.02)


def test_policy_stays_in_its_own_range_and_parking_in_the_hardwares(
    contract: Contract, desk_arm: RobotConfig
):
    joints = [
        joint.model_copy(update={"position_limits_rad": (-0.3, 0.3)}) for joint in contract.joints
    ]
    governor = Governor(joints, contract.control_dt_s, desk_arm)
    last, target, out = np.full(6, 0.3), np.full(6, 0.33), np.zeros(6)
    governor.limit(target, last, last, np.zeros(6), out)
    assert out == pytest.approx(last)
    assert governor.limited_by.tolist() == [LimitedBy.POSITION] * 6
    governor.limit(target, last, last, np.zeros(6), out, from_policy=False)
    assert out == pytest.approx(target)


def test_each_limit_is_reported_for_the_joint_it_changed(governor: Governor):
    # hip: 2 -> 1.03 (velocity) -> 1.01 (step) -> 1 (position); knee: only its velocity
    out = limit(governor, [2.0, 1.2], last=[0.99, 1.0], position=[0.51, 1.0])
    assert out == pytest.approx([1.0, 1.0 + MAX_CHANGE])
    everything = LimitedBy.STEP | LimitedBy.VELOCITY | LimitedBy.POSITION
    assert governor.limited_by.tolist() == [everything, LimitedBy.VELOCITY]


def test_reason_is_forgotten_with_the_next_target(governor: Governor):
    limit(governor, [2.0, 1.0], last=[0.0, 1.0], position=[0.0, 1.0])
    limit(governor, [0.0, 1.0], last=[0.0, 1.0], position=[0.0, 1.0])
    assert governor.limited_by.tolist() == [0, 0]


def test_joint_beyond_its_range_gets_a_target_within(governor: Governor):
    out = limit(governor, [1.3, 1.0], last=[1.2, 1.0], position=[1.2, 1.0])
    assert out.tolist() == [1.0, 1.0]


def test_limits_hold_whatever_is_asked_for_while_the_joints_follow(governor: Governor):
    rng = np.random.default_rng(0)
    position, last, out = MIDDLE.copy(), MIDDLE.copy(), np.zeros(2)
    for _ in range(10_000):
        target = rng.normal(0.0, 10.0 ** rng.uniform(-3.0, 6.0), 2)
        governor.limit(target, last, position, STILL, out)
        assert np.all((out >= LOW) & (out <= HIGH))
        assert np.all(np.abs(out - last) <= MAX_CHANGE + 1e-12)
        assert np.all(np.abs(out - position) <= MAX_STEP + 1e-12)
        assert np.array_equal(governor.limited_by != 0, out != target)
        position += rng.uniform(0.0, 0.5, 2) * (out - position)
        last[:] = out


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_target_that_is_no_number_is_refused_with_the_joints_name(governor: Governor, value):
    with pytest.raises(SafetyError) as caught:
        limit(governor, [0.0, value], last=[0.0, 1.0], position=[0.0, 1.0])
    assert str(caught.value) == (
        f"the policy asked for {value} at joint 'knee', expected an angle; its inputs or the file "
        "are broken"
    )


def test_sound_readings_pass(governor: Governor):
    governor.check_signals(np.array([1.09, -0.09]), np.array([6.0, -6.0]), np.array([0.06, 0.0]))


@pytest.mark.parametrize(("angle", "outside"), [(2.25, 0.25), (-0.11, 0.11)])
def test_joint_far_outside_its_range_is_refused(governor: Governor, angle: float, outside: float):
    with pytest.raises(SafetyError) as caught:
        governor.check_signals(np.array([0.0, angle]), STILL, FRESH)
    assert str(caught.value) == (
        f"joint 'knee' is at {angle:.2f} rad, {outside:.2f} rad outside its range of [0.0, 2.0] "
        "rad; its zero is wrong, its horn has slipped, or it was forced there"
    )


@pytest.mark.parametrize(("kind", "allowed_s"), [("projected_gravity", 0.06),
                                                 ("object_position", 0.5)])  # fmt: skip
def test_signal_may_be_as_old_as_its_kind_allows_or_else_the_robot(
    governor: Governor, kind: SignalKind, allowed_s: float
):
    governor.check_reading(kind, np.zeros(3), np.full(1, allowed_s))
    for age_s in (allowed_s + 0.001, np.inf, np.nan):
        with pytest.raises(SafetyError, match=f"{kind!r} is .* allowed {allowed_s * 1e3:.0f} ms"):
            governor.check_reading(kind, np.zeros(3), np.full(1, age_s))


def test_oldest_element_of_a_signal_counts(governor: Governor):
    with pytest.raises(SafetyError, match="'joint_effort' is 61 ms old"):
        governor.check_reading("joint_effort", np.zeros(2), np.array([0.0, 0.061]))


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_signal_that_is_no_number_is_refused(governor: Governor, value: float):
    with pytest.raises(SafetyError) as caught:
        governor.check_reading("projected_gravity", np.array([0.0, value, -1.0]), np.zeros(1))
    assert str(caught.value) == (
        f"the signal 'projected_gravity' reads no number: [0.0, {value}, -1.0]"
    )


def test_stale_reading_is_refused(governor: Governor):
    with pytest.raises(SafetyError) as caught:
        governor.check_signals(MIDDLE, STILL, np.array([0.02, 0.081]))
    assert str(caught.value) == (
        "joint 'knee' has not been read for 81 ms, allowed 60 ms; check the bus cable and power, "
        "and whether this machine is too busy"
    )


@pytest.mark.parametrize("bad", ["position", "velocity"])
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_reading_that_is_no_number_is_refused(governor: Governor, bad: str, value: float):
    readings = {"position": MIDDLE.copy(), "velocity": STILL.copy()}
    readings[bad][0] = value
    with pytest.raises(SafetyError) as caught:
        governor.check_signals(**readings, age_s=FRESH)
    assert str(caught.value) == "joint 'hip' reads no number"


@pytest.mark.parametrize("speed", [6.1, -6.1])
def test_overspeed_is_refused(governor: Governor, speed: float):
    with pytest.raises(SafetyError) as caught:
        governor.check_signals(MIDDLE, np.array([0.0, speed]), FRESH)
    assert str(caught.value) == (
        f"joint 'knee' moves at {speed} rad/s, faster than 6.0 rad/s; check its gains, wiring "
        "and load"
    )


# Joints that do not obey. The hip's gain: 6.906 N·m/rad of 1.5 N·m, so 4.6 of full duty per rad.

GAIN = 6.905706005343255 / 1.5


def follow(
    governor: Governor, ticks: int, *, error: float, effort: float, velocity: float = 0.0
) -> None:
    """The hip stays `error` away from its target for some ticks of 20 ms."""
    target = np.array([0.2 + error, 1.0])
    for _ in range(ticks):
        governor.check_following(
            target, np.array([0.2, 1.0]), np.array([velocity, 0.0]), np.array([effort, 0.0])
        )


@pytest.mark.parametrize("error", [0.2, -0.2])
def test_limp_joint_away_from_its_target_stops_the_robot(governor: Governor, error: float):
    follow(governor, 25, error=error, effort=0.0)  # 500 ms are allowed
    with pytest.raises(SafetyError) as caught:
        follow(governor, 1, error=error, effort=0.0)
    assert str(caught.value) == (
        "joint 'hip' has been 0.20 rad from its target for 500 ms, its motor driven at 0% where "
        "92% is called for; it has let go, lost its gains, or stopped by itself"
    )


def test_motor_that_pulls_the_wrong_way_stops_the_robot(governor: Governor):
    with pytest.raises(SafetyError, match="driven at -90% where 92% is called for"):
        follow(governor, 26, error=0.2, effort=-0.9)


@pytest.mark.parametrize("error", [0.3, -0.3])
def test_blocked_joint_whose_motor_gives_all_it_has_stops_the_robot(
    governor: Governor, error: float
):
    with pytest.raises(SafetyError, match="driven at 100% where 100% is called for; something bl"):
        follow(governor, 26, error=error, effort=np.sign(error))


def test_blocked_joint_with_soft_gains_stops_the_robot_at_the_step_limit(
    contract: Contract, desk_arm: RobotConfig
):
    soft = [
        joint.model_copy(update={"kp_nm_per_rad": joint.kp_nm_per_rad / 10})
        for joint in contract.joints
    ]
    governor = Governor(soft, contract.control_dt_s, desk_arm)
    position = np.zeros(6)
    target = position + np.array([0.0, 0.6, 0.0, 0.0, 0.0, 0.0])  # max_step_rad
    effort = np.array(
        [0.0, soft[1].kp_nm_per_rad * 0.6 / soft[1].effort_limit_nm, 0.0, 0.0, 0.0, 0.0]
    )
    assert effort[1] < 0.5
    for _ in range(25):
        governor.check_following(target, position, position, effort)
    with pytest.raises(SafetyError, match=r"'shoulder_lift' has been 0\.60 rad .* blocks it"):
        governor.check_following(target, position, position, effort)


@pytest.mark.parametrize(
    "wiring",
    [
        {"model": "XL330-M288", "current_limit_a": 0.3},
        {"model": "XL330-M288", "current_limit_a": 1.47},  # its stall current, so no less effort
        {"model": "STS3215-12V", "overload_share": 0.25},
    ],
)
def test_gentle_joint_may_be_blocked_but_not_be_limp(
    contract: Contract, so101: RobotConfig, desk_arm: RobotConfig, wiring: dict[str, object]
):
    robot = so101 if "overload_share" in wiring else desk_arm
    gripper = robot.joints["gripper"].model_copy(update=wiring)
    robot = robot.model_copy(update={"joints": robot.joints | {"gripper": gripper}})
    governor = make_governor(contract, robot)
    gain = contract.joints[5].kp_nm_per_rad / contract.joints[5].effort_limit_nm
    still, target, last = np.zeros(6), np.zeros(6), np.zeros(6)
    governor.derate({})
    for _ in range(50):  # to where targets of a blocked joint end
        governor.limit(np.eye(6)[5], last, still, still, target)
        last[:] = target
    effort = np.clip(gain * target, -1, 1)

    for _ in range(500):
        governor.check_following(target, still, still, effort)
    with pytest.raises(SafetyError, match=r"'gripper' has been .* driven at 0% .* has let go"):
        for _ in range(26):
            governor.check_following(target, still, still, still)


def test_lag_that_gains_and_load_explain_is_no_disobedience(governor: Governor):
    follow(governor, 500, error=0.19, effort=0.19 * GAIN)


def test_small_error_without_effort_is_no_disobedience(governor: Governor):
    follow(governor, 500, error=0.149, effort=0.0)


def test_effort_a_hundredth_of_full_duty_below_half_the_demand_is_no_disobedience(
    governor: Governor,
):
    half = GAIN * 0.2 / 2
    follow(governor, 500, error=0.2, effort=half - 0.0099)
    with pytest.raises(SafetyError, match="has let go, lost its gains"):
        follow(governor, 26, error=0.2, effort=half - 0.0101)


def test_short_saturation_is_no_disobedience(governor: Governor):
    for _ in range(20):
        follow(governor, 25, error=0.3, effort=1.0)
        follow(governor, 25, error=0.1, effort=0.1 * GAIN)


def test_blocked_joint_stops_the_robot_although_its_target_swings_past_it(
    contract: Contract, desk_arm: RobotConfig
):
    governor = make_governor(contract, desk_arm)
    stiffness = np.array([joint.kp_nm_per_rad / joint.effort_limit_nm for joint in contract.joints])
    position = np.zeros(6)
    with pytest.raises(SafetyError, match=r"'shoulder_lift' has been .* something blocks it"):
        for tick in range(150):  # 3 s
            target = np.zeros(6)
            target[1] = 0.5 * np.sin(2 * np.pi * tick * 0.02)
            effort = np.clip(stiffness * target, -1, 1)
            governor.check_following(target, position, position, effort)


def test_damping_explains_a_motor_without_effort_in_motion(
    contract: Contract, desk_arm: RobotConfig
):
    damped = [joint.model_copy(update={"kd_nm_s_per_rad": 1.0}) for joint in contract.joints]
    governor = Governor(damped, contract.control_dt_s, desk_arm)
    target, position, velocity, effort = np.zeros((4, 6))
    target[0], velocity[0] = (
        0.2,
        0.2 * contract.joints[0].kp_nm_per_rad,
    )  # kp · error = kd · velocity
    for _ in range(500):
        governor.check_following(target, position, velocity, effort)


def test_joint_order_is_the_contracts(contract: Contract, desk_arm: RobotConfig):
    reversed_joints = contract.model_copy(update={"joints": contract.joints[::-1]})
    governor = make_governor(reversed_joints, desk_arm)
    assert (governor.low[-1], governor.high[-1]) == desk_arm.joints[
        "shoulder_pan"
    ].position_limits_rad


# Effort: bounded by a share, and derated before the servo trips


def measures(**values: list[float]) -> dict[SignalKind, Reading]:
    return {kind: Reading(np.array(value), FRESH) for kind, value in values.items()}  # pyright: ignore[reportReturnType]


def reach(governor: Governor) -> np.ndarray:
    """How far a target may be from a joint that is still, (n,) [rad]."""
    out = np.zeros(2)
    governor.limit(np.array([0.9, 1.9]), np.array([0.9, 1.9]), MIDDLE, STILL, out)
    return out - MIDDLE


def test_joint_with_all_its_effort_has_only_the_step_limit(governor: Governor):
    governor.derate(measures(joint_temperature=[59.0, 59.0], joint_voltage=[12.0, 12.0]))
    assert reach(governor) == pytest.approx(MAX_STEP)


@pytest.mark.parametrize(
    ("readings", "share", "reason"),
    [
        # 60 to 68 °C take 0.7 of the effort away
        ({"joint_temperature": [64.0, 20.0]}, 0.65, LimitedBy.TEMPERATURE),
        ({"joint_temperature": [67.0, 20.0]}, 0.3875, LimitedBy.TEMPERATURE),
        # 0.84 to 0.72 of 12 V
        ({"joint_voltage": [9.36, 12.0]}, 0.65, LimitedBy.VOLTAGE),
        ({"joint_voltage": [7.0, 12.0]}, 0.3, LimitedBy.VOLTAGE),
        # the worse of two counts
        ({"joint_temperature": [64.0, 20.0], "joint_voltage": [7.0, 12.0]}, 0.3, LimitedBy.VOLTAGE),
    ],
)
def test_hot_or_badly_fed_joint_gets_less_effort(
    governor: Governor, readings: dict[str, list[float]], share: float, reason: LimitedBy
):
    governor.derate(measures(**readings))
    assert governor.effort_share == pytest.approx([share, 1.0])
    # GAIN is the share of full duty per rad
    assert reach(governor) == pytest.approx([min(MAX_STEP, share / GAIN), MAX_STEP])
    assert governor.limited_by.tolist() == [LimitedBy.STEP | reason, LimitedBy.STEP]


def test_joint_gets_its_effort_back_when_it_has_cooled(governor: Governor):
    governor.derate(measures(joint_temperature=[66.0, 20.0]))
    governor.derate(measures(joint_temperature=[55.0, 20.0]))
    assert governor.effort_share.tolist() == [1.0, 1.0]


def test_joint_that_is_too_hot_stops_the_robot(governor: Governor):
    with pytest.raises(SafetyError) as caught:
        governor.derate(measures(joint_temperature=[20.0, 68.0]))
    assert str(caught.value) == (
        "joint 'knee' has 68 °C, allowed 68 °C; let it cool, and give it less to do"
    )


def test_stall_current_is_allowed_for_a_while_and_then_four_fifths_of_it(governor: Governor):
    stall_a = 1.4  # of an XL430 at 12 V, by its data sheet
    shares = []
    for _ in range(3000):  # a blocked joint: its current follows the effort it may use
        current = float(governor.effort_share[0]) * stall_a
        governor.derate(measures(joint_current=[current, 0.3 * stall_a]))
        shares.append(governor.effort_share.copy())
    hip, knee = np.array(shares).T
    # The squared current, 1/0.8² of what is allowed, warms as that · (1 - exp(-t / 5 s)), and is at
    # 0.8, where derating begins, at t = -5 s · ln(1 - 0.8³) = 3.59 s.
    assert np.argmax(hip < 1.0) * 0.02 == pytest.approx(3.59, abs=0.05)
    assert hip[-1] == pytest.approx(0.8, abs=0.01)  # s = 1.8 - (s / 0.8)²
    assert np.all(knee == 1.0)


def test_what_was_not_measured_yet_derates_nothing(governor: Governor):
    unknown = [np.nan, np.nan]
    for _ in range(3):
        governor.derate(
            measures(joint_temperature=unknown, joint_voltage=unknown, joint_current=unknown)
        )
    assert governor.effort_share.tolist() == [1.0, 1.0]


# Speeds and torques


def driven(contract: Contract, robot: RobotConfig, mode: str, kd: float = 0.0) -> Governor:
    """Six joints of a range of about ±2 rad, 2 rad/s and, at the first, 1.5 N·m."""
    change = {"operating_mode": mode, "kp_nm_per_rad": 0.0, "kd_nm_s_per_rad": kd}
    joints = [joint.model_copy(update=change) for joint in contract.joints]
    return Governor(joints, contract.control_dt_s, robot)


def limited(governor: Governor, target: float, *, position: float = 0.0, velocity: float = 0.0):
    """What the first joint gets, and why; the others are told nothing."""
    arrays = np.zeros((5, 6))
    arrays[0, 0], arrays[2, 0], arrays[3, 0] = target, position, velocity
    governor.limit(*arrays)
    assert not arrays[4, 1:].any()
    return arrays[4, 0], LimitedBy(int(governor.limited_by[0]))


def test_speed_is_limited_to_the_joints(contract: Contract, desk_arm: RobotConfig):
    governor = driven(contract, desk_arm, "velocity")
    assert limited(governor, 1.9) == (1.9, LimitedBy(0))
    assert limited(governor, -5.0) == (-2.0, LimitedBy.VELOCITY)


def test_speed_towards_a_limit_is_what_does_not_reach_it_in_time(
    contract: Contract, desk_arm: RobotConfig
):
    governor = driven(contract, desk_arm, "velocity")  # the pan's limits are ±2.2 rad
    speed, reason = limited(governor, 2.0, position=2.1)  # 0.1 rad in 0.1 s
    assert (speed, reason) == (pytest.approx(1.0), LimitedBy.POSITION)
    assert limited(governor, -2.0, position=2.1)[0] == -2.0
    assert limited(governor, 2.0, position=2.25)[0] == pytest.approx(-0.5)  # back


def test_wheel_turns_without_end(contract: Contract, desk_arm: RobotConfig):
    wheels = {name: wiring.model_copy(update={"continuous": True})
              for name, wiring in desk_arm.joints.items()}  # fmt: skip
    robot = desk_arm.model_copy(update={"joints": wheels})
    far = np.full(6, 5000.0)  # the policy's contract says ±2 rad
    for mode, target in (("velocity", 2.0), ("torque", 0.5)):
        governor = driven(contract, robot, mode)
        governor.check_signals(far, np.zeros(6), np.zeros(6))
        assert limited(governor, target, position=5000.0) == (target, LimitedBy(0))
        assert limited(governor, -target, position=-5000.0) == (-target, LimitedBy(0))


def test_speed_of_a_wheel_that_is_held_does_not_run_away_from_it(
    contract: Contract, desk_arm: RobotConfig
):
    safety = desk_arm.safety.model_copy(update={"max_speed_step_rad_s": 0.5})
    governor = driven(contract, desk_arm.model_copy(update={"safety": safety}), "velocity")
    assert limited(governor, 2.0) == (0.5, LimitedBy.STEP)


def test_speed_of_a_hot_joint_pulls_with_less_torque(contract: Contract, desk_arm: RobotConfig):
    governor = driven(contract, desk_arm, "velocity", kd=1.0)
    hot = np.full(6, 20.0)
    hot[0] = 64.0
    governor.derate({"joint_temperature": Reading(hot, FRESH)})
    # torque = kd (target - velocity), 0.65 of 1.5 N·m allowed
    assert limited(governor, 2.0, velocity=0.1) == (
        pytest.approx(0.1 + 0.65 * 1.5),
        LimitedBy.TEMPERATURE,
    )


def test_torque_is_limited_to_the_motors_and_to_its_share(
    contract: Contract, desk_arm: RobotConfig
):
    governor = driven(contract, desk_arm, "torque")
    assert limited(governor, -1.4) == (-1.4, LimitedBy(0))
    assert limited(governor, 9.0) == (pytest.approx(1.5), LimitedBy.EFFORT)
    safety = desk_arm.safety.model_copy(update={"max_effort_share": 0.4})
    governor = driven(contract, desk_arm.model_copy(update={"safety": safety}), "torque")
    assert limited(governor, 1.4)[0] == pytest.approx(0.6)


@pytest.mark.parametrize("push", [1.0, -1.0])
@pytest.mark.parametrize("inertia", [0.01, 0.03, 0.1])
def test_joint_that_a_policy_drives_outwards_with_all_its_torque_stays_within_its_range(
    contract: Contract, desk_arm: RobotConfig, push: float, inertia: float
):
    # A joint without friction or gravity, of two to twenty times the rotor's inertia of an XL430;
    # the governor acts every 20 ms on what it measured then, in which the lightest gains 3 rad/s.
    governor = driven(contract, desk_arm, "torque")
    arrays = np.zeros((5, 6))
    target, last, position, velocity, out = arrays
    angle = speed = farthest = fastest = 0.0
    for _ in range(500):
        target[0], position[0], velocity[0] = 1.5 * push, angle, speed
        governor.limit(target, last, position, velocity, out)
        for _ in range(20):
            speed += out[0] / inertia * 0.001
            angle += speed * 0.001
        farthest, fastest = max(farthest, abs(angle)), max(fastest, abs(speed))
    assert farthest < 2.2 + 0.1  # beyond it by RANGE_MARGIN_RAD, and the robot is stopped
    assert fastest < 3 * 2.0  # beyond overspeed_factor, and the robot is stopped
    assert abs(angle) > 2.0


def test_wheel_that_is_blocked_stops_the_robot(contract: Contract, desk_arm: RobotConfig):
    governor = driven(contract, desk_arm, "velocity", kd=1.0)
    target, still = np.zeros(6), np.zeros(6)
    target[0] = 5.0
    with pytest.raises(SafetyError) as caught:
        for _ in range(26):
            governor.check_following(target, still, still, np.full(6, 1.0))
    assert str(caught.value) == (
        "joint 'shoulder_pan' has been 5.00 rad/s from its target for 500 ms, its motor driven at "
        "100% where 100% is called for; something blocks it, or its load is too heavy"
    )


@pytest.mark.parametrize(
    ("speed", "duty", "stops"), [(0.4, 1, True), (0.4, 0.9, False), (0.6, 1, False)]
)
def test_slow_wheel_stops_the_robot_if_it_is_slow_with_all_its_effort(
    contract: Contract, desk_arm: RobotConfig, speed: float, duty: float, stops: bool
):
    governor = driven(contract, desk_arm, "velocity")  # 4 rad/s off is told too slow anyway
    target, velocity = np.zeros(6), np.zeros(6)
    target[0], velocity[0] = 1.0, speed
    with pytest.raises(SafetyError) if stops else contextlib.nullcontext():
        for _ in range(26):
            governor.check_following(target, velocity, velocity, np.full(6, float(duty)))


def test_nothing_is_said_of_a_motor_of_which_nothing_is_known(
    contract: Contract, desk_arm: RobotConfig
):
    governor = driven(contract, desk_arm, "velocity", kd=1.0)
    target, still = np.zeros(6), np.zeros(6)
    target[0] = 5.0
    with pytest.raises(SafetyError) as caught:
        for _ in range(26):
            governor.check_following(target, still, still, np.full(6, np.nan))
    assert str(caught.value) == (
        "joint 'shoulder_pan' has been 5.00 rad/s from its target for 500 ms; something blocks it, "
        "or its load is too heavy"
    )


# Tilt and fall


def turned(angle: float) -> np.ndarray:
    """What points down for a robot that leans forward by `angle` about y."""
    return np.array([np.sin(angle), 0.0, -np.cos(angle)])


def test_robot_that_leans_as_far_as_allowed_goes_on(governor: Governor):
    for _ in range(100):
        governor.check_upright(turned(0.99), np.zeros(3))


def test_robot_that_lies_is_stopped(governor: Governor):
    with pytest.raises(SafetyError) as caught:
        governor.check_upright(turned(-1.57), None)
    assert str(caught.value) == (
        "the robot is tilted by 1.57 rad, allowed 1 rad; set it upright, or raise "
        "`safety.max_tilt_rad` for a policy that gets up by itself"
    )


def test_fall_is_stopped_before_the_robot_lies(governor: Governor):
    # 0.5 rad and 3 rad/s: 1.4 rad in 0.3 s. A push of one or three ticks is none.
    for _ in range(5):
        for _ in range(3):
            governor.check_upright(turned(0.5), np.array([0.0, 3.0, 0.0]))
        governor.check_upright(turned(0.5), np.zeros(3))
    for _ in range(3):
        governor.check_upright(turned(0.5), np.array([0.0, 3.0, 0.0]))
    with pytest.raises(SafetyError) as caught:
        governor.check_upright(turned(0.5), np.array([0.0, 3.0, 0.0]))
    assert str(caught.value) == (
        "the robot falls: tilted by 0.50 rad now, by 1.40 rad in 0.3 s, allowed 1.3 rad"
    )


def test_gravity_that_is_no_number_is_no_permission(governor: Governor):
    with pytest.raises(SafetyError):
        governor.check_upright(np.full(3, np.nan), None)


# Signals by kind


def test_single_kinds_of_signal_have_limits_of_their_own(contract: Contract, desk_arm: RobotConfig):
    stale = {"object_position": 300.0, "projected_gravity": 30.0, "joint_position": 45.0}
    safety = desk_arm.safety.model_copy(update={"stale_signals_ms": stale})
    governor = make_governor(contract, desk_arm.model_copy(update={"safety": safety}))
    kinds: list[tuple[SignalKind, float]] = [
        ("object_position", 300.0),
        ("projected_gravity", 30.0),
    ]
    for kind, allowed_ms in kinds:
        governor.check_reading(kind, np.zeros(3), np.full(1, allowed_ms / 1e3))
        with pytest.raises(SafetyError, match=f"allowed {allowed_ms:.0f} ms"):
            governor.check_reading(kind, np.zeros(3), np.full(1, allowed_ms / 1e3 + 0.001))
    with pytest.raises(SafetyError, match="not been read for 46 ms, allowed 45 ms"):
        governor.check_signals(np.zeros(6), np.zeros(6), np.full(6, 0.046))


# A tick costs no memory


@pytest.mark.parametrize("mode", ["position", "velocity", "torque"])
def test_tick_allocates_no_array(contract: Contract, desk_arm: RobotConfig, mode: str):
    count = 20_000  # of which an array takes 20 kB at least; numpy's calls take some themselves
    wiring, joint = desk_arm.joints["shoulder_pan"], contract.joints[0]
    change = {} if mode == "position" else {"kp_nm_per_rad": 0.0, "kd_nm_s_per_rad": 1.0}
    joints = [
        joint.model_copy(update={"name": str(i), "operating_mode": mode, **change})
        for i in range(count)
    ]
    wirings = {str(i): wiring.model_copy(update={"id": i}) for i in range(count)}
    governor = Governor(joints, 0.02, desk_arm.model_copy(update={"joints": wirings}))
    target, last, position, velocity, effort, out, age_s = np.zeros((7, count))
    readings: dict[SignalKind, Reading] = {
        "joint_temperature": Reading(np.full(count, 64.0), age_s),
        "joint_voltage": Reading(np.full(count, 10.0), age_s),
        "joint_current": Reading(np.full(count, 2.0), age_s),
    }

    def tick() -> None:
        governor.check_signals(position, velocity, age_s)
        governor.derate(readings)
        governor.check_following(target, position, velocity, effort)
        governor.limit(target, last, position, velocity, out)

    tick()
    tracemalloc.start()
    try:
        tick()
        before, _ = tracemalloc.get_traced_memory()
        tracemalloc.reset_peak()
        for _ in range(3):
            tick()
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak - before < 15_000
