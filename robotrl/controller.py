"""The whole controller as one module: encode → normalise → remember → actor → tanh → decode.

Training runs these parts one after the other; export traces this composition of the very same
modules, so nothing is left to write on the robot.
"""

import torch
from torch import Tensor, nn

from deploy.signals import SIGNALS, SignalKind
from envs.observation_encoder import ObservationEncoder
from envs.task import Task
from robotrl.algorithms.policy import Policy


class Controller(nn.Module):
    """Signals and state in, joint targets and next state out.

    Args:
        task: owner of the encoder and the decoder.
        policy: the trained actor with its normaliser.
    """

    def __init__(self, task: Task, policy: Policy):
        super().__init__()
        self.encoder: ObservationEncoder = task.encoder
        self.policy = policy
        self.decoder = task.decoder
        used = {*task.encoder.signals, *task.decoder.signals}
        self.signals: list[SignalKind] = [kind for kind in SIGNALS if kind in used]
        """Names of the inputs, in order: the signals that encoder and decoder read."""
        self.state_shapes = task.encoder.state_shapes | policy.state_shapes
        """Of its memory, in order: the encoder's, then the policy's."""
        self.state = list(self.state_shapes)
        """Names of that."""

    def initial_state(self, n: int) -> list[Tensor]:
        """All zeros, (n, ...) each."""
        return [torch.zeros(n, *shape) for shape in self.state_shapes.values()]

    def forward(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        """`signals` then `state`, each (n, ...) -> targets (n, joints), then the next state."""
        named = dict(zip([*self.signals, *self.state], tensors, strict=True))
        signals, encoded, remembered = (
            {name: named[name] for name in names}
            for names in (self.signals, self.encoder.state_shapes, self.policy.state_shapes)
        )
        observation, encoded = self.encoder(signals, encoded)
        action, remembered = self.policy.step(observation, remembered)
        state = encoded | remembered
        return self.decoder(action, signals), *(state[name] for name in self.state)

    @torch.no_grad()
    def rollout(self, inputs: dict[str, Tensor]) -> Tensor:
        """Run sequences from zero state: inputs (T, n, ...) -> targets (T, n, joints)."""
        first = inputs[self.signals[0]]
        state = self.initial_state(first.shape[1])
        targets = []
        for step in range(len(first)):
            target, *state = self(*(inputs[name][step] for name in self.signals), *state)
            targets.append(target)
        return torch.stack(targets)
