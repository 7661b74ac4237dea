"""The GPU backend: mujoco_warp, float32, CUDA graphs, no copies and no waiting for the device.

    simulation = WarpSimulation(model, 4096, device="cuda")

Each of the few things done to all worlds (substeps, clearing, derived data, constants) is recorded
once as a graph and then replayed; a field that begins to differ between worlds moves to another
place in memory, so all graphs are recorded anew. Warp's CPU device replays the same graphs, which
is how this file is tested. What only a GPU has (torch's stream, the driver's capture) follows
Warp's documentation and has not been run.

Contacts and constraints have a fixed room (`envs.warp_buffers`); mujoco_warp drops what does not
fit and says so per world. That is gathered on the device; `check` reads it and raises, and so does
`state_dict`, so that no checkpoint rests on physics that was cut short.
"""

from collections.abc import Callable
from typing import Any

import mujoco
import mujoco_warp as mjw
import numpy as np
import torch
import warp as wp
from torch import Tensor

from deploy.configuration import did_you_mean
from deploy.errors import ConfigError
from envs.batch_simulation import history_slots
from envs.simulation import State
from envs.warp_buffers import choose_buffers, describe_overflow
from envs.warp_model import (
    CONSTANTS,
    SWITCHES,
    check_field,
    check_plugins,
    refuse,
    sensors_need_constraints,
)
from envs.worlds import Worlds

_STATE = (
    *("time", "qpos", "qvel", "act", "history", "plastic", "qacc_warmstart", "ctrl"),
    *("qfrc_applied", "xfrc_applied", "eq_active", "mocap_pos", "mocap_quat", "userdata"),
    *("qacc", "sensordata"),
)
"""What MuJoCo integrates from (`mjSTATE_INTEGRATION`), and the sensors' values."""
_CHECKED = ("qpos", "qvel", "qacc")
"""What MuJoCo checks in every physics step, against `mjMAXVAL`; beside them, `ctrl`."""
_FORCES = (
    *("actuator_force", "qfrc_actuator", "qfrc_smooth", "qfrc_constraint", "qacc_smooth"),
    *("cacc", "cfrc_int", "cfrc_ext"),
)
"""What belongs to a step, not to a state: nothing recomputes it after a reset."""
_DELAYS = ("actuator_delay", "sensor_delay")
_MOVES_STATIC_GEOMS = {"geom_pos", "geom_quat", "body_pos", "body_quat"}


@wp.kernel
def _find_excess(values: Any, limit: float, diverged: Any):
    """`diverged` (num_envs,) becomes true where one of `values` (num_envs, n) reaches the limit."""
    world, column = wp.tid()  # pyright: ignore[reportAssignmentType, reportGeneralTypeIssues]
    # "not below": also of what is no number
    if not wp.abs(values[world, column]) < limit:  # pyright: ignore[reportOperatorIssue]
        diverged[world] = True


