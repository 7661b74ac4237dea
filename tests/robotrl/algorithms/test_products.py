"""Matrix products: float32 stays float32, bfloat16 is that, and torch is left as it was."""

import threading

import pytest
import torch

from robotrl.algorithms.optimizer import begin
from robotrl.algorithms.products import bmm, held, precision, rounded

FINE = 1 + 2.0**-12  # bfloat16 has 8 bits: it knows 1 and 1 + 2⁻⁷, and nothing between


@pytest.mark.parametrize(("kind", "expected"), [("float32", FINE), ("bfloat16", 1.0)])
def test_factors_are_rounded_where_that_is_asked_for_only(kind, expected: float):
    matrices, one = torch.full((2, 64, 64), FINE), torch.eye(64).expand(2, 64, 64)

    with precision(kind):
        assert (bmm(matrices, one) == expected).all()
        if kind == "float32":
            assert torch.equal(matrices[0] @ one[0], matrices[0])

    assert (bmm(matrices, one) == FINE).all()


def test_torch_is_left_as_it_was_even_by_an_error():
    with pytest.raises(ArithmeticError), precision("bfloat16"):
        assert rounded()
        raise ArithmeticError

    assert not rounded()
    assert torch.get_float32_matmul_precision() == "highest"


def test_what_is_learned_aside_ends_in_the_precision_it_was_begun_in():
    begun = threading.Event()

    def job() -> list[bool]:
        begun.set()
        return [rounded() for _ in range(20_000)]

    with precision("bfloat16"):
        learned = begin(held(job), aside=True)
        assert begun.wait(timeout=60)

    assert not rounded()
    assert all(learned())


def test_precision_that_stays_as_it_is_waits_for_nothing():
    after = threading.Event()

    with precision("bfloat16"):
        with precision("bfloat16"):
            learned = begin(held(lambda: after.wait(timeout=60)), aside=True)
        after.set()  # not before the job has ended, if it were waited for

    assert learned()


def test_job_that_fails_holds_nothing():
    def fail() -> None:
        raise ArithmeticError

    with precision("bfloat16"):
        learned = begin(held(fail), aside=True)

    assert not rounded()
    with pytest.raises(ArithmeticError):
        learned()


def test_float32_products_are_as_near_as_float32_allows():
    generator = torch.Generator().manual_seed(0)
    a, b = torch.randn(2, 3, 100, 200, generator=generator).unbind()
    exact = a.double() @ b.double().transpose(1, 2)

    with precision("float32"):
        found = bmm(a, b.transpose(1, 2))

    # terms of size 1, 200 of them: √200 · 2⁻²⁴ rounding each, and ten times as much room
    assert (found - exact).abs().max() < 10 * 200**0.5 * 2**-24 * exact.abs().max()
