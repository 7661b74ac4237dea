"""Running mean and variance of observations and returns, saved and exported with the policy."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from robotrl.algorithms import parallel

_SPARSE = 0.01
"""Share of rows from which, if a number is zero in them, it counts as sparse in full."""
_TINY = 1e-37
"""More than 0 in the float32 that an export may compute this in, too."""


class Normalizer(nn.Module):
    """(x - mean) / sqrt(var + eps), clipped to ±clip.

    A number that is zero at most times, as a contact force is, varies little, and would be far away
    whenever it is not: 1 in a hundred rows and 0 in the others is 10 standard deviations. If
    `sparse`, what is zero in 1 % of all rows or more is divided by its standard deviation times a
    third of its kurtosis about zero, if that is more than the 1 of a Gaussian: 1 in a hundred
    becomes 0.3, 1 in a million 0.003. Fewer zeros move the divisor part of the way there; none, not
    at all. This is for numbers with bounds: a single one that is far out makes all others small.

    Statistics change only through `update`, between rollouts; evaluation and export use them as
    they are. Merging batches follows Chan et al., "Updating formulae and a pairwise algorithm for
    computing sample variances", 1979. They are kept in float64, where after 10¹² rows one more
    still counts; what is normalised keeps its own type.
    """

    mean: Tensor
    var: Tensor
    count: Tensor
    nonzero: Tensor | None
    """(size,) share of rows in which a number is not zero, if `sparse`."""
    fourth: Tensor | None
    """(size,) mean of its fourth power, likewise."""

    def __init__(self, size: int, *, eps: float = 1e-6, clip: float = 10.0, sparse: bool = False):
        super().__init__()
        self.eps, self.clip = eps, clip
        self.register_buffer("mean", torch.zeros(size, dtype=torch.float64))
        self.register_buffer("var", torch.ones(size, dtype=torch.float64))
        self.register_buffer("count", torch.zeros((), dtype=torch.float64))
        self.register_buffer("nonzero", torch.ones(size, dtype=torch.float64) if sparse else None)
        self.register_buffer("fourth", torch.zeros(size, dtype=torch.float64) if sparse else None)

    @property
    def std(self) -> Tensor:
        """What is divided by, (size,)."""
        std = (self.var + self.eps).sqrt()
        if self.nonzero is None or self.fourth is None:
            return std
        square = self.var + self.mean.square()
        kurtosis = self.fourth / square.square().clamp(min=_TINY)
        sparse = ((1 - self.nonzero) / _SPARSE).clamp(max=1)
        return std * (1 + sparse * (kurtosis / 3 - 1).clamp(min=0))

    def forward(self, x: Tensor) -> Tensor:
        """Normalise (..., size)."""
        return self.frozen(x.dtype)(x)

    def frozen(self, dtype: torch.dtype = torch.float32) -> Callable[[Tensor], Tensor]:
        """What normalises numbers of a type with the statistics of now, in half the time."""
        mean, std, clip = self.mean.to(dtype, copy=True), self.std.to(dtype), self.clip
        return lambda x: ((x - mean) / std).clamp(-clip, clip)

    def inverse(self, y: Tensor) -> Tensor:
        """Undo the normalisation of (..., size), but for the clip."""
        return y * self.std.to(y.dtype) + self.mean.to(y.dtype)

    @torch.no_grad()
    def update(self, batch: Tensor) -> None:
        """Merge a batch (..., size), and those of other processes, into the statistics."""
        batch = batch.reshape(-1, batch.shape[-1])
        rows, mean, var = parallel.moments(batch)
        self.count += rows
        delta, share = mean - self.mean, rows / self.count
        self.mean.lerp_(mean, share)
        self.var.lerp_(var, share).addcmul_(delta.square_(), share - share.square())
        if self.nonzero is not None and self.fourth is not None:
            self.nonzero.lerp_(parallel.moments(batch != 0)[1], share)
            self.fourth.lerp_(parallel.moments(batch.double() ** 4)[1], share)
