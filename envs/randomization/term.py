"""What every kind of term shares: how elements are chosen, how a range grows, how draws are named.

A kind of term is a class in a file of its own, in `physics` or `signals`. `kinds` joins them: the
key that is there tells the kind.
"""

from collections import Counter
from collections.abc import Sequence
from fnmatch import fnmatchcase
from typing import Annotated, Any, ClassVar, Literal

import mujoco
from pydantic import Field, model_validator

from deploy.configuration import Section, did_you_mean
from deploy.errors import ConfigError
from deploy.quantities import Duration, Number
from envs.randomization.law import Law
from envs.randomization.physics.numbers import Change

Pattern = str | Annotated[list[str], Field(min_length=1)]
Share = Annotated[float, Field(ge=0, le=1)]
Steps = Annotated[float, Field(ge=1, le=1e15)]


class Schedule(Section):
    """A range that grows from its neutral point in the course of training."""

    start: Share = 0.0
    """Share of the full range at the beginning."""
    over_steps: Steps
    """Environment steps, summed over worlds, after which the range is the full one."""


class Adapt(Section):
    """A range that widens while the policy copes, and narrows while it does not.

    In the spirit of automatic domain randomization (Akkaya et al., "Solving Rubik's Cube with a
    Robot Hand", 2019), with the mean of a metric in place of episodes at the boundary.
    """

    metric: str
    """Metric of the task, e.g. `reach_error_m`."""
    good: Number
    """Widen when the mean is at least as good as this; below `bad` if small values are good."""
    bad: Number
    """Narrow when the mean is as bad as this."""
    start: Share = 0.0
    """Share of the full range at the beginning."""
    step: Annotated[float, Field(gt=0, le=1)] = 0.05
    """By how much of the full range it widens or narrows at once."""
    samples: Steps = 1000
    """Measurements behind each decision."""

    @model_validator(mode="after")
    def _check(self) -> "Adapt":
        if self.good == self.bad:
            raise ValueError("`good` and `bad` must differ; the order tells which way is good")
        return self


class RandomTerm(Section):
    """What every term can say."""

    schedule: Schedule | None = None
    """The range grows over a number of steps. Extremes are always checked for the full range."""
    adapt: Adapt | None = None
    """Or as the policy copes."""

    grows: ClassVar[bool] = True
    """Whether there is something in it that can grow."""

    @model_validator(mode="after")
    def _check_growth(self) -> "RandomTerm":
        if self.schedule and self.adapt:
            raise ValueError("a range grows by `schedule` or by `adapt`, not by both")
        if not self.grows and (self.schedule or self.adapt):
            key = "schedule" if self.schedule else "adapt"
            raise ValueError(f"{self}: counts are there from the start; delete `{key}`")
        return self

    @property
    def target(self) -> str:
        """What is randomized, e.g. a field or a signal."""
        raise NotImplementedError

    @property
    def identity(self) -> str:
        """Names the term's draws: what it does and to what, but not how far."""
        raise NotImplementedError

    def describe(self) -> dict[str, Any]:
        """For the contract: target, match, operation, distribution, range; and more if need be."""
        raise NotImplementedError


class RangeTerm(RandomTerm, Law):
    """A term that draws numbers from one range."""

    def __str__(self) -> str:
        """What it does, e.g. `mass scale [0.8, 1.2] on *`."""
        said = self.describe()
        law = "" if self.distribution == "uniform" else f"{self.distribution} "
        place = f"body {said['body']}" if said.get("body") else said["match"]
        return f"{self.target} {said['operation']} {law}{list(self.range)} on {place}"

    def summary(self, match: Pattern, operation: str, **more: Any) -> dict[str, Any]:
        """What `describe` returns."""
        law = {"distribution": self.distribution, "range": self.range}
        return {"target": self.target, "match": match, "operation": operation, **law, **more}


class PhysicsTerm(RangeTerm):
    """A term on the model of a world, on its initial state, or on its motion."""

    acts: ClassVar[Literal["model", "start", "step"]]
    """What its change is made to: model fields, where an episode starts, or a control step."""

    def bind(self, model: mujoco.MjModel) -> Change:
        """Resolve names in a model.

        Raises:
            ConfigError: an unknown name, a pattern without a match, or what means nothing.
        """
        raise NotImplementedError


class ModelTerm(PhysicsTerm):
    """A term on the model of a world."""

    acts = "model"

    when: Literal["startup", "reset", "interval"] = "reset"
    """Drawn once, at each episode, or also within episodes, after each `interval_s`."""
    interval_s: tuple[Duration, Duration] | None = None
    """Shortest and longest time between two draws [s], for `when: interval`."""

    @model_validator(mode="after")
    def _check_when(self) -> "ModelTerm":
        if (self.when == "interval") != (self.interval_s is not None):
            raise ValueError(
                f"{self.target}: `when: interval` and `interval_s: [shortest, longest]` need each "
                "other"
            )
        if self.interval_s and self.interval_s[0] > self.interval_s[1]:
            raise ValueError(f"interval_s must be [shortest, longest], found {self.interval_s}")
        return self


def name_streams(terms: Sequence[RandomTerm]) -> list[str]:
    """Name each term's draws by what it does, so they stay when other terms come or go."""
    seen: Counter[str] = Counter()
    names = []
    for term in terms:
        name = term.identity
        names.append(f"{name}/{seen[name]}" if seen[name] else name)
        seen[name] += 1
    return names


def matching_rows(
    target: str,
    names: Sequence[str | None],
    match: Pattern = "*",
    body: Pattern | None = None,
    bodies: Sequence[str] | None = None,
) -> list[int]:
    """Indices of the elements a term applies to.

    Args:
        target: what the term names, for the message.
        names: name of each element; None for one that cannot be randomized.
        match: patterns of names.
        body: patterns of the names of bodies that the elements are on.
        bodies: name of the body each element is on, where elements are on bodies.

    Raises:
        ConfigError: there is none, or one of the term's patterns has none.
    """
    rows = [row for row, name in enumerate(names) if name is not None]
    named = [(row, names[row] or "") for row in rows]
    found = _matching(target, match, named, "element")
    if body is not None:
        if bodies is None:
            raise ConfigError(
                f"randomization: {target!r} belongs to no body; use `match` instead of `body`"
            )
        found &= _matching(target, body, [(row, bodies[row]) for row in rows], "body")
        if not found:
            raise ConfigError(
                f"randomization: {target!r} has no element matching {match!r} on a body "
                f"matching {body!r}"
            )
    return sorted(found)


def _matching(target: str, patterns: Pattern, named: list[tuple[int, str]], what: str) -> set[int]:
    found = set()
    for pattern in [patterns] if isinstance(patterns, str) else patterns:
        matching = {row for row, name in named if fnmatchcase(name, pattern)}
        if not matching:
            names = list(dict.fromkeys(name for _, name in named if name))
            unnamed = sum(not name for _, name in named)
            more = f" and {unnamed} without a name, which `body` can select" if unnamed else ""
            where = "has no element on a body" if what == "body" else "has no element"
            raise ConfigError(
                f"randomization: {target!r} {where} matching {pattern!r}"
                f"{did_you_mean(pattern, names)}; its "
                f"{'bodies' if what == 'body' else 'elements'} are {names}{more}"
            )
        found |= matching
    return found
