"""Where episodes start: what is added to the state that the task gives.

    - {initial: angle, range: [-0.1, 0.1]}                       # joints [rad], slides [m]
    - {initial: velocity, match: base, columns: [x, y], range: [-0.2, 0.2]}    # m/s, rad/s
    - {initial: position, match: base, columns: z, range: [0.0, 0.02]}         # m
    - {initial: tilt, match: base, range: [0.0, 0.1]}            # rad, about any horizontal axis
    - {initial: yaw, match: base, range: [-3.14, 3.14]}          # rad, about the vertical

Angles stay within the limits of their joints, as these are in each world, and a position servo is
told the angle at which its joint starts, as if it had stood there for ever. A base is a free joint;
one without a name is called by its body. Its velocity is linear in the world frame and angular in
its own, and does not turn with yaw or tilt.
"""

import math
from collections.abc import Sequence
from typing import Any, Literal

import mujoco
import numpy as np
import torch
from pydantic import model_validator
from torch import Tensor

from deploy.errors import ConfigError
from envs.ahead import Ahead
from envs.draws import Draws
from envs.randomization.law import Law
from envs.randomization.physics.fields import check_effect
from envs.randomization.physics.joints import Columns, matching_joints, velocity_place
from envs.randomization.physics.model_fields import ModelField
from envs.randomization.physics.model_terms import Bound
from envs.randomization.physics.numbers import Change, Numbers, Part, Place, Values
from envs.randomization.term import Pattern, PhysicsTerm
from envs.robot import position_servos
from envs.rotation import axis_angle, multiply_quaternions
from envs.simulation import Simulation, State
from envs.worlds import Worlds

_FREE = int(mujoco.mjtJoint.mjJNT_FREE)
_ONE = (int(mujoco.mjtJoint.mjJNT_HINGE), int(mujoco.mjtJoint.mjJNT_SLIDE))
_XYZ = ("x", "y", "z")


class InitialTerm(PhysicsTerm):
    """A change of the initial state, drawn at each episode."""

    acts = "start"

    initial: Literal["angle", "velocity", "position", "tilt", "yaw"]
    """What is changed."""
    match: Pattern = "*"
    """Pattern or patterns of joint names."""
    columns: Columns = None
    """Which of x, y, z, rx, ry, rz, for `position` and `velocity` of a base."""
    operation: Literal["add", "scale", "set"] = "add"
    """How a draw changes what the task gives; a turn is always added."""
    shared: bool = False
    """One draw for all joints."""

    @model_validator(mode="after")
    def _check(self) -> "InitialTerm":
        turn = self.initial in ("tilt", "yaw")
        if turn and self.operation != "add":
            raise ValueError(f"{self.initial} turns the base; delete `operation`")
        if (turn or self.initial == "angle") and self.columns is not None:
            raise ValueError(f"{self.initial} is one number; delete `columns`")
        if turn and max(map(abs, self.extremes)) > 2 * math.pi:
            raise ValueError(
                f"{self.initial} is an angle in rad, found {list(self.range)}; is it in degrees?"
            )
        check_effect(self, self.operation)
        return self

    @property
    def target(self) -> str:
        """See `RandomTerm.target`."""
        return f"initial {self.initial}"

    @property
    def identity(self) -> str:
        """See `RandomTerm.identity`."""
        return f"{self.target}/{self.match}/{self.columns}/{self.operation}"

    def describe(self) -> dict[str, Any]:
        """See `RandomTerm.describe`."""
        return self.summary(self.match, self.operation, columns=self.columns)

    def bind(self, model: mujoco.MjModel) -> Change:
        """See `PhysicsTerm.bind`."""
        if self.initial == "velocity":
            return self._numbers(velocity_place(model, self.target, self.match, self.columns))
        kinds = _ONE if self.initial == "angle" else (_FREE,)
        joints = matching_joints(model, self.target, self.match, kinds)
        starts = torch.tensor(model.jnt_qposadr[joints], dtype=torch.int64)[:, None]
        if self.initial == "angle":
            return self._numbers(Place("qpos", starts, torch.tensor([0])))
        if self.initial == "position":
            if self.columns is None:
                raise ConfigError(
                    f"randomization: '{self}': name the columns you mean, of {list(_XYZ)}"
                )
            field = ModelField(self.target, [], None, _XYZ, "vector")
            chosen = torch.tensor(field.select(self.columns))
            return self._numbers(Place("qpos", starts + chosen, torch.zeros_like(chosen)))
        place = Place("qpos", starts + torch.arange(3, 7), torch.zeros(4, dtype=torch.int64))
        rows = 1 if self.shared else len(joints)
        return _Turn(place, self, rows, upright=self.initial == "yaw")

    def _numbers(self, place: Place) -> Change:
        shape = (1, 1) if self.shared else (len(place.rows), place.rows.shape[-1])
        return Numbers([Part(place)], self.operation, self, shape)


