"""Every task as a standard Gymnasium environment, registered when `envs` is imported.

    import gymnasium
    env = gymnasium.make("envs:robotrl/ArmReach-v0")    # or: import envs, and without the prefix

Gymnasium gave up finding plug-ins through package entry points in its version 1.0.
"""

import functools
from typing import Any

import gymnasium
import numpy as np
import torch
from gymnasium import spaces

from envs.registry import make


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
        size = self._env.observation_sizes["actor"]
        self.observation_space = spaces.Box(-np.inf, np.inf, (size,), np.float32)
        self.action_space = spaces.Box(-1, 1, (self._env.num_actions,), np.float32)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """Start an episode; a seed starts the whole sequence of episodes again."""
        super().reset(seed=seed)
        if seed is not None:
            self._env = self._make(seed=seed)
        return self._env.reset()["actor"][0].numpy(), {}

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        """Advance one control step."""
        batch = torch.as_tensor(action, dtype=torch.float32)[None]
        _, reward, terminated, truncated, info = self._env.step(batch)
        rewards = {name: float(value[0]) for name, value in info.rewards.items()}
        return (
            info.final_observation["actor"][0].numpy(),
            float(reward[0]),
            bool(terminated[0]),
            bool(truncated[0]),
            {"rewards": rewards},
        )


gymnasium.register(id="robotrl/ArmReach-v0", entry_point=GymnasiumEnv, kwargs={"task": "arm_reach"})
