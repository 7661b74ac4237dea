"""A two-joint arm on every kind of device, to do faults to, in virtual time and watched."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np

from deploy.clock import VirtualClock
from deploy.configuration import load_yaml, validate
from deploy.contract import TARGET_OF, Contract, OperatingMode, describe_tensor, parse_contract
from deploy.dynamixel.servos import MODELS
from deploy.errors import DeployError
from deploy.reconnect import Reconnect
from deploy.robot import Robot, bare_joints
from deploy.robot_config import RobotConfig
from deploy.runtime import Runtime, State
from deploy.signals import SignalKind
from deploy.twin.faults import Fault, Faults, FaultScript
from deploy.twin.monitor import Monitor
from deploy.twin.parameters import TwinParameters
from deploy.twin.port import VirtualPort
from deploy.twin.robot import Twin
from tests.deploy.conftest import REPOSITORY, limits_of, make_governor, reaching_contract
from tests.deploy.test_runtime import MemoryRecorder, ScriptedController
from tests.deploy.twin.conftest import ARM

DESK_ARM = REPOSITORY / "configs/robots/desk_arm.yaml"
MODEL = (
    ARM.replace("<worldbody>", '<worldbody><site name="imu"/>')
    .replace("0 0 0.1", "0 0 -0.1")
    .replace('qpos="0 0.5" ctrl="0 0.5"', 'qpos="0 0" ctrl="0 0"')
)
"""It hangs, so that it stays where it is while it is limp."""
_LIMITS = {"position_limits_rad": [-1.5, 1.5], "velocity_limit_rad_s": 5.0}
_X = {"shoulder": "XL430-W250", "elbow": "XL330-M288"}
_STS = dict.fromkeys(_X, "STS3215-12V")
_SCS = dict.fromkeys(_X, "SCS0009")
START, VELOCITY_P = (0.2, 0.3), 800
SAFETY = {
    "move_to_start_s": 0.1,
    "reconnect_s": 0.6,
    "following_error_rad": 0.08,
    "following_time_ms": 100,
    "following_speed_rad_s": 1.0,
    "pose_tolerance_rad": 0.15,
}
"""So that little time passes until something is noticed."""
_BUS = {"port": "/dev/bus"}


class Wired(NamedTuple):
    """How the arm is built."""

    devices: dict[str, Any]
    models: dict[str, str] = _X
    first_id: int = 1
    mode: OperatingMode = "position"


FAMILIES: Mapping[str, Wired] = MappingProxyType(
    {
        "DYNAMIXEL": Wired({"bus": _BUS}),
        "DYNAMIXEL by speed": Wired({"bus": _BUS}, mode="velocity"),
        "DYNAMIXEL by torque": Wired({"bus": _BUS}, _X | {"shoulder": "XM430-W350"}, mode="torque"),
        "Feetech STS": Wired({"bus": _BUS | {"protocol": "feetech_sts"}}, _STS),
        "Feetech SCS": Wired({"bus": _BUS | {"protocol": "feetech_scs"}}, _SCS),
        "board": Wired({"board": {"port": "/dev/b", "protocol": "microcontroller"}}, first_id=0),
        "own IMU": Wired({"bus": _BUS, "imu": {"port": "/dev/i", "protocol": "bno08x_rvc"}}),
        "bus IMU": Wired({"bus": _BUS | {"imu": {"id": 200}}}),
    }
)


def arm(family: str, **safety: object) -> RobotConfig:
    """The arm's wiring."""
    devices, models, first, _ = FAMILIES[family]
    joints = {
        joint: {"device": next(iter(devices)), "id": id, "model": models[joint]}
        | {"rest_rad": 0.0, **_LIMITS}
        for id, joint in enumerate(models, first)
    }
    document = {"robot": "arm", "devices": devices, "joints": joints, "safety": SAFETY | safety}
    return validate(document, RobotConfig, source="arm.yaml")


def arm_contract(config: RobotConfig, mode: OperatingMode = "position") -> Contract:
    """What a policy for it demands, which sees the IMU if there is one."""
    contract = reaching_contract(load_yaml(DESK_ARM, RobotConfig))
    joints = [
        joint.model_copy(
            update={
                "default_position_rad": start,
                "velocity_limit_rad_s": 2.0,
                **_gains(mode, config.joints[joint.name].model, joint.effort_limit_nm),
            }
        )
        for joint, start in zip(bare_joints(config), START, strict=True)
    ]
    kinds: list[SignalKind] = ["joint_position", "command"]
    if _has_imu(config):
        kinds.extend(("projected_gravity", "imu_angular_velocity"))
    names = [joint.name for joint in joints]
    tensors = [describe_tensor(kind, names, contract.command) for kind in kinds]
    output = describe_tensor(TARGET_OF[mode], names, contract.command)
    rest = {"projected_gravity": [0.0, 0.0, -1.0], "command": contract.golden.inputs["command"][0]}
    document = contract.model_dump(mode="json") | {
        "robot": "arm",
        "joints": [joint.model_dump(mode="json") for joint in joints],
        "inputs": tensors,
        "outputs": [output],
        "observation": [f"joint_position {name}" for name in names],
    }
    document["golden"] |= {
        "inputs": {t["name"]: [rest.get(t["name"], [0.0] * t["shape"][1])] * 16 for t in tensors},
        "outputs": {output["name"]: [[0.0] * 2] * 16},
    }
    return parse_contract(json.dumps(document), source="arm_contract")


