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
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor

import envs
from deploy.configuration import validate
from deploy.errors import ConfigError
from envs.randomization import at_full_range
from envs.registry import find_task
from envs.vector_env import StepInfo
from robotrl.algorithms import parallel
from robotrl.algorithms.algorithm import Algorithm, TrainingError
from robotrl.algorithms.products import LARGE, ROWS, precision
from robotrl.algorithms.sac import SACConfig
from robotrl.runs.checkout import git_commit
from robotrl.runs.continuing import (
    fixed_settings,
    require_same_contract,
    require_same_meaning,
    require_same_run,
    take_over,
)
from robotrl.runs.demonstrations import load_demonstrations
from robotrl.runs.episodes import Episodes, Evaluation
from robotrl.runs.journal import Journal, require_loggers
from robotrl.runs.run_folder import RunFolder
from robotrl.runs.train_config import TrainConfig

Progress = Callable[[dict[str, float]], None]
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
    with folder.claim() if parallel.is_first() else nullcontext():
        return _train(config, folder, resume, progress or (lambda metrics: None), stop)


def _train(
    config: TrainConfig,
    folder: RunFolder,
    resume: bool,
    progress: Progress,
    stop: Callable[[], bool],
) -> bool:
    """See `train`."""
    checkpoint = parallel.from_first(lambda: _checkpoint_of(config, folder) if resume else None)
    torch.set_num_threads(config.torch_threads)
    torch.set_flush_denormal(True)
    run = _Run(config)
    if checkpoint is not None:
        run.restore(checkpoint, folder)
    elif (start := parallel.from_first(folder.load_start)) is not None:
        take_over(run.learner, start, folder.path)
    iterations = math.ceil(config.env_steps / run.steps_per_iteration)
    whole = _multiplying(config)() if config.num_envs >= ROWS else nullcontext()
    with whole, _Writer(run, folder) if parallel.is_first() else nullcontext() as writer:
        try:
            _iterate_to(iterations, run, folder, writer, progress, stop)
        except TrainingError as error:
            raise TrainingError(
                f"training stopped after {run.env_steps:,} env steps: {error}. {_advice(folder)}"
            ) from error
    return run.iteration >= iterations


def _iterate_to(
    iterations: int,
    run: "_Run",
    folder: RunFolder,
    writer: "_Writer | None",
    progress: Progress,
    stop: Callable[[], bool],
) -> None:
    """See `train`; the first process has the `writer`."""
    while run.iteration < iterations:
        metrics = run.iterate()
        last = run.iteration == iterations
        leaving = parallel.any_of(stop(), run.env.device) or last
        if writer:
            metrics = writer.write(metrics, last=last)
        if leaving or run.iteration % run.config.checkpoint_interval == 0:
            state = run.state_dict()
            if writer:
                folder.save_checkpoint(state)
        if writer:
            progress(metrics)
        if leaving:
            break


class _Run:
    """Worlds and learner, and how far they have come."""

    def __init__(self, config: TrainConfig):
        self.config = config
        placed = parallel.placement(config.num_envs, config.device, config.simulation_threads)
        self.env = make_env(config, **placed)
        self.learner = _make_learner(config, self.env)
        self.steps_per_iteration = config.num_envs * config.algorithm.iteration_steps
        self.iteration = 0
        self._commit = git_commit()
        self._observation = self.env.reset(stagger=True)
        self._episodes = Episodes(self.env)

    @property
    def env_steps(self) -> int:
        """Control steps so far, summed over worlds."""
        return self.iteration * self.steps_per_iteration

    def iterate(self) -> dict[str, float]:
        """One iteration more; returns its metrics."""
        self._observation, metrics = _iterate(
            self.learner, self.env, self._observation, self.config, self._episodes
        )
        self.iteration += 1
        return {"env_steps": self.env_steps, **metrics}

    def state_dict(self) -> dict[str, Any]:
        """A checkpoint, in the first process; each one's worlds are in it, and all must call."""
        worlds = parallel.gathered(
            {
                "env": self.env.state_dict(),
                "observation": self._observation,
                "episodes": self._episodes.state_dict(),
            }
        )
        return {
            "algorithm": self.learner.state_dict(),
            **(worlds[0] if len(worlds) == 1 else {"worlds": worlds}),
            **self.identity(),
        }

    def restore(self, checkpoint: dict[str, Any], folder: RunFolder) -> None:
        """Go on from a checkpoint.

        Raises:
            ConfigError: another version wrote it.
        """
        try:
            self.learner.load_state_dict(checkpoint["algorithm"])
        except (KeyError, RuntimeError) as error:
            raise ConfigError(
                f"{folder.checkpoint_path}: is not of this version's "
                f"{self.config.algorithm.name} ({error}); go on with the version that wrote it, or "
                "start a new run with --output"
            ) from error
        worlds = _worlds_of(checkpoint)[parallel.number()]
        self.env.load_state_dict(worlds["env"])
        if "episodes" in worlds:  # earlier versions kept none
            self._episodes.load_state_dict(worlds["episodes"])
        self._observation = {
            name: rows.to(self.env.device) for name, rows in worlds["observation"].items()
        }
        self.iteration = checkpoint["iteration"]

    def identity(self) -> dict[str, Any]:
        """How far a checkpoint is, and what it belongs to."""
        return {
            "iteration": self.iteration,
            "env_steps": self.env_steps,
            "run": fixed_settings(self.config),
            "robot_sha256": robot_sha256(self.env),
            "git_commit": self._commit,
        }


