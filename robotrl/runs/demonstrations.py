"""Transitions of a policy in a file, which SAC learns from beside its own.

    recording = Recording(env)
    step = env.step(action)
    recording.add(observation, action, step)           # of one step in all worlds
    recording.save(Path("expert.npz"))                 # robotrl eval RUN --record expert.npz
    replay = load_demonstrations(Path("expert.npz"), env)

An observation lies there once for a step, and once more where an episode ended. The file says what
its numbers mean, so one of another observation or action is refused. Rewards are those that were
paid: a task whose rewards were changed since must be demonstrated anew.
"""

import json
import zlib
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
import torch
from torch import Tensor

from deploy.errors import ConfigError
from deploy.whole_file import explained, replaced
from envs.vector_env import Step, StepInfo, VectorEnv
from robotrl.algorithms.replay import Replay
from robotrl.runs.continuing import contract_differences, contract_of

_SIDES = ("actor", "critic")
_SHOWN = 3
"""Most damages that a message lists."""


class Recording:
    """Steps of all worlds of an environment, one after the other."""

    def __init__(self, env: VectorEnv):
        self._contract = contract_of(env)
        self._rows: list[dict[str, Tensor]] = []
        self._last: dict[str, Tensor] = {}

    def add(self, observation: dict[str, Tensor], action: Tensor, step: Step) -> None:
        """Keep an observation, the action (num_envs, actions) it got, and what followed."""
        final, ended = step.info.final_observation, step.terminated | step.truncated
        self._rows.append(
            {
                **{f"observation/{side}": observation[side].clone() for side in _SIDES},
                **{f"final/{side}": final[side][ended] for side in _SIDES},
                "action": action.clone(),
                "reward": step.reward.clone(),
                "terminated": step.terminated.clone(),
                "truncated": step.truncated.clone(),
            }
        )
        self._last = {f"last/{side}": step.observation[side].clone() for side in _SIDES}

    def save(self, path: Path) -> None:
        """Write it.

        Raises:
            ConfigError: it cannot be written there.
        """
        tables = {
            name: torch.cat(rows) if name.startswith("final/") else torch.stack(rows)
            for name in self._rows[0]
            if (rows := [row[name] for row in self._rows])
        }
        arrays: dict[str, Any] = {
            name: table.cpu().numpy() for name, table in {**tables, **self._last}.items()
        }
        with explained(path, "--record"), replaced(path) as file:
            np.savez_compressed(file, contract=json.dumps(self._contract), **arrays)


def load_demonstrations(path: Path, env: VectorEnv) -> Replay:
    """What a file shows, on the environment's device.

    Args:
        path: file that `Recording.save` wrote.
        env: what is learned.

    Raises:
        ConfigError: there is no such file, it is damaged, or it shows something else.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            before: dict[str, list[Any]] = json.loads(str(file["contract"]))
            tables = {
                name: torch.from_numpy(file[name]).to(env.device)
                for name in file.files
                if name != "contract"
            }
    except (OSError, EOFError, KeyError, ValueError, TypeError, BadZipFile, zlib.error) as error:
        raise ConfigError(
            f"algorithm.demonstrations: {path} cannot be read ({error}); expected a file of "
            "`robotrl eval RUN --record FILE`: give its path, or record it again"
        ) from error
    if problems := contract_differences(contract_of(env), before):
        raise ConfigError(
            f"algorithm.demonstrations: compared with {path} this run has {'; '.join(problems)}. "
            "It can learn only from what sees and does the same: make task_config say the same, or "
            "record it again"
        )
    if problems := _damages(tables, env):
        raise ConfigError(
            f"algorithm.demonstrations: {path} is not whole: {'; '.join(problems[:_SHOWN])}. "
            "Record it again with `robotrl eval RUN --record FILE`"
        )
    return _replay(tables, env)


def _damages(tables: dict[str, Tensor], env: VectorEnv) -> list[str]:
    """Tables that are missing, or not of the shape that `Recording.save` gives them."""
    own = ["action", "reward", "terminated", "truncated"]
    own += [f"{part}/{side}" for part in ("observation", "final", "last") for side in _SIDES]
    if missing := [name for name in own if name not in tables]:
        return [f"it has no {name}" for name in missing]
    shape = tuple(tables["action"].shape[:2])
    ends = int(tables["terminated"].sum() + tables["truncated"].sum())
    expected = dict.fromkeys(own[1:4], shape) | {"action": (*shape, env.num_actions)}
    for side in _SIDES:
        size = env.observation_sizes[side]
        expected[f"observation/{side}"] = (*shape, size)
        expected[f"final/{side}"] = (ends, size)
        expected[f"last/{side}"] = (*shape[1:], size)
    return [
        f"{name} is {tuple(tables[name].shape)}, expected {expected[name]}"
        for name in own
        if tables[name].shape != expected[name]
    ]


def _replay(tables: dict[str, Tensor], env: VectorEnv) -> Replay:
    """The steps of a file, added one after the other."""
    steps, worlds, num_actions = tables["action"].shape
    replay = Replay(
        (steps + 2) * worlds,  # a row waits for what follows
        num_envs=worlds,
        sizes=env.observation_sizes,
        num_actions=num_actions,
        device=env.device,
    )
    observations = {
        side: torch.cat([tables[f"observation/{side}"], tables[f"last/{side}"][None]])
        for side in _SIDES
    }
    ended = tables["terminated"] | tables["truncated"]
    ends = ended.sum(dim=1).cumsum(dim=0).tolist()
    replay.start({side: rows[0] for side, rows in observations.items()})
    for index in range(steps):
        begin, end = ends[index - 1] if index else 0, ends[index]
        following = {side: rows[index + 1] for side, rows in observations.items()}
        final = {side: rows.clone() for side, rows in following.items()}
        for side in _SIDES:
            final[side][ended[index]] = tables[f"final/{side}"][begin:end]
        info = StepInfo(final, {}, {}, ended[index])
        step = Step(
            following,
            tables["reward"][index],
            tables["terminated"][index],
            tables["truncated"][index],
            info,
        )
        replay.add(tables["action"][index], step)
    return replay
