"""PPO with a squashed Gaussian policy (Schulman et al. 2017, arXiv 1707.06347).

    ppo = PPO(PPOConfig(), env.observation_sizes, env.num_actions, seed=0)
    observation = env.reset(stagger=True)
    rollout, observation = ppo.collect(env, observation)
    losses = ppo.update(rollout)

Choices: the ratio is taken at the stored pre-tanh sample, where the Jacobian of tanh cancels. The
learning rate is fixed, or falls linearly: following the KL in each minibatch cost a third of
HalfCheetah's return; on Hopper and Walker2d few seeds do not separate the rules
(tests/benchmarks/ppo.py and its CSV).
Observations are normalised with the statistics that the rollout was collected with, which absorb
it afterwards; value targets with statistics that already know them, and the critic's predictions
do not move with those (van Hasselt et al. 2016, arXiv 1602.07714). The actor sees signals only,
the critic may see more. Gradients of actor and critic are clipped separately. What is not finite
raises `TrainingError` instead of being learned from.
"""

import math
from collections.abc import Iterator
from typing import Annotated, Any, Literal, NamedTuple, Protocol

import torch
from pydantic import Field
from torch import Tensor, nn

from deploy.configuration import Section
from deploy.errors import ConfigError, DeployError
from envs.mirror import Mirror
from envs.vector_env import Step
from robotrl import distributions
from robotrl.networks import mlp
from robotrl.normalizer import Normalizer
from robotrl.returns import compute_gae

Unit = Annotated[float, Field(ge=0, le=1)]
Layers = Annotated[list[Annotated[int, Field(ge=1, le=16384)]], Field(max_length=16)]


class TrainingError(DeployError, ArithmeticError):
    """Something that is not a number came up: a reward, an observation, a loss, a weight."""


