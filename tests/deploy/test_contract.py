"""The contract keeps every digit, and refuses what is inconsistent."""

import json
import math
import re
from collections.abc import Callable
from typing import Any

import pytest

from deploy.contract import HASH_KEY, METADATA_KEY, Contract, hash_metadata, parse_contract
from deploy.errors import ContractError, DeployError
from deploy.signals import SIGNALS, SignalKind
from tests.deploy.conftest import driven_by, using

Document = dict[str, Any]
JOINTS = ["shoulder_pan", "shoulder_lift", "elbow_flex", "wrist_flex", "wrist_roll", "gripper"]


@pytest.fixture
def document(contract: Contract) -> Document:
    """The contract of the desk arm as plain data, to be changed."""
    return contract.model_dump(mode="json")


def refusal(document: object) -> str:
    text = document if isinstance(document, str) else json.dumps(document)
    with pytest.raises(ContractError) as error:
        parse_contract(text, source="policy.onnx")
    return str(error.value)


def test_contract_survives_its_json_to_the_last_digit(contract: Contract):
    joint = contract.joints[0].model_copy(
        update={"kp_nm_per_rad": 0.1 + 0.2, "default_position_rad": 1 / 3}
    )
    exact = contract.model_copy(update={"joints": [joint, *contract.joints[1:]]})

    parsed = parse_contract(exact.model_dump_json(), source="")

    assert parsed == exact
    assert parsed.joints[0].kp_nm_per_rad == 0.30000000000000004


def test_other_schema_version_is_refused_with_both_versions(document: Document):
    document["schema_version"] = 7

    assert refusal(document) == (
        "policy.onnx: the contract has schema version 7, this robotrl reads 1 to 2. Export the "
        "policy again with this version, or install the robotrl that exported it."
    )


def test_version_is_checked_before_fields_that_it_may_have_changed():
    assert "schema version 3" in refusal({"schema_version": 3, "anything": "else"})


@pytest.mark.parametrize("text", ["", "{", "[]", "3", "{}", '"text"'])
def test_text_that_is_no_contract_is_refused(text: str):
    assert refusal(text) == (
        "policy.onnx: the metadata 'robotrl.contract' is not a robotrl contract; export the policy "
        "again with `robotrl export`"
    )


def test_missing_and_unknown_fields_are_named(document: Document):
    del document["control_dt_s"]
    document["joints"][1]["kp_nm_rad"] = document["joints"][1].pop("kp_nm_per_rad")

    text = refusal(document)

    assert text.startswith("policy.onnx: the contract is not valid: ")
    assert "control_dt_s: field required" in text
    assert "joints.1: unknown key 'kp_nm_rad' (did you mean 'kp_nm_per_rad'?)" in text


def drop_element(document: Document) -> None:
    document["inputs"][0]["elements"].pop()


def rename_element(document: Document) -> None:
    document["inputs"][0]["elements"][5] = "tail"


def repeat_joint(document: Document) -> None:
    document["joints"][1]["name"] = "shoulder_pan"
    for tensor in document["inputs"][:3] + document["outputs"]:
        tensor["elements"][1] = "shoulder_pan"


def reverse_limits(document: Document) -> None:
    document["joints"][0]["position_limits_rad"].reverse()


def start_outside_limits(document: Document) -> None:
    document["joints"][0]["default_position_rad"] = 3.0


def shorten_command(document: Document) -> None:
    document["command"]["low"].pop()


def reverse_command(document: Document) -> None:
    low, high = document["command"]["low"], document["command"]["high"]
    low[2], high[2] = high[2], low[2]


def lose_stiffness(document: Document) -> None:
    document["joints"][0]["kp_nm_per_rad"] = math.nan


