"""PPO with a squashed Gaussian policy (Schulman et al. 2017, arXiv 1707.06347).

    ppo = PPO(PPOConfig(), env.observation_sizes, env.num_actions, seed=0)
    observation = env.reset(stagger=True)
    rollout, observation = ppo.collect(env, observation)
    losses = ppo.update(rollout)

Choices: the ratio is taken at the stored pre-tanh sample, where the Jacobian of tanh cancels; the
learning rate follows the closed-form KL; normalisers of observations and returns are frozen while
a rollout is collected and learned from, and absorb it afterwards. The actor sees signals only, the
critic may see more. Gradients of actor and critic are clipped separately.
"""

from typing import Annotated, Any, Literal, NamedTuple, Protocol

import torch
from pydantic import Field
from torch import Tensor, nn

from deploy.configuration import Section
from robotrl import distributions
from robotrl.networks import mlp
from robotrl.normalizer import Normalizer
from robotrl.returns import compute_gae

_ROUNDING = 1e-9  # the KL of a policy with itself is not exactly 0

Unit = Annotated[float, Field(ge=0, le=1)]
Layers = Annotated[list[Annotated[int, Field(ge=1, le=16384)]], Field(max_length=16)]


class VectorEnv(Protocol):
    """What an algorithm needs of an environment; see `envs.vector_env`."""

    num_envs: int

    def step(
        self, action: Tensor
    ) -> tuple[dict[str, Tensor], Tensor, Tensor, Tensor, dict[str, Any]]:
        """Observation, reward, terminated, truncated, info."""
        ...


class PPOConfig(Section):
    """Hyper-parameters."""

    name: Literal["ppo"] = "ppo"
    rollout_steps: Annotated[int, Field(ge=1, le=100_000)] = 32
    """Steps per environment between updates."""
    epochs: Annotated[int, Field(ge=1, le=1000)] = 4
    """Passes over each rollout."""
    minibatches: Annotated[int, Field(ge=1, le=100_000)] = 4
    """Parts a pass is split into."""
    learning_rate: Annotated[float, Field(ge=1e-12, le=1)] = 1e-3
    """Initial learning rate."""
    desired_kl: Annotated[float, Field(ge=0, le=100)] = 0.01
    """The learning rate adapts to this KL per minibatch; 0 keeps it fixed."""
    gamma: Unit = 0.97
    """Discount factor."""
    gae_lambda: Unit = 0.95
    """Trace decay of the advantage estimate."""
    clip_range: Annotated[float, Field(gt=0, le=10)] = 0.2
    """Clip of the probability ratio."""
    value_coef: Annotated[float, Field(ge=0, le=1000)] = 1.0
    """Weight of the value loss."""
    entropy_coef: Annotated[float, Field(ge=0, le=1000)] = 0.002
    """Weight of the entropy bonus."""
    max_grad_norm: Annotated[float, Field(gt=0, le=1e6)] = 1.0
    """Clip of the gradient norm."""
    initial_std: Annotated[float, Field(ge=1e-3, le=10)] = 0.8
    """Standard deviation before tanh at the start."""
    actor_hidden: Layers = [128, 128]
    """Hidden layers of the actor."""
    critic_hidden: Layers = [128, 128]
    """Hidden layers of the critic."""


class Policy(nn.Module):
    """The actor: normaliser, network and a state-independent standard deviation."""

    def __init__(self, observation_size: int, num_actions: int, config: PPOConfig):
        super().__init__()
        self.normalizer = Normalizer(observation_size)
        self.network = mlp([observation_size, *config.actor_hidden, num_actions], output_gain=0.01)
        self.log_std = nn.Parameter(torch.full((num_actions,), config.initial_std).log())

    def forward(self, observation: Tensor) -> Tensor:
        """The deterministic action tanh(mean), (..., num_actions) in (-1, 1)."""
        return torch.tanh(self.network(self.normalizer(observation)))


class Rollout(NamedTuple):
    """What was collected, (T, B, ...) each; observations are normalised."""

    actor: Tensor
    critic: Tensor
    raw: dict[str, Tensor]
    """Observations as they came, for the normalisers."""
    pre_tanh: Tensor
    mean: Tensor
    log_prob: Tensor
    values: Tensor
    advantages: Tensor
    info: dict[str, Tensor]
    """Mean of each reward term; all values of each metric."""


