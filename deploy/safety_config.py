"""`safety:` in a robot's YAML: every limit the governor enforces, whatever the policy asks for.

What each limit watches, and what happens then, is the table in `deploy/README.md`.
"""

import math
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, model_validator

from deploy.configuration import Section
from deploy.signals import SIGNALS, SignalKind

WATCHDOG_STEP_MS = 20
NO_TILT_LIMIT_RAD = 3.2
"""More than a robot can be tilted: switches a limit of tilt off."""

Milliseconds = Annotated[float, Field(ge=1, le=5000)]
Tilt = Annotated[float, Field(ge=0.05, le=NO_TILT_LIMIT_RAD)]
Share = Annotated[float, Field(ge=0.05, le=1)]
Celsius = Annotated[float, Field(ge=20, le=120)]


def _whole_steps(watchdog_ms: int) -> int:
    if watchdog_ms % WATCHDOG_STEP_MS:
        raise ValueError(f"must be a multiple of {WATCHDOG_STEP_MS}, found {watchdog_ms}")
    return watchdog_ms


class SafetyConfig(Section):
    """What the governor enforces on every tick, whatever the policy asks for."""

    safe_state: Literal["hold", "torque_off"] = "hold"
    """Where every fault ends: hold the present position, or let go."""
    stale_after_ms: Annotated[float, Field(ge=1, le=2000)] = 100.0
    """Oldest reading that may still be acted on; older stops the robot."""
    stale_signals_ms: dict[SignalKind, Milliseconds] = {}
    """The same for single kinds of signal, e.g. `{object_position: 300}`."""
    max_step_rad: Annotated[float, Field(ge=0.001, le=6.3)] = 0.6
    """Farthest a target may be from the measured angle."""
    max_speed_step_rad_s: Annotated[float, Field(ge=0.01, le=1000)] = 20.0
    """Farthest the target of a joint driven by speed may be from the measured speed."""
    limit_zone_rad: Annotated[float, Field(ge=0.001, le=1)] = 0.1
    """A torque that drives a joint to its limit fades over this last part of the range, and turns
    around behind it."""
    limit_ahead_s: Annotated[float, Field(ge=0.005, le=1)] = 0.1
    """The limits of a joint driven by speed or torque are kept where it will be so much later."""
    max_effort_share: Share = 1.0
    """Part of its motor's torque a joint may use."""
    derated_effort_share: Share = 0.3
    """Part left to a joint derated in full: too hot, or its supply too low."""
    temperature_derate_c: Celsius = 60.0
    """From this temperature on a joint gets less effort, ..."""
    temperature_stop_c: Celsius = 68.0
    """... at this one the robot stops; servos let go by themselves at 70 °C and more."""
    voltage_derate_share: Annotated[float, Field(ge=0.3, le=1)] = 0.84
    """Below this part of its supply's voltage a joint gets less effort, ..."""
    voltage_low_share: Annotated[float, Field(ge=0.2, le=1)] = 0.72
    """... down to `derated_effort_share` at this part."""
    current_share: Share = 0.8
    """Part of its stall current a joint may draw for long; more, until it has warmed up."""
    current_time_s: Annotated[float, Field(ge=0.1, le=600)] = 5.0
    """Time constant of that warming up."""
    following_error_rad: Annotated[float, Field(ge=0.01, le=1)] = 0.15
    """A joint farther than this from its target, whose motor makes no effort or all it can, ..."""
    following_speed_rad_s: Annotated[float, Field(ge=0.1, le=100)] = 4.0
    """... or one driven by speed that is so much slower or faster than told, ..."""
    following_time_ms: Annotated[float, Field(ge=20, le=5000)] = 500.0
    """... stops the robot after this long: it is limp, blocked or overloaded."""
    overspeed_factor: Annotated[float, Field(gt=1, le=10)] = 3.0
    """A joint measured this many times faster than its velocity limit stops the robot."""
    max_tilt_rad: Tilt = 1.0
    """A policy that sees gravity is stopped when the robot is tilted farther; 3.2 for never."""
    fall_tilt_rad: Tilt = 1.3
    """It is falling if it will be tilted farther than this `fall_ahead_s` later, ..."""
    fall_ahead_s: Annotated[float, Field(ge=0, le=1)] = 0.3
    """... turning as its gyroscope says, ..."""
    fall_time_ms: Annotated[float, Field(ge=0, le=1000)] = 60.0
    """... and that for this long: then it is stopped before it hits the ground."""
    max_overruns: Annotated[int, Field(ge=1, le=1000)] = 10
    """Consecutive missed deadlines before the robot is stopped."""
    watchdog_ms: Annotated[int, Field(ge=20, le=2540), AfterValidator(_whole_steps)] = 100
    """A host silent for longer than this (steps of 20 ms) is not obeyed any more: by DYNAMIXEL
    servos and boards themselves, which stop; by no Feetech servo; in every robot, by our loop."""
    reconnect_s: Annotated[float, Field(ge=0, le=3600)] = 30.0
    """How long a device that is lost in a run is looked for, if the run can wait for it."""
    move_to_start_s: Annotated[float, Field(ge=0.1, le=60)] = 2.0
    """Shortest duration of the ramp to the start pose and back to the rest pose, and of the one
    from a speed or torque to none."""
    pose_tolerance_rad: Annotated[float, Field(ge=0.01, le=math.pi)] = 0.3
    """Largest distance from the start pose to take over at, and from the rest pose to let go at;
    wide for soft servos, which sag under their load."""

    def stale_s(self, kind: SignalKind) -> float:
        """Oldest reading of a kind that may still be acted on [s]."""
        if kind in self.stale_signals_ms:
            return self.stale_signals_ms[kind] / 1000
        return SIGNALS[kind].max_age_s or self.stale_after_ms / 1000

    @model_validator(mode="after")
    def _check(self) -> "SafetyConfig":
        for high, low in (
            ("temperature_stop_c", "temperature_derate_c"),
            ("voltage_derate_share", "voltage_low_share"),
        ):
            if not getattr(self, low) < getattr(self, high):
                raise ValueError(
                    f"{low} must be below {high}, found {getattr(self, low):g} and "
                    f"{getattr(self, high):g}"
                )
        return self
