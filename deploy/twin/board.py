"""The microcontroller of `deploy/firmware`, in Python: what a host's bytes make it do and say.

    board = Board(joints=2, modes={Mode.VELOCITY}, imu=True)
    reply = board.receive(data, now_us)
    board.tick(now_us)
    if board.drives: ...                     # board.mode, board.targets

Written after the page on the wire format. Tests give it and the compiled C the same bytes at the
same times, and expect the same bytes back.
"""

from collections.abc import Collection

import numpy as np
from numpy.typing import NDArray

from deploy.microcontroller.frames import Frame, FrameParser, MessageType, encode_frame
from deploy.microcontroller.messages import (
    MAX_DEADMAN_MS,
    NEVER,
    After,
    Mode,
    Parts,
    Reason,
    Refusal,
    State,
    Status,
    Welcome,
    decode_command,
    encode_state,
    encode_welcome,
)

_16_BITS, _32_BITS = 0xFFFF, 0xFFFFFFFF
_HALF = 0x8000


class Board:
    """Protocol and safety of one board; times are microseconds on its own clock."""

    def __init__(
        self,
        joints: int,
        modes: Collection[Mode],
        *,
        imu: bool = False,
        supply: bool = False,
        firmware: int = 1,
        uid: bytes = bytes(8),
    ):
        """Switch it on."""
        parts = (Parts.IMU if imu else Parts(0)) | (Parts.SUPPLY if supply else Parts(0))
        self.welcome = Welcome(firmware, joints, frozenset(modes), parts, uid)
        self.state = State(parts=parts, count=joints)
        """What it will say; write `joints`, `imu` and `supply_mv`."""
        self.state.joints[:] = 0.0
        self.targets: NDArray[np.float32] = np.zeros(joints, np.float32)
        self.mode, self.after = Mode.OFF, After.LET_GO
        self.joints_us: int | None = None
        """When its joints were measured last."""
        self.imu_us: int | None = None
        self._parser = FrameParser()
        self._damaged_before = 0
        self._greeted = self._pin = False
        self._sent = 0
        self._deadman_us = self._command_us = 0

    @property
    def drives(self) -> bool:
        """Whether the motors are on."""
        held = self.state.status == Status.STOPPED and self.mode != Mode.OFF
        return self.state.status == Status.DRIVEN or (held and self.after == After.HOLD)

    def receive(self, data: bytes, now_us: int) -> bytes:
        """The answer to what has come in."""
        return b"".join(
            [self._handle(frame, now_us & _32_BITS) for frame in self._parser.feed(data)]
        )

    def tick(self, now_us: int) -> None:
        """Watch the deadman."""
        silent_us = (now_us - self._command_us) & _32_BITS
        if self.state.status == Status.DRIVEN and silent_us > self._deadman_us:
            self.stop(Reason.SILENCE)

    def stop(self, reason: Reason) -> None:
        """Stop, latched; the first reason stays."""
        if self.state.status == Status.STOPPED:
            return
        held = self.state.status == Status.DRIVEN and self.after == After.HOLD
        self.state.status, self.state.reason = Status.STOPPED, reason
        if not held:
            self._let_go()
        elif self.mode != Mode.POSITION:
            self.targets[:] = 0.0

    def press(self, pressed: bool) -> None:
        """The emergency stop's pin."""
        self._pin = pressed
        if pressed:
            self.stop(Reason.PIN)

    def _let_go(self) -> None:
        self.mode = Mode.OFF
        self.targets[:] = 0.0

    def _handle(self, frame: Frame, now_us: int) -> bytes:
        state, type = self.state, frame.type
        if type not in _HANDLED:
            return b""
        self.tick(now_us)
        if type == MessageType.STOP:
            self.stop(Reason.BY_HOST)
        if type == MessageType.HELLO:
            state.lost = 0
            self._damaged_before = self._parser.damaged
        elif self._greeted:
            ahead = (frame.sequence - state.acknowledged) & _16_BITS
            if not 0 < ahead < _HALF:
                return b""
            state.lost = (state.lost + ahead - 1) & _16_BITS
        state.acknowledged, state.echo_us, state.heard_us = frame.sequence, frame.time_us, now_us
        if type == MessageType.HELLO:
            self._greeted, state.refused = True, Refusal.ACCEPTED
            if state.status == Status.WAITING:
                state.status = Status.LIMP
            return self._frame(MessageType.WELCOME, encode_welcome(self.welcome), now_us)
        if type == MessageType.COMMAND:
            self._obey(frame.payload, now_us)
        if type == MessageType.CLEAR and state.status == Status.STOPPED and not self._pin:
            self._let_go()
            state.status = Status.LIMP if self._greeted else Status.WAITING
            state.reason = Reason.NONE
        return self._frame(MessageType.STATE, self._encode_state(now_us), now_us)

    def _obey(self, payload: memoryview, now_us: int) -> None:
        state = self.state
        state.refused, command = self._judge(payload)
        if state.refused or command is None:
            return
        mode, after, deadman_ms, targets = command
        if mode == Mode.OFF:
            self._let_go()
            if state.status == Status.DRIVEN:
                state.status = Status.LIMP
            return
        state.status = Status.DRIVEN
        self.mode, self.after = Mode(mode), After(after)
        self._deadman_us, self._command_us = 1000 * deadman_ms, now_us
        self.targets[:] = targets

    def _judge(
        self, payload: memoryview
    ) -> tuple[Refusal, tuple[int, int, int, NDArray[np.float32]] | None]:
        if not self._greeted:
            return Refusal.NOT_GREETED, None
        head = bytes(payload[:4])
        command = decode_command(payload)
        if len(head) == 4 and head[3] & 0x0F == Mode.OFF:
            empty = command is not None and not len(command[3])
            return (Refusal.ACCEPTED if empty else Refusal.WRONG_COUNT), command
        if self.state.status == Status.STOPPED and len(head) == 4:
            return Refusal.IS_STOPPED, None
        if command is None or len(command[3]) != self.welcome.joints:
            return Refusal.WRONG_COUNT, None
        mode, after, deadman_ms, targets = command
        if mode not in self.welcome.modes or after not in tuple(After):
            return Refusal.WRONG_MODE, None
        if not 1 <= deadman_ms <= MAX_DEADMAN_MS:
            return Refusal.WRONG_DEADMAN, None
        if not np.isfinite(targets).all():
            return Refusal.NOT_FINITE, None
        return Refusal.ACCEPTED, command

    def _encode_state(self, now_us: int) -> bytes:
        state = self.state
        state.damaged = (self._parser.damaged - self._damaged_before) & _16_BITS
        left_us = self._deadman_us - ((now_us - self._command_us) & _32_BITS)
        state.parts = self.welcome.parts | (Parts.MOTORS_ON if self.drives else Parts(0))
        driven = state.status == Status.DRIVEN
        state.deadman_left_ms = max(0, left_us) // 1000 if driven else 0
        state.joints_age = _age(self.joints_us, now_us)
        state.imu_age = _age(self.imu_us, now_us)
        return encode_state(state)

    def _frame(self, type: MessageType, payload: bytes, now_us: int) -> bytes:
        self._sent += 1
        return encode_frame(type, self._sent, now_us, payload)


_HANDLED = frozenset(MessageType) - {MessageType.WELCOME, MessageType.STATE}


def _age(measured_us: int | None, now_us: int) -> int:
    if measured_us is None:
        return NEVER
    return min(((now_us - measured_us) & _32_BITS) // 100, NEVER)
