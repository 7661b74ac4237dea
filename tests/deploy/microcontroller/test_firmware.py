"""The firmware, compiled on this computer and given its time: Python's frames in, its answers out.

Each claim is asked of the compiled board and of the simulated one (`deploy.twin.board`), and
whatever hypothesis thinks of is answered by both with the same bytes.
"""

from __future__ import annotations

import ctypes
import struct

import numpy as np
import pytest
from cobs import cobs
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from deploy.microcontroller.frames import FrameParser, MessageType, cobs_encode, encode_frame
from deploy.microcontroller.messages import (
    After,
    Mode,
    Parts,
    Reason,
    Refusal,
    State,
    Status,
    Welcome,
    decode_state,
    decode_welcome,
    encode_command,
)
from deploy.twin.board import Board
from tests.deploy.microcontroller.conftest import CompiledBoard

DEADMAN_MS = 100
AnyBoard = Board | CompiledBoard


@pytest.fixture(params=["compiled", "simulated"])
def board(request: pytest.FixtureRequest) -> AnyBoard:
    return request.getfixturevalue("compiled_board") if request.param == "compiled" else simulated()


def simulated() -> Board:
    return Board(
        2, {Mode.POSITION, Mode.VELOCITY}, imu=True, supply=True, firmware=7, uid=b"balancer"
    )


class Host:
    """Numbers the frames, and understands the answers."""

    def __init__(self, board: AnyBoard):
        self.board, self.sequence = board, 100

    def frame(self, type: MessageType, payload: bytes = b"", now_us: int = 0) -> bytes:
        self.sequence += 1
        return encode_frame(type, self.sequence, now_us, payload)

    def say(self, type: MessageType, payload: bytes = b"", now_us: int = 0) -> State | None:
        return understand(self.board.receive(self.frame(type, payload, now_us), now_us))

    def drive(
        self, *targets: float, now_us: int = 0, mode: Mode = Mode.VELOCITY,
        after: After = After.LET_GO, deadman_ms: int = DEADMAN_MS,
    ) -> State:  # fmt: skip
        payload = encode_command(mode, after, deadman_ms, np.array(targets))
        state = self.say(MessageType.COMMAND, payload, now_us)
        assert state is not None
        return state

    def poll(self, now_us: int = 0) -> State:
        state = self.say(MessageType.POLL, now_us=now_us)
        assert state is not None
        return state


def understand(reply: bytes) -> State | None:
    state = None
    for frame in FrameParser().feed(reply):
        if frame.type == MessageType.STATE:
            state = State()
            assert decode_state(frame.payload, state)
    return state


@pytest.fixture
def host(board: AnyBoard) -> Host:
    """Has said hello."""
    host = Host(board)
    host.say(MessageType.HELLO)
    return host


def test_it_answers_a_hello_with_what_it_is(board: AnyBoard) -> None:
    (frame,) = FrameParser().feed(board.receive(encode_frame(MessageType.HELLO, 1, 1000), 5))
    assert (frame.type, frame.sequence, frame.time_us) == (MessageType.WELCOME, 1, 5)
    assert decode_welcome(frame.payload) == Welcome(
        7, 2, frozenset({Mode.POSITION, Mode.VELOCITY}), Parts.IMU | Parts.SUPPLY, b"balancer"
    )


def test_one_that_restarted_refuses_commands_until_it_is_greeted(board: AnyBoard) -> None:
    host = Host(board)
    assert host.drive(1.0, 1.0).refused == Refusal.NOT_GREETED
    assert host.poll().status == Status.WAITING
    assert not board.drives
    host.say(MessageType.HELLO)
    assert host.drive(1.0, 1.0).status == Status.DRIVEN


def test_a_stop_and_a_clear_do_not_stand_for_a_greeting(board: AnyBoard) -> None:
    host = Host(board)
    host.say(MessageType.STOP)
    host.say(MessageType.CLEAR)
    assert host.drive(1.0, 1.0).refused == Refusal.NOT_GREETED


