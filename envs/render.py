"""Pictures of worlds: headless where there is no display, in the colours and lights of the model.

    with Renderer(env.simulation.model) as renderer:
        frame = renderer.render(look_at(env.simulation, 0))     # (height, width, 3) uint8

A backend's world is copied into an `MjData` of the nominal model and the kinematics are computed
there, so any backend can be looked at; geometry that randomization moves is drawn where the nominal
model has it. Where the base of a robot moves freely the camera follows it.

MuJoCo chooses its OpenGL by MUJOCO_GL when it is imported. Here a machine without a display gets
EGL without being asked, also when MuJoCo has been imported already; a set MUJOCO_GL is respected.
"""

import copy
import os
import sys
from collections.abc import Sequence
from typing import Self

import mujoco
import numpy as np
from mujoco.rendering.classic import gl_context

from deploy.errors import ConfigError
from envs.simulation import Simulation

WIDTH, HEIGHT = 960, 540
_MAX_SHADOW_SIZE = 2048
"""Of shadow maps [pixels]: without a GPU a larger one costs more than the rest of the picture."""
_AMBIENT, _DIFFUSE = 0.35, 0.6
"""Head light of models without lights."""
_COPIED = ("qpos", "qvel", "act", "ctrl", "mocap_pos", "mocap_quat")


def has_display() -> bool:
    """Whether a window can be opened; macOS and Windows always have one."""
    if not sys.platform.startswith("linux"):
        return True
    return bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))


def look_at(
    simulation: Simulation, world: int = 0, data: mujoco.MjData | None = None
) -> mujoco.MjData:
    """One world as MuJoCo's own struct, its kinematics computed.

    Args:
        simulation: the worlds.
        world: which one.
        data: where to; of the simulation's model. A new one without.
    """
    model = simulation.model
    if data is None:
        return look_at(simulation, world, mujoco.MjData(model))
    for name in _COPIED:
        if (target := getattr(data, name)).size:
            target[:] = simulation.data(name)[world].cpu().numpy().reshape(target.shape)
    data.time = float(simulation.data("time")[world])
    mujoco.mj_forward(model, data)
    return data


def moving_base(model: mujoco.MjModel) -> int | None:
    """The body to follow: one that moves freely and has joints behind it; not a loose cube."""
    for joint in np.flatnonzero(model.jnt_type == mujoco.mjtJoint.mjJNT_FREE):
        body = int(model.jnt_bodyid[joint])
        jointed = np.flatnonzero(model.body_jntnum)
        if any(model.body_rootid[other] == body for other in jointed if other != body):
            return body
    return None


def camera_of(model: mujoco.MjModel) -> mujoco.MjvCamera:
    """The camera a model is watched with.

    It is the model's own tracking camera if it has one, else a camera that follows the moving
    base, else one that shows all of the model.
    """
    camera = mujoco.MjvCamera()
    mujoco.mjv_defaultFreeCamera(model, camera)
    tracking = np.flatnonzero(
        (model.cam_mode == mujoco.mjtCamLight.mjCAMLIGHT_TRACK)
        | (model.cam_mode == mujoco.mjtCamLight.mjCAMLIGHT_TRACKCOM)
    )
    base = moving_base(model)
    if len(tracking):
        camera.type, camera.fixedcamid = int(mujoco.mjtCamera.mjCAMERA_FIXED), int(tracking[0])
    elif base is not None:
        camera.type, camera.trackbodyid = int(mujoco.mjtCamera.mjCAMERA_TRACKING), base
    return camera


class Renderer:
    """Renders one world after the other into images.

    Args:
        model: the worlds' model.
        width: of the images [pixels].
        height: of the images [pixels].

    Raises:
        ConfigError: there is no OpenGL on this machine; says what to install or set.
    """

    def __init__(self, model: mujoco.MjModel, width: int = WIDTH, height: int = HEIGHT):
        model = copy.copy(model)  # whose off-screen buffer may be too small
        model.vis.global_.offwidth = max(width, model.vis.global_.offwidth)
        model.vis.global_.offheight = max(height, model.vis.global_.offheight)
        quality = model.vis.quality
        quality.shadowsize = min(quality.shadowsize, _MAX_SHADOW_SIZE)
        if model.nlight == 0:  # MuJoCo's own head light leaves such a model in the dark
            light = model.vis.headlight
            light.ambient = np.maximum(light.ambient, _AMBIENT)
            light.diffuse = np.maximum(light.diffuse, _DIFFUSE)
        self.camera = camera_of(model)
        self._inner: mujoco.Renderer | None = None
        self._inner = make_renderer(model, width, height)

    def render(self, data: mujoco.MjData, markers: Sequence[mujoco.MjvGeom] = ()) -> np.ndarray:
        """An image (height, width, 3) of a world, with further geoms drawn into it."""
        if self._inner is None:
            raise RuntimeError("the renderer is closed")
        self._inner.update_scene(data, self.camera)
        scene = self._inner.scene
        for marker in markers[: scene.maxgeom - scene.ngeom]:
            slot = scene.geoms[scene.ngeom]
            mujoco.mjv_initGeom(
                slot, marker.type, marker.size, marker.pos, marker.mat.flatten(), marker.rgba
            )
            scene.ngeom += 1
        return self._inner.render().copy()

    def close(self) -> None:
        """Give the OpenGL context back."""
        if self._inner is not None:
            self._inner.close()
            self._inner = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


def make_renderer(model: mujoco.MjModel, width: int, height: int) -> mujoco.Renderer:
    """MuJoCo's renderer, on the OpenGL that this machine has.

    Raises:
        ConfigError: see `Renderer`.
    """
    backend = os.environ.get("MUJOCO_GL", "")
    try:
        if not backend and not has_display():
            backend = "egl"
            from mujoco.egl import GLContext

            gl_context.GLContext = GLContext
        return mujoco.Renderer(model, height, width)
    except Exception as error:  # PyOpenGL, GLFW and MuJoCo raise several unrelated types
        raise ConfigError(
            f"pictures need OpenGL, and {backend or 'the display'} gives none "
            f"({type(error).__name__}: {' '.join(str(error).split())[:200]}). On Debian or Ubuntu "
            "without a display: apt-get install libegl1 libgl1-mesa-dri, and leave MUJOCO_GL unset "
            "or at egl; or libosmesa6 and MUJOCO_GL=osmesa"
        ) from error