class _Writer:
    """What a run leaves behind after each iteration: tables, evaluations, its best policy."""

    def __init__(self, run: _Run, folder: RunFolder):
        self._run, self._folder = run, folder
        run.env.record_divergences(folder.diverged_path)
        self._evaluation = _make_evaluation(run.config)
        self._interval = run.config.evaluation_interval(run.env.task.episode_steps)
        best = folder.best_path.exists()
        self._best = folder.load_checkpoint(best=True)["return"] if best else -math.inf
        self._journal = Journal(folder, run.env_steps)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._journal.close()

    def write(self, metrics: dict[str, float], *, last: bool) -> dict[str, float]:
        """Take down an iteration, and evaluate where it is time to; returns what was written."""
        metrics = {**metrics, **self._journal.times()}
        self._journal.write_metrics(metrics)
        crossed = self._run.env_steps % self._interval < self._run.steps_per_iteration
        if self._evaluation and (crossed or last):
            self._evaluate(self._evaluation)
        return metrics

    def _evaluate(self, evaluation: Evaluation) -> None:
        run, learner = self._run, self._run.learner
        found = evaluation.run(learner.policy.state_dict())
        self._journal.write_evaluation(
            {"env_steps": run.env_steps, **found, **self._journal.times()}
        )
        if found["return"] > self._best:
            self._best = found["return"]
            state = learner.state_dict()
            learned = {name: state[name] for name in learner.LEARNED}
            self._folder.save_best({"algorithm": learned, "return": self._best, **run.identity()})


def _checkpoint_of(config: TrainConfig, folder: RunFolder) -> dict[str, Any] | None:
    """What a run goes on from; nothing if it was killed before its first checkpoint.

    Raises:
        ConfigError: it does not fit the configuration, or the number of processes.
    """
    try:
        require_learnable(config)
    except ConfigError as error:
        raise ConfigError(f"{folder.config_path}: {error}") from error
    if not folder.checkpoint_path.exists():
        return None
    checkpoint = folder.load_checkpoint()
    require_same_run(config, checkpoint, folder)
    before, now = len(_worlds_of(checkpoint)), parallel.processes()
    if before != now:
        raise ConfigError(
            f"{folder.checkpoint_path}: was written by {before} processes, found {now}; go on "
            f"with {parallel.program(before)} train --resume {folder.path}"
        )
    return checkpoint


def _worlds_of(checkpoint: dict[str, Any]) -> list[dict[str, Any]]:
    """State of the worlds of each process."""
    return checkpoint.get("worlds", [checkpoint])


def require_learnable(config: TrainConfig) -> None:
    """Refuse what cannot be learned in so many worlds and processes.

    Raises:
        ConfigError: says what to change.
    """
    if parallel.processes() > 1 and not config.algorithm.PARALLEL:
        raise ConfigError(
            f"algorithm.name: {config.algorithm.name} trains in one process, found "
            f"{parallel.processes()}; start it without torchrun, or choose ppo"
        )
    parallel.require_shareable(config.num_envs, config.device)
    config.algorithm.check_worlds(config.num_envs)


def _multiplying(config: TrainConfig) -> Callable[[], AbstractContextManager[None]]:
    """Makes what learning happens in; small products stay where they are quickly begun."""
    product = config.algorithm.largest_product(config.num_envs)
    if config.learner_precision == "float32" and product < LARGE:
        return nullcontext
    return partial(precision, config.learner_precision)


