"""A policy on a twin in virtual time, the whole robot side its own, watched by a `Monitor`."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

from deploy.clock import VirtualClock
from deploy.configuration import load_yaml
from deploy.controller import OnnxController
from deploy.governor import Governor
from deploy.robot import Robot
from deploy.robot_config import RobotConfig
from deploy.runtime import Runtime
from deploy.twin.monitor import Limits, Monitor
from deploy.twin.parameters import TwinParameters
from deploy.twin.port import VirtualPort
from deploy.twin.robot import Twin


@dataclass(frozen=True)
class Watched:
    """What is ready to run."""

    controller: OnnxController
    twin: Twin
    monitor: Monitor
    runtime: Runtime


def watched(policy: Path, robot_path: Path, model: Path, parameters: TwinParameters) -> Watched:
    """A policy, and a robot with one bus to run it on."""
    config = load_yaml(robot_path, RobotConfig)
    controller = OnnxController(policy)
    contract = controller.contract
    twin, clock = Twin(model, config, parameters), VirtualClock()
    limits = {
        name: Limits(wiring.position_limits_rad, wiring.velocity_limit_rad_s)
        for name, wiring in config.joints.items()
    }
    monitor = Monitor(twin, config.joints, limits, period_s=contract.control_dt_s)
    port = VirtualPort(twin, clock, config.wired["bus"].baud_rate)
    robot = Robot(config, contract.joints, {"bus": port}, approve=lambda changes: True)
    governor = Governor(contract.joints, contract.control_dt_s, config)
    return Watched(controller, twin, monitor, Runtime(robot, controller, governor, clock))


def only(parameters: TwinParameters, names: Iterable[str]) -> TwinParameters:
    """The nominal robot, with some of what was drawn."""
    return replace(
        TwinParameters(seed=parameters.seed), **{name: getattr(parameters, name) for name in names}
    )
