"""A robot without a policy, for a program of one's own.

    import deploy

    with deploy.open_robot("configs/robots/desk_arm.yaml") as arm:
        print(arm.position)                  # {"shoulder_pan": 0.0, ...} [rad]
        arm.move({"gripper": 0.5})           # there and no faster than half its speed limit

The governor stands in between, as for a policy, with the gains the servos leave the factory with.
Torque is off until the first `move`; between moves the servos hold by themselves, so a program may
think as long as it likes. The end of the block parks the robot and lets go; an exception in it, or
Ctrl-C, ends in the robot's safe state.
"""

import contextlib
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np

from deploy.clock import Clock, MonotonicClock
from deploy.configuration import did_you_mean, load_yaml
from deploy.contract import JointSpec
from deploy.drive import Drive
from deploy.dynamixel.servos import MODELS
from deploy.errors import ConfigError, SafetyError
from deploy.governor import Governor
from deploy.robot import Robot
from deploy.robot_config import JointWiring, RobotConfig
from deploy.serial_port import SerialPort

PERIOD_S = 0.02
_READ_S = 0.1


@contextlib.contextmanager
def open_robot(
    path: str | Path,
    port: str | None = None,
    *,
    change_settings: bool = False,
    anyway: bool = False,
) -> Iterator["DirectRobot"]:
    """The robot of a YAML, for as long as the block runs.

    Args:
        path: its wiring, e.g. configs/robots/desk_arm.yaml.
        port: serial port; by default the YAML's.
        change_settings: let settings that the servos keep at power-off change where they must.
        anyway: also if the robot does not lie in its rest pose.

    Raises:
        DeployError: it cannot be used; nothing has moved.
    """
    config = load_yaml(Path(path), RobotConfig)
    with contextlib.closing(SerialPort(port or config.bus.port, config.bus.baud_rate)) as wire:
        robot = Robot(config, default_joints(config), wire, approve=lambda changes: change_settings)
        with driven(robot, MonotonicClock(), anyway=anyway) as direct:
            yield direct


@contextlib.contextmanager
def driven(robot: Robot, clock: Clock, *, anyway: bool = False) -> Iterator["DirectRobot"]:
    """Connect, and see that the robot ends parked or in its safe state."""
    robot.connect()
    if not anyway and (differences := robot.rest_differences()):
        raise SafetyError(
            "the limp robot does not lie as `rest_rad` in its YAML says:\n  "
            + "\n  ".join(differences)
            + "\nPut it into its rest pose, or correct the YAML; anyway=True skips this check"
        )
    direct = DirectRobot(robot, clock)
    try:
        yield direct
        direct.park()
    except BaseException as error:
        direct.drive.make_safe(error)
        raise


def default_joints(config: RobotConfig) -> list[JointSpec]:
    """The robot's joints with the gains their servos leave the factory with."""
    return [_joint(name, wiring) for name, wiring in config.joints.items()]


class DirectRobot:
    """See the module docstring."""

    def __init__(self, robot: Robot, clock: Clock):
        self.robot = robot
        governor = Governor(robot.joints, PERIOD_S, robot.config)
        self.drive = Drive(robot, governor, clock, PERIOD_S)
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
        self.robot.energise()
        self.drive.begin_run()
        present = self.drive.sent.copy()
        self.drive.ramp(np.where(np.isnan(goal), present, goal))
        self.robot.hold()

    def park(self) -> None:
        """Move to the rest pose and let go; only let go if the robot was never moved."""
        if self.robot.energised:
            wirings = self.robot.config.joints
            self.move({name: wirings[name].rest_rad for name in self._names})
        self.robot.release()

    def _read(self, values: np.ndarray) -> dict[str, float]:
        robot = self.robot
        robot.read(self._clock.now() + _READ_S)
        self.drive.governor.check_signals(robot.position, robot.velocity, robot.age_s)
        return dict(zip(self._names, values.tolist(), strict=True))

    def _goal(self, targets: Mapping[str, float]) -> np.ndarray:
        """Angles (n,) [rad], not a number where none was given."""
        goal = np.full(len(self._names), np.nan)
        for name, angle in targets.items():
            if name not in self._names:
                raise ConfigError(
                    f"{name!r} is no joint of this robot{did_you_mean(name, self._names)}; it has "
                    f"{', '.join(self._names)}"
                )
            low, high = self.robot.config.joints[name].position_limits_rad
            if not low <= angle <= high:
                raise ConfigError(
                    f"joint {name!r} cannot go to {angle} rad, its range is {low} to {high} rad"
                )
            goal[self._names.index(name)] = angle
        return goal


def _joint(name: str, wiring: JointWiring) -> JointSpec:
    model = MODELS[wiring.model]
    torque = model.full_duty_torques_nm(wiring.voltage_v)[0]
    p_gain, _, d_gain = model.position_pid
    return JointSpec(
        name=name,
        kp_nm_per_rad=model.kp(p_gain, torque),
        kd_nm_s_per_rad=model.kd(d_gain, torque),
        default_position_rad=wiring.rest_rad,
        position_limits_rad=wiring.position_limits_rad,
        velocity_limit_rad_s=wiring.velocity_limit_rad_s,
        effort_limit_nm=torque,
    )
