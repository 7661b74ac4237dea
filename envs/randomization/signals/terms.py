"""What the controller senses of the true signals: the signal terms of a randomization at work.

`envs.randomization.signals.kinds` says which terms there are and in which order a reading passes
through them. Every draw is a function of (seed, term, world, step), that of a first reading of
(seed, term, world, episode), so it depends neither on which worlds are read together nor on the
device. Noise of the steps is made in blocks: the generator takes little longer for 16 than for 1.

Nothing here waits for a GPU: tables have a fixed size and worlds are chosen with `envs.worlds`.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from deploy.configuration import did_you_mean
from deploy.errors import ConfigError
from deploy.signals import SIGNALS
from envs.ahead import Ahead
from envs.draws import Draws, Stream
from envs.randomization.signals.errors import SignalQuantization, SignalRotation, UnitLength
from envs.randomization.signals.sensing import Place, Reading, Share, SignalTerm, Stage
from envs.randomization.signals.step_draws import StepDraws
from envs.randomization.term import matching_rows, name_streams
from envs.worlds import Worlds

_AXES = ["x", "y", "z"]
UNIT_VECTORS = tuple(
    name for name, row in SIGNALS.items() if row.unit == "1" and list(row.axes) == _AXES
)
"""Signals that are directions, whatever an error does to them."""


class _Bound(NamedTuple):
    """A term at work on one of its signals."""

    number: int
    """Which of the terms."""
    stream: str
    signal: str
    stage: Stage
    columns: Tensor | None
    """(k,) places of its elements; None for all."""


class SignalTerms:
    """See the module docstring.

    Args:
        terms: signal terms.
        elements: element names of each signal.
        draws: the run's random numbers.
        num_envs: number of worlds.
        device: of signals and draws.
        control_dt_s: period of the policy [s].

    Raises:
        ConfigError: an unknown signal, a pattern without a match, or a term that its signal or the
            policy's period does not allow.
    """

    def __init__(
        self,
        terms: Sequence[SignalTerm],
        elements: Mapping[str, Sequence[str]],
        draws: Draws,
        *,
        num_envs: int,
        device: torch.device,
        control_dt_s: float,
    ):
        self._draws = draws
        worlds = (num_envs, device, control_dt_s)
        self._bound = [
            _Bound(number, stream, signal, *_bind(term, signal, elements, worlds))
            for number, (term, stream) in enumerate(zip(terms, name_streams(terms), strict=True))
            for signal in term.signals
        ]
        self._starting = [bound for bound in self._bound if bound.stage.start_size]
        self._stepping = [bound for bound in self._bound if bound.stage.step_size]
        self._chains = {bound.signal: self._chain(bound.signal) for bound in self._bound}
        self._start_streams = [
            *(Stream(bound.stream, bound.stage.start_size) for bound in self._starting),
            *(Stream(f"{bound.stream}/first", bound.stage.step_size) for bound in self._stepping),
        ]
        self._start = Ahead(self._draw_start, num_envs, device)
        self._first: Sequence[Tensor] = []
        self._steps = StepDraws(
            draws,
            [Stream(bound.stream, bound.stage.step_size) for bound in self._stepping],
            [bound.stage.prepare for bound in self._stepping],
            torch.arange(num_envs, device=device),
        )

    def begin(self, worlds: Worlds, episode: Tensor) -> None:
        """Draw what stays for an episode, and what the first reading of it is given.

        Args:
            worlds: where an episode starts.
            episode: (n,) its number.
        """
        if not self._start_streams:
            return
        drawn = self._start.of(worlds, episode)
        for bound, uniform in zip(self._starting, drawn, strict=False):
            bound.stage.begin(worlds, uniform)
        self._first = drawn[len(self._starting) :]

    def sense(
        self, signals: dict[str, Tensor], worlds: Worlds, step: int, starting: Tensor | None
    ) -> None:
        """Replace true signals by what is read.

        Args:
            signals: (n, elements) each.
            worlds: those they are of.
            step: control steps since the environment was made.
            starting: (n,) episodes, if these are their first readings; `begin` came just before,
                for the same worlds. An episode ends and the next one starts in the same step, and
                their noise must differ.
        """
        first = starting is not None
        drawn = self._first if first else [worlds.take(numbers) for numbers in self._steps.at(step)]
        reading = Reading(worlds, step, first)
        for signal, chain in self._chains.items():
            values = signals[signal]
            for stage, columns, place in chain:
                numbers = values if place is None else drawn[place]
                if columns is None:
                    values = stage.read(values, numbers, reading)
                else:
                    read = stage.read(values[:, columns], numbers, reading)
                    values = values.index_copy(1, columns, read)
            signals[signal] = values

    def set_shares(self, shares: Mapping[int, Share]) -> None:
        """Use only this share, in [0, 1], of the range of terms, by their number in `terms`.

        What stays for an episode changes with the next one.
        """
        for bound in self._bound:
            bound.stage.share = shares.get(bound.number, bound.stage.share)

    def state_dict(self) -> list[dict[str, Tensor]]:
        """What the terms remember; noise is a function of the step."""
        return [
            {name: table.clone() for name, table in bound.stage.state.items()}
            for bound in self._bound
        ]

    def load_state_dict(self, state: list[dict[str, Any]]) -> None:
        """Restore what `state_dict` returned."""
        for bound, saved in zip(self._bound, state, strict=True):
            for name, table in bound.stage.state.items():
                table.copy_(saved[name])

    def _draw_start(self, ids: Tensor, episode: Tensor) -> list[Tensor]:
        """Numbers for `Stage.begin` of what starts, then those of first readings, prepared."""
        uniforms = self._draws.uniform(self._start_streams, ids, episode)
        first = zip(self._stepping, uniforms[len(self._starting) :], strict=True)
        return [
            *uniforms[: len(self._starting)],
            *(bound.stage.prepare(uniform) for bound, uniform in first),
        ]

    def _chain(self, signal: str) -> list[tuple[Stage, Tensor | None, int | None]]:
        """The stages of a signal in the order of a sensor, their columns, and which draws."""
        chain = [
            (
                bound.stage,
                bound.columns,
                self._stepping.index(bound) if bound.stage.step_size else None,
            )
            for bound in self._bound
            if bound.signal == signal
        ]
        if signal in UNIT_VECTORS:
            chain.append((UnitLength(), None, None))
        return sorted(chain, key=lambda link: link[0].order)


def is_vector(elements: Sequence[str]) -> bool:
    """Whether a signal with these elements is a vector in space."""
    return list(elements) == _AXES


def _bind(
    term: SignalTerm,
    signal: str,
    elements: Mapping[str, Sequence[str]],
    worlds: tuple[int, torch.device, float],
) -> tuple[Stage, Tensor | None]:
    """A term at work on one of its signals, and the places of its elements; None for all."""
    for name in term.signals:
        if name not in elements:
            raise ConfigError(
                f"randomization: unknown signal {name!r}{did_you_mean(name, elements)}; "
                f"this task has {sorted(elements)}"
            )
    names, first = list(elements[signal]), list(elements[term.signals[0]])
    if names != first:
        raise ConfigError(
            f"randomization: '{term}': signals in one list share their draws element by element, "
            f"but the elements of {signal!r} are {names} and those of {term.signals[0]!r} are "
            f"{first}; write a term for each"
        )
    vector = is_vector(names)
    columns = matching_rows(signal, names, term.match)
    problem = ""
    if isinstance(term, SignalRotation) and not vector:
        problem = f"only vectors can be rotated, and {signal!r} has the elements {names}"
    elif term.whole and vector and len(columns) < 3:
        problem = f"{signal!r} is a vector and changes as a whole; delete `match`"
    elif signal in UNIT_VECTORS and isinstance(term, SignalQuantization) and term.quantize > 1:
        problem = f"{signal!r} has length one, and nothing of it is left; make the count smaller"
    if problem:
        raise ConfigError(f"randomization: '{term}': {problem}")
    num_envs, device, control_dt_s = worlds
    size = 1 if term.shared or (term.whole and vector) else len(columns)
    stage = term.bind(Place(num_envs, len(columns), size, device, control_dt_s))
    every = len(columns) == len(names)
    return stage, None if every else torch.tensor(columns, device=device)
