"""How good is a policy: deterministic episodes in fresh randomized worlds, with confidence.

Worlds differ from those of training (another seed), the action is tanh(mean). Numbers are medians
or means with 95 % bootstrap intervals. What happens within one world is correlated (the same mass,
the same friction), so worlds are resampled, not values: more targets in the same few worlds make no
interval narrower than it is (Field and Welsh, "Bootstrapping clustered data", 2007).
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from deploy.configuration import validate
from deploy.contract import Contract
from deploy.controller import OnnxController
from deploy.errors import ConfigError
from deploy.whole_file import require_writable
from envs.randomization import at_full_range
from envs.vector_env import StepInfo, VectorEnv
from robotrl.algorithms.policy import Agent, Policy
from robotrl.runs.checkout import UNKNOWN
from robotrl.runs.continuing import require_same_run
from robotrl.runs.demonstrations import Recording
from robotrl.runs.run_folder import RunFolder
from robotrl.runs.train import make_test_env, robot_sha256
from robotrl.runs.train_config import TrainConfig

_SEED_OFFSET = 1_000_003
_RESAMPLES = 1000

_Step = tuple[Tensor, Tensor | None, StepInfo]
"""Each world's number (n,), its reward (n,) if known, and what `VectorEnv.step` says beside."""


def trained(folder: RunFolder, *, best: bool = False) -> tuple[TrainConfig, dict[str, Any]]:
    """What a run was trained with, and its checkpoint.

    Args:
        folder: the run.
        best: that of the best evaluation while training, instead of the latest.

    Raises:
        ConfigError: there is none yet, or the configuration was changed since it was written.
    """
    config, checkpoint = folder.config(), folder.load_checkpoint(best=best)
    require_same_run(config, checkpoint, folder)
    return config, checkpoint


def load_policy(config: TrainConfig, env: VectorEnv, checkpoint: dict[str, Any]) -> Policy:
    """The trained actor of a checkpoint.

    Raises:
        ConfigError: the robot is another one since: its files were changed.
    """
    check_robot_files(env, checkpoint.get("robot_sha256", robot_sha256(env)), "this run")
    policy = config.algorithm.new_policy(env.observation_sizes["actor"], env.num_actions)
    policy.load_state_dict(checkpoint["algorithm"]["policy"])
    return policy.eval()


def check_robot_files(env: VectorEnv, expected: str, what: str) -> None:
    """Refuse a robot that is not the one something was trained with, by its files' hash.

    Raises:
        ConfigError: it is another.
    """
    if robot_sha256(env) != expected:
        raise ConfigError(
            f"the files of robot {env.deployment.robot.path} are not those that {what} was "
            "trained with; restore them, or train again"
        )


def training_of(contract: Contract, path: Path) -> TrainConfig:
    """The training configuration that travels in an exported file.

    Raises:
        ConfigError: it is of another version of this program.
    """
    try:
        return validate(contract.provenance.config, TrainConfig, source="")
    except ConfigError as error:
        first = str(error).splitlines()[0].removeprefix(": ").partition(": ")[0]
        made_by = contract.provenance.versions.get("robotrl", UNKNOWN)
        raise ConfigError(
            f"{path}: its training configuration is of another robotrl (version {made_by}, commit "
            f"{contract.provenance.git_commit[:12]}), this one cannot read its {first!r}. It still "
            "runs on robots and twins with `robotrl run`; to evaluate or play it, export it again "
            "from a new training"
        ) from None


def evaluate_run(
    folder: RunFolder, *, episodes: int = 128, best: bool = False, record: Path | None = None
) -> dict[str, float]:
    """Evaluate a training run's policy in `episodes` worlds at once; see `_summarise`.

    Args:
        folder: the run.
        episodes: as many worlds.
        best: the policy of the best evaluation while training, instead of the latest.
        record: file to keep its transitions in; see `robotrl.runs.demonstrations`.
    """
    config, checkpoint = trained(folder, best=best)
    return evaluate_actor(
        config, lambda env: load_policy(config, env, checkpoint), episodes=episodes, record=record
    )