def _iterate(
    learner: Algorithm,
    env: envs.VectorEnv,
    observation: dict[str, Tensor],
    config: TrainConfig,
    episodes: Episodes,
) -> tuple[dict[str, Tensor], dict[str, float]]:
    """One iteration; returns the observation that follows it, and its metrics."""
    steps, multiplying = config.algorithm.iteration_steps, _multiplying(config)
    infos: list[StepInfo] = []
    losses: dict[str, float] = {}
    learned_s, started_s = 0.0, time.perf_counter()
    for _ in range(steps):
        step = env.step(learner.act(observation))
        observation = step.observation
        infos.append(step.info)
        episodes.add(step)
        stepped_s = time.perf_counter()
        with multiplying():
            losses |= learner.learn(step)
        learned_s += time.perf_counter() - stepped_s
    env.simulation.check()
    taken_s = time.perf_counter() - started_s
    measured = torch.stack([info.measured for info in infos])
    means = parallel.means(
        {
            f"reward/{name}": torch.stack([info.rewards[name].mean() for info in infos])
            for name in infos[0].rewards
        }
        | {
            name: torch.stack([info.metrics[name] for info in infos])[measured]
            for name in infos[0].metrics
        }
    )
    rewards = {name: means.pop(name) for name in [*means] if name.startswith("reward/")}
    diverged = parallel.total(torch.tensor(env.diverged, device=env.device))
    return observation, {
        **rewards,
        **means,
        "reward/mean": sum(rewards.values()),
        **episodes.metrics(),
        **losses,
        **env.randomization.metrics(),
        "diverged": int(diverged),
        "speed/env_steps_per_s": config.num_envs * steps / taken_s,
        "speed/collect_share": 1 - learned_s / taken_s,
    }


def rehearse(
    config: TrainConfig, *, source: Path, start: RunFolder | None = None, best: bool = False
) -> dict[str, Any] | None:
    """Build what a run needs in one world and throw it away, before a file of it is written.

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
        require_learnable(config)
        require_loggers(config.logging)
        env = make_env(config, num_envs=1, num_threads=1)
        learner = _make_learner(config, env)
        env.reset()
        _make_evaluation(config, num_envs=1, num_threads=1)
        if start is None:
            return None
        other = make_env(start.config(), num_envs=1, num_threads=1, randomization=[])
        require_same_contract(env, other, start.path)
        checkpoint = start.load_checkpoint(best=best)
        require_same_meaning(config, checkpoint, start.path)
        return {"algorithm": take_over(learner, checkpoint, start.path)}
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

    The task's settings count as its `Config.in_evaluation` says, if it says anything.
    """
    settings = {"device": "cpu", "backend": "batch", "task_config": _in_evaluation(config)}
    return make_env(config, **(settings | changes))


def _in_evaluation(config: TrainConfig) -> dict[str, Any]:
    """The task's settings without what is of training alone."""
    section = find_task(config.task).Config
    if not hasattr(section, "in_evaluation"):
        return config.task_config
    settings = validate(config.task_config, section, source=f"task {config.task}")
    return settings.in_evaluation().model_dump(mode="json", exclude_unset=True)


def robot_sha256(env: envs.VectorEnv) -> str:
    """Identity of the robot that is trained; empty for a task without one."""
    return env.task.deployment.robot.sha256 if env.task.deployment else ""


def _make_learner(config: TrainConfig, env: envs.VectorEnv) -> Algorithm:
    settings = {}
    if isinstance(config.algorithm, SACConfig) and config.algorithm.demonstrations:
        settings["demonstrations"] = load_demonstrations(config.algorithm.demonstrations, env)
    return config.algorithm.learner(
        env.observation_sizes,
        env.num_actions,
        seed=config.seed,
        device=env.device,
        mirror=env.mirror if config.algorithm.symmetry else None,
        **settings,
    )


def _make_evaluation(config: TrainConfig, **changes: Any) -> Evaluation | None:
    """The worlds in which a run is evaluated now and then, in the full ranges of what differs."""
    if config.evaluation is None:
        return None
    settings = {
        "num_envs": config.evaluation.episodes,
        "seed": config.seed + _EVALUATION_SEED,
        "randomization": at_full_range(config.terms),
    }
    env = make_test_env(config, **(settings | changes))
    policy = config.algorithm.new_policy(env.observation_sizes["actor"], env.num_actions)
    return Evaluation(env, policy)


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
