"""Look inside an ONNX file without the onnx package, before anything executes it.

An ONNX file is a protobuf `ModelProto` (onnx/onnx.proto). `inspect_onnx` walks its top level: the
metadata entries (field 14) are read, everything else is hashed. So a truncated file or an edited
graph is found on a robot that has nothing but onnxruntime. `refuse_control_flow` walks the nodes: a
`Loop` need not end, and nothing stops onnxruntime once it has begun.
"""

import hashlib
from collections.abc import Iterator
from typing import NamedTuple

from deploy.errors import ContractError

_GRAPH, _METADATA_PROPS, _FUNCTIONS = 7, 14, 25
_NODES = {_GRAPH: 1, _FUNCTIONS: 7}
"""Where nodes are: in the graph, and in the functions that nodes may call."""
_OP_TYPE, _ATTRIBUTE = 4, 5
_INNER_GRAPHS = (6, 11)
"""Attributes that are graphs: the bodies of `Loop`, `Scan`, `If` and their like."""
_MAX_FIELDS = 10_000
"""At the top level there are about twenty; more are made to keep a reader busy."""
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5


class OnnxFile(NamedTuple):
    """What the top level of an ONNX file says."""

    graph_sha256: str
    """SHA-256 of the file with its metadata entries left out."""
    metadata: dict[str, str]


def inspect_onnx(data: bytes, *, source: str) -> OnnxFile:
    """Read the metadata and hash the rest.

    Raises:
        ContractError: the bytes are not a complete ONNX file.
    """
    digest = hashlib.sha256()
    metadata: dict[str, str] = {}
    has_graph = False
    try:
        for number, start, payload, end in _fields(data, 0, len(data)):
            if number == _METADATA_PROPS:
                entry = {n: data[p:e].decode() for n, _, p, e in _fields(data, payload, end)}
                if entry[1] in metadata:  # readers differ in which of the two they take
                    raise ValueError("metadata key repeated")
                metadata[entry[1]] = entry.get(2, "")
            else:
                digest.update(data[start:end])
                has_graph |= number == _GRAPH
    except (IndexError, KeyError, ValueError) as error:
        raise _damaged(data, source) from error
    if not has_graph:
        raise ContractError(f"{source}: is not an ONNX file; give the file `robotrl export` wrote")
    return OnnxFile(digest.hexdigest(), metadata)


def refuse_control_flow(data: bytes, *, source: str) -> None:
    """Refuse loops and branches: a controller computes the same in each step, and comes to an end.

    Raises:
        ContractError: a node has a graph inside, or the bytes are not a complete ONNX file.
    """
    try:
        name = next(_with_inner_graph(data), None)
    except (IndexError, KeyError, ValueError) as error:
        raise _damaged(data, source) from error
    if name is not None:
        raise ContractError(
            f"{source}: the graph has a node {name!r}, a loop or a branch, which need not come to "
            "an end; expected none, as in what `robotrl export` writes. Do not run it; export the "
            "policy again, and in a task of your own use torch.where in place of torch.cond"
        )


def _with_inner_graph(data: bytes) -> Iterator[str]:
    """Types of the nodes that have one."""
    for part, _, begin, end in _fields(data, 0, len(data)):
        for number, _, payload, stop in _fields(data, begin, end) if part in _NODES else ():
            if number != _NODES[part]:
                continue
            node = list(_fields(data, payload, stop))
            attributes = (_fields(data, p, e) for n, _, p, e in node if n == _ATTRIBUTE)
            if any(n in _INNER_GRAPHS for fields in attributes for n, *_ in fields):
                yield "".join(data[p:e].decode() for n, _, p, e in node if n == _OP_TYPE)


def _damaged(data: bytes, source: str) -> ContractError:
    return ContractError(
        f"{source}: is damaged or truncated ({len(data)} bytes); copy or export it again"
    )


def _fields(data: bytes, position: int, stop: int) -> Iterator[tuple[int, int, int, int]]:
    """Yield (field number, start of the field, start of its payload, end) of `data[:stop]`."""
    for _ in range(_MAX_FIELDS):
        if position == stop:
            return
        start = position
        key, position = _varint(data, position)
        number, wire_type = key >> 3, key & 7
        if wire_type == _VARINT:
            payload = position
            _, position = _varint(data, position)
        elif wire_type == _BYTES:
            size, payload = _varint(data, position)
            position = payload + size
        elif wire_type in (_FIXED32, _FIXED64):
            payload = position
            position += 4 if wire_type == _FIXED32 else 8
        else:
            raise ValueError(f"wire type {wire_type}")
        if position > stop or number == 0:
            raise ValueError("field runs past the end")
        yield number, start, payload, position
    raise ValueError("too many fields")


def _varint(data: bytes, position: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        byte = data[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
    raise ValueError("varint too long")
