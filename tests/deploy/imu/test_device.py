"""Each sensor from the wire to the signals, against how it was really turned."""

from __future__ import annotations

import re

import numpy as np
import pytest

from deploy.configuration import validate
from deploy.errors import BusError, BusTimeout, ConfigError
from deploy.imu.config import ImuConfig
from deploy.imu.device import Imu
from deploy.twin.imu import IMU_MODELS, Motion
from tests.deploy.imu.conftest import Bench, turned

PERIOD_S = 0.02


def run(bench: Bench, imu: Imu, duration_s: float) -> np.ndarray:
    """Angular velocity and gravity at each tick, (ticks, 6)."""
    rows = []
    for _ in range(round(duration_s / PERIOD_S)):
        bench.wait(PERIOD_S)
        imu.read(bench.clock.now() + 0.01)
        rows.append([*imu.signals.angular_velocity, *imu.signals.gravity])
    return np.array(rows)


@pytest.mark.parametrize(
    "tilt", [((1, 0, 0), 0.5), ((0, 1, 0), -0.7), ((1, 2, 3), 2.0), ((0, 0, 1), 3.0)]
)
def test_gravity_points_down_in_the_frame_of_the_tilted_sensor(
    bench: Bench, protocol: str, tilt: tuple[tuple[float, float, float], float]
) -> None:
    bench.rotation = turned(*tilt)
    imu = bench.imu(protocol)
    imu.connect()
    mean = run(bench, imu, 0.5).mean(axis=0)
    np.testing.assert_allclose(mean[3:], bench.rotation.T @ [0, 0, -1], atol=2e-3)
    np.testing.assert_allclose(mean[:3], 0, atol=0.05 if protocol == "bno08x_rvc" else 2e-3)


@pytest.mark.parametrize("axis", range(3))
def test_the_angular_velocity_has_its_sign_and_unit_about_each_axis(
    bench: Bench, protocol: str, axis: int
) -> None:
    bench.rotation = turned((1, 1, 0), 0.4)
    imu = bench.imu(protocol)
    imu.connect()
    bench.spin = np.eye(3)[axis] * -1.5
    seen = run(bench, imu, 0.6)[5:]
    np.testing.assert_allclose(seen[:, :3].mean(axis=0), bench.spin, atol=0.02)
    np.testing.assert_allclose(np.linalg.norm(seen[:, 3:], axis=1), 1.0, atol=1e-6)


def test_a_mounting_turns_both_signals_into_the_frame_of_the_robot(
    bench: Bench, protocol: str
) -> None:
    """+90° about y: robot = (+z, +y, -x) of the sensor, as on the microduck."""
    bench.rotation = turned((1, 2, 3), 0.8)
    down = bench.rotation.T @ [0, 0, -1]
    imu = bench.imu(protocol, mounting=[0.70711, 0.0, 0.70711, 0.0])
    imu.connect()
    run(bench, imu, 0.1)
    np.testing.assert_allclose(imu.signals.gravity, [down[2], down[1], -down[0]], atol=0.01)
    bench.spin = np.array([1.0, 2.0, 3.0])
    seen = run(bench, imu, 0.5)[5:, :3].mean(axis=0)
    np.testing.assert_allclose(seen, [3.0, 2.0, -1.0], atol=0.03)


@pytest.mark.parametrize("protocol", ["bno08x_shtp", "bno055", "witmotion"])
def test_the_bias_of_a_sensor_at_rest_is_taken_off(bench: Bench, protocol: str) -> None:
    bench.bias = np.array([0.05, -0.03, 0.02])
    imu = bench.imu(protocol)
    imu.connect()
    assert imu.rested and "bias +2.8" in imu.describe()  # 0.05 rad/s = 2.86°/s
    np.testing.assert_allclose(run(bench, imu, 1.0)[:, :3].mean(axis=0), 0, atol=2e-3)


