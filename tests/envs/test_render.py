"""Pictures show the world that was asked for, from where they say, without a display too."""

import os
import subprocess
import sys

import mujoco
import numpy as np
import pytest
import torch

import envs
from envs.render import HEIGHT, WIDTH, Renderer, camera_of, look_at, moving_base

SCENE = """
<mujoco>
  <visual><headlight ambient="1 1 1" diffuse="0 0 0" specular="0 0 0"/></visual>
  <statistic extent="1" center="0 0 0"/>
  <worldbody>
    <light diffuse="0 0 0"/>
    <body name="puck" pos="1 0 0"><freejoint/><geom size="0.05" rgba="0 0 1 1"/></body>
    <body name="trunk"><freejoint/><geom size="0.1" rgba="1 0 0 1"/>
      <body pos="0.2 0 0"><joint axis="0 0 1"/><geom size="0.05" rgba="0 1 0 1"/></body>
    </body>
  </worldbody>
</mujoco>
"""

pytestmark = pytest.mark.usefixtures("opengl")


@pytest.fixture
def scene() -> mujoco.MjData:
    model = mujoco.MjModel.from_xml_string(SCENE)
    data = mujoco.MjData(model)
    mujoco.mj_forward(model, data)
    return data


def project(point: np.ndarray, camera: mujoco.MjvCamera, fovy_deg: float) -> tuple[float, float]:
    """Pixel (row, column) of a point for a free camera: the pinhole, by hand."""
    a, e = np.radians(camera.azimuth), np.radians(camera.elevation)
    forward = np.array([np.cos(e) * np.cos(a), np.cos(e) * np.sin(a), np.sin(e)])
    right = np.array([np.sin(a), -np.cos(a), 0])
    way = point - (camera.lookat - camera.distance * forward)
    focal = HEIGHT / 2 / np.tan(np.radians(fovy_deg) / 2)
    depth = way @ forward
    up = np.cross(right, forward)
    row = HEIGHT / 2 - focal * (way @ up) / depth
    return row, WIDTH / 2 + focal * (way @ right) / depth


def centre(mask: np.ndarray) -> tuple[float, float]:
    rows, columns = np.nonzero(mask)
    return rows.mean(), columns.mean()


def test_things_are_where_a_pinhole_camera_sees_them(scene: mujoco.MjData):
    with Renderer(scene.model) as renderer:
        camera = renderer.camera
        camera.type = int(mujoco.mjtCamera.mjCAMERA_FREE)
        camera.lookat[:] = 0.3, 0.1, -0.2
        camera.distance, camera.azimuth, camera.elevation = 3.0, 110.0, -30.0
        marker = mujoco.MjvGeom()
        mujoco.mjv_initGeom(
            marker,
            int(mujoco.mjtGeom.mjGEOM_SPHERE),
            np.full(3, 0.03),
            np.array([-0.4, 0.5, 0.3]),
            np.eye(3).flatten(),
            np.array([1, 1, 0, 1], np.float32),
        )
        frame = renderer.render(scene, [marker]).astype(int)

    red, green, blue = frame[..., 0], frame[..., 1], frame[..., 2]
    fovy = scene.model.vis.global_.fovy
    blue_ball = centre((blue > 100) & (red < 50))
    yellow_ball = centre((red > 100) & (green > 100) & (blue < 50))
    assert blue_ball == pytest.approx(project(np.array([1.0, 0, 0]), camera, fovy), abs=1.5)
    assert yellow_ball == pytest.approx(project(np.array([-0.4, 0.5, 0.3]), camera, fovy), abs=1.5)


def test_camera_follows_a_robot_and_not_a_loose_thing(scene: mujoco.MjData):
    assert moving_base(scene.model) == scene.model.body("trunk").id
    with Renderer(scene.model, 320, 240) as renderer:
        here = renderer.render(scene)
        scene.qpos[7:9] += 40.0
        scene.qpos[:2] += 40.0
        mujoco.mj_forward(scene.model, scene)
        there = renderer.render(scene)

    assert (here[120, 160] == [255, 0, 0]).all()  # the trunk is in the middle
    assert np.abs(here.astype(int) - there).max() <= 2


