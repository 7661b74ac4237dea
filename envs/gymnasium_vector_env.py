"""All worlds of a task as one Gymnasium vector environment: what `gymnasium.make_vec` makes.

    import envs, gymnasium
    env = gymnasium.make_vec("robotrl/ArmReach-v0", num_envs=256, autoreset_mode="SameStep")
    observation, info = env.reset(seed=0)               # (256, n) float32
    observation, reward, terminated, truncated, info = env.step(action)

What is returned is what Gymnasium's own `SyncVectorEnv` of single environments would return, in
each autoreset mode (https://farama.org/Vector-Autoreset-Mode); a test compares the two:
- NEXT_STEP: the observation of the step that ends an episode is its last one. The next step
  ignores that world's action, gives no reward and returns the first observation of the new episode.
- SAME_STEP: the world starts anew at once; `info["final_obs"]` and `info["final_info"]` hold the
  end of the old episode.
- DISABLED: `reset(options={"reset_mask": mask})` starts the worlds of a mask.
Observations share memory with torch where that is on the CPU, and belong to the caller.
"""

import functools
from typing import Any

import gymnasium
import numpy as np
import torch
from gymnasium.error import ClosedEnvironmentError
from gymnasium.vector import AutoresetMode
from gymnasium.vector.utils import batch_space
from torch import Tensor

from deploy.configuration import did_you_mean
from deploy.errors import ConfigError
from envs.gymnasium_env import single_spaces
from envs.registry import make


