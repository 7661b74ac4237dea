"""The contract: everything a robot must agree on before it may run a policy.

It travels as JSON inside the ONNX file (metadata key `robotrl.contract`), written by export and
read by `deploy.controller`. All numbers are SI units at full float precision; names order arrays.
`matches()` compares a contract with a robot and names every difference.
"""

import hashlib
import json
import operator
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError, model_validator

from deploy.configuration import Section, describe
from deploy.dynamixel.servos import MODELS
from deploy.errors import ConfigError, ContractError
from deploy.robot_config import JointWiring, RobotConfig

SCHEMA_VERSION = 1
METADATA_KEY = "robotrl.contract"
HASH_KEY = "robotrl.metadata_sha256"

SignalKind = Literal["joint_position", "joint_velocity", "joint_target", "command"]
"""What a robot can know: measured angles and speeds, the target last commanded, the command."""

Floats = list[float]


class TensorSpec(Section):
    """One named tensor of the graph, shape (1, ...); elements name the last axis."""

    name: str
    shape: list[int]
    unit: str
    frame: str = ""
    """Frame of reference of a spatial quantity, e.g. `base`."""
    elements: list[str] = []


class InputSpec(TensorSpec):
    """An input the robot fills before each step."""

    kind: SignalKind


class OutputSpec(TensorSpec):
    """An output the robot acts on."""

    kind: Literal["joint_position_target"]


class StateSpec(TensorSpec):
    """Memory of the controller: `<name>` goes in, `<name>_next` comes out; starts at zero."""


class JointSpec(Section):
    """What one joint must be able to do, and how its servo must be set up."""

    name: str
    operating_mode: Literal["position"] = "position"
    kp: Annotated[float, Field(gt=0)]
    """Position gain [N·m/rad]."""
    kd: Annotated[float, Field(ge=0)]
    """Derivative gain of the servo's controller [N·m·s/rad]; back-EMF is not part of it."""
    default_position: float
    """Start pose [rad]."""
    position_limits: tuple[float, float]
    """Targets never leave this range [rad]."""
    velocity_limit: float
    """Fastest change of a target [rad/s]."""
    effort_limit: Annotated[float, Field(gt=0)]
    """Torque at which the trained servo saturates [N·m]."""

    @model_validator(mode="after")
    def _check(self) -> "JointSpec":
        low, high = self.position_limits
        if not low < high:
            raise ValueError(
                f"{self.name}: position_limits must be [low, high], found {[low, high]}"
            )
        if not low <= self.default_position <= high:
            raise ValueError(
                f"{self.name}: default_position {self.default_position} is outside "
                f"position_limits {[low, high]}"
            )
        return self


class CommandSpec(Section):
    """What the user may ask of the policy."""

    name: str
    low: Floats
    high: Floats
    """Range of each element the policy was trained on."""
    interval_s: tuple[float, float]
    """Shortest and longest time between two commands in training [s]."""
    site: str = ""
    """Site of the robot model that should reach the command, for tasks that reach."""

    @model_validator(mode="after")
    def _check(self) -> "CommandSpec":
        if len(self.low) != len(self.high) or any(map(operator.gt, self.low, self.high)):
            raise ValueError(f"command {self.name!r}: {self.low} to {self.high} is no range")
        return self


class TrainedRange(Section):
    """One randomization term: what training varied, over which range."""

    target: str
    match: str | list[str]
    body: str | list[str] | None = None
    columns: str | int | list[str | int] | None = None
    operation: str
    distribution: str
    range: tuple[float, float]


class Provenance(Section):
    """Where the policy comes from."""

    task: str
    config: dict[str, Any]
    """The resolved training configuration."""
    config_sha256: str
    robot_model_sha256: str
    seed: int
    env_steps: int
    git_commit: str
    created: str
    versions: dict[str, str]


class GoldenVectors(Section):
    """A recorded sequence: feed `inputs[name][t]`, expect `outputs[name][t]`, from zero state."""

    inputs: dict[str, list[Floats]]
    outputs: dict[str, list[Floats]]
    tolerance: float


