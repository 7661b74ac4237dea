"""Terms on model fields: one field, one of its coupled names, or several that follow one draw.

    - {field: dof_damping, match: elbow, range: [0.8, 1.2]}
    - {field: mass, range: [0.85, 1.15]}                     # mass and inertia of each body
    - {field: joint_zero, operation: add, range: [-0.02, 0.02]}
    - {fields: [kp, actuator_forcerange], range: [0.8, 1.1], shared: true}

Several fields follow one draw for each name, also where their elements stand in another order, as
servos and joints may. `mass` keeps a body's shape, `kp` both of a servo's gains equal, `friction`
the proportions of sliding, spinning and rolling. `joint_zero` is the error of a horn or a
calibration [rad]: the servo and the policy read the same wrong angle, so hard stops and springs,
which are where they are, move on that scale too. (An error that only the policy sees is `signal:
joint_position`.) Between two geoms MuJoCo takes the larger friction: scale both, or give one of
them priority in the MJCF.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal, NamedTuple

import mujoco
import numpy as np
import torch
from pydantic import Field, model_validator
from torch import Tensor

from deploy.errors import ConfigError
from envs.randomization.physics.model_fields import ModelField, field_values, model_field
from envs.randomization.physics.numbers import (
    NEUTRAL,
    Change,
    Numbers,
    Operation,
    Part,
    Place,
    Rotation,
)
from envs.randomization.term import ModelTerm, Pattern, RangeTerm, matching_rows
from envs.robot import position_servos

Column = str | Annotated[int, Field(ge=0, le=1000)]

_FOLLOWED: dict[str, tuple[tuple[str, int | None, int], ...]] = {
    "mass": (("body_mass", 0, 1), ("body_inertia", None, 1)),
    "kp": (("actuator_gainprm", 0, 1), ("actuator_biasprm", 1, 1)),
    "kd": (("actuator_biasprm", 2, -1),),
}
"""Field, column (None: all) and sign; the first is drawn, the others keep their proportion."""
_LEADS = {"friction": "geom_friction", "joint_zero": "qpos0"}
COUPLED = (*_FOLLOWED, "friction", "joint_zero")


class _FieldsTerm(ModelTerm):
    """What both kinds of terms here can say."""

    match: Pattern = "*"
    """Pattern or patterns of the names of the elements it applies to."""
    body: Pattern | None = None
    """Only elements on bodies of these names: the one way to reach elements without a name."""
    operation: Operation = "scale"
    """How a draw changes the nominal value; `rotate` turns it by an angle [rad]."""

    @model_validator(mode="after")
    def _check(self) -> "_FieldsTerm":
        check_effect(self, self.operation)
        if self.operation == "rotate" or "joint_zero" in self.target.split("+"):
            check_angle(self)
        return self

    @property
    def identity(self) -> str:
        """See `RandomTerm.identity`."""
        said = self.describe()
        place = f"{self.match}" if self.body is None else f"{self.match}@{self.body}"
        columns = "" if said.get("columns") is None else f"/{said['columns']}"
        return f"{self.target}/{place}{columns}/{self.operation}/{self.when}"


class FieldTerm(_FieldsTerm):
    """A field of MuJoCo's `MjModel`, or `mass`, `kp`, `kd`, `friction`, `joint_zero`."""

    field: str
    """The field, e.g. `dof_damping`."""
    columns: Column | list[Column] | None = None
    """Which numbers of an element that has several: names, counts from 0, or `all`."""
    shared: Literal["rows", "columns"] | bool = False
    """One draw for all elements (`rows`), for all columns of an element (`columns`), or for all
    (true), instead of one for each number."""

    @property
    def target(self) -> str:
        """See `RandomTerm.target`."""
        return self.field

    def describe(self) -> dict[str, Any]:
        """See `RandomTerm.describe`."""
        return self.summary(self.match, self.operation, body=self.body, columns=self.columns)

    def bind(self, model: mujoco.MjModel) -> Change:
        """Resolve names in a model.

        Raises:
            ConfigError: an unknown field, a pattern without a match, or what means nothing.
        """
        if self.field in COUPLED:
            if self.columns is not None:
                raise ConfigError(f"randomization: {self.field!r} has no columns; delete `columns`")
            parts = _parts(self, self.field, model)
            rows = 1 if self.shared in (True, "rows") else len(parts[0].lead.rows)
            return Numbers(parts, self.operation, self, (rows, 1))
        field = model_field(model, self.field, COUPLED)
        chosen = matching_rows(self.field, field.rows, self.match, self.body, field.bodies)
        columns = torch.tensor(field.select(self.columns))
        if problem := self._misuse(field):
            raise ConfigError(f"randomization: '{self}': {problem}")
        place = Place(self.field, torch.tensor(chosen)[:, None], columns)
        rows = 1 if self.shared in (True, "rows") else len(chosen)
        if self.operation == "rotate":
            return Rotation(place, self, rows)
        as_one = field.kind == "range" and self.columns is None  # else its ends could cross
        count = 1 if self.shared in (True, "columns") or as_one else len(columns)
        joint = field.kind in ("range", "moments")
        return Numbers([Part(place)], self.operation, self, (rows, count), joint_columns=joint)

    def _misuse(self, field: ModelField) -> str:
        if field.kind in ("quaternion", "direction") and self.operation != "rotate":
            return "an orientation is only changed by `operation: rotate`, by an angle [rad]"
        if self.operation == "rotate" and field.kind not in ("quaternion", "direction", "vector"):
            return "only orientations and vectors can be rotated"
        if self.operation == "rotate" and self.columns is not None:
            return "a rotation moves all columns; delete `columns`"
        if field.kind == "range" and self.operation == "set" and self.columns is None:
            return "this would set both ends to one number; name a column, low or high"
        return ""


