"""Say what happened in a file of `envs.divergence`: `python -m envs.divergence FILE`."""

import sys
from collections.abc import Iterator
from pathlib import Path

import mujoco
import numpy as np

from deploy.errors import ConfigError
from envs.divergence.playback import Replay, energy, replay
from envs.divergence.trail import Divergence

_SHOWN = 8
"""Rows of a table: the worst ones."""


def describe(result: Replay) -> Iterator[str]:
    """What happened, line by line."""
    divergence, context = result.dump
    yield f"world {divergence.world} diverged in control step {context['step']}: {divergence.cause}"
    num_substeps = int(divergence.num_substeps[-1])
    if not result.cause:
        yield "replayed: it does not diverge here; another processor may round differently"
        return
    same = "the same" if result.cause == divergence.cause else f"but by {result.cause}"
    yield (
        f"replayed with plain MuJoCo {mujoco.__version__}: {same}; it went wrong in physics step "
        f"{result.substep + 1} of {num_substeps}, at {result.start.time:.4g} s"
    )
    yield from _trail(divergence)
    yield from _dofs(divergence.model, result.start)
    yield from _contacts(divergence.model, result.start)


def _trail(divergence: Divergence) -> Iterator[str]:
    """Energy before each call."""
    yield f"{'time [s]':>12} {'potential [J]':>14} {'kinetic [J]':>14}   before the last calls"
    for state in divergence.states:
        potential, kinetic = energy(divergence.model, state)
        yield f"{state[0]:12.4f} {potential:14.4g} {kinetic:14.4g}"


def _dofs(model: mujoco.MjModel, data: mujoco.MjData) -> Iterator[str]:
    """Motion of, and forces on, the dofs that accelerate most."""
    worst = np.argsort(-np.nan_to_num(np.abs(data.qacc), nan=np.inf), kind="stable")
    applied = data.qfrc_applied + _applied_to_bodies(model, data)
    names = ("qvel", "qacc", "qfrc_actuator", "qfrc_passive", "applied")
    yield f"{'dof':>12} {'joint':20}" + "".join(f" {name:>14}" for name in names)
    for dof in worst[:_SHOWN].tolist():
        forces = (data.qfrc_actuator[dof], data.qfrc_passive[dof], applied[dof])
        numbers = (data.qvel[dof], data.qacc[dof], *forces)
        yield f"{dof:12} {_dof_name(model, dof):20}" + "".join(f" {n:14.4g}" for n in numbers)


def _applied_to_bodies(model: mujoco.MjModel, data: mujoco.MjData) -> np.ndarray:
    """(nv,) generalised force of `xfrc_applied`."""
    total = np.zeros(model.nv)
    for body in np.flatnonzero(data.xfrc_applied.any(axis=1)).tolist():
        force, torque = np.split(data.xfrc_applied[body], 2)
        mujoco.mj_applyFT(model, data, force, torque, data.xipos[body], body, total)
    return total


def _dof_name(model: mujoco.MjModel, dof: int) -> str:
    joint = int(model.dof_jntid[dof])
    name = model.joint(joint).name or f"joint {joint}"
    axis = dof - int(model.jnt_dofadr[joint])
    match mujoco.mjtJoint(int(model.jnt_type[joint])):
        case mujoco.mjtJoint.mjJNT_FREE:
            return f"{name} {('x', 'y', 'z', 'about x', 'about y', 'about z')[axis]}"
        case mujoco.mjtJoint.mjJNT_BALL:
            return f"{name} about {'xyz'[axis]}"
        case _:
            return name


def _contacts(model: mujoco.MjModel, data: mujoco.MjData) -> Iterator[str]:
    """The deepest contacts."""
    contacts = sorted(data.contact, key=lambda contact: contact.dist)
    yield f"{len(contacts):12} contacts" + (", the deepest:" if contacts else "")
    for contact in contacts[:_SHOWN]:
        names = [model.geom(int(geom)).name or f"geom {geom}" for geom in contact.geom]
        yield f"{'':12} {' and '.join(names)}: {1000 * max(0.0, -contact.dist):.4g} mm deep"


def main(arguments: list[str]) -> int:
    """Print what happened; returns the exit status."""
    if len(arguments) != 1:
        print("usage: python -m envs.divergence FILE", file=sys.stderr)
        return 2
    try:
        result = replay(Path(arguments[0]))
    except ConfigError as error:
        print(error, file=sys.stderr)
        return 1
    print("\n".join(describe(result)))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
