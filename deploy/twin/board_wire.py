"""A microcontroller between the host and its servos, running the sketch of `deploy/firmware`.

The host's bytes reach it over a serial port; each `LOOP_S` it looks at the clock, writes its
targets to the servos' registers, and reads them and its inertial sensor, as the example sketch
does. A servo that has been off gets its torque switched on with a goal where its shaft is.
"""

import math
import struct
from collections import deque
from collections.abc import Callable, Mapping
from functools import partial

import numpy as np

from deploy.dynamixel import registers
from deploy.dynamixel.registers import RAD_PER_TICK, RAD_S_PER_COUNT, OperatingMode
from deploy.microcontroller.messages import Mode
from deploy.servos.register import Register
from deploy.twin.board import Board
from deploy.twin.imu import GYRO_NOISE_RAD_S, TILT_NOISE_RAD, Motion
from deploy.twin.servo import Servo

LOOP_S = 0.002
"""Reading and writing two servos at 1 Mbaud takes 1 ms."""
ANSWER_S = 0.0002
"""From a frame's last byte to the answer's first: one turn of the sketch's loop without the bus."""
VELOCITY_P_GAIN, VELOCITY_I_GAIN = 400, 0
"""As the sketch sets them: the balancer's model has this gain."""
VELOCITY_LIMIT = 2047
_FEEDBACK, _FEEDBACK_AT = struct.Struct("<ii"), registers.PRESENT_VELOCITY.address
_MODES = {Mode.POSITION: OperatingMode.EXTENDED_POSITION, Mode.VELOCITY: OperatingMode.VELOCITY}


class BoardWire:
    """See the module docstring, and `deploy.twin.half_duplex.HalfDuplex` for the methods."""

    def __init__(
        self,
        servos: Mapping[int, tuple[Servo, int]],
        baud_rate: int,
        motion: Callable[[float], Motion] | None,
        *,
        usb_latency_s: float,
        clock_ahead_s: float = 17.0,
        clock_gains: float = 40e-6,
        start_s: float = 0.0,
    ):
        """Switch it on.

        Args:
            servos: servo and the count of its zero, by its place on the board.
            baud_rate: of the host's port.
            motion: how its inertial sensor moves; None without one.
            usb_latency_s: what the adapter adds to an answer.
            clock_ahead_s: its clock, less the host's.
            clock_gains: what its crystal gains per second.
            start_s: the time now.
        """
        self._motors = [_Motor(*servos[place]) for place in sorted(servos)]
        self._switch_on = partial(
            Board, len(servos), set(_MODES), imu=motion is not None, supply=True, uid=b"twin    "
        )
        self.board = self._switch_on()
        self.silent = False
        """Its cable is off."""
        self._motion, self._rng = motion, np.random.default_rng(0)
        self._byte_s, self._usb_latency_s = 10 / baud_rate, usb_latency_s
        self._ahead_s, self._gains = clock_ahead_s, clock_gains
        self._heard: deque[tuple[float, bytes]] = deque()
        self._answers: deque[tuple[float, bytes]] = deque()
        self._heard_until_s = self._said_until_s = -math.inf
        self._loop_s = start_s

    @property
    def next_event_s(self) -> float:
        """When the board has something to do next."""
        return min(self._loop_s, self._heard[0][0] if self._heard else math.inf)

    @property
    def reply_s(self) -> float:
        """When the host will have received the answer on its way; inf if there is none."""
        return self._answers[0][0] if self._answers else math.inf

    def send(self, data: bytes, now_s: float, baud_rate: int | None = None) -> None:
        """The host writes `data`; it follows what is still being sent."""
        start_s = max(now_s, self._heard_until_s)
        self._heard_until_s = start_s + len(data) * self._byte_s
        self._heard.append((self._heard_until_s, data))

    def run_event(self) -> None:
        """Take what has come, or run the sketch's loop once."""
        if self._heard and self._heard[0][0] <= self._loop_s:
            heard_s, data = self._heard.popleft()
            if self.silent:
                return
            if answer := self.board.receive(data, self._micros(heard_s)):
                start_s = max(heard_s + ANSWER_S, self._said_until_s)
                self._said_until_s = start_s + len(answer) * self._byte_s
                self._answers.append((self._said_until_s + self._usb_latency_s, answer))
            return
        self._run_loop(self._loop_s)
        self._loop_s += LOOP_S

    def restart(self) -> None:
        """Its power was off, and that of its servos: it knows nothing of before."""
        self.board = self._switch_on()
        for motor in self._motors:
            motor.restart()

    def take(self, now_s: float) -> bytes:
        """Bytes the host has received by now and not yet taken."""
        taken = b""
        while self._answers and self._answers[0][0] <= now_s + 1e-9:
            taken += self._answers.popleft()[1]
        return taken

    def _micros(self, time_s: float) -> int:
        return int((time_s * (1 + self._gains) + self._ahead_s) * 1e6)

    def _run_loop(self, now_s: float) -> None:
        board, now_us = self.board, self._micros(now_s)
        board.tick(now_us)
        mode = board.mode if board.drives else Mode.OFF
        for row, (motor, target) in enumerate(
            zip(self._motors, board.targets.tolist(), strict=True)
        ):
            motor.drive(mode, target)
            board.state.joints[row] = *motor.read(), np.nan
        board.joints_us = now_us
        board.state.supply_mv = round(1000 * self._motors[0].servo.supply_v)
        if self._motion is not None:
            motion = self._motion(now_s)
            spin, tilt = self._rng.normal(size=(2, 3))
            down = -motion.rotation[2] + TILT_NOISE_RAD * tilt
            board.state.imu[0] = motion.angular_velocity + GYRO_NOISE_RAD_S * spin
            board.state.imu[1] = down / np.linalg.norm(down)
            board.imu_us = now_us


