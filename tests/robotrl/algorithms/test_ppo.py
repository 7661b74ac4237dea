"""PPO on toy environments small enough to know the right answer."""

import copy
import math
import shutil
import time
from collections.abc import Callable
from functools import partial
from typing import Any, Protocol

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from deploy.errors import ConfigError
from envs.mirror import Mirror
from envs.vector_env import Step, StepInfo
from robotrl.algorithms import machine_code
from robotrl.algorithms.algorithm import TrainingError
from robotrl.algorithms.networks import Backpropagation
from robotrl.algorithms.parallel import Part
from robotrl.algorithms.ppo import PPO, PPOConfig, Rollout, surrogate
from robotrl.algorithms.products import Precision, precision, rounded

needs_compiler = pytest.mark.skipif(shutil.which("g++") is None, reason="no C++ compiler")


class ToyEnv(Protocol):
    """What a toy is to these tests."""

    observation: dict[str, Tensor]
    """The latest."""

    def step(self, action: Tensor) -> Step: ...


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
        return answer(self.observation, reward, everywhere, ~everywhere)

    def _draw(self) -> dict[str, Tensor]:
        x = torch.randint(0, 2, (self.num_envs, 1), generator=self._generator) * 2.0 - 1
        return {"actor": x, "critic": x.clone()}


class OneStepEpisodes:
    """Every episode starts at observation 0 and ends one step later at `final`, reward 1."""

    num_envs = 2

    def __init__(self, *, terminates: bool, final: float = 5.0):
        self._terminated, self._final = torch.full((2,), terminates), final
        self.observation = {"actor": torch.zeros(2, 1), "critic": torch.zeros(2, 1)}

    def step(self, action: Tensor) -> Step:
        final = torch.full((2, 1), self._final)
        return answer(self.observation, torch.ones(2), self._terminated, ~self._terminated, final)


class Walk:
    """Observations are random, rewards follow the actions, nothing ends.

    What only the critic sees has the size `privileged`.
    """

    def __init__(self, num_envs: int, *, privileged: float = 1.0):
        self.num_envs, self._privileged = num_envs, privileged
        self._generator = torch.Generator().manual_seed(0)
        self.observation = self._draw()

    def step(self, action: Tensor) -> Step:
        self.observation = self._draw()
        never = torch.zeros(self.num_envs, dtype=torch.bool)
        return answer(self.observation, action.sum(dim=-1), never, never)

    def _draw(self) -> dict[str, Tensor]:
        x = torch.randn(self.num_envs, 3, generator=self._generator)
        return {"actor": x[:, :2], "critic": x * torch.tensor([1.0, 1.0, self._privileged])}


class Chain:
    """Two states and time limits; see `test_critic_reaches_the_optimal_values_of_a_chain`."""

    num_envs = 64

    def __init__(self):
        self._generator = torch.Generator().manual_seed(0)
        self._state = torch.zeros(self.num_envs, dtype=torch.bool)
        self.observation = self._observe()

    def step(self, action: Tensor) -> Step:
        there, forward = self._state, action[:, 0] > 0
        reward = torch.where(there, 1.0, torch.where(forward, 0.0, 0.1))
        chance = torch.rand(2, self.num_envs, generator=self._generator)
        terminated = there & (chance[0] < 0.5)
        truncated = ~terminated & (chance[1] < 0.5)
        self._state = ~there & forward
        final = self._observe()["critic"]
        self._state[terminated | truncated] = False
        self.observation = self._observe()
        return answer(self.observation, reward, terminated, truncated, final)

    def _observe(self) -> dict[str, Tensor]:
        x = self._state.float()[:, None]
        return {"actor": x, "critic": x.clone()}


class Spoilt:
    """`Walk`, but one of its answers is changed in the second step."""

    num_envs = 4

    def __init__(self, spoil: Callable[[Step], None]):
        self._walk, self._spoil, self._steps = Walk(self.num_envs), spoil, 0
        self.observation = self._walk.observation

    def step(self, action: Tensor) -> Step:
        step = self._walk.step(action)
        step.info.rewards.update({"speed": step.reward.clone(), "effort": torch.zeros(4)})
        self._steps += 1
        if self._steps == 2:
            self._spoil(step)
        return step


def answer(
    observation: dict[str, Tensor],
    reward: Tensor,
    terminated: Tensor,
    truncated: Tensor,
    final_critic: Tensor | None = None,
) -> Step:
    """A step without reward terms and metrics; the final observation may be another one."""
    final = dict(observation)
    if final_critic is not None:
        final["critic"] = final_critic
    info = StepInfo(final, {}, {}, torch.zeros_like(terminated))
    return Step(observation, reward, terminated, truncated, info)


def make(env: ToyEnv, *, seed: int = 0, **settings: Any) -> PPO:
    """A learner with small networks for a toy environment."""
    settings = {"actor_hidden": [16], "critic_hidden": [16], "learning_rate": 3e-3} | settings
    walks = isinstance(env, Walk | Spoilt)
    sizes = {"actor": 2, "critic": 3} if walks else {"actor": 1, "critic": 1}
    return PPO(PPOConfig(**settings), sizes, 2 if walks else 1, seed=seed)


