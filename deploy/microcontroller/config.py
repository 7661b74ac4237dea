"""A microcontroller in a robot's YAML.

    devices:
      board: {protocol: microcontroller, port: /dev/ttyACM0, imu: {mounting: [1, 0, 0, 0]}}

The joints behind it have `id`, their place on the board from 0, and the servo `model` it drives.
"""

from typing import Annotated, Literal

from pydantic import Field

from deploy.configuration import Section
from deploy.imu.config import Mounting
from deploy.quantities import BaudRate, DevicePath


class BoardImuConfig(Section):
    """The inertial sensor on the board."""

    mounting: Mounting = (1.0, 0.0, 0.0, 0.0)
    """Quaternion wxyz that turns vectors from the sensor's frame into the model's `imu` site."""


class MicrocontrollerConfig(Section):
    """A board that runs deploy/firmware."""

    protocol: Literal["microcontroller"]
    """Wire protocol."""
    port: DevicePath
    """Device path, best a stable one below /dev/serial/by-id/."""
    baud_rate: BaudRate = 1_000_000
    """Of its serial port; a board with USB of its own takes any."""
    usb_latency_ms: Annotated[float, Field(ge=0, le=20)] = 4.0
    """Delay that adapter and board are expected to add to an answer, at most."""
    imu: BoardImuConfig | None = None
    """Its inertial sensor, if the robot is to use it."""
