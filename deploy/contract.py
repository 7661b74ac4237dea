"""The contract: everything a robot must agree on before it may run a policy.

It travels as JSON inside the ONNX file (metadata key `robotrl.contract`), written by export and
read by `deploy.controller`. All numbers are SI units at full float precision; names order arrays.
Its hashes find damage, not malice: whoever edits a contract can compute them anew. So everything
that a contract says twice is compared, with `deploy.signals` too, and every number has bounds.
`matches()` compares a contract with a robot and names every difference.
"""

import hashlib
import json
import math
import operator
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from deploy.configuration import Section, validate
from deploy.dynamixel.servos import MODELS
from deploy.errors import ConfigError, ContractError
from deploy.quantities import (
    Angle,
    Count,
    Damping,
    Duration,
    Length,
    Name,
    Number,
    Period,
    Speed,
    Stiffness,
    Torque,
)
from deploy.robot_config import JointWiring, RobotConfig
from deploy.signals import SIGNALS, TARGETS, SignalKind, TargetKind

SCHEMA_VERSION = 1
METADATA_KEY = "robotrl.contract"
HASH_KEY = "robotrl.metadata_sha256"
MIN_GOLDEN_STEPS = 16
"""Fewer golden vectors say nothing about a policy with a memory."""
MAX_TOLERANCE = 1e-4
"""Largest difference from a golden vector [rad]: 1/15 of an encoder count. Processors and versions
of onnxruntime differ by some 1e-6."""
MIN_PERIODS = 2
"""Shortest watchdog and oldest reading in control periods: two writes lie a period and some jitter
apart, and one tick may have to do without a reading."""

Size = Annotated[int, Field(ge=1, le=100_000)]
Hash = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]


class TensorSpec(Section):
    """One named tensor of the graph, shape (1, ...); elements name the last axis."""

    name: Name
    shape: Annotated[list[Size], Field(min_length=2, max_length=8)]
    unit: str
    frame: str = ""
    """Frame of reference of a spatial quantity, e.g. `base`."""
    elements: list[Name] = []


class InputSpec(TensorSpec):
    """An input the robot fills before each step; has the name of its kind."""

    kind: SignalKind


class OutputSpec(TensorSpec):
    """An output the robot acts on; has the name of its kind."""

    kind: TargetKind


class StateSpec(TensorSpec):
    """Memory of the controller: `<name>` goes in, `<name>_next` comes out; starts at zero."""


class JointSpec(Section):
    """What one joint must be able to do, and how its servo must be set up."""

    name: Name
    operating_mode: Literal["position"] = "position"
    kp: Stiffness
    """Position gain [N·m/rad]."""
    kd: Damping
    """Derivative gain of the servo's controller [N·m·s/rad]; back-EMF is not part of it."""
    default_position: Angle
    """Start pose [rad]."""
    position_limits: tuple[Angle, Angle]
    """Targets never leave this range [rad]."""
    velocity_limit: Speed
    """Fastest change of a target [rad/s]."""
    effort_limit: Torque
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

    name: Name
    low: Annotated[list[Length], Field(min_length=1, max_length=100)]
    high: list[Length]
    """Range of each element the policy was trained on."""
    interval_s: tuple[Duration, Duration]
    """Shortest and longest time between two commands in training [s]."""
    site: str = ""
    """Site of the robot model that should reach the command, for tasks that reach."""

    @model_validator(mode="after")
    def _check(self) -> "CommandSpec":
        if len(self.low) != len(self.high) or any(map(operator.gt, self.low, self.high)):
            raise ValueError(f"command {self.name!r}: {self.low} to {self.high} is no range")
        if self.interval_s[0] > self.interval_s[1]:
            raise ValueError(f"interval_s must be [shortest, longest], found {self.interval_s}")
        return self


class TrainedRange(Section):
    """One randomization term: what training varied, over which range."""

    target: str
    match: str | list[str]
    body: str | list[str] | None = None
    columns: str | Count | list[str | Count] | None = None
    operation: str
    distribution: str
    range: tuple[Number, Number]


class Provenance(Section):
    """Where the policy comes from."""

    task: str
    config: dict[str, Any]
    """The resolved training configuration."""
    config_sha256: str
    robot_model_sha256: str
    seed: Count
    env_steps: Count
    git_commit: str
    created: str
    versions: dict[str, str]


