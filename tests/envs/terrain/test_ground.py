"""The ground that a task is told of, against rays and contacts of plain MuJoCo."""

import mujoco
import numpy as np
import pytest
import torch

from deploy.errors import ConfigError
from envs.robot import load_robot
from envs.terrain import KINDS, Field, Ground, TerrainConfig, with_terrain
from tests.envs.test_mirror import CRAWLER

HEIGHT = 0.144
CONFIG = TerrainConfig(kinds=list(KINDS), levels=3, tile=20)
RAYS = 3000


@pytest.fixture(scope="module")
def field() -> Field:
    return Field(CONFIG, HEIGHT)


@pytest.fixture(scope="module")
def model(field: Field) -> mujoco.MjModel:
    return with_terrain(load_robot(CRAWLER), field)


def ray_heights(model: mujoco.MjModel, xy: np.ndarray) -> np.ndarray:
    """(n,) where a ray straight down first meets what does not move."""
    data = mujoco.MjData(model)
    data.qpos[2] = 50  # out of the way
    mujoco.mj_kinematics(model, data)
    down, hit = np.array([0.0, 0.0, -1.0]), np.zeros(1, np.int32)
    return np.array(
        [
            5 - mujoco.mj_ray(model, data, np.array([*place, 5.0]), down, None, 1, -1, hit, None)
            for place in xy
        ]
    )


def test_height_is_where_a_ray_meets_the_ground_on_every_tile(field: Field, model: mujoco.MjModel):
    ground, rng = Ground(field, "cpu"), np.random.default_rng(0)
    x0, x1, y0, y1 = field.bounds_m
    wide = 0.5 * HEIGHT  # and a little of the border
    xy = rng.uniform([x0 - wide, y0 - wide], [x1 + wide, y1 + wide], (RAYS, 2))

    found = ground.height(torch.from_numpy(xy)).numpy()

    assert np.abs(found - ray_heights(model, xy)).max() < 1e-6
    assert len(np.unique(found.round(4))) > 300


@pytest.mark.parametrize(("kind", "sign"), [("slope_down", -1), ("slope_up", 1)])
def test_slope_has_its_angle_to_all_sides(
    model: mujoco.MjModel, field: Field, kind: str, sign: int
):
    middle = np.array(field.centre_m(2, CONFIG.kinds.index(kind)))
    for ahead, aside in (([1, 0], [0, 1]), ([0, 1], [1, 0]), ([-1, 0], [0, 1]), ([0, -1], [1, 0])):
        for side in (-1.5, 0.0, 1.5):
            near, far = (
                middle + HEIGHT * (way * np.array(ahead) + side * np.array(aside))
                for way in (2.5, 7.5)
            )
            low, high = ray_heights(model, np.array([near, far]))
            assert np.arctan((high - low) / (5 * HEIGHT)) == pytest.approx(sign * 0.1, abs=1e-6)


@pytest.mark.parametrize("kind", ["rough", "slope_up", "steps", "stairs_up", "gaps"])
def test_ball_touches_when_it_is_its_radius_over_the_height(field: Field, kind: str):
    spec, column = mujoco.MjSpec(), CONFIG.kinds.index(kind)
    spec.worldbody.add_geom(name="floor", type=mujoco.mjtGeom.mjGEOM_PLANE, size=[0, 0, 1])
    radius = 0.00002  # so small that slopes and edges beside it do not count
    body = spec.worldbody.add_body()
    body.add_freejoint()
    body.add_geom(name="ball", type=mujoco.mjtGeom.mjGEOM_SPHERE, size=[radius, 0, 0], mass=1)
    field.add_to(spec)
    model, ground = spec.compile(), Ground(field, "cpu")
    data, rng = mujoco.MjData(model), np.random.default_rng(1)
    xy = field.centre_m(2, column) + rng.uniform(-7, 7, (60, 2)) * HEIGHT

    for place, height in zip(xy, ground.height(torch.from_numpy(xy)).tolist(), strict=True):
        data.qpos[:] = [*place, height + 0.9 * radius, 1, 0, 0, 0]
        mujoco.mj_fwdPosition(model, data)
        assert data.ncon > 0
        data.qpos[2] = height + 1.3 * radius
        mujoco.mj_fwdPosition(model, data)
        assert data.ncon == 0


def test_holes_are_as_high_as_their_rim_for_who_stands_in_them(field: Field):
    ground = Ground(field, "cpu")
    x, y = field.centre_m(2, CONFIG.kinds.index("gaps"))
    hole = torch.tensor([[x + (2 + 0.15) * HEIGHT, y]])

    assert ground.height(hole).item() == pytest.approx(field.floor_m)
    assert field.floor_m < -1.5 * HEIGHT
    assert ground.support(hole).item() == 0


def test_first_level_is_flat_and_the_robot_stands_there_as_it_did(model: mujoco.MjModel):
    plain = load_robot(CRAWLER).model
    heights, contacts = [], []
    for own in (plain, model):
        data = mujoco.MjData(own)
        mujoco.mj_resetDataKeyframe(own, data, own.key("home").id)
        for _ in range(200):
            mujoco.mj_step(own, data)
        heights.append(data.qpos[2])
        contacts.append(data.ncon)

    assert contacts == [4, 4]
    assert heights[0] == pytest.approx(heights[1], abs=2e-4)
    assert model.stat.extent == plain.stat.extent


def test_robot_without_one_level_floor_is_refused():
    spec = mujoco.MjSpec()
    spec.worldbody.add_geom(type=mujoco.mjtGeom.mjGEOM_PLANE, size=[0, 0, 1], pos=[0, 0, 0.1])

    with pytest.raises(ConfigError, match=r"has 1 planes at heights \[0.1\]; expected one plane"):
        Field(CONFIG, HEIGHT).add_to(spec)
