"""Layers of an MLP and how its weights start."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from robotrl.algorithms.networks import SQRT2, Backpropagation, CriticEnsemble, mlp
from robotrl.algorithms.products import precision


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


@pytest.mark.parametrize("activation", [nn.SiLU, nn.ReLU, nn.Tanh])
@pytest.mark.parametrize("hidden", [[], [8], [8, 4], [1000, 4]])
def test_gradients_by_hand_equal_those_of_autograd(hidden: list[int], activation: type[nn.Module]):
    network = mlp([5, *hidden, 2], output_gain=1.0, activation=activation).double()
    generator = torch.Generator().manual_seed(0)
    x, slope = (torch.randn(7, n, generator=generator, dtype=torch.float64) for n in (5, 2))
    by_hand = Backpropagation(network)

    output, passed = by_hand.trace(x)
    found = by_hand.gradient(passed, slope)

    expected = network(x)
    parameters = list(network.parameters())
    gradient = nn.utils.parameters_to_vector(torch.autograd.grad(expected, parameters, slope))
    torch.testing.assert_close(output, expected.detach(), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(found, gradient, rtol=1e-12, atol=1e-12)


def by_autograd(ensemble: CriticEnsemble, x: Tensor) -> Tensor:
    """What an ensemble says, (count, n, out), by torch's own layers."""
    answers = []
    for member in range(len(ensemble.weights[0])):
        hidden = x
        for weight, bias in zip(ensemble.weights, ensemble.biases, strict=True):
            if hidden is not x:
                if ensemble._layer_norm:
                    hidden = F.layer_norm(hidden, hidden.shape[-1:])
                hidden = F.relu(hidden)
            hidden = F.linear(hidden, weight[member].T, bias[member, 0])
        answers.append(hidden)
    return torch.stack(answers)


def test_network_of_other_weights_is_that_network():
    network, other = (mlp([3, 8, 4, 2], output_gain=1.0) for _ in range(2))
    weights = nn.utils.parameters_to_vector(other.parameters()).detach()
    x, slope = torch.randn(5, 3), torch.randn(5, 2)

    borrowed, own = Backpropagation(network).of(weights), Backpropagation(other)

    gradients = []
    for each in (borrowed, own):
        found, passed = each.trace(x)
        assert torch.equal(found, other(x))
        gradients.append(each.gradient(passed, slope))
    assert torch.equal(*gradients)


@pytest.fixture(params=[False, True], ids=["plain", "LayerNorm"])
def ensemble(request: pytest.FixtureRequest) -> CriticEnsemble:
    """Three networks, whose biases are not zero."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        made = CriticEnsemble(3, [5, 8, 6, 2], layer_norm=request.param)
        for parameter in made.parameters():
            nn.init.normal_(parameter)
    return made


def test_ensemble_equals_networks_of_torch_side_by_side(ensemble: CriticEnsemble):
    x = torch.randn(7, 5, generator=torch.Generator().manual_seed(1))

    torch.testing.assert_close(ensemble(x), by_autograd(ensemble, x))


def test_slopes_of_an_ensemble_equal_those_of_autograd(ensemble: CriticEnsemble):
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(7, 5, generator=generator, requires_grad=True)
    slope = torch.randn(3, 7, 2, generator=generator)
    parameters = list(ensemble.parameters())
    outputs = by_autograd(ensemble, x)
    in_weights = torch.autograd.grad(outputs[:, :4], parameters, slope[:, :4], retain_graph=True)
    (in_x,) = torch.autograd.grad(outputs[:, 4:], x, slope[:, 4:])

    _, layers = ensemble.trace(x.detach())
    gradient, found = ensemble.backward(layers, slope, learned=4)

    torch.testing.assert_close(found, in_x[4:])
    in_weights = nn.utils.parameters_to_vector(in_weights)
    torch.testing.assert_close(gradient, in_weights, rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_values_in_the_hundreds_stay_apart_in_bfloat16():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        critics, actor = CriticEnsemble(2, [5, 256, 256, 1]), mlp([5, 256, 1], output_gain=1.0)
        x = torch.randn(400, 5)
    for network, last in ((critics, critics.weights[-1]), (actor, linear_layers(actor)[-1].weight)):
        last.fill_(1).mul_(500 / network(x).mean())
    by_hand = Backpropagation(actor)

    with precision("bfloat16"):
        found, (mean, _) = critics(x)[0], by_hand.trace(x)

    for outputs, expected in ((found, critics(x)[0]), (mean, actor(x))):
        assert len(outputs.unique()) > 350  # of 400, where bfloat16 knows every second number
        torch.testing.assert_close(outputs, expected, rtol=0.05, atol=5)
