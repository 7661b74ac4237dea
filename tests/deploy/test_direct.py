"""A program of one's own on the desk arm, in virtual time."""

import contextlib
import math
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import deploy
from deploy.clock import VirtualClock
from deploy.configuration import load_yaml, validate
from deploy.direct import DirectRobot, driven
from deploy.dynamixel import registers
from deploy.errors import ConfigError, DeployError, SafetyError
from deploy.robot import Robot, bare_joints
from deploy.robot_config import RobotConfig
from deploy.vigil import VIGIL_BYTES, Vigil
from tests.deploy.conftest import REPOSITORY, Bench, FlakyPort

pytest.importorskip("mujoco", reason="the twin needs robotrl[train]")

from deploy.twin.monitor import Monitor
from deploy.twin.port import VirtualPort
from deploy.twin.robot import Twin
from tests.deploy.balancer import Wheels

ROBOTS = REPOSITORY / "configs/robots"


@pytest.fixture
def open_arm(bench: Bench) -> Callable[..., object]:
    def open_(**options: Any):
        ports = dict.fromkeys(bench.config.wired, bench.port)
        joints = bare_joints(bench.config)
        robot = Robot(bench.config, joints, ports, approve=lambda changes: True)
        return driven(robot, bench.clock, **options)

    return open_


def rest(bench: Bench) -> list[float]:
    return [joint.rest_rad for joint in bench.config.joints.values()]


def test_joint_is_moved_and_the_others_stay_and_in_the_end_the_arm_is_parked(
    bench: Bench, open_arm
):
    with open_arm() as arm:
        before = arm.position
        arm.move({"gripper": 0.5})
        after = arm.position
        bench.wait(2.0)  # the program thinks, longer than the servos' watchdog waits
        arm.move({"gripper": 0.2, "shoulder_pan": 0.4})
        last = arm.position
    assert after["gripper"] == pytest.approx(0.5, abs=0.1)  # soft gains, and friction
    assert {**after, "gripper": 0} == pytest.approx({**before, "gripper": 0}, abs=0.05)
    assert (last["gripper"], last["shoulder_pan"]) == pytest.approx((0.2, 0.4), abs=0.1)
    assert bench.twin.joint_position == pytest.approx(rest(bench), abs=0.1)
    assert not any(bench.torque_on.values())


def test_torque_is_off_until_something_is_to_move(bench: Bench, open_arm):
    with open_arm() as arm:
        assert arm.velocity["gripper"] == pytest.approx(0.0, abs=0.1)
        assert not any(bench.torque_on.values())


def test_servos_have_the_gains_they_leave_the_factory_with(bench: Bench, open_arm):
    with open_arm() as arm:
        arm.move({"gripper": 0.3})
        assert bench.get("shoulder_pan", registers.POSITION_P_GAIN) == 640
        assert bench.get("shoulder_pan", registers.POSITION_D_GAIN) == 4000
        assert bench.get("gripper", registers.POSITION_P_GAIN) == 400


@pytest.mark.parametrize(
    ("targets", "problem"),
    [
        ({"griper": 0.1}, "'griper' is no joint of this robot (did you mean 'gripper'?)"),
        ({"gripper": 1.7}, "joint 'gripper' cannot go to 1.7 rad, its range is -0.03 to 1.6 rad"),
        ({"gripper": float("nan")}, "cannot go to nan rad"),
        ({"gripper": "open"}, "joint 'gripper' cannot go to 'open' rad, its range is"),
    ],
)
def test_move_that_cannot_be_is_refused_before_anything_moves(
    bench: Bench, open_arm, targets: dict[str, float], problem: str
):
    with open_arm() as arm:
        with pytest.raises(ConfigError) as caught:
            arm.move({"shoulder_pan": 0.5, **targets})
        assert not any(bench.torque_on.values())
    assert problem in str(caught.value)


@pytest.mark.parametrize("kind", [ZeroDivisionError, KeyboardInterrupt])
def test_exception_in_the_program_ends_in_the_safe_state(
    bench: Bench, open_arm, kind: type[BaseException]
):
    with pytest.raises(kind) as caught, open_arm() as arm:
        arm.move({"shoulder_pan": 0.5})
        raise kind
    assert caught.value.__notes__ == [
        "the robot holds its pose with torque on, confirmed by reading every servo back"
    ]
    assert all(bench.torque_on.values())