def test_of_one_that_moves_no_bias_is_taken(bench: Bench, protocol: str) -> None:
    bench.spin = np.array([0.0, 0.0, 0.5])
    imu = bench.imu(protocol)
    imu.connect()
    assert not imu.rested and "it moved" in imu.describe()
    np.testing.assert_array_equal(imu.signals.bias, 0)


def test_the_age_is_that_of_the_last_sample(bench: Bench, protocol: str) -> None:
    imu = bench.imu(protocol)
    assert imu.signals.age_s[0] == np.inf
    imu.connect()
    run(bench, imu, 0.1)
    assert 0 <= imu.signals.age_s[0] < 0.012
    bench.wire.silent = True
    run(bench, imu, 0.1)
    assert 0.08 < imu.signals.age_s[0] < 0.13
    assert imu.readings["projected_gravity"].age_s is imu.signals.age_s


def test_one_that_has_frozen_is_noticed_and_its_readings_grow_old(
    bench: Bench, protocol: str
) -> None:
    imu = bench.imu(protocol)
    imu.connect()
    run(bench, imu, 1.0)
    assert imu.alarm() == ""
    bench.wire.frozen = True
    # Only the counter of an RVC packet still changes.
    run(bench, imu, 0.4)
    assert imu.alarm() == "" and imu.signals.age_s[0] < 0.03
    run(bench, imu, 0.3)
    assert re.search(r"said the same to the last bit for 0\.[78] s", imu.alarm())
    assert imu.signals.age_s[0] > 0.15


def test_one_that_is_not_there_is_refused_with_what_to_check(bench: Bench, protocol: str) -> None:
    bench.wire.silent = True
    with pytest.raises(BusTimeout, match=r"/dev/ttyUSB0 .*expected .*; check"):
        bench.imu(protocol).connect()


def test_a_bno08x_that_restarts_raises_an_alarm() -> None:
    bench = Bench(IMU_MODELS["bno08x_shtp"]())
    imu = bench.imu("bno08x_shtp")
    imu.connect()
    for byte in bytes.fromhex("7e010500010001") + b"\x7e":  # a reset, byte by byte
        bench.port.write(bytes([byte]))
        bench.wait(2e-4)
    run(bench, imu, 0.1)
    assert "has restarted" in imu.alarm()


def test_another_chip_in_the_place_of_a_bno055_is_refused() -> None:
    bench = Bench(model := IMU_MODELS["bno055"]())
    model.registers[0] = 0x55  # pyright: ignore[reportAttributeAccessIssue]
    with pytest.raises(BusError, match="has chip id b'U', expected A0"):
        bench.imu("bno055").connect()


def test_a_bno055_whose_bus_over_runs_is_asked_again() -> None:
    bench = Bench(IMU_MODELS["bno055"]())
    bench.model._over_run_every = 3  # pyright: ignore[reportAttributeAccessIssue]
    imu = bench.imu("bno055")
    imu.connect()
    run(bench, imu, 0.3)
    assert imu.statistics.timeouts > 0 and imu.signals.age_s[0] < 0.05


@pytest.mark.parametrize("protocol", ["bno08x_rvc", "witmotion"])
def test_axes_that_contradict_the_accelerometer_are_refused(bench: Bench, protocol: str) -> None:
    honest = bench.motion
    bench.rotation = turned((1, 0, 0), 0.6)

    def remapped(now_s: float) -> Motion:
        motion = honest(now_s)
        return motion._replace(specific_force=motion.specific_force[[1, 0, 2]])

    bench.wire._motion = remapped
    with pytest.raises(BusError, match=r"lies still and feels .* expected the opposite"):
        bench.imu(protocol).connect()


def test_a_mounting_that_is_no_rotation_is_refused() -> None:
    document = {"protocol": "bno055", "port": "/dev/ttyUSB0", "mounting": [1, 0, 1, 0]}
    with pytest.raises(ConfigError, match=r"mounting: must be a unit quaternion .* length 1.41"):
        validate(document, ImuConfig, source="robot.yaml")
