"""What of a MuJoCo model mujoco_warp can simulate, and what of it may differ between worlds."""

import dataclasses

import mujoco
import mujoco_warp as mjw
import numpy as np

from deploy.configuration import did_you_mean
from deploy.errors import ConfigError

CONSTANTS = (
    *("body_subtreemass", "body_invweight0", "dof_invweight0", "actuator_acc0", "eq_data"),
    *("tendon_length0", "tendon_invweight0", "geom_size", "geom_aabb", "geom_rbound"),
    *("cam_pos0", "cam_poscom0", "cam_mat0", "light_pos0", "light_poscom0", "light_dir0"),
)
"""What `mujoco_warp.set_const` writes."""
SWITCHES = {
    "opt.wind": "has_fluid",
    "opt.density": "has_fluid",
    "opt.viscosity": "has_fluid",
    "geom_adhesion": "flg_adhesion",
    "pair_adhesion": "flg_adhesion",
    "tendon_stiffness": "has_tendon_stiffness",
    "tendon_damping": "has_tendon_damping",
    "actuator_gainprm": "has_efm_actuator",
    "actuator_biasprm": "has_efm_actuator",
}
"""Fields, and the part of the physics that mujoco_warp leaves out where nominal values need none.
"""
_REMEDIES = {
    "mjDYN_PID": 'replace <pid> by <position> or <dcmotor input="pos">',
    "mjSOL_PGS": 'set <option solver="Newton"/>',
    "plugin": "remove the plugin",
    "Dense": 'set <option jacobian="sparse"/>',
    "noslip": 'set <option noslip_iterations="0"/> or another integrator',
}
_TYPED = (
    ("actuator", "actuator_dyntype", mujoco.mjtDyn),
    ("actuator", "actuator_gaintype", mujoco.mjtGain),
    ("actuator", "actuator_biastype", mujoco.mjtBias),
    ("actuator", "actuator_trntype", mujoco.mjtTrn),
    ("sensor", "sensor_type", mujoco.mjtSensor),
    ("geom", "geom_type", mujoco.mjtGeom),
    ("equality", "eq_type", mujoco.mjtEq),
)
_NEED_CONSTRAINTS = (
    *("JOINTLIMITPOS", "JOINTLIMITVEL", "TENDONLIMITPOS", "TENDONLIMITVEL"),
    *("GEOMDIST", "GEOMNORMAL", "GEOMFROMTO", "E_POTENTIAL", "E_KINETIC"),
)


def refuse(model: mujoco.MjModel, error: Exception) -> ConfigError:
    """Say what in the model mujoco_warp refused with `error`, and what to use instead."""
    reason = str(error)
    elements = [
        f"{kind} {getattr(model, kind)(index).name or index}"
        for kind, types, enum in _TYPED
        for index, value in enumerate(getattr(model, types))
        if enum(value).name in reason
    ]
    where = f" ({', '.join(dict.fromkeys(elements))})" if elements else ""
    remedy = next((text for word, text in _REMEDIES.items() if word in reason), "change the model")
    return ConfigError(
        f"mujoco_warp cannot simulate this model: {reason.rstrip('.')}{where}; {remedy}, "
        "or use device 'cpu' with backend 'batch', MuJoCo itself"
    )


def check_plugins(model: mujoco.MjModel) -> None:
    """Refuse what `mujoco_warp.put_model` itself trips over: a plugin that no geom has.

    Raises:
        NotImplementedError: there is one.
    """
    if model.nplugin > len(set(model.geom_plugin.tolist()) - {-1}):
        raise NotImplementedError("plugin instances of the whole model are not supported")


def check_field(model: mujoco.MjModel, name: str) -> None:
    """Refuse a field that cannot differ between worlds.

    Raises:
        ConfigError: says so, with the nearest name that can.
    """
    fields = _batched(mjw.Model) | {f"opt.{option}" for option in _batched(mjw.Option)}
    owner = model.opt if name.startswith("opt.") else model
    if name not in fields or not hasattr(owner, name.removeprefix("opt.")):
        raise ConfigError(
            f"the model field {name!r} cannot vary between worlds on a GPU"
            f"{did_you_mean(name, fields)}; vary another, or use device 'cpu'"
        )
    if name == "actuator_armature" and not model.actuator_armature.all():
        raise ConfigError(
            "actuator_armature is 0 in the model, where mujoco_warp leaves it out for good; "
            "vary dof_armature, or give each actuator an armature"
        )


def sensors_need_constraints(model: mujoco.MjModel) -> bool:
    """Whether what is sensed in a state needs its contacts, limits or inertia matrix."""
    types = [int(getattr(mujoco.mjtSensor, f"mjSENS_{name}")) for name in _NEED_CONSTRAINTS]
    energy = model.opt.enableflags & int(mujoco.mjtEnableBit.mjENBL_ENERGY)
    return bool(energy or np.isin(model.sensor_type, types).any())


def _batched(struct: type) -> set[str]:
    """Fields of a mujoco_warp class that may differ between worlds."""
    shapes = {field.name: getattr(field.type, "shape", ()) for field in dataclasses.fields(struct)}
    return {name for name, shape in shapes.items() if shape and shape[0] == "*"}
