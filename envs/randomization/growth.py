"""How much of its range each term uses: all, or a share that grows by schedule or by success.

    growth = Growth(terms, num_envs, device)
    growth.shares[0]                    # a live number (), or None: always all of the range
    growth.advance(step)
    growth.adapt(metrics, measured)     # decides by itself when it has seen enough

A share scales what a draw does, from nothing at 0 to all of it at 1: half of the range [0.8, 1.2]
of a factor is [0.9, 1.1]. Everything stays on the device; only `report` waits for it.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from deploy.configuration import did_you_mean
from deploy.errors import ConfigError
from envs.randomization.term import Adapt, RandomTerm, Schedule
from envs.worlds import ALL_HERE, Share


class Growth:
    """See the module docstring.

    Args:
        terms: all terms.
        num_envs: number of worlds.
        device: where the simulation lives.
        share: those that are here; a schedule counts the steps of all, and all are measured.
    """

    def __init__(
        self,
        terms: Sequence[RandomTerm],
        num_envs: int,
        device: torch.device,
        share: Share = ALL_HERE,
    ):
        self._all_envs, self._share = num_envs * share.processes, share
        self._table = torch.tensor(
            [_start(term) for term in terms], dtype=torch.float64, device=device
        )
        self.shares: list[Tensor | None] = [
            self._table[row] if term.schedule or term.adapt else None
            for row, term in enumerate(terms)
        ]
        """Of each term; they change in place."""
        self._schedules = [
            (self._table[row], term.schedule) for row, term in enumerate(terms) if term.schedule
        ]
        self._adapts = [
            (row, term.adapt, str(term)) for row, term in enumerate(terms) if term.adapt
        ]
        self._names = {
            row: str(term) for row, term in enumerate(terms) if self.shares[row] is not None
        }
        self._sums = torch.zeros(len(terms), 2, dtype=torch.float64, device=device)

    def advance(self, step: int) -> None:
        """Follow the schedules, at a control step."""
        for share, schedule in self._schedules:
            share.fill_(scheduled(schedule, step * self._all_envs))

    def adapt(self, metrics: Mapping[str, Tensor], measured: Tensor) -> None:
        """Take measurements into account.

        Args:
            metrics: (num_envs,) each.
            measured: (num_envs,) bool: worlds for which they count.

        Raises:
            ConfigError: a term adapts to a metric that the task does not have.
        """
        for row, adapt, term in self._adapts:
            if adapt.metric not in metrics:
                raise ConfigError(
                    f"randomization: '{term}' adapts to the metric {adapt.metric!r}"
                    f"{did_you_mean(adapt.metric, metrics)}; this task measures {sorted(metrics)}"
                )
            values = metrics[adapt.metric].double()
            counts = measured & ~values.isnan()  # nan: the metric does not apply there
            found = torch.stack([torch.where(counts, values, 0).sum(), counts.sum()])
            self._sums[row] += self._share.sum(found)
            total, count = self._sums[row]
            decided = count >= adapt.samples
            share = adapted(adapt, self._table[row], total / count.clamp(min=1))
            self._table[row] = torch.where(decided, share, self._table[row])
            self._sums[row] = torch.where(decided, 0.0, self._sums[row])

    def report(self) -> dict[str, float]:
        """Share of each term that grows, by what it does."""
        shares = self._table.tolist()
        return {name: shares[row] for row, name in self._names.items()}

    def state_dict(self) -> dict[str, Any]:
        """Shares, and measurements not yet decided on."""
        return {"shares": self._table.clone(), "sums": self._sums.clone()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        self._table.copy_(state["shares"])
        self._sums.copy_(state["sums"])


def scheduled(schedule: Schedule, env_steps: float) -> float:
    """Share after a number of environment steps: a straight line, then 1."""
    progress = min(1.0, env_steps / schedule.over_steps)
    return schedule.start + (1 - schedule.start) * progress


def adapted(adapt: Adapt, share: Tensor, mean: Tensor) -> Tensor:
    """Share after a decision: one step up if the mean is good, one down if it is bad."""
    sign = 1 if adapt.good > adapt.bad else -1
    good, bad = sign * mean >= sign * adapt.good, sign * mean <= sign * adapt.bad
    return (share + adapt.step * (good.double() - bad.double())).clamp(0, 1)


def _start(term: RandomTerm) -> float:
    if term.schedule:
        return term.schedule.start
    return term.adapt.start if term.adapt else 1.0
