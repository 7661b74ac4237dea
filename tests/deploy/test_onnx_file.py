"""Reading the top level of a protobuf by hand: what is found, hashed and refused."""

import hashlib
import random
from collections.abc import Callable

import pytest

from deploy.errors import ContractError
from deploy.onnx_file import OnnxFile, inspect_onnx, refuse_control_flow

# onnx/onnx.proto: ir_version = 1 (varint), graph = 7 and metadata_props = 14 (bytes); the first
# byte of a field is number << 3 | wire type.
IR_VERSION = b"\x08\x0a"  # 1 << 3 | 0, then 10
GRAPH = b"\x3a\x05nodes"  # 7 << 3 | 2, then 5 bytes


def entry(key: str, value: str) -> bytes:
    """A metadata entry: key = 1 and value = 2, both bytes."""
    fields = b"\x0a" + size(key) + key.encode() + b"\x12" + size(value) + value.encode()
    return b"\x72" + size(fields) + fields  # 14 << 3 | 2


def size(payload: str | bytes) -> bytes:
    """The length of a payload below 16384 as a varint."""
    count = len(payload.encode() if isinstance(payload, str) else payload)
    return bytes([count]) if count < 128 else bytes([count & 0x7F | 0x80, count >> 7])


def inspect(data: bytes) -> OnnxFile:
    return inspect_onnx(data, source="policy.onnx")


def refusal(data: bytes) -> str:
    with pytest.raises(ContractError) as error:
        inspect(data)
    return str(error.value)


def test_metadata_is_read():
    text = "ü" * 200  # 400 bytes, so that lengths take two bytes

    found = inspect(IR_VERSION + GRAPH + entry("contract", text) + entry("empty", ""))

    assert found.metadata == {"contract": text, "empty": ""}


def test_entry_without_a_value_is_empty():
    assert inspect(GRAPH + b"\x72\x03\x0a\x01k").metadata == {"k": ""}


def test_hash_covers_all_but_the_metadata():
    data = IR_VERSION + entry("a", "1") + GRAPH + entry("b", "2")

    assert inspect(data).graph_sha256 == hashlib.sha256(IR_VERSION + GRAPH).hexdigest()


@pytest.mark.parametrize("position", range(len(IR_VERSION + GRAPH)))
def test_any_change_of_the_graph_changes_the_hash_or_is_refused(position: int):
    data = IR_VERSION + GRAPH
    changed = bytearray(data)
    changed[position] ^= 0x01

    try:
        found = inspect(bytes(changed))
    except ContractError:
        return
    assert found.graph_sha256 != inspect(data).graph_sha256


def test_fields_of_fixed_size_are_passed_over():
    double, single = b"\x79" + bytes(8), b"\x7d" + bytes(4)  # 15 << 3 | 1 and 15 << 3 | 5

    found = inspect(double + single + GRAPH + entry("k", "v"))

    assert found.metadata == {"k": "v"}
    assert found.graph_sha256 == hashlib.sha256(double + single + GRAPH).hexdigest()


def test_file_cut_short_is_refused_at_every_length_inside_a_field():
    data = IR_VERSION + GRAPH + entry("contract", "x" * 300)
    whole = {0, len(IR_VERSION), len(IR_VERSION + GRAPH)}

    for length in set(range(len(data))) - whole:
        assert refusal(data[:length]) == (
            f"policy.onnx: is damaged or truncated ({length} bytes); copy or export it again"
        )


@pytest.mark.parametrize("data", [b"", IR_VERSION, entry("k", "v")])
def test_file_without_a_graph_is_refused(data: bytes):
    assert refusal(data) == (
        "policy.onnx: is not an ONNX file; give the file `robotrl export` wrote"
    )


@pytest.mark.parametrize(
    "data",
    [
        b"\x00" * 50,
        b"PK\x03\x04 a zip archive",
        b"# a text file\n",
        b"\xff" * 50,
        GRAPH + b"\x3b",
        GRAPH + b"\x72\x04\x0a\x02\xff\xfe",
        GRAPH + b"\x72\x03\x12\x01v",
    ],
    ids=["zeros", "zip", "text", "ones", "group", "not UTF-8", "entry without a key"],
)
def test_anything_else_is_refused_by_name(data: bytes):
    assert refusal(data).startswith("policy.onnx: is ")


def test_field_without_a_number_is_refused():
    data = GRAPH + b"\x00\x00"

    assert refusal(data) == (
        f"policy.onnx: is damaged or truncated ({len(data)} bytes); copy or export it again"
    )


def test_metadata_key_that_is_there_twice_is_refused():
    # Readers differ in which of the two they take.
    data = GRAPH + entry("contract", "mine") + entry("contract", "yours")

    assert refusal(data).startswith("policy.onnx: is damaged or truncated")


@pytest.mark.timeout(20)
@pytest.mark.parametrize("field", [IR_VERSION, entry("k", "")], ids=["numbers", "metadata"])
def test_file_of_countless_fields_is_refused_without_counting_them(field: bytes):
    assert refusal(GRAPH + field * 5_000_000).startswith("policy.onnx: is damaged or truncated")


def test_no_bytes_crash_the_reader():
    generator = random.Random(0)
    data = IR_VERSION + GRAPH + entry("contract", "some text") + entry("hash", "abc")
    for _ in range(5000):
        changed = bytearray(data)
        for _ in range(generator.randint(1, 4)):
            changed[generator.randrange(len(data))] = generator.randrange(256)
        try:
            inspect(bytes(changed))
        except ContractError as error:
            assert str(error).startswith("policy.onnx: ")


# Loops and branches: NodeProto op_type = 4, attribute = 5; AttributeProto f = 2, g = 6, graphs = 11


def field(number: int, payload: bytes) -> bytes:
    return bytes([number << 3 | 2]) + size(payload) + payload


GRAPHS_AND_FUNCTIONS = [
    pytest.param(lambda node: field(7, field(1, node)), id="graph"),
    pytest.param(lambda node: GRAPH_OF_NOTHING + field(7, field(1, node)), id="second graph"),
    pytest.param(lambda node: b"\xca\x01" + size(field(7, node)) + field(7, node), id="function"),
]
GRAPH_OF_NOTHING = field(7, b"")


@pytest.mark.parametrize("around", GRAPHS_AND_FUNCTIONS)
@pytest.mark.parametrize("attribute", [6, 11])
def test_node_with_a_graph_inside_is_refused_wherever_it_is(
    around: Callable[[bytes], bytes], attribute: int
):
    plain = field(1, b"x") + field(4, b"Add") + field(5, field(2, b"0000"))
    loop = field(4, b"Scan") + field(5, field(2, b"0000")) + field(5, field(attribute, b""))

    refuse_control_flow(around(plain), source="policy.onnx")
    with pytest.raises(ContractError, match=r"^policy\.onnx: the graph has a node 'Scan', a loop"):
        refuse_control_flow(around(plain) + around(loop), source="policy.onnx")


def test_nodes_that_are_none_are_refused():
    with pytest.raises(ContractError, match="is damaged or truncated"):
        refuse_control_flow(GRAPH, source="policy.onnx")
