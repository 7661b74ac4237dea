"""Many copies of a task, stepped together: the environment that algorithms see.

    env = envs.make("arm_reach", num_envs=256, seed=0)
    observation = env.reset()                  # {"actor": (num_envs, n), "critic": (num_envs, m)}
    observation, reward, terminated, truncated, info = env.step(action)   # action in [-1, 1]

One step is one tick of the robot: the controller's own modules turn signals into targets, physics
runs for `control_dt_s`, and the new signals pass through noise and bias before the actor sees
them. Worlds that end are reset at once; the observation returned for them is the first of the new
episode; the last ones of the old episodes are in `info`, for bootstrapping.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from envs.draws import Draws
from envs.randomization import FieldRandomization, SignalNoise, Term
from envs.simulation import Simulation
from envs.task import Task


class VectorEnv:
    """See the module docstring.

    Args:
        task: the task, bound to the same simulation.
        simulation: the worlds.
        draws: the run's random numbers.
        randomization: what differs between worlds and episodes.
        recipe: makes the same environment again, for copies and other processes.
    """

    def __init__(
        self,
        task: Task,
        simulation: Simulation,
        draws: Draws,
        randomization: Sequence[Term] = (),
        recipe: "Callable[[], VectorEnv] | None" = None,
    ):
        self.task = task
        self.num_envs = simulation.num_envs
        self.device = simulation.device
        self.num_actions = task.decoder.num_actions
        self.observation_sizes = {
            "actor": task.encoder.size,
            "critic": task.encoder.size + task.critic_size,
        }
        self._simulation = simulation
        self._recipe = recipe
        robot = task.robot
        self._ids = torch.arange(self.num_envs)
        self._columns = {
            "joint_position": torch.from_numpy(robot.position_sensors),
            "joint_velocity": torch.from_numpy(robot.velocity_sensors),
        }
        self._actuators = torch.from_numpy(robot.actuators)
        self._qpos = torch.from_numpy(robot.qpos)
        self._sensordata, self._ctrl = simulation.data("sensordata"), simulation.data("ctrl")
        self._fields = FieldRandomization(simulation, randomization, draws)
        self._noise = SignalNoise(
            randomization, dict.fromkeys(self._columns, robot.joints), draws, self._ids
        )
        self._encoder_state = task.encoder.initial_state(self.num_envs)
        self._previous_action = torch.zeros(self.num_envs, self.num_actions)
        self._signals: dict[str, Tensor] = {}
        self._step_count = 0
        self._episode = torch.zeros(self.num_envs, dtype=torch.int64)
        self._episode_step = torch.zeros(self.num_envs, dtype=torch.int64)
        self.diverged = 0
        """Number of worlds that had to be reset because the physics diverged."""

    @property
    def signals(self) -> dict[str, Tensor]:
        """The signals behind the latest observation, by name, (num_envs, ...) each."""
        return self._signals

    @torch.no_grad()
    def reset(self, *, stagger: bool = False) -> dict[str, Tensor]:
        """Start a new episode in every world.

        Args:
            stagger: start worlds at different times of their episode, so that they do not all
                end in the same step.
        """
        self._begin_episodes(self._ids)
        if stagger:
            self._episode_step = self._ids * self.task.episode_steps // self.num_envs
        return self._observe(self._ids, starting=True)

    @torch.no_grad()
    def step(
        self, action: Tensor
    ) -> tuple[dict[str, Tensor], Tensor, Tensor, Tensor, dict[str, Any]]:
        """Advance one control step.

        Args:
            action: (num_envs, num_actions); what is outside [-1, 1] counts as -1 or 1, so that no
                learner moves faster than an exported controller can.

        Returns:
            See `step_targets`.

        Raises:
            RuntimeError: no episode was started.
            ValueError: an action is not a number, or there is not one for each world.
        """
        self._require_start()
        if action.shape != self._previous_action.shape:
            raise ValueError(
                f"the actions must have shape {tuple(self._previous_action.shape)}, "
                f"found {tuple(action.shape)}"
            )
        action = action.clamp(-1, 1)
        return self.step_targets(self.task.decoder(action, self._signals), action)

    @torch.no_grad()
    def step_targets(
        self, targets: Tensor, action: Tensor | None = None
    ) -> tuple[dict[str, Tensor], Tensor, Tensor, Tensor, dict[str, Any]]:
        """Advance one control step with the targets of an exported controller.

        Args:
            targets: (num_envs, joints) joint targets.
            action: the action they come from, for the reward; zero if unknown.

        Returns:
            Observation, reward (num_envs,), terminated, truncated (num_envs,) bool, and info:
            `rewards` (weighted terms), `metrics` of the commands that ended and the ids of their
            worlds, `ended`; `done` (k,) ids, and the last observations of the ended episodes,
            `final_actor` (k, n) and `final_critic` (k, m).

        Raises:
            RuntimeError: no episode was started.
            ValueError: a target is not a number.
        """
        self._require_start()
        task = self.task
        if not (finite := targets.isfinite()).all():
            worlds = torch.nonzero(~finite.all(dim=-1)).flatten().tolist()
            raise ValueError(
                f"the targets, or the actions they come from, of worlds {worlds} are not finite "
                "numbers; the policy that made them has diverged"
            )
        if action is None:
            action = torch.zeros_like(self._previous_action)
        self._ctrl[:, self._actuators] = targets.to(self._ctrl.dtype)
        diverged = self._simulation.step(task.num_substeps)
        self._step_count += 1
        self._episode_step += 1

        rewards = task.rewards(action, self._previous_action)
        self._previous_action = action.clone()
        terminated = task.terminated()
        if len(diverged):
            self.diverged += len(diverged)
            terminated[diverged] = True
            for term in rewards.values():
                term[diverged] = 0
        truncated = (self._episode_step >= task.episode_steps) & ~terminated
        ended, metrics = task.advance()

        observation = self._observe(self._ids)
        (done,) = torch.nonzero(terminated | truncated, as_tuple=True)
        info = {
            "rewards": rewards,
            "metrics": metrics,
            "ended": ended,
            "done": done,
            "final_actor": observation["actor"][done],
            "final_critic": observation["critic"][done],
        }
        if len(done):
            self._begin_episodes(done)
            for name, first in self._observe(done, starting=True).items():
                observation[name][done] = first
        reward = torch.stack(list(rewards.values())).sum(dim=0)
        return observation, reward, terminated, truncated, info

    def __reduce__(self) -> tuple[Any, ...]:
        """Copies and pickles are made anew from the recipe, then brought to the same state."""
        if self._recipe is None:
            raise TypeError("only an environment made by `envs.make` can be copied or pickled")
        return self._recipe, (), self.state_dict()

    def __setstate__(self, state: dict[str, Any]) -> None:
        """See `__reduce__`."""
        self.load_state_dict(state)

    def state_dict(self) -> dict[str, Any]:
        """Everything needed to continue with the same bits."""
        return {
            "simulation": self._simulation.state_dict(),
            "task": self.task.state_dict(),
            "noise": self._noise.state_dict(),
            "encoder": {name: value.clone() for name, value in self._encoder_state.items()},
            "signals": {name: value.clone() for name, value in self._signals.items()},
            "previous_action": self._previous_action.clone(),
            "step_count": self._step_count,
            "episode": self._episode.clone(),
            "episode_step": self._episode_step.clone(),
            "diverged": self.diverged,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        self._simulation.load_state_dict(state["simulation"])
        self.task.load_state_dict(state["task"])
        self._noise.load_state_dict(state["noise"])
        self._encoder_state = {name: value.clone() for name, value in state["encoder"].items()}
        self._signals = {name: value.clone() for name, value in state["signals"].items()}
        self._previous_action = state["previous_action"].clone()
        self._step_count = state["step_count"]
        self._episode = state["episode"].clone()
        self._episode_step = state["episode_step"].clone()
        self.diverged = state["diverged"]

    def _begin_episodes(self, ids: Tensor) -> None:
        self._episode[ids] += 1
        self._episode_step[ids] = 0
        episode = self._episode[ids]
        self._fields.draw(ids, episode)
        self._noise.draw(ids, episode)
        qpos, qvel = self.task.initial_state(ids, episode)
        ctrl = torch.zeros(len(ids), self._ctrl.shape[1], dtype=qpos.dtype)
        ctrl[:, self._actuators] = qpos[:, self._qpos]
        self._simulation.reset(ids, qpos, qvel, ctrl)
        self._previous_action[ids] = 0
        for value in self._encoder_state.values():
            value[ids] = 0

    def _require_start(self) -> None:
        if not self._signals:
            raise RuntimeError("there is no episode to step in; call reset() first")

    def _observe(self, ids: Tensor, *, starting: bool = False) -> dict[str, Tensor]:
        """Signals and observation of worlds `ids`; advances their encoder."""
        sensordata = self._sensordata[ids]
        signals = {kind: sensordata[:, columns].float() for kind, columns in self._columns.items()}
        self._noise.apply(signals, ids, self._step_count, self._episode[ids] if starting else None)
        signals["joint_target"] = self._ctrl[ids][:, self._actuators].float()
        signals["command"] = self.task.command[ids]
        state = {name: value[ids] for name, value in self._encoder_state.items()}
        actor, state = self.task.encoder(signals, state)
        for name, value in state.items():  # copied: it may share memory with the observation
            self._encoder_state[name][ids] = value
        if len(ids) == self.num_envs:
            self._signals = signals
        else:
            for name, value in signals.items():
                self._signals[name][ids] = value
        privileged = self.task.critic_observation()[ids]
        return {"actor": actor, "critic": torch.cat([actor, privileged], dim=-1)}
