"""What the frames of the microcontroller link say: commands to the board, and its answers.

    payload = encode_command(Mode.VELOCITY, After.LET_GO, deadman_ms=100, targets=targets)
    welcome = decode_welcome(frame.payload)
    if decode_state(frame.payload, state):
        state.joints[:, 0]                   # positions [rad]

Pure functions on bytes; the format is on one page, deploy/firmware/README.md. A payload of another
length than it should have is no message: decoders say so by None or False.
"""

import struct
from dataclasses import dataclass, field
from enum import IntEnum, IntFlag

import numpy as np
from numpy.typing import NDArray

MAX_JOINTS = 16
MAX_DEADMAN_MS = 1000
AGE_STEP_S = 1e-4
NEVER = 0xFFFF
"""Age of what was not measured, or longer ago than 6.5 s."""

_COMMAND = struct.Struct("<HBB")
_WELCOME = struct.Struct("<HBBB8s")
_STATE = struct.Struct("<HHHHIIBBBBHHB")
_JOINT_BYTES, _IMU_BYTES = 12, 26


class Mode(IntEnum):
    """What targets are, the joints' unit by `deploy.signals`; a board says which it obeys."""

    OFF = 0
    POSITION = 1
    VELOCITY = 2
    TORQUE = 3


class After(IntEnum):
    """What the motors do once the robot is stopped, by whatever."""

    LET_GO = 0
    HOLD = 1
    """Keep the position targets; at velocity or torque targets, zero."""


class Status(IntEnum):
    """What the board is doing."""

    WAITING = 0
    """Since it was switched on nobody has said hello: it obeys no command."""
    LIMP = 1
    DRIVEN = 2
    STOPPED = 3
    """Latched: commands are refused until it is cleared."""


class Reason(IntEnum):
    """Why it is stopped."""

    NONE = 0
    BY_HOST = 1
    SILENCE = 2
    """No command came within the deadman's time."""
    PIN = 3
    FAULT = 4


class Refusal(IntEnum):
    """Why the last command was not obeyed."""

    ACCEPTED = 0
    NOT_GREETED = 1
    IS_STOPPED = 2
    WRONG_COUNT = 3
    WRONG_MODE = 4
    WRONG_DEADMAN = 5
    NOT_FINITE = 6


class Parts(IntFlag):
    """What the board has besides joints, and whether it drives those."""

    IMU = 1
    SUPPLY = 2
    MOTORS_ON = 4
    """In a state only: driven, or held after a stop."""


@dataclass(frozen=True, slots=True)
class Welcome:
    """The answer to a hello: what the board is."""

    firmware: int
    joints: int
    modes: frozenset[Mode]
    parts: Parts
    uid: bytes
    """8 bytes, the same after every restart: which board it is."""


@dataclass(slots=True)
class State:
    """The answer to everything else; one object is filled again and again."""

    acknowledged: int = 0
    """Sequence number of the frame it answers, so the last one that the board took."""
    lost: int = 0
    """Frames that did not reach the board, by the gaps in their numbers, 16 bits."""
    damaged: int = 0
    """Blocks the board received that were no frame, 16 bits."""
    deadman_left_ms: int = 0
    echo_us: int = 0
    """The host's time in the frame it answers, 32 bits."""
    heard_us: int = 0
    """The board's time when that frame arrived, 32 bits."""
    status: int = Status.WAITING
    reason: int = Reason.NONE
    refused: int = Refusal.ACCEPTED
    parts: int = 0
    supply_mv: int = 0
    joints_age: int = NEVER
    """Of the joints' readings when the state was sent, in steps of `AGE_STEP_S`."""
    imu_age: int = NEVER
    count: int = 0
    """Joints, rows of `joints`."""
    joints: NDArray[np.float32] = field(
        default_factory=lambda: np.full((MAX_JOINTS, 3), np.nan, np.float32)
    )
    """Position, velocity and torque [rad, rad/s, N·m]; not a number where it is not measured."""
    imu: NDArray[np.float32] = field(default_factory=lambda: np.zeros((2, 3), np.float32))
    """Angular velocity [rad/s] and the unit vector that points down, in the sensor's frame."""


def encode_command(
    mode: Mode, after: After, deadman_ms: int, targets: NDArray[np.floating]
) -> bytes:
    """Payload of a `COMMAND`.

    Args:
        mode: what the targets are; with `OFF` there are none.
        after: what is to be done without the next command.
        deadman_ms: time until then, 1 to `MAX_DEADMAN_MS`.
        targets: (joints,).
    """
    head = _COMMAND.pack(deadman_ms, len(targets), mode | after << 4)
    return head + targets.astype("<f4").tobytes()


def decode_command(payload: memoryview | bytes) -> tuple[int, int, int, NDArray[np.float32]] | None:
    """Mode, after, deadman's time [ms] and targets (joints,) of a `COMMAND`."""
    if len(payload) < _COMMAND.size:
        return None
    deadman_ms, count, mode = _COMMAND.unpack_from(payload)
    if len(payload) != _COMMAND.size + 4 * count:
        return None
    targets = np.frombuffer(payload, "<f4", offset=_COMMAND.size)
    return mode & 0x0F, mode >> 4, deadman_ms, targets


def encode_welcome(welcome: Welcome) -> bytes:
    """Payload of a `WELCOME`."""
    modes = sum(1 << mode for mode in welcome.modes)
    return _WELCOME.pack(
        welcome.firmware, welcome.joints, modes, welcome.parts, welcome.uid.ljust(8, b"\0")
    )


def decode_welcome(payload: memoryview | bytes) -> Welcome | None:
    """What a board says of itself."""
    if len(payload) < _WELCOME.size:
        return None
    firmware, joints, modes, parts, uid = _WELCOME.unpack_from(payload)
    if joints > MAX_JOINTS:
        return None
    can = frozenset(mode for mode in Mode if mode and modes >> mode & 1)
    return Welcome(firmware, joints, can, Parts(parts & 3), uid)


def encode_state(state: State) -> bytes:
    """Payload of a `STATE`."""
    head = _STATE.pack(
        state.acknowledged, state.lost, state.damaged, state.deadman_left_ms,
        state.echo_us, state.heard_us,
        state.status, state.reason, state.refused, state.parts,
        state.supply_mv, state.joints_age, state.count,
    )  # fmt: skip
    payload = head + state.joints[: state.count].astype("<f4").tobytes()
    if state.parts & Parts.IMU:
        payload += state.imu_age.to_bytes(2, "little") + state.imu.astype("<f4").tobytes()
    return payload


def decode_state(payload: memoryview | bytes, state: State) -> bool:
    """Fill `state`; False, and `state` as it was, if the payload is no state."""
    if len(payload) < _STATE.size:
        return False
    head = _STATE.unpack_from(payload)
    count, imu = head[-1], head[9] & Parts.IMU
    at = _STATE.size
    if count > MAX_JOINTS or len(payload) != at + _JOINT_BYTES * count + (_IMU_BYTES if imu else 0):
        return False
    (
        state.acknowledged, state.lost, state.damaged, state.deadman_left_ms,
        state.echo_us, state.heard_us,
        state.status, state.reason, state.refused, state.parts,
        state.supply_mv, state.joints_age, state.count,
    ) = head  # fmt: skip
    joints = np.frombuffer(payload, "<f4", 3 * count, at)
    state.joints[:count] = joints.reshape(count, 3)
    if imu:
        at += _JOINT_BYTES * count
        state.imu_age = int.from_bytes(payload[at : at + 2], "little")
        state.imu[:] = np.frombuffer(payload, "<f4", 6, at + 2).reshape(2, 3)
    return True
