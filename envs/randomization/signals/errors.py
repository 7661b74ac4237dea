"""How far a reading is from the truth: terms that turn, shift, scale and round signals."""

import math
from typing import Literal

import torch
from pydantic import model_validator
from torch import Tensor

from envs.randomization.law import Law, standard_normal
from envs.randomization.signals.sensing import FULL, Place, Reading, Share, SignalTerm, Size, Stage
from envs.rotation import directions
from envs.worlds import Worlds

_NEUTRAL = {"add": 0.0, "scale": 1.0}


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
    def random(self) -> bool:
        """See `SignalTerm.random`."""
        return self.extremes[0] < self.extremes[1]

    @property
    def identity(self) -> str:
        """See `RandomTerm.identity`."""
        return f"{super().identity}/{self.when}"

    def _law(self) -> tuple[str, str, float, float]:
        return self.operation, self.distribution, *self.range

    def bind(self, place: Place) -> Stage:
        """See `SignalTerm.bind`."""
        return _Bias(self, place) if self.when == "reset" else _Noise(self, place)

    def shrink(self, drawn: Tensor, share: Share) -> Tensor:
        """Draws nearer to where they change nothing, which they reach at a share of 0."""
        neutral = _NEUTRAL[self.operation]
        return drawn if share is FULL else neutral + share * (drawn - neutral)

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

    grows = False
    quantize: Size
    """One count, in the signal's unit."""

    @property
    def random(self) -> bool:
        """See `SignalTerm.random`."""
        return False

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
