"""Inertial sensors behind a serial port, as their data sheets describe what they send.

    wire = ImuWire(Bno08xRvc(), motion, seed=0)
    wire.send(data, now_s)
    while wire.next_event_s <= now_s: wire.run_event()
    received = wire.take(now_s)

`motion(time_s)` says how the sensor moves when it measures. Like real ones they have noise, so that
no two samples are the same to the bit; bytes take their time on the wire. `deploy.imu` reads them,
and so do the drivers that Adafruit publishes for the BNO055 and the BNO08x; nothing here is made
from our decoders.
"""

import math
import struct
from collections.abc import Callable
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

GYRO_NOISE_RAD_S, FORCE_NOISE_G, TILT_NOISE_RAD = 0.003, 0.003, 1e-4
"""Standard deviations; of the order of the BNO055's data sheet at 50 to 100 Hz."""


class Motion(NamedTuple):
    """How a sensor moves; vectors in its frame."""

    rotation: NDArray[np.float64]
    """(3, 3), turns its frame into the world's, z up."""
    angular_velocity: NDArray[np.float64]
    """(3,) [rad/s]."""
    specific_force: NDArray[np.float64]
    """(3,) what its accelerometer feels [g]."""


class ImuModel(Protocol):
    """What one kind of sensor sends."""

    baud_rate: int

    @property
    def period_s(self) -> float:
        """Between two samples that it sends by itself; inf if it sends none."""
        ...

    def sample(self, motion: Motion) -> bytes:
        """What it sends of a sample."""
        ...

    def receive(self, data: bytes, now_s: float, motion: Motion) -> bytes:
        """Its answer to what the host sends."""
        ...


class ImuWire:
    """A sensor on a serial port, with the methods of `deploy.twin.half_duplex.HalfDuplex`."""

    def __init__(
        self,
        model: ImuModel,
        motion: Callable[[float], Motion],
        *,
        seed: int = 0,
        start_s: float = 0.0,
    ):
        """Switch it on; `motion` is asked for the time of each sample, and time only grows."""
        self.model, self.baud_rate = model, model.baud_rate
        self.frozen = False
        """It goes on sending the same sample."""
        self.silent = False
        """Its cable is off."""
        self._motion, self._rng = motion, np.random.default_rng(seed)
        self._next_s = start_s
        self._queue: list[tuple[float, bytes]] = []
        self._free_s = start_s
        self._last: Motion | None = None

    @property
    def next_event_s(self) -> float:
        """When it measures next; inf if it only answers."""
        return self._next_s if math.isfinite(self.model.period_s) else math.inf

    @property
    def reply_s(self) -> float:
        """When the host will have received what is on its way; inf if nothing is."""
        return self._queue[0][0] if self._queue else math.inf

    def send(self, data: bytes, now_s: float, baud_rate: int | None = None) -> None:
        """The host writes; at another baud rate than its own it hears nothing."""
        if self.silent or (baud_rate or self.baud_rate) != self.baud_rate:
            return
        streamed = math.isfinite(self.model.period_s)
        heard_s = now_s + len(data) * 10 / self.baud_rate
        self._send(self.model.receive(data, now_s, self._measure(now_s)), heard_s)
        if math.isfinite(self.model.period_s) and not streamed:
            self._next_s = now_s + self.model.period_s

    def run_event(self) -> None:
        """Measure, and send that."""
        self._send(self.model.sample(self._measure(self._next_s)), self._next_s)
        self._next_s += self.model.period_s

    def take(self, now_s: float) -> bytes:
        """Bytes that have arrived by now and were not yet handed out."""
        taken = b""
        while self._queue and self._queue[0][0] <= now_s + 1e-9:
            taken += self._queue.pop(0)[1]
        return taken

    def _send(self, data: bytes, from_s: float) -> None:
        if data and not self.silent:
            self._free_s = max(self._free_s, from_s) + len(data) * 10 / self.baud_rate
            self._queue.append((self._free_s, data))

    def _measure(self, at_s: float) -> Motion:
        """The true motion with noise; the same again while it is frozen."""
        if self._last is None or not self.frozen:
            self._last = with_noise(self._motion(at_s), self._rng)
        return self._last


