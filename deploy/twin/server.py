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
import socket
import termios
import time
import tty
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from types import FrameType

from deploy.commands.udp import Address
from deploy.errors import BusError, ConfigError
from deploy.process import handling
from deploy.robot_config import RobotConfig
from deploy.twin.camera import Camera
from deploy.twin.faults import Faults, FaultScript
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
_log = logging.getLogger(__name__)


def serve(
    model_path: Path,
    robot_config: RobotConfig,
    parameters: TwinParameters | None = None,
    *,
    link: Path | None = None,
    truth_path: Path | None = None,
    faults: FaultScript | None = None,
    thing: Path | None = None,
    camera: Address | None = None,
    ready: Callable[[str], None],
) -> None:
    """Run a robot until SIGTERM or SIGINT; call it in the main thread.

    Args:
        model_path: the robot's MJCF.
        robot_config: its wiring.
        parameters: how it differs from the nominal model.
        link: symbolic link to make to the pseudo-terminal, gone again afterwards; of a robot with
            several devices, `.NAME` is added for each.
        faults: what goes wrong, and when; a port that is unplugged goes, and comes back at `link`.
        thing: MJCF of what lies before it, see `deploy.twin.thing`.
        camera: who is told where that is.
        truth_path: file for what the robot really did, see `deploy.twin.truth`; None for none.
        ready: called with the path to open once the robot answers; with several devices, with
            `NAME=PATH,NAME=PATH`.

    Raises:
        ConfigError: the wiring, a thing or a fault does not fit the model, `truth_path` is in no
            folder, the camera cannot send, or there is no `link` for a port that is unplugged to
            come back at.
        BusError: `link` is taken by something else, or cannot be made.
    """
    if truth_path and not truth_path.parent.is_dir():
        raise ConfigError(
            f"{truth_path.parent} is no folder, expected one for {truth_path.name}; make it first"
        )
    if faults and not link and any(fault.kind == "unplug" for fault in faults.faults):
        raise ConfigError(
            "a port that is unplugged comes back under another name, expected a link that stays "
            "the same; add `--link /tmp/robot`, and use that as the port"
        )
    twin = Twin(model_path, robot_config, parameters, start_s=time.monotonic(), thing=thing)
    Faults(twin, faults)
    truth = TruthRecorder(twin) if truth_path else None
    with (
        _Sockets(twin.devices, link) as sockets,
        _stop_signals() as stopped,
        _watching(twin, camera) as watch,
    ):
        several = len(twin.devices) > 1
        paths = (f"{name}={path}" if several else path for name, path in sockets.paths.items())
        ready(",".join(paths))
        _run(twin, sockets, stopped, truth, watch)
        if truth and truth_path:
            truth.save(truth_path)


class _Sockets:
    """Where the devices' cables are plugged in."""

    def __init__(self, devices: Sequence[str], link: Path | None):
        several = len(devices) > 1
        self._links = {
            name: link.with_name(f"{link.name}.{name}") if link and several else link
            for name in devices
        }
        self._cables: dict[str, ExitStack] = {}
        self.hosts: dict[int, str] = {}
        """Our ends of those that are plugged in, and whose they are."""
        self.paths: dict[str, str] = {}
        """What programs open, by device."""

    def __enter__(self) -> "_Sockets":
        self.plug(set())
        return self

    def __exit__(self, *_: object) -> None:
        self.plug(set(self._links))

    def plug(self, unplugged: set[str]) -> None:
        """Plug all others in."""
        for name, link in self._links.items():
            if name in unplugged and name in self._cables:
                self.hosts = {host: owner for host, owner in self.hosts.items() if owner != name}
                self._cables.pop(name).close()
            elif name not in unplugged and name not in self._cables:
                cable = self._cables[name] = ExitStack()
                host, self.paths[name] = cable.enter_context(_pseudo_terminal(link))
                self.hosts[host] = name


@contextmanager
def _watching(twin: Twin, camera: Address | None) -> Iterator[Callable[[float], None]]:
    """What is to be called with the time, now and then, for a camera to see and to tell."""
    if camera is None:
        yield lambda now_s: None
        return
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as out:
        try:
            out.connect((camera.host, camera.port))
        except OSError as error:
            raise ConfigError(
                f"--camera {camera.host}:{camera.port} cannot be sent to ({error.strerror}); "
                "expected where `robotrl run --listen` listens, e.g. 127.0.0.1:5555"
            ) from error
        out.setblocking(False)

        def send(message: bytes) -> None:
            with suppress(OSError):  # nobody is there, or cannot keep up: lost, as on a network
                out.send(message)

        yield Camera(twin, send).advance


def _run(
    twin: Twin,
    sockets: _Sockets,
    stopped: Callable[[], bool],
    truth: TruthRecorder | None,
    watch: Callable[[float], None],
) -> None:
    """Serve until `stopped`."""
    advance = truth.advance if truth else twin.advance  # the former samples on the way
    while not stopped():
        now_s = time.monotonic()
        advance(now_s)
        watch(now_s)
        sockets.plug(twin.unplugged)
        hosts = sockets.hosts
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

    with handling(request_stop, signal.SIGTERM, signal.SIGINT):
        yield lambda: stop
