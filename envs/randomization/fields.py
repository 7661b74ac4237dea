"""Draws of model fields: the field terms of a randomization."""

import itertools
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import mujoco
import torch
from mujoco.batch import SimulationError
from torch import Tensor

from deploy.errors import ConfigError
from envs.draws import Draws, Stream
from envs.randomization.limits import check_limits
from envs.randomization.model_fields import Kind, field_values, model_field, write_fields
from envs.randomization.probe import Probe
from envs.randomization.rotation import directions, tilt_vectors, turn_quaternions
from envs.randomization.term import Term, matching_rows, name_streams
from envs.robot import position_servos
from envs.simulation import Simulation
from envs.worlds import Worlds

Values = dict[str, Tensor]
"""Model fields as tables, (worlds, rows, columns) each."""


class Entry(NamedTuple):
    """Part of a model field: all columns or one, with the sign it takes."""

    field: str
    column: int | None = None
    sign: int = 1


GROUPS: dict[str, tuple[Entry, ...]] = {
    "mass": (Entry("body_mass", 0), Entry("body_inertia")),
    "kp": (Entry("actuator_gainprm", 0), Entry("actuator_biasprm", 1)),
    "kd": (Entry("actuator_biasprm", 2, -1),),
}
"""Entries that only make sense together: the first is drawn, the others keep their proportion."""

_TRIALS = 12  # chances for a term to show its effect


class FieldRandomization:
    """Draws model fields per world at startup and reset.

    Args:
        simulation: the worlds.
        terms: field terms; others are ignored.
        draws: the run's random numbers.

    Raises:
        ConfigError: an unknown field, a pattern without a match, values that no robot has, or a
            term without effect on the motion.
    """

    def __init__(self, simulation: Simulation, terms: Sequence[Term], draws: Draws):
        self._simulation = simulation
        self._draws = draws
        model = simulation.model
        self._terms = [
            _Bound(term, name, model) for name, term in name_streams(terms) if term.field
        ]
        names = dict.fromkeys(name for bound in self._terms for name in bound.fields)
        self._nominal = {name: torch.from_numpy(field_values(model, name)) for name in names}
        inputs = mujoco.MjModel._setconst_inputs
        self._recompute = any(name in inputs or name.startswith("opt.") for name in names)
        if self._terms:
            self._check_extremes(model)
            self._check_effects(model)

    def draw(self, worlds: Worlds, episode: Tensor) -> None:
        """Give worlds the values of their `episode` (n,)."""
        if not self._terms:
            return
        ids = worlds.ids
        drawn: dict[str, Tensor] = {}
        for when, index in (("reset", episode), ("startup", torch.zeros_like(episode))):
            streams = [bound.stream for bound in self._terms if bound.term.when == when]
            uniforms = self._draws.uniform(streams, ids, index) if streams else []
            drawn |= {stream.name: u for stream, u in zip(streams, uniforms, strict=True)}
        values = self._apply({bound: drawn[bound.stream.name] for bound in self._terms}, len(ids))
        write_fields(self._simulation, values, ids)
        if self._recompute:
            self._simulation.recompute_constants(worlds)

    def _apply(self, drawn: dict["_Bound", Tensor], num_worlds: int) -> Values:
        """Apply terms, in this order, drawn by uniform numbers (num_worlds, stream size)."""
        values = {name: v.expand(num_worlds, *v.shape).clone() for name, v in self._nominal.items()}
        for bound, uniform in drawn.items():
            bound.apply(values, uniform.double())
        return values

    def _check_extremes(self, model: mujoco.MjModel) -> None:
        """Refuse terms that together could reach what no robot has.

        Values rise or fall all the way with each draw, and so does what a limit compares: the worst
        is where every draw is at one of its ends.
        """
        for together in _related(self._terms):
            corners = list(itertools.product(*(bound.corners() for bound in together)))
            drawn = {
                bound: torch.stack(uniforms)
                for bound, uniforms in zip(together, zip(*corners, strict=True), strict=True)
            }
            values = self._apply(drawn, len(corners))
            touched = dict.fromkeys(name for bound in together for name in bound.fields)
            terms = [bound.term for bound in together]
            check_limits(model, {name: values[name] for name in touched}, terms)

    def _check_effects(self, model: mujoco.MjModel) -> None:
        """Refuse terms without which every world would move the same, to the bit."""
        probe = Probe(model, 1 + len(self._terms), recompute=self._recompute)
        idle = self._terms
        for trial in range(_TRIALS):
            drawn = dict(zip(self._terms, self._trial_draws(trial), strict=True))
            all_but_one = [
                {b: u for b, u in drawn.items() if b is not left} for left in self._terms
            ]
            worlds = [self._apply(terms, 1) for terms in (drawn, *all_but_one)]
            for bound, without in zip(self._terms, worlds[1:], strict=True):
                if trial == 0 and _same(worlds[0], without):
                    alone = self._apply({bound: drawn[bound]}, 1)
                    if not _same(alone, self._apply({}, 1)):
                        reason = "a later term sets the same numbers. Delete one of them."
                    elif bound.term.operation == "set":
                        reason = "the nominal values are these. Widen the range or delete the term."
                    else:
                        reason = (
                            "the nominal values are zero. Use `add` or `set`, or delete the term."
                        )
                    raise ConfigError(f"randomization: '{bound.term}' changes nothing: {reason}")
            values = {name: torch.cat([world[name] for world in worlds]) for name in self._nominal}
            places = {1 + self._terms.index(bound): bound for bound in idle}
            try:
                moved = probe.differ(values, places, trial)
            except SimulationError as error:
                raise ConfigError(f"randomization: MuJoCo refuses the values: {error}") from error
            idle = [bound for place, bound in places.items() if place not in moved]
            if not idle:
                return
        raise ConfigError(
            f"randomization: '{idle[0].term}' has no effect: with and without it this model moved "
            f"the same to the bit, {_TRIALS} times for a second from random poses with random "
            f"controls.{_hint(idle[0].fields[0])} Delete the term, or change the model."
        )

    def _trial_draws(self, trial: int) -> Iterator[Tensor]:
        """Numbers for each term: in turn random, all at the high and all at the low end."""
        generator = torch.Generator().manual_seed(trial)
        for bound in self._terms:
            random = torch.rand(1, bound.stream.size, generator=generator)
            yield (random, torch.ones_like(random), torch.zeros_like(random))[trial % 3]


