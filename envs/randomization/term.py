"""One thing that is randomized, as a line of YAML says it."""

from collections import Counter
from collections.abc import Sequence
from fnmatch import fnmatchcase
from typing import Annotated, Any, Literal

import torch
from pydantic import Field, ValidationInfo, field_validator, model_validator
from torch import Tensor

from deploy.configuration import Section, did_you_mean
from deploy.errors import ConfigError
from deploy.quantities import Number

Pattern = str | list[str]
Column = str | Annotated[int, Field(ge=0, le=1000)]

_NEUTRAL = {"add": 0.0, "scale": 1.0, "rotate": 0.0}


class Term(Section):
    """One thing that is randomized; `envs.randomization` shows how terms are written."""

    field: str | None = None
    """A MuJoCo model field, or `mass`, `kp`, `kd`."""
    signal: str | None = None
    """Or a signal, e.g. `joint_position`."""
    match: Pattern = "*"
    """Pattern or patterns of the names of the elements it applies to."""
    body: Pattern | None = None
    """Only elements on bodies of these names: the one way to reach elements without a name."""
    columns: Column | list[Column] | None = None
    """Which numbers of an element that has several: names, counts from 0, or `all`."""
    operation: Literal["add", "scale", "set", "rotate"] = "scale"
    """How a draw changes the nominal value; `rotate` turns it by an angle [rad]."""
    distribution: Literal["uniform", "log_uniform", "normal"] = "uniform"
    """Law of the draw; `range` is [low, high], for `normal` it is [mean, standard deviation]."""
    range: tuple[Number, Number]
    shared: Literal["rows", "columns"] | bool = False
    """One draw for all elements (`rows`), for all columns of an element (`columns`), or for all
    (true), instead of one for each number."""
    when: Literal["startup", "reset", "step"] = "reset"
    """Drawn once, at each episode, or (signals only) at each step."""

    @field_validator("range")
    @classmethod
    def _check_range(cls, bounds: tuple[float, float], info: ValidationInfo) -> tuple[float, float]:
        law = info.data.get("distribution")
        if law == "normal" and bounds[1] < 0:
            raise ValueError(f"the standard deviation must not be negative, found {list(bounds)}")
        if law != "normal" and bounds[0] > bounds[1]:
            raise ValueError(f"range must be [low, high], found {list(bounds)}")
        return bounds

    @model_validator(mode="after")
    def _check(self) -> "Term":
        if (self.field is None) == (self.signal is None):
            raise ValueError("a term needs either `field` or `signal`")
        if self.field and self.when == "step":
            raise ValueError(f"{self.field}: a model field is drawn at `startup` or `reset`")
        if self.signal and (self.operation in ("set", "rotate") or self.when == "startup"):
            raise ValueError(
                f"{self.signal}: a signal takes `add` or `scale`, at `reset` or `step`"
            )
        if self.signal and (self.body or self.columns is not None or isinstance(self.shared, str)):
            raise ValueError(
                f"{self.signal}: a signal has one number for each element; it takes `match` and "
                "`shared: true`, not `body`, `columns`, or sharing by rows or columns"
            )
        if self.distribution == "log_uniform" and self.range[0] <= 0:
            raise ValueError(f"log_uniform needs a range above zero, found {list(self.range)}")
        low, high = self.extremes
        if self.operation == "scale" and low < 0:
            raise ValueError(
                f"{self.target}: a factor could become negative ({low:g}); raise the low end of "
                "the range, or use `add`"
            )
        if low == high == _NEUTRAL.get(self.operation):
            raise ValueError(
                f"{self.target}: {self.operation} {list(self.range)} changes nothing; widen the "
                "range or delete the term"
            )
        return self

    @property
    def target(self) -> str:
        """Name of the field or signal."""
        return self.field or self.signal or ""

    @property
    def extremes(self) -> tuple[float, float]:
        """Smallest and largest draw; a normal law is cut at 4.75 standard deviations."""
        low, high = self.transform(torch.tensor([0.0, 1.0], dtype=torch.float64)).tolist()
        return low, high

    def describe(self) -> dict[str, Any]:
        """What the contract says of it, see `deploy.contract.TrainedRange`."""
        said = self.model_dump(exclude={"field", "signal", "shared", "when"})
        return {"target": self.target, **said}

    def __str__(self) -> str:
        """What it does, e.g. `mass scale [0.8, 1.2] on *`."""
        law = "" if self.distribution == "uniform" else f"{self.distribution} "
        place = f"body {self.body}" if self.body else self.match
        return f"{self.target} {self.operation} {law}{list(self.range)} on {place}"

    def transform(self, uniform: Tensor) -> Tensor:
        """Turn numbers in [0, 1) into draws of this term's distribution."""
        a, b = self.range
        if self.distribution == "uniform":
            return a + (b - a) * uniform
        if self.distribution == "log_uniform":
            return a * (b / a) ** uniform
        return a + b * torch.special.ndtri(uniform.clamp(1e-6, 1 - 1e-6))

    def apply(self, values: Tensor, draw: Tensor) -> Tensor:
        """Apply draws, of the same or a broadcastable shape, to nominal values."""
        if self.operation == "add":
            return values + draw
        return values * draw if self.operation == "scale" else draw.expand_as(values)


def name_streams(terms: Sequence[Term]) -> list[tuple[str, Term]]:
    """Name each term's draws by what it does, so they stay when other terms come or go."""
    names: Counter[str] = Counter()
    named = []
    for term in terms:
        place = f"{term.match}" if term.body is None else f"{term.match}@{term.body}"
        columns = "" if term.columns is None else f"/{term.columns}"
        name = f"{term.target}/{place}{columns}/{term.operation}/{term.when}"
        named.append((f"{name}/{names[name]}" if names[name] else name, term))
        names[name] += 1
    return named


def matching_rows(
    term: Term, names: Sequence[str | None], bodies: Sequence[str] | None = None
) -> list[int]:
    """Indices of the elements a term applies to.

    Args:
        term: the term.
        names: name of each element; None for one that cannot be randomized.
        bodies: name of the body each element is on, where elements are on bodies.

    Raises:
        ConfigError: there is none, or one of the term's patterns has none.
    """
    rows = [row for row, name in enumerate(names) if name is not None]
    named = [(row, names[row] or "") for row in rows]
    found = _matching(term, term.match, named, "element")
    if term.body is not None:
        if bodies is None:
            raise ConfigError(
                f"randomization: {term.target!r} belongs to no body; use `match` instead of `body`"
            )
        found &= _matching(term, term.body, [(row, bodies[row]) for row in rows], "body")
        if not found:
            raise ConfigError(
                f"randomization: {term.target!r} has no element matching {term.match!r} on a body "
                f"matching {term.body!r}"
            )
    return sorted(found)


def _matching(term: Term, patterns: Pattern, named: list[tuple[int, str]], what: str) -> set[int]:
    found = set()
    for pattern in [patterns] if isinstance(patterns, str) else patterns:
        matching = {row for row, name in named if fnmatchcase(name, pattern)}
        if not matching:
            names = list(dict.fromkeys(name for _, name in named if name))
            unnamed = sum(not name for _, name in named)
            more = f" and {unnamed} without a name, which `body` can select" if unnamed else ""
            where = "has no element on a body" if what == "body" else "has no element"
            raise ConfigError(
                f"randomization: {term.target!r} {where} matching {pattern!r}"
                f"{did_you_mean(pattern, names)}; its "
                f"{'bodies' if what == 'body' else 'elements'} are {names}{more}"
            )
        found |= matching
    return found
