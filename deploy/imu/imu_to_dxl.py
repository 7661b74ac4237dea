"""The inertial sensor that is one more servo: Pollen Robotics' imu_to_dxl v2, on a Dynamixel bus.

It answers as id 200 to the sync read that reads the servos (address 124, 12 bytes), with what an
LSM6DSV16X measures and fuses: the gyroscope as three i16 of 17.5 m°/s, then x, y and z of the game
rotation quaternion as half-precision floats, w = sqrt(1 - x² - y² - z²) (pollen-robotics/microduck,
duck-control/src/imu.rs; ST's LSM6DSV16X data sheet, G_So at ±500°/s). Three zeros mean that the
fusion has not started. On the microduck it sits turned by +90° about y.
"""

import math
import struct

from deploy.imu.sample import Quaternion, Sample, gravity_of_quaternion

ID = 200
ADDRESS, LENGTH = 124, 12
MICRODUCK_MOUNTING: Quaternion = (math.sqrt(0.5), 0.0, math.sqrt(0.5), 0.0)
_GYRO = math.radians(0.0175)
_BLOCK = struct.Struct("<3h3e")


def decode(block: bytes) -> Sample | None:
    """What 12 bytes at address 124 say; None before the fusion has started, or if it cannot be."""
    x, y, z, i, j, k = _BLOCK.unpack(block)
    squared = i * i + j * j + k * k
    if block[6:] == bytes(6) or not squared <= 1.02:
        return None
    down = gravity_of_quaternion((math.sqrt(max(0.0, 1 - squared)), i, j, k))
    return None if down is None else Sample((x * _GYRO, y * _GYRO, z * _GYRO), down, bytes(block))
