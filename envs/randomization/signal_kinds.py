"""The kinds of signal terms: what is between a true value and the number a controller reads.

    - {signal: joint_position, delay: [0.0, 0.02], shared: true}           # s old, interpolated
    - {signal: [imu_angular_velocity, projected_gravity], operation: rotate, range: [0, 0.03]}
    - {signal: joint_position, operation: add, range: [-0.005, 0.005]}     # a bias per episode
    - {signal: imu_angular_velocity, drift: 0.0005}                        # a bias that walks
    - {signal: joint_velocity, operation: add, range: [-0.03, 0.03], when: step}   # noise
    - {signal: joint_velocity, quantize: 0.024}                            # counts
    - {signal: [joint_position, joint_velocity], hold: 0.01}               # lost in one packet

Readings pass through them in this order, whatever the order of the lines; within a kind the order
of the lines counts. Signals in one list share their draws. A vector is delayed and lost as a whole.

The delay comes first though a real one is the last thing to happen: the reading is what the sensor
made of the value `delay` ago. Interpolating between finished readings instead would halve the
variance of their noise and leave the grid of counts. `projected_gravity` is brought back to length
one after noise and counts, as a driver does, so that a reading is always a direction.
"""

import math
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal, NamedTuple

import torch
from pydantic import Field, model_validator
from torch import Tensor

from deploy.errors import ConfigError
from deploy.quantities import Name
from envs.randomization.law import Law, standard_normal
from envs.randomization.rotation import directions
from envs.randomization.term import Pattern, RandomTerm
from envs.worlds import Worlds

Latency = Annotated[float, Field(ge=0, le=1)]
"""A delay of a signal [s]; what is later than a second is under nobody's control."""
Probability = Annotated[float, Field(gt=0, lt=1)]
Size = Annotated[float, Field(gt=0, le=1000)]

_NEUTRAL = {"add": 0.0, "scale": 1.0}


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
    share = 1.0
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
        return f"{self.target} {operation} {law}{[low, high]} on {self.match}"

    def _law(self) -> tuple[str, str, float, float]:
        """Operation, distribution and range."""
        raise NotImplementedError


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


class SignalRotation(SignalTerm, Law):
    """A sensor that is mounted askew: one rotation for all its signals, drawn at each reset."""

    whole = True
    operation: Literal["rotate"]
    """Turn by an angle of `range` [rad], about an axis of any direction."""
    when: Literal["reset"] = "reset"
    """Drawn at each episode."""

    @model_validator(mode="after")
    def _check(self) -> "SignalRotation":
        low, high = self.extremes
        if low == high == 0:
            raise ValueError(f"{self.target}: an angle of zero changes nothing; widen the range")
        if max(-low, high) > math.pi:
            raise ValueError(
                f"{self.target}: an angle is at most {math.pi:.4g} rad, found {list(self.range)}; "
                "is it in degrees?"
            )
        return self

    def _law(self) -> tuple[str, str, float, float]:
        return "rotate", self.distribution, *self.range

    def bind(self, place: Place) -> Stage:
        """See `SignalTerm.bind`."""
        return _Rotation(self, place)


class _Rotation(Stage):
    order = 1
    start_size = 3

    def __init__(self, term: SignalRotation, place: Place):
        self._term = term
        self._turn = place.table(3, 3)
        super().__init__(turn=self._turn)

    def begin(self, worlds: Worlds, uniform: Tensor) -> None:
        angle = self.share * self._term.transform(uniform[:, 0])
        worlds.put(self._turn, rotation_matrices(angle, directions(uniform[:, 1:])))

    def read(self, values: Tensor, drawn: Tensor, reading: Reading) -> Tensor:
        return (reading.worlds.take(self._turn) * values[:, None]).sum(dim=-1)


def rotation_matrices(angle: Tensor, axis: Tensor) -> Tensor:
    """Matrices (n, 3, 3) that turn vectors by `angle` (n,) [rad] about `axis` (n, 3), of length 1.

    Rodrigues' formula.
    """
    one = torch.eye(3, dtype=axis.dtype, device=axis.device)
    cross = torch.linalg.cross(axis[:, None].expand(-1, 3, 3), one.expand(len(axis), 3, 3)).mT
    angle = angle[:, None, None]
    along = axis[:, :, None] * axis[:, None]
    return angle.cos() * one + angle.sin() * cross + (1 - angle.cos()) * along


