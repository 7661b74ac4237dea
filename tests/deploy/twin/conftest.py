"""A two-joint arm from a few lines of MJCF, its wiring, its twin, and a server with it."""

import multiprocessing
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import pytest

from deploy.clock import VirtualClock
from deploy.dynamixel.servos import MODELS
from deploy.robot_config import RobotConfig
from deploy.twin.port import VirtualPort
from deploy.twin.robot import Twin
from deploy.twin.server import serve
from deploy.twin.servo import Servo
from tests.until import PATIENCE_S

ARM = """
<mujoco>
  <compiler angle="radian"/>
  <option integrator="implicitfast"/>
  <default><joint axis="0 1 0" range="-1.5 1.5" armature="0.002" frictionloss="0.004"/></default>
  <worldbody>
    <body name="upper">
      <joint name="shoulder"/><geom type="capsule" size="0.01" fromto="0 0 0 0 0 0.1" mass="0.05"/>
      <body name="lower" pos="0 0 0.1">
        <joint name="elbow"/><geom type="capsule" size="0.01" fromto="0 0 0 0 0 0.1" mass="0.03"/>
        <site name="tool" pos="0 0 0.1"/>
      </body>
    </body>
  </worldbody>
  <actuator><position joint="shoulder" kp="5"/><position joint="elbow" kp="1"/></actuator>
  <keyframe><key name="rest" qpos="0 0.5" ctrl="0 0.5"/></keyframe>
</mujoco>
"""


RunServer = Callable[..., AbstractContextManager[str]]


@pytest.fixture(scope="session")
def arm_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("arm") / "arm.xml"
    path.write_text(ARM)
    return path


@pytest.fixture(scope="session")
def arm_config() -> RobotConfig:
    limits = {"position_limits_rad": (-1.5, 1.5), "velocity_limit_rad_s": 5.0}
    return RobotConfig.model_validate(
        {
            "robot": "arm",
            "bus": {"port": "/dev/unused", "baud_rate": 1_000_000},
            "joints": {
                "shoulder": {"id": 1, "model": "XL430-W250", "rest_rad": 0.0, **limits},
                "elbow": {
                    "id": 2,
                    "model": "XL330-M288",
                    "direction": -1,
                    "zero_ticks": 2000,
                    "rest_rad": 0.5,
                    **limits,
                },
            },
        }
    )


@pytest.fixture(scope="session")
def feetech_config(arm_config: RobotConfig) -> RobotConfig:
    """The same arm with other servos on another wire."""
    joints = {
        name: joint.model_copy(update={"model": "STS3215-12V", "zero_ticks": 2048})
        for name, joint in arm_config.joints.items()
    }
    bus = arm_config.wired["bus"].model_copy(update={"protocol": "feetech_sts"})
    return arm_config.model_copy(update={"bus": bus, "joints": joints})


@pytest.fixture(scope="session")
def scs_config(arm_config: RobotConfig) -> RobotConfig:
    """The same arm with servos of the other byte order."""
    joints = {
        name: joint.model_copy(update={"model": "SCS0009", "zero_ticks": 512})
        for name, joint in arm_config.joints.items()
    }
    bus = arm_config.wired["bus"].model_copy(update={"protocol": "feetech_scs"})
    return arm_config.model_copy(update={"bus": bus, "joints": joints})


@pytest.fixture
def twin(arm_path: Path, arm_config: RobotConfig) -> Twin:
    return Twin(arm_path, arm_config)


@pytest.fixture
def clock() -> VirtualClock:
    return VirtualClock()


@pytest.fixture
def port(twin: Twin, clock: VirtualClock) -> VirtualPort:
    return VirtualPort(twin, clock)


@pytest.fixture
def servo() -> Servo:
    return Servo(1, MODELS["XL330-M288"], 1_000_000, shaft_ticks=2048)


@pytest.fixture(scope="session")
def running_server(arm_path: Path, arm_config: RobotConfig) -> RunServer:
    """A server in a process of its own: the path of its port; afterwards it must end cleanly."""

    @contextmanager
    def run(config: RobotConfig = arm_config, **options: Any) -> Iterator[str]:
        context = multiprocessing.get_context("spawn")
        receiver, sender = context.Pipe(duplex=False)
        process = context.Process(
            target=serve, args=(arm_path, config), kwargs={"ready": sender.send, **options}
        )
        process.start()
        try:
            assert receiver.poll(PATIENCE_S), "the twin did not start"
            yield receiver.recv()
            assert process.pid is not None
            os.kill(process.pid, signal.SIGTERM)
            process.join(PATIENCE_S)
            assert process.exitcode == 0
        finally:
            process.kill()

    return run
