"""One world and who acts in it: a run's policy, an exported controller, or nobody in particular.

    session = open_session("runs/arm_reach", seed=0)
    session.step()                                  # one control step; episodes follow each other
    session.hold_command([0.2, 0.0, 0.1])

What is watched is what is deployed: an ONNX file is run by onnxruntime on the task's signals, in
the environment its provenance describes. Runs and policies meet worlds drawn from the full ranges
of their randomization, as in `robotrl eval`; a task by name is shown as it is.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal, Protocol

import mujoco
import torch
from torch import Tensor

import envs
from deploy.commands import fixed_command
from deploy.contract import CommandSpec
from deploy.controller import OnnxController
from deploy.errors import ConfigError
from envs.randomization import at_full_range
from envs.render import look_at
from envs.vector_env import Step, VectorEnv
from robotrl.algorithms.policy import Agent, Policy
from robotrl.runs.evaluate import check_robot_files, load_policy, trained, training_of
from robotrl.runs.run_folder import RunFolder
from robotrl.runs.train import make_test_env
from robotrl.runs.train_config import TrainConfig, load_train_config

ActionKind = Literal["zero", "random"]


class Actor(Protocol):
    """Who acts."""

    def step(self, env: VectorEnv, observation: Tensor) -> Step:
        """Make the next control step, given the actor's observation (1, n)."""
        ...

    def reset(self) -> None:
        """Begin an episode."""
        ...


class PolicyActor:
    """A training run's policy, deterministic."""

    def __init__(self, policy: Policy):
        self._agent = Agent(policy, 1)

    def step(self, env: VectorEnv, observation: Tensor) -> Step:
        """See `Actor`."""
        return env.step(self._agent.act(observation))

    def reset(self) -> None:
        """See `Actor`."""
        self._agent.forget(torch.ones(1, dtype=torch.bool))


class ControllerActor:
    """An exported file, through onnxruntime, fed with signals as on a robot."""

    def __init__(self, controller: OnnxController):
        self._controller = controller

    def step(self, env: VectorEnv, observation: Tensor) -> Step:
        """See `Actor`."""
        for name, array in self._controller.inputs.items():
            array[:] = env.signals[name][0].numpy()
        self._controller.step()
        (targets,) = self._controller.outputs.values()
        return env.step_targets(torch.from_numpy(targets)[None])

    def reset(self) -> None:
        """See `Actor`."""
        self._controller.reset()


class PlainActor:
    """Actions that are zero, or uniform in [-1, 1]."""

    def __init__(self, kind: ActionKind, seed: int):
        self._kind, self._generator = kind, torch.Generator().manual_seed(seed)

    def step(self, env: VectorEnv, observation: Tensor) -> Step:
        """See `Actor`."""
        action = torch.zeros(1, env.num_actions)
        if self._kind == "random":
            action.uniform_(-1, 1, generator=self._generator)
        return env.step(action)

    def reset(self) -> None:
        """See `Actor`."""


class Session:
    """See the module docstring.

    Args:
        env: one world.
        actor: who acts.
        title: what is shown.
    """

    def __init__(self, env: VectorEnv, actor: Actor, title: str):
        self.env, self.title, self.model = env, title, env.simulation.model
        self._actor = actor
        deployment = env.task.deployment
        self.command_spec: CommandSpec | None = deployment.command if deployment else None
        self.data = mujoco.MjData(self.model)
        """The world as it is now."""
        self.time_s = 0.0
        """Of the episode."""
        self.total_reward = 0.0
        """Of the episode so far; without meaning for an exported file, whose actions are hidden."""
        self.reset()

    @property
    def command(self) -> list[float]:
        """What is asked for now, as the actor sees it; empty if there is no command."""
        signal = self.env.signals.get("command")
        return [] if signal is None else signal[0].tolist()

    def hold_command(self, values: Sequence[float] | None) -> None:
        """Ask for this command from now on; None: for the task's own again.

        Raises:
            ConfigError: the task has none, or it is outside what the policy promises.
        """
        if values is not None:
            if self.command_spec is None:
                raise ConfigError(f"{self.title} takes no command; leave --command out")
            fixed_command(self.command_spec, list(values))  # refuses what does not fit
        self.env.hold_command(values)

    def reset(self) -> None:
        """Begin the next episode."""
        self._observation = self.env.reset()["actor"]
        self._begin()
        look_at(self.env.simulation, 0, self.data)

    def step(self) -> Step:
        """One control step."""
        step = self._actor.step(self.env, self._observation)
        self._observation = step.observation["actor"]
        self.time_s += self.env.task.control_dt_s
        self.total_reward += float(step.reward[0])
        if bool(step.terminated[0] | step.truncated[0]):
            self._begin()
        look_at(self.env.simulation, 0, self.data)
        return step

    def _begin(self) -> None:
        self._actor.reset()
        self.time_s = self.total_reward = 0.0


def open_session(
    source: str,
    *,
    seed: int | None = None,
    action: ActionKind | None = None,
    best: bool = False,
) -> Session:
    """Make what is to be watched.

    Args:
        source: a run's folder, an exported file (.onnx), a training configuration (.yaml), or the
            name of a task.
        seed: of the world; by default one that differs from training's.
        action: what is done in a bare task or configuration; zero by default.
        best: of a run, the policy of its best evaluation, instead of the latest.

    Raises:
        ConfigError: it is none of these, or cannot be read.
    """
    path = Path(source)
    if best and not path.is_dir():
        raise ConfigError(f"{source} is no run; --best chooses between the policies of one")
    if action is not None and (path.suffix == ".onnx" or path.is_dir()):
        raise ConfigError(f"{source} acts by itself; {action} actions are for a bare task")
    if path.suffix == ".onnx":
        controller = OnnxController(path)
        config = training_of(controller.contract, path)
        env = _make_world(config, seed)
        check_robot_files(env, controller.contract.provenance.robot_model_sha256, source)
        return Session(env, ControllerActor(controller), f"{path.name}: {config.task}")
    if path.is_dir():
        folder = RunFolder(path)
        config, checkpoint = trained(folder, best=best)
        torch.set_num_threads(config.torch_threads)
        env = _make_world(config, seed)
        policy = load_policy(config, env, checkpoint)
        return Session(env, PolicyActor(policy), f"{path}: {config.task}")
    action = action or "zero"
    plain = PlainActor(action, seed or 0)
    if path.suffix in (".yaml", ".yml"):
        config = load_train_config(path, [])
        return Session(_make_world(config, seed), plain, f"{config.task}, {action} actions")
    try:
        env = envs.make(source, num_envs=1, num_threads=1, seed=seed or 0)
    except ConfigError as error:
        raise ConfigError(
            f"{source} is no folder of a run, no .onnx, .yaml or .npz file, and as a task: {error}"
        ) from error
    return Session(env, plain, f"{source}, {action} actions")


def _make_world(config: TrainConfig, seed: int | None) -> VectorEnv:
    """One world of a run's, drawn from the full ranges."""
    return make_test_env(
        config,
        num_envs=1,
        num_threads=1,
        seed=config.seed + 1_000_003 if seed is None else seed,
        randomization=at_full_range(config.terms),
    )
