"""What a robot looks like: its poses, and where each joint goes.

    draw_robot(load_robot("my_arm.yaml"), Path("my_arm.png"))

One sheet: all joints at 0, the keyframes `home` and `rest`, then each joint at +0.3 rad, with a
ghost where it was, an arrow the way it went, and its axis. A wrong sign, axis or zero is seen there
before it is felt.
"""

import copy
import math
from collections.abc import Iterator, Sequence
from pathlib import Path

import mujoco
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from deploy.errors import ConfigError
from envs.render import make_renderer
from envs.robot import Robot

STEP_RAD = 0.3
"""How far each joint is turned."""
_WIDTH, _HEIGHT, _COLUMNS = 420, 320, 4
_GHOST, _ARROW, _AXIS = (0.55, 0.65, 0.95, 0.3), (0.9, 0.1, 0.1, 1.0), (0.1, 0.6, 0.2, 1.0)
_HINGE, _SLIDE = int(mujoco.mjtJoint.mjJNT_HINGE), int(mujoco.mjtJoint.mjJNT_SLIDE)
_NOTHING = (225, 230, 238)
_MOVING = int(mujoco.mjtCatBit.mjCAT_DYNAMIC)

Picture = tuple[str, np.ndarray]


def draw_robot(robot: Robot, path: Path) -> None:
    """Write the sheet as a PNG.

    Raises:
        ConfigError: the robot cannot be built, nothing can be drawn here, or the file not written.
    """
    if robot.unchecked is None:
        raise robot.refused(robot.problems())
    if path.suffix != ".png":
        raise ConfigError(f"{path}: pictures are written as .png, found {path.suffix!r}; rename it")
    model = _lit(robot.unchecked)
    with make_renderer(model, _WIDTH, _HEIGHT) as renderer:
        pictures = list(_poses(renderer, model)) + list(_joints(renderer, model))
    try:
        _sheet(robot.name, pictures).savefig(path, dpi=100)
    except OSError as error:
        raise ConfigError(f"{path} cannot be written: {error.strerror}") from error


def _lit(model: mujoco.MjModel) -> mujoco.MjModel:
    """A copy of a model, brighter if it has no lights."""
    model = copy.copy(model)
    if not model.nlight:
        model.vis.headlight.ambient[:], model.vis.headlight.diffuse[:] = 0.4, 0.6
    return model


def _render(renderer: mujoco.Renderer) -> np.ndarray:
    """The scene, (height, width, 3), where there is nothing before a bright ground."""
    picture = renderer.render().copy()
    picture[(picture == 0).all(axis=-1)] = _NOTHING
    return picture


def _poses(renderer: mujoco.Renderer, model: mujoco.MjModel) -> Iterator[Picture]:
    """Each pose from two sides."""
    for name, qpos in _named_poses(model).items():
        data = _at(model, qpos)
        for side, azimuth in ((" from the front", 145.0), (" from behind", 35.0)):
            renderer.update_scene(data, _camera(model, data, azimuth, -20.0))
            yield name + side, _render(renderer)


def _joints(renderer: mujoco.Renderer, model: mujoco.MjModel) -> Iterator[Picture]:
    """Each joint turned from the home pose, seen along its axis."""
    poses = _named_poses(model)
    start = poses.get("home", poses["zero"])
    before = _at(model, start)
    middle, size = _bounds(model, before)
    for joint in _movable(model):
        turned, qpos = model.jnt_type[joint] == _HINGE, start.copy()
        qpos[model.jnt_qposadr[joint]] += STEP_RAD if turned else 0.2 * size
        after = _at(model, qpos)
        moved = [body for body in range(model.nbody) if joint in _joints_above(model, body)]
        was, now = _tip(model, moved, before, after)
        anchor, axis = before.xanchor[joint], before.xaxis[joint]
        camera = _camera(model, before, *_along(axis, anchor - middle))
        if (near := 2.5 * float(np.linalg.norm(now - anchor)) / size) < 1:
            near = max(near, 0.4)
            camera.lookat[:] = near * camera.lookat + (1 - near) * anchor
            camera.distance *= near
        renderer.update_scene(after, camera)
        _add_ghost(renderer.scene, model, before, moved)
        scale = size * min(near, 1)
        ends = anchor - 0.15 * scale * axis, anchor + 0.15 * scale * axis
        _connect(renderer.scene, mujoco.mjtGeom.mjGEOM_CAPSULE, *ends, 0.006 * scale, _AXIS)
        _connect(renderer.scene, mujoco.mjtGeom.mjGEOM_ARROW, was, now, 0.015 * scale, _ARROW)
        step = f"+{STEP_RAD:g} rad" if turned else "out"
        yield f"{model.joint(joint).name} {step}", _render(renderer)


def _named_poses(model: mujoco.MjModel) -> dict[str, np.ndarray]:
    """Zero, home and rest; zero with the base as in home."""
    keys = {model.key(index).name: model.key_qpos[index] for index in range(model.nkey)}
    zero = keys.get("home", model.qpos0).copy()
    zero[model.jnt_qposadr[_movable(model)]] = 0.0
    return {"zero": zero} | {name: keys[name] for name in ("home", "rest") if name in keys}


