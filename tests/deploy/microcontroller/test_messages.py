"""What the frames of the microcontroller link say, worked by hand."""

import struct

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from deploy.microcontroller.frames import FrameParser, MessageType, encode_frame
from deploy.microcontroller.messages import (
    After,
    Mode,
    Parts,
    State,
    Status,
    Welcome,
    decode_command,
    decode_state,
    decode_welcome,
    encode_command,
    encode_state,
    encode_welcome,
)


def test_a_command_is_the_bytes_on_the_page_of_the_format() -> None:
    payload = encode_command(Mode.POSITION, After.LET_GO, 100, np.array([0.5, -0.25]))
    wire = encode_frame(MessageType.COMMAND, 258, 123456, payload)
    expected = "08 01 20 02 01 40 E2 01 02 64 03 02 01 01 01 02 3F 01 05 80 BE 88 A5 00"
    assert wire == bytes.fromhex(expected)


def test_a_command_says_what_was_put_into_it() -> None:
    targets = np.array([0.5, -0.25, 1e-3], np.float32)
    command = decode_command(encode_command(Mode.TORQUE, After.HOLD, 1000, targets))
    assert command is not None
    mode, after, deadman_ms, found = command
    assert (mode, after, deadman_ms) == (Mode.TORQUE, After.HOLD, 1000)
    np.testing.assert_array_equal(found, targets)


def test_a_welcome_says_what_was_put_into_it() -> None:
    welcome = Welcome(7, 2, frozenset({Mode.VELOCITY, Mode.TORQUE}), Parts.IMU, b"balancer")
    payload = encode_welcome(welcome)
    # firmware 7, 2 joints, bits 2 and 3, an IMU
    assert payload == bytes.fromhex("0700 02 0c 01") + b"balancer"
    assert decode_welcome(payload) == welcome


def test_a_state_is_read_as_the_page_lays_it_out() -> None:
    # acknowledged 5, lost 1, damaged 2, 80 ms left, echo 1000, heard 2000, driven, no reason, not
    # refused, IMU and supply, 7400 mV, joints 1.2 ms old, one joint; IMU 0.5 ms old
    payload = struct.pack(
        "<HHHHIIBBBBHHB3fH6f",
        5, 1, 2, 80, 1000, 2000, 2, 0, 0, 3, 7400, 12, 1,
        0.5, -1.0, 0.25, 5, 0.1, 0.2, 0.3, 0.0, 0.0, -1.0,
    )  # fmt: skip
    state = State()
    assert decode_state(payload, state)
    assert (state.acknowledged, state.lost, state.damaged) == (5, 1, 2)
    assert (state.deadman_left_ms, state.echo_us, state.heard_us) == (80, 1000, 2000)
    assert (state.status, state.reason, state.refused, state.parts) == (Status.DRIVEN, 0, 0, 3)
    assert (state.supply_mv, state.joints_age, state.imu_age, state.count) == (7400, 12, 5, 1)
    np.testing.assert_array_equal(state.joints[:1], [[0.5, -1.0, 0.25]])
    np.testing.assert_allclose(state.imu, [[0.1, 0.2, 0.3], [0, 0, -1]], rtol=1e-7)
    assert encode_state(state) == payload


def test_sixteen_joints_and_an_imu_fill_a_frame_to_the_last_byte() -> None:
    state = State(count=16, parts=Parts.IMU)
    wire = encode_frame(MessageType.STATE, 1, 1, encode_state(state))
    (frame,) = FrameParser().feed(wire)
    assert 8 + len(frame.payload) + 2 == 253
    assert decode_state(frame.payload, State())


@given(st.binary(max_size=260))
def test_a_payload_of_another_length_is_no_message(payload: bytes) -> None:
    state = State()
    if decode_state(payload, state):
        assert len(encode_state(state)) == len(payload)
    else:
        assert state.count == 0
    command = decode_command(payload)
    assert command is None or len(payload) == 4 + 4 * len(command[3])
    welcome = decode_welcome(payload)
    assert welcome is None or len(payload) >= 13


@given(st.binary(max_size=252))
def test_no_payload_of_a_shipped_type_lets_a_decoder_stumble(payload: bytes) -> None:
    """Lengths right, contents any."""
    state = State(count=payload[0] % 17 if payload else 0, parts=payload[-1] % 4 if payload else 0)
    size = 25 + 12 * state.count + (26 if state.parts & 1 else 0)
    body = bytearray((payload * 253)[:size] if payload else bytes(size))
    body[19], body[24] = state.parts, state.count
    assert decode_state(bytes(body), State())
