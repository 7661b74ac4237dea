"""MuJoCo's model fields as tables: rows are elements with names, columns are numbers with names.

    field = model_field(model, "geom_friction")
    field.rows, field.bodies, field.columns      # [..., "fixed_jaw"], [..., "hand"], ("slide", ...)

`supply_resistance_ohm` of a model with servos is a field like any other, see `envs.servos`. What
may not be randomized is refused with the reason.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import mujoco
import numpy as np
from mujoco.batch import MODEL_FIELDS
from torch import Tensor

from deploy.configuration import did_you_mean
from deploy.errors import ConfigError
from deploy.servos.models import servos_of
from envs.servos import SUPPLY_RESISTANCE
from envs.simulation import Simulation
from envs.worlds import Worlds

Kind = Literal["number", "vector", "direction", "quaternion", "moments", "range", "record"]
"""How the columns of a field belong together; the columns of a `record` are different things."""

_XYZ = ("x", "y", "z")
_COLUMNS: tuple[tuple[tuple[str, ...], Kind, tuple[str, ...]], ...] = (
    (("quat",), "quaternion", ("w", "x", "y", "z")),
    (("_axis", "_dir"), "direction", _XYZ),
    (("_inertia",), "moments", _XYZ),
    (("pos", "gravity", "wind", "magnetic"), "vector", _XYZ),
    (("range", "_lengthspring"), "range", ("low", "high")),
    (("geom_friction", "flex_friction"), "record", ("slide", "spin", "roll")),
    (("_friction",), "record", ("slide_x", "slide_y", "spin", "roll_x", "roll_y")),
    (("solref", "_lim", "_fri", "friction"), "record", ("timeconst", "dampratio")),
    (("solimp", "_lim", "_fri"), "record", ("dmin", "dmax", "width", "midpoint", "power")),
    (("_gear",), "record", ("x", "y", "z", "rx", "ry", "rz")),
)
"""Endings of field names, what their columns are, and the columns' names."""

_OBJECTS = {  # the prefix of a field's name tells what its rows are
    "body": mujoco.mjtObj.mjOBJ_BODY,
    "jnt": mujoco.mjtObj.mjOBJ_JOINT,
    "geom": mujoco.mjtObj.mjOBJ_GEOM,
    "site": mujoco.mjtObj.mjOBJ_SITE,
    "cam": mujoco.mjtObj.mjOBJ_CAMERA,
    "light": mujoco.mjtObj.mjOBJ_LIGHT,
    "mat": mujoco.mjtObj.mjOBJ_MATERIAL,
    "flex": mujoco.mjtObj.mjOBJ_FLEX,
    "pair": mujoco.mjtObj.mjOBJ_PAIR,
    "eq": mujoco.mjtObj.mjOBJ_EQUALITY,
    "tendon": mujoco.mjtObj.mjOBJ_TENDON,
    "actuator": mujoco.mjtObj.mjOBJ_ACTUATOR,
    "sensor": mujoco.mjtObj.mjOBJ_SENSOR,
    "key": mujoco.mjtObj.mjOBJ_KEY,
}
_HINGE, _SLIDE = int(mujoco.mjtJoint.mjJNT_HINGE), int(mujoco.mjtJoint.mjJNT_SLIDE)

_DERIVED = set(mujoco.MjModel._setconst_outputs) - set(mujoco.MjModel._setconst_inputs) | {
    "geom_aabb"
}


@dataclass(frozen=True)
class ModelField:
    """A model field as a table; `opt.*` fields have one row."""

    name: str
    rows: list[str | None]
    """Name of each row, "" without one; None for a row that is no quantity of its own."""
    bodies: list[str] | None
    """Name of the body each row is on, where rows are on bodies."""
    columns: tuple[str, ...]
    kind: Kind

    def select(self, columns: str | int | Sequence[str | int] | None) -> list[int]:
        """Column numbers of a term's `columns`.

        Raises:
            ConfigError: there are no such columns, or they must be named and are not.
        """
        every = list(range(len(self.columns)))
        if columns is None:
            if self.kind == "record":
                raise ConfigError(
                    f"randomization: the columns of {self.name!r} are different things; name "
                    f"those you mean, e.g. `columns: {self.columns[0]}`, or write `columns: all`; "
                    f"they are {list(self.columns)}"
                )
            return every
        if self.kind == "number":
            raise ConfigError(f"randomization: {self.name!r} has no columns; delete `columns`")
        if columns == "all":
            return every
        listed = [columns] if isinstance(columns, str | int) else columns
        found = []
        for column in listed:
            name = self.columns[column] if column in every else column
            if name not in self.columns or not isinstance(name, str):
                raise ConfigError(
                    f"randomization: {self.name!r} has no column {column!r}"
                    f"{did_you_mean(column, self.columns)}; it has {list(self.columns)}"
                )
            found.append(self.columns.index(name))
        return sorted(set(found))


