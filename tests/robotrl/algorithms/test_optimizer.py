"""Adam beside torch's, and two jobs at once."""

import copy
import math
import threading

import pytest
import torch
from torch import nn

from robotrl.algorithms.optimizer import ClippedAdam, begin


def network() -> nn.Sequential:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(3, 8), nn.SiLU(), nn.Linear(8, 2))


@pytest.mark.parametrize("at_once", [True, False], ids=["in place", "of a state"])
@pytest.mark.parametrize("max_grad_norm", [math.inf, 0.1])
def test_steps_equal_those_of_torch(max_grad_norm: float, at_once: bool):
    ours, theirs = network(), network()
    stepper = ClippedAdam(ours, 0.01, max_grad_norm, eps=1e-5)
    adam = torch.optim.Adam(theirs.parameters(), lr=0.01, eps=1e-5)
    generator = torch.Generator().manual_seed(1)
    for _ in range(20):
        x, slope = torch.randn(5, 3, generator=generator), torch.randn(5, 2, generator=generator)
        gradient = stepper.backward((ours(x),), (slope,))
        if at_once:
            stepper.step(gradient)
        else:
            stepper.load(stepper.after(stepper.state, gradient, torch.tensor(0.01)))
        adam.zero_grad()
        (theirs(x) * slope).sum().backward()
        norm = nn.utils.clip_grad_norm_(theirs.parameters(), max_grad_norm)
        assert norm > 0.1  # so that a clip there has an effect
        adam.step()

    for one, other in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-6)


def test_restored_steps_go_on_with_the_same_bits_and_the_rate_of_now():
    ours, other = network(), network()
    stepper, restored = ClippedAdam(ours, 0.01), ClippedAdam(other, 0.5)
    x, slope = torch.ones(1, 3), torch.ones(1, 2)
    stepper.step(stepper.backward((ours(x),), (slope,)))
    other.load_state_dict(ours.state_dict())
    restored.load_state_dict(copy.deepcopy(stepper.state_dict()))
    assert restored.learning_rate == 0.5
    restored.learning_rate = stepper.learning_rate

    for each, module in ((stepper, ours), (restored, other)):
        each.step(each.backward((module(x),), (slope,)))

    for one, same in zip(ours.parameters(), other.parameters(), strict=True):
        assert torch.equal(one, same)


@pytest.mark.parametrize("aside", [False, True])
def test_job_gives_its_result_or_its_error_to_whom_waits(aside: bool):
    def fail() -> None:
        raise ArithmeticError("bad")

    seen = begin(threading.current_thread, aside=aside)()
    assert (seen is threading.current_thread()) != aside
    with pytest.raises(ArithmeticError, match="bad"):
        begin(fail, aside=aside)()
