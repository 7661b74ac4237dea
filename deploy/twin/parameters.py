"""How one simulated robot differs from the nominal model: our stand-in for the reality gap.

    draw(3, model_path)              # one particular robot
    draw(None, model_path)           # the nominal one
    draw(3, model_path).to_dict()    # what was drawn, for a log

Scales are factors on the nominal value, one per body or joint, drawn independently.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import mujoco
import numpy as np

MASS_SCALE = (0.85, 1.15)
"""Printing infill, screws, cables."""
FRICTION_SCALE = (0.6, 1.4)
"""Coulomb friction; it differs most from one gearbox to the next, and with its temperature."""
DAMPING_SCALE = (0.8, 1.2)
"""Back-EMF of the motor."""
STRENGTH_SCALE = (0.9, 1.1)
"""Stall torque of the motor at its nominal voltage."""
ARMATURE_SCALE = (0.8, 1.2)
"""Rotor inertia seen at the joint."""
COMMAND_LATENCY_S = (0.0, 0.005)
"""From a goal's arrival at the servo to its use by the position controller."""


@dataclass(frozen=True)
class TwinParameters:
    """The physics of one simulated robot; names not listed have the scale 1."""

    seed: int | None = None
    """What it was drawn from; None for the nominal robot."""
    mass_scale: dict[str, float] = field(default_factory=dict)
    """By body; mass and inertia."""
    friction_scale: dict[str, float] = field(default_factory=dict)
    """By joint."""
    damping_scale: dict[str, float] = field(default_factory=dict)
    """By joint."""
    strength_scale: dict[str, float] = field(default_factory=dict)
    """By joint."""
    armature_scale: dict[str, float] = field(default_factory=dict)
    """By joint."""
    supply_scale: float = 1.0
    """Supply voltage over each servo's nominal one."""
    command_latency_s: float = 0.0
    """Latency inside the servos, see `COMMAND_LATENCY_S`."""
    usb_latency_s: float = 0.001
    """What the USB adapter adds to each reply."""

    def to_dict(self) -> dict[str, object]:
        """Plain data, for JSON and tables."""
        return asdict(self)


def draw(seed: int | None, model_path: Path) -> TwinParameters:
    """One robot: the nominal one for None, else physically different within the ranges above.

    Args:
        seed: what the robot is drawn from; the same seed is the same robot.
        model_path: the robot's MJCF, for the names of its bodies and joints.
    """
    if seed is None:
        return TwinParameters()
    model = mujoco.MjModel.from_xml_path(str(model_path))
    bodies = [model.body(index).name for index in np.flatnonzero(model.body_mass)]
    joints = [model.joint(index).name for index in range(model.njnt)]
    rng = np.random.default_rng(seed)

    def scales(names: Sequence[str], bounds: tuple[float, float]) -> dict[str, float]:
        return dict(zip(names, rng.uniform(*bounds, len(names)).tolist(), strict=True))

    return TwinParameters(
        seed=seed,
        mass_scale=scales(bodies, MASS_SCALE),
        friction_scale=scales(joints, FRICTION_SCALE),
        damping_scale=scales(joints, DAMPING_SCALE),
        strength_scale=scales(joints, STRENGTH_SCALE),
        armature_scale=scales(joints, ARMATURE_SCALE),
        command_latency_s=rng.uniform(*COMMAND_LATENCY_S),
    )
