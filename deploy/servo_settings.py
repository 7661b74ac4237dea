"""What was in the servos' EEPROM before we changed it, as a file to go back by.

    save(changes, Path("logs/desk_arm-servos.yaml"))
    restore(bus, Path("logs/desk_arm-servos.yaml"))

Other programs keep their calibration there: homing offsets, drive modes, limits, operating modes.
"""

import os
from pathlib import Path
from typing import Annotated

import yaml
from pydantic import Field

from deploy.configuration import Section, load_yaml
from deploy.dynamixel import registers
from deploy.dynamixel.bus import DynamixelBus
from deploy.errors import ConfigError, ServoError
from deploy.robot import SettingChange

_BY_NAME = {
    register.name: register
    for register in registers.CONTROL_TABLE
    if register.in_eeprom and not register.read_only
}


class ServoSettings(Section):
    """Settings of one servo."""

    id: Annotated[int, Field(ge=0, le=252)]
    """Its id on the bus."""
    settings: dict[str, Annotated[int, Field(ge=-(2**31), le=2**32 - 1)]]
    """Value of each register, by its name in the eManual."""


class SavedSettings(Section):
    """A file of saved settings."""

    servos: dict[str, ServoSettings]
    """By joint."""


def save(changes: list[SettingChange], path: Path) -> None:
    """Write the values found before `changes` to a new file, and see it on the disk.

    Raises:
        ConfigError: the file exists, or cannot be written.
    """
    servos: dict[str, dict[str, object]] = {}
    for change in changes:
        servo = servos.setdefault(change.joint, {"id": change.id, "settings": {}})
        settings = servo["settings"]
        assert isinstance(settings, dict)
        settings[change.register.name] = change.found
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("x") as file:
            file.write(
                "# Found in the servos before robotrl changed it; `robotrl restore` undoes.\n"
            )
            yaml.safe_dump({"servos": servos}, file, sort_keys=False)
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise ConfigError(
            f"{path}: the servos' settings cannot be saved ({error.strerror}), so they are not "
            "changed; choose another folder with --log"
        ) from error


def restore(bus: DynamixelBus, path: Path) -> list[str]:
    """Write saved settings back, verified; returns a line for each.

    Raises:
        ConfigError: the file names a register that is none, or is damaged.
        BusError: a servo holds torque, does not answer, or refuses.
    """
    saved = load_yaml(path, SavedSettings)
    for joint, servo in saved.servos.items():
        if unknown := servo.settings.keys() - _BY_NAME.keys():
            raise ConfigError(
                f"{path}: {joint}: {sorted(unknown)} are no settings of a servo; "
                f"there are {', '.join(_BY_NAME)}"
            )
        for name, value in servo.settings.items():
            low, high = _BY_NAME[name].range
            if not low <= value <= high:
                raise ConfigError(
                    f"{path}: {joint}: {_BY_NAME[name]} cannot hold {value}, expected {low}..{high}"
                )
        if bus.read(servo.id, registers.TORQUE_ENABLE):
            raise ServoError(
                f"{joint} (id {servo.id}) holds torque, its settings can change only while it is "
                "limp; support the robot and run `robotrl release` first"
            )
    done = []
    for joint, servo in saved.servos.items():
        for name, value in servo.settings.items():
            bus.write_verified(servo.id, _BY_NAME[name], value)
            done.append(f"{joint} (id {servo.id}): {_BY_NAME[name]} is {value}")
    return done
