"""The real port, on pseudo-terminals: opening, reading until a deadline, losing it."""

import os
import select
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import serial

from deploy.errors import BusError, BusTimeout, DeviceLost
from deploy.serial_port import SerialPort, adapter_of, latency_advice, list_ports, port_users
from tests.until import PATIENCE_S, until


class Cable:
    """A pseudo-terminal: `far_end` is a file descriptor, `path` what a port opens."""

    def __init__(self):
        self.far_end, near_end = os.openpty()
        self.path = os.ttyname(near_end)
        os.close(near_end)

    def unplug(self) -> None:
        os.close(self.far_end)
        self.far_end = -1


@pytest.fixture
def cable() -> Iterator[Cable]:
    cable = Cable()
    yield cable
    if cable.far_end >= 0:
        cable.unplug()


@pytest.fixture
def port(cable: Cable) -> Iterator[SerialPort]:
    port = SerialPort(cable.path, 1_000_000)
    yield port
    port.close()


def _read(port: SerialPort, buffer: bytearray, within_s: float = PATIENCE_S) -> int:
    return port.read_into(memoryview(buffer), port.now() + within_s)


def test_bytes_pass_unchanged_both_ways(port: SerialPort, cable: Cable):
    every_byte = bytes(range(256))
    port.write(every_byte)
    assert os.read(cable.far_end, 300) == every_byte

    os.write(cable.far_end, every_byte)
    received, buffer = b"", bytearray(100)
    while len(received) < 256:
        received += buffer[: _read(port, buffer)]
    assert received == every_byte


def test_silence_ends_at_the_deadline(port: SerialPort):
    start_s = time.monotonic()
    assert _read(port, bytearray(10), within_s=0.02) == 0
    assert 0.02 <= time.monotonic() - start_s < PATIENCE_S


def test_deadline_in_the_past_still_fetches_what_is_there(port: SerialPort, cable: Cable):
    os.write(cable.far_end, b"abc")
    buffer = bytearray(10)
    assert _read(port, buffer) == 3
    os.write(cable.far_end, b"def")
    until(lambda: select.select((port.fd,), (), (), 0.0)[0])
    assert _read(port, buffer, within_s=-1.0) == 3
    assert _read(port, buffer, within_s=-1.0) == 0


