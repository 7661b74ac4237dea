"""Running mean and variance of observations and returns, saved and exported with the policy."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from robotrl.algorithms import parallel


class Normalizer(nn.Module):
    """(x - mean) / sqrt(var + eps), clipped to ±clip.

    Statistics change only through `update`, between rollouts; evaluation and export use them as
    they are. Merging batches follows Chan et al., "Updating formulae and a pairwise algorithm for
    computing sample variances", 1979. They are kept in float64, where after 10¹² rows one more
    still counts; what is normalised keeps its own type.
    """

    mean: Tensor
    var: Tensor
    count: Tensor

    def __init__(self, size: int, *, eps: float = 1e-6, clip: float = 10.0):
        super().__init__()
        self.eps, self.clip = eps, clip
        self.register_buffer("mean", torch.zeros(size, dtype=torch.float64))
        self.register_buffer("var", torch.ones(size, dtype=torch.float64))
        self.register_buffer("count", torch.zeros((), dtype=torch.float64))

    @property
    def std(self) -> Tensor:
        """What is divided by, (size,)."""
        return (self.var + self.eps).sqrt()

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
        rows, mean, var = parallel.moments(batch.reshape(-1, batch.shape[-1]))
        self.count += rows
        delta, share = mean - self.mean, rows / self.count
        self.mean.lerp_(mean, share)
        self.var.lerp_(var, share).addcmul_(delta.square_(), share - share.square())
