"""A device that is lost while the robot is driven, and what becomes of the run.

Every twin is watched by a monitor (`tests.deploy.conftest`): a jump fails any test here.
"""

import math
from collections.abc import Callable

import numpy as np
import pytest

from deploy.dynamixel import registers as dynamixel
from deploy.errors import BusError, SafetyError
from deploy.reconnect import Reconnect
from deploy.runtime import State
from deploy.twin.monitor import Unsafe
from deploy.twin.servo import Servo
from tests.deploy.conftest import Bench
from tests.deploy.test_faults import family_bench as family_bench
from tests.deploy.test_runtime import PERIOD_S, Trial, make_trial

BACK = (
    "the robot is back and as it was; it waits for you to resume: p on the keyboard, "
    'START on a gamepad, {"resume": true} over UDP, whichever this run listens to'
)


def waiting(trial: Trial, how: Reconnect = Reconnect.ASKED) -> Trial:
    """The run waits for what is lost; a person resumes as soon as the robot is said to be back."""
    trial.runtime.reconnect = how
    trial.runtime.drive.reconnects = True
    safety = trial.bench.config.safety.model_copy(update={"reconnect_s": 1.5})
    trial.bench.robot.config = trial.bench.config.model_copy(update={"safety": safety})

    def tell(text: str) -> None:
        if "proved" not in text:
            trial.told.append(text)
        if "waits for you to resume" in text:
            trial.runtime.requests.resume()

    trial.runtime.tell = tell
    return trial


@pytest.fixture
def trial(family_bench: Bench) -> Trial:
    return waiting(make_trial(family_bench))


@pytest.fixture
def arm(bench: Bench) -> Trial:
    """Where the family does not matter."""
    return waiting(make_trial(bench))


def unplug(trial: Trial, for_s: float = 0.8) -> None:
    """The adapter's cable is off for a while."""
    port, clock = trial.bench.port, trial.bench.clock
    port.unplugged = True
    back_s = clock.now() + for_s
    sleep_until = clock.sleep_until

    def sleep(time_s: float) -> None:
        sleep_until(time_s)
        if clock.now() >= back_s:
            port.unplugged = False

    clock.sleep_until = sleep


def cut_power(trial: Trial, for_s: float = 0.8) -> None:
    """All servos are off for a while: limp, and silent."""
    for servo in trial.bench.twin.servos:
        servo.boot_s = for_s
        servo.reboot()


def lose_at(trial: Trial, step: int, lose: Callable[[Trial], None]) -> None:
    """Once, before a step of the policy."""
    trial.controller.at[step] = lambda: (trial.controller.at.clear(), lose(trial))


def when_lost(action: Callable[[], None]) -> Callable[[str], None]:
    """Somebody acts when told that a device is looked for."""
    return lambda text: action() if "looking for it" in text else None


def names(trial: Trial) -> list[str]:
    return [state.name for state in trial.states]


def test_request_to_end_before_anything_moves_parks_by_way_of_the_start_pose(bench: Bench):
    trial = make_trial(bench)
    trial.runtime.requests.finish()
    trial.run()
    assert names(trial) == ["IDLE", "MOVING_TO_START", "READY", "STOPPING", "IDLE"]


@pytest.mark.parametrize("lose", [unplug, cut_power])
def test_run_goes_on_by_way_of_the_start_pose_once_somebody_says_so(
    trial: Trial, lose: Callable[[Trial], None]
):
    lose_at(trial, 20, lose)
    trial.run()
    assert names(trial)[3:] == [
        "RUNNING", "PAUSED", "MOVING_TO_START", "READY", "RUNNING", "STOPPING", "IDLE",
    ]  # fmt: skip
    assert not any(trial.bench.torque_on.values())
    before, _, after = trial.told
    assert before.startswith(
        "the port is gone" if lose is unplug else "device 'bus' has fallen silent"
    )
    assert after == BACK


