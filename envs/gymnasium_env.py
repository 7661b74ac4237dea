"""Every task as a standard Gymnasium environment, registered when `envs` is imported.

    import gymnasium
    env = gymnasium.make("envs:robotrl/ArmReach-v0")    # or: import envs, and without the prefix
    many = gymnasium.make_vec("envs:robotrl/ArmReach-v0", num_envs=256)    # stepped in one batch
    env.unwrapped.columns                               # a name for each number of the observation

Gymnasium gave up finding plug-ins through package entry points in its version 1.0.
"""

import functools
from typing import Any

import gymnasium
import numpy as np
import torch
from gymnasium import spaces

from envs.registry import TASKS, make
from envs.vector_env import VectorEnv


class GymnasiumEnv(gymnasium.Env):
    """One world of a task; observations are the actor's.

    Args:
        task: name of the task.
        **settings: passed to `envs.make`, e.g. `randomization` or `task_config`. Without a `seed`
            every instance has its own.
    """

    metadata = {"render_modes": []}

    def __init__(self, task: str, **settings: Any):
        settings.setdefault("seed", int(self.np_random.integers(2**32)))
        self._make = functools.partial(make, task, num_envs=1, num_threads=1, **settings)
        self._env = self._make()
        self.observation_space, self.action_space = single_spaces(self._env)

    @property
    def columns(self) -> list[str]:
        """Name of each number of the observation."""
        return self._env.columns["actor"]

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """Start an episode; a seed starts the whole sequence of episodes again."""
        super().reset(seed=seed)
        if seed is not None:
            self._env = self._make(seed=seed)
        return self._env.reset()["actor"][0].cpu().numpy(), {}

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        """Advance one control step; after the end of an episode, `reset` has to start the next.

        Raises:
            ConfigError: contacts or constraints found no room on a GPU, so its physics was wrong.
        """
        batch = torch.as_tensor(action, dtype=torch.float32)[None]
        observation, reward, terminated, truncated, info = self._env.step(batch, autoreset=False)
        self._env.simulation.check()
        rewards = {name: float(value[0]) for name, value in info.rewards.items()}
        return (
            observation["actor"][0].cpu().numpy(),
            float(reward[0]),
            bool(terminated[0]),
            bool(truncated[0]),
            {"rewards": rewards},
        )


def single_spaces(env: VectorEnv) -> tuple[spaces.Box, spaces.Box]:
    """Of one world's observations, physical quantities without bounds, and of its actions."""
    return (
        spaces.Box(-np.inf, np.inf, (env.observation_sizes["actor"],), np.float32),
        spaces.Box(-1, 1, (env.num_actions,), np.float32),
    )


for _task in TASKS:
    gymnasium.register(
        id=f"robotrl/{_task.title().replace('_', '')}-v0",
        entry_point="envs.gymnasium_env:GymnasiumEnv",
        vector_entry_point="envs.gymnasium_vector_env:GymnasiumVectorEnv",
        kwargs={"task": _task},
    )
