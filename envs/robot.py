"""Robots that ship with the package: one MJCF folder each.

A robot's MJCF names its actuators like its joints, has sensors `<joint>_position` and
`<joint>_velocity`, and keyframes `home` (the start pose) and `rest` (stable without power).
"""

import hashlib
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import mujoco
import numpy as np

from deploy.configuration import did_you_mean
from deploy.errors import ConfigError

_FOLDER = Path(__file__).parent / "robots"


@dataclass(frozen=True)
class Robot:
    """A robot model."""

    name: str
    path: Path
    """The MJCF file."""

    @cached_property
    def model(self) -> mujoco.MjModel:
        """The compiled nominal model."""
        return mujoco.MjModel.from_xml_path(str(self.path))

    @property
    def joints(self) -> list[str]:
        """Actuated joints in the model's order; the order of every joint array."""
        return [self.model.actuator(index).name for index in range(self.model.nu)]

    @property
    def home(self) -> np.ndarray:
        """Start pose [rad], (nq,)."""
        return self.model.keyframe("home").qpos.copy()

    @property
    def sha256(self) -> str:
        """Identity of the model."""
        return hashlib.sha256(self.path.read_bytes()).hexdigest()


def load_robot(name: str) -> Robot:
    """Find a robot by name.

    Raises:
        ConfigError: there is no such robot.
    """
    names = sorted(path.name for path in _FOLDER.iterdir() if (path / f"{path.name}.xml").exists())
    if name not in names:
        raise ConfigError(
            f"unknown robot {name!r}{did_you_mean(name, names)}; there are {', '.join(names)}"
        )
    return Robot(name, _FOLDER / name / f"{name}.xml")