def collect(
    learner: PPO, env: ToyEnv, observation: dict[str, Tensor]
) -> tuple[Rollout, dict[str, Tensor]]:
    """A rollout that nothing was learned from yet, and the observation that follows it."""
    for _ in range(learner.config.rollout_steps):
        step = env.step(learner.act(observation))
        learner.store(step)
        observation = step.observation
    return learner.rollout(), observation


def iterate(learner: PPO, env: ToyEnv, iterations: int = 1) -> dict[str, float]:
    """Collect and learn; returns the last losses."""
    losses = {}
    for _ in range(iterations):
        rollout, _ = collect(learner, env, env.observation)
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


@pytest.mark.parametrize(("activation", "between"), [("silu", nn.SiLU), ("tanh", nn.Tanh)])
def test_actor_and_critic_have_the_activation_that_is_asked_for(
    activation: str, between: type[nn.Module]
):
    learner = make(Bandit(), activation=activation)

    for network in (learner.policy.network, learner.critic):
        assert [type(layer) for layer in network] == [nn.Linear, between, nn.Linear]


def test_normalised_observations_go_no_farther_than_the_clip():
    learner = make(Bandit(), observation_clip=3.0)

    for normalizer in (learner.policy.normalizer, learner.critic_normalizer):
        torch.testing.assert_close(
            normalizer(torch.tensor([[-9.0], [9.0]])).abs(), torch.full((2, 1), 3.0)
        )
    torch.testing.assert_close(
        learner.policy(torch.tensor([[9.0]])), learner.policy(torch.tensor([[3.0]]))
    )


def test_actor_and_critic_know_what_is_rarely_felt_but_returns_are_normalised_as_ever():
    learner = make(Bandit(), sparse_observations=True)
    rarely = torch.zeros(100, 1)
    rarely[0] = 5.0

    for normalizer in (learner.policy.normalizer, learner.critic_normalizer):
        normalizer.update(rarely)
        assert normalizer(rarely)[0].item() == pytest.approx(0.99**0.5 * 0.3, rel=1e-4)
    learner.return_normalizer.update(rarely)
    assert learner.return_normalizer(rarely)[0].item() == pytest.approx(99**0.5, rel=1e-5)


def test_value_function_learns_returns_in_the_unit_of_the_reward():
    env = Bandit(bonus=50.0)
    learner = make(env, rollout_steps=8)

    iterate(learner, env, 30)
    rollout, _ = collect(learner, env, env.observation)

    # The reward is 50 x, but for at most (1 + 1/2)² = 2.25 that the action costs.
    x = rollout.raw["critic"].squeeze(-1)
    assert (rollout.values - 50 * x).abs().max() < 3


def test_truncated_episode_bootstraps_from_its_final_observation():
    env = OneStepEpisodes(terminates=False)
    learner = identity_critic(env)

    rollout, _ = collect(learner, env, env.observation)

    # r + γ V(final) - V(first) = 1 + 0.9 · 5 - 0, not 1 + 0.9 · V(first observation after reset)
    torch.testing.assert_close(rollout.advantages, torch.full((3, 2), 5.5))


def test_terminated_episode_does_not_bootstrap():
    env = OneStepEpisodes(terminates=True)
    learner = identity_critic(env)

    rollout, _ = collect(learner, env, env.observation)

    torch.testing.assert_close(rollout.advantages, torch.full((3, 2), 1.0))


@pytest.mark.parametrize(("terminates", "expected"), [(False, 0.9 * 5), (True, 0.9 * -10)])
def test_centered_rewards_are_those_above_the_average(terminates: bool, expected: float):
    env = OneStepEpisodes(terminates=terminates)
    learner = identity_critic(env, reward_centering=0.5)

    rollout, _ = collect(learner, env, env.observation)

    # each reward is the average, 1, so 0 counts; after a failure -1 does, for ever: -1 / (1 - 0.9)
    torch.testing.assert_close(rollout.advantages, torch.full((3, 2), expected))


def test_average_reward_follows_each_rollout_and_is_resumed():
    env, settings = Walk(num_envs=4), {"rollout_steps": 3, "reward_centering": 0.25}
    learner, resumed = make(env, **settings), make(env, **settings)
    first, observation = collect(learner, env, env.observation)
    resumed.load_state_dict(copy.deepcopy(learner.state_dict()))
    second, following = collect(resumed, env, observation)

    before, latest = (rewards_of(rollout).mean() for rollout in (first, second))
    average = before + 0.25 * (latest - before)
    torch.testing.assert_close(resumed.state_dict()["average_reward"].float(), average)
    last = resumed._followed({"critic": following["critic"]})
    expected = rewards_of(second)[-1] - average + 0.97 * resumed._values(last)
    torch.testing.assert_close(second.advantages[-1] + second.values[-1], expected)


def test_rewards_without_end_may_be_summed_until_a_failure():
    env = OneStepEpisodes(terminates=True)
    rollout, _ = collect(learner := make(env, rollout_steps=3, gamma=1.0), env, env.observation)
    torch.testing.assert_close(rollout.advantages, 1 - rollout.values)
    assert learner.state_dict()["average_reward"] is None


