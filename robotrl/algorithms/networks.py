"""Multi-layer perceptrons, orthogonally initialised: one, several in one, one without autograd."""

import copy
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from robotrl.algorithms.products import bmm, mm, rounded

SQRT2 = 2**0.5
NORM_EPS = 1e-5
SMALL = 4096
"""Numbers from which three quick passes beat a slow one."""


def _tanh(x: Tensor) -> Tensor:
    """On a CPU as 2 σ(2 x) - 1: PyTorch's sigmoid takes a fifth of its tanh's time there."""
    if x.is_cpu and x.numel() >= SMALL:
        return torch.sigmoid(x + x).mul_(2).sub_(1)
    return torch.tanh(x)


def _silu_slope(slope: Tensor, before: Tensor, _: Tensor) -> Tensor:
    return torch.ops.aten.silu_backward(slope, before)


def _relu_slope(slope: Tensor, before: Tensor, _: Tensor) -> Tensor:
    return torch.ops.aten.threshold_backward(slope, before, 0)


def _tanh_slope(slope: Tensor, _: Tensor, after: Tensor) -> Tensor:
    return torch.ops.aten.tanh_backward(slope, after)


_ACTIVATIONS: dict[type[nn.Module], tuple[Callable[[Tensor], Tensor], Any]] = {
    nn.SiLU: (F.silu, _silu_slope),
    nn.ReLU: (F.relu, _relu_slope),
    nn.Tanh: (_tanh, _tanh_slope),
}
"""Each, and the slopes of a loss in its input, given those in its output, the input and the
output."""


def mlp(
    sizes: Sequence[int], *, output_gain: float, activation: type[nn.Module] = nn.SiLU
) -> nn.Sequential:
    """Linear layers with activations between them.

    Weights are orthogonal with gain √2, the last layer's with `output_gain`; biases are zero.

    Args:
        sizes: width of the input, of each hidden layer, and of the output.
        output_gain: 0.01 for a policy (starts near zero), 1 for a value function.
        activation: class of the layers between.
    """
    layers: list[nn.Module] = []
    for fan_in, fan_out in pairwise(sizes):
        layers += [nn.Linear(fan_in, fan_out), activation()]
    layers.pop()
    linear = [layer for layer in layers if isinstance(layer, nn.Linear)]
    for layer in linear:
        nn.init.orthogonal_(layer.weight, output_gain if layer is linear[-1] else SQRT2)
        nn.init.zeros_(layer.bias)
    return nn.Sequential(*layers)


class Backpropagation:
    """Output of an `mlp`, and the gradient of a loss in its weights, worked out by hand.

    Autograd finds the same, but where a network is small its graph costs as much as the products.

        by_hand = Backpropagation(network)
        output, passed = by_hand.trace(x)
        gradient = by_hand.gradient(passed, loss_slope(output))    # d loss / d output

    Args:
        network: linear layers with SiLU, ReLU or tanh between them. It may be changed in place, not
            replaced.
    """

    def __init__(self, network: nn.Sequential):
        layers = [layer for layer in network if isinstance(layer, nn.Linear)]
        self._layers = [(layer.weight.detach(), layer.bias.detach()) for layer in layers]
        self._turned = [weight.t() for weight, _ in self._layers]
        between = {type(layer) for layer in network} - {nn.Linear}
        self._activation, self._slope_before = _ACTIVATIONS[between.pop() if between else nn.SiLU]

    def of(self, weights: Tensor) -> "Backpropagation":
        """The same network with weights (parameters,), in its own order."""
        twin, sizes = copy.copy(self), [part.shape for layer in self._layers for part in layer]
        parts = weights.split([size.numel() for size in sizes])
        parts = iter([part.view(size) for part, size in zip(parts, sizes, strict=True)])
        twin._layers = list(zip(parts, parts, strict=True))
        twin._turned = [weight.t() for weight, _ in twin._layers]
        return twin

    def trace(self, x: Tensor) -> tuple[Tensor, list[tuple[Tensor, Tensor]]]:
        """Output (n, out) for x (n, in), and what `gradient` needs to know of the way there."""
        passed: list[tuple[Tensor, Tensor]] = []
        before = x
        for (_, bias), turned in zip(self._layers, self._turned, strict=True):
            if passed:
                x = self._activation(before)
            passed.append((before, x))
            rounds = rounded() and len(passed) < len(self._layers)  # outputs stay fine
            before = mm(x, turned) + bias if rounds else torch.addmm(bias, x, turned)
        return before, passed

    def gradient(self, passed: Sequence[tuple[Tensor, Tensor]], slope: Tensor) -> Tensor:
        """(parameters,) in the network's order, given a loss's slopes (n, out) in the output."""
        found: list[Tensor] = []
        for place in reversed(range(len(self._layers))):
            (weight, _), (before, x) = self._layers[place], passed[place]
            found += [slope.sum(dim=0), mm(slope.t(), x).view(-1)]
            if place:
                slope = self._slope_before(mm(slope, weight), before, x)
        return torch.cat(found[::-1])


