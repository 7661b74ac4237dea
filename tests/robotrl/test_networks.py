"""Layers of an MLP and how its weights start."""

import pytest
import torch
from torch import nn

from robotrl.networks import SQRT2, Backpropagation, mlp


def linear_layers(network: nn.Sequential) -> list[nn.Linear]:
    return [layer for layer in network if isinstance(layer, nn.Linear)]


def test_activations_are_between_the_layers_only():
    network = mlp([5, 8, 4, 2], output_gain=1.0)

    kinds = [type(layer) for layer in network]
    assert kinds == [nn.Linear, nn.SiLU, nn.Linear, nn.SiLU, nn.Linear]
    assert network(torch.zeros(3, 5)).shape == (3, 2)


def test_weights_start_orthogonal_with_their_gains():
    network = mlp([8, 8, 4, 2], output_gain=0.01)

    for layer, gain in zip(linear_layers(network), [SQRT2, SQRT2, 0.01], strict=True):
        rows = layer.weight @ layer.weight.T  # gain² I
        torch.testing.assert_close(rows, gain**2 * torch.eye(len(rows)), atol=1e-5, rtol=1e-5)


def test_biases_start_at_zero():
    assert all(not layer.bias.any() for layer in linear_layers(mlp([4, 8, 2], output_gain=1.0)))


def test_network_without_hidden_layers_is_one_output_layer():
    (layer,) = mlp([3, 1], output_gain=0.5)

    assert isinstance(layer, nn.Linear)
    assert layer.weight.norm().item() == pytest.approx(0.5)


def test_policy_starts_near_zero():
    torch.manual_seed(0)
    network = mlp([10, 64, 64, 3], output_gain=0.01)

    assert network(torch.randn(1000, 10)).abs().max() < 0.2


@pytest.mark.parametrize("hidden", [[], [8], [8, 4]])
def test_gradients_by_hand_equal_those_of_autograd(hidden: list[int]):
    network = mlp([5, *hidden, 2], output_gain=1.0).double()
    for parameter in network.parameters():
        parameter.grad = torch.full_like(parameter, torch.nan)  # is written, not added to
    generator = torch.Generator().manual_seed(0)
    x, slope = (torch.randn(7, n, generator=generator, dtype=torch.float64) for n in (5, 2))
    by_hand = Backpropagation(network)

    output = by_hand.forward(x)
    by_hand.backward(slope)

    expected = network(x)
    gradients = torch.autograd.grad(expected, list(network.parameters()), slope)
    torch.testing.assert_close(output, expected.detach(), rtol=1e-12, atol=1e-12)
    for parameter, gradient in zip(network.parameters(), gradients, strict=True):
        torch.testing.assert_close(parameter.grad, gradient, rtol=1e-12, atol=1e-12)
