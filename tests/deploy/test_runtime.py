"""The whole robot side in virtual time: controller, governor, loop and bus, with a twin as the arm.

The exported policy runs where its own behaviour matters; where a fault does, a scripted controller
stands in for it. Whatever goes wrong, the arm itself is asked what state it is in.
"""

import math
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from deploy.clock import Clock
from deploy.commands import fixed_command, random_commands
from deploy.contract import Contract
from deploy.controller import OnnxController
from deploy.device import Reading
from deploy.dynamixel import registers
from deploy.dynamixel.device import DynamixelServos
from deploy.dynamixel.registers import RAD_PER_TICK
from deploy.errors import BusError, ConfigError, ContractError, DeployError, SafetyError
from deploy.governor import LimitedBy
from deploy.recorder import Drill, Recorder, record_dtype
from deploy.robot_config import RobotConfig
from deploy.runtime import Runtime, State
from deploy.servos.device import GOALS_MISSED, HOLD_REACH_RAD
from deploy.signals import SignalKind
from deploy.twin.half_duplex import HalfDuplex
from deploy.twin.monitor import Unsafe
from tests.deploy.conftest import MODEL_PATH, Bench, MakeBench, driven_by, make_governor, using

PERIOD_S = 0.02
WATCHDOG_S = 0.1
HOLDS = "the robot holds its pose with torque on, confirmed by reading every servo back"
IS_LIMP = "the robot is limp, confirmed by reading every servo back"
SILENT = 0
"""Status Return Level of a servo that obeys and answers nothing but a ping."""


class ScriptedController(OnnxController):
    """Swings the wrist; a test may act before any step of the policy, by its number."""

    def __init__(self, contract: Contract):
        self.contract = contract
        self.inputs, self.outputs = (
            {spec.name: np.zeros(spec.shape[-1], np.float32) for spec in specs}
            for specs in (contract.inputs, contract.outputs)
        )
        self.home = np.array([joint.default_position_rad for joint in contract.joints])
        self.at: dict[int, Callable[[], object]] = {}
        self.steps = 0

    def step(self) -> None:
        (target,) = self.outputs.values()
        target[:] = self.home
        target[4] += 0.3 * math.sin(2 * math.pi * self.steps * PERIOD_S)  # at most 1.9 rad/s
        self.at.get(self.steps, lambda: None)()
        self.steps += 1

    def reset(self) -> None:
        self.steps = 0


class MemoryRecorder(Recorder):
    """Keeps the records, and needs no companion process."""

    def __init__(self, contract: Contract):
        self.record: NDArray[Any] = np.zeros((), record_dtype(contract))
        self._records: list[NDArray[Any]] = []
        self.notes: list[tuple[float, str, str]] = []
        self.promised: list[float] = []
        self.drills: list[bool] = []
        self.watching = True

    def commit(self) -> None:
        self._records.append(self.record.copy())

    def note(self, time_s: float, state: str, text: str = "") -> None:
        self.notes.append((time_s, state, text))

    def promise(self, back_by_s: float) -> None:
        self.promised.append(back_by_s)

    def watches(self) -> bool:
        return self.watching

    def drill(self, silent_s: float, *, let_go: bool) -> Drill:
        self.drills.append(let_go)
        return Drill(silent_s, 0.0)

    @property
    def ticks(self) -> NDArray[Any]:
        """All records, shape (T,)."""
        return np.array(self._records)

    @property
    def running(self) -> NDArray[Any]:
        """Those of ticks in which the policy was in charge."""
        return self.ticks[self.ticks["state"] == State.RUNNING]


@dataclass
class Trial:
    """A runtime on a bench, what it recorded, and the states it went through."""

    bench: Bench
    runtime: Runtime
    controller: ScriptedController
    recorder: MemoryRecorder
    states: list[State] = field(default_factory=list)
    told: list[str] = field(default_factory=list)

    @property
    def goals(self) -> list[int]:
        """Goal position of every servo [counts]."""
        return [self.bench.get(joint, registers.GOAL_POSITION) for joint in self.bench.twin.joints]

    def run(self, duration_s: float = 1.0) -> None:
        command = fixed_command(self.bench.contract.command, [0.17, 0.0, 0.1])
        try:
            self.runtime.run(command, duration_s)
        finally:
            self.bench.monitor.stopped()

    def fail(self, kind: type[DeployError] = SafetyError) -> tuple[str, str]:
        """Run into a fault; returns the message and the note on the robot's state."""
        with pytest.raises(kind) as caught:
            self.run()
        assert self.states[-1] is self.runtime.state is State.FAULT
        return str(caught.value), "\n".join(getattr(caught.value, "__notes__", ()))


def make_trial(
    bench: Bench,
    controller: OnnxController | None = None,
    clock: Clock | None = None,
    *,
    anyway: bool = False,
    streams: dict[SignalKind, Reading] | None = None,
) -> Trial:
    scripted = ScriptedController(bench.contract)
    recorder = MemoryRecorder(bench.contract)
    runtime = Runtime(
        bench.robot,
        controller or scripted,
        make_governor(bench.contract, bench.config),
        clock or bench.clock,
        recorder,
        anyway=anyway,
        streams=streams or {},
    )
    trial = Trial(bench, runtime, scripted, recorder)
    runtime.on_state = trial.states.append
    return trial


@pytest.fixture
def trial(bench: Bench) -> Trial:
    return make_trial(bench)


@pytest.fixture
def limp_trial(make_bench: MakeBench, desk_arm: RobotConfig) -> Trial:
    """A robot whose safe state is torque off."""
    safety = desk_arm.safety.model_copy(update={"safe_state": "torque_off"})
    return make_trial(make_bench(desk_arm.model_copy(update={"safety": safety})))


EditedModel = Callable[[str, str], Path]


@pytest.fixture
def edited_model(tmp_path: Path) -> EditedModel:
    """The desk arm's MJCF with one passage replaced."""

    def edit(found: str, replacement: str) -> Path:
        text = MODEL_PATH.read_text()
        assert text.count(found) == 1
        path = tmp_path / "edited.xml"
        path.write_text(text.replace(found, replacement))
        return path

    return edit


@pytest.fixture
def run_policy(
    make_bench: MakeBench, policy_path: Path
) -> Callable[[int], tuple[Bench, NDArray[Any]]]:
    """Run the exported policy for two seconds on random commands; the bench and the records."""

    def run(seed: int) -> tuple[Bench, NDArray[Any]]:
        controller = OnnxController(policy_path)
        bench = make_bench(contract=controller.contract)
        trial = make_trial(bench, controller)
        commands = random_commands(controller.contract.command, seed)
        trial.runtime.run(commands, duration_s=2.0)
        return bench, trial.recorder.ticks

    return run


# A run as planned


def test_policy_that_uses_only_some_signals_gets_only_those(
    make_bench: MakeBench, contract: Contract
):
    inputs = [spec for spec in contract.inputs if spec.kind in ("joint_target", "command")]
    trial = make_trial(make_bench(contract=contract.model_copy(update={"inputs": inputs})))
    shown: dict[str, NDArray[Any]] = {}
    trial.controller.at[10] = lambda: shown.update(
        {name: array.copy() for name, array in trial.controller.inputs.items()}
    )

    trial.run()

    assert list(shown) == ["joint_target", "command"]
    assert shown["command"] == pytest.approx([0.17, 0.0, 0.1])
    assert shown["joint_target"] == pytest.approx(trial.recorder.running["sent_target"][9])


