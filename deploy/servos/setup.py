"""The servos of a bus before anything moves: who is there, and do they hold what they must?

A servo that is absent, of another model, in error or off its supply voltage is refused; all that
are missing, or of another model, are named at once. What is kept in a servo's EEPROM, where other
programs store their calibration, changes only with approval. `deploy.servos.device` drives them.
"""

from collections.abc import Mapping, Sequence

import numpy as np

from deploy.contract import JointSpec, OperatingMode
from deploy.device import Approve, SettingChange, mode_of, refuse_changes
from deploy.errors import BusError, ServoError
from deploy.robot_config import BusConfig, RobotConfig
from deploy.serial_port import Port
from deploy.servos.bus import ATTEMPTS, ServoBus
from deploy.servos.catalog import MODELS
from deploy.servos.register import Register
from deploy.servos.scale import Scale

_NEIGHBOUR_IDS = range(1, 21)
SUPPLY_TOLERANCE = 0.15
"""A supply may be off by as much: two lithium cells of 7.4 V end at 6.6 V and start at 8.4 V."""


class ServoSetup:
    """See the module docstring.

    Args:
        name: of the device in the robot's YAML.
        config: wiring and limits.
        joints: joints of this device in the order of all arrays, with their gains.
        port: the open serial port.
        approve: whether settings in the servos' EEPROM may change.
    """

    CONTROL_TABLE: tuple[Register, ...]
    TORQUE_ENABLE: Register
    GOALS: Mapping[OperatingMode, Register]
    """What it can be told, by what drives its joints."""
    PRESENT_POSITION: Register
    PRESENT_VOLTAGE: Register
    PRESENT_TEMPERATURE: Register
    FAULTS: Register
    """What the servo complains about, in bits."""
    SUPPLY_FAULT: int
    """The bit of that for its supply."""

    def __init__(
        self,
        name: str,
        config: RobotConfig,
        joints: Sequence[JointSpec],
        port: Port,
        *,
        approve: Approve = refuse_changes,
    ):
        self.name, self.config = name, config
        self.joints = [joint.name for joint in joints]
        self.firmware: list[int] = []
        """Firmware version of each joint's servo, once connected."""
        wirings = [config.joints[joint.name] for joint in joints]
        self.id_of = {joint.name: wiring.id for joint, wiring in zip(joints, wirings, strict=True)}
        """Id of each joint's servo."""
        self.mode = mode_of(name, joints)
        """What drives its joints."""
        self._goal = self.GOALS[self.mode]
        self._specs, self._wirings = list(joints), wirings
        self._ids = [wiring.id for wiring in wirings]
        self._models = [MODELS[wiring.model] for wiring in wirings]
        self._overfed = np.array(
            [
                wiring.voltage_v * (1 + SUPPLY_TOLERANCE) > model.voltage_limits_v[1]
                for wiring, model in zip(wirings, self._models, strict=True)
            ]
        )
        """Servos that the YAML feeds more than they are rated for: they always complain."""
        self._scale = Scale(wirings)
        self._port, self._approve = port, approve
        section = config.wired[name]
        assert isinstance(section, BusConfig)
        self._bus_config = section
        self.bus = self._open(port)
        """Request and reply, for setting up."""

    def names_of_models(self) -> dict[int, str]:
        """Names of the family's models by model number; some share one."""
        names: dict[int, list[str]] = {}
        for model in MODELS.values():
            if self._bus_config.protocol in model.PROTOCOLS:
                names.setdefault(model.model_number, []).append(model.name)
        return {number: " or ".join(shared) for number, shared in names.items()}

    @classmethod
    def kept_registers(cls) -> dict[str, Register]:
        """What of a servo is kept at power-off and can be written, by name."""
        return {
            register.name: register
            for register in cls.CONTROL_TABLE
            if register.in_eeprom and not register.read_only
        }

    # What a family has of its own

    def _open(self, port: Port) -> ServoBus:
        """Its bus."""
        raise NotImplementedError

    def _kept_settings(self, row: int) -> dict[Register, int]:
        """What a servo's EEPROM must hold."""
        raise NotImplementedError

    def _running_settings(self, row: int) -> dict[Register, int]:
        """What a servo must hold while the robot runs, at power-off forgotten."""
        raise NotImplementedError

    def write_kept(self, id: int, register: Register, value: int) -> None:
        """Write to EEPROM."""
        self.bus.write_verified(id, register, value)

    def _disarm(self, id: int) -> None:
        """Switch a servo's watchdog off, if it has one."""

    def describe_faults(self, status: int) -> str:
        """What a servo complains about, in words."""
        raise NotImplementedError

    # What it is used for

    def _identify(self) -> list[int]:
        """Firmware of every servo, after checking that all are there and are what we expect."""
        found = self.bus.scan(self._ids)
        missing = [
            f"{joint} (id {id})"
            for joint, id in zip(self.joints, self._ids, strict=True)
            if id not in found and not self.bus.scan([id] * ATTEMPTS)  # a reply may be lost
        ]
        if missing:
            others = self.bus.scan(id for id in _NEIGHBOUR_IDS if id not in self._ids)
            answering = sorted({*found, *others})
            raise BusError(
                f"no answer from {', '.join(missing)}; ids that do answer at "
                f"{self._bus_config.baud_rate} baud: {answering or 'none'}. Check power, cables, "
                f"servo ids and `{self.config.key_of(self.name)}.baud_rate`"
            )
        identities = [found.get(id) or self.bus.ping(id) for id in self._ids]
        names = self.names_of_models()
        wrong = [
            f"{joint} (id {id}) is {names.get(number, f'model number {number}')}, "
            f"expected {model.name}"
            for joint, id, model, (number, _) in zip(
                self.joints, self._ids, self._models, identities, strict=True
            )
            if number != model.model_number
        ]
        if wrong:
            raise ServoError(f"{'; '.join(wrong)}; correct the robot's YAML or the servo ids")
        return [firmware for _, firmware in identities]

    def _check_health(self, row: int, name: str) -> None:
        id, expected = self._ids[row], self._wirings[row].voltage_v
        if faults := self._faults(row, self.bus.read(id, self.FAULTS)):
            raise ServoError(
                f"{name} (id {id}) reports {self.describe_faults(faults)}; remove the cause, "
                "then switch its power off and on"
            )
        volts = self.bus.read(id, self.PRESENT_VOLTAGE) * self.PRESENT_VOLTAGE.scale
        if abs(volts / expected - 1) > SUPPLY_TOLERANCE:
            raise ServoError(
                f"{name} (id {id}) is supplied with {volts:.1f} V, expected {expected:g} V ± "
                f"{SUPPLY_TOLERANCE:.0%}; check power supply or battery, or correct `supply_v` in "
                "the robot's YAML"
            )

    def _faults(self, row: int, status: int) -> int:
        """What a servo complains about beyond what the YAML has it put up with."""
        return status & ~self.SUPPLY_FAULT if self._overfed[row] else status

    def _set_up_eeprom(self, holding: list[bool]) -> None:
        """Change what is kept in EEPROM where it differs and that is approved."""
        changes: list[SettingChange] = []
        writes: list[tuple[int, Register, int]] = []
        for row, (joint, id) in enumerate(zip(self.joints, self._ids, strict=True)):
            for register, value in self._kept_settings(row).items():
                if (found := self.bus.read(id, register)) != value:
                    changes.append(
                        SettingChange(joint, id, register.name, register.address, found, value)
                    )
                    writes.append((id, register, value))
                    if holding[row]:
                        raise ServoError(
                            f"{joint} (id {id}) holds torque and its {register} is {found}, "
                            f"expected {value}; support the robot and run `robotrl release`, then "
                            "start again"
                        )
        if changes and not self._approve(changes):
            listed = "\n  ".join(map(str, changes))
            raise ServoError(
                f"settings kept in the servos would have to change:\n  {listed}\nThey may be "
                "another program's calibration, so nothing was changed. Approve it to go on: "
                "`robotrl run` asks, `deploy.open_robot` takes change_settings=True"
            )
        for write in writes:
            self.write_kept(*write)
