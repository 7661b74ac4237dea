"""Export: the whole controller as one ONNX file, with its contract inside, checked.

The file is written only if onnxruntime reproduces torch on the golden vectors and on random signal
sequences. Beside our own contract it carries the metadata keys that existing C++ runtimes read
(`joint_names`, `joint_stiffness`, ... as comma-separated lists), at full precision.
"""

import io
import logging
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import numpy as np
import onnx
import torch
from pydantic import ValidationError
from torch import Tensor

from deploy.configuration import describe
from deploy.contract import (
    HASH_KEY,
    METADATA_KEY,
    SCHEMA_VERSION,
    TARGET_OF,
    Contract,
    GoldenVectors,
    InputSpec,
    OutputSpec,
    Provenance,
    StateSpec,
    TrainedRange,
    describe_tensor,
    hash_metadata,
    reader_keys,
    size,
    usual_range,
)
from deploy.controller import OnnxController
from deploy.errors import ContractError
from deploy.onnx_file import inspect_onnx
from deploy.signals import TargetKind
from deploy.whole_file import explained, replaced, require_writable
from envs.vector_env import VectorEnv
from robotrl.algorithms.policy import Agent, Policy
from robotrl.controller import Controller
from robotrl.foreign import Origin
from robotrl.runs.checkout import UNKNOWN, git_commit
from robotrl.runs.evaluate import load_policy, trained
from robotrl.runs.run_folder import RunFolder
from robotrl.runs.train import make_test_env
from robotrl.runs.train_config import TrainConfig

OPSET = 20
TOLERANCE = 1e-5
"""Largest difference between torch and onnxruntime, as part of the targets' `size`."""
_GOLDEN_STEPS = 64


def export(
    folder: RunFolder, path: Path, scorecard: dict[str, float], *, best: bool = False
) -> Contract:
    """Export a run's policy.

    Args:
        folder: the training run.
        path: the ONNX file to write; replaced only when all checks hold.
        scorecard: results of an evaluation, to travel with the policy.
        best: the policy of the best evaluation while training, instead of the latest.

    Raises:
        ConfigError: `path` cannot be written, or the run has no checkpoint, or it is of
            another configuration.
        ContractError: onnxruntime does not reproduce torch within `TOLERANCE`, or what the task
            did in simulation no contract allows, such as a joint at 112 rad/s.
    """
    require_writable(path, "--output")
    config, checkpoint = trained(folder, best=best)
    commit = checkpoint.get("git_commit", UNKNOWN)  # earlier versions did not say
    origin = Origin(checkpoint["env_steps"], {}, commit)
    return export_policy(
        config, lambda env: (load_policy(config, env, checkpoint), origin), path, scorecard
    )


def export_policy(
    config: TrainConfig,
    load: Callable[[VectorEnv], tuple[Policy, Origin]],
    path: Path,
    scorecard: dict[str, float],
) -> Contract:
    """Export a policy, wherever it was trained; see `export`.

    Args:
        config: the task, and what differed between worlds in training.
        load: makes the policy, given the environment, and says where it comes from.
        path: the ONNX file to write.
        scorecard: results of an evaluation.
    """
    require_writable(path, "--output")
    env = make_test_env(config, num_envs=1, num_threads=1, randomization=[])
    policy, origin = load(env)
    _ = env.deployment  # refuses a task for simulation only
    controller = Controller(env.task, policy).eval()

    model = _trace(controller, env)
    graph = inspect_onnx(model.SerializeToString(), source="exported graph")
    try:
        contract = _contract(config, env, controller, origin, scorecard, graph.graph_sha256)
    except ContractError as error:
        raise ContractError(f"{path} was not written: {error}") from error
    except ValidationError as error:  # what the simulation did is beyond what a robot can do
        problems = "; ".join(describe(error, Contract))
        raise ContractError(f"{path} was not written: {problems}") from error
    metadata = {METADATA_KEY: contract.model_dump_json(), **reader_keys(contract)}
    onnx.helper.set_model_props(model, metadata | {HASH_KEY: hash_metadata(metadata)})

    with explained(path, "--output"), replaced(path) as file:
        file.write(model.SerializeToString())
        file.flush()
        onnx_controller = OnnxController(Path(file.name))  # replays the golden vectors
        error = compare(controller, onnx_controller, random_signals(contract, 20, 50, seed=0))
        if not error <= TOLERANCE:
            raise ContractError(
                f"{path} was not written: onnxruntime differs from torch by {error:.3g} of the "
                f"largest target on random signals, allowed {TOLERANCE:.0e}; try other versions of "
                "torch or onnxruntime"
            )
    return contract


def random_signals(
    contract: Contract, steps: int, sequences: int, *, seed: int
) -> dict[str, Tensor]:
    """Usual signals and, a tenth of the range either side, unusual ones: (steps, sequences, n)."""
    generator = torch.Generator().manual_seed(seed)
    signals = {}
    for spec in contract.inputs:
        low, high = torch.tensor(usual_range(contract, spec.kind)).T
        uniform = torch.rand(steps, sequences, len(low), generator=generator)
        signals[spec.name] = (low + high) / 2 + 1.2 * (high - low) * (uniform - 0.5)
    return signals