def stop_time(document: Document) -> None:
    document["control_dt_s"] = 0


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (
            drop_element,
            f"(top level): 'joint_position': expected the elements {JOINTS}, found {JOINTS[:5]}",
        ),
        (
            rename_element,
            f"(top level): 'joint_position': expected the elements {JOINTS}, found "
            f"{[*JOINTS[:5], 'tail']}",
        ),
        (stop_time, "control_dt_s: input should be greater than or equal to 0.001, found 0"),
        (lose_stiffness, "joints.0.kp_nm_per_rad: input should be a finite number, found nan"),
        (
            reverse_limits,
            "joints.0: shoulder_pan: position_limits_rad must be [low, high], found [2.2, -2.2]",
        ),
        (
            start_outside_limits,
            "joints.0: shoulder_pan: default_position_rad 3.0 is outside position_limits_rad "
            "[-2.2, 2.2]",
        ),
        (
            shorten_command,
            "command: command 'target_position': [0.12, -0.14] to [0.22, 0.14, 0.2] is no range "
            "of ['x', 'y', 'z']",
        ),
        (
            reverse_command,
            "command: command 'target_position': [0.12, -0.14, 0.2] to [0.22, 0.14, 0.05] is no "
            "range of ['x', 'y', 'z']",
        ),
        (
            repeat_joint,
            "(top level): joints must have different names, found ['shoulder_pan', "
            "'shoulder_pan', 'elbow_flex', 'wrist_flex', 'wrist_roll', 'gripper']",
        ),
    ],
)
def test_inconsistent_contract_is_refused(
    document: Document, change: Callable[[Document], None], problem: str
):
    change(document)

    assert refusal(document) == f"policy.onnx: the contract is not valid: {problem}"


# What a tool that computes the hashes anew could write


def put(*path: str | int, value: Any) -> Callable[[Document], None]:
    """A change that puts a value at a place."""

    def change(document: Any) -> None:
        *parents, last = path
        for part in parents:
            document = document[part]
        document[last] = value

    return change


def reverse_elements_of_the_output(document: Document) -> None:
    document["outputs"][0]["elements"].reverse()


def use_only_three_joints(document: Document) -> None:
    output = document["outputs"][0]
    output["shape"], output["elements"] = [1, 3], output["elements"][:3]
    steps = document["golden"]["outputs"]
    steps["joint_position_target"] = [row[:3] for row in steps["joint_position_target"]]


def repeat_an_input(document: Document) -> None:
    document["inputs"].append(document["inputs"][0])


def exchange_kinds(document: Document) -> None:
    angle, _, target, _ = document["inputs"]
    angle["kind"], target["kind"] = target["kind"], angle["kind"]


def exchange_joints(document: Document) -> None:
    joints = document["joints"]
    joints[0], joints[5] = joints[5], joints[0]


def exchange_axes(document: Document) -> None:
    document["inputs"][3]["elements"].reverse()


def name_a_state_like_an_input(document: Document) -> None:
    document["state"] = [{"name": "command", "shape": [1, 3], "unit": "1"}]


def name_a_state_like_an_output(document: Document) -> None:
    state = {"shape": [1, 3], "unit": "1"}
    document["state"] = [{"name": "a", **state}, {"name": "a", **state}]


def widen_the_command(document: Document) -> None:
    document["command"]["low"].append(0.0)
    document["command"]["high"].append(0.0)


def record_one_step(document: Document) -> None:
    for steps in (document["golden"]["inputs"] | document["golden"]["outputs"]).values():
        del steps[1:]


