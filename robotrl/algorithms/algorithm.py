"""What training asks of a learning algorithm, and nothing more.

    learner = config.learner(env.observation_sizes, env.num_actions, seed=0)
    for _ in range(config.iteration_steps):
        step = env.step(learner.act(observation))
        losses = learner.learn(step)
        observation = step.observation

An algorithm is one file and one row of `robotrl.runs.train_config.AnyAlgorithm`: a section with its
hyper-parameters, which makes the learner and its policy. Training, evaluation, export and resuming
know no algorithm by name. It sees tensors: nothing of MuJoCo, of tasks or of files.
"""

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Protocol

import torch
from pydantic import BeforeValidator, Field
from torch import Tensor, nn

from deploy.errors import ConfigError, DeployError
from envs.mirror import Mirror
from envs.vector_env import Step
from envs.worlds import all_finite
from robotrl.algorithms.policy import Policy


def _whole_number(value: Any) -> Any:
    return int(value) if isinstance(value, float) and value.is_integer() else value


Whole = Annotated[int, BeforeValidator(_whole_number)]
"""A number that may be written 3e6 for three million."""
Unit = Annotated[float, Field(ge=0, le=1)]
Rate = Annotated[float, Field(ge=1e-12, le=1)]
Width = Annotated[int, Field(ge=1, le=4096)]
"""Units side by side; a square of weights four times as wide takes minutes to make orthogonal."""
Layers = Annotated[list[Width], Field(max_length=16)]


class TrainingError(DeployError, ArithmeticError):
    """Something that is not a number came up: a reward, an observation, a loss, a weight."""


class Algorithm(Protocol):
    """A learner. Between iterations, `state_dict` is all there is to it."""

    LEARNED: ClassVar[tuple[str, ...]]
    """Entries of the state that another run may start from, `policy` among them: networks and
    statistics, no optimiser, no memory, no counter."""

    @property
    def policy(self) -> Policy:
        """What acts; its weights are the entry `policy` of the state."""
        ...

    def act(self, observation: dict[str, Tensor]) -> Tensor:
        """Actions (num_envs, actions) in [-1, 1] that explore, for observations of all worlds.

        Raises:
            TrainingError: they are not finite.
        """
        ...

    def learn(self, step: Step) -> dict[str, float]:
        """Take in what followed the latest actions, and learn where it is time to.

        Returns:
            Losses and diagnostics, once in an iteration, with its last step; else nothing.

        Raises:
            TrainingError: something is not finite; the learner is of no use any more.
        """
        ...

    def state_dict(self) -> dict[str, Any]:
        """Everything needed to go on with the same bits: tensors and plain data."""
        ...

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        ...


class AlgorithmConfig(Protocol):
    """Hyper-parameters, which know what they are for."""

    PARALLEL: ClassVar[bool]
    """Whether it learns the same where the worlds are divided among processes."""
    FIXED: ClassVar[frozenset[str]]
    """Settings that must stay as they are where a run goes on."""
    MEANING: ClassVar[frozenset[str]]
    """Those without which its weights mean something else, although all sizes are the same."""

    @property
    def symmetry(self) -> bool:
        """Whether it learns with the mirror image of its task."""
        ...

    @property
    def iteration_steps(self) -> int:
        """Steps per world from one line of metrics to the next."""
        ...

    def check_worlds(self, num_envs: int) -> None:
        """Refuse a number of worlds that the settings do not fit, before any is made.

        Raises:
            ConfigError: says what to change.
        """
        ...

    def largest_product(self, num_envs: int) -> int:
        """Multiplications in the largest product of matrices that it learns with, roughly."""
        ...

    def new_policy(self, observation_size: int, num_actions: int) -> Policy:
        """The policy before anything was learned."""
        ...

    def learner(
        self,
        observation_sizes: Mapping[str, int],
        num_actions: int,
        *,
        seed: int,
        device: torch.device | str = "cpu",
        mirror: Mirror | None = None,
    ) -> Algorithm:
        """A learner.

        Args:
            observation_sizes: of `actor` and `critic`.
            num_actions: size of the action.
            seed: of everything random in it.
            device: where it learns; that of the environment.
            mirror: of the task, if it is to learn with `symmetry`.

        Raises:
            ConfigError: a setting does not fit the task.
        """
        ...


def require_finite(tensors: Mapping[str, Tensor], *, of_rollout: bool = False) -> None:
    """Refuse NaN and infinity.

    Args:
        tensors: by what they are called in the message.
        of_rollout: they are (T, B, ...), told by step and world.

    Raises:
        TrainingError: says which, what, and where.
    """
    for name, value in tensors.items():
        if not all_finite(value.detach()):
            index = tuple((~value.isfinite()).nonzero()[0].tolist())
            place = f" in world {index[1]}, {index[0] + 1} steps on" if of_rollout else ""
            raise TrainingError(f"{name} is {value[index].item()}{place}")


def require_mirror(config: AlgorithmConfig, mirror: Mirror | None) -> None:
    """Refuse to learn with the mirror image of a task that has none.

    Raises:
        ConfigError: says what to leave out.
    """
    if config.symmetry and mirror is None:
        raise ConfigError("algorithm.symmetry: this task has no mirror image; leave symmetry out")


def report(losses: Mapping[str, Tensor], networks: Mapping[str, nn.Module]) -> dict[str, float]:
    """Losses as numbers, if they and all weights are finite.

    Args:
        losses: one number each.
        networks: by what they are called in the message.

    Raises:
        TrainingError: see `require_finite`.
    """
    weights = {
        f"a weight of the {name}": nn.utils.parameters_to_vector(network.parameters())
        for name, network in networks.items()
    }
    require_finite({**losses, **weights})
    return {name: float(value) for name, value in losses.items()}
