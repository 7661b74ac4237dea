"""Refuse what would make a GPU's host wait, on a machine that has none.

    with no_sync():
        env.step(action)

Reading a number, a shape that depends on values (`nonzero`, a mask as index) and tables made from
lists or numpy stop the host until the device has caught up; none of them can be in a CUDA graph.
Torch tells its dispatcher of each such call on the CPU too. A number that becomes a tensor without
dimensions is let through: torch passes it to a kernel as an argument. Copies between devices cannot
be seen here; `torch.cuda.set_sync_debug_mode` finds them (tests/benchmarks/simulation_gpu.py).
"""

from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

_WAITING = {
    "_local_scalar_dense",  # item(), int(), bool(), tolist(), if
    "allclose",
    "bincount",
    "equal",
    "is_nonzero",
    "masked_select",
    "nonzero",
    "repeat_interleave",
    "unique_consecutive",
    "unique_dim",
    "_unique2",
}


class HostWaited(AssertionError):
    """The host would have waited for the device."""


class no_sync(TorchDispatchMode):  # noqa: N801 (read as a statement)
    """See the module docstring."""

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        name = func.overloadpacket.__name__
        if name in _WAITING:
            raise HostWaited(f"{name} reads values of a tensor")
        if name == "lift_fresh" and args[0].dim() > 0:
            raise HostWaited(f"a table of shape {tuple(args[0].shape)} is made from host data")
        if name in ("index", "index_put", "index_put_") and any(
            isinstance(index, Tensor) and index.dtype in (torch.bool, torch.uint8)
            for index in args[1]
        ):
            raise HostWaited(f"{name} with a mask reads how many are chosen; use torch.where")
        return func(*args, **(kwargs or {}))
