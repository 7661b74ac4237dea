"""An inertial sensor and a microcontroller in a robot's YAML."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from deploy.configuration import load_yaml, validate
from deploy.errors import ConfigError
from deploy.families import FAMILIES
from deploy.imu.config import IMU_PROTOCOLS, ImuConfig
from deploy.imu.sensors import SENSORS
from deploy.microcontroller.config import MicrocontrollerConfig
from deploy.robot import measured_signals, understood_targets
from deploy.robot_config import RobotConfig

ROBOTS = Path(__file__).parents[3] / "configs/robots"
IMU_KINDS = ("imu_angular_velocity", "projected_gravity")


def robot(**devices: dict[str, Any]) -> RobotConfig:
    """A servo on `bus`, and other devices."""
    joint = {"device": "bus", "id": 1, "model": "XL330-M288", "position_limits_rad": [-1.0, 1.0],
             "velocity_limit_rad_s": 3.0, "rest_rad": 0.0}  # fmt: skip
    document = {
        "robot": "walker",
        "devices": {"bus": {"port": "/dev/ttyS2"}, **devices},
        "joints": {"knee": joint},
    }
    return validate(document, RobotConfig, source="walker.yaml")


def test_servos_and_a_sensor_on_ports_of_their_own_make_one_robot() -> None:
    config = robot(imu={"protocol": "bno055", "port": "/dev/ttyUSB1"})
    assert isinstance(config.wired["imu"], ImuConfig)
    assert measured_signals(config)[:2] == ("joint_position", "joint_velocity")
    assert measured_signals(config)[-2:] == IMU_KINDS
    assert understood_targets(config)[0] == "joint_position_target"


def test_the_balancer_is_wired_to_a_board_with_an_imu() -> None:
    config = load_yaml(ROBOTS / "balancer.yaml", RobotConfig)
    assert isinstance(config.wired["board"], MicrocontrollerConfig)
    assert measured_signals(config)[-2:] == IMU_KINDS
    assert "joint_velocity_target" in understood_targets(config)


def test_every_sensor_has_a_family_and_a_way_to_start() -> None:
    assert set(IMU_PROTOCOLS) == set(SENSORS) <= set(FAMILIES)


def test_a_joint_on_a_sensor_is_refused() -> None:
    config = robot(imu={"protocol": "witmotion", "port": "/dev/ttyUSB1"})
    document = config.model_dump(mode="json", exclude_none=True)
    document["joints"]["knee"]["device"] = "imu"
    with pytest.raises(ConfigError, match=r"'knee' is on devices.imu, .* drives nothing; give it"):
        validate(document, RobotConfig, source="walker.yaml")


def test_a_baud_rate_that_a_sensor_does_not_have_is_refused() -> None:
    with pytest.raises(ConfigError, match="bno08x_shtp has a baud rate of 3000000 and no other"):
        robot(imu={"protocol": "bno08x_shtp", "port": "/dev/ttyUSB1"})


def test_an_unknown_key_of_a_board_is_refused_with_the_nearest() -> None:
    with pytest.raises(ConfigError, match=r"devices.board: unknown key 'baudrate' .*'baud_rate'"):
        robot(board={"protocol": "microcontroller", "port": "/dev/ttyACM0", "baudrate": 115200})
