"""What goes wrong on a bus, whatever the family: how the run ends, and that nothing unsafe is done.

Every twin is watched by a monitor (`tests.deploy.conftest`): an unsafe write fails any test here.
"""

import math
from pathlib import Path

import numpy as np
import pytest

from deploy.clock import Clock
from deploy.contract import Contract
from deploy.device import SettingChange
from deploy.errors import BusError, SafetyError
from deploy.robot import Robot
from deploy.robot_config import RobotConfig
from deploy.runtime import State
from deploy.servos import device
from deploy.servos import settings as servo_settings
from tests.deploy.conftest import MODEL_PATH, REPOSITORY, Bench, MakeBench
from tests.deploy.test_runtime import HOLDS, PERIOD_S, Trial, assert_holds, make_trial

SO101_PATH = REPOSITORY / "envs/robots/so101_arm/so101_arm.xml"


FEEDBACK_BYTES = (8 + 6 * 20, 6 + 15, 6 + 11)
"""A reading as it comes: of all DYNAMIXELs in one packet, of each Feetech servo in its own."""


@pytest.fixture(params=["dynamixel", "feetech", "scs"])
def family_bench(
    request: pytest.FixtureRequest,
    make_bench: MakeBench,
    desk_arm: RobotConfig,
    so101: RobotConfig,
    contract: Contract,
    so101_contract: Contract,
    scs_arm: RobotConfig,
    scs_contract: Contract,
    scs_arm_path: Path,
) -> Bench:
    """An arm of every family."""
    config, policy, path = {
        "dynamixel": (desk_arm, contract, MODEL_PATH),
        "feetech": (so101, so101_contract, SO101_PATH),
        "scs": (scs_arm, scs_contract, scs_arm_path),
    }[request.param]
    return make_bench(config, contract=policy, model_path=path)


@pytest.fixture
def trial(family_bench: Bench) -> Trial:
    return make_trial(family_bench)


def largest_step(trial: Trial) -> float:
    """Of any target from one tick to the next [rad]."""
    return float(np.abs(np.diff(trial.recorder.ticks["sent_target"], axis=0)).max())


def assert_undisturbed(trial: Trial) -> None:
    """The run ends as planned, and no target jumps."""
    assert trial.states[-1] is State.IDLE
    assert largest_step(trial) <= 2.0 * PERIOD_S + 1e-6


def test_run_without_a_fault_ends_parked_and_limp(trial: Trial):
    trial.run()
    assert_undisturbed(trial)
    rest = [joint.rest_rad for joint in trial.bench.config.joints.values()]
    assert trial.bench.twin.joint_position == pytest.approx(rest, abs=0.06)
    assert not any(trial.bench.torque_on.values())
    assert trial.bench.robot.statistics.lost == 0


@pytest.mark.parametrize("count", [1, 2])
def test_lost_replies_are_asked_for_again(trial: Trial, count: int):
    trial.controller.at[20] = lambda: setattr(trial.bench.port, "replies_to_lose", count)
    trial.run(0.6)
    assert_undisturbed(trial)
    assert trial.bench.robot.statistics.timeouts >= count


def test_damaged_reply_costs_less_than_five_milliseconds(trial: Trial):
    spoilt: list[int] = []

    def spoil(received: memoryview) -> None:
        if not spoilt and len(received) in FEEDBACK_BYTES:
            received[-3] ^= 0x10
            spoilt.append(len(received))

    trial.controller.at[20] = lambda: setattr(trial.bench.port, "damage", spoil)
    trial.run(0.6)
    assert spoilt
    assert_undisturbed(trial)
    statistics = trial.bench.robot.statistics
    assert (statistics.crc_errors, statistics.lost) == (1, 0)
    read_s = trial.recorder.running["read_s"]
    assert read_s.max() - np.median(read_s) < 0.005


def test_every_reply_damaged_now_and_then_moves_nothing_that_should_not(trial: Trial):
    rng = np.random.default_rng(0)

    def spoil(received: memoryview) -> None:
        if rng.random() < 0.3:
            received[rng.integers(len(received))] ^= int(rng.integers(1, 256))

    trial.controller.at[5] = lambda: setattr(trial.bench.port, "damage", spoil)
    trial.controller.at[45] = lambda: setattr(trial.bench.port, "damage", lambda received: None)
    trial.run(1.2)
    assert_undisturbed(trial)
    assert trial.bench.robot.statistics.crc_errors > 3


def test_late_replies_are_followed(trial: Trial):
    (wire,) = trial.bench.twin._wires.values()
    in_turn = trial.bench.config.wired["bus"].protocol == "feetech_scs"
    late_s = 0.002 if in_turn else 0.009  # six times a tick, or once
    trial.controller.at[20] = lambda: setattr(wire, "_usb_latency_s", late_s)
    trial.run()
    assert_undisturbed(trial)
    assert trial.recorder.running["joint_age_s"].max() < 0.1


def test_replies_lost_once_the_watchdogs_are_armed_do_not_end_the_run(trial: Trial):
    prove = trial.bench.robot.prove

    def and_lose(clock: Clock) -> list[str]:
        proofs = prove(clock)
        trial.bench.port.requests_to_lose = 2
        return proofs

    trial.bench.robot.prove = and_lose
    trial.run()
    assert trial.states[-1] is State.IDLE


