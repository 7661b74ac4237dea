"""`configs/robots/<robot>.yaml`: how one physical robot is wired, and what its hardware allows.

Only wiring and hardware limits live here. Gains, default pose and control rate come from the
policy's contract, so they cannot drift from what was trained.
"""

import math
from typing import Annotated, Literal

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from deploy.configuration import Section, did_you_mean
from deploy.dynamixel.registers import BAUD_RATES, RAD_PER_TICK, TICKS_PER_TURN
from deploy.dynamixel.servos import MODELS
from deploy.quantities import Angle, Name, Speed
from deploy.realtime import LoopConfig
from deploy.safety_config import WATCHDOG_STEP_MS as WATCHDOG_STEP_MS
from deploy.safety_config import SafetyConfig as SafetyConfig
from deploy.servo_physics import SUPPLY_SHARES

SPEED_RESERVE = 1.5
"""How much faster than its data sheet a servo may turn: a full battery, a falling link."""


def _device_path(port: str) -> str:
    if not port.startswith("/") or port.endswith("/") or len(port) > 1000:
        raise ValueError(f"expected the path of a device such as /dev/ttyUSB0, found {port!r}")
    return port


def _a_number(value: object) -> object:
    if isinstance(value, bool):  # which Python takes for 1
        raise ValueError(f"must be 1 or -1, found {value}")
    return value


class BusConfig(Section):
    """The serial bus all servos hang on."""

    protocol: Literal["dynamixel2"] = "dynamixel2"
    """Wire protocol."""
    port: Annotated[str, AfterValidator(_device_path)]
    """Device path, best a stable one below /dev/serial/by-id/."""
    baud_rate: Annotated[int, Field(ge=9600, le=4_500_000)] = 1_000_000
    """Baud rate all servos are set to."""
    usb_latency_ms: Annotated[float, Field(ge=0, le=20)] = 4.0
    """Delay the adapter is expected to add to a reply, at most (U2D2 with latency_timer=1: about
    2 ms); the real one is measured when the robot is connected, and decides."""


class JointWiring(Section):
    """One joint: the servo behind it and the hardware's limits."""

    id: Annotated[int, Field(ge=0, le=252)]
    """Servo id on the bus."""
    model: Name
    """Servo model, e.g. XL430-W250; checked against what answers."""
    supply_v: Annotated[float, Field(ge=1, le=100)] | None = None
    """Voltage it is fed, a battery's in the middle of its charge; by default the model's nominal
    one. Policies are for servos of this voltage, and `connect` compares it with what arrives."""
    direction: Annotated[Literal[1, -1], BeforeValidator(_a_number)] = 1
    """+1 when the servo's counts grow with the joint angle."""
    zero_ticks: Annotated[int, Field(ge=0, le=4095)] = 2048
    """Servo count at joint angle zero."""
    position_limits_rad: tuple[Angle, Angle]
    """Lowest and highest joint angle the mechanics allow."""
    velocity_limit_rad_s: Speed
    """Fastest commanded joint speed."""
    rest_rad: Angle
    """Joint angle at which the unpowered robot rests; a normal run begins and parks here."""
    rest_tolerance_rad: Annotated[float, Field(ge=0.01, le=math.pi)] = 0.2
    """A limp joint found farther than this from `rest_rad` has a wrong zero or direction, or was
    not parked: torque is not switched on. Wide for a joint that rests anywhere."""

    @model_validator(mode="after")
    def _check(self) -> "JointWiring":
        low, high = self.position_limits_rad
        if not low < high:
            raise ValueError(f"position_limits_rad must be [low, high], found [{low}, {high}]")
        if not low <= self.rest_rad <= high:
            raise ValueError(f"rest_rad {self.rest_rad} is outside position_limits_rad")
        if abs(low) > math.pi or abs(high) > math.pi:
            raise ValueError(
                f"position_limits_rad [{low}, {high}] exceeds one turn (±3.1416 rad); "
                "joint angles are in radians, not degrees"
            )
        ticks = [self.zero_ticks + self.direction * end / RAD_PER_TICK for end in (low, high)]
        if min(ticks) < 0 or max(ticks) > TICKS_PER_TURN - 1:
            raise ValueError(
                f"position_limits_rad [{low}, {high}] with zero_ticks {self.zero_ticks} is counts "
                f"{min(ticks):.0f} to {max(ticks):.0f}, a servo has 0 to {TICKS_PER_TURN - 1}; "
                "mount the horn closer to the middle or narrow the limits"
            )
        if self.model not in MODELS:
            raise ValueError(
                f"unknown servo model {self.model!r}{did_you_mean(self.model, MODELS)}; "
                f"known models are {', '.join(MODELS)}"
            )
        servo = MODELS[self.model].physics
        lowest_v, highest_v = (share * servo.nominal_voltage_v for share in SUPPLY_SHARES)
        if not lowest_v <= self.voltage_v <= highest_v:
            raise ValueError(
                f"supply_v {self.voltage_v:g} is no supply for a {self.model}, expected "
                f"{lowest_v:g}..{highest_v:g} V; correct it, or leave it out for "
                f"{servo.nominal_voltage_v:g} V"
            )
        fastest = SPEED_RESERVE * servo.no_load_speed(self.voltage_v)
        if self.velocity_limit_rad_s > fastest:
            raise ValueError(
                f"velocity_limit_rad_s {self.velocity_limit_rad_s:g} is no limit for a "
                f"{self.model}, which turns at {fastest / SPEED_RESERVE:.2g} rad/s without load; "
                f"expected at most {fastest:.2g}"
            )
        return self

    @property
    def voltage_v(self) -> float:
        """`supply_v`, or the nominal one."""
        return self.supply_v or MODELS[self.model].nominal_voltage_v


class RobotConfig(Section):
    """A physical robot: `configs/robots/<robot>.yaml`."""

    robot: Name
    """Robot model the wiring belongs to; must equal the contract's."""
    model: str = ""
    """Path of that model, from this file's folder, if it is none of ours; the twin reads it."""
    bus: BusConfig
    joints: Annotated[dict[Name, JointWiring], Field(min_length=1)]
    safety: SafetyConfig = SafetyConfig()
    loop: LoopConfig = LoopConfig()

    @model_validator(mode="after")
    def _check(self) -> "RobotConfig":
        owners: dict[int, str] = {}
        for name, joint in self.joints.items():
            if joint.id in owners:
                raise ValueError(
                    f"joints {owners[joint.id]!r} and {name!r} both have servo id {joint.id}; "
                    "give each servo its own id"
                )
            owners[joint.id] = name
            fastest = MODELS[joint.model].max_baud_rate
            valid = [rate for rate in BAUD_RATES if rate <= fastest]
            if self.bus.baud_rate not in valid:
                raise ValueError(
                    f"bus.baud_rate {self.bus.baud_rate} is none of {name!r}, a {joint.model}; "
                    f"it can be set to {', '.join(map(str, valid))}"
                )
        return self