def model_field(model: mujoco.MjModel, name: str, others: Sequence[str] = ()) -> ModelField:
    """Describe a model field.

    Args:
        model: the model.
        name: the field, as in `mujoco.MjModel`, or `opt.<name>`.
        others: further names to suggest when there is no such field.

    Raises:
        ConfigError: it does not exist or may not be randomized; the message says why.
    """
    if reason := _refusal(model, name, others):
        raise ConfigError(f"randomization: {reason}")
    values = field_values(model, name)
    size = int(values.shape[1])
    kind, columns = _columns(name, size)
    rows, bodies = _rows(model, name, len(values))
    return ModelField(name, rows, bodies, columns, kind)


def field_values(model: mujoco.MjModel, name: str) -> np.ndarray:
    """(rows, columns) values of a model field, a float64 copy."""
    if name == SUPPLY_RESISTANCE:
        return np.zeros((1, 1))
    if name.startswith("opt."):
        return np.array(getattr(model.opt, name[4:]), np.float64).reshape(1, -1)
    values = np.array(getattr(model, name), np.float64)
    return values.reshape(len(values), -1)


def _refusal(model: mujoco.MjModel, name: str, others: Sequence[str]) -> str:
    if name == SUPPLY_RESISTANCE:
        if any(servo != servo.plain for servo in servos_of(model).values()):
            return ""
        return (
            f"{name!r} lets the supply of servos sag, and this model has none whose motor is "
            "known; put them on its joints with envs.servos.add_servo"
        )
    if name not in MODEL_FIELDS:
        valid = [*others, *(f for f in MODEL_FIELDS if _is_real(model, f) and f not in _DERIVED)]
        return (
            f"{name!r} is no model field that can differ between worlds{did_you_mean(name, valid)}"
        )
    if name == "opt.timestep":
        return "'opt.timestep' must be the same in all worlds, which are stepped together"
    if not _is_real(model, name):
        return f"{name!r} holds ids, types or switches, no quantity"
    if name in _DERIVED:
        return (
            f"{name!r} is computed by MuJoCo from other fields when the model is compiled; "
            "randomize those it follows from, such as `mass`, body_ipos, geom_size"
        )
    if not name.startswith("opt.") and getattr(model, name).size == 0:
        return f"{name!r} is empty: this model has no such elements"
    return ""


def _is_real(model: mujoco.MjModel, name: str) -> bool:
    values = getattr(model.opt, name[4:]) if name.startswith("opt.") else getattr(model, name)
    return np.asarray(values).dtype.kind == "f"


def _columns(name: str, size: int) -> tuple[Kind, tuple[str, ...]]:
    if size == 1:
        return "number", ("value",)
    for endings, kind, columns in _COLUMNS:
        if name.endswith(endings) and size == len(columns):
            return kind, columns
    return "record", tuple(map(str, range(size)))


def _rows(
    model: mujoco.MjModel, name: str, count: int
) -> tuple[list[str | None], list[str] | None]:
    if name == SUPPLY_RESISTANCE:
        return [name], None
    prefix = name.split("_")[0]
    bodies = [model.body(index).name for index in range(model.nbody)]
    if name.startswith("opt."):
        return [name], None
    if prefix == "dof":
        joints = [model.joint(int(joint)).name for joint in model.dof_jntid]
        return [*joints], [bodies[body] for body in model.dof_bodyid]
    if name in ("qpos0", "qpos_spring"):  # of free and ball joints, parts of a pose
        names: list[str | None] = [None] * count
        on = [""] * count
        for joint, kind in enumerate(model.jnt_type):
            if kind in (_HINGE, _SLIDE):
                row = model.jnt_qposadr[joint]
                names[row], on[row] = model.joint(joint).name, bodies[model.jnt_bodyid[joint]]
        return names, on
    objects = _OBJECTS.get(prefix)
    if objects is None:
        return [str(index) for index in range(count)], None
    names = [mujoco.mj_id2name(model, int(objects), index) or "" for index in range(count)]
    if prefix == "body":
        return names, bodies
    on_body = getattr(model, f"{prefix}_bodyid", None)
    return names, None if on_body is None else [bodies[body] for body in on_body]


def write_fields(simulation: Simulation, values: Mapping[str, Tensor], worlds: Worlds) -> None:
    """Give worlds their values, (n, rows, columns) of each field."""
    for name, table in values.items():
        field = simulation.field(name)
        worlds.put(field, table.reshape(len(worlds), *field.shape[1:]))
