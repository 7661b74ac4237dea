"""The roads of `robotrl demo`: each trains a policy for the robot it is run on."""

import pytest

from deploy.configuration import load_yaml
from deploy.robot_config import RobotConfig
from robotrl.demo import ROADS
from robotrl.runs.train_config import load_train_config
from robotrl.shipped import config_path


@pytest.mark.parametrize("name", ROADS)
def test_road_runs_the_robot_it_has_trained_for(name: str):
    road = ROADS[name]
    training = load_train_config(config_path(road.training), ["evaluation=null"])
    robot = load_yaml(config_path(road.robot), RobotConfig)
    trained_for = training.task_config.get("robot", "desk_arm")
    assert trained_for == robot.robot