def record_fewer_numbers(document: Document) -> None:
    document["golden"]["inputs"]["joint_position"][7].pop()


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (reverse_elements_of_the_output,
         "'joint_position_target': expected the elements ['shoulder_pan', 'shoulder_lift', "),
        (use_only_three_joints, "'joint_position_target': expected the elements ['shoulder_pan', "),
        (exchange_joints, "'joint_position': expected the elements ['gripper', "),
        (exchange_axes, "'command': expected the elements ['x', 'y', 'z'], found ['z', 'y', 'x']"),
        (repeat_an_input, "tensors must have different names"),
        (exchange_kinds, "'joint_position': expected the name 'joint_target', found "),
        (name_a_state_like_an_input, "tensors must have different names"),
        (name_a_state_like_an_output, "tensors must have different names"),
        (widen_the_command, "is no range of ['x', 'y', 'z']"),
        (record_one_step, "the golden vectors have [1] steps, expected one length of at least 16"),
        (record_fewer_numbers, "golden vector 7 of 'joint_position' is not plausible"),
        (put("inputs", 0, "unit", value="deg"), "expected the unit 'rad', found 'deg'"),
        (put("inputs", 3, "frame", value="world"), "expected the frame 'base', found 'world'"),
        (put("outputs", 0, "kind", value="joint_torque"), "outputs.0.kind: input should be "),
        (put("inputs", 0, "shape", value=[6, 1]), "expected the shape [1, 6], found [6, 1]"),
        (put("inputs", 0, "shape", value=[]), "inputs.0.shape: list should have at least 2 items"),
        (put("inputs", 0, "shape", value=[1, -6]), "inputs.0.shape.1: input should be greater"),
        (put("inputs", value=[]), "inputs: list should have at least 1 item"),
        (put("outputs", value=[]), "outputs: list should have at least 1 item"),
        (put("joints", value=[]), "joints: list should have at least 1 item"),
        (put("state", value=[{"name": "a", "shape": [2, 3], "unit": "1"}]),
         "'a': expected a state of shape [1, ...], found [2, 3]"),
        (put("state", value=[{"name": "a", "shape": [1, 99_999, 99_999], "unit": "1"}]),
         "'a': expected a state of shape [1, ...]"),
        (put("state", value=[{"name": "a", "shape": [1, 3], "unit": "1", "elements": ["b"]}]),
         "'a': 1 elements for the shape [1, 3]"),
        (put("joints", 0, "operating_mode", value="current"), "joints.0.operating_mode: input"),
        (put("joints", 0, "name", value=""), "joints.0.name: string should have at least 1"),
        (put("joints", 0, "name", value="a,b"), "joints.0.name: a name has no comma"),
        (put("joints", 0, "velocity_limit_rad_s", value=-1.0),
         "joints.0.velocity_limit_rad_s: input"),
        (put("joints", 0, "velocity_limit_rad_s", value=1e308),
         "joints.0.velocity_limit_rad_s: input"),
        (put("joints", 0, "kp_nm_per_rad", value=1e9),
         "joints.0.kp_nm_per_rad: input should be less"),
        (put("joints", 0, "kp_nm_per_rad", value=True),
         "joints.0.kp_nm_per_rad: input should be a valid number"),
        (put("joints", 0, "kp_nm_per_rad", value="7"),
         "joints.0.kp_nm_per_rad: input should be a valid number"),
        (put("joints", 0, "kd_nm_s_per_rad", value=-1e-9),
         "joints.0.kd_nm_s_per_rad: input should be greater"),
        (put("joints", 0, "effort_limit_nm", value=1e9), "joints.0.effort_limit_nm: input"),
        (put("control_dt_s", value=10), "control_dt_s: input should be less"),
        (put("control_dt_s", value=1e-7), "control_dt_s: input should be greater"),
        (put("command", "high", 0, value=math.inf), "command.high.0: input should be a finite"),
        (put("command", "interval_s", value=[4, 2]), "interval_s must be [shortest, longest]"),
        (put("command", "interval_s", value=[0, 2]), "command.interval_s.0: input should be"),
        (put("golden", "tolerance", value=1.0), "golden.tolerance: input should be less"),
        (put("golden", "tolerance", value=0.0), "golden.tolerance: input should be greater"),
        (put("golden", "inputs", "joint_velocity", 3, 2, value=1e6), "golden vector 3 of "),
        (put("golden", "inputs", "joint_position", 3, 2, value=math.nan), "a finite number"),
        (put("golden", "outputs", "joint_position_target", 3, 0, value=2.5), "golden vector 3 of"),
        (put("provenance", "config", value={"a": [math.nan]}), "config.a.0: input should be a fin"),
        (put("provenance", "task", value="\x1b[31m"), "provenance.task: has characters that"),
        (put("scorecard", value={"a": math.inf}), "scorecard.a: input should be a finite number"),
        (put("schema_version", value=True), "schema_version: input should be a valid integer"),
        (put("graph_sha256", value="0"), "graph_sha256: string should match pattern"),
    ],
)  # fmt: skip
def test_contract_that_contradicts_itself_is_refused(
    document: Document, change: Callable[[Document], None], problem: str
):
    change(document)

    text = refusal(document)

    assert text.startswith("policy.onnx: the contract is not valid: ")
    assert problem in text


