"""One thing that is randomized, as a line of YAML says it."""

from collections import Counter
from collections.abc import Sequence
from fnmatch import fnmatchcase
from typing import Literal

import torch
from pydantic import ValidationInfo, field_validator, model_validator
from torch import Tensor

from deploy.configuration import Section, did_you_mean
from deploy.errors import ConfigError


class Term(Section):
    """One thing that is randomized."""

    field: str | None = None
    """A MuJoCo model field, or `mass`, `kp`, `kd`."""
    signal: str | None = None
    """Or a signal, e.g. `joint_position`."""
    match: str = "*"
    """Pattern of the element names it applies to."""
    operation: Literal["add", "scale", "set"] = "scale"
    """How a draw changes the nominal value."""
    distribution: Literal["uniform", "log_uniform", "normal"] = "uniform"
    """Law of the draw; `range` is [low, high], for `normal` it is [mean, standard deviation]."""
    range: tuple[float, float]
    shared: bool = False
    """One draw for all matching elements instead of one each."""
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
        if self.signal and (self.operation == "set" or self.when == "startup"):
            raise ValueError(
                f"{self.signal}: a signal takes `add` or `scale`, at `reset` or `step`"
            )
        if self.distribution == "log_uniform" and self.range[0] <= 0:
            raise ValueError(f"log_uniform needs a range above zero, found {list(self.range)}")
        return self

    @property
    def target(self) -> str:
        """Name of the field or signal."""
        return self.field or self.signal or ""

    def transform(self, uniform: Tensor) -> Tensor:
        """Turn numbers in [0, 1) into draws of this term's distribution."""
        a, b = self.range
        if self.distribution == "uniform":
            return a + (b - a) * uniform
        if self.distribution == "log_uniform":
            return a * (b / a) ** uniform
        return a + b * torch.special.ndtri(uniform.clamp(1e-6, 1 - 1e-6))

    def apply(self, values: Tensor, draw: Tensor) -> Tensor:
        """Apply a draw to nominal values."""
        if self.operation == "add":
            return values + draw
        return values * draw if self.operation == "scale" else draw.expand_as(values)


def name_streams(terms: Sequence[Term]) -> list[tuple[str, Term]]:
    """Name each term's draws by what it does, so they stay when other terms come or go."""
    names: Counter[str] = Counter()
    named = []
    for term in terms:
        name = f"{term.target}/{term.match}/{term.operation}/{term.when}"
        named.append((f"{name}/{names[name]}" if names[name] else name, term))
        names[name] += 1
    return named


def matching_rows(term: Term, names: Sequence[str]) -> list[int]:
    """Indices of the elements a term applies to.

    Raises:
        ConfigError: there is none.
    """
    indices = [index for index, name in enumerate(names) if fnmatchcase(name, term.match)]
    if not indices:
        raise ConfigError(
            f"randomization: {term.target!r} has no element matching {term.match!r}"
            f"{did_you_mean(term.match, names)}; its elements are {list(names)}"
        )
    return indices
