"""Serial ports: what a bus needs of one (`Port`), and the real one (`SerialPort`).

    port = SerialPort("/dev/serial/by-id/usb-FTDI_...", 1_000_000)
    port.write(request)
    received = port.read_into(buffer, port.now() + 0.004)
    port.reopen()                        # once it is gone: the same path, or the same adapter

One process owns a port: it is opened with an advisory lock on the device itself (flock), which
disappears with its owner, however that ends. Deadlines are times on `port.now()`, so a port in
virtual time brings its own clock. Nothing else in the package knows pyserial; it configures the
port, the bytes then go straight to the file descriptor. POSIX only.
"""

import contextlib
import errno
import os
import select
import termios
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol, Self

import serial

from deploy.errors import BusError, BusTimeout, DeviceLost

USB_SERIAL = Path("/sys/bus/usb-serial/devices")
"""Where Linux shows the settings of USB adapters; an FTDI one has a `latency_timer` [ms]."""
UDEV_RULE = 'ACTION=="add", SUBSYSTEM=="usb-serial", DRIVER=="ftdi_sio", ATTR{latency_timer}="1"'
TERMINALS = Path("/sys/class/tty")
"""Where Linux shows which adapter is behind a serial port."""
WRITE_TIMEOUT_S = 0.1
"""A request is a few hundred bytes; a port that does not take them in this time is stuck."""


