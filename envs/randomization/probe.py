"""Does a term do anything? Worlds that differ only in it must not move the same, to the bit."""

from collections.abc import Collection, Mapping

import mujoco
import numpy as np
import torch
from torch import Tensor

from envs.batch_simulation import BatchSimulation
from envs.randomization.model_fields import write_fields
from envs.simulation import State
from envs.worlds import every

_DURATION_S = 1.0
_CONTROL_S = 0.02
_HELD = (1, 25)  # periods a control lasts, in turn: joints that tremble, and that travel and rest
_HINGE, _SLIDE = int(mujoco.mjtJoint.mjJNT_HINGE), int(mujoco.mjtJoint.mjJNT_SLIDE)
_COMPARED = ("qpos", "qvel", "sensordata", "site_xpos")


class Probe:
    """Worlds that are moved alike, by random controls from random poses at random speeds.

    Args:
        model: the model.
        num_worlds: number of worlds; all are compared with the first.
        recompute: whether constants follow from the fields that differ.
    """

    def __init__(self, model: mujoco.MjModel, num_worlds: int, *, recompute: bool):
        self._model = model
        self._simulation = BatchSimulation(model, num_worlds, num_threads=1)
        self._worlds = every(num_worlds)
        self._recompute = recompute
        self._data = [self._simulation.data(name) for name in _COMPARED]

    def differ(self, values: Mapping[str, Tensor], worlds: Collection[int], trial: int) -> set[int]:
        """Which of `worlds` move otherwise than world 0 within a second.

        Args:
            values: (num_worlds, rows, columns) of each model field.
            worlds: those of interest.
            trial: chooses pose, speed and controls.
        """
        simulation, model = self._simulation, self._model
        write_fields(simulation, values, self._worlds.ids)
        if self._recompute:
            simulation.recompute_constants(self._worlds)
        generator = np.random.default_rng(trial)
        qpos, qvel = _start(model, trial, generator)
        ctrl = _control(model, generator)
        state = State(*(v.expand(len(self._worlds), -1) for v in (qpos, qvel, ctrl)))
        simulation.reset(self._worlds, state)
        different = self._different()
        for period in range(round(_DURATION_S / _CONTROL_S)):
            if different.issuperset(worlds):
                break
            if period % _HELD[trial % len(_HELD)] == 0:
                simulation.data("ctrl")[:] = _control(model, generator)
            simulation.step(max(1, round(_CONTROL_S / model.opt.timestep)))
            different |= self._different()
        return different.intersection(worlds)

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
