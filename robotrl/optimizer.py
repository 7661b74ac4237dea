"""Steps of Adam on a module whose weights lie in one vector, so that a step is a few operations.

stepper = ClippedAdam(network, learning_rate, max_grad_norm)
output = network(x)
stepper.backward((output,), (slope,))      # d loss / d output
stepper.step()
"""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

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
        self._max_norm = max_grad_norm
        self._parameters = parameters = list(module.parameters())
        vector = nn.utils.parameters_to_vector(parameters).detach()
        self._gradient = torch.zeros_like(vector)
        start = 0
        for parameter in parameters:
            part = slice(start, start + parameter.numel())
            parameter.data = vector[part].view_as(parameter)
            parameter.grad = self._gradient[part].view_as(parameter)
            start = part.stop
        self._vector = nn.Parameter(vector)
        self._vector.grad = self._gradient
        self._adam = torch.optim.Adam([self._vector], lr=learning_rate, eps=eps, fused=True)

    @property
    def learning_rate(self) -> float:
        """Step size; may be changed between steps."""
        return self._adam.param_groups[0]["lr"]

    @learning_rate.setter
    def learning_rate(self, rate: float) -> None:
        self._adam.param_groups[0]["lr"] = rate

    def backward(self, outputs: Sequence[Tensor], slopes: Sequence[Tensor]) -> None:
        """Set the gradient, given the loss's slopes in what depends on the module."""
        self._gradient.zero_()
        torch.autograd.backward(outputs, slopes, inputs=self._parameters)

    def step(self) -> None:
        """Sum the gradient over all processes, clip it, then go down along it."""
        parallel.total(self._gradient)
        if self._max_norm < float("inf"):
            norm = torch.linalg.vector_norm(self._gradient)
            self._gradient.mul_((self._max_norm / (norm + 1e-6)).clamp(max=1))
        self._adam.step()

    def state_dict(self) -> dict[str, Any]:
        """Moments and step count; the weights are the module's."""
        return self._adam.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` returned; the learning rate stays this run's own."""
        rate = self.learning_rate
        self._adam.load_state_dict(state)
        self.learning_rate = rate


def side_by_side(
    first: Callable[[], Result], second: Callable[[], Result], *, together: bool
) -> tuple[Result, Result]:
    """Results of two jobs that write nothing in common; `together`: in two threads."""
    if not together:
        return first(), second()
    with ThreadPoolExecutor(max_workers=1) as pool:
        waiting = pool.submit(second)
        return first(), waiting.result()
