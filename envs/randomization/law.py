"""The law of a draw: what a uniform number becomes."""

import math
from typing import Literal

import torch
from pydantic import ValidationInfo, field_validator, model_validator
from torch import Tensor

from deploy.configuration import Section
from deploy.quantities import Number


class Law(Section):
    """Distribution and range of a term."""

    distribution: Literal["uniform", "log_uniform", "normal"] = "uniform"
    """Law of the draw; `range` is [low, high], for `normal` it is [mean, standard deviation]."""
    range: tuple[Number, Number]

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
    def _check_law(self) -> "Law":
        if self.distribution == "log_uniform" and self.range[0] <= 0:
            raise ValueError(f"log_uniform needs a range above zero, found {list(self.range)}")
        return self

    @property
    def extremes(self) -> tuple[float, float]:
        """Smallest and largest draw; a normal law is cut at 4.75 standard deviations."""
        low, high = self.transform(torch.tensor([0.0, 1.0], dtype=torch.float64)).tolist()
        return low, high

    def transform(self, uniform: Tensor) -> Tensor:
        """Turn numbers in [0, 1) into draws."""
        a, b = self.range
        if self.distribution == "uniform":
            return a + (b - a) * uniform
        if self.distribution == "log_uniform":
            return a * (math.log(b / a) * uniform).exp()  # not `pow`: its last bits vary with n
        return a + b * standard_normal(uniform)


def standard_normal(uniform: Tensor) -> Tensor:
    """Normal numbers of mean 0 and standard deviation 1, from numbers in [0, 1)."""
    return torch.special.ndtri(uniform.clamp(1e-6, 1 - 1e-6))
