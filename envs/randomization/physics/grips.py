"""A hand that holds a robot where its episode starts, and lets go of it later.

    - {grip: base, share: 0.3, range: [1.5, 5.0], duration_s: [0.0, 4.0]}         # Hz

In a `share` of the episodes a spring and a damper hold each body of a free joint in the pose in
which it starts; after a random time they are gone. With `lift_m` it starts as much higher, and is
lowered evenly until a random moment: a robot that is put on its feet while its policy already acts.
The hand's stiffness is drawn as the frequency f
at which what it holds would swing on it, were it not critically damped: the spring is m w² and the
damper 2 m w, w = 2 π f, and likewise about each axis, with the mass and inertia that whoever moves
the body feels (MuJoCo's `body_invweight0`: what hangs on it on joints weighs less). A person's hand
has 1 to 5 Hz, a stand 10 or more. The spring pulls with one force for a whole control step h; the
damper is `dof_damping` of the free joint, in which MuJoCo's integrators are implicit. So it is
stable up to w h = 4, whatever the body weighs.

A world that is held earns nothing, does not fail and is not measured (`VectorEnv`): what a policy
does while it is held counts by what comes of it when it is let go.
"""

import math
from collections.abc import Sequence
from typing import Annotated, Any

import mujoco
import torch
from pydantic import Field, model_validator
from torch import Tensor

from deploy.errors import ConfigError
from deploy.quantities import Duration
from envs.draws import Draws, Stream
from envs.randomization.physics.joints import matching_joints
from envs.randomization.term import Pattern, RangeTerm
from envs.rotation import multiply_quaternions
from envs.simulation import Simulation, State
from envs.worlds import Worlds, choose

_FREE = int(mujoco.mjtJoint.mjJNT_FREE)
_STIFFEST = 4.0
"""Rate of a hand by that of the control steps: 4 + 4 r w h > r (w h)² for any ratio r of masses."""


_LOWERED = 0.2, 0.8
"""Shares of the time of a hold between which the body has come down."""
_LIFTED_S = 1.0
"""A hold as long lifts all the way, a shorter one in proportion: none throws the body down."""
Height = Annotated[float, Field(ge=0, le=10)]


