"""A gamepad is a stream of `struct input_event`; a pipe carries one as well as a device does."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from deploy.commands import gamepad as module
from deploy.commands.gamepad import (
    ABS_RX,
    ABS_X,
    ABS_Y,
    BTN_EAST,
    BTN_SELECT,
    BTN_START,
    EV_ABS,
    EV_KEY,
    EVENT,
    find_gamepad,
    gamepad,
)
from deploy.commands.source import CommandSource
from deploy.errors import ConfigError
from deploy.state import Requests
from tests.deploy.commands.test_schedule import TWIST

LOW, HIGH = -32768, 32767  # of an Xbox pad's sticks


@dataclass
class Pad:
    """What its owner does, and what the source makes of it."""

    end: int
    requests: Requests
    source: CommandSource

    def send(self, kind: int, code: int, value: int) -> list[float]:
        """The command afterwards."""
        os.write(self.end, EVENT.pack(0, 0, kind, code, value))
        return self.source(0.0).tolist()


@pytest.fixture
def pad(tmp_path: Path) -> Iterator[Pad]:
    path = tmp_path / "event5"
    os.mkfifo(path)
    keep = os.open(path, os.O_RDWR)
    requests = Requests()
    with gamepad(TWIST, requests, str(path), lambda device, axis: (LOW, HIGH)) as source:
        yield Pad(keep, requests, source)
    os.close(keep)


def test_sticks_at_rest_are_neutral(pad: Pad):
    assert pad.source(0.0).tolist() == [0.0, 0.0, 0.0]


def test_stick_up_is_forwards_and_left_is_left(pad: Pad):
    assert pad.send(EV_ABS, ABS_Y, LOW) == pytest.approx([0.5, 0.0, 0.0])
    assert pad.send(EV_ABS, ABS_X, LOW) == pytest.approx([0.5, 0.2, 0.0])
    assert pad.send(EV_ABS, ABS_RX, HIGH) == pytest.approx([0.5, 0.2, -1.0])
    assert pad.send(EV_ABS, ABS_Y, HIGH // 2) == pytest.approx([-0.25, 0.2, -1.0], abs=1e-3)


def test_stick_that_does_not_quite_return_is_let_go(pad: Pad):
    assert pad.send(EV_ABS, ABS_Y, 2500) == [0.0, 0.0, 0.0]


def test_buttons_stop_pause_and_end(pad: Pad):
    pad.send(EV_KEY, BTN_START, 1)
    pad.send(EV_KEY, BTN_START, 0)  # let go
    assert pad.requests.paused
    pad.send(EV_KEY, BTN_START, 1)
    assert not pad.requests.paused
    pad.send(EV_KEY, BTN_SELECT, 1)
    assert pad.requests.finished
    pad.send(EV_KEY, BTN_EAST, 1)
    assert pad.requests.stopped == "the gamepad's B was pressed"


def test_gamepad_that_is_unplugged_stops_the_robot(pad: Pad, monkeypatch: pytest.MonkeyPatch):
    def gone(device: int, count: int) -> bytes:
        raise OSError(19, "No such device")

    monkeypatch.setattr(module.os, "read", gone)
    pad.source(0.0)
    assert pad.requests.stopped == "the gamepad is gone"


def test_device_without_sticks_is_refused(tmp_path: Path):
    path = tmp_path / "event5"
    path.write_bytes(b"")
    with (
        pytest.raises(ConfigError, match="has no two sticks"),
        gamepad(TWIST, Requests(), str(path)),
    ):  # a file knows no ioctl
        pass


def test_missing_device_is_refused_with_the_permission_it_needs(tmp_path: Path):
    with (
        pytest.raises(ConfigError, match="usermod -aG input"),
        gamepad(TWIST, Requests(), str(tmp_path / "event9")),
    ):
        pass


def test_only_gamepad_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(module, "BY_ID", tmp_path)
    with pytest.raises(ConfigError, match="found no gamepad"):
        find_gamepad()
    (tmp_path / "usb-8BitDo-event-joystick").touch()
    (tmp_path / "usb-8BitDo-event-kbd").touch()
    assert find_gamepad() == str(tmp_path / "usb-8BitDo-event-joystick")
    (tmp_path / "usb-Sony-event-joystick").touch()
    with pytest.raises(ConfigError, match="expected one"):
        find_gamepad()


PRINT = r"""
#include <stdio.h>
#include <linux/input.h>
int main(void) {
    printf("%zu %lu %d %d %d %d %d %d %d %d %d\n", sizeof(struct input_event),
           (unsigned long)EVIOCGABS(0), EV_KEY, EV_ABS, ABS_X, ABS_Y, ABS_RX, ABS_RY,
           BTN_EAST, BTN_SELECT, BTN_START);
}
"""


def test_numbers_are_those_of_the_kernels_header(tmp_path: Path):
    if not (shutil.which("cc") and Path("/usr/include/linux/input.h").exists()):
        pytest.skip("no C compiler, or no kernel headers")
    source = tmp_path / "print.c"
    source.write_text(PRINT)
    subprocess.run(["cc", str(source), "-o", str(tmp_path / "print")], check=True)
    printed = subprocess.run([tmp_path / "print"], capture_output=True, text=True, check=True)
    ours = (EVENT.size, module.EVIOCGABS, EV_KEY, EV_ABS, ABS_X, ABS_Y, ABS_RX, module.ABS_RY)
    assert printed.stdout.split() == list(map(str, (*ours, BTN_EAST, BTN_SELECT, BTN_START)))