class GoldenVectors(Section):
    """A recorded sequence: feed `inputs[name][t]`, expect `outputs[name][t]`, from zero state."""

    inputs: dict[str, list[list[Number]]]
    outputs: dict[str, list[list[Number]]]
    tolerance: Annotated[float, Field(gt=0, le=MAX_TOLERANCE)]
    """Largest difference that is only rounding [rad]."""


class Contract(Section):
    """See the module docstring."""

    schema_version: Annotated[int, Field(ge=SCHEMA_VERSION, le=SCHEMA_VERSION)]
    graph_sha256: Hash
    """SHA-256 of the ONNX file without its metadata; binds the contract to the graph."""
    robot: Name
    control_dt_s: Period
    """Period of the policy [s]."""
    inputs: Annotated[list[InputSpec], Field(min_length=1)]
    """Those the policy uses, in any order, one per kind."""
    outputs: Annotated[list[OutputSpec], Field(min_length=1, max_length=1)]
    state: Annotated[list[StateSpec], Field(max_length=100)]
    joints: Annotated[list[JointSpec], Field(min_length=1, max_length=250)]
    command: CommandSpec
    trained_ranges: list[TrainedRange]
    provenance: Provenance
    scorecard: dict[str, Number]
    golden: GoldenVectors

    @model_validator(mode="after")
    def _check(self) -> "Contract":
        problems = [*_tensor_problems(self), *_golden_problems(self)]
        if problems:
            raise ValueError("; ".join(problems))
        return self

    @property
    def joint_names(self) -> list[str]:
        """Joint names in the contract's order."""
        return [joint.name for joint in self.joints]


def parse_contract(text: str, *, source: str) -> Contract:
    """Read a contract from its JSON.

    Raises:
        ContractError: another schema version, or a field is missing, unknown, mistyped, out of its
            range, or in contradiction with another one.
    """
    document = _read_json(text, source)
    version = document["schema_version"]
    if version != SCHEMA_VERSION:
        raise ContractError(
            f"{source}: the contract has schema version {version}, this robotrl reads "
            f"{SCHEMA_VERSION}. Export the policy again with this version, or install the "
            "robotrl that exported it."
        )
    try:
        return validate(document, Contract, source=f"{source}: the contract is not valid")
    except ConfigError as error:
        raise ContractError(str(error)) from error


def reader_keys(contract: Contract) -> dict[str, str]:
    """Metadata keys of the mjlab lineage, which C++ motion controllers parse."""
    joints = contract.joints
    lists = {
        "joint_names": contract.joint_names,
        "joint_stiffness": [joint.kp for joint in joints],
        "joint_damping": [joint.kd for joint in joints],
        "default_joint_pos": [joint.default_position for joint in joints],
        "command_names": [contract.command.name],
        "observation_names": [spec.name for spec in contract.inputs],
    }
    return {name: ",".join(map(str, values)) for name, values in lists.items()}


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
    period_ms, safety = contract.control_dt_s * 1e3, robot.safety
    for name, value_ms in (
        ("watchdog_ms", safety.watchdog_ms),
        ("stale_after_ms", safety.stale_after_ms),
    ):
        if value_ms < MIN_PERIODS * period_ms * (1 - 1e-9):
            differences.append(
                f"safety.{name}: {value_ms:g} ms is too short for a policy with a period of "
                f"{period_ms:g} ms, expected at least {MIN_PERIODS * period_ms:g} ms"
            )
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
        stiffness = servo.kp(servo.p_gain(joint.kp))
        servo.d_gain(joint.kd)
    except ConfigError as error:
        differences.append(f"joint {joint.name!r}: {error}")
    else:
        if abs(stiffness / joint.kp - 1) > 0.05:
            differences.append(
                f"joint {joint.name!r}: {wiring.model} cannot be set to {joint.kp:.3g} N·m/rad, "
                f"the nearest it has is {stiffness:.3g} N·m/rad"
            )
    if abs(joint.effort_limit / servo.stall_torque_nm - 1) > 0.05:
        differences.append(
            f"joint {joint.name!r}: trained with a servo of {joint.effort_limit:.3g} N·m, "
            f"{wiring.model} has {servo.stall_torque_nm:.3g} N·m"
        )
    return differences


