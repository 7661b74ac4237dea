"""When a controller gets a reading: terms that make signals late, or lose them."""

import math
from typing import Annotated

import torch
from pydantic import Field, model_validator
from torch import Tensor

from deploy.errors import ConfigError
from envs.randomization.signals.sensing import Place, Probability, Reading, SignalTerm, Stage
from envs.worlds import Worlds

Latency = Annotated[float, Field(ge=0, le=1)]
"""A delay of a signal [s]; what is later than a second is under nobody's control."""


class SignalDelay(SignalTerm):
    """Readings are as old as this, drawn at each reset."""

    whole = True
    delay: tuple[Latency, Latency]
    """Age of a reading [s], [low, high]."""
    jitter: Latency = 0.0
    """Up to this much more at each reading [s]; at most the period of the policy."""

    @model_validator(mode="after")
    def _check(self) -> "SignalDelay":
        low, high = self.delay
        if low > high:
            raise ValueError(f"delay must be [low, high], found {list(self.delay)}")
        if high == self.jitter == 0:
            raise ValueError(
                f"{self.target}: a delay of zero changes nothing; raise it or delete the term"
            )
        return self

    @property
    def random(self) -> bool:
        """See `SignalTerm.random`."""
        return self.jitter > 0 or self.delay[0] < self.delay[1]

    def _law(self) -> tuple[str, str, float, float]:
        return "delay", "uniform", self.delay[0], self.delay[1] + self.jitter

    def bind(self, place: Place) -> Stage:
        """See `SignalTerm.bind`."""
        if self.jitter > place.control_dt_s:
            raise ConfigError(
                f"randomization: '{self}': jitter is {self.jitter:g} s, more than the period of "
                f"the policy, {place.control_dt_s:g} s, and a reading would be older than the one "
                "before it; shorten it, or use `hold` for readings that are lost"
            )
        return _Delay(self, place)


class _Delay(Stage):
    """Looks back into a ring of the last values, one per control step.

    Between two control steps it interpolates linearly: exact for a value that moves at constant
    speed, and off by at most |acceleration| dt² / 8 otherwise. Before an episode, the first value
    had lasted for ever.
    """

    def __init__(self, term: SignalDelay, place: Place):
        low, high = term.delay
        self._low, self._span = low / place.control_dt_s, (high - low) / place.control_dt_s
        self._jitter = term.jitter / place.control_dt_s
        self._slots = math.ceil(self._low + self._span + self._jitter) + 2  # one for rounding
        self.start_size = place.size
        self.step_size = place.size if term.jitter else 0
        self._lag = place.table(place.size)
        self._ring = place.table(self._slots, place.columns)
        super().__init__(lag=self._lag, ring=self._ring)

    def begin(self, worlds: Worlds, uniform: Tensor) -> None:
        worlds.put(self._lag, self.share * (self._low + self._span * uniform))

    def read(self, values: Tensor, drawn: Tensor, reading: Reading) -> Tensor:
        worlds, step, first = reading
        if first:
            worlds.put(self._ring, values[:, None].expand(-1, self._slots, -1))
            return values
        worlds.put(self._ring[:, step % self._slots], values)
        lag = worlds.take(self._lag)
        if self.step_size:
            lag = lag + (self.share * self._jitter) * drawn
        whole = lag.floor()
        newer = (step - whole.long()).remainder(self._slots).expand_as(values)[:, None]
        older = (newer - 1).remainder(self._slots)
        ring = worlds.take(self._ring)
        return torch.lerp(ring.gather(1, newer)[:, 0], ring.gather(1, older)[:, 0], lag - whole)


class SignalHold(SignalTerm):
    """Readings get lost, and the one before stays."""

    whole = True
    hold: Probability
    """Probability that a reading is lost; the first of an episode never is."""

    def _law(self) -> tuple[str, str, float, float]:
        return "hold", "fixed", self.hold, self.hold

    def bind(self, place: Place) -> Stage:
        """See `SignalTerm.bind`."""
        return _Hold(self.hold, place)


class _Hold(Stage):
    order = 7

    def __init__(self, probability: float, place: Place):
        self._probability = probability
        self.step_size = place.size
        self._last = place.table(place.columns)
        super().__init__(last=self._last)

    def read(self, values: Tensor, drawn: Tensor, reading: Reading) -> Tensor:
        worlds = reading.worlds
        if not reading.first:
            lost = drawn < self.share * self._probability
            values = torch.where(lost, worlds.take(self._last), values)
        worlds.put(self._last, values)
        return values
