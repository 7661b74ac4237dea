"""A controller that is lost while its robot moves: killed, stopped, hung, or its cable pulled.

    trial = lose("feetech_sts", "SIGSTOP", folder)
    trial.rest_s                     # from the fault until all joints stay below `REST_RAD_S`

A twin in real time behind a pseudo-terminal, and a controller with its companion, each a process of
its own: what `robotrl run` runs, with a controller that swings the joints in the policy's place.
Times are the twin's: it notes when bytes came, what its watchdogs did, and how fast every joint
really turned at each millisecond.
"""

import json
import logging
import math
import multiprocessing
import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.process import BaseProcess
from pathlib import Path
from types import FrameType
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from deploy.clock import MonotonicClock
from deploy.commands import fixed_command
from deploy.configuration import load_yaml
from deploy.contract import Contract, describe_tensor, parse_contract
from deploy.controller import OnnxController
from deploy.dynamixel import registers
from deploy.errors import DeployError
from deploy.governor import Governor
from deploy.ports import open_ports
from deploy.realtime import LoopConfig, realtime
from deploy.recorder import Recorder
from deploy.robot import Robot, bare_joints
from deploy.robot_config import RobotConfig
from deploy.runtime import Runtime, State
from deploy.signals import SignalKind
from deploy.twin import server
from deploy.twin.robot import Twin
from tests.deploy.balancer import GAIN, RADIUS
from tests.deploy.conftest import (
    HOME,
    REPOSITORY,
    SO101_HOME,
    arm_contract,
    with_scs_servos,
    write_scs_model,
)
from tests.until import PATIENCE_S, until

logger = logging.getLogger(__name__)
Family = Literal["dynamixel", "feetech_sts", "feetech_scs", "microcontroller"]
Fault = Literal["kill -9", "SIGSTOP", "hang", "unplug"]
ROBOTS: dict[Family, str] = {
    "dynamixel": "desk_arm",
    "feetech_sts": "so101",
    "feetech_scs": "so101",
    "microcontroller": "balancer",
}
MOVING_RAD_S = 0.5
REST_RAD_S = 0.1
WATCH_S = 1.5
"""How long the robot is watched after the companion has done what it does."""
ATTEMPTS = 5
"""To strike a controller that is not in trouble already, as on a machine that is too busy."""
_NEW_S = 0.005
"""Bytes that come so long after the fault are no more the controller's."""
_SWING_S = 2.0
Connection = Any
"""An end of a pipe; its type differs by platform."""
_processes = multiprocessing.get_context("forkserver")
_processes.set_forkserver_preload([__name__])


class SpoiltError(Exception):
    """The controller has stopped its robot before the fault came."""


@dataclass(frozen=True)
class Seen:
    """What the twin saw."""

    heard_s: NDArray[np.float64]
    """When bytes came."""
    time_s: NDArray[np.float64]
    speed: NDArray[np.float64]
    """Of the fastest joint [rad/s]."""
    stopped: NDArray[np.bool_]
    """Whether a watchdog of its own holds the joints, or has let go of them."""
    torque_on: list[bool]
    """At the end."""


@dataclass(frozen=True)
class Trial:
    """What came of a fault; times are seconds after it."""

    seen: Seen
    fault_s: float
    log: Path

    @property
    def speed_before(self) -> float:
        """How fast the fastest joint was in the last tick [rad/s]."""
        time_s = self.seen.time_s
        return float(
            self.seen.speed[(time_s > self.fault_s - 0.02) & (time_s <= self.fault_s)].max()
        )

    @property
    def last_write_s(self) -> float:
        """The last bytes before it, so negative."""
        return float(self.seen.heard_s[self.seen.heard_s <= self.fault_s].max()) - self.fault_s

    @property
    def watchdog_s(self) -> float:
        """The robot's own watchdog has acted; nan if never."""
        return self._first(self.seen.time_s[self.seen.stopped])

    @property
    def companion_s(self) -> float:
        """Somebody else writes; nan if nobody."""
        return self._first(self.seen.heard_s - _NEW_S) + _NEW_S

    @property
    def rest_s(self) -> float:
        """From here on no joint is faster than `REST_RAD_S`."""
        moving = self.seen.time_s[self.seen.speed > REST_RAD_S]
        return max(0.0, float(moving.max()) - self.fault_s)

    def _first(self, times_s: NDArray[np.float64]) -> float:
        after = times_s[times_s > self.fault_s]
        return float(after.min()) - self.fault_s if len(after) else math.nan


def lose(
    family: Family,
    fault: Fault,
    folder: Path,
    *,
    watchdog_ms: int = 100,
    swing_s: float = 0.6,
    lone_core: bool = False,
) -> Trial:
    """Let a controller swing the joints of a twin, and lose it.

    Args:
        family: of servos or board.
        fault: what happens to the controller.
        folder: for the log.
        watchdog_ms: `safety.watchdog_ms`; longer on a machine that does something else meanwhile.
        swing_s: when, after the start of the policy.
        lone_core: the controller and its companion share one, as on the smallest computers.

    Raises:
        SpoiltError: the controller was in trouble before, `ATTEMPTS` times.
    """
    config = _config(family, watchdog_ms)
    model = REPOSITORY / f"envs/robots/{config.robot}/{config.robot}.xml"
    if family == "feetech_scs":
        model = write_scs_model(folder / "arm.xml")
    for attempt in range(ATTEMPTS):
        try:
            return _lose(config, model, fault, folder / f"{attempt}.mcap", swing_s, lone_core)
        except SpoiltError as error:
            logger.warning("%s, %s: once more: %s", family, fault, error)
    raise SpoiltError(f"this machine is too busy: {ATTEMPTS} attempts")