def with_noise(motion: Motion, rng: np.random.Generator) -> Motion:
    """What a sensor takes a motion for."""
    gyro, force, tilt = rng.normal(size=(3, 3))
    x, y, z = tilt * TILT_NOISE_RAD
    small = np.array([[1.0, -z, y], [z, 1.0, -x], [-y, x, 1.0]])
    q, r = np.linalg.qr(motion.rotation @ small)
    return Motion(
        q * np.sign(np.diag(r)),  # a rotation again
        motion.angular_velocity + gyro * GYRO_NOISE_RAD_S,
        motion.specific_force + force * FORCE_NOISE_G,
    )


class Bno08xRvc:
    """A BNO080 in UART-RVC mode; data sheet 1000-3927, section 1.3.5.2, angles as in its example.

    The y axis of the sensor points where the angles say: yaw turns about z, pitch lifts it, roll
    turns about it.
    """

    baud_rate, period_s = 115200, 0.01

    def __init__(self) -> None:
        self._index = 255
        self._banner = b"%Hillcrest Labs 10003608\r\n%SW Ver 1.2.4\r\n"

    def sample(self, motion: Motion) -> bytes:
        """One packet, after the banner the first time."""
        self._index = (self._index + 1) & 0xFF
        rotation = motion.rotation
        forward, up = rotation[:, 1], rotation[2]
        yaw = math.degrees(math.atan2(-forward[0], forward[1]))
        pitch = math.degrees(math.asin(np.clip(forward[2], -1, 1)))
        roll = math.degrees(math.atan2(-up[0], up[2]))
        angles = [_int16(100 * angle) for angle in (yaw, pitch, roll)]
        forces = [_int16(1000 * force) for force in motion.specific_force]
        body = struct.pack("<B6h3x", self._index, *angles, *forces)
        banner, self._banner = self._banner, b""
        return banner + b"\xaa\xaa" + body + bytes([sum(body) % 256])

    def receive(self, data: bytes, now_s: float, motion: Motion) -> bytes:
        """It does not listen."""
        return b""


class WitMotion:
    """A WT901; data sheet v20-0702, section 5.1."""

    def __init__(self, rate_hz: int = 200, baud_rate: int = 115200):
        """Set to a rate and a baud rate with the maker's program."""
        self.period_s, self.baud_rate = 1 / rate_hz, baud_rate

    def sample(self, motion: Motion) -> bytes:
        """Acceleration, angular velocity and angles; 25.00 °C, version 0x4321."""
        r = motion.rotation
        roll = math.atan2(r[2, 1], r[2, 2])
        pitch = -math.asin(np.clip(r[2, 0], -1, 1))
        yaw = math.atan2(r[1, 0], r[0, 0])
        return b"".join(
            self._packet(kind, [*(np.asarray(values) * 32768 / full), last])
            for kind, values, full, last in (
                (0x51, motion.specific_force, 16.0, 2500),
                (0x52, np.degrees(motion.angular_velocity), 2000.0, 2500),
                (0x53, np.degrees([roll, pitch, yaw]), 180.0, 0x4321),
            )
        )

    def receive(self, data: bytes, now_s: float, motion: Motion) -> bytes:
        """Settings are not emulated."""
        return b""

    @staticmethod
    def _packet(kind: int, values: list[float]) -> bytes:
        packet = struct.pack("<BB4h", 0x55, kind, *map(_int16, values))
        return packet + bytes([sum(packet) % 256])


