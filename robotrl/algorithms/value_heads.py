"""What the outputs (..., n, size) of a critic say of the return: its mean, or its distribution.

    head = ScalarHead()                      # one output: the expected return
    head = CategoricalHead(101, limit=20.0)  # logits of 101 returns from -20 to 20 (C51)

Pure functions of tensors. The second learns by cross-entropy (Bellemare et al. 2017, arXiv
1707.06887), whose gradient does not grow with the error: it bears rewards of several scales and
large batches, and is what fast training in thousands of worlds uses (arXiv 2505.22642). Returns
beyond its limit count as the limit.
"""

from typing import Protocol

import torch
from torch import Tensor


class ValueHead(Protocol):
    """See the module docstring."""

    size: int
    """Number of outputs."""

    def value(self, output: Tensor) -> Tensor:
        """Expected return, (...)."""
        ...

    def value_slope(self, output: Tensor) -> Tensor:
        """Derivative of each `value` in its outputs, (..., size)."""
        ...

    def target(self, following: Tensor, shift: Tensor, discount: Tensor) -> Tensor:
        """What to learn, (n, size): shift + discount · the return that `following` says.

        Args:
            following: (n, size) outputs for what came next.
            shift: (n,)
            discount: (n,)
        """
        ...

    def loss(self, output: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        """Mean loss of outputs (..., n, size), and the slopes of each row's own loss in them."""
        ...


class ScalarHead:
    """One number; the loss is the squared error, its slope that of half of it."""

    size = 1

    def value(self, output: Tensor) -> Tensor:
        """See `ValueHead`."""
        return output.squeeze(-1)

    def value_slope(self, output: Tensor) -> Tensor:
        """See `ValueHead`."""
        return torch.ones_like(output)

    def target(self, following: Tensor, shift: Tensor, discount: Tensor) -> Tensor:
        """See `ValueHead`."""
        return shift[:, None] + discount[:, None] * following

    def loss(self, output: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        """See `ValueHead`."""
        error = output - target
        return error.square().mean(), error


class CategoricalHead:
    """Logits of equally spaced returns.

    Args:
        size: number of returns, 2 or more.
        limit: the largest, and the negative of the least.
        device: of the outputs.
    """

    def __init__(self, size: int, limit: float, device: torch.device | str = "cpu"):
        self.size, self._limit = size, limit
        self._returns = torch.linspace(-limit, limit, size, device=device)

    def value(self, output: Tensor) -> Tensor:
        """See `ValueHead`."""
        return output.softmax(dim=-1) @ self._returns

    def value_slope(self, output: Tensor) -> Tensor:
        """See `ValueHead`."""
        probability = output.softmax(dim=-1)
        return probability * (self._returns - (probability @ self._returns)[..., None])

    def target(self, following: Tensor, shift: Tensor, discount: Tensor) -> Tensor:
        """See `ValueHead`; every return is shared by its two neighbours among ours."""
        moved = shift[:, None] + discount[:, None] * self._returns
        last = self.size - 1
        place = ((moved / self._limit + 1) * (last / 2)).clamp(0, last)
        below = place.floor().clamp(max=last - 1)
        above, probability = place - below, following.softmax(dim=-1)
        below = below.long()
        found = torch.zeros_like(probability)
        found.scatter_add_(1, below, probability * (1 - above))
        return found.scatter_add_(1, below + 1, probability * above)

    def loss(self, output: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        """See `ValueHead`."""
        log_probability = output.log_softmax(dim=-1)
        return -(target * log_probability).sum(dim=-1).mean(), log_probability.exp() - target