@pytest.mark.parametrize("mode", [Mode.POSITION, Mode.VELOCITY])
def test_it_drives_what_it_is_told(board: AnyBoard, host: Host, mode: Mode) -> None:
    state = host.drive(0.5, -0.25, mode=mode)
    assert (state.status, state.refused, state.acknowledged) == (Status.DRIVEN, 0, host.sequence)
    assert board.drives and board.mode == mode
    assert list(board.targets) == [0.5, -0.25]


def test_without_commands_it_stops_at_the_deadmans_time_and_polls_do_not_count(
    board: AnyBoard, host: Host
) -> None:
    host.drive(1.0, 1.0, now_us=1000)
    assert host.poll(now_us=61_000).deadman_left_ms == 40
    board.tick(101_000)
    assert board.drives
    board.tick(101_001)
    assert not board.drives
    state = host.poll(now_us=101_100)
    assert (state.status, state.reason) == (Status.STOPPED, Reason.SILENCE)


def test_a_command_that_comes_too_late_is_refused_even_if_nobody_looked_at_the_clock(
    board: AnyBoard, host: Host
) -> None:
    host.drive(1.0, 1.0, now_us=0)
    assert host.drive(1.0, 1.0, now_us=100_001).refused == Refusal.IS_STOPPED
    assert not board.drives


def test_the_deadman_does_not_mind_that_the_clock_wraps(board: AnyBoard, host: Host) -> None:
    before = 2**32 - 50_000
    host.drive(1.0, 1.0, now_us=before)
    board.tick(before + 100_000)
    assert board.drives
    board.tick(before + 100_001)
    assert not board.drives


@pytest.mark.parametrize("trigger", ["host", "pin", "fault"])
def test_a_stop_is_latched_until_it_is_cleared(board: AnyBoard, host: Host, trigger: str) -> None:
    host.drive(1.0, 1.0)
    if trigger == "host":
        host.say(MessageType.STOP)
    elif trigger == "pin":
        board.press(True)
        board.press(False)
    else:
        board.stop(Reason.FAULT)
    reason = {"host": Reason.BY_HOST, "pin": Reason.PIN, "fault": Reason.FAULT}[trigger]
    state = host.drive(1.0, 1.0)
    assert (state.status, state.refused, state.reason) == (
        Status.STOPPED, Refusal.IS_STOPPED, reason,
    )  # fmt: skip
    assert not board.drives
    cleared = host.say(MessageType.CLEAR)
    assert cleared is not None and (cleared.status, cleared.reason) == (Status.LIMP, Reason.NONE)
    assert not board.drives
    assert host.drive(1.0, 1.0).status == Status.DRIVEN


def test_a_hello_does_not_clear_a_stop(board: AnyBoard, host: Host) -> None:
    host.say(MessageType.STOP)
    host.say(MessageType.HELLO)
    assert host.poll().status == Status.STOPPED


def test_a_stop_cannot_be_cleared_while_the_pin_is_pressed(board: AnyBoard, host: Host) -> None:
    board.press(True)
    state = host.say(MessageType.CLEAR)
    assert state is not None and state.status == Status.STOPPED


def test_the_first_reason_stays(board: AnyBoard, host: Host) -> None:
    host.drive(1.0, 1.0)
    board.press(True)
    host.say(MessageType.STOP)
    assert host.poll().reason == Reason.PIN


def test_a_stop_is_obeyed_whatever_its_number(board: AnyBoard, host: Host) -> None:
    host.drive(1.0, 1.0)
    board.receive(encode_frame(MessageType.STOP, 1, 0), 0)  # 101 and 102 have been heard
    assert not board.drives


@pytest.mark.parametrize(
    ("mode", "kept"), [(Mode.POSITION, [0.5, -0.25]), (Mode.VELOCITY, [0.0, 0.0])]
)
def test_one_that_is_to_hold_keeps_positions_and_stops_speeds(
    board: AnyBoard, host: Host, mode: Mode, kept: list[float]
) -> None:
    host.drive(0.5, -0.25, mode=mode, after=After.HOLD)
    board.tick(200_000)
    assert board.drives and board.mode == mode
    assert list(board.targets) == kept


def test_mode_0_lets_go_also_of_one_that_holds_after_a_stop(board: AnyBoard, host: Host) -> None:
    host.drive(0.5, -0.25, mode=Mode.POSITION, after=After.HOLD)
    host.say(MessageType.STOP)
    state = host.drive(mode=Mode.OFF)
    assert (state.refused, state.status) == (0, Status.STOPPED)
    assert not board.drives


