"""What happens to a robot from outside: kicks of its velocity, forces and torques on its bodies.

    - {push: base, columns: [x, y], range: [-0.5, 0.5], interval_s: [5, 10]}         # m/s
    - {push: elbow, range: [-1.0, 1.0], interval_s: [2, 4]}                          # rad/s
    - {wrench: hand, columns: [x, y, z], range: [-2, 2], duration_s: [0.1, 0.5],
       interval_s: [1, 3]}                                                           # N

A push adds to the velocity of joints at once; of a free joint linear in the world frame, angular in
its own, as in `qvel`. A wrench acts at the centre of mass of a body, in the world frame (x, y, z
[N], rx, ry, rz [N·m], as `xfrc_applied`), for whole control steps; wrenches of several terms add
up. The time between events, from one start to the next, is drawn too, as is that from the start of
an episode to its first event. `shared` draws are the same
for all that is pushed.
"""

from collections.abc import Sequence
from typing import Any

import mujoco
import torch
from pydantic import model_validator

from deploy.errors import ConfigError
from deploy.quantities import Duration
from envs.draws import Draws, Stream
from envs.randomization.physics.fields import check_effect
from envs.randomization.physics.joints import Columns, velocity_place
from envs.randomization.physics.model_fields import ModelField
from envs.randomization.physics.model_terms import Bound
from envs.randomization.physics.numbers import Numbers, Part, Place
from envs.randomization.physics.timer import Timer
from envs.randomization.term import Pattern, PhysicsTerm, matching_rows
from envs.simulation import Simulation
from envs.worlds import Worlds

_SIX = ("x", "y", "z", "rx", "ry", "rz")


class _Disturbance(PhysicsTerm):
    """What both kinds can say."""

    acts = "step"

    columns: Columns = None
    """Which of x, y, z, rx, ry, rz."""
    shared: bool = False
    """One draw for everything it acts on."""
    interval_s: tuple[Duration, Duration]
    """Shortest and longest time between two events [s]."""

    @model_validator(mode="after")
    def _check(self) -> "_Disturbance":
        if self.interval_s[0] > self.interval_s[1]:
            raise ValueError(f"interval_s must be [shortest, longest], found {self.interval_s}")
        check_effect(self, "add")
        return self

    def check_happens(self, episode_s: float) -> None:
        """Refuse events that no episode lives to see: its start begins the wait for the first.

        Raises:
            ConfigError: the shortest time between two events is longer than an episode.
        """
        if self.interval_s[0] > episode_s:
            raise ConfigError(
                f"randomization: '{self}' never happens: the first comes {self.interval_s[0]:g} s "
                f"or more after an episode starts, and none is longer than {episode_s:g} s; lower "
                "interval_s"
            )

    def _numbers(self, place: Place) -> Numbers:
        shape = (1, 1) if self.shared else (len(place.rows), place.columns.shape[-1])
        return Numbers([Part(place)], "add", self, shape)


class PushTerm(_Disturbance):
    """A kick of joint velocities, at random times."""

    push: Pattern
    """Pattern or patterns of joint names; a joint without a name is called by its body."""

    @property
    def target(self) -> str:
        """See `RandomTerm.target`."""
        return "push"

    @property
    def identity(self) -> str:
        """See `RandomTerm.identity`."""
        return f"push/{self.push}/{self.columns}"

    def describe(self) -> dict[str, Any]:
        """See `RandomTerm.describe`."""
        return self.summary(self.push, "add", columns=self.columns)

    def bind(self, model: mujoco.MjModel) -> Numbers:
        """See `PhysicsTerm.bind`."""
        return self._numbers(velocity_place(model, "push", self.push, self.columns))


class WrenchTerm(_Disturbance):
    """A force or torque on bodies for a while, at random times."""

    wrench: Pattern
    """Pattern or patterns of the names of bodies."""
    duration_s: tuple[Duration, Duration]
    """Shortest and longest time it lasts [s]."""

    @model_validator(mode="after")
    def _check_duration(self) -> "WrenchTerm":
        if self.duration_s[0] > self.duration_s[1]:
            raise ValueError(f"duration_s must be [shortest, longest], found {self.duration_s}")
        if self.duration_s[1] > self.interval_s[0]:
            raise ValueError(
                f"a wrench must end before the next one starts, found duration_s up to "
                f"{self.duration_s[1]} s and interval_s from {self.interval_s[0]} s"
            )
        return self

    @property
    def target(self) -> str:
        """See `RandomTerm.target`."""
        return "wrench"

    @property
    def identity(self) -> str:
        """See `RandomTerm.identity`."""
        return f"wrench/{self.wrench}/{self.columns}"

    def describe(self) -> dict[str, Any]:
        """See `RandomTerm.describe`."""
        return self.summary(self.wrench, "add", columns=self.columns)

    def bind(self, model: mujoco.MjModel) -> Numbers:
        """See `PushTerm.bind`."""
        names = [None, *(model.body(body).name for body in range(1, model.nbody))]
        rows = torch.tensor(matching_rows("wrench", names, self.wrench))
        columns = ModelField("wrench", [], None, _SIX, "record").select(self.columns)
        return self._numbers(Place("xfrc_applied", rows[:, None], torch.tensor(columns)))