class Layer(NamedTuple):
    """What a layer of an ensemble came from and to, (count, n, ...) each."""

    hidden: Tensor
    """Its input."""
    before: Tensor
    """Its output, before LayerNorm."""
    mean: Tensor | None = None
    """Of `before`, over its columns, if it is normalised."""
    scale: Tensor | None = None
    """Inverse standard deviation of `before`."""


class CriticEnsemble(nn.Module):
    """Several networks (n, in) -> (count, n, out) in one, with ReLU on hidden layers.

    One batched product per layer instead of `count` small ones, and slopes worked out by hand:
    autograd takes more operations, and more of them than are asked for. LayerNorm has no gain and
    no shift: before ReLU and a linear layer they only say again what weights and biases say.

    Args:
        count: number of networks, which differ in their initial weights.
        sizes: width of the input, of each hidden layer, and of the output.
        layer_norm: whether there is LayerNorm before each ReLU.
    """

    def __init__(self, count: int, sizes: Sequence[int], *, layer_norm: bool = False):
        super().__init__()
        self._layer_norm = layer_norm
        self.weights, self.biases = nn.ParameterList(), nn.ParameterList()
        for fan_in, fan_out in pairwise(sizes):
            last = len(self.weights) == len(sizes) - 2
            weight = torch.empty(count, fan_in, fan_out)
            for member in weight:
                nn.init.orthogonal_(member, 1.0 if last else SQRT2)
            self.weights.append(weight)
            self.biases.append(torch.zeros(count, 1, fan_out))

    def forward(self, x: Tensor) -> Tensor:
        """See the class."""
        return self.trace(x)[0]

    @torch.no_grad()
    def trace(self, x: Tensor) -> tuple[Tensor, list[Layer]]:
        """The output, and what `backward` needs to know of the way there."""
        hidden, layers = x.expand(len(self.weights[0]), *x.shape), []
        for weight, bias in zip(self.weights, self.biases, strict=True):
            # outputs stay fine: in bfloat16 a value of 500 would be known to ±1
            product = bmm if len(layers) < len(self.weights) - 1 else torch.bmm
            before = product(hidden, weight).add_(bias)
            if self._layer_norm:
                mean = before.mean(dim=-1, keepdim=True)
                centred = before - mean
                square = torch.linalg.vector_norm(centred, dim=-1, keepdim=True).square_()
                scale = square.div_(before.shape[-1]).add_(NORM_EPS).rsqrt_()
                layers.append(Layer(hidden, before, mean, scale))
                hidden = centred.mul_(scale).relu_()
            else:
                layers.append(Layer(hidden, before))
                hidden = before.relu()
        return layers[-1].before, layers

    @torch.no_grad()
    def backward(self, layers: list[Layer], slope: Tensor, learned: int) -> tuple[Tensor, Tensor]:
        """The gradient by the first rows, and what is passed on to the input of the others.

        Args:
            layers: as `trace` found them.
            slope: (count, n, out) of a loss in the output.
            learned: how many rows weights and biases learn from.

        Returns:
            (parameters,) in the module's order, and slopes (n - learned, in) in the input of the
            rows after those.
        """
        of_weights: list[Tensor] = []
        of_biases: list[Tensor] = []
        for index in reversed(range(len(layers))):
            own = slope[:, :learned]
            of_biases.append(own.sum(dim=1).view(-1))
            product = bmm(layers[index].hidden[:, :learned].transpose(1, 2), own)
            of_weights.append(product.view(-1))
            if index:
                slope = self._before(layers, index, slope)
        before = bmm(slope[:, learned:], self.weights[0].transpose(1, 2)).sum(dim=0)
        return torch.cat(of_weights[::-1] + of_biases[::-1]), before

    def _before(self, layers: list[Layer], index: int, slope: Tensor) -> Tensor:
        """Slopes in what the hidden layer before `index` was before ReLU, and before LayerNorm."""
        slope = bmm(slope, self.weights[index].transpose(1, 2))
        slope = torch.ops.aten.threshold_backward(slope, layers[index].hidden, 0)
        if not self._layer_norm:
            return slope
        _, before, mean, scale = layers[index - 1]
        shape, wanted = before.shape[-1:], [True, False, False]
        return torch.ops.aten.native_layer_norm_backward(
            slope, before, shape, mean, scale, None, None, wanted
        )[0]