@pytest.mark.parametrize(
    ("payload", "refusal"),
    [
        (b"", Refusal.WRONG_COUNT),
        (b"\x64\x00\x02", Refusal.WRONG_COUNT),
        (struct.pack("<HBB3f", 100, 3, 2, 1, 1, 1), Refusal.WRONG_COUNT),
        (struct.pack("<HBB1f", 100, 2, 2, 1), Refusal.WRONG_COUNT),
        (struct.pack("<HBB2f", 100, 2, 0, 1, 1), Refusal.WRONG_COUNT),
        (struct.pack("<HBB2f", 100, 2, 3, 1, 1), Refusal.WRONG_MODE),  # torque: it cannot
        (struct.pack("<HBB2f", 100, 2, 9, 1, 1), Refusal.WRONG_MODE),
        (struct.pack("<HBB2f", 100, 2, 0x22, 1, 1), Refusal.WRONG_MODE),
        (struct.pack("<HBB2f", 0, 2, 2, 1, 1), Refusal.WRONG_DEADMAN),
        (struct.pack("<HBB2f", 1001, 2, 2, 1, 1), Refusal.WRONG_DEADMAN),
        (struct.pack("<HBB2f", 100, 2, 2, 1, float("nan")), Refusal.NOT_FINITE),
        (struct.pack("<HBB2f", 100, 2, 2, float("-inf"), 1), Refusal.NOT_FINITE),
    ],
)
def test_a_command_that_is_wrong_changes_nothing_and_does_not_feed_the_deadman(
    board: AnyBoard, host: Host, payload: bytes, refusal: Refusal
) -> None:
    host.drive(0.5, -0.25, now_us=0)
    state = host.say(MessageType.COMMAND, payload, now_us=60_000)
    assert state is not None and state.refused == refusal
    assert (board.mode, list(board.targets)) == (Mode.VELOCITY, [0.5, -0.25])
    assert state.deadman_left_ms == 40


def test_gaps_in_the_numbers_are_counted(board: AnyBoard, host: Host) -> None:
    host.sequence += 3
    assert host.poll().lost == 3
    host.sequence += 1
    assert host.poll().lost == 4


def test_the_count_of_frames_may_wrap(board: AnyBoard) -> None:
    host = Host(board)
    host.sequence = 0xFFFD
    host.say(MessageType.HELLO)
    assert [host.poll().acknowledged for _ in range(3)] == [0xFFFF, 0, 1]
    assert host.poll().lost == 0


def test_a_frame_that_comes_twice_is_obeyed_once(board: AnyBoard, host: Host) -> None:
    frame = host.frame(
        MessageType.COMMAND, encode_command(Mode.VELOCITY, After.LET_GO, 100, np.ones(2))
    )
    assert board.receive(frame, 0)
    assert board.receive(frame, 60_000) == b""
    board.tick(100_001)
    assert not board.drives


def test_wrong_crcs_are_dropped_and_counted(board: AnyBoard, host: Host) -> None:
    good = cobs.decode(host.frame(MessageType.POLL)[:-1])
    for place in range(len(good)):
        damaged = bytearray(good)
        damaged[place] ^= 0x10
        assert board.receive(cobs_encode(damaged) + b"\0", 0) == b""
    assert host.poll().damaged == len(good)


def test_the_answer_carries_both_clocks(board: AnyBoard, host: Host) -> None:
    request = encode_frame(MessageType.POLL, host.sequence + 1, 123456789)
    (frame,) = FrameParser().feed(board.receive(request, 777))
    state = understand(encode_frame(frame.type, 0, 0, bytes(frame.payload)))
    assert state is not None
    assert (state.echo_us, state.heard_us, frame.time_us) == (123456789, 777, 777)


