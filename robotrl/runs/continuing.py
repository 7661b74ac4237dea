"""What a run may go on from: its own checkpoint, or, to be tuned further, the weights of another.

A run that is resumed must be the same run. One that starts `--from` another takes over what that
one learned and nothing else: not its optimiser, its replay or its counters, so schedules begin
anew. The actor must see the same and its actions must do the same; everything else, rewards,
randomization, terrain, hyper-parameters, may differ.
"""

from pathlib import Path
from typing import Any

from torch import Tensor

from deploy.errors import ConfigError
from envs.vector_env import VectorEnv
from robotrl.algorithms.algorithm import Algorithm
from robotrl.runs.run_folder import RunFolder
from robotrl.runs.train_config import TrainConfig

_MAY_CHANGE = {
    *(
        "env_steps",
        "checkpoint_interval",
        "evaluation",
        "logging",
        "simulation_threads",
        "torch_threads",
    ),
    "learner_precision",
    *("nconmax", "njmax"),
}
"""What may be another where a run goes on, beside what the algorithm allows; all else is in its
checkpoint, which would prevail."""
_BEFORE = {
    "algorithm.activation": "silu",
    "algorithm.layer_norm": True,
    "algorithm.observation_clip": 10.0,
    "algorithm.sparse_observations": False,
    "algorithm.reward_centering": 0.0,
}
"""What PPO and SAC did before that was a setting."""
_SHOWN = 5
"""Most differences of one kind that a message lists."""
_LONGEST = 80
"""Characters of a setting that it shows."""


def fixed_settings(config: TrainConfig) -> dict[str, Any]:
    """What must stay as it is for as long as a run lasts, as plain data, by dotted key."""
    settings = config.model_dump(mode="json")
    algorithm = settings.pop("algorithm")
    fixed = {"name", *config.algorithm.FIXED}
    return {key: value for key, value in settings.items() if key not in _MAY_CHANGE} | {
        f"algorithm.{name}": value for name, value in algorithm.items() if name in fixed
    }


def require_same_run(config: TrainConfig, checkpoint: dict[str, Any], folder: RunFolder) -> None:
    """Refuse a configuration that its checkpoint does not fit, or would silently outvote.

    Raises:
        ConfigError: names what was changed, and what it was.
    """
    now = fixed_settings(config)
    before = _settings_of(checkpoint, now)
    changed = [
        f"{key} was {_cut(value)}, found {_cut(now[key])}"
        for key, value in before.items()
        if key in now and value != now[key]
    ]
    if before.get("task") != now["task"]:
        del changed[1:]  # the rest follows from it
    if changed:
        raise ConfigError(
            f"{folder.config_path}: {'; '.join(changed[:_SHOWN])}; the checkpoint does not fit "
            "that: change it back, or start a new run with --output"
        )


def require_same_meaning(config: TrainConfig, checkpoint: dict[str, Any], source: Path) -> None:
    """Refuse weights that are of the right sizes and mean something else.

    Args:
        config: of the new run.
        checkpoint: of the run that its weights come from.
        source: the folder of that run.

    Raises:
        ConfigError: names the settings that differ.
    """
    now = fixed_settings(config)
    before = _settings_of(checkpoint, now)
    differing = [
        f"{key} is {_cut(before[key])} there and {_cut(now[key])} here"
        for key in sorted(f"algorithm.{name}" for name in config.algorithm.MEANING)
        if before.get(key, now[key]) != now[key]
    ]
    another = before.get("algorithm.name") != now["algorithm.name"]  # which `take_over` refuses
    if differing and not another:
        raise ConfigError(
            f"--from {source}: {'; '.join(differing)}; its weights would mean something else: set "
            "it as in its config.yaml, or train from nothing"
        )


