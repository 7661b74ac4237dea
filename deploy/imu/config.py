"""An inertial sensor on a serial port of its own, in a robot's YAML.

devices:
imu: {protocol: bno08x_shtp, port: /dev/ttyUSB1, mounting: [0.7071, 0, 0.7071, 0]}
"""

import math
from typing import Annotated, Literal, get_args

from pydantic import AfterValidator, Field, model_validator

from deploy.configuration import Section
from deploy.quantities import BaudRate, DevicePath

_Part = Annotated[float, Field(ge=-1, le=1)]


def _unit(mounting: tuple[float, float, float, float]) -> tuple[float, float, float, float]:
    length = math.hypot(*mounting)
    if not 0.99 < length < 1.01:
        raise ValueError(
            f"must be a unit quaternion [w, x, y, z], found {list(mounting)} of length "
            f"{length:.3g}; [1, 0, 0, 0] is not turned, [0.7071, 0, 0.7071, 0] by 90° about y"
        )
    w, x, y, z = mounting
    return (w / length, x / length, y / length, z / length)


Mounting = Annotated[tuple[_Part, _Part, _Part, _Part], AfterValidator(_unit)]
"""Unit quaternion wxyz, from the sensor's frame to that of the model's `imu` site."""


ImuProtocol = Literal["bno08x_rvc", "bno08x_shtp", "bno055", "witmotion"]
IMU_PROTOCOLS: tuple[str, ...] = get_args(ImuProtocol)
SHTP_BAUD_RATE = 3_000_000


class BusImuConfig(Section):
    """A sensor that is one more member of the servos' bus."""

    model: Literal["imu_to_dxl"] = "imu_to_dxl"
    """Pollen Robotics' board, on a DYNAMIXEL bus."""
    id: Annotated[int, Field(ge=0, le=252)] = 200
    """Id it answers to."""
    mounting: Mounting = (1.0, 0.0, 0.0, 0.0)
    """Quaternion wxyz that turns vectors from the sensor's frame into the model's `imu` site."""


class ImuConfig(Section):
    """A sensor that is alone on its port."""

    protocol: ImuProtocol
    """Sensor, and the mode it is strapped to."""
    port: DevicePath
    """Device path, best a stable one below /dev/serial/by-id/."""
    baud_rate: BaudRate = 115200
    """A WitMotion's is what it was set to; a bno08x_shtp has 3000000, the others 115200."""
    rate_hz: Annotated[int, Field(ge=50, le=400)] = 200
    """How often a bno08x_shtp is asked to measure; the others have a rate of their own."""
    mounting: Mounting = (1.0, 0.0, 0.0, 0.0)
    """Quaternion wxyz that turns vectors from the sensor's frame into the model's `imu` site."""

    @model_validator(mode="after")
    def _check(self) -> "ImuConfig":
        only = {"bno08x_shtp": SHTP_BAUD_RATE, "bno08x_rvc": 115200, "bno055": 115200}
        wanted = only.get(self.protocol, self.baud_rate)
        if self.baud_rate != wanted:
            raise ValueError(
                f"a {self.protocol} has a baud rate of {wanted} and no other, found "
                f"{self.baud_rate}; write `baud_rate: {wanted}`"
            )
        return self