def test_lost_time_is_not_the_policys(arm: Trial):
    lose_at(arm, 20, unplug)
    arm.run()
    running = arm.recorder.running
    assert len(running) == 50  # 1 s
    assert arm.controller.steps == 30  # it began anew after 20


def test_first_target_after_the_return_is_where_the_joints_are(trial: Trial):
    lose_at(trial, 20, cut_power)  # limp, the arm falls
    trial.run()
    ticks = trial.recorder.ticks
    back = int(np.argmax(np.diff(ticks["time_s"]) > 0.5)) + 1
    before, after = ticks[back - 1], ticks[back]
    assert np.abs(before["joint_position"] - after["joint_position"]).max() > 0.2  # it has fallen
    assert np.abs(after["sent_target"] - after["joint_position"]).max() < 0.05
    sent = np.array([ticks[back:]["sent_target"]])[0]
    assert np.abs(np.diff(sent, axis=0)).max() <= 2.0 * PERIOD_S + 1e-6


def test_nothing_is_held_that_fell_until_somebody_resumes(trial: Trial):
    held: list[bool] = []
    trial.runtime.tell = trial.told.append  # nobody resumes
    resume_s = math.inf

    def commands(time_s: float) -> np.ndarray:
        nonlocal resume_s
        if resume_s == math.inf and trial.told and "robot is back" in trial.told[-1]:
            resume_s = trial.bench.clock.now() + 2.0
        if trial.bench.clock.now() < resume_s < math.inf:
            held.append(any(trial.bench.torque_on.values()))
        if trial.bench.clock.now() >= resume_s:
            trial.runtime.requests.resume()
        return np.array([0.17, 0.0, 0.1], np.float32)

    lose_at(trial, 20, cut_power)
    trial.runtime.run(commands, 1.0)
    trial.bench.monitor.stopped()
    assert len(held) > 50  # it looks on, in 2 s
    assert not any(held)
    assert trial.states[-1] is State.IDLE


def test_a_key_pressed_before_the_robot_is_back_resumes_nothing(arm: Trial):
    def tell(text: str) -> None:
        if "looking for it" in text:
            arm.runtime.requests.resume()
        if "robot is back" in text:
            arm.runtime.requests.stop("nobody resumed")

    arm.runtime.tell = tell
    lose_at(arm, 20, unplug)
    message, _ = arm.fail()
    assert message == "stopped: nobody resumed"
    assert names(arm)[-2:] == ["PAUSED", "FAULT"]


def test_run_that_may_goes_on_by_itself(bench: Bench):
    trial = waiting(make_trial(bench), Reconnect.ALONE)
    lose_at(trial, 20, unplug)
    trial.run()
    assert names(trial)[3:] == [
        "RUNNING", "PAUSED", "MOVING_TO_START", "READY", "RUNNING", "STOPPING", "IDLE",
    ]  # fmt: skip


def test_run_that_was_paused_when_it_lost_a_device_stays_paused(bench: Bench):
    trial = waiting(make_trial(bench), Reconnect.ALONE)
    trial.runtime.hold = True

    def on_state(state: State) -> None:
        trial.states.append(state)
        if state is State.PAUSED and State.PAUSED not in trial.states[:-1]:
            unplug(trial)

    trial.runtime.on_state = on_state
    trial.run()
    assert trial.told[-1] == BACK
    assert trial.states[-1] is State.IDLE


def test_what_is_not_back_in_time_ends_in_the_safe_state(arm: Trial):
    lose_at(arm, 20, lambda trial: unplug(trial, math.inf))
    message, note = arm.fail(BusError)
    assert message == (
        "device 'bus' was lost and is not back, looked for it for at most 1.5 s "
        "(`safety.reconnect_s`): the port is gone"
    )
    assert "the safe state 'hold' is not confirmed" in note
    assert names(arm)[-2:] == ["PAUSED", "FAULT"]