class Contract(Section):
    """See the module docstring."""

    schema_version: int
    graph_sha256: str
    """SHA-256 of the ONNX file without its metadata; binds the contract to the graph."""
    robot: str
    control_dt_s: Annotated[float, Field(gt=0)]
    """Period of the policy [s]."""
    inputs: list[InputSpec]
    outputs: list[OutputSpec]
    state: list[StateSpec]
    joints: list[JointSpec]
    command: CommandSpec
    trained_ranges: list[TrainedRange]
    provenance: Provenance
    scorecard: dict[str, float]
    golden: GoldenVectors

    @model_validator(mode="after")
    def _check(self) -> "Contract":
        names = self.joint_names
        if len(set(names)) != len(names):
            raise ValueError(f"joints must have different names, found {names}")
        for tensor in [*self.inputs, *self.outputs]:
            if tensor.elements and len(tensor.elements) != tensor.shape[-1]:
                raise ValueError(
                    f"{tensor.name!r} has {tensor.shape[-1]} numbers but names "
                    f"{len(tensor.elements)} elements"
                )
            if tensor.kind.startswith("joint_") and (unknown := set(tensor.elements) - set(names)):
                raise ValueError(f"{tensor.name!r} names unknown joints {sorted(unknown)}")
        golden = self.golden
        for recorded, tensors in ((golden.inputs, self.inputs), (golden.outputs, self.outputs)):
            if recorded.keys() != {tensor.name for tensor in tensors}:
                raise ValueError(f"the golden vectors cover {sorted(recorded)} only")
        lengths = {len(steps) for steps in (golden.inputs | golden.outputs).values()}
        if len(lengths) != 1 or 0 in lengths:
            raise ValueError(
                f"the golden vectors have {sorted(lengths)} steps, expected one length"
            )
        return self

    @property
    def joint_names(self) -> list[str]:
        """Joint names in the contract's order."""
        return [joint.name for joint in self.joints]


def parse_contract(text: str, *, source: str) -> Contract:
    """Read a contract from its JSON.

    Raises:
        ContractError: another schema version, or a field is missing, unknown or mistyped.
    """
    version = _schema_version(text, source)
    if version != SCHEMA_VERSION:
        raise ContractError(
            f"{source}: the contract has schema version {version}, this robotrl reads "
            f"{SCHEMA_VERSION}. Export the policy again with this version, or install the "
            "robotrl that exported it."
        )
    try:
        return Contract.model_validate_json(text)
    except ValidationError as error:
        problems = "; ".join(describe(error))
        raise ContractError(f"{source}: the contract is not valid: {problems}") from error


def hash_metadata(metadata: Mapping[str, str]) -> str:
    """SHA-256 of all metadata entries but the one that holds it."""
    entries = sorted((key, value) for key, value in metadata.items() if key != HASH_KEY)
    return hashlib.sha256(json.dumps(entries).encode()).hexdigest()


def matches(contract: Contract, robot: RobotConfig) -> None:
    """Check that `robot` is the robot the policy was trained for.

    Raises:
        ContractError: names every difference.
    """
    differences = []
    if contract.robot != robot.robot:
        differences.append(f"robot: the policy is for {contract.robot!r}, this is {robot.robot!r}")
    for name in contract.joint_names:
        if name not in robot.joints:
            differences.append(f"joint {name!r}: in the policy but not wired on this robot")
    for name in robot.joints:
        if name not in contract.joint_names:
            differences.append(f"joint {name!r}: wired on this robot but not in the policy")
    for joint in contract.joints:
        if wiring := robot.joints.get(joint.name):
            differences += _joint_differences(joint, wiring)
    if differences:
        listed = "\n  ".join(differences)
        raise ContractError(
            f"the policy does not fit this robot:\n  {listed}\n"
            "Use a policy exported for this robot, or correct the robot's YAML."
        )


def _joint_differences(joint: JointSpec, wiring: JointWiring) -> list[str]:
    low, high = wiring.position_limits_rad
    servo = MODELS[wiring.model]
    differences = []
    if joint.position_limits[0] < low - 1e-6 or joint.position_limits[1] > high + 1e-6:
        differences.append(
            f"joint {joint.name!r}: the policy uses {list(joint.position_limits)} rad, "
            f"the hardware allows [{low}, {high}]"
        )
    if joint.velocity_limit > wiring.velocity_limit_rad_s * (1 + 1e-6):
        differences.append(
            f"joint {joint.name!r}: the policy moves at up to {joint.velocity_limit:.3g} rad/s, "
            f"the hardware allows {wiring.velocity_limit_rad_s:.3g} rad/s"
        )
    try:
        servo.p_gain(joint.kp)
        servo.d_gain(joint.kd)
    except ConfigError as error:
        differences.append(f"joint {joint.name!r}: {error}")
    if abs(joint.effort_limit / servo.stall_torque_nm - 1) > 0.05:
        differences.append(
            f"joint {joint.name!r}: trained with a servo of {joint.effort_limit:.3g} N·m, "
            f"{wiring.model} has {servo.stall_torque_nm:.3g} N·m"
        )
    return differences


def _schema_version(text: str, source: str) -> object:
    try:
        document = json.loads(text)
        return document["schema_version"]
    except (ValueError, TypeError, KeyError) as error:
        raise ContractError(
            f"{source}: the metadata {METADATA_KEY!r} is not a robotrl contract; "
            "export the policy again with `robotrl export`"
        ) from error
