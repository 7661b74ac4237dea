"""Does a term do anything? Worlds that differ only in it must not move the same, to the bit."""

from collections.abc import Collection, Mapping, Sequence

import mujoco
import numpy as np
import torch
from torch import Tensor

from envs.batch_simulation import BatchSimulation
from envs.draws import Stream
from envs.randomization.physics.initial import Stance
from envs.randomization.physics.model_fields import write_fields
from envs.randomization.physics.model_terms import Bound, needs_constants, nominal_values, spread
from envs.randomization.physics.numbers import Values
from envs.servos import with_servos
from envs.simulation import State
from envs.worlds import every

_DURATION_S = 1.0
_CONTROL_S = 0.02
_HELD = (1, 25)  # periods a control lasts, in turn: joints that tremble, and that travel and rest
_HINGE, _SLIDE = int(mujoco.mjtJoint.mjJNT_HINGE), int(mujoco.mjtJoint.mjJNT_SLIDE)
_COMPARED = ("qpos", "qvel", "sensordata", "site_xpos")


class Probe:
    """Worlds that are moved alike, by random controls from random poses at random speeds.

    World 0 has all terms, world i all but the i-th. What pushes, pushes at the start; forces last.

    Args:
        model: the model.
        terms: terms on the model, on initial states, and pushes.
    """

    def __init__(self, model: mujoco.MjModel, terms: Sequence[Bound]):
        self._model, self._terms = model, terms
        self._simulation = with_servos(BatchSimulation(model, 1 + len(terms), num_threads=1))
        self._worlds = every(1 + len(terms))
        self._nominal = nominal_values(model, [b for b in terms if b.term.acts == "model"])
        self._stance = Stance(model, torch.device("cpu"))
        self._data = [self._simulation.data(name) for name in _COMPARED]

    def values(self, uniforms: Mapping[Stream, Tensor]) -> Values:
        """Model fields of all worlds, drawn by uniform numbers (1, size) for each stream."""
        values = spread(self._nominal, len(self._worlds))
        self._apply("model", values, uniforms)
        return values

    def differ(
        self, uniforms: Mapping[Stream, Tensor], worlds: Collection[int], trial: int
    ) -> set[int]:
        """Which of `worlds` move otherwise than world 0 within a second.

        Args:
            uniforms: numbers (1, size) for each stream.
            worlds: those of interest.
            trial: chooses pose, speed and controls.
        """
        simulation, model = self._simulation, self._model
        values = self.values(uniforms)
        write_fields(simulation, values, self._worlds)
        if needs_constants(values):
            simulation.recompute_constants(self._worlds)
        generator = np.random.default_rng(trial)
        qpos, qvel = _start(model, trial, generator)
        ctrl = _control(model, generator)
        state = State(*(v.expand(len(self._worlds), -1) for v in (qpos, qvel, ctrl)))
        simulation.reset(self._worlds, self._begin(state, values, uniforms))
        moving = {
            "qvel": simulation.data("qvel")[..., None],
            "xfrc_applied": simulation.data("xfrc_applied"),
        }
        self._apply("step", moving, uniforms)
        different = self._different()
        for period in range(round(_DURATION_S / _CONTROL_S)):
            if different.issuperset(worlds):
                break
            if period % _HELD[trial % len(_HELD)] == 0:
                simulation.data("ctrl")[:] = _control(model, generator)
            simulation.step(max(1, round(_CONTROL_S / model.opt.timestep)))
            different |= self._different()
        return different.intersection(worlds)

    def _begin(self, state: State, values: Values, uniforms: Mapping[Stream, Tensor]) -> State:
        if not any(bound.term.acts == "start" for bound in self._terms):
            return state
        tables = {"qpos": state.qpos[..., None].clone(), "qvel": state.qvel[..., None].clone()}
        self._apply("start", tables, uniforms)
        ranges = values.get("jnt_range", torch.from_numpy(self._model.jnt_range))
        return self._stance.settle(state, tables["qpos"][..., 0], tables["qvel"][..., 0], ranges)

    def _apply(self, acts: str, values: Values, uniforms: Mapping[Stream, Tensor]) -> None:
        """Apply each term of a kind to all worlds but its own, in place."""
        for own, bound in enumerate(self._terms, 1):
            if bound.term.acts == acts:
                rows = self._worlds.ids[self._worlds.ids != own]
                part = {name: values[name][rows] for name in dict.fromkeys(bound.change.tables)}
                bound.change.apply(part, uniforms[bound.stream].expand(len(rows), -1))
                for name, table in part.items():
                    values[name][rows] = table

    def _different(self) -> set[int]:
        differ = torch.zeros(len(self._worlds), dtype=torch.bool)
        for data in self._data:
            bits = data.reshape(len(data), -1).view(torch.int64)  # in which NaN equals itself
            differ |= (bits != bits[:1]).any(dim=-1)
        return set(torch.nonzero(differ).flatten().tolist())


def _start(
    model: mujoco.MjModel, trial: int, generator: np.random.Generator
) -> tuple[Tensor, Tensor]:
    """The model's own poses first, then poses with random joints, also at their stops."""
    poses = [model.qpos0, *model.key_qpos]
    qpos = poses[trial % len(poses)].copy()
    if trial >= len(poses):
        for joint, kind in enumerate(model.jnt_type):
            if kind in (_HINGE, _SLIDE):
                place = model.jnt_qposadr[joint]
                limits = model.jnt_range[joint] if model.jnt_limited[joint] else (-0.5, 0.5)
                low, high = limits
                qpos[place] = np.clip(generator.uniform(1.3 * low, 1.3 * high), low, high)
    qvel = generator.normal(size=model.nv)
    return torch.from_numpy(qpos), torch.from_numpy(qvel)


def _control(model: mujoco.MjModel, generator: np.random.Generator) -> Tensor:
    """Random controls, some of them beyond the range in which they are clamped."""
    limited = model.actuator_ctrllimited.astype(bool)[:, None]
    low, high = np.where(limited, model.actuator_ctrlrange, [-1.0, 1.0]).T
    beyond = 0.2 * (high - low)
    return torch.from_numpy(generator.uniform(low - beyond, high + beyond))