def test_checkpoint_from_before_rewards_were_centered_is_read():
    learner = make(Walk(num_envs=4))
    state = learner.state_dict()
    del state["average_reward"]
    learner.load_state_dict(state)


def rewards_of(rollout: Rollout) -> Tensor:
    """Of `Walk`."""
    return torch.tanh(rollout.pre_tanh).sum(dim=-1)


def test_last_step_of_a_rollout_bootstraps_from_the_observation_that_follows():
    env = Walk(num_envs=4)
    learner = make(env, rollout_steps=1, gamma=0.5, critic_hidden=[])
    set_linear(learner.critic, weight=[1.0, 0.0, 0.0])
    start = env.observation

    rollout, following = collect(learner, env, start)

    value = learner.critic(learner.critic_normalizer(start["critic"])).squeeze(-1)
    next_value = learner.critic(learner.critic_normalizer(following["critic"])).squeeze(-1)
    reward = rewards_of(rollout)[0]
    torch.testing.assert_close(rollout.advantages[0], reward + 0.5 * next_value - value)


def test_first_minibatch_has_a_ratio_of_one():
    env = Walk(num_envs=8)
    learner = make(env, rollout_steps=4, epochs=1, minibatches=1, entropy_coef=0)

    losses = iterate(learner, env)

    # With ratio 1 the loss is -mean(normalised advantage) = 0.
    assert losses["loss/policy"] == pytest.approx(0, abs=1e-6)
    assert losses["policy/clip_fraction"] == 0


def test_later_minibatches_move_away_from_the_old_policy():
    env = Walk(num_envs=8)
    learner = make(env, rollout_steps=4, epochs=20, minibatches=1, learning_rate=0.01)

    losses = iterate(learner, env)

    assert losses["policy/kl"] > 1e-4
    assert losses["policy/clip_fraction"] > 0


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
    rollout, _ = collect(learner, env, env.observation)
    learner.update(rollout)
    mean, count = learner.policy.normalizer.mean.clone(), learner.policy.normalizer.count.clone()

    rollout, _ = collect(learner, env, env.observation)
    assert torch.equal(learner.policy.normalizer.mean, mean)

    learner.update(rollout)
    assert not torch.equal(learner.policy.normalizer.mean, mean)
    assert learner.policy.normalizer.count - count == 4 * 8


def test_actor_acts_on_its_own_observation_only():
    rollouts = []
    for privileged in (1.0, 0.0):
        env = Walk(num_envs=8, privileged=privileged)
        rollouts.append(collect(make(env), env, env.observation)[0])

    assert torch.equal(rollouts[0].pre_tanh, rollouts[1].pre_tanh)
    assert not torch.equal(rollouts[0].values, rollouts[1].values)


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


def test_every_epoch_sees_every_sample_once_and_losses_are_means_over_minibatches(
    monkeypatch: pytest.MonkeyPatch,
):
    env = Walk(num_envs=5)  # 5 samples in 4 minibatches, twice
    learner = make(env, rollout_steps=1, epochs=2, minibatches=4)
    seen, losses_of_parts = [], []

    def watched(mean: Tensor, log_std: Tensor, u: Tensor, *rest: Any, **settings: Any) -> Any:
        found = surrogate(mean, log_std, u, *rest, **settings)
        seen.append(u)
        losses_of_parts.append(found[0].item())
        return found

    monkeypatch.setattr("robotrl.algorithms.ppo.surrogate", watched)
    rollout, _ = collect(learner, env, env.observation)
    losses = learner.update(rollout)

    everything = rollout.pre_tanh[0, :, 0].sort().values
    for epoch in (seen[:4], seen[4:]):
        assert torch.equal(torch.cat(epoch)[:, 0].sort().values, everything)
    assert losses["loss/policy"] == pytest.approx(sum(losses_of_parts) / 8, rel=1e-5)


@pytest.mark.parametrize(("samples", "minibatches"), [(1, 1), (2, 4)])
def test_few_samples_give_finite_losses_and_weights(samples: int, minibatches: int):
    env = Walk(num_envs=samples)
    learner = make(env, rollout_steps=1, epochs=1, minibatches=minibatches)

    losses = iterate(learner, env)

    assert all(math.isfinite(loss) for loss in losses.values())
    assert weights(learner.policy).isfinite().all()
    assert weights(learner.critic).isfinite().all()


def test_critic_reaches_the_optimal_values_of_a_chain():
    # State 0: back stays and earns 0.1, forward goes to state 1 and earns nothing. State 1 earns 1
    # and terminates with probability 1/2, else leads to 0. Every other step meets a time limit,
    # which a value knows nothing of; the next episode starts in 0. With γ = 0.9 and forward in 0
    #   V(0) = γ V(1),  V(1) = 1 + γ/2 V(0)  =>  V(1) = 1 / (1 - γ²/2) = 1.6807, V(0) = 1.5126;
    # staying for ever earns 1. Bootstrapped from the new episode instead of the final observation,
    # V(0) = γ/2 (V(1) + V(0)) would be 1.295; with time limits that are terminal, 0.501.
    env = Chain()
    learner = make(env, rollout_steps=16, gamma=0.9, entropy_coef=0.0, initial_std=0.5)

    iterate(learner, env, 80)

    states = torch.tensor([[0.0], [1.0]])
    values = learner.return_normalizer.inverse(learner.critic(learner.critic_normalizer(states)))
    assert learner.policy(states)[0] > 0.5
    assert values.squeeze(-1).tolist() == pytest.approx([1.5126, 1.6807], abs=0.08)


