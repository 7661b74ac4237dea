"""What the simulated robot really did, for comparing with what the controller believed.

The file is an .npz with `time_s` (T,), the monotonic clock of the machine; `joint_position` and
`motor_torque` (T, joints) [rad, N·m], `temperature_c` of the servos; `tool_position` (T, 3) [m] if
the robot has a tool; `object_position` (T, 3) [m] of a thing before it; `base_pose` (T, 7) and
`base_velocity` (T, 6) if it floats, see `deploy.twin.floating_base`; `joints`, the names; and
`parameters`, the drawn `TwinParameters` as JSON.
"""

import json
from pathlib import Path

import numpy as np

from deploy.twin.robot import Twin
from deploy.whole_file import replaced

SAMPLE_PERIOD_S = 0.01


class TruthRecorder:
    """Samples a twin at a fixed rate of its own time, however seldom it is called."""

    def __init__(self, twin: Twin):
        """Begin with the state now."""
        self._twin = twin
        self._start_s = twin.time_s
        self._samples: list[dict[str, np.ndarray]] = []

    def advance(self, now_s: float) -> None:
        """Advance the twin to now, and take the samples due on the way."""
        twin = self._twin
        while (due_s := self._start_s + len(self._samples) * SAMPLE_PERIOD_S) <= now_s:
            twin.advance(due_s)
            self._samples.append(self._sample(due_s))
        twin.advance(now_s)

    def save(self, path: Path) -> None:
        """Write the file, whole or not at all."""
        shapes = {name: value.shape for name, value in self._sample(0.0).items()}
        columns = {
            name: np.array([sample[name] for sample in self._samples]).reshape(-1, *shape)
            for name, shape in shapes.items()
        }
        with replaced(path) as file:
            np.savez_compressed(
                file,
                allow_pickle=False,
                joints=np.array(self._twin.joints),
                parameters=np.array(json.dumps(self._twin.parameters.to_dict())),
                **columns,
            )

    def _sample(self, due_s: float) -> dict[str, np.ndarray]:
        twin = self._twin
        return (
            {
                "time_s": np.array(due_s),
                "joint_position": twin.joint_position,
                "motor_torque": twin.motor_torque.copy(),
                "temperature_c": twin.heat.temperature_c.copy(),
            }
            | ({"tool_position": twin.tool_position} if twin.has_tool else {})
            | ({} if twin.thing_position is None else {"object_position": twin.thing_position})
            | (
                {"base_pose": twin.base.pose, "base_velocity": twin.base.velocity}
                if twin.base
                else {}
            )
        )
