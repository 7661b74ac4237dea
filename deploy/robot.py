"""A robot: the joints of all its devices in one order, and every signal that any of them measures.

    robot = Robot(config, contract.joints, {"bus": port}, approve=ask_the_user)
    robot.connect()                     # checks and sets up every device; nothing moves
    robot.energise()                    # torque on, holding where it is
    robot.read(deadline_s)              # position, velocity, effort, age_s
    robot.readings["joint_position"]    # the same by kind of signal, for policies: values, age_s
    robot.write(targets)                # [rad]
    robot.health(deadline_s)            # one part a tick: is it still as it was set up?
    robot.reconnect(device)             # one that was lost, if it is back; see deploy.reconnect

Joint arrays are in the contract's order, whatever device a joint is on. Devices are read one after
the other; a slow one leaves the others their time. What stops the robot reaches every device: an
error of one does not keep the next from holding or letting go.
"""

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from deploy.clock import Clock
from deploy.contract import JointSpec
from deploy.device import Approve, Device, Reading, refuse_changes
from deploy.errors import BusError, DeviceLost
from deploy.families import FAMILIES
from deploy.imu.config import ImuConfig
from deploy.ports import AttentivePort
from deploy.robot_config import AnyDevice, BusConfig, RobotConfig
from deploy.serial_port import Port
from deploy.servos.catalog import MODELS
from deploy.signals import SIGNALS, SignalKind, TargetKind
from deploy.statistics import Statistics, total

Floats = NDArray[np.float64]

PROOF_MARGIN_S = 0.04
"""A watchdog may act two of its steps late."""
FEED_SHARE = 0.25
"""Devices that watch already hear of us so often while others are set up, in watchdogs' times."""


def measured_signals(config: RobotConfig) -> tuple[SignalKind, ...]:
    """Kinds of signal that the devices of a robot measure, of joints those that all measure."""
    measures = {name: _measures(device) for name, device in config.wired.items()}
    owners = {config.device_of(joint) for joint in config.joints}
    every: dict[SignalKind, None] = {kind: None for kinds in measures.values() for kind in kinds}
    return tuple(
        kind
        for kind in every
        if SIGNALS[kind].axes != "joints" or all(kind in measures[owner] for owner in owners)
    )


def _measures(device: AnyDevice) -> tuple[SignalKind, ...]:
    family = FAMILIES[device.protocol]
    with_imu = not isinstance(device, ImuConfig) and device.imu is not None
    return family.measures + (family.measures_with_imu if with_imu else ())


def understood_targets(config: RobotConfig) -> tuple[TargetKind, ...]:
    """Kinds of target that all joints of a robot obey."""
    common, *others = (_obeyed(config, joint) for joint in config.joints)
    return tuple(kind for kind in common if all(kind in other for other in others))


def _obeyed(config: RobotConfig, joint: str) -> tuple[TargetKind, ...]:
    device = config.wired[config.device_of(joint)]
    obeys = FAMILIES[device.protocol].obeys
    if not isinstance(device, BusConfig):  # a microcontroller makes of its motors what it likes
        return obeys
    return tuple(kind for kind in obeys if kind in MODELS[config.joints[joint].model].obeys)


def bare_joints(config: RobotConfig) -> list[JointSpec]:
    """Joints for use without a policy: the wiring's limits, the gains of the factory.

    A robot that has nothing but wheels, and can be driven by speed, is.

    Args:
        config: wiring and limits.
    """
    wheels = all(wiring.continuous for wiring in config.joints.values())
    turns = wheels and "joint_velocity_target" in understood_targets(config)
    joints = []
    for name, wiring in config.joints.items():
        model = MODELS[wiring.model]
        effort_nm = model.physics.drive_torque(wiring.voltage_v)
        p_gain, _, d_gain = model.position_pid
        joints.append(
            JointSpec(
                name=name,
                operating_mode="velocity" if turns else "position",
                kp_nm_per_rad=0.0 if turns else model.kp(p_gain, effort_nm),
                kd_nm_s_per_rad=0.0 if turns else model.kd(d_gain, effort_nm),
                default_position_rad=wiring.rest_rad,
                position_limits_rad=wiring.position_limits_rad,
                velocity_limit_rad_s=wiring.velocity_limit_rad_s,
                effort_limit_nm=effort_nm,
            )
        )
    return joints


