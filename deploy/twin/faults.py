"""What can go wrong with a robot, done to a twin: a script in YAML, the same run for the same seed.

    seed: 3
    faults:
      - {kind: drop, at_s: 2, for_s: 5, share: 0.1}         # of the replies of the only device
      - {kind: unplug, device: arm, at_s: 9, for_s: 1.5}    # and plugged in again
      - {kind: brown_out, part: elbow_flex, at_s: 15, for_s: 0.3}
      - {kind: absent, part: gripper}                      # from the beginning

    faults = Faults(twin, load_yaml(path, FaultScript))     # or robotrl twin --faults FILE
    faults.begin(fault)                                     # one by hand

`at_s` counts from when the servos hold for the first time. A reply is what the adapter hands over
in one piece. What each fault leads to is the table in `deploy/README.md`.
"""

import math
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import replace
from typing import Annotated, Literal

import numpy as np
from pydantic import Field

from deploy.configuration import Section, did_you_mean
from deploy.dynamixel import registers as dynamixel
from deploy.errors import ConfigError
from deploy.feetech import registers as feetech
from deploy.quantities import Duration, Name, Seed
from deploy.twin.board_wire import BoardWire
from deploy.twin.imu import ImuWire
from deploy.twin.imu_slave import ImuSlave
from deploy.twin.robot import AnyServo, AnyWire, Twin
from deploy.twin.servo import Servo
from deploy.twin.wire import Wire

OLD_FIRMWARE = 38
"""An X servo's from before fast reads."""
IMU = "imu"
"""A fault's `part` that is an inertial sensor."""
_BYTE_S = 1e-5
"""Of an echo, at 1 Mbaud."""

Kind = Literal[
    "drop",
    "corrupt",
    "truncate",
    "delay",
    "echo",
    "unplug",
    "absent",
    "duplicate",
    "stuck",
    "brown_out",
    "overload",
    "firmware",
]


class Fault(Section):
    """One fault."""

    kind: Kind
    """drop, corrupt (a bit), truncate, delay, echo: what becomes of replies; unplug: the adapter;
    absent: it says nothing any more; duplicate: it has the next joint's id; stuck: a joint is
    blocked, a sensor repeats itself; brown_out: it loses its power; overload: it reports one;
    firmware: a servo's before fast reads, a board's with other joints."""
    at_s: Annotated[float, Field(ge=0, le=100_000)] | None = None
    """Since the servos first held; none: from the beginning."""
    for_s: Duration | None = None
    """Until it is over; none: never."""
    device: Name | None = None
    """Which one; none: the joint's, or the first."""
    part: Name | None = None
    """Of it: a joint's servo, or `imu` on a bus; none: all there is."""
    share: Annotated[float, Field(ge=0, le=1)] = 1.0
    """Of the replies."""
    replies: Annotated[int, Field(ge=1, le=1_000_000)] | None = None
    """How many it spoils, and no more; none: no end to it."""
    delay_ms: Annotated[float, Field(ge=0, le=10_000)] = 20.0
    """How much later a reply comes."""


class FaultScript(Section):
    """A file of them."""

    seed: Seed = 0
    """Of what is drawn: which replies, which bits."""
    faults: list[Fault] = []