def test_slopes_of_the_surrogate_equal_finite_differences_of_the_formula():
    generator = torch.Generator().manual_seed(0)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    mean, log_std, u = 0.5 * normal(50, 2), 0.5 * normal(2), normal(50, 2)
    log_prob, advantages = normal(50, 1) - 2, normal(50, 1)

    def formula(mean: np.ndarray, log_std: np.ndarray) -> float:
        std = np.exp(log_std)
        density = np.exp(-((u.numpy() - mean) ** 2) / (2 * std**2)) / (std * math.sqrt(2 * math.pi))
        ratio = density.prod(axis=1) / np.exp(log_prob.numpy()[:, 0])
        a = advantages.numpy()[:, 0]
        return -np.where(a > 0, np.minimum(ratio, 1.2) * a, np.maximum(ratio, 0.8) * a).mean()

    loss, ratio, (of_mean, of_log_std) = surrogate(
        mean, log_std, u, log_prob, advantages, clip_range=0.2
    )

    assert loss.item() == pytest.approx(formula(mean.numpy(), log_std.numpy()), rel=1e-10)
    clipped = ((ratio - 1).abs() > 0.2).double().mean()
    assert 0.2 < clipped < 1  # both branches of the minimum are there
    check_slope(lambda array: formula(array, log_std.numpy()), mean.numpy(), of_mean)
    check_slope(lambda array: formula(mean.numpy(), array), log_std.numpy(), of_log_std.sum(dim=0))


def check_slope(function: Callable[[np.ndarray], float], at: np.ndarray, slope: Tensor) -> None:
    """Compare a gradient with central differences."""
    for index in np.ndindex(at.shape):
        ends = []
        for sign in (1, -1):
            moved = at.copy()
            moved[index] += sign * 1e-6
            ends.append(function(moved))
        assert slope[index].item() == pytest.approx((ends[0] - ends[1]) / 2e-6, rel=1e-5, abs=1e-9)


def test_a_step_goes_down_the_gradient_of_the_whole_loss_clipped_for_each_network():
    """One minibatch against autograd on the textbook's loss, and Adam's first step by hand."""
    env = Walk(num_envs=16)
    settings: dict[str, Any] = {"value_coef": 0.7, "entropy_coef": 0.3, "max_grad_norm": 0.05}
    learner = make(env, rollout_steps=4, epochs=1, minibatches=1, **settings)
    rollout, _ = collect(learner, env, env.observation)
    reference = copy.deepcopy(learner)
    noise = torch.Generator().manual_seed(0)
    noise.set_state(learner._generator.get_state())
    order = torch.randperm(64, generator=noise)

    learner.update(rollout)

    flat = {name: part.flatten(0, 1) for name, part in rollout._asdict().items() if name in USED}
    returns = flat["values"] + flat["advantages"]
    targets = (returns - returns.mean()) / (returns.var(correction=0) + 1e-6).sqrt()
    advantages = flat["advantages"] - flat["advantages"].mean()
    advantages = advantages / advantages.std(correction=0)
    policy, critic = reference.policy, reference.critic
    mean = policy.network(flat["actor"])
    gaussian = torch.distributions.Normal(mean, policy.log_std.exp())
    ratio = (gaussian.log_prob(flat["pre_tanh"]).sum(dim=1) - flat["log_prob"]).exp()
    gain = torch.minimum(ratio * advantages, ratio.clamp(0.8, 1.2) * advantages).mean()
    drawn = torch.zeros(64, 2)
    drawn[order] = torch.randn(64, 2, generator=noise)
    u = mean + policy.log_std.exp() * drawn
    entropy = (gaussian.entropy() + torch.log1p(-torch.tanh(u).square())).sum(dim=1).mean()
    error = critic(flat["critic"]).squeeze(-1) - targets
    loss = -gain - 0.3 * entropy + 0.7 * error.square().mean()
    for before, after in ((policy, learner.policy), (critic, learner.critic)):
        old = list(before.parameters())
        gradients = torch.autograd.grad(loss, old, retain_graph=True)
        norm = torch.stack([g.square().sum() for g in gradients]).sum().sqrt()
        assert norm > 0.05
        for parameter, gradient, new in zip(old, gradients, after.parameters(), strict=True):
            clipped = gradient * (0.05 / norm)
            step = 3e-3 * clipped / (clipped.abs() + 1e-5)  # Adam's first: g / (|g| + ε)
            torch.testing.assert_close(new, parameter - step, rtol=1e-3, atol=2e-5)


