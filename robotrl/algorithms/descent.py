"""Adam's steps down the gradients of one minibatch after another: in Python, or all in one call.

    descent = Descent(gradient, stepper)
    found = descent.learn(table, parts)                # a step for each part of the table's rows
    found = descent.learn(table, parts, fast=True)     # the same in machine code, but for rounding

In Python a step of a small network is forty operations, and as much time as their products take
goes by between them. As machine code the loop over minibatches takes half as long. It does not hold
Python's lock either, so that two networks learn at once, or one while worlds are stepped.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from robotrl.algorithms import parallel
from robotrl.algorithms.machine_code import compiled
from robotrl.algorithms.optimizer import ClippedAdam
from robotrl.algorithms.parallel import Part

Gradient = Callable[..., tuple[Tensor, Tensor]]


class Descent:
    """See the module docstring.

    Args:
        gradient: takes weights (parameters,), or None for those that the network has; rows
            (n, columns); how many the minibatch has in all processes; and what else belongs to it.
            Returns what is to be reported, and the gradient (parameters,); both are this process's
            share of them.
        stepper: of the network's weights.
        names: of what is reported.
    """

    def __init__(self, gradient: Gradient, stepper: ClippedAdam, names: Sequence[str]):
        self._gradient, self._stepper, self._names = gradient, stepper, names
        self._in_machine_code = compiled(self._in_one_loop, otherwise=self._without_compiler)

    def learn(
        self, table: Tensor, parts: Sequence[Part], *others: Sequence[Tensor], fast: bool = False
    ) -> dict[str, Tensor]:
        """Take a step for each minibatch.

        Args:
            table: (rows, columns) what is learned from.
            parts: the minibatches.
            others: what else belongs to each of them, (parts, ...).
            fast: in machine code; only in one process, and with parts of one size.

        Returns:
            What is to be reported, its mean over the minibatches.
        """
        if fast:
            rate = table.new_tensor(self._stepper.learning_rate)
            stacked = [torch.stack(list(each)) for each in ([part.rows for part in parts], *others)]
            found, *state = self._in_machine_code(table, rate, *stacked)
            self._stepper.load(state)
        else:
            found = self._in_python(table, parts, *others)
        return dict(zip(self._names, parallel.total(found), strict=True))

    def _in_python(self, table: Tensor, parts: Sequence[Part], *others: Sequence[Tensor]) -> Tensor:
        """Steps, minibatch by minibatch; returns what was found, on average."""
        found = []
        for part, *other in zip(parts, *others, strict=True):
            rows = table.index_select(0, part.rows)
            values, gradient = self._gradient(None, rows, part.size, *other)
            self._stepper.step(gradient)
            found.append(values)
        return torch.stack(found).mean(dim=0)

    def _without_compiler(
        self, table: Tensor, rate: Tensor, order: Tensor, *others: Tensor
    ) -> list[Tensor]:
        """As `_in_one_loop`, but as it would be learned without."""
        parts = [Part(rows, slice(None), len(rows)) for rows in order]
        of_parts = [list(each) for each in others]
        return [self._in_python(table, parts, *of_parts), *self._stepper.state]

    def _in_one_loop(
        self, table: Tensor, rate: Tensor, order: Tensor, *others: Tensor
    ) -> list[Tensor]:
        """Steps of size `rate` on parts (parts, n); what was found, and the stepper's next state.

        That state is not touched here.
        """
        from torch._higher_order_ops import while_loop  # where there is none, nothing is compiled

        gradient, stepper = self._gradient, self._stepper
        parts, size = order.shape

        def unfinished(index: Tensor, *_: Tensor) -> Tensor:
            return index < parts

        def step(index: Tensor, total: Tensor, *state: Tensor) -> tuple[Tensor, ...]:
            rows, *other = (each.index_select(0, index[None])[0] for each in (order, *others))
            found, slopes = gradient(state[0], table.index_select(0, rows), size, *other)
            return index + 1, total + found, *stepper.after(state, slopes, rate)

        start = torch.zeros((), dtype=torch.int64), table.new_zeros(len(self._names))
        _, total, *state = while_loop(unfinished, step, (*start, *stepper.state))
        return [total / parts, *state]
