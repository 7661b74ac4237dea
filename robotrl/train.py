"""The training loop: act, learn, write down, repeat.

    train(config, RunFolder(Path("runs/arm_reach")))

The same configuration gives the same weights to the bit on one machine, whatever the number of
simulation threads, and a resumed run gives what an uninterrupted one would have given. A run that
meets a NaN stops there: what was saved before stays, and nothing worse is ever written over it.
"""

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor
from torch.utils.tensorboard import SummaryWriter

import envs
from deploy.errors import ConfigError
from envs.vector_env import StepInfo
from robotrl.algorithm import Algorithm, TrainingError
from robotrl.run_folder import RunFolder
from robotrl.train_config import TrainConfig

Progress = Callable[[dict[str, float]], None]
_MAY_CHANGE = {
    *("env_steps", "checkpoint_interval", "simulation_threads", "torch_threads"),
    "learner_precision",
    *("nconmax", "njmax"),
}
"""What may be another where a run goes on, beside what the algorithm allows; all else is in its
checkpoint, which would prevail."""
TRAINING_ONLY = ("stages", "training_timestep_s")
"""Settings of tasks that evaluation and export do without."""


def train(
    config: TrainConfig,
    folder: RunFolder,
    *,
    resume: bool = False,
    progress: Progress | None = None,
) -> None:
    """Train until `config.env_steps`.

    Args:
        config: the run.
        folder: where it is written; must have been created.
        resume: continue from the folder's checkpoint.
        progress: called after each iteration with its metrics.

    Raises:
        TrainingError: something is not finite; says where, and what to do.
        ConfigError: `config` is not what the checkpoint was made with, where that matters.
    """
    checkpoint = None
    if resume and folder.checkpoint_path.exists():  # else killed before its first
        checkpoint = folder.load_checkpoint()
        _require_same_run(config, checkpoint, folder)
    torch.set_num_threads(config.torch_threads)
    torch.set_flush_denormal(True)
    env = make_env(config)
    env.record_divergences(folder.diverged_path)
    learner = _make_learner(config, env)
    observation = env.reset(stagger=True)
    iteration = 0
    if checkpoint is not None:
        try:
            learner.load_state_dict(checkpoint["algorithm"])
        except (KeyError, RuntimeError) as error:
            raise ConfigError(
                f"{folder.checkpoint_path}: is not of this version's {config.algorithm.name} "
                f"({error}); go on with the version that wrote it, or start a new run with --output"
            ) from error
        env.load_state_dict(checkpoint["env"])
        observation = {
            name: rows.to(env.device) for name, rows in checkpoint["observation"].items()
        }
        iteration = checkpoint["iteration"]
    if resume:
        folder.drop_metrics_after(checkpoint["env_steps"] if checkpoint else 0)

    steps_per_iteration = config.num_envs * config.algorithm.iteration_steps
    iterations = math.ceil(config.env_steps / steps_per_iteration)
    with SummaryWriter(str(folder.path), purge_step=iteration * steps_per_iteration) as writer:
        while iteration < iterations:
            try:
                observation, metrics = _iterate(learner, env, observation, config)
            except TrainingError as error:
                raise TrainingError(
                    f"training stopped after {iteration * steps_per_iteration:,} env steps: "
                    f"{error}. {_advice(folder)}"
                ) from error
            iteration += 1
            metrics = {"env_steps": iteration * steps_per_iteration, **metrics}
            for name, value in metrics.items():
                writer.add_scalar(name, value, metrics["env_steps"])
            folder.append_metrics(metrics)
            if iteration % config.checkpoint_interval == 0 or iteration == iterations:
                folder.save_checkpoint(
                    {
                        "algorithm": learner.state_dict(),
                        "env": env.state_dict(),
                        "observation": observation,
                        "iteration": iteration,
                        "env_steps": metrics["env_steps"],
                        "run": _fixed(config),
                        "robot_sha256": robot_sha256(env),
                    }
                )
            if progress:
                progress(metrics)


def _iterate(
    learner: Algorithm, env: envs.VectorEnv, observation: dict[str, Tensor], config: TrainConfig
) -> tuple[dict[str, Tensor], dict[str, float]]:
    """One iteration; returns the observation that follows it, and its metrics."""
    steps = config.algorithm.iteration_steps
    infos: list[StepInfo] = []
    losses: dict[str, float] = {}
    learned_s, started_s = 0.0, time.perf_counter()
    for _ in range(steps):
        step = env.step(learner.act(observation))
        observation = step.observation
        infos.append(step.info)
        stepped_s = time.perf_counter()
        with _precision(config.learner_precision):
            losses |= learner.learn(step)
        learned_s += time.perf_counter() - stepped_s
    env.simulation.check()
    taken_s = time.perf_counter() - started_s
    rewards = {
        f"reward/{name}": _mean(torch.stack([info.rewards[name].mean() for info in infos]))
        for name in infos[0].rewards
    }
    measured = torch.stack([info.measured for info in infos])
    return observation, {
        **rewards,
        **{
            name: _mean(torch.stack([info.metrics[name] for info in infos])[measured])
            for name in infos[0].metrics
        },
        "reward/mean": sum(rewards.values()),
        **losses,
        **env.randomization.metrics(),
        "diverged": env.diverged,
        "speed/env_steps_per_s": config.num_envs * steps / taken_s,
        "speed/collect_share": 1 - learned_s / taken_s,
    }


