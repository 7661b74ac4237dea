"""The roads of `robotrl demo`: each trains a policy for the robot it is run on."""

from pathlib import Path

import pytest

from deploy.configuration import load_yaml
from deploy.robot_config import RobotConfig
from robotrl.demo import ROADS
from robotrl.runs.run_folder import RunFolder
from robotrl.runs.train import rehearse, train
from robotrl.runs.train_config import load_train_config
from robotrl.shipped import config_path


@pytest.mark.parametrize("name", ROADS)
def test_road_runs_the_robot_it_has_trained_for(name: str):
    road = ROADS[name]
    robot = load_yaml(config_path(road.robot), RobotConfig)
    for name_of_training in road.training:
        training = load_train_config(config_path(name_of_training), ["evaluation=null"])
        assert training.task_config.get("robot", "desk_arm") == robot.robot


def test_training_further_takes_up_what_the_walking_duck_has_learned(tmp_path: Path):
    first, further = (config_path(name) for name in ROADS["walk"].training)
    small = ["num_envs=4", "torch_threads=1", "env_steps=96", "algorithm.minibatches=1"]
    config = load_train_config(first, small)
    run = RunFolder(tmp_path / "first")
    run.create(config)
    train(config, run)

    taken = rehearse(load_train_config(further, small), source=further, start=run)

    assert taken and taken["algorithm"].keys() >= {"policy", "critic"}