# Signals from any device


@pytest.fixture
def imu_trial(make_bench: MakeBench, contract: Contract) -> Trial:
    """A policy that also sees gravity and time, on an arm with an IMU."""
    policy = using(contract, "joint_position", "command", "projected_gravity", "time")
    bench = make_bench(contract=policy)
    bench.robot.readings["projected_gravity"] = Reading(np.array([0.0, 0.6, -0.8]), np.zeros(1))
    return make_trial(bench)


def test_signal_of_another_device_is_shown_to_the_policy_and_recorded(imu_trial: Trial):
    gravity = imu_trial.bench.robot.readings["projected_gravity"].values
    imu_trial.controller.at[10] = lambda: gravity.__setitem__(1, -0.6)  # live, as devices are

    imu_trial.run()

    recorded = imu_trial.recorder.running["projected_gravity"]
    assert recorded[10] == pytest.approx([0.0, 0.6, -0.8])
    assert recorded[11] == pytest.approx([0.0, -0.6, -0.8])


def test_time_begins_with_the_policy(imu_trial: Trial):
    imu_trial.run()

    assert imu_trial.recorder.running["time"][:, 0] == pytest.approx(0.02 * np.arange(50))


def test_command_of_a_ramp_is_none(trial: Trial):
    trial.run()

    ticks = trial.recorder.ticks
    assert not ticks["command"][ticks["state"] != State.RUNNING].any()
    assert trial.recorder.running["command"][:, 0] == pytest.approx(0.17)


def test_record_holds_what_the_policy_was_shown(imu_trial: Trial):
    shown: list[NDArray[Any]] = []
    for step in range(50):
        imu_trial.controller.at[step] = lambda: shown.append(
            imu_trial.controller.inputs["joint_position"].copy()
        )

    imu_trial.run()

    assert np.array_equal(imu_trial.recorder.running["joint_position"], np.array(shown))
    assert imu_trial.recorder.ticks["joint_velocity"].any()  # though the policy does not see it
    assert "joint_target" not in (imu_trial.recorder.ticks.dtype.names or ())


def test_signal_that_is_too_old_stops_the_policy(imu_trial: Trial):
    age_s = imu_trial.bench.robot.readings["projected_gravity"].age_s
    imu_trial.controller.at[10] = lambda: age_s.fill(0.101)

    message, note = imu_trial.fail()

    assert message == (
        "the signal 'projected_gravity' is 101 ms old, allowed 100 ms; check the device that "
        "measures it"
    )
    assert note == HOLDS
    assert imu_trial.controller.steps == 11


def test_signal_that_is_no_number_stops_the_policy(imu_trial: Trial):
    gravity = imu_trial.bench.robot.readings["projected_gravity"].values
    imu_trial.controller.at[10] = lambda: gravity.fill(math.nan)

    assert imu_trial.fail()[0] == (
        "the signal 'projected_gravity' reads no number: [nan, nan, nan]"
    )
    assert imu_trial.controller.steps == 11


def test_signals_that_the_policy_does_not_use_may_be_missing(trial: Trial):
    trial.bench.robot.readings["projected_gravity"] = Reading(np.zeros(3), np.full(1, np.inf))

    trial.run()

    assert trial.states[-1] is State.IDLE


def test_policy_that_needs_more_than_the_robot_has_is_refused_before_it_is_connected(
    make_bench: MakeBench, contract: Contract
):
    policy = driven_by(using(contract, "joint_position", "object_position"), "torque")
    bench = make_bench(contract=contract)
    controller = ScriptedController(policy)

    with pytest.raises(ContractError) as caught:
        Runtime(bench.robot, controller, make_governor(policy, bench.config), bench.clock)

    assert str(caught.value) == (
        "the policy cannot run on this robot:\n"
        "  signal 'object_position': the policy uses it, this robot measures only joint_position, "
        "joint_velocity, joint_current, joint_voltage, joint_temperature\n"
        "  target 'joint_torque_target': the policy sends it, this robot obeys only "
        "joint_position_target"
    )
    assert bench.port.sent == []


def test_policy_that_sends_wheel_speeds_is_refused_before_the_robot_is_connected(
    make_bench: MakeBench, contract: Contract
):
    policy = using(driven_by(contract, "velocity"), "joint_velocity", "joint_target_velocity")
    bench = make_bench(contract=contract)

    with pytest.raises(ContractError) as caught:
        Runtime(
            bench.robot,
            ScriptedController(policy),
            make_governor(policy, bench.config),
            bench.clock,
        )

    assert str(caught.value) == (
        "the policy cannot run on this robot:\n"
        "  target 'joint_velocity_target': the policy sends it, this robot obeys only "
        "joint_position_target"
    )
    assert bench.port.sent == []


def test_states_follow_each_other(trial: Trial):
    trial.run()
    assert trial.states == [
        State.IDLE,
        State.MOVING_TO_START,
        State.READY,
        State.RUNNING,
        State.STOPPING,
        State.IDLE,
    ]


def test_arm_ends_parked_and_limp(trial: Trial):
    trial.run()
    rest = [joint.rest_rad for joint in trial.bench.config.joints.values()]
    assert trial.bench.twin.joint_position == pytest.approx(rest, abs=0.05)
    assert not any(trial.bench.torque_on.values())


def test_parked_arm_stays_where_it_is(trial: Trial):
    trial.run()
    parked = trial.bench.twin.joint_position
    trial.bench.wait(3.0)
    assert trial.bench.twin.joint_position == pytest.approx(parked, abs=0.05)


def test_nothing_moves_before_the_first_target(trial: Trial):
    pose = trial.bench.twin.joint_position
    moved = []

    def compare(state: State) -> None:
        if state in (State.IDLE, State.MOVING_TO_START):
            moved.append(np.abs(trial.bench.twin.joint_position - pose).max())

    trial.runtime.on_state = compare
    trial.run()
    assert moved[0] < 0.02  # limp, it settles into its rest pose
    assert moved[1] < 0.02


def test_policy_takes_over_at_the_start_pose(trial: Trial):
    pose = []
    trial.controller.at[0] = lambda: pose.append(trial.bench.twin.joint_position)
    trial.run()
    assert pose[0] == pytest.approx(trial.controller.home, abs=0.06)


@pytest.mark.parametrize(("duration_s", "count"), [(1.5, 75), (0.515, 26), (0.505, 25)])
def test_policy_runs_at_its_rate_for_as_long_as_it_should(
    trial: Trial, duration_s: float, count: int
):
    trial.run(duration_s)
    ticks = trial.recorder.ticks
    assert (ticks["state"] == State.RUNNING).sum() == count
    assert np.diff(ticks["time_s"]) == pytest.approx(PERIOD_S)
    assert np.all(ticks["lateness_s"] == 0)
    assert ticks["overruns"][-1] == 0