def test_stop_while_it_is_looked_for_is_obeyed(arm: Trial):
    arm.runtime.tell = when_lost(lambda: arm.runtime.requests.stop("e-stop"))
    lose_at(arm, 20, lambda trial: unplug(trial, math.inf))
    message, _ = arm.fail()
    assert message == "stopped: e-stop"


def test_request_to_end_while_it_is_looked_for_ends_the_run(arm: Trial):
    arm.runtime.tell = when_lost(arm.runtime.requests.finish)
    lose_at(arm, 20, lambda trial: unplug(trial, math.inf))
    message, _ = arm.fail(BusError)
    assert message.startswith("device 'bus' was lost and is not back")


@pytest.mark.parametrize("state", ["MOVING_TO_START", "PAUSED", "STOPPING"])
def test_loss_in_every_driven_state_is_waited_for(arm: Trial, state: str):
    lost = False

    def on_state(entered: State) -> None:
        nonlocal lost
        arm.states.append(entered)
        if entered.name == state and not lost:
            lost = True
            unplug(arm)

    arm.runtime.on_state = on_state
    arm.runtime.hold = state == "PAUSED"
    arm.run()
    index = names(arm).index(state)
    assert names(arm)[index + 1] == "PAUSED"
    assert names(arm)[-2:] == ["STOPPING", "IDLE"]
    assert (arm.recorder.ticks["state"] == State.RUNNING).sum() == 50


def test_other_servo_model_is_not_taken_for_the_one_that_was_lost(trial: Trial):
    servo = trial.bench.servo("gripper")

    def swap(trial: Trial) -> None:
        cut_power(trial)
        servo.force(servo.registers.MODEL_NUMBER, 12345)  # pyright: ignore[reportArgumentType]

    lose_at(trial, 20, swap)
    message, _ = trial.fail(BusError)
    assert "device 'bus' was lost and is not back" in message
    assert "gripper" in message


def test_changed_settings_are_not_asked_about_again(trial: Trial):
    servo = trial.bench.servo("wrist_roll")
    register = servo.registers.MAX_POSITION_LIMIT

    def change(trial: Trial) -> None:
        cut_power(trial)
        trial.bench.set("wrist_roll", register, 3000)

    lose_at(trial, 20, change)
    message, _ = trial.fail(BusError)
    assert "settings kept in the servos would have to change" in message


def test_held_joint_that_is_elsewhere_afterwards_ends_the_run(trial: Trial):
    fast = isinstance(trial.bench.servo("wrist_roll"), Servo)

    def move(trial: Trial) -> None:
        unplug(trial)
        registers = trial.bench.servo("wrist_roll").registers
        if fast:
            trial.bench.set("wrist_roll", dynamixel.BUS_WATCHDOG, 0)
        goal = trial.bench.get("wrist_roll", registers.GOAL_POSITION)
        far = round(0.77 / trial.bench.servo("wrist_roll").model.rad_per_tick)
        trial.bench.set("wrist_roll", registers.GOAL_POSITION, goal + far)  # another program

    trial.bench.expect(Unsafe.JUMP, *([Unsafe.OVERSPEED] if fast else []))
    lose_at(trial, 20, move)
    message, _ = trial.fail(SafetyError)
    assert message.startswith("joint 'wrist_roll' is at ")
    assert "its horn has slipped, or it is another servo" in message


def test_one_servo_that_falls_silent_is_no_lost_device(arm: Trial):
    servo = arm.bench.servo("gripper")
    lose_at(arm, 20, lambda trial: setattr(servo, "_silent_until_s", math.inf))
    message, _ = arm.fail()
    assert message.startswith("joint 'gripper' has not been read for 1")


def test_run_that_must_not_wait_ends_at_once(bench: Bench):
    trial = make_trial(bench)
    lose_at(trial, 20, unplug)
    message, _ = trial.fail(BusError)
    assert message == "the port is gone"
