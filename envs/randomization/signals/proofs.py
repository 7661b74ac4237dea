"""Proof, before training, that every signal and command term does what it says.

Each term alone senses signals that are the same in all worlds and elements, in an episode, another
one, and the first again. It is refused if the readings are the true values, if the first episode is
another one when it comes again (something accumulates), or if worlds or elements that have draws of
their own read the same. Then all terms together must read otherwise without any one of them.
"""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from deploy.errors import ConfigError
from envs.draws import Draws
from envs.randomization.signals.commands import CommandTerm, CommandTerms
from envs.randomization.signals.sensing import SignalTerm
from envs.randomization.signals.terms import UNIT_VECTORS, SignalTerms, is_vector
from envs.randomization.term import matching_rows
from envs.worlds import every

_WORLDS = 64
_STEPS = 32
_ROUNDING = 1e-6  # float32 that went through a division and back
_CPU = torch.device("cpu")

Signals = dict[str, Tensor]


def prove_signals(
    terms: Sequence[SignalTerm],
    elements: Mapping[str, Sequence[str]],
    *,
    seed: int,
    control_dt_s: float,
) -> None:
    """Refuse signal terms that fail; see the module docstring.

    Raises:
        ConfigError: names the term and what is wrong with it.
    """
    if not terms:
        return
    truth = _truth(elements)

    def bound(*chosen: SignalTerm) -> SignalTerms:
        return SignalTerms(
            chosen,
            elements,
            Draws(seed, _CPU),
            num_envs=_WORLDS,
            device=_CPU,
            control_dt_s=control_dt_s,
        )

    true, together = _read(bound(), truth, 1), _read(bound(*terms), truth, 1)
    for number, term in enumerate(terms):
        alone = bound(term)
        first = _read(alone, truth, 1)
        if _close(first, true):
            raise _refusal(term, "has no effect", f"{_WORLDS * _STEPS} readings are the true ones")
        _read(alone, truth, 2)
        if not _same(first, _read(alone, truth, 1)):
            raise _refusal(term, "accumulates", "the same episode reads otherwise a second time")
        _check_own_draws(term, first, elements)
        others = [other for place, other in enumerate(terms) if place != number]
        if _close(together, _read(bound(*others), truth, 1)):
            raise _refusal(term, "has no effect", "beside the other terms nothing of it is left")


def prove_commands(terms: Sequence[CommandTerm], targets: Sequence[str], *, seed: int) -> None:
    """Refuse command terms that change nothing, alone or beside the others.

    Raises:
        ConfigError: names the term.
    """

    def receive(*chosen: CommandTerm) -> Tensor:
        generator = torch.Generator().manual_seed(0)
        bus = CommandTerms(chosen, targets, Draws(seed, _CPU), num_envs=_WORLDS, device=_CPU)
        received = [torch.zeros(_WORLDS, len(targets))]
        for step in range(_STEPS):
            sent = torch.randn(_WORLDS, len(targets), generator=generator)
            received.append(bus.receive(sent, received[-1], step))
        return torch.stack(received)

    for number, term in enumerate(terms):
        others = [other for place, other in enumerate(terms) if place != number]
        for beside in ([], others):
            if _near(receive(*beside), receive(term, *beside)):
                raise _refusal(term, "has no effect", f"{_WORLDS * _STEPS} targets arrive as sent")


def _truth(elements: Mapping[str, Sequence[str]]) -> list[Signals]:
    """Signals that walk at random, alike in all worlds and elements; vectors turn."""
    generator = torch.Generator().manual_seed(0)
    walk = torch.randn(1 + _STEPS, 3, generator=generator).cumsum(dim=0)
    steps = []
    for x in walk:
        true = {name: x[:1].repeat(_WORLDS, len(names)) for name, names in elements.items()}
        for name in UNIT_VECTORS:
            if name in true:
                true[name] = (x / x.norm()).repeat(_WORLDS, 1)
        steps.append(true)
    return steps


def _read(terms: SignalTerms, truth: Sequence[Signals], episode: int) -> Signals:
    """Readings (steps, worlds, elements) of an episode."""
    worlds = every(_WORLDS)
    index = torch.full_like(worlds.ids, episode)
    terms.begin(worlds, index)
    steps = []
    for step, true in enumerate(truth):
        signals = {name: table.clone() for name, table in true.items()}
        terms.sense(signals, worlds, step, None if step else index)
        steps.append(signals)
    return {name: torch.stack([signals[name] for signals in steps]) for name in truth[0]}


def _check_own_draws(
    term: SignalTerm, readings: Signals, elements: Mapping[str, Sequence[str]]
) -> None:
    """True values are alike, so readings that are too had one draw."""
    if not term.random:
        return
    for name in term.signals:
        table = readings[name][..., matching_rows(name, elements[name], term.match)]
        if (table == table[:, :1]).all():
            raise _refusal(term, "has one draw for all worlds", f"all of them read the same {name}")
        own = (
            table.shape[-1] > 1
            and not term.shared
            and not (term.whole and is_vector(elements[name]))
        )
        if own and (table == table[..., :1]).all():
            raise _refusal(term, "has one draw for all elements", f"but is not `shared`: {name}")


def _same(one: Signals, other: Signals) -> bool:
    return all(torch.equal(table, other[name]) for name, table in one.items())


def _close(one: Signals, other: Signals) -> bool:
    return all(_near(table, other[name]) for name, table in one.items())


def _near(one: Tensor, other: Tensor) -> bool:
    return torch.allclose(one, other, rtol=_ROUNDING, atol=_ROUNDING)


def _refusal(term: SignalTerm | CommandTerm, fault: str, how: str) -> ConfigError:
    return ConfigError(f"randomization: '{term}' {fault}: {how}; change the term, or delete it")
