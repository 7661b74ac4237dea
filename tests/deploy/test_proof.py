"""Before anything moves, everybody who watches the controller is seen to act on its silence."""

import math
import os
import re
import signal
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest

from deploy import recorder as recorder_module
from deploy.contract import Contract
from deploy.dynamixel import registers
from deploy.errors import BusError, SafetyError
from deploy.ports import EVERY_S
from deploy.recorder import Recorder
from deploy.robot import PROOF_MARGIN_S
from deploy.robot_config import RobotConfig
from deploy.runtime import LOOK_EVERY_S, SLOW_S, STALL_S
from deploy.servos.bus import SETUP_ALLOWANCE_S
from deploy.state import State
from deploy.supervisor import GRACE_S
from tests.deploy.conftest import MakeBench
from tests.deploy.test_faults import SO101_PATH
from tests.deploy.test_runtime import Trial, assert_holds, limp_trial, make_trial, trial
from tests.deploy.twin.test_board_wire import Bench as BalancerBench
from tests.until import until

__all__ = ["limp_trial", "trial"]

WATCHDOG_S = 0.1
PERIOD_S = 0.02


def told(trial: Trial) -> list[str]:
    """What a person was told before anything moved."""
    return [text for _, state, text in trial.recorder.notes[1:] if state == "idle" and text][:-1]


# DYNAMIXEL servos


def test_run_begins_after_every_servo_was_seen_to_stop_by_itself(trial: Trial):
    bench, tripped = trial.bench, set[str]()

    def look() -> None:
        before()
        for joint in bench.twin.joints:
            if bench.get(joint, registers.BUS_WATCHDOG) == registers.BUS_WATCHDOG_TRIPPED:
                assert trial.states == [State.IDLE]
                tripped.add(joint)

    before, bench.twin.on_step = bench.twin.on_step, look
    trial.run(0.2)
    assert tripped == set(bench.twin.joints)
    assert told(trial)[1:] == [
        "proved: bus: 6 servos had stopped by themselves after 140 ms of silence"
    ]


def test_nothing_moves_in_the_proof(trial: Trial):
    bench, moved = trial.bench, []
    rest = bench.twin.joint_position

    def look() -> None:
        before()
        if trial.states == [State.IDLE]:
            moved.append(abs(bench.twin.joint_position - rest).max())

    before, bench.twin.on_step = bench.twin.on_step, look
    trial.run(0.2)
    assert max(moved) < 0.03  # torque on, in the pose where it lies


