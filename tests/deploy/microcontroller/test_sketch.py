"""The balancer's sketch, compiled here with a little of Arduino around it, and driven."""

from __future__ import annotations

import os
import pty
import shutil
import subprocess
import time
import tty
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from deploy.errors import SafetyError
from deploy.microcontroller.device import Microcontroller
from deploy.microcontroller.messages import Parts, Reason
from deploy.robot import bare_joints
from deploy.serial_port import SerialPort
from tests.deploy.microcontroller.conftest import FIRMWARE, patient_balancer
from tests.until import PATIENCE_S, until

ARDUINO = Path(__file__).parent / "arduino"
SKETCH = FIRMWARE.parent / "examples/balancer"


@pytest.fixture(scope="module")
def sketch(cc: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    compiler = shutil.which("c++")
    if compiler is None:
        pytest.skip("no C++ compiler `c++` on this machine, which sketches are compiled with")
    folder = tmp_path_factory.mktemp("sketch")
    link, program = folder / "link.o", folder / "balancer"
    subprocess.run([cc, "-std=c99", "-c", str(FIRMWARE / "robotrl_link.c"), "-o", str(link)],
                   check=True)  # fmt: skip
    warnings = ("-Wall", "-Wextra", "-Werror", "-Wno-unused-parameter")
    folders = (f"-I{ARDUINO}", f"-I{FIRMWARE}", f"-I{SKETCH}")
    subprocess.run(
        [compiler, "-std=c++17", *warnings, *folders, str(ARDUINO / "main.cpp"), str(link),
         "-o", str(program)],
        check=True,
    )  # fmt: skip
    return program


@pytest.fixture
def stop_pressed(tmp_path: Path) -> Path:
    """While there is this file, the button is pressed."""
    return tmp_path / "pressed"


@pytest.fixture
def device(
    sketch: Path, stop_pressed: Path, request: pytest.FixtureRequest
) -> Iterator[Microcontroller]:
    behind, front = pty.openpty()
    tty.setraw(front)
    program = subprocess.Popen(
        [sketch, str(behind)],
        pass_fds=(behind,),
        env={**os.environ, "STOP_PRESSED": str(stop_pressed)},
    )
    config = patient_balancer(request)
    joints = [
        joint.model_copy(update={"operating_mode": "velocity", "kp_nm_per_rad": 0.0})
        for joint in bare_joints(config)
    ]
    try:
        with closing(SerialPort(os.ttyname(front), 1_000_000)) as port:
            device = Microcontroller("board", config, joints, port)
            device.connect()
            yield device
    finally:
        program.kill()
        program.wait()
        os.close(behind)
        os.close(front)


def until_read(device: Microcontroller, fact: Callable[[], bool]) -> None:
    """Read until it is so: the sketch's loop takes its turns."""
    until(lambda: device.read(time.monotonic() + PATIENCE_S) and fact())


def turns(device: Microcontroller) -> bool:
    """Both wheels turn as they are told below."""
    # counts of 0.229 rev/min = 0.02398 rad/s
    return bool(np.allclose(device.velocity, [6.0, 3.0], rtol=0, atol=0.012))


def test_it_turns_the_wheels_and_reads_them_and_the_sensor(device: Microcontroller) -> None:
    device.energise()
    device.write(np.array([6.0, 3.0]))
    until_read(device, lambda: turns(device))
    np.testing.assert_allclose(device.position, [np.pi / 2, -np.pi / 2], atol=1e-6)
    down = device.readings["projected_gravity"].values
    np.testing.assert_allclose(down, [0, -1, 0], atol=1e-6)  # turned by 90° about x
    spin = device.readings["imu_angular_velocity"].values
    np.testing.assert_allclose(spin, [0.1, -0.2, 0.3], rtol=1e-6)
    until_read(device, lambda: device.link.state.joints_age < 2000)  # 0.2 s


@pytest.mark.parametrize("device", [100], indirect=True)
def test_it_stops_the_wheels_without_commands(device: Microcontroller) -> None:
    device.energise()
    device.write(np.array([6.0, 3.0]))
    until_read(device, lambda: device.link.state.reason == Reason.SILENCE)
    until_read(device, lambda: not device.velocity.any())


def test_the_button_stops_the_wheels_and_keeps_them_stopped(
    device: Microcontroller, stop_pressed: Path
) -> None:
    device.energise()
    device.write(np.array([6.0, 3.0]))
    until_read(device, lambda: turns(device))
    stop_pressed.touch()
    until_read(device, lambda: device.link.state.reason == Reason.PIN)
    assert not device.link.state.parts & Parts.MOTORS_ON
    with pytest.raises(SafetyError, match="its emergency stop, which is pressed"):
        device.energise()
    stop_pressed.unlink()
    until(lambda: device.energise() or device.energised, SafetyError)
    device.write(np.array([6.0, 3.0]))
    until_read(device, lambda: turns(device))
