"""What every kind of signal term shares: a term as YAML says it, and a stage, the term at work."""

from typing import Annotated, Any, ClassVar, NamedTuple

import torch
from pydantic import Field, model_validator
from torch import Tensor

from deploy.quantities import Name
from envs.randomization.term import Pattern, RandomTerm
from envs.worlds import Worlds

Probability = Annotated[float, Field(gt=0, lt=1)]
Size = Annotated[float, Field(gt=0, le=1000)]
"""A count, or a standard deviation, in the unit of what it belongs to."""
Share = float | Tensor
"""A number in [0, 1]; a tensor () may change in place, and stays on its device."""
FULL = 1.0


class Place(NamedTuple):
    """Where a term acts: some columns of one signal, in all worlds."""

    num_envs: int
    columns: int
    size: int
    """Numbers drawn: one for each column, or one for all."""
    device: torch.device
    control_dt_s: float

    def table(self, *shape: int, value: float = 0.0) -> Tensor:
        """A number for each world, or several."""
        return torch.full((self.num_envs, *shape), value, device=self.device)


class Reading(NamedTuple):
    """Which readings are made: of some worlds, at a control step."""

    worlds: Worlds
    step: int
    first: bool
    """Whether they are the first of their episodes."""


class Stage:
    """One term at work on one signal: readings (n, columns) go in and come out.

    `begin` gets `start_size` uniform numbers per world, `prepare` makes of `step_size` of them
    what `read` is given for each reading. `state` is all that it remembers.
    """

    order = 0
    """Place on the way from the true value to the reading."""
    start_size = 0
    step_size = 0
    share: Share = FULL
    """How much of the term's range is in use, in [0, 1]."""

    def __init__(self, **state: Tensor):
        self.state = state

    def begin(self, worlds: Worlds, uniform: Tensor) -> None:
        """Episodes start: uniform numbers (n, start_size)."""

    def prepare(self, uniform: Tensor) -> Tensor:
        """Numbers (..., step_size) in [0, 1), before they are given to `read`."""
        return uniform

    def read(self, values: Tensor, drawn: Tensor, reading: Reading) -> Tensor:
        """Readings (n, columns) of values (n, columns), with numbers (n, step_size)."""
        raise NotImplementedError


class SignalTerm(RandomTerm):
    """What every signal term says."""

    signal: Name | Annotated[list[Name], Field(min_length=1)]
    """The signal; several share their draws, element by element."""
    match: Pattern = "*"
    """Pattern or patterns of the names of the elements it applies to."""
    shared: bool = False
    """One draw for all elements instead of one for each."""

    whole: ClassVar[bool] = False
    """Whether a vector is changed as a whole only."""

    @model_validator(mode="after")
    def _check_signals(self) -> "SignalTerm":
        if len(set(self.signals)) < len(self.signals):
            raise ValueError(f"a signal is there twice in {self.signals}; name each once")
        return self

    @property
    def random(self) -> bool:
        """Whether it is not the same in all worlds."""
        return True

    @property
    def signals(self) -> list[str]:
        """The signals it applies to."""
        return [self.signal] if isinstance(self.signal, str) else list(self.signal)

    @property
    def target(self) -> str:
        """What is changed, for messages."""
        return " and ".join(self.signals)

    @property
    def identity(self) -> str:
        """See `RandomTerm.identity`."""
        return f"{self.target}/{self.match}/{self._law()[0]}"

    def describe(self) -> dict[str, Any]:
        """What is varied, as a contract says it."""
        operation, distribution, low, high = self._law()
        return {
            "target": self.target,
            "match": self.match,
            "operation": operation,
            "distribution": distribution,
            "range": (low, high),
        }

    def bind(self, place: Place) -> Stage:
        """The term at work.

        Raises:
            ConfigError: it cannot work there.
        """
        raise NotImplementedError

    def __str__(self) -> str:
        """What it does, e.g. `joint_position delay [0.0, 0.02] on *`."""
        operation, distribution, low, high = self._law()
        law = "" if distribution in ("uniform", "fixed") else f"{distribution} "
        amount = f"{high:g}" if distribution == "fixed" else [low, high]
        return f"{self.target} {operation} {law}{amount} on {self.match}"

    def _law(self) -> tuple[str, str, float, float]:
        """Operation, distribution and range."""
        raise NotImplementedError
