"""Whatever happens in whatever order, a run ends parked or in its safe state, and stays there.

Random sequences of what people ask for and what goes wrong meet a robot of two point masses, which
answers in a line of arithmetic. A monitor of its own sees only what reaches that robot, and knows
the rules from here: it shares no code with the runtime.
"""

import contextlib
import math
from collections.abc import Callable
from itertools import pairwise
from types import SimpleNamespace
from typing import cast

import numpy as np
import pytest

from deploy.clock import Clock, VirtualClock
from deploy.contract import Contract
from deploy.device import Reading
from deploy.errors import BusError, SafetyError
from deploy.governor import Governor
from deploy.robot import Robot
from deploy.robot_config import RobotConfig
from deploy.runtime import Runtime
from deploy.state import State
from tests.deploy.conftest import make_governor
from tests.deploy.test_runtime import MemoryRecorder, ScriptedController

PERIOD_S, SPEED = 0.02, 2.0
EPSILON = 1e-9


class Masses:
    """A robot whose joints follow their targets with a lag, and what was done to it."""

    guarded = True

    def __init__(self, config: RobotConfig, contract: Contract, clock: VirtualClock):
        self.config, self.joints, self._clock = config, contract.joints, clock
        rest = [config.joints[joint.name].rest_rad for joint in contract.joints]
        self.position, self.velocity, self.effort = np.array(rest), np.zeros(6), np.zeros(6)
        self.age_s, self.target = np.full(6, np.inf), np.array(rest)
        self.heard = np.ones(6, np.bool_)
        self.readings = {
            "joint_position": Reading(self.position, self.age_s),
            "joint_velocity": Reading(self.velocity, self.age_s),
            "joint_temperature": Reading(np.full(6, 20.0), np.zeros(6)),
        }
        self.energised = self.connected = False
        self.warning = ""
        self.read_s = self.adapter_s = 0.001
        self.statistics = SimpleNamespace(
            requests=0, crc_errors=0, timeouts=0, retried=0, lost=0, late=0
        )
        self.devices = [self]
        self.silent = self.unplugged = False
        self.complaint = ""
        self.goals: list[tuple[float, str, np.ndarray]] = []
        """Time, what was done, goals."""

    def _use(self, what: str) -> None:
        if self.unplugged:
            raise BusError("the port is gone")
        self.goals.append((self._clock.now(), what, self.target.copy()))

    def meanwhile(self, action: Callable[[], object]) -> contextlib.AbstractContextManager[None]:
        return contextlib.nullcontext()  # nothing here is waited for

    def connect(self) -> None:
        self.connected = True

    def energise(self) -> None:
        self.energised = True
        self._use("energise")

    def read(self, deadline_s: float) -> int:
        if self.unplugged:
            raise BusError("the port is gone")
        self.heard.fill(not self.silent)
        if self.silent:
            self.age_s += PERIOD_S
            return 0
        before = self.position.copy()
        self.position += 0.8 * (self.target - self.position)
        self.velocity[:] = (self.position - before) / PERIOD_S
        self.age_s[:] = 0.001
        return 6

    def write(self, targets: np.ndarray) -> None:
        self.target = targets.copy()
        self._use("write")

    def health(self, deadline_s: float, *, due: bool = False) -> str | None:
        return self.complaint

    def alarm(self) -> str:
        return self.warning

    def watchdogs(self) -> list[str]:
        return ["nobody watches"]

    def prove(self, clock: Clock) -> list[str]:
        return ["somebody watches"]

    def hold(self) -> None:
        self._use("hold")

    def release(self) -> None:
        self._use("release")
        self.energised = False

    def describe(self) -> str:
        return "two masses"

    describe_reading = advise = lambda self: ""

    def rest_differences(self) -> list[str]:
        return []


class Run:
    """A runtime on masses, and its events by tick."""

    def __init__(self, config: RobotConfig, contract: Contract):
        self.clock = VirtualClock()
        self.robot = Masses(config, contract, self.clock)
        self.controller, self.recorder = ScriptedController(contract), MemoryRecorder(contract)
        self.runtime = Runtime(
            cast(Robot, self.robot),
            self.controller,
            cast(Governor, make_governor(contract, config)),
            self.clock,
            self.recorder,
        )
        self.states: list[State] = []
        self.runtime.on_state = self.states.append
        self.events: dict[int, Callable[[], object]] = {}
        self.ticks = 0
        self.paused_at: list[tuple[int, bool]] = []
        self.stepped_while_paused = 0

    def commands(self, time_s: float) -> np.ndarray:
        self.ticks += 1
        self.events.get(self.ticks, lambda: None)()
        return np.array([0.17, 0.0, 0.1], np.float32)

    def go(self, duration_s: float = 1.0) -> BaseException | None:
        try:
            self.runtime.run(self.commands, duration_s)
        except BaseException as error:
            return error
        return None


@pytest.fixture
def run(desk_arm: RobotConfig, contract: Contract) -> Run:
    return Run(desk_arm, contract)


