"""Draws of model fields: the field terms of a randomization."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import mujoco
import torch
from mujoco.batch import MODEL_FIELDS
from torch import Tensor

from deploy.configuration import did_you_mean
from deploy.errors import ConfigError
from envs.draws import Draws, Stream
from envs.randomization.term import Term, matching_rows, name_streams
from envs.simulation import Simulation


class Entry(NamedTuple):
    """Part of a model field: all columns or one, with the sign it takes."""

    field: str
    column: int | None = None
    sign: int = 1


GROUPS: dict[str, tuple[Entry, ...]] = {
    "mass": (Entry("body_mass"), Entry("body_inertia")),
    "kp": (Entry("actuator_gainprm", 0), Entry("actuator_biasprm", 1)),
    "kd": (Entry("actuator_biasprm", 2, -1),),
}
"""Entries that only make sense together: the first is drawn, the others keep their proportion."""

_NEVER_NEGATIVE = (
    "_mass",
    "_inertia",
    "_delay",
    "_frictionloss",
    "_friction",
    "_damping",
    "_armature",
    "_stiffness",
)

_OBJECTS = {  # the prefix of a field's name tells what its rows are
    "body": mujoco.mjtObj.mjOBJ_BODY,
    "jnt": mujoco.mjtObj.mjOBJ_JOINT,
    "dof": mujoco.mjtObj.mjOBJ_JOINT,
    "geom": mujoco.mjtObj.mjOBJ_GEOM,
    "site": mujoco.mjtObj.mjOBJ_SITE,
    "tendon": mujoco.mjtObj.mjOBJ_TENDON,
    "actuator": mujoco.mjtObj.mjOBJ_ACTUATOR,
    "sensor": mujoco.mjtObj.mjOBJ_SENSOR,
}


class FieldRandomization:
    """Draws model fields per world at startup and reset.

    Args:
        simulation: the worlds.
        terms: field terms; others are ignored.
        draws: the run's random numbers.

    Raises:
        ConfigError: an unknown field, a pattern without a match, or a term without effect.
    """

    def __init__(self, simulation: Simulation, terms: Sequence[Term], draws: Draws):
        self._simulation = simulation
        self._draws = draws
        named = name_streams(terms)
        self._terms = [_Bound(term, name, simulation.model) for name, term in named if term.field]
        self._nominal = {
            entry.field: simulation.field(entry.field)[0].clone()
            for bound in self._terms
            for entry in bound.entries
        }
        for bound in self._terms:
            bound.check(self._nominal)
        inputs = mujoco.MjModel._setconst_inputs
        self._recompute = any(name in inputs for name in self._nominal)

    def draw(self, ids: Tensor, episode: Tensor) -> None:
        """Give worlds `ids` (n,) the values of their `episode` (n,)."""
        if not self._terms:
            return
        episodes = {"reset": episode, "startup": torch.zeros_like(episode)}
        drawn: dict[str, Tensor] = {}
        for when, index in episodes.items():
            streams = [bound.stream for bound in self._terms if bound.term.when == when]
            uniforms = self._draws.uniform(streams, ids, index) if streams else []
            drawn |= {stream.name: u for stream, u in zip(streams, uniforms, strict=True)}
        values = {name: nominal.expand(len(ids), *nominal.shape).clone()
                  for name, nominal in self._nominal.items()}  # fmt: skip
        for bound in self._terms:
            bound.apply(values, bound.term.transform(drawn[bound.stream.name]))
        for name, value in values.items():
            self._simulation.field(name)[ids] = value
        if self._recompute:
            self._simulation.recompute_constants(ids)


class _Bound:
    """A field term resolved against a model: which rows of which entries."""

    def __init__(self, term: Term, stream: str, model: mujoco.MjModel):
        self.term = term
        name = term.field or ""
        self.entries = GROUPS.get(name, (Entry(name),))
        for entry in self.entries:
            if entry.field not in MODEL_FIELDS or not _is_quantity(model, entry.field):
                valid = [*GROUPS, *(f for f in MODEL_FIELDS if _is_quantity(model, f))]
                raise ConfigError(
                    f"randomization: {name!r} is no model field that can differ between worlds"
                    f"{did_you_mean(name, valid)}"
                )
        self._names = _row_names(model, self.entries[0].field)
        self._model = model
        self.rows = torch.tensor(matching_rows(term, self._names or [name]))
        self.stream = Stream(stream, 1 if term.shared else len(self.rows))

    def apply(self, values: dict[str, Tensor], draw: Tensor) -> None:
        """Change rows of `values[field]` (n, rows, ...) by `draw` (n, rows or 1), in place."""
        lead, *followers = self.entries
        before = self._select(values, lead).clone()
        shaped = draw.reshape(*draw.shape, *(1,) * (before.ndim - 2)).to(before.dtype)
        after = lead.sign * self.term.apply(lead.sign * before, shaped)
        values[lead.field][self._index(lead)] = after
        for entry in followers:
            ratio = torch.where(before == 0, 1, after / before)
            follower = self._select(values, entry)
            ratio = ratio.reshape(*ratio.shape, *(1,) * (follower.ndim - ratio.ndim))
            values[entry.field][self._index(entry)] = follower * ratio

    def check(self, nominal: dict[str, Tensor]) -> None:
        """Refuse a term that changes nothing, or delays beyond what a buffer holds."""
        extremes = [self._at_extreme(nominal, uniform) for uniform in (0.0, 1.0)]
        field = self.entries[0].field
        lowest = torch.stack([values[field][0] for values in extremes]).amin(dim=0)
        if field.endswith(_NEVER_NEGATIVE) and (lowest < 0).any():
            raise ConfigError(
                f"randomization: {self.term.target!r} {self.term.operation} "
                f"{list(self.term.range)} could become negative ({float(lowest.min()):g}); "
                "raise the low end of the range"
            )
        if all(torch.equal(values[field][0], nominal[field]) for values in extremes):
            raise ConfigError(
                f"randomization: {self.term.target!r} {self.term.operation} "
                f"{list(self.term.range)} on {self.term.match!r} changes nothing: the nominal "
                "values are zero or the range is neutral. Use `add` or `set`, widen the range, or "
                "delete the term."
            )
        if field in ("actuator_delay", "sensor_delay"):
            samples = getattr(self._model, field.replace("delay", "history"))[:, 0]
            longest = torch.stack([values[field][0] for values in extremes]).amax(dim=0)
            for row in self.rows.tolist():
                held_s = samples[row] * self._model.opt.timestep
                if longest[row] > held_s + 1e-9:
                    raise ConfigError(
                        f"randomization: {field} of {self._names[row]!r} would reach "
                        f"{float(longest[row]):g} s, its buffer holds {held_s:g} s; "
                        "raise nsample in the MJCF or narrow the range"
                    )

    def _at_extreme(self, nominal: dict[str, Tensor], uniform: float) -> dict[str, Tensor]:
        values = {entry.field: nominal[entry.field][None].clone() for entry in self.entries}
        self.apply(values, self.term.transform(torch.full((1, self.stream.size), uniform)))
        return values

    def _index(self, entry: Entry) -> tuple[Any, ...]:
        rows = self.rows if self._names else slice(None)  # a field without rows moves as a whole
        return (slice(None), rows) if entry.column is None else (slice(None), rows, entry.column)

    def _select(self, values: dict[str, Tensor], entry: Entry) -> Tensor:
        return values[entry.field][self._index(entry)]


def _is_quantity(model: mujoco.MjModel, field: str) -> bool:
    """Whether a field holds real numbers that may differ between worlds of one control rate."""
    if field.startswith("opt."):
        return field != "opt.timestep" and not isinstance(getattr(model.opt, field[4:]), int)
    return getattr(model, field).dtype.kind == "f"


def _row_names(model: mujoco.MjModel, field: str) -> list[str]:
    """Name of each row of a model field; none for fields of the whole model."""
    if field in ("qpos0", "qpos_spring"):
        ends = [*model.jnt_qposadr[1:], model.nq]
        widths = [end - start for start, end in zip(model.jnt_qposadr, ends, strict=True)]
        return [model.joint(j).name for j in range(model.njnt) for _ in range(widths[j])]
    kind = _OBJECTS.get(field.split("_")[0])
    if kind is None:
        return []
    if field.startswith("dof"):
        return [model.joint(int(joint)).name for joint in model.dof_jntid]
    rows = len(getattr(model, field))
    return [mujoco.mj_id2name(model, int(kind), index) or "" for index in range(rows)]
