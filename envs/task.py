"""What a task is: the part of an environment that differs from one skill to the next.

A task reads the worlds through `Simulation` and says what the actor may sense, what it is rewarded
for and when it has failed. Everything else (noise, delays, episodes, observations with a memory,
bookkeeping) is the same for all tasks and stands in `envs.vector_env`.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Protocol, runtime_checkable

from torch import Tensor

from deploy.contract import CommandSpec, JointSpec
from envs.observation_encoder import ObservationEncoder
from envs.robot import Robot
from envs.simulation import State
from envs.worlds import Worlds


class Deployment(NamedTuple):
    """What makes a task's policy one for a real robot: its part of the contract."""

    robot: Robot
    joints: list[JointSpec]
    command: CommandSpec


class Decoder(Protocol):
    """From actions to targets; a `torch.nn.Module`, exported with the policy."""

    num_actions: int

    @property
    def signals(self) -> Sequence[str]:
        """Signals it reads."""
        ...

    def __call__(self, action: Tensor, signals: dict[str, Tensor]) -> Tensor:
        """Actions (n, num_actions) in [-1, 1] -> targets (n, m)."""
        ...


class Task(Protocol):
    """One skill on one robot, for all worlds at once.

    Tables are (num_envs, ...), on the simulation's device; rows for `worlds` are (n, ...). Signals,
    features and rewards are float32.
    """

    control_dt_s: float
    """Period of the policy [s]."""
    num_substeps: int
    """Physics steps per control step."""
    episode_steps: int
    """Control steps after which an episode is truncated."""
    actuators: Tensor
    """(m,) place of each target in `ctrl`."""
    encoder: ObservationEncoder

    @property
    def decoder(self) -> Decoder:
        """From actions to targets."""
        ...

    @property
    def signals(self) -> Mapping[str, Sequence[str]]:
        """What `measure` returns: names of the signals and of the elements of each."""
        ...

    @property
    def privileged(self) -> Mapping[str, Sequence[str]]:
        """Features that only the critic sees, and the names of their columns."""
        ...

    @property
    def deployment(self) -> Deployment | None:
        """None: the policy is for simulation only and cannot be exported."""
        ...

    def initial_state(self, worlds: Worlds, episode: Tensor) -> State:
        """Where episodes (n,) start, and everything of the task's own that starts with them."""
        ...

    def measure(self, worlds: Worlds) -> dict[str, Tensor]:
        """What can be sensed now, (n, elements) each and free to be changed: the true signals.

        The environment adds noise and delay, and `joint_target` (or `joint_target_velocity`, where
        joints are driven by speed), what was sent last.
        """
        ...

    def observe_privileged(self, worlds: Worlds) -> dict[str, Tensor]:
        """The features named by `privileged`, (n, columns) each."""
        ...

    def rewards(self, action: Tensor, previous_action: Tensor) -> dict[str, Tensor]:
        """Weighted terms of the step just made, (num_envs,) each; the reward is their sum."""
        ...

    def terminated(self) -> Tensor:
        """(num_envs,) bool: worlds that failed."""
        ...

    def advance(self) -> tuple[dict[str, Tensor], Tensor]:
        """Move commands on, after rewards.

        Returns:
            Metrics (num_envs,) each, and (num_envs,) bool: worlds for which they count now.
        """
        ...

    def state_dict(self) -> dict[str, Any]:
        """The task's own memory."""
        ...

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        ...


@runtime_checkable
class Commanded(Protocol):
    """A task whose command can be held, e.g. by a person who watches; see `hold_command`."""

    @property
    def command(self) -> Tensor:
        """(num_envs, elements) what is asked for now, live: writing changes it."""
        ...


@runtime_checkable
class Held(Protocol):
    """A task that minds whether a hand holds its robot; see `envs.randomization.physics.grips`."""

    held: Tensor | None
    """(num_envs,) bool: where it did in the step just made, written before `rewards`; None: there
    are no hands, as at first."""


@runtime_checkable
class Bounded(Protocol):
    """A task whose worlds may have an end, which truncates the episode of whoever reaches it."""

    @property
    def out_of_bounds(self) -> Tensor | None:
        """(num_envs,) bool after a step; None: these worlds have no end."""
        ...