def test_what_it_measures_arrives_with_its_age(compiled_board: CompiledBoard) -> None:
    host = Host(compiled_board)
    host.say(MessageType.HELLO)
    before = host.poll()
    assert (before.joints_age, before.imu_age) == (0xFFFF, 0xFFFF)
    joints = np.array([[0.5, -1.0, np.nan], [1.5, 2.0, 0.125]])
    imu = np.array([[0.1, 0.2, 0.3], [0.0, 0.6, -0.8]])
    compiled_board.measure(joints, imu, 7400, now_us=10_000)
    state = host.poll(now_us=12_350)
    np.testing.assert_array_equal(state.joints[:2], joints.astype(np.float32))
    np.testing.assert_array_equal(state.imu, imu.astype(np.float32))
    assert (state.supply_mv, state.joints_age, state.imu_age) == (7400, 23, 23)
    assert host.poll(now_us=10_000_000).imu_age == 0xFFFF


def test_types_it_does_not_know_are_ignored(board: AnyBoard, host: Host) -> None:
    for type in set(range(256)) - {0x01, 0x03, 0x20, 0x30, 0x31}:
        host.sequence += 1
        assert board.receive(encode_frame(type, host.sequence, 0), 0) == b""


@given(raw=st.binary(max_size=253), rest=st.binary(max_size=254))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_its_cobs_and_crc_agree_with_the_cobs_package_and_python(
    firmware: ctypes.CDLL, raw: bytes, rest: bytes
) -> None:
    encoded = ctypes.create_string_buffer(256)
    size = firmware.rl_cobs_encode(raw, len(raw), encoded)
    assert encoded.raw[:size] == cobs.encode(raw)
    decoded = ctypes.create_string_buffer(256)
    rest = rest.replace(b"\0", b"\1")
    size = firmware.rl_cobs_decode(rest, len(rest), decoded)
    try:
        assert decoded.raw[:size] == cobs.decode(rest)
    except cobs.DecodeError:
        assert size == -1


_TARGETS = st.lists(st.floats(width=32), max_size=3).map(lambda values: np.array(values))
_COMMANDS = st.builds(
    lambda mode, after, deadman_ms, targets: (
        struct.pack("<HBB", deadman_ms, len(targets), mode | after << 4)
        + targets.astype("<f4").tobytes()
    ),
    st.integers(0, 4), st.integers(0, 2), st.sampled_from([0, 1, 50, 100, 1000, 1001]), _TARGETS,
)  # fmt: skip
_FRAMES = st.one_of(
    st.tuples(st.just(0x20), _COMMANDS),
    st.tuples(st.sampled_from([0x01, 0x03, 0x30, 0x31, 0x77]), st.binary(max_size=5)),
)
_EVENTS = st.lists(
    st.one_of(
        st.tuples(st.just("frame"), _FRAMES, st.sampled_from([1, 1, 1, 2, 0, -3, 40_000])),
        st.tuples(st.just("bytes"), st.binary(max_size=300)),
        st.tuples(st.just("tick"), st.integers(0, 60_000)),
        st.tuples(st.just("pin"), st.booleans()),
        st.tuples(st.just("fault")),
    ),
    max_size=25,
)


@given(events=_EVENTS, began_us=st.sampled_from([0, 2**32 - 70_000]))
@settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_the_simulated_board_gives_the_same_bytes_as_the_compiled_one(
    firmware: ctypes.CDLL, events: list[tuple], began_us: int
) -> None:
    compiled, twin = CompiledBoard(firmware), simulated()
    compiled.measure(np.zeros((2, 3)), np.zeros((2, 3)), 0, now_us=0)
    twin.joints_us = twin.imu_us = 0
    now_us, sequence = began_us, 5
    for kind, *arguments in events:
        data = b""
        if kind == "frame":
            (type, payload), step = arguments
            sequence += step
            data = encode_frame(type, sequence, now_us, payload)
        elif kind == "bytes":
            (data,) = arguments
        elif kind == "tick":
            now_us += arguments[0]
            compiled.tick(now_us)
            twin.tick(now_us)
        elif kind == "pin":
            compiled.press(*arguments)
            twin.press(*arguments)
        else:
            compiled.stop(Reason.FAULT)
            twin.stop(Reason.FAULT)
        assert compiled.receive(data, now_us) == twin.receive(data, now_us)
        assert (compiled.drives, compiled.mode) == (twin.drives, twin.mode)
        assert list(compiled.targets) == list(twin.targets)