def test_unplugged_bus_ends_the_run_with_the_joints_where_they_are(trial: Trial):
    trial.controller.at[20] = lambda: setattr(trial.bench.port, "unplugged", True)
    message, note = trial.fail(BusError)
    assert message == "the port is gone"
    assert "the safe state 'hold' is not confirmed" in note
    assert all(trial.bench.torque_on.values())
    trial.bench.wait(0.6)  # the watchdog stops them, or they are at their last goal
    pose = trial.bench.twin.joint_position
    trial.bench.wait(1.0)
    assert trial.bench.twin.joint_position == pytest.approx(pose, abs=0.01)


def test_servo_that_restarts_ends_the_run_with_the_others_holding(trial: Trial):
    servo = trial.bench.servo("wrist_roll")
    trial.controller.at[20] = lambda: servo.reboot()  # a loose connector
    trial.fail()
    held = {joint: on for joint, on in trial.bench.torque_on.items() if joint != "wrist_roll"}
    assert all(held.values())
    assert trial.controller.steps < 40


def test_servo_that_falls_silent_ends_the_run_in_hold(trial: Trial):
    servo = trial.bench.servo("gripper")
    trial.controller.at[20] = lambda: setattr(servo, "_silent_until_s", math.inf)
    message, note = trial.fail()
    assert message.startswith("joint 'gripper' has not been read for 1")
    assert "gripper: servo 6 does not answer" in note
    assert all(trial.bench.torque_on.values())


def test_absent_servo_is_named_before_anything_moves(family_bench: Bench):
    pose = family_bench.twin.joint_position
    family_bench.servo("elbow_flex")._silent_until_s = math.inf
    with pytest.raises(BusError, match=r"no answer from elbow_flex \(id 3\); ids that do answer"):
        family_bench.robot.connect()
    assert family_bench.twin.joint_position == pytest.approx(pose, abs=0.02)
    assert not any(family_bench.torque_on.values())


def test_servo_that_another_program_lets_go_is_noticed_within_a_round(trial: Trial):
    register = trial.bench.servo("shoulder_lift").registers.TORQUE_ENABLE
    trial.controller.at[20] = lambda: trial.bench.set("shoulder_lift", register, 0)
    message, _ = trial.fail()
    assert message.startswith(f"shoulder_lift: its {register} reads 0, expected 1")
    assert trial.controller.steps <= 21 + 6  # one servo a tick


def test_exception_of_the_policy_ends_in_hold(trial: Trial):
    def broken() -> None:
        raise RuntimeError("a fault in the policy")

    trial.controller.at[20] = broken
    with pytest.raises(RuntimeError, match="a fault in the policy") as caught:
        trial.run()
    assert HOLDS in caught.value.__notes__
    assert_holds(trial)


def turn_by_hand(bench: Bench, joint: str, speed: float) -> None:
    """Somebody turns a joint [rad/s] for as long as it is limp."""
    step, dof = bench.twin.on_step, bench.twin._dof[bench.twin.joints.index(joint)]

    def turn() -> None:
        step()
        if not bench.torque_on[joint]:
            bench.twin._data.qvel[dof] = speed

    bench.twin.on_step = turn


@pytest.mark.parametrize("before", range(4))
def test_limp_joint_that_moves_is_held_where_it_is_although_noise_costs_time(
    family_bench: Bench, before: int
):
    bench, port = family_bench, family_bench.port
    bench.robot.connect()
    turn_by_hand(bench, "shoulder_pan", 1.5)
    asked: list[bytes] = []

    def lose_some() -> None:
        """Two replies about the joint: to a reading, or to its goal."""
        asked.append(port.sent[-1])
        if len(asked) == 6 + before:  # behind the first look at all six
            port.replies_to_lose = 2

    port.after_reply = lose_some
    bench.robot.energise()
    assert len(asked) > 30
    assert all(bench.torque_on.values())
    assert not bench.monitor.violations  # a goal that was off by 0.05 rad when torque came on


def test_limp_joint_that_does_not_keep_still_is_not_held(
    family_bench: Bench, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(device, "STILL_TRIES", 5)  # at that speed it is soon at its limit
    family_bench.robot.connect()
    turn_by_hand(family_bench, "wrist_roll", 14.0)
    with pytest.raises(SafetyError, match="wrist_roll moves while it is limp, expected it to"):
        family_bench.robot.energise()
    assert not family_bench.torque_on["wrist_roll"]


def test_servo_off_its_supply_is_refused(family_bench: Bench):
    servo = family_bench.servo("wrist_flex")
    servo.voltage_v *= 0.8
    with pytest.raises(BusError, match=r"wrist_flex \(id 4\) (is supplied with|reports input)"):
        family_bench.robot.connect()


def test_what_was_changed_in_the_servos_can_be_written_back(family_bench: Bench, tmp_path: Path):
    limit = family_bench.servo("gripper").registers.MAX_POSITION_LIMIT
    before = family_bench.get("gripper", limit)
    path = tmp_path / "servos.yaml"

    def approve(changes: list[SettingChange]) -> bool:
        servo_settings.save(changes, path)
        return True

    ports = {"bus": family_bench.port}
    robot = Robot(family_bench.config, family_bench.contract.joints, ports, approve=approve)
    robot.connect()
    assert family_bench.get("gripper", limit) != before
    servo_settings.restore(robot.devices, path)
    assert family_bench.get("gripper", limit) == before
