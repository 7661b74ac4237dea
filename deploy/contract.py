"""The contract: everything a robot must agree on before it may run a policy.

It travels as JSON inside the ONNX file (metadata key `robotrl.contract`), written by export and
read by `deploy.controller`. All numbers are SI units at full float precision; names order arrays.
Its hashes find damage, not malice: whoever edits a contract can compute them anew. So everything
that a contract says twice is compared, with `deploy.signals` too, and every number has bounds.
Contracts of earlier schemas are upgraded when they are read (`deploy.contract_upgrade`), and then
checked like any other. Whether a policy fits a robot is the question of `deploy.fit`.
"""

import hashlib
import json
import math
import operator
from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any, Literal

import numpy as np
from numpy.typing import ArrayLike
from pydantic import ConfigDict, Field, model_validator

from deploy.configuration import Section, validate
from deploy.contract_upgrade import from_schema_1
from deploy.errors import ConfigError, ContractError
from deploy.quantities import (
    Angle,
    Count,
    Damping,
    Duration,
    Name,
    Number,
    Period,
    Speed,
    Stiffness,
    Torque,
)
from deploy.signals import (
    LAST_TARGET,
    SIGNALS,
    TARGETS,
    UNITS,
    Frame,
    Signal,
    SignalKind,
    TargetKind,
)

SCHEMA_VERSION = 2
METADATA_KEY = "robotrl.contract"
HASH_KEY = "robotrl.metadata_sha256"
MIN_GOLDEN_STEPS = 16
"""Fewer golden vectors say nothing about a policy with a memory."""
MAX_TOLERANCE = 1e-4
"""Largest difference from a golden vector, as part of its size: for angles 1/15 of an encoder
count. Processors and versions of onnxruntime differ by some 1e-6."""

Size = Annotated[int, Field(ge=1, le=100_000)]
Hash = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
CommandValue = Annotated[float, Field(ge=-1000, le=1000)]
"""An element of a command in its unit: a thousand m, m/s or rad/s are more than any robot does."""
OperatingMode = Literal["position", "velocity", "torque"]
TARGET_OF: Mapping[OperatingMode, TargetKind] = {
    "position": "joint_position_target",
    "velocity": "joint_velocity_target",
    "torque": "joint_torque_target",
}
"""What a joint obeys in each mode."""
_ROWS: Mapping[str, Signal] = {**SIGNALS, **TARGETS}


class TensorSpec(Section):
    """One named tensor of the graph, shape (1, ...); elements name the last axis."""

    name: Name
    shape: Annotated[list[Size], Field(min_length=2, max_length=8)]
    unit: str | list[str]
    """One for all elements, or one for each."""
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
    operating_mode: OperatingMode = "position"
    """What its servo follows; the kind of the policy's targets."""
    kp_nm_per_rad: Stiffness
    """Position gain [N·m/rad]; zero in the other modes."""
    kd_nm_s_per_rad: Damping
    """Derivative gain of the servo's controller [N·m·s/rad]; back-EMF is not part of it."""
    default_position_rad: Angle
    """Start pose [rad]."""
    position_limits_rad: tuple[Angle, Angle]
    """Targets never leave this range [rad]."""
    velocity_limit_rad_s: Speed
    """Fastest change of a target [rad/s]."""
    effort_limit_nm: Torque
    """Torque at which the trained servo saturates [N·m]."""
    lead_rad: Annotated[float, Field(gt=0, le=1e3)] | None = None
    """Of a gripper: farthest the policy's target is from where the joint is [rad], so that it
    presses with this times its gain. None: that is not said."""

    @model_validator(mode="after")
    def _check(self) -> "JointSpec":
        low, high = self.position_limits_rad
        if not low < high:
            raise ValueError(
                f"{self.name}: position_limits_rad must be [low, high], found {[low, high]}"
            )
        if not low <= self.default_position_rad <= high:
            raise ValueError(
                f"{self.name}: default_position_rad {self.default_position_rad} is outside "
                f"position_limits_rad {[low, high]}"
            )
        if (self.operating_mode == "position") != (self.kp_nm_per_rad > 0):
            raise ValueError(
                f"{self.name}: a joint driven by position needs a kp_nm_per_rad above zero, others "
                f"none; found {self.kp_nm_per_rad} in operating_mode {self.operating_mode!r}"
            )
        return self


