"""The firmware, compiled on this computer: as a library in the test's own time, and as a program
behind a pseudo-terminal."""

from __future__ import annotations

import ctypes
import os
import pty
import shutil
import subprocess
import tty
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from deploy.configuration import load_yaml
from deploy.microcontroller.messages import Mode, Parts, Reason
from deploy.robot_config import RobotConfig

FIRMWARE = Path(__file__).parents[3] / "deploy/firmware/src"
BOARD = Path(__file__).with_name("board.c")
BALANCER = Path(__file__).parents[3] / "configs/robots/balancer.yaml"
STRICT = ("-std=c99", "-Wall", "-Wextra", "-Wconversion", "-Werror", "-pedantic")
TRAP = ("-O1", "-fsanitize=undefined", "-fsanitize-undefined-trap-on-error")
"""What C leaves undefined ends the program, with no library needed for it."""


def patient_balancer(request: pytest.FixtureRequest) -> RobotConfig:
    """Its deadman waits for a machine that does something else, or as long as asked [ms]."""
    config = load_yaml(BALANCER, RobotConfig)
    safety = config.safety.model_copy(update={"watchdog_ms": getattr(request, "param", 1000)})
    return config.model_copy(update={"safety": safety})


@pytest.fixture(scope="session")
def cc() -> str:
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("no C compiler `cc` on this machine, which the firmware's tests compile with")
    return compiler


def _compile(cc: str, target: Path, *options: str) -> Path:
    link = target.with_suffix(".o")
    subprocess.run(
        [cc, *STRICT, *TRAP, "-fPIC", "-c", str(FIRMWARE / "robotrl_link.c"), "-o", str(link)],
        check=True,
    )
    subprocess.run(
        [cc, "-std=gnu99", *TRAP, "-fPIC", *options, f"-I{FIRMWARE}", str(BOARD), str(link),
         "-o", str(target)],
        check=True,
    )  # fmt: skip
    return target


@pytest.fixture(scope="session")
def firmware(cc: str, tmp_path_factory: pytest.TempPathFactory) -> ctypes.CDLL:
    """The firmware as a library."""
    path = _compile(cc, tmp_path_factory.mktemp("firmware") / "board.so", "-shared")
    library = ctypes.CDLL(str(path))
    library.board_receive.restype = library.rl_crc16.restype = ctypes.c_uint16
    library.rl_cobs_encode.restype = ctypes.c_uint16
    library.board_drives.restype = ctypes.c_bool
    library.board_mode.restype = ctypes.c_uint8
    library.board_target.restype = ctypes.POINTER(ctypes.c_float)
    return library


class CompiledBoard:
    """The compiled board, with the methods of `deploy.twin.board.Board`."""

    def __init__(self, firmware: ctypes.CDLL, joints: int = 2):
        self._firmware, self._joints = firmware, joints
        modes = 1 << Mode.POSITION | 1 << Mode.VELOCITY
        firmware.board_begin(joints, modes, int(Parts.IMU | Parts.SUPPLY))

    def receive(self, data: bytes, now_us: int) -> bytes:
        replies = ctypes.create_string_buffer(255 * (data.count(b"\0") + 1))
        size = self._firmware.board_receive(data, len(data), now_us & 0xFFFFFFFF, replies)
        return replies.raw[:size]

    def tick(self, now_us: int) -> None:
        self._firmware.board_tick(now_us & 0xFFFFFFFF)

    def press(self, pressed: bool) -> None:
        self._firmware.board_pin(pressed)

    def stop(self, reason: Reason) -> None:
        self._firmware.board_stop(int(reason))

    def measure(self, joints: np.ndarray, imu: np.ndarray, supply_mv: int, now_us: int) -> None:
        joints, imu = (np.ascontiguousarray(array, np.float32) for array in (joints, imu))
        self._firmware.board_measure(
            ctypes.c_void_p(joints.ctypes.data),
            ctypes.c_void_p(imu.ctypes.data),
            supply_mv,
            now_us & 0xFFFFFFFF,
        )

    @property
    def drives(self) -> bool:
        return self._firmware.board_drives()

    @property
    def mode(self) -> int:
        return self._firmware.board_mode()

    @property
    def targets(self) -> list[float]:
        return self._firmware.board_target()[: self._joints]


@pytest.fixture
def compiled_board(firmware: ctypes.CDLL) -> CompiledBoard:
    """The compiled board, two joints and an IMU, just switched on."""
    return CompiledBoard(firmware)


@pytest.fixture(scope="session")
def board_program(cc: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return _compile(cc, tmp_path_factory.mktemp("firmware") / "board")


StartBoard = Callable[[float, float], str]


@pytest.fixture
def start_board(board_program: Path) -> Iterator[StartBoard]:
    """Start a board whose clock is ahead [us] and gains [ppm]; returns its port's path."""
    running: list[tuple[subprocess.Popen[bytes], tuple[int, int]]] = []

    def start(ahead_us: float, gains_ppm: float) -> str:
        behind, front = pty.openpty()
        tty.setraw(front)
        arguments = [str(board_program), str(behind), str(ahead_us), str(gains_ppm)]
        running.append((subprocess.Popen(arguments, pass_fds=(behind,)), (behind, front)))
        return os.ttyname(front)

    yield start
    for program, terminals in running:
        program.kill()
        program.wait()
        for terminal in terminals:
            os.close(terminal)