def _tensor_problems(contract: Contract) -> Iterator[str]:
    """What contradicts the table of signals, or the joints."""
    joints = contract.joint_names
    if len(set(joints)) != len(joints):
        yield f"joints must have different names, found {joints}"
    for spec in [*contract.inputs, *contract.outputs]:
        row = SIGNALS[spec.kind] if isinstance(spec, InputSpec) else TARGETS[spec.kind]
        elements = row.elements(joints)
        for what, found, expected in (
            ("name", spec.name, spec.kind),
            ("unit", spec.unit, row.unit),
            ("frame", spec.frame, row.frame),
            ("elements", spec.elements, elements),
            ("shape", spec.shape, [1, len(elements)]),
        ):
            if found != expected:
                yield f"{spec.name!r}: expected the {what} {expected!r}, found {found!r}"
    command = len(contract.command.low)
    if command != len(SIGNALS["command"].elements(joints)):
        yield f"command {contract.command.name!r} has {command} numbers"
    for spec in contract.state:
        if spec.elements and len(spec.elements) != spec.shape[-1]:
            yield f"{spec.name!r}: {len(spec.elements)} elements for the shape {spec.shape}"
        if spec.shape[0] != 1 or math.prod(spec.shape) > 1_000_000:
            yield f"{spec.name!r}: expected a state of shape [1, ...], found {spec.shape}"
    filled = [spec.name for spec in [*contract.inputs, *contract.state]]
    written = [
        *(spec.name for spec in contract.outputs),
        *(f"{spec.name}_next" for spec in contract.state),
    ]
    for names in (filled, written):
        if len(set(names)) != len(names):
            yield f"tensors must have different names, found {names}"


def _golden_problems(contract: Contract) -> Iterator[str]:
    """What no recording of this policy on this robot could hold."""
    golden = contract.golden
    for recorded, tensors in (
        (golden.inputs, contract.inputs),
        (golden.outputs, contract.outputs),
    ):
        if recorded.keys() != {tensor.name for tensor in tensors}:
            yield f"the golden vectors cover {sorted(recorded)} only"
            return
    lengths = {len(steps) for steps in (golden.inputs | golden.outputs).values()}
    if len(lengths) != 1 or min(lengths) < MIN_GOLDEN_STEPS:
        yield (
            f"the golden vectors have {sorted(lengths)} steps, expected one length of at least "
            f"{MIN_GOLDEN_STEPS}"
        )
    for name, steps in (golden.inputs | golden.outputs).items():
        ranges = _plausible_range(contract, name)
        for step, values in enumerate(steps):
            if len(values) != len(ranges) or not all(
                low <= value <= high for value, (low, high) in zip(values, ranges, strict=True)
            ):
                yield f"golden vector {step} of {name!r} is not plausible, found {values}"
                break


def _plausible_range(contract: Contract, kind: str) -> list[tuple[float, float]]:
    """Where each element of a recorded tensor can lie; measured angles may overshoot."""
    if kind == "command":
        ranges = list(zip(contract.command.low, contract.command.high, strict=True))
    elif kind == "joint_velocity":
        ranges = [(-100.0, 100.0) for _ in contract.joints]
    else:
        ranges = [joint.position_limits for joint in contract.joints]
    beyond = 0.5 if kind == "joint_position" else 1e-4  # float32 in the graph, float64 here
    return [(low - beyond, high + beyond) for low, high in ranges]


def _read_json(text: str, source: str) -> dict[str, Any]:
    """The contract as plain data, each key once."""

    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        if len(dict(pairs)) != len(pairs):
            raise ValueError(f"a key is there twice in {[key for key, _ in pairs]}")
        return dict(pairs)

    try:
        document = json.loads(text, object_pairs_hook=once)
        document["schema_version"]
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        reason = f" ({error})" if type(error) is ValueError else ""
        raise ContractError(
            f"{source}: the metadata {METADATA_KEY!r} is not a robotrl contract{reason}; "
            "export the policy again with `robotrl export`"
        ) from error
    return document
