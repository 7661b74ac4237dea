"""Rotations of quaternions and vectors, principal axes; pure functions on (..., 4), (..., 3)."""

import math

import torch
from torch import Tensor

_SWEEPS = 6  # of Jacobi rotations; each squares the error, from 1 to below round-off in five


def directions(uniform: Tensor) -> Tensor:
    """Numbers (..., 2) in [0, 1) -> unit vectors (..., 3), uniform on the sphere.

    The height of a uniform point on a sphere is uniform (Archimedes).
    """
    height = 2 * uniform[..., :1] - 1
    radius = (1 - height**2).clamp(min=0).sqrt()
    angle = 2 * math.pi * uniform[..., 1:]
    return torch.cat([radius * angle.cos(), radius * angle.sin(), height], dim=-1)


def multiply_quaternions(first: Tensor, second: Tensor) -> Tensor:
    """Orientations (..., 4) turned by others (..., 4), which are in the frame of the first."""
    w, u, c, v = first[..., :1], first[..., 1:], second[..., :1], second[..., 1:]
    real = w * c - (u * v).sum(dim=-1, keepdim=True)
    return torch.cat([real, w * v + c * u + torch.linalg.cross(u, v)], dim=-1)


def axis_angle(axis: Tensor, angle: Tensor) -> Tensor:
    """Quaternions (..., 4) that turn by `angle` (...) [rad] about unit axes (..., 3)."""
    half = angle[..., None] / 2
    return torch.cat([half.cos(), half.sin() * axis], dim=-1)


def turn_quaternions(quaternion: Tensor, angle: Tensor, axis: Tensor) -> Tensor:
    """Turn orientations (..., 4) by `angle` (...) [rad] about `axis` (..., 3) of their own frame.

    Quaternions are wxyz.
    """
    return multiply_quaternions(quaternion, axis_angle(axis, angle))


def tilt_vectors(vector: Tensor, angle: Tensor, toward: Tensor) -> Tensor:
    """Tilt vectors (..., 3) by `angle` (...) [rad] toward directions (..., 3); lengths stay."""
    length = vector.norm(dim=-1, keepdim=True)
    unit = vector / length.clamp(min=1e-300)
    side = toward - unit * (unit * toward).sum(dim=-1, keepdim=True)
    side = side / side.norm(dim=-1, keepdim=True).clamp(min=1e-300)
    angle = angle[..., None]
    return angle.cos() * vector + angle.sin() * length * side


def diagonalise(matrix: Tensor) -> tuple[Tensor, Tensor]:
    """Eigenvalues (..., 3) of symmetric matrices (..., 3, 3), and the turn (..., 4) to their axes.

    Cyclic Jacobi rotations (Golub & Van Loan, "Matrix Computations", section 8.5), a fixed number
    of them: nothing waits for a GPU, and a diagonal matrix keeps its axes, in their order. Roots in
    place of angles: torch's `atan2` has other last bits for many numbers than for few.

    Returns:
        Eigenvalues, and unit quaternions wxyz whose axes are the eigenvectors.
    """
    turn = torch.zeros(*matrix.shape[:-2], 4, dtype=matrix.dtype, device=matrix.device)
    turn[..., 0] = 1
    unit = torch.eye(3, dtype=matrix.dtype, device=matrix.device)
    for _ in range(_SWEEPS):
        for axis in range(3):
            p, q = (axis + 1) % 3, (axis + 2) % 3
            off, difference = 2 * matrix[..., p, q], matrix[..., p, p] - matrix[..., q, q]
            # the smaller of both angles that make the element vanish: axes keep their order
            off = torch.where(difference < 0, -off, off)
            length = (off.square() + difference.square()).sqrt()
            cosine = torch.where(length > 0, difference.abs() / length, 1)  # of twice the angle
            sine = torch.where(length > 0, off / length, 0)
            cosine, sine = _half_angle(*_half_angle(cosine, sine))  # of half of it
            step = torch.cat([cosine[..., None], sine[..., None] * unit[axis]], dim=-1)
            rotation = to_matrix(step)
            matrix = rotation.mT @ matrix @ rotation
            turn = multiply_quaternions(turn, step)
    return matrix.diagonal(dim1=-2, dim2=-1), turn


def _half_angle(cosine: Tensor, sine: Tensor) -> tuple[Tensor, Tensor]:
    """Cosine and sine of half an angle, which is less than half a turn."""
    half = ((1 + cosine) / 2).sqrt()
    return half, sine / (2 * half)


def to_matrix(quaternion: Tensor) -> Tensor:
    """Unit quaternions (..., 4) -> rotation matrices (..., 3, 3)."""
    w, x, y, z = quaternion.unbind(-1)
    rows = [
        1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y),
        2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x),
        2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y),
    ]  # fmt: skip
    return torch.stack(rows, dim=-1).unflatten(-1, (3, 3))
