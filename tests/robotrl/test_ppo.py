"""PPO on toy environments small enough to know the right answer."""

import copy
import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from robotrl.ppo import PPO, PPOConfig, VectorEnv

Step = tuple[dict[str, Tensor], Tensor, Tensor, Tensor, dict[str, Any]]


class Bandit:
    """Each step is an episode: see x in {-1, 1}, earn -(action - x/2)² + bonus · x."""

    num_envs = 64

    def __init__(self, *, bonus: float = 0.0):
        self._bonus = bonus
        self._generator = torch.Generator().manual_seed(0)
        self.observation = self._draw()

    def step(self, action: Tensor) -> Step:
        x = self.observation["actor"][:, 0]
        reward = -(action[:, 0] - x / 2).square() + self._bonus * x
        self.observation = self._draw()
        everywhere = torch.ones(self.num_envs, dtype=torch.bool)
        return self.observation, reward, everywhere, ~everywhere, ended(self.observation["critic"])

    def _draw(self) -> dict[str, Tensor]:
        x = torch.randint(0, 2, (self.num_envs, 1), generator=self._generator) * 2.0 - 1
        return {"actor": x, "critic": x.clone()}


class OneStepEpisodes:
    """Every episode starts at observation 0 and ends one step later at observation 5, reward 1."""

    num_envs = 2

    def __init__(self, *, terminates: bool):
        self._terminated = torch.full((2,), terminates)
        self.observation = {"actor": torch.zeros(2, 1), "critic": torch.zeros(2, 1)}

    def step(self, action: Tensor) -> Step:
        final = torch.full((2, 1), 5.0)
        return (
            self.observation,
            torch.ones(2),
            self._terminated,
            ~self._terminated,
            ended(final),
        )


class Walk:
    """Observations are random, rewards follow the actions, nothing ends."""

    def __init__(self, num_envs: int):
        self.num_envs = num_envs
        self._generator = torch.Generator().manual_seed(0)
        self.observation = self._draw()

    def step(self, action: Tensor) -> Step:
        self.observation = self._draw()
        never = torch.zeros(self.num_envs, dtype=torch.bool)
        info = ended(torch.zeros(0, 3))
        return self.observation, action.sum(dim=-1), never, never, info

    def _draw(self) -> dict[str, Tensor]:
        x = torch.randn(self.num_envs, 3, generator=self._generator)
        return {"actor": x[:, :2], "critic": x}


def ended(final_critic: Tensor) -> dict[str, Any]:
    """The info of a step after which the first worlds end."""
    return {
        "done": torch.arange(len(final_critic)),
        "final_critic": final_critic,
        "rewards": {},
        "metrics": {},
    }


def make(env: VectorEnv, *, seed: int = 0, **settings: Any) -> PPO:
    """A learner with small networks for a toy environment."""
    settings = {"actor_hidden": [16], "critic_hidden": [16]} | settings
    sizes = {"actor": 2, "critic": 3} if isinstance(env, Walk) else {"actor": 1, "critic": 1}
    return PPO(PPOConfig(**settings), sizes, 2 if isinstance(env, Walk) else 1, seed=seed)


def iterate(learner: PPO, env: Bandit | Walk, iterations: int = 1) -> dict[str, float]:
    """Collect and learn; returns the last losses."""
    losses = {}
    for _ in range(iterations):
        rollout, _ = learner.collect(env, env.observation)
        losses = learner.update(rollout)
    return losses


def weights(module: nn.Module) -> Tensor:
    return torch.cat([parameter.detach().flatten() for parameter in module.parameters()])


def test_bandit_is_solved():
    env = Bandit()
    learner = make(env, rollout_steps=8, gamma=0.9)

    iterate(learner, env, 60)

    action = learner.policy(torch.tensor([[-1.0], [1.0]]))
    torch.testing.assert_close(action, torch.tensor([[-0.5], [0.5]]), atol=0.05, rtol=0)
    assert learner.policy.log_std.exp() < 0.3  # started at 0.8


def test_value_function_learns_returns_in_the_unit_of_the_reward():
    env = Bandit(bonus=50.0)
    learner = make(env, rollout_steps=8)

    iterate(learner, env, 30)
    rollout, _ = learner.collect(env, env.observation)

    # The reward is 50 x, but for at most (1 + 1/2)² = 2.25 that the action costs.
    x = rollout.raw["critic"].squeeze(-1)
    assert (rollout.values - 50 * x).abs().max() < 3


