"""A thing that lies before a robot, free to be pushed and grasped.

    add_thing(spec, Path("configs/things/puck.xml"), parameters)    # before the model is compiled
    vary_thing(model, parameters)                                   # afterwards

It is an MJCF with one body that has a free joint; its `option` says how contacts are computed.
"""

from pathlib import Path

import mujoco

from deploy.errors import ConfigError
from deploy.twin.parameters import TwinParameters

THING = "_thing"
"""Name of its body and of its joint in the robot's model."""


def add_thing(spec: mujoco.MjSpec, path: Path, parameters: TwinParameters) -> None:
    """Put a thing into a robot's world, whose joints it leaves where they are in `qpos`.

    Raises:
        ConfigError: the file cannot be read, or holds something else than one free body.
    """
    try:
        thing = mujoco.MjSpec.from_file(str(path))
    except (ValueError, OSError) as error:
        raise ConfigError(f"{path}: is no MJCF of a thing: {error}") from error
    bodies, joints = thing.worldbody.bodies, list(thing.joints)
    if not (len(bodies) == 1 and len(joints) == len(bodies[0].joints) == 1 and _is_free(joints[0])):
        raise ConfigError(
            f"{path}: found {len(bodies)} bodies in the worldbody, {len(joints)} joints; expected "
            "one body with a <freejoint/>, and no other joint, as in configs/things/puck.xml"
        )
    spec.option.cone, spec.option.impratio = thing.option.cone, thing.option.impratio
    bodies[0].pos[:2] += parameters.thing_place_m
    bodies[0].name = joints[0].name = THING[1:]
    spec.worldbody.add_frame().attach_body(bodies[0], THING[0], "")


def vary_thing(model: mujoco.MjModel, parameters: TwinParameters) -> None:
    """Give the thing the mass and friction that were drawn; before `mj_setConst`."""
    body = model.body(THING)
    body.mass *= parameters.thing_mass_scale
    body.inertia *= parameters.thing_mass_scale
    model.geom_friction[model.geom_bodyid == body.id, 0] *= parameters.thing_friction_scale


def _is_free(joint: mujoco.MjsJoint) -> bool:
    return joint.type == mujoco.mjtJoint.mjJNT_FREE
