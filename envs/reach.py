"""How near the tool of an arm gets to points, within its joints' limits.

    errors = reach_errors(kinematics, points, home=home, moved=[0, 1, 2], low=low, high=high)

The nearest of many random poses, then damped least squares from there: MuJoCo's `minimize`.
"""

from collections.abc import Sequence

import numpy as np
import torch
from mujoco import minimize

from envs.forward_kinematics import ForwardKinematics

_POSES = 4096


def reach_errors(
    kinematics: ForwardKinematics,
    points: np.ndarray,
    *,
    home: np.ndarray,
    moved: Sequence[int],
    low: np.ndarray,
    high: np.ndarray,
) -> np.ndarray:
    """Distances that remain, (n,) [m].

    Args:
        kinematics: from all joints to the tool, in double precision.
        points: (n, 3) where the tool should be [m].
        home: (joints,) angles of joints that are not moved [rad].
        moved: places of those that are; one without a range stays, too.
        low: (joints,) lowest angles [rad].
        high: (joints,) highest angles [rad].
    """
    home, moved = np.clip(home, low, high), [joint for joint in moved if low[joint] < high[joint]]
    bounds = low[moved], high[moved]
    poses = np.random.default_rng(0).uniform(*bounds, (_POSES, len(moved)))

    def tool(poses: np.ndarray) -> np.ndarray:
        """(n, moved) -> (n, 3)."""
        joints = np.tile(home, (len(poses), 1))
        joints[:, moved] = poses
        return kinematics(torch.from_numpy(joints)).numpy()

    tools, errors = tool(poses), []
    for point in points:
        start = poses[np.linalg.norm(tools - point, axis=1).argmin()]
        best, _ = minimize.least_squares(
            start,
            lambda columns, point=point: (tool(columns.T) - point).T,
            bounds=bounds,
            verbose=minimize.Verbosity.SILENT,
        )
        errors.append(np.linalg.norm(tool(best[None]) - point))
    return np.array(errors)
