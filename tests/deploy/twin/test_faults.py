"""Fault scripts: what is refused, when faults begin, and that the same seed is the same trouble."""

import math
from pathlib import Path

import numpy as np
import pytest

from deploy.clock import VirtualClock
from deploy.dynamixel import protocol, registers
from deploy.dynamixel.bus import DynamixelBus
from deploy.errors import BusError, BusTimeout, ConfigError, DeviceLost
from deploy.robot_config import RobotConfig
from deploy.serial_port import SerialPort
from deploy.twin.faults import Fault, Faults, FaultScript, FaultyWire
from deploy.twin.port import VirtualPort
from deploy.twin.robot import Twin
from deploy.twin.server import serve
from tests.deploy.faulty_arm import FaultyArm
from tests.deploy.twin.conftest import RunServer
from tests.until import until


class Echoing:
    """A wire that says what it is told to."""

    next_event_s = math.inf

    def __init__(self, *replies: bytes):
        self._replies = list(replies)

    @property
    def reply_s(self) -> float:
        return 0.0 if self._replies else math.inf

    def send(self, data: bytes, now_s: float, baud_rate: int | None = None) -> None:
        pass

    def take(self, now_s: float) -> bytes:
        return self._replies.pop(0) if self._replies else b""


def suffering(fault: Fault, *replies: bytes) -> FaultyWire:
    wire = FaultyWire(Echoing(*replies), np.random.default_rng(0))  # pyright: ignore
    wire.faults.append(fault)
    return wire


REPLY = bytes(range(40))


def test_dropped_reply_never_comes():
    wire = suffering(Fault(kind="drop", replies=1), REPLY, REPLY)
    assert [wire.take(0.0), wire.take(9.0)] == [REPLY, b""]  # of two, the next one does


def test_corrupt_reply_has_one_bit_flipped():
    taken = suffering(Fault(kind="corrupt"), REPLY).take(0.0)
    assert sum((a ^ b).bit_count() for a, b in zip(taken, REPLY, strict=True)) == 1


def test_truncated_reply_ends_early():
    taken = suffering(Fault(kind="truncate"), REPLY).take(0.0)
    assert len(taken) < len(REPLY)
    assert REPLY.startswith(taken)


def test_delayed_reply_comes_later_and_the_one_behind_it_waits():
    wire = suffering(Fault(kind="delay", delay_ms=5, replies=1), REPLY, b"next")
    assert wire.take(1.0) == wire.take(1.004) == b""
    assert wire.reply_s == pytest.approx(1.005)
    assert wire.take(1.006) == REPLY + b"next"


def test_echo_brings_the_hosts_own_bytes_back():
    wire = suffering(Fault(kind="echo"))
    wire.send(b"ask", 1.0)
    assert wire.take(1.001) == b"ask"


def test_share_is_of_the_replies():
    wire = suffering(Fault(kind="drop", share=0.3), *[REPLY] * 2000)
    assert len(wire.take(0.0)) / len(REPLY) / 2000 == pytest.approx(0.7, abs=0.03)  # 3 sigma


def test_share_is_of_whole_replies_however_often_somebody_looks(
    arm_path: Path, arm_config: RobotConfig
):
    twin, clock = Twin(arm_path, arm_config), VirtualClock()
    Faults(twin, FaultScript(faults=[Fault(kind="drop", share=0.3)]))
    came = 0
    for _ in range(200):
        twin.receive(protocol.ping(1), clock.now())
        for _ in range(150):  # every byte is one by itself: 14 of 10 us
            clock.sleep_until(clock.now() + 2e-5)
            twin.advance(clock.now())
            came += len(twin.take(clock.now()))
    assert came / 200 / 14 == pytest.approx(0.7, abs=0.1)  # 3 sigma


def test_fault_begins_so_long_after_the_servos_first_hold(arm_path: Path, arm_config: RobotConfig):
    twin, clock = Twin(arm_path, arm_config), VirtualClock()
    Faults(twin, FaultScript(faults=[Fault(kind="unplug", at_s=0.5, for_s=0.2)]))
    port = VirtualPort(twin, clock)
    bus = DynamixelBus(port, 1_000_000)

    def at(time_s: float) -> VirtualPort:
        clock.sleep_until(time_s)
        twin.advance(time_s)
        return port

    at(2.0)  # nobody holds anything, so nothing happens
    bus.write_verified(1, registers.TORQUE_ENABLE, 1)
    held_s = clock.now()
    at(held_s + 0.49)
    bus.ping(1)
    at(held_s + 0.52)
    with pytest.raises(DeviceLost):
        bus.ping(1)
    with pytest.raises(DeviceLost):
        port.reopen()
    at(held_s + 0.72).reopen()
    bus.ping(1)


def test_same_script_is_the_same_trouble(tmp_path: Path):
    script = FaultScript(seed=4, faults=[Fault(kind="corrupt", share=0.2)])
    first, second = (FaultyArm("DYNAMIXEL", tmp_path, script) for _ in range(2))
    for arm in (first, second):
        assert arm.run() is None
    assert first.robot.statistics.crc_errors > 0
    assert first.recorder.ticks.tobytes() == second.recorder.ticks.tobytes()


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        (Fault(kind="stuck", part="elbo"), "'elbo', which the robot does not have (did you mean"),
        (Fault(kind="drop", device="arm"), "a fault is of device 'arm'"),
        (Fault(kind="duplicate"), "a `duplicate` is of part None, expected a joint"),
    ],
)
def test_fault_of_what_is_not_there_is_refused(
    arm_path: Path, arm_config: RobotConfig, fault: Fault, message: str
):
    with pytest.raises(ConfigError) as caught:
        Faults(Twin(arm_path, arm_config), FaultScript(faults=[fault]))
    assert message in str(caught.value)


def test_port_that_is_to_come_back_needs_a_name_that_stays(arm_path: Path, arm_config: RobotConfig):
    script = FaultScript(faults=[Fault(kind="unplug", at_s=1.0, for_s=1.0)])
    with pytest.raises(ConfigError, match="add `--link /tmp/robot`"):
        serve(arm_path, arm_config, faults=script, ready=lambda path: None)


def test_unplugged_port_of_a_server_goes_and_comes_back(running_server: RunServer, tmp_path: Path):
    link = tmp_path / "port"
    script = FaultScript(faults=[Fault(kind="unplug", at_s=2.0, for_s=0.5)])
    with running_server(link=link, faults=script) as path:
        port = SerialPort(path, 1_000_000)
        bus = DynamixelBus(port, 1_000_000)
        with pytest.raises(DeviceLost, match="is gone"):
            until(lambda: bus.write(1, registers.TORQUE_ENABLE, 1), BusTimeout)
        until(lambda: port.reopen() or port.fd >= 0, BusError)
        # its power was on all the time
        until(lambda: bus.read(1, registers.TORQUE_ENABLE) == 1, BusError)
        port.close()
