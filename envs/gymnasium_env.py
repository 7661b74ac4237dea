"""Every task as a standard Gymnasium environment, registered when `envs` is imported.

    import gymnasium
    env = gymnasium.make("envs:robotrl/ArmReach-v0")    # or: import envs, and without the prefix
    many = gymnasium.make_vec("envs:robotrl/ArmReach-v0", num_envs=256)    # stepped in one batch
    env.unwrapped.columns                               # a name for each number of the observation

`render_mode="rgb_array"` gives pictures (`envs.render`), "human" shows the world on a web page, at
its own speed (`envs.viewer`).

Gymnasium gave up finding plug-ins through package entry points in its version 1.0.
"""

import functools
from typing import TYPE_CHECKING, Any

import gymnasium
import numpy as np
import torch
from gymnasium import spaces

from deploy.configuration import did_you_mean
from deploy.errors import ConfigError
from envs.registry import TASKS, make
from envs.render import Renderer, look_at
from envs.vector_env import VectorEnv

if TYPE_CHECKING:
    from envs.viewer import LiveView


class GymnasiumEnv(gymnasium.Env):
    """One world of a task; observations are the actor's.

    Args:
        task: name of the task.
        render_mode: `rgb_array`, `human`, or None for no pictures.
        **settings: passed to `envs.make`, e.g. `randomization` or `task_config`. Without a `seed`
            every instance has its own.
    """

    metadata = {"render_modes": ["human", "rgb_array"]}

    def __init__(self, task: str, render_mode: str | None = None, **settings: Any):
        if render_mode not in (None, *self.metadata["render_modes"]):
            raise ConfigError(
                f"render_mode must be one of {self.metadata['render_modes']} or None, found "
                f"{render_mode!r}{did_you_mean(render_mode, self.metadata['render_modes'])}"
            )
        self.render_mode = render_mode
        settings.setdefault("seed", int(self.np_random.integers(2**32)))
        self._make = functools.partial(make, task, num_envs=1, num_threads=1, **settings)
        self._env = self._make()
        self.observation_space, self.action_space = single_spaces(self._env)
        control_dt_s = self._env.task.control_dt_s
        self.metadata = self.metadata | {"render_fps": round(1 / control_dt_s)}
        self._pictures: Renderer | None = None
        self._live: LiveView | None = None

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
        observation = self._env.reset()["actor"][0].cpu().numpy()
        self._show()
        return observation, {}

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        """Advance one control step; after the end of an episode, `reset` has to start the next.

        Raises:
            ConfigError: contacts or constraints found no room on a GPU, so its physics was wrong.
        """
        batch = torch.as_tensor(action, dtype=torch.float32)[None]
        observation, reward, terminated, truncated, info = self._env.step(batch, autoreset=False)
        self._env.simulation.check()
        rewards = {name: float(value[0]) for name, value in info.rewards.items()}
        self._show()
        return (
            observation["actor"][0].cpu().numpy(),
            float(reward[0]),
            bool(terminated[0]),
            bool(truncated[0]),
            {"rewards": rewards},
        )

    def render(self) -> np.ndarray | None:
        """The world now, (height, width, 3) uint8, if `render_mode` is `rgb_array`.

        Raises:
            ConfigError: there is no OpenGL on this machine.
        """
        if self.render_mode != "rgb_array":
            self._show()
            return None
        if self._pictures is None:
            self._pictures = Renderer(self._env.simulation.model)
        return self._pictures.render(look_at(self._env.simulation))

    def close(self) -> None:
        """Close the viewer, and give OpenGL back."""
        for opened in (self._pictures, self._live):
            if opened is not None:
                opened.close()
        self._pictures = self._live = None

    def _show(self) -> None:
        """Let people see the world, in render mode `human`."""
        if self.render_mode != "human":
            return
        if self._live is None:
            from envs.viewer import LiveView  # its libraries are large

            title = self.spec.id if self.spec else "robotrl"
            self._live = LiveView(self._env.simulation, self._env.task.control_dt_s, title)
        self._live.show(self._env.simulation)


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
