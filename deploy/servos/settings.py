"""What was in the servos' EEPROM before we changed it, as a file to go back by.

    save(changes, Path("logs/desk_arm-servos.yaml"))
    restore(robot.devices, Path("logs/desk_arm-servos.yaml"))

Other programs keep their calibration there: homing offsets, drive modes, limits, operating modes.
"""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import yaml
from pydantic import Field

from deploy.configuration import Section, did_you_mean, load_yaml
from deploy.device import Device, SettingChange
from deploy.errors import ConfigError, ServoError
from deploy.servos.device import ServoDevice


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
        settings[change.register] = change.found
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


def restore(devices: Sequence[Device], path: Path) -> list[str]:
    """Write saved settings back, verified; returns a line for each.

    Args:
        devices: of the robot; need not be connected.
        path: the file.

    Raises:
        ConfigError: the file names a joint or a register that is none, or is damaged.
        BusError: a servo holds torque, does not answer, or refuses.
    """
    saved = load_yaml(path, SavedSettings)
    owners = {
        joint: device
        for device in devices
        if isinstance(device, ServoDevice)
        for joint in device.joints
    }
    for joint, servo in saved.servos.items():
        if joint not in owners:
            raise ConfigError(
                f"{path}: {joint!r} is no joint of this robot{did_you_mean(joint, owners)}; it has "
                f"{', '.join(owners)}"
            )
        known = owners[joint].kept_registers()
        if unknown := servo.settings.keys() - known.keys():
            raise ConfigError(
                f"{path}: {joint}: {sorted(unknown)} are no settings of a servo; "
                f"there are {', '.join(known)}"
            )
        for name, value in servo.settings.items():
            low, high = known[name].range
            if not low <= value <= high:
                raise ConfigError(
                    f"{path}: {joint}: {known[name]} cannot hold {value}, expected {low}..{high}"
                )
        if owners[joint].bus.read(servo.id, owners[joint].TORQUE_ENABLE):
            raise ServoError(
                f"{joint} (id {servo.id}) holds torque, its settings can change only while it is "
                "limp; support the robot and run `robotrl release` first"
            )
    done = []
    for joint, servo in saved.servos.items():
        device = owners[joint]
        for name, value in servo.settings.items():
            register = device.kept_registers()[name]
            device.write_kept(servo.id, register, value)
            done.append(f"{joint} (id {servo.id}): {register} is {value}")
    return done
