"""Signals: the one table of what a robot can know and what it can be told, by kind.

    SIGNALS["joint_velocity"].unit                 # "rad/s"
    SIGNALS["joint_velocity"].elements(joints)     # one per joint, in the contract's order

A tensor of the controller's graph has its kind's name; what the row says about unit, frame and
elements is checked when a contract is read, so no file can declare it otherwise.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

SignalKind = Literal["joint_position", "joint_velocity", "joint_target", "command"]
TargetKind = Literal["joint_position_target"]


@dataclass(frozen=True)
class Signal:
    """A row of the table."""

    unit: str
    axes: tuple[str, ...] | None = None
    """Element names; None is one element per joint."""
    frame: str = ""
    """Frame of reference of a spatial quantity."""

    def elements(self, joints: Sequence[str]) -> list[str]:
        """Names of the last axis on a robot with these joints."""
        return list(joints if self.axes is None else self.axes)


SIGNALS: Mapping[SignalKind, Signal] = MappingProxyType(
    {
        "joint_position": Signal("rad"),
        "joint_velocity": Signal("rad/s"),
        "joint_target": Signal("rad"),  # sent last, after the governor
        "command": Signal("m", axes=("x", "y", "z"), frame="base"),
    }
)
"""What a controller may be given."""

TARGETS: Mapping[TargetKind, Signal] = MappingProxyType({"joint_position_target": Signal("rad")})
"""What a controller may ask for."""