def state(*shape: int, elements: list[str] | None = None) -> Callable[[Document], None]:
    """A change that gives the policy one more tensor of its own."""
    spec = {"name": "a", "shape": shape, "unit": "1", "elements": elements or []}
    return put("state", value=[spec])


@pytest.mark.parametrize(
    ("allowed", "refused"),
    [
        (state(1, 100_000), state(1, 100_001)),
        (state(1, 1), state(1, 0)),
        (state(1, 1000, 1000), state(1, 1000, 1001)),
        (state(1, 2, 3, elements=["b", "c", "d"]), state(1, 2, 3, elements=["b", "c"])),
        (put("golden", "tolerance", value=1e-4), put("golden", "tolerance", value=1.001e-4)),
        (put("golden", "inputs", "joint_velocity", 3, 2, value=-100.0),
         put("golden", "inputs", "joint_velocity", 3, 2, value=-101.0)),
        (put("golden", "inputs", "joint_velocity", 3, 2, value=100.0),
         put("golden", "inputs", "joint_velocity", 3, 2, value=101.0)),
        (put("golden", "inputs", "joint_position", 3, 0, value=-2.2 - 0.49),
         put("golden", "inputs", "joint_position", 3, 0, value=-2.2 - 0.51)),
        (put("golden", "inputs", "joint_position", 3, 0, value=2.2 + 0.49),  # may overshoot
         put("golden", "inputs", "joint_position", 3, 0, value=2.2 + 0.51)),
        (put("command", "interval_s", value=[2, 2]), put("command", "interval_s", value=[2.1, 2])),
    ],
    ids=[
        "size", "no size", "numbers", "elements", "tolerance", "backwards", "forwards", "lowest",
        "highest", "interval",
    ],
)  # fmt: skip
def test_what_is_just_possible_is_accepted_and_no_more(
    document: Document, allowed: Callable[[Document], None], refused: Callable[[Document], None]
):
    allowed(document)
    parse_contract(json.dumps(document), source="")

    refused(document)
    refusal(document)


def test_what_is_not_said_of_a_joint_and_of_a_range(document: Document):
    document["trained_ranges"] = [
        {"target": "mass", "match": "*", "operation": "scale", "distribution": "uniform",
         "range": [0.8, 1.2]}
    ]  # fmt: skip
    del document["joints"][0]["operating_mode"]
    contract = parse_contract(json.dumps(document), source="")
    assert contract.joints[0].operating_mode == "position"
    assert contract.trained_ranges[0].body is None


def test_other_programs_find_contract_and_hash_under_their_names():
    assert (METADATA_KEY, HASH_KEY) == ("robotrl.contract", "robotrl.metadata_sha256")


def test_policy_may_use_only_some_of_the_signals(document: Document):
    for tensor in (document["inputs"].pop(1), document["inputs"].pop(2)):
        del document["golden"]["inputs"][tensor["name"]]

    contract = parse_contract(json.dumps(document), source="")

    assert [spec.kind for spec in contract.inputs] == ["joint_position", "joint_target"]


# Commands of any kind


def command_velocities(document: Document) -> None:
    """Make it a policy that is told how fast to go: m/s, m/s and rad/s."""
    document["command"] |= {
        "name": "velocity", "elements": ["x", "y", "yaw"], "unit": ["m/s", "m/s", "rad/s"],
        "low": [-0.5, -0.2, -1.0], "high": [1.0, 0.2, 1.0], "site": "",
    }  # fmt: skip
    document["inputs"][3] |= {"elements": ["x", "y", "yaw"], "unit": ["m/s", "m/s", "rad/s"]}


def test_command_may_have_a_unit_for_each_element(document: Document):
    command_velocities(document)

    command = parse_contract(json.dumps(document), source="").command

    assert command.units == ["m/s", "m/s", "rad/s"]


def test_unit_of_all_elements_is_that_of_each(contract: Contract):
    assert contract.command.units == ["m", "m", "m"]


