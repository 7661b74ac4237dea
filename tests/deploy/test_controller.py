"""The exported file on the robot: refused when anything is off, exact and quiet when it runs."""

import hashlib
import json
import re
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from deploy.contract import HASH_KEY, METADATA_KEY, SCHEMA_VERSION, hash_metadata, size
from deploy.controller import OnnxController, read_policy
from deploy.errors import ContractError
from deploy.onnx_file import inspect_onnx

Document = dict[str, Any]


@pytest.fixture(scope="module")
def policy(policy_path: Path) -> bytes:
    """An intact file; what is left of the session's policy when it is only read."""
    return policy_path.read_bytes()


@pytest.fixture
def controller(policy_path: Path) -> OnnxController:
    return OnnxController(policy_path)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where a damaged copy is written."""
    return tmp_path / "policy.onnx"


def refusal(path: Path, data: bytes) -> str:
    """The text that a file with these bytes is refused with; it names the file."""
    path.write_bytes(data)
    with pytest.raises(ContractError) as error:
        OnnxController(path)
    assert str(error.value).startswith(f"{path}: ")
    return str(error.value).removeprefix(f"{path}: ")


def with_metadata(policy: bytes, change: Callable[[dict[str, str]], None]) -> bytes:
    """The file with other metadata and the same graph."""
    onnx = pytest.importorskip("onnx")
    model = onnx.load_model_from_string(policy)
    metadata = {entry.key: entry.value for entry in model.metadata_props}
    change(metadata)
    onnx.helper.set_model_props(model, metadata)
    return model.SerializeToString()


def with_contract(policy: bytes, change: Callable[[Document], None], *, signed: bool) -> bytes:
    """The file with another contract; `signed` with a hash that fits it, as a tool would."""

    def edit(metadata: dict[str, str]) -> None:
        document = json.loads(metadata[METADATA_KEY])
        change(document)
        metadata[METADATA_KEY] = json.dumps(document)
        if signed:
            metadata[HASH_KEY] = hash_metadata(metadata)

    return with_metadata(policy, edit)


def fill(controller: OnnxController, seed: int) -> None:
    """Put random signals into the inputs."""
    generator = np.random.default_rng(seed)
    for array in controller.inputs.values():
        array[:] = generator.uniform(-0.5, 0.5, array.shape)


def output(controller: OnnxController) -> np.ndarray:
    """A copy of the targets after one step."""
    controller.step()
    return controller.outputs["joint_position_target"].copy()


def test_intact_copy_is_accepted(policy: bytes, path: Path):
    path.write_bytes(policy)

    assert OnnxController(path).contract.robot == "desk_arm"


def test_file_truncated_anywhere_is_refused_by_name(policy: bytes, path: Path):
    for length in range(0, len(policy), len(policy) // 150):
        refusal(path, policy[:length])


def test_file_that_lost_even_its_last_byte_is_refused(policy: bytes, path: Path):
    for length in range(policy.index(HASH_KEY.encode()), len(policy)):
        path.write_bytes(policy[:length])

        with pytest.raises(ContractError, match=f"^{re.escape(str(path))}: "):
            read_policy(path)


def test_one_flipped_bit_of_the_graph_is_refused(policy: bytes, path: Path):
    graph_end = policy.index(METADATA_KEY.encode()) - 8
    for position in range(40, graph_end, graph_end // 100):
        damaged = bytearray(policy)
        damaged[position] ^= 0x10

        assert refusal(path, bytes(damaged)) == (
            "the network was edited after export (its hash is not the contract's); export it again"
        )


def test_one_flipped_bit_of_the_metadata_is_refused(policy: bytes, path: Path):
    start, end = policy.index(METADATA_KEY.encode()), len(policy)
    last_entries = range(end - 600, end, 7)
    for position in [*range(start, end, (end - start) // 300), *last_entries]:
        damaged = bytearray(policy)
        damaged[position] ^= 0x01
        path.write_bytes(damaged)

        with pytest.raises(ContractError, match=f"^{re.escape(str(path))}: "):
            read_policy(path)


def test_edited_contract_is_refused(policy: bytes, path: Path):
    def stiffen(document: Document) -> None:
        document["joints"][0]["kp_nm_per_rad"] *= 2

    assert refusal(path, with_contract(policy, stiffen, signed=False)) == (
        "the contract was edited after export; export it again"
    )


@pytest.mark.parametrize("key", ["joint_stiffness", "joint_names", "default_joint_pos"])
def test_edited_key_for_other_runtimes_is_refused(policy: bytes, path: Path, key: str):
    def edit(metadata: dict[str, str]) -> None:
        metadata[key] = metadata[key].replace("2", "3").replace("shoulder", "hip")

    assert refusal(path, with_metadata(policy, edit)) == (
        "the contract was edited after export; export it again"
    )


def test_contract_without_its_hash_is_refused(policy: bytes, path: Path):
    def forget_hash(metadata: dict[str, str]) -> None:
        del metadata[HASH_KEY]

    assert (
        refusal(path, with_metadata(policy, forget_hash))
        == "the contract was edited after export; export it again"
    )


def test_contract_of_another_graph_is_refused(policy: bytes, path: Path):
    def rebind(document: Document) -> None:
        document["graph_sha256"] = "0" * 64

    assert refusal(path, with_contract(policy, rebind, signed=True)) == (
        "the network was edited after export (its hash is not the contract's); export it again"
    )


def test_other_schema_version_is_refused_with_both_versions(policy: bytes, path: Path):
    def from_the_future(document: Document) -> None:
        document["schema_version"] = 99

    assert refusal(path, with_contract(policy, from_the_future, signed=True)) == (
        f"the contract has schema version 99, this robotrl reads 1 to {SCHEMA_VERSION}. "
        "Export the policy again with this version, or install the robotrl that exported it."
    )


def test_plain_onnx_file_is_refused_with_what_to_do(policy: bytes, path: Path):
    assert refusal(path, with_metadata(policy, dict.clear)) == (
        f"has no robotrl contract inside; make it with `robotrl export RUN -o {path}`"
    )


def test_missing_file_is_named(path: Path):
    with pytest.raises(ContractError) as error:
        OnnxController(path)

    assert str(error.value) == f"{path}: cannot be read: No such file or directory"


def test_graph_that_onnxruntime_cannot_load_is_refused(policy: bytes, path: Path):
    garbage = b"\x3a\x00"  # a field `graph` in which nothing is

    def bind(metadata: dict[str, str]) -> None:
        document = json.loads(metadata[METADATA_KEY])
        document["graph_sha256"] = hashlib.sha256(garbage).hexdigest()
        metadata[METADATA_KEY] = json.dumps(document)
        metadata[HASH_KEY] = hash_metadata(metadata)

    onnx = pytest.importorskip("onnx")
    signed = onnx.load_model_from_string(with_metadata(policy, bind))
    only_metadata = onnx.ModelProto(metadata_props=signed.metadata_props).SerializeToString()

    text = refusal(path, garbage + only_metadata)

    assert text.startswith("onnxruntime cannot load it: ")


def test_golden_vectors_that_do_not_come_out_are_refused(policy: bytes, path: Path):
    def expect_a_millimetre_more(document: Document) -> None:
        document["golden"]["outputs"]["joint_position_target"][3][0] += 1e-3

    text = refusal(path, with_contract(policy, expect_a_millimetre_more, signed=True))

    assert re.fullmatch(
        r"golden vector 3 of 'joint_position_target' differs by 0\.001, allowed 1e-05; this "
        r"onnxruntime \([\d.]+\) does not compute what was exported\. Install the version in the "
        r"contract's provenance or export again\.",
        text,
    )


def test_rounding_is_judged_by_the_largest_target():
    # float32 keeps 7 digits: 1e-5 of 30 rad/s, but of angles below 1 rad 1e-5 rad
    assert size([[0.2, -30.0], [1.0, 4.0]]) == 30.0
    assert size([[0.2, -0.5]]) == 1.0


def rename_input(document: Document) -> None:
    document["inputs"][0]["name"] = "angle"
    inputs = document["golden"]["inputs"]
    inputs["angle"] = inputs.pop("joint_position")


def rename_output(document: Document) -> None:
    document["outputs"][0]["name"] = "torque"
    outputs = document["golden"]["outputs"]
    outputs["torque"] = outputs.pop("joint_position_target")


def forget_state(document: Document) -> None:
    document["state"].pop()


def forget_input(document: Document) -> None:
    document["inputs"].pop()


def forget_golden_inputs(document: Document) -> None:
    document["golden"]["inputs"].clear()


def forget_golden_outputs(document: Document) -> None:
    document["golden"]["outputs"].clear()


def shorten_golden_outputs(document: Document) -> None:
    document["golden"]["outputs"]["joint_position_target"].pop()


def narrow_output(document: Document) -> None:
    document["outputs"][0]["shape"] = [1, 3]
    document["outputs"][0]["elements"] = document["outputs"][0]["elements"][:3]
    golden = document["golden"]["outputs"]
    golden["joint_position_target"] = [row[:3] for row in golden["joint_position_target"]]


@pytest.mark.parametrize(
    "change",
    [
        rename_input,
        rename_output,
        narrow_output,
        forget_state,
        forget_input,
        forget_golden_inputs,
        forget_golden_outputs,
        shorten_golden_outputs,
    ],
)
def test_contract_that_does_not_describe_its_graph_is_refused(
    policy: bytes, path: Path, change: Callable[[Document], None]
):
    refusal(path, with_contract(policy, change, signed=True))


def test_file_that_is_far_too_large_is_refused_unread(path: Path):
    with path.open("wb") as file:
        file.truncate(10**12)  # of zeros, which take no room on the disk

    with pytest.raises(ContractError, match="is larger than 262144 KiB; is it the right file"):
        OnnxController(path)


def with_graph(policy: bytes, edit: Callable[[Any], None]) -> bytes:
    """The file with another graph, and hashes that fit it."""
    onnx = pytest.importorskip("onnx")
    model = onnx.load_model_from_string(policy)
    edit(model.graph)
    bare = onnx.ModelProto()
    bare.CopyFrom(model)
    del bare.metadata_props[:]
    digest = hashlib.sha256(bare.SerializeToString()).hexdigest()

    def rebind(document: Document) -> None:
        document["graph_sha256"] = digest

    return with_contract(model.SerializeToString(), rebind, signed=True)


def test_graph_of_doubles_is_refused(policy: bytes, path: Path):
    def widen(graph: Any) -> None:
        (command,) = [value for value in graph.input if value.name == "command"]
        command.type.tensor_type.elem_type = 11  # onnx.TensorProto.DOUBLE
        first = next(node for node in graph.node if "command" in node.input)
        onnx = pytest.importorskip("onnx")
        cast = onnx.helper.make_node("Cast", ["command"], ["command_float"], to=1)
        for node in graph.node:
            node.input[:] = ["command_float" if n == "command" else n for n in node.input]
        graph.node.insert(list(graph.node).index(first), cast)

    assert refusal(path, with_graph(policy, widen)) == (
        "the graph has the inputs {'command': 'tensor(double)'}, expected float32; export it again"
    )


def test_loop_that_never_ends_is_refused_before_it_begins(policy: bytes, path: Path):
    onnx = pytest.importorskip("onnx")
    from onnx.helper import make_graph, make_node, make_tensor, make_tensor_value_info

    def spin(graph: Any) -> None:
        """Add zero to the command for ever."""
        whole, truth = onnx.TensorProto.INT64, onnx.TensorProto.BOOL
        body = make_graph(
            [make_node("Identity", ["go"], ["go_on"]), make_node("Identity", ["a"], ["b"])],
            "body",
            [make_tensor_value_info("i", whole, []), make_tensor_value_info("go", truth, []),
             make_tensor_value_info("a", 1, [1, 3])],
            [make_tensor_value_info("go_on", truth, []), make_tensor_value_info("b", 1, [1, 3])],
        )  # fmt: skip
        for node in graph.node:
            node.input[:] = ["spun" if n == "command" else n for n in node.input]
        graph.initializer.append(make_tensor("true", truth, [], [True]))
        graph.node.insert(0, make_node("Loop", ["", "true", "command"], ["spun"], body=body))

    assert refusal(path, with_graph(policy, spin)) == (
        "the graph has a node 'Loop', a loop or a branch, which need not come to an end; expected "
        "none, as in what `robotrl export` writes. Do not run it; export the policy again, and in "
        "a task of your own use torch.where in place of torch.cond"
    )


def test_graph_that_fails_while_running_is_refused(policy: bytes, path: Path):
    def bend(graph: Any) -> None:
        """Give the output a shape that depends on the command, and is none."""
        onnx = pytest.importorskip("onnx")
        for node in graph.node:
            node.output[:] = ["bent" if n == graph.output[0].name else n for n in node.output]
        make_node, make_tensor = onnx.helper.make_node, onnx.helper.make_tensor
        graph.initializer.extend(
            [
                make_tensor("hundred", 1, [1], [100.0]),
                make_tensor("two", 7, [2], [0, 1]),
                make_tensor("flat", 7, [1], [-1]),
            ]
        )
        graph.node.extend(
            [
                make_node("Mul", ["command", "hundred"], ["cm"]),
                make_node("Cast", ["cm"], ["whole"], to=7),  # int64
                make_node("Gather", ["whole", "two"], ["pair"], axis=1),
                make_node("Reshape", ["pair", "flat"], ["shape"]),
                make_node("Tile", ["bent", "shape"], [graph.output[0].name]),
            ]
        )

    text = refusal(path, with_graph(policy, bend))

    assert text.startswith("onnxruntime cannot run it: ")


def test_weights_in_another_file_are_refused(policy: bytes, path: Path, monkeypatch):
    onnx = pytest.importorskip("onnx")
    from onnx.external_data_helper import convert_model_to_external_data

    model = onnx.load_model_from_string(policy)
    convert_model_to_external_data(model, location="weights.bin", size_threshold=0)
    onnx.save(model, path)
    data = path.read_bytes()
    assert (path.parent / "weights.bin").exists()
    graph = inspect_onnx(data, source="the model").graph_sha256
    monkeypatch.chdir(path.parent)

    text = refusal(
        path, with_contract(data, lambda document: document.update(graph_sha256=graph), signed=True)
    )

    assert "onnxruntime cannot load it: " in text


def test_graph_that_fails_later_says_so(controller: OnnxController):
    controller._binding.clear_binding_inputs()
    with pytest.raises(ContractError, match=r"\.onnx: onnxruntime cannot run it: "):
        controller.step()


def test_inputs_and_outputs_are_flat_float32_arrays_by_name(controller: OnnxController):
    assert {name: array.shape for name, array in controller.inputs.items()} == {
        "joint_position": (6,),
        "joint_velocity": (6,),
        "joint_target": (6,),
        "command": (3,),
    }
    assert {name: array.shape for name, array in controller.outputs.items()} == {
        "joint_position_target": (6,)
    }
    arrays = [*controller.inputs.values(), *controller.outputs.values()]
    assert all(array.dtype == np.float32 for array in arrays)


def test_step_computes_the_golden_vectors(controller: OnnxController):
    golden = controller.contract.golden
    expected = np.array(golden.outputs["joint_position_target"])
    found = []
    for step in range(len(expected)):
        for name, values in golden.inputs.items():
            controller.inputs[name][:] = values[step]
        found.append(output(controller))

    assert np.abs(np.array(found) - expected).max() <= 1e-5


def test_step_reads_its_inputs_and_leaves_them_alone(controller: OnnxController):
    fill(controller, seed=0)
    before = {name: array.copy() for name, array in controller.inputs.items()}
    first = output(controller)

    assert all(np.array_equal(before[name], array) for name, array in controller.inputs.items())
    controller.reset()
    fill(controller, seed=1)
    assert not np.array_equal(output(controller), first)


def test_state_carries_over_from_step_to_step(controller: OnnxController):
    fill(controller, seed=0)
    alone = output(controller)

    controller.reset()
    fill(controller, seed=1)
    controller.step()
    fill(controller, seed=0)
    after_another = output(controller)

    # The same signals, but another past in the history of observations.
    assert not np.array_equal(alone, after_another)


def test_reset_forgets_the_past(controller: OnnxController):
    fill(controller, seed=0)
    first = output(controller)
    for seed in range(1, 5):
        fill(controller, seed)
        controller.step()

    controller.reset()

    assert not any(array.any() for array in controller.inputs.values())
    fill(controller, seed=0)
    assert np.array_equal(output(controller), first)


def test_loading_leaves_no_state_behind(controller: OnnxController):
    fill(controller, seed=0)
    first = output(controller)

    controller.reset()
    fill(controller, seed=0)

    assert np.array_equal(output(controller), first)


def test_two_controllers_of_one_file_do_not_share_anything(policy_path: Path):
    one, other = OnnxController(policy_path), OnnxController(policy_path)
    fill(one, seed=0)
    expected = output(one)
    fill(other, seed=1)
    other.step()

    assert np.array_equal(one.outputs["joint_position_target"], expected)


def test_step_allocates_no_arrays(controller: OnnxController):
    fill(controller, seed=0)
    arrays = [*controller.inputs.values(), *controller.outputs.values()]
    addresses = [array.ctypes.data for array in arrays]
    controller.step()

    tracemalloc.start()
    before, _ = tracemalloc.get_traced_memory()
    tracemalloc.reset_peak()
    for _ in range(1000):
        controller.step()
    after, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    assert after - before < 200  # bytes after 1000 steps
    assert peak - before < 2000  # bytes at any moment
    assert [array.ctypes.data for array in arrays] == addresses