def test_servo_whose_watchdog_does_nothing_is_named_and_nothing_moves(
    trial: Trial, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(trial.bench.servo("gripper"), "_check_watchdog", lambda: None)
    message, _ = trial.fail()
    assert message.startswith("the watchdogs of ['gripper'] did not stop their servos, expected")
    assert trial.states == [State.IDLE, State.FAULT]


def test_run_without_a_proof_says_so_and_loses_no_time(make_bench: MakeBench):
    proved, unproved = make_trial(make_bench()), make_trial(make_bench())
    unproved.runtime.prove = False
    proved.run(0.2)
    unproved.run(0.2)
    expected = "NOT proved: that anybody notices when this process dies (--no-prove)"
    assert told(unproved) == [expected]
    assert unproved.recorder.drills == []
    saved_s = proved.bench.clock.now() - unproved.bench.clock.now()
    assert saved_s > WATCHDOG_S + PROOF_MARGIN_S


# Others


def test_servos_without_a_watchdog_have_nothing_to_prove(
    make_bench: MakeBench, so101: RobotConfig, so101_contract: Contract
):
    bench = make_bench(so101, contract=so101_contract, model_path=SO101_PATH)
    bench.robot.connect()
    bench.robot.energise()
    before_s = bench.clock.now()
    assert bench.robot.prove(bench.clock) == []
    assert bench.clock.now() == before_s


@pytest.mark.parametrize(
    ("safe_state", "seen"), [("torque_off", "let go of them"), ("hold", "holds them")]
)
def test_board_is_seen_to_stop_its_joints_and_drives_again(safe_state: str, seen: str):
    bench = BalancerBench(safe_state=safe_state)
    bench.robot.connect()
    bench.robot.energise()
    assert bench.robot.prove(bench.clock) == [
        f"board: its board had stopped the joints and {seen} after 140 ms of silence"
    ]
    assert bench.wheels_driven
    assert bench.robot.alarm() == ""


def test_board_whose_deadman_does_nothing_is_refused():
    bench = BalancerBench()
    bench.robot.connect()
    bench.robot.energise()
    bench.board.tick = lambda now_us: None
    with pytest.raises(SafetyError, match="the deadman of board 'board' did not stop its joints"):
        bench.robot.prove(bench.clock)


# The companion, as the runtime asks for it


def test_companion_holds_in_its_exercise_where_the_robot_holds(trial: Trial):
    trial.run(0.2)
    assert trial.recorder.drills == [False]
    assert told(trial)[0].startswith("proved: the companion noticed 300 ms of silence, and had")


def test_companion_lets_go_in_its_exercise_only_of_what_is_limp(
    limp_trial: Trial, make_bench: MakeBench
):
    limp_trial.run(0.2)
    assert limp_trial.recorder.drills == [True]

    held = make_bench(limp_trial.bench.config)
    held.robot.connect()
    held.robot.energise()
    trial = make_trial(held.with_another_host())
    trial.run(0.2)
    assert trial.recorder.drills == [False]


def test_controller_promises_at_every_tick_to_be_back_and_in_the_end_nothing(trial: Trial):
    trial.run(0.2)
    promised = trial.recorder.promised
    assert promised[-1] == math.inf
    ticks = trial.recorder.ticks["time_s"]
    patience_s = WATCHDOG_S + GRACE_S
    for time_s in ticks:
        assert min(abs(by_s - time_s - patience_s) for by_s in promised) < PERIOD_S


@dataclass
class Promises:
    """Those made while a robot is made safe after a stop."""

    trial: Trial
    made: list[tuple[float, float]] = field(default_factory=list)
    """When, and to be back by when."""

    def run(self) -> None:
        trial, recorder = self.trial, self.trial.recorder
        trial.controller.at[5] = lambda: trial.runtime.requests.stop("enough")
        promise, now = recorder.promise, trial.bench.clock.now

        def note(back_by_s: float) -> None:
            promise(back_by_s)
            if trial.runtime.state is State.FAULT:
                self.made.append((now(), back_by_s))

        recorder.promise = note
        trial.fail()

    @property
    def longest_wait_s(self) -> float:
        """From one to the next."""
        times_s = [time_s for time_s, _ in self.made]
        return max(np.diff(times_s))

    @property
    def longest_s(self) -> float:
        """That is promised at a time, once safe apart."""
        return max(by_s - time_s for time_s, by_s in self.made[:-1])


def test_stop_that_stalls_is_noticed_in_a_second_and_in_the_end_nothing_is_promised(trial: Trial):
    promises = Promises(trial)
    promises.run()
    assert promises.longest_s == pytest.approx(STALL_S + WATCHDOG_S)
    assert promises.made[-1][1] == math.inf


def test_stop_that_waits_for_a_silent_servo_goes_on_in_the_companions_sight(trial: Trial):
    trial.controller.at[4] = lambda: trial.bench.servo("gripper").hush(math.inf)
    promises = Promises(trial)
    promises.run()
    took_s = promises.made[-1][0] - promises.made[0][0]
    assert took_s > 3 * SETUP_ALLOWANCE_S  # three attempts
    assert promises.longest_wait_s < 2 * EVERY_S


def test_stop_that_waits_without_an_end_has_ten_seconds(trial: Trial):
    robot = trial.bench.robot
    port = robot._ports["bus"]

    def hold() -> None:
        port.read_into(memoryview(bytearray(1)), port.now() + 2 * SLOW_S)

    robot.hold = hold
    promises = Promises(trial)
    promises.run()
    began_s = promises.made[0][0]
    assert max(by_s for _, by_s in promises.made[:-1]) == pytest.approx(began_s + SLOW_S)


def test_arm_that_cannot_watch_us_stops_when_its_companion_has_ended(
    make_bench: MakeBench, so101: RobotConfig, so101_contract: Contract
):
    bench = make_bench(so101, contract=so101_contract, model_path=SO101_PATH)
    trial = make_trial(bench, anyway=True)
    trial.controller.at[5] = lambda: setattr(trial.recorder, "watching", False)
    message, note = trial.fail()
    assert message.startswith("the companion process has ended, expected it to make the robot safe")
    assert "['bus'] cannot notice that by themselves" in message
    assert note.startswith("the robot holds its pose with torque on")
    assert trial.controller.steps < 5 + LOOK_EVERY_S / PERIOD_S + 2


def test_arm_that_watches_us_itself_goes_on_without_a_companion(trial: Trial):
    trial.controller.at[5] = lambda: setattr(trial.recorder, "watching", False)
    trial.run()
    assert trial.states[-1] is State.IDLE


def test_recorder_that_fails_in_a_fault_does_not_keep_the_arm_from_its_safe_state(trial: Trial):
    def fail(*arguments: object) -> None:
        raise OSError("no memory")

    def break_recorder() -> None:
        for name in ("note", "promise", "commit"):
            setattr(trial.recorder, name, fail)

    trial.controller.at[20] = break_recorder
    with pytest.raises(OSError, match="no memory"):
        trial.run()
    assert_holds(trial)


def test_defect_in_one_device_does_not_keep_the_next_from_holding(trial: Trial):
    (servos,) = trial.bench.robot.devices

    class Broken:
        energised = True
        name, joints = "broken", ()

        def hold(self) -> None:
            raise ZeroDivisionError("a defect")

    trial.bench.robot.connect()
    trial.bench.robot.energise()
    trial.bench.robot.devices = [Broken(), servos]  # pyright: ignore[reportAttributeAccessIssue]
    with pytest.raises(BusError, match="a defect"):
        trial.bench.robot.hold()
    assert all(trial.bench.get(j, registers.BUS_WATCHDOG) == 0 for j in trial.bench.twin.joints)


# The companion itself, in real time


def test_companion_that_does_nothing_is_noticed(
    tmp_path: Path, contract: Contract, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(recorder_module, "_DRILL_TIMEOUT_S", 0.2)
    recorder = Recorder(tmp_path / "run.mcap", contract, {})
    os.kill(recorder._companion.pid, signal.SIGSTOP)
    with pytest.raises(SafetyError, match=re.escape("the companion process did nothing in 0.")):
        recorder.drill(0.1, let_go=False)
    os.kill(recorder._companion.pid, signal.SIGCONT)
    recorder.close()


def test_companion_that_cannot_reach_the_robot_is_noticed(
    tmp_path: Path, contract: Contract, desk_arm: RobotConfig
):
    robot = desk_arm.at_ports({"bus": "/dev/does-not-exist"}).model_dump_json()
    recorder = Recorder(tmp_path / "run.mcap", contract, {"robot": robot})
    with pytest.raises(SafetyError, match="could not make the robot safe: /dev/does-not-exist"):
        recorder.drill(0.05, let_go=False)
    recorder.close()


def test_companion_gives_a_port_back_that_has_hung_up(tmp_path: Path, contract: Contract):
    """Else a USB adapter that is plugged in again gets another name."""
    far_end, port = os.openpty()
    path = os.ttyname(port)
    recorder = Recorder(tmp_path / "run.mcap", contract, {}, {"bus": port})
    descriptors = Path(f"/proc/{recorder._companion.pid}/fd")

    def has_it() -> bool:
        return any(os.readlink(descriptor) == path for descriptor in descriptors.iterdir())

    assert has_it()
    os.close(far_end)
    until(lambda: not has_it())
    os.close(port)
    recorder.close()