def test_command_may_be_one_number_in_no_frame(document: Document):
    document["command"] |= {"elements": ["height"], "frame": "", "low": [0.1], "high": [0.2],
                            "site": ""}  # fmt: skip
    document["inputs"][3] |= {"elements": ["height"], "frame": "", "shape": [1, 1]}
    document["golden"]["inputs"]["command"] = [[0.15]] * 16

    assert parse_contract(json.dumps(document), source="").command.elements == ["height"]


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (put("command", "unit", value=["m/s", "m/s"]), "or a list of one for each, found ['m/s',"),
        (put("command", "unit", value=["m/s", "m/s", "deg/s"]), "found ['m/s', 'm/s', 'deg/s']"),
        (put("command", "unit", value="cm"), "command: unit must be one of 1, rad, rad/s, "),
        (put("command", "unit", value="m/s"), "'command': expected the unit 'm/s', found ['m/s'"),
        (put("command", "elements", value=["y", "x", "yaw"]), "expected the elements ['y', 'x', "),
        (put("command", "elements", value=["x", "x", "yaw"]), "elements must have different names"),
        (put("command", "elements", value=[]), "command.elements: list should have at least 1"),
        (put("command", "frame", value="world"), "command.frame: input should be '', 'base' or"),
        (put("command", "frame", value="imu"), "'command': expected the frame 'imu', found 'base'"),
        (put("command", "low", 0, value=2000.0), "command.low.0: input should be less than or eq"),
        (put("command", "high", value=[1.0]), "is no range of ['x', 'y', 'yaw']"),
        (put("command", "site", value="tool"), "the site 'tool' reaches for points: expected x, y"),
        (put("inputs", 3, "unit", value="m"), "'command': expected the unit ['m/s', 'm/s', "),
        (put("inputs", 3, "unit", value=["m/s", "rad/s", "m/s"]), "'command': expected the unit "),
    ],
)
def test_command_that_contradicts_itself_or_its_input_is_refused(
    document: Document, change: Callable[[Document], None], problem: str
):
    command_velocities(document)
    change(document)

    assert problem in refusal(document)


@pytest.mark.parametrize(
    ("key", "value"), [("frame", ""), ("elements", ["x", "y", "up"]), ("unit", "rad")]
)
def test_site_reaches_for_a_point_of_the_base_frame(document: Document, key: str, value: Any):
    document["command"][key] = document["inputs"][3][key] = value

    assert "the site 'tool' reaches for points: expected x, y, z in m and the frame 'base'" in (
        refusal(document)
    )


# Signals and targets of any kind


def test_policy_may_use_any_signal_of_the_table(contract: Contract):
    kinds: list[SignalKind] = [kind for kind in SIGNALS if kind != "joint_target_velocity"]
    policy = using(contract, *kinds)

    described = {spec.name: (spec.unit, spec.frame, spec.elements) for spec in policy.inputs}
    assert described["imu_angular_velocity"] == ("rad/s", "imu", ["x", "y", "z"])
    assert described["joint_effort"] == ("N·m", "", JOINTS)
    assert described["time"] == ("s", "", ["time"])


@pytest.mark.parametrize(
    ("kind", "row", "column", "allowed", "refused"),
    [
        ("projected_gravity", 3, 2, -1.099, -1.101),
        ("imu_angular_velocity", 3, 0, 39.9, 40.1),
        ("joint_effort", 3, 0, 1.5 + 9.9, 1.5 + 10.1),  # an XL430 has 1.5 N·m
        ("object_position", 3, 1, -9.9, -10.1),
        ("time", 3, 0, 99.0, 101.0),
        ("time", 3, 0, -79.0, -81.0),
        ("command", 3, 0, 0.22, 0.2202),
        ("joint_target", 3, 0, 2.2, 2.2002),
    ],
)
def test_recording_is_as_plausible_as_its_kind(
    contract: Contract, kind: SignalKind, row: int, column: int, allowed: float, refused: float
):
    document = using(contract, kind).model_dump(mode="json")
    recorded = document["golden"]["inputs"][kind][row]

    recorded[column] = allowed
    parse_contract(json.dumps(document), source="")
    recorded[column] = refused
    assert f"golden vector {row} of {kind!r} is not plausible" in refusal(document)