class GymnasiumVectorEnv(gymnasium.vector.VectorEnv):
    """See the module docstring.

    Args:
        task: name of the task.
        num_envs: number of worlds.
        autoreset_mode: when worlds that end start anew: a mode, or its name such as `SameStep`.
        **settings: passed to `envs.make`, e.g. `device` or `randomization`. Without a `seed` every
            instance has its own.

    Raises:
        ConfigError: an unknown mode, or what `envs.make` refuses.
    """

    def __init__(
        self,
        task: str,
        num_envs: int = 1,
        autoreset_mode: AutoresetMode | str = AutoresetMode.NEXT_STEP,
        **settings: Any,
    ):
        self.autoreset_mode = _find_mode(autoreset_mode)
        self.metadata = {"render_modes": [], "autoreset_mode": self.autoreset_mode}
        self._seed: int = settings.pop("seed", int(self.np_random.integers(2**32)))
        self._make = functools.partial(make, task, num_envs=num_envs, **settings)
        self._env = self._make(seed=self._seed)
        self.num_envs = num_envs
        self.single_observation_space, self.single_action_space = single_spaces(self._env)
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)
        self._latest: dict[str, Tensor] = {}

    @property
    def columns(self) -> list[str]:
        """Name of each number of one world's observation."""
        return self._env.columns["actor"]

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """Start an episode in every world, or in those of a mask.

        Args:
            seed: one number for all worlds, which differ; starts the whole sequence of episodes
                again.
            options: `reset_mask`, (num_envs,) bool, says where; everywhere without.

        Raises:
            TypeError, ValueError: the mask is none, chooses no world, or comes with a seed.
        """
        self._require_open()
        super().reset(seed=seed)
        mask = (options or {}).get("reset_mask")
        if mask is not None:
            _check_mask(mask, self.num_envs)
            if seed is not None:
                raise ValueError(
                    f"seed {seed} with a `reset_mask`: a seed is for all worlds together; reset "
                    "them all, or leave the seed out"
                )
            where = torch.from_numpy(mask).to(self._env.device)
            return self._give(self._env.restart(where, self._latest)), {}
        if seed is not None:
            del self._env  # first: on a GPU there may be no room for two
            self._seed, self._env = seed, self._make(seed=seed)
        return self._give(self._env.reset()), {}

    def step(
        self, actions: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]:
        """Advance one control step.

        Args:
            actions: (num_envs, n), each in [-1, 1].

        Returns:
            Observations (num_envs, ...) float32, rewards (num_envs,) float64, `terminated` and
            `truncated` (num_envs,) bool, and the information.

        Raises:
            RuntimeError: no episode was started, or one has ended and none was started since.
            ValueError: an action is not a number, or there is not one for each world.
            ConfigError: contacts or constraints found no room on a GPU, so its physics was wrong.
        """
        self._require_open()
        env, mode = self._env, self.autoreset_mode
        over = env.over
        waiting = _to_numpy(over)
        if mode is AutoresetMode.DISABLED and waiting.any():
            raise RuntimeError(
                f"the episodes of worlds {np.flatnonzero(waiting).tolist()} have ended, and in "
                "autoreset mode Disabled nothing starts the next ones; call "
                'reset(options={"reset_mask": terminated | truncated})'
            )
        action = torch.as_tensor(actions, dtype=torch.float32, device=env.device)
        step = env.step(action, autoreset=mode is AutoresetMode.SAME_STEP)
        env.simulation.check()
        observation = step.observation
        if waiting.any():
            observation = env.restart(over, observation)

        terminated, truncated = _to_numpy(step.terminated), _to_numpy(step.truncated)
        rewards = {name: _to_float64(value) for name, value in step.info.rewards.items()}
        if mode is AutoresetMode.SAME_STEP:
            done = terminated | truncated
            infos = _batch_info(rewards, ~done)
            if done.any():
                final = _to_numpy(step.info.final_observation["actor"])
                infos["final_obs"] = np.full(self.num_envs, None, dtype=object)
                for world in np.flatnonzero(done):
                    infos["final_obs"][world] = final[world]
                infos |= {"_final_obs": done}
                infos |= {"final_info": _batch_info(rewards, done), "_final_info": done}
        else:
            infos = _batch_info(rewards, ~waiting)
        return self._give(observation), _to_float64(step.reward), terminated, truncated, infos

    def close_extras(self, **kwargs: Any) -> None:
        """Let go of the simulation."""
        del self._env

    def state_dict(self) -> dict[str, Any]:
        """Everything needed to continue with the same bits, worlds that wait for a reset included.

        Tensors, numbers and dicts: `torch.save` it, and load it with `weights_only=True`.
        """
        self._require_open()
        latest = {name: value.clone() for name, value in self._latest.items()}
        return {"seed": self._seed, "env": self._env.state_dict(), "latest": latest}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` of an environment made the same way returned."""
        self._require_open()
        if state["seed"] != self._seed:
            del self._env
            self._seed, self._env = state["seed"], self._make(seed=state["seed"])
        self._env.load_state_dict(state["env"])
        self._latest = {name: value.clone() for name, value in state["latest"].items()}

    def _give(self, observation: dict[str, Tensor]) -> np.ndarray:
        """Keep the latest observation for a reset of some worlds, and return it as an array."""
        self._latest = {"actor": observation["actor"].clone()}
        return _to_numpy(observation["actor"])

    def _require_open(self) -> None:
        if self.closed:
            raise ClosedEnvironmentError("this environment is closed; make another")


def _find_mode(mode: AutoresetMode | str) -> AutoresetMode:
    try:
        return AutoresetMode(mode)
    except ValueError:
        names = [mode.value for mode in AutoresetMode]
        raise ConfigError(
            f"unknown autoreset_mode {mode!r}{did_you_mean(str(mode), names)}; there are "
            f"{', '.join(names)}"
        ) from None


def _check_mask(mask: Any, num_envs: int) -> None:
    """The checks and exceptions of Gymnasium's own vector environments."""
    if not isinstance(mask, np.ndarray) or mask.dtype != np.bool_:
        found = f"dtype {mask.dtype}" if isinstance(mask, np.ndarray) else type(mask).__name__
        raise TypeError(
            f"`reset_mask` must be a numpy array of bool, found {found}; "
            "e.g. terminated | truncated"
        )
    if mask.shape != (num_envs,):
        raise ValueError(f"`reset_mask` must have shape ({num_envs},), found {mask.shape}")
    if not mask.any():
        raise ValueError(
            "`reset_mask` chooses no world; call reset only where `(terminated | truncated).any()`"
        )


def _batch_info(rewards: dict[str, np.ndarray], mask: np.ndarray) -> dict[str, Any]:
    """Reward terms in Gymnasium's layout: zero where `mask` is false, the mask beside each."""
    if not mask.any():
        return {}
    terms: dict[str, np.ndarray] = {}
    for name, values in rewards.items():
        terms |= {name: np.where(mask, values, 0.0), f"_{name}": mask}
    return {"rewards": terms, "_rewards": mask}


def _to_numpy(values: Tensor) -> np.ndarray:
    return values.cpu().numpy()


def _to_float64(values: Tensor) -> np.ndarray:
    return values.cpu().numpy().astype(np.float64)
