"""Soft actor-critic (Haarnoja et al. 2018, arXiv 1801.01290 and 1812.05905).

    sac = SAC(SACConfig(), env.observation_sizes, env.num_actions, seed=0)
    step = env.step(sac.act(observation))
    losses = sac.learn(step)                  # with every `iteration_steps`-th step; else nothing

Choices: critics are one batched module. More than two of them are used as REDQ does: targets from a
random pair, the actor follows the mean (arXiv 2101.05982). Critics and actor take their steps from
where both are, at once. The temperature holds the entropy at that of a Gaussian of `target_std` in
the unit action space, so it means the same for any number of joints. Observations are stored as
they came and normalised when they are learned from. The first actions are uniform. Half of a batch
may come from demonstrations (Ball et al. 2023, arXiv 2302.02948).
Thousands of worlds ask for large batches, few updates and critics that learn a distribution:
batch_size 8192, updates_per_step 0.002, atoms 101, initial_alpha 0.001 are where the field starts
(arXiv 2512.01996); here only the rules are tested, not such a run.
"""

import copy
import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import torch
from pydantic import Field, field_validator
from torch import Tensor, nn

from deploy.configuration import Section
from envs.mirror import Mirror
from envs.vector_env import Step
from robotrl.algorithms import distributions
from robotrl.algorithms.algorithm import (
    Layers,
    Rate,
    Unit,
    Whole,
    report,
    require_finite,
    require_mirror,
)
from robotrl.algorithms.machine_code import compiled
from robotrl.algorithms.networks import Backpropagation, CriticEnsemble, mlp
from robotrl.algorithms.normalizer import Normalizer
from robotrl.algorithms.optimizer import ClippedAdam, one_vector
from robotrl.algorithms.policy import Policy
from robotrl.algorithms.replay import Batch, Replay, require_room
from robotrl.algorithms.value_heads import CategoricalHead, ScalarHead, ValueHead

_LOG_STD_LOW, _LOG_STD_SPAN = -5.0, 7.0


class SACConfig(Section):
    """Hyper-parameters."""

    name: Literal["sac"] = "sac"
    iteration_steps: Annotated[int, Field(ge=1, le=1_000_000)] = 500
    """Steps per environment from one line of metrics to the next."""
    learning_starts: Annotated[Whole, Field(ge=1, le=10**9)] = 5000
    """Steps of all environments, with uniform actions, before anything is learned."""
    buffer_size: Annotated[Whole, Field(ge=3, le=10**9)] = 1_000_000
    """Most recent steps of all environments that are learned from."""
    batch_size: Annotated[int, Field(ge=1, le=1_000_000)] = 256
    """Transitions in an update."""
    updates_per_step: Annotated[float, Field(gt=0, le=100)] = 1.0
    """Updates for each step of an environment, the update-to-data ratio."""
    learning_rate: Rate = 3e-4
    """Step size of Adam, for actor, critics and temperature."""
    gamma: Unit = 0.99
    """Discount factor."""
    n_step: Annotated[int, Field(ge=1, le=1000)] = 1
    """Steps whose rewards are summed before the critic is asked."""
    tau: Annotated[float, Field(gt=0, le=1)] = 0.005
    """Share of the critics that their targets take over with each update."""
    critics: Annotated[int, Field(ge=1, le=100)] = 2
    """Number of critics."""
    atoms: Annotated[int, Field(ge=1, le=1001)] = 1
    """Outputs of a critic: 1 for the expected return; more, 101 say, for the probabilities of as
    many returns, which suits large batches from thousands of worlds."""
    value_limit: Annotated[float, Field(ge=1e-3, le=1e6)] = 20.0
    """Largest return of those, and the negative of the least; with `atoms`."""
    target_std: Annotated[float, Field(ge=1e-3, le=0.8)] = 0.15
    """Standard deviation, in the unit action space, of the Gaussian whose entropy the policy keeps;
    0.15 is -1/2 per action. With 0.09, the -1 of Haarnoja et al., HalfCheetah-v5 learns less."""
    initial_alpha: Annotated[float, Field(ge=1e-6, le=100)] = 1.0
    """Temperature at the start; 0.001 to 0.01 suits many environments at once."""
    backup_entropy: bool = True
    """Whether values count the entropy to come."""
    actor_hidden: Layers = [256, 256]
    """Hidden layers of the actor."""
    critic_hidden: Layers = [256, 256]
    """Hidden layers of each critic."""
    layer_norm: bool = False
    """Whether critics have LayerNorm before each ReLU, which keeps their values within reason where
    much is learned from little (Ball et al.). With one update for each step it only slows them:
    HalfCheetah-v5 then takes twice the steps."""
    compile_after: Annotated[Whole, Field(ge=0, le=10**9)] | None = 5000
    """Updates after which the next are compiled to machine code, if a C++ compiler is there: it
    takes ten seconds, then an update takes two thirds of its time; null: never."""
    symmetry: bool = False
    """Whether half of what is learned from is replaced by its mirror image."""
    demonstrations: Path | None = None
    """File of `robotrl eval RUN --record FILE`: half of every batch comes from it (Ball et al.);
    critics 10, updates_per_step 2 or more and layer_norm make the most of it."""

    PARALLEL: ClassVar[bool] = False
    FIXED: ClassVar = frozenset(
        {
            *("iteration_steps", "buffer_size", "actor_hidden", "critic_hidden"),
            *("critics", "atoms", "value_limit", "layer_norm", "demonstrations"),
        }
    )
    MEANING: ClassVar = frozenset({"value_limit", "layer_norm"})

    @field_validator("demonstrations")
    @classmethod
    def _absolute(cls, path: Path | None) -> Path | None:
        """A run goes on from any folder."""
        return path and path.absolute()

    def check_worlds(self, num_envs: int) -> None:
        """See `AlgorithmConfig`."""
        require_room(self.buffer_size, num_envs)

    def largest_product(self, num_envs: int) -> int:
        """See `AlgorithmConfig`."""
        width = max([*self.actor_hidden, *self.critic_hidden], default=1)
        return self.batch_size * width**2

    def new_policy(self, observation_size: int, num_actions: int) -> "SACPolicy":
        """See `AlgorithmConfig`."""
        return SACPolicy(observation_size, num_actions, self)

    def learner(
        self, observation_sizes: Mapping[str, int], num_actions: int, **settings: Any
    ) -> "SAC":
        """See `AlgorithmConfig`."""
        return SAC(self, observation_sizes, num_actions, **settings)