@pytest.mark.parametrize(("mode", "limit"), [("velocity", 2.0), ("torque", 1.5)])
def test_targets_may_be_speeds_or_torques_within_their_limits(
    contract: Contract, mode: str, limit: float
):
    document = driven_by(contract, mode).model_dump(mode="json")
    steps = document["golden"]["outputs"][f"joint_{mode}_target"]

    steps[3][0] = -limit
    parse_contract(json.dumps(document), source="")
    steps[3][0] = -limit - 0.001
    assert "golden vector 3 of " in refusal(document)


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (put("joints", 0, "operating_mode", value="velocity"),
         "joints.0: shoulder_pan: a joint driven by position needs a kp_nm_per_rad above zero, "
         "others none; found 6.905706005343255 in operating_mode 'velocity'"),
        (put("joints", 0, "kp_nm_per_rad", value=0.0),
         "joints.0: shoulder_pan: a joint driven by position needs a kp_nm_per_rad above zero, "
         "others none; found 0.0 in operating_mode 'position'"),
        (put("joints", 0, value=None), "joints.0: input should be an object, found None"),
        (put("observation", value=["a", "b", "a"]),
         "(top level): the numbers of the observation must have different names"),
    ],
    ids=["mode", "no gain", "no joint", "columns"],
)  # fmt: skip
def test_joint_and_observation_that_cannot_be_are_refused(
    document: Document, change: Callable[[Document], None], problem: str
):
    change(document)

    assert refusal(document) == f"policy.onnx: the contract is not valid: {problem}"


def test_policy_that_sends_angles_has_sent_no_speeds(contract: Contract):
    with pytest.raises(ContractError) as error:
        using(contract, "joint_target_velocity")

    assert str(error.value) == (
        "using: the contract is not valid: (top level): 'joint_target_velocity' is not what was "
        "sent last by a policy that sends 'joint_position_target'"
    )


def test_joints_that_do_not_obey_the_output_are_named(document: Document):
    document["joints"][0] |= {"operating_mode": "torque", "kp_nm_per_rad": 0.0}

    assert refusal(document) == (
        "policy.onnx: the contract is not valid: (top level): 'joint_position_target' drives "
        "'shoulder_pan', in operating_mode torque"
    )


def test_randomization_may_say_more_than_its_range(document: Document):
    document["trained_ranges"] = [
        {"target": "push", "operation": "set", "distribution": "uniform", "range": [0.0, 0.3],
         "interval_s": [2.0, 5.0], "schedule": {"steps": [0, 1000000]}}
    ]  # fmt: skip

    contract = parse_contract(json.dumps(document), source="")
    (term,) = json.loads(contract.model_dump_json())["trained_ranges"]

    assert term["interval_s"] == [2.0, 5.0]
    assert term["schedule"] == {"steps": [0, 1000000]}
    assert term["match"] is None


@pytest.mark.parametrize("text", ["[" * 200_000, '{"a":' * 200_000, "9" * 10_000])
def test_json_that_overflows_its_reader_is_refused(text: str):
    assert "is not a robotrl contract" in refusal(text)


def test_contract_nested_too_deep_is_refused(document: Document):
    deep: list[Any] = []
    for _ in range(100):
        deep = [deep]
    document["provenance"]["config"] = {"a": deep}

    assert "nested deeper than 32 levels" in refusal(document)


def test_key_that_is_there_twice_is_refused(document: Document):
    text = json.dumps(document).replace(
        '"kp_nm_per_rad":', '"kp_nm_per_rad": 1.0, "kp_nm_per_rad":', 1
    )

    assert re.search(
        r"is not a robotrl contract \(a key is there twice in .*'kp_nm_per_rad', 'kp_nm_per_rad'",
        refusal(text),
    )


def test_hash_of_the_metadata_covers_every_entry_but_itself():
    metadata = {"contract": "{}", "joint_names": "a,b"}
    expected = hash_metadata(metadata)

    assert hash_metadata(dict(reversed(metadata.items())) | {HASH_KEY: expected}) == expected
    for other in (
        {"contract": "{ }", "joint_names": "a,b"},
        {"contract": "{}", "joint_names": "b,a"},
        {"contract": "{}"},
        {"contract": "{}", "joint_name": "sa,b"},
        {"contract": "{}joint_names", "": "a,b"},
    ):
        assert hash_metadata(other) != expected


def test_error_is_both_ours_and_a_value_error():
    assert issubclass(ContractError, DeployError)
    assert issubclass(ContractError, ValueError)