class FaultyWire:
    """A wire whose replies suffer; otherwise the one it is put around."""

    def __init__(self, wire: AnyWire, rng: np.random.Generator):
        self.wire, self._rng = wire, rng
        self.faults: list[Fault] = []
        """Those that are on."""
        self._spoilt: Counter[int] = Counter()
        self._held: deque[tuple[float, bytes]] = deque()

    @property
    def next_event_s(self) -> float:
        """As of the wire."""
        return self.wire.next_event_s

    @property
    def reply_s(self) -> float:
        """When the host will have received something."""
        return min(self._held[0][0] if self._held else math.inf, self.wire.reply_s)

    def run_event(self) -> None:
        """As of the wire."""
        self.wire.run_event()

    def send(self, data: bytes, now_s: float, baud_rate: int | None = None) -> None:
        """The host writes; an echo comes back at once."""
        if any(fault.kind == "echo" for fault in self.faults):
            self._hold(now_s + len(data) * _BYTE_S, data)
        self.wire.send(data, now_s, baud_rate)

    def take(self, now_s: float) -> bytes:
        """What has come by now and was not handed out; of a reply that may suffer, all or none."""
        while (reply_s := self.wire.reply_s) <= now_s + 1e-9:
            self._suffer(bytearray(self.wire.take(reply_s)), now_s)
        if not self.faults and (begun := self.wire.take(now_s)):
            self._hold(now_s, begun)
        taken = b""
        while self._held and self._held[0][0] <= now_s + 1e-9:
            taken += self._held.popleft()[1]
        return taken

    def _suffer(self, reply: bytearray, now_s: float) -> None:
        for fault in self.faults:
            if not reply or self._rng.random() >= fault.share:
                continue
            self._spoilt[id(fault)] += 1
            if self._spoilt[id(fault)] > (fault.replies or math.inf):
                continue
            match fault.kind:
                case "drop":
                    reply.clear()
                case "corrupt":
                    reply[self._rng.integers(len(reply))] ^= 1 << int(self._rng.integers(8))
                case "truncate":
                    del reply[self._rng.integers(len(reply)) :]
                case "delay":
                    now_s += fault.delay_ms / 1000
        if reply:
            self._hold(now_s, bytes(reply))

    def _hold(self, until_s: float, data: bytes) -> None:
        """Bytes keep their order."""
        last_s = self._held[-1][0] if self._held else -math.inf
        self._held.append((max(until_s, last_s), data))


