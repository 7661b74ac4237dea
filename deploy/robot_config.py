"""`configs/robots/<robot>.yaml`: how one physical robot is wired, and what its hardware allows.

    bus: {port: /dev/ttyUSB0, baud_rate: 1000000}            # one bus, or several, by name:
    devices: {legs: {port: /dev/ttyS2}, head: {port: /dev/ttyUSB0, protocol: dynamixel2}}

Only wiring and hardware limits live here. Gains, default pose and control rate come from the
policy's contract, so they cannot drift from what was trained.
"""

import math
from collections.abc import Mapping
from typing import Annotated, Literal, Self

import yaml
from pydantic import BeforeValidator, Discriminator, Field, Tag, model_validator

from deploy.configuration import Section, did_you_mean
from deploy.imu.config import IMU_PROTOCOLS, BusImuConfig, ImuConfig
from deploy.microcontroller.config import MicrocontrollerConfig
from deploy.quantities import Angle, BaudRate, DevicePath, Name, Speed
from deploy.realtime import LoopConfig
from deploy.safety_config import WATCHDOG_STEP_MS as WATCHDOG_STEP_MS
from deploy.safety_config import SafetyConfig as SafetyConfig
from deploy.servos.catalog import MODELS
from deploy.servos.physics import SUPPLY_SHARES

SPEED_RESERVE = 1.5
"""How much faster than its data sheet a servo may turn: a full battery, a falling link."""
OVERLOAD_MARGIN = 0.9
"""Of what a servo protects itself from, so much is asked for: counts and readings are rounded."""


def _a_number(value: object) -> object:
    if isinstance(value, bool):  # which Python takes for 1
        raise ValueError(f"must be 1 or -1, found {value}")
    return value


class BusConfig(Section):
    """A serial bus with servos."""

    protocol: Literal["dynamixel2", "feetech_sts", "feetech_scs"] = "dynamixel2"
    """Wire protocol."""
    port: DevicePath
    """Device path, best a stable one below /dev/serial/by-id/."""
    baud_rate: BaudRate = 1_000_000
    """Baud rate all servos are set to."""
    usb_latency_ms: Annotated[float, Field(ge=0, le=20)] = 4.0
    """Delay the adapter is expected to add to a reply, at most (U2D2 with latency_timer=1: about
    2 ms); the real one is measured when the robot is connected, and decides."""
    imu: BusImuConfig | None = None
    """An inertial sensor among the servos, read together with them."""


def _kind_of(document: object) -> str:
    """Which section describes a device, by what is written of it."""
    if isinstance(document, Mapping):
        protocol = document.get("protocol")
    else:
        protocol = getattr(document, "protocol", None)
    if protocol == "microcontroller":
        return "microcontroller"
    return "imu" if protocol in IMU_PROTOCOLS else "servos"


AnyDevice = BusConfig | MicrocontrollerConfig | ImuConfig
DeviceConfig = Annotated[
    Annotated[BusConfig, Tag("servos")]
    | Annotated[MicrocontrollerConfig, Tag("microcontroller")]
    | Annotated[ImuConfig, Tag("imu")],
    Discriminator(_kind_of),
]
"""Whatever hangs on one serial port; `protocol` says which."""


def _lines(devices: Mapping[str, AnyDevice]) -> str:
    """A line of YAML for each device, as it was written."""
    return "".join(
        "\n  "
        + yaml.safe_dump(
            {name: device.model_dump(mode="json", exclude_unset=True)},
            default_flow_style=True,
            sort_keys=False,
            width=math.inf,
        ).strip()[1:-1]
        for name, device in devices.items()
    )


