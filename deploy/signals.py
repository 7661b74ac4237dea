"""Signals: the one table of what a robot can know and what it can be told, by kind.

    row = SIGNALS["joint_velocity"]
    row.unit, row.frame                  # "rad/s", ""
    row.elements(joints)                 # one per joint, in the contract's order

A tensor of the controller's graph has its kind's name; what the row says about unit, frame and
elements is checked when a contract is read, so no file can declare it otherwise. A policy names
the kinds it uses: contract, export, runtime, recorder and report have those and no others. To add
a signal, write its row here, the device that measures it (`deploy.robot`), the sensor in the MJCF,
and use it in a task. Quantities are SI; vectors are in the frame that the row names.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal, get_args

SignalKind = Literal[
    "joint_position",
    "joint_velocity",
    "joint_effort",
    "joint_target",
    "joint_target_velocity",
    "joint_current",
    "joint_temperature",
    "joint_voltage",
    "imu_angular_velocity",
    "projected_gravity",
    "object_position",
    "command",
    "time",
]
TargetKind = Literal["joint_position_target", "joint_velocity_target", "joint_torque_target"]
Unit = Literal["1", "rad", "rad/s", "N·m", "m", "m/s", "N", "s", "A", "V", "°C"]
UNITS: tuple[str, ...] = get_args(Unit)
Frame = Literal["", "base", "imu"]
"""Frame of reference of a spatial quantity; empty for one that is not."""
Bound = Literal["position_limits", "velocity_limit", "effort_limit", "command"]
"""What of a contract bounds a kind: a limit of each joint, or the range of the command."""

_XYZ = ("x", "y", "z")
_ROUNDING = 1e-4
"""Between float32 in the graph and float64 in the contract."""
POLLED_S = 5.0
"""Health is asked for now and then, one servo after the other [s]."""


@dataclass(frozen=True)
class Signal:
    """A row of the table."""

    unit: Unit | None
    """None: the contract's command says it, and the frame."""
    usual: tuple[float, float] | Bound
    """Range of each element while all is well."""
    beyond: float
    """A recorded element farther than this outside that range is no recording, in the unit."""
    axes: tuple[str, ...] | Literal["joints", "command"] = "joints"
    """Element names: one per joint, as the contract's command has them, or these."""
    frame: Frame = ""
    measured: bool = True
    """Whether a device measures it; the runtime itself knows the others."""
    max_age_s: float | None = None
    """Oldest reading that may be acted on [s]; None: as the robot's `stale_after_ms` says."""

    def elements(self, joints: Sequence[str], command: Sequence[str] = ()) -> list[str]:
        """Names of the last axis, on a robot with these joints for a command of these elements."""
        if isinstance(self.axes, tuple):
            return list(self.axes)
        return list(joints if self.axes == "joints" else command)


SIGNALS: Mapping[SignalKind, Signal] = MappingProxyType(
    {
        "joint_position": Signal("rad", "position_limits", 0.5),  # a driven joint overshoots
        "joint_velocity": Signal("rad/s", (-8.0, 8.0), 92.0),
        "joint_effort": Signal("N·m", "effort_limit", 10.0),
        "joint_target": Signal("rad", "position_limits", _ROUNDING, measured=False),
        "joint_target_velocity": Signal("rad/s", "velocity_limit", _ROUNDING, measured=False),
        "joint_current": Signal("A", (-3.0, 3.0), 97.0, max_age_s=POLLED_S),
        "joint_temperature": Signal("°C", (10.0, 60.0), 90.0, max_age_s=POLLED_S),
        "joint_voltage": Signal("V", (0.0, 30.0), 70.0, max_age_s=POLLED_S),
        "imu_angular_velocity": Signal("rad/s", (-8.0, 8.0), 32.0, axes=_XYZ, frame="imu"),
        "projected_gravity": Signal("1", (-1.0, 1.0), 0.1, axes=_XYZ, frame="imu"),
        "object_position": Signal(
            "m", (-1.0, 1.0), 9.0, axes=_XYZ, frame="base", max_age_s=0.5
        ),  # of a tracker, whose pictures come when they come
        "command": Signal(None, "command", _ROUNDING, axes="command", measured=False),
        "time": Signal("s", (0.0, 20.0), 80.0, axes=("time",), measured=False),
    }
)
"""What a controller may be given. `joint_target` is what was sent last, after the governor, and
`joint_target_velocity` the same where joints are driven by speed; `projected_gravity` a unit vector
that points down; `time` passes from the policy's first tick."""

TARGETS: Mapping[TargetKind, Signal] = MappingProxyType(
    {
        "joint_position_target": Signal("rad", "position_limits", _ROUNDING),
        "joint_velocity_target": Signal("rad/s", "velocity_limit", _ROUNDING),
        "joint_torque_target": Signal("N·m", "effort_limit", _ROUNDING),
    }
)
"""What a controller may ask for."""

LAST_TARGET: Mapping[TargetKind, SignalKind] = MappingProxyType(
    {
        "joint_position_target": "joint_target",
        "joint_velocity_target": "joint_target_velocity",
    }
)
"""The signal that says what was sent last."""