class Faults:
    """See the module docstring."""

    def __init__(self, twin: Twin, script: FaultScript | None = None):
        """Put them around a twin; what has no `at_s` begins now.

        Raises:
            ConfigError: a fault is of a joint or device that the robot does not have.
        """
        self._twin, script = twin, script or FaultScript()
        rng = np.random.default_rng(script.seed)
        self._wires = {name: FaultyWire(wire, rng) for name, wire in twin.wires.items()}
        twin.wires.update(self._wires)  # pyright: ignore[reportCallIssue, reportArgumentType]
        self.begun = 0
        """How many faults have begun."""
        self._held_s: float | None = None
        self._due = sorted(
            (moment for fault in script.faults for moment in self._moments(fault)),
            key=lambda moment: moment[0],
        )
        self._next_step, twin.on_step = twin.on_step, self._step

    def begin(self, fault: Fault) -> None:
        """Let something go wrong, now."""
        self.begun += 1
        self._switch(fault, True)

    def end(self, fault: Fault) -> None:
        """Let it be over, now; the robot need not be as it was."""
        self._switch(fault, False)

    def _switch(self, fault: Fault, on: bool) -> None:
        twin, device = self._twin, self._device(fault)
        match fault.kind:
            case "unplug":
                (twin.unplugged.add if on else twin.unplugged.discard)(device)
            case "absent":
                self._hush(fault, on)
            case "brown_out":
                self._hush(fault, on)
                for servo in self._servos(fault) if on else ():
                    servo.reboot()
                    servo.hush(math.inf)
                if on and isinstance(wire := self._wires[device].wire, BoardWire):
                    wire.restart()
            case "stuck" if fault.part in twin.joints:
                twin.block(fault.part, on)
            case "stuck":
                for sensor in self._sensors(fault):
                    sensor.frozen = on
            case "duplicate" if on:
                self._collide(fault)
            case "overload" if on:
                for servo in self._servos(fault):
                    _overload(servo)
            case "firmware" if on:
                self._downgrade(fault)
            case "drop" | "corrupt" | "truncate" | "delay" | "echo":
                suffered = self._wires[device].faults
                (suffered.append if on else suffered.remove)(fault)

    def _device(self, fault: Fault) -> str:
        """The one it is about."""
        of_part = self._twin.device_of(fault.part) if fault.part in self._twin.joints else None
        return fault.device or of_part or self._twin.devices[0]

    def _servos(self, fault: Fault) -> list[AnyServo]:
        """Those it is about."""
        twin, device = self._twin, self._device(fault)
        return [
            servo
            for joint, servo in zip(twin.joints, twin.servos, strict=True)
            if twin.device_of(joint) == device and fault.part in (None, joint)
        ]

    def _sensors(self, fault: Fault) -> list[ImuSlave | ImuWire]:
        """Inertial sensors it is about."""
        wire = self._wires[self._device(fault)].wire
        if isinstance(wire, ImuWire):
            return [wire]
        return list(self._twin.imus) if fault.part in (None, IMU) else []

    def _hush(self, fault: Fault, on: bool) -> None:
        """Nothing is heard of it, and it hears nothing."""
        for servo in self._servos(fault):
            servo.hush(math.inf if on else -math.inf)
        for sensor in self._sensors(fault):
            sensor.silent = on
        if isinstance(wire := self._wires[self._device(fault)].wire, BoardWire):
            wire.silent = on

    def _collide(self, fault: Fault) -> None:
        """Two answer to one id at once, so what is heard on their line is neither."""
        (servo,), here = self._servos(fault), self._servos(fault.model_copy(update={"part": None}))
        other = here[(here.index(servo) + 1) % len(here)]
        servo.force(servo.registers.ID, other.id)  # pyright: ignore[reportArgumentType]
        self._wires[self._device(fault)].faults.append(Fault(kind="corrupt"))

    def _downgrade(self, fault: Fault) -> None:
        """Of a board, another sketch; of a servo, an older version."""
        wire = self._wires[self._device(fault)].wire
        if isinstance(wire, BoardWire):
            welcome = wire.board.welcome
            wire.board.welcome = replace(welcome, joints=welcome.joints + 1)
        for servo in self._servos(fault):
            if isinstance(servo, Servo) and isinstance(wire, Wire):
                servo.force(dynamixel.FIRMWARE_VERSION, OLD_FIRMWARE)

    def _moments(self, fault: Fault) -> list[tuple[float, Callable[[], None]]]:
        """When it begins and ends, after the servos first held."""
        _refuse_unknown("part", fault.part, [*self._twin.joints, IMU])
        _refuse_unknown("device", fault.device, self._twin.devices)
        if fault.kind == "duplicate" and fault.part not in self._twin.joints:
            raise ConfigError(
                f"a `duplicate` is of part {fault.part!r}, expected a joint, whose servo takes the "
                f"id of the next one; name one of {', '.join(self._twin.joints)}"
            )
        if fault.at_s is None:
            self.begin(fault)
        moments = [] if fault.at_s is None else [(fault.at_s, lambda: self.begin(fault))]
        if fault.for_s is not None:
            moments.append(((fault.at_s or 0.0) + fault.for_s, lambda: self.end(fault)))
        return moments

    def _step(self) -> None:
        self._next_step()
        if self._held_s is None:
            if not any(servo.torque_on for servo in self._twin.servos):
                return
            self._held_s = self._twin.time_s
        while self._due and self._due[0][0] <= self._twin.time_s - self._held_s:
            self._due.pop(0)[1]()


def _overload(servo: AnyServo) -> None:
    """It complains; by its factory settings an X servo lets go, a Feetech one grows weak."""
    if isinstance(servo, Servo):
        servo.force(dynamixel.HARDWARE_ERROR_STATUS, dynamixel.HardwareError.OVERLOAD)
        servo.force(dynamixel.TORQUE_ENABLE, 0)
    else:
        servo.force(feetech.STATUS, feetech.Fault.OVERLOAD)


def _refuse_unknown(what: str, name: str | None, known: list[str]) -> None:
    if name is not None and name not in known:
        raise ConfigError(
            f"a fault is of {what} {name!r}, which the robot does not have"
            f"{did_you_mean(name, known)}; it has {', '.join(known)}"
        )
