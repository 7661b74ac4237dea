"""What the runtime sees of hardware: a device fills named signals and takes targets for its joints.

    device.connect()                     # identify, check, set up; nothing moves
    device.energise()                    # hold where it is; its watchdog is armed
    device.read(deadline_s)              # fills device.readings, live arrays by kind of signal
    device.write(targets)                # (n,) one for each of device.joints
    device.health(deadline_s)            # one part a tick: is it still as it was set up?
    device.hold() or device.release()    # both are read back

A device is whatever hangs on one serial port: servos of one family, a microcontroller, an IMU. One
without joints is a sensor, and whatever moves joints does nothing for it. Arrays over joints are
in the order of `joints`. `deploy.robot` composes devices into a robot, `deploy.families` has a
table of them. No method waits past its deadline; `BusError` means that the port or a part is gone.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from deploy.contract import JointSpec, OperatingMode
from deploy.errors import ConfigError
from deploy.robot_config import RobotConfig
from deploy.serial_port import Port
from deploy.signals import SignalKind
from deploy.statistics import Statistics

Floats = NDArray[np.float64]


class Reading(NamedTuple):
    """A signal as a device measures it; both arrays are live, and the same ones for ever."""

    values: Floats
    """(n,) elements, in the order and unit of `deploy.signals`; one per joint of the device."""
    age_s: Floats
    """(n,) or (1,) age of the elements [s]; infinite before the first."""


@dataclass(frozen=True)
class SettingChange:
    """A setting that a device keeps at power-off and that differs from what the robot needs."""

    joint: str
    id: int
    register: str
    """Name in the maker's manual."""
    address: int
    found: int
    wanted: int

    def __str__(self) -> str:
        return (
            f"{self.joint} (id {self.id}): {self.register} ({self.address}) "
            f"{self.found} -> {self.wanted}"
        )


def mode_of(device: str, joints: Sequence[JointSpec]) -> OperatingMode:
    """What drives all joints of a device; position if it has none.

    Raises:
        ConfigError: they are driven in different ways.
    """
    modes: set[OperatingMode] = {joint.operating_mode for joint in joints}
    if len(modes) > 1:
        raise ConfigError(
            f"joints of {device!r} are driven by {' and '.join(sorted(modes))}, expected one of "
            "them for all; train a policy that drives all of them alike"
        )
    return modes.pop() if modes else "position"


Approve = Callable[[list[SettingChange]], bool]
"""Asked before anything that is kept at power-off changes, with all changes of a device."""


def refuse_changes(changes: list[SettingChange]) -> bool:
    """Never."""
    return False


class Device(Protocol):
    """See the module docstring. What has no joints has empty arrays, and holds nothing."""

    @property
    def name(self) -> str:
        """As in the robot's YAML."""
        ...

    @property
    def joints(self) -> Sequence[str]:
        """Those it drives, in the order of its arrays."""
        ...

    @property
    def readings(self) -> Mapping[SignalKind, Reading]:
        """What it measures: the kinds its row in `deploy.families` promises."""
        ...

    @property
    def effort(self) -> Floats:
        """(n,) latest duty of the motors, live.

        -1 to 1, positive where it turns the joint forwards; nan where it is not known.
        """
        ...

    @property
    def heard(self) -> NDArray[np.bool_]:
        """(n,) joints that answered when they were read last, live."""
        ...

    @property
    def statistics(self) -> Statistics:
        """What happened on its port."""
        ...

    @property
    def energised(self) -> bool:
        """Whether it holds its joints, since `energise` or from an earlier run."""
        ...

    @property
    def target(self) -> Floats:
        """(n,) the targets sent last, as the device has them."""
        ...

    @property
    def read_s(self) -> float:
        """Longest time a reading usually takes [s], once connected."""
        ...

    @property
    def adapter_s(self) -> float:
        """What is reckoned for the adapter in that [s]."""
        ...

    def connect(self) -> None:
        """Check and set up everything; nothing moves, and what holds itself up is not let go.

        Raises:
            BusError: something is missing, of another kind, in error, or refuses a setting.
        """
        ...

    def energise(self) -> None:
        """Hold the present pose, and arm the watchdog.

        Raises:
            SafetyError: a joint is where it cannot be held.
            BusError: something does not confirm.
        """
        ...

    def read(self, deadline_s: float) -> int:
        """Bring `readings` and `effort` up to date; what did not come keeps its value and ages.

        Args:
            deadline_s: time on the port's clock to be done at.

        Returns:
            How many parts answered, or values came.
        """
        ...

    def write(self, targets: Floats) -> None:
        """Send joint targets (n,), in the unit of their kind."""
        ...

    def alarm(self) -> str:
        """What the latest reading tells that must stop the robot; empty if nothing does."""
        ...

    def health(self, deadline_s: float, *, due: bool = False) -> str | None:
        """Read back whether one part is still as it was set up: the next one at each call.

        Args:
            deadline_s: time on the port's clock to be done at.
            due: ask also if the reply may come too late, as a reading does.

        Returns:
            What is wrong, empty if nothing is or no answer came; None if there was too little time
            to ask, or there is nothing to ask.
        """
        ...

    def hold(self) -> None:
        """Stop where the joints are, torque on, and confirm by reading back.

        Raises:
            BusError: names what does not confirm; the rest holds.
        """
        ...

    def release(self) -> None:
        """Let go, and confirm by reading back.

        Raises:
            BusError: names what does not confirm; the rest is limp.
        """
        ...

    def rescue(self, *, let_go: bool) -> None:
        """Hold, or let go, the joints of a device that another program has left as they are.

        Nothing needs to be connected, and what is limp stays limp.

        Raises:
            BusError: names what does not confirm.
        """
        ...

    def watchdog(self) -> str:
        """What stops the joints when the host falls silent; empty if there are none."""
        ...

    @property
    def guarded(self) -> bool:
        """Whether it stops its joints by itself when the host falls silent."""
        ...

    def prove(self) -> str:
        """Whether it has stopped its joints by itself in a silence that ends now.

        Of a guarded device that was energised; afterwards it has to be energised anew.

        Returns:
            What was read back.

        Raises:
            SafetyError: it has not.
            BusError: it does not answer.
        """
        ...

    def rest_differences(self) -> list[str]:
        """Joints found limp that are not where the YAML says that the unpowered robot rests."""
        ...

    def describe(self) -> str:
        """What was found when connecting."""
        ...

    def describe_reading(self) -> str:
        """How long a reading takes, and why."""
        ...

    def advise(self) -> str:
        """What to do if readings were lost because replies came late; empty if none were."""
        ...


class MakeDevice(Protocol):
    """Makes a device, connected to nothing yet."""

    def __call__(
        self,
        name: str,
        config: RobotConfig,
        joints: Sequence[JointSpec],
        port: Port,
        *,
        approve: Approve = refuse_changes,
    ) -> Device:
        """`joints` are the contract's joints that `config` gives to the device of this name."""
        ...