class CommandSpec(Section):
    """What the user may ask of the policy."""

    name: Name
    elements: Annotated[list[Name], Field(min_length=1, max_length=100)]
    """Names of its numbers, e.g. `x`, `y`, `yaw`."""
    unit: str | list[str]
    """Of all elements, or of each."""
    frame: Frame = ""
    """Frame of reference of a spatial command."""
    low: list[CommandValue]
    high: list[CommandValue]
    """Range of each element that the policy promises to obey."""
    interval_s: tuple[Duration, Duration]
    """Shortest and longest time between two commands in training [s]."""
    site: str = ""
    """Site of the robot model that should reach the command, for tasks that reach."""

    @property
    def units(self) -> list[str]:
        """Unit of each element."""
        return [self.unit] * len(self.elements) if isinstance(self.unit, str) else self.unit

    @model_validator(mode="after")
    def _check(self) -> "CommandSpec":
        count = len(self.elements)
        if len(set(self.elements)) != count:
            raise ValueError(f"elements must have different names, found {self.elements}")
        if len(self.units) != count or not set(self.units) <= set(UNITS):
            raise ValueError(
                f"unit must be one of {', '.join(UNITS)} for all {count} elements, or a list of "
                f"one for each, found {self.unit!r}"
            )
        if not (len(self.low) == len(self.high) == count) or any(
            map(operator.gt, self.low, self.high)
        ):
            raise ValueError(
                f"command {self.name!r}: {self.low} to {self.high} is no range of {self.elements}"
            )
        if self.interval_s[0] > self.interval_s[1]:
            raise ValueError(f"interval_s must be [shortest, longest], found {self.interval_s}")
        if self.site and (self.elements, self.unit, self.frame) != (["x", "y", "z"], "m", "base"):
            raise ValueError(
                f"the site {self.site!r} reaches for points: expected x, y, z in m and the frame "
                f"'base', found {self.elements} in {self.unit!r} and {self.frame!r}"
            )
        return self


class TrainedRange(Section):
    """One randomization term: what training varied, over which range, and all else it says."""

    model_config = ConfigDict(extra="allow")

    target: str
    match: str | list[str] | None = None
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


def size(targets: ArrayLike) -> float:
    """What an error of targets is compared with: the largest of them, or 1 if all are smaller.

    float32 keeps 7 digits: of an angle of 1 rad as of 30 rad/s.
    """
    return max(1.0, float(np.max(np.abs(targets))))


class GoldenVectors(Section):
    """A recorded sequence: feed `inputs[name][t]`, expect `outputs[name][t]`, from zero state."""

    inputs: dict[str, list[list[Number]]]
    outputs: dict[str, list[list[Number]]]
    tolerance: Annotated[float, Field(gt=0, le=MAX_TOLERANCE)]
    """Largest difference that is only rounding, as part of the `size` of all of an output."""


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
    observation: Annotated[list[Name], Field(max_length=100_000)]
    """Name of each number that the network sees; empty where the exporter had no names."""
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
    place = f"{source}: the contract is not valid"
    if type(version) is int and version == 1:
        place += ", upgraded from schema version 1"
        try:
            document = from_schema_1(document)
        except ValueError as error:
            raise ContractError(f"{place}: {error}") from error
    elif type(version) is int and version != SCHEMA_VERSION:
        raise ContractError(
            f"{source}: the contract has schema version {version}, this robotrl reads 1 to "
            f"{SCHEMA_VERSION}. Export the policy again with this version, or install the "
            "robotrl that exported it."
        )
    try:
        return validate(document, Contract, source=place)
    except ConfigError as error:
        raise ContractError(str(error)) from error


