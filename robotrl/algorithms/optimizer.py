"""Steps of Adam on a module whose weights lie in one vector, so that a step is a few operations.

stepper = ClippedAdam(network, learning_rate, max_grad_norm)
stepper.step(gradient)                     # one vector, too, in the module's order
output = network(x)
stepper.step(stepper.backward((output,), (slope,)))    # d loss / d output
"""

import math
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.optim.adam import adam

from robotrl.algorithms import parallel

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
        self._max_norm, self._eps = max_grad_norm, eps
        self._parameters = list(module.parameters())
        self.vector = one_vector(module)
        """All parameters, in the module's order."""
        self.learning_rate = learning_rate
        """Step size; may be changed between steps."""
        self._count = torch.zeros((), device=self.vector.device)
        self._mean, self._square = torch.zeros_like(self.vector), torch.zeros_like(self.vector)

    @property
    def state(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Weights, step count and moments."""
        return self.vector, self._count, self._mean, self._square

    def load(self, state: Sequence[Tensor]) -> None:
        """Become what `after` returned."""
        for own, value in zip(self.state, state, strict=True):
            own.copy_(value)

    def backward(self, outputs: Sequence[Tensor], slopes: Sequence[Tensor]) -> Tensor:
        """The gradient (parameters,), given the loss's slopes in what depends on the module."""
        found = torch.autograd.grad(outputs, self._parameters, slopes, materialize_grads=True)
        return torch.cat([each.flatten() for each in found])

    def step(self, gradient: Tensor) -> None:
        """Sum a gradient over all processes, clip it, then go down along it."""
        parallel.total(gradient)
        adam(
            [self.vector],
            [gradient],
            [self._mean],
            [self._square],
            [],
            [self._count],
            fused=True,
            grad_scale=self._excess(gradient),
            amsgrad=False,
            beta1=0.9,
            beta2=0.999,
            lr=self.learning_rate,
            weight_decay=0.0,
            eps=self._eps,
            maximize=False,
        )

    def after(self, state: Sequence[Tensor], gradient: Tensor, rate: Tensor) -> tuple[Tensor, ...]:
        """What a step of one process, of size `rate` (), makes of a `state`, which stays.

        For a compiler, which does not see through `step`, whose one operation is quicker without.
        """
        vector, count, mean, square = state
        excess = self._excess(gradient)
        gradient = gradient if excess is None else gradient / excess
        count = count + 1
        mean = mean.lerp(gradient, 1 - 0.9)
        square = (square * 0.999).addcmul(gradient, gradient, value=1 - 0.999)
        direction = mean / -torch.expm1(count * math.log(0.9))
        scale = (square / -torch.expm1(count * math.log(0.999))).sqrt() + self._eps
        return vector - rate * direction / scale, count, mean, square

    def _excess(self, gradient: Tensor) -> Tensor | None:
        """What a gradient is divided by, if by anything."""
        if self._max_norm == float("inf"):
            return None
        norm = torch.linalg.vector_norm(gradient)
        return ((norm + 1e-6) / self._max_norm).clamp_(min=1)

    def state_dict(self) -> dict[str, Tensor]:
        """Moments and step count; the weights are the module's."""
        return {"count": self._count, "mean": self._mean, "square": self._square}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Restore what `state_dict` returned; the learning rate stays this run's own."""
        for name, value in self.state_dict().items():
            value.copy_(state[name])


def one_vector(module: nn.Module) -> Tensor:
    """Move a module's parameters into one vector, of which they become views; returns it."""
    parameters = list(module.parameters())
    vector = nn.utils.parameters_to_vector(parameters).detach()
    parts = vector.split([parameter.numel() for parameter in parameters])
    for parameter, part in zip(parameters, parts, strict=True):
        parameter.data = part.view_as(parameter)
    return vector


def begin(job: Callable[[], Result], *, aside: bool) -> Callable[[], Result]:
    """Begin a job, `aside` in a thread of its own; what is returned waits for its result."""
    if not aside:
        result = job()
        return lambda: result
    pool = ThreadPoolExecutor(max_workers=1, initializer=torch.set_flush_denormal, initargs=(True,))
    waiting = pool.submit(job)
    pool.shutdown(wait=False)
    return waiting.result
