"""What acts: a normaliser, maybe a memory, a network, and tanh of a Gaussian.

Every algorithm trains one of these. Evaluation and export take the deterministic action from it and
need to know nothing else; the distribution around it is the algorithm's.

    agent = Agent(policy, env.num_envs)             # at work: keeps each world's memory
    step = env.step(agent.act(observation["actor"]))
    agent.forget(step.terminated | step.truncated)
"""

import torch
from torch import Tensor, nn

from robotrl.algorithms.normalizer import Normalizer


class Policy(nn.Module):
    """The actor.

    Args:
        observation_size: size of the actor's observation.
        network: from a normalised observation, and the memory after it if there is one, to the mean
            before tanh, (..., num_actions) first among its outputs.
        cell: from normalised observations to what is remembered of an episode.
        observation_clip: how far a normalised observation goes from 0.
        sparse_observations: whether what is zero at times is scaled otherwise; see
            `Normalizer`.
    """

    def __init__(
        self,
        observation_size: int,
        network: nn.Sequential,
        cell: nn.GRUCell | None = None,
        *,
        observation_clip: float = 10.0,
        sparse_observations: bool = False,
    ):
        super().__init__()
        self.normalizer = Normalizer(
            observation_size, clip=observation_clip, sparse=sparse_observations
        )
        self.network = network
        self.cell = cell

    @property
    def state_shapes(self) -> dict[str, tuple[int, ...]]:
        """Of what it remembers, explicit as in the encoder: all zeros where an episode begins."""
        return {} if self.cell is None else {"memory": (self.cell.hidden_size,)}

    def mean(self, normalized: Tensor) -> Tensor:
        """Mean of the Gaussian before tanh, (..., num_actions)."""
        return self.network(normalized)

    def forward(self, observation: Tensor) -> Tensor:
        """The deterministic action tanh(mean), (..., num_actions) in (-1, 1).

        Raises:
            RuntimeError: it has a memory.
        """
        if self.cell is not None:
            raise RuntimeError("this policy has a memory: call `step`, or let an `Agent` act")
        return torch.tanh(self.mean(self.normalizer(observation)))

    def step(
        self, observation: Tensor, state: dict[str, Tensor]
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The deterministic action of observations (n, ...), and the next state."""
        if self.cell is None:
            return self(observation), state
        normalized = self.normalizer(observation)
        memory = self.cell(normalized, state["memory"])
        action = torch.tanh(self.mean(torch.cat([normalized, memory], dim=-1)))
        return action, {"memory": memory}


class Agent:
    """A policy at work in some worlds, without noise; see the module docstring."""

    def __init__(self, policy: Policy, num_envs: int):
        self._policy = policy
        device = policy.normalizer.mean.device
        self._state = {
            name: torch.zeros(num_envs, *shape, device=device)
            for name, shape in policy.state_shapes.items()
        }

    @torch.no_grad()
    def act(self, observation: Tensor) -> Tensor:
        """Actions (num_envs, actions) for the next observation (num_envs, n) of each world."""
        action, self._state = self._policy.step(observation, self._state)
        return action

    def forget(self, worlds: Tensor) -> None:
        """Begin new episodes in worlds (num_envs,) bool."""
        self._state = {
            name: value.masked_fill(worlds[:, None], 0) for name, value in self._state.items()
        }
