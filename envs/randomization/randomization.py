"""All terms of a randomization, in the order of an environment's step."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch import Tensor

from envs.draws import Draws
from envs.randomization.fields import FieldRandomization
from envs.randomization.signals import SignalNoise
from envs.randomization.term import Term
from envs.robot import Robot
from envs.simulation import Simulation, State
from envs.worlds import Worlds, every


class Randomization:
    """See the module docstring.

    Args:
        terms: what is randomized.
        simulation: the worlds.
        draws: the run's random numbers.
        signals: element names of each signal.
        robot: the robot, if the model is one.
        control_dt_s: period of the policy [s].
    """

    before_substep: Callable[[], None] | None = None

    def __init__(
        self,
        terms: Sequence[Term],
        simulation: Simulation,
        draws: Draws,
        *,
        signals: Mapping[str, Sequence[str]],
        robot: Robot | None = None,
        control_dt_s: float,
    ):
        self._fields = FieldRandomization(simulation, terms, draws)
        ids = every(simulation.num_envs).ids
        self._noise = SignalNoise(
            terms, {name: list(elements) for name, elements in signals.items()}, draws, ids
        )

    def begin(self, worlds: Worlds, episode: Tensor) -> None:
        """Draw everything that starts with an episode."""
        self._fields.draw(worlds, episode)
        self._noise.draw(worlds.ids, episode)

    def initial_state(self, worlds: Worlds, episode: Tensor, state: State) -> State:
        """Where the episode starts."""
        return state

    def before_step(self, step: int) -> None:
        """What happens to the worlds."""

    def receive(self, targets: Tensor, previous: Tensor, step: int) -> Tensor:
        """What reaches the servos of targets."""
        return targets

    def sense(
        self, signals: dict[str, Tensor], worlds: Worlds, step: int, starting: Tensor | None
    ) -> None:
        """Change signals in place as the sensors of these worlds do."""
        self._noise.apply(signals, worlds.ids, step, starting)

    def state_dict(self) -> dict[str, Any]:
        """Draws that last."""
        return {"noise": self._noise.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        self._noise.load_state_dict(state["noise"])
