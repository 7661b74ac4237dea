"""What a robot is doing, which state may follow which, and what people may ask of it meanwhile.

    DISCONNECTED → IDLE → MOVING_TO_START → READY → RUNNING → STOPPING → IDLE
                               ↑    PAUSED ←───────────┘
    from MOVING_TO_START to STOPPING → PAUSED, when a device is lost and may come back
    and from each of them → FAULT, where it stays: latched, in the robot's safe state.

`Requests` are set from anywhere (a signal handler, another thread, a gamepad) and read at every
tick. A stop is latched: nothing takes it back but a new run, which a person starts.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum
from types import MappingProxyType


class State(IntEnum):
    """What the robot is doing; the numbers are in logs."""

    DISCONNECTED = 0
    """Nothing was sent."""
    IDLE = 1
    """Connected, and limp unless an earlier run left it holding itself."""
    MOVING_TO_START = 2
    """On a ramp to where the policy takes over."""
    READY = 3
    """Held there."""
    RUNNING = 4
    """The policy is in charge."""
    STOPPING = 5
    """Ramping down: to the rest pose, or to no speed and no torque."""
    FAULT = 6
    """Stopped, in the safe state."""
    PAUSED = 7
    """Held where it was, or at the start pose, or in the safe state since a device was lost; the
    policy waits."""


FOLLOWING: Mapping[State, frozenset[State]] = MappingProxyType(
    {
        State.DISCONNECTED: frozenset({State.IDLE}),
        State.IDLE: frozenset({State.MOVING_TO_START}),
        State.MOVING_TO_START: frozenset({State.READY, State.PAUSED}),
        State.READY: frozenset({State.RUNNING, State.PAUSED, State.STOPPING}),
        State.RUNNING: frozenset({State.PAUSED, State.STOPPING}),
        State.PAUSED: frozenset({State.PAUSED, State.MOVING_TO_START, State.STOPPING}),
        State.STOPPING: frozenset({State.IDLE, State.PAUSED}),
        State.FAULT: frozenset(),
    }
)
"""What may follow a state, beside `FAULT`, which may follow any."""


@dataclass
class Requests:
    """What is asked of a run."""

    stopped: str = ""
    """Why it was asked to stop; the first reason stays."""
    paused: bool = False
    """The robot is to wait where it is."""
    finished: bool = False
    """The run is to end as planned, now: ramp down, let go."""

    def stop(self, reason: str) -> None:
        """Ask for the safe state, latched."""
        self.stopped = self.stopped or reason

    def pause(self) -> None:
        """Ask the robot to wait where it is."""
        self.paused = True

    def resume(self) -> None:
        """Ask it to go on, by way of its start pose."""
        self.paused = False

    def finish(self) -> None:
        """Ask for the planned end, also of a pause."""
        self.finished = True
        self.paused = False