def test_controller_is_fed_what_the_contract_names(trial: Trial):
    inputs = trial.controller.inputs
    fed: list[dict[str, np.ndarray]] = []
    for step in (10, 11):
        trial.controller.at[step] = lambda: fed.append(
            {name: value.copy() for name, value in inputs.items()}
        )
    trial.run()

    ticks = trial.recorder.ticks[trial.recorder.ticks["state"] == State.RUNNING]
    assert fed[1]["joint_position"] == pytest.approx(ticks["joint_position"][11])
    assert fed[1]["joint_velocity"] == pytest.approx(ticks["joint_velocity"][11])
    assert fed[1]["joint_target"] == pytest.approx(ticks["sent_target"][10])
    assert fed[1]["command"] == pytest.approx([0.17, 0.0, 0.1])


def test_targets_have_no_discontinuity_from_start_to_end(trial: Trial):
    trial.run()
    sent = trial.recorder.ticks["sent_target"]
    largest = np.abs(np.diff(sent, axis=0)).max()
    assert largest <= 2.0 * PERIOD_S + 1e-6  # the contract's velocity_limit of every joint


def test_ramps_take_at_most_half_the_velocity_limit(trial: Trial):
    trial.run()
    ticks = trial.recorder.ticks
    ramping = ticks["state"] != State.RUNNING
    steps = np.abs(np.diff(ticks["sent_target"], axis=0))[ramping[1:] & ramping[:-1]]
    assert 0.8 * 1.0 * PERIOD_S < steps.max() <= 1.0 * PERIOD_S + 1e-6


def test_first_target_is_where_the_arm_is_held(make_bench: MakeBench, edited_model: EditedModel):
    stretched_out = edited_model('"rest" qpos="0 -1.47 1.43', '"rest" qpos="0 0.5 -1.4')
    # it falls until it is energised
    trial = make_trial(make_bench(model_path=stretched_out), anyway=True)
    held: list[float] = []

    def note_goals(state: State) -> None:
        if state is State.MOVING_TO_START:
            held.extend((goal - 2048) * RAD_PER_TICK for goal in trial.goals)

    trial.runtime.on_state = note_goals
    trial.run()
    assert trial.recorder.ticks["sent_target"][0] == pytest.approx(held, abs=0.01)


def test_run_needs_no_recorder(trial: Trial):
    trial.runtime.recorder = None
    trial.run()
    assert trial.states[-1] is State.IDLE


def test_servo_gains_are_those_of_training_while_the_policy_runs(trial: Trial):
    gains = []
    trial.controller.at[0] = lambda: gains.extend(
        trial.bench.get(joint, registers.POSITION_P_GAIN) for joint in trial.bench.twin.joints
    )
    trial.run()
    assert gains == [800, 1200, 3000, 1600, 800, 800]


# The exported policy


def test_policy_never_leaves_the_limits(run_policy):
    bench, ticks = run_policy(seed=0)
    sent, running = ticks["sent_target"], ticks["state"] == State.RUNNING
    low, high = np.array([joint.position_limits_rad for joint in bench.config.joints.values()]).T
    assert running.sum() == 100
    assert np.all((sent >= low - 1e-6) & (sent <= high + 1e-6))
    assert np.abs(np.diff(sent, axis=0)).max() <= 2.0 * PERIOD_S + 1e-6
    assert np.abs(sent - ticks["joint_position"]).max() <= 0.6 + 1e-6
    assert np.array_equal(
        np.any(ticks["limited_by"], axis=1), np.any(sent != ticks["policy_target"], axis=1)
    )


def test_same_seed_gives_the_same_log(run_policy):
    _, first = run_policy(seed=3)
    _, second = run_policy(seed=3)
    assert first.tobytes() == second.tobytes()


def test_another_seed_gives_other_commands(run_policy):
    _, first = run_policy(seed=3)
    _, second = run_policy(seed=4)
    assert not np.array_equal(first["command"], second["command"])


# Faults end in the safe state


def assert_holds(trial: Trial) -> None:
    """Torque is on, and no joint moves far from where it was last seen, or sags in the end."""
    assert all(trial.bench.torque_on.values())
    seen = trial.bench.robot.position.copy()
    trial.bench.wait(0.5)
    pose = trial.bench.twin.joint_position
    assert pose == pytest.approx(seen, abs=HOLD_REACH_RAD + 0.02)
    trial.bench.wait(1.0)  # longer than the servos' watchdog
    assert trial.bench.twin.joint_position == pytest.approx(pose, abs=0.005)


def test_stop_request_ends_in_hold(trial: Trial):
    trial.controller.at[20] = lambda: trial.runtime.requests.stop("SIGINT received")
    assert trial.fail() == ("stopped: SIGINT received", HOLDS)
    assert trial.controller.steps == 21
    assert_holds(trial)


def test_first_stop_request_gives_the_reason(trial: Trial):
    trial.runtime.requests.stop("e-stop pressed")
    trial.runtime.requests.stop("SIGTERM received")
    assert trial.fail()[0] == "stopped: e-stop pressed"


def test_stop_request_before_torque_is_on_leaves_the_arm_limp(trial: Trial):
    def stop_when_connected(state: State) -> None:
        trial.states.append(state)
        if state is State.IDLE:
            trial.runtime.requests.stop("SIGINT received")

    trial.runtime.on_state = stop_when_connected
    assert trial.fail() == ("stopped: SIGINT received", IS_LIMP)
    assert not any(trial.bench.torque_on.values())


def test_stop_request_while_the_companion_is_proved_leaves_the_arm_limp(trial: Trial):
    drill = trial.recorder.drill

    def stop_meanwhile(silent_s: float, *, let_go: bool) -> Drill:
        trial.runtime.requests.stop("SIGINT received")
        return drill(silent_s, let_go=let_go)

    trial.recorder.drill = stop_meanwhile
    assert trial.fail() == ("stopped: SIGINT received", IS_LIMP)
    assert State.MOVING_TO_START not in trial.states
    assert trial.recorder.drills


def test_stop_request_before_torque_is_on_leaves_an_arm_that_holds_itself_up_holding(
    trial: Trial,
):
    trial.controller.at[0] = lambda: trial.runtime.requests.stop("SIGINT received")
    trial.fail()  # away from its rest pose
    again = make_trial(trial.bench.with_another_host())

    again.runtime.requests.stop("SIGINT received")

    assert again.fail()[0] == "stopped: SIGINT received"
    assert_holds(again)


def test_run_begins_where_an_earlier_one_held(trial: Trial):
    trial.controller.at[0] = lambda: trial.runtime.requests.stop("SIGINT received")
    trial.fail()
    trial.bench.wait(0.5)  # it comes to rest
    pose = trial.bench.twin.joint_position
    again = make_trial(trial.bench.with_another_host())
    again.run()
    assert again.states[-1] is State.IDLE
    assert again.recorder.ticks["joint_position"][0] == pytest.approx(pose, abs=0.05)


def test_target_that_is_no_number_ends_in_hold(trial: Trial):
    (target,) = trial.controller.outputs.values()
    trial.controller.at[20] = lambda: target.__setitem__(2, np.nan)
    assert trial.fail() == (
        "the policy asked for nan at joint 'elbow_flex', expected an angle; its inputs or the file "
        "are broken",
        HOLDS,
    )
    assert_holds(trial)


