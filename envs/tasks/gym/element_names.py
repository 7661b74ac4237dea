"""Names for the elements of `MjData` fields, from the names of joints and bodies.

element_names(model, "qpos", slice(2, None))     # root.z, root.qw, ..., hip_1, ankle_1
element_names(model, "cfrc_ext", slice(1, None)) # torso.torque_x, ..., torso.force_z, ...
"""

import mujoco

_POINT = ("x", "y", "z")
_FREE_QPOS = (*_POINT, "qw", "qx", "qy", "qz")
_FREE_QVEL = ("vx", "vy", "vz", "wx", "wy", "wz")
_PER_BODY = {
    "xpos": _POINT,
    "cinert": ("xx", "yy", "zz", "xy", "xz", "yz", "mx", "my", "mz", "m"),
    "cvel": ("wx", "wy", "wz", "vx", "vy", "vz"),
    "cfrc_ext": tuple(f"{kind}_{axis}" for kind in ("torque", "force") for axis in _POINT),
}


def element_names(model: mujoco.MjModel, field: str, rows: slice | str) -> list[str]:
    """Names of some rows of a field (coordinates, degrees of freedom or bodies).

    Args:
        model: its joints are hinges, slides or free.
        field: qpos, a field with one number for each degree of freedom, or one with some numbers
            for each body.
        rows: which rows; or the name of one body, whose elements are then named alone.
    """
    if isinstance(rows, str):
        return list(_PER_BODY[field])
    if field not in _PER_BODY:
        free = _FREE_QPOS if field == "qpos" else _FREE_QVEL
        return _joint_names(model, free)[rows]
    bodies = [_body_name(model, index) for index in range(model.nbody)]
    return [f"{body}.{element}" for body in bodies[rows] for element in _PER_BODY[field]]


def _joint_names(model: mujoco.MjModel, free: tuple[str, ...]) -> list[str]:
    names = []
    for index in range(model.njnt):
        joint = model.joint(index).name
        is_free = model.jnt_type[index] == mujoco.mjtJoint.mjJNT_FREE
        names += [f"{joint}.{element}" for element in free] if is_free else [joint]
    return names


def _body_name(model: mujoco.MjModel, index: int) -> str:
    """A body without a name is called after its first joint."""
    if model.body(index).name or not model.body_jntnum[index]:
        return model.body(index).name
    return model.joint(model.body_jntadr[index]).name
