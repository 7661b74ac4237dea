"""Contracts that a foreign tool edited and hashed anew: refused, or harmless.

Harmless is a policy that, once accepted for a robot,
- has the wiring of the original: which number of which tensor belongs to which joint or axis, in
  which unit, is as exported;
- sends, whatever its graph computes from whatever signals, only targets within the hardware's
  limits that move no faster than the hardware may;
- starts where the hardware can be, with gains that the servos can be set to.
What else an edit may change (a start pose, a slower rate, a note on where the policy comes from)
is a policy that could have been exported so.
"""

import contextlib
import copy
import json
import math
import os
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from deploy.contract import (
    HASH_KEY,
    METADATA_KEY,
    Contract,
    hash_metadata,
    parse_contract,
    reader_keys,
)
from deploy.controller import OnnxController, read_policy
from deploy.dynamixel.servos import MODELS
from deploy.errors import ContractError
from deploy.fit import matches
from deploy.onnx_file import inspect_onnx
from deploy.robot_config import RobotConfig
from tests.deploy.conftest import SCHEMA_1_PATH, make_governor

Place = tuple[str | int, ...]
DROPPED = object()
SHARE = float(os.environ.get("ROBOTRL_FUZZ_SHARE", "0.08"))
"""Part of all edits that is tried; 1 takes a minute."""


@pytest.fixture(scope="module")
def policy(policy_path: Path) -> bytes:
    return policy_path.read_bytes()


@pytest.fixture(scope="module")
def original(policy_path: Path) -> Contract:
    return read_policy(policy_path)[0]


def rewrite(policy: bytes, text: str) -> bytes:
    """The file with another contract, and every hash and key in agreement with it if they can."""
    onnx = pytest.importorskip("onnx")
    model = onnx.load_model_from_string(policy)
    metadata = {entry.key: entry.value for entry in model.metadata_props} | {METADATA_KEY: text}
    with contextlib.suppress(ContractError):  # which the reader is about to find out
        metadata |= reader_keys(parse_contract(text, source=""))
    onnx.helper.set_model_props(model, metadata | {HASH_KEY: hash_metadata(metadata)})
    return model.SerializeToString()


