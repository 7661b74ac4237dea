"""What the servos receive of what was sent: the command terms of a randomization.

    - {command: quantize, step: 0.00153}                  # targets are whole counts [rad]
    - {command: hold, probability: 0.01, shared: true}    # one packet for all servos is lost

A target is first made whole counts, then it may get lost; a servo that receives nothing keeps what
it received last. How late targets arrive is a field term on `actuator_delay`, which MuJoCo itself
simulates; with `when: interval` its latency is not the same at every step.
"""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, ClassVar, Literal

import torch
from pydantic import BeforeValidator
from torch import Tensor

from envs.draws import Draws, Stream
from envs.randomization.signals.sensing import FULL, Probability, Share, Size
from envs.randomization.signals.step_draws import StepDraws
from envs.randomization.term import Pattern, RandomTerm, matching_rows, name_streams


def _known_kind(kind: object) -> object:
    if kind not in ("hold", "quantize"):
        raise ValueError(
            f"a command is `hold` or `quantize`, found {kind!r}; how late it arrives is `field: "
            "actuator_delay`"
        )
    return kind


class CommandTerm(RandomTerm):
    """What every command term says."""

    match: Pattern = "*"
    """Pattern or patterns of the names of the targets it applies to."""

    operation: ClassVar[str]

    @property
    def target(self) -> str:
        """See `RandomTerm.target`."""
        return "command"

    @property
    def identity(self) -> str:
        """See `RandomTerm.identity`."""
        return f"command/{self.match}/{self.operation}"

    def describe(self) -> dict[str, Any]:
        """See `RandomTerm.describe`."""
        return {
            "target": self.target,
            "match": self.match,
            "operation": self.operation,
            "distribution": "fixed",
            "range": (self.amount, self.amount),
        }

    @property
    def amount(self) -> float:
        """Probability, or size of a count."""
        raise NotImplementedError

    def __str__(self) -> str:
        """What it does, e.g. `command hold 0.01 on *`."""
        return f"{self.target} {self.operation} {self.amount:g} on {self.match}"


class CommandQuantization(CommandTerm):
    """Targets are whole counts."""

    grows = False
    operation = "quantize"
    command: Literal["quantize"]
    step: Size
    """One count, in the target's unit."""

    @property
    def amount(self) -> float:
        """See `CommandTerm.amount`."""
        return self.step


class CommandHold(CommandTerm):
    """Targets get lost, and the servo keeps what it received last."""

    operation = "hold"
    command: Annotated[Literal["hold"], BeforeValidator(_known_kind)]
    probability: Probability
    """Probability that a target is lost."""
    shared: bool = False
    """All targets are lost together, as in one packet, instead of each for itself."""

    @property
    def amount(self) -> float:
        """See `CommandTerm.amount`."""
        return self.probability


COMMAND_KINDS: dict[str, type[CommandTerm]] = {
    "quantize": CommandQuantization,
    "hold": CommandHold,
}
"""All kinds of command terms, by what `command` says."""


class CommandTerms:
    """Command terms at work; they remember nothing.

    Args:
        terms: command terms.
        targets: name of each target, e.g. its joint.
        draws: the run's random numbers.
        num_envs: number of worlds.
        device: of targets and draws.

    Raises:
        ConfigError: a pattern without a match.
    """

    def __init__(
        self,
        terms: Sequence[CommandTerm],
        targets: Sequence[str],
        draws: Draws,
        *,
        num_envs: int,
        device: torch.device,
    ):
        self._shares: dict[int, Share] = dict.fromkeys(range(len(terms)), FULL)
        self._counts: list[tuple[CommandQuantization, Tensor]] = []
        self._holds: list[tuple[int, CommandHold, Tensor]] = []
        streams = []
        for number, (term, stream) in enumerate(zip(terms, name_streams(terms), strict=True)):
            columns = matching_rows(term.target, targets, term.match)
            places = torch.tensor(columns, device=device)
            if isinstance(term, CommandQuantization):
                self._counts.append((term, places))
            elif isinstance(term, CommandHold):
                self._holds.append((number, term, places))
                streams.append(Stream(stream, 1 if term.shared else len(columns)))
        env = torch.arange(num_envs, device=device)
        self._steps = StepDraws(draws, streams, [_unchanged] * len(streams), env)

    def receive(self, targets: Tensor, previous: Tensor, step: int) -> Tensor:
        """What reaches the servos.

        Args:
            targets: (num_envs, targets) sent.
            previous: (num_envs, targets) received last.
            step: control steps since the environment was made.
        """
        for term, places in self._counts:
            counts = (targets[:, places] / term.step).round()
            targets = targets.index_copy(1, places, counts * term.step)
        for (number, term, places), uniform in zip(self._holds, self._steps.at(step), strict=True):
            lost = uniform < self._shares[number] * term.probability
            kept = torch.where(lost, previous[:, places].to(targets), targets[:, places])
            targets = targets.index_copy(1, places, kept)
        return targets

    def set_shares(self, shares: Mapping[int, Share]) -> None:
        """Use only this share, in [0, 1], of a probability, by its number in `terms`."""
        self._shares.update(shares)


def _unchanged(uniform: Tensor) -> Tensor:
    return uniform
