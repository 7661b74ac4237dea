"""Many copies of a task, stepped together: the environment that algorithms see.

    env = envs.make("arm_reach", num_envs=256, seed=0)
    observation = env.reset()                  # {"actor": (num_envs, n), "critic": (num_envs, m)}
    observation, reward, terminated, truncated, info = env.step(action)   # action in [-1, 1]
    env.columns["actor"]                       # a name for each number of the observation

One step is one tick of the robot: the controller's own modules turn signals into targets, physics
runs for `control_dt_s`, and the new signals pass through noise and delay before the actor sees
them. Worlds that end are reset at once; the observation returned for them is the first of the new
episode; the last one of the old is in `info`, for bootstrapping. `autoreset=False` leaves the reset
to the caller, see `restart`.

On a GPU nothing here waits for the device: worlds are chosen by masks (`envs.worlds`), and whether
contacts found no room there is for the learner to ask, now and then: `env.simulation.check()`.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import reduce
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from deploy.configuration import did_you_mean
from deploy.contract import TARGET_OF
from deploy.errors import ConfigError
from deploy.signals import LAST_TARGET, SIGNALS, SignalKind
from envs.divergence import Recordable, Recorder
from envs.draws import Draws
from envs.mirror import Mirror, Symmetric
from envs.observation_encoder import column_names
from envs.randomization import Randomization, RandomTerm
from envs.simulation import Simulation
from envs.task import Bounded, Commanded, Deployment, Held, Task
from envs.task_outputs import check_outputs
from envs.worlds import Worlds, all_finite, as_slice, choose, every

_GROUPS = 32


class StepInfo(NamedTuple):
    """What a step says beside observation, reward and ends."""

    final_observation: dict[str, Tensor]
    """(num_envs, ...) the observation without resets: where an episode ended, its last one. May
    share memory with `observation`."""
    rewards: dict[str, Tensor]
    """Weighted terms, (num_envs,) each; the reward is their sum."""
    metrics: dict[str, Tensor]
    """The task's own measures, (num_envs,) each; nan where one does not apply."""
    measured: Tensor
    """(num_envs,) bool: worlds whose metrics count in this step."""


