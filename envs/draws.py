"""Counter-based random draws: every number is a function of (seed, stream, env, index).

    draws = Draws(seed=0, device=torch.device("cpu"))
    u = draws.uniform([Stream("mass", 5), Stream("friction", 6)], env_ids, episodes)

No generator state exists, so a draw does not depend on which environments reset together, in
which order, on the backend's device, or on whether the run was resumed. The generator is
Philox4x32-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011), in int64
arithmetic because torch has no unsigned 32-bit multiplication. On the CPU the same lines run on
numpy arrays: each of its 150 small operations costs a third of torch's.
"""

import zlib
from collections.abc import Sequence
from typing import Any, NamedTuple, TypeVar

import numpy as np
import torch
from torch import Tensor

from envs.worlds import ALL_HERE, Share

Array = TypeVar("Array", np.ndarray, Tensor)

_MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
_WEYL = (0x9E3779B9, 0xBB67AE85)
_MASK = 0xFFFFFFFF
_ROUNDS = 10


class Stream(NamedTuple):
    """An independent sequence of vectors of `size` uniform numbers; the name is its identity."""

    name: str
    size: int


class Draws:
    """Uniform numbers for one seed.

    Args:
        seed: any non-negative integer; its low 32 bits are used.
        device: where the numbers are made.
        in_torch: as on a GPU, on the CPU too.
        share: which worlds of a training are here; each draws what it would with all in one place.
    """

    def __init__(
        self,
        seed: int,
        device: torch.device,
        *,
        in_torch: bool = False,
        share: Share = ALL_HERE,
    ):
        if seed < 0:
            raise ValueError(f"seed must not be negative, found {seed}")
        self.seed, self.share = seed, share
        self._device = device
        self._in_numpy = device.type == "cpu" and not in_torch
        self._columns: dict[tuple[Stream, ...], tuple[Any, Any, list[slice]]] = {}

    def uniform(self, streams: Sequence[Stream], env: Tensor, index: Tensor) -> list[Tensor]:
        """Draw from every stream, for every pair (env, index), in one go.

        Args:
            streams: what is drawn.
            env: (n,) integers, the environment each row is for, of those that are here.
            index: (n,) integers, e.g. the environment's episode number.

        Returns:
            One float32 tensor (n, stream.size) in [0, 1) per stream.
        """
        key, block, columns = self._layout(tuple(streams))
        rows: list[Any] = [
            v[:, None].numpy() if self._in_numpy else v[:, None] for v in (env, index)
        ]
        world, count = rows[0] + self.share.first, rows[1]
        words = philox((world, count & _MASK, count >> 32, block), (key, self.seed & _MASK))
        numbers = torch.empty(len(env), len(block), 4, device=self._device)
        for place, word in enumerate(words):
            numbers[..., place] = torch.as_tensor(word) >> 8
        flat = numbers.mul_(2.0**-24).flatten(1)
        return [flat[:, column] for column in columns]

    def _layout(self, streams: tuple[Stream, ...]) -> tuple[Any, Any, list[slice]]:
        """Key and block number of each group of four numbers, and each stream's columns."""
        if streams not in self._columns:
            keys, blocks, columns = [], [], []
            for stream in streams:
                start, count = 4 * len(keys), -(-stream.size // 4)
                columns.append(slice(start, start + stream.size))
                keys += [zlib.crc32(stream.name.encode())] * count
                blocks += range(count)
            table = np.array([keys, blocks], dtype=np.int64)
            key, block = table if self._in_numpy else torch.from_numpy(table).to(self._device)
            self._columns[streams] = key, block, columns
        return self._columns[streams]


def philox(counter: Sequence[Array], key: Sequence[Array | int]) -> tuple[Array, ...]:
    """Philox4x32-10, on numpy arrays or torch tensors.

    Args:
        counter: four broadcastable int64 arrays, each in [0, 2**32).
        key: two broadcastable int64 arrays or integers, each in [0, 2**32).

    Returns:
        Four int64 arrays of 32-bit words, of the shape that all broadcast to.
    """
    c0, c1, c2, c3 = counter
    k0, k1 = key
    for _ in range(_ROUNDS):
        product0, product1 = c0 * _MULTIPLIERS[0], c2 * _MULTIPLIERS[1]  # exact modulo 2**64
        c0, c1, c2, c3 = (
            (product1 >> 32) & _MASK ^ c1 ^ k0,
            product1 & _MASK,
            (product0 >> 32) & _MASK ^ c3 ^ k1,
            product0 & _MASK,
        )
        k0, k1 = k0 + _WEYL[0] & _MASK, k1 + _WEYL[1] & _MASK
    return c0, c1, c2, c3
