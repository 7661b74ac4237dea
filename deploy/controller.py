"""Run the exported controller: one ONNX graph, named inputs in SI units, joint targets out.

    controller = OnnxController(Path("policy.onnx"))
    controller.inputs["joint_position"][:] = measured          # rad, contract order
    controller.step()
    targets = controller.outputs["joint_position_target"]      # rad

Loading refuses a damaged or edited file and replays the golden vectors, so a wrong build of
onnxruntime is found before torque is on. A step copies nothing and allocates no arrays: inputs,
outputs and state are bound once (onnxruntime IO binding) on one thread without spinning.
"""

import os
from pathlib import Path

import numpy as np
import onnxruntime as ort

from deploy.configuration import read_bytes
from deploy.contract import (
    HASH_KEY,
    METADATA_KEY,
    Contract,
    hash_metadata,
    parse_contract,
    reader_keys,
    size,
)
from deploy.errors import ContractError
from deploy.onnx_file import inspect_onnx, refuse_control_flow

MAX_BYTES = 256 * 1024 * 1024
"""Largest policy file: 60 million weights."""
_TYPICAL_STEPS = 20
_EXTERNAL_FOLDER = "session.model_external_initializers_file_folder_path"


class OnnxController:
    """A loaded, self-tested policy file.

    Attributes:
        contract: what the policy expects of the robot.
        inputs: name -> float32 array (n,), to be filled before `step`.
        outputs: name -> float32 array (n,), valid until the next `step`.
    """

    contract: Contract
    inputs: dict[str, np.ndarray]
    outputs: dict[str, np.ndarray]

    def __init__(self, path: Path):
        self._path = path
        self.contract, data = read_policy(path)
        self._session = _make_session(data, path)
        self._check_graph(path)
        self._binding = self._session.io_binding()
        contract = self.contract
        self.inputs = {
            spec.name: self._bind_input(spec.name, spec.shape) for spec in contract.inputs
        }
        self.outputs = {
            spec.name: self._bind_output(spec.name, spec.shape) for spec in contract.outputs
        }
        self._state = [
            (
                self._bind_input(spec.name, spec.shape),
                self._bind_output(f"{spec.name}_next", spec.shape),
            )
            for spec in contract.state
        ]
        self._run_options = ort.RunOptions()
        self._replay_golden_vectors(path)
        for _ in range(_TYPICAL_STEPS):  # the first runs grow onnxruntime's arena
            self.step()
        self.reset()

    def step(self) -> None:
        """Run the graph once: reads `inputs`, writes `outputs`, advances the state.

        Raises:
            ContractError: the graph fails.
        """
        try:
            self._session.run_with_iobinding(self._binding, self._run_options)
        except Exception as error:  # as in _make_session
            raise ContractError(f"{self._path}: onnxruntime cannot run it: {error}") from error
        for state_in, state_out in self._state:
            np.copyto(state_in, state_out)

    def reset(self) -> None:
        """Forget the past: the next step is the first of an episode."""
        for state_in, _ in self._state:
            state_in.fill(0)
        for array in self.inputs.values():
            array.fill(0)

    def _check_graph(self, path: Path) -> None:
        """Refuse a contract that describes another graph's inputs and outputs."""
        contract, session = self.contract, self._session
        described = {spec.name: spec.shape for spec in [*contract.inputs, *contract.state]}
        produced = {spec.name: spec.shape for spec in contract.outputs}
        produced |= {f"{spec.name}_next": spec.shape for spec in contract.state}
        for what, graph, said in (
            ("inputs", session.get_inputs(), described),
            ("outputs", session.get_outputs(), produced),
        ):
            found = {node.name: node.shape for node in graph}
            if found != said:
                raise ContractError(
                    f"{path}: the graph has the {what} {found}, its contract describes {said}; "
                    "export it again"
                )
            if other := {node.name: node.type for node in graph if node.type != "tensor(float)"}:
                raise ContractError(
                    f"{path}: the graph has the {what} {other}, expected float32; export it again"
                )

    def _bind_input(self, name: str, shape: list[int]) -> np.ndarray:
        array = np.zeros(shape, np.float32)
        self._binding.bind_input(name, "cpu", 0, np.float32, shape, array.ctypes.data)
        return array.reshape(-1)

    def _bind_output(self, name: str, shape: list[int]) -> np.ndarray:
        array = np.zeros(shape, np.float32)
        self._binding.bind_output(name, "cpu", 0, np.float32, shape, array.ctypes.data)
        return array.reshape(-1)

    def _replay_golden_vectors(self, path: Path) -> None:
        golden = self.contract.golden
        self.reset()
        steps = len(next(iter(golden.inputs.values())))
        allowed = {name: golden.tolerance * size(all) for name, all in golden.outputs.items()}
        for step in range(steps):
            for name, values in golden.inputs.items():
                self.inputs[name][:] = values[step]
            self.step()
            for name, values in golden.outputs.items():
                error = float(np.max(np.abs(self.outputs[name] - values[step])))
                if not error <= allowed[name]:
                    raise ContractError(
                        f"{path}: golden vector {step} of {name!r} differs by {error:.3g}, "
                        f"allowed {allowed[name]:.3g}; this onnxruntime "
                        f"({ort.__version__}) does not compute what was exported. "
                        "Install the version in the contract's provenance or export again."
                    )
        self.reset()


def read_policy(path: Path) -> tuple[Contract, bytes]:
    """Read and verify a policy file without running it.

    Returns:
        The contract and the file's bytes.

    Raises:
        ContractError: missing, truncated, edited, not exported by robotrl, or it may never end.
    """
    data = read_bytes(path, MAX_BYTES, ContractError)
    onnx_file = inspect_onnx(data, source=str(path))
    text = onnx_file.metadata.get(METADATA_KEY)
    if text is None:
        raise ContractError(
            f"{path}: has no robotrl contract inside; make it with `robotrl export RUN -o {path}`"
        )
    metadata = onnx_file.metadata
    if hash_metadata(metadata) != metadata.get(HASH_KEY):
        raise ContractError(f"{path}: the contract was edited after export; export it again")
    contract = parse_contract(text, source=str(path))
    for key, expected in reader_keys(contract).items():
        if metadata.get(key) != expected:
            raise ContractError(
                f"{path}: the metadata {key!r} is {metadata.get(key)!r}, its contract says "
                f"{expected!r}; export it again"
            )
    if contract.graph_sha256 != onnx_file.graph_sha256:
        raise ContractError(
            f"{path}: the network was edited after export (its hash is not the contract's); "
            "export it again"
        )
    refuse_control_flow(data, source=str(path))
    return contract, data


def _make_session(data: bytes, path: Path) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    # Weights in other files are not covered by the hashes; there is nothing in this folder.
    options.add_session_config_entry(_EXTERNAL_FOLDER, os.devnull)
    try:
        return ort.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime raises its own types, all derived from Exception
        raise ContractError(f"{path}: onnxruntime cannot load it: {error}") from error
