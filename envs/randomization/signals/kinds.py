"""The kinds of signal terms: what is between a true value and the number a controller reads.

    - {signal: joint_position, delay: [0.0, 0.02], shared: true}           # s old, interpolated
    - {signal: [imu_angular_velocity, projected_gravity], operation: rotate, range: [0, 0.03]}
    - {signal: joint_position, operation: add, range: [-0.005, 0.005]}     # a bias per episode
    - {signal: imu_angular_velocity, drift: 0.0005}                        # a bias that walks
    - {signal: joint_velocity, operation: add, range: [-0.03, 0.03], when: step}   # noise
    - {signal: joint_velocity, quantize: 0.024}                            # counts
    - {signal: [joint_position, joint_velocity], hold: 0.01}               # lost in one packet

Readings pass through them in this order, whatever the order of the lines; within a kind the order
of the lines counts. Signals in one list share their draws. A vector is delayed and lost as a whole.

The delay comes first though a real one is the last thing to happen: the reading is what the sensor
made of the value `delay` ago. Interpolating between finished readings instead would halve the
variance of their noise and leave the grid of counts. `projected_gravity` is brought back to length
one after noise and counts, as a driver does, so that a reading is always a direction.
"""

from collections.abc import Mapping

from envs.randomization.signals.errors import (
    SignalDrift,
    SignalError,
    SignalQuantization,
    SignalRotation,
)
from envs.randomization.signals.sensing import SignalTerm
from envs.randomization.signals.timing import SignalDelay, SignalHold

SIGNAL_KINDS: dict[str, type[SignalTerm]] = {
    "delay": SignalDelay,
    "rotate": SignalRotation,
    "error": SignalError,
    "drift": SignalDrift,
    "quantize": SignalQuantization,
    "hold": SignalHold,
}
"""All kinds of signal terms."""


def signal_kind(document: Mapping[str, object]) -> str:
    """Which of `SIGNAL_KINDS` a mapping with the key `signal` is: the key that is there tells."""
    if document.get("operation") == "rotate":
        return "rotate"
    return next((key for key in SIGNAL_KINDS if key in document), "error")