class FieldsTerm(_FieldsTerm):
    """Several fields that follow one draw for each element."""

    fields: Annotated[list[str], Field(min_length=2, max_length=20)]
    """The fields, of the same elements, e.g. `[kp, actuator_forcerange]`."""
    shared: bool = False
    """One draw for all elements; then the fields may be of different ones."""

    @model_validator(mode="after")
    def _check_fields(self) -> "FieldsTerm":
        if len(set(self.fields)) < len(self.fields):
            raise ValueError(f"a field is there twice in {self.fields}; name each once")
        return self

    @property
    def target(self) -> str:
        """See `RandomTerm.target`."""
        return "+".join(self.fields)

    def describe(self) -> dict[str, Any]:
        """See `RandomTerm.describe`."""
        return self.summary(self.match, self.operation, body=self.body)

    def bind(self, model: mujoco.MjModel) -> Change:
        """See `FieldTerm.bind`."""
        if self.operation == "rotate":
            raise ConfigError(f"randomization: '{self}': only a single field can be rotated")
        parts = [part for name in self.fields for part in _parts(self, name, model)]
        elements = {name: _elements(self, name, model) for name in self.fields}
        for name, (table, rows, column) in elements.items():
            values = field_values(model, table)[rows]
            moved = values if column is None else values[:, column]
            if self.operation == "scale" and not moved.any():
                raise ConfigError(
                    f"randomization: '{self}': the nominal values of {name} are zero and stay so; "
                    "leave it out"
                )
        if self.shared:
            return Numbers(parts, self.operation, self, (1, 1))
        counts = {name: len(rows) for name, (_, rows, _) in elements.items()}
        if len(set(counts.values())) > 1:
            raise ConfigError(
                f"randomization: '{self}': the fields have different numbers of elements, "
                f"{counts}; narrow `match`, or write `shared: true`"
            )
        orders = self._orders(elements, model)
        parts = [part for name in self.fields for part in _parts(self, name, model, orders[name])]
        return Numbers(parts, self.operation, self, (counts[self.fields[0]], 1))

    def _orders(
        self, elements: Mapping[str, "_Elements"], model: mujoco.MjModel
    ) -> dict[str, list[int]]:
        """The places of each field's elements in which they follow those of the first, by name."""
        names = {
            name: [model_field(model, table).rows[row] or "" for row in rows]
            for name, (table, rows, _) in elements.items()
        }
        first = self.fields[0]
        orders: dict[str, list[int]] = {}
        for name, found in names.items():
            if elements[name].kind == elements[first].kind:  # the very same elements
                orders[name] = list(range(len(found)))
                continue
            wanted = names[first]
            if "" in wanted or len(set(wanted)) < len(wanted) or set(wanted) != set(found):
                raise ConfigError(
                    f"randomization: '{self}': which element of {name} follows which of {first} is "
                    f"told by their names, and these are {found} and {wanted}; narrow `match`, "
                    "write `shared: true`, or a term for each field"
                )
            orders[name] = [found.index(element) for element in wanted]
        return orders