def test_missing_port_is_explained_with_those_that_exist(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("deploy.serial_port.list_ports", lambda: ["/dev/serial/by-id/usb-U2D2"])
    with pytest.raises(BusError) as error:
        SerialPort("/dev/ttyUSB99", 1_000_000)
    assert str(error.value) == (
        "/dev/ttyUSB99 does not exist; serial ports found: /dev/serial/by-id/usb-U2D2. Plug the "
        "adapter in, correct `port` in the robot file, or start a simulated robot with "
        "`robotrl twin`"
    )


def test_port_has_one_owner_until_it_is_closed(port: SerialPort, cable: Cable):
    with pytest.raises(BusError, match="in use by another program, expected to be its only user"):
        SerialPort(cable.path, 1_000_000)
    port.close()
    SerialPort(cable.path, 1_000_000).close()


def test_owner_is_named(port: SerialPort, cable: Cable, monkeypatch: pytest.MonkeyPatch):
    assert os.getpid() in [pid for pid, _ in port_users(cable.path)]
    monkeypatch.setattr("deploy.serial_port.port_users", lambda path: [(4242, "wizard")])
    with pytest.raises(BusError, match=r"in use by wizard \(pid 4242\)"):
        SerialPort(cable.path, 1_000_000)


def test_lacking_permission_is_explained(monkeypatch: pytest.MonkeyPatch):
    def refuse(*args, **kwargs):
        raise serial.SerialException(13, "could not open port")

    monkeypatch.setattr("serial.Serial", refuse)
    with pytest.raises(BusError, match=r"sudo usermod -aG dialout \$USER"):
        SerialPort("/dev/ttyUSB0", 1_000_000)


def test_file_that_is_no_serial_port_is_refused(tmp_path):
    path = tmp_path / "notes.txt"
    path.write_text("not a port")
    with pytest.raises(
        BusError, match=r"cannot be opened at 1000000 baud .*, expected a serial port"
    ):
        SerialPort(str(path), 1_000_000)


@pytest.mark.parametrize(
    "use",
    [
        lambda port: _read(port, bytearray(10)),
        lambda port: port.write(b"hello"),
    ],
    ids=["read", "write"],
)
def test_unplugging_is_noticed_at_once(port: SerialPort, cable: Cable, use):
    cable.unplug()
    start_s = time.monotonic()
    with pytest.raises(BusError, match=f"{cable.path} is gone.*the adapter was unplugged"):
        use(port)
    assert time.monotonic() - start_s < PATIENCE_S / 2  # not at the deadline


def test_port_that_is_gone_says_so_in_the_same_words_again(port: SerialPort, cable: Cable):
    cable.unplug()
    with pytest.raises(BusError):
        _read(port, bytearray(1))
    with pytest.raises(BusError, match=f"^{cable.path} is gone, expected it to stay open"):
        _read(port, bytearray(1))


def test_closed_port_writes_to_nobody(port: SerialPort):
    port.close()
    with pytest.raises(BusError, match="is gone"):
        port.write(b"hello")


def test_port_that_takes_no_bytes_is_not_waited_for(port: SerialPort):
    with pytest.raises(BusTimeout, match="took no byte"):
        port.write(bytes(1 << 20))


def test_listed_ports_exist():
    assert all(os.path.exists(path) for path in list_ports())


def test_port_without_a_latency_timer_gets_other_advice(cable: Cable):
    assert latency_advice(cable.path) == (
        f"{cable.path} has no latency timer that could be set (an FTDI adapter has one); plug the "
        "adapter in without a hub, or use another one"
    )


# Coming back


def link_to(cable: Cable, link: Path) -> None:
    link.unlink(missing_ok=True)
    link.symlink_to(cable.path)


def test_port_that_is_gone_can_be_opened_again_at_its_path(cable: Cable, tmp_path: Path):
    link = tmp_path / "adapter"
    link_to(cable, link)
    port = SerialPort(str(link), 1_000_000)
    cable.unplug()
    link.unlink()
    with pytest.raises(DeviceLost):
        _read(port, bytearray(10))
    with pytest.raises(BusError, match="does not exist"):
        port.reopen()
    again = Cable()
    link_to(again, link)
    port.reopen()
    os.write(again.far_end, b"abc")
    assert _read(port, bytearray(10)) == 3
    port.close()
    again.unplug()


def test_port_that_is_not_gone_stays_as_it_is(port: SerialPort, cable: Cable):
    os.write(cable.far_end, b"abc")
    port.reopen()
    assert _read(port, bytearray(10)) == 3


def plug_in(folder: Path, socket: str, port: str, serial_number: str) -> None:
    """What Linux shows of an FTDI adapter."""
    adapter = folder / "devices" / socket
    interface = adapter / f"{socket}:1.0" / port
    interface.mkdir(parents=True)
    for name, text in (("idVendor", "0403"), ("idProduct", "6014"), ("serial", serial_number)):
        (adapter / name).write_text(text + "\n")
    terminal = folder / "tty" / port
    terminal.mkdir(parents=True)
    (terminal / "device").symlink_to(interface)


def test_adapter_that_came_back_under_another_name_is_found_by_its_serial_number(
    cable: Cable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("deploy.serial_port.TERMINALS", tmp_path / "tty")
    opened: list[str] = []
    plug_in(tmp_path, "1-1", "ttyUSB0", "FT4THV1J")
    monkeypatch.setattr(SerialPort, "_open", lambda self, path: opened.append(path))
    port = SerialPort("/dev/ttyUSB0", 1_000_000)
    port._fd = -1  # it is gone
    shutil.rmtree(tmp_path / "tty")
    shutil.rmtree(tmp_path / "devices")
    plug_in(tmp_path, "1-2", "ttyUSB0", "OTHER")  # somebody else took its name
    with pytest.raises(DeviceLost, match="expected the one with serial number FT4THV1J"):
        port.reopen()
    plug_in(tmp_path, "1-1", "ttyUSB1", "FT4THV1J")
    port.reopen()
    assert opened == ["/dev/ttyUSB0", "/dev/ttyUSB1"]


def test_port_without_a_serial_number_has_no_adapter(cable: Cable):
    assert adapter_of(cable.path) is None