def _movable(model: mujoco.MjModel) -> list[int]:
    return np.flatnonzero(np.isin(model.jnt_type, (_HINGE, _SLIDE))).tolist()


def _at(model: mujoco.MjModel, qpos: np.ndarray) -> mujoco.MjData:
    data = mujoco.MjData(model)
    data.qpos[:] = qpos
    mujoco.mj_forward(model, data)
    return data


def _bounds(model: mujoco.MjModel, data: mujoco.MjData) -> tuple[np.ndarray, float]:
    """Middle and largest extent of the robot, without floors [m]."""
    solid = model.geom_type != int(mujoco.mjtGeom.mjGEOM_PLANE)
    centre, radius = data.geom_xpos[solid], model.geom_rbound[solid, None]
    low, high = (centre - radius).min(axis=0), (centre + radius).max(axis=0)
    return (low + high) / 2, float((high - low).max())


def _camera(
    model: mujoco.MjModel, data: mujoco.MjData, azimuth: float, elevation: float
) -> mujoco.MjvCamera:
    camera = mujoco.MjvCamera()
    camera.lookat[:], size = _bounds(model, data)
    camera.distance, camera.azimuth, camera.elevation = 1.7 * size, azimuth, elevation
    return camera


def _along(axis: np.ndarray, outward: np.ndarray) -> tuple[float, float]:
    """Azimuth and elevation [deg] of a camera that looks at a turn about an axis, from outside."""
    if abs(axis[2]) > 0.8:
        return math.degrees(math.atan2(-outward[1], -outward[0])) + 20.0, -45.0
    if axis[:2] @ outward[:2] > 0:
        axis = -axis
    return math.degrees(math.atan2(axis[1], axis[0])) + 25.0, -15.0


def _tip(
    model: mujoco.MjModel, moved: Sequence[int], before: mujoco.MjData, after: mujoco.MjData
) -> tuple[np.ndarray, np.ndarray]:
    """Where the corner of a geom's box that moves most was, and where it is."""
    corners = np.array([*np.ndindex(2, 2, 2)]) * 2 - 1
    geoms = np.flatnonzero(np.isin(model.geom_bodyid, moved))
    if not len(geoms):
        return np.zeros(3), np.zeros(3)
    local = model.geom_aabb[geoms, None, :3] + model.geom_aabb[geoms, None, 3:] * corners
    was, now = (
        (data.geom_xpos[geoms, None] + np.einsum("gij,gcj->gci", xmat, local)).reshape(-1, 3)
        for data in (before, after)
        for xmat in (data.geom_xmat[geoms].reshape(-1, 3, 3),)
    )
    most = int(np.linalg.norm(now - was, axis=1).argmax())
    return was[most], now[most]


def _joints_above(model: mujoco.MjModel, body: int) -> list[int]:
    """Joints that move a body."""
    joints: list[int] = []
    while body:
        first = int(model.body_jntadr[body])
        joints += range(first, first + int(model.body_jntnum[body])) if first >= 0 else ()
        body = int(model.body_parentid[body])
    return joints


def _add_ghost(
    scene: mujoco.MjvScene, model: mujoco.MjModel, data: mujoco.MjData, moved: Sequence[int]
) -> None:
    """Some bodies as they are in another state, to be seen through."""
    first, options = scene.ngeom, mujoco.MjvOption()
    mujoco.mjv_addGeoms(model, data, options, mujoco.MjvPerturb(), _MOVING, scene)
    for geom in scene.geoms[first : scene.ngeom]:
        is_geom = geom.objtype == int(mujoco.mjtObj.mjOBJ_GEOM)
        ghost = is_geom and model.geom_bodyid[geom.objid] in moved
        geom.rgba[:], geom.matid = _GHOST if ghost else (0, 0, 0, 0), -1


def _connect(
    scene: mujoco.MjvScene,
    kind: mujoco.mjtGeom,
    start: np.ndarray,
    end: np.ndarray,
    width: float,
    rgba: tuple[float, ...],
) -> None:
    geom = scene.geoms[scene.ngeom]
    mujoco.mjv_initGeom(
        geom, kind, np.zeros(3), np.zeros(3), np.zeros(9), np.array(rgba, np.float32)
    )
    mujoco.mjv_connector(geom, kind, width, start, end)
    if kind == mujoco.mjtGeom.mjGEOM_ARROW:
        geom.size[2] = 2 * np.linalg.norm(end - start)  # drawn to half of it
    scene.ngeom += 1


def _sheet(title: str, pictures: Sequence[Picture]) -> Figure:
    rows = math.ceil(len(pictures) / _COLUMNS)
    figure = Figure(figsize=(_COLUMNS * _WIDTH / 100, rows * (_HEIGHT + 30) / 100))
    FigureCanvasAgg(figure)
    axes = figure.subplots(rows, _COLUMNS, squeeze=False).flatten()
    for axis in axes:
        axis.axis("off")
    for axis, (name, picture) in zip(axes, pictures, strict=False):
        axis.imshow(picture)
        axis.set_title(f"{title}: {name}", fontsize=9)
    figure.tight_layout(pad=0.3)
    return figure