def slow(run: Run, periods: float) -> None:
    """Something holds the loop up."""
    run.clock.sleep_until(run.clock.now() + periods * PERIOD_S)


def fail(kind: type[BaseException]) -> None:
    raise kind("on purpose")


EVENTS: dict[str, Callable[[Run], object]] = {
    "pause": lambda run: run.runtime.requests.pause(),
    "resume": lambda run: run.runtime.requests.resume(),
    "finish": lambda run: run.runtime.requests.finish(),
    "stop": lambda run: run.runtime.requests.stop("e-stop"),
    "late": lambda run: slow(run, 1.6),
    "too late": lambda run: slow(run, 8),
    "silent": lambda run: setattr(run.robot, "silent", True),
    "heard": lambda run: setattr(run.robot, "silent", False),
    "unplugged": lambda run: setattr(run.robot, "unplugged", True),
    "alert": lambda run: setattr(run.robot, "warning", "a servo reports an error"),
    "changed": lambda run: setattr(run.robot, "complaint", "its P gain reads 0"),
    "hot": lambda run: run.robot.readings["joint_temperature"].values.fill(70.0),
    "forced": lambda run: run.robot.position.__iadd__(3.0),
    "no number": lambda run: run.controller.at.update(
        {
            run.controller.steps: lambda: run.controller.outputs["joint_position_target"].fill(
                math.nan
            )
        }
    ),
    "wild": lambda run: run.controller.home.__iadd__(1e6),
    "exception": lambda run: fail(ZeroDivisionError),
    "interrupt": lambda run: fail(KeyboardInterrupt),
    "exit": lambda run: fail(SystemExit),
}
HARMLESS = ("pause", "resume", "finish", "late", "silent", "heard", "wild")
"""What need not end in a fault; `silent` does unless `heard` follows in time."""
FOLLOWS = {
    "DISCONNECTED": "IDLE",
    "IDLE": "MOVING_TO_START",
    "MOVING_TO_START": "READY",
    "READY": "RUNNING PAUSED STOPPING",
    "RUNNING": "PAUSED STOPPING",
    "PAUSED": "MOVING_TO_START STOPPING",
    "STOPPING": "IDLE",
}


def check(run: Run, error: BaseException | None) -> None:
    """What must be true of every run, seen from the robot."""
    names = ["DISCONNECTED", *(state.name for state in run.states)]
    for before, after in pairwise(names):
        assert after == "FAULT" or after in FOLLOWS[before].split(), names
    goals, last = run.robot.goals, names[-1]
    if error is None:
        assert last == "IDLE"
        assert goals[-1][1] == "release"
        assert run.robot.position == pytest.approx(
            [run.robot.config.joints[joint.name].rest_rad for joint in run.robot.joints], abs=0.3
        )
    else:
        assert last == "FAULT"
        assert names.count("FAULT") == 1
        assert getattr(error, "__notes__", [])
        if run.robot.energised and not run.robot.unplugged:
            assert goals[-1][1] == "hold"  # and nothing was written after it
    assert not any(what in ("hold", "release") for _, what, _ in goals[:-1])
    writes = [(time_s, target) for time_s, what, target in goals if what != "release"]
    low, high = np.array([j.position_limits_rad for j in run.robot.config.joints.values()]).T
    for (_, before), (_, after) in pairwise(writes):
        assert np.all((after >= low - 1e-6) & (after <= high + 1e-6))
        if not getattr(run, "forced", False):  # a joint that is pushed takes its target along
            assert np.abs(after - before).max() <= SPEED * PERIOD_S + EPSILON


@pytest.mark.parametrize("seed", range(80))
def test_every_sequence_of_events_ends_parked_or_in_the_safe_state(
    desk_arm: RobotConfig, contract: Contract, seed: int
):
    random = np.random.default_rng(seed)
    run = Run(desk_arm, contract)
    count = int(random.integers(1, 7))
    ticks = np.sort(random.choice(np.arange(1, 260), count, replace=False)).tolist()
    names = [str(random.choice(list(EVENTS))) for _ in ticks]
    run.forced = "forced" in names  # pyright: ignore[reportAttributeAccessIssue]
    for tick, name in zip(ticks, names, strict=True):
        run.events[tick] = lambda name=name: EVENTS[name](run)
    run.events[400] = lambda: run.runtime.requests.finish()  # nobody waits for ever

    error = run.go()

    check(run, error)
    if set(names) <= set(HARMLESS) - {"silent"}:
        assert error is None, names


@pytest.mark.parametrize("name", sorted(EVENTS.keys() - set(HARMLESS)))
@pytest.mark.parametrize(
    "tick", [3, 60, 140, 175, 230], ids=["start", "hold", "run", "pause", "end"]
)
def test_every_fault_in_every_state_ends_in_the_safe_state(run: Run, name: str, tick: int):
    run.events[170] = run.runtime.requests.pause
    run.events[190] = run.runtime.requests.resume
    run.events[220] = run.runtime.requests.finish
    run.events[tick] = lambda: EVENTS[name](run)
    run.forced = name == "forced"  # pyright: ignore[reportAttributeAccessIssue]

    error = run.go(3.0)

    if name == "no number" and tick in (175, 230):
        assert error is None  # only a policy in charge is asked for targets
        return
    assert error is not None
    check(run, error)