def test_critic_learns_the_same_bits_beside_the_next_rollout_as_before_it(
    monkeypatch: pytest.MonkeyPatch,
):
    finals, told = [], []
    for large in (0.0, math.inf):
        monkeypatch.setattr("robotrl.algorithms.ppo.LARGE", large)
        env = Walk(num_envs=256)
        learner = make(env, actor_hidden=[64, 64], critic_hidden=[64, 64])
        told.append([iterate(learner, env)["loss/value"] for _ in range(3)])
        state = learner.state_dict()
        told[-1].append(state["of_critic"]["loss/value"])
        finals.append(torch.cat([weights(learner.policy), weights(learner.critic)]))

    assert torch.equal(*finals)
    beside, before = told
    assert math.isnan(beside[0])
    assert beside[1:] == before[:3]  # one iteration later


def test_critic_that_learns_aside_ends_in_the_precision_of_learn(monkeypatch: pytest.MonkeyPatch):
    found = []

    def learn_critic(*arguments: Any, **settings: Any) -> dict[str, Tensor]:
        found.append(rounded())
        time.sleep(0.2)  # in which `learn` is over
        found.append(rounded())
        return {"loss/value": torch.zeros(())}

    monkeypatch.setattr("robotrl.algorithms.ppo.LARGE", 0.0)
    env = Walk(num_envs=256)
    learner = make(env)
    monkeypatch.setattr(learner._critic_descent, "learn", learn_critic)
    rollout, _ = collect(learner, env, env.observation)
    with precision("bfloat16"):
        learner.update(rollout)

    assert not rounded()
    assert found == [True, True]


