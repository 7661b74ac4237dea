"""Adafruit's drivers for the BNO055 and the BNO08x, as published, read the simulated sensors.

They were written against the chips, so what they understand is what the chips say.
"""

from __future__ import annotations

import sys
import types

import numpy as np
import pytest

from deploy.twin.imu import IMU_MODELS
from tests.deploy.imu.conftest import Bench, turned


class Uart:
    """What CircuitPython calls a UART, on a port in virtual time."""

    def __init__(self, bench: Bench):
        self._bench, self._received = bench, bytearray()
        self._buffer = memoryview(bytearray(8192))
        self.baudrate = 0

    def _take(self, until_s: float) -> None:
        while count := self._bench.port.read_into(self._buffer, until_s):
            self._received += self._buffer[:count]

    @property
    def in_waiting(self) -> int:
        self._bench.wait(1e-3)
        self._take(self._bench.clock.now())
        return len(self._received)

    def read(self, count: int) -> bytes:
        self._take(self._bench.clock.now())
        deadline_s = self._bench.clock.now() + 1.0
        while len(self._received) < count and self._bench.clock.now() < deadline_s:
            self._bench.wait(1e-3)
            self._take(self._bench.clock.now())
        taken = bytes(self._received[:count])
        del self._received[:count]
        return taken

    def write(self, data: bytes) -> None:
        self._bench.port.write(bytes(data))

    def reset_input_buffer(self) -> None:
        self._take(self._bench.clock.now())
        self._received.clear()


@pytest.fixture
def virtual_time(monkeypatch: pytest.MonkeyPatch):
    """Let a vendor's module sleep and wait in the bench's time, and import on a computer."""
    for name, attributes in {
        "micropython": {"const": lambda value: value},
        "busio": {"UART": object, "I2C": object},
        "adafruit_bus_device": {},
        "adafruit_bus_device.i2c_device": {"I2CDevice": object},
        "adafruit_register": {},
        "adafruit_register.i2c_struct": {
            "Struct": type("Struct", (), {"__init__": lambda self, *_: None}),
            "UnaryStruct": type("UnaryStruct", (), {"__init__": lambda self, *_: None}),
        },
    }.items():
        if name not in sys.modules:
            module = types.ModuleType(name)
            module.__dict__.update(attributes)
            monkeypatch.setitem(sys.modules, name, module)

    def use(module: types.ModuleType, bench: Bench) -> None:
        clock = types.SimpleNamespace(monotonic=bench.clock.now, sleep=bench.wait)
        monkeypatch.setattr(module, "time", clock)

    return use


TILT = turned((1, 2, 3), 0.7)
DOWN = TILT.T @ [0, 0, -1]


def test_adafruits_rvc_driver_reads_the_simulated_bno08x(virtual_time) -> None:
    rvc = pytest.importorskip("adafruit_bno08x_rvc")
    bench = Bench(IMU_MODELS["bno08x_rvc"](), rotation=TILT)
    virtual_time(rvc, bench)
    uart = Uart(bench)
    bench.wait(0.5)
    yaw, pitch, roll, *force = rvc.BNO08x_RVC(uart).heading
    np.testing.assert_allclose(force, -9.80665 * DOWN, atol=0.15)
    # yaw about z, pitch about x, roll about y
    z, x, y = (0, 0, 1), (1, 0, 0), (0, 1, 0)
    rebuilt = (
        turned(z, np.radians(yaw)) @ turned(x, np.radians(pitch)) @ turned(y, np.radians(roll))
    )
    np.testing.assert_allclose(rebuilt, TILT, atol=5e-3)


def test_adafruits_shtp_driver_reads_the_simulated_bno08x(virtual_time) -> None:
    pytest.importorskip("adafruit_bno08x")
    import adafruit_bno08x
    import adafruit_bno08x.uart as driver

    bench = Bench(IMU_MODELS["bno08x_shtp"](), rotation=TILT, bias=np.array([0.2, -0.4, 0.6]))
    virtual_time(adafruit_bno08x, bench)
    virtual_time(driver, bench)
    sensor = driver.BNO08X_UART(Uart(bench))
    for feature in (
        adafruit_bno08x.BNO_REPORT_GYROSCOPE,
        adafruit_bno08x.BNO_REPORT_GAME_ROTATION_VECTOR,
        adafruit_bno08x.BNO_REPORT_ACCELEROMETER,
    ):
        sensor.enable_feature(feature)
    bench.wait(0.1)
    np.testing.assert_allclose(sensor.gyro, bench.bias, atol=0.02)
    np.testing.assert_allclose(sensor.acceleration, -9.80665 * DOWN, atol=0.15)
    i, j, k, real = sensor.game_quaternion
    import mujoco

    rotation = np.zeros(9)
    mujoco.mju_quat2Mat(rotation, np.array([real, i, j, k]))
    np.testing.assert_allclose(rotation.reshape(3, 3), TILT, atol=5e-3)


def test_adafruits_driver_reads_the_simulated_bno055(virtual_time) -> None:
    module = pytest.importorskip("adafruit_bno055")
    bench = Bench(IMU_MODELS["bno055"](), rotation=TILT, bias=np.array([0.2, -0.4, 0.6]))
    virtual_time(module, bench)
    sensor = module.BNO055_UART(Uart(bench))
    sensor.mode = module.IMUPLUS_MODE
    bench.wait(0.1)
    np.testing.assert_allclose(sensor.gyro, bench.bias, atol=0.02)
    np.testing.assert_allclose(sensor.acceleration, -9.80665 * DOWN, atol=0.15)
    np.testing.assert_allclose(sensor.gravity, -9.80665 * DOWN, atol=0.05)