def test_servo_that_falls_silent_ends_in_the_safe_state(limp_trial: Trial):
    bench = limp_trial.bench
    limp_trial.controller.at[20] = lambda: bench.set(
        "gripper", registers.STATUS_RETURN_LEVEL, SILENT
    )
    message, note = limp_trial.fail()
    assert message.startswith("joint 'gripper' has not been read for 1")
    assert message.endswith(
        " ms, allowed 100 ms; check the bus cable and power, and whether this machine is too busy"
    )
    assert note == (
        "the safe state 'torque_off' is not confirmed: gripper: servo 6 does not answer (write 0 "
        "to Torque Enable (64), 3 attempts), expected a reply within milliseconds; check its "
        "power, cable, id and baud rate. bus: its servos stop by themselves, torque on, after 100 "
        "ms of silence; switch the power off before touching the robot."
    )
    assert not any(bench.torque_on.values())


def test_stale_readings_stop_the_robot_before_the_servos_watchdog_would(trial: Trial):
    trial.controller.at[20] = lambda: setattr(trial.bench.port, "replies_to_lose", math.inf)
    message, _ = trial.fail()
    assert re.fullmatch(
        r"joint 'shoulder_pan' has not been read for 1\d\d ms, allowed 100 ms; check the bus cable "
        r"and power, and whether this machine is too busy",
        message,
    )
    assert trial.recorder.ticks["joint_age_s"].max() <= 0.1
    assert trial.controller.steps <= 26  # five more ticks last 100 ms


def test_overruns_end_in_hold(trial: Trial):
    slow = {step: lambda: trial.bench.wait(2.5 * PERIOD_S) for step in range(20, 60)}
    trial.controller.at.update(slow)
    assert trial.fail() == (
        "11 deadlines missed in a row at 50 Hz; this machine or bus is too slow or too busy",
        HOLDS,
    )
    assert_holds(trial)


def test_single_overrun_is_recorded_and_survived(trial: Trial):
    trial.controller.at[20] = lambda: trial.bench.wait(2.5 * PERIOD_S)
    trial.run()
    assert trial.recorder.ticks["overruns"][-1] == 2  # one missed, one given up for the next
    assert trial.states[-1] is State.IDLE


def test_pause_longer_than_the_servos_watchdog_ends_in_the_safe_state(trial: Trial):
    # As after Ctrl-Z and fg. By then the servos hold, and refuse every goal that follows.
    trial.controller.at[20] = lambda: trial.bench.wait(WATCHDOG_S + 0.2)
    message, note = trial.fail()
    assert re.match(r"nothing was sent for 3[0-2]\d ms, allowed 100 ms", message)
    assert message.endswith("; ".join(trial.bench.robot.watchdogs()))  # each family's own words
    assert note == HOLDS
    assert trial.controller.steps == 21
    assert all(trial.bench.torque_on.values())


def test_arm_that_cannot_reach_its_rest_pose_is_not_let_go(trial: Trial):
    model, data = trial.bench.twin._model, trial.bench.twin._data

    def block() -> None:
        """Something new stands in the way of the upper arm."""
        model.jnt_range[1] = data.qpos[1] + np.array([-0.02, 0.02])

    trial.controller.at[20] = block
    message, note = trial.fail()
    assert message.startswith("joint 'shoulder_lift' has been 0.")
    assert message.endswith("something blocks it, or its load is too heavy")
    assert note == HOLDS
    assert all(trial.bench.torque_on.values())


@pytest.mark.parametrize(
    ("register", "value"),
    [
        (registers.TORQUE_ENABLE, 0),
        (registers.POSITION_P_GAIN, 0),
        (registers.PROFILE_VELOCITY, 1),  # 0.024 rad/s
        (registers.BUS_WATCHDOG, 0),
    ],
    ids=str,
)
def test_servo_that_another_program_changes_is_noticed_within_a_round(
    trial: Trial, register: registers.Register, value: int
):
    trial.controller.at[20] = lambda: trial.bench.set("shoulder_lift", register, value)
    message, note = trial.fail()
    assert message.startswith(f"shoulder_lift: its {register} reads {value}, expected ")
    assert trial.controller.steps <= 21 + 6  # one servo a tick
    limp = register is registers.TORQUE_ENABLE
    assert note == HOLDS if not limp else "Torque Enable (64) reads 0, it has let go" in note


def test_servo_that_its_own_watchdog_stops_is_noticed(trial: Trial):
    servo = trial.bench.twin.servos[2]
    trial.controller.at[20] = lambda: setattr(servo, "hear", lambda now_s: None)  # it turns deaf
    message, _ = trial.fail()
    assert message.startswith("elbow_flex: its Bus Watchdog (98) reads -1, expected 5")


