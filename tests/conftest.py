"""Fixtures for all packages: a tiny training run, and the policy exported from it.

Both are made once per session, in about three seconds; the policy is taken from the file that
`ROBOTRL_TINY_POLICY` names if it exists, and put there if not. Nothing here imports torch before a
test asks for it, so the tests of `deploy` also run where only the robot's dependencies are
installed.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from robotrl.runs.run_folder import RunFolder
    from robotrl.runs.train_config import TrainConfig

with contextlib.suppress(ImportError):  # it comes with robotrl[dev]
    import hypothesis

    # The same examples every time, however busy the machine; tests/benchmarks/fuzz.py is for luck.
    hypothesis.settings.register_profile("robotrl", deadline=None, derandomize=True, database=None)
    hypothesis.settings.load_profile("robotrl")

# With such small networks torch's threads only wait for each other: one is up to 40 times faster.
os.environ.setdefault("OMP_NUM_THREADS", "1")


@pytest.fixture(scope="session")
def tiny_config() -> TrainConfig:
    """Three iterations of 8 worlds × 4 steps; episodes of 30 steps, so that some end in between."""
    pytest.importorskip("torch", reason="training needs robotrl[train]")
    from robotrl.runs.train_config import TrainConfig

    return TrainConfig.model_validate(
        {
            "task": "arm_reach",
            "num_envs": 8,
            "env_steps": 8 * 4 * 3,
            "torch_threads": 1,
            "checkpoint_interval": 1,
            "task_config": {"episode_s": 0.6, "target_interval_s": [0.2, 0.4]},
            "algorithm": {
                "rollout_steps": 4,
                "epochs": 2,
                "minibatches": 2,
                "actor_hidden": [16],
                "critic_hidden": [16],
            },
            "randomization": [
                {"field": "mass", "operation": "scale", "range": [0.8, 1.25]},
                {"field": "actuator_delay", "operation": "set", "range": [0.005, 0.03]},
                {"signal": "joint_position", "operation": "add", "range": [-0.005, 0.005]},
                {
                    "signal": "joint_velocity",
                    "operation": "add",
                    "range": [-0.03, 0.03],
                    "when": "step",
                },
            ],
        }
    )


@pytest.fixture(scope="session")
def tiny_run(tiny_config: TrainConfig, tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """A finished run of `tiny_config`; do not write to it."""
    from robotrl.runs.run_folder import RunFolder
    from robotrl.runs.train import train

    folder = RunFolder(tmp_path_factory.mktemp("runs") / "tiny")
    folder.create(tiny_config)
    train(tiny_config, folder)
    return folder


@pytest.fixture(scope="session")
def policy_path(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The ONNX file exported from `tiny_run`; do not write to it."""
    kept = os.environ.get("ROBOTRL_TINY_POLICY")
    path = Path(kept) if kept else tmp_path_factory.mktemp("policies") / "policy.onnx"
    if not path.exists():
        run: RunFolder = request.getfixturevalue("tiny_run")
        from robotrl.export import export

        export(run, path, scorecard={"reach_error_m/median": 0.2})
    return path


@pytest.fixture(scope="session")
def opengl() -> None:
    """Skip where no picture can be made."""
    pytest.importorskip("torch", reason="pictures need robotrl[train]")
    import mujoco

    from deploy.errors import ConfigError
    from envs.render import Renderer

    try:
        Renderer(mujoco.MjModel.from_xml_string("<mujoco/>"), 8, 8).close()
    except ConfigError as error:
        pytest.skip(str(error))
