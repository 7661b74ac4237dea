"""The clock of a gait: which foot should be down, and how high the others, at any time.

A gait repeats after `period_s`; each foot is a share of it ahead of the clock (`offsets`), stands
for the share `stance_share` of its own cycle and swings for the rest. The phase is a function of
the signal `time`, so a controller needs no memory for it. Where the command is to stand still
there is no clock and every foot should be down, but while the robot tips over from a push: stepping
is how it catches itself.
"""

import torch
from torch import Tensor

STILL = 0.05
"""A slower command is to stand still [m/s, rad/s]."""
TIPPING = 0.7
"""A faster tilt is that of a robot that was pushed [rad/s]. A microduck that stands tilts by up to
0.35 rad/s; those that fell from a push had all tilted by 0.7 rad/s or more."""


def asked_to_move(command: Tensor) -> Tensor:
    """Whether a command (n, 3) [m/s, m/s, rad/s] is one to move, (n,) bool."""
    return torch.linalg.vector_norm(command, dim=-1) > STILL


def tipping(spin: Tensor, vertical: Tensor) -> Tensor:
    """Whether a body tilts fast, (n,) bool; as seen by its IMU, however that is mounted.

    Args:
        spin: (n, 3) angular velocity [rad/s].
        vertical: (n, 3) unit vector up or down, in the same frame.
    """
    turning = (spin * vertical).sum(-1)
    return spin.square().sum(-1) - turning.square() > TIPPING**2


def phase_of(time: Tensor, period_s: float) -> Tensor:
    """Share of the gait that has passed at a time [s], in [0, 1)."""
    cycles = time / period_s
    return cycles - cycles.floor()


def clock(phase: Tensor, stepping: Tensor) -> Tensor:
    """What a policy sees of the phase (n,): its sine and cosine (n, 2); zero where not stepping."""
    angle = 2 * torch.pi * phase
    return torch.stack([angle.sin(), angle.cos()], dim=-1) * stepping[:, None]


def expected_lift(
    phase: Tensor, offsets: Tensor, stance_share: float, stepping: Tensor
) -> tuple[Tensor, Tensor]:
    """What each foot should do at a phase (n,), for offsets (feet,) in the gait.

    Where `stepping` (n,) is false, that is to stay down.

    Returns:
        (n, feet) bool, whether it should be down; and (n, feet) how high it should be as a share of
        the highest: sin² over the swing, so it leaves and meets the ground softly.
    """
    own = (phase[:, None] + offsets).remainder(1)
    swing = (own - stance_share) / (1 - stance_share)
    down = (swing < 0) | ~stepping[:, None]
    return down, torch.where(down, 0.0, (torch.pi * swing).sin().square())
