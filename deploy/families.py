"""The table of device families: what each measures and obeys, and how a device of it is made.

A new family needs a row here, a `protocol` in `deploy.robot_config`, and a folder of its own.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from deploy.device import MakeDevice
from deploy.dynamixel.device import DynamixelServos
from deploy.feetech.device import FeetechServos
from deploy.signals import SignalKind, TargetKind


@dataclass(frozen=True)
class Family:
    """A row: what is known of a device from the YAML alone."""

    make: MakeDevice
    measures: tuple[SignalKind, ...] = ("joint_position", "joint_velocity")
    obeys: tuple[TargetKind, ...] = ("joint_position_target",)


FAMILIES: Mapping[str, Family] = MappingProxyType(
    {
        "dynamixel2": Family(DynamixelServos),
        "feetech_sts": Family(FeetechServos),
    }
)
"""By `protocol`."""
