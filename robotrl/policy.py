"""What acts: a normaliser, a network, and tanh of a Gaussian.

Every algorithm trains one of these. Evaluation and export take the deterministic action from it and
need to know nothing else; the distribution around it is the algorithm's.
"""

import torch
from torch import Tensor, nn

from robotrl.normalizer import Normalizer


class Policy(nn.Module):
    """The actor.

    Args:
        observation_size: size of the actor's observation.
        network: from a normalised observation to the mean before tanh, (..., num_actions) first
            among its outputs.
    """

    def __init__(self, observation_size: int, network: nn.Sequential):
        super().__init__()
        self.normalizer = Normalizer(observation_size)
        self.network = network

    def mean(self, normalized: Tensor) -> Tensor:
        """Mean of the Gaussian before tanh, (..., num_actions)."""
        return self.network(normalized)

    def forward(self, observation: Tensor) -> Tensor:
        """The deterministic action tanh(mean), (..., num_actions) in (-1, 1)."""
        return torch.tanh(self.mean(self.normalizer(observation)))