def evaluate_actor(
    config: TrainConfig,
    load: Callable[[VectorEnv], Policy],
    *,
    episodes: int = 128,
    record: Path | None = None,
) -> dict[str, float]:
    """Evaluate a policy in `episodes` worlds of a configuration at once; see `_summarise`.

    Args:
        config: the task, and what differs between worlds.
        load: makes the policy, given the worlds.
        episodes: as many worlds.
        record: file to keep its transitions in.

    Raises:
        ConfigError: that file cannot be written; said before anything is played.
    """
    if record is not None:
        require_writable(record, "--record")
    torch.set_num_threads(config.torch_threads)
    terms = at_full_range(config.terms)
    seed = config.seed + _SEED_OFFSET
    env = make_test_env(config, num_envs=episodes, seed=seed, randomization=terms)
    agent = Agent(load(env), episodes)
    observation, worlds = env.reset(), torch.arange(episodes)
    recording = Recording(env) if record else None

    def step() -> _Step:
        nonlocal observation
        action = agent.act(observation["actor"])
        taken = env.step(action)
        agent.forget(taken.terminated | taken.truncated)
        if recording is not None:
            recording.add(observation, action, taken)
        observation = taken.observation
        return worlds, taken.reward, taken.info

    result = _summarise(step, env.task.episode_steps)
    if recording is not None and record is not None:
        recording.save(record)
    return result


def evaluate_policy(path: Path, *, episodes: int = 8) -> dict[str, float]:
    """Evaluate an exported ONNX file through onnxruntime, one world after the other.

    Metrics only: a reward also depends on the action, which stays inside the graph.
    """
    controller = OnnxController(path)
    provenance = controller.contract.provenance
    config = training_of(controller.contract, path)
    terms = [  # what is drawn once for a world is drawn with each episode, which stands for one
        term.model_copy(update={"when": "reset"})
        if getattr(term, "when", None) == "startup"
        else term
        for term in at_full_range(config.terms)
    ]
    seed = config.seed + _SEED_OFFSET
    env = make_test_env(config, num_envs=1, num_threads=1, seed=seed, randomization=terms)
    check_robot_files(env, provenance.robot_model_sha256, str(path))
    env.reset()
    (output,) = controller.outputs.values()
    episode = torch.zeros(1, dtype=torch.int64)

    def step() -> _Step:
        for name, array in controller.inputs.items():
            array[:] = env.signals[name][0].numpy()
        controller.step()
        *_, terminated, truncated, info = env.step_targets(torch.from_numpy(output)[None])
        world = episode.clone()
        if terminated[0] or truncated[0]:
            controller.reset()
            episode.add_(1)  # in which the world is drawn anew
        return world, None, info

    return _summarise(step, episodes * env.task.episode_steps)


def _summarise(step: Callable[[], _Step], steps: int) -> dict[str, float]:
    """Run `steps` control steps and describe rewards and metrics.

    Returns:
        `reward_per_step` if there are rewards, and for each metric its median, 90th percentile
        and number; `_low` and `_high` are the ends of a 95 % interval.
    """
    rewards: list[Tensor] = []
    metrics: dict[str, list[Tensor]] = {}
    worlds: list[Tensor] = []
    for _ in range(steps):
        world, reward, info = step()
        if reward is not None:
            rewards.append(reward)
        worlds.append(world[info.measured])
        for name, values in info.metrics.items():
            metrics.setdefault(name, []).append(values[info.measured])
    result: dict[str, float] = {}
    if rewards:
        of_world = torch.stack(rewards).mean(dim=0).numpy()
        low, high = interval(of_world, np.arange(len(of_world)), np.mean)
        result = {
            "reward_per_step": float(of_world.mean()),
            "reward_per_step_low": low,
            "reward_per_step_high": high,
        }
    world = torch.cat(worlds).numpy()
    for name, parts in metrics.items():
        values = torch.cat(parts).numpy()
        says = ~np.isnan(values)
        if not says.any():
            continue
        values = values[says]
        low, high = interval(values, world[says], np.median)
        result |= {
            f"{name}/median": float(np.median(values)),
            f"{name}/median_low": low,
            f"{name}/median_high": high,
            f"{name}/p90": float(np.quantile(values, 0.9)),
            f"{name}/count": float(len(values)),
        }
    return result


def interval(
    values: np.ndarray, worlds: np.ndarray, statistic: Callable[[np.ndarray], Any]
) -> tuple[float, float]:
    """The 95 % bootstrap interval of a statistic, by resampling worlds.

    Args:
        values: (n,).
        worlds: (n,) the world each value comes from.
        statistic: of any number of values, such as `np.median`.

    Returns:
        Its ends; nan if there is one world only, which tells nothing about others.
    """
    parts = [values[worlds == world] for world in np.unique(worlds)]
    if len(parts) < 2:
        return np.nan, np.nan
    picks = np.random.default_rng(0).integers(len(parts), size=(_RESAMPLES, len(parts)))
    found = [statistic(np.concatenate([parts[i] for i in pick])) for pick in picks]
    low, high = np.quantile(found, [0.025, 0.975])
    return float(low), float(high)
