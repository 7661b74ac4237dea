"""Random rotations of quaternions and vectors; pure functions on (..., 4) and (..., 3)."""

import math

import torch
from torch import Tensor


def directions(uniform: Tensor) -> Tensor:
    """Numbers (..., 2) in [0, 1) -> unit vectors (..., 3), uniform on the sphere.

    The height of a uniform point on a sphere is uniform (Archimedes).
    """
    height = 2 * uniform[..., :1] - 1
    radius = (1 - height**2).clamp(min=0).sqrt()
    angle = 2 * math.pi * uniform[..., 1:]
    return torch.cat([radius * angle.cos(), radius * angle.sin(), height], dim=-1)


def turn_quaternions(quaternion: Tensor, angle: Tensor, axis: Tensor) -> Tensor:
    """Turn orientations (..., 4) by `angle` (...) [rad] about `axis` (..., 3) of their own frame.

    Quaternions are wxyz.
    """
    half = angle[..., None] / 2
    w, u = quaternion[..., :1], quaternion[..., 1:]
    c, v = half.cos(), half.sin() * axis
    real = w * c - (u * v).sum(dim=-1, keepdim=True)
    return torch.cat([real, w * v + c * u + torch.linalg.cross(u, v)], dim=-1)


def tilt_vectors(vector: Tensor, angle: Tensor, toward: Tensor) -> Tensor:
    """Tilt vectors (..., 3) by `angle` (...) [rad] toward directions (..., 3); lengths stay."""
    length = vector.norm(dim=-1, keepdim=True)
    unit = vector / length.clamp(min=1e-300)
    side = toward - unit * (unit * toward).sum(dim=-1, keepdim=True)
    side = side / side.norm(dim=-1, keepdim=True).clamp(min=1e-300)
    angle = angle[..., None]
    return angle.cos() * vector + angle.sin() * length * side