def test_joint_that_is_blocked_stops_the_robot(bench: Bench, open_arm):
    model, data = bench.twin._model, bench.twin._data
    with pytest.raises(SafetyError, match="'shoulder_lift' has been"), open_arm() as arm:
        model.jnt_range[1] = data.qpos[1] + np.array([-0.02, 0.02])
        arm.move({"shoulder_lift": 0.5})


def test_arm_that_is_not_parked_is_refused_unless_told_otherwise(bench: Bench, open_arm):
    bench.push("shoulder_pan", 0.6)
    with pytest.raises(SafetyError, match="anyway=True skips this check"), open_arm():
        pass
    with open_arm(anyway=True) as arm:
        assert arm.position["shoulder_pan"] == pytest.approx(0.6, abs=0.05)


def test_package_offers_it():
    from deploy.direct import open_robot

    assert deploy.open_robot is open_robot
    with pytest.raises(AttributeError, match="no attribute 'open_robots'"):
        deploy.open_robots  # noqa: B018


def traceback_of(path: Path, port: str = "") -> str:
    """What Python prints of a program that opens a robot."""
    with pytest.raises(DeployError) as caught, deploy.open_robot(path, port):
        raise AssertionError("there is no robot")
    return "".join(traceback.format_exception(caught.value))


@pytest.mark.parametrize(
    ("file", "port", "last"),
    [
        (
            "desk_arm.yaml",
            "/dev/ttyNONE0",
            "deploy.errors.BusError: /dev/ttyNONE0 does not exist; serial ports found: ",
        ),
        (
            "desk_am.yaml",
            "",
            "deploy.errors.ConfigError: {path}: cannot be read: No such file or directory",
        ),
    ],
    ids=["port", "file"],
)
def test_traceback_without_a_robot_is_one_and_ends_with_the_message(
    file: str, port: str, last: str
):
    path = ROBOTS / file
    text = traceback_of(path, port)
    assert text.count("Traceback") == 1
    assert text.splitlines()[-1].startswith(last.format(path=path))


def test_error_of_the_robot_in_the_block_is_one_traceback_too(bench: Bench, monkeypatch):
    @contextlib.contextmanager
    def open_ports(config: RobotConfig) -> Iterator[dict[str, FlakyPort]]:
        yield dict.fromkeys(config.wired, bench.port)

    monkeypatch.setattr("deploy.direct.open_ports", open_ports)
    vigil = contextlib.nullcontext(Vigil(memoryview(bytearray(VIGIL_BYTES))))
    monkeypatch.setattr("deploy.direct.guarded", lambda config, ports: vigil)
    monkeypatch.setattr("deploy.direct.MonotonicClock", lambda: bench.clock)
    bench.port.requests_to_lose = math.inf
    text = traceback_of(ROBOTS / "desk_arm.yaml")
    assert text.count("Traceback") == 1
    assert text.splitlines()[-1].startswith(
        "deploy.errors.BusError: no answer from shoulder_pan (id 1), shoulder_lift (id 2), "
    )
    assert "answer at 1000000 baud: none. Check power, cables, servo ids and `bus.baud" in text


@pytest.fixture
def rover() -> Iterator[tuple[DirectRobot, Twin, Monitor]]:
    """The balancer's wheels on a bus, in virtual time and watched."""
    config = load_yaml(ROBOTS / "balancer_bus.yaml", RobotConfig)
    wheels = Wheels(bare_joints(config))
    twin, monitor = wheels.twin, wheels.monitor
    with driven(wheels.robot, wheels.clock) as direct:
        yield direct, twin, monitor
    assert monitor.violations == []
    assert not any(servo.torque_on for servo in twin.servos)


def test_wheels_turn_for_a_time_and_stand_still_afterwards(rover):
    direct, twin, monitor = rover
    seen: list[float] = []
    step = twin.on_step
    twin.on_step = lambda: (step(), seen.append(twin.joint_velocity[1]))
    direct.turn({"left_wheel": -3.0, "right_wheel": 3.0}, 1.0)
    # the servo's own integral holds the speed: 1 s of it, and speeding up and slowing down
    turned = twin.joint_position
    ramp_s = direct.robot.config.safety.move_to_start_s
    assert turned[1] == pytest.approx(3.0 * (1.0 + ramp_s), rel=0.1)
    assert turned[0] == pytest.approx(-turned[1], rel=0.1)
    assert np.median(seen[-int(1e3 * (1 + ramp_s)) : -int(1e3 * ramp_s)]) == pytest.approx(
        3.0, 0.05
    )
    assert direct.velocity["left_wheel"] == pytest.approx(0.0, abs=0.2)
    monitor.stopped()


