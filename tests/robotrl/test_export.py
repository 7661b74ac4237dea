"""The exported file computes what was trained, in full precision, and needs none of our code."""

import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import onnx
import pytest
import torch

from deploy.contract import (
    HASH_KEY,
    METADATA_KEY,
    Contract,
    TrainedRange,
    hash_metadata,
    parse_contract,
)
from deploy.controller import OnnxController, read_policy
from deploy.errors import ConfigError, ContractError
from deploy.signals import SignalKind
from envs.vector_env import VectorEnv
from robotrl.controller import Controller
from robotrl.export import TOLERANCE, compare, export, random_signals
from robotrl.runs.checkout import git_commit
from robotrl.runs.evaluate import evaluate_policy, evaluate_run, load_policy
from robotrl.runs.presets import load_preset
from robotrl.runs.run_folder import RunFolder
from robotrl.runs.train import make_env, train
from robotrl.runs.train_config import TrainConfig
from robotrl.shipped import config_path
from tests.robotrl.lively import lively
from tests.robotrl.runs.test_forgiving_runs import files_no_larger_than

SIGNALS: list[SignalKind] = ["joint_position", "joint_velocity", "joint_target", "command"]


@pytest.fixture(scope="module")
def run(tiny_run: RunFolder, tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """The tiny run with a policy that moves the arm: its last layer is 100 times as strong."""
    path = tmp_path_factory.mktemp("runs") / "lively"
    shutil.copytree(tiny_run.path, path)
    folder = RunFolder(path)
    return lively(folder)


@pytest.fixture(scope="module")
def path(run: RunFolder) -> Path:
    """The file exported from `run`."""
    path = run.path / "policy.onnx"
    export(run, path, scorecard={"reach_error_m/median": 0.2})
    return path


@pytest.fixture(scope="module")
def env(tiny_config: TrainConfig) -> VectorEnv:
    """One world of the run, with its noise and delays."""
    return make_env(tiny_config, num_envs=1, num_threads=1)


@pytest.fixture(scope="module")
def torch_controller(run: RunFolder, env: VectorEnv) -> Controller:
    policy = load_policy(run.config(), env, run.load_checkpoint())
    return Controller(env.task, policy).eval()


@pytest.fixture
def onnx_controller(path: Path) -> OnnxController:
    return OnnxController(path)


@pytest.fixture(scope="module")
def contract(path: Path) -> Contract:
    return read_policy(path)[0]


@pytest.fixture(scope="module")
def metadata(path: Path) -> dict[str, str]:
    return {entry.key: entry.value for entry in onnx.load(str(path)).metadata_props}


def test_onnxruntime_computes_what_torch_computes_on_random_sequences(
    torch_controller: Controller, onnx_controller: OnnxController
):
    signals = random_signals(onnx_controller.contract, 10, 2000, seed=1)

    error = compare(torch_controller, onnx_controller, signals)

    assert error <= 1e-5  # rad


def test_comparison_carries_the_state_over_each_sequence(
    torch_controller: Controller, onnx_controller: OnnxController, monkeypatch: pytest.MonkeyPatch
):
    step = onnx_controller.step

    def forgetful_step() -> None:
        inputs = {name: array.copy() for name, array in onnx_controller.inputs.items()}
        onnx_controller.reset()
        for name, array in inputs.items():
            onnx_controller.inputs[name][:] = array
        step()

    monkeypatch.setattr(onnx_controller, "step", forgetful_step)
    signals = random_signals(onnx_controller.contract, 10, 20, seed=1)

    assert compare(torch_controller, onnx_controller, signals) > TOLERANCE


def test_comparison_finds_an_output_that_is_not_a_number(
    torch_controller: Controller, contract: Contract
):
    broken = SimpleNamespace(
        contract=contract,
        inputs={spec.name: np.zeros(spec.shape[-1], np.float32) for spec in contract.inputs},
        outputs={contract.outputs[0].name: np.full(6, np.nan, np.float32)},
        step=lambda: None,
        reset=lambda: None,
    )
    signals = random_signals(contract, 2, 2, seed=0)

    error = compare(torch_controller, cast(OnnxController, broken), signals)

    assert not error <= TOLERANCE


def test_difference_is_part_of_the_largest_target(contract: Contract):
    torchs = SimpleNamespace(rollout=lambda signals: torch.full((2, 2, 6), 30.0))
    onnxs = SimpleNamespace(
        inputs={spec.name: np.zeros(spec.shape[-1], np.float32) for spec in contract.inputs},
        outputs={"joint_velocity_target": np.full(6, 30.00015, np.float32)},
        step=lambda: None,
        reset=lambda: None,
    )
    signals = random_signals(contract, 2, 2, seed=0)

    error = compare(cast(Controller, torchs), cast(OnnxController, onnxs), signals)

    assert error == pytest.approx(1.5e-4 / 30, rel=0.05)  # float32 near 30 has steps of 2e-6


def test_random_signals_reach_beyond_the_limits_of_the_joints(contract: Contract):
    signals = random_signals(contract, 20, 50, seed=0)
    limits = torch.tensor([joint.position_limits_rad for joint in contract.joints])

    assert {name: tuple(value.shape) for name, value in signals.items()} == {
        "joint_position": (20, 50, 6),
        "joint_velocity": (20, 50, 6),
        "joint_target": (20, 50, 6),
        "command": (20, 50, 3),
    }
    highest = signals["joint_position"].flatten(0, 1).amax(dim=0)
    assert (highest > limits[:, 1]).all()


def test_exported_targets_are_what_the_environment_sends_to_its_actuators(
    env: VectorEnv, torch_controller: Controller, onnx_controller: OnnxController
):
    observation = env.reset()
    (targets,) = onnx_controller.outputs.values()
    episodes = 1
    for _ in range(70):  # episodes have 30 steps
        for name, array in onnx_controller.inputs.items():
            array[:] = env.signals[name][0].numpy()
        onnx_controller.step()
        with torch.no_grad():
            action = torch_controller.policy(observation["actor"])
        expected = torch_controller.decoder(action, env.signals)[0].numpy()
        observation, _, terminated, truncated, _ = env.step(action)

        assert np.abs(targets - expected).max() <= 1e-5
        if terminated or truncated:
            onnx_controller.reset()
            episodes += 1
        else:
            sent = env.signals["joint_target"][0].numpy()
            assert np.abs(targets - sent).max() <= 1e-5
    assert episodes == 3


PLAIN_SCRIPT = """
import json, sys
import numpy as np, onnxruntime

session = onnxruntime.InferenceSession(sys.argv[1])
contract = json.loads(session.get_modelmeta().custom_metadata_map["robotrl.contract"])
state = {spec["name"]: np.zeros(spec["shape"], np.float32) for spec in contract["state"]}
golden, worst = contract["golden"], 0.0
for t in range(len(golden["inputs"]["joint_position"])):
    inputs = {name: np.float32([values[t]]) for name, values in golden["inputs"].items()}
    targets, *next_state = session.run(None, inputs | state)
    state = dict(zip(state, next_state))
    worst = max(worst, np.abs(targets[0] - golden["outputs"]["joint_position_target"][t]).max())
print(worst, "robotrl" in sys.modules or "deploy" in sys.modules)
"""


def test_ten_lines_without_our_code_reproduce_the_golden_vectors(path: Path, tmp_path: Path):
    done = subprocess.run(
        [sys.executable, "-c", PLAIN_SCRIPT, str(path)],
        capture_output=True,
        text=True,
        cwd=tmp_path,
    )

    assert done.returncode == 0, done.stderr
    worst, ours = done.stdout.split()
    assert float(worst) <= 1e-5
    assert ours == "False"


def test_golden_vectors_are_a_moving_robot(contract: Contract):
    targets = np.array(contract.golden.outputs["joint_position_target"])

    assert targets.shape == (64, 6)
    assert np.ptp(targets, axis=0)[:5].min() > 0.1  # rad; the gripper holds
    assert set(contract.golden.inputs) == set(SIGNALS)


def test_joints_are_described_as_in_the_model(contract: Contract, env: VectorEnv):
    model = env.deployment.robot.model
    assert contract.joint_names == env.deployment.robot.joints
    for joint in contract.joints:
        actuator = model.actuator(joint.name)
        assert joint.kp_nm_per_rad == actuator.gainprm[0]
        assert joint.kd_nm_s_per_rad == 0
        assert joint.effort_limit_nm == actuator.forcerange[1]
        assert joint.default_position_rad == model.keyframe("home").qpos[actuator.id]
        low, high = model.joint(joint.name).range
        assert joint.position_limits_rad == pytest.approx(
            (low + 0.03, high - 0.03), rel=0, abs=1e-12
        )


def test_tensors_are_described_with_units_and_elements(contract: Contract):
    joints = contract.joint_names
    described = {spec.name: (spec.shape, spec.unit, spec.elements) for spec in contract.inputs}
    assert described == {
        "joint_position": ([1, 6], "rad", joints),
        "joint_velocity": ([1, 6], "rad/s", joints),
        "joint_target": ([1, 6], "rad", joints),
        "command": ([1, 3], "m", ["x", "y", "z"]),
    }
    assert [(spec.name, spec.shape, spec.unit) for spec in contract.outputs] == [
        ("joint_position_target", [1, 6], "rad")
    ]
    assert [(spec.name, spec.shape) for spec in contract.state] == [
        ("started", [1, 1]),
        ("observation_history", [1, 2, 24]),
    ]


def test_every_number_of_the_observation_has_its_name(contract: Contract, env: VectorEnv):
    assert contract.observation == env.columns["actor"]
    assert len(contract.observation) == env.observation_sizes["actor"]


def test_randomization_is_described_term_by_term(contract: Contract, tiny_config: TrainConfig):
    assert [term.model_dump(exclude_none=True) for term in contract.trained_ranges][1] == {
        "target": "actuator_delay",
        "match": "*",
        "operation": "set",
        "distribution": "uniform",
        "range": (0.005, 0.03),
    }


@pytest.mark.parametrize(
    "preset", [path.stem for path in config_path("randomization").glob("*.yaml")]
)
def test_every_term_of_the_presets_can_be_written_into_a_contract(preset: str):
    for term in load_preset(preset):
        written = TrainedRange(**term.describe())
        assert TrainedRange.model_validate_json(written.model_dump_json(), strict=True) == written


def test_commit_is_that_of_the_package_wherever_one_stands(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    here = git_commit()
    for command in (["init", "-q"], ["commit", "-q", "--allow-empty", "-m", "another program"]):
        subprocess.run(
            ["git", "-c", "user.name=a", "-c", "user.email=a@b", *command], cwd=tmp_path, check=True
        )
    monkeypatch.chdir(tmp_path)
    assert git_commit() == here

    installed = (
        tmp_path / ".venv" / "robotrl" / "runs" / "checkout.py"
    )  # below somebody else's repository
    monkeypatch.setattr("robotrl.runs.checkout.__file__", str(installed))
    assert git_commit() == "unknown"


def exported_with(
    commit: str | None, tiny_run: RunFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Contract:
    """By commit `bbb`, from a checkpoint that was trained by `commit`, or by one that said none."""
    checkpoint = tiny_run.load_checkpoint()
    checkpoint.pop("git_commit")
    checkpoint |= {"git_commit": commit} if commit else {}
    monkeypatch.setattr(RunFolder, "load_checkpoint", lambda folder, *, best: checkpoint)
    monkeypatch.setattr("robotrl.export.git_commit", lambda: "bbb")
    return export(tiny_run, tmp_path / "policy.onnx", {})


def test_checkpoint_says_which_commit_trained_it(tiny_run: RunFolder):
    assert tiny_run.load_checkpoint()["git_commit"].removesuffix(
        "-dirty"
    ) == git_commit().removesuffix("-dirty")


@pytest.mark.parametrize(
    ("trained", "said", "exporter"),
    [("aaa", "aaa", "bbb"), ("bbb", "bbb", None), (None, "unknown", "bbb")],
)
def test_commit_of_a_contract_is_the_trainings_and_the_exporters_if_it_is_another(
    trained: str | None,
    said: str,
    exporter: str | None,
    tiny_run: RunFolder,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
):
    provenance = exported_with(trained, tiny_run, tmp_path, monkeypatch).provenance
    assert provenance.git_commit == said
    assert provenance.versions.get("export_commit") == exporter


def test_contract_says_where_the_policy_comes_from(
    contract: Contract, tiny_config: TrainConfig, env: VectorEnv
):
    provenance = contract.provenance

    assert TrainConfig.model_validate(provenance.config) == tiny_config
    assert provenance.config_sha256 == tiny_config.sha256
    assert provenance.env_steps == 96
    assert provenance.robot_model_sha256 == env.deployment.robot.sha256
    assert provenance.versions["torch"] == torch.__version__.split("+")[0] or (
        provenance.versions["torch"] == torch.__version__
    )
    assert [(term.target, term.range) for term in contract.trained_ranges] == [
        ("mass", (0.8, 1.25)),
        ("actuator_delay", (0.005, 0.03)),
        ("joint_position", (-0.005, 0.005)),
        ("joint_velocity", (-0.03, 0.03)),
    ]
    assert contract.scorecard == {"reach_error_m/median": 0.2}


def test_contract_is_bound_to_its_file(contract: Contract, metadata: dict[str, str]):
    text = metadata[METADATA_KEY]

    assert parse_contract(text, source="metadata") == contract
    assert metadata[HASH_KEY] == hash_metadata(metadata)


def test_keys_of_other_runtimes_are_not_rounded(metadata: dict[str, str], contract: Contract):
    def numbers(key: str) -> list[float]:
        return [float(text) for text in metadata[key].split(",")]

    assert metadata["joint_names"].split(",") == contract.joint_names
    assert numbers("joint_stiffness") == [joint.kp_nm_per_rad for joint in contract.joints]
    assert numbers("joint_damping") == [joint.kd_nm_s_per_rad for joint in contract.joints]
    assert numbers("default_joint_pos") == [joint.default_position_rad for joint in contract.joints]
    assert metadata["joint_stiffness"].startswith("6.905706005343255,")
    assert metadata["observation_names"].split(",") == SIGNALS
    assert metadata["command_names"] == "target_position"


def test_file_holds_no_traces_of_the_machine_that_exported_it(path: Path):
    data = path.read_bytes()

    for trace in (b"site-packages", b"/home/", str(Path.cwd()).encode(), b".py"):
        assert trace not in data


def test_file_is_written_only_when_onnxruntime_agrees(
    run: RunFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    path = tmp_path / "policy.onnx"
    path.write_bytes(b"the policy of yesterday")
    monkeypatch.setattr("robotrl.export.compare", lambda *args: 0.25)

    with pytest.raises(ContractError) as error:
        export(run, path, {})

    assert str(error.value) == (
        f"{path} was not written: onnxruntime differs from torch by 0.25 of the largest target "
        "on random signals, allowed 1e-05; try other versions of torch or onnxruntime"
    )
    assert path.read_bytes() == b"the policy of yesterday"
    assert list(tmp_path.iterdir()) == [path]


def test_folder_that_does_not_exist_is_refused(run: RunFolder, tmp_path: Path):
    with pytest.raises(ConfigError) as error:
        export(run, tmp_path / "nowhere" / "policy.onnx", {})

    assert str(error.value) == (
        f"{tmp_path / 'nowhere'} is no folder; make it first, or choose another --output"
    )


def test_full_disk_is_explained_and_leaves_the_policy_of_before(run: RunFolder, tmp_path: Path):
    path = tmp_path / "policy.onnx"
    path.write_bytes(b"the policy of yesterday")

    with files_no_larger_than(1000), pytest.raises(ConfigError) as error:
        export(run, path, {})

    assert str(error.value) == (
        f"{path} cannot be written: File too large; make room, or choose another --output"
    )
    assert path.read_bytes() == b"the policy of yesterday"
    assert list(tmp_path.iterdir()) == [path]


def test_policy_without_history_has_no_state(tiny_config: TrainConfig, tmp_path: Path):
    task_config: dict[str, Any] = {"history": 1}
    config = tiny_config.model_copy(update={"env_steps": 32, "task_config": task_config})
    folder = RunFolder(tmp_path / "run")
    folder.create(config)
    train(config, folder)

    contract = export(folder, tmp_path / "policy.onnx", {})

    assert contract.state == []
    OnnxController(tmp_path / "policy.onnx").step()


def test_exported_file_is_as_good_as_the_run(run: RunFolder, path: Path):
    # Both start in the same world, so only rounding can tell them apart.
    of_run, of_file = evaluate_run(run, episodes=1), evaluate_policy(path, episodes=1)

    assert of_run["reach_error_m/count"] == of_file["reach_error_m/count"] >= 1
    for name in ("median", "median_low", "median_high", "p90"):
        name = f"reach_error_m/{name}"
        assert of_file[name] == pytest.approx(of_run[name], abs=1e-4, nan_ok=True)
    rewards = {"reward_per_step", "reward_per_step_low", "reward_per_step_high"}
    assert set(of_run) - set(of_file) == rewards  # the action stays in the graph


def test_evaluated_controller_forgets_the_past_at_every_end_of_an_episode(
    path: Path, monkeypatch: pytest.MonkeyPatch
):
    resets = []
    reset = OnnxController.reset

    def counted_reset(self: OnnxController) -> None:
        resets.append(self)
        reset(self)

    monkeypatch.setattr(OnnxController, "reset", counted_reset)
    OnnxController(path)
    while_loading = len(resets)  # loading resets too

    evaluate_policy(path, episodes=3)

    assert len(resets) == 2 * while_loading + 3