def test_critic_that_broke_beside_the_next_rollout_is_not_saved(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("robotrl.algorithms.ppo.LARGE", 0.0)
    env = Walk(num_envs=256)
    learner = make(env)
    rollout, _ = collect(learner, env, env.observation)
    learner.update(rollout._replace(critic=torch.full_like(rollout.critic, math.nan)))

    with pytest.raises(TrainingError, match="loss/value is nan"):
        learner.state_dict()


@needs_compiler
@pytest.mark.parametrize(
    "settings",
    [{}, {"entropy_coef": 0.0, "activation": "tanh"}, {"anneal_steps": 128, "max_grad_norm": 0.01}],
    ids=["as it is", "without a bonus", "falling rate, clipped"],
)
@pytest.mark.parametrize("kind", ["float32", "bfloat16"])
def test_machine_code_learns_what_python_learns(
    settings: dict[str, Any], kind: Precision, caplog: pytest.LogCaptureFixture
):
    states, told = [], []
    for after in (None, 0):
        env = Walk(num_envs=8)
        learner = make(env, rollout_steps=16, compile_after=after, **settings)
        with precision(kind):
            told.append([iterate(learner, env) for _ in range(3)])
        states.append(learner.state_dict())

    expected, found = states
    for part in ("policy", "critic"):
        for name, weight in expected[part].items():
            torch.testing.assert_close(found[part][name], weight, rtol=1e-3, atol=1e-4)
    assert found["of_critic"] == pytest.approx(expected["of_critic"], rel=1e-3)
    for name in ("loss/policy", "policy/clip_fraction", "policy/kl", "policy/std"):
        one, other = ([losses[name] for losses in each] for each in told)
        assert other == pytest.approx(one, rel=1e-3, abs=1e-4), name
    assert not [each for each in caplog.records if each.name == "robotrl.algorithms.machine_code"]


@needs_compiler
def test_machine_code_goes_on_with_the_same_bits():
    env = Walk(num_envs=8)
    learner, resumed = (make(env, rollout_steps=16, compile_after=0) for _ in range(2))
    iterate(learner, env)
    resumed.load_state_dict(copy.deepcopy(learner.state_dict()))
    same = copy.deepcopy(env)

    ends = []
    for each, world in ((learner, env), (resumed, same)):
        iterate(each, world, 2)
        each.state_dict()  # waits for the critic
        ends.append(torch.cat([weights(each.policy), weights(each.critic)]))

    assert torch.equal(*ends)


def test_machine_code_takes_over_after_as_many_steps_as_are_asked_for(
    monkeypatch: pytest.MonkeyPatch,
):
    env = Walk(num_envs=8)
    learner = make(env, rollout_steps=4, compile_after=64)
    fast: list[bool] = []

    def watched(learn: Callable[..., Any], *arguments: Any, **settings: Any) -> Any:
        fast.append(settings.pop("fast"))
        return learn(*arguments)

    for descent in (learner._actor_descent, learner._critic_descent):
        monkeypatch.setattr(descent, "learn", partial(watched, descent.learn))
    iterate(learner, env, 3)  # of 32 steps
    learner.state_dict()

    assert fast == [False] * 4 + [True] * 2


def test_without_a_compiler_it_learns_as_it_would(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    def no_compiler(*args: object, **kwargs: object) -> object:
        raise RuntimeError("no C++ compiler")

    machine_code._told.clear()
    monkeypatch.setattr(torch, "compile", lambda *args, **kwargs: no_compiler)
    ends = []
    for after in (None, 0):
        env = Walk(num_envs=8)
        learner = make(env, compile_after=after)
        iterate(learner, env, 2)
        learner.state_dict()
        ends.append(torch.cat([weights(learner.policy), weights(learner.critic)]))

    assert torch.equal(*ends)
    assert [each.message for each in caplog.records] == [
        "not compiled, so learning stays slower: RuntimeError: no C++ compiler"
    ]


def test_what_cannot_be_compiled_is_refused():
    with pytest.raises(ConfigError, match=r"3 parts of 64 rows .* not of one size"):
        PPOConfig(compile_after=0, minibatches=3, rollout_steps=8).check_worlds(8)
    with pytest.raises(ValueError, match="compile_after is 0 with a memory of 8 units"):
        PPOConfig(compile_after=0, recurrent=8)


def test_every_observation_and_every_return_is_counted_once():
    env = Walk(num_envs=8)
    learner = make(env, rollout_steps=4)
    seen, returns = [], []

    observation = env.observation
    for _ in range(3):
        rollout, observation = collect(learner, env, observation)
        learner.update(rollout)
        seen.append(rollout.raw["critic"].reshape(-1, 3).numpy())
        returns.append((rollout.values + rollout.advantages).reshape(-1, 1).numpy())

    for normalizer, parts in (
        (learner.critic_normalizer, seen),
        (learner.return_normalizer, returns),
    ):
        everything = np.concatenate(parts).astype(np.float64)
        assert normalizer.count.item() == 3 * 4 * 8
        np.testing.assert_allclose(normalizer.mean, everything.mean(axis=0), rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(normalizer.var, everything.var(axis=0), rtol=1e-5)


def test_new_statistics_of_returns_do_not_move_the_predictions():
    env = Walk(num_envs=8)
    learner = make(env, learning_rate=1e-12)  # only the statistics change
    iterate(learner, env)
    rollout, _ = collect(learner, env, env.observation)
    shifted = rollout._replace(advantages=100 + 7 * rollout.advantages)

    learner.update(shifted)

    values = learner.return_normalizer.inverse(learner.critic(rollout.critic)).squeeze(-1)
    assert learner.return_normalizer.mean > 40
    torch.testing.assert_close(values, rollout.values, rtol=1e-4, atol=1e-3)


def test_rare_large_return_is_a_target_in_full():
    env = Walk(num_envs=50)
    learner = make(env, rollout_steps=20, epochs=1, minibatches=1)
    rollout, _ = collect(learner, env, env.observation)
    returns = torch.zeros(20, 50)
    returns[3, 7] = -1000  # one of 1000: 31.6 standard deviations below the mean
    set_linear(learner.critic[-1], weight=[0.0] * 16)  # it says 0, the mean of the targets

    losses = learner.update(rollout._replace(values=torch.zeros(20, 50), advantages=returns))

    # one target of -√999, 999 of 1/√999: their mean square is 1; a clip at 10 would leave 0.1
    assert losses["loss/value"] == pytest.approx(1, rel=1e-4)


def spoil(name: str, value: float) -> Callable[[Step], None]:
    """Put a value into world 2's reward or into an observation of it."""

    def change(step: Step) -> None:
        if name == "reward":
            step.reward[2] = step.info.rewards["speed"][2] = value
        else:
            step.observation[name] = step.observation[name].clone()
            step.observation[name][2, 0] = value

    return change


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("reward", math.nan, "the reward (speed) is nan in world 2, 2 steps on"),
        ("reward", math.inf, "the reward (speed) is inf in world 2, 2 steps on"),
        ("actor", math.nan, "the actor's observation is nan in world 2, 3 steps on"),
        ("critic", math.nan, "the critic's observation is nan in world 2, 3 steps on"),
        # the normaliser's clip would hide it from the networks, not from the statistics
        ("critic", math.inf, "the critic's observation is inf in world 2, 3 steps on"),
    ],
)
def test_what_is_not_finite_is_refused_before_anything_is_learned_from_it(
    name: str, value: float, message: str
):
    env = Spoilt(spoil(name, value))
    learner = make(env, rollout_steps=4)
    before = copy.deepcopy(learner.state_dict())

    with pytest.raises(TrainingError) as error:
        collect(learner, env, env.observation)

    assert str(error.value) == message
    for part in ("policy", "critic", "critic_normalizer", "return_normalizer"):
        assert all(torch.equal(before[part][k], v) for k, v in learner.state_dict()[part].items())


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_last_observation_of_a_terminated_episode_may_be_anything(bad: float):
    env = OneStepEpisodes(terminates=True, final=bad)
    learner = identity_critic(env)

    rollout, _ = collect(learner, env, env.observation)

    torch.testing.assert_close(rollout.advantages, torch.full((3, 2), 1.0))


def test_last_observation_of_a_truncated_episode_must_be_finite():
    env = OneStepEpisodes(terminates=False, final=math.nan)

    with pytest.raises(TrainingError, match=r"the advantage .* is nan in world 0, 1 steps on"):
        collect(identity_critic(env), env, env.observation)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"epochs": 2}, r"loss/policy is (nan|inf)"),
        ({"epochs": 1, "minibatches": 1}, r"policy/kl is (nan|inf)"),
    ],
)
def test_losses_and_weights_that_are_not_finite_are_refused(settings: dict[str, Any], message: str):
    env = Walk(num_envs=8)
    learner = make(env, **settings)
    learner._actor_step.learning_rate = 1e37

    with pytest.raises(TrainingError, match=f"^{message}$"):
        iterate(learner, env)