def _lose(
    config: RobotConfig, model: Path, fault: Fault, log: Path, swing_s: float, lone_core: bool
) -> Trial:
    with _child(_serve, model, config) as (twin, twin_says):
        port = _wait_for(twin_says)
        wired = config.at_ports({name: port for name in config.wired})
        with _child(_drive, wired, log, lone_core) as (controller, controller_says):
            while _next_state(controller_says) is not State.RUNNING:
                pass
            time.sleep(swing_s)
            if controller_says.poll():
                _next_state(controller_says)
            fault_s = _strike(fault, controller, twin)
            until(log.exists)
            time.sleep(WATCH_S)
        twin.terminate()
        trial = Trial(_wait_for(twin_says), fault_s, log)
    if trial.seen.speed[trial.seen.time_s <= fault_s][-500:].max() < MOVING_RAD_S:
        raise SpoiltError("no joint was moving")
    return trial


def _strike(fault: Fault, controller: BaseProcess, twin: BaseProcess) -> float:
    """Do it; returns when, to be sure a little early: what follows may run before we do."""
    pid = twin.pid if fault == "unplug" else controller.pid
    number = {"kill -9": signal.SIGKILL, "SIGSTOP": signal.SIGSTOP}.get(fault, signal.SIGUSR1)
    assert pid
    fault_s = time.monotonic()
    os.kill(pid, number)
    return fault_s


@contextmanager
def _child(target, *arguments) -> Iterator[tuple[BaseProcess, Connection]]:
    ours, theirs = _processes.Pipe()
    process = _processes.Process(target=target, args=(theirs, *arguments))
    process.start()
    theirs.close()
    try:
        yield process, ours
    finally:
        process.kill()
        process.join()


def _next_state(controller_says: Connection) -> State:
    state = State[_wait_for(controller_says)]
    if state is State.FAULT:
        raise SpoiltError(_wait_for(controller_says))
    return state


def _wait_for(connection: Connection):
    assert connection.poll(PATIENCE_S), "nothing was said"
    return connection.recv()


# The controller's process


def _config(family: Family, watchdog_ms: int) -> RobotConfig:
    config = load_yaml(REPOSITORY / f"configs/robots/{ROBOTS[family]}.yaml", RobotConfig)
    if family == "feetech_scs":
        config = with_scs_servos(config)
    safety = config.safety.model_copy(
        update={
            "watchdog_ms": watchdog_ms,
            "stale_after_ms": float(watchdog_ms),
            "max_overruns": 1000,
            "move_to_start_s": 0.2,
        }
    )
    return config.model_copy(update={"safety": safety})


def _drive(says: Connection, config: RobotConfig, log: Path, lone_core: bool) -> None:
    signal.signal(signal.SIGUSR1, _hang)
    if lone_core:
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    contract = _contract(config)
    with open_ports(config) as ports:
        robot = Robot(config, contract.joints, ports, approve=lambda changes: True)
        metadata = {"robot": config.model_dump_json()}
        handed = {name: port.fd for name, port in ports.items()}
        with Recorder(log, contract, metadata, handed) as recorder, realtime(config.loop):
            runtime = Runtime(
                robot,
                Balance(contract) if config.robot == "balancer" else Swing(contract),
                Governor(contract.joints, contract.control_dt_s, config),
                MonotonicClock(),
                recorder,
                anyway=True,
                prove=False,
                on_state=lambda state: says.send(state.name),
            )
            try:
                runtime.run(fixed_command(contract.command, [0.17, 0.0, 0.1]), 60.0)
            except DeployError as error:  # an unplugged cable; else the test wants to know
                says.send(str(error))


def _hang(number: int, frame: FrameType | None) -> None:
    while True:
        pass


class Swing(OnnxController):
    """Swings an arm about its foot, and its gripper, at up to 1.6 rad/s."""

    def __init__(self, contract: Contract):
        self.contract = contract
        self.inputs, self.outputs = (
            {spec.name: np.zeros(spec.shape[-1], np.float32) for spec in specs}
            for specs in (contract.inputs, contract.outputs)
        )
        self.home = np.array([joint.default_position_rad for joint in contract.joints])
        self.time_s = 0.0

    def reset(self) -> None:
        self.time_s = 0.0

    def step(self) -> None:
        self.time_s += self.contract.control_dt_s
        (target,) = self.outputs.values()
        target[:] = self.home
        target[[0, 4]] += 0.5 * math.sin(2 * math.pi * self.time_s / _SWING_S)


