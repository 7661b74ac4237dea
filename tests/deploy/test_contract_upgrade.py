"""A policy exported with schema 1 runs as it did, and is checked as strictly as a new one.

The file in `data/` was written by the last robotrl that wrote schema 1; see the README beside it.
"""

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from deploy.commands import random_commands
from deploy.contract import (
    HASH_KEY,
    METADATA_KEY,
    SCHEMA_VERSION,
    hash_metadata,
    parse_contract,
)
from deploy.controller import OnnxController, read_policy
from deploy.errors import ContractError
from deploy.fit import matches
from deploy.onnx_file import inspect_onnx
from deploy.robot_config import RobotConfig
from deploy.runtime import State
from tests.deploy.conftest import SCHEMA_1_PATH, MakeBench
from tests.deploy.test_runtime import make_trial

Document = dict[str, Any]

NEW_NAMES = {
    "kp_nm_per_rad": "kp",
    "kd_nm_s_per_rad": "kd",
    "default_position_rad": "default_position",
    "position_limits_rad": "position_limits",
    "velocity_limit_rad_s": "velocity_limit",
    "effort_limit_nm": "effort_limit",
}


@pytest.fixture
def document() -> Document:
    """The contract as schema 1 wrote it, to be changed."""
    data = SCHEMA_1_PATH.read_bytes()
    return json.loads(inspect_onnx(data, source="").metadata[METADATA_KEY])


def refusal(document: Document) -> str:
    with pytest.raises(ContractError) as error:
        parse_contract(json.dumps(document), source="policy.onnx")
    return str(error.value)


def test_file_is_of_schema_1(document: Document):
    assert document["schema_version"] == 1
    assert document["provenance"]["git_commit"].startswith("cf0aed5")


def test_policy_of_schema_1_runs_on_the_arm(make_bench: MakeBench):
    controller = OnnxController(SCHEMA_1_PATH)  # which replays its golden vectors
    contract = controller.contract
    bench = make_bench(contract=contract)
    trial = make_trial(bench, controller)

    trial.runtime.run(random_commands(contract.command, seed=0), duration_s=2.0)

    running = trial.recorder.ticks[trial.recorder.ticks["state"] == State.RUNNING]
    assert contract.schema_version == SCHEMA_VERSION
    assert trial.states[-1] is State.IDLE
    assert len(running) == 100  # 2 s at 50 Hz
    assert np.ptp(running["joint_position"][:, :4], axis=0).max() > 0.05  # rad


def test_it_fits_the_arm_it_was_trained_for(desk_arm: RobotConfig):
    matches(read_policy(SCHEMA_1_PATH)[0], desk_arm)


def test_nothing_is_lost_and_nothing_but_what_is_new_is_added(document: Document):
    contract = parse_contract(json.dumps(document), source="")

    upgraded = contract.model_dump(mode="json")
    assert upgraded.pop("observation") == []
    command = upgraded["command"]
    assert [command.pop(key) for key in ("elements", "unit", "frame")] == [
        ["x", "y", "z"], "m", "base",
    ]  # fmt: skip
    assert {joint.pop("lead_rad") for joint in upgraded["joints"]} == {None}
    upgraded["joints"] = [
        {NEW_NAMES.get(key, key): value for key, value in joint.items()}
        for joint in upgraded["joints"]
    ]
    assert upgraded == document | {"schema_version": 2}


def test_upgraded_contract_is_one_of_today(document: Document):
    contract = parse_contract(json.dumps(document), source="")
    assert parse_contract(contract.model_dump_json(), source="") == contract


def put(*path: str | int, value: Any) -> Callable[[Document], None]:
    """A change that puts a value at a place."""

    def change(document: Any) -> None:
        *parents, last = path
        for part in parents:
            document = document[part]
        document[last] = value

    return change


def lose_kp(document: Document) -> None:
    del document["joints"][0]["kp"]


def exchange_axes(document: Document) -> None:
    (command,) = (spec for spec in document["inputs"] if spec["kind"] == "command")
    command["elements"].reverse()


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (put("joints", 0, "kp", value=math.nan), "joints.0.kp_nm_per_rad: input should be a fin"),
        (put("joints", 0, "kp", value=0.0), "needs a kp_nm_per_rad above zero"),
        (put("joints", 0, "kp", value="7"), "joints.0.kp_nm_per_rad: input should be a valid num"),
        (put("joints", 0, "kpp", value=1.0), "joints.0: unknown key 'kpp'"),
        (lose_kp, "joints.0.kp_nm_per_rad: field required"),
        (put("joints", 0, "position_limits", value=[1.0, -1.0]), "must be [low, high]"),
        (put("joints", value={}), "joints: input should be a valid array"),
        (put("joints", 0, value=7), "joints.0: "),
        (put("command", value=None), "command: "),
        (put("command", "low", value=[0.0]), "is no range of ['x', 'y', 'z']"),
        (exchange_axes, "expected the elements ['x', 'y', 'z'], found ['z', 'y', 'x']"),
        (put("inputs", 0, "unit", value="deg"), "expected the unit 'rad', found 'deg'"),
        (put("golden", "tolerance", value=1.0), "golden.tolerance: input should be less"),
        (put("graph_sha256", value="0"), "graph_sha256: string should match pattern"),
        (put("more", value=1), "unknown key 'more'"),
    ],
)
def test_it_is_checked_as_strictly_as_a_new_one(
    document: Document, change: Callable[[Document], None], problem: str
):
    change(document)

    text = refusal(document)

    assert text.startswith(
        "policy.onnx: the contract is not valid, upgraded from schema version 1: "
    )
    assert problem in text


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("joints", 2, "kp_nm_per_rad"), 5.0),
        (("joints", 0, "effort_limit_nm"), 5.0),
        (("command", "unit"), "m"),
        (("joints", 0, "lead_rad"), 0.1),
        (("command", "elements"), ["x", "y", "z"]),
        (("command", "frame"), "base"),
        (("observation",), []),
    ],
)
def test_words_of_schema_2_are_unknown_in_schema_1(
    document: Document, path: tuple[str | int, ...], value: Any
):
    put(*path, value=value)(document)

    assert refusal(document) == (
        "policy.onnx: the contract is not valid, upgraded from schema version 1: schema version 1 "
        f"has no key {path[-1]!r}; export the policy again"
    )


@pytest.mark.parametrize("version", [True, 1.0, "1", None, [1]])
def test_only_the_number_one_is_schema_1(document: Document, version: Any):
    document["schema_version"] = version

    assert ": schema_version: input should be a valid integer, found " in refusal(document)


def test_hashes_are_checked_on_the_file_as_it_was_written(tmp_path: Path):
    onnx = pytest.importorskip("onnx")
    model = onnx.load_model(SCHEMA_1_PATH)
    metadata = {entry.key: entry.value for entry in model.metadata_props}
    upgraded = parse_contract(metadata[METADATA_KEY], source="").model_dump_json()
    path = tmp_path / "policy.onnx"

    onnx.helper.set_model_props(model, metadata | {METADATA_KEY: upgraded})
    onnx.save(model, path)
    with pytest.raises(ContractError, match="the contract was edited after export"):
        read_policy(path)

    metadata[METADATA_KEY] = metadata[METADATA_KEY].replace('"kp":', '"kp": ', 1)
    onnx.helper.set_model_props(model, metadata | {HASH_KEY: hash_metadata(metadata)})
    onnx.save(model, path)
    assert read_policy(path)[0].schema_version == SCHEMA_VERSION  # a space is no difference