def test_weights_that_the_last_step_spoilt_are_refused(monkeypatch: pytest.MonkeyPatch):
    env = Walk(num_envs=8)
    learner = make(env, epochs=1, minibatches=1)
    step = learner._critic_step.step

    def spoilt(gradient: Tensor) -> None:
        step(gradient)
        nn.init.constant_(learner.critic[0].get_parameter("bias"), math.nan)

    monkeypatch.setattr(learner._critic_step, "step", spoilt)
    with pytest.raises(TrainingError, match=r"^a weight of the critic is nan$"):
        iterate(learner, env)


def test_resumed_learner_takes_a_new_learning_rate():
    env = Walk(num_envs=8)
    learner, slower = make(env), make(env, learning_rate=1e-12)
    iterate(learner, env)
    slower.load_state_dict(copy.deepcopy(learner.state_dict()))

    iterate(slower, env)

    assert torch.equal(weights(slower.policy), weights(learner.policy))


def test_rate_and_entropy_bonus_fall_to_a_tenth_and_go_on_falling_where_a_run_is_resumed():
    env = Walk(num_envs=8)
    settings = {"rollout_steps": 4, "learning_rate": 0.01, "anneal_steps": 64.0}
    learner, resumed = make(env, **settings), make(env, **settings)

    iterate(learner, env, 2)  # the second update came after 32 of 64 steps
    assert learner._actor_step.learning_rate == pytest.approx(0.01 * 0.55)
    resumed.load_state_dict(learner.state_dict())
    iterate(resumed, env, 3)  # the last after 128

    assert resumed._critic_step.learning_rate == pytest.approx(0.01 * 0.1)


def test_entropy_bonus_falls_to_a_tenth_of_its_slope(monkeypatch: pytest.MonkeyPatch):
    env = Walk(num_envs=8)
    first, last = (make(env, anneal_steps=64.0, max_grad_norm=1e6) for _ in range(2))
    last.load_state_dict(first.state_dict() | {"steps": 64})

    slopes: list[Tensor] = []
    for learner in (first, last):
        monkeypatch.setattr(learner._actor_step, "step", lambda found: slopes.append(found[:2]))
        rows = torch.zeros(4, 2 + 2 + 1 + 1)
        part = Part(torch.arange(4), slice(None), 4)
        learner._learn_actor(rows, [part])  # no advantage: the bonus is all there is

    assert slopes[0].abs().min() > 0
    torch.testing.assert_close(slopes[1], 0.1 * slopes[0])


def test_noise_is_bounded_by_a_line_to_its_final_value():
    env = Walk(num_envs=8)
    settings = {"rollout_steps": 4, "initial_std": 1.0, "final_std": 0.2, "entropy_coef": 9.0}
    learner = make(env, anneal_steps=128, **settings)  # the bonus alone would let it grow

    bounds = []
    for _ in range(5):
        iterate(learner, env)
        bounds.append(float(learner.policy.log_std.detach().exp().max()))

    # a quarter of the way down after each 32 steps
    assert bounds == pytest.approx([0.8, 0.6, 0.4, 0.2, 0.2])


def test_noise_stays_above_its_smallest_value():
    env = Walk(num_envs=8)
    # noise lets this world's reward vary and brings none: left alone, it fades
    settings = {"rollout_steps": 16, "initial_std": 0.5, "epochs": 20, "entropy_coef": 0.0}
    settings |= {"learning_rate": 0.05}
    free, floored = make(env, **settings), make(env, min_std=0.45, **settings)

    found = []
    for learner in (free, floored):
        for _ in range(8):
            iterate(learner, env)
        found.append(float(learner.policy.log_std.detach().exp().min()))

    assert found[0] < 0.44
    assert found[1] == pytest.approx(0.45)


def test_a_smallest_noise_above_the_first_or_the_last_is_refused():
    with pytest.raises(ValueError, match=r"min_std is 0\.5, expected at most 0\.3, the smaller"):
        PPOConfig(min_std=0.5, final_std=0.3)


def test_rewards_without_end_have_no_center():
    with pytest.raises(ValueError, match=r"reward_centering is 0\.1 with a gamma of 1,"):
        PPOConfig(gamma=1, reward_centering=0.1)


def identity_critic(env: ToyEnv, **settings: Any) -> PPO:
    """A learner with V(x) = x and γ = 0.9, whose normalisers change nothing."""
    learner = make(env, rollout_steps=3, gamma=0.9, critic_hidden=[], **settings)
    set_linear(learner.critic, weight=[1.0])
    return learner


def set_linear(network: nn.Module, weight: list[float]) -> None:
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.copy_(torch.tensor([weight]) if parameter.ndim == 2 else torch.zeros(1))


