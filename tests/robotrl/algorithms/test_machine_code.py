"""What cannot be compiled goes on as it is; what can stays compiled."""

import shutil

import pytest
import torch
import torch._dynamo
from torch import Tensor

from robotrl.algorithms.machine_code import compiled


def test_function_stays_as_it_is_where_there_is_no_compiler(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    def no_compiler(*args: object, **kwargs: object) -> object:
        def fail(x: Tensor) -> Tensor:
            raise RuntimeError("no C++ compiler\nand a page more")

        return fail

    monkeypatch.setattr(torch, "compile", no_compiler)
    twice = compiled(lambda x: 2 * x)

    assert [twice(torch.tensor(3.0)).item() for _ in range(2)] == [6, 6]
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
