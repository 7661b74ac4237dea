"""A robot without a policy, for a program of one's own.

    import deploy

    with deploy.open_robot("configs/robots/desk_arm.yaml") as arm:
        print(arm.position)                  # {"shoulder_pan": 0.0, ...} [rad]
        arm.move({"gripper": 0.5})           # there and no faster than half its speed limit

    with deploy.open_robot("configs/robots/balancer_bus.yaml") as rover:
        rover.turn({"left_wheel": 3.0, "right_wheel": 3.0}, 2.0)       # [rad/s], for 2 s

The governor stands in between, as for a policy, with the gains that servos leave the factory with.
Torque is off until the first `move`; between moves the servos hold by themselves, so a program may
think as long as it likes. The end of the block parks the robot and lets go; an exception in it,
Ctrl-C, SIGTERM or SIGHUP ends in the robot's safe state. So does a program that is killed, or
stands still in a move: a companion process sees to it (`deploy.guard`).
"""

import contextlib
import math
import signal
from collections.abc import Callable, Iterator, Mapping
from numbers import Real
from pathlib import Path
from types import FrameType

import numpy as np

from deploy.clock import Clock, MonotonicClock
from deploy.configuration import did_you_mean, load_yaml
from deploy.drive import Drive
from deploy.errors import ConfigError, DeployError
from deploy.governor import Governor
from deploy.guard import guarded
from deploy.ports import open_ports
from deploy.process import handling
from deploy.robot import Robot, bare_joints
from deploy.robot_config import RobotConfig
from deploy.supervisor import GRACE_S

PERIOD_S = 0.02
_READ_S = 0.1


@contextlib.contextmanager
def open_robot(
    path: str | Path,
    port: str | Mapping[str, str] = "",
    *,
    change_settings: bool = False,
    anyway: bool = False,
) -> Iterator["DirectRobot"]:
    """The robot of a YAML, for as long as the block runs.

    Args:
        path: its wiring, e.g. configs/robots/desk_arm.yaml.
        port: serial port of its only device, or of several by name; by default the YAML's.
        change_settings: let settings that the servos keep at power-off change where they must.
        anyway: also if the robot does not lie in its rest pose.

    Raises:
        DeployError: it cannot be used; nothing has moved.
    """
    try:
        config = load_yaml(Path(path), RobotConfig)
        if port:
            config = config.at_ports(_by_name(config, port))
        with (
            _signals_raise(),
            open_ports(config) as ports,
            guarded(config, ports) as vigil,
        ):
            joints = bare_joints(config)
            robot = Robot(config, joints, ports, approve=lambda changes: change_settings)
            clock = MonotonicClock()
            with driven(robot, clock, anyway=anyway, promise=vigil.promise) as direct:
                yield direct
    except DeployError as error:
        raise error from None  # its message says it all, and is the traceback's last line


@contextlib.contextmanager
def driven(
    robot: Robot,
    clock: Clock,
    *,
    anyway: bool = False,
    promise: Callable[[float], None] = lambda back_by_s: None,
) -> Iterator["DirectRobot"]:
    """Connect, and see that the robot ends parked or in its safe state."""
    _check_wheels(robot)
    robot.connect()
    direct = DirectRobot(robot, clock, promise)
    if not anyway:
        direct.drive.check_rest("anyway=True")
    try:
        yield direct
        direct.park()
    except BaseException as error:
        with _deaf():
            direct.drive.make_safe(error)
        raise


@contextlib.contextmanager
def _signals_raise() -> Iterator[None]:
    """SIGTERM and SIGHUP raise, as Ctrl-C does, so that the robot is made safe before the end."""

    def leave(number: int, frame: FrameType | None) -> None:
        raise SystemExit(128 + number)

    with handling(leave, signal.SIGTERM, signal.SIGHUP):
        yield