USED = ("actor", "critic", "pre_tanh", "log_prob", "values", "advantages")
"""Parts of a rollout that a policy without a memory learns from."""
MIRROR = Mirror(torch.diag(torch.tensor([1.0, -1.0])), torch.diag(torch.tensor([1.0, -1, 1])),
                torch.tensor([[0.0, 1.0], [1.0, 0.0]]))  # fmt: skip


def symmetric(**settings: Any) -> PPO:
    config = PPOConfig(actor_hidden=[16], critic_hidden=[16], symmetry=True, **settings)
    return PPO(config, {"actor": 2, "critic": 3}, 2, seed=0, mirror=MIRROR)


def test_half_of_the_samples_are_learned_from_as_their_mirror_image(
    monkeypatch: pytest.MonkeyPatch,
):
    env = Walk(num_envs=500)
    learner = symmetric(rollout_steps=4, epochs=1, minibatches=1)
    iterate(learner, env)  # so that the normalisers do something
    rollout, _ = collect(learner, env, env.observation)
    actor = learner.policy.normalizer(rollout.raw["actor"] * torch.tensor([1.0, -1.0]))
    critic = learner.critic_normalizer(rollout.raw["critic"] * torch.tensor([1.0, -1.0, 1.0]))
    swapped = rollout.pre_tanh[..., [1, 0]]
    batch: dict[str, Tensor] = {}

    def watched(
        mean: Tensor, log_std: Tensor, u: Tensor, log_prob: Tensor, *rest: Any, **settings: Any
    ) -> Any:
        batch.update(pre_tanh=u, log_prob=log_prob[:, 0])
        return surrogate(mean, log_std, u, log_prob, *rest, **settings)

    class Watched(Backpropagation):
        def trace(self, x: Tensor) -> Any:
            batch.setdefault("critic" if x.shape[1] == 3 else "actor", x)
            return super().trace(x)

    monkeypatch.setattr("robotrl.algorithms.ppo.surrogate", watched)
    learner._actor, learner._critic = Watched(learner.policy.network), Watched(learner.critic)
    learner.update(rollout)

    marks = torch.stack([rollout.log_prob, rollout.critic[..., 2]], dim=-1).flatten(0, 1)
    places = {tuple(mark): index for index, mark in enumerate(marks.tolist())}
    found = torch.stack([batch["log_prob"], batch["critic"][:, 2]], dim=-1)  # the same in a mirror
    rows = torch.tensor([places[tuple(mark)] for mark in found.tolist()])
    images = {"actor": actor, "critic": critic, "pre_tanh": swapped}
    mirrored = {
        name: (batch[name] - image.flatten(0, 1)[rows]).abs().amax(dim=1) < 1e-5
        for name, image in images.items()
    }
    as_it_was = (batch["pre_tanh"] == rollout.pre_tanh.flatten(0, 1)[rows]).all(dim=1)
    for name in images:
        assert torch.equal(mirrored[name], mirrored["pre_tanh"])
    assert torch.equal(as_it_was, ~mirrored["pre_tanh"])
    assert 0.45 < mirrored["actor"].float().mean() < 0.55  # of 2000: 4 standard deviations


def test_what_is_learned_on_one_side_is_known_on_the_other():
    """The reward is for the first action where x is positive; x is never negative."""

    class OneSided(Walk):
        def _draw(self) -> dict[str, Tensor]:
            drawn = super()._draw()
            return {name: value.abs() for name, value in drawn.items()}

        def step(self, action: Tensor) -> Step:
            step = super().step(action)
            return step._replace(reward=-(action - torch.tensor([0.5, -0.5])).square().sum(dim=-1))

    mirror = Mirror(-torch.eye(2), -torch.eye(3), torch.tensor([[0.0, 1.0], [1.0, 0.0]]))
    here = torch.tensor([[0.8, 0.8]])
    actions = {}
    for symmetry in (False, True):
        config = PPOConfig(
            rollout_steps=8,
            gamma=0.0,
            learning_rate=3e-3,
            actor_hidden=[16],
            critic_hidden=[16],
            symmetry=symmetry,
        )
        found = []
        for seed in range(4):
            learner = PPO(config, {"actor": 2, "critic": 3}, 2, seed=seed, mirror=mirror)
            iterate(learner, OneSided(num_envs=64), 40)
            found.append(torch.cat([learner.policy(here), learner.policy(-here)]).detach())
        actions[symmetry] = torch.stack(found).mean(dim=0).tolist()

    assert actions[True][0] == pytest.approx([0.5, -0.5], abs=0.2)
    for symmetry in (False, True):  # it need not be as exact there
        first, second = actions[symmetry][1]
        assert (first < -0.3 and second > 0.3) == symmetry


def test_symmetry_of_a_task_that_has_none_is_refused():
    with pytest.raises(ConfigError) as error:
        PPO(PPOConfig(symmetry=True), {"actor": 2, "critic": 3}, 2, seed=0)

    assert str(error.value) == (
        "algorithm.symmetry: this task has no mirror image; leave symmetry out"
    )