class Robot:
    """See the module docstring.

    Args:
        config: wiring and limits.
        joints: joints in the order of all arrays, with their gains.
        ports: the open serial port of each device, by its name.
        approve: whether settings that devices keep at power-off may change.
    """

    def __init__(
        self,
        config: RobotConfig,
        joints: Sequence[JointSpec],
        ports: Mapping[str, Port],
        *,
        approve: Approve = refuse_changes,
    ):
        self.config = config
        self._meanwhile: list[Callable[[], object]] = []
        self._ports = {name: AttentivePort(port, self._meanwhile) for name, port in ports.items()}
        self.joints = list(joints)
        self.devices: list[Device] = [
            FAMILIES[bus.protocol].make(
                name,
                config,
                [joint for joint in joints if config.device_of(joint.name) == name],
                self._ports[name],
                approve=approve,
            )
            for name, bus in config.wired.items()
        ]
        self.position: Floats = np.zeros(len(joints))
        """Latest measured angles [rad]."""
        self.velocity: Floats = np.zeros(len(joints))
        """Latest measured speeds [rad/s]."""
        self.effort: Floats = np.zeros(len(joints))
        """Latest duty of the motors, -1 to 1, positive where it turns the joint forwards."""
        self.age_s: Floats = np.full(len(joints), np.inf)
        """Age of each joint's reading [s]."""
        self.heard: NDArray[np.bool_] = np.zeros(len(joints), np.bool_)
        """Joints that answered when they were read last."""
        self.readings: dict[SignalKind, Reading] = {
            "joint_position": Reading(self.position, self.age_s),
            "joint_velocity": Reading(self.velocity, self.age_s),
        }
        """What a policy may be given, by kind."""
        row_of = {joint.name: row for row, joint in enumerate(joints)}
        self._rows = [np.array([row_of[name] for name in d.joints], int) for d in self.devices]
        self._targets = [np.zeros(len(rows)) for rows in self._rows]
        self._gathered: list[tuple[NDArray, NDArray[np.int_], NDArray]] = []
        for device, rows in zip(self.devices, self._rows, strict=True):
            self._adopt(device, rows)
        self._next = 0

    def _adopt(self, device: Device, rows: NDArray[np.int_]) -> None:
        """Take over a device's signals: those of joints are gathered, others are its own."""
        for kind, reading in device.readings.items():
            if SIGNALS[kind].axes != "joints":
                self.readings[kind] = reading
                continue
            if kind not in measured_signals(self.config):
                continue
            ours = self.readings.setdefault(kind, Reading(np.zeros(len(self.joints)), self.age_s))
            self._gathered.append((ours.values, rows, reading.values))
        if len(rows):
            self._gathered.append((self.effort, rows, device.effort))
            self._gathered.append((self.heard, rows, device.heard))
            self._gathered.append((self.age_s, rows, device.readings["joint_position"].age_s))

    @property
    def energised(self) -> bool:
        """Whether a device holds joints up, since `energise` or from an earlier run."""
        return any(device.energised for device in self.devices)

    @property
    def target(self) -> Floats:
        """The targets sent last, as the devices have them (n,) [rad]."""
        target = np.zeros(len(self.joints))
        for device, rows in zip(self.devices, self._rows, strict=True):
            target[rows] = device.target
        return target

    @property
    def statistics(self) -> Statistics:
        """What happened on all ports together."""
        return total([device.statistics for device in self.devices])

    @property
    def read_s(self) -> float:
        """Time a reading of everything takes [s]."""
        return sum(device.read_s for device in self.devices)

    @property
    def slowest(self) -> Device:
        """The device whose reading takes longest."""
        return max(self.devices, key=lambda device: device.read_s)

    def connect(self) -> None:
        """Check every device and set it up; nothing moves.

        Raises:
            BusError: something is missing, of another kind, in error, or refuses a setting.
        """
        for device in self.devices:
            device.connect()
        self._gather()

    def reconnect(self, device: Device) -> None:
        """Open a device's port again if it is gone, and check it as `connect` does; nothing moves.

        Raises:
            BusError: it is not back, or not what it was.
        """
        self._ports[device.name].reopen()
        device.connect()
        self._gather()

    def check_heard(self) -> None:
        """See that no device has fallen silent as a whole.

        Raises:
            DeviceLost: names the one none of whose joints was heard lately.
        """
        stale_s = self.config.safety.stale_s("joint_position")
        for device in self.devices:
            if device.joints and device.readings["joint_position"].age_s.min() > stale_s:
                raise DeviceLost(
                    f"device {device.name!r} has fallen silent, expected its joints to answer; "
                    "check its power and its cable"
                )

    def energise(self) -> None:
        """Hold the present pose, and arm the devices' watchdogs.

        Raises:
            SafetyError: a joint is where it cannot be held.
            BusError: something does not confirm.
        """
        watching: list[Device] = []
        now, fed_s = next(iter(self._ports.values())).now, 0.0

        def feed() -> None:
            nonlocal fed_s
            if now() - fed_s > FEED_SHARE * self.config.safety.watchdog_ms / 1000:
                fed_s = now()
                for device in watching:
                    device.write(device.target)

        with self.meanwhile(feed):
            for device in self.devices:
                device.energise()
                watching.append(device)

    def prove(self, clock: Clock) -> list[str]:
        """Fall silent, and see every watchdog stop its joints; then hold as before.

        Raises:
            SafetyError: one does not act.
            BusError: something does not confirm.
        """
        guarded = [device for device in self.devices if device.guarded]
        if not guarded:
            return []
        silent_s = self.config.safety.watchdog_ms / 1000 + PROOF_MARGIN_S
        clock.sleep_until(clock.now() + silent_s)
        proofs = [f"{device.name}: {device.prove()}" for device in guarded]
        self.energise()
        return [f"{proof} after {silent_s * 1e3:.0f} ms of silence" for proof in proofs]

    @contextlib.contextmanager
    def meanwhile(self, action: Callable[[], object]) -> Iterator[None]:
        """Call `action`, which waits for nothing, whenever a device is waited for in the block."""
        self._meanwhile.append(action)
        try:
            yield
        finally:
            self._meanwhile.remove(action)

    def read(self, deadline_s: float) -> int:
        """Read all devices; what did not answer keeps its last value and grows older.

        Args:
            deadline_s: time on the ports' clock to be done at.

        Returns:
            How many parts answered.
        """
        left_s = self.read_s
        answered = 0
        for device in self.devices:
            left_s -= device.read_s
            answered += device.read(deadline_s - left_s)
        self._gather()
        return answered

    def write(self, targets: Floats) -> None:
        """Send joint targets (n,) [rad]."""
        for device, rows, part in zip(self.devices, self._rows, self._targets, strict=True):
            device.write(targets.take(rows, out=part, mode="clip"))

    def alarm(self) -> str:
        """What the latest reading tells that must stop the robot; empty if nothing does."""
        return "; ".join(alarm for device in self.devices if (alarm := device.alarm()))

    def health(self, deadline_s: float, *, due: bool = False) -> str | None:
        """Read back whether one part is still as it was set up: of another device at each call.

        Args:
            deadline_s: time on the ports' clock to be done at.
            due: ask also if the reply may come too late, as a reading does.

        Returns:
            What is wrong, empty if nothing is or no answer came; None if there was too little time
            to ask.
        """
        device = self.devices[self._next]
        self._next = (self._next + 1) % len(self.devices)
        complaint = device.health(deadline_s, due=due)
        self._gather()  # everything has grown older
        return complaint

    def hold(self) -> None:
        """Stop where the joints are; a device that does not hold them up lets go for certain.

        Raises:
            BusError: names what does not confirm; the rest holds.
        """
        _for_each(self._heard_first(), _stop)

    def release(self) -> None:
        """Let go.

        Raises:
            BusError: names what does not confirm; the rest is limp.
        """
        _for_each(self._heard_first(), lambda device: device.release())

    def rescue(self, *, let_go: bool) -> None:
        """Hold, or let go, a robot that another program has left as it is; see `Device.rescue`.

        Raises:
            BusError: names what does not confirm.
        """
        _for_each(self.devices, lambda device: device.rescue(let_go=let_go))

    def rest_differences(self) -> list[str]:
        """Joints found limp that are not where the YAML says that the unpowered robot rests."""
        return [line for device in self.devices for line in device.rest_differences()]

    def describe(self) -> str:
        """What was found when connecting, and what stops the joints when the host falls silent."""
        return "; ".join([*(device.describe() for device in self.devices), *self.watchdogs()])

    def watchdogs(self) -> list[str]:
        """What stops the joints of each device when the host falls silent."""
        texts = {device.name: device.watchdog() for device in self.devices}
        return [f"{name}: {text}" for name, text in texts.items() if text]

    def describe_reading(self) -> str:
        """How long a reading takes, and why."""
        return " + ".join(device.describe_reading() for device in self.devices)

    def advise(self) -> str:
        """What to do if readings were lost because replies came late; empty if none were."""
        return "; ".join(advice for device in self.devices if (advice := device.advise()))

    def _heard_first(self) -> list[Device]:
        """What answers is made safe before what makes us wait."""

        def age_s(device: Device) -> float:
            return device.readings["joint_position"].age_s.min() if device.joints else 0.0

        return sorted(self.devices, key=age_s)

    def _gather(self) -> None:
        for ours, rows, theirs in self._gathered:
            ours[rows] = theirs


def _stop(device: Device) -> None:
    if device.energised:
        device.hold()
    else:
        device.release()


def _for_each(devices: Sequence[Device], action: Callable[[Device], None]) -> None:
    """Call action(device) for every device, and raise what went wrong only afterwards."""
    errors: list[str] = []
    for device in devices:
        try:
            action(device)
        except Exception as error:  # whatever it is: the next one is to be stopped too
            errors.append(str(error) or type(error).__name__)
    if errors:
        raise BusError("; ".join(errors))
