"""What each randomization term of a configuration changes, and by how much, before any training.

    report = check_config(load_train_config(path, []))
    for line in report.lines(): print(line)

Worlds with one term each are compared with nominal worlds for a second: same starts, same random
targets. A term that moves the robot otherwise is measured by its joints, in shares of how far they
go nominally. One that does not is measured by what the actor observes, in shares of how much each
number of the observation spreads nominally, which is the unit of a normalised observation. So terms
can be compared, and the first lines are what a policy must cope with. Terms of events get the time
until one has happened in every world, and a second. Ranges that grow are measured in full.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import mujoco
import torch
from torch import Tensor

from deploy.errors import ConfigError
from envs.randomization import RandomTerm, at_full_range
from envs.randomization.signals.sensing import SignalTerm
from envs.vector_env import VectorEnv
from robotrl.runs.train import make_test_env
from robotrl.runs.train_config import TrainConfig

_NUM_ENVS = 64
_SECONDS = 1.0
_HELD_S = 0.2
_BAR = 24
_SMALLEST_SPREAD = 1e-3  # as that of a normalizer, whose eps is its square

_HINGE, _SLIDE = int(mujoco.mjtJoint.mjJNT_HINGE), int(mujoco.mjtJoint.mjJNT_SLIDE)
_FREE = int(mujoco.mjtJoint.mjJNT_FREE)


class Difference(NamedTuple):
    """How much worlds with a term differ from nominal ones, where they differ most."""

    share: float
    """Root mean square, in shares of the nominal motion or spread."""
    median: float
    """In `unit`, as is the largest."""
    largest: float
    where: str
    """A joint, or a number of the observation."""
    unit: str


_NOTHING = Difference(0.0, 0.0, 0.0, "nothing seen: it may need contacts, or longer episodes", "")


class Effect(NamedTuple):
    """How much worlds with a term differ from nominal ones."""

    term: str
    most: Difference
    seconds: float
    """In this time from the start."""


class Report(NamedTuple):
    """What `check_config` finds."""

    effects: list[Effect]
    """By share, the largest first."""
    problems: list[str]
    """Terms that are refused, or have no effect."""

    def lines(self) -> list[str]:
        """The table that `robotrl check` prints, a line per term."""
        width = max((len(effect.term) for effect in self.effects), default=0)
        lines = [f"{'effect':>7s}  {'':{_BAR}s}  {'median':>7s} {'largest':>7s}"]
        for effect in self.effects:
            most = effect.most
            strongest = max(self.effects[0].most.share, 1e-9)
            bar = "█" * math.ceil(_BAR * most.share / strongest)
            within = "" if effect.seconds == _SECONDS else f"in {effect.seconds:g} s"
            unit = ", ".join(filter(None, (most.unit, within)))
            lines.append(
                f"{most.share:7.2%}  {bar:{_BAR}s}  {most.median:7.4f} {most.largest:7.4f}  "
                f"{effect.term:{width}s}  {most.where}{f' [{unit}]' if unit else ''}"
            )
        return [*lines, *(f"ERROR  {text}" for text in self.problems)]


class Course(NamedTuple):
    """What worlds did under the same targets; time is first, from before the first step."""

    targets: Tensor
    """(steps, num_envs, m)"""
    joints: Tensor
    """(steps + 1, num_envs, joints)"""
    observation: Tensor
    """(steps + 1, num_envs, n) of the actor."""
    alive: Tensor
    """(steps + 1, num_envs) bool: still in the first episode."""


class Joints(NamedTuple):
    """Coordinates that are compared: of hinges, slides, and the position of free bodies."""

    places: list[int]
    """In qpos."""
    names: list[str]
    units: list[str]


def check_config(config: TrainConfig) -> Report:
    """Measure every term of a configuration.

    Raises:
        ConfigError: the task itself cannot be made.
    """
    terms = at_full_range(config.terms)
    lasting = [_SECONDS + (getattr(term, "interval_s", None) or (0.0, 0.0))[1] for term in terms]
    env = _make(config, [])
    joints = _joints(env.simulation.model)
    targets = _targets(_make(config, []), max(lasting, default=_SECONDS), config.seed)
    nominal = _run(env, joints, targets)  # in a new environment: of episodes of the same number
    effects, problems = [], []
    for term, seconds in zip(terms, lasting, strict=True):
        steps = round(seconds / env.task.control_dt_s)
        try:
            course = _run(_make(config, [term]), joints, nominal.targets[:steps])
        except ConfigError as error:
            problems.append(str(error))
            continue
        part = Course(nominal.targets[:steps], *(table[: steps + 1] for table in nominal[1:]))
        most = moved(course, part, joints) or seen(course, part, env.columns["actor"])
        if most is None and isinstance(term, SignalTerm):
            problems.append(
                f"randomization: '{term}' has no effect: nothing that the actor observes "
                f"differs in {seconds:g} s; does it read this signal? Delete the term, or raise "
                "its range"
            )
        else:
            effects.append(Effect(str(term), most or _NOTHING, seconds))
    if not problems:
        try:
            _make(config, terms)
        except ConfigError as error:  # terms that do not go together
            problems.append(str(error))
    return Report(sorted(effects, key=lambda effect: -effect.most.share), problems)


def _make(config: TrainConfig, terms: Sequence[RandomTerm]) -> VectorEnv:
    return make_test_env(config, num_envs=_NUM_ENVS, randomization=terms)


def _joints(model: mujoco.MjModel) -> Joints:
    joints = Joints([], [], [])
    for joint, kind in enumerate(model.jnt_type.tolist()):
        place, name = int(model.jnt_qposadr[joint]), model.joint(joint).name or f"joint {joint}"
        if kind in (_HINGE, _SLIDE):
            coordinates = [(place, name, "rad" if kind == _HINGE else "m")]
        elif kind == _FREE:
            coordinates = [(place + axis, f"{name} {'xyz'[axis]}", "m") for axis in range(3)]
        else:
            continue
        for column, value in zip(joints, zip(*coordinates, strict=True), strict=True):
            column.extend(value)
    return joints


def _targets(env: VectorEnv, seconds: float, seed: int) -> Tensor:
    """Targets (steps, num_envs, m) of random actions, each held for a while."""
    generator = torch.Generator().manual_seed(seed)
    dt = env.task.control_dt_s
    held = max(1, round(_HELD_S / dt))
    env.reset()
    targets, action = [], torch.empty(0)
    for step in range(round(seconds / dt)):
        if step % held == 0:
            action = 2 * torch.rand(env.num_envs, env.num_actions, generator=generator) - 1
        targets.append(env.task.decoder(action.to(env.device), env.signals))
        env.step_targets(targets[-1], action.to(env.device))
    return torch.stack(targets)


def _run(env: VectorEnv, joints: Joints, targets: Tensor) -> Course:
    qpos = env.simulation.data("qpos")
    observation = [env.reset()["actor"]]
    angles = [qpos[:, joints.places].clone()]
    alive = [torch.ones(env.num_envs, dtype=torch.bool, device=env.device)]
    for target in targets:
        step = env.step_targets(target)
        observation.append(step.observation["actor"])
        angles.append(qpos[:, joints.places].clone())
        alive.append(alive[-1] & ~(step.terminated | step.truncated))
    return Course(targets, torch.stack(angles), torch.stack(observation), torch.stack(alive))


def moved(course: Course, nominal: Course, joints: Joints) -> Difference | None:
    """Effect on the joints; joints of one unit have one scale, so that one that rests counts."""
    both = course.alive & nominal.alive
    travelled = (nominal.joints - nominal.joints[0])[both]  # (samples, joints)
    scale = torch.ones(travelled.shape[1], device=travelled.device)
    for unit in set(joints.units):
        same = torch.tensor([u == unit for u in joints.units], device=scale.device)
        scale[same] = travelled[:, same].square().mean().sqrt().float().clamp(min=1e-9)
    return _most((course.joints - nominal.joints)[both].float(), scale, joints.names, joints.units)


def seen(course: Course, nominal: Course, columns: Sequence[str]) -> Difference | None:
    """Effect on what the actor observes, in spreads of each number."""
    both = course.alive & nominal.alive
    spread = nominal.observation[nominal.alive].std(dim=0).clamp(min=_SMALLEST_SPREAD)
    difference = (course.observation - nominal.observation)[both] / spread
    return _most(difference, torch.ones_like(spread), columns, ["spreads"] * len(columns))


def _most(
    difference: Tensor, scale: Tensor, names: Sequence[str], units: Sequence[str]
) -> Difference | None:
    """The column of differences (samples, columns) that is largest beside its scale."""
    shares = difference.square().mean(dim=0).sqrt() / scale
    most = int(shares.argmax())
    if not shares[most] > 0:
        return None
    size = difference[:, most].abs()
    median, largest = size.median().item(), size.max().item()
    return Difference(shares[most].item(), median, largest, names[most], units[most])