class WarpSimulation:
    """A `Simulation` on a GPU, or slowly on the CPU.

    Args:
        model: the compiled model.
        num_envs: number of worlds.
        device: `cuda`, `cuda:1` ... or `cpu`.
        nconmax: room for contacts per world, in a pool that all worlds share.
        njmax: room for constraint rows in each world.
        deterministic: the same bits in every run on a GPU too, which costs speed.

    Raises:
        ConfigError: mujoco_warp cannot simulate the model, or the model does not fit its buffers.
    """

    def __init__(
        self,
        model: mujoco.MjModel,
        num_envs: int,
        *,
        device: torch.device | str = "cuda",
        nconmax: int | None = None,
        njmax: int | None = None,
        deterministic: bool = False,
    ):
        wp.config.log_level = wp.LOG_WARNING  # it reports each compiled kernel on stdout
        wp.init()
        self.model = model
        self.num_envs = num_envs
        self.device = torch.device(device)
        self.compact = False
        self._warp_device = wp.device_from_torch(self.device)
        self._buffers = choose_buffers(model, nconmax, njmax)
        with wp.ScopedDevice(self._warp_device):
            try:
                check_plugins(model)
                self._model = mjw.put_model(model)
                self._data = mjw.make_data(model, num_envs, **self._buffers._asdict())
            except (NotImplementedError, ValueError) as error:
                raise refuse(model, error) from error
            self._mask = wp.zeros(num_envs, dtype=bool)
            self._bad = wp.zeros(num_envs, dtype=bool)
            self._no_world = wp.full(model.nbody, 1, dtype=int)
        self._model.opt.warn_overflow = False  # printing from a kernel would wait for the device
        self._model.opt.deterministic = deterministic
        self._defaults = mujoco.MjData(model)
        self._graphs: dict[str, wp.Graph] = {}
        self._streams: dict[int, wp.Stream] = {}
        self._views: dict[str, Tensor] = {}
        self._fields: dict[str, Tensor] = {}
        self._nominal: dict[str, Tensor] = {}
        self._delays: dict[str, Tensor] = {}
        self._chosen, self._failed = wp.to_torch(self._mask), wp.to_torch(self._bad)
        self._overflow_now = wp.to_torch(self._data.overflow)
        self._overflow = torch.zeros_like(self._overflow_now)
        self._needs_constraints = sensors_need_constraints(model)
        stage = np.repeat(model.sensor_needstage, model.sensor_dim)
        of_step = np.flatnonzero(stage == int(mujoco.mjtStage.mjSTAGE_ACC))
        self._step_columns = torch.from_numpy(of_step).to(self.device)
        self._ctrl_history, self._sensor_history = (
            tuple(torch.from_numpy(part).to(self.device) for part in parts)
            for parts in _flat_slots(model)
        )
        self._hair = {name: self._find_hair(name) for name in _DELAYS}
        for name in (*_DELAYS, "sensor_interval"):
            if model.nhistory:
                self.field(name)
        self._update()

    def data(self, name: str) -> Tensor:
        """See `Simulation.data`."""
        if name not in self._views:
            array = getattr(self._data, name, None)
            nominal = getattr(self._defaults, name, ())
            shape = (self.num_envs, *np.shape(nominal))
            if (
                not hasattr(self._defaults, name)
                or not isinstance(array, wp.array)
                or _size(array) != np.prod(shape)
            ):
                raise ConfigError(
                    f"mujoco_warp has no data {name!r} in the form of MjData"
                    f"{did_you_mean(name, vars(self._data))}; use another, or device 'cpu'"
                )
            if name in ("cacc", "cfrc_int", "cfrc_ext"):  # else only computed for sensors
                self._model.opt.run_rne_postconstraint = True
                self._graphs.clear()
            self._views[name] = wp.to_torch(array).view(shape)
        return self._views[name]

    def field(self, name: str) -> Tensor:
        """See `Simulation.field`."""
        if name not in self._fields:
            values = self._expand(name)
            if name in SWITCHES:
                setattr(self._model, SWITCHES[name], True)
            if name in _DELAYS:
                self._delays[name], values = values, values.clone()
            self._fields[name] = values
        return self._fields[name]

    def step(self, num_substeps: int, before_substep: Callable[[], None] | None = None) -> Tensor:
        """See `Simulation.step`."""
        self._failed.zero_()
        if before_substep is None:
            self._advance(num_substeps)
        else:
            for substep in range(num_substeps):
                if substep:
                    self._update()
                before_substep()
                self._advance(1)
        diverged = self._find_diverged()
        self._clear(diverged)
        for name in _FORCES:
            if name in self._views:
                view = self._views[name]
                view.masked_fill_(diverged.view(-1, *(1,) * (view.dim() - 1)), 0)
        self._update()
        return diverged

    def reset(self, worlds: Worlds, state: State) -> None:
        """See `Simulation.reset`."""
        sensordata, history = self.data("sensordata"), self.data("history")
        intervals = [self.field("sensor_interval")] if self.model.nhistory else []
        kept = [table.clone() for table in (sensordata, history, *intervals)]
        chosen = self._choose(worlds)
        self._clear(chosen)
        for name, rows in state._asdict().items():
            worlds.put(self.data(name), rows)

        filled = history.clone()
        for interval in intervals:
            interval.zero_()
        self._update(delayed=False)
        for (slots, columns), values in (
            (self._ctrl_history, self.data("ctrl")),
            (self._sensor_history, sensordata),
        ):
            filled[:, slots] = values[:, columns]
        # A second look at a state moves delayed sensors of other worlds on, so put them back.
        sensordata.copy_(torch.where(chosen[:, None], sensordata, kept[0]))
        history.copy_(torch.where(chosen[:, None], filled, kept[1]))
        for interval, values in zip(intervals, kept[2:], strict=True):
            interval.copy_(values)

    def recompute_constants(self, worlds: Worlds) -> None:
        """See `Simulation.recompute_constants`."""
        constants = [self.field(name) for name in CONSTANTS if getattr(self._model, name).size]
        kept = [table.clone() for table in constants]
        chosen = self._choose(worlds)
        self._launch("constants", lambda: mjw.set_const(self._model, self._data))
        for table, values in zip(constants, kept, strict=True):
            own = chosen.view(-1, *(1,) * (table.dim() - 1))
            table.copy_(torch.where(own, table, values))

    def check(self) -> None:
        """Ask the device whether contacts or constraints were ever dropped; waits for it.

        Raises:
            ConfigError: they were; names the setting to raise, and to what.
        """
        bits = (self._overflow | self._overflow_now).cpu().numpy()
        if problem := describe_overflow(bits, self._buffers):
            raise ConfigError(problem)

    def state_dict(self) -> dict[str, Any]:
        """See `Simulation.state_dict`.

        Raises:
            ConfigError: see `check`.
        """
        self.check()
        return {
            "state": {name: self.data(name).clone() for name in _STATE},
            "fields": {name: values.clone() for name, values in self._fields.items()},
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """See `Simulation.load_state_dict`."""
        for name in self._fields.keys() - state["fields"].keys():  # they did not differ yet
            self._fields[name].copy_(self._nominal[name])
        for name, values in state["fields"].items():
            self.field(name).copy_(values)
        self._clear(torch.ones_like(self._chosen))
        self._overflow.zero_()
        for name in _STATE:
            self.data(name).copy_(state["state"][name])
        self._update()
        for name in ("history", "sensordata"):  # a second look moves delayed sensors on
            self.data(name).copy_(state["state"][name])

    def _advance(self, count: int) -> None:
        self._set_delays()
        self._launch(f"{count} steps", lambda: self._record_steps(count))

    def _record_steps(self, count: int) -> None:
        self._place_static_geoms()
        for _ in range(count):
            mjw.step(self._model, self._data)
            for name in _CHECKED:  # each time: what blew up may have come to rest at the end
                values = getattr(self._data, name)
                wp.launch(
                    _find_excess, dim=values.shape, inputs=[values, mujoco.mjMAXVAL, self._bad]
                )

    def _record_update(self) -> None:
        """What `mujoco_warp.step1` does, without constraints where no sensor needs them.

        That costs a third of a substep instead of most of one.
        """
        model, data = self._model, self._data
        self._place_static_geoms()
        if self._needs_constraints:
            mjw.step1(model, data)
            return
        mjw.fwd_kinematics(model, data)
        mjw.transmission(model, data)
        mjw.sensor_pos(model, data)
        mjw.fwd_velocity(model, data)
        mjw.sensor_vel(model, data)

    def _place_static_geoms(self) -> None:
        """Let geoms of the world follow their fields; mujoco_warp places them once and for all."""
        if not _MOVES_STATIC_GEOMS & self._fields.keys():
            return
        body_weldid, self._model.body_weldid = self._model.body_weldid, self._no_world
        mjw.kinematics(self._model, self._data)
        self._model.body_weldid = body_weldid

    def _find_hair(self, name: str) -> Tensor:
        """(delays,) how much shorter than asked for each delay is, as float32 time is not exact.

        Of a held value (not an interpolated one) that is whole steps old, one step more or less
        would be seen after a few seconds.
        """
        history = getattr(self.model, name.replace("delay", "history"))
        held = torch.from_numpy(history[:, 1] == 0).to(self.device)
        return 0.01 * self.model.opt.timestep * held.float()

    def _set_delays(self) -> None:
        for name, used in self._delays.items():
            asked, hair = self._fields[name], self._hair[name]
            used.copy_(asked - hair * (asked > hair))

    def _update(self, *, delayed: bool = True) -> None:
        """Make derived data current; sensors of acceleration and force keep the step's values."""
        self._set_delays()
        if not delayed:
            for used in self._delays.values():
                used.zero_()
        sensordata = self.data("sensordata")
        of_step = sensordata[:, self._step_columns]
        self._launch("update", self._record_update)
        sensordata[:, self._step_columns] = of_step

    def _find_diverged(self) -> Tensor:
        accepted = (self.data("ctrl").abs() < mujoco.mjMAXVAL).all(dim=1)  # false of NaN
        return self._failed | ~accepted

    def _clear(self, worlds: Tensor) -> None:
        """Put worlds (num_envs,) bool into the model's default state, as `mj_resetData` does."""
        self._overflow |= self._overflow_now
        self._chosen.copy_(worlds)
        self._launch("clear", lambda: mjw.reset_data(self._model, self._data, self._mask))

    def _choose(self, worlds: Worlds) -> Tensor:
        """(num_envs,) bool: the chosen worlds."""
        if worlds.mask is not None:
            return worlds.mask
        return torch.zeros_like(self._chosen).index_fill_(0, worlds.ids, True)

    def _launch(self, name: str, record: Callable[[], None]) -> None:
        """Replay a graph, in order with torch's own work; record it first if there is none."""
        if name not in self._graphs:
            with wp.ScopedDevice(self._warp_device), wp.ScopedCapture() as capture:
                record()
            assert capture.graph is not None
            self._graphs[name] = capture.graph
        wp.capture_launch(self._graphs[name], stream=self._stream())

    def _stream(self) -> wp.Stream | None:
        if self.device.type == "cpu":
            return None
        current = torch.cuda.current_stream(self.device)
        if current.cuda_stream not in self._streams:
            self._streams[current.cuda_stream] = wp.stream_from_torch(current)
        return self._streams[current.cuda_stream]

    def _expand(self, name: str) -> Tensor:
        """Give each world its own values of a model field, in a new place."""
        check_field(self.model, name)
        owner, nominal = self._model, self.model
        if name.startswith("opt."):
            owner, nominal = owner.opt, nominal.opt
        attribute = name.removeprefix("opt.")
        shared = getattr(owner, attribute)
        with wp.ScopedDevice(self._warp_device):
            own = wp.empty((self.num_envs, *shared.shape[1:]), dtype=shared.dtype)
        values = wp.to_torch(own)
        values.copy_(wp.to_torch(shared).expand_as(values))
        setattr(owner, attribute, own)
        self._graphs.clear()  # they point to the shared values
        own_shape = np.shape(getattr(nominal, attribute))
        self._nominal[name] = wp.to_torch(shared)[0].reshape(own_shape)
        return values.view(self.num_envs, *own_shape)


def _size(array: wp.array) -> int:
    """Number of scalars."""
    return array.size * int(np.prod(getattr(array.dtype, "_shape_", ())))


def _flat_slots(model: mujoco.MjModel) -> list[tuple[np.ndarray, np.ndarray]]:
    """Places in `history` and which column of `ctrl`, or of `sensordata`, fills each of them."""
    actuators, sensors = history_slots(model)
    nothing = np.empty(0, np.int64)
    return [
        (
            np.concatenate([nothing, *(slots for slots, _ in pairs)]),
            np.concatenate([nothing, *(columns for _, columns in pairs)]),
        )
        for pairs in (
            [(slots, np.full(len(slots), actuator)) for actuator, slots in actuators],
            [(slots, columns) for columns, slots in sensors],
        )
    ]
