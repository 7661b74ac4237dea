"""A policy that reaches, pushes or carries: how near the tool, or the thing, came to its target.

The tool's path is computed from the measured joint angles with the robot's own model, the thing's
is what the camera said. A twin also knows where they really were; then that counts.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import matplotlib.pyplot as plt
import mujoco
import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from deploy.errors import ConfigError
from envs.robot import load_robot
from robotrl.report.log import Array, Log
from robotrl.report.truth import open_truth, require_same_run

OBJECT_GOAL = "object_goal"
"""Name of the command that says where a thing should be."""
ERROR_LIMIT_M, OBJECT_ERROR_LIMIT_M = 0.005, 0.02
"""Largest median distance to the target that counts as success, of a tool and of a thing."""
SETTLE_S = 1.0
"""The distance is judged over this long before each change of target."""


class Reach(NamedTuple):
    """How near something came to its targets."""

    errors_m: list[float]
    """Mean distance in the last second of each target."""
    limit_m: float
    """Largest median of those that counts as success."""
    source: str
    """Where its path is from."""
    figures: dict[str, Figure]


def has_targets(log: Log) -> bool:
    """Whether its command is a point at which something should be."""
    command = log.contract.command
    moves_thing = command.name == OBJECT_GOAL and "object_position" in log.ticks
    return "command" in log.ticks and bool(command.site or moves_thing)


def judge_reach(log: Log, truth: Path | None) -> Reach:
    """How near the tool, or the thing, came to each target.

    Raises:
        ConfigError: the truth is none, or of another run.
    """
    moves_thing = log.contract.command.name == OBJECT_GOAL
    if moves_thing:
        what, limit_m, measured = "thing", OBJECT_ERROR_LIMIT_M, log.ticks["object_position"]
        source = "as its camera saw it"
    else:
        what, limit_m, measured = "tool", ERROR_LIMIT_M, tool_path(log)
        source = "from the joint angles, so only as true as the zeros in the robot file"
    path, guess = measured, None
    if truth is not None:
        kind = "object_position" if moves_thing else "tool_position"
        path, guess = true_path(truth, log.ticks["time_s"], kind), measured
        source = f"true position of the twin's {what}"
    axes = log.ticks["command"].shape[1]  # a thing on a desk has no height to be brought to
    distance = np.linalg.norm(path[:, :axes] - log.ticks["command"], axis=1)
    figures = {
        f"Target and {what}": _plot_paths(log, path, guess, what),
        "Distance to target": _plot_distance(log, distance, limit_m),
    }
    errors_m = [float(distance[settled].mean()) for settled in settled_ticks(log)]
    return Reach(errors_m, limit_m, source, figures)


def tool_path(log: Log) -> Array:
    """Tool position (T, 3) by forward kinematics of the measured joint angles [m]."""
    settings = log.contract.provenance.config.get("task_config", {})
    robot = load_robot(settings.get("robot", log.contract.robot))
    model, data = robot.model, mujoco.MjData(robot.model)
    addresses = [model.joint(name).qposadr[0] for name in log.contract.joint_names]
    site = data.site(log.contract.command.site)
    path = []
    for angles in log.ticks["joint_position"]:
        data.qpos[addresses] = angles
        mujoco.mj_kinematics(model, data)
        path.append(site.xpos.copy())
    return np.array(path)


def true_path(truth: Path, time_s: Array, kind: str = "tool_position") -> Array:
    """Position (T, 3) of a twin's tool, or of the thing before it, at the given times [m]."""
    with open_truth(truth) as file:
        times = file["time_s"]
        if kind == "object_position" and kind not in file and "joint_position" in file:
            raise ConfigError(
                f"{truth}: is of a twin with nothing before it, expected one with the thing that "
                "this policy moves; start it with --thing"
            )
        positions = file[kind]
    require_same_run(truth, times, time_s)
    return np.stack([np.interp(time_s, times, positions[:, axis]) for axis in range(3)], axis=1)


def settled_ticks(log: Log) -> Iterator[NDArray[np.intp]]:
    """Ticks of the last second of each target; the last target counts if it had its time."""
    (running,) = np.nonzero(log.running)
    commands = log.ticks["command"][running]
    ends = np.flatnonzero(np.any(commands[1:] != commands[:-1], axis=1)) + 1
    settle = round(SETTLE_S / log.contract.control_dt_s)
    enough = round(log.contract.command.interval_s[0] / log.contract.control_dt_s)
    for start, end in zip([0, *ends], [*ends, len(running)], strict=True):
        if end - start >= enough - 1:
            yield running[max(start, end - settle) : end]


def _plot_paths(log: Log, path: Array, measured: Array | None, what: str) -> Figure:
    names = log.contract.command.elements
    rows, height = len(names), 2 * len(names)
    figure, axes = plt.subplots(rows, 1, figsize=(10, height), sharex=True, layout="constrained")
    seconds = log.seconds
    for axis, (name, panel) in enumerate(zip(names, axes, strict=True)):
        command = np.where(log.running, log.ticks["command"][:, axis], np.nan)
        panel.step(seconds, command * 100, "k--", lw=1, where="post", label="target")
        panel.plot(seconds, path[:, axis] * 100, color="tab:orange", lw=1.4, label=what)
        if measured is not None:
            label = "tool, from joint angles" if what == "tool" else f"{what}, as seen"
            panel.plot(seconds, measured[:, axis] * 100, color="tab:blue", lw=0.7, label=label)
        panel.set_ylabel(f"{name} [cm]")
    axes[0].legend(loc="upper right", ncols=3)
    axes[-1].set_xlabel("time [s]")
    return figure


def _plot_distance(log: Log, distance: Array, limit_m: float) -> Figure:
    figure, panel = plt.subplots(figsize=(10, 2.8), layout="constrained")
    seconds = log.seconds
    panel.semilogy(seconds, np.where(log.running, distance * 100, np.nan), color="tab:orange")
    for settled in settled_ticks(log):
        panel.axvspan(
            float(seconds[settled[0]]), float(seconds[settled[-1]]), color="tab:green", alpha=0.15
        )
    panel.axhline(limit_m * 100, color="tab:red", ls="--", lw=1)
    panel.set(xlabel="time [s] (judged where shaded)", ylabel="distance [cm]")
    return figure