def describe_tensor(
    kind: SignalKind | TargetKind, joints: Sequence[str], command: CommandSpec
) -> dict[str, Any]:
    """The fields of the `TensorSpec` of a kind, on a robot with these joints."""
    row = _ROWS[kind]
    elements = row.elements(joints, command.elements)
    return {
        "name": kind,
        "kind": kind,
        "shape": [1, len(elements)],
        "unit": command.unit if row.unit is None else row.unit,
        "frame": command.frame if row.unit is None else row.frame,
        "elements": elements,
    }


def usual_range(contract: Contract, kind: SignalKind | TargetKind) -> list[tuple[float, float]]:
    """Where each element of a tensor lies while all is well, in its unit."""
    joints, command = contract.joints, contract.command
    match _ROWS[kind].usual:
        case "command":
            return list(zip(command.low, command.high, strict=True))
        case "position_limits":
            return [joint.position_limits_rad for joint in joints]
        case "velocity_limit":
            return [(-joint.velocity_limit_rad_s, joint.velocity_limit_rad_s) for joint in joints]
        case "effort_limit":
            return [(-joint.effort_limit_nm, joint.effort_limit_nm) for joint in joints]
        case low, high:
            return [(low, high)] * len(_ROWS[kind].elements(contract.joint_names))


def reader_keys(contract: Contract) -> dict[str, str]:
    """Metadata keys of the mjlab lineage, which C++ motion controllers parse."""
    joints = contract.joints
    lists = {
        "joint_names": contract.joint_names,
        "joint_stiffness": [joint.kp_nm_per_rad for joint in joints],
        "joint_damping": [joint.kd_nm_s_per_rad for joint in joints],
        "default_joint_pos": [joint.default_position_rad for joint in joints],
        "command_names": [contract.command.name],
        "observation_names": [spec.name for spec in contract.inputs],
    }
    return {name: ",".join(map(str, values)) for name, values in lists.items()}


def hash_metadata(metadata: Mapping[str, str]) -> str:
    """SHA-256 of all metadata entries but the one that holds it."""
    entries = sorted((key, value) for key, value in metadata.items() if key != HASH_KEY)
    return hashlib.sha256(json.dumps(entries).encode()).hexdigest()


def _tensor_problems(contract: Contract) -> Iterator[str]:
    """What contradicts the table of signals, or the joints."""
    joints = contract.joint_names
    if len(set(joints)) != len(joints):
        yield f"joints must have different names, found {joints}"
    for spec in [*contract.inputs, *contract.outputs]:
        for what, expected in describe_tensor(spec.kind, joints, contract.command).items():
            if (found := getattr(spec, what)) != expected:
                yield f"{spec.name!r}: expected the {what} {expected!r}, found {found!r}"
    (output,) = contract.outputs
    for joint in contract.joints:
        if output.kind != TARGET_OF[joint.operating_mode]:
            yield f"{output.name!r} drives {joint.name!r}, in operating_mode {joint.operating_mode}"
    for spec in contract.inputs:
        if spec.kind == "joint_target_velocity" and LAST_TARGET.get(output.kind) != spec.kind:
            yield f"{spec.name!r} is not what was sent last by a policy that sends {output.name!r}"
    if len(set(contract.observation)) != len(contract.observation):
        yield "the numbers of the observation must have different names"
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
    for spec in [*contract.inputs, *contract.outputs]:
        beyond, ranges = _ROWS[spec.kind].beyond, usual_range(contract, spec.kind)
        for step, values in enumerate((golden.inputs | golden.outputs)[spec.name]):
            if len(values) != len(ranges) or not all(
                low - beyond <= value <= high + beyond
                for value, (low, high) in zip(values, ranges, strict=True)
            ):
                yield f"golden vector {step} of {spec.name!r} is not plausible, found {values}"
                break


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
