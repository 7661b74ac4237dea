"""The training loop: act, learn, write down, evaluate, repeat.

    train(config, RunFolder(Path("runs/arm_reach")))

The same configuration gives the same weights to the bit on one machine, whatever the number of
simulation threads, and a resumed run gives what an uninterrupted one would have given. A run that
meets a NaN or a full disk stops there: what was saved before stays, and nothing worse is ever
written over it.
"""

import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import envs
from deploy.errors import ConfigError
from envs.randomization import at_full_range
from envs.vector_env import StepInfo
from robotrl.algorithm import Algorithm, TrainingError
from robotrl.continuing import fixed_settings, require_same_contract, require_same_run, take_over
from robotrl.demonstrations import load_demonstrations
from robotrl.episodes import Episodes, Evaluation
from robotrl.journal import Journal
from robotrl.products import precision
from robotrl.run_folder import RunFolder
from robotrl.train_config import TrainConfig

Progress = Callable[[dict[str, float]], None]
TRAINING_ONLY = ("stages", "training_timestep_s")
"""Settings of tasks that evaluation and export do without."""
_EVALUATION_SEED = 2_000_003
"""Added to the run's: of the worlds that choose `best.pt`, in which nothing else is judged."""


def train(
    config: TrainConfig,
    folder: RunFolder,
    *,
    resume: bool = False,
    progress: Progress | None = None,
    stop: Callable[[], bool] = lambda: False,
) -> bool:
    """Train until `config.env_steps`.

    Args:
        config: the run.
        folder: where it is written; must have been created.
        resume: continue from the folder's checkpoint.
        progress: called after each iteration with its metrics.
        stop: asked after each iteration whether to save and leave.

    Returns:
        Whether it came to its end.

    Raises:
        TrainingError: something is not finite; says where, and what to do.
        StorageError: the folder cannot be written any more.
        ConfigError: `config` is not what the checkpoint was made with, where that matters.
    """
    with folder.claim():
        return _train(config, folder, resume, progress or (lambda metrics: None), stop)


def _train(
    config: TrainConfig,
    folder: RunFolder,
    resume: bool,
    progress: Progress,
    stop: Callable[[], bool],
) -> bool:
    """See `train`."""
    checkpoint = None
    if resume and folder.checkpoint_path.exists():  # else killed before its first
        checkpoint = folder.load_checkpoint()
        require_same_run(config, checkpoint, folder)
    torch.set_num_threads(config.torch_threads)
    torch.set_flush_denormal(True)
    env = make_env(config)
    env.record_divergences(folder.diverged_path)
    learner = _make_learner(config, env)
    observation = env.reset(stagger=True)
    episodes, evaluation = Episodes(env), _make_evaluation(config)
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
        if "episodes" in checkpoint:  # earlier versions kept none
            episodes.load_state_dict(checkpoint["episodes"])
        observation = {
            name: rows.to(env.device) for name, rows in checkpoint["observation"].items()
        }
        iteration = checkpoint["iteration"]
    elif (start := folder.load_start()) is not None:
        take_over(learner, start, folder.path)

    steps_per_iteration = config.num_envs * config.algorithm.iteration_steps
    iterations = math.ceil(config.env_steps / steps_per_iteration)
    interval = config.evaluation_interval(env.task.episode_steps)
    best = folder.load_checkpoint(best=True)["return"] if folder.best_path.exists() else -math.inf
    with Journal(folder, iteration * steps_per_iteration) as journal:
        while iteration < iterations:
            try:
                observation, metrics = _iterate(learner, env, observation, config, episodes)
            except TrainingError as error:
                raise TrainingError(
                    f"training stopped after {iteration * steps_per_iteration:,} env steps: "
                    f"{error}. {_advice(folder)}"
                ) from error
            iteration += 1
            done = {"iteration": iteration, "env_steps": iteration * steps_per_iteration}
            metrics = {"env_steps": done["env_steps"], **metrics, **journal.times()}
            journal.write_metrics(metrics)
            leaving = iteration == iterations or stop()
            crossed = done["env_steps"] % interval < steps_per_iteration
            if evaluation and (crossed or iteration == iterations):
                found = evaluation.run(learner.policy.state_dict())
                journal.write_evaluation(
                    {"env_steps": done["env_steps"], **found, **journal.times()}
                )
                if found["return"] > best:
                    best = found["return"]
                    state = learner.state_dict()
                    learned = {name: state[name] for name in learner.LEARNED}
                    folder.save_best(
                        {"algorithm": learned, "return": best, **done, **_identity(config, env)}
                    )
            if iteration % config.checkpoint_interval == 0 or leaving:
                folder.save_checkpoint(
                    {
                        "algorithm": learner.state_dict(),
                        "env": env.state_dict(),
                        "observation": observation,
                        "episodes": episodes.state_dict(),
                        **done,
                        **_identity(config, env),
                    }
                )
            progress(metrics)
            if leaving:
                break
    return iteration >= iterations


def _iterate(
    learner: Algorithm,
    env: envs.VectorEnv,
    observation: dict[str, Tensor],
    config: TrainConfig,
    episodes: Episodes,
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
        episodes.add(step)
        stepped_s = time.perf_counter()
        with precision(config.learner_precision):
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
        **episodes.metrics(),
        **losses,
        **env.randomization.metrics(),
        "diverged": env.diverged,
        "speed/env_steps_per_s": config.num_envs * steps / taken_s,
        "speed/collect_share": 1 - learned_s / taken_s,
    }


def rehearse(
    config: TrainConfig, *, source: Path, start: RunFolder | None = None, best: bool = False
) -> dict[str, Any] | None:
    """Build a run in one world and throw it away, before a file of it is written.

    Args:
        config: the run.
        source: the file it was read from.
        start: the run whose weights it is to start from.
        best: those of its best evaluation.

    Returns:
        What it starts from, for `RunFolder.create`.

    Raises:
        ConfigError: a setting that does not fit the robot's model, or that other run; names
            `source`.
    """
    try:
        env = make_env(config, num_envs=1, num_threads=1)
        learner = _make_learner(config, env)
        env.reset()
        if start is None:
            return None
        other = make_env(start.config(), num_envs=1, num_threads=1, randomization=[])
        require_same_contract(env, other, start.path)
        return {"algorithm": take_over(learner, start.load_checkpoint(best=best), start.path)}
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
    settings = {}
    if shown := getattr(config.algorithm, "demonstrations", None):
        settings["demonstrations"] = load_demonstrations(shown, env)
    return config.algorithm.learner(
        env.observation_sizes,
        env.num_actions,
        seed=config.seed,
        device=env.device,
        mirror=env.mirror if config.algorithm.symmetry else None,
        **settings,
    )


def _make_evaluation(config: TrainConfig) -> Evaluation | None:
    """The worlds in which a run is evaluated now and then, in the full ranges of what differs."""
    if config.evaluation is None:
        return None
    env = make_test_env(
        config,
        num_envs=config.evaluation.episodes,
        seed=config.seed + _EVALUATION_SEED,
        randomization=at_full_range(config.terms),
    )
    policy = config.algorithm.new_policy(env.observation_sizes["actor"], env.num_actions)
    return Evaluation(env, policy)


def _identity(config: TrainConfig, env: envs.VectorEnv) -> dict[str, Any]:
    """What a checkpoint belongs to."""
    return {"run": fixed_settings(config), "robot_sha256": robot_sha256(env)}


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
