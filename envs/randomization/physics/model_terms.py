"""What differs between the models of the worlds: draws of model fields at work.

    model_terms = ModelTerms(bound, simulation, draws, control_dt_s=0.02)
    model_terms.begin(worlds, episode)

A field is always the nominal one with the present draws of all its terms applied, in the order of
the terms. Constants that MuJoCo derives are recomputed where MuJoCo says they depend on a field.
Terms of `when: interval` are drawn again within an episode: the fields that they touch, and no
others, are then made anew. Fields that follow from world and episode alone are made ahead.
"""

from collections.abc import Collection, Iterable, Sequence
from typing import Any, NamedTuple

import mujoco
import torch
from torch import Tensor

from envs.ahead import Ahead
from envs.draws import Draws, Stream
from envs.randomization.physics.model_fields import field_values, write_fields
from envs.randomization.physics.numbers import Change, Values
from envs.randomization.physics.timer import Timer
from envs.randomization.term import ModelTerm, PhysicsTerm
from envs.simulation import Simulation
from envs.worlds import Worlds

_INPUTS = frozenset(mujoco.MjModel._setconst_inputs)


class Bound(NamedTuple):
    """A term, the name of its draws, what it does to tables, and the share of it in use."""

    term: PhysicsTerm
    stream: Stream
    change: Change
    share: Tensor | None = None


class ModelTerms:
    """See the module docstring.

    Args:
        terms: those that act on the model.
        simulation: the worlds.
        draws: the run's random numbers.
        control_dt_s: period of the policy [s].
    """

    def __init__(
        self, terms: Sequence[Bound], simulation: Simulation, draws: Draws, *, control_dt_s: float
    ):
        self._terms, self._simulation, self._draws = terms, simulation, draws
        self.nominal = nominal_values(simulation.model, terms, simulation.device)
        self._timers = {
            bound.stream: Timer(
                bound.stream.name,
                interval_s,
                draws,
                num_envs=simulation.num_envs,
                device=simulation.device,
                compact=simulation.compact,
                control_dt_s=control_dt_s,
            )
            for bound in terms
            if isinstance(bound.term, ModelTerm) and (interval_s := bound.term.interval_s)
        }
        groups = related(terms)
        self._groups = {
            bound.stream: group
            for group in groups
            for bound in group
            if bound.stream in self._timers
        }
        known = [
            bound
            for group in groups
            if all(b.share is None and b.stream not in self._timers for b in group)
            for bound in group
        ]
        self._known_names = table_names(known)
        self._known = Ahead(
            lambda ids, episode: list(self.make(known, ids, episode).values()),
            simulation.num_envs,
            simulation.device,
        )
        self._others = [bound for bound in terms if bound not in known]
        self._episode = torch.zeros(
            simulation.num_envs, dtype=torch.int64, device=simulation.device
        )

    def begin(self, worlds: Worlds, episode: Tensor) -> None:
        """Give worlds the values of their `episode` (n,)."""
        worlds.put(self._episode, episode)
        for timer in self._timers.values():
            timer.begin(worlds)
        known = self._known.of(worlds, episode)
        values = dict(zip(self._known_names, known, strict=True))
        self._write(worlds, values | self.make(self._others, worlds.ids, episode))

    def before_step(self) -> None:
        """Draw again where it is time."""
        for stream, timer in self._timers.items():
            worlds = timer.due()
            if not worlds.none:
                episode = worlds.take(self._episode)
                self._write(worlds, self.make(self._groups[stream], worlds.ids, episode))

    def make(self, terms: Sequence[Bound], ids: Tensor, episode: Tensor) -> Values:
        """Fields (n, rows, columns) of worlds (n,) in an `episode` (n,).

        Args:
            terms: all that touch these fields.
            ids: the worlds.
            episode: of each; terms of `when: interval` go by what they drew last.
        """
        values = spread({name: self.nominal[name] for name in table_names(terms)}, len(ids))
        for bound, uniform in zip(terms, self._draw(terms, ids, episode), strict=True):
            bound.change.apply(values, uniform, bound.share)
        return values

    def state_dict(self) -> dict[str, Any]:
        """Which draws are in use; the values themselves are in the simulation."""
        timers = {stream.name: timer.state_dict() for stream, timer in self._timers.items()}
        return {"episode": self._episode.clone(), "timers": timers}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        self._episode.copy_(state["episode"])
        for stream, timer in self._timers.items():
            timer.load_state_dict(state["timers"][stream.name])

    def _write(self, worlds: Worlds, values: Values) -> None:
        """Give worlds their fields (n, rows, columns), and the constants that follow from them."""
        write_fields(self._simulation, values, worlds)
        if needs_constants(values):
            self._simulation.recompute_constants(worlds)

    def _draw(self, terms: Sequence[Bound], ids: Tensor, episode: Tensor) -> list[Tensor]:
        """Uniform numbers (n, stream.size) for each term, drawn together where they can be."""
        drawn: dict[Stream, Tensor] = {}
        for when, index in (("reset", episode), ("startup", torch.zeros_like(episode))):
            streams = [
                b.stream for b in terms if isinstance(b.term, ModelTerm) and b.term.when == when
            ]
            if streams:
                uniforms = self._draws.uniform(streams, ids, index)
                drawn |= dict(zip(streams, uniforms, strict=True))
        for bound in terms:
            if timer := self._timers.get(bound.stream):
                (drawn[bound.stream],) = self._draws.uniform([bound.stream], ids, timer.count[ids])
        return [drawn[bound.stream] for bound in terms]


def nominal_values(
    model: mujoco.MjModel, terms: Sequence[Bound], device: torch.device | str = "cpu"
) -> Values:
    """Tables (rows, columns) of all fields that terms touch."""
    return {
        name: torch.from_numpy(field_values(model, name)).to(device) for name in table_names(terms)
    }


def table_names(terms: Iterable[Bound]) -> list[str]:
    """The tables that terms touch, each once."""
    return list(dict.fromkeys(table for bound in terms for table in bound.change.tables))


def spread(nominal: Values, worlds: int) -> Values:
    """The same tables for a number of worlds, free to be changed."""
    return {name: table.expand(worlds, *table.shape).clone() for name, table in nominal.items()}


def needs_constants(names: Sequence[str] | dict[str, Any]) -> bool:
    """Whether MuJoCo derives constants from any of these fields."""
    return any(name in _INPUTS or name.startswith("opt.") for name in names)


def related(terms: Sequence[Bound], as_one: Collection[str] = ()) -> list[list[Bound]]:
    """Groups of terms, in order, that touch the same fields directly or through others.

    Args:
        terms: the terms.
        as_one: fields that count as the same.
    """

    def touched(bound: Bound) -> set[str]:
        tables = set(bound.change.tables)
        return tables | set(as_one) if tables & set(as_one) else tables

    groups: list[list[Bound]] = []
    for bound in terms:
        touching = [g for g in groups if any(touched(bound) & touched(b) for b in g)]
        groups = [group for group in groups if group not in touching]
        groups.append([b for b in terms if b is bound or any(b in group for group in touching)])
    return groups