def _has_imu(config: RobotConfig) -> bool:
    return any(
        device.protocol == "bno08x_rvc" or getattr(device, "imu", None)
        for device in config.wired.values()
    )


def _gains(mode: OperatingMode, model: str, effort_nm: float) -> dict[str, Any]:
    """What of a joint is other than that of a servo driven by position."""
    if mode == "position":
        return {}
    kd = MODELS[model].velocity_kd(VELOCITY_P, effort_nm) if mode == "velocity" else 0.0
    return {"operating_mode": mode, "kp_nm_per_rad": 0.0, "kd_nm_s_per_rad": kd}


class Swing(ScriptedController):
    """Swings the elbow, at up to 1.9 rad/s, or as far as 0.05 N·m do."""

    def step(self) -> None:
        (target,) = self.outputs.values()
        phase = 2 * math.pi * self.steps * 0.02
        target[:] = self.home if "joint_position_target" in self.outputs else 0.0
        if "joint_torque_target" in self.outputs:
            target[-1] = 0.05 * math.cos(phase)
        elif "joint_velocity_target" in self.outputs:
            target[-1] = 1.9 * math.cos(phase)
        else:
            target[-1] += 0.3 * math.sin(phase)
        self.at.get(self.steps, lambda: None)()
        self.steps += 1


@dataclass
class FaultyArm:
    """A runtime on the arm, and what becomes of it."""

    family: str
    folder: Path
    script: FaultScript = field(default_factory=FaultScript)
    reconnect: Reconnect = Reconnect.ALONE

    def __post_init__(self) -> None:
        path = self.folder / "faulty_arm.xml"
        if not path.exists():
            path.write_text(MODEL)
        config = arm(self.family)
        contract = arm_contract(config, FAMILIES[self.family].mode)
        self.twin, self.clock = Twin(path, config, TwinParameters()), VirtualClock()
        self.monitor = Monitor(
            self.twin, config.joints, limits_of(config, contract), period_s=contract.control_dt_s
        )
        self.faults = Faults(self.twin, self.script)
        ports = {
            name: VirtualPort(self.twin, self.clock, device.baud_rate, name)
            for name, device in config.wired.items()
        }
        self.robot = Robot(config, contract.joints, ports, approve=lambda changes: True)
        self.controller, self.recorder = Swing(contract), MemoryRecorder(contract)
        self.states: list[State] = []
        self.on_state: Callable[[State], None] = self.states.append
        self.runtime = Runtime(
            self.robot,
            self.controller,
            make_governor(contract, config),
            self.clock,
            self.recorder,
            on_state=lambda state: self.on_state(state),
            reconnect=self.reconnect,
        )
        self._paused_s = math.inf

    def begin(self, fault: Fault) -> None:
        """Let it happen now, and be over when it says."""
        self.faults.begin(fault)
        if fault.for_s is not None:
            until_s, step = self.clock.now() + fault.for_s, self.twin.on_step
            over: list[bool] = []

            def end() -> None:
                step()
                if not over and self.twin.time_s >= until_s:
                    over.append(True)
                    self.faults.end(fault)

            self.twin.on_step = end

    def commands(self, time_s: float) -> np.ndarray:
        """None, and an end to a pause after 0.2 s."""
        if self.runtime.state is not State.PAUSED:
            self._paused_s = math.inf
        self._paused_s = min(self._paused_s, self.clock.now())
        if self.clock.now() > self._paused_s + 0.2:
            self.runtime.requests.resume()
        self.twin.advance(self.clock.now())
        return np.array([0.17, 0.0, 0.1], np.float32)

    def run(self, duration_s: float = 0.3) -> DeployError | None:
        """Until parked, or in the safe state; returns what stopped it."""
        try:
            self.runtime.run(self.commands, duration_s)
        except DeployError as error:
            return error
        finally:
            self.monitor.stopped()
            self.clock.sleep_until(self.clock.now() + 0.15)
            self.twin.advance(self.clock.now())
        return None