class JointWiring(Section):
    """One joint: the servo behind it and the hardware's limits."""

    device: Name | None = None
    """On which of `devices` it is; may be left out where there is one."""
    id: Annotated[int, Field(ge=0, le=252)]
    """Servo id on the bus; its place, from 0, on a microcontroller."""
    model: Name
    """Servo model, e.g. XL430-W250; checked against what answers."""
    supply_v: Annotated[float, Field(ge=1, le=100)] | None = None
    """Voltage it is fed, a battery's in the middle of its charge; by default the model's nominal
    one. Policies are for servos of this voltage, and `connect` compares it with what arrives."""
    direction: Annotated[Literal[1, -1], BeforeValidator(_a_number)] = 1
    """+1 when the servo's counts grow with the joint angle."""
    zero_ticks: Annotated[int, Field(ge=0, le=4095)] = 2048
    """Servo count at joint angle zero; by default the middle of its model's."""
    position_limits_rad: tuple[Angle, Angle]
    """Lowest and highest joint angle the mechanics allow."""
    continuous: bool = False
    """A wheel, turning without end, driven by speed or torque: `position_limits_rad` says no more
    than where it may rest."""
    velocity_limit_rad_s: Speed
    """Fastest commanded joint speed."""
    current_limit_a: Annotated[float, Field(ge=0.01, le=100)] | None = None
    """Most that its servo may draw [A], as for a gripper that is to hold gently: a DYNAMIXEL that
    measures its current then goes to angles in Current-based Position Control Mode."""
    overload_share: Annotated[float, Field(ge=0.01, le=0.5)] | None = None
    """For a gripper that is not to burn while it holds something: share of its torque from which
    its servo protects itself when it gives that for long, 2 s as it leaves the factory. Feetech's
    servos keep it (Overload Torque, from the factory 0.8); the governor asks for 0.9 of it at most,
    always, so the joint is slower too, and until it is switched off the servo gives no more either.
    None: it stays as it is found."""
    rest_rad: Angle
    """Joint angle at which the unpowered robot rests; a normal run begins and parks here."""
    rest_tolerance_rad: Annotated[float, Field(ge=0.01, le=math.pi)] = 0.2
    """A limp joint found farther than this from `rest_rad` has a wrong zero or direction, or was
    not parked: torque is not switched on. Wide for a joint that rests anywhere, as one that may
    hold something; at the end of a run it counts where it is more than `pose_tolerance_rad`."""

    @property
    def gentle(self) -> bool:
        """Whether it is to be blocked, and to hold what blocks it."""
        return self.current_limit_a is not None or self.overload_share is not None

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
        if self.model not in MODELS:
            raise ValueError(
                f"unknown servo model {self.model!r}{did_you_mean(self.model, MODELS)}; "
                f"known models are {', '.join(MODELS)}"
            )
        sheet = MODELS[self.model]
        if "zero_ticks" not in self.model_fields_set:
            object.__setattr__(self, "zero_ticks", sheet.ticks // 2)
        ticks = [self.zero_ticks + self.direction * end / sheet.rad_per_tick for end in (low, high)]
        if min(ticks) < 0 or max(ticks) > sheet.ticks - 1:
            raise ValueError(
                f"position_limits_rad [{low}, {high}] with zero_ticks {self.zero_ticks} is counts "
                f"{min(ticks):.0f} to {max(ticks):.0f}, a servo has 0 to {sheet.ticks - 1}; "
                "mount the horn closer to the middle or narrow the limits"
            )
        servo = sheet.physics
        if self.current_limit_a is not None and self.current_limit_a > sheet.most_current_a:
            raise ValueError(
                f"current_limit_a {self.current_limit_a:g} is no limit for a {self.model}, "
                + (
                    f"expected at most {sheet.most_current_a:g} A"
                    if sheet.most_current_a
                    else "which cannot be told one; leave it out"
                )
            )
        if self.overload_share is not None and not sheet.PROTECTS_ITSELF:
            raise ValueError(
                f"overload_share {self.overload_share:g} is nothing that a {self.model} can be "
                "told; leave it out"
            )
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

    @property
    def own_share(self) -> float:
        """Part of the motor's effort that its `current_limit_a` or `overload_share` leaves."""
        if self.current_limit_a is not None:
            return self.current_limit_a / MODELS[self.model].full_duty_current_a(self.voltage_v)
        return 1.0 if self.overload_share is None else OVERLOAD_MARGIN * self.overload_share

    @property
    def range_rad(self) -> tuple[float, float]:
        """Lowest and highest angle it may turn to."""
        return (-math.inf, math.inf) if self.continuous else self.position_limits_rad


class RobotConfig(Section):
    """A physical robot: `configs/robots/<robot>.yaml`."""

    robot: Name
    """Robot model the wiring belongs to; must equal the contract's."""
    model: str = ""
    """Path of that model, from this file's folder, if it is none of ours; the twin reads it."""
    bus: DeviceConfig | None = None
    """Its bus of servos, if there is one; short for one device of that name."""
    devices: dict[Name, DeviceConfig] = {}
    """All it is wired to, by a name of your choice, if there are several."""
    joints: Annotated[dict[Name, JointWiring], Field(min_length=1)]
    safety: SafetyConfig = SafetyConfig()
    loop: LoopConfig = LoopConfig()

    @property
    def wired(self) -> Mapping[str, AnyDevice]:
        """What it is wired to, in whichever of the two forms it is written, by name."""
        return {"bus": self.bus} if self.bus else self.devices

    def key_of(self, device: str) -> str:
        """Where in the file a device is."""
        return "bus" if self.bus else f"devices.{device}"

    def device_of(self, joint: str) -> str:
        """On which device a joint is."""
        return self.joints[joint].device or next(iter(self.wired))

    def at_ports(self, ports: Mapping[str, str]) -> Self:
        """The same robot with some devices, by name, at other paths."""
        moved = {
            name: device.model_copy(update={"port": ports.get(name, device.port)})
            for name, device in self.wired.items()
        }
        return self.model_copy(update=moved if self.bus else {"devices": moved})

    @model_validator(mode="after")
    def _check(self) -> "RobotConfig":
        if not self.wired:
            raise ValueError(
                "expected `bus:` or `devices:`, found neither; write `bus: {port: ...}` for a "
                "robot on one bus, else each bus by name, as in "
                "`devices: {left: {port: ...}, right: {port: ...}}`"
            )
        if self.bus and (self.devices or not isinstance(self.bus, BusConfig)):
            found = "both" if self.devices else f"a device with protocol {self.bus.protocol!r}"
            joints = "\nand `device: bus` at its joints" if self.devices else ""
            raise ValueError(
                f"expected `bus:` with servos or `devices:`, found {found}; write in place of "
                f"`bus:`\ndevices:{_lines({'bus': self.bus, **self.devices})}{joints}"
            )
        owners: dict[tuple[str, int], str] = {}
        for name, joint in self.joints.items():
            self._check_device(name, joint)
            place = self.device_of(name), joint.id
            if place in owners:
                raise ValueError(
                    f"joints {owners[place]!r} and {name!r} both have servo id {joint.id}; "
                    "give each servo its own id"
                )
            owners[place] = name
        used = {device for device, _ in owners}
        servos = {protocol for model in MODELS.values() for protocol in model.PROTOCOLS}
        for name, bus in self.wired.items():
            if name not in used and bus.protocol in servos:
                raise ValueError(
                    f"no joint is on device {name!r}; add `device: {name}` to those that are, or "
                    "delete it"
                )
            if isinstance(bus, BusConfig):
                self._check_imu(name, bus, owners)
        return self

    def _check_imu(self, name: str, bus: BusConfig, owners: Mapping[tuple[str, int], str]) -> None:
        """Refuse an inertial sensor where there can be none."""
        if bus.imu is None:
            return
        where = f"{self.key_of(name)}.imu"
        if bus.protocol != "dynamixel2":
            raise ValueError(
                f"{where}: an {bus.imu.model} speaks dynamixel2, this bus {bus.protocol}; leave it "
                "out, or give it a bus of its own"
            )
        if owner := owners.get((name, bus.imu.id)):
            raise ValueError(
                f"{where}.id {bus.imu.id} is also the servo of {owner!r}; give each its own id"
            )

    def _check_device(self, name: str, joint: JointWiring) -> None:
        """Refuse a joint that is on no device, or on one its servo cannot be on."""
        if joint.device is None and len(self.wired) > 1:
            raise ValueError(
                f"joint {name!r} does not say on which device it is; add `device:` with one of "
                f"{', '.join(self.wired)}"
            )
        if joint.device is not None and joint.device not in self.wired:
            raise ValueError(
                f"joint {name!r} is on device {joint.device!r}"
                f"{did_you_mean(joint.device, self.wired)}; there are {', '.join(self.wired)}"
            )
        device, where = self.wired[self.device_of(name)], self.key_of(self.device_of(name))
        if isinstance(device, ImuConfig):
            raise ValueError(
                f"joint {name!r} is on {where}, an inertial sensor, which drives nothing; give it "
                "the `device:` of its servo"
            )
        if isinstance(device, MicrocontrollerConfig):
            if joint.overload_share is not None:
                raise ValueError(
                    f"joint {name!r} has an overload_share on {where}, a microcontroller, which "
                    "tells servos nothing; leave it out"
                )
            return  # how the servo is wired to the board is the board's business
        model = MODELS[joint.model]
        if device.protocol not in model.PROTOCOLS:
            raise ValueError(
                f"{where}.protocol {device.protocol} is none of {name!r}, a {joint.model}; it "
                f"speaks {', '.join(model.PROTOCOLS)}"
            )
        if device.baud_rate not in model.baud_rates:
            raise ValueError(
                f"{where}.baud_rate {device.baud_rate} is none of {name!r}, a {joint.model}; "
                f"it can be set to {', '.join(map(str, model.baud_rates))}"
            )
