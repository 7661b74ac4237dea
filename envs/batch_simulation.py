"""The CPU backend: `mujoco.batch.Batch`, float64, one thread pool, no copies.

Results do not depend on the number of threads. Sensors and positions are current after each call
(`mjSTAGE_VEL`, free in a persistent batch), unless a model asks for `lagging_data`. Worlds too many
for a core's cache are stepped in few `MjData`, one per thread, which stay in it: 5 to 15 % faster,
the same bits. MuJoCo resets delay buffers to zero, which would command every servo to angle 0 after
a reset; `reset` fills them with the given control and the sensors' own values instead.
"""

import copy
import operator
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import mujoco
import numpy as np
import torch
from mujoco.batch import Batch, SimulationError
from torch import Tensor

from deploy.errors import ConfigError
from envs import lagging_data
from envs.divergence.trail import WARNINGS, Divergence, Trail, describe_warnings
from envs.simulation import State
from envs.worlds import Worlds, every

_CACHE = 1_000_000
"""Bytes of a core's cache that worlds should fit into."""
_MARKER = 1e9


class BatchSimulation:
    """A `Simulation` on CPU threads.

    Args:
        model: the compiled model.
        num_envs: number of worlds.
        num_threads: simulation threads; 0 uses every core.
    """

    def __init__(self, model: mujoco.MjModel, num_envs: int, *, num_threads: int = 0):
        self.model = model
        self.num_envs = num_envs
        self.device = torch.device("cpu")
        self.compact = True
        lagging = lagging_data.requested(model)
        stage = mujoco.mjtStage
        self._after_step = int(stage.mjSTAGE_NONE if lagging else stage.mjSTAGE_VEL)
        self._after_write = int(stage.mjSTAGE_ACC if lagging else stage.mjSTAGE_VEL)
        fits = num_envs * mujoco.MjData(model).nbuffer <= _CACHE
        persistent = fits and not lagging
        self._batch = Batch(_without_islands(model), num_envs, num_threads, persistent=persistent)
        self._refreshed_when_bound = not persistent and not lagging
        self._bound = set[str]()
        self._fields: dict[str, Tensor] = {}
        self._history = self._batch.bind("history")
        self._sensordata = self._batch.bind("sensordata")
        self._warned = self._batch.warning[:, WARNINGS[0] : WARNINGS[-1] + 1, 1]  # side by side
        self._actuators, self._sensors = map(_side_by_side, history_slots(model))
        self._constants_recomputed = False
        self._trail: Trail | None = None
        self._divergences: list[Divergence] = []
        self._room = 0

    def data(self, name: str) -> Tensor:
        """See `Simulation.data`."""
        values = self._batch.bind(name)
        if self._refreshed_when_bound and name not in self._bound:
            self._batch.forward(stage=self._after_write)  # only what is bound is kept current
        self._bound.add(name)
        with warnings.catch_warnings():  # torch has no read-only tensors; outputs are only read
            warnings.filterwarnings("ignore", "The given NumPy array is not writable")
            return torch.from_numpy(values)

    def field(self, name: str) -> Tensor:
        """See `Simulation.field`."""
        if name not in self._fields:
            try:
                self._fields[name] = torch.from_numpy(self._batch.expand(name))
            except ValueError as error:
                raise ConfigError(f"the model field {name!r} cannot vary: {error}") from error
        return self._fields[name]

    def step(self, num_substeps: int, before_substep: Callable[[], None] | None = None) -> Tensor:
        """See `Simulation.step`."""
        calls, nstep = (1, num_substeps) if before_substep is None else (num_substeps, 1)
        diverged = np.zeros(self.num_envs, bool)
        self._divergences.clear()
        for _ in range(calls):
            if before_substep is not None:
                before_substep()
            self._advance(nstep, diverged)
        return torch.from_numpy(diverged)

    def record_divergences(self, limit: int) -> list[Divergence]:
        """See `envs.divergence.Recordable`."""
        self._room = limit
        self._trail = Trail(self._batch.state) if limit > 0 else None
        return self._divergences

    def reset(self, worlds: Worlds, state: State) -> None:
        """See `Simulation.reset`."""
        rows = worlds.ids.numpy().astype(np.int32)
        batch = self._batch
        batch.reset(rows, stage=int(mujoco.mjtStage.mjSTAGE_NONE))
        for name, value in state._asdict().items():
            batch.bind(name)[rows] = value.numpy()
        actuators, slots = self._actuators
        self._history[rows[:, None], slots] = state.ctrl.numpy()[:, actuators]
        if len(self._sensors[0]):
            self._fill_sensor_history(rows)
        else:
            batch.forward(rows, stage=self._after_write)

    def check(self) -> None:
        """Nothing is ever left out: MuJoCo's own memory grows as it needs."""

    def recompute_constants(self, worlds: Worlds) -> None:
        """See `Simulation.recompute_constants`."""
        self._batch.set_const(worlds.ids.numpy().astype(np.int32))
        self._constants_recomputed = True

    def state_dict(self) -> dict[str, Any]:
        """See `Simulation.state_dict`."""
        return {
            "state": torch.from_numpy(self._batch.state.copy()),
            "fields": {name: values.clone() for name, values in self._fields.items()},
            "constants_recomputed": self._constants_recomputed,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """See `Simulation.load_state_dict`."""
        for name in self._fields.keys() - state["fields"].keys():  # they did not differ yet
            self._fields[name].copy_(torch.as_tensor(operator.attrgetter(name)(self.model)))
        for name, values in state["fields"].items():
            self.field(name).copy_(values)
        if state["constants_recomputed"] or self._constants_recomputed:
            self.recompute_constants(every(self.num_envs))
        self._batch.state[:] = state["state"].numpy()
        self._batch.forward(stage=self._after_write)

    def _advance(self, nstep: int, diverged: np.ndarray) -> None:
        """Call the physics once; adds to `diverged` (num_envs,)."""
        if self._trail:
            self._trail.remember(nstep)
        broken: Sequence[int] = ()
        try:
            self._batch.step(nstep=nstep, stage=self._after_step)
        except SimulationError as error:
            broken = error.ids
        if len(broken) or self._warned.any():
            failed = self._warned.any(axis=1)  # MuJoCo has reset these to the model's defaults
            failed[broken,] = True
            self._record(failed & ~diverged)
            self._warned[:] = 0
            diverged |= failed

    def _record(self, failed: np.ndarray) -> None:
        """Keep what led to the failure of some worlds (num_envs,), as many as are asked for."""
        if self._trail is None:
            return
        batch = self._batch
        for world in np.flatnonzero(failed)[: self._room].tolist():
            cause = batch.error(world) or describe_warnings(batch.warning[world])
            divergence = Divergence(world, cause, batch.get_model(world), *self._trail.of(world))
            self._divergences.append(divergence)
            self._room -= 1
        if self._room == 0:
            self._trail = None

    def _fill_sensor_history(self, rows: np.ndarray) -> None:
        """Compute everything, and set each delay buffer to the sensor's value now."""
        batch, delay = self._batch, self._batch.expand("sensor_delay")
        kept = delay[rows]
        delay[rows] = 0  # otherwise sensordata shows the zeros still in the buffer
        batch.forward(rows, stage=self._after_write)
        columns, slots = self._sensors
        self._history[rows[:, None], slots] = self._sensordata[rows[:, None], columns]
        if kept.any():
            delay[rows] = kept
            batch.forward(rows, stage=self._after_write)


def _without_islands(model: mujoco.MjModel) -> mujoco.MjModel:
    """The model, which need not look for islands of constraints if it is but one kinematic tree.

    To look for the only one takes 5 % of the time of an arm on a desk. The bits are the same.
    """
    if model.ntree > 1:
        return model
    model = copy.copy(model)
    model.opt.disableflags |= int(mujoco.mjtDisableBit.mjDSBL_ISLAND)
    return model


def _side_by_side(buffers: list[tuple[Any, np.ndarray]]) -> tuple[np.ndarray, np.ndarray]:
    """For each slot of delay buffers where its value is, and the slot."""
    pairs = [np.broadcast_arrays(source, slots) for source, slots in buffers]
    source, slots = np.concatenate([np.zeros((2, 0), int), *pairs], axis=1)
    return source, slots


def history_slots(
    model: mujoco.MjModel,
) -> tuple[list[tuple[int, np.ndarray]], list[tuple[np.ndarray, np.ndarray]]]:
    """Where in `mjData.history` each actuator's and each sensor's past values lie.

    MuJoCo's own initialisers write a marker, and the marker is found again, so nothing here
    knows the layout of the buffer.

    Returns:
        (actuator id, slots) and (sensordata columns, slots) for each buffer, both in the same
        order of time and element.
    """
    data = mujoco.MjData(model)
    actuators, sensors = [], []
    for actuator in range(model.nu):
        if samples := int(model.actuator_history[actuator, 0]):
            mujoco.mj_initCtrlHistory(model, data, actuator, None, np.full(samples, _MARKER))
            actuators.append((actuator, np.flatnonzero(data.history == _MARKER)))
            data.history[data.history == _MARKER] = 0
    for sensor in range(model.nsensor):
        if samples := int(model.sensor_history[sensor, 0]):
            dim, start = int(model.sensor_dim[sensor]), int(model.sensor_adr[sensor])
            marker = np.tile(_MARKER + np.arange(dim), (samples, 1))
            mujoco.mj_initSensorHistory(model, data, sensor, None, marker, 0.0)
            slots = np.flatnonzero(data.history >= _MARKER)
            columns = start + (data.history[slots] - _MARKER).astype(int)
            sensors.append((columns, slots))
            data.history[slots] = 0
    return actuators, sensors
