"""A simulation with all of its servos' physics: what MuJoCo lacks is written between its steps.

    simulation = with_servos(BatchSimulation(model, 256))
    simulation.field("supply_resistance_ohm")[:] = 0.2       # per world; asking for it turns sag on

Between calls of `step` all model fields are the worlds' own, so that randomization and checkpoints
never see what is written here. Work is on whole tables, without a word from device to host.
"""

from collections.abc import Callable, Mapping
from typing import Any

import mujoco
import torch
from torch import Tensor

from deploy.errors import ConfigError
from deploy.servos.models import BACKLASH_HINGE, servos_of
from deploy.servos.physics import ServoPhysics
from envs.divergence.trail import Divergence, Recordable
from envs.servos.bridge import Bridge
from envs.servos.friction import LoadFriction
from envs.simulation import Simulation, State
from envs.worlds import Worlds

SUPPLY_RESISTANCE = "supply_resistance_ohm"
"""Field (num_envs, 1) of adapter, plugs and cables; 0 until it is set."""
_REMEMBERED = ("actuator_force", "qfrc_constraint")
"""Data of the last physics step that the next one needs."""


def with_servos(simulation: Simulation) -> Simulation:
    """The simulation with the servos and plays of its model; itself if the model has none.

    Raises:
        ConfigError: the model names a servo that is not known, or where there is none.
    """
    model = simulation.model
    loaded = {joint: servo for joint, servo in servos_of(model).items() if servo != servo.plain}
    plays = plays_of(model)
    return ServoSimulation(simulation, loaded, plays) if loaded or plays else simulation


def plays_of(model: mujoco.MjModel) -> list[str]:
    """Joints that have play.

    Raises:
        ConfigError: the play of a joint is not called by it.
    """
    names = [model.joint(index).name for index in range(model.njnt)]
    for name in names:
        joint, play, suffix = name.partition(BACKLASH_HINGE)
        if play and suffix:
            raise ConfigError(
                f"joint {name!r} is the play of {joint + suffix!r} and is found by its name, which "
                f"must then be {joint + suffix + BACKLASH_HINGE!r}: attach a robot with a prefix "
                "instead of a suffix, or add its play afterwards"
            )
    return [name for name in names if name + BACKLASH_HINGE in names]


class ServoSimulation:
    """A `Simulation` around another one.

    Args:
        simulation: the worlds.
        servos: servos with friction under load, by joint.
        plays: driven joints with play.

    Raises:
        ConfigError: a joint is not in the model, or no position servo drives it.
    """

    def __init__(
        self, simulation: Simulation, servos: Mapping[str, ServoPhysics], plays: list[str]
    ):
        self.model = simulation.model
        self.num_envs = simulation.num_envs
        self.device = simulation.device
        self.compact = simulation.compact
        self._inner = simulation
        self._friction = LoadFriction(simulation, servos) if servos else None
        self._bridge = Bridge(simulation, servos, plays)
        self._also: Callable[[], None] | None = None

    def data(self, name: str) -> Tensor:
        """See `Simulation.data`."""
        return self._inner.data(name)

    def field(self, name: str) -> Tensor:
        """See `Simulation.field`; also `SUPPLY_RESISTANCE`, where there are servos."""
        if name != SUPPLY_RESISTANCE or self._friction is None:
            return self._inner.field(name)
        if self._bridge.resistance_ohm is None:
            zero = torch.zeros_like(self._friction.limit[:, :1])
            self._bridge.resistance_ohm = zero
        return self._bridge.resistance_ohm

    def step(self, num_substeps: int, before_substep: Callable[[], None] | None = None) -> Tensor:
        """See `Simulation.step`."""
        self._also = before_substep
        parts = [self._friction] if self._friction else []
        parts += [self._bridge] if self._bridge.needed else []
        for part in parts:
            part.begin()
        diverged = self._inner.step(num_substeps, self._before_substep)
        for part in parts:
            part.end()
        return diverged

    def record_divergences(self, limit: int) -> list[Divergence]:
        """See `envs.divergence.Recordable`; nothing is ever found where the one inside is not."""
        if not isinstance(self._inner, Recordable):
            return []
        return self._inner.record_divergences(limit)

    def reset(self, worlds: Worlds, state: State) -> None:
        """See `Simulation.reset`."""
        self._inner.reset(worlds, state)
        for name in _REMEMBERED:  # also of a world that diverged, where all of it may be NaN
            worlds.put(self._inner.data(name), 0.0)
        worlds.put(self._bridge.factor, 1.0)
        if self._friction:
            worlds.put(self._friction.limit, 0.0)

    def check(self) -> None:
        """See `Simulation.check`."""
        self._inner.check()

    def recompute_constants(self, worlds: Worlds) -> None:
        """See `Simulation.recompute_constants`."""
        self._inner.recompute_constants(worlds)

    def state_dict(self) -> dict[str, Any]:
        """See `Simulation.state_dict`."""
        sagging = self._bridge.resistance_ohm
        return {
            "inner": self._inner.state_dict(),
            "last_step": {name: self._inner.data(name).clone() for name in _REMEMBERED},
            "friction": self._friction.limit.clone() if self._friction else None,
            "voltage": self._bridge.factor.clone(),
            "resistance_ohm": None if sagging is None else sagging.clone(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        self._inner.load_state_dict(state["inner"])
        for name, values in state["last_step"].items():
            self._inner.data(name).copy_(values)
        if self._friction:
            self._friction.limit.copy_(state["friction"])
        self._bridge.factor.copy_(state["voltage"])
        if state["resistance_ohm"] is not None:
            self.field(SUPPLY_RESISTANCE).copy_(state["resistance_ohm"])

    def _before_substep(self) -> None:
        if self._also is not None:
            self._also()
        if self._friction:
            self._friction.write()
        if self._bridge.needed:
            self._bridge.write()