def test_truncated_episode_bootstraps_from_its_final_observation():
    env = OneStepEpisodes(terminates=False)
    learner = identity_critic(env)

    rollout, _ = learner.collect(env, env.observation)

    # r + γ V(final) - V(first) = 1 + 0.9 · 5 - 0, not 1 + 0.9 · V(first observation after reset)
    torch.testing.assert_close(rollout.advantages, torch.full((3, 2), 5.5))


def test_terminated_episode_does_not_bootstrap():
    env = OneStepEpisodes(terminates=True)
    learner = identity_critic(env)

    rollout, _ = learner.collect(env, env.observation)

    torch.testing.assert_close(rollout.advantages, torch.full((3, 2), 1.0))


def test_last_step_of_a_rollout_bootstraps_from_the_observation_that_follows():
    env = Walk(num_envs=4)
    learner = make(env, rollout_steps=1, gamma=0.5, critic_hidden=[])
    set_linear(learner.critic, weight=[1.0, 0.0, 0.0])
    start = env.observation

    rollout, following = learner.collect(env, start)

    value = learner.critic(learner.critic_normalizer(start["critic"])).squeeze(-1)
    next_value = learner.critic(learner.critic_normalizer(following["critic"])).squeeze(-1)
    reward = torch.tanh(rollout.pre_tanh[0]).sum(dim=-1)
    torch.testing.assert_close(rollout.advantages[0], reward + 0.5 * next_value - value)


def test_first_minibatch_has_a_ratio_of_one():
    env = Walk(num_envs=8)
    learner = make(env, rollout_steps=4, epochs=1, minibatches=1, entropy_coef=0)

    losses = iterate(learner, env)

    # With ratio 1 the loss is -mean(normalised advantage) = 0 and nothing has moved.
    assert losses["loss/policy"] == pytest.approx(0, abs=1e-6)
    assert losses["policy/kl"] == pytest.approx(0, abs=1e-6)
    assert losses["policy/clip_fraction"] == 0
    assert losses["policy/std"] == pytest.approx(0.8)


def test_later_minibatches_move_away_from_the_old_policy():
    env = Walk(num_envs=8)
    learner = make(env, rollout_steps=4, epochs=20, minibatches=1, learning_rate=0.01)

    losses = iterate(learner, env)

    assert losses["policy/kl"] > 1e-4
    assert losses["policy/clip_fraction"] > 0


def test_learning_rate_falls_when_the_policy_moves_too_far():
    env = Walk(num_envs=8)
    learner = make(env, epochs=2, minibatches=1, desired_kl=1e-12, learning_rate=0.01)

    iterate(learner, env)

    # The first minibatch has no KL yet, the second has more than 2e-12.
    assert learner.learning_rate == pytest.approx(0.01 / 1.5)


def test_learning_rate_rises_when_the_policy_hardly_moves():
    env = Walk(num_envs=8)
    learner = make(env, epochs=3, minibatches=1, desired_kl=1.0, learning_rate=1e-4)

    iterate(learner, env)

    # Epochs 2 and 3 raise it; epoch 1 may, depending on rounding of a KL of zero.
    assert learner.learning_rate in (pytest.approx(1e-4 * 1.5**2), pytest.approx(1e-4 * 1.5**3))


def test_learning_rate_stays_within_its_bounds():
    env = Walk(num_envs=8)
    falling = make(env, epochs=20, minibatches=1, desired_kl=1e-12, learning_rate=1e-4)
    rising = make(env, epochs=20, minibatches=1, desired_kl=100.0, learning_rate=1e-3)

    iterate(falling, env)
    iterate(rising, env)

    assert falling.learning_rate == 1e-5
    assert rising.learning_rate == 1e-2


def test_learning_rate_is_fixed_without_a_desired_kl():
    env = Walk(num_envs=8)
    learner = make(env, epochs=5, desired_kl=0, learning_rate=3e-4)

    iterate(learner, env)

    assert learner.learning_rate == 3e-4