class VectorEnv(Protocol):
    """What an algorithm needs of an environment; see `envs.vector_env`."""

    num_envs: int

    def step(self, action: Tensor) -> Step:
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
    learning_rate: Annotated[float, Field(ge=1e-12, le=1)] = 3e-4
    """Step size of Adam, for actor and critic."""
    anneal_steps: Annotated[float, Field(gt=0, le=1e15)] | None = None
    """Environment steps over which learning rate and entropy bonus fall to a tenth, linearly, and
    the standard deviation to `final_std`; by default they stay."""
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
    final_std: Annotated[float, Field(ge=1e-3, le=10)] = 10.0
    """With `anneal_steps`, its largest value at the end. What was learned in spite of noise is done
    too fast without it: walking robots overspeed."""
    actor_hidden: Layers = [128, 128]
    """Hidden layers of the actor."""
    critic_hidden: Layers = [128, 128]
    """Hidden layers of the critic."""
    symmetry: bool = False
    """Whether half of what is learned from is replaced by its mirror image, left for right (Mittal
    et al. 2024, arXiv 2403.04359); for tasks that have one."""


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
        device: where it learns; that of the environment.
        mirror: of the task, if it is to learn with `symmetry`.
    """

    def __init__(
        self,
        config: PPOConfig,
        observation_sizes: dict[str, int],
        num_actions: int,
        *,
        seed: int,
        device: torch.device | str = "cpu",
        mirror: Mirror | None = None,
    ):
        if config.symmetry and mirror is None:
            raise ConfigError(
                "algorithm.symmetry: this task has no mirror image; leave symmetry out"
            )
        self.config = config
        self.device = torch.device(device)
        self._mirror = mirror
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            self.policy = Policy(observation_sizes["actor"], num_actions, config)
            self.critic = mlp(
                [observation_sizes["critic"], *config.critic_hidden, 1], output_gain=1.0
            )
        self.critic_normalizer = Normalizer(observation_sizes["critic"])
        self.return_normalizer = Normalizer(1, clip=math.inf)  # rare large returns count in full
        for module in (self.policy, self.critic, self.critic_normalizer, self.return_normalizer):
            module.to(self.device)
        self._generator = torch.Generator(self.device).manual_seed(seed)
        self._steps = 0
        """Environment steps that were learned from."""
        self._optimizer = torch.optim.Adam(
            [*self.policy.parameters(), *self.critic.parameters()],
            lr=config.learning_rate,
            eps=1e-5,
            fused=True,
        )

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

        Raises:
            TrainingError: an observation, a reward or a value is not finite.
        """
        steps, log_std = self.config.rollout_steps, self.policy.log_std
        raw: dict[str, list[Tensor]] = {"actor": [], "critic": []}
        columns: dict[str, list[Tensor]] = {}
        following, measured = [], []
        terms: dict[str, list[Tensor]] = {}
        metrics: dict[str, list[Tensor]] = {}
        for _ in range(steps):
            actor = self.policy.normalizer(observation["actor"])
            mean = self.policy.network(actor)
            u = distributions.sample(mean, log_std, self._generator)
            for name, value in observation.items():
                raw[name].append(value)
            # the environment would refuse it, not saying why; to ask a GPU would be to wait for it
            if self.device.type == "cpu" and not u.isfinite().all():
                seen = {f"the {name}'s observation": torch.stack(raw[name]) for name in raw}
                acted = torch.stack([*columns.get("pre_tanh", []), u])
                _require_finite(seen | {"the action": acted}, of_rollout=True)
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
            following.append(info.final_observation["critic"])
            for name, value in info.rewards.items():
                terms.setdefault(f"reward/{name}", []).append(value.mean())
            measured.append(info.measured)
            for name, value in info.metrics.items():
                metrics.setdefault(name, []).append(value)
        data = {name: torch.stack(values) for name, values in columns.items()}
        raw_data = {name: torch.stack(values) for name, values in raw.items()}

        critic = self.critic_normalizer(raw_data["critic"])
        next_critic = self.critic_normalizer(torch.stack(following))
        values = self.return_normalizer.inverse(self.critic(critic)).squeeze(-1)
        next_values = self.return_normalizer.inverse(self.critic(next_critic)).squeeze(-1)
        advantages = compute_gae(
            data["reward"],
            values,
            next_values,
            data["terminated"],
            data["truncated"],
            gamma=self.config.gamma,
            gae_lambda=self.config.gae_lambda,
        )
        counted = torch.stack(measured)
        info = {name: torch.stack(value) for name, value in terms.items()}
        info |= {name: torch.stack(value)[counted] for name, value in metrics.items()}
        rollout = Rollout(
            actor=data["actor"],
            critic=critic,
            raw=raw_data,
            pre_tanh=data["pre_tanh"],
            mean=data["mean"],
            log_prob=distributions.log_prob(data["pre_tanh"], data["mean"], log_std),
            values=values,
            advantages=advantages,
            info=info,
        )
        _require_finite(
            {
                "the actor's observation": raw_data["actor"],
                "the critic's observation": raw_data["critic"],
                "the action": rollout.pre_tanh,
                "the reward" + _culprits(rollout.info): data["reward"],
                "the value": values,
                "the advantage (maybe by an episode's last observation)": advantages,
            },
            of_rollout=True,
        )
        return rollout, observation

    def update(self, rollout: Rollout) -> dict[str, float]:
        """Learn from a rollout.

        Returns:
            The mean of each loss and diagnostic, and the KL from the policy that collected to
            the one that results.

        Raises:
            TrainingError: a loss or a weight is not finite; the learner is of no use any more.
        """
        if self.config.anneal_steps:
            for group in self._optimizer.param_groups:
                group["lr"] = self._share_left() * self.config.learning_rate
        batch = {
            name: getattr(rollout, name).flatten(0, 1)
            for name in ("actor", "critic", "pre_tanh", "mean", "log_prob", "values", "advantages")
        }
        returns = (batch["values"] + batch["advantages"])[:, None]
        self._absorb_returns(returns)
        batch["targets"] = self.return_normalizer(returns).squeeze(-1)
        advantages = batch["advantages"]
        spread = advantages.std(correction=0) + 1e-8
        batch["advantages"] = (advantages - advantages.mean()) / spread
        sampled = batch["actor"]
        if self.config.symmetry:
            batch |= self._with_mirror_images(batch, rollout)
        old_log_std = self.policy.log_std.detach().clone()
        steps = [
            self._step({name: value[index] for name, value in batch.items()})
            for index in self._minibatches(len(advantages))
        ]
        losses = {name: torch.stack([step[name] for step in steps]).mean() for name in steps[0]}
        with torch.no_grad():
            mean, log_std = self.policy.network(sampled), self.policy.log_std
            kl = distributions.kl_divergence(batch["mean"], old_log_std, mean, log_std).mean()
        losses |= {"policy/kl": kl, "policy/std": log_std.detach().exp().mean()}
        networks = {"actor": self.policy, "critic": self.critic}
        weights = {
            f"a weight of the {name}": nn.utils.parameters_to_vector(network.parameters())
            for name, network in networks.items()
        }
        _require_finite(losses | weights)
        self.policy.normalizer.update(rollout.raw["actor"])
        self.critic_normalizer.update(rollout.raw["critic"])
        self._steps += len(advantages)
        self._quieten()
        return {name: float(value) for name, value in losses.items()}

    def state_dict(self) -> dict[str, Any]:
        """Weights, statistics, optimiser and generator."""
        return {
            "policy": self.policy.state_dict(),
            "critic": self.critic.state_dict(),
            "critic_normalizer": self.critic_normalizer.state_dict(),
            "return_normalizer": self.return_normalizer.state_dict(),
            "optimizer": self._optimizer.state_dict(),
            "generator": self._generator.get_state(),
            "steps": self._steps,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        self.policy.load_state_dict(state["policy"])
        self.critic.load_state_dict(state["critic"])
        self.critic_normalizer.load_state_dict(state["critic_normalizer"])
        self.return_normalizer.load_state_dict(state["return_normalizer"])
        self._optimizer.load_state_dict(state["optimizer"])
        for group in self._optimizer.param_groups:  # a resumed run may have been given another
            group["lr"] = self.config.learning_rate
        self._steps = state.get("steps", 0)  # earlier versions kept none
        self._generator.set_state(state["generator"])

    def loss(self, batch: dict[str, Tensor], noise: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """The clipped surrogate (eq. 7), the value loss and the entropy bonus of a minibatch.

        Args:
            batch: `actor`, `critic`, `pre_tanh`, `log_prob` as in `Rollout`, but (n, ...) and with
                normalised `advantages` and value `targets`, (n,).
            noise: standard normal (n, actions), for the estimate of the entropy.

        Returns:
            The loss, and its parts and the clip fraction without gradients.
        """
        config, log_std = self.config, self.policy.log_std
        mean = self.policy.network(batch["actor"])
        ratio = (distributions.log_prob(batch["pre_tanh"], mean, log_std) - batch["log_prob"]).exp()
        clipped = ratio.clamp(1 - config.clip_range, 1 + config.clip_range)
        advantages = batch["advantages"]
        policy_loss = -torch.minimum(ratio * advantages, clipped * advantages).mean()
        value = self.critic(batch["critic"]).squeeze(-1)
        value_loss = (value - batch["targets"]).square().mean()
        entropy = distributions.entropy(mean, log_std, noise).mean()
        bonus = self._share_left() * config.entropy_coef * entropy
        loss = policy_loss + config.value_coef * value_loss - bonus
        return loss, {
            "loss/policy": policy_loss.detach(),
            "loss/value": value_loss.detach(),
            "policy/entropy": entropy.detach(),
            "policy/clip_fraction": (ratio != clipped).float().mean(),
        }

    def _passed(self) -> float:
        """Share of `anneal_steps`."""
        over = self.config.anneal_steps
        return 0.0 if over is None else min(self._steps / over, 1.0)

    def _share_left(self) -> float:
        """Of learning rate and entropy bonus."""
        return 1 - 0.9 * self._passed()

    @torch.no_grad()
    def _quieten(self) -> None:
        """Bound the standard deviation, linearly from `initial_std` to `final_std`."""
        if self.config.anneal_steps:
            first, last = self.config.initial_std, self.config.final_std
            bound = first + (last - first) * self._passed()
            self.policy.log_std.clamp_(max=math.log(bound))

    def _step(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """One gradient step on a minibatch; returns losses and diagnostics."""
        noise = torch.randn(batch["pre_tanh"].shape, generator=self._generator, device=self.device)
        loss, diagnostics = self.loss(batch, noise)
        self._optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(self.policy.parameters(), self.config.max_grad_norm)
        nn.utils.clip_grad_norm_(self.critic.parameters(), self.config.max_grad_norm)
        self._optimizer.step()
        return diagnostics

    def _minibatches(self, size: int) -> Iterator[Tensor]:
        """Indices into `size` samples: each epoch sees every sample once."""
        for _ in range(self.config.epochs):
            order = torch.randperm(size, generator=self._generator, device=self.device)
            yield from order.tensor_split(min(self.config.minibatches, size))

    @torch.no_grad()
    def _with_mirror_images(self, batch: dict[str, Tensor], rollout: Rollout) -> dict[str, Tensor]:
        """`actor`, `critic` and `pre_tanh` of a batch, a random half of the rows mirrored.

        Probability, value and advantage stay those of the sample, as the policy's image of a sample
        is as likely and as good where policy and task are symmetric.
        """
        assert self._mirror is not None
        actor, critic, action = (part.to(self.device) for part in self._mirror)
        images = {
            "actor": self.policy.normalizer(rollout.raw["actor"].flatten(0, 1) @ actor.T),
            "critic": self.critic_normalizer(rollout.raw["critic"].flatten(0, 1) @ critic.T),
            "pre_tanh": batch["pre_tanh"] @ action.T,
        }
        chance = torch.rand(len(batch["actor"]), 1, generator=self._generator, device=self.device)
        return {
            name: torch.where(chance < 0.5, image, batch[name]) for name, image in images.items()
        }

    @torch.no_grad()
    def _absorb_returns(self, returns: Tensor) -> None:
        """Update the statistics of returns; the critic's predictions [unit of reward] stay."""
        normalizer, last = self.return_normalizer, self.critic[-1]
        assert isinstance(last, nn.Linear)
        learned = bool(normalizer.count)  # before, the critic knows nothing that is worth keeping
        mean, std = normalizer.mean.clone(), normalizer.std
        normalizer.update(returns)
        if learned:
            last.weight.mul_(std / normalizer.std)
            last.bias.copy_((last.bias * std + mean - normalizer.mean) / normalizer.std)


def _culprits(info: dict[str, Tensor]) -> str:
    """The reward terms that are not finite, as ` (term, ...)`."""
    names = [
        name.removeprefix("reward/")
        for name, value in info.items()
        if name.startswith("reward/") and not value.isfinite().all()
    ]
    return f" ({', '.join(names)})" if names else ""


def _require_finite(tensors: dict[str, Tensor], *, of_rollout: bool = False) -> None:
    """Refuse NaN and infinity; a rollout's tensors (T, B, ...) are told by step and world."""
    for name, value in tensors.items():
        bad = ~value.isfinite()
        if bad.any():
            index = tuple(bad.nonzero()[0].tolist())
            place = f" in world {index[1]}, {index[0] + 1} steps on" if of_rollout else ""
            raise TrainingError(f"{name} is {value[index].item()}{place}")
