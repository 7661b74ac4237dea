"""How good is a policy: deterministic episodes in fresh randomized worlds, with confidence.

Worlds differ from those of training (another seed), the action is tanh(mean). Numbers are medians
or means with 95 % bootstrap intervals.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from deploy.configuration import validate
from deploy.controller import OnnxController
from envs.vector_env import VectorEnv
from robotrl.ppo import Policy
from robotrl.run_folder import RunFolder
from robotrl.train import make_env
from robotrl.train_config import TrainConfig

_SEED_OFFSET = 1_000_003


def load_policy(config: TrainConfig, env: VectorEnv, checkpoint: dict[str, Any]) -> Policy:
    """The trained actor of a checkpoint."""
    policy = Policy(env.observation_sizes["actor"], env.num_actions, config.algorithm)
    policy.load_state_dict(checkpoint["algorithm"]["policy"])
    return policy.eval()


def evaluate_run(folder: RunFolder, *, episodes: int = 128) -> dict[str, float]:
    """Evaluate a training run's policy in `episodes` worlds at once; see `_summarise`."""
    config = folder.config()
    torch.set_num_threads(config.torch_threads)
    env = make_env(config, num_envs=episodes, seed=config.seed + _SEED_OFFSET)
    policy = load_policy(config, env, folder.load_checkpoint())
    observation = env.reset()

    def step() -> tuple[Tensor, dict[str, Any]]:
        nonlocal observation
        with torch.no_grad():
            observation, reward, *_, info = env.step(policy(observation["actor"]))
        return reward, info

    return _summarise(step, env.task.episode_steps)


def evaluate_policy(path: Path, *, episodes: int = 8) -> dict[str, float]:
    """Evaluate an exported ONNX file through onnxruntime, one world after the other.

    Metrics only: a reward also depends on the action, which stays inside the graph.
    """
    controller = OnnxController(path)
    provenance = controller.contract.provenance
    config = validate(provenance.config, TrainConfig, source=str(path))
    env = make_env(config, num_envs=1, num_threads=1, seed=config.seed + _SEED_OFFSET)
    env.reset()
    (output,) = controller.outputs.values()

    def step() -> tuple[None, dict[str, Any]]:
        for name, array in controller.inputs.items():
            array[:] = env.signals[name][0].numpy()
        controller.step()
        *_, terminated, truncated, info = env.step_targets(torch.from_numpy(output)[None])
        if terminated[0] or truncated[0]:
            controller.reset()
        return None, info

    return _summarise(step, episodes * env.task.episode_steps)


def _summarise(
    step: Callable[[], tuple[Tensor | None, dict[str, Any]]], steps: int
) -> dict[str, float]:
    """Run `steps` control steps and describe rewards and metrics.

    Returns:
        `reward_per_step` if there are rewards, and for each metric its median, 90th percentile,
        number, and the ends of the median's 95 % interval.
    """
    rewards: list[float] = []
    metrics: dict[str, list[Tensor]] = {}
    for _ in range(steps):
        reward, info = step()
        if reward is not None:
            rewards.append(float(reward.mean()))
        for name, values in info["metrics"].items():
            metrics.setdefault(name, []).append(values)
    result = {"reward_per_step": float(np.mean(rewards))} if rewards else {}
    generator = np.random.default_rng(0)
    for name, parts in metrics.items():
        values = torch.cat(parts).numpy()
        if not len(values):
            continue
        resampled = np.median(generator.choice(values, (1000, len(values))), axis=1)
        low, high = np.quantile(resampled, [0.025, 0.975])
        result |= {
            f"{name}/median": float(np.median(values)),
            f"{name}/median_low": float(low),
            f"{name}/median_high": float(high),
            f"{name}/p90": float(np.quantile(values, 0.9)),
            f"{name}/count": float(len(values)),
        }
    return result
