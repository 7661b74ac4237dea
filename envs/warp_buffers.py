"""How many contacts and constraints a GPU world must have room for.

mujoco_warp allocates both once, and what does not fit is dropped from the physics. So the model is
rehearsed in plain MuJoCo before anything is allocated: it falls from its start states without
power, which is the least that must fit, and is put into random poses, half of them pressed into
the floor, which is where the defaults come from.
"""

from typing import NamedTuple

import mujoco
import mujoco_warp as mjw
import numpy as np

from deploy.errors import ConfigError

_FALL_STEPS = 500
_POSES = 200
_LEAST_CONTACTS, _LEAST_CONSTRAINTS = 16, 32
_SETTINGS = {
    mjw.OverflowType.BROADPHASE: "nconmax",
    mjw.OverflowType.NARROWPHASE: "nconmax",
    mjw.OverflowType.CCD: "nconmax",
    mjw.OverflowType.NEFC: "njmax",
    mjw.OverflowType.NJMAX_NNZ: "njmax",
}
_REMEDIES = {
    mjw.OverflowType.HFIELD: "contacts with a height field; make it coarser",
    mjw.OverflowType.CONTACT_MATCH: "matches of a contact sensor; raise "
    '<numeric name="contact_sensor_maxmatch" data="64"/> under <custom>',
    mjw.OverflowType.EPA_HORIZON: "edges for the convex collider; use simpler meshes",
    mjw.OverflowType.TACTILE: "contacts for a tactile sensor; use simpler meshes",
}


class Buffers(NamedTuple):
    """Room in each world; contacts are a pool that all worlds share."""

    nconmax: int
    """Contacts."""
    njmax: int
    """Constraint rows: contacts count once per edge of the friction pyramid, then limits,
    equalities and joint friction."""


def choose_buffers(model: mujoco.MjModel, nconmax: int | None, njmax: int | None) -> Buffers:
    """Room for each world: as given, or by rehearsal.

    Raises:
        ConfigError: what is given is less than the model needs when it only falls.
    """
    least, enough = rehearse(model)
    given = Buffers(
        enough.nconmax if nconmax is None else nconmax, enough.njmax if njmax is None else njmax
    )
    for name, found, needed, advised in zip(Buffers._fields, given, least, enough, strict=True):
        if found < needed:
            raise ConfigError(
                f"{name}={found} is too little: falling from its start states without power, the "
                f"model needs {needed}; leave {name} out, or set {name}={advised}"
            )
    return given


def describe_overflow(bits: np.ndarray, buffers: Buffers) -> str | None:
    """What did not fit, and the setting to raise; None if all did.

    Args:
        bits: (num_envs,) `mujoco_warp.Data.overflow`.
        buffers: the room there was.
    """
    for flag in (*_SETTINGS, *_REMEDIES):
        worlds = np.count_nonzero(bits & int(flag))
        if worlds and flag in _SETTINGS:
            name = _SETTINGS[flag]
            room = getattr(buffers, name)
            return (
                f"{worlds} of {len(bits)} worlds had more than fits into {name}={room} "
                f"({flag.name}), so their physics was wrong; set {name}={2 * room}"
            )
        if worlds:
            return f"{worlds} of {len(bits)} worlds had too many {_REMEDIES[flag]}"
    return None


def rehearse(model: mujoco.MjModel) -> tuple[Buffers, Buffers]:
    """What the model needs, in contacts and constraints of one world.

    Returns:
        What it needs when it falls from its start states without power, and what is enough for
        random poses too: the defaults.
    """
    data = mujoco.MjData(model)
    peak = np.zeros(2, int)
    for key in range(-1, model.nkey):
        mujoco.mj_resetData(model, data)
        if key >= 0:
            mujoco.mj_resetDataKeyframe(model, data, key)
        for _ in range(_FALL_STEPS):
            mujoco.mj_step(model, data)
            peak = np.maximum(peak, (data.ncon, data.nefc))
    least = Buffers(*peak.tolist())

    rng = np.random.default_rng(0)
    mujoco.mj_resetData(model, data)
    for _ in range(_POSES):
        _pose(model, data, rng)
        mujoco.mj_fwdPosition(model, data)
        peak = np.maximum(peak, (data.ncon, data.nefc))
    # friction that is randomized later makes a constraint of every joint
    peak[1] += np.count_nonzero(model.dof_frictionloss == 0)
    peak[1] += np.count_nonzero(model.tendon_frictionloss == 0)
    contacts, constraints = (-(-peak // 8) * 8).tolist()
    return least, Buffers(max(contacts, _LEAST_CONTACTS), max(constraints, _LEAST_CONSTRAINTS))


def _pose(model: mujoco.MjModel, data: mujoco.MjData, rng: np.random.Generator) -> None:
    """A random pose: joints over their range and a little beyond, bases between floor and start."""
    for joint in range(model.njnt):
        at = int(model.jnt_qposadr[joint])
        kind = model.jnt_type[joint]
        if kind == int(mujoco.mjtJoint.mjJNT_FREE):
            data.qpos[at : at + 3] = model.qpos0[at : at + 3]
            data.qpos[at + 2] *= rng.uniform()
            at += 3
        if kind in (int(mujoco.mjtJoint.mjJNT_FREE), int(mujoco.mjtJoint.mjJNT_BALL)):
            quaternion = rng.normal(size=4)
            data.qpos[at : at + 4] = quaternion / np.linalg.norm(quaternion)
        elif model.jnt_limited[joint]:
            low, high = model.jnt_range[joint]
            margin = 0.05 * (high - low)
            data.qpos[at] = rng.uniform(low - margin, high + margin)
        elif kind == int(mujoco.mjtJoint.mjJNT_HINGE):
            data.qpos[at] = rng.uniform(-np.pi, np.pi)
        else:
            data.qpos[at] = model.qpos0[at] + rng.uniform(-1, 1) * model.stat.extent / 2
