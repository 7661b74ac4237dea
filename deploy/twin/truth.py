"""What the simulated robot really did, for comparing with what the controller believed.

The file is an .npz with `time_s` (T,), the monotonic clock of the machine; `joint_position`
(T, joints) [rad]; `tool_position` (T, 3) [m]; `joints`, the names; and `parameters`, the drawn
`TwinParameters` as JSON.
"""

import json
import os
from pathlib import Path

import numpy as np

from deploy.twin.robot import Twin

SAMPLE_PERIOD_S = 0.01


class TruthRecorder:
    """Samples a twin at a fixed rate of its own time, however seldom it is called."""

    def __init__(self, twin: Twin):
        """Begin with the state now."""
        self._twin = twin
        self._start_s = twin.time_s
        self._samples: list[tuple[float, np.ndarray, np.ndarray]] = []

    def advance(self, now_s: float) -> None:
        """Advance the twin to now, and take the samples due on the way."""
        twin = self._twin
        while (due_s := self._start_s + len(self._samples) * SAMPLE_PERIOD_S) <= now_s:
            twin.advance(due_s)
            self._samples.append((due_s, twin.joint_position, twin.tool_position))
        twin.advance(now_s)

    def save(self, path: Path) -> None:
        """Write the file, whole or not at all."""
        temporary = path.with_name(f".{path.name}.tmp")
        time_s, joints, tool = zip(*self._samples, strict=True) if self._samples else ((), (), ())
        with temporary.open("wb") as file:
            np.savez_compressed(
                file,
                time_s=np.array(time_s),
                joint_position=np.array(joints).reshape(-1, len(self._twin.joints)),
                tool_position=np.array(tool).reshape(-1, 3),
                joints=np.array(self._twin.joints),
                parameters=np.array(json.dumps(self._twin.parameters.to_dict())),
            )
        os.replace(temporary, path)
