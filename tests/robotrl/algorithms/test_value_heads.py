"""What critics' outputs mean, with numbers worked by hand."""

import pytest
import torch

from robotrl.algorithms.value_heads import CategoricalHead, ScalarHead, ValueHead

THREE = CategoricalHead(3, limit=1.0)  # returns -1, 0 and 1


def test_scalar_target_is_reward_and_discounted_value_and_its_slope_the_error():
    head = ScalarHead()

    target = head.target(torch.tensor([[10.0]]), torch.tensor([1.0]), torch.tensor([0.5]))
    loss, slope = head.loss(torch.tensor([[4.0]]), target)

    assert target.tolist() == [[6.0]]  # 1 + 0.5 · 10
    assert (loss.item(), slope.item()) == (4.0, -2.0)


def test_categorical_value_is_the_mean_of_its_distribution():
    logits = torch.tensor([0.2, 0.3, 0.5]).log()[None]

    assert THREE.value(logits).item() == pytest.approx(0.5 - 0.2)


@pytest.mark.parametrize(
    ("shift", "discount", "expected"),
    [
        (0.0, 1.0, [0.2, 0.3, 0.5]),  # nothing moves
        (0.0, 0.0, [0.0, 1.0, 0.0]),  # terminated: all at the reward
        (0.25, 0.0, [0.0, 0.75, 0.25]),
        # -1, 0, 1 go to -0.25, 0.25, 0.75, of which the outer returns get the shares:
        # 0.2 · (.25, .75, 0) + 0.3 · (0, .75, .25) + 0.5 · (0, .25, .75)
        (0.25, 0.5, [0.05, 0.5, 0.45]),
        (7.0, 1.0, [0.0, 0.0, 1.0]),  # beyond the limit
        (-7.0, 1.0, [1.0, 0.0, 0.0]),
    ],
)
def test_categorical_target_shares_every_return_between_its_neighbours(
    shift: float, discount: float, expected: list[float]
):
    logits = torch.tensor([0.2, 0.3, 0.5]).log()[None]

    target = THREE.target(logits, torch.tensor([shift]), torch.tensor([discount]))

    assert target[0].tolist() == pytest.approx(expected, abs=1e-6)


def test_categorical_target_keeps_the_mean():
    head, generator = CategoricalHead(51, limit=10.0), torch.Generator().manual_seed(0)
    logits = torch.randn(8, 51, generator=generator)
    shift = torch.rand(8, generator=generator)

    target = head.target(logits, shift, torch.full((8,), 0.9))

    torch.testing.assert_close(head.value(target.log()), shift + 0.9 * head.value(logits))


@pytest.mark.parametrize("head", [ScalarHead(), THREE], ids=["scalar", "categorical"])
def test_slopes_are_the_derivatives(head: ValueHead):
    generator = torch.Generator().manual_seed(0)
    output = torch.randn(2, 4, head.size, generator=generator, requires_grad=True)
    target = torch.rand(4, head.size, generator=generator)
    target = target / target.sum(dim=-1, keepdim=True)
    loss, slope = head.loss(output, target)
    (of_value,) = torch.autograd.grad(head.value(output).sum(), output, retain_graph=True)
    (of_loss,) = torch.autograd.grad(loss, output)

    torch.testing.assert_close(head.value_slope(output), of_value)
    half = 2 if head.size == 1 else 1  # the slope is that of half the squared error
    torch.testing.assert_close(slope, of_loss * 2 * 4 / half)


def test_categorical_loss_is_the_cross_entropy():
    logits, target = torch.tensor([0.2, 0.3, 0.5]).log()[None], torch.tensor([[0.0, 1.0, 0.0]])

    loss, slope = THREE.loss(logits, target)

    assert loss.item() == pytest.approx(1.2039728)  # -log 0.3
    assert slope[0].tolist() == pytest.approx([0.2, 0.3 - 1, 0.5])
