"""What is asked for, drawn: a ball where a tool or thing should be, an arrow where the base goes.

The arrow is as long as the way of one second, and starts above the base. How fast to turn is not
drawn; the viewer shows the number.
"""

from collections.abc import Sequence

import mujoco
import numpy as np

from deploy.contract import CommandSpec
from envs.render import moving_base

_RGBA = np.array([0.1, 0.75, 0.35, 0.8], np.float32)
_STANDING_M_S = 1e-3


def command_markers(
    spec: CommandSpec | None, command: Sequence[float], data: mujoco.MjData
) -> list[mujoco.MjvGeom]:
    """Geoms for a command.

    Args:
        spec: what the numbers are; None: there is no command.
        command: (elements,) its values.
        data: the world now.
    """
    if spec is None or len(command) != len(spec.elements):
        return []
    value = dict(zip(spec.elements, command, strict=True))
    model, extent = data.model, float(data.model.stat.extent)
    if {"x", "y"} <= value.keys() and set(spec.units) == {"m"} and spec.frame == "base":
        point = [value["x"], value["y"], value.get("z", 0.0)]
        return [_geom(mujoco.mjtGeom.mjGEOM_SPHERE, [0.02 * extent] * 3, point)]
    units = dict(zip(spec.elements, spec.units, strict=True))
    base = moving_base(model)
    if base is None or units.get("x") != "m/s":
        return []
    forward = data.xmat[base].reshape(3, 3)[:, 0]
    yaw = np.arctan2(forward[1], forward[0])
    x, y = value["x"], value.get("y", 0.0)
    if np.hypot(x, y) < _STANDING_M_S:
        return []
    way = np.array([np.cos(yaw) * x - np.sin(yaw) * y, np.sin(yaw) * x + np.cos(yaw) * y, 0])
    start = data.xpos[base] + np.array([0, 0, 0.35 * extent])
    geom = _geom(mujoco.mjtGeom.mjGEOM_ARROW, [0, 0, 0], [0, 0, 0])
    mujoco.mjv_connector(geom, int(mujoco.mjtGeom.mjGEOM_ARROW), 0.015 * extent, start, start + way)
    return [geom]


def _geom(kind: mujoco.mjtGeom, size: Sequence[float], position: Sequence[float]) -> mujoco.MjvGeom:
    geom = mujoco.MjvGeom()
    mujoco.mjv_initGeom(
        geom, int(kind), np.array(size, float), np.array(position, float), np.eye(3).ravel(), _RGBA
    )
    return geom
