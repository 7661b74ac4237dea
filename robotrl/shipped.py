"""Configurations that come with the package: in a checkout `configs/`, in a wheel beside us."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

from deploy.configuration import load_yaml
from deploy.errors import ConfigError
from deploy.robot_config import RobotConfig

_HERE = Path(__file__).parent


def config_path(name: str) -> Path:
    """Path of a shipped configuration, e.g. `robots/desk_arm.yaml`."""
    for folder in (_HERE / "configs", _HERE.parent / "configs"):
        if (folder / name).exists():
            return folder / name
    raise ConfigError(f"configs/{name} did not come with this installation; install robotrl again")


def shipped_robots(robot: str) -> Iterator[tuple[Path, RobotConfig]]:
    """Wirings of a robot model that come with the package, as far as they can be read."""
    for path in sorted(config_path("robots").glob("*.yaml")):
        with contextlib.suppress(ConfigError):  # somebody is writing it
            if (config := load_yaml(path, RobotConfig)).robot == robot:
                yield path, config
