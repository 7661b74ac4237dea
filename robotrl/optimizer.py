"""Steps of Adam on a module whose weights lie in one vector, so that a step is a few operations.

stepper = ClippedAdam(network, learning_rate, max_grad_norm)
output = network(x)
stepper.backward((output,), (slope,))      # d loss / d output
stepper.step()
"""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.optim.adam import adam

from robotrl import parallel

Result = TypeVar("Result")


class ClippedAdam:
    """Adam (Kingma and Ba 2015, arXiv 1412.6980) on a gradient whose norm is clipped.

    Args:
        module: its parameters become views into one vector, so it must stay on its device.
        learning_rate: step size.
        max_grad_norm: largest norm of the gradient of the whole module.
        eps: of Adam.
    """

    def __init__(
        self,
        module: nn.Module,
        learning_rate: float,
        max_grad_norm: float = float("inf"),
        *,
        eps: float = 1e-5,
    ):
        self.learning_rate = learning_rate
        """Step size; may be changed between steps."""
        self._max_norm, self._eps = max_grad_norm, eps
        self._parameters = parameters = list(module.parameters())
        self._vector = vector = nn.utils.parameters_to_vector(parameters).detach()
        self._gradient = torch.zeros_like(vector)
        start = 0
        for parameter in parameters:
            part = slice(start, start + parameter.numel())
            parameter.data = vector[part].view_as(parameter)
            parameter.grad = self._gradient[part].view_as(parameter)
            start = part.stop
        self._count = torch.zeros((), device=vector.device)
        self._mean, self._square = torch.zeros_like(vector), torch.zeros_like(vector)

    def backward(self, outputs: Sequence[Tensor], slopes: Sequence[Tensor]) -> None:
        """Set the gradient, given the loss's slopes in what depends on the module."""
        self._gradient.zero_()
        torch.autograd.backward(outputs, slopes, inputs=self._parameters)

    @torch.no_grad()
    def step(self) -> None:
        """Sum the gradient over all processes, clip it, then go down along it."""
        parallel.total(self._gradient)
        excess = None  # what the gradient is divided by
        if self._max_norm < float("inf"):
            norm = torch.linalg.vector_norm(self._gradient)
            excess = ((norm + 1e-6) / self._max_norm).clamp_(min=1)
        adam(
            [self._vector],
            [self._gradient],
            [self._mean],
            [self._square],
            [],
            [self._count],
            fused=True,
            grad_scale=excess,
            amsgrad=False,
            beta1=0.9,
            beta2=0.999,
            lr=self.learning_rate,
            weight_decay=0.0,
            eps=self._eps,
            maximize=False,
        )

    def state_dict(self) -> dict[str, Tensor]:
        """Moments and step count; the weights are the module's."""
        return {"count": self._count, "mean": self._mean, "square": self._square}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Restore what `state_dict` returned; the learning rate stays this run's own."""
        for name, value in self.state_dict().items():
            value.copy_(state[name])


def side_by_side(
    first: Callable[[], Result], second: Callable[[], Result], *, together: bool
) -> tuple[Result, Result]:
    """Results of two jobs that write nothing in common; `together`: in two threads."""
    if not together:
        return first(), second()
    with ThreadPoolExecutor(max_workers=1) as pool:
        waiting = pool.submit(second)
        return first(), waiting.result()