@contextmanager
def _precision(kind: Literal["float32", "bfloat16"]) -> Iterator[None]:
    """Products of float32 matrices in bfloat16, within; what is exported is held to float32."""
    if kind == "float32":
        yield
        return
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("medium")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


def rehearse(config: TrainConfig, *, source: Path) -> None:
    """Build a run in one world and throw it away, before a file of it is written.

    Raises:
        ConfigError: a setting that does not fit the robot's model; names `source`.
    """
    try:
        env = make_env(config, num_envs=1, num_threads=1)
        _make_learner(config, env)
        env.reset()
    except ConfigError as error:
        raise ConfigError(f"{source}: {error}") from error


def make_env(config: TrainConfig, **changes: Any) -> envs.VectorEnv:
    """The environment of a run; `changes` replace arguments of `envs.make`."""
    settings = {
        "num_envs": config.num_envs,
        "device": config.device,
        "backend": config.backend,
        "nconmax": config.nconmax,
        "njmax": config.njmax,
        "seed": config.seed,
        "randomization": config.terms,
        "task_config": config.task_config,
        "num_threads": config.simulation_threads,
    }
    return envs.make(config.task, **(settings | changes))


def make_test_env(config: TrainConfig, **changes: Any) -> envs.VectorEnv:
    """The environment of a run for evaluation and export: MuJoCo itself, on the CPU.

    What a task says of training alone does not count in it, and its episodes are on all levels of
    its terrain.
    """
    task_config = {k: value for k, value in config.task_config.items() if k not in TRAINING_ONLY}
    if (terrain := task_config.get("terrain")) is not None:  # {} is the default ground
        task_config["terrain"] = terrain | {"rise": False}
    settings = {"device": "cpu", "backend": "batch", "task_config": task_config}
    return make_env(config, **(settings | changes))


def robot_sha256(env: envs.VectorEnv) -> str:
    """Identity of the robot that is trained; empty for a task without one."""
    return env.task.deployment.robot.sha256 if env.task.deployment else ""


def _make_learner(config: TrainConfig, env: envs.VectorEnv) -> Algorithm:
    return config.algorithm.learner(
        env.observation_sizes,
        env.num_actions,
        seed=config.seed,
        device=env.device,
        mirror=env.mirror if config.algorithm.symmetry else None,
    )


def _require_same_run(config: TrainConfig, checkpoint: dict[str, Any], folder: RunFolder) -> None:
    """Refuse a configuration that its checkpoint does not fit, or would silently outvote.

    Raises:
        ConfigError: names what was changed, and what it was.
    """
    now = _fixed(config)
    before = checkpoint.get("run", now)  # earlier versions kept none
    changed = [
        f"{key} was {before.get(key)}, found {now.get(key)}"
        for key in {**before, **now}
        if before.get(key) != now.get(key)
    ]
    if changed:
        raise ConfigError(
            f"{folder.config_path}: {'; '.join(changed)}; the checkpoint does not fit that: change "
            "it back, or start a new run with --output"
        )


def _fixed(config: TrainConfig) -> dict[str, Any]:
    """What must stay as it is for as long as a run lasts, as plain data, by dotted key."""
    settings = config.model_dump(mode="json")
    algorithm = settings.pop("algorithm")
    fixed = {"name", *config.algorithm.FIXED}
    return {key: value for key, value in settings.items() if key not in _MAY_CHANGE} | {
        f"algorithm.{name}": value for name, value in algorithm.items() if name in fixed
    }


def _advice(folder: RunFolder) -> str:
    advice = (
        "A reward or an observation: look for a division, a root or a logarithm in the task. A "
        "loss or a weight: lower algorithm.learning_rate or algorithm.max_grad_norm in "
        f"{folder.config_path}."
    )
    if not folder.checkpoint_path.exists():
        return f"{advice} Nothing was saved yet; --resume starts the run again"
    saved = folder.load_checkpoint()["env_steps"]
    return (
        f"{advice} The checkpoint of {saved:,} env steps is good: export it, or go on from there "
        "with --resume; without a change it would come to the same end"
    )


def _mean(values: Tensor) -> float:
    return float(values.nanmean()) if len(values) else math.nan  # nan: a metric had no say
