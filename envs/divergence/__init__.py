"""Worlds that blow up: what led to it is kept, and plain MuJoCo shows it again.

    env.record_divergences(Path("runs/arm_reach/diverged"))            # as training does
    print(replay("runs/arm_reach/diverged/step-812-world-7.npz").cause)   # "BADQACC at 3"
    python -m envs.divergence runs/arm_reach/diverged/step-812-world-7.npz

A file is the world's own model, randomized fields included, the states before its last calls of
the physics, and what the policy did. Replayed on one `MjData`, the world does the same to the bit,
and meets the same warning. That needs the version of MuJoCo that wrote the file, because the model
is in MuJoCo's binary format; another version is told which one to install. All else are plain
arrays that `numpy.load` reads anywhere. Nothing in a file is executed.
"""

from envs.divergence.dump import Dump, Recorder, read, write
from envs.divergence.playback import Replay, replay
from envs.divergence.trail import Divergence, Recordable, Trail

__all__ = [
    "Divergence",
    "Dump",
    "Recordable",
    "Recorder",
    "Replay",
    "Trail",
    "read",
    "replay",
    "write",
]