class SACPolicy(Policy):
    """The actor, with a standard deviation that depends on the observation."""

    def __init__(self, observation_size: int, num_actions: int, config: SACConfig):
        sizes = [observation_size, *config.actor_hidden, 2 * num_actions]
        super().__init__(observation_size, mlp(sizes, output_gain=0.01, activation=nn.ReLU))
        self._num_actions = num_actions

    def mean(self, normalized: Tensor) -> Tensor:
        """See `Policy`."""
        return self.network(normalized)[..., : self._num_actions]

    def gaussian(self, normalized: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log σ before tanh, (..., num_actions) each; σ from 0.007 to 7.4."""
        return _gaussian(self.network(normalized))


class SAC:
    """See the module docstring, and `AlgorithmConfig.learner` for the arguments.

    Args:
        demonstrations: what half of every batch is drawn from, if from anything.
    """

    LEARNED: ClassVar[tuple[str, ...]] = (
        "policy",
        "critic",
        "target",
        "critic_normalizer",
        "log_alpha",
        "skilled",
    )

    def __init__(
        self,
        config: SACConfig,
        observation_sizes: Mapping[str, int],
        num_actions: int,
        *,
        seed: int,
        device: torch.device | str = "cpu",
        mirror: Mirror | None = None,
        demonstrations: Replay | None = None,
    ):
        require_mirror(config, mirror)
        self.config = config
        self.device = torch.device(device)
        self._sizes, self._num_actions = dict(observation_sizes), num_actions
        self._mirror = None if mirror is None else tuple(part.to(self.device) for part in mirror)
        self._head: ValueHead = ScalarHead()
        if config.atoms > 1:
            self._head = CategoricalHead(config.atoms, config.value_limit, self.device)
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            self.policy = config.new_policy(observation_sizes["actor"], num_actions)
            inputs = observation_sizes["critic"] + num_actions
            sizes = [inputs, *config.critic_hidden, self._head.size]
            self.critic = CriticEnsemble(config.critics, sizes, layer_norm=config.layer_norm)
        self.critic_normalizer = Normalizer(observation_sizes["critic"])
        for module in (self.policy, self.critic, self.critic_normalizer):
            module.to(self.device)
        self.target = copy.deepcopy(self.critic).requires_grad_(False)
        self._target_vector = one_vector(self.target)
        log_alpha = torch.tensor(math.log(config.initial_alpha), device=self.device)
        self._log_alpha = nn.Parameter(log_alpha, requires_grad=False)
        self.target_entropy = (
            num_actions * 0.5 * math.log(2 * math.pi * math.e * config.target_std**2)
        )
        """What the temperature holds the policy's entropy at."""
        self._actor_step = ClippedAdam(self.policy, config.learning_rate, eps=1e-8)
        self._critic_step = ClippedAdam(self.critic, config.learning_rate, eps=1e-8)
        alpha = nn.ParameterList([self._log_alpha])
        self._alpha_step = ClippedAdam(alpha, config.learning_rate, eps=1e-8)
        self._actor = Backpropagation(self.policy.network)
        self._compiled = compiled(self._gradients)
        self._parts = {
            "policy": self.policy,
            "critic": self.critic,
            "target": self.target,
            "critic_normalizer": self.critic_normalizer,
            "actor_step": self._actor_step,
            "critic_step": self._critic_step,
            "alpha_step": self._alpha_step,
        }
        self._generator = torch.Generator(self.device).manual_seed(seed)
        self._demonstrations = demonstrations
        self._replay: Replay | None = None  # until it is known how many worlds there are
        self._steps = self._updates = 0
        self._skilled = False
        """Whether it has learned, here or in the run that its weights come from."""
        self._found: list[Tensor] = []

    @property
    def alpha(self) -> Tensor:
        """The temperature, what a unit of entropy is worth."""
        return self._log_alpha.exp()

    @torch.no_grad()
    def act(self, observation: dict[str, Tensor]) -> Tensor:
        """See `Algorithm`."""
        actor = observation["actor"]
        if self._replay is None:
            # where the critic sees nothing more, one observation is kept
            same = observation["critic"] is actor
            self._replay = self._new_replay(len(actor), ["actor"] if same else list(self._sizes))
            self._replay.start(observation)
        self.policy.normalizer.update(actor)
        if (critic := observation["critic"]) is not actor:
            self.critic_normalizer.update(critic)
        if not self._skilled:
            shape = (len(actor), self._num_actions)
            self._action = self._uniform(shape) * 2 - 1
        else:
            mean, log_std = self.policy.gaussian(self.policy.normalizer(actor))
            self._action = torch.tanh(distributions.sample(mean, log_std, self._generator))
        if self.device.type == "cpu":  # to ask a GPU would be to wait for it
            require_finite({"the actor's observation": actor, "the action": self._action})
        return self._action

    def learn(self, step: Step) -> dict[str, float]:
        """See `Algorithm`."""
        assert self._replay is not None
        if self.device.type == "cpu":
            require_finite({"the reward": step.reward})
        self._replay.add(self._action, step)
        self._steps += len(step.reward)
        behind = self._steps - self.config.learning_starts
        self._skilled |= behind >= 0
        while self._updates < behind * self.config.updates_per_step:
            self._updates += 1
            self._found.append(self.update(self._sample()))
        if self._steps % (self.config.iteration_steps * len(step.reward)):
            return {}
        return self._report()

    @torch.no_grad()
    def update(self, batch: Batch) -> Tensor:
        """One step of critics, actor and temperature on normalised transitions.

        Returns:
            (4,) their losses, α and the entropy, see `_report`.
        """
        after = self.config.compile_after
        compiled = self.device.type == "cpu" and after is not None and self._updates > after
        gradients = self._compiled if compiled else self._gradients
        noise = self._normal((2 * len(batch.action), self._num_actions))
        of_critics, of_actor, error, actor_loss, log_prob = gradients(batch, noise, self._pair())
        self._critic_step.step(of_critics)
        self._actor_step.step(of_actor)
        self._learn_alpha(log_prob)
        self._target_vector.lerp_(self._critic_step.vector, self.config.tau)
        return torch.stack([error, actor_loss, self.alpha, -log_prob])

    def targets(
        self, batch: Batch, action: Tensor, log_prob: Tensor, pair: Tensor | None
    ) -> Tensor:
        """What the critics should say of a batch, (n, outputs).

        Args:
            batch: normalised transitions.
            action: (n, actions) that come next.
            log_prob: (n,) their log density.
            pair: (2,) the critics that are asked; None: all.
        """
        outputs = self.target(torch.cat([batch.next_observation["critic"], action], dim=-1))
        if pair is not None:
            outputs = outputs[pair]
        least = self._head.value(outputs).argmin(dim=0)
        following = outputs.gather(0, least[None, :, None].expand_as(outputs[:1]))[0]
        shift = batch.reward
        if self.config.backup_entropy:
            shift = shift - batch.discount * (self.alpha * log_prob)
        return self._head.target(following, shift, batch.discount)

    def state_dict(self) -> dict[str, Any]:
        """Weights, statistics, moments, temperature, random numbers and what is remembered."""
        return {
            **{name: part.state_dict() for name, part in self._parts.items()},
            "log_alpha": self._log_alpha.clone(),
            "generator": self._generator.get_state(),
            "replay": self._replay.state_dict() if self._replay else None,
            "skilled": self._skilled,
            "steps": self._steps,
            "updates": self._updates,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        for name, part in self._parts.items():
            part.load_state_dict(state[name])
        self._log_alpha.copy_(state["log_alpha"])
        self._generator.set_state(state["generator"])
        if state["replay"]:
            num_envs = state["replay"]["tables"]["reward"].shape[1]
            self._replay = self._new_replay(num_envs, list(state["replay"]["finals"]))
            self._replay.load_state_dict(state["replay"])
        self._skilled = state["skilled"]
        self._steps, self._updates = state["steps"], state["updates"]

    def _gradients(self, batch: Batch, noise: Tensor, pair: Tensor | None) -> tuple[Tensor, ...]:
        """Gradients of critics and actor, where both are now.

        Critics go down their loss, half a squared error for scalar ones; the actor goes up the
        value and the entropy of new actions, for which critics and actor are asked in one go with
        what the critics learn from: products of twice the rows take less than twice the time.

        Args:
            batch: n normalised transitions.
            noise: (2 n, actions) standard normal, for the next actions and for new ones.
            pair: see `targets`.

        Returns:
            The gradients of critics and actor, the losses of both, and the mean log density of new
            actions.
        """
        n = len(batch.action)
        seen = torch.cat([batch.next_observation["actor"], batch.observation["actor"]])
        outputs, passed = self._actor.trace(seen)
        actions, log_probs, scaled = _squashed(outputs, noise)
        following, action, log_prob = actions[:n], actions[n:], log_probs[n:]
        observed = batch.observation["critic"].repeat(2, 1)
        x = torch.cat([observed, torch.cat([batch.action, action])], dim=-1)
        found, layers = self.critic.trace(x)
        targets = self.targets(batch, following, log_probs[:n], pair)
        loss, slope = self._head.loss(found[:, :n], targets)

        judged = found[:, n:]
        values = self._head.value(judged)  # (critics, n)
        if self.config.critics > 2:
            value, share = values.mean(dim=0), torch.full_like(values, 1 / len(values))
        else:
            value = values.amin(dim=0)
            share = (values == value).float()
            share /= share.sum(dim=0)  # equal ones share the slope, as in autograd
        slope = torch.cat([slope, self._head.value_slope(judged) * -share[..., None]], dim=1) / n
        of_critics, of_input = self.critic.backward(layers, slope, learned=n)
        of_action = of_input[:, -self._num_actions :]
        slopes = distributions.sample_slopes(scaled[n:], action, of_action, self.alpha / n)
        own = [(before[n:], hidden[n:]) for before, hidden in passed]
        of_actor = self._actor.gradient(own, _gaussian_slope(outputs[n:], *slopes))
        actor_loss = (self.alpha * log_prob - value).mean()
        return of_critics, of_actor, loss, actor_loss, log_prob.mean()

    def _learn_alpha(self, log_prob: Tensor) -> None:
        """Raise the temperature where the mean entropy is below its target, and lower it above."""
        self._alpha_step.step(-(log_prob + self.target_entropy)[None])

    def _pair(self) -> Tensor | None:
        """The critics that make the targets, two of more; None: all."""
        if self.config.critics <= 2:
            return None
        order = torch.randperm(self.config.critics, generator=self._generator, device=self.device)
        return order[:2]

    @torch.no_grad()
    def _sample(self) -> Batch:
        """Normalised transitions of its own, and as many that were demonstrated, if any were."""
        assert self._replay is not None
        size = self.config.batch_size
        if self._demonstrations is None:
            return self._draw(self._replay, size)
        shown = self._draw(self._demonstrations, size // 2)
        own = self._draw(self._replay, size - size // 2)
        return Batch(*map(_joined, own, shown))

    def _draw(self, replay: Replay, size: int) -> Batch:
        """Transitions, some of them mirrored, with normalised observations."""
        config = self.config
        batch = replay.sample(
            size, n_step=config.n_step, gamma=config.gamma, generator=self._generator
        )
        if config.symmetry:
            batch = self._half_mirrored(batch)
        return batch._replace(
            observation=self._normalized(batch.observation),
            next_observation=self._normalized(batch.next_observation),
        )

    def _half_mirrored(self, batch: Batch) -> Batch:
        """A batch, a random half of it replaced by its mirror image."""
        assert self._mirror is not None
        flip = self._uniform((len(batch.reward), 1)) < 0.5
        actor, critic, action = self._mirror
        sides = {"actor": actor, "critic": critic}

        def mirrored(values: Tensor, image: Tensor) -> Tensor:
            return torch.where(flip, values @ image.T, values)

        observation, following = (
            {name: mirrored(values, sides[name]) for name, values in observed.items()}
            for observed in (batch.observation, batch.next_observation)
        )
        return batch._replace(
            action=mirrored(batch.action, action),
            observation=observation,
            next_observation=following,
        )

    def _normalized(self, observation: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """What actor and critics see of observations as they came."""
        actor = self.policy.normalizer(observation["actor"])
        if "critic" not in observation:
            return {"actor": actor, "critic": actor}
        return {"actor": actor, "critic": self.critic_normalizer(observation["critic"])}

    def _report(self) -> dict[str, float]:
        """Means since the last report; nan before anything was learned."""
        names = ("loss/critic", "loss/actor", "policy/alpha", "policy/entropy")
        found, self._found = self._found, []
        if not found:
            return dict.fromkeys(names, math.nan)
        losses: dict[str, Tensor] = dict(zip(names, torch.stack(found).mean(dim=0), strict=True))
        return report(losses, {"actor": self.policy, "critics": self.critic})

    def _new_replay(self, num_envs: int, names: Iterable[str]) -> Replay:
        return Replay(
            self.config.buffer_size,
            num_envs=num_envs,
            sizes={name: self._sizes[name] for name in names},
            num_actions=self._num_actions,
            device=self.device,
        )

    def _uniform(self, shape: tuple[int, ...]) -> Tensor:
        return torch.rand(shape, generator=self._generator, device=self.device)

    def _normal(self, shape: tuple[int, ...]) -> Tensor:
        return torch.randn(shape, generator=self._generator, device=self.device)


def _gaussian(outputs: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and log σ that an actor's outputs (..., 2 actions) stand for."""
    mean, spread = outputs.chunk(2, dim=-1)
    return mean, _LOG_STD_LOW + _LOG_STD_SPAN * 0.5 * (torch.tanh(spread) + 1)


def _gaussian_slope(outputs: Tensor, of_mean: Tensor, of_log_std: Tensor) -> Tensor:
    """A loss's slopes in the outputs, given those in mean and log σ."""
    spread = torch.tanh(outputs.chunk(2, dim=-1)[1])
    return torch.cat([of_mean, of_log_std * (_LOG_STD_SPAN * 0.5) * (1 - spread.square())], dim=-1)


def _squashed(outputs: Tensor, noise: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Actions (n, actions), their log density (n,), and what noise added before tanh."""
    mean, log_std = _gaussian(outputs)
    scaled = log_std.exp() * noise
    u = mean + scaled
    return torch.tanh(u), distributions.log_prob(u, mean, log_std), scaled


def _joined(one: Any, other: Any) -> Any:
    """Rows of two tensors, or of each in two dicts of them."""
    if isinstance(one, Tensor):
        return torch.cat([one, other])
    return {name: torch.cat([one[name], other[name]]) for name in one}