class SignalError(SignalTerm, Law):
    """A bias or a factor that stays for an episode, or noise that is new at every reading."""

    operation: Literal["add", "scale"] = "scale"
    """How a draw changes the value."""
    when: Literal["reset", "step"] = "reset"
    """Drawn at each episode, or at each reading."""

    @model_validator(mode="after")
    def _check(self) -> "SignalError":
        low, high = self.extremes
        if self.operation == "scale" and low < 0:
            raise ValueError(
                f"{self.target}: a factor could become negative ({low:g}); raise the low end of "
                "the range, or use `add`"
            )
        if low == high == _NEUTRAL[self.operation]:
            raise ValueError(
                f"{self.target}: {self.operation} {list(self.range)} changes nothing; widen the "
                "range or delete the term"
            )
        return self

    @property
    def identity(self) -> str:
        """See `RandomTerm.identity`."""
        return f"{super().identity}/{self.when}"

    def _law(self) -> tuple[str, str, float, float]:
        return self.operation, self.distribution, *self.range

    def bind(self, place: Place) -> Stage:
        """See `SignalTerm.bind`."""
        return _Bias(self, place) if self.when == "reset" else _Noise(self, place)

    def shrink(self, drawn: Tensor, share: float) -> Tensor:
        """Draws nearer to where they change nothing, which they reach at a share of 0."""
        neutral = _NEUTRAL[self.operation]
        return drawn if share == 1 else neutral + share * (drawn - neutral)

    def apply(self, values: Tensor, drawn: Tensor) -> Tensor:
        """Readings (n, columns) with draws (n, columns) or (n, 1)."""
        return values + drawn if self.operation == "add" else values * drawn


class _Bias(Stage):
    order = 2

    def __init__(self, term: SignalError, place: Place):
        self._term = term
        self.start_size = place.size
        self._drawn = place.table(place.size, value=_NEUTRAL[term.operation])
        super().__init__(drawn=self._drawn)

    def begin(self, worlds: Worlds, uniform: Tensor) -> None:
        drawn = self._term.transform(uniform)
        worlds.put(self._drawn, self._term.shrink(drawn, self.share))

    def read(self, values: Tensor, drawn: Tensor, reading: Reading) -> Tensor:
        return self._term.apply(values, reading.worlds.take(self._drawn))


class SignalDrift(SignalTerm):
    """A bias that walks at random through an episode, from zero: a gyro's bias instability."""

    drift: Size
    """Standard deviation after one second, in the signal's unit; it grows as √t."""

    def _law(self) -> tuple[str, str, float, float]:
        return "drift", "normal", 0.0, self.drift

    def bind(self, place: Place) -> Stage:
        """See `SignalTerm.bind`."""
        return _Drift(self, place)


class _Drift(Stage):
    order = 3

    def __init__(self, term: SignalDrift, place: Place):
        self._deviation = term.drift * math.sqrt(place.control_dt_s)
        self.step_size = place.size
        self._bias = place.table(place.size)
        super().__init__(bias=self._bias)

    def prepare(self, uniform: Tensor) -> Tensor:
        return standard_normal(uniform)

    def read(self, values: Tensor, drawn: Tensor, reading: Reading) -> Tensor:
        worlds = reading.worlds
        if reading.first:
            worlds.put(self._bias, 0.0)
            return values
        worlds.put(self._bias, worlds.take(self._bias) + (self.share * self._deviation) * drawn)
        return values + worlds.take(self._bias)


class _Noise(Stage):
    order = 4

    def __init__(self, term: SignalError, place: Place):
        self._term = term
        self.step_size = place.size
        super().__init__()

    def prepare(self, uniform: Tensor) -> Tensor:
        return self._term.transform(uniform)

    def read(self, values: Tensor, drawn: Tensor, reading: Reading) -> Tensor:
        return self._term.apply(values, self._term.shrink(drawn, self.share))


class SignalQuantization(SignalTerm):
    """Readings are whole counts."""

    quantize: Size
    """One count, in the signal's unit."""

    def _law(self) -> tuple[str, str, float, float]:
        return "quantize", "fixed", self.quantize, self.quantize

    def bind(self, place: Place) -> Stage:
        """See `SignalTerm.bind`."""
        return _Quantization(self.quantize)


class _Quantization(Stage):
    order = 5

    def __init__(self, count: float):
        self._count = count
        super().__init__()

    def read(self, values: Tensor, drawn: Tensor, reading: Reading) -> Tensor:
        return (values / self._count).round() * self._count


class UnitLength(Stage):
    """Makes directions of vectors again; no term of its own."""

    order = 6

    def read(self, values: Tensor, drawn: Tensor, reading: Reading) -> Tensor:
        """See `Stage.read`."""
        return values / values.norm(dim=-1, keepdim=True).clamp(min=1e-9)


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


SIGNAL_KINDS: dict[str, type[SignalTerm]] = {
    "delay": SignalDelay,
    "rotate": SignalRotation,
    "error": SignalError,
    "drift": SignalDrift,
    "quantize": SignalQuantization,
    "hold": SignalHold,
}
"""All kinds of signal terms."""


def signal_kind(document: Mapping[str, object]) -> str:
    """Which of `SIGNAL_KINDS` a mapping with the key `signal` is: the key that is there tells."""
    if document.get("operation") == "rotate":
        return "rotate"
    return next((key for key in SIGNAL_KINDS if key in document), "error")
