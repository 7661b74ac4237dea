"""A desk arm on the bench: its contract and wiring, and a twin of it in virtual time.

`contract` is written by hand, so only what runs a policy needs a trained one. The twin needs
MuJoCo; without it the tests that use it are skipped.

Every twin is watched: a test in which something unsafe is done to it fails, whatever it asserts. A
test that does so on purpose says what it expects (`Bench.expect`), and fails where that stays away.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from deploy.configuration import load_yaml
from deploy.contract import TARGET_OF, Contract, describe_tensor, parse_contract
from deploy.dynamixel.protocol import BROADCAST_ID, HEADER, Instruction
from deploy.dynamixel.registers import Register
from deploy.dynamixel.servos import MODELS
from deploy.errors import DeviceLost
from deploy.feetech.servos import MODELS as FEETECH_MODELS
from deploy.governor import Governor
from deploy.robot import Robot, bare_joints
from deploy.robot_config import RobotConfig
from deploy.servos.device import ServoDevice
from deploy.signals import SignalKind

if TYPE_CHECKING:
    from deploy.clock import VirtualClock
    from deploy.serial_port import Port
    from deploy.twin.feetech_servo import FeetechServo
    from deploy.twin.monitor import Limits, Monitor, Unsafe
    from deploy.twin.robot import Twin
    from deploy.twin.servo import Servo

REPOSITORY = Path(__file__).parents[2]
MODEL_PATH = REPOSITORY / "envs/robots/desk_arm/desk_arm.xml"
SCHEMA_1_PATH = REPOSITORY / "tests/deploy/data/arm_reach_schema_1.onnx"

HOME = {
    "shoulder_pan": 0.0,
    "shoulder_lift": -0.2,
    "elbow_flex": 0.2,
    "wrist_flex": 0.2,
    "wrist_roll": 0.0,
    "gripper": 0.2,
}
P_GAINS = (800, 1200, 3000, 1600, 800, 800)


@pytest.fixture(scope="session")
def desk_arm() -> RobotConfig:
    """The wiring that ships with the package; ramps are as short as the speed limits allow."""
    config = load_yaml(REPOSITORY / "configs/robots/desk_arm.yaml", RobotConfig)
    safety = config.safety.model_copy(update={"move_to_start_s": 0.2})
    return config.model_copy(update={"safety": safety})


@pytest.fixture(scope="session")
def contract(desk_arm: RobotConfig) -> Contract:
    """What a policy for the desk arm demands."""
    return arm_contract(desk_arm)


def arm_contract(desk_arm: RobotConfig) -> Contract:
    """What a policy for the desk arm demands: 50 Hz, starts at `HOME`, reaches points."""
    return reaching_contract(desk_arm)


def reaching_contract(desk_arm: RobotConfig) -> Contract:
    """The same for who has no fixtures."""
    models = [MODELS[wiring.model] for wiring in desk_arm.joints.values()]
    joints = [
        {
            "name": name,
            "kp_nm_per_rad": model.kp(gain),
            "kd_nm_s_per_rad": 0.0,
            "default_position_rad": HOME[name],
            "position_limits_rad": wiring.position_limits_rad,
            "velocity_limit_rad_s": 2.0,
            "effort_limit_nm": model.stall_torque_nm,
        }
        for (name, wiring), model, gain in zip(
            desk_arm.joints.items(), models, P_GAINS, strict=True
        )
    ]
    return Contract.model_validate(
        {
            "schema_version": 2,
            "graph_sha256": "0" * 64,
            "robot": "desk_arm",
            "control_dt_s": 0.02,
            "inputs": [
                _tensor("joint_position", "rad", list(HOME)),
                _tensor("joint_velocity", "rad/s", list(HOME)),
                _tensor("joint_target", "rad", list(HOME)),
                _tensor("command", "m", ["x", "y", "z"], frame="base"),
            ],
            "outputs": [_tensor("joint_position_target", "rad", list(HOME))],
            "observation": [f"joint_position {name}" for name in HOME],
            "state": [],
            "joints": joints,
            "command": {
                "name": "target_position",
                "elements": ["x", "y", "z"],
                "unit": "m",
                "frame": "base",
                "low": [0.12, -0.14, 0.05],
                "high": [0.22, 0.14, 0.20],
                "interval_s": (2.0, 4.0),
                "site": "tool",
            },
            "trained_ranges": [],
            "provenance": {
                "task": "arm_reach",
                "config": {},
                "config_sha256": "",
                "robot_model_sha256": "",
                "seed": 0,
                "env_steps": 0,
                "git_commit": "",
                "created": "",
                "versions": {},
            },
            "scorecard": {},
            "golden": {
                "inputs": {
                    "joint_position": [[0.0] * 6] * 16,
                    "joint_velocity": [[0.0] * 6] * 16,
                    "joint_target": [[0.0] * 6] * 16,
                    "command": [[0.17, 0.0, 0.1]] * 16,
                },
                "outputs": {"joint_position_target": [[0.0] * 6] * 16},
                "tolerance": 1e-5,
            },
        }
    )


SO101_HOME = (0.0, -0.8, 0.9, 0.6, 0.0, 0.3)
SO101_P_GAIN = 16


@pytest.fixture(scope="session")
def so101() -> RobotConfig:
    """The wiring of the Feetech arm that ships with the package, with short ramps."""
    config = load_yaml(REPOSITORY / "configs/robots/so101.yaml", RobotConfig)
    safety = config.safety.model_copy(update={"move_to_start_s": 0.2})
    return config.model_copy(update={"safety": safety})


@pytest.fixture(scope="session")
def so101_contract(contract: Contract, so101: RobotConfig) -> Contract:
    """What a policy for it demands: the same as for the desk arm, whose joints' names it has."""
    model = FEETECH_MODELS["STS3215-12V"]
    joints = [
        joint.model_copy(
            update={
                "kp_nm_per_rad": model.kp(SO101_P_GAIN, joint.effort_limit_nm),
                "default_position_rad": home,
                "velocity_limit_rad_s": 2.0,
            }
        )
        for joint, home in zip(bare_joints(so101), SO101_HOME, strict=True)
    ]
    return contract.model_copy(update={"robot": "so101_arm", "joints": joints})