def compare(
    controller: Controller, onnx_controller: OnnxController, signals: dict[str, Tensor]
) -> float:
    """Largest difference between torch and ONNX over sequences (steps, n, ...), of their `size`."""
    expected = controller.rollout(signals).numpy()
    arrays = {name: value.numpy() for name, value in signals.items()}
    (found,) = onnx_controller.outputs.values()
    worst = 0.0
    for sequence in range(expected.shape[1]):
        onnx_controller.reset()
        for step in range(expected.shape[0]):
            for name, value in arrays.items():
                onnx_controller.inputs[name][:] = value[step, sequence]
            onnx_controller.step()
            difference = np.abs(found - expected[step, sequence]).max()
            worst = np.maximum(worst, difference)  # which keeps a NaN
    onnx_controller.reset()
    return float(worst) / size(expected)


def _trace(controller: Controller, env: VectorEnv) -> onnx.ModelProto:
    env.reset()
    inputs = [env.signals[name] for name in controller.signals] + controller.initial_state(1)
    with _quiet_exporter():
        program = torch.onnx.export(
            controller,
            tuple(inputs),
            dynamo=True,
            opset_version=OPSET,
            input_names=[*controller.signals, *controller.state],
            output_names=[_output(env), *(f"{name}_next" for name in controller.state)],
            verbose=False,
        )
    assert program is not None
    model = program.model_proto
    for node in model.graph.node:  # traces of the exporting machine, such as file paths
        del node.metadata_props[:]
        node.doc_string = ""
    for value in [*model.graph.input, *model.graph.output, *model.graph.value_info]:
        del value.metadata_props[:]
    for initializer in model.graph.initializer:
        del initializer.metadata_props[:]
    del model.graph.metadata_props[:]
    del model.metadata_props[:]
    onnx.checker.check_model(model, full_check=True)
    return model


@contextmanager
def _quiet_exporter() -> Iterator[None]:
    """Keep torch's notes about packages we do not use from the user."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "onnx_ir")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def _contract(
    config: TrainConfig,
    env: VectorEnv,
    controller: Controller,
    origin: Origin,
    scorecard: dict[str, float],
    graph_sha256: str,
) -> Contract:
    task, here = env.task, git_commit()
    robot, joints, command = env.deployment
    inputs = [
        InputSpec(**describe_tensor(kind, robot.joints, command)) for kind in controller.signals
    ]
    for spec in inputs:
        if (measured := list(task.signals.get(spec.kind, spec.elements))) != spec.elements:
            raise ContractError(
                f"the task measures {spec.kind!r} as {measured}, a robot as {spec.elements}; "
                "correct `signals` of the task"
            )
    return Contract(
        schema_version=SCHEMA_VERSION,
        graph_sha256=graph_sha256,
        robot=robot.name,
        control_dt_s=task.control_dt_s,
        inputs=inputs,
        outputs=[OutputSpec(**describe_tensor(_output(env), robot.joints, command))],
        observation=env.task.encoder.columns,
        state=[
            StateSpec(name=name, shape=[1, *shape], unit="1")
            for name, shape in controller.state_shapes.items()
        ],
        joints=joints,
        command=command,
        trained_ranges=[TrainedRange(**term.describe()) for term in config.terms],
        provenance=Provenance(
            task=config.task,
            config=config.model_dump(mode="json"),
            config_sha256=config.sha256,
            robot_model_sha256=robot.sha256,
            seed=config.seed,
            env_steps=origin.env_steps,
            git_commit=origin.git_commit,
            created=datetime.now(UTC).isoformat(timespec="seconds"),
            versions={
                name: version(name)
                for name in ("robotrl", "torch", "mujoco", "onnx", "onnxruntime", "numpy")
            }
            | origin.versions
            | ({} if here == origin.git_commit else {"export_commit": here}),
        ),
        scorecard=scorecard,
        golden=_golden(env, controller),
    )


def _output(env: VectorEnv) -> TargetKind:
    """What the policy sends to its joints."""
    return TARGET_OF[env.deployment.joints[0].operating_mode]


def _golden(env: VectorEnv, controller: Controller) -> GoldenVectors:
    """Record the closed loop in simulation for a little more than a second."""
    observation, agent = env.reset(), Agent(controller.policy, env.num_envs)
    recorded: dict[str, list[Tensor]] = {name: [] for name in controller.signals}
    for _ in range(_GOLDEN_STEPS):
        for name, values in recorded.items():
            values.append(env.signals[name].clone())
        step = env.step(agent.act(observation["actor"]))
        observation = step.observation
        agent.forget(step.terminated | step.truncated)
    inputs = {name: torch.stack(values) for name, values in recorded.items()}  # (T, 1, n)
    targets = controller.rollout(inputs)
    return GoldenVectors(
        inputs={name: values[:, 0].tolist() for name, values in inputs.items()},
        outputs={_output(env): targets[:, 0].tolist()},
        tolerance=TOLERANCE,
    )
