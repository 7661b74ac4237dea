"""A learner's hot functions as machine code, by torch.compile and the machine's C++ compiler.

    gradients = compiled(gradients)      # the first call takes ten to twenty seconds

Python and a hundred small operations take as long as the matrix products between them; compiled,
they are a few loops. Results differ in rounding only. Where nothing can be compiled the function
stays as it is, and a warning says why.
"""

import logging
from collections.abc import Callable
from types import FunctionType, MethodType
from typing import ParamSpec, TypeVar

import torch

Parameters = ParamSpec("Parameters")
Result = TypeVar("Result")
_log = logging.getLogger(__name__)
_told: dict[str, object] = {}
"""Messages, and who came first with them."""


def compiled(
    function: Callable[Parameters, Result], otherwise: Callable[..., Result] | None = None
) -> Callable[Parameters, Result]:
    """What does the same in less time: tensors of the same shapes come in each time.

    Args:
        function: what is compiled with its first call.
        otherwise: what is called where it cannot be; by default the function as it is.
    """
    chosen: Callable[Parameters, Result] | None = None

    def call(*args: Parameters.args, **kwargs: Parameters.kwargs) -> Result:
        nonlocal chosen
        if chosen is None:
            own = _of_its_own(function)
            _tell_once(logging.INFO, "compiling what learns, which takes up to twenty seconds")
            try:
                attempt = torch.compile(own, dynamic=False, options={"cpp_wrapper": True})
                result = attempt(*args, **kwargs)
            except Exception as error:  # of a compiler that is missing, or of what it lacks
                reason = f"{type(error).__name__}: {error}".splitlines()[0]
                _tell_once(logging.WARNING, f"not compiled, so learning stays slower: {reason}")
                chosen = otherwise or function
            else:
                chosen = attempt
                return result
        return chosen(*args, **kwargs)

    return call


def _tell_once(level: int, message: str) -> None:
    """Not again for the next function, of which the same is true; they may be in two threads."""
    mine = object()
    if _told.setdefault(message, mine) is mine:
        _log.log(level, message)


def _of_its_own(function: Callable[Parameters, Result]) -> Callable[Parameters, Result]:
    """The same function with code of its own.

    With a function's code torch keeps what it was compiled to, eight times at most, all learners of
    a process together; the ninth would be as slow as Python, or slower.
    """
    inner = function.__func__ if isinstance(function, MethodType) else function
    assert isinstance(inner, FunctionType)
    own = FunctionType(
        *(inner.__code__.replace(), inner.__globals__, inner.__name__),
        *(inner.__defaults__, inner.__closure__),
    )
    return MethodType(own, function.__self__) if isinstance(function, MethodType) else own
