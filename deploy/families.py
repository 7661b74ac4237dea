"""The table of device families: what each measures and obeys, and how a device of it is made.

A new family needs a row here, a `protocol` in `deploy.robot_config`, and a folder of its own.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from deploy.device import MakeDevice
from deploy.dynamixel.device import DynamixelServos
from deploy.feetech.device import FeetechServos, ScsServos
from deploy.imu.config import IMU_PROTOCOLS
from deploy.imu.device import make_imu
from deploy.imu.signals import KINDS as IMU_SIGNALS
from deploy.microcontroller.device import Microcontroller
from deploy.signals import SignalKind, TargetKind


@dataclass(frozen=True)
class Family:
    """A row: what is known of a device from the YAML alone."""

    make: MakeDevice
    measures: tuple[SignalKind, ...] = (
        "joint_position",
        "joint_velocity",
        "joint_current",
        "joint_voltage",
        "joint_temperature",
    )
    measures_with_imu: tuple[SignalKind, ...] = ()
    """Beyond those, if the YAML gives it an `imu:`."""
    obeys: tuple[TargetKind, ...] = ("joint_position_target",)
    """Of servos on a bus, those models that can; see `ServoSheet.obeys`."""


FAMILIES: Mapping[str, Family] = MappingProxyType(
    {
        "dynamixel2": Family(
            DynamixelServos,
            measures_with_imu=IMU_SIGNALS,
            obeys=("joint_position_target", "joint_velocity_target", "joint_torque_target"),
        ),
        "feetech_sts": Family(FeetechServos),
        "feetech_scs": Family(
            ScsServos,
            ("joint_position", "joint_velocity", "joint_voltage", "joint_temperature"),
        ),
        "microcontroller": Family(
            Microcontroller,
            ("joint_position", "joint_velocity", "joint_effort"),
            IMU_SIGNALS,
            ("joint_position_target", "joint_velocity_target", "joint_torque_target"),
        ),
        **{protocol: Family(make_imu, IMU_SIGNALS, obeys=()) for protocol in IMU_PROTOCOLS},
    }
)
"""By `protocol`."""
