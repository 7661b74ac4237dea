"""Whole episodes: their returns and lengths, in training as they end, in evaluation on purpose.

    evaluation = Evaluation(make_test_env(config, num_envs=16, seed=...), policy)
    found = evaluation.run(learner.policy.state_dict())        # {"return": ..., "length": ...}

A return is the plain sum of rewards, as Gymnasium's own statistics count it. Evaluation plays one
episode in each of its own worlds, without noise in the actions, always the same episodes: what
differs from one time to the next is the policy. It draws from no random numbers of the training,
which gives the same bits with it as without.
"""

import math
from typing import Any

import torch
from torch import Tensor

from envs.vector_env import Step, VectorEnv
from robotrl.algorithms import parallel
from robotrl.algorithms.policy import Agent, Policy


class Episodes:
    """Return and length of the episodes that end while training.

    Args:
        env: the worlds. Episodes that have begun before (`reset(stagger=True)`) are not counted.
    """

    def __init__(self, env: VectorEnv):
        self._state = {
            "whole": env.episode_step == 0,
            "return": torch.zeros(env.num_envs, device=env.device),
            "length": torch.zeros(env.num_envs, device=env.device),
        }
        self._ended: list[tuple[Tensor, Tensor]] = []

    def add(self, step: Step) -> None:
        """Take in a step of all worlds."""
        state, done = self._state, step.terminated | step.truncated
        returns, lengths = state["return"] + step.reward, state["length"] + 1
        silent = ~(done & state["whole"])
        self._ended.append(
            (returns.masked_fill(silent, math.nan), lengths.masked_fill(silent, math.nan))
        )
        self._state = {
            "whole": state["whole"] | done,
            "return": returns.masked_fill(done, 0),
            "length": lengths.masked_fill(done, 0),
        }

    def metrics(self) -> dict[str, float]:
        """Means over the episodes that ended since the last call, in any process; or nan."""
        returns, lengths = (torch.stack(values) for values in zip(*self._ended, strict=True))
        self._ended = []
        return parallel.means({"episode/return": returns, "episode/length": lengths})

    def state_dict(self) -> dict[str, Tensor]:
        """What the episodes that go on have come to."""
        return dict(self._state)

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Restore what `state_dict` returned."""
        device = self._state["return"].device
        self._state = {name: value.to(device) for name, value in state.items()}


class Evaluation:
    """See the module docstring.

    Args:
        env: worlds of its own, one for each episode, on the CPU.
        policy: what acts in them; its weights come with each `run`.
    """

    def __init__(self, env: VectorEnv, policy: Policy):
        self._env, self._policy = env, policy.eval()
        self._observation = env.reset()
        self._start = env.state_dict()

    @torch.no_grad()
    def run(self, weights: dict[str, Any]) -> dict[str, float]:
        """Play one episode in every world.

        Returns:
            Means over episodes of `return` and `length`, and over all that was measured of the
            task's own metrics.
        """
        self._policy.load_state_dict(weights)
        env, observation = self._env, self._observation
        agent = Agent(self._policy, env.num_envs)
        env.load_state_dict(self._start)
        returns, lengths = torch.zeros(env.num_envs), torch.zeros(env.num_envs)
        metrics: dict[str, list[Tensor]] = {}
        while not env.over.all():
            lengths += ~env.over
            step = env.step(agent.act(observation["actor"]), autoreset=False)
            observation = step.observation
            returns += step.reward
            for name, values in step.info.metrics.items():
                metrics.setdefault(name, []).append(values[step.info.measured])
        return {
            "return": float(returns.mean()),
            "length": float(lengths.mean()),
            **{name: float(torch.cat(parts).nanmean()) for name, parts in metrics.items()},
        }