class PPO:
    """See the module docstring.

    Args:
        config: hyper-parameters.
        observation_sizes: of `actor` and `critic`.
        num_actions: size of the action.
        seed: of initial weights, action noise and minibatch order.
    """

    def __init__(
        self, config: PPOConfig, observation_sizes: dict[str, int], num_actions: int, *, seed: int
    ):
        self.config = config
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            self.policy = Policy(observation_sizes["actor"], num_actions, config)
            self.critic = mlp(
                [observation_sizes["critic"], *config.critic_hidden, 1], output_gain=1.0
            )
        self.critic_normalizer = Normalizer(observation_sizes["critic"])
        self.return_normalizer = Normalizer(1)
        self._generator = torch.Generator().manual_seed(seed)
        self._optimizer = torch.optim.Adam(
            [*self.policy.parameters(), *self.critic.parameters()],
            lr=config.learning_rate,
            eps=1e-5,
            fused=True,
        )

    @property
    def learning_rate(self) -> float:
        """The current learning rate."""
        return self._optimizer.param_groups[0]["lr"]

    @torch.no_grad()
    def collect(
        self, env: VectorEnv, observation: dict[str, Tensor]
    ) -> tuple[Rollout, dict[str, Tensor]]:
        """Act for `rollout_steps` and estimate advantages.

        Args:
            env: the environment.
            observation: its latest observation.

        Returns:
            The rollout and the observation that follows it.
        """
        steps, log_std = self.config.rollout_steps, self.policy.log_std
        if not self.policy.normalizer.count:  # the first rollout has no statistics yet
            self._absorb(observation)
        raw: dict[str, list[Tensor]] = {"actor": [], "critic": []}
        columns: dict[str, list[Tensor]] = {}
        final_rows, final_critic = [], []
        terms: dict[str, list[Tensor]] = {}
        for step in range(steps):
            actor = self.policy.normalizer(observation["actor"])
            mean = self.policy.network(actor)
            u = distributions.sample(mean, log_std, self._generator)
            for name, value in observation.items():
                raw[name].append(value)
            observation, reward, terminated, truncated, info = env.step(torch.tanh(u))
            record = {
                "actor": actor,
                "pre_tanh": u,
                "mean": mean,
                "reward": reward,
                "terminated": terminated,
                "truncated": truncated,
            }
            for name, value in record.items():
                columns.setdefault(name, []).append(value)
            final_rows.append(info["done"] + step * env.num_envs)
            final_critic.append(info["final_critic"])
            for name, value in info["rewards"].items():
                terms.setdefault(f"reward/{name}", []).append(value.mean())
            for name, value in info["metrics"].items():
                terms.setdefault(name, []).append(value)
        data = {name: torch.stack(values) for name, values in columns.items()}
        raw_data = {name: torch.stack(values) for name, values in raw.items()}

        critic = self.critic_normalizer(raw_data["critic"])
        following = torch.cat([critic[1:], self.critic_normalizer(observation["critic"])[None]])
        rows = torch.cat(final_rows)
        following.view(-1, following.shape[-1])[rows] = self.critic_normalizer(
            torch.cat(final_critic)
        )
        values = self.return_normalizer.inverse(self.critic(critic)).squeeze(-1)
        next_values = self.return_normalizer.inverse(self.critic(following)).squeeze(-1)
        advantages = compute_gae(
            data["reward"],
            values,
            next_values,
            data["terminated"],
            data["truncated"],
            gamma=self.config.gamma,
            gae_lambda=self.config.gae_lambda,
        )
        rollout = Rollout(
            actor=data["actor"],
            critic=critic,
            raw=raw_data,
            pre_tanh=data["pre_tanh"],
            mean=data["mean"],
            log_prob=distributions.log_prob(data["pre_tanh"], data["mean"], log_std),
            values=values,
            advantages=advantages,
            info={name: torch.cat([v.reshape(-1) for v in value]) for name, value in terms.items()},
        )
        return rollout, observation

    def update(self, rollout: Rollout) -> dict[str, float]:
        """Learn from a rollout; returns the mean of each loss and diagnostic."""
        config = self.config
        batch = {
            name: getattr(rollout, name).flatten(0, 1)
            for name in ("actor", "critic", "pre_tanh", "mean", "log_prob", "values", "advantages")
        }
        returns = (batch["values"] + batch["advantages"])[:, None]
        if not self.return_normalizer.count:  # the first rollout has no statistics yet
            self.return_normalizer.update(returns)
        batch["targets"] = self.return_normalizer(returns).squeeze(-1)
        advantages = batch["advantages"]
        spread = advantages.std(correction=0) + 1e-8
        batch["advantages"] = (advantages - advantages.mean()) / spread
        old_log_std = self.policy.log_std.detach().clone()
        size = len(advantages)
        minibatches = min(config.minibatches, size)
        sums: dict[str, Tensor] = {}
        for _ in range(config.epochs):
            order = torch.randperm(size, generator=self._generator)
            for index in order.tensor_split(minibatches):
                part = {name: value[index] for name, value in batch.items()}
                for name, value in self._step(part, old_log_std).items():
                    sums[name] = sums.get(name, torch.zeros(())) + value
        self._absorb(rollout.raw)
        self.return_normalizer.update(returns)
        updates = config.epochs * minibatches
        return {name: float(value) / updates for name, value in sums.items()}

    def state_dict(self) -> dict[str, Any]:
        """Weights, statistics, optimiser and generator."""
        return {
            "policy": self.policy.state_dict(),
            "critic": self.critic.state_dict(),
            "critic_normalizer": self.critic_normalizer.state_dict(),
            "return_normalizer": self.return_normalizer.state_dict(),
            "optimizer": self._optimizer.state_dict(),
            "generator": self._generator.get_state(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        self.policy.load_state_dict(state["policy"])
        self.critic.load_state_dict(state["critic"])
        self.critic_normalizer.load_state_dict(state["critic_normalizer"])
        self.return_normalizer.load_state_dict(state["return_normalizer"])
        self._optimizer.load_state_dict(state["optimizer"])
        self._generator.set_state(state["generator"])

    def _step(self, batch: dict[str, Tensor], old_log_std: Tensor) -> dict[str, Tensor]:
        """One gradient step on a minibatch; returns losses and diagnostics."""
        config, log_std = self.config, self.policy.log_std
        mean = self.policy.network(batch["actor"])
        with torch.no_grad():
            kl = distributions.kl_divergence(batch["mean"], old_log_std, mean, log_std).mean()
        self._adapt_learning_rate(float(kl))

        log_prob = distributions.log_prob(batch["pre_tanh"], mean, log_std)
        ratio = (log_prob - batch["log_prob"]).exp()
        clipped = ratio.clamp(1 - config.clip_range, 1 + config.clip_range)
        advantages = batch["advantages"]
        policy_loss = -torch.minimum(ratio * advantages, clipped * advantages).mean()
        value = self.critic(batch["critic"]).squeeze(-1)
        value_loss = (value - batch["targets"]).square().mean()
        noise = torch.randn(mean.shape, generator=self._generator)
        entropy = distributions.entropy(mean, log_std, noise).mean()
        loss = policy_loss + config.value_coef * value_loss - config.entropy_coef * entropy

        self._optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(self.policy.parameters(), config.max_grad_norm)
        nn.utils.clip_grad_norm_(self.critic.parameters(), config.max_grad_norm)
        self._optimizer.step()
        return {
            "loss/policy": policy_loss.detach(),
            "loss/value": value_loss.detach(),
            "policy/entropy": entropy.detach(),
            "policy/kl": kl,
            "policy/clip_fraction": (ratio != clipped).float().mean(),
            "policy/std": log_std.detach().exp().mean(),
        }

    def _adapt_learning_rate(self, kl: float) -> None:
        desired = self.config.desired_kl
        if not desired:
            return
        rate = self.learning_rate
        if kl > 2 * desired:
            rate = max(1e-5, rate / 1.5)
        elif _ROUNDING < kl < desired / 2:
            rate = min(1e-2, rate * 1.5)
        for group in self._optimizer.param_groups:
            group["lr"] = rate

    def _absorb(self, observation: dict[str, Tensor]) -> None:
        self.policy.normalizer.update(observation["actor"])
        self.critic_normalizer.update(observation["critic"])
