"""A film of what a twin really did, from its truth file: a camera follows the robot.

film_truth(Path("truth.npz"), "microduck", Path("walk.mp4"), begin_s, end_s)
"""

from collections.abc import Iterator
from pathlib import Path

import mujoco
import numpy as np

from envs.render import Renderer
from envs.robot import load_robot
from envs.walking.legs import free_base
from robotrl.play.video import write_video

_FPS = 25


def film_truth(truth: Path, robot_name: str, path: Path, *, begin_s: float, end_s: float) -> None:
    """Write the film of a robot on a floating base.

    Args:
        truth: file of `robotrl twin --truth`.
        robot_name: whose.
        path: the .mp4.
        begin_s: from when on, on the clock of the file.
        end_s: until when.

    Raises:
        ConfigError: there is no OpenGL, or the film cannot be written.
    """
    robot = load_robot(robot_name)
    model, data = robot.model, mujoco.MjData(robot.model)
    with np.load(truth) as file:
        times, pose, angles = file["time_s"], file["base_pose"], file["joint_position"]
        columns = [model.joint(name).qposadr[0] for name in file["joints"].tolist()]
    base = int(model.jnt_qposadr[model.body_jntadr[free_base(robot)]])
    rows = np.searchsorted(times, np.arange(begin_s, min(end_s, times[-1]), 1 / _FPS))

    with Renderer(model) as renderer:

        def frames() -> Iterator[np.ndarray]:
            for row in rows:
                data.qpos[base : base + 7] = pose[row]
                data.qpos[columns] = angles[row]
                mujoco.mj_kinematics(model, data)
                mujoco.mj_comPos(model, data)
                mujoco.mj_camlight(model, data)
                yield renderer.render(data)

        write_video(path, frames(), _FPS)
