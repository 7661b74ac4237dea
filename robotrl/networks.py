"""Multi-layer perceptrons with orthogonal initialisation."""

from collections.abc import Sequence
from itertools import pairwise

from torch import nn

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