class Pushes:
    """Pushes and wrenches of all worlds.

    Args:
        terms: push and wrench terms.
        simulation: the worlds.
        draws: the run's random numbers.
        control_dt_s: period of the policy [s].
    """

    def __init__(
        self, terms: Sequence[Bound], simulation: Simulation, draws: Draws, control_dt_s: float
    ):
        self._draws, self._control_dt_s = draws, control_dt_s
        self._qvel, self._applied = simulation.data("qvel"), simulation.data("xfrc_applied")
        self._events = [
            _Event(bound.term, bound, bound.change, simulation, draws, control_dt_s)
            for bound in terms
            if isinstance(bound.term, _Disturbance) and isinstance(bound.change, Numbers)
        ]
        self._wrenches = [
            event for event in self._events if isinstance(event.bound.term, WrenchTerm)
        ]
        self.bodies = [body for event in self._wrenches for body in event.bodies.tolist()]
        """That forces act on."""

    def begin(self, worlds: Worlds) -> None:
        """Start episodes: nothing acts."""
        for event in self._events:
            event.timer.begin(worlds)
            worlds.put(event.steps_left, 0)

    def before_step(self) -> None:
        """Push, and add the forces of this control step."""
        for event in self._events:
            worlds = event.timer.due()
            if not worlds.none:
                self._start(event, worlds)
        for event in self._wrenches:
            acting = (event.steps_left > 0)[:, None, None]
            self._applied[:, event.bodies] += (event.wrench * acting)[:, event.bodies]
            event.steps_left.sub_(1).clamp_(min=0)

    def state_dict(self) -> list[dict[str, Any]]:
        """What acts, and when the next events are."""
        return [
            {
                "timer": event.timer.state_dict(),
                "wrench": event.wrench.clone(),
                "steps_left": event.steps_left.clone(),
            }
            for event in self._events
        ]

    def load_state_dict(self, state: list[dict[str, Any]]) -> None:
        """Restore what `state_dict` returned."""
        for event, saved in zip(self._events, state, strict=True):
            event.timer.load_state_dict(saved["timer"])
            event.wrench.copy_(saved["wrench"])
            event.steps_left.copy_(saved["steps_left"])

    def _start(self, event: "_Event", worlds: Worlds) -> None:
        """Draw an event in some worlds."""
        term, _, change, share = event.bound
        kick, duration = self._draws.uniform(
            event.streams, worlds.ids, worlds.take(event.timer.count)
        )
        if isinstance(term, WrenchTerm):
            shortest, longest = term.duration_s
            seconds = shortest + (longest - shortest) * duration[:, 0]
            steps = (seconds / self._control_dt_s).round().long().clamp(min=1)
            worlds.put(event.steps_left, steps)
            values = {"xfrc_applied": torch.zeros_like(worlds.take(event.wrench))}
            change.apply(values, kick, share)
            worlds.put(event.wrench, values["xfrc_applied"])
        else:
            values = {"qvel": worlds.take(self._qvel)[..., None].clone()}
            change.apply(values, kick, share)
            worlds.put(self._qvel, values["qvel"][..., 0])


class _Event:
    """One term: when it acts next, and what of it acts now."""

    def __init__(
        self,
        term: _Disturbance,
        bound: Bound,
        change: Numbers,
        simulation: Simulation,
        draws: Draws,
        control_dt_s: float,
    ):
        self.bound = bound
        self.streams = [bound.stream, Stream(f"{bound.stream.name}/duration", 1)]
        self.timer = Timer(
            bound.stream.name,
            term.interval_s,
            draws,
            num_envs=simulation.num_envs,
            device=simulation.device,
            compact=simulation.compact,
            control_dt_s=control_dt_s,
        )
        self.bodies = change.parts[0].lead.rows[:, 0]
        applied = simulation.data("xfrc_applied")
        is_wrench = isinstance(term, WrenchTerm)
        self.wrench = torch.zeros_like(applied if is_wrench else applied[:0])
        self.steps_left = torch.zeros_like(self.timer.count)
