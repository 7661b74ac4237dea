"""Make the call of the physics in which a world diverged once more, with plain MuJoCo."""

import copy
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

import mujoco
import numpy as np

from envs.divergence.dump import Dump, read
from envs.divergence.trail import INTEGRATION, describe_warnings


class Replay(NamedTuple):
    """What plain MuJoCo did with a dump."""

    dump: Dump
    cause: str
    """As `Divergence.cause`; empty if the world did not diverge."""
    substep: int
    """The last physics step of the call, from 0, that started from numbers MuJoCo accepts; so the
    one in which they went wrong."""
    start: mujoco.MjData
    """What that step started from, with forces, contacts and `qacc` as `mj_forward` gives them."""
    after: mujoco.MjData
    """The world after the call, to the bit as it was in the run; MuJoCo may have reset it."""


def replay(path: Path | str) -> Replay:
    """Replay a file that `Recorder` wrote.

    Raises:
        ConfigError: see `read`.
    """
    dump = read(path)
    model, num_substeps = dump.divergence.model, int(dump.divergence.num_substeps[-1])
    data = load(model, dump.divergence.states[-1])
    cause, substep, start = "", 0, copy.copy(data)
    with _without_log():
        # At the end a batch computes the sensors of the new state, checks included: mj_step1.
        for step, advance in enumerate([mujoco.mj_step] * num_substeps + [mujoco.mj_step1]):
            if not cause and step < num_substeps and _is_sound(data):
                substep, start = step, copy.copy(data)
            try:
                advance(model, data)
            except mujoco.FatalError as error:
                cause = str(error)
                break
            cause = describe_warnings([(w.lastinfo, w.number) for w in data.warning])
        with suppress(mujoco.FatalError):  # what could be computed before it is there
            mujoco.mj_forward(model, start)
    return Replay(dump, cause, substep, start, data)


def substeps(dump: Dump) -> Iterator[mujoco.MjData]:
    """The world before each physics step of the last call, as long as MuJoCo accepts it."""
    model, num_substeps = dump.divergence.model, int(dump.divergence.num_substeps[-1])
    data = load(model, dump.divergence.states[-1])
    with _without_log():
        for _ in range(num_substeps):
            if not _is_sound(data) or describe_warnings(
                [(w.lastinfo, w.number) for w in data.warning]
            ):
                return
            yield copy.copy(data)
            try:
                mujoco.mj_step(model, data)
            except mujoco.FatalError:
                return


def load(model: mujoco.MjModel, state: np.ndarray) -> mujoco.MjData:
    """A world in a state (n,), `mjSTATE_INTEGRATION`."""
    data = mujoco.MjData(model)
    mujoco.mj_setState(model, data, state, INTEGRATION)
    return data


def energy(model: mujoco.MjModel, state: np.ndarray) -> tuple[float, float]:
    """Potential and kinetic energy [J] of a state (n,)."""
    data = load(model, state)
    with _without_log():
        mujoco.mj_fwdPosition(model, data)
        mujoco.mj_fwdVelocity(model, data)
        mujoco.mj_energyPos(model, data)
        mujoco.mj_energyVel(model, data)
    return float(data.energy[0]), float(data.energy[1])


def _is_sound(data: mujoco.MjData) -> bool:
    """Whether MuJoCo would go on from here."""
    largest = mujoco.mjMAXVAL
    return bool((np.abs(data.qpos) <= largest).all() and (np.abs(data.qvel) <= largest).all())


@contextmanager
def _without_log() -> Iterator[None]:
    """Keep MuJoCo from writing MUJOCO_LOG.TXT about what is expected here."""
    previous = mujoco.get_mju_user_warning()
    mujoco.set_mju_user_warning(lambda message: None)
    try:
        yield
    finally:
        mujoco.set_mju_user_warning(previous)
