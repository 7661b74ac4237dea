"""Which unit of the processor multiplies the learner's matrices, and in what precision.

    with precision("float32"):
        learner.learn(step)

PyTorch takes float32 products from MKL, which leaves AVX-512 unused on AMD: oneDNN, in the same
wheel, is up to twice as fast there (as fast on Zen 4), but begins each product 20 µs later, so that
small ones had better stay where they are (`LARGE`). PyTorch asks oneDNN for them where bfloat16
is allowed, and without AMX instructions oneDNN then multiplies in float32 all the same. So
a product of known numbers is asked first what it comes out as. Where it is exact, float32 means
oneDNN, and bfloat16 is what `bmm` and `mm` make of it: factors are rounded, and the product with
them, on the processor's bfloat16 instructions; weights, a network's outputs, sums over a batch and
moments stay float32.

All threads share the setting, so what learns aside is `held`: the setting waits for it.
"""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any, Literal, TypeVar

import torch
from torch import Tensor

Result = TypeVar("Result")
Precision = Literal["float32", "bfloat16"]

LARGE = 2**21
"""Multiplications from which a product pays with oneDNN, which takes 20 µs to begin one."""
ROWS = 256
"""Worlds from which acting pays with it too, so that nothing need change between the two."""
_FINE = 1 + 2.0**-12
"""A number of float32 that bfloat16 has not, nor TF32."""
_backends: Any = torch.backends  # whose types lack mkldnn.matmul
_rounded = False
_held = 0
"""Jobs that have not ended yet."""
_ended = threading.Condition()


@contextmanager
def precision(kind: Precision) -> Iterator[None]:
    """How matrices are multiplied, within; not for a few rows, which oneDNN is slow to begin."""
    before, rounds = _setting(), kind == "bfloat16"
    cpu, cuda, _ = before
    _set(
        "bf16" if rounds or exact_on_onednn() else cpu,
        "tf32" if rounds else cuda,
        rounds,
    )
    try:
        yield
    finally:
        _set(*before)


def held(job: Callable[[], Result]) -> Callable[[], Result]:
    """A job for another thread, which ends in the precision that there is now.

    Who changes the precision before waits for it. The job itself may not.
    """
    global _held
    with _ended:
        _held += 1

    def run() -> Result:
        global _held
        try:
            return job()
        finally:
            with _ended:
                _held -= 1
                _ended.notify_all()

    return run


@cache
def exact_on_onednn() -> bool:
    """Whether this processor's oneDNN multiplies in float32 where it might round to bfloat16."""
    before = _setting()
    try:
        _set("bf16", *before[1:])
        found = torch.full((64, 64), _FINE) @ torch.eye(64)
    finally:
        _set(*before)
    return bool((found == _FINE).all())


def rounded() -> bool:
    """Whether products are those of factors in bfloat16."""
    return _rounded


def _setting() -> tuple[str, str, bool]:
    """Of oneDNN, of CUDA, and of `bmm`."""
    return _backends.mkldnn.matmul.fp32_precision, _backends.cuda.matmul.fp32_precision, _rounded


def _set(cpu: str, cuda: str, rounds: bool) -> None:
    global _rounded
    if (cpu, cuda, rounds) == _setting():
        return
    with _ended:
        _ended.wait_for(lambda: not _held)
        _backends.mkldnn.matmul.fp32_precision = cpu
        _backends.cuda.matmul.fp32_precision = cuda
        _rounded = rounds


def bmm(a: Tensor, b: Tensor) -> Tensor:
    """Products (count, n, m) of matrices (count, n, k) and (count, k, m), in float32."""
    if _rounded:
        return torch.bmm(a.bfloat16(), b.bfloat16()).float()
    return torch.bmm(a, b)


def mm(a: Tensor, b: Tensor, out: Tensor | None = None) -> Tensor:
    """Product (n, m) of matrices (n, k) and (k, m), in float32; written to `out`, if any."""
    if not _rounded:
        return torch.mm(a, b, out=out)
    product = torch.mm(a.bfloat16(), b.bfloat16())
    return product.float() if out is None else out.copy_(product)
