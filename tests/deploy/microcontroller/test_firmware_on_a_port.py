"""The compiled firmware behind a pseudo-terminal, in real time, against the device for robots."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import closing

import numpy as np
import pytest

from deploy.contract import JointSpec
from deploy.microcontroller.device import Microcontroller
from deploy.microcontroller.frames import MessageType, encode_frame
from deploy.microcontroller.messages import Mode, Parts, Reason, Status
from deploy.serial_port import SerialPort
from tests.deploy.microcontroller.conftest import StartBoard, patient_balancer
from tests.until import PATIENCE_S, until

AHEAD_US, GAINS_PPM = 5e6, 200.0


@pytest.fixture
def path(start_board: StartBoard) -> str:
    return start_board(AHEAD_US, GAINS_PPM)


@pytest.fixture
def device(path: str, request: pytest.FixtureRequest) -> Iterator[Microcontroller]:
    config = patient_balancer(request)
    joints = [
        JointSpec(
            name=name, operating_mode="velocity", kp_nm_per_rad=0.0, kd_nm_s_per_rad=0.03,
            default_position_rad=0.0, position_limits_rad=(-100.0, 100.0),
            velocity_limit_rad_s=30.0, effort_limit_nm=0.2,
        )
        for name in config.joints
    ]  # fmt: skip
    with closing(SerialPort(path, 1_000_000)) as port:
        device = Microcontroller("board", config, joints, port)
        device.connect()
        yield device


def soon() -> float:
    """A deadline that a busy machine keeps."""
    return time.monotonic() + PATIENCE_S


def test_it_is_greeted_driven_and_read(device: Microcontroller) -> None:
    begin_s = time.monotonic()
    assert device.welcome is not None
    assert (device.welcome.firmware, device.welcome.uid) == (7, b"balancer")
    assert device.welcome.modes == {Mode.POSITION, Mode.VELOCITY}
    device.energise()
    device.write(np.array([3.0, -2.0]))
    assert device.read(soon())
    assert device.read(soon())  # what the board measured after the command
    np.testing.assert_array_equal(device.velocity, [3.0, -2.0])
    assert np.isnan(device.torque).all()
    # the right servo is mounted the other way round: the board has +2
    np.testing.assert_array_equal(device.link.state.joints[:2, 1], [3.0, 2.0])
    imu = device.readings
    np.testing.assert_allclose(imu["imu_angular_velocity"].values, [0.1, -0.2, 0.3], rtol=1e-6)
    np.testing.assert_allclose(imu["projected_gravity"].values, [0.6, 0.0, -0.8], rtol=1e-6)
    assert device.link.state.supply_mv == 7400
    assert 0 <= device.age_s.max() < time.monotonic() - begin_s


def test_the_boards_clock_is_found_over_the_port(device: Microcontroller) -> None:
    for _ in range(50):
        device.read(soon())
    now_s = time.monotonic()
    expected_s = now_s * GAINS_PPM * 1e-6 + AHEAD_US * 1e-6
    wrap_s = 2**32 * 1e-6
    error_s = (device.link.clocks.offset_s - expected_s + wrap_s / 2) % wrap_s - wrap_s / 2
    assert abs(error_s) < max(5e-3, device.link.clocks.round_trip_s)


@pytest.mark.parametrize("device", [100], indirect=True)
def test_the_deadman_stops_it_in_real_time_and_latches(device: Microcontroller) -> None:
    state = device.link.state
    device.energise()
    begin_s = time.monotonic()
    device.write(np.array([3.0, 3.0]))
    until(lambda: device.read(soon()) and state.status == Status.STOPPED)  # a poll feeds nobody
    assert time.monotonic() - begin_s > 0.1
    device.write(np.array([3.0, 3.0]))
    device.read(soon())
    assert (state.status, state.reason) == (Status.STOPPED, Reason.SILENCE)
    assert not state.parts & Parts.MOTORS_ON
    assert "was stopped by silence" in device.alarm()
    device.energise()
    assert state.status == Status.DRIVEN and device.alarm() == ""


def test_a_stop_is_latched_and_letting_go_is_confirmed(device: Microcontroller) -> None:
    device.energise()
    device.hold()
    assert device.link.state.reason == Reason.BY_HOST
    device.release()
    assert not device.link.state.parts & Parts.MOTORS_ON


def test_garbage_and_damaged_frames_cost_nothing_but_themselves(device: Microcontroller) -> None:
    device.energise()
    damaged = bytearray(encode_frame(MessageType.STOP, 9, 0))
    damaged[3] ^= 0x40
    device._port.write(os.urandom(300).replace(b"\0", b"\1") + b"\0" + bytes(damaged))
    device.write(np.array([1.0, 1.0]))
    assert device.read(soon())
    assert (device.link.state.status, device.link.state.damaged) == (Status.DRIVEN, 2)


def test_a_gap_in_the_numbers_is_counted_by_the_board(device: Microcontroller) -> None:
    device.link._sequence += 4
    device.read(soon())
    assert device.link.state.lost == 4