# Pause and resume


def test_paused_robot_stays_where_it_is_and_its_policy_waits(run: Run):
    run.events[120] = run.runtime.requests.pause
    run.events[220] = run.runtime.requests.resume

    assert run.go() is None

    ticks = run.recorder.ticks
    paused = ticks["state"] == State.PAUSED
    assert paused.sum() == 100
    sent = ticks["sent_target"][paused]
    assert np.array_equal(sent, np.broadcast_to(sent[0], sent.shape))
    assert not ticks["command"][paused].any()
    names = [state.name for state in run.states]
    assert names[3:8] == ["RUNNING", "PAUSED", "MOVING_TO_START", "READY", "RUNNING"]


def test_pause_takes_nothing_of_the_policys_time(run: Run):
    run.events[120] = run.runtime.requests.pause
    run.events[220] = run.runtime.requests.resume
    run.go()
    assert (run.recorder.ticks["state"] == State.RUNNING).sum() == 50  # 1 s


def test_policy_begins_anew_after_a_pause(run: Run, desk_arm: RobotConfig, contract: Contract):
    resets = []
    reset = run.controller.reset
    run.controller.reset = lambda: resets.append(run.controller.steps) or reset()
    run.events[120] = run.runtime.requests.pause
    run.events[130] = run.runtime.requests.resume
    run.go()
    assert len(resets) == 2
    assert resets[1] > 0


def test_pause_in_a_ramp_waits_and_goes_on(run: Run):
    run.events[5] = run.runtime.requests.pause
    run.events[55] = run.runtime.requests.resume
    assert run.go() is None
    sent = run.recorder.ticks["sent_target"]
    assert np.array_equal(sent[6], sent[50])
    assert State.PAUSED not in run.states


def test_run_that_is_told_so_is_held_at_the_start_pose_until_somebody_says_go(run: Run):
    run.runtime.hold = True
    run.events[200] = run.runtime.requests.resume
    assert run.go() is None
    assert [state.name for state in run.states[2:5]] == ["READY", "PAUSED", "MOVING_TO_START"]
    ticks = run.recorder.ticks
    held = ticks["sent_target"][ticks["state"] == State.PAUSED]
    assert len(held) > 50
    assert held == pytest.approx(np.broadcast_to(run.controller.home, held.shape), abs=1e-6)


def test_request_to_finish_parks_the_robot_at_once(run: Run):
    run.events[120] = run.runtime.requests.finish
    assert run.go(1000.0) is None
    assert run.states[-2:] == [State.STOPPING, State.IDLE]
    assert run.ticks < 400


def test_stop_while_paused_is_obeyed(run: Run):
    run.events[120] = run.runtime.requests.pause
    run.events[140] = lambda: run.runtime.requests.stop("e-stop")
    assert str(run.go()) == "stopped: e-stop"
    assert run.states[-2:] == [State.PAUSED, State.FAULT]


# A stop is latched


def test_nothing_is_sent_after_a_stop_whatever_is_asked_for(run: Run):
    requests = run.runtime.requests
    run.events[120] = lambda: (requests.stop("e-stop"), requests.resume(), requests.finish())
    error = run.go()
    assert isinstance(error, SafetyError)
    count = len(run.robot.goals)
    with pytest.raises(SafetyError, match=r"this run is over \(state FAULT\)"):
        run.runtime.run(run.commands, 1.0)
    assert len(run.robot.goals) == count


@pytest.mark.parametrize("safe_state", ["hold", "torque_off"])
def test_safe_state_is_the_robots_own(desk_arm: RobotConfig, contract: Contract, safe_state: str):
    safety = desk_arm.safety.model_copy(update={"safe_state": safe_state})
    run = Run(desk_arm.model_copy(update={"safety": safety}), contract)
    run.events[120] = lambda: run.runtime.requests.stop("e-stop")
    run.go()
    assert run.robot.goals[-1][1] == {"hold": "hold", "torque_off": "release"}[safe_state]


# Overruns


@pytest.mark.parametrize("policy", ["skip", "hold", "stop"])
def test_overrun_is_answered_as_the_robot_says(
    desk_arm: RobotConfig, contract: Contract, policy: str
):
    loop = desk_arm.loop.model_copy(update={"overrun": policy})
    run = Run(desk_arm.model_copy(update={"loop": loop}), contract)
    run.controller.at[20] = lambda: slow(run, 1.6)
    error = run.go()
    assert (error is not None) == (policy == "stop")
    if error is None:
        running = run.recorder.running
        assert run.controller.steps == len(running) - (policy == "hold")
        step = np.abs(np.diff(running["sent_target"], axis=0)).max(axis=1)
        assert (step[20] == 0) == (policy == "hold")  # from the tick that took too long to the next
    else:
        assert "1 deadlines missed in a row at 50 Hz" in str(error)
