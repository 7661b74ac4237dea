"""Numbers that are new at every control step, made for several steps at once.

The counter is (stream, world, step // 16): a call of the generator for sixteen steps takes little
longer than for one, and the numbers of a step do not depend on when it was asked for.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from envs.draws import Draws, Stream

BLOCK = 16


class StepDraws:
    """See the module docstring.

    Args:
        draws: the run's random numbers.
        streams: what is drawn at each step.
        prepare: what is made of the uniform numbers (num_envs, steps, size) of each stream.
        env: (num_envs,) ids of all worlds.
    """

    def __init__(
        self,
        draws: Draws,
        streams: Sequence[Stream],
        prepare: Sequence[Callable[[Tensor], Tensor]],
        env: Tensor,
    ):
        self._draws = draws
        self._streams = [Stream(name, BLOCK * size) for name, size in streams]
        self._prepare = prepare
        self._env = env
        self._number = -1
        self._block: list[Tensor] = []

    def at(self, step: int) -> list[Tensor]:
        """What was prepared for a step, (num_envs, size) for each stream."""
        number, place = divmod(step, BLOCK)
        if number != self._number and self._streams:
            self._number = number
            index = torch.full_like(self._env, number)
            uniforms = self._draws.uniform(self._streams, self._env, index)
            self._block = [
                prepare(uniform.unflatten(1, (BLOCK, -1)))
                for prepare, uniform in zip(self._prepare, uniforms, strict=True)
            ]
        return [numbers[:, place] for numbers in self._block]
