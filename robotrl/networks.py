"""Multi-layer perceptrons, orthogonally initialised: one, several in one, one without autograd."""

from collections.abc import Sequence
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

SQRT2 = 2**0.5


def mlp(sizes: Sequence[int], *, output_gain: float) -> nn.Sequential:
    """Linear layers with SiLU between them.

    Weights are orthogonal with gain √2, the last layer's with `output_gain`; biases are zero.
    SiLU because tanh costs ten times as much on a CPU.

    Args:
        sizes: width of the input, of each hidden layer, and of the output.
        output_gain: 0.01 for a policy (starts near zero), 1 for a value function.
    """
    layers: list[nn.Module] = []
    for fan_in, fan_out in pairwise(sizes):
        layers += [nn.Linear(fan_in, fan_out), nn.SiLU()]
    layers.pop()
    linear = [layer for layer in layers if isinstance(layer, nn.Linear)]
    for layer in linear:
        nn.init.orthogonal_(layer.weight, output_gain if layer is linear[-1] else SQRT2)
        nn.init.zeros_(layer.bias)
    return nn.Sequential(*layers)


class Backpropagation:
    """Output of an `mlp`, and the gradient of a loss in its weights, worked out by hand.

    Autograd finds the same, but where a network is small its graph costs as much as the products.

        by_hand = Backpropagation(network)          # once its parameters have their `grad`
        slope = loss_slope(by_hand.forward(x))      # d loss / d output
        by_hand.backward(slope)                     # `grad` of each parameter is set, not added to

    Args:
        network: linear layers with SiLU between them. It may be changed in place, not replaced.
    """

    def __init__(self, network: nn.Sequential):
        layers = [layer for layer in network if isinstance(layer, nn.Linear)]
        self._layers = [(layer.weight.detach(), layer.bias.detach()) for layer in layers]
        self._turned = [weight.t() for weight, _ in self._layers]
        self._gradients = [(layer.weight.grad, layer.bias.grad) for layer in layers]
        self._passed: list[tuple[Tensor, Tensor]] = []

    def forward(self, x: Tensor) -> Tensor:
        """Output (n, out) for x (n, in); remembers what `backward` needs."""
        self._passed = []
        before = x
        for (_, bias), turned in zip(self._layers, self._turned, strict=True):
            if self._passed:
                x = F.silu(before)
            self._passed.append((before, x))
            before = torch.addmm(bias, x, turned)
        return before

    def backward(self, slope: Tensor) -> None:
        """Set the gradients, given the slopes (n, out) of a loss in the latest output."""
        for place in reversed(range(len(self._layers))):
            (weight, _), (before, x) = self._layers[place], self._passed[place]
            of_weight, of_bias = self._gradients[place]
            torch.mm(slope.t(), x, out=of_weight)
            torch.sum(slope, dim=0, out=of_bias)
            if place:
                slope = torch.ops.aten.silu_backward(slope @ weight, before)


class CriticEnsemble(nn.Module):
    """Several networks (n, in) -> (count, n) in one, with LayerNorm and SiLU after hidden layers.

    One batched product per layer instead of `count` small ones.

    Args:
        count: number of networks, which differ in their initial weights.
        sizes: width of the input, of each hidden layer, and 1.
    """

    def __init__(self, count: int, sizes: Sequence[int]):
        super().__init__()
        self.weights, self.biases = nn.ParameterList(), nn.ParameterList()
        self.gains, self.shifts = nn.ParameterList(), nn.ParameterList()
        for fan_in, fan_out in pairwise(sizes):
            last = len(self.weights) == len(sizes) - 2
            weight = torch.empty(count, fan_in, fan_out)
            for member in weight:
                nn.init.orthogonal_(member, 1.0 if last else SQRT2)
            self.weights.append(weight)
            self.biases.append(torch.zeros(count, 1, fan_out))
            if not last:
                self.gains.append(torch.ones(count, 1, fan_out))
                self.shifts.append(torch.zeros(count, 1, fan_out))

    def forward(self, x: Tensor) -> Tensor:
        """See the class."""
        hidden = x.expand(len(self.weights[0]), *x.shape)
        for layer, (weight, bias) in enumerate(zip(self.weights, self.biases, strict=True)):
            hidden = torch.baddbmm(bias, hidden, weight)
            if layer < len(self.gains):
                hidden = F.layer_norm(hidden, hidden.shape[-1:])
                hidden = F.silu(torch.addcmul(self.shifts[layer], hidden, self.gains[layer]))
        return hidden.squeeze(-1)
