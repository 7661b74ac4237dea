"""Left and right exchanged: what a robot's joints, signals and actions are in a mirror.

    half = joint_mirror(robot)            # (joints, joints): angles in the mirror = half @ angles
    mirror = Mirror(actor=..., critic=..., action=half)      # what a learner needs

The mirror is the plane y = 0 of the base's frame. Which joint is the image of which, and with which
sign, follows from where their axes are at angle zero, so no names are needed and a model that is
not symmetric is found out. A reflection takes points to F p, and spins and axes to -F a, with
F = diag(1, -1, 1): an axis is a product of two directions.
"""

from collections.abc import Sequence
from typing import NamedTuple, Protocol, runtime_checkable

import mujoco
import numpy as np
import torch
from torch import Tensor

from deploy.errors import ConfigError
from envs.robot import Robot
from envs.sensors import IMU_SITE

DIRECTION_MIRROR = torch.diag(torch.tensor([1.0, -1.0, 1.0]))
"""Map of a vector in the frame of the base or the heading; that of an angular velocity is -it."""
TWIST_MIRROR = torch.diag(torch.tensor([1.0, -1.0, -1.0]))
"""Map of (forward, left, turning)."""
_FLIP = DIRECTION_MIRROR.double().numpy()
_NEAR_M, _PARALLEL = 0.002, 0.999
"""How close the axis of a joint must be to the image of its partner's."""
_MIDDLE_M = 0.005
"""How close to the mirror must be what hangs on a joint that is its own image."""


class Mirror(NamedTuple):
    """Linear maps of rows: `row @ map.T` is the row that one would see in the mirror."""

    actor: Tensor
    """(n, n) of the actor's observation."""
    critic: Tensor
    """(m, m) of the critic's."""
    action: Tensor
    """(k, k) a permutation with signs."""


@runtime_checkable
class Symmetric(Protocol):
    """A task whose robot and goal are their own mirror image."""

    @property
    def mirror(self) -> Mirror:
        """The maps.

        Raises:
            ConfigError: the robot is not symmetric.
        """
        ...


def joint_mirror(robot: Robot, base: int) -> Tensor:
    """(joints, joints) permutation with signs, from angles to angles in the mirror.

    Args:
        robot: the robot.
        base: id of the body whose frame has the mirror.

    Raises:
        ConfigError: names the joint that has no image, or whose home is not that of its image.
    """
    model, data = robot.model, mujoco.MjData(robot.model)
    mujoco.mj_kinematics(model, data)
    mujoco.mj_comPos(model, data)
    origin, rotation = data.xpos[base], data.xmat[base].reshape(3, 3)
    ids = model.dof_jntid[robot.dofs]
    anchors, axes = (data.xanchor[ids] - origin) @ rotation, data.xaxis[ids] @ rotation
    carried = (data.subtree_com[model.jnt_bodyid[ids]] - origin) @ rotation
    matrix = np.zeros((len(ids), len(ids)))
    for joint, name in enumerate(robot.joints):
        image, axis = _FLIP @ anchors[joint], -_FLIP @ axes[joint]
        along, apart = axes @ axis, np.linalg.norm(anchors - image, axis=1)
        across = np.linalg.norm(np.cross(anchors[joint] - image, axis))
        if across < _NEAR_M and abs(carried[joint, 1]) < _MIDDLE_M:
            apart[joint] = 0  # it sits beside the middle, but somewhere along its own axis
        apart[np.abs(along) < _PARALLEL] = np.inf
        partner = int(np.argmin(apart))
        if apart[partner] > _NEAR_M:
            raise ConfigError(
                f"robot {robot.name!r} is not its own mirror image: no joint is the image of "
                f"{name!r} at y = 0 of the base. Train without algorithm.symmetry"
            )
        matrix[partner, joint] = np.sign(along[partner])
    if not np.allclose(matrix @ matrix, np.eye(len(ids))) or not np.allclose(
        matrix @ robot.home, robot.home, atol=1e-3
    ):
        raise ConfigError(
            f"robot {robot.name!r} is not its own mirror image: its joints pair up, but not one to "
            "one, or its keyframe `home` is not symmetric. Correct it, or train without "
            "algorithm.symmetry"
        )
    return torch.from_numpy(matrix).float()


def geom_mirror(robot: Robot, base: int, geoms: Sequence[str]) -> Tensor:
    """(geoms, geoms) permutation, by where geoms are at home.

    Raises:
        ConfigError: one has no image among them.
    """
    model, data = robot.model, mujoco.MjData(robot.model)
    data.qpos[:] = robot.home_qpos
    mujoco.mj_kinematics(model, data)
    rotation = data.xmat[base].reshape(3, 3)
    centres = np.array([data.geom(name).xpos - data.xpos[base] for name in geoms]) @ rotation
    apart = np.linalg.norm(centres[:, None] - centres @ _FLIP, axis=-1)
    if (apart.min(axis=0) > 2 * _NEAR_M).any():
        name = geoms[int(np.argmax(apart.min(axis=0)))]
        raise ConfigError(
            f"robot {robot.name!r} is not its own mirror image: of {list(geoms)} none is the image "
            f"of {name!r} at home. Train without algorithm.symmetry"
        )
    matrix = np.zeros_like(apart)
    matrix[apart.argmin(axis=0), np.arange(len(geoms))] = 1
    return torch.from_numpy(matrix).float()


def imu_mirror(robot: Robot, base: int) -> tuple[Tensor, Tensor]:
    """(3, 3) each: maps of directions and of spins in the frame of the IMU, however it sits."""
    model, data = robot.model, mujoco.MjData(robot.model)
    mujoco.mj_kinematics(model, data)
    site = data.site(IMU_SITE).xmat.reshape(3, 3)
    turn = data.xmat[base].reshape(3, 3).T @ site  # from the IMU to the base
    flip = torch.from_numpy(turn.T @ _FLIP @ turn).float()
    return flip, -flip


def clock_mirror(offsets: Tensor, feet: Tensor) -> Tensor:
    """(2, 2) map of (sin, cos): the shift of the gait after which each foot is its image.

    Args:
        offsets: (feet,) of the gait.
        feet: (feet, feet) permutation.

    Raises:
        ConfigError: no one shift does it for all feet.
    """
    shift = (feet @ offsets - offsets).remainder(1)
    apart = (shift - shift[0] + 0.5).remainder(1) - 0.5
    if apart.abs().max() > 1e-3:
        raise ConfigError(
            f"the gait's offsets {offsets.tolist()} are not their own mirror image: feet and their "
            f"images are {shift.tolist()} apart. Make these equal, or train without "
            "algorithm.symmetry"
        )
    angle = 2 * torch.pi * shift[0]
    sin, cos = angle.sin(), angle.cos()
    return torch.stack([torch.stack([cos, sin]), torch.stack([-sin, cos])])