class _Elements(NamedTuple):
    """What a name of a term stands for, by the field that is drawn."""

    table: str
    rows: list[int]
    column: int | None
    """None: all."""

    @property
    def kind(self) -> str:
        """What the rows are: actuators, bodies, ..."""
        return self.table.split("_")[0]


def _elements(term: _FieldsTerm, name: str, model: mujoco.MjModel) -> _Elements:
    table, column, _ = _FOLLOWED.get(name, ((_LEADS.get(name, name), None, 1),))[0]
    field = model_field(model, table, COUPLED)
    rows = matching_rows(name, field.rows, term.match, term.body, field.bodies)
    return _Elements(table, rows, column)


def check_effect(term: RangeTerm, operation: Operation) -> None:
    """Refuse a range that changes nothing, or whose factors are negative."""
    low, high = term.extremes
    if operation == "scale" and low < 0:
        raise ValueError(
            f"{term.target}: a factor could become negative ({low:g}); raise the low end of "
            "the range, or use `add`"
        )
    if low == high == NEUTRAL.get(operation):
        raise ValueError(
            f"{term.target}: {operation} {list(term.range)} changes nothing; widen the "
            "range or delete the term"
        )


def check_angle(term: RangeTerm) -> None:
    """Refuse angles beyond half a turn, which were meant in degrees."""
    if max(map(abs, term.extremes)) > math.pi:
        raise ValueError(
            f"{term.target}: an angle is at most {math.pi:.4g} rad, found {list(term.range)}; is "
            "it in degrees?"
        )


def _parts(
    term: _FieldsTerm, name: str, model: mujoco.MjModel, order: Sequence[int] | None = None
) -> list[Part]:
    """What one name of a term stands for, with all columns of an element as one.

    Args:
        term: the term.
        name: a field, or one of `COUPLED`.
        model: the model.
        order: of its elements; None for that of the model.
    """
    rows = _elements(term, name, model).rows
    rows = rows if order is None else [rows[place] for place in order]
    if name == "joint_zero":
        if term.operation != "add":
            raise ConfigError(
                f"randomization: '{term}': an angle is added to a joint's zero: `operation: add`"
            )
        return [Part(place) for place in _zero_places(rows, model)]
    if name == "friction":
        if term.operation != "scale":
            raise ConfigError(
                f"randomization: '{term}': sliding, spinning and rolling friction are scaled "
                "together; for anything else name `geom_friction` and its columns"
            )
        return [Part(Place("geom_friction", torch.tensor(rows)[:, None], torch.arange(3)))]
    if name in _FOLLOWED:
        if name in ("kp", "kd"):
            _require_servos(term, model, rows)
        lead, *followers = [
            Place(table, torch.tensor(rows)[:, None], _columns(model, table, column), sign)
            for table, column, sign in _FOLLOWED[name]
        ]
        return [Part(lead, tuple(followers))]
    field = model_field(model, name, COUPLED)
    if field.kind in ("quaternion", "direction"):
        raise ConfigError(f"randomization: '{term}': {name} is an orientation; rotate it alone")
    if field.kind == "range" and term.operation == "set":
        raise ConfigError(f"randomization: '{term}': this would set both ends of {name} alike")
    return [Part(Place(name, torch.tensor(rows)[:, None], torch.tensor(field.select(None))))]


def _columns(model: mujoco.MjModel, table: str, column: int | None) -> Tensor:
    return (
        torch.arange(field_values(model, table).shape[1])
        if column is None
        else torch.tensor([column])
    )


def _zero_places(rows: list[int], model: mujoco.MjModel) -> list[Place]:
    """All that is measured from the zero of joints, given by their places in qpos."""
    joints = [int(np.flatnonzero(model.jnt_qposadr == row)[0]) for row in rows]
    angles, ids = torch.tensor(rows)[:, None], torch.tensor(joints)[:, None]
    ends = torch.arange(2)
    return [
        Place("qpos0", angles, torch.tensor([0])),
        Place("qpos_spring", angles, torch.tensor([0])),
        Place("jnt_range", ids, ends),
    ]


def _require_servos(term: _FieldsTerm, model: mujoco.MjModel, rows: list[int]) -> None:
    names = [model.actuator(row).name for row in rows if not position_servos(model)[row]]
    if names:
        raise ConfigError(
            f"randomization: '{term}': {names} are no position servos; use `match` to leave them "
            "out"
        )
