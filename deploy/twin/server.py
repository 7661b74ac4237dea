"""A twin behind pseudo-terminals, in real time: to any program, a robot on its serial ports.

    serve(model_path, robot_config, draw(3, model_path), link=Path("/tmp/desk_arm"), ready=print)

Programs may come and go; the robot stays switched on until SIGTERM or SIGINT. A pseudo-terminal
carries bytes at any speed, but tells the baud rate a program has set: at another than their own the
servos stay silent.
"""

import logging
import os
import pty
import select
import signal
import termios
import time
import tty
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from types import FrameType

from deploy.errors import BusError, ConfigError
from deploy.robot_config import RobotConfig
from deploy.twin.parameters import TwinParameters
from deploy.twin.robot import Twin
from deploy.twin.truth import TruthRecorder

PERIOD_S = 0.002
"""Longest sleep: the physics never lags further behind."""
SPIN_S = 0.0002
"""A sleep ends up to this much late, so the last stretch before a reply is busy waiting."""

_BAUD_RATES = {
    getattr(termios, name): int(name[1:])
    for name in dir(termios)
    if name[0] == "B" and name[1:].isdigit()
}
"""Baud rate [bit/s] of each speed of a terminal, B9600 and so on."""
_STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT)
_log = logging.getLogger(__name__)


def serve(
    model_path: Path,
    robot_config: RobotConfig,
    parameters: TwinParameters | None = None,
    *,
    link: Path | None = None,
    truth_path: Path | None = None,
    ready: Callable[[str], None],
) -> None:
    """Run a robot until SIGTERM or SIGINT; call it in the main thread.

    Args:
        model_path: the robot's MJCF.
        robot_config: its wiring.
        parameters: how it differs from the nominal model.
        link: symbolic link to make to the pseudo-terminal, gone again afterwards; of a robot with
            several devices, `.NAME` is added for each.
        truth_path: file for what the robot really did, see `deploy.twin.truth`; None for none.
        ready: called with the path to open once the robot answers; with several devices, with
            `NAME=PATH,NAME=PATH`.

    Raises:
        ConfigError: the wiring does not fit the model, or `truth_path` is in no folder.
        BusError: `link` is taken by something else, or cannot be made.
    """
    if truth_path and not truth_path.parent.is_dir():
        raise ConfigError(
            f"{truth_path.parent} is no folder, expected one for {truth_path.name}; make it first"
        )
    twin = Twin(model_path, robot_config, parameters, start_s=time.monotonic())
    truth = TruthRecorder(twin) if truth_path else None
    with ExitStack() as stack, _stop_signals() as stopped:
        several = len(twin.devices) > 1
        ends = {
            name: stack.enter_context(
                _pseudo_terminal(
                    link.with_name(f"{link.name}.{name}") if link and several else link
                )
            )
            for name in twin.devices
        }
        paths = (f"{name}={path}" if several else path for name, (_, path) in ends.items())
        ready(",".join(paths))
        _run(twin, {host: name for name, (host, _) in ends.items()}, stopped, truth)
        if truth and truth_path:
            truth.save(truth_path)


def _run(
    twin: Twin, hosts: dict[int, str], stopped: Callable[[], bool], truth: TruthRecorder | None
) -> None:
    """Serve until `stopped`; `hosts` are our ends of the ports of each device."""
    advance = truth.advance if truth else twin.advance  # the former samples on the way
    while not stopped():
        now_s = time.monotonic()
        advance(now_s)
        for host, device in hosts.items():
            if reply := twin.take(now_s, device):
                with suppress(BlockingIOError):  # nobody has read for kilobytes: lost, as on a wire
                    os.write(host, reply)
        wait_s = min(PERIOD_S, twin.wake_s - time.monotonic() - SPIN_S)
        for host in select.select(hosts, (), (), max(0.0, wait_s))[0]:
            twin.receive(os.read(host, 4096), time.monotonic(), _baud_rate(host), hosts[host])


def _baud_rate(terminal: int) -> int | None:
    """What a program has set the pseudo-terminal to; None for a speed without a name, as 4.5 M."""
    *_, output_speed, _ = termios.tcgetattr(terminal)
    return _BAUD_RATES.get(output_speed)


@contextmanager
def _pseudo_terminal(link: Path | None) -> Iterator[tuple[int, str]]:
    """Our end and the path of the other one, which is kept open so that programs may hang up."""
    host, device = pty.openpty()
    try:
        tty.setraw(device)
        os.set_blocking(host, False)
        path = os.ttyname(device)
        with _linked(link, path):
            yield host, str(link or path)
    finally:
        os.close(host)
        os.close(device)


@contextmanager
def _linked(link: Path | None, target: str) -> Iterator[None]:
    if link is None:
        yield
        return
    if os.path.lexists(link) and not link.is_symlink():
        raise BusError(
            f"{link} exists and is no symbolic link, expected a free name for the twin's port; "
            "choose another name or remove it"
        )
    temporary = link.with_name(f".{link.name}.{os.getpid()}")
    try:
        temporary.symlink_to(target)
        os.replace(temporary, link)
    except OSError as error:
        raise BusError(
            f"{link} cannot be made ({error.strerror}), expected a folder this user may write to; "
            "choose another place for the twin's port"
        ) from error
    try:
        yield
    finally:
        with suppress(OSError):
            if os.readlink(link) == target:  # not another twin's by now
                link.unlink()


@contextmanager
def _stop_signals() -> Iterator[Callable[[], bool]]:
    """Whether SIGTERM or SIGINT has come; the previous handlers are put back afterwards."""
    stop = False

    def request_stop(number: int, _: FrameType | None) -> None:
        nonlocal stop
        stop = True
        _log.info("stopping on %s", signal.Signals(number).name)

    previous = {number: signal.signal(number, request_stop) for number in _STOP_SIGNALS}
    try:
        yield lambda: stop
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