class _Motor:
    """A servo on the board's own bus."""

    def __init__(self, servo: Servo, zero: int):
        self.servo, self._zero = servo, zero
        self.restart()

    def restart(self) -> None:
        """Limp, and set up as the sketch does it."""
        self._mode, self._goal = Mode.OFF, None
        self._write(registers.VELOCITY_LIMIT, VELOCITY_LIMIT)

    def read(self) -> tuple[float, float]:
        """Angle from its zero and speed [rad, rad/s]; they lie side by side."""
        speed, position = _FEEDBACK.unpack(self.servo.read(_FEEDBACK_AT, _FEEDBACK.size).data)
        return (position - self._zero) * RAD_PER_TICK, speed * RAD_S_PER_COUNT

    def drive(self, mode: Mode, target: float) -> None:
        """Bring it into a mode, and give it its goal."""
        if mode != self._mode:
            self._enter(mode)
        if mode == Mode.OFF:
            return
        if mode == Mode.VELOCITY:
            register, goal = registers.GOAL_VELOCITY, round(target / RAD_S_PER_COUNT)
            goal = max(-VELOCITY_LIMIT, min(VELOCITY_LIMIT, goal))
        else:
            register, goal = registers.GOAL_POSITION, self._zero + round(target / RAD_PER_TICK)
        if goal != self._goal:
            self._write(register, goal)
            self._goal = goal

    def _enter(self, mode: Mode) -> None:
        """Torque is off while the mode changes, and on afterwards."""
        self._mode, self._goal = mode, None
        self._write(registers.TORQUE_ENABLE, 0)
        if mode != Mode.OFF:
            self._write(registers.OPERATING_MODE, int(_MODES[mode]))
            self._write(registers.VELOCITY_P_GAIN, VELOCITY_P_GAIN)
            self._write(registers.VELOCITY_I_GAIN, VELOCITY_I_GAIN)
            if mode == Mode.POSITION:  # else it drives to where it was told to be last
                _, position = _FEEDBACK.unpack(self.servo.read(_FEEDBACK_AT, _FEEDBACK.size).data)
                self._write(registers.GOAL_POSITION, position)
            self._write(registers.TORQUE_ENABLE, 1)

    def _write(self, register: Register, value: int) -> None:
        self.servo.write(register.address, register.encode(value))