def places(value: Any, path: Place = ()) -> Iterator[Place]:
    """Every place of a document; of a recording only some steps and numbers."""
    if path:
        yield path
    if isinstance(value, dict):
        for key, item in value.items():
            yield from places(item, (*path, key))
    elif isinstance(value, list):
        recorded = path[:1] == ("golden",)
        for row, item in enumerate(value):
            if not recorded or row in (0, len(value) // 2):
                yield from places(item, (*path, row))


def edits(value: Any) -> Iterator[Any]:
    """What a value may be turned into, beside being dropped."""
    yield from (None, [], {}, [value], {"a": value}, True, 0, -1, 1e-300, 1e308, 10**40)
    yield from (math.nan, -math.inf, "", "\x1b[2J", "joint_velocity", "x" * 10_000)
    if isinstance(value, bool | int | float):
        yield from (-value, value + 1, value * 2, value / 2, value * 1.01, value * 1e6, str(value))
    if isinstance(value, str):
        yield from (value[::-1], f"{value} ", f"{value}_next", value.upper())
    if isinstance(value, list) and value:
        yield from (value[:-1], value[1:], value + value[:1], value[::-1], value[1:] + value[:1])
        yield from (value * 2, value[:1] * len(value))
    if isinstance(value, dict) and value:
        keys, items = list(value), list(value.values())
        yield dict(zip(keys, items[1:] + items[:1], strict=True))
        yield value | {"more": 1}


def mutants(document: dict[str, Any], share: float) -> Iterator[tuple[str, str]]:
    """A name and the JSON of contracts that differ at one place; a random share of all."""
    generator = random.Random(0)
    for *parents, last in places(document):
        changed = copy.deepcopy(document)
        holder: Any = changed
        for part in parents:
            holder = holder[part]
        value = holder[last]
        rare = parents[:1] == ["provenance"]  # a large part of the text, and not used while running
        for number, edit in enumerate([*edits(value), DROPPED]):
            if generator.random() < (share / 20 if rare else share):
                holder[last] = edit
                if edit is DROPPED:
                    del holder[last]
                yield f"{[*parents, last]} {number}", json.dumps(changed)


def wiring(contract: Contract) -> Any:
    """What decides where a number comes from and where it goes."""
    return (
        contract.robot,
        {spec.name: spec for spec in contract.inputs},
        contract.outputs,
        {spec.name: spec.shape for spec in contract.state},
        [(joint.name, joint.operating_mode) for joint in contract.joints],
    )


def check_harmless(controller: OnnxController, original: Contract, robot: RobotConfig) -> None:
    contract = controller.contract
    assert wiring(contract) == wiring(original)
    wirings = [robot.joints[name] for name in contract.joint_names]
    low, high = np.array([wired.position_limits_rad for wired in wirings]).T
    speed = np.array([wired.velocity_limit_rad_s for wired in wirings])
    for joint, wired in zip(contract.joints, wirings, strict=True):
        servo = MODELS[wired.model]
        assert (
            wired.position_limits_rad[0]
            <= joint.default_position_rad
            <= wired.position_limits_rad[1]
        )
        assert servo.kp(servo.p_gain(joint.kp_nm_per_rad)) == pytest.approx(
            joint.kp_nm_per_rad, rel=0.05
        )
        assert servo.d_gain(joint.kd_nm_s_per_rad) >= 0
    assert 2 * contract.control_dt_s * 1e3 <= robot.safety.watchdog_ms
    governor, generator = make_governor(contract, robot), np.random.default_rng(0)
    (output,) = controller.outputs.values()
    last, sent = np.clip(np.zeros(len(wirings)), low, high), np.zeros(len(wirings))
    for _ in range(5):
        for array in controller.inputs.values():
            array[:] = generator.uniform(-10, 10, array.shape)
        controller.step()
        governor.limit(output.astype(float), last, last, np.zeros_like(last), out=sent)
        assert np.all((low <= sent) & (sent <= high))
        assert np.all(np.abs(sent - last) <= speed * contract.control_dt_s + 1e-9)
        last = sent.copy()


def test_original_is_accepted(
    policy: bytes, original: Contract, desk_arm: RobotConfig, tmp_path: Path
):
    path = tmp_path / "policy.onnx"
    path.write_bytes(rewrite(policy, original.model_dump_json()))
    controller = OnnxController(path)
    matches(controller.contract, desk_arm)

    check_harmless(controller, original, desk_arm)


@pytest.mark.parametrize(
    ("file", "share"), [("of today", SHARE), ("of schema 1", SHARE / 4)], ids=["2", "1"]
)
def test_edit_of_one_place_is_refused_or_harmless(
    policy_path: Path, desk_arm: RobotConfig, tmp_path: Path, file: str, share: float
):
    source = policy_path if file == "of today" else SCHEMA_1_PATH
    policy, original = source.read_bytes(), read_policy(source)[0]
    document = json.loads(inspect_onnx(policy, source="").metadata[METADATA_KEY])
    path = tmp_path / "policy.onnx"
    tried = accepted = 0
    for name, text in mutants(document, share):
        tried += 1
        try:
            parse_contract(text, source="policy.onnx")
            path.write_bytes(rewrite(policy, text))
            controller = OnnxController(path)
            matches(controller.contract, desk_arm)
        except ContractError:
            continue
        accepted += 1
        try:
            check_harmless(controller, original, desk_arm)
        except AssertionError as error:
            raise AssertionError(name) from error
    assert tried > 5000 * share
    assert 0 < accepted < tried / 5


def test_contract_edited_alone_disagrees_with_the_keys_of_other_runtimes(
    policy: bytes, original: Contract, tmp_path: Path
):
    onnx = pytest.importorskip("onnx")
    document = original.model_dump(mode="json")
    document["joints"][0]["kp_nm_per_rad"] *= 1.01
    model = onnx.load_model_from_string(policy)
    metadata = {entry.key: entry.value for entry in model.metadata_props}
    metadata[METADATA_KEY] = json.dumps(document)
    onnx.helper.set_model_props(model, metadata | {HASH_KEY: hash_metadata(metadata)})
    path = tmp_path / "policy.onnx"
    onnx.save(model, path)

    with pytest.raises(ContractError, match=r"the metadata 'joint_stiffness' is '6\.9"):
        read_policy(path)