class Bno055:
    """A BNO055 on its UART; data sheet BST-BNO055-DS000-14, sections 3.3, 3.6.5, 4.2 and 4.7."""

    baud_rate, period_s = 115200, math.inf
    _LONGEST = 128

    def __init__(self, over_run_every: int = 50):
        """Every so many requests it answers only that its bus has over-run, as real ones do."""
        self.registers = bytearray(self._LONGEST)
        self.registers[:4] = bytes([0xA0, 0xFB, 0x32, 0x0F])
        self.registers[0x3D] = 0x10  # configuration mode, after power-on
        self.registers[0x3B] = 0x80
        self._over_run_every, self._requests = over_run_every, 0
        self._rest = b""

    def sample(self, motion: Motion) -> bytes:
        """It only answers."""
        return b""

    def receive(self, data: bytes, now_s: float, motion: Motion) -> bytes:
        """Answers to complete requests."""
        self._rest += data
        answers = b""
        while len(self._rest) >= 4:
            start, write, register, length = self._rest[:4]
            size = 4 + length if start == 0xAA and write == 0 else 4
            if len(self._rest) < size:
                break
            request, self._rest = self._rest[:size], self._rest[size:]
            self._requests += 1
            if start != 0xAA:
                answers += b"\xee\x06"
            elif self._requests % self._over_run_every == 0:
                answers += b"\xee\x07"
            elif register + length > self._LONGEST:
                answers += b"\xee\x04"
            elif write == 0:
                self.registers[register : register + length] = request[4:]
                answers += b"\xee\x01"
            else:
                self._measure(motion)
                answers += bytes([0xBB, length]) + self.registers[register : register + length]
        return answers

    def _measure(self, motion: Motion) -> None:
        if self.registers[0x3D] & 0x0F not in (0x08, 0x0C):  # IMU, NDOF
            return
        force = 980.665 * motion.specific_force
        gyro = 16 * np.degrees(motion.angular_velocity)
        quaternion = 16384 * _quaternion(motion.rotation)
        up = 980.665 * motion.rotation[2]
        for at, values in ((0x08, force), (0x14, gyro), (0x20, quaternion), (0x2E, up)):
            packed = struct.pack(f"<{len(values)}h", *map(_int16, values))
            self.registers[at : at + len(packed)] = packed


