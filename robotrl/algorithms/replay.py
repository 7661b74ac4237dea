"""What happened, kept for learning again: a ring over time for every world, in float32.

    replay = Replay(1_000_000, num_envs=8, sizes={"actor": 17, "critic": 17}, num_actions=6)
    replay.start(observation)                  # of a run; later ones come with the steps
    replay.add(action, step)
    batch = replay.sample(256, n_step=3, gamma=0.99, generator=generator)

An observation is stored once: what followed a step is the next row of the same world. Only where
an episode ended the next row begins another; its last observation lies in a side table. Rewards of
n steps add up to the end of the episode or of what is known, and the bootstrap is discounted by the
steps that were really made: a terminated one has none, a truncated one has that of its last
observation (the rule of SB3's n-step buffer).
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from deploy.errors import ConfigError
from envs.vector_env import Step

FINALS = 64
"""Rows of the side table at the start."""


class Batch(NamedTuple):
    """Transitions, (n, ...) each; observations as they came."""

    observation: dict[str, Tensor]
    action: Tensor
    reward: Tensor
    """Σ γᵏ r of the steps that were made."""
    next_observation: dict[str, Tensor]
    discount: Tensor
    """What the value of `next_observation` counts: γ to the number of steps, 0 if terminated."""


def require_room(size: int, num_envs: int) -> None:
    """Refuse a replay that is too small for its worlds.

    Raises:
        ConfigError: says how small.
    """
    if (rows := size // num_envs) < 3:  # one row waits for what follows
        raise ConfigError(
            f"algorithm.buffer_size: room for {size} steps of {num_envs} worlds is {rows} of each; "
            "expected 3 or more: raise it, or lower num_envs"
        )


class Replay:
    """See the module docstring.

    Args:
        size: transitions of all worlds together; memory is taken as it fills.
        num_envs: number of worlds.
        sizes: of the observations that are kept, by name.
        num_actions: size of the action.
        device: where it lies.

    Raises:
        ConfigError: there is no room for two steps of every world, or not so much memory.
    """

    def __init__(
        self,
        size: int,
        *,
        num_envs: int,
        sizes: Mapping[str, int],
        num_actions: int,
        device: torch.device | str = "cpu",
    ):
        require_room(size, num_envs)
        self._rows, self._num_envs = size // num_envs, num_envs

        def table(*columns: int, dtype: type = np.float32) -> Tensor:
            # NumPy's zeros take no memory before they are written, torch's do
            return torch.from_numpy(np.zeros((self._rows, num_envs, *columns), dtype)).to(device)

        try:
            self._tables = {f"observation/{name}": table(size) for name, size in sizes.items()} | {
                "action": table(num_actions),
                "reward": table(),
                "terminated": table(dtype=np.bool_),
                "ended": table(dtype=np.bool_),
                "final": table(dtype=np.int64),
            }
        except (MemoryError, RuntimeError) as error:  # of the host; of a GPU
            raise ConfigError(
                f"algorithm.buffer_size: {size} steps of {sum(sizes.values())} observed numbers "
                f"({error}) are more than this machine has memory for; lower it"
            ) from error
        self._finals = {
            name: torch.zeros(FINALS, width, device=device) for name, width in sizes.items()
        }
        self._free = list(reversed(range(FINALS)))
        self._head = self._stored = 0

    def __len__(self) -> int:
        """Transitions that can be sampled."""
        return self._stored * self._num_envs

    def start(self, observation: Mapping[str, Tensor]) -> None:
        """Keep the observations (num_envs, ...) that the next actions answer."""
        for name in self._finals:
            self._tables[f"observation/{name}"][self._head] = observation[name]

    def add(self, action: Tensor, step: Step) -> None:
        """Keep actions (num_envs, actions) and what followed them."""
        row, ended = self._head, step.terminated | step.truncated
        if self._stored == self._rows - 1:  # the oldest transition makes room for what follows
            oldest = (row + 1) % self._rows
            self._free += self._tables["final"][oldest][self._tables["ended"][oldest]].tolist()
        else:
            self._stored += 1
        values = {
            "action": action,
            "reward": step.reward,
            "terminated": step.terminated,
            "ended": ended,
        }
        for name, value in values.items():
            self._tables[name][row] = value
        worlds = ended.nonzero().squeeze(-1)
        if len(worlds):
            places = self._places(len(worlds))
            self._tables["final"][row, worlds] = places
            for name, table in self._finals.items():
                table[places] = step.info.final_observation[name][worlds]
        self._head = (row + 1) % self._rows
        self.start(step.observation)

    def sample(self, size: int, *, n_step: int, gamma: float, generator: torch.Generator) -> Batch:
        """Draw transitions, all equally likely.

        Args:
            size: how many.
            n_step: most steps from an observation to its next.
            gamma: discount factor.
            generator: source of chance, on the same device.
        """
        worlds, places = self._num_envs, self._rows * self._num_envs
        flat = {name: table.flatten(0, 1) for name, table in self._tables.items()}
        oldest = (self._head - self._stored) % self._rows * worlds
        pick = torch.randint(len(self), (size,), generator=generator, device=generator.device)
        first = last = (pick + oldest) % places
        reward, goes_on = flat["reward"][first], ~flat["ended"][first]
        made = torch.ones_like(reward)
        for step in range(1, n_step):
            goes_on = goes_on & (pick + step * worlds < len(self))
            last = torch.where(goes_on, (last + worlds) % places, last)
            reward = reward + gamma**step * goes_on * flat["reward"][last]
            made = made + goes_on
            goes_on = goes_on & ~flat["ended"][last]
        ended, final = flat["ended"][last, None], flat["final"][last]
        following = (last + worlds) % places
        next_observation = {
            name: torch.where(ended, finals[final], flat[f"observation/{name}"][following])
            for name, finals in self._finals.items()
        }
        return Batch(
            {name: flat[f"observation/{name}"][first] for name in self._finals},
            flat["action"][first],
            reward,
            next_observation,
            (gamma**made).masked_fill(flat["terminated"][last], 0),
        )

    def state_dict(self) -> dict[str, Any]:
        """What is stored, without the room that is left."""
        rows = self._rows if self._stored == self._rows - 1 else self._head + 1
        return {
            "tables": {name: table[:rows].clone() for name, table in self._tables.items()},
            "finals": {name: table.clone() for name, table in self._finals.items()},
            "free": list(self._free),
            "head": self._head,
            "stored": self._stored,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        for name, table in state["tables"].items():
            self._tables[name][: len(table)] = table
        for name, table in state["finals"].items():
            self._finals[name] = table.to(self._finals[name].device, copy=True)
        self._free = list(state["free"])
        self._head, self._stored = state["head"], state["stored"]

    def _places(self, count: int) -> Tensor:
        """Rows of the side table that are free, which grows as it must."""
        known = len(next(iter(self._finals.values())))
        if count > len(self._free):
            more = max(count, known)
            self._free += range(known + more - 1, known - 1, -1)
            for name, table in self._finals.items():
                self._finals[name] = torch.cat([table, table.new_zeros(more, table.shape[1])])
        taken, self._free = self._free[-count:], self._free[:-count]
        return torch.tensor(taken, device=next(iter(self._finals.values())).device)
