"""Where the numbers of joints stand in `qpos` and `qvel`, by name."""

import mujoco
import torch

from deploy.errors import ConfigError
from envs.randomization.physics.model_fields import ModelField
from envs.randomization.physics.numbers import Place
from envs.randomization.term import Pattern, matching_rows

_FREE, _BALL = int(mujoco.mjtJoint.mjJNT_FREE), int(mujoco.mjtJoint.mjJNT_BALL)
_LINEAR, _ANGULAR = ("x", "y", "z"), ("rx", "ry", "rz")
Columns = str | list[str] | None


def joint_names(model: mujoco.MjModel) -> list[str]:
    """Name of each joint; one without a name, as free joints often are, is called by its body."""
    return [
        model.joint(joint).name or model.body(int(model.jnt_bodyid[joint])).name
        for joint in range(model.njnt)
    ]


def matching_joints(
    model: mujoco.MjModel, target: str, match: Pattern, kinds: tuple[int, ...] = ()
) -> list[int]:
    """Ids of joints whose name matches, of some kinds only if any are given.

    Raises:
        ConfigError: there is none, or one pattern has none.
    """
    names = [
        name if not kinds or int(model.jnt_type[joint]) in kinds else None
        for joint, name in enumerate(joint_names(model))
    ]
    if not any(names):
        kind = "joint that moves freely" if _FREE in kinds else "joint"
        raise ConfigError(f"randomization: {target!r} needs a {kind}; this model has none")
    return matching_rows(target, names, match)


def velocity_place(model: mujoco.MjModel, target: str, match: Pattern, columns: Columns) -> Place:
    """Velocities of joints in a table of `qvel`: of a free joint x, y, z, rx, ry, rz.

    Where columns are named, only joints that have some are meant: bases and balls.

    Raises:
        ConfigError: no joint matches, they are of different kinds, or the columns are not theirs.
    """
    joints = matching_joints(model, target, match, (_FREE, _BALL) if columns else ())
    kinds = {int(model.jnt_type[joint]) for joint in joints}
    if len(kinds) > 1 and kinds & {_FREE, _BALL}:
        names = [joint_names(model)[joint] for joint in joints]
        raise ConfigError(
            f"randomization: {target!r}: the joints {names} are of different kinds; write a term "
            "for each kind"
        )
    kind = kinds.pop()
    if kind == _FREE:
        field = ModelField(target, [], None, (*_LINEAR, *_ANGULAR), "record")
    elif kind == _BALL:
        field = ModelField(target, [], None, _ANGULAR, "vector")
    else:
        field = ModelField(target, [], None, ("value",), "number")
    chosen = torch.tensor(field.select(columns))
    starts = torch.tensor(model.jnt_dofadr[joints], dtype=torch.int64)[:, None]
    return Place("qvel", starts + chosen, torch.zeros_like(chosen))