class Balance(Swing):
    """Balances on two wheels, to and fro."""

    def step(self) -> None:
        self.time_s += self.contract.control_dt_s
        kinds = ("joint_position", "joint_velocity", "projected_gravity", "imu_angular_velocity")
        angle, speed, gravity, rate = (self.inputs[kind] for kind in kinds)
        pitch = math.atan2(gravity[0], -gravity[2])
        place = RADIUS * (angle.mean() + pitch) - 0.1 * math.sin(math.pi * self.time_s)
        state = [place, pitch, RADIUS * (speed.mean() + rate[1]), rate[1]]
        self.outputs["joint_velocity_target"][:] = np.clip(-GAIN @ state, -30, 30)


def _contract(config: RobotConfig) -> Contract:
    """What a policy of this robot would demand."""
    arm = load_yaml(REPOSITORY / "configs/robots/desk_arm.yaml", RobotConfig)
    base = arm_contract(arm)
    wheels = config.robot == "balancer"
    joints = bare_joints(config)
    if wheels:
        driven = {"operating_mode": "velocity", "kp_nm_per_rad": 0.0, "velocity_limit_rad_s": 30.0}
        driven["position_limits_rad"] = (-100.0, 100.0)
        joints = [joint.model_copy(update=driven) for joint in joints]
    else:
        home = HOME.values() if config.robot == "desk_arm" else SO101_HOME
        joints = [
            joint.model_copy(update={"default_position_rad": angle})
            for joint, angle in zip(joints, home, strict=True)
        ]
    inputs: list[SignalKind] = ["joint_position", "joint_velocity", "command"]
    if wheels:
        inputs.extend(("projected_gravity", "imu_angular_velocity"))
    names = list(config.joints)
    document = base.model_dump(mode="json")
    tensors = [describe_tensor(kind, names, base.command) for kind in inputs]
    output = describe_tensor(
        "joint_velocity_target" if wheels else "joint_position_target", names, base.command
    )
    rest = {"projected_gravity": [0.0, 0.0, -1.0], "command": base.golden.inputs["command"][0]}
    document |= {
        "robot": config.robot,
        "control_dt_s": 0.01 if wheels else 0.02,
        "joints": [joint.model_dump(mode="json") for joint in joints],
        "inputs": tensors,
        "outputs": [output],
    }
    document["golden"]["inputs"] = {
        spec["name"]: [rest.get(spec["name"], [0.0] * spec["shape"][1])] * 16 for spec in tensors
    }
    document["golden"]["outputs"] = {output["name"]: [[0.0] * len(names)] * 16}
    return parse_contract(json.dumps(document), source="lost")


# The twin's process


class Witness(Twin):
    """A twin that notes what happens to it."""

    def __init__(self, *arguments, **options):
        super().__init__(*arguments, **options)
        self.heard_s: list[float] = []
        self.cut = False
        """The cable is to be pulled."""
        self.rows: list[tuple[float, float, bool]] = []
        self.on_step = self._look

    def receive(
        self, data: bytes, now_s: float, baud_rate: int | None = None, device: str | None = None
    ) -> None:
        self.heard_s.append(now_s)
        super().receive(data, now_s, baud_rate, device)

    def take(self, now_s: float, device: str | None = None) -> bytes:
        if self.cut:  # here, because nobody reads from a port just now
            self.cut = False
            _hang_up()
        return super().take(now_s, device)

    def seen(self) -> Seen:
        time_s, speed, stopped = zip(*self.rows, strict=True)
        torque_on = [servo.torque_on for servo in self.servos]
        return Seen(
            np.array(self.heard_s), np.array(time_s), np.array(speed), np.array(stopped), torque_on
        )

    def _look(self) -> None:
        servo, speed = self.servos[0], float(np.abs(self.joint_velocity).max())
        if "board" in self.devices:
            stopped = not servo.torque_on
        else:
            watchdog = registers.BUS_WATCHDOG
            read = servo.read(watchdog.address, watchdog.size).data
            stopped = read == b"\xff" and servo.registers.TORQUE_ENABLE == registers.TORQUE_ENABLE
        self.rows.append((self.time_s, speed, stopped))


def _serve(says: Connection, model: Path, config: RobotConfig) -> None:
    made: list[Witness] = []

    def make(*arguments, **options) -> Witness:
        made.append(Witness(*arguments, **options))
        return made[0]

    server.Twin = make  # `serve` makes its own
    signal.signal(signal.SIGUSR1, lambda number, frame: setattr(made[0], "cut", True))
    with realtime(LoopConfig(priority=60)):  # a real robot does not wait for other programs
        server.serve(model, config, ready=says.send)
    says.send(made[0].seen())


def _hang_up() -> None:
    """The other end of the cable hangs up; the robot goes on."""
    ends = [fd for fd in os.listdir("/proc/self/fd") if os.path.exists(f"/proc/self/fd/{fd}")]
    for fd in ends:
        if os.readlink(f"/proc/self/fd/{fd}").endswith("ptmx"):
            nobody, _ = os.openpty()
            os.set_blocking(nobody, False)
            os.dup2(nobody, int(fd))