def test_entropy_bonus_keeps_the_policy_random():
    stds = []
    for entropy_coef in (0.0, 20.0):
        env = Bandit()
        learner = make(env, rollout_steps=8, entropy_coef=entropy_coef)
        iterate(learner, env, 20)
        stds.append(learner.policy.log_std.exp().item())

    assert stds[0] < 0.6
    assert stds[1] == pytest.approx(0.87, abs=0.15)


def test_value_loss_does_not_disturb_the_actor():
    actors = []
    for value_coef in (0.0, 1000.0):
        env = Walk(num_envs=8)
        learner = make(env, value_coef=value_coef)
        iterate(learner, env)
        actors.append(weights(learner.policy))

    assert torch.equal(*actors)


def test_statistics_are_frozen_while_a_rollout_is_collected_and_grow_afterwards():
    env = Walk(num_envs=8)
    learner = make(env, rollout_steps=4)
    rollout, _ = learner.collect(env, env.observation)
    learner.update(rollout)
    mean, count = learner.policy.normalizer.mean.clone(), learner.policy.normalizer.count.clone()

    rollout, _ = learner.collect(env, env.observation)
    assert torch.equal(learner.policy.normalizer.mean, mean)

    learner.update(rollout)
    assert not torch.equal(learner.policy.normalizer.mean, mean)
    assert learner.policy.normalizer.count - count == 4 * 8


def test_actor_sees_its_own_observation_only():
    env = Walk(num_envs=8)
    learner = make(env)

    rollout, _ = learner.collect(env, env.observation)

    assert rollout.actor.shape == (32, 8, 2)
    assert rollout.critic.shape == (32, 8, 3)


def test_same_seed_gives_the_same_weights_whatever_else_draws_random_numbers():
    finals = []
    for global_seed in (1, 2):
        torch.manual_seed(global_seed)
        env = Walk(num_envs=8)
        learner = make(env, seed=5)
        iterate(learner, env, 2)
        finals.append(torch.cat([weights(learner.policy), weights(learner.critic)]))

    assert torch.equal(*finals)
    assert not torch.equal(finals[0][:32], weights(make(Walk(8), seed=6).policy)[:32])


def test_learner_leaves_the_global_random_numbers_alone():
    torch.manual_seed(0)
    expected = torch.randn(3)

    torch.manual_seed(0)
    env = Walk(num_envs=8)
    iterate(make(env), env)

    assert torch.equal(torch.randn(3), expected)


def test_restored_learner_continues_with_the_same_bits():
    env = Walk(num_envs=8)
    learner, restored = make(env, seed=0), make(env, seed=1)
    iterate(learner, env, 2)
    restored.load_state_dict(copy.deepcopy(learner.state_dict()))

    for each in (learner, restored):
        iterate(each, Walk(num_envs=8), 2)

    assert torch.equal(weights(learner.policy), weights(restored.policy))
    assert torch.equal(weights(learner.critic), weights(restored.critic))
    assert learner.learning_rate == restored.learning_rate


def test_reported_losses_are_means_also_when_samples_do_not_fill_the_minibatches():
    env = Walk(num_envs=5)  # 5 samples in 4 minibatches
    learner = make(env, rollout_steps=1, epochs=1, minibatches=4, learning_rate=1e-9, desired_kl=0)

    losses = iterate(learner, env)

    assert losses["policy/std"] == pytest.approx(0.8)


@pytest.mark.parametrize(("samples", "minibatches"), [(1, 1), (2, 4)])
def test_few_samples_give_finite_losses_and_weights(samples: int, minibatches: int):
    env = Walk(num_envs=samples)
    learner = make(env, rollout_steps=1, epochs=1, minibatches=minibatches)

    losses = iterate(learner, env)

    assert all(math.isfinite(loss) for loss in losses.values())
    assert weights(learner.policy).isfinite().all()
    assert weights(learner.critic).isfinite().all()


def identity_critic(env: VectorEnv) -> PPO:
    """A learner with V(x) = x and γ = 0.9, whose normalisers change nothing."""
    learner = make(env, rollout_steps=3, gamma=0.9, critic_hidden=[])
    set_linear(learner.critic, weight=[1.0])
    learner.policy.normalizer.count.fill_(1)  # otherwise the first observation sets the statistics
    return learner


def set_linear(network: nn.Module, weight: list[float]) -> None:
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.copy_(torch.tensor([weight]) if parameter.ndim == 2 else torch.zeros(1))