class GripTerm(RangeTerm):
    """A hand that holds free bodies at the start of episodes."""

    grip: Pattern
    """Pattern or patterns of the names of free joints; one without a name is called by its body."""
    share: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Of the episodes."""
    duration_s: tuple[Annotated[float, Field(ge=0, le=1000)], Duration]
    """Shortest and longest time until it lets go [s]."""
    lift_m: tuple[Height, Height] = (0.0, 0.0)
    """Least and most height over the start pose at first [m]; less where it lets go soon."""

    @model_validator(mode="after")
    def _check(self) -> "GripTerm":
        if self.duration_s[0] > self.duration_s[1]:
            raise ValueError(f"duration_s must be [shortest, longest], found {self.duration_s}")
        if self.lift_m[0] > self.lift_m[1]:
            raise ValueError(f"lift_m must be [least, most], found {self.lift_m}")
        low, high = self.extremes
        if low < 0 or high <= 0:
            raise ValueError(
                f"grip: the range is a frequency in Hz, above 0, found {list(self.range)}; a "
                "person's hand has 1 to 5"
            )
        return self

    @property
    def target(self) -> str:
        """See `RandomTerm.target`."""
        return "grip"

    @property
    def identity(self) -> str:
        """See `RandomTerm.identity`."""
        return f"grip/{self.grip}"

    def describe(self) -> dict[str, Any]:
        """See `RandomTerm.describe`."""
        more = {"share": self.share, "duration_s": self.duration_s, "lift_m": self.lift_m}
        return self.summary(self.grip, "set", **more)

    def check_lets_go(self, episode_s: float) -> None:
        """Refuse a hand that never lets go.

        Raises:
            ConfigError: the longest hold lasts for a whole episode.
        """
        if self.duration_s[1] >= episode_s:
            raise ConfigError(
                f"randomization: '{self}' may hold for {self.duration_s[1]:g} s, and no episode is "
                f"longer than {episode_s:g} s: nothing would be learnt of being let go; lower "
                "duration_s"
            )

    def check_stable(self, model: mujoco.MjModel, control_dt_s: float) -> None:
        """Refuse a hand that would shake.

        Raises:
            ConfigError: it is too stiff for the control steps, or damping is integrated explicitly.
        """
        stiffest_hz = _STIFFEST / (2 * math.pi * control_dt_s)
        if self.extremes[1] > stiffest_hz:
            raise ConfigError(
                f"randomization: '{self}' would shake: control steps of {control_dt_s:g} s bear up "
                f"to {stiffest_hz:.1f} Hz; lower the range"
            )
        disabled = model.opt.disableflags & int(mujoco.mjtDisableBit.mjDSBL_EULERDAMP)
        if model.opt.integrator == int(mujoco.mjtIntegrator.mjINT_RK4) or disabled:
            raise ConfigError(
                f"randomization: '{self}' needs an integrator that is implicit in damping; RK4, "
                "and Euler with the flag eulerdamp disabled, are not. Write "
                'integrator="implicitfast" in the MJCF\'s <option>'
            )


class Grips:
    """Hands of all worlds.

    Args:
        terms: hold terms, and the share of each that is in use (None: all).
        simulation: the worlds.
        draws: the run's random numbers.
        control_dt_s: period of the policy [s].
    """

    def __init__(
        self,
        terms: Sequence[tuple[GripTerm, str, Tensor | None]],
        simulation: Simulation,
        draws: Draws,
        control_dt_s: float,
    ):
        for term, _, _ in terms:
            term.check_stable(simulation.model, control_dt_s)
        self._hands = [
            _Hand(term, name, share, joint, simulation, draws, control_dt_s)
            for term, name, share in terms
            for joint in matching_joints(simulation.model, term.target, term.grip, (_FREE,))
        ]
        self.bodies = [hand.body for hand in self._hands]
        """That forces act on."""

    @property
    def held(self) -> Tensor | None:
        """(num_envs,) bool: worlds that were held in the last step; None if there are no hands."""
        if not self._hands:
            return None
        return torch.stack([hand.holds for hand in self._hands]).any(dim=0)

    def begin(self, worlds: Worlds, episode: Tensor, state: State) -> State:
        """Take hold at the start of an `episode` (n,); returns where (n, ...) that is."""
        for hand in self._hands:
            state = hand.begin(worlds, episode, state)
        return state

    def before_step(self) -> None:
        """Add the forces of this control step."""
        for hand in self._hands:
            hand.pull()

    def state_dict(self) -> list[dict[str, Tensor]]:
        """What is held, where, how firmly and for how long."""
        return [hand.state_dict() for hand in self._hands]

    def load_state_dict(self, state: list[dict[str, Tensor]]) -> None:
        """Restore what `state_dict` returned."""
        for hand, saved in zip(self._hands, state, strict=True):
            hand.load_state_dict(saved)


class _Hand:
    """One on a body of each world."""

    def __init__(
        self,
        term: GripTerm,
        name: str,
        share: Tensor | None,
        joint: int,
        simulation: Simulation,
        draws: Draws,
        control_dt_s: float,
    ):
        model = simulation.model
        self.body = int(model.jnt_bodyid[joint])
        qpos_at, dof_at = int(model.jnt_qposadr[joint]), int(model.jnt_dofadr[joint])
        self._pose, self._dofs = slice(qpos_at, qpos_at + 7), slice(dof_at, dof_at + 6)
        self._term, self._share, self._draws = term, share, draws
        self._stream = Stream(f"{name}/{self.body}", 5)
        self._dt, self._compact = control_dt_s, simulation.compact
        self._qpos, self._centre = simulation.data("qpos"), simulation.data("xipos")
        self._applied = simulation.data("xfrc_applied")
        self._damping = simulation.field("dof_damping")
        own, felt = model.dof_damping[self._dofs], 1 / model.body_invweight0[self.body].repeat(3)
        self._own_damping, self._felt = (
            torch.from_numpy(row.copy()).to(self._damping) for row in (own, felt)
        )
        rows, device = simulation.num_envs, simulation.device
        self.holds = torch.zeros(rows, dtype=torch.bool, device=device)
        """Whether it did in the last step."""
        self._steps_left = torch.zeros(rows, dtype=torch.int64, device=device)
        self._rate = self._qpos.new_zeros(rows)  # [rad/s]
        self._where = self._qpos.new_zeros(rows, 7)
        self._lift, self._sinking = self._qpos.new_zeros(2, rows)  # [m], [m] in a control step

    def begin(self, worlds: Worlds, episode: Tensor, state: State) -> State:
        """See `Grips.begin`."""
        (uniform,) = self._draws.uniform([self._stream], worlds.ids, episode)
        happens, duration, firmness, high, soon = uniform.double().unbind(-1)
        duration_s = torch.where(
            happens < self._term.share, between(self._term.duration_s, duration), 0
        )
        steps = (duration_s / self._dt).round().long()
        rate = 2 * math.pi * self._term.transform(firmness)
        lift = between(self._term.lift_m, high) * (duration_s / _LIFTED_S).clamp(max=1)
        qpos = state.qpos.clone()
        worlds.put(self._where, qpos[:, self._pose])
        qpos[:, self._pose.start + 2] += lift.to(qpos.dtype)
        worlds.put(self._steps_left, steps)
        worlds.put(self._rate, rate if self._share is None else rate * self._share)
        worlds.put(self._lift, lift)
        worlds.put(self._sinking, lift / (between(_LOWERED, soon) * steps).clamp(min=1))
        worlds.put(self.holds, 0)
        return state._replace(qpos=qpos)

    def pull(self) -> None:
        """See `Grips.before_step`."""
        self.holds = self._steps_left > 0
        self._steps_left = (self._steps_left - 1).clamp(min=0)
        self._lift = (self._lift - self._sinking).clamp(min=0)
        rate = (self._rate * self.holds)[:, None]
        self._damping[:, self._dofs] = self._own_damping + 2 * self._felt * rate
        worlds = choose(self.holds, compact=self._compact)
        if worlds.none:
            return
        pose, where = worlds.take(self._qpos)[:, self._pose], worlds.take(self._where)
        off = torch.cat([pose[:, :3] - where[:, :3], _turn(where[:, 3:], pose[:, 3:])], dim=-1)
        off[:, 2] -= worlds.take(self._lift)
        force, torque = (-self._felt * worlds.take(rate).square() * off).split(3, dim=-1)
        arm = pose[:, :3] - worlds.take(self._centre)[:, self.body]  # forces act at the centre
        torque = torque + torch.linalg.cross(arm, force)
        table = torch.zeros_like(self._applied[:, self.body])
        worlds.put(table, torch.cat([force, torque], dim=-1))
        self._applied[:, self.body] += table

    def state_dict(self) -> dict[str, Tensor]:
        """See `Grips.state_dict`."""
        return {name: getattr(self, name).clone() for name in self._STATE}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Restore what `state_dict` returned."""
        for name in self._STATE:
            getattr(self, name).copy_(state[name])

    _STATE = ("holds", "_steps_left", "_rate", "_where", "_lift", "_sinking")


def between(bounds: tuple[float, float], uniform: Tensor) -> Tensor:
    """Numbers in [0, 1) -> as far between two bounds."""
    return bounds[0] + (bounds[1] - bounds[0]) * uniform


def _turn(before: Tensor, after: Tensor) -> Tensor:
    """(n, 3) rotation vector from one orientation (n, 4) to another, in the world; of small ones.

    Of an angle a it has the length 2 sin(a/2): a hand is turned back the weaker the farther.
    """
    back = torch.cat([before[:, :1], -before[:, 1:]], dim=-1)
    turn = multiply_quaternions(after, back)
    return 2 * turn[:, 1:] * turn[:, :1].sign()