@pytest.fixture(scope="session")
def scs_arm(so101: RobotConfig) -> RobotConfig:
    """The same arm with SCS15 servos."""
    return with_scs_servos(so101)


def with_scs_servos(arm: RobotConfig) -> RobotConfig:
    """The Feetech arm with SCS15 servos, which turn less far."""
    document = arm.model_dump(exclude_unset=True)
    document["bus"] |= {"protocol": "feetech_scs"}
    for joint in document["joints"].values():
        low, high = joint["position_limits_rad"]
        limits = max(low, -1.85), min(high, 1.85)
        joint |= {"model": "SCS15", "zero_ticks": 512, "position_limits_rad": limits}
    return RobotConfig.model_validate(document)


@pytest.fixture(scope="session")
def scs_contract(so101_contract: Contract, scs_arm: RobotConfig) -> Contract:
    """What a policy for it demands."""
    joints = [
        joint.model_copy(
            update={
                "kp_nm_per_rad": known.kp_nm_per_rad,
                "effort_limit_nm": known.effort_limit_nm,
                "position_limits_rad": known.position_limits_rad,
            }
        )
        for joint, known in zip(so101_contract.joints, bare_joints(scs_arm), strict=True)
    ]
    return so101_contract.model_copy(update={"joints": joints})


@pytest.fixture(scope="session")
def scs_arm_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The arm's MJCF for these servos."""
    pytest.importorskip("mujoco", reason="the twin needs robotrl[train]")
    return write_scs_model(tmp_path_factory.mktemp("scs") / "arm.xml")


def write_scs_model(path: Path) -> Path:
    """The Feetech arm's MJCF without the names of its servos."""
    import mujoco

    spec = mujoco.MjSpec.from_file(str(REPOSITORY / "envs/robots/so101_arm/so101_arm.xml"))
    for text in list(spec.texts):
        spec.delete(text)
    path.write_text(spec.to_xml())
    return path


def using(contract: Contract, *kinds: SignalKind) -> Contract:
    """The contract of a policy that uses other signals, which recorded a robot at rest."""
    rest = {"projected_gravity": [0.0, 0.0, -1.0], "command": contract.golden.inputs["command"][0]}
    specs = [describe_tensor(kind, contract.joint_names, contract.command) for kind in kinds]
    recorded = {
        spec["name"]: [rest.get(spec["name"], [0.0] * spec["shape"][1])] * 16 for spec in specs
    }
    document = contract.model_dump(mode="json")
    document["golden"]["inputs"] = recorded
    return parse_contract(json.dumps(document | {"inputs": specs}), source="using")