class Port(Protocol):
    """A half-duplex byte stream with a clock."""

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Send all of `data`."""
        ...

    def read_into(self, buffer: memoryview, deadline_s: float) -> int:
        """Wait for bytes until `deadline_s`; returns how many came, 0 at the deadline."""
        ...

    def close(self) -> None:
        """Give the port back."""
        ...

    def reopen(self) -> None:
        """Open a port that is gone again; one that is not stays as it is.

        Raises:
            BusError: it is not back.
        """
        ...

    def now(self) -> float:
        """The clock of the deadlines [s]."""
        ...


class SerialPort:
    """A serial port of this machine, or the pseudo-terminal of a twin."""

    _serial: serial.Serial | None
    """None for one that is another process's."""

    def __init__(self, path: str, baud_rate: int):
        """Open and lock the port.

        Raises:
            BusError: it does not exist, is in use, or may not be opened by this user.
        """
        self.path, self._baud_rate = path, baud_rate
        self._open(path)
        self._adapter = adapter_of(path)

    def _open(self, path: str) -> None:
        try:
            opened = self._serial = serial.Serial(path, self._baud_rate, timeout=0, exclusive=True)
        except (OSError, ValueError, termios.error) as error:  # SerialException is an OSError
            raise _explain(path, self._baud_rate, error) from None
        self._fd = opened.fileno()
        # FTDI adapters otherwise hold bytes back for up to 16 ms; a pty, CDC-ACM or CP210x has no
        # such setting, and needs none.
        with contextlib.suppress(ValueError):
            opened.set_low_latency_mode(True)

    @classmethod
    def inherited(cls, path: str, fd: int) -> Self:
        """A port that another process has opened, set up, and handed over; `close` leaves it."""
        port = cls.__new__(cls)
        port.path, port._fd, port._serial = path, fd, None
        return port

    @property
    def fd(self) -> int:
        """Its file descriptor; -1 once it is closed."""
        return self._fd

    def reopen(self) -> None:
        """Open a port that is gone again: at its path, else wherever its adapter is by now.

        Raises:
            BusError: it is not back, or may not be opened.
        """
        if self._fd < 0:
            self._open(whereabouts(self.path, self._adapter))

    def now(self) -> float:
        """Monotonic clock [s]."""
        return time.monotonic()

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Send all of `data`.

        Raises:
            DeviceLost: the port is gone.
            BusTimeout: it is stuck.
        """
        view = memoryview(data)
        while view:
            try:
                view = view[os.write(self._fd, view) :]
            except BlockingIOError:
                if not select.select((), (self._fd,), (), WRITE_TIMEOUT_S)[1]:
                    raise BusTimeout(
                        f"{self.path} took no byte for {WRITE_TIMEOUT_S} s, expected it to send at "
                        "once; unplug the adapter and plug it in again"
                    ) from None
            except OSError as error:
                raise self._unplugged(error) from error

    def read_into(self, buffer: memoryview, deadline_s: float) -> int:
        """Wait for bytes until `deadline_s`; returns how many came, 0 at the deadline.

        Raises:
            DeviceLost: the port is gone.
        """
        wait_s = max(0.0, deadline_s - time.monotonic())
        try:
            if not select.select((self._fd,), (), (), wait_s)[0]:
                return 0
            received = os.readv(self._fd, (buffer,))
        except (OSError, ValueError) as error:  # the latter once it is closed
            raise self._unplugged(error) from error
        if not received:  # readable, yet nothing to read: the other end hung up
            raise self._unplugged(None)
        return received

    def close(self) -> None:
        """Close and unlock the port; once is enough, more do no harm."""
        if self._serial:
            self._serial.close()
        self._fd = -1  # the number may soon be another file's

    def _unplugged(self, error: Exception | None) -> DeviceLost:
        reason = f" ({error.args[-1]})" if error and self._fd >= 0 else ""
        self.close()  # held open, it would keep the adapter from coming back under its name
        return DeviceLost(
            f"{self.path} is gone{reason}, expected it to stay open: the adapter was unplugged, "
            "the twin behind it ended, or another program reads from it too; set that right, then "
            "start again"
        )


Adapter = tuple[str, str, str, str]
"""USB vendor, product and serial number, and which of its interfaces."""


def adapter_of(path: str) -> Adapter | None:
    """The USB adapter behind a port; None for a port that is none, or has no serial number."""
    interface = (TERMINALS / Path(path).resolve().name / "device").resolve()
    for folder in (interface, *interface.parents):
        if (folder / "idVendor").is_file():
            names = ("idVendor", "idProduct", "serial")
            try:
                vendor, product, number = ((folder / name).read_text().strip() for name in names)
            except OSError:
                return None
            return vendor, product, number, interface.relative_to(folder).parts[0].split(":")[-1]
    return None


def whereabouts(path: str, adapter: Adapter | None) -> str:
    """The path of a port that was at `path`, behind `adapter`: another one may be there by now.

    Raises:
        DeviceLost: its adapter is not plugged in.
    """
    if not adapter or adapter_of(path) == adapter:
        return path
    if found := next(ports_of(adapter), ""):
        return found
    raise DeviceLost(
        f"the adapter of {path} is not back, expected the one with serial number {adapter[2]}; "
        "plug it in again"
    )


def ports_of(adapter: Adapter) -> Iterator[str]:
    """Where an adapter is by now."""
    for port in TERMINALS.iterdir():
        if adapter_of(f"/dev/{port.name}") == adapter:
            yield f"/dev/{port.name}"


def latency_advice(path: str) -> str:
    """How to make the adapter behind a port hand over replies sooner."""
    timer = USB_SERIAL / Path(path).resolve().name / "latency_timer"
    try:
        found_ms = timer.read_text().strip()
    except OSError:
        return (
            f"{path} has no latency timer that could be set (an FTDI adapter has one); plug the "
            "adapter in without a hub, or use another one"
        )
    return (
        f"the adapter's latency timer is {found_ms} ms; set it to 1: `echo 1 | sudo tee {timer}`, "
        f"and for good with this line in /etc/udev/rules.d/99-latency.rules: {UDEV_RULE}"
    )


def list_ports() -> list[str]:
    """Serial ports of this machine, those with a stable name first."""
    by_id = sorted(Path("/dev/serial/by-id").glob("*"))
    named = {port.resolve() for port in by_id}
    plain = (
        port
        for pattern in ("ttyUSB*", "ttyACM*", "ttyAMA*", "ttyTHS*")
        for port in sorted(Path("/dev").glob(pattern))
    )
    return [str(port) for port in (*by_id, *(port for port in plain if port not in named))]


def port_users(path: str) -> Iterator[tuple[int, str]]:
    """Process id and name of those who have the port open, as far as this user may see."""
    device = os.path.realpath(path)
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):  # it ended meanwhile, or is another user's
            if any(os.path.realpath(fd) == device for fd in (process / "fd").iterdir()):
                yield int(process.name), (process / "comm").read_text().strip()


def _explain(path: str, baud_rate: int, error: Exception) -> BusError:
    reason = error.errno if isinstance(error, OSError) else None
    if reason == errno.ENOENT:
        found = ", ".join(list_ports()) or "none"
        return BusError(
            f"{path} does not exist; serial ports found: {found}. Plug the adapter in, correct "
            "`port` in the robot file, or start a simulated robot with `robotrl twin`"
        )
    if reason in (errno.EWOULDBLOCK, errno.EBUSY):
        users = [f"{name} (pid {pid})" for pid, name in port_users(path) if pid != os.getpid()]
        return BusError(
            f"{path} is in use by {' and '.join(users) or 'another program'}, expected to be its "
            "only user; end that program first"
        )
    if reason in (errno.EACCES, errno.EPERM):
        return BusError(
            f"{path} may not be opened by this user, expected read and write access; run "
            "`sudo usermod -aG dialout $USER`, log out and in again"
        )
    return BusError(
        f"{path} cannot be opened at {baud_rate} baud ({error}), expected a serial port; check "
        "`port` and `baud_rate` in the robot file"
    )
