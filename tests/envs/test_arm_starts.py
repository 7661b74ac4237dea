"""Where episodes of the SO-101 start, in plain MuJoCo."""

from pathlib import Path

import mujoco
import pytest

from robotrl.runs.train import make_env
from robotrl.runs.train_config import load_train_config

CONFIGS = Path(__file__).parents[2] / "configs" / "train"


@pytest.mark.parametrize("task", ["reach", "push", "lift"])
def test_no_episode_of_the_so101_starts_with_its_gripper_in_the_desk(task: str):
    config = load_train_config(CONFIGS / f"so101_{task}.yaml", [])
    env = make_env(config, num_envs=300, num_threads=1, randomization=[])
    env.reset()
    model = env.simulation.model
    data, floor = mujoco.MjData(model), mujoco.mjtGeom.mjGEOM_PLANE
    for qpos in env.simulation.data("qpos").numpy():
        data.qpos[:] = qpos
        mujoco.mj_fwdPosition(model, data)
        for contact in data.contact:
            geoms = [model.geom(geom) for geom in contact.geom]
            if any(geom.type[0] == floor for geom in geoms):
                assert contact.dist > -1e-3, [geom.name for geom in geoms]