class Bno08xShtp:
    """A BNO080 in UART-SHTP mode; data sheet 1000-3927, sections 1.3.3, 1.4 and 5.

    A byte that follows the one before it within 100 us is lost, as the data sheet threatens.
    """

    baud_rate = 3_000_000
    _GAP_S = 1e-4

    def __init__(self) -> None:
        self._features: dict[int, int] = {}
        self._sequence = [0] * 6
        self._reports = 0
        self._heard: bytearray | None = None
        self._heard_s = -math.inf
        self._escaped = False

    @property
    def period_s(self) -> float:
        """The shortest interval that is set."""
        return min(self._features.values()) * 1e-6 if self._features else math.inf

    def sample(self, motion: Motion) -> bytes:
        """One frame per report: its time base, and what it measures."""
        q = 16384 * _quaternion(motion.rotation)
        values = {
            0x01: (256 * 9.80665 * motion.specific_force, b""),
            0x02: (512 * motion.angular_velocity, b""),
            0x08: (q[[1, 2, 3, 0]], b""),
            0x05: (q[[1, 2, 3, 0]], b"\x00\x08"),
        }
        frames = b""
        for report in self._features:
            numbers, rest = values[report]
            self._reports = (self._reports + 1) & 0xFF
            body = struct.pack(f"<{len(numbers)}h", *map(_int16, numbers)) + rest
            head = bytes([0xFB, 0, 0, 0, 0, report, self._reports, 3, 0])
            frames += self._frame(3, head + body)
        return frames

    def receive(self, data: bytes, now_s: float, motion: Motion) -> bytes:
        """Answers to frames whose bytes came slowly enough."""
        answers = b""
        for number, byte in enumerate(data):
            at_s = now_s + number * 10 / self.baud_rate
            if at_s - self._heard_s >= self._GAP_S - 1e-9:
                self._heard_s = at_s
                answers += self._hear(byte)
        return answers

    def _hear(self, byte: int) -> bytes:
        if byte == 0x7E:
            frame, self._heard = self._heard, None if self._heard else bytearray()
            return self._obey(bytes(frame)) if frame else b""
        if self._heard is None:
            return b""
        if byte == 0x7D:
            self._escaped = True
        else:
            self._heard.append(byte ^ 0x20 if self._escaped else byte)
            self._escaped = False
        return b""

    def _obey(self, frame: bytes) -> bytes:
        if len(frame) < 6 or frame[0] != 1:
            return b""
        length, channel = struct.unpack_from("<HB", frame, 1)
        cargo = frame[5:]
        if length != len(frame) - 1:
            return b""
        if channel == 0 and cargo[0] == 0:
            return self._advertise()
        if channel == 1 and cargo[0] == 1:
            return self._reset()
        if channel == 2 and cargo[0] == 0xF9:
            version = struct.pack("<BBBBIIHH", 0xF8, 1, 3, 2, 10003608, 370, 6, 0)
            return self._frame(2, version)
        if channel == 2 and cargo[0] == 0xFD and len(cargo) >= 17:
            report, interval_us = cargo[1], struct.unpack_from("<I", cargo, 5)[0]
            if report in (0x01, 0x02, 0x05, 0x08) and interval_us:
                self._features[report] = max(interval_us, 2500)  # 400 Hz at most
            return self._frame(2, b"\xfc" + cargo[1:5] + struct.pack("<I", interval_us) + cargo[9:])
        return b""

    def _reset(self) -> bytes:
        self._features.clear()
        self._sequence = [0] * 6
        started = bytes([0xF1, 0, 0x84, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0])
        return self._advertise() + self._frame(1, b"\x01") + self._frame(2, started)

    def _advertise(self) -> bytes:
        return self._frame(0, bytes([0x00, 0x80, 0x06]) + b"10003608\0")

    def _frame(self, channel: int, cargo: bytes) -> bytes:
        header = struct.pack("<HBB", len(cargo) + 4, channel, self._sequence[channel])
        self._sequence[channel] = (self._sequence[channel] + 1) & 0xFF
        escaped = bytearray()
        for byte in b"\x01" + header + cargo:
            escaped += bytes([0x7D, byte ^ 0x20]) if byte in (0x7D, 0x7E) else bytes([byte])
        return b"\x7e" + bytes(escaped) + b"\x7e"


def imu_to_dxl_block(motion: Motion) -> bytes:
    """The 12 bytes at address 124 of the sensor on the microduck's bus."""
    gyro = [_int16(1000 * value / 17.5) for value in np.degrees(motion.angular_velocity)]
    w, *xyz = _quaternion(motion.rotation)
    return struct.pack("<3h3e", *gyro, *(math.copysign(1.0, w) * part for part in xyz))


def _int16(value: float) -> int:
    return int(np.clip(round(float(value)), -32768, 32767))


def _quaternion(rotation: NDArray[np.float64]) -> NDArray[np.float64]:
    """Wxyz of a rotation (3, 3), by way of its eigenvector of eigenvalue 1 (Bar-Itzhack, 2000)."""
    r = rotation
    symmetric = np.array(
        [
            [r[0, 0] + r[1, 1] + r[2, 2], 0.0, 0.0, 0.0],
            [r[2, 1] - r[1, 2], r[0, 0] - r[1, 1] - r[2, 2], 0.0, 0.0],
            [r[0, 2] - r[2, 0], r[1, 0] + r[0, 1], r[1, 1] - r[0, 0] - r[2, 2], 0.0],
            [r[1, 0] - r[0, 1], r[2, 0] + r[0, 2], r[2, 1] + r[1, 2], r[2, 2] - r[0, 0] - r[1, 1]],
        ]
    )
    return np.linalg.eigh(symmetric)[1][:, -1]  # of the lower triangle; its sign does not matter


IMU_MODELS: dict[str, Callable[[], ImuModel]] = {
    "bno08x_rvc": Bno08xRvc,
    "bno08x_shtp": Bno08xShtp,
    "bno055": Bno055,
    "witmotion": WitMotion,
}
"""By `protocol` of the YAML."""
