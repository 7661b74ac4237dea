"""Rules that learners are known to break, where no test of a single part holds them.

The others are held beside their parts: truncation and GAE in test_returns.py and test_ppo.py, the
squashed Gaussian in test_distributions.py, n-step targets in test_replay.py, statistics of seeds in
test_statistics.py.
"""

from typing import Any

import pytest
import torch
from torch import Tensor

import robotrl.algorithms.ppo
from envs.vector_env import Step, StepInfo
from robotrl.algorithms.ppo import PPO, PPOConfig
from robotrl.algorithms.replay import Replay
from robotrl.algorithms.sac import SAC, SACConfig


class Noise:
    """Observations and rewards that are noise around numbers far from 0; nothing ends."""

    def __init__(self, num_envs: int, size: int = 3, *, at: float = 0.0):
        self.num_envs, self._size, self._at = num_envs, size, at
        self._generator = torch.Generator().manual_seed(1)
        self.observation = self._draw()

    def step(self, action: Tensor) -> Step:
        reward = 5 + 20 * torch.randn(self.num_envs, generator=self._generator)
        self.observation = self._draw()
        never = torch.zeros(self.num_envs, dtype=torch.bool)
        return Step(
            self.observation, reward, never, never, StepInfo(self.observation, {}, {}, ~never)
        )

    def _draw(self) -> dict[str, Tensor]:
        x = self._at + torch.randn(self.num_envs, self._size, generator=self._generator)
        return {"actor": x, "critic": x}


def ppo(**settings: Any) -> PPO:
    small: dict[str, Any] = {"rollout_steps": 8, "epochs": 1, "actor_hidden": [8]}
    config = PPOConfig(**{**small, **settings})
    return PPO(config, {"actor": 3, "critic": 3}, 2, seed=0)


def sac(**settings: Any) -> SAC:
    small: dict[str, Any] = {
        "learning_starts": 8,
        "iteration_steps": 4,
        "batch_size": 32,
        "buffer_size": 64,
        "actor_hidden": [8],
        "critic_hidden": [8],
    }
    config = SACConfig(**{**small, **settings})
    return SAC(config, {"actor": 3, "critic": 3}, 2, seed=0)


def learn(learner: PPO | SAC, env: Noise, steps: int) -> None:
    for _ in range(steps):
        learner.learn(env.step(learner.act(env.observation)))


def test_advantages_are_normalised_over_the_whole_rollout_not_each_minibatch(
    monkeypatch: pytest.MonkeyPatch,
):
    formula, seen = robotrl.algorithms.ppo.surrogate, []

    def spy(*arguments: Any, **settings: Any) -> Any:
        seen.append(arguments[4].clone())
        return formula(*arguments, **settings)

    monkeypatch.setattr(robotrl.algorithms.ppo, "surrogate", spy)
    learn(ppo(minibatches=4), Noise(8), 8)

    assert [len(part) for part in seen] == [16] * 4
    together = torch.cat(seen)
    assert float(together.mean()) == pytest.approx(0, abs=1e-6)
    assert float(together.std(correction=0)) == pytest.approx(1, abs=1e-6)
    # a mean of 16 of them is off by 1/4 or so; normalised in parts all would be 0
    assert max(abs(float(part.mean())) for part in seen) > 0.05


def test_first_actions_of_ppo_have_the_configured_spread_around_the_middle():
    env = Noise(20_000)  # 4 standard deviations of a mean of 40,000: 0.02 · 0.8

    u = torch.atanh(ppo(initial_std=0.8).act(env.observation).double().clamp(-1 + 1e-7, 1 - 1e-7))

    assert float(u.std()) == pytest.approx(0.8, abs=0.02)
    assert float(u.mean()) == pytest.approx(0, abs=0.03)  # the last layer starts at a hundredth


@pytest.mark.parametrize(("learner", "eps"), [(ppo(), 1e-5), (sac(), 1e-8)], ids=["ppo", "sac"])
def test_adam_divides_by_what_is_usual_for_the_algorithm(learner: PPO | SAC, eps: float):
    for stepper in (learner._actor_step, learner._critic_step):
        before = stepper.vector.clone()

        stepper.step(torch.full_like(before, eps))

        # Adam's first step is rate · g / (|g| + eps), so half the rate where g is eps
        change = (before - stepper.vector) / learner.config.learning_rate
        assert change.mean().item() == pytest.approx(0.5, rel=0.01)


@pytest.mark.parametrize("alpha", [1.0, 0.001])
@pytest.mark.parametrize("target_std", [0.02, 0.8])
def test_logarithm_of_the_temperature_moves_at_a_speed_that_does_not_depend_on_it(
    alpha: float, target_std: float
):
    learner = sac(initial_alpha=alpha, target_std=target_std, learning_rate=1e-2)

    learn(learner, Noise(8), 2)  # 8 steps with uniform actions, then 8 with an update each

    # Adam's first steps are as long as its rate: 8 · 0.01, up where the policy (σ 0.2 at first) is
    # less random than it should be, down where it is more
    change = torch.log(learner.alpha / alpha)
    assert float(change) == pytest.approx(0.08 if target_std == 0.8 else -0.08, rel=0.05)


def test_what_is_remembered_is_normalised_when_it_is_learned_from_and_what_followed_alike():
    learner, batches = sac(), []
    update = learner.update
    learner.update = lambda batch: batches.append(batch) or update(batch)  # pyright: ignore
    env, seen = Noise(8, at=100.0), []

    for _ in range(6):
        seen.append(env.observation["actor"])
        learner.learn(env.step(learner.act(env.observation)))

    # statistics of six steps, but also for what was stored when there were fewer
    x = torch.cat(seen).double()
    mean, std = x.mean(dim=0), (x.var(dim=0, correction=0) + 1e-6).sqrt()
    known = ((torch.cat([*seen, env.observation["actor"]]) - mean) / std).float()
    for name in ("observation", "next_observation"):
        rows = getattr(batches[-1], name)["actor"]
        nearest = torch.cdist(rows, known, compute_mode="donot_use_mm_for_euclid_dist").amin(dim=1)
        assert float(nearest.max()) < 1e-3  # float32 around 100
        assert rows.abs().max() < 6


def test_million_steps_of_a_humanoid_take_less_than_one_and_a_half_gigabytes():
    replay = Replay(1000, num_envs=1, sizes={"actor": 348}, num_actions=17)

    bytes_ = sum(table.numel() * table.element_size() for table in replay._tables.values())

    # float32: one observation, an action, a reward; two flags and a place: 4 · 366 + 10
    assert bytes_ == 1000 * 1474
