"""Where commands come from in training: drawn anew after a random time."""

import operator
from collections.abc import Sequence
from itertools import accumulate
from typing import Annotated, Any

import torch
from pydantic import Field, model_validator
from torch import Tensor

from deploy.configuration import Section
from deploy.contract import CommandSpec
from deploy.quantities import Duration
from envs.ahead import Ahead
from envs.draws import Draws, Stream
from envs.simulation import Simulation
from envs.worlds import Worlds

Velocity = Annotated[float, Field(ge=-100, le=100)]
Twist = tuple[Velocity, Velocity, Velocity]
Share = Annotated[float, Field(ge=0, le=1)]
TWIST = ("x", "y", "yaw")
"""Elements of a velocity command: speed forward, to the left [m/s], and of turning [rad/s]."""
_PAGE = 8  # commands for each number of the counter


class UniformCommand:
    """Commands from a box, each for a time of its own.

    Args:
        simulation: the worlds.
        draws: the run's random numbers.
        low, high: corners of the box.
        interval_s: shortest and longest time of a command [s].
        control_dt_s: period of the policy [s].
    """

    def __init__(
        self,
        simulation: Simulation,
        draws: Draws,
        *,
        low: Sequence[float],
        high: Sequence[float],
        interval_s: tuple[float, float],
        control_dt_s: float,
    ):
        self._draws = draws
        self._interval_s, self._control_dt_s = interval_s, control_dt_s
        device, num_envs = simulation.device, simulation.num_envs
        self._low = torch.tensor(low, device=device)
        self._span = torch.tensor(high, device=device) - self._low
        self._stream = Stream("command", _PAGE * (len(low) + 1))
        self.value = torch.zeros(num_envs, len(low), device=device)
        """(num_envs, n) what is asked for."""
        self.steps = torch.zeros(num_envs, dtype=torch.int64, device=device)
        """(num_envs,) control steps that the command lasts."""
        self.remaining = torch.zeros_like(self.steps)
        """(num_envs,) control steps that it has left."""
        self._count = torch.zeros_like(self.steps)
        self._commands = Ahead(self._draw, num_envs, device)

    def renew(self, worlds: Worlds) -> None:
        """Draw the next command of some worlds."""
        count = worlds.take(self._count)
        value, steps = self._commands.of(worlds, count)
        worlds.put(self.value, value)
        worlds.put(self.steps, steps)
        worlds.put(self.remaining, steps)
        worlds.put(self._count, count + 1)

    def _draw(self, ids: Tensor, count: Tensor) -> list[Tensor]:
        """The commands (n, elements) of a count (n,), and the control steps (n,) they last."""
        (page,) = self._draws.uniform([self._stream], ids, count // _PAGE)
        u = page.unflatten(1, (_PAGE, -1))[torch.arange(len(ids), device=ids.device), count % _PAGE]
        shortest, longest = self._interval_s
        interval_s = shortest + (longest - shortest) * u[:, -1]
        steps = (interval_s / self._control_dt_s).round().long().clamp(min=1)
        return [self._low + self._span * u[:, :-1], steps]

    def advance(self, *, paused: Tensor | None = None) -> Tensor:
        """Let a step pass, but where `paused` (num_envs,).

        Returns:
            (num_envs,) bool: worlds whose command has ended.
        """
        self.remaining -= 1 if paused is None else (~paused).long()
        return self.remaining <= 0

    def state_dict(self) -> dict[str, Any]:
        """Commands and their times."""
        return {name: getattr(self, name).clone() for name in self._STATE}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        for name in self._STATE:
            getattr(self, name).copy_(state[name])

    _STATE = ("value", "steps", "remaining", "_count")


class VelocityCommandConfig(Section):
    """What a walking robot is asked for: a speed forward, to the left, and of turning."""

    low: Twist = (-0.25, -0.2, -1.0)
    """Lowest [m/s, m/s, rad/s]."""
    high: Twist = (0.4, 0.2, 1.0)
    """Highest."""
    promised_share: Annotated[float, Field(ge=0.1, le=1)] = 1.0
    """Of this box, what the contract offers: in its corners a policy has practised, and may fall.
    No run asks for more."""
    interval_s: tuple[Duration, Duration] = (3.0, 8.0)
    """Shortest and longest time of a command."""
    standing_share: Share = 0.1
    """Commands to stand still."""
    forward_share: Share = 0.2
    """Commands to go straight ahead."""
    turning_share: Share = 0.1
    """Commands to turn on the spot."""
    heading_share: Share = 0.1
    """Commands that turn towards a direction, and stop turning there."""

    @model_validator(mode="after")
    def _check(self) -> "VelocityCommandConfig":
        if any(map(operator.gt, self.low, self.high)):
            raise ValueError(f"low {self.low} is not below high {self.high}")
        if self.interval_s[0] > self.interval_s[1]:
            raise ValueError(f"interval_s must be [shortest, longest], found {self.interval_s}")
        if sum(self.shares) > 1 + 1e-9:
            raise ValueError(
                f"the shares of kinds of commands must not exceed 1, found {self.shares}"
            )
        return self

    @property
    def shares(self) -> tuple[float, ...]:
        """Standing, straight ahead, turning, heading; the rest is drawn from the whole box."""
        return (
            *(self.standing_share, self.forward_share),
            *(self.turning_share, self.heading_share),
        )

    def spec(self) -> CommandSpec:
        """What the contract says of it: the box, shrunk towards what is slowest."""
        ends = zip(self.low, self.high, strict=True)
        low, high = zip(*(_shrunk(*end, self.promised_share) for end in ends), strict=True)
        return CommandSpec(
            name="velocity",
            elements=list(TWIST),
            unit=["m/s", "m/s", "rad/s"],
            frame="base",
            low=list(low),
            high=list(high),
            interval_s=self.interval_s,
        )


def _shrunk(low: float, high: float, share: float) -> tuple[float, float]:
    """A range, shrunk towards what of it is nearest to 0."""
    slowest = min(max(0.0, low), high)
    lower, upper = (round(slowest + share * (end - slowest), 9) for end in (low, high))
    return lower, upper


class VelocityCommand:
    """Velocities to follow, of the kinds that `VelocityCommandConfig` names.

    Args:
        simulation: the worlds.
        draws: the run's random numbers.
        config: ranges and shares.
        control_dt_s: period of the policy [s].
    """

    def __init__(
        self,
        simulation: Simulation,
        draws: Draws,
        config: VelocityCommandConfig,
        *,
        control_dt_s: float,
    ):
        pi = torch.pi
        self._drawn = UniformCommand(  # with them, which kind it is, and a direction to turn to
            simulation,
            draws,
            low=(*config.low, 0.0, -pi),
            high=(*config.high, 1.0, pi),
            interval_s=config.interval_s,
            control_dt_s=control_dt_s,
        )
        self._low_yaw, self._high_yaw = config.low[2], config.high[2]
        self._top = max(config.high[0], 0.0)
        device = simulation.device
        self.value = torch.zeros(simulation.num_envs, 3, device=device)
        """(num_envs, 3) what is asked for [m/s, m/s, rad/s]."""
        self._goal = torch.full((simulation.num_envs,), torch.inf, device=device)  # none

    @property
    def steps(self) -> Tensor:
        """(num_envs,) control steps that the command lasts."""
        return self._drawn.steps

    @property
    def remaining(self) -> Tensor:
        """(num_envs,) control steps that it has left."""
        return self._drawn.remaining

    def renew(self, worlds: Worlds, shares: Sequence[float]) -> None:
        """Draw the next command of some worlds, its kind by `VelocityCommandConfig.shares`."""
        self._drawn.renew(worlds)
        x, y, yaw, kind, goal = worlds.take(self._drawn.value).unbind(-1)
        ends = list(accumulate(shares))
        standing = kind < ends[0]
        straight = (kind >= ends[0]) & (kind < ends[1])
        turning = (kind >= ends[1]) & (kind < ends[2])
        heading = (kind >= ends[2]) & (kind < ends[3])
        x = torch.where(straight, x.abs().clamp(max=self._top), x)
        value = torch.stack(
            [
                x.masked_fill(standing | turning, 0),
                y.masked_fill(standing | straight | turning, 0),
                yaw.masked_fill(standing | straight | heading, 0),
            ],
            dim=-1,
        )
        worlds.put(self.value, value)
        worlds.put(self._goal, torch.where(heading, goal, torch.inf))

    def advance(self, heading: Tensor, paused: Tensor | None = None) -> Tensor:
        """Let a step pass, and turn towards a direction where that is the command.

        Args:
            heading: (num_envs, 2) cosine and sine of the yaw.
            paused: (num_envs,) bool: where the command's time stands still.

        Returns:
            (num_envs,) bool: worlds whose command has ended.
        """
        off = self._goal - torch.atan2(heading[:, 1], heading[:, 0])
        off = torch.atan2(off.sin(), off.cos())  # the short way round
        yaw = off.clamp(self._low_yaw, self._high_yaw)  # in 1 s, if it may be that fast
        self.value[:, 2] = torch.where(self._goal.isinf(), self.value[:, 2], yaw)
        return self._drawn.advance(paused=paused)

    def state_dict(self) -> dict[str, Any]:
        """Commands and their times."""
        return {
            "drawn": self._drawn.state_dict(),
            "value": self.value.clone(),
            "goal": self._goal.clone(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        self._drawn.load_state_dict(state["drawn"])
        self.value.copy_(state["value"])
        self._goal.copy_(state["goal"])
