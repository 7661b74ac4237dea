"""A Gymnasium vector environment for Stable-Baselines3 (`pip install stable-baselines3`).

    env = gymnasium.make_vec("envs:robotrl/ArmReach-v0", num_envs=64, autoreset_mode="SameStep")
    model = stable_baselines3.PPO("MlpPolicy", VecMonitor(SB3VecEnv(env)))

Stable-Baselines3 has its own kind of vector environment: worlds that end start anew at once, `info`
is one dict for each world, with the last observation of an episode as `terminal_observation` and
whether it ended by its time limit as `TimeLimit.truncated` (from which its algorithms bootstrap).
All worlds are one object here, so attributes and methods are theirs together.
"""

import importlib.util
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import gymnasium
import numpy as np
from gymnasium.vector import AutoresetMode

from deploy.errors import ConfigError

if TYPE_CHECKING or importlib.util.find_spec("stable_baselines3"):
    from stable_baselines3.common.vec_env.base_vec_env import VecEnv
else:
    VecEnv = object


class SB3VecEnv(VecEnv):
    """See the module docstring.

    Args:
        env: the vector environment, in autoreset mode SAME_STEP.

    Raises:
        ConfigError: Stable-Baselines3 is not installed, or the environment has another mode.
    """

    def __init__(self, env: gymnasium.vector.VectorEnv):
        if VecEnv is object:
            raise ConfigError(
                "SB3VecEnv is an environment for Stable-Baselines3, which is not installed; "
                "pip install stable-baselines3"
            )
        mode = env.metadata.get("autoreset_mode")
        if mode is not AutoresetMode.SAME_STEP:
            raise ConfigError(
                f"autoreset_mode is {getattr(mode, 'value', mode)}; Stable-Baselines3 expects "
                "worlds that start anew at once: make the environment with "
                'autoreset_mode="SameStep"'
            )
        self.env = env
        super().__init__(env.num_envs, env.single_observation_space, env.single_action_space)

    def reset(self) -> np.ndarray:
        """Start an episode in every world, with the seed and the options set before, if any."""
        observation, infos = self.env.reset(seed=self._seeds[0], options=self._options[0] or None)
        self.reset_infos = _split(infos, self.num_envs)
        self._reset_seeds()
        self._reset_options()
        return observation

    def step_async(self, actions: np.ndarray) -> None:
        """Take the actions of the next `step_wait`."""
        self._actions = actions

    def step_wait(self) -> tuple[np.ndarray, np.ndarray, np.ndarray, list[dict[str, Any]]]:
        """Advance one control step: observations, rewards (float32), ends, information."""
        observation, reward, terminated, truncated, batch = self.env.step(self._actions)
        done = terminated | truncated
        infos = _split(batch, self.num_envs)
        for world in np.flatnonzero(done):
            first = infos[world]
            last, terminal = first.pop("final_info", {}), first.pop("final_obs")
            self.reset_infos[world] = first
            infos[world] = first | last | {"terminal_observation": terminal}
        for info, at_limit in zip(infos, (truncated & ~terminated).tolist(), strict=True):
            info["TimeLimit.truncated"] = at_limit
        return observation, reward.astype(np.float32), done, infos

    def close(self) -> None:
        """Close the environment."""
        self.env.close()

    def get_attr(self, attr_name: str, indices: int | Iterable[int] | None = None) -> list[Any]:
        """The environment's attribute, as often as worlds are asked for."""
        value = getattr(self.env.unwrapped, attr_name)
        return [value for _ in self._get_indices(indices)]

    def set_attr(
        self, attr_name: str, value: Any, indices: int | Iterable[int] | None = None
    ) -> None:
        """Set the environment's attribute.

        Raises:
            ValueError: for some worlds only.
        """
        self._require_all(attr_name, indices)
        setattr(self.env.unwrapped, attr_name, value)

    def env_method(
        self,
        method_name: str,
        *method_args: Any,
        indices: int | Iterable[int] | None = None,
        **method_kwargs: Any,
    ) -> list[Any]:
        """Call the environment's method once; returns its result for each world.

        Raises:
            ValueError: for some worlds only.
        """
        self._require_all(method_name, indices)
        result = getattr(self.env.unwrapped, method_name)(*method_args, **method_kwargs)
        return [result] * self.num_envs

    def env_is_wrapped(
        self, wrapper_class: type, indices: int | Iterable[int] | None = None
    ) -> list[bool]:
        """Whether the environment wears this wrapper, as often as worlds are asked for."""
        layer: Any = self.env
        while not (wrapped := isinstance(layer, wrapper_class)) and layer is not layer.unwrapped:
            layer = layer.env
        return [wrapped for _ in self._get_indices(indices)]

    def _require_all(self, name: str, indices: int | Iterable[int] | None) -> None:
        if sorted(self._get_indices(indices)) != list(range(self.num_envs)):
            raise ValueError(
                f"{name!r} for worlds {indices}: all {self.num_envs} worlds are one object with "
                "one set of attributes and methods; leave `indices` out"
            )


def _split(infos: dict[str, Any], num_envs: int) -> list[dict[str, Any]]:
    """Gymnasium's dict of arrays, with masks under names that begin with `_`, by world."""
    rows: list[dict[str, Any]] = [{} for _ in range(num_envs)]
    for name, values in infos.items():
        if name.startswith("_"):
            continue
        mask = infos.get(f"_{name}")
        for world, value in enumerate(_by_world(values, num_envs)):
            if mask is None or mask[world]:
                rows[world][name] = value
    return rows


def _by_world(values: Any, num_envs: int) -> Sequence[Any]:
    if isinstance(values, dict):
        return _split(values, num_envs)
    return values.tolist() if values.ndim == 1 else values