class _Turn:
    """Bases turned about axes of the world: the vertical, or any horizontal one."""

    def __init__(self, place: Place, law: Law, rows: int, *, upright: bool):
        self.tables, self.shape = [place.table], (rows, 1 if upright else 2)
        self._place, self._law, self._upright = place, law, upright

    def apply(self, values: Values, uniform: Tensor, share: Tensor | None = None) -> None:
        """See `Change.apply`."""
        numbers = uniform.double().unflatten(1, self.shape)
        before = self._place.take(values)  # (worlds, r, 4)
        angle = self._law.transform(numbers[..., 0])
        if share is not None:
            angle = angle * share
        toward = 2 * math.pi * numbers[..., -1]
        flat = torch.zeros_like(angle)
        axis = torch.stack([toward.cos(), toward.sin(), flat], dim=-1)
        if self._upright:
            axis = torch.stack([flat, flat, flat + 1], dim=-1)
        turned = multiply_quaternions(axis_angle(axis, angle), before.double())
        self._place.put(values, turned.to(before.dtype))

    def corners(self) -> list[Tensor]:
        """See `Change.corners`."""
        return [torch.zeros(self.shape[0] * self.shape[1])]


class InitialTerms:
    """Initial terms at work.

    Args:
        terms: initial terms.
        simulation: the worlds.
        draws: the run's random numbers.
        limits_vary: whether joint limits differ between worlds.
    """

    def __init__(
        self, terms: Sequence[Bound], simulation: Simulation, draws: Draws, *, limits_vary: bool
    ):
        self._terms, self._simulation = terms, simulation
        self._stance = Stance(simulation.model, simulation.device)
        streams = [bound.stream for bound in terms]
        self._uniforms = Ahead(
            lambda ids, episode: draws.uniform(streams, ids, episode),
            simulation.num_envs,
            simulation.device,
        )
        self._limits_vary = limits_vary
        self._limits = torch.from_numpy(simulation.model.jnt_range).to(simulation.device)

    def apply(self, worlds: Worlds, episode: Tensor, state: State) -> State:
        """The state (n, ...) of worlds at the start of an `episode` (n,)."""
        if not self._terms:
            return state
        tables = {"qpos": state.qpos[..., None].clone(), "qvel": state.qvel[..., None].clone()}
        uniforms = self._uniforms.of(worlds, episode)
        for bound, uniform in zip(self._terms, uniforms, strict=True):
            bound.change.apply(tables, uniform, bound.share)
        limits = self._limits
        if self._limits_vary:
            limits = worlds.take(self._simulation.field("jnt_range"))
        return self._stance.settle(state, tables["qpos"][..., 0], tables["qvel"][..., 0], limits)


class Stance:
    """Brings a changed state within joint limits, and tells the servos of it.

    Args:
        model: the nominal model.
        device: where states live.
    """

    def __init__(self, model: mujoco.MjModel, device: torch.device):
        joints = np.flatnonzero(np.isin(model.jnt_type, _ONE))
        limited = joints[model.jnt_limited[joints] == 1]
        self._limited = torch.from_numpy(limited).to(device)
        self._angles = torch.from_numpy(model.jnt_qposadr[limited]).long().to(device)
        servos = [
            actuator
            for actuator in np.flatnonzero(position_servos(model)).tolist()
            if model.actuator_trntype[actuator] == int(mujoco.mjtTrn.mjTRN_JOINT)
            and int(model.jnt_type[model.actuator_trnid[actuator, 0]]) in _ONE
        ]
        driven = model.actuator_trnid[servos, 0]
        self._servos = torch.tensor(servos, dtype=torch.int64, device=device)
        self._targets = torch.from_numpy(model.jnt_qposadr[driven]).long().to(device)
        self._gear = torch.from_numpy(model.actuator_gear[servos, 0].copy()).to(device)
        low, high = np.where(
            model.actuator_ctrllimited[servos, None] == 1,
            model.actuator_ctrlrange[servos],
            [-np.inf, np.inf],
        ).T
        self._low = torch.from_numpy(low.copy()).to(device)
        self._high = torch.from_numpy(high.copy()).to(device)

    def settle(self, state: State, qpos: Tensor, qvel: Tensor, ranges: Tensor) -> State:
        """The state with changed positions and velocities.

        Args:
            state: as the task gave it.
            qpos: (n, nq) as it was changed.
            qvel: (n, nv) as it was changed.
            ranges: (n, njnt, 2) or (njnt, 2) limits of the joints.
        """
        low, high = ranges[..., self._limited, :].to(qpos.dtype).unbind(-1)
        angles = qpos[:, self._angles]
        # a task may start a joint beyond its limit on purpose: only what was added is held back
        start = state.qpos[:, self._angles]
        within = angles.maximum(low).minimum(high)
        qpos[:, self._angles] = torch.where(angles == start, angles, within)
        moved = (qpos - state.qpos)[:, self._targets] * self._gear.to(qpos.dtype)
        ctrl = state.ctrl.clone()
        told = ctrl[:, self._servos] + moved
        told = told.maximum(self._low.to(told.dtype)).minimum(self._high.to(told.dtype))
        ctrl[:, self._servos] = torch.where(moved == 0, ctrl[:, self._servos], told)
        return State(qpos, qvel, ctrl)
