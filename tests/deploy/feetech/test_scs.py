"""SCS servos: their table and bytes beside Feetech's SDK, and what the driver does with them."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import scservo_sdk as sdk
from hypothesis import given
from hypothesis import strategies as st

from deploy.errors import ConfigError
from deploy.feetech import protocol
from deploy.feetech import scs_registers as registers
from deploy.feetech.protocol import Status
from deploy.feetech.servos import MODELS
from deploy.feetech.sync import ReadInTurn, SyncWrite
from deploy.servos.bus import ServoBus
from deploy.servos.scan import scan
from tests.deploy.conftest import Bench, MakeBench
from tests.deploy.dynamixel.conftest import ScriptedPort
from tests.deploy.feetech.test_protocol import SdkPort
from tests.deploy.test_runtime import make_trial

IDS = (1, 2, 3)
ADDRESS, LENGTH = registers.PRESENT_POSITION.address, 4


def test_addresses_are_those_of_feetechs_sdk():
    theirs = {
        name.removeprefix("SCSCL_").removesuffix("_L"): address
        for name, address in vars(sdk).items()
        if name.startswith("SCSCL_") and not name.endswith("_H")
    }
    ours = {
        "MODEL": registers.MODEL_NUMBER,
        "BAUD_RATE": registers.BAUD_RATE,
        "MIN_ANGLE_LIMIT": registers.MIN_POSITION_LIMIT,
        "MAX_ANGLE_LIMIT": registers.MAX_POSITION_LIMIT,
        "CW_DEAD": registers.CW_DEAD_ZONE,
        "CCW_DEAD": registers.CCW_DEAD_ZONE,
        "TORQUE_ENABLE": registers.TORQUE_ENABLE,
        "GOAL_POSITION": registers.GOAL_POSITION,
        "GOAL_TIME": registers.GOAL_TIME,
        "GOAL_SPEED": registers.GOAL_SPEED,
        "LOCK": registers.LOCK,
        "PRESENT_POSITION": registers.PRESENT_POSITION,
        "PRESENT_SPEED": registers.PRESENT_SPEED,
        "PRESENT_LOAD": registers.PRESENT_LOAD,
        "PRESENT_VOLTAGE": registers.PRESENT_VOLTAGE,
        "PRESENT_TEMPERATURE": registers.PRESENT_TEMPERATURE,
        "MOVING": registers.MOVING,
    }
    assert {name: register.address for name, register in ours.items()} == {
        name: theirs[name] for name in ours
    }
    rates = {"1M", "0_5M", "250K", "128K", "115200", "76800", "57600", "38400"}
    assert theirs.keys() - ours.keys() - rates == {"PRESENT_CURRENT"}  # in no memory table


def test_no_two_registers_share_a_byte():
    taken = [
        address
        for register in registers.CONTROL_TABLE
        for address in range(register.address, register.address + register.size)
    ]
    assert sorted(taken) == sorted(set(taken))


def sent_by_sdk(action: Callable[[Any], object]) -> bytes:
    port = SdkPort()
    action(sdk.scscl(port))
    return port.sent


@given(goal=st.integers(0, 1023), speed=st.integers(0, 1000))
def test_goal_and_speed_are_sent_as_the_sdk_sends_them(goal: int, speed: int):
    data = (
        registers.GOAL_POSITION.encode(goal)
        + registers.GOAL_TIME.encode(0)
        + registers.GOAL_SPEED.encode(speed)
    )
    assert protocol.write(7, registers.GOAL_POSITION.address, data) == sent_by_sdk(
        lambda handler: handler.WritePos(7, goal, 0, speed)
    )


@pytest.mark.parametrize(
    ("register", "value", "theirs"),
    [
        (registers.LOCK, 0, lambda h: h.unLockEprom(4)),
        (registers.LOCK, 1, lambda h: h.LockEprom(4)),
        (registers.GOAL_TIME, -300, lambda h: h.WritePWM(4, -300)),
    ],
    ids=["unlock", "lock", "duty of a motor"],
)
def test_what_is_written_is_what_the_sdk_writes(
    register: registers.Register, value: int, theirs: Callable[[Any], object]
):
    assert protocol.write(4, register.address, register.encode(value)) == sent_by_sdk(theirs)


def test_goals_of_all_are_sent_as_the_sdk_sends_two_bytes_of_each():
    def theirs(handler: Any) -> None:
        group = sdk.GroupSyncWrite(handler, registers.GOAL_POSITION.address, 2)
        for id, goal in zip(IDS, (512, 0, 1023), strict=True):
            group.addParam(id, [handler.scs_lobyte(goal), handler.scs_hibyte(goal)])
        group.txPacket()

    port = ScriptedPort()
    writing = SyncWrite(ServoBus(port, 1_000_000, protocol), IDS, registers.GOAL_POSITION)
    writing.write(np.array([512, 0, 1023], np.uint16))
    assert port.sent == [sent_by_sdk(theirs)]


@given(position=st.integers(0, 1023), speed=st.integers(-1000, 1000))
def test_answer_means_to_the_sdk_what_it_means_to_us(position: int, speed: int):
    data = registers.PRESENT_POSITION.encode(position) + registers.PRESENT_SPEED.encode(speed)
    # their ReadPosSpeed takes the first word for the high one
    assert sdk.scscl(SdkPort(Status(3, data[:2]).encode())).ReadPos(3) == (position, 0, 0)
    assert sdk.scscl(SdkPort(Status(3, data[2:]).encode())).ReadSpeed(3) == (speed, 0, 0)


def test_byte_order_of_the_model_number_is_what_the_servo_says():
    assert protocol.identity(bytes([3, 10, 1, 5, 4])) == (MODELS["SCS0009"].model_number, 310)
    assert protocol.identity(bytes([3, 10, 0, 9, 3])) == (777, 310)


# Each servo in turn


class Servos(ScriptedPort):
    """Each answers what it is asked for, 100 times its id in the first word, unless it is mute."""

    def __init__(self) -> None:
        super().__init__()
        self.mute: set[int] = set()
        self.late = b""
        """Comes before the next answer."""

    def write(self, data: bytes | bytearray | memoryview) -> None:
        id, length = data[2], data[6]
        numbers = registers.PRESENT_POSITION.encode(100 * id) + bytes(2)
        answer = Status(id, bytes(length - LENGTH) + numbers).encode()
        self.answers = [b"" if id in self.mute else self.late + answer]
        self.late = b""
        super().write(data)

    @property
    def asked(self) -> list[int]:
        """Whom, in which order."""
        return [request[2] for request in self.sent]


class Rig:
    """Positions of IDS, each asked in turn."""

    def __init__(self) -> None:
        self.port = Servos()
        self.bus = ServoBus(self.port, 1_000_000, protocol, return_delay_s=0)
        self.reading = ReadInTurn(self.bus, IDS, ADDRESS, LENGTH)

    def read(self, seconds: float = 0.03) -> int:
        self.port.sent.clear()
        return self.reading.read(self.port.now() + seconds)

    @property
    def positions(self) -> list[int]:
        return self.reading.data.copy().view(">u2")[:, 0].tolist()


def test_every_servo_is_asked_with_a_plain_read():
    rig = Rig()
    assert rig.read() == 3
    assert rig.positions == [100, 200, 300]
    assert rig.port.sent == [protocol.read(id, ADDRESS, LENGTH) for id in IDS]
    assert rig.reading.turns == 3


def test_silent_servo_leaves_the_others_their_time_and_comes_last_from_then_on():
    rig = Rig()
    rig.port.mute = {1}
    began_s = rig.port.now()
    assert rig.read() == 2
    assert rig.reading.fresh.tolist() == [False, True, True]
    assert rig.port.asked[-2:] == [2, 3]
    assert rig.port.asked.count(1) > 1  # asked again, as long as the time is there
    assert rig.port.now() - began_s <= 0.03
    assert rig.read() == 2
    assert rig.port.asked[:3] == [2, 3, 1]
    rig.port.mute = set()
    assert rig.read() == 3
    assert rig.positions == [100, 200, 300]


def test_too_little_time_for_all_goes_to_those_not_read_the_last_time():
    rig = Rig()
    two_s = 2 * (rig.reading.wire_s / 3 + rig.bus.latency_s)
    assert rig.read(two_s) == 2
    assert rig.port.asked == [2, 3]
    assert rig.read(two_s) == 2
    assert rig.port.asked == [3, 1]


def test_reply_that_comes_late_is_not_taken_for_the_next_reading():
    rig = Rig()
    rig.port.mute = {1}
    rig.read()
    rig.port.mute = set()
    rig.reading.data[0] = 0
    late = Status(1, registers.PRESENT_POSITION.encode(999) + bytes(2)).encode()
    rig.port.late = late  # of 1, while 2 is asked
    assert rig.read() == 3
    assert rig.positions == [100, 200, 300]


# The driver on the twin


@pytest.fixture
def bench(make_bench: MakeBench, scs_arm: Any, scs_contract: Any, scs_arm_path: Any) -> Bench:
    return make_bench(scs_arm, contract=scs_contract, model_path=scs_arm_path)


def test_servo_is_set_up_for_position_control_within_the_limits(bench: Bench):
    bench.robot.connect()
    # a count is 215°/1024, so -0.175 rad are 48 of them and 1.745 rad 476
    expected = {
        registers.MIN_POSITION_LIMIT: 512 - 48,
        registers.MAX_POSITION_LIMIT: 512 + 476,
        registers.LOCK: 1,
        registers.MAX_TORQUE: 225,  # 0.9 of its overload_share
        registers.P_GAIN: 15,  # the contract has the factory's
        registers.GOAL_TIME: 0,
        registers.GOAL_SPEED: 1000,
        registers.TORQUE_ENABLE: 0,
    }
    assert {register: bench.get("gripper", register) for register in expected} == expected
    assert bench.get("wrist_flex", registers.MAX_TORQUE) == 1000


def test_gain_is_forgotten_at_power_off_and_limits_are_kept(bench: Bench):
    bench.set("gripper", registers.P_GAIN, 40)
    bench.robot.connect()
    bench.servo("gripper").reboot()
    assert bench.get("gripper", registers.MAX_POSITION_LIMIT) == 512 + 476


def test_scan_tells_what_it_is(bench: Bench):
    found = scan(bench.servos, [2])[0]
    assert str(found) == (
        "id 2 (shoulder_lift): SCS15, firmware 310, 7.4 V, 25 °C, at count "
        f"{found.ticks}, torque off"
    )


def test_start_says_what_it_lacks(bench: Bench):
    bench.robot.connect()
    text = bench.robot.describe()
    assert "what their P Coefficient does is not published" in text
    assert "its servos have NO watchdog of their own" in text
    assert "for the adapter in 6 turns" in text


def test_adapter_too_slow_for_six_turns_is_refused(
    make_bench: MakeBench, scs_arm: Any, scs_contract: Any, scs_arm_path: Any
):
    slow = make_bench(scs_arm, contract=scs_contract, model_path=scs_arm_path, usb_latency_s=0.004)
    # 6 · (8 + 17) bytes of 10 µs are 1.5 ms; 6 · (4 + 0.5) ms
    with pytest.raises(
        ConfigError, match=r"reading all joints takes 28\.5 ms: 1\.5 ms on the wire"
    ):
        make_trial(slow).run()
    assert not any(slow.torque_on.values())


def test_angles_and_speeds_are_those_of_a_count_of_215_degrees(bench: Bench):
    bench.push("gripper", 0.5)
    bench.robot.connect()
    bench.robot.read(bench.clock.now() + 0.02)
    assert bench.robot.position[5] == pytest.approx(0.5, abs=math.radians(215) / 1024)


def test_current_is_measured_by_none_of_them(bench: Bench):
    bench.robot.connect()
    bench.robot.read(bench.clock.now() + 0.02)
    assert np.isnan(bench.servos.current).all()


def test_damping_that_nobody_can_set_is_refused(bench: Bench):
    joint = bench.servos._specs[0]
    bench.servos._specs[0] = joint.model_copy(update={"kd_nm_s_per_rad": 0.5})
    with pytest.raises(ConfigError, match="nobody has published what its D Coefficient"):
        bench.robot.connect()
