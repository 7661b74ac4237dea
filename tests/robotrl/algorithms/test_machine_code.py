"""What cannot be compiled goes on as it is; what can stays compiled."""

import shutil

import pytest
import torch
import torch._dynamo
from torch import Tensor

from robotrl.algorithms import machine_code
from robotrl.algorithms.machine_code import compiled


@pytest.mark.parametrize("at_once", [True, False], ids=["when asked", "when first called"])
def test_functions_stay_as_they_are_where_there_is_no_compiler_which_is_told_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, at_once: bool
):
    def fail(*args: object, **settings: object) -> Tensor:
        raise RuntimeError("no C++ compiler\nand a page more")

    machine_code._told.clear()
    monkeypatch.setattr(torch, "compile", fail if at_once else lambda *args, **settings: fail)
    twice, thrice = compiled(lambda x: 2 * x), compiled(lambda x: 3 * x)

    x = torch.tensor(3.0)
    assert [twice(x).item(), thrice(x).item(), twice(x).item()] == [6, 9, 6]
    assert [record.message for record in caplog.records] == [
        "not compiled, so learning stays slower: RuntimeError: no C++ compiler"
    ]


def test_error_of_the_function_itself_is_raised(monkeypatch: pytest.MonkeyPatch):
    def divide(x: Tensor) -> Tensor:
        raise ZeroDivisionError

    monkeypatch.setattr(torch, "compile", lambda function, **settings: function)

    with pytest.raises(ZeroDivisionError):
        compiled(divide)(torch.ones(1))


@pytest.mark.skipif(shutil.which("g++") is None, reason="no C++ compiler")
@torch._dynamo.config.patch(recompile_limit=1)  # 8, without
def test_many_learners_of_one_process_are_all_compiled():
    class Learner:
        def __init__(self, size: int):
            self.weights = torch.zeros(size)
            self.learn = compiled(self.is_compiled)

        def is_compiled(self, x: Tensor) -> Tensor:
            return self.weights + x * torch.compiler.is_compiling()

    learners = [Learner(size) for size in (1, 2, 3)]

    for _ in range(2):
        assert [each.learn(torch.ones(1)).min().item() for each in learners] == [1, 1, 1]