@pytest.mark.parametrize(
    ("speeds", "for_s", "problem"),
    [
        ({"left_wheel": 99.0}, 1.0, r"cannot turn at 99.0 rad/s, allowed are 38 rad/s"),
        ({"left_wheel": math.nan}, 1.0, "cannot turn at nan"),
        ({"wheel": 1.0}, 1.0, "'wheel' is no joint of this robot"),
        ({"left_wheel": 1.0}, math.inf, "cannot turn for inf s; expected a time"),
    ],
)
def test_what_wheels_cannot_do_is_refused_and_nothing_turns(rover, speeds, for_s, problem):
    direct, twin, _ = rover
    with pytest.raises(ConfigError, match=problem):
        direct.turn(speeds, for_s)
    with pytest.raises(ConfigError, match="are wheels, which go to no angle; use `turn`"):
        direct.move({"left_wheel": 0.5})
    assert not any(servo.torque_on for servo in twin.servos)


def test_wheels_stand_still_although_the_program_catches_what_stopped_them(rover):
    direct, _, _ = rover
    poll, ticks = direct.drive.poll, iter(range(1000))

    def interrupt() -> None:
        poll()
        if next(ticks) == 130:  # at full speed
            raise KeyboardInterrupt

    direct.drive.poll = interrupt
    with contextlib.suppress(KeyboardInterrupt):
        direct.turn({"left_wheel": 5.0, "right_wheel": -5.0}, 5.0)
    for _ in range(50):  # whoever reads keeps the servos' watchdogs from acting
        direct._clock.sleep_until(direct._clock.now() + 0.02)
        assert direct.position
    assert direct.velocity == pytest.approx({"left_wheel": 0.0, "right_wheel": 0.0}, abs=0.1)
    direct.drive.poll = poll
    direct.turn({"left_wheel": 5.0, "right_wheel": -5.0}, 0.5)  # they obey again


def test_a_wheel_that_is_blocked_ends_a_turn_however_slow(rover):
    direct, twin, _ = rover
    direct.turn({"left_wheel": 3.0}, 1.0)
    twin.block("left_wheel")
    with pytest.raises(SafetyError, match=r"'left_wheel' has been 3\.00 rad/s from its target for"):
        direct.turn({"left_wheel": 3.0}, 10.0)  # its integral grows until all is given
    twin.block("left_wheel", False)
    assert direct.velocity["left_wheel"] == pytest.approx(0.0, abs=0.2)


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (
            {"joints": {"right_wheel": {"continuous": False}}},
            r"\['left_wheel'\] are wheels .* goes",
        ),
        ({"joints": {"left_wheel": {"current_limit_a": 0.2}}}, "effort of .* is limited"),
        ({"safety": {"max_effort_share": 0.5}}, "effort of .* is limited"),
    ],
)
def test_wheels_that_cannot_be_driven_as_the_yaml_says_are_refused(change, problem):
    config = load_yaml(ROBOTS / "balancer_bus.yaml", RobotConfig)
    document = config.model_dump(exclude_unset=True)
    document["safety"] |= change.get("safety", {})
    for name, wiring in change.get("joints", {}).items():
        document["joints"][name] |= wiring
    config = validate(document, RobotConfig, source="rover.yaml")
    clock, twin = VirtualClock(), Twin(REPOSITORY / "envs/robots/balancer/balancer.xml", config)
    ports = {"bus": VirtualPort(twin, clock)}
    robot = Robot(config, bare_joints(config), ports, approve=lambda changes: True)
    with pytest.raises(ConfigError, match=problem), driven(robot, clock):
        pass
    assert clock.now() == 0  # nothing was asked, nothing set up


def test_joints_that_go_to_angles_do_not_turn(open_arm):
    with open_arm() as arm, pytest.raises(ConfigError, match=r"goes to angles, .* use `move`"):
        arm.turn({"gripper": 1.0}, 1.0)