class Step(NamedTuple):
    """What algorithms may rely on after a step."""

    observation: dict[str, Tensor]
    """`actor` (num_envs, n) and `critic` (num_envs, m); the caller's to keep."""
    reward: Tensor
    """(num_envs,)"""
    terminated: Tensor
    """(num_envs,) bool: the episode ended because the task failed or the physics diverged."""
    truncated: Tensor
    """(num_envs,) bool: it ended because its time was up, or its world came to an end (`Bounded`);
    never together with `terminated`."""
    info: StepInfo


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
        randomization: Sequence[RandomTerm] = (),
        recipe: "Callable[[], VectorEnv] | None" = None,
    ):
        self.task = task
        self.num_envs = simulation.num_envs
        self.device = simulation.device
        self.num_actions = task.decoder.num_actions
        actor = list(task.encoder.columns)
        self.columns = {"actor": actor, "critic": actor + column_names(task.privileged)}
        """Name of each number of the observations."""
        self.observation_sizes = {name: len(columns) for name, columns in self.columns.items()}
        self._last_target = _last_target(task)
        _check_signals(task, self._last_target)
        self._simulation, self._share = simulation, draws.share
        self._recipe = recipe
        self._recorder: Recorder | None = None
        self._every = every(self.num_envs, self.device)
        self._actuators = as_slice(task.actuators)
        self._ctrl = simulation.data("ctrl")
        self._bounded = task if isinstance(task, Bounded) else None
        self._held = task if isinstance(task, Held) else None
        self._read = {*task.encoder.signals, *task.decoder.signals}
        self.randomization = Randomization(
            randomization,
            simulation,
            draws,
            signals=task.signals,
            robot=task.deployment.robot if task.deployment else None,
            control_dt_s=task.control_dt_s,
            episode_s=task.control_dt_s * task.episode_steps,
        )
        self._encoder_state = task.encoder.initial_state(self.num_envs, self.device)
        self._previous_action = torch.zeros(self.num_envs, self.num_actions, device=self.device)
        self._targets = torch.zeros(self.num_envs, len(task.actuators), device=self.device)
        self._signals: dict[str, Tensor] = {}
        self._held_command: Tensor | None = None
        self._step_count = 0
        self._checked = False
        self._episode = torch.zeros(self.num_envs, dtype=torch.int64, device=self.device)
        self._episode_step = torch.zeros_like(self._episode)
        self._diverged = torch.zeros((), dtype=torch.int64, device=self.device)
        self._over: Tensor | None = None  # None: certainly no world is

    @property
    def over(self) -> Tensor:
        """(num_envs,) bool: worlds whose episode has ended and that `restart` has not started."""
        if self._over is None:
            return torch.zeros_like(self._episode, dtype=torch.bool)
        return self._over

    @property
    def episode_step(self) -> Tensor:
        """(num_envs,) control steps since each world's episode began."""
        return self._episode_step

    @property
    def signals(self) -> dict[str, Tensor]:
        """The signals behind the latest observation, by name, (num_envs, ...) each."""
        return self._signals

    @property
    def deployment(self) -> Deployment:
        """The robot and what the contract says of it.

        Raises:
            ConfigError: the task is for simulation only.
        """
        if self.task.deployment is None:
            raise ConfigError(
                f"this task is for simulation only: its actor sees {', '.join(self.task.signals)}, "
                "which no robot reports. Train a task on a robot"
            )
        return self.task.deployment

    @property
    def mirror(self) -> Mirror | None:
        """The mirror image of observations and actions, of tasks that have one.

        Raises:
            ConfigError: its robot is not symmetric.
        """
        return self.task.mirror if isinstance(self.task, Symmetric) else None

    @property
    def simulation(self) -> Simulation:
        """The worlds themselves."""
        return self._simulation

    @property
    def diverged(self) -> int:
        """Number of worlds that had to be reset because the physics diverged."""
        return int(self._diverged)

    def record_divergences(self, folder: Path, *, limit: int = 5) -> None:
        """Write, from now on, what leads to a divergence into a folder; see `envs.divergence`.

        A backend that cannot look back writes nothing.

        Args:
            folder: where to; made when there is something to write.
            limit: most files it gets.
        """
        if isinstance(self._simulation, Recordable):
            self._recorder = Recorder(folder, self._simulation, limit)

    def hold_command(self, values: Sequence[float] | None) -> None:
        """Ask all worlds for one command, from the next observation on, instead of the task's own.

        Args:
            values: (elements,) in the order of the contract; None: the task's own again.

        Raises:
            ConfigError: the task has no command that can be held, or one of another size.
        """
        if values is None:
            self._held_command = None
            return
        if not isinstance(self.task, Commanded):
            raise ConfigError(
                "this task takes no command: it has no attribute `command`; leave it out"
            )
        expected = self.task.command.shape[1]
        if len(values) != expected:
            raise ConfigError(
                f"the command takes {expected} numbers, found {len(values)}: {list(values)}"
            )
        self._held_command = torch.tensor(values, dtype=torch.float32, device=self.device)

    @torch.no_grad()
    def reset(self, *, stagger: bool = False) -> dict[str, Tensor]:
        """Start a new episode in every world.

        Args:
            stagger: start worlds at different times of their episode, so that they do not all
                end in the same step. They do so in groups: starting one world costs as much
                as starting eight.
        """
        self._begin_episodes(self._every)
        self._over = None
        if stagger:
            total = self.num_envs * self._share.processes
            groups = min(total, _GROUPS)
            group = (self._every.ids + self._share.first) * groups // total
            self._episode_step.copy_(group * self.task.episode_steps // groups)
        return self._observe(self._every, starting=True)

    @torch.no_grad()
    def restart(self, worlds: Tensor, observation: dict[str, Tensor]) -> dict[str, Tensor]:
        """Start a new episode in some worlds; the others do not notice.

        Args:
            worlds: (num_envs,) bool: where.
            observation: the latest one of all worlds.

        Returns:
            The observation with new rows for these worlds: the first of their new episodes.

        Raises:
            RuntimeError: no episode was started.
            ValueError: `worlds` is not one truth value for each world.
        """
        self._require_start()
        _require_shape("worlds to restart", worlds, self._episode)
        if worlds.dtype != torch.bool:
            raise ValueError(
                f"the worlds to restart must be bool, one for each, found {worlds.dtype}; of ids "
                "make a mask"
            )
        if self._over is not None:
            self._over = self._over & ~worlds
        return self._restart(worlds, observation)

    @torch.no_grad()
    def step(self, action: Tensor, *, autoreset: bool = True) -> Step:
        """Advance one control step.

        Args:
            action: (num_envs, num_actions); what is outside [-1, 1] counts as -1 or 1, so that no
                learner moves faster than an exported controller can.
            autoreset: start the next episode at once in worlds that end. Else they are `over` until
                `restart`: steps ignore their action, give no reward and do not end them again.

        Raises:
            RuntimeError: no episode was started.
            ValueError: an action is not a number, or there is not one for each world. On a GPU,
                where asking would stop the host, a world with such an action counts as diverged.
        """
        self._require_start()
        _require_shape("actions", action, self._previous_action)
        action = action.clamp(-1, 1)
        targets = self.task.decoder(action, self._signals)
        return self._step(targets, action, autoreset=autoreset)

    @torch.no_grad()
    def step_targets(
        self, targets: Tensor, action: Tensor | None = None, *, autoreset: bool = True
    ) -> Step:
        """Advance one control step with the targets of an exported controller.

        Args:
            targets: (num_envs, targets), e.g. joint targets.
            action: the action they come from, for the reward; zero if unknown.
            autoreset: see `step`.

        Raises:
            RuntimeError: no episode was started.
            ValueError: a target is not a number, or there is not one for each world.
        """
        self._require_start()
        _require_shape("targets", targets, self._targets)
        if action is None:
            action = torch.zeros_like(self._previous_action)
        return self._step(targets, action.clone(), autoreset=autoreset)

    def _step(self, targets: Tensor, action: Tensor, *, autoreset: bool) -> Step:
        """See `step_targets`; keeps the action."""
        task, over = self.task, self._over
        if over is not None:
            targets = torch.where(over[:, None], self._targets, targets)
        refused = self._apply(targets)
        self.randomization.before_step(self._step_count)
        failed = self._simulation.step(task.num_substeps, self.randomization.before_substep)
        if refused is not None:
            failed = failed | refused
        if self._recorder:
            self._recorder.write(
                self._step_count, episode_step=self._episode_step, action=action, targets=targets
            )
        if over is not None:
            failed = failed & ~over
        self._step_count += 1
        self._episode_step += 1

        held = self.randomization.held
        if self._held is not None:
            self._held.held = held
        rewards = task.rewards(action, self._previous_action)
        self._previous_action = action
        terminated = task.terminated()
        self._check("rewards", rewards)
        self._check("terminated", {"terminated": terminated}, torch.bool)
        if held is not None:  # see `randomization.physics.grips`
            terminated = terminated & ~held
            rewards = {name: term.masked_fill(held, 0) for name, term in rewards.items()}
        some_failed = not self._simulation.compact or bool(failed.any())
        if some_failed:
            self._diverged += failed.sum()
            terminated = terminated | failed
            rewards = {name: term.masked_fill(failed, 0) for name, term in rewards.items()}
        truncated = self._episode_step >= task.episode_steps
        if self._bounded and (out := self._bounded.out_of_bounds) is not None:
            truncated = truncated | out
        truncated = truncated & ~terminated
        metrics, measured = task.advance()
        self._check("advance", metrics, None)
        self._check("advance", {"measured": measured}, torch.bool)
        self._checked = True
        if held is not None:
            measured = measured & ~held
        if some_failed:
            measured = measured & ~failed  # what they say is of a world that broke
        if over is not None:
            rewards = {name: term.masked_fill(over, 0) for name, term in rewards.items()}
            terminated, truncated, measured = (
                flags & ~over for flags in (terminated, truncated, measured)
            )
        self.randomization.adapt(metrics, measured)

        final = observation = self._observe(self._every)
        done = terminated | truncated if over is None else over | terminated | truncated
        self._over = None if autoreset else done
        if autoreset:
            observation = self._restart(done, final)
        return Step(
            observation,
            reduce(torch.add, rewards.values()),
            terminated,
            truncated,
            StepInfo(final, rewards, metrics, measured),
        )

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
            "randomization": self.randomization.state_dict(),
            "encoder": {name: value.clone() for name, value in self._encoder_state.items()},
            "signals": {name: value.clone() for name, value in self._signals.items()},
            "step_count": self._step_count,
            "over": self.over.clone(),
            **{name: getattr(self, name).clone() for name in self._STATE},
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        self._simulation.load_state_dict(state["simulation"])
        self.task.load_state_dict(state["task"])
        self.randomization.load_state_dict(state["randomization"])
        self._encoder_state = {name: value.clone() for name, value in state["encoder"].items()}
        self._signals = {name: value.clone() for name, value in state["signals"].items()}
        self._step_count = state["step_count"]
        self._over = state["over"].clone()
        for name in self._STATE:
            getattr(self, name).copy_(state[name])

    _STATE = ("_previous_action", "_targets", "_episode", "_episode_step", "_diverged")

    def _restart(self, mask: Tensor, observation: dict[str, Tensor]) -> dict[str, Tensor]:
        """See `restart`."""
        worlds = choose(mask, compact=self._simulation.compact)
        if worlds.none:
            return observation
        self._begin_episodes(worlds)
        first = self._observe(worlds, starting=True)
        observation = {name: table.clone() for name, table in observation.items()}
        for name, table in observation.items():
            worlds.put(table, first[name])
        return observation

    def _begin_episodes(self, worlds: Worlds) -> None:
        worlds.put(self._episode, worlds.take(self._episode) + 1)
        worlds.put(self._episode_step, 0)
        episode = worlds.take(self._episode)
        self.randomization.begin(worlds, episode)
        state = self.task.initial_state(worlds, episode)
        state = self.randomization.initial_state(worlds, episode, state)
        self._simulation.reset(worlds, state)
        worlds.put(self._targets, state.ctrl[:, self._actuators])
        worlds.put(self._previous_action, 0)
        for value in self._encoder_state.values():
            worlds.put(value, 0)

    def _apply(self, targets: Tensor) -> Tensor | None:
        """Send targets to the actuators; returns (num_envs,) bool: where they are not finite.

        On a CPU there are none: it raises.
        """
        refused = None
        if not self._simulation.compact:
            refused = ~targets.isfinite().all(dim=-1)
            targets = targets.nan_to_num(0, 0, 0)
        elif not all_finite(targets):
            worlds = torch.nonzero(~targets.isfinite().all(dim=-1)).flatten().tolist()
            raise ValueError(
                f"the targets, or the actions they come from, of worlds {worlds} are not finite "
                "numbers; the policy that made them has diverged"
            )
        received_last = self._ctrl[:, self._actuators]
        received = self.randomization.receive(targets, received_last, self._step_count)
        self._ctrl[:, self._actuators] = received.to(self._ctrl.dtype)
        self._targets.copy_(targets)
        return refused

    def _require_start(self) -> None:
        if not self._signals:
            raise RuntimeError("there is no episode to step in; call reset() first")

    def _observe(self, worlds: Worlds, *, starting: bool = False) -> dict[str, Tensor]:
        """Signals and observation (n, ...) of some worlds; advances their encoder."""
        task = self.task
        if self._held_command is not None and isinstance(task, Commanded):
            task.command[:] = self._held_command
        signals = task.measure(worlds)
        self._check("measure", signals, columns=task.signals, rows=len(worlds))
        episode = worlds.take(self._episode) if starting else None
        self.randomization.sense(signals, worlds, self._step_count, episode)
        if self._last_target is not None and self._last_target in self._read:
            signals[self._last_target] = worlds.take(self._targets).clone()
        state = {name: worlds.take(value) for name, value in self._encoder_state.items()}
        actor, state = task.encoder(signals, state)
        for name, value in state.items():  # copied: it may share memory with the observation
            worlds.put(self._encoder_state[name], value)
        if worlds.complete and worlds.mask is None:
            self._signals = signals
        else:
            for name, value in signals.items():
                worlds.put(self._signals[name], value)
        if not task.privileged:
            return {"actor": actor, "critic": actor}
        privileged = task.observe_privileged(worlds)
        self._check("observe_privileged", privileged, columns=task.privileged, rows=len(worlds))
        return {
            "actor": actor,
            "critic": torch.cat([actor, *(privileged[name] for name in task.privileged)], dim=-1),
        }

    def _check(
        self,
        method: str,
        tables: dict[str, Tensor],
        dtype: torch.dtype | None = torch.float32,
        *,
        columns: Mapping[str, Sequence[str]] | None = None,
        rows: int = 0,
    ) -> None:
        """Until a first step was made: see `check_outputs`. Without columns, one for each world."""
        if self._checked:
            return
        if columns is None:
            shapes = dict.fromkeys(tables, (self.num_envs,))
        else:
            shapes = {name: (rows, len(names)) for name, names in columns.items()}
        check_outputs(f"{type(self.task).__name__}.{method}", tables, shapes, dtype)


def _last_target(task: Task) -> SignalKind | None:
    """The signal that says what was sent last: angles, or speeds; there is none for torques."""
    if task.deployment is None:
        return "joint_target"
    return LAST_TARGET.get(TARGET_OF[task.deployment.joints[0].operating_mode])


def _check_signals(task: Task, last_target: SignalKind | None) -> None:
    """Refuse an actor that would be blind, or that sees what no robot can know."""
    known = {*task.signals} | ({last_target} if last_target else set())
    if task.deployment:
        known &= SIGNALS.keys()
    for name in (*task.encoder.signals, *task.decoder.signals):
        if name not in known:
            raise ConfigError(
                f"the actor reads {name!r}{did_you_mean(name, known)}; this task measures "
                f"{sorted(task.signals)}, and a robot knows {sorted(SIGNALS)}"
            )


def _require_shape(what: str, found: Tensor, expected: Tensor) -> None:
    if found.shape != expected.shape:
        raise ValueError(
            f"the {what} must have shape {tuple(expected.shape)}, found {tuple(found.shape)}"
        )
