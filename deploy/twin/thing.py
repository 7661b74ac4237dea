"""A thing that lies before a robot, free to be pushed and grasped.

    add_thing(spec, Path("configs/things/puck.xml"), parameters)    # before the model is compiled
    vary_thing(model, parameters)                                   # afterwards
    check_apart(model, data)                                        # when all is in its place

It is an MJCF with one body that has a free joint. If its `option` says how contacts are computed
(`cone`, `impratio`), that holds for the robot's, too.
"""

import warnings
from pathlib import Path

import mujoco
import numpy as np

from deploy.errors import ConfigError
from deploy.twin.parameters import TwinParameters

THING = "_thing"
"""Name of its body and of its joint in the robot's model."""
TOUCHING_M = 0.001
"""As deep in the robot as this, it was laid into it."""


def add_thing(spec: mujoco.MjSpec, path: Path, parameters: TwinParameters) -> None:
    """Put a thing into a robot's world, whose joints it leaves where they are in `qpos`.

    Raises:
        ConfigError: the file cannot be read, or holds something else than one free body.
    """
    try:
        thing = mujoco.MjSpec.from_file(str(path))
        model = thing.compile()
    except (ValueError, OSError) as error:
        raise ConfigError(f"{path}: is no MJCF of a thing: {error}") from error
    bodies, joints = thing.worldbody.bodies, list(thing.joints)
    if not (len(bodies) == 1 and len(joints) == len(bodies[0].joints) == 1 and _is_free(joints[0])):
        raise ConfigError(
            f"{path}: found {len(bodies)} bodies in the worldbody, {len(joints)} joints; expected "
            "one body with a <freejoint/>, and no other joint, as in configs/things/puck.xml"
        )
    (body,) = bodies
    body.pos, body.quat = model.body_pos[1], model.body_quat[1]  # with those of frames around it
    body.pos[:2] += parameters.thing_place_m
    body.name = joints[0].name = THING[1:]
    spec.option.cone = max(spec.option.cone, thing.option.cone)
    spec.option.impratio = max(spec.option.impratio, thing.option.impratio)
    with warnings.catch_warnings():  # of other settings the robot's prevail
        warnings.filterwarnings("ignore", "Attach conflict")
        spec.worldbody.add_frame().attach_body(body, THING[0], "")


def vary_thing(model: mujoco.MjModel, parameters: TwinParameters) -> None:
    """Give the thing the mass and friction that were drawn; before `mj_setConst`."""
    parts = _parts(model)
    model.body_mass[parts] *= parameters.thing_mass_scale
    model.body_inertia[parts] *= parameters.thing_mass_scale
    model.geom_friction[np.isin(model.geom_bodyid, parts), 0] *= parameters.thing_friction_scale


def check_apart(model: mujoco.MjModel, data: mujoco.MjData) -> None:
    """Refuse a thing that lies in the robot, which would be thrown about; after `mj_forward`.

    Raises:
        ConfigError: names the part.
    """
    parts = _parts(model)
    for contact in data.contact[: data.ncon]:
        bodies = model.geom_bodyid[contact.geom]
        others = bodies[~np.isin(bodies, parts)]
        if len(others) == 1 and others[0] and contact.dist < -TOUCHING_M:
            at = ", ".join(f"{value:.3f}" for value in data.body(THING).xpos)
            raise ConfigError(
                f"the thing at ({at}) m lies {-contact.dist * 1000:.0f} mm deep in "
                f"{model.body(others[0]).name!r} of the robot at rest; give it another `pos`"
            )


def _parts(model: mujoco.MjModel) -> np.ndarray:
    return np.flatnonzero(model.body_rootid == model.body(THING).id)


def _is_free(joint: mujoco.MjsJoint) -> bool:
    return joint.type == mujoco.mjtJoint.mjJNT_FREE