class _Bound:
    """A field term resolved against a model: which rows and columns, and what is drawn for them."""

    def __init__(self, term: Term, stream: str, model: mujoco.MjModel):
        self.term = term
        name = term.field or ""
        self._lead, *self._followers = GROUPS.get(name, (Entry(name),))
        self.fields = [entry.field for entry in (self._lead, *self._followers)]
        field = model_field(model, self._lead.field, tuple(GROUPS))
        self._kind: Kind = "number" if name in GROUPS else field.kind
        self._rows = torch.tensor(matching_rows(term, field.rows, field.bodies))
        if name in GROUPS:
            if term.columns is not None:
                raise ConfigError(f"randomization: {name!r} has no columns; delete `columns`")
            self._columns = torch.tensor([self._lead.column])
        else:
            self._columns = torch.tensor(field.select(term.columns))
        if problem := self._misuse(model, [field.rows[row] for row in self._rows.tolist()]):
            raise ConfigError(f"randomization: '{term}': {problem}")
        as_one = self._kind == "range" and term.columns is None  # else its ends could cross
        rows = 1 if term.shared in (True, "rows") else len(self._rows)
        columns = 1 if term.shared in (True, "columns") or as_one else len(self._columns)
        self._shape = (rows, 3 if term.operation == "rotate" else columns)
        self.stream = Stream(stream, rows * self._shape[1])

    def apply(self, values: Values, uniform: Tensor) -> None:
        """Change `values` in place as uniform numbers (worlds, stream size) say."""
        numbers = uniform.unflatten(1, self._shape)
        lead = self._lead
        place = (slice(None), self._rows[:, None], self._columns)
        before = values[lead.field][place]
        if self.term.operation == "rotate":
            angle = self.term.transform(numbers[..., 0]).expand(before.shape[:-1])
            direction = directions(numbers[..., 1:]).expand(*before.shape[:-1], 3)
            turn = turn_quaternions if self._kind == "quaternion" else tilt_vectors
            after = turn(before, angle, direction)
        else:
            after = lead.sign * self.term.apply(lead.sign * before, self.term.transform(numbers))
        values[lead.field][place] = after
        for entry in self._followers:
            ratio = torch.where(before == 0, 1, after / before)
            follower = values[entry.field][:, self._rows]
            columns = slice(None) if entry.column is None else [entry.column]
            follower[..., columns] *= ratio
            values[entry.field][:, self._rows] = follower

    def corners(self) -> list[Tensor]:
        """Uniform numbers (stream size,) that lead to the extremes of each row."""
        rows, columns = self._shape
        if self.term.operation == "rotate":  # which keeps lengths: no limit can be violated
            return [torch.zeros(rows * columns)]
        if self._kind in ("range", "moments"):  # whose columns must fit each other
            ends = itertools.product((0.0, 1.0), repeat=columns)
        else:
            ends = iter(((0.0,) * columns, (1.0,) * columns))
        return [torch.tensor(end).repeat(rows) for end in ends]

    def _misuse(self, model: mujoco.MjModel, rows: list[str | None]) -> str:
        operation, kind = self.term.operation, self._kind
        if kind in ("quaternion", "direction") and operation != "rotate":
            return "an orientation is only changed by `operation: rotate`, by an angle [rad]"
        if operation == "rotate" and kind not in ("quaternion", "direction", "vector"):
            return "only orientations and vectors can be rotated"
        if operation == "rotate" and self.term.columns is not None:
            return "a rotation moves all columns; delete `columns`"
        if kind == "range" and operation == "set" and self.term.columns is None:
            return "this would set both ends to one number; name a column, low or high"
        if self.term.field in ("kp", "kd"):
            servos = position_servos(model)[self._rows.numpy()]
            others = [name for name, servo in zip(rows, servos, strict=True) if not servo]
            if others:
                return f"{others} are no position servos; use `match` to leave them out"
        return ""


def _related(terms: Sequence[_Bound]) -> list[list[_Bound]]:
    """Groups of terms, in order, that touch the same fields directly or through others."""
    groups: list[list[_Bound]] = []
    for bound in terms:
        touching = [g for g in groups if any(set(b.fields) & set(bound.fields) for b in g)]
        groups = [group for group in groups if group not in touching]
        groups.append([b for b in terms if b is bound or any(b in group for group in touching)])
    return groups


def _same(one: Values, other: Values) -> bool:
    return all(torch.equal(one[name], other[name]) for name in one)


def _hint(field: str) -> str:
    if field in ("opt.wind", "geom_fluid"):
        return " It acts through the air, and opt.density and opt.viscosity are zero."
    if field.endswith(("_rgba", "_user")) or field.startswith(("mat_", "light_", "cam_")):
        return " It is only looked at."
    if field.startswith("key_"):
        return " Keyframes are read by name, not from the worlds' models."
    if field == "sensor_noise":
        return " MuJoCo adds no noise; use a `signal` term with `when: step`."
    return ""
