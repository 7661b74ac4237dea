"""Random rotations, held against MuJoCo's quaternions and the geometry of the sphere."""

import math

import mujoco
import numpy as np
import torch

from envs.rotation import directions, tilt_vectors, turn_quaternions

SHAPE = (5, 4)
"""Worlds and rows: every pair has its own angle and axis."""
GENERATOR = torch.Generator().manual_seed(0)
ANGLES = torch.rand(*SHAPE, generator=GENERATOR, dtype=torch.float64) * math.pi
AXES = directions(torch.rand(*SHAPE, 2, generator=GENERATOR, dtype=torch.float64))
VECTORS = torch.randn(*SHAPE, 3, generator=GENERATOR, dtype=torch.float64)
ATOL = 1e-12


def test_directions_are_on_the_sphere_and_cover_it():
    ends = directions(torch.tensor([[0.0, 0.3], [1.0, 0.3], [0.5, 0.0], [0.5, 0.25]]))
    expected = torch.tensor([[0.0, 0, -1], [0, 0, 1], [1, 0, 0], [0, 1, 0]])
    torch.testing.assert_close(ends, expected, atol=1e-6, rtol=0)
    torch.testing.assert_close(AXES.norm(dim=-1), torch.ones(SHAPE, dtype=torch.float64))


def test_orientation_is_turned_as_mujoco_turns_it_about_an_axis_of_its_own():
    before = torch.nn.functional.normalize(
        torch.randn(*SHAPE, 4, generator=GENERATOR, dtype=torch.float64), dim=-1
    )
    after = turn_quaternions(before, ANGLES, AXES)

    turn, expected = np.zeros(4), np.zeros(4)
    for place in np.ndindex(SHAPE):
        mujoco.mju_axisAngle2Quat(turn, AXES[place].numpy(), float(ANGLES[place]))
        mujoco.mju_mulQuat(expected, before[place].numpy(), turn)
        np.testing.assert_allclose(after[place].numpy(), expected, atol=ATOL)


def test_vector_is_tilted_by_its_angle_to_its_side_and_keeps_its_length():
    after = tilt_vectors(VECTORS, ANGLES, AXES)

    torch.testing.assert_close(after.norm(dim=-1), VECTORS.norm(dim=-1))
    cosine = torch.nn.functional.cosine_similarity(VECTORS, after, dim=-1)
    torch.testing.assert_close(cosine, ANGLES.cos())
    # it stays in the plane of both, on the side that it is tilted to
    normal = torch.linalg.cross(VECTORS, AXES)
    torch.testing.assert_close((after * normal).sum(-1), torch.zeros(SHAPE, dtype=torch.float64))
    assert ((torch.linalg.cross(VECTORS, after) * normal).sum(-1) > 0).all()


def test_nothing_is_tilted_where_there_is_no_vector_or_no_side():
    none = torch.zeros(1, 3, dtype=torch.float64)
    up = torch.tensor([[0.0, 0.0, 2.0]], dtype=torch.float64)
    angle = torch.tensor([0.5], dtype=torch.float64)
    assert tilt_vectors(none, angle, up).tolist() == [[0, 0, 0]]
    assert tilt_vectors(up, angle, up / 2).isfinite().all()
