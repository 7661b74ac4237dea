"""A gamepad or joystick, read from Linux's event device; needs nothing installed.

    left stick    the first element (up is more) and the second (left is more)
    right stick   the third (left is more) and the fourth (up is more)
    B             stop at once, in the safe state; so does a gamepad that is unplugged
    START         pause, and go on        SELECT   end as planned

Axes, buttons and the record of 24 bytes (8 on 32-bit machines less): linux/input.h and
linux/input-event-codes.h. A user may read /dev/input in the group `input`.
"""

import contextlib
import fcntl
import os
import struct
from collections.abc import Callable, Iterator
from pathlib import Path

from deploy.commands.source import Command, CommandSource, from_sticks
from deploy.contract import CommandSpec
from deploy.errors import ConfigError
from deploy.state import Requests

EVENT = struct.Struct("@llHHi")
"""input_event: seconds, microseconds, type, code, value."""
EV_KEY, EV_ABS = 1, 3
ABS_X, ABS_Y, ABS_RX, ABS_RY = 0, 1, 3, 4
BTN_EAST, BTN_SELECT, BTN_START = 0x131, 0x13A, 0x13B
_ABS_INFO = struct.Struct("6i")
EVIOCGABS = 2 << 30 | _ABS_INFO.size << 16 | ord("E") << 8 | 0x40
"""Asks for an axis's value, minimum and maximum; plus the axis."""
AXES = (ABS_Y, ABS_X, ABS_RX, ABS_RY)
"""The stick of each element; pushed up or left it counts down."""
DEADBAND = 0.08
"""A stick that is let go rests within this part of its range."""
BY_ID = Path("/dev/input/by-id")

AxisRange = Callable[[int, int], tuple[int, int]]


def axis_range(device: int, axis: int) -> tuple[int, int]:
    """Lowest and highest value of an axis of an open device."""
    answer = fcntl.ioctl(device, EVIOCGABS + axis, bytes(_ABS_INFO.size))
    _, low, high, *_ = _ABS_INFO.unpack(answer)
    return low, high


def find_gamepad() -> str:
    """The path of the only gamepad there is.

    Raises:
        ConfigError: there is none, or more than one.
    """
    found = sorted(map(str, BY_ID.glob("*-event-joystick")))
    if len(found) != 1:
        raise ConfigError(
            f"found {found or 'no gamepad'} in {BY_ID}, expected one; plug it in, or name it: "
            "--command gamepad:/dev/input/event5"
        )
    return found[0]


@contextlib.contextmanager
def gamepad(
    spec: CommandSpec, requests: Requests, path: str, ranges: AxisRange = axis_range
) -> Iterator[CommandSource]:
    """Commands and requests from an event device.

    Raises:
        ConfigError: it cannot be opened, or has no sticks.
    """
    try:
        device = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    except OSError as error:
        raise ConfigError(
            f"{path}: cannot be read ({error.strerror}); see /dev/input, and `sudo usermod -aG "
            "input $USER` for the permission"
        ) from error
    try:
        yield _Gamepad(spec, requests, device, path, ranges)
    finally:
        os.close(device)


class _Gamepad:
    """The sticks as they are now."""

    def __init__(
        self, spec: CommandSpec, requests: Requests, device: int, path: str, ranges: AxisRange
    ):
        self._spec, self._requests, self._device = spec, requests, device
        axes = AXES[: len(spec.low)]
        try:
            self._ranges = {axis: ranges(device, axis) for axis in axes}
        except OSError as error:
            raise ConfigError(
                f"{path}: has no two sticks ({error.strerror}), expected a gamepad; choose another "
                "below /dev/input"
            ) from error
        self._sticks = dict.fromkeys(axes, 0.0)
        self._gone = False

    def __call__(self, time_s: float) -> Command:
        while not self._gone:
            try:
                data = os.read(self._device, 64 * EVENT.size)
            except BlockingIOError:
                break
            except OSError:
                data = b""
            if not data:
                self._gone = True
                self._requests.stop("the gamepad is gone")
            for _, _, kind, code, value in EVENT.iter_unpack(
                data[: len(data) // EVENT.size * EVENT.size]
            ):
                self._take(kind, code, value)
        return from_sticks(self._spec, list(self._sticks.values()))

    def _take(self, kind: int, code: int, value: int) -> None:
        if kind == EV_ABS and code in self._sticks:
            low, high = self._ranges[code]
            place = 2 * (value - low) / max(1, high - low) - 1
            clipped = max(-1.0, min(1.0, place))
            self._sticks[code] = -clipped if abs(clipped) > DEADBAND else 0.0
        elif kind == EV_KEY and value == 1:
            if code == BTN_EAST:
                self._requests.stop("the gamepad's B was pressed")
            elif code == BTN_START:
                self._requests.paused = not self._requests.paused
            elif code == BTN_SELECT:
                self._requests.finish()
