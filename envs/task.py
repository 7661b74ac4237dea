"""What a task is: the part of an environment that differs from one skill to the next."""

from typing import Any, Protocol

from torch import Tensor

from deploy.contract import CommandSpec, JointSpec
from envs.action_decoder import JointStepDecoder
from envs.observation_encoder import ObservationEncoder
from envs.robot import Robot


class Task(Protocol):
    """One skill on one robot, for all worlds at once.

    The actor sees only `signals`; whatever else a task computes may go to rewards and critic.
    """

    robot: Robot
    control_dt_s: float
    """Period of the policy [s]."""
    num_substeps: int
    """Physics steps per control step."""
    episode_steps: int
    """Control steps after which an episode is truncated."""
    encoder: ObservationEncoder
    decoder: JointStepDecoder
    critic_size: int
    command: Tensor
    """(num_envs, n) what the policy is asked for; a signal."""
    command_spec: CommandSpec
    joint_specs: list[JointSpec]

    def initial_state(self, ids: Tensor, episode: Tensor) -> tuple[Tensor, Tensor]:
        """Joint angles (n, nq) and speeds (n, nv) at the start of an episode; new commands."""
        ...

    def advance(self) -> tuple[Tensor, dict[str, Tensor]]:
        """Move commands on; returns worlds (k,) in which one ended, and metrics of those."""
        ...

    def rewards(self, action: Tensor, previous_action: Tensor) -> dict[str, Tensor]:
        """Weighted reward terms, (num_envs,) each; the reward is their sum."""
        ...

    def terminated(self) -> Tensor:
        """(num_envs,) bool: worlds that failed."""
        ...

    def critic_observation(self) -> Tensor:
        """(num_envs, critic_size) what only the critic sees, beside the actor's observation."""
        ...

    def state_dict(self) -> dict[str, Any]:
        """The task's own memory."""
        ...

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        ...
