"""Memory: a gated recurrent unit (Cho et al. 2014, arXiv 1406.1078) over episodes.

    cell = gru(inputs, units)
    memory = cell(x, memory)                        # one tick; zero where an episode begins
    memories = unroll(cell, x, memory, fresh)       # many of them, to be learned from

`torch.nn.GRU` cannot forget in the middle of a sequence, and a loop under autograd takes twice as
long. So the way back through time is worked out by hand: a slope passes through a tick linearly,
the factors of all ticks are found at once, and what is left in the loop is a product and two sums.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def gru(inputs: int, units: int) -> nn.GRUCell:
    """A cell whose gates have orthogonal weights and no biases yet."""
    cell = nn.GRUCell(inputs, units)
    for weight in (*cell.weight_ih.chunk(3), *cell.weight_hh.chunk(3)):
        nn.init.orthogonal_(weight)
    nn.init.zeros_(cell.bias_ih)
    nn.init.zeros_(cell.bias_hh)
    return cell


def unroll(cell: nn.GRUCell, x: Tensor, memory: Tensor, fresh: Tensor) -> Tensor:
    """The memory after each tick, with gradients by back-propagation through time.

    Args:
        cell: the unit.
        x: (T, B, inputs).
        memory: (B, units) before the first tick.
        fresh: (T, B) bool: ticks before which everything is forgotten.

    Returns:
        (T, B, units).
    """
    gates = F.linear(x, cell.weight_ih, cell.bias_ih)
    kept = (~fresh)[..., None].to(x.dtype)
    return _Unroll.apply(gates, memory, kept, cell.weight_hh, cell.bias_hh)


class _Unroll(torch.autograd.Function):
    """`unroll`, from the input's part of the gates on.

    With i from the input and g = W h + b from the memory, torch's cell is r = σ(i_r + g_r),
    z = σ(i_z + g_z), n = tanh(i_n + r g_n), h' = n + z (h - n).
    """

    @staticmethod
    def forward(
        ctx: Any, gates: Tensor, memory: Tensor, kept: Tensor, weight: Tensor, bias: Tensor
    ) -> Tensor:
        units, transposed = memory.shape[-1], weight.t()
        of_rz, of_n = gates.split([2 * units, units], dim=-1)
        ticks = []
        for tick in range(len(gates)):
            before = memory * kept[tick]
            past = torch.addmm(bias, before, transposed)
            rz = torch.sigmoid(of_rz[tick] + past[:, : 2 * units])
            recall = past[:, 2 * units :]
            new = torch.addcmul(of_n[tick], rz[:, :units], recall).tanh()
            memory = torch.lerp(new, before, rz[:, units:])
            ticks.append((before, recall, rz, new, memory))
        *saved, memories = (torch.stack(values) for values in zip(*ticks, strict=True))
        ctx.save_for_backward(*saved, kept, weight)
        return memories

    @staticmethod
    def backward(ctx: Any, slopes: Tensor) -> tuple[Tensor | None, ...]:  # pyright: ignore
        before, recall, rz, new, kept, weight = ctx.saved_tensors
        r, z = rz.chunk(2, dim=-1)
        of_n = (1 - z) * (1 - new.square())
        of_z = (before - new) * z * (1 - z)
        of_r = of_n * recall * r * (1 - r)
        factors = torch.stack([of_r, of_z, of_n * r], dim=2)  # (T, B, 3, units) of the past's gates
        passed = z * kept
        totals, of_past = torch.empty_like(slopes), torch.empty_like(factors)
        back = torch.zeros_like(slopes[0])
        for tick in reversed(range(len(slopes))):
            total = torch.add(slopes[tick], back, out=totals[tick])
            through = torch.mul(factors[tick], total[:, None], out=of_past[tick])
            back = torch.addcmul(through.flatten(1) @ weight * kept[tick], total, passed[tick])
        of_past = of_past.flatten(2)
        of_gates = torch.cat([of_past[..., : 2 * new.shape[-1]], totals * of_n], dim=-1)
        rows = of_past.flatten(0, 1)
        return of_gates, back, None, rows.t() @ before.flatten(0, 1), rows.sum(dim=0)
