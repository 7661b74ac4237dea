"""What Gymnasium's MuJoCo tasks share: signals read straight from `mjData`, starts with noise.

A task is a model from the gymnasium package, a table of readings that make up the observation, the
noise of its initial state, and its own rewards and ends. Numbers are computed in the simulation's
precision and converted to float32 last. Observations, rewards and ends are those of Gymnasium's own
environments with their default arguments, step by step, for actions scaled from [-1, 1] to the
range of the actuators. One thing differs: where the physics diverges, Gymnasium goes on from the
model's defaults, and here the episode ends.
"""

import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, ClassVar, NamedTuple

import gymnasium
import mujoco
import torch
from pydantic import Field
from torch import Tensor, nn

from deploy.configuration import Section
from envs import lagging_data
from envs.action_decoder import ScaleDecoder
from envs.draws import Draws, Stream
from envs.observation_encoder import ObservationEncoder
from envs.simulation import Simulation, State
from envs.tasks.gym.element_names import element_names
from envs.worlds import Worlds

MODELS = Path(gymnasium.__file__).parent / "envs" / "mujoco" / "assets"

Noise = Annotated[float, Field(ge=0, le=1)]
"""Size of the noise of the initial state."""


class Reading(NamedTuple):
    """A signal that is some of an `MjData` field, or a function of it."""

    field: str
    rows: slice | str = slice(None)
    """Which rows (coordinates, degrees of freedom, bodies), or the name of one body."""
    function: Callable[[Tensor], Tensor] | None = None


def clip(limit: float) -> Callable[[Tensor], Tensor]:
    """To ±limit."""
    return lambda values: values.clamp(-limit, limit)


class SignalsAsFeatures(nn.Module):
    """Signals, as they are.

    Args:
        columns: names of the signals and of the elements of each.
    """

    def __init__(self, columns: Mapping[str, Sequence[str]]):
        super().__init__()
        self.signals = tuple(columns)
        self.columns = columns

    def forward(self, signals: dict[str, Tensor]) -> dict[str, Tensor]:
        """Signals (n, ...) -> features (n, columns)."""
        return {name: signals[name] for name in self.signals}


class GymTask:
    """Base of the tasks.

    Args:
        simulation: the worlds, of the task's model.
        config: settings.
        draws: the run's random numbers.
    """

    Config: ClassVar[type[Section]]
    model_file: ClassVar[str]
    num_substeps: int
    episode_steps: int = 1000
    normal_velocity: ClassVar[bool] = False
    """Whether the noise of initial velocities is normal; else it is uniform."""

    deployment = None
    privileged: Mapping[str, Sequence[str]] = {}

    @classmethod
    def load_model(cls, config: Section) -> mujoco.MjModel:
        """The model to simulate."""
        with warnings.catch_warnings():  # Gymnasium's files were written for an older MuJoCo
            warnings.filterwarnings("ignore", ".*deprecated", UserWarning)
            spec = mujoco.MjSpec.from_file(str(MODELS / cls.model_file))
            lagging_data.request(spec, contact_forces=cls.feels_contact(config))
            return spec.compile()

    @staticmethod
    def feels_contact(config: Any) -> bool:
        """Whether observation or reward contain `cfrc_ext`; if not, physics is cheaper."""
        return False

    def __init__(self, simulation: Simulation, config: Any, draws: Draws):
        self.config = config
        self._draws = draws
        model, device = simulation.model, simulation.device
        self.control_dt_s = self.num_substeps * model.opt.timestep
        self.actuators = torch.arange(model.nu, device=device)
        low, high = torch.from_numpy(model.actuator_ctrlrange).unbind(dim=-1)
        self.decoder = ScaleDecoder(low, high).to(device)
        self._qpos, self._qvel, self._ctrl = map(simulation.data, ("qpos", "qvel", "ctrl"))
        self._qpos0 = torch.from_numpy(model.qpos0).to(self._qpos)
        self._none = torch.zeros(simulation.num_envs, dtype=torch.bool, device=device)
        self._starting = False
        self._readings = [
            (name, reading.field, _rows(simulation.data(reading.field), reading, model), function)
            for name, reading in self.readings().items()
            for function in [reading.function]
        ]
        self.signals = self.name_signals(model)
        self.encoder = ObservationEncoder(SignalsAsFeatures(self.signals)).to(device)

    def readings(self) -> dict[str, Reading]:
        """What the observation consists of, in order."""
        raise NotImplementedError

    def name_signals(self, model: mujoco.MjModel) -> dict[str, list[str]]:
        """Names of the signals and of the elements of each."""
        return {
            name: element_names(model, reading.field, reading.rows)
            for name, reading in self.readings().items()
        }

    def initial_state(self, worlds: Worlds, episode: Tensor) -> State:
        """Noise around the model's own pose, at rest."""
        self._starting = True
        streams = [Stream("gym_qpos", len(self._qpos0)), Stream("gym_qvel", self._qvel.shape[1])]
        position, velocity = (
            u.to(self._qpos) for u in self._draws.uniform(streams, worlds.ids, episode)
        )
        qpos, qvel = self.start(position, velocity)
        return State(qpos, qvel, qpos.new_zeros(len(worlds), self._ctrl.shape[1]))

    def start(self, position: Tensor, velocity: Tensor) -> tuple[Tensor, Tensor]:
        """Uniform numbers (n, nq) and (n, nv) in [0, 1) -> qpos (n, nq) and qvel (n, nv)."""
        scale = self.config.reset_noise_scale
        noise = normal if self.normal_velocity else symmetric
        return self._qpos0 + scale * symmetric(position), scale * noise(velocity)

    def measure(self, worlds: Worlds) -> dict[str, Tensor]:
        """See `Task.measure`; a new episode has felt no contact force yet, as in Gymnasium."""
        signals = {}
        for name, field, table, function in self._readings:
            values = worlds.take(table)
            if function is not None:
                values = function(values)
            signals[name] = values.to(torch.float32, copy=True)
            if self._starting and field == "cfrc_ext":
                signals[name].zero_()
        self._starting = False
        return signals

    def observe_privileged(self, worlds: Worlds) -> dict[str, Tensor]:
        """Nothing: the actor sees all."""
        return {}

    def rewards(self, action: Tensor, previous_action: Tensor) -> dict[str, Tensor]:
        """See `Task.rewards`."""
        raise NotImplementedError

    def terminated(self) -> Tensor:
        """Never, unless a task says so."""
        return self._none

    def advance(self) -> tuple[dict[str, Tensor], Tensor]:
        """See `Task.advance`; there are no commands."""
        return {}, self._none

    def state_dict(self) -> dict[str, Any]:
        """See `Task.state_dict`."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """See `Task.load_state_dict`."""


def symmetric(u: Tensor) -> Tensor:
    """Uniform numbers in [0, 1) -> in [-1, 1)."""
    return 2 * u - 1


def normal(u: Tensor) -> Tensor:
    """Uniform numbers in [0, 1), multiples of 2⁻²⁴ -> standard normal ones, never infinite."""
    return torch.special.ndtri(u.double() + 2.0**-25).to(u)


def square_sum(values: Tensor) -> Tensor:
    """Sum of the squares over the last axis."""
    return values.square().sum(dim=-1)


def _rows(table: Tensor, reading: Reading, model: mujoco.MjModel) -> Tensor:
    """A live view (num_envs, elements) of what is read."""
    if isinstance(reading.rows, str):
        return table[:, model.body(reading.rows).id]
    rows = table[:, reading.rows]
    return rows if rows.dim() == 2 else rows.view(len(rows), -1)
