"""Physical quantities: the range of each in which a robot can lie, so that a slip is refused.

    velocity_limit_rad_s: Speed

The ranges are wide: they do not say what is wise, only what is no robot. A hundred rad/s is a fast
wheel, a thousand is degrees or a typing mistake. Every number of every configuration and contract
has both ends bounded, by one of these or by its own `Field`; a test sees to that.
"""

from typing import Annotated

from pydantic import AfterValidator, Field


def _one_line_name(name: str) -> str:
    if name != name.strip() or "," in name:
        raise ValueError(f"a name has no comma, and no space at its ends, found {name!r}")
    return name


def _device_path(port: str) -> str:
    if not port.startswith("/") or port.endswith("/") or len(port) > 1000:
        raise ValueError(f"expected the path of a device such as /dev/ttyUSB0, found {port!r}")
    return port


Name = Annotated[str, Field(min_length=1, max_length=100), AfterValidator(_one_line_name)]
"""Name of a robot, joint, tensor; lists of names are written with commas for other runtimes."""
DevicePath = Annotated[str, AfterValidator(_device_path)]
"""Path of a serial port, best a stable one below /dev/serial/by-id/."""
BaudRate = Annotated[int, Field(ge=9600, le=4_500_000)]
"""Bits per second on a serial line."""
Angle = Annotated[float, Field(ge=-1000, le=1000)]
"""Joint angle [rad]: 160 turns either way, the drum of a winch."""
Speed = Annotated[float, Field(ge=0.01, le=100)]
"""Speed limit of a joint [rad/s]: from one turn in ten minutes to 950 rev/min."""
Torque = Annotated[float, Field(ge=1e-4, le=1000)]
"""Torque limit of a joint [N·m]: from the smallest servo to a humanoid's knee, and then some."""
Stiffness = Annotated[float, Field(ge=0, le=10_000)]
"""Position gain [N·m/rad]; the stiffest robot joints reach about 1000, others have none."""
Damping = Annotated[float, Field(ge=0, le=1000)]
"""Velocity gain [N·m·s/rad]."""
Period = Annotated[float, Field(ge=0.001, le=0.5)]
"""Period of a policy [s]: a serial bus ends at 1 kHz, below 2 Hz nothing is under control."""
Duration = Annotated[float, Field(ge=0.001, le=100_000)]
"""Any other time [s]: from a millisecond to a day."""
Length = Annotated[float, Field(ge=-1000, le=1000)]
"""Coordinate or distance [m]."""
Number = Annotated[float, Field(ge=-1e12, le=1e12)]
"""A number whose meaning lies elsewhere: a metric, an end of a range."""
Count = Annotated[int, Field(ge=0, le=10**15)]
"""How many, of anything that is only counted."""
Seed = Annotated[int, Field(ge=0, le=2**32 - 1)]
"""Seed of random numbers, of which 32 bits are used."""
