"""Bias and noise on what the controller senses: the signal terms of a randomization."""

from collections.abc import Sequence

import torch
from torch import Tensor

from deploy.configuration import did_you_mean
from deploy.errors import ConfigError
from envs.draws import Draws, Stream
from envs.randomization.term import Term, matching_rows, name_streams


class SignalNoise:
    """Bias and noise on the signals the controller sees.

    Args:
        terms: signal terms; others are ignored.
        elements: element names of each signal.
        draws: the run's random numbers.
        env_ids: (num_envs,) ids of all worlds.

    Raises:
        ConfigError: an unknown signal or a pattern without a match.
    """

    _BLOCK = 16  # steps of noise made at once: the generator costs the same for 1 as for 16

    def __init__(
        self,
        terms: Sequence[Term],
        elements: dict[str, list[str]],
        draws: Draws,
        env_ids: Tensor,
    ):
        self._draws = draws
        self._env_ids = env_ids
        self._terms = []
        for name, term in name_streams(terms):
            if term.signal is None:
                continue
            if term.signal not in elements:
                hint = did_you_mean(term.signal, elements)
                raise ConfigError(
                    f"randomization: unknown signal {term.signal!r}{hint}; "
                    f"this task has {sorted(elements)}"
                )
            columns = matching_rows(term, elements[term.signal])
            stream = Stream(name, 1 if term.shared else len(columns))
            self._terms.append((term, torch.tensor(columns), stream))
        self._steps = [entry for entry in self._terms if entry[0].when == "step"]
        self._firsts = [Stream(f"{name}/first", size) for *_, (name, size) in self._steps]
        self._resets = [entry for entry in self._terms if entry[0].when == "reset"]
        self._biases = [torch.zeros(len(env_ids), len(columns)) for _, columns, _ in self._resets]
        self._noise: list[Tensor] = []
        self._block_start = -self._BLOCK

    def draw(self, ids: Tensor, episode: Tensor) -> None:
        """Draw the biases of worlds `ids` (n,) for their `episode` (n,)."""
        if self._resets:
            uniforms = self._draws.uniform([stream for *_, stream in self._resets], ids, episode)
            for (term, *_), bias, uniform in zip(self._resets, self._biases, uniforms, strict=True):
                bias[ids] = term.transform(uniform).expand(len(ids), bias.shape[1])

    def apply(
        self, signals: dict[str, Tensor], ids: Tensor, step: int, starting: Tensor | None = None
    ) -> None:
        """Change `signals` of worlds `ids` in place as this step's draws say.

        Args:
            signals: (n, elements) each.
            ids: (n,) worlds.
            step: control steps since the environment was made.
            starting: (n,) episodes, if these are their first signals: an episode ends and the next
                one starts in the same step, and their noise must differ.
        """
        for (term, columns, _), bias in zip(self._resets, self._biases, strict=True):
            signal = signals[term.target]
            signal[:, columns] = term.apply(signal[:, columns], bias[ids])
        if self._steps:
            if starting is None:
                noises = [noise[step - self._block_start, ids] for noise in self._block(step)]
            else:
                uniforms = self._draws.uniform(self._firsts, ids, starting)
                noises = [
                    term.transform(uniform)
                    for (term, *_), uniform in zip(self._steps, uniforms, strict=True)
                ]
            for (term, columns, _), noise in zip(self._steps, noises, strict=True):
                signal = signals[term.target]
                signal[:, columns] = term.apply(signal[:, columns], noise)

    def state_dict(self) -> list[Tensor]:
        """The biases of the running episodes; noise is a function of the step."""
        return [bias.clone() for bias in self._biases]

    def load_state_dict(self, state: list[Tensor]) -> None:
        """Restore what `state_dict` returned."""
        for bias, saved in zip(self._biases, state, strict=True):
            bias.copy_(saved)

    def _block(self, step: int) -> list[Tensor]:
        """Noise (block, num_envs, columns) of every step term around `step`."""
        first = step - step % self._BLOCK
        if first != self._block_start:
            self._block_start = first
            steps = torch.arange(first, first + self._BLOCK).repeat_interleave(len(self._env_ids))
            env = self._env_ids.repeat(self._BLOCK)
            uniforms = self._draws.uniform([stream for *_, stream in self._steps], env, steps)
            self._noise = [
                term.transform(uniform).unflatten(0, (self._BLOCK, -1))
                for (term, *_), uniform in zip(self._steps, uniforms, strict=True)
            ]
        return self._noise