def driven_by(contract: Contract, mode: str) -> Contract:
    """The contract of a policy that sends joint velocities or torques, all zero."""
    document = contract.model_dump(mode="json")
    for joint in document["joints"]:
        joint |= {"operating_mode": mode, "kp_nm_per_rad": 0.0}
    kind = TARGET_OF[mode]  # pyright: ignore[reportArgumentType]
    document["outputs"] = [describe_tensor(kind, contract.joint_names, contract.command)]
    document["golden"]["outputs"] = {kind: [[0.0] * len(contract.joints)] * 16}
    return parse_contract(json.dumps(document), source="driven_by")


def _tensor(name: str, unit: str, elements: Sequence[str], *, frame: str = "") -> dict[str, Any]:
    return {
        "name": name,
        "kind": name,
        "shape": [1, len(elements)],
        "unit": unit,
        "frame": frame,
        "elements": elements,
    }


_SYNC_READS = (Instruction.SYNC_READ, Instruction.FAST_SYNC_READ)
"""Whose numbers Feetech shares."""


def expects_reply(request: bytes | bytearray | memoryview) -> bool:
    """Whether somebody answers a request, of either family."""
    is_dynamixel = bytes(request[:3]) == HEADER[:3]
    id, instruction = (request[4], request[7]) if is_dynamixel else (request[2], request[4])
    return id != BROADCAST_ID or instruction in _SYNC_READS


class FlakyPort:
    """A port on a bench cable: requests and replies can get lost, and the cable can be pulled."""

    def __init__(self, port: Port):
        self._port = port
        self._reply_is_lost = False
        self.sent: list[bytes] = []
        """Every request."""
        self.requests_to_lose: float = 0
        """How many of the next requests do not arrive; inf for all."""
        self.replies_to_lose: float = 0
        """How many of the next replies do not arrive; inf for all."""
        self.unplugged = False
        """The operating system says that the port is gone."""
        self.damage: Callable[[memoryview], None] = lambda received: None
        """Called with the bytes of every reply, which it may change."""
        self.after_reply: Callable[[], None] = lambda: None
        """Called when a reply has come, before the program gets it."""

    def now(self) -> float:
        return self._port.now()

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self._check()
        self.sent.append(bytes(data))
        if expects_reply(data):
            self._reply_is_lost = self.replies_to_lose > 0
            self.replies_to_lose -= self._reply_is_lost
        if self.requests_to_lose > 0:
            self.requests_to_lose -= 1
        else:
            self._port.write(data)

    def read_into(self, buffer: memoryview, deadline_s: float) -> int:
        self._check()
        count = self._port.read_into(buffer, deadline_s)
        while count and self._reply_is_lost:
            count = self._port.read_into(buffer, deadline_s)
        if count:
            self.damage(buffer[:count])
            self.after_reply()
        return count

    def close(self) -> None:
        self._port.close()

    def reopen(self) -> None:
        self._check()
        self._port.reopen()

    def _check(self) -> None:
        if self.unplugged:
            raise DeviceLost("the port is gone")


def make_governor(contract: Contract, robot: RobotConfig) -> Governor:
    """Of a policy on a robot."""
    return Governor(contract.joints, contract.control_dt_s, robot)


def make_robot(config: RobotConfig, contract: Contract, port: Port) -> Robot:
    """Whose owner agrees to whatever has to change in the servos."""
    return Robot(
        config, contract.joints, dict.fromkeys(config.wired, port), approve=lambda changes: True
    )