def test_models_with_a_camera_that_tracks_are_seen_by_it():
    model = envs.make("gym/HalfCheetah-v5").simulation.model
    assert camera_of(model).fixedcamid == model.camera("track").id


def test_arms_that_stand_fast_are_seen_by_a_free_camera():
    model = envs.make("arm_reach").simulation.model
    assert moving_base(model) is None
    assert camera_of(model).type == mujoco.mjtCamera.mjCAMERA_FREE


@pytest.mark.parametrize("task", ["arm_reach", "gym/Ant-v5", "gym/Pusher-v5"])
def test_what_is_drawn_is_the_world_that_was_asked_for(task: str):
    env = envs.make(task, num_envs=3, num_threads=1, seed=2)
    env.reset()
    for _ in range(5):
        env.step(2 * torch.rand(3, env.num_actions) - 1)

    data = look_at(env.simulation, 1)

    np.testing.assert_array_equal(data.qpos, env.simulation.data("qpos")[1])
    assert data.time == env.simulation.data("time")[1]
    # Poses as plain MuJoCo has them in this state.
    plain = mujoco.MjData(env.simulation.model)
    plain.qpos[:] = env.simulation.data("qpos")[1]
    mujoco.mj_kinematics(env.simulation.model, plain)
    np.testing.assert_array_equal(data.geom_xpos, plain.geom_xpos)
    assert not np.array_equal(data.geom_xpos, look_at(env.simulation, 0).geom_xpos)


def test_looking_changes_nothing():
    env, untouched = (envs.make("arm_reach", num_envs=2, num_threads=1, seed=5) for _ in range(2))
    env.reset()
    untouched.reset()
    action = torch.full((2, env.num_actions), 0.3)
    for _ in range(10):
        look_at(env.simulation, 1)
        seen, expected = (world.step(action).observation for world in (env, untouched))
        assert torch.equal(seen["critic"], expected["critic"])


def test_model_stays_as_it_was():
    model = envs.make("arm_reach").simulation.model
    before = model.vis.global_.offwidth, model.vis.quality.shadowsize
    with Renderer(model, 2000, 100) as renderer:
        assert renderer.render(mujoco.MjData(model)).shape == (100, 2000, 3)
    assert (model.vis.global_.offwidth, model.vis.quality.shadowsize) == before


def test_model_without_lights_can_be_seen():
    def brightness(lights: str) -> float:
        model = mujoco.MjModel.from_xml_string(
            f"<mujoco><worldbody>{lights}<geom size='0.1' rgba='1 1 1 1'/></worldbody></mujoco>"
        )
        data = mujoco.MjData(model)
        mujoco.mj_forward(model, data)
        with Renderer(model, 64, 48) as renderer:
            return float(renderer.render(data).max())

    # White in MuJoCo's head light, ambient 0.1 and diffuse 0.4, is 0.5 of 255; in ours 0.95.
    assert brightness("<light diffuse='0 0 0' ambient='0 0 0' specular='0 0 0'/>") < 0.75 * 255
    assert brightness("") > 0.9 * 255


PICTURE = """
import mujoco
from envs.render import Renderer
model = mujoco.MjModel.from_xml_string("<mujoco><worldbody><geom size='1'/></worldbody></mujoco>")
from deploy.errors import ConfigError
try:
    with Renderer(model, 64, 48) as renderer:
        data = mujoco.MjData(model)
        mujoco.mj_forward(model, data)
        print(renderer.render(data).max() > 0)
except ConfigError as error:
    print(error)
"""


def take_picture(**changes: str) -> str:
    environment = {k: v for k, v in os.environ.items() if k not in ("MUJOCO_GL", "DISPLAY")}
    environment |= {"WAYLAND_DISPLAY": "", **changes}
    done = subprocess.run(
        [sys.executable, "-c", PICTURE], capture_output=True, text=True, env=environment
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="EGL is Linux's")
def test_machine_without_a_display_needs_no_setting():
    assert take_picture() == "True"


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="EGL is Linux's")
def test_machine_without_opengl_is_told_what_to_install():
    answer = take_picture(__EGL_VENDOR_LIBRARY_FILENAMES="/dev/null")

    assert answer.startswith("pictures need OpenGL, and egl gives none (")
    assert "apt-get install libegl1 libgl1-mesa-dri" in answer