def require_same_contract(env: VectorEnv, source_env: VectorEnv, source: Path) -> None:
    """Refuse to tune a policy that would see or do something else than it learned to.

    Args:
        env: of the new run.
        source_env: of the run that its weights come from.
        source: the folder of that run.

    Raises:
        ConfigError: lists what differs.
    """
    problems = contract_differences(contract_of(env), contract_of(source_env))
    if problems:
        raise ConfigError(
            f"--from {source}: compared with that run this one has {'; '.join(problems)}. Its "
            "policy fits only what it was trained on: make task_config say the same, or train from "
            "nothing"
        )


def contract_of(env: VectorEnv) -> dict[str, list[Any]]:
    """What observations and actions mean, as plain data."""
    task = env.task
    meaning = {
        name: value
        for name, value in vars(task.decoder).items()
        if isinstance(value, int | float | str) and not name.startswith("_") and name != "training"
    }
    joints = task.deployment.joints if task.deployment else []
    return {
        "columns of the actor's observation": env.columns["actor"],
        "columns of the critic's observation": env.columns["critic"],
        "actions": [
            type(task.decoder).__name__,
            *(f"{name}={value}" for name, value in meaning.items()),
            *(joint.name for joint in joints),
        ],
        "home": [f"{joint.name} at {joint.default_position_rad:g}" for joint in joints],
    }


def contract_differences(now: dict[str, list[Any]], before: dict[str, list[Any]]) -> list[str]:
    """What one contract has and lacks that another has not, in words; see `contract_of`."""
    problems = []
    for name in now:
        here, there = now[name], before.get(name)
        if here == there or there is None:  # earlier versions knew no `home`
            continue
        gone = [str(part) for part in there if part not in here]
        new = [str(part) for part in here if part not in there]
        changes = [
            f"{what} {', '.join(parts[:_SHOWN])}" + (" …" if len(parts) > _SHOWN else "")
            for what, parts in (("without", gone), ("with", new))
            if parts
        ]
        problems.append(f"{name} {' and '.join(changes) or 'in another order'}")
    return problems


def take_over(learner: Algorithm, checkpoint: dict[str, Any], source: Path) -> dict[str, Any]:
    """Give a new learner what another run has learned.

    Returns:
        That: the entries of the learner's state that it took.

    Raises:
        ConfigError: it was another algorithm, or its networks have other sizes.
    """
    own, other = learner.state_dict(), checkpoint["algorithm"]
    missing = [name for name in learner.LEARNED if name not in other]
    if missing:
        raise ConfigError(
            f"--from {source}: its checkpoint has no {' and '.join(missing)}; it was trained "
            "with another algorithm or version: choose that one, or train from nothing"
        )
    learned = {name: other[name] for name in learner.LEARNED}
    here, there = _shapes({name: own[name] for name in learner.LEARNED}), _shapes(learned)
    differing = [
        f"{name} is {there.get(name, 'missing')} there and {here.get(name, 'missing')} here"
        for name in {**here, **there}
        if here.get(name) != there.get(name)
    ]
    if differing:
        raise ConfigError(
            f"--from {source}: {'; '.join(differing[:_SHOWN])}; networks must have the same "
            "sizes: set algorithm.actor_hidden and the like as in its config.yaml"
        )
    learner.load_state_dict(own | learned)
    return learned


def _settings_of(checkpoint: dict[str, Any], now: dict[str, Any]) -> dict[str, Any]:
    """`fixed_settings` that a checkpoint was trained with; earlier versions kept none, or fewer."""
    if "run" not in checkpoint:
        return now
    return {key: value for key, value in _BEFORE.items() if key in now} | checkpoint["run"]


def _cut(value: Any) -> str:
    """A setting as text that fits a line of a message."""
    text = str(value)
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]} …"


def _shapes(state: Any, name: str = "") -> dict[str, tuple[int, ...]]:
    """Shape of every tensor in nested dicts, by dotted name."""
    if isinstance(state, Tensor):
        return {name: tuple(state.shape)}
    if not isinstance(state, dict):
        return {}
    return {
        key: shape
        for part, value in state.items()
        for key, shape in _shapes(value, f"{name}.{part}" if name else part).items()
    }
