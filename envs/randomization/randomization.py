"""All terms of a randomization, in the order of an environment's step.

    randomization.begin(worlds, episode)                    # models, sensors, pushes
    state = randomization.initial_state(worlds, episode, state)                 # and hands
    targets = randomization.receive(targets, received, step)
    randomization.before_step(step)                         # pushes, draws within the episode
    randomization.sense(signals, worlds, step, starting)
    randomization.adapt(metrics, measured)

Before anything of it is used, each term is proved on worlds of its own; see `physics.proofs`.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import mujoco
import torch
from torch import Tensor

from envs.draws import Draws, Stream
from envs.randomization.growth import Growth
from envs.randomization.physics.grips import Grips, GripTerm
from envs.randomization.physics.initial import InitialTerms
from envs.randomization.physics.model_terms import Bound, ModelTerms
from envs.randomization.physics.proofs import check_draws, check_effects, check_extremes
from envs.randomization.physics.pushes import Pushes, PushTerm, WrenchTerm
from envs.randomization.signals.commands import CommandTerm, CommandTerms
from envs.randomization.signals.proofs import prove_commands, prove_signals
from envs.randomization.signals.sensing import SignalTerm
from envs.randomization.signals.terms import SignalTerms
from envs.randomization.term import PhysicsTerm, RandomTerm, name_streams
from envs.robot import Robot
from envs.simulation import Simulation, State
from envs.worlds import Worlds


class Randomization:
    """See the module docstring.

    Args:
        terms: what is randomized.
        simulation: the worlds.
        draws: the run's random numbers.
        signals: element names of each signal.
        robot: the robot, whose joints the targets are for.
        control_dt_s: period of the policy [s].
        episode_s: longest episode [s].

    Raises:
        ConfigError: a term that means nothing here, leads to what no robot has, or fails a proof.
    """

    before_substep: Callable[[], None] | None = None
    """Called before each physics step, if set."""

    def __init__(
        self,
        terms: Sequence[RandomTerm],
        simulation: Simulation,
        draws: Draws,
        *,
        signals: Mapping[str, Sequence[str]],
        robot: Robot | None = None,
        control_dt_s: float,
        episode_s: float = math.inf,
    ):
        device, model = simulation.device, simulation.model
        for term in terms:
            if isinstance(term, PushTerm | WrenchTerm):
                term.check_happens(episode_s)
            if isinstance(term, GripTerm):
                term.check_lets_go(episode_s)
        prove(terms, model, draws, device)
        self._growth = Growth(terms, simulation.num_envs, device, draws.share)
        shares = self._growth.shares
        with device:
            bound = bind(terms, model, shares)
        on_model, at_start, at_step = (
            [b for b in bound if b.term.acts == acts] for acts in ("model", "start", "step")
        )
        limits_vary = any("jnt_range" in b.change.tables for b in on_model)
        self._model = ModelTerms(on_model, simulation, draws, control_dt_s=control_dt_s)
        self._initial = InitialTerms(at_start, simulation, draws, limits_vary=limits_vary)
        self._pushes = Pushes(at_step, simulation, draws, control_dt_s)
        hands = [
            (term, name, share)
            for term, name, share in zip(terms, name_streams(terms), shares, strict=True)
            if isinstance(term, GripTerm)
        ]
        self._grips = Grips(hands, simulation, draws, control_dt_s)
        self._applied = simulation.data("xfrc_applied")
        bodies = sorted({*self._pushes.bodies, *self._grips.bodies})
        self._forced = torch.tensor(bodies, dtype=torch.int64, device=device)
        sensed = [(t, s) for t, s in zip(terms, shares, strict=True) if isinstance(t, SignalTerm)]
        sent = [(t, s) for t, s in zip(terms, shares, strict=True) if isinstance(t, CommandTerm)]
        self._signals = SignalTerms(
            [term for term, _ in sensed],
            signals,
            draws,
            num_envs=simulation.num_envs,
            device=device,
            control_dt_s=control_dt_s,
        )
        targets = robot.joints if robot else [model.actuator(i).name for i in range(model.nu)]
        self._commands = CommandTerms(
            [term for term, _ in sent],
            targets,
            draws,
            num_envs=simulation.num_envs,
            device=device,
        )
        prove_signals(
            [term for term, _ in sensed], signals, seed=draws.seed, control_dt_s=control_dt_s
        )
        prove_commands([term for term, _ in sent], targets, seed=draws.seed)
        self._signals.set_shares({n: s for n, (_, s) in enumerate(sensed) if s is not None})
        self._commands.set_shares({n: s for n, (_, s) in enumerate(sent) if s is not None})

    def begin(self, worlds: Worlds, episode: Tensor) -> None:
        """Draw everything that starts with an `episode` (n,), and write the model fields."""
        self._model.begin(worlds, episode)
        self._pushes.begin(worlds)
        self._signals.begin(worlds, episode)

    def initial_state(self, worlds: Worlds, episode: Tensor, state: State) -> State:
        """Where an `episode` (n,) starts, from where the task would have it start."""
        state = self._initial.apply(worlds, episode, state)
        return self._grips.begin(worlds, episode, state)

    def before_step(self, step: int) -> None:
        """Pushes, forces and draws within episodes, in all worlds, once per control step."""
        self._growth.advance(step)
        self._model.before_step()
        if len(self._forced):  # first, as several terms may act on a body
            self._applied[:, self._forced] = 0
        self._pushes.before_step()
        self._grips.before_step()

    @property
    def held(self) -> Tensor | None:
        """(num_envs,) bool: worlds that a hand held in the last step; None: there are no hands."""
        return self._grips.held

    def receive(self, targets: Tensor, previous: Tensor, step: int) -> Tensor:
        """What reaches the servos of targets (num_envs, m), which had received `previous`."""
        return self._commands.receive(targets, previous, step)

    def sense(
        self, signals: dict[str, Tensor], worlds: Worlds, step: int, starting: Tensor | None
    ) -> None:
        """Replace true signals (n, elements) by what is read.

        Args:
            signals: by name, changed in place.
            worlds: those they are of.
            step: control steps since the environment was made.
            starting: (n,) episodes, if these are their first readings.
        """
        self._signals.sense(signals, worlds, step, starting)

    def adapt(self, metrics: Mapping[str, Tensor], measured: Tensor) -> None:
        """Let ranges follow a task's metrics (num_envs,), where they were `measured`."""
        self._growth.adapt(metrics, measured)

    def metrics(self) -> dict[str, float]:
        """Share of its range that each term uses that grows; waits for the device."""
        return {f"share/{name}": share for name, share in self._growth.report().items()}

    def state_dict(self) -> dict[str, Any]:
        """All that is remembered beside what the simulation holds."""
        return {
            "growth": self._growth.state_dict(),
            "model": self._model.state_dict(),
            "pushes": self._pushes.state_dict(),
            "grips": self._grips.state_dict(),
            "signals": self._signals.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        self._growth.load_state_dict(state["growth"])
        self._model.load_state_dict(state["model"])
        self._pushes.load_state_dict(state["pushes"])
        self._grips.load_state_dict(state.get("grips", []))  # earlier versions had none
        self._signals.load_state_dict(state["signals"])


def bind(
    terms: Sequence[RandomTerm], model: mujoco.MjModel, shares: Sequence[Tensor | None]
) -> list[Bound]:
    """Those terms that act on models and states, bound to a model."""
    bound = []
    for term, name, share in zip(terms, name_streams(terms), shares, strict=True):
        if isinstance(term, PhysicsTerm):
            change = term.bind(model)
            rows, columns = change.shape
            bound.append(Bound(term, Stream(name, rows * columns), change, share))
    return bound


def prove(
    terms: Sequence[RandomTerm], model: mujoco.MjModel, draws: Draws, device: torch.device
) -> None:
    """Refuse terms on models and states that fail a proof; see `physics.proofs`."""
    bound = bind(terms, model, [None] * len(terms))
    if bound:
        check_extremes([b for b in bound if b.term.acts == "model"], model)
        check_draws(bound, model, draws, device)
        check_effects(bound, model)
