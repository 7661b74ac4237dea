"""An inertial sensor that is turned, spins and lies still, behind a port in virtual time."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import pytest

from deploy.clock import VirtualClock
from deploy.imu.config import ImuConfig
from deploy.imu.device import Imu

pytest.importorskip("mujoco", reason="the twin needs robotrl[train]")

from deploy.twin.imu import IMU_MODELS, ImuModel, ImuWire, Motion
from deploy.twin.port import VirtualPort


def turned(axis: tuple[float, float, float], angle: float) -> np.ndarray:
    """Rotation (3, 3) about an axis, by Rodrigues' formula."""
    x, y, z = np.array(axis) / np.linalg.norm(axis)
    cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    return np.eye(3) + np.sin(angle) * cross + (1 - np.cos(angle)) * cross @ cross


class Alone:
    """A sensor as a twin without a robot."""

    def __init__(self, wire: ImuWire):
        self._wire = wire

    def wake_of(self, device: str | None) -> float:
        return min(self._wire.next_event_s, self._wire.reply_s)

    def is_unplugged(self, device: str | None) -> bool:
        return False

    def receive(self, data: bytes, now_s: float, baud_rate: int | None, device: str | None) -> None:
        self.advance(now_s)
        self._wire.send(data, now_s, baud_rate)

    def advance(self, now_s: float) -> None:
        while self._wire.next_event_s <= now_s:
            self._wire.run_event()

    def take(self, now_s: float, device: str | None) -> bytes:
        return self._wire.take(now_s)


@dataclass
class Bench:
    """A sensor on the bench."""

    model: ImuModel
    clock: VirtualClock = field(default_factory=VirtualClock)
    rotation: np.ndarray = field(default_factory=lambda: np.eye(3))
    spin: np.ndarray = field(default_factory=lambda: np.zeros(3))
    bias: np.ndarray = field(default_factory=lambda: np.zeros(3))

    def __post_init__(self) -> None:
        self._turned_s = 0.0
        self.wire = ImuWire(self.model, self.motion, seed=1)
        self.port = VirtualPort(Alone(self.wire), self.clock)  # pyright: ignore[reportArgumentType]

    def motion(self, now_s: float) -> Motion:
        """Where it is by then, spinning in its own frame."""
        speed = float(np.linalg.norm(self.spin))
        if speed:
            self.rotation = self.rotation @ turned(
                tuple(self.spin), speed * (now_s - self._turned_s)
            )
        self._turned_s = now_s
        up = self.rotation[2]
        return Motion(self.rotation, self.spin + self.bias, up.copy())

    def imu(self, protocol: str, **settings: object) -> Imu:
        config = ImuConfig.model_validate(
            {
                "protocol": protocol,
                "port": "/dev/ttyUSB0",
                "baud_rate": self.model.baud_rate,
                **settings,
            }
        )
        return Imu("imu", config, self.port)

    def wait(self, duration_s: float) -> None:
        self.clock.sleep_until(self.clock.now() + duration_s)


@pytest.fixture(params=list(IMU_MODELS))
def protocol(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def bench(protocol: str) -> Bench:
    return Bench(IMU_MODELS[protocol]())
