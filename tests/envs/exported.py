"""A task trained for a moment and exported, and its controller beside the policy it is of."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from deploy.contract import Contract
from deploy.controller import OnnxController
from envs.vector_env import Step, VectorEnv
from robotrl.export import export
from robotrl.runs.evaluate import load_policy
from robotrl.runs.run_folder import RunFolder
from robotrl.runs.train import train
from robotrl.runs.train_config import TrainConfig


@dataclass
class Exported:
    """A run and the file that came of it."""

    run: RunFolder
    path: Path
    contract: Contract


def train_and_export(
    like: TrainConfig, task: str, settings: dict[str, Any], folder: Path, *, symmetry: bool = True
) -> Exported:
    """Train a task with the sizes of `like`, without randomization, and export the policy."""
    document = like.model_dump(mode="json")
    document |= {"task": task, "task_config": settings, "randomization": []}
    document["algorithm"]["symmetry"] = symmetry
    config = TrainConfig.model_validate(document)
    run, path = RunFolder(folder / "run"), folder / "policy.onnx"
    run.create(config)
    train(config, run)
    return Exported(run, path, export(run, path, {}))


def drive(exported: Exported, make: Callable[[], VectorEnv], steps: int) -> Iterator[Step]:
    """Steps of a world that ONNX Runtime drives by its signals, as it would drive a robot.

    A second world is driven by the trained policy as in training: both must see the same.
    """
    env, trained = make(), make()
    policy = load_policy(exported.run.config(), trained, exported.run.load_checkpoint())
    controller = OnnxController(exported.path)
    (output,) = controller.outputs.values()
    env.reset()
    observation = trained.reset()
    for _ in range(steps):
        for name, array in controller.inputs.items():
            array[:] = env.signals[name][0].numpy()
        controller.step()
        step = env.step_targets(torch.from_numpy(output.copy())[None])
        with torch.no_grad():
            observation = trained.step(policy(observation["actor"])).observation
        torch.testing.assert_close(
            step.observation["actor"], observation["actor"], rtol=0, atol=1e-4
        )
        yield step
