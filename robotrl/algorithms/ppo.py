"""PPO with a squashed Gaussian policy (Schulman et al. 2017, arXiv 1707.06347).

    ppo = PPO(PPOConfig(), env.observation_sizes, env.num_actions, seed=0)
    step = env.step(ppo.act(observation))
    losses = ppo.learn(step)                  # with every `rollout_steps`-th step; else nothing

Choices: the ratio is taken at the stored pre-tanh sample, where the Jacobian of tanh cancels. The
learning rate is fixed, or falls linearly. Observations are normalised with the statistics that the
rollout was collected with, which absorb it afterwards; value targets with statistics that already
know them, and the critic's predictions do not move with those (van Hasselt et al. 2016, arXiv
1602.07714). The actor sees signals only, the critic may see more. They share no weight and are
clipped separately, and who acts needs no critic: where that pays it learns in a thread of its own
while the next rollout is collected, and the bits are the same. What is not finite raises
`TrainingError` instead of being learned from. Returns on Gymnasium's tasks: configs/bench/ppo.yaml,
and the README's table.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Annotated, Any, ClassVar, Literal, NamedTuple

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from deploy.configuration import Section
from deploy.errors import ConfigError
from envs.mirror import Mirror
from envs.vector_env import Step
from envs.worlds import all_finite, choose
from robotrl.algorithms import distributions, parallel
from robotrl.algorithms.algorithm import (
    Layers,
    Rate,
    Unit,
    Whole,
    Width,
    report,
    require_finite,
    require_mirror,
)
from robotrl.algorithms.descent import Descent
from robotrl.algorithms.networks import Backpropagation, mlp
from robotrl.algorithms.normalizer import Normalizer
from robotrl.algorithms.optimizer import ClippedAdam, begin
from robotrl.algorithms.policy import Policy
from robotrl.algorithms.products import ROWS, held
from robotrl.algorithms.recurrent import gru, unroll
from robotrl.algorithms.returns import compute_gae

LARGE = 2e7
"""Rows times weights of a minibatch from which the critic learns in a thread of its own; a step
then takes about a millisecond, of which little is Python."""

ACTIVATIONS: dict[str, type[nn.Module]] = {"silu": nn.SiLU, "tanh": nn.Tanh}


class PPOConfig(Section):
    """Hyper-parameters."""

    name: Literal["ppo"] = "ppo"
    rollout_steps: Annotated[int, Field(ge=1, le=100_000)] = 32
    """Steps per environment between updates."""
    epochs: Annotated[int, Field(ge=1, le=1000)] = 4
    """Passes over each rollout."""
    minibatches: Annotated[int, Field(ge=1, le=100_000)] = 4
    """Parts a pass is split into, as equal as can be: sizes differ by one row at most."""
    learning_rate: Rate = 3e-4
    """Step size of Adam, for actor and critic."""
    anneal_steps: Annotated[float, Field(gt=0, le=1e15)] | None = None
    """Environment steps over which learning rate and entropy bonus fall to a tenth, linearly, and
    the standard deviation to `final_std`; by default they stay."""
    gamma: Unit = 0.97
    """Discount factor."""
    gae_lambda: Unit = 0.95
    """Trace decay of the advantage estimate."""
    reward_centering: Unit = 0.0
    """How fast the average reward that is taken off every reward follows that of each rollout
    (Naik et al. 2024, arXiv 2405.09999); 0: nothing is. All values are then less by average /
    (1 - gamma), with a gamma near 1 nearly all there is, which the critic need not learn. For tasks
    that cannot fail: as there are no rewards after a failure, it would have to learn that there."""
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
    min_std: Annotated[float, Field(ge=1e-3, le=10)] = 1e-3
    """Its smallest value. Where noise fades, rare states are hardly seen any more, what to do in
    them may be forgotten: InvertedDoublePendulum-v5, learned with noise that fades to 0.05, falls
    from 30 % of its starts after 1 M steps, with 0.2 from 3 % (3 seeds, 128 starts each)."""
    observation_clip: Annotated[float, Field(ge=1, le=1e6)] = 10.0
    """How far a normalised observation goes from 0."""
    sparse_observations: bool = False
    """Whether numbers that are zero at times, as contact forces are, are divided by more than a
    standard deviation, of which they would be many away whenever something is touched; see
    `Normalizer`. Ant-v5 is learned better so (README)."""
    actor_hidden: Layers = [128, 128]
    """Hidden layers of the actor."""
    recurrent: Width | None = None
    """Units of a memory (GRU) that the actor has beside its observation; null for none. It is
    learned by going back through time to the start of the rollout, from minibatches of worlds."""
    critic_hidden: Layers = [128, 128]
    """Hidden layers of the critic."""
    activation: Literal["silu", "tanh"] = "silu"
    """Between the layers of both. Gymnasium's Hopper, Walker2d and Ant learn much more with tanh
    (README); our robots are trained with SiLU, which costs about the same."""
    compile_after: Annotated[Whole, Field(ge=0, le=10**15)] | None = None
    """Environment steps after which updates are compiled to machine code, on a CPU with a C++
    compiler and in one process; null: never. It takes ten to twenty seconds, then small networks
    learn in half the time, the critic beside the actor, so one thread of torch for each is enough;
    large networks gain little. Also `loss/value` is then told an update later."""
    symmetry: bool = False
    """Whether half of what is learned from is replaced by its mirror image, left for right (Mittal
    et al. 2024, arXiv 2403.04359); for tasks that have one."""

    PARALLEL: ClassVar[bool] = True
    FIXED: ClassVar = frozenset(
        {
            *("rollout_steps", "initial_std", "actor_hidden", "recurrent", "critic_hidden"),
            *("activation", "observation_clip", "sparse_observations", "reward_centering"),
        }
    )
    MEANING: ClassVar = frozenset(
        {"activation", "observation_clip", "sparse_observations", "reward_centering"}
    )

    @model_validator(mode="after")
    def _check(self) -> "PPOConfig":
        if self.reward_centering and self.gamma == 1:
            raise ValueError(
                f"reward_centering is {self.reward_centering} with a gamma of 1, where a sum of "
                "rewards has no end; choose a gamma below 1, such as 0.9999"
            )
        most = min(self.initial_std, self.final_std)
        if self.min_std > most:
            raise ValueError(
                f"min_std is {self.min_std}, expected at most {most}, the smaller of initial_std "
                "and final_std; lower it, or raise that one"
            )
        if self.compile_after is not None and self.recurrent:
            raise ValueError(
                f"compile_after is {self.compile_after} with a memory of {self.recurrent} units, "
                "whose gradient is not one that is compiled; set one of the two to null"
            )
        return self

    @property
    def iteration_steps(self) -> int:
        """See `AlgorithmConfig`."""
        return self.rollout_steps

    def check_worlds(self, num_envs: int) -> None:
        """See `AlgorithmConfig`."""
        if self.recurrent and parallel.processes() > 1:
            raise ConfigError(
                f"algorithm.recurrent: {self.recurrent} units with {parallel.processes()} "
                "processes, expected one process; start `robotrl train` without torchrun, or set "
                "it to null"
            )
        if self.recurrent and self.minibatches > num_envs:
            raise ConfigError(
                f"algorithm.minibatches: {self.minibatches} parts of {num_envs} worlds, which a "
                f"policy with a memory sees as a whole, expected {num_envs} or fewer; lower it, or "
                "raise num_envs"
            )
        rows = self.rollout_steps * num_envs
        found = (
            f"algorithm.minibatches: {self.minibatches} parts of {rows} rows ({num_envs} worlds × "
            f"{self.rollout_steps} steps)"
        )
        if self.minibatches > rows:
            raise ConfigError(
                f"{found}, expected {rows} or fewer; lower it, or raise num_envs or "
                "algorithm.rollout_steps"
            )
        if self.compile_after is not None and rows % self.minibatches:
            raise ConfigError(
                f"{found} are not of one size, as compile_after has it; choose a divisor, or set "
                "that to null"
            )

    def largest_product(self, num_envs: int) -> int:
        """See `AlgorithmConfig`."""
        width = max([*self.actor_hidden, *self.critic_hidden], default=1)
        return self.rollout_steps * num_envs // self.minibatches * width**2

    def new_policy(self, observation_size: int, num_actions: int) -> "PPOPolicy":
        """See `AlgorithmConfig`."""
        return PPOPolicy(observation_size, num_actions, self)

    def learner(
        self, observation_sizes: Mapping[str, int], num_actions: int, **settings: Any
    ) -> "PPO":
        """See `AlgorithmConfig`."""
        return PPO(self, observation_sizes, num_actions, **settings)


class PPOPolicy(Policy):
    """The actor, with a standard deviation that is the same everywhere."""

    def __init__(self, observation_size: int, num_actions: int, config: PPOConfig):
        units = config.recurrent
        sizes = [observation_size + (units or 0), *config.actor_hidden, num_actions]
        cell = gru(observation_size, units) if units else None
        between = ACTIVATIONS[config.activation]
        network = mlp(sizes, output_gain=0.01, activation=between)
        super().__init__(
            *(observation_size, network, cell),
            observation_clip=config.observation_clip,
            sparse_observations=config.sparse_observations,
        )
        self.log_std = nn.Parameter(torch.full((num_actions,), config.initial_std).log())


class Rollout(NamedTuple):
    """What was collected, (T, B, ...) each; observations are normalised."""

    actor: Tensor
    critic: Tensor
    """With what the actor remembered."""
    raw: dict[str, Tensor]
    """Observations as they came, for the normalisers."""
    pre_tanh: Tensor
    mean: Tensor
    log_prob: Tensor
    """Of `pre_tanh`; the Jacobian of tanh cancels in the ratio."""
    values: Tensor
    advantages: Tensor
    memory: Tensor | None = None
    """(T, 2, sides, B, units) of an actor with a memory, before and after each tick; of the worlds
    and, with symmetry, of their mirror images."""
    fresh: Tensor | None = None
    """(T, B) bool: ticks after the first with which an episode begins, and so does the memory."""


class _Acted(NamedTuple):
    """What an action came from, and what followed it; (B, ...) each."""

    observation: dict[str, Tensor]
    actor: Tensor
    mean: Tensor
    pre_tanh: Tensor
    memory: Tensor | None = None
    step: Step | None = None


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

    LEARNED: ClassVar[tuple[str, ...]] = (
        "policy",
        "critic",
        "critic_normalizer",
        "return_normalizer",
    )

    def __init__(
        self,
        config: PPOConfig,
        observation_sizes: Mapping[str, int],
        num_actions: int,
        *,
        seed: int,
        device: torch.device | str = "cpu",
        mirror: Mirror | None = None,
    ):
        require_mirror(config, mirror)
        self.config = config
        self.device = torch.device(device)
        self._mirror = mirror
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            self.policy = config.new_policy(observation_sizes["actor"], num_actions)
            critic_sees = observation_sizes["critic"] + (config.recurrent or 0)
            self.critic = mlp(
                [critic_sees, *config.critic_hidden, 1],
                output_gain=1.0,
                activation=ACTIVATIONS[config.activation],
            )
        self.critic_normalizer = Normalizer(
            observation_sizes["critic"],
            clip=config.observation_clip,
            sparse=config.sparse_observations,
        )
        self.return_normalizer = Normalizer(1, clip=math.inf)  # rare large returns count in full
        for module in (self.policy, self.critic, self.critic_normalizer, self.return_normalizer):
            module.to(self.device)
        self._generator = torch.Generator(self.device).manual_seed(seed)
        self._steps = 0
        """Environment steps that were learned from."""
        self._actor_step = ClippedAdam(self.policy, config.learning_rate, config.max_grad_norm)
        self._critic_step = ClippedAdam(self.critic, config.learning_rate, config.max_grad_norm)
        self._actor = Backpropagation(self.policy.network)
        self._critic = Backpropagation(self.critic)
        found = ("loss/policy", "policy/clip_fraction")
        self._actor_descent = Descent(self._actor_gradient, self._actor_step, found)
        self._critic_descent = Descent(self._critic_gradient, self._critic_step, ("loss/value",))
        self._columns = [observation_sizes["actor"], num_actions, 1, 1]
        """Of what the actor learns from: what it saw and did, log density, advantage, memory."""
        if config.recurrent:
            self._columns.append(1 + config.recurrent)
        self._parts = {
            "policy": self.policy,
            "critic": self.critic,
            "critic_normalizer": self.critic_normalizer,
            "return_normalizer": self.return_normalizer,
            "actor_step": self._actor_step,
            "critic_step": self._critic_step,
        }
        self._learning: Callable[[], dict[str, Tensor]] | None = None
        """Waits for what the critic learns; None: it does not."""
        self._of_critic = {"loss/value": math.nan}
        """What it learned last."""
        self._normalized = self.policy.normalizer.frozen()
        """What the actor sees of an observation, in this rollout."""
        self._taken: list[_Acted] = []
        self._memory: Tensor | None = None
        """(sides, B, units) before the next tick; None: nothing is remembered yet."""
        self._average_reward: Tensor | None = None
        """What is taken off rewards; None: nothing was collected yet."""

    @torch.no_grad()
    def act(self, observation: dict[str, Tensor]) -> Tensor:
        """See `Algorithm`."""
        if not self._taken:
            self._normalized = self.policy.normalizer.frozen()
        actor = self._normalized(observation["actor"])
        seen, memory = actor, None
        if self.policy.cell is not None:
            memory = self._remember(observation["actor"])
            seen = torch.cat([actor, memory[1, 0]], dim=-1)
        mean, _ = self._actor.trace(seen)
        u = mean + self.policy.log_std.exp() * self._noise(mean, len(mean))
        self._acted = _Acted(observation, actor, mean, u, memory)
        # the environment would refuse it, not saying why; to ask a GPU would be to wait for it
        if self.device.type == "cpu" and not all_finite(u):
            acted = [*self._taken, self._acted]
            require_finite(
                {
                    f"the {name}'s observation": torch.stack([a.observation[name] for a in acted])
                    for name in observation
                }
                | {"the action": torch.stack([each.pre_tanh for each in acted])},
                of_rollout=True,
            )
        return torch.tanh(u)

    def learn(self, step: Step) -> dict[str, float]:
        """See `Algorithm`."""
        self.store(step)
        return self.update(self.rollout()) if len(self._taken) == self.config.rollout_steps else {}

    def store(self, step: Step) -> None:
        """Keep what followed the latest actions."""
        self._taken.append(self._acted._replace(step=step))
        if self._acted.memory is not None:
            ended = step.terminated | step.truncated
            self._memory = self._acted.memory[1].masked_fill(ended[:, None], 0)

    @torch.no_grad()
    def rollout(self) -> Rollout:
        """What was stored, with advantages; nothing is stored then.

        Raises:
            TrainingError: an observation, a reward or a value is not finite.
        """
        self._await_critic()
        taken, self._taken = self._taken, []
        steps = [each.step for each in taken if each.step]
        raw = {
            name: torch.stack([each.observation[name] for each in taken])
            for name in taken[0].observation
        }
        actor, mean, pre_tanh = (
            torch.stack([getattr(each, name) for each in taken])
            for name in ("actor", "mean", "pre_tanh")
        )
        rewards, terminated, truncated = (
            torch.stack([getattr(step, name) for step in steps])
            for name in ("reward", "terminated", "truncated")
        )
        following = {
            name: torch.stack([step.info.final_observation[name] for step in steps])
            for name in ("critic", *(["actor"] if self.config.recurrent else []))
        }
        critic, memory, ends = self.critic_normalizer(raw["critic"]), None, terminated | truncated
        if self.config.recurrent:
            memory = torch.stack([each.memory for each in taken if each.memory is not None])
            following["memory"] = memory[:, 1, 0]
            critic = torch.cat([critic, memory[:, 1, 0]], dim=-1)

        last = self._followed({name: rows[-1] for name, rows in following.items()})
        values = self._values(torch.cat([critic, last[None]]))
        next_values, values = values[1:].clone(), values[:-1]
        ended = choose(ends.flatten(), compact=self.device.type == "cpu")
        if not ended.none:  # else the next observation is the one that is acted on
            final = {name: ended.take(rows.flatten(0, 1)) for name, rows in following.items()}
            ended.put(next_values.view(-1), self._values(self._followed(final)))
        average, gamma = self._follow_average(rewards), self.config.gamma
        advantages = compute_gae(
            rewards - average,
            values,
            next_values,
            terminated,
            truncated,
            gamma=gamma,
            gae_lambda=self.config.gae_lambda,
            failure_value=-average / (1 - gamma) if gamma < 1 else 0.0,  # no rewards, for ever
        )
        require_finite(
            {
                "the actor's observation": raw["actor"],
                "the critic's observation": raw["critic"],
                "the action": pre_tanh,
                "the reward" + _culprits(steps): rewards,
                "the value": values,
                "the advantage (maybe by an episode's last observation)": advantages,
            },
            of_rollout=True,
        )
        return Rollout(
            actor=actor,
            critic=critic,
            raw=raw,
            pre_tanh=pre_tanh,
            mean=mean,
            log_prob=distributions.gaussian_log_prob(pre_tanh, mean, self.policy.log_std),
            values=values,
            advantages=advantages,
            memory=memory,
            fresh=torch.cat([torch.zeros_like(ends[:1]), ends[:-1]]),
        )

    @torch.no_grad()
    def update(self, rollout: Rollout) -> dict[str, float]:
        """Learn from a rollout.

        Returns:
            The mean of each loss and diagnostic, and the KL from the policy that collected to
            the one that results. Of a critic that learns aside, what it learned before.

        Raises:
            TrainingError: a loss or a weight is not finite; the learner is of no use any more.
        """
        of_critic = self._await_critic()
        if self.config.anneal_steps:
            for stepper in (self._actor_step, self._critic_step):
                stepper.learning_rate = self._share_left() * self.config.learning_rate
        batch = {
            name: getattr(rollout, name).flatten(0, 1)
            for name in ("actor", "critic", "pre_tanh", "mean", "log_prob", "values", "advantages")
        }
        returns = (batch["values"] + batch["advantages"])[:, None]
        self._absorb_returns(returns)
        targets = self.return_normalizer(returns)
        advantages = batch["advantages"]
        samples, center, var = parallel.moments(advantages)
        advantages = (advantages - center) / (var.sqrt() + 1e-8)
        if rollout.memory is not None:
            batch["past"] = _past(rollout, 0)
        seen = [batch[name] for name in ("actor", "past") if name in batch]
        old_log_std = self.policy.log_std.detach().clone()
        if self.config.symmetry:
            batch |= self._with_mirror_images(batch, rollout)
        num_envs = rollout.advantages.shape[1]
        parts = [parallel.own_part(part, num_envs) for part in self._minibatches(samples)]
        actor_batch = [batch["actor"], batch["pre_tanh"], batch["log_prob"], advantages]
        actor_batch += [batch[name] for name in ("past",) if name in batch]
        # of several processes, two threads would talk at once
        alone = parallel.processes() == 1 and self.device.type == "cpu"
        after = self.config.compile_after
        fast = alone and after is not None and self._steps >= after
        table = _beside((batch["critic"], targets))
        job = partial(self._critic_descent.learn, table, parts, fast=fast)
        aside = fast or (alone and self._is_large(parts[0].rows, num_envs))
        self._learning = begin(held(job) if aside else job, aside=aside)
        of_actor = self._learn_actor(_beside(actor_batch), parts, fast=fast)
        mean, log_std = self._means(*seen), self.policy.log_std
        kl = distributions.kl_divergence(batch["mean"], old_log_std, mean, log_std).mean()
        entropy = distributions.entropy(mean, log_std, self._noise(mean, num_envs)).mean()
        kl, entropy = parallel.total(torch.stack([kl, entropy])) / parallel.processes()
        losses = report(
            {
                **of_actor,
                "policy/kl": kl,
                "policy/entropy": entropy,
                "policy/std": log_std.exp().mean(),
            },
            {"actor": self.policy},
        )
        if not aside:
            of_critic = self._await_critic()
        self.policy.normalizer.update(rollout.raw["actor"])
        self.critic_normalizer.update(rollout.raw["critic"])
        self._steps += samples
        self._bound_noise()
        return losses | of_critic

    def state_dict(self) -> dict[str, Any]:
        """Weights, statistics, optimisers and generator.

        Raises:
            TrainingError: what the critic learned aside is not finite.
        """
        self._await_critic()
        return {
            "of_critic": self._of_critic,
            **{name: part.state_dict() for name, part in self._parts.items()},
            "memory": self._memory,
            "average_reward": self._average_reward,
            "generator": self._generator.get_state(),
            "steps": self._steps,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        self._await_critic()
        self._taken = []
        for name, part in self._parts.items():
            part.load_state_dict(state[name])
        self._of_critic = state.get("of_critic", self._of_critic)  # earlier versions kept none
        memory = state.get("memory")  # earlier versions had none
        self._memory = None if memory is None else memory.to(self.device)
        average = state.get("average_reward")  # likewise
        self._average_reward = None if average is None else average.to(self.device)
        self._generator.set_state(state["generator"])
        self._steps = state["steps"]

    def _learn_actor(
        self, table: Tensor, parts: Sequence[parallel.Part], *, fast: bool = False
    ) -> dict[str, Tensor]:
        """Steps on the surrogate and the entropy bonus; returns what they were, on average."""
        others: list[Sequence[Tensor]] = []
        if self.config.entropy_coef:
            worth = self._share_left() * self.config.entropy_coef
            noise = [self._randn(part.size)[part.places] for part in parts]
            others = [noise, [table.new_tensor(worth)] * len(parts)]
        return self._actor_descent.learn(table, parts, *others, fast=fast)

    def _actor_gradient(
        self, weights: Tensor | None, rows: Tensor, size: int, *bonus: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Of the surrogate, and of the entropy bonus if there is any; see `Descent`.

        A `bonus` is noise (n, actions) to measure entropy with, and what a unit of it is worth, ().
        """
        observation, u, log_prob, advantages, *past = rows.split(self._columns, dim=1)
        if weights is None:
            log_std, actor = self.policy.log_std.detach(), self._actor
        else:  # as the policy's parameters
            log_std, weights = weights.split([u.shape[1], len(weights) - u.shape[1]])
            actor = self._actor.of(weights)
        mean, gradient = self._traced(actor, observation, *past)
        loss, ratio, (of_mean, of_log_std) = surrogate(
            *(mean, log_std, u, log_prob, advantages),
            clip_range=self.config.clip_range,
            size=size,
        )
        if bonus:
            noise, worth = bonus
            slopes, coef = distributions.entropy_slopes(mean, log_std, noise), worth / size
            of_mean, of_log_std = of_mean - coef * slopes[0], of_log_std - coef * slopes[1]
        clipped = ((ratio - 1).abs() > self.config.clip_range).sum() / size
        return torch.stack([loss, clipped]), gradient(of_mean, of_log_std.sum(dim=0))

    def _await_critic(self) -> dict[str, float]:
        """What the critic learned last, once it has.

        Raises:
            TrainingError: it is not finite.
        """
        if self._learning:
            found, self._learning = self._learning(), None
            self._of_critic = report(found, {"critic": self.critic})
        return self._of_critic

    def _critic_gradient(
        self, weights: Tensor | None, rows: Tensor, size: int
    ) -> tuple[Tensor, Tensor]:
        """Of the squared error; see `Descent`."""
        critic = self._critic if weights is None else self._critic.of(weights)
        value, passed = critic.trace(rows[:, :-1])
        error = value - rows[:, -1:]
        slope = error * (2 * self.config.value_coef / size)
        return error.square().sum(dim=0) / size, critic.gradient(passed, slope)

    def _follow_average(self, rewards: Tensor) -> Tensor:
        """What is taken off rewards (T, B), with these among them; ()."""
        if not self.config.reward_centering:
            return rewards.new_zeros(())
        _, latest, _ = parallel.moments(rewards.flatten())
        known = latest if self._average_reward is None else self._average_reward
        self._average_reward = known.lerp(latest, self.config.reward_centering)
        return self._average_reward.to(rewards.dtype)

    def _remember(self, observation: Tensor) -> Tensor:
        """The memory of worlds, before and after this observation; (2, sides, B, units)."""
        assert self.policy.cell is not None
        sides = [observation]
        if self.config.symmetry:  # an image has lived through the image of the episode
            assert self._mirror is not None
            sides.append(observation @ self._mirror.actor.T.to(self.device))
        rows, before = self.policy.normalizer(torch.cat(sides)), self._memory
        if before is None:
            before = rows.new_zeros(len(sides), len(observation), self.policy.cell.hidden_size)
        after = self.policy.cell(rows, before.flatten(0, 1))
        return torch.stack([before, after.view_as(before)])

    def _followed(self, following: dict[str, Tensor]) -> Tensor:
        """What the critic sees of `critic` and `actor` observations after a tick and its `memory`.

        The value of a state depends on what an actor with a memory remembers in it, so its critic
        sees that too, and needs no memory of its own (Baisero and Amato 2022, arXiv 2105.11674).
        """
        critic = self.critic_normalizer(following["critic"])
        if self.policy.cell is None:
            return critic
        actor = self.policy.normalizer(following["actor"])
        return torch.cat([critic, self.policy.cell(actor, following["memory"])], dim=-1)

    def _traced(
        self, actor: Backpropagation, observation: Tensor, *past: Tensor
    ) -> tuple[Tensor, Callable[[Tensor, Tensor], Tensor]]:
        """See `_means`; and what tells the gradient, given a loss's slopes in them and in log σ."""
        if not past:
            mean, passed = actor.trace(observation)
            return mean, lambda of_mean, of_log_std: torch.cat(
                [of_log_std, actor.gradient(passed, of_mean)]  # as the policy's parameters
            )
        log_std = self.policy.log_std
        with torch.enable_grad():
            mean = self._means(observation, *past)
        return mean.detach(), lambda *slopes: self._actor_step.backward((mean, log_std), slopes)

    def _means(self, observation: Tensor, past: Tensor | None = None) -> Tensor:
        """Of rows; with a `_past`, of whole worlds, tick after tick."""
        if past is None or self.policy.cell is None:
            return self.policy.network(observation)
        ticks = self.config.rollout_steps
        x, past = (rows.unflatten(0, (ticks, -1)) for rows in (observation, past))
        memories = unroll(self.policy.cell, x, past[0, :, 1:], past[..., 0] > 0)
        return self.policy.network(torch.cat([x, memories], dim=-1).flatten(0, 1))

    @property
    def _together(self) -> int:
        """Rows that stay together, in minibatches and in the mirror: all ticks of a world."""
        return self.config.rollout_steps if self.config.recurrent else 1

    def _passed(self) -> float:
        """Share of `anneal_steps`."""
        over = self.config.anneal_steps
        return 0.0 if over is None else min(self._steps / over, 1.0)

    def _share_left(self) -> float:
        """Of learning rate and entropy bonus."""
        return 1 - 0.9 * self._passed()

    @torch.no_grad()
    def _bound_noise(self) -> None:
        """Bound the standard deviation, from above linearly from `initial_std` to `final_std`."""
        least, most = self.config.min_std, math.inf
        if self.config.anneal_steps:
            first, last = self.config.initial_std, self.config.final_std
            most = first + (last - first) * self._passed()
        self.policy.log_std.clamp_(math.log(least), math.log(most))

    def _values(self, critic: Tensor) -> Tensor:
        """Values [unit of reward] of normalised observations (..., n); (...,)."""
        return self.return_normalizer.inverse(self.critic(critic)).squeeze(-1)

    def _noise(self, mean: Tensor, num_envs: int) -> Tensor:
        """For every row of (steps · num_envs, actions)."""
        return parallel.own_rows(self._randn(len(mean) * parallel.processes()), num_envs)

    def _randn(self, rows: int) -> Tensor:
        shape = (rows, *self.policy.log_std.shape)
        return torch.randn(shape, generator=self._generator, device=self.device)

    def _is_large(self, part: Tensor, num_envs: int) -> bool:
        """Whether a step on these rows takes so long that a second thread is worth its price."""
        weights = sum(parameter.numel() for parameter in self.critic.parameters())
        return num_envs >= ROWS and len(part) * weights > LARGE

    def _minibatches(self, size: int) -> Iterator[Tensor]:
        """Indices into `size` samples: each epoch sees every sample once."""
        worlds = size // self._together
        ticks = torch.arange(0, size, worlds, device=self.device)[:, None]
        for _ in range(self.config.epochs):
            order = torch.randperm(worlds, generator=self._generator, device=self.device)
            for part in order.tensor_split(min(self.config.minibatches, worlds)):
                yield (ticks + part).flatten()

    @torch.no_grad()
    def _with_mirror_images(self, batch: dict[str, Tensor], rollout: Rollout) -> dict[str, Tensor]:
        """What networks see and do in a batch, a random half of the rows, or worlds, mirrored.

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
        if rollout.memory is not None:  # an image remembers the image of its episode
            images["past"] = _past(rollout, 1)
            after = rollout.memory[:, 1, 1].flatten(0, 1)
            images["critic"] = torch.cat([images["critic"], after], dim=-1)
        samples = len(batch["actor"]) * parallel.processes()
        drawn = (samples // self._together, 1)
        chance = torch.rand(drawn, generator=self._generator, device=self.device)
        chance = chance.repeat(self._together, 1)
        chance = parallel.own_rows(chance, rollout.advantages.shape[1])
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


def surrogate(
    mean: Tensor,
    log_std: Tensor,
    u: Tensor,
    log_prob: Tensor,
    advantages: Tensor,
    *,
    clip_range: float,
    size: int | None = None,
) -> tuple[Tensor, Tensor, tuple[Tensor, Tensor]]:
    """The clipped surrogate (eq. 7) as a loss, and its slopes, worked out by hand.

    By hand because autograd takes several times as many operations, and with small networks it is
    their number that costs.

    Args:
        mean: (n, actions) of the policy now, before tanh.
        log_std: (actions,) of the policy now.
        u: (n, actions) what was sampled, before tanh.
        log_prob: (n, 1) of `u` when it was sampled.
        advantages: (n, 1) normalised.
        clip_range: how far the ratio may go from 1.
        size: rows of the whole minibatch, if others are elsewhere; these give their share of it.

    Returns:
        The loss, the ratio (n, 1), and the slopes of the loss in `mean` and in each row's log σ,
        (n, actions) each.
    """
    scale = (-log_std).exp()
    normalised = (u - mean) * scale
    squares = normalised.square()
    constant = log_std.sum() + len(log_std) * distributions.HALF_LOG_2PI
    negative = torch.add(log_prob, squares.sum(dim=1, keepdim=True), alpha=0.5) + constant
    ratio = negative.neg_().exp_()
    gain = ratio * advantages
    clipped_gain = ratio.clamp(1 - clip_range, 1 + clip_range) * advantages
    size = size or len(u)
    loss = -torch.minimum(gain, clipped_gain).sum() / size
    slope = gain.masked_fill_(gain > clipped_gain, 0) / -size  # in the logarithm of the ratio
    return loss, ratio, (slope * normalised * scale, slope * (squares - 1))


def _past(rollout: Rollout, side: int) -> Tensor:
    """(T B, 1 + units): whether a tick begins an episode, and the memory before it.

    Args:
        rollout: of an actor with a memory.
        side: 0 for the worlds, 1 for their mirror images.
    """
    assert rollout.memory is not None and rollout.fresh is not None
    return torch.cat([rollout.fresh[..., None], rollout.memory[:, 0, side]], dim=-1).flatten(0, 1)


def _beside(tensors: Sequence[Tensor]) -> Tensor:
    """One table (n, columns), so that a minibatch is gathered at once."""
    return torch.cat([tensor.view(len(tensor), -1) for tensor in tensors], dim=1)


def _culprits(steps: Sequence[Step]) -> str:
    """The reward terms that are not finite, as ` (term, ...)`."""
    names = [
        name
        for name in steps[0].info.rewards
        if not torch.stack([step.info.rewards[name] for step in steps]).isfinite().all()
    ]
    return f" ({', '.join(names)})" if names else ""
