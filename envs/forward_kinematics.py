"""Position of a site as a torch module of joint angles, exact and exportable to ONNX.

A chain of hinges from the world to the site: with axis a fixed in the body, Rodrigues' formula
R(q) = I + sin(q) K + (1 - cos(q)) K² is linear in (1, sin q, cos q), so all joint rotations are
one product with constants, and the site is carried from the tip to the base. A hinge that is the
play of another turns about the same axis, and is in the angle that the encoder sees.
"""

import mujoco
import numpy as np
import torch
from torch import Tensor, nn

from deploy.errors import ConfigError
from deploy.servos.models import BACKLASH_HINGE


class ForwardKinematics(nn.Module):
    """Site position in the world frame, from the joints between the world and the site.

    Args:
        model: a model with fixed base.
        site: name of the site.
        joints: names of all joints in the order of the input.

    Raises:
        ConfigError: the chain has no joint, one that is not in `joints` or no hinge, or two on one
            body.
    """

    rotations: Tensor
    translations: Tensor
    columns: Tensor
    reference: Tensor
    tip: Tensor

    def __init__(self, model: mujoco.MjModel, site: str, joints: list[str]):
        super().__init__()
        rotations, translations, columns, reference = [], [], [], []
        tip = model.site(site).pos.copy()
        body = int(model.site(site).bodyid[0])
        while body:
            fixed, offset = _rotation(model.body_quat[body]), model.body_pos[body]
            hinges = _hinges(model, body)
            if not hinges:  # welded: move what hangs on it
                if rotations:
                    rotations[-1] = fixed @ rotations[-1]
                    translations[-1] = fixed @ translations[-1] + offset
                else:
                    tip = fixed @ tip + offset
            else:
                joint = model.joint(hinges[0])
                if len(hinges) > 1 or joint.type[0] != mujoco.mjtJoint.mjJNT_HINGE:
                    raise ConfigError(f"body {model.body(body).name!r} needs exactly one hinge")
                if np.any(joint.pos):
                    raise ConfigError(f"joint {joint.name!r} must be at its body's origin")
                skew = _skew(joint.axis)
                identity, square = np.eye(3), skew @ skew
                rotations.append(
                    np.stack([fixed @ (identity + square), fixed @ skew, -fixed @ square])
                )
                translations.append(offset)
                if joint.name not in joints:
                    raise ConfigError(
                        f"joint {joint.name!r} moves the site, but is not in {joints}"
                    )
                columns.append(joints.index(joint.name))
                reference.append(model.qpos0[joint.qposadr[0]])
            body = int(model.body_parentid[body])
        if not rotations:
            raise ConfigError(f"no joint moves the site {site!r}")
        self.register_buffer("reference", torch.tensor(reference, dtype=torch.float32))
        self.register_buffer("rotations", torch.tensor(np.array(rotations), dtype=torch.float32))
        offsets = torch.tensor(np.array(translations), dtype=torch.float32)
        self.register_buffer("translations", offsets[..., None])
        self.register_buffer("columns", torch.tensor(columns))
        self.register_buffer("tip", torch.tensor(tip, dtype=torch.float32)[:, None])

    def forward(self, joint_position: Tensor) -> Tensor:
        """Joint angles (n, joints) [rad] -> site position (n, 3) [m]."""
        angle = joint_position.index_select(1, self.columns) - self.reference
        q = angle[..., None, None]  # (n, chain, 1, 1)
        constant, sine, cosine = self.rotations.unbind(1)
        rotations = constant.addcmul(q.sin(), sine).addcmul(q.cos(), cosine).unbind(1)
        point = self.tip.expand(len(q), 3, 1)
        for rotation, translation in zip(rotations, self.translations, strict=True):
            point = torch.baddbmm(translation, rotation, point)
        return point.squeeze(-1)


def _hinges(model: mujoco.MjModel, body: int) -> list[int]:
    """Joints of a body, without the play of others."""
    first = int(model.body_jntadr[body])
    joints = range(first, first + int(model.body_jntnum[body]))
    return [index for index in joints if not model.joint(index).name.endswith(BACKLASH_HINGE)]


def _skew(axis: np.ndarray) -> np.ndarray:
    x, y, z = axis
    return np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])


def _rotation(quat: np.ndarray) -> np.ndarray:
    matrix = np.zeros(9)
    mujoco.mju_quat2Mat(matrix, quat)
    return matrix.reshape(3, 3)