@contextlib.contextmanager
def _deaf() -> Iterator[None]:
    """Nothing interrupts, however often it is tried."""
    with handling(signal.SIG_IGN, signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        yield


class DirectRobot:
    """See the module docstring."""

    def __init__(self, robot: Robot, clock: Clock, promise: Callable[[float], None]):
        self.robot, self._promise = robot, promise
        governor = Governor(robot.joints, PERIOD_S, robot.config)
        patience_s = robot.config.safety.watchdog_ms / 1000 + GRACE_S
        self.drive = Drive(
            robot, governor, clock, PERIOD_S, poll=lambda: promise(clock.now() + patience_s)
        )
        self._clock, self._names = clock, [joint.name for joint in robot.joints]

    @property
    def position(self) -> dict[str, float]:
        """Angle of each joint [rad], read now."""
        return self._read(self.robot.position)

    @property
    def velocity(self) -> dict[str, float]:
        """Speed of each joint [rad/s], read now."""
        return self._read(self.robot.velocity)

    def move(self, targets: Mapping[str, float]) -> None:
        """Move joints to angles [rad], all at once and smoothly; the others stay.

        Raises:
            ConfigError: a joint is none of this robot's, or cannot go there; nothing has moved.
            DeployError: something went wrong on the way; see `open_robot` for what happens then.
        """
        goal = self._goal(targets)
        if self.drive.governor.mode != "position":
            raise ConfigError(f"{self._names} are wheels, which go to no angle; use `turn`")
        self.robot.energise()
        self.drive.begin_run()
        present = self.drive.sent.copy()
        try:
            self.drive.ramp(np.where(np.isnan(goal), present, goal))
        finally:
            self._promise(math.inf)  # what comes now may take long
        self.robot.hold()

    def turn(self, speeds: Mapping[str, float], for_s: float) -> None:
        """Turn wheels at speeds [rad/s] for some time; others, and all afterwards, stand still.

        They speed up and slow down in `safety.move_to_start_s` each, on top of that time.

        Raises:
            ConfigError: it has joints that are no wheels, or one is not there or not as fast.
            DeployError: something went wrong on the way; see `open_robot` for what happens then.
        """
        goal, drive = self._speeds(speeds), self.drive
        if not 0 <= for_s < math.inf:
            raise ConfigError(f"wheels cannot turn for {for_s!r} s; expected a time")
        self.robot.energise()
        drive.begin_run()
        try:
            drive.ramp(goal)
            for _ in range(round(for_s / PERIOD_S)):
                times = drive.begin()
                drive.target[:] = goal
                drive.finish(times)
            drive.ramp(np.zeros_like(goal))
        except BaseException:  # who catches this, and goes on to read, keeps the watchdogs quiet
            self._promise(math.inf)
            with _deaf(), contextlib.suppress(Exception):
                self.robot.hold()
            raise
        self._promise(math.inf)
        self.robot.hold()

    def park(self) -> None:
        """Move to the rest pose and let go; only let go if the robot was never moved."""
        if self.robot.energised and self.drive.governor.mode == "position":
            wirings = self.robot.config.joints
            self.move({name: wirings[name].rest_rad for name in self._names})
        self.robot.release()

    def _read(self, values: np.ndarray) -> dict[str, float]:
        robot = self.robot
        robot.read(self._clock.now() + _READ_S)
        self.drive.governor.check_signals(robot.position, robot.velocity, robot.age_s)
        return dict(zip(self._names, values.tolist(), strict=True))

    def _row(self, name: str) -> int:
        if name not in self._names:
            raise ConfigError(
                f"{name!r} is no joint of this robot{did_you_mean(name, self._names)}; it has "
                f"{', '.join(self._names)}"
            )
        return self._names.index(name)

    def _speeds(self, speeds: Mapping[str, float]) -> np.ndarray:
        """Speeds (n,) [rad/s], 0 where none was given."""
        if self.drive.governor.mode != "velocity":
            raise ConfigError(
                f"this robot goes to angles, expected one with nothing but wheels (`continuous: "
                f"true`) to turn {', '.join(speeds)}; use `move`"
            )
        goal = np.zeros(len(self._names))
        for name, speed in speeds.items():
            row = self._row(name)
            fastest = self.robot.config.joints[name].velocity_limit_rad_s
            if not isinstance(speed, Real) or not abs(float(speed)) <= fastest:
                raise ConfigError(
                    f"wheel {name!r} cannot turn at {speed!r} rad/s, allowed are {fastest:g} rad/s"
                )
            goal[row] = speed
        return goal

    def _goal(self, targets: Mapping[str, float]) -> np.ndarray:
        """Angles (n,) [rad], not a number where none was given."""
        goal = np.full(len(self._names), np.nan)
        for name, angle in targets.items():
            row = self._row(name)
            low, high = self.robot.config.joints[name].position_limits_rad
            if not isinstance(angle, Real) or not low <= angle <= high:
                raise ConfigError(
                    f"joint {name!r} cannot go to {angle!r} rad, its range is {low} to {high} rad"
                )
            goal[row] = angle
        return goal


def _check_wheels(robot: Robot) -> None:
    """Refuse wheels that would go to angles, and limits that would be none for wheels."""
    wirings, safety = robot.config.joints, robot.config.safety
    if not (wheels := [name for name, wiring in wirings.items() if wiring.continuous]):
        return
    if any(joint.operating_mode != "velocity" for joint in robot.joints):
        raise ConfigError(
            f"{wheels} are wheels (`continuous: true`), on a robot that goes to angles; expected "
            "nothing but wheels, of servos that obey speeds; give them a YAML of their own"
        )
    if safety.max_effort_share < 1 or any(wirings[name].current_limit_a for name in wheels):
        raise ConfigError(
            f"the effort of {wheels} is limited (`safety.max_effort_share`, `current_limit_a`), "
            "expected no such limit: the gains that servos leave the factory with do not keep it; "
            "leave it out, or drive them with a policy"
        )


def _by_name(config: RobotConfig, port: str | Mapping[str, str]) -> Mapping[str, str]:
    """The ports by device."""
    named = dict.fromkeys(config.wired, port) if isinstance(port, str) else port
    if not named.keys() <= config.wired.keys() or len(set(named.values())) < len(named):
        raise ConfigError(
            f"port {port!r} does not fit this robot; expected one each for some of "
            f"{', '.join(config.wired)}, e.g. {{{next(iter(config.wired))!r}: '/dev/ttyUSB0'}}"
        )
    return named
