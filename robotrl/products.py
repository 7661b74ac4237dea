"""Which unit of the processor multiplies the learner's matrices, and in what precision.

    with precision("float32"):
        learner.learn(step)

PyTorch takes float32 products from MKL, which leaves AVX-512 unused on AMD: oneDNN, in the same
wheel, is twice as fast there, from about 100 × 100 × 100 on. PyTorch asks oneDNN for them where
bfloat16 is allowed, and without AMX instructions oneDNN then multiplies in float32 all the same. So
a product of known numbers is asked first what it comes out as. Where it is exact, float32 means
oneDNN, and bfloat16 is what `rounded_bmm` makes of it: factors are rounded, and the product with
them, on the processor's bfloat16 instructions; weights, sums over a batch and moments stay float32.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any, Literal

import torch
from torch import Tensor

Precision = Literal["float32", "bfloat16"]

ROWS = 256
"""Worlds from which acting pays with oneDNN too, so that nothing need change between the two."""
_FINE = 1 + 2.0**-12
"""A number of float32 that bfloat16 has not, nor TF32."""
_backends: Any = torch.backends  # whose types lack mkldnn.matmul
_rounded = False


@contextmanager
def precision(kind: Precision) -> Iterator[None]:
    """How matrices are multiplied, within; not for a few rows, which oneDNN is slow to begin."""
    global _rounded
    cpu, cuda = _backends.mkldnn.matmul, _backends.cuda.matmul
    before = cpu.fp32_precision, cuda.fp32_precision, _rounded
    try:
        _rounded = kind == "bfloat16"
        if _rounded or exact_on_onednn():
            cpu.fp32_precision = "bf16"
        if _rounded:
            cuda.fp32_precision = "tf32"
        yield
    finally:
        cpu.fp32_precision, cuda.fp32_precision, _rounded = before


@cache
def exact_on_onednn() -> bool:
    """Whether this processor's oneDNN multiplies in float32 where it might round to bfloat16."""
    matmul = _backends.mkldnn.matmul
    before = matmul.fp32_precision
    try:
        matmul.fp32_precision = "bf16"
        found = torch.full((64, 64), _FINE) @ torch.eye(64)
    finally:
        matmul.fp32_precision = before
    return bool((found == _FINE).all())


def rounded() -> bool:
    """Whether products are those of factors in bfloat16."""
    return _rounded


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