@dataclass
class Bench:
    """A robot, and the twin behind its port."""

    config: RobotConfig
    contract: Contract
    twin: Twin
    clock: VirtualClock
    port: FlakyPort
    robot: Robot
    monitor: Monitor
    expected: set[Unsafe] = field(default_factory=set)
    """Kinds of violation this test provokes on purpose."""

    def expect(self, *kinds: Unsafe) -> None:
        """Say which violations the test provokes; each of them must happen."""
        self.expected.update(kinds)

    def check_violations(self) -> None:
        """Fail for what was unsafe and not expected, or expected and not seen."""
        violations = self.monitor.violations
        unexpected = [str(item) for item in violations if item.kind not in self.expected]
        missing = self.expected - {item.kind for item in violations}
        if unexpected:
            pytest.fail("unsafe: " + "\n        ".join(unexpected[:8]))
        if missing:
            pytest.fail(f"expected and not seen: {', '.join(missing)}")

    @property
    def servos(self) -> ServoDevice:
        """The one device of the robot."""
        (device,) = self.robot.devices
        assert isinstance(device, ServoDevice)
        return device

    def with_another_host(self) -> Bench:
        """The same arm as another program finds it, which knows nothing of the first one."""
        return replace(self, robot=make_robot(self.config, self.contract, self.port))

    def wait(self, seconds: float) -> None:
        """Nobody uses the bus for a while."""
        self.clock.sleep_until(self.clock.now() + seconds)
        self.twin.advance(self.clock.now())

    def servo(self, joint: str) -> Servo | FeetechServo:
        """The emulated servo of a joint."""
        return self.twin.servos[self.twin.joints.index(joint)]

    def get(self, joint: str, register: Register) -> int:
        """What a servo's register holds."""
        servo = self.servo(joint)
        return register.decode(servo.read(register.address, register.size).data)

    def set(self, joint: str, register: Register, value: int) -> None:
        """Write a servo's register, as another program might."""
        servo = self.servo(joint)
        assert not servo.write(register.address, register.encode(value)).error

    def push(self, joint: str, angle: float) -> None:
        """Put a joint somewhere by force [rad]."""
        twin = self.twin
        twin._data.qpos[twin._qpos[twin.joints.index(joint)]] = angle
        self.wait(0.002)

    @property
    def torque_on(self) -> dict[str, bool]:
        """Whether each joint's motor is driven."""
        return {
            joint: servo.torque_on
            for joint, servo in zip(self.twin.joints, self.twin.servos, strict=True)
        }


MakeBench = Callable[..., Bench]


OVERSPEED_FACTOR = 2.0
"""A driven joint may turn this much faster than its goals may move."""


def limits_of(config: RobotConfig, contract: Contract) -> dict[str, Limits]:
    """What the joints may do: the contract's limits within the hardware's, and parking."""
    from deploy.twin.monitor import Limits

    limits = {}
    for joint in contract.joints:
        if (wiring := config.joints.get(joint.name)) is None:
            continue
        lowest, highest = wiring.position_limits_rad
        low, high = joint.position_limits_rad
        limits[joint.name] = Limits(
            range_rad=(
                max(lowest, min(low, wiring.rest_rad)),
                min(highest, max(high, wiring.rest_rad)),
            ),
            max_speed_rad_s=wiring.velocity_limit_rad_s,
            overspeed_rad_s=OVERSPEED_FACTOR * wiring.velocity_limit_rad_s,
        )
    return limits


@pytest.fixture
def make_bench(desk_arm: RobotConfig, contract: Contract) -> Iterator[MakeBench]:
    """Build a bench; `built` and `model_path` are the robot as it is, not as `config` says."""
    pytest.importorskip("mujoco", reason="the twin needs robotrl[train]")
    from deploy.clock import VirtualClock
    from deploy.twin.monitor import Monitor
    from deploy.twin.parameters import TwinParameters
    from deploy.twin.port import VirtualPort
    from deploy.twin.robot import Twin

    benches: list[Bench] = []

    def make(
        config: RobotConfig = desk_arm,
        *,
        built: RobotConfig | None = None,
        model_path: Path = MODEL_PATH,
        contract: Contract = contract,
        usb_latency_s: float = 0.001,
    ) -> Bench:
        built = built or config
        parameters = TwinParameters(usb_latency_s=usb_latency_s)
        twin, clock = Twin(model_path, built, parameters), VirtualClock()
        monitor = Monitor(
            twin, built.joints, limits_of(config, contract), period_s=contract.control_dt_s
        )
        port = FlakyPort(VirtualPort(twin, clock, config.wired["bus"].baud_rate))
        robot = make_robot(config, contract, port)
        benches.append(Bench(config, contract, twin, clock, port, robot, monitor))
        return benches[-1]

    yield make
    for bench in benches:
        bench.check_violations()


@pytest.fixture
def bench(make_bench: MakeBench) -> Bench:
    """The desk arm as it should be."""
    return make_bench()