def test_joint_that_does_not_follow_is_noticed_although_its_registers_are_right(
    trial: Trial, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(trial.bench.robot, "health", lambda deadline_s, due: "")
    trial.controller.at[20] = lambda: trial.bench.set("shoulder_lift", registers.POSITION_P_GAIN, 0)
    message, _ = trial.fail()
    assert message.endswith(
        "its motor driven at 0% where 100% is called for; it has let go, lost its gains, or "
        "stopped by itself"
    )


def test_writes_that_do_not_arrive_are_noticed_although_the_joint_is_near_its_target(
    trial: Trial, monkeypatch: pytest.MonkeyPatch
):
    def lose_targets() -> None:
        monkeypatch.setattr(trial.bench.servos, "_send", lambda goals: None)

    trial.controller.at[20] = lose_targets
    message, _ = trial.fail()
    assert re.match(r"wrist_roll: its Goal Position \(116\) reads \d+, \d+ was sent", message)
    assert trial.controller.steps <= 21 + 6 + GOALS_MISSED


def test_single_write_that_does_not_arrive_is_survived(trial: Trial):
    for step in range(20, 40, 3):
        trial.controller.at[step] = lambda: setattr(trial.bench.port, "requests_to_lose", 1)
    trial.bench.expect(Unsafe.JUMP)  # of what two ticks may move
    trial.run()
    assert trial.states[-1] is State.IDLE


def test_arm_is_not_thrown_back_when_replies_are_lost_and_writes_arrive(trial: Trial):
    bench, speeds = trial.bench, []

    def lose_replies() -> None:
        bench.port.replies_to_lose = math.inf

    trial.controller.at[22] = lose_replies  # the wrist is on its way back, at 1.7 rad/s
    trial.fail()
    for _ in range(100):
        bench.wait(0.005)
        speeds.append(bench.twin._data.qvel[4])
    assert np.max(np.abs(speeds)) < 2.5


# Before torque is on


def rewired(config: RobotConfig, joint: str, **changes: object) -> RobotConfig:
    wiring = config.joints[joint].model_copy(update=changes)
    return config.model_copy(update={"joints": {**config.joints, joint: wiring}})


MISBUILT = {
    "zero 22 degrees off": {"zero_ticks": 2048 - 250},
    "mounted the other way round": {"direction": -1},
}


@pytest.mark.parametrize("built", MISBUILT.values(), ids=MISBUILT)
def test_wrong_zero_or_direction_is_refused_before_torque_is_on(
    make_bench: MakeBench, desk_arm: RobotConfig, built: dict[str, int]
):
    trial = make_trial(make_bench(desk_arm, built=rewired(desk_arm, "elbow_flex", **built)))
    trial.bench.wait(1.0)
    pose = trial.bench.twin.joint_position
    message, note = trial.fail()
    assert message.startswith(
        "the limp robot does not lie as `rest_rad` in its YAML says:\n  elbow"
    )
    assert "--anyway" in message
    assert note == ""
    assert trial.states == [State.FAULT]
    trial.bench.wait(0.5)
    assert trial.bench.twin.joint_position == pytest.approx(pose, abs=2e-3)


def test_robot_that_is_not_parked_runs_anyway_if_told_to(
    make_bench: MakeBench, edited_model: EditedModel
):
    elsewhere = edited_model('"rest" qpos="0 -1.47 1.43', '"rest" qpos="0.4 -1.47 1.43')
    trial = make_trial(make_bench(model_path=elsewhere))
    assert "shoulder_pan reads +0.40 rad, at rest it should read +0.00" in trial.fail()[0]
    trial = make_trial(make_bench(model_path=elsewhere), anyway=True)
    trial.run()
    assert trial.states[-1] is State.IDLE


def test_rest_pose_is_checked_unless_somebody_says_otherwise(
    make_bench: MakeBench, edited_model: EditedModel
):
    elsewhere = edited_model('"rest" qpos="0 -1.47 1.43', '"rest" qpos="0.4 -1.47 1.43')
    bench = make_bench(model_path=elsewhere)
    controller = ScriptedController(bench.contract)
    governor = make_governor(bench.contract, bench.config)
    runtime = Runtime(bench.robot, controller, governor, bench.clock)
    with pytest.raises(SafetyError, match="does not lie as `rest_rad`"):
        runtime.run(fixed_command(bench.contract.command, [0.17, 0.0, 0.1]), 0.1)


def test_joint_outside_its_limits_is_never_energised(make_bench: MakeBench, desk_arm: RobotConfig):
    # The trial that threw an arm: its shoulder's zero at count 1650, the robot file says 2048.
    built = rewired(desk_arm, "shoulder_lift", zero_ticks=1650)
    trial = make_trial(make_bench(desk_arm, built=built), anyway=True)
    message, note = trial.fail()
    assert message.startswith("shoulder_lift is at -2.0")
    assert note == IS_LIMP
    assert not any(trial.bench.torque_on.values())


# Other faults


def test_servo_in_alert_stops_the_robot_and_is_described(trial: Trial):
    servo = trial.bench.twin.servos[0]
    trial.controller.at[20] = lambda: setattr(servo, "voltage_v", 15.0)
    message, note = trial.fail()
    assert message == "a servo reports an error: shoulder_pan: input voltage"
    assert note == HOLDS  # an XL430 warns of its voltage, and goes on
    assert all(trial.bench.torque_on.values())


def test_servo_that_has_shut_down_is_not_said_to_hold(trial: Trial):
    servo = trial.bench.twin.servos[2]
    trial.controller.at[20] = lambda: setattr(servo, "voltage_v", 8.0)
    message, note = trial.fail()
    assert message == "a servo reports an error: elbow_flex: input voltage"
    assert not trial.bench.torque_on["elbow_flex"]  # an XL330 shuts down
    assert "not confirmed: elbow_flex" in note


def test_servo_that_restarts_is_noticed(trial: Trial):
    servo = trial.bench.twin.servos[1]
    servo.boot_s = 0.01  # if it takes long, it is noticed as a stale reading
    trial.controller.at[20] = lambda: servo.reboot()  # a loose connector
    message, note = trial.fail()
    assert message == ("the servos of ['shoulder_lift'] have restarted; check their power supply")
    assert "not confirmed: shoulder_lift: servo 2: Torque Enable (64) reads 0" in note
    assert trial.controller.steps == 21


def test_blocked_joint_is_not_handed_over_to_the_policy(
    make_bench: MakeBench, edited_model: EditedModel
):
    blocked = edited_model('range="-1.5 1.57"', 'range="-1.5 -1.2"')  # the start pose is at -0.2
    trial = make_trial(make_bench(model_path=blocked))
    message, note = trial.fail()
    assert message.startswith("joint 'shoulder_lift' has been 0.")
    assert message.endswith("something blocks it, or its load is too heavy")
    assert note == HOLDS
    assert State.RUNNING not in trial.states


@pytest.mark.parametrize(("reached", "pose"), [(State.READY, "start"), (State.STOPPING, "rest")])
def test_joint_that_lags_too_shortly_to_disobey_is_still_not_where_the_next_state_begins(
    make_bench: MakeBench, desk_arm: RobotConfig, reached: State, pose: str
):
    # Nobody complains of the blocked joint for 5 s: only its pose tells.
    safety = desk_arm.safety.model_copy(update={"following_time_ms": 5000.0})
    trial = make_trial(make_bench(desk_arm.model_copy(update={"safety": safety})))
    model, data = trial.bench.twin._model, trial.bench.twin._data

    def block(state: State) -> None:
        trial.states.append(state)
        if state is (State.MOVING_TO_START if reached is State.READY else State.STOPPING):
            model.jnt_range[1] = data.qpos[1] + np.array([-0.02, 0.02])

    trial.runtime.on_state = block
    message, note = trial.fail()
    assert re.match(
        rf"joint 'shoulder_lift' is \d\.\d\d rad from the {pose} pose, allowed 0\.3 rad", message
    )
    assert note == HOLDS
    assert (State.RUNNING in trial.states) is (pose == "rest")
    assert all(trial.bench.torque_on.values())


@pytest.mark.parametrize("tolerance_rad", [0.15, 0.8])
def test_jaw_that_holds_something_is_parked_if_it_may_rest_around_it(
    make_bench: MakeBench, desk_arm: RobotConfig, tolerance_rad: float
):
    jaw = desk_arm.joints["gripper"].model_copy(update={"rest_tolerance_rad": tolerance_rad})
    safety = desk_arm.safety.model_copy(update={"pose_tolerance_rad": 0.12})
    joints = desk_arm.joints | {"gripper": jaw}
    robot = desk_arm.model_copy(update={"joints": joints, "safety": safety})
    trial = make_trial(make_bench(robot))
    model, data = trial.bench.twin._model, trial.bench.twin._data

    def hold(state: State) -> None:
        trial.states.append(state)
        if state is State.STOPPING:  # it is 0.2 rad wide open, and closes when it is parked
            model.jnt_range[5] = data.qpos[5] - 0.01, 1.6

    trial.runtime.on_state = hold
    if tolerance_rad > 0.2:
        trial.run()
        assert trial.states[-2:] == [State.STOPPING, State.IDLE]
        assert not any(trial.bench.torque_on.values())
    else:
        message, note = trial.fail()
        assert message.startswith("joint 'gripper' is 0.")
        assert "rad from the rest pose, allowed 0.15 rad; something blocks it" in message
        assert note == HOLDS


def test_unplugged_bus_leaves_the_arm_to_the_servos_watchdog(trial: Trial):
    trial.controller.at[20] = lambda: setattr(trial.bench.port, "unplugged", True)
    message, note = trial.fail(BusError)
    assert message == "the port is gone"
    assert note == (
        "the safe state 'hold' is not confirmed: the port is gone. bus: its servos stop by "
        "themselves, torque on, after 100 ms of silence; switch the power off before touching the "
        "robot."
    )
    assert_stops_by_itself(trial.bench)


def assert_stops_by_itself(bench: Bench) -> None:
    """The watchdog of every servo trips, and the arm comes to rest."""
    bench.wait(WATCHDOG_S + 0.5)
    for joint in bench.twin.joints:
        assert bench.get(joint, registers.BUS_WATCHDOG) == registers.BUS_WATCHDOG_TRIPPED
    pose = bench.twin.joint_position
    bench.wait(1.0)
    assert bench.twin.joint_position == pytest.approx(pose, abs=0.02)


def test_states_and_their_times_are_in_the_black_box(trial: Trial):
    trial.run()
    names = [name for name, _ in groupby(name for _, name, _ in trial.recorder.notes)]
    assert names == ["idle", "moving_to_start", "ready", "running", "stopping", "idle"]
    times = {state: time_s for time_s, state, _ in trial.recorder.notes}
    assert times["stopping"] - times["running"] == pytest.approx(1.0)


def test_requests_are_counted_in_the_black_box(trial: Trial):
    trial.run()
    # that expect an answer: a reading of all joints, and of one servo's settings
    assert np.all(np.diff(trial.recorder.ticks["requests"].astype(int)) == 2)


def test_what_was_found_when_connecting_is_in_the_black_box(trial: Trial):
    trial.run()
    text = trial.recorder.notes[0][2]
    assert text.startswith("shoulder_pan: XL430-W250 firmware 52, shoulder_lift: XL430-W250")
    assert "measured 1.0 ms" in text


def test_why_it_stopped_and_whether_it_is_safe_is_in_the_black_box(trial: Trial):
    trial.controller.at[20] = lambda: trial.runtime.requests.stop("SIGINT received")
    trial.fail()
    (begun_s, *fault), (done_s, *safe) = trial.recorder.notes[-2:]
    assert fault == ["fault", "SafetyError: stopped: SIGINT received"]
    assert safe == ["fault", HOLDS]
    assert begun_s < done_s


def test_exception_without_words_is_named_in_the_black_box(trial: Trial):
    trial.controller.at[20] = lambda: 1 / 0
    with pytest.raises(ZeroDivisionError):
        trial.run()
    assert trial.recorder.notes[-2][2] == "ZeroDivisionError: division by zero"


def test_any_exception_ends_in_the_safe_state(trial: Trial):
    def fail() -> None:
        raise ZeroDivisionError

    trial.controller.at[20] = fail
    with pytest.raises(ZeroDivisionError) as caught:
        trial.run()
    assert caught.value.__notes__ == [HOLDS]
    assert_holds(trial)


def test_error_that_cannot_be_put_into_words_ends_in_the_safe_state(trial: Trial):
    class SpeechlessError(Exception):
        def __str__(self) -> str:
            raise ValueError

    def fail() -> None:
        raise SpeechlessError

    trial.controller.at[20] = fail
    with pytest.raises(SpeechlessError):
        trial.run()
    assert_holds(trial)


@pytest.mark.parametrize("failing", [State.RUNNING, State.FAULT])
def test_listener_that_fails_does_not_keep_the_arm_from_its_safe_state(
    trial: Trial, failing: State
):
    def announce(state: State) -> None:
        if state >= failing:
            raise OSError("the terminal is gone")

    trial.runtime.on_state = announce
    trial.controller.at[20] = lambda: trial.runtime.requests.stop("SIGHUP received")
    with pytest.raises((OSError, SafetyError)):
        trial.run()
    assert trial.runtime.state is State.FAULT
    assert_holds(trial)


def test_fault_ends_limp_where_the_robot_says_so(limp_trial: Trial):
    limp_trial.controller.at[20] = lambda: limp_trial.runtime.requests.stop("SIGINT received")
    assert limp_trial.fail() == ("stopped: SIGINT received", IS_LIMP)
    assert not any(limp_trial.bench.torque_on.values())


def test_fault_while_torque_is_switched_on_ends_limp(trial: Trial):
    bench = trial.bench

    def silence(state: State) -> None:
        trial.states.append(state)
        if state is State.IDLE:
            bench.set("gripper", registers.STATUS_RETURN_LEVEL, SILENT)

    trial.runtime.on_state = silence
    trial.fail(BusError)
    assert not any(bench.torque_on.values())


def test_refusal_to_connect_switches_nothing_on(trial: Trial):
    trial.bench.set("gripper", registers.ID, 9)
    message, note = trial.fail(BusError)
    assert message.startswith("no answer from gripper (id 6)")
    assert note == ""
    assert not any(trial.bench.torque_on.values())


def at_baud_rate(config: RobotConfig, baud_rate: int) -> RobotConfig:
    return config.model_copy(
        update={"bus": config.wired["bus"].model_copy(update={"baud_rate": baud_rate})}
    )


def test_bus_too_slow_for_the_policys_rate_is_refused_before_torque_is_on(
    make_bench: MakeBench, desk_arm: RobotConfig
):
    trial = make_trial(make_bench(at_baud_rate(desk_arm, 57600)))
    # request 20 bytes, merged reply 8 + 6 · 20 bytes, 10 bits each
    assert trial.fail(ConfigError)[0] == (
        "reading all joints takes 27.2 ms: 25.7 ms on the wire at 57600 baud, 1.5 ms for the "
        "adapter (measured 1.0 ms, `bus.usb_latency_ms` says 4); a policy at 50 Hz leaves 15.0 ms. "
        "Train a slower policy, or raise the servos' baud rate and `bus.baud_rate`"
    )
    assert not any(trial.bench.torque_on.values())


def at_rate(contract: Contract, rate_hz: float) -> Contract:
    return contract.model_copy(update={"control_dt_s": 1 / rate_hz})


def test_adapter_too_slow_for_the_policys_rate_is_refused_with_the_remedy(
    make_bench: MakeBench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    timer = tmp_path / "ttyUSB0/latency_timer"  # as sysfs shows it for an FTDI adapter
    timer.parent.mkdir()
    timer.write_text("16\n")
    monkeypatch.setattr("deploy.serial_port.USB_SERIAL", tmp_path)
    trial = make_trial(make_bench(usb_latency_s=0.016))
    message, _ = trial.fail(ConfigError)
    assert message.startswith(
        "reading all joints takes 18.0 ms: 1.5 ms on the wire at 1000000 baud, 16.5 ms for the "
        "adapter (measured 16.0 ms, `bus.usb_latency_ms` says 4); a policy at 50 Hz leaves 15.0 "
        "ms. Train a slower policy, or lower the latency: the adapter's latency timer is 16 ms; "
        f"set it to 1: `echo 1 | sudo tee {timer}`, and for good with this line in "
    )
    assert message.endswith('ATTR{latency_timer}="1"')
    assert not any(trial.bench.torque_on.values())


@pytest.mark.parametrize("usb_latency_s", [0.006, 0.010, 0.012])
def test_adapter_slower_than_configured_is_no_broken_cable(
    make_bench: MakeBench, usb_latency_s: float
):
    trial = make_trial(make_bench(usb_latency_s=usb_latency_s))
    trial.run()
    statistics = trial.bench.servos.bus.statistics
    assert (statistics.lost, statistics.late, statistics.retried) == (0, 0, 0)
    # The adapter, and at 1 Mbps 20 bytes out and 128 back for a reading, or 14 and 139 for settings
    assert statistics.reply_times.max_s - usb_latency_s == pytest.approx(1.505e-3, abs=26e-6)


@pytest.mark.parametrize(("rate_hz", "usb_latency_s"), [(200, 0.001), (250, 0.0005), (100, 0.004)])
def test_policy_runs_at_the_rate_the_wire_allows(
    make_bench: MakeBench, contract: Contract, rate_hz: float, usb_latency_s: float
):
    bench = make_bench(contract=at_rate(contract, rate_hz), usb_latency_s=usb_latency_s)
    trial = make_trial(bench)
    trial.run()
    ticks = trial.recorder.ticks
    assert (ticks["state"] == State.RUNNING).sum() in (rate_hz, rate_hz + 1)
    assert ticks["overruns"][-1] == ticks["lost"][-1] == ticks["retried"][-1] == 0
    assert ticks["read_s"].max() == pytest.approx(1.48e-3 + usb_latency_s)
    ages_s, reading_s = ticks["joint_age_s"].max(axis=1), 1.48e-3 + usb_latency_s
    assert np.median(ages_s) == pytest.approx(reading_s)
    assert ages_s.max() < reading_s + 1 / rate_hz  # a tick in half a second verifies instead
    assert (ages_s > reading_s + 1e-6).sum() <= 1 + len(ages_s) / (0.5 * rate_hz)


@pytest.mark.parametrize(("rate_hz", "usb_latency_s"), [(200, 0.001), (50, 0.012)])
def test_servos_are_looked_after_although_no_tick_has_time_for_more_than_a_reading(
    make_bench: MakeBench, contract: Contract, rate_hz: float, usb_latency_s: float
):
    bench = make_bench(contract=at_rate(contract, rate_hz), usb_latency_s=usb_latency_s)
    trial = make_trial(bench)
    trial.controller.at[10] = lambda: bench.set("gripper", registers.POSITION_P_GAIN, 1)
    with pytest.raises(SafetyError, match=r"gripper: its Position P Gain \(84\) reads 1"):
        trial.run(duration_s=4.0)  # half a second for each servo


@pytest.mark.parametrize(("rate_hz", "usb_latency_s"), [(500, 0.001), (200, 0.002)])
def test_rate_that_cannot_work_is_refused_with_numbers(
    make_bench: MakeBench, contract: Contract, rate_hz: float, usb_latency_s: float
):
    bench = make_bench(contract=at_rate(contract, rate_hz), usb_latency_s=usb_latency_s)
    message, _ = make_trial(bench).fail(ConfigError)
    took_ms, left_ms = 1.48 + 1e3 * usb_latency_s + 0.5, 750 / rate_hz
    assert message.startswith(f"reading all joints takes {took_ms:.1f} ms: 1.5 ms on the wire")
    assert f"a policy at {rate_hz} Hz leaves {left_ms:.1f} ms" in message
    assert not any(bench.torque_on.values())


def slow_down(trial: Trial, usb_latency_s: float) -> Callable[[], object]:
    """The adapter takes longer from now on."""
    (wire,) = trial.bench.twin._wires.values()
    return lambda: setattr(wire, "_usb_latency_s", usb_latency_s)


def test_adapter_that_becomes_slower_is_followed(trial: Trial):
    trial.controller.at[20] = slow_down(trial, 0.011)
    trial.run()
    ticks = trial.recorder.ticks[trial.recorder.ticks["state"] == State.RUNNING]
    assert ticks["lost"][-1] <= 1  # the settings being read back when it happens
    assert np.count_nonzero(np.diff(ticks["retried"])) <= 4  # few readings, until it is known
    ages_s = ticks["joint_age_s"].max(axis=1)
    assert np.median(ages_s) < 0.015
    assert ages_s.max() < 0.015 + PERIOD_S  # when settings were read back instead
    assert ticks["read_s"].max() < 0.75 * PERIOD_S


def test_readings_lost_to_a_slow_adapter_are_blamed_on_it(trial: Trial):
    trial.controller.at[20] = slow_down(trial, 0.019)
    message, note = trial.fail()
    assert "has not been read for" in message
    assert re.search(
        rf"^{HOLDS}\n\d+ replies came late, \d+ readings were lost: replies took 2\.\d ms "
        r"\(median\), \d+\.\d \(p99\), \d+\.\d \(max\), `bus.usb_latency_ms` says 4 ms\. If it "
        r"stays so, ",
        note,
    )


def test_single_late_reply_costs_one_reading_and_is_not_taken_for_the_next(
    make_bench: MakeBench, contract: Contract
):
    trial = make_trial(make_bench(contract=at_rate(contract, 200)))
    trial.controller.at[50] = slow_down(trial, 0.007)  # the period is 5 ms
    trial.controller.at[51] = slow_down(trial, 0.001)
    robot, step, surplus_s = trial.bench.robot, trial.controller.step, []
    (servos,) = robot.devices
    assert isinstance(servos, DynamixelServos)

    def look() -> None:
        """How much older than said the readings are, by the servos' own clocks."""
        age_s = trial.bench.clock.now() - servos._tick_ms / 1000
        surplus_s.append(age_s - robot.age_s)
        step()

    trial.controller.step = look
    trial.run()
    ticks = trial.recorder.ticks[trial.recorder.ticks["state"] == State.RUNNING]
    assert ticks["lost"][-1] == 6
    assert ticks["late"][-1] == 1  # one merged packet
    assert (ticks["joint_age_s"][45:60].max(axis=1) > 0.005).sum() == 1
    # a servo's clock counts milliseconds, and the twin's steps are as long; a period is 5 ms
    assert np.max(surplus_s) < 0.003


# A dropped reply


def test_single_late_reply_does_not_end_all_reading(trial: Trial):
    (wire,) = trial.bench.twin._wires.values()
    assert isinstance(wire, HalfDuplex)
    usual_s = wire._usb_latency_s
    trial.controller.at = {20: slow_down(trial, 0.025), 21: slow_down(trial, usual_s)}
    trial.run(3.0)
    ticks = trial.recorder.ticks
    assert np.all(np.diff(ticks["requests"]) > 0)
    assert trial.bench.servos.bus.latency_s < 0.025  # no more than it was late


def test_dropped_reply_is_asked_for_again_within_the_tick(trial: Trial):
    robot, read = trial.bench.robot, trial.bench.robot.read

    def lose_the_reply(deadline_s: float) -> int:
        trial.bench.port.replies_to_lose = 1
        robot.read = read
        return read(deadline_s)

    trial.controller.at[20] = lambda: setattr(robot, "read", lose_the_reply)
    trial.run()
    ticks = trial.recorder.ticks[trial.recorder.ticks["state"] == State.RUNNING]
    assert ticks["retried"][-1] == 6
    assert ticks["lost"][-1] == 0
    assert ticks["joint_age_s"].max() < 0.01
    assert ticks["read_s"].max() < 0.01


def test_tick_without_any_reply_costs_no_target_discontinuity(trial: Trial):
    def lose_all() -> None:
        trial.bench.port.replies_to_lose = math.inf

    def recover() -> None:
        trial.bench.port.replies_to_lose = 0

    trial.controller.at.update({20: lose_all, 21: recover})
    trial.run()
    ticks = trial.recorder.ticks[trial.recorder.ticks["state"] == State.RUNNING]
    assert ticks["joint_age_s"][21].min() > 0.02
    assert ticks["joint_age_s"][22].max() < 0.01
    assert np.abs(np.diff(ticks["sent_target"], axis=0)).max() <= 2.0 * PERIOD_S + 1e-6
    # Three ticks' way of the wrist is more than 0.07 rad, which its limit of 3.5 rad/s is in one:
    # it waits for a moment, and catches up.
    limited, joints = np.nonzero(ticks["limited_by"])
    assert {*joints.tolist()} == {4}
    assert (limited[0], ticks["limited_by"][22, 4]) == (22, LimitedBy.SILENCE)
    assert {*ticks["limited_by"][23:30, 4].tolist()} <= {0, LimitedBy.VELOCITY}
    assert limited[-1] < 30
    assert ticks["read_s"].max() <= 0.75 * PERIOD_S + 1e-9


# The servos' watchdog


def test_servos_watch_the_bus_while_the_policy_runs(trial: Trial):
    armed = []
    trial.controller.at[20] = lambda: armed.extend(
        trial.bench.get(joint, registers.BUS_WATCHDOG) for joint in trial.bench.twin.joints
    )
    trial.run()
    assert armed == [5] * 6


def test_arm_stops_by_itself_when_the_runtime_goes_silent(trial: Trial):
    bench = trial.bench

    class Killed(BaseException):
        """As kill -9: nothing is sent any more."""

    def kill() -> None:
        bench.port.unplugged = True
        raise Killed

    trial.controller.at[25] = kill  # in the middle of its swing
    with pytest.raises(Killed):
        trial.run()
    before = bench.twin.joint_position[4]
    bench.wait(0.01)
    assert abs(bench.twin.joint_position[4] - before) > 0.01
    assert_stops_by_itself(bench)


# Signals from elsewhere


@pytest.fixture
def tracked(make_bench: MakeBench, contract: Contract) -> tuple[Trial, Reading]:
    """A policy that sees an object, on an arm without a camera; and where the camera's tracker
    puts what it sees."""
    policy = using(contract, "joint_position", "command", "object_position")
    reading = Reading(np.array([0.2, 0.0, 0.05]), np.full(1, np.inf))
    trial = make_trial(make_bench(contract=policy), streams={"object_position": reading})
    return trial, reading


def test_signal_from_elsewhere_is_awaited_and_shown_to_the_policy(tracked: tuple[Trial, Reading]):
    trial, reading = tracked
    began_s = trial.bench.clock.now()
    command = np.array([0.17, 0.0, 0.1], np.float32)

    def commands(time_s: float) -> NDArray[np.float32]:
        reading.age_s[:] = np.inf if trial.bench.clock.now() < began_s + 1.5 else 0.1
        return command

    trial.runtime.run(commands, 0.5)

    assert trial.recorder.running["object_position"] == pytest.approx(
        np.broadcast_to([0.2, 0.0, 0.05], (25, 3))
    )
    assert trial.recorder.notes[1][0] - trial.recorder.notes[0][0] > 1.0  # idle until it came


def test_robot_is_not_energised_for_a_signal_that_nobody_sends(tracked: tuple[Trial, Reading]):
    trial, _ = tracked
    message, note = trial.fail()
    assert message.startswith("nothing came for ['object_position'] in 5 s; start what sends")
    assert note == IS_LIMP
    assert State.MOVING_TO_START not in trial.states


def test_signal_from_elsewhere_that_ends_stops_the_robot(tracked: tuple[Trial, Reading]):
    trial, reading = tracked
    reading.age_s.fill(0.1)
    trial.controller.at[20] = lambda: reading.age_s.fill(0.51)
    message, note = trial.fail()
    assert message == (
        "the signal 'object_position' is 510 ms old, allowed 500 ms; check the device that "
        "measures it"
    )
    assert note == HOLDS


# A robot that leans, falls, or gets hot


def test_robot_that_is_tilted_too_far_is_stopped(imu_trial: Trial):
    gravity = imu_trial.bench.robot.readings["projected_gravity"].values
    imu_trial.controller.at[10] = lambda: gravity.__setitem__(slice(None), [0.0, 1.0, -0.1])
    message, note = imu_trial.fail()
    assert message.startswith("the robot is tilted by 1.47 rad, allowed 1 rad")
    assert note == HOLDS
    assert imu_trial.controller.steps == 11


def test_hot_joint_is_spared_and_one_too_hot_stops_the_robot(
    make_bench: MakeBench, desk_arm: RobotConfig
):
    safety = desk_arm.safety.model_copy(update={"derated_effort_share": 0.05})
    trial = make_trial(make_bench(desk_arm.model_copy(update={"safety": safety})))
    celsius = np.full(6, 30.0)
    trial.bench.robot.readings["joint_temperature"] = Reading(celsius, np.zeros(6))
    trial.controller.at[10] = lambda: celsius.__setitem__(4, 67.9)
    trial.controller.at[40] = lambda: celsius.__setitem__(4, 68.0)
    message, note = trial.fail()
    assert message.startswith("joint 'wrist_roll' has 68 °C, allowed 68 °C")
    assert note == HOLDS
    assert trial.controller.steps == 41
    limited_by = trial.recorder.running["limited_by"]
    assert not limited_by[:10].any()
    assert np.any(limited_by[11:40, 4] & LimitedBy.TEMPERATURE)
    assert not limited_by[:, :4].any()


# How punctual it was


def test_stage_times_are_in_the_black_box_whichever_way_it_ended(trial: Trial):
    trial.run()
    text = trial.recorder.notes[-1][2]
    assert text.startswith("0 deadlines missed at 50 Hz\nlate       p50  0.000")
    stages = [line.split()[0] for line in text.splitlines()[1:]]
    assert stages == ["late", "read", "write", "tick", "controller"]
    again = make_trial(trial.bench.with_another_host())
    again.controller.at[20] = lambda: again.runtime.requests.stop("SIGINT received")
    again.fail()
    assert again.recorder.notes[-3][2].startswith("0 deadlines missed at 50 Hz\nlate")


def test_joint_whose_supply_is_low_gets_less_effort(make_bench: MakeBench, desk_arm: RobotConfig):
    safety = desk_arm.safety.model_copy(update={"derated_effort_share": 0.05})
    trial = make_trial(make_bench(desk_arm.model_copy(update={"safety": safety})))
    servo = trial.bench.servo("wrist_roll")
    trial.controller.at[5] = lambda: setattr(servo, "voltage_v", 3.62)  # of 5 V; 3.5 V is its limit
    trial.run()
    limited_by = trial.recorder.running["limited_by"]
    assert not limited_by[:5].any()
    # read back within six ticks, as one servo a tick is
    assert np.any(limited_by[5:20, 4] & LimitedBy.VOLTAGE)
    assert not limited_by[:, :4].any()


def test_current_and_temperature_are_read_from_the_servos(trial: Trial):
    trial.run()
    readings = trial.bench.robot.readings
    current, temperature = readings["joint_current"].values, readings["joint_temperature"].values
    assert np.isnan(current[:2]).all()  # an XL430 has no such register
    assert np.all(np.abs(current[2:]) < 0.5)
    assert np.all((temperature > 15) & (temperature < 60))
