"""A policy that reaches (its command names a site): how near did the tool come.

The tool's path is computed from the measured joint angles with the robot's own model. A twin also
knows where its tool really was; then that counts.
"""

import zipfile
from collections.abc import Iterator
from pathlib import Path

import matplotlib.pyplot as plt
import mujoco
import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from deploy.errors import ConfigError
from envs.robot import load_robot
from robotrl.report.log import Array, Log

ERROR_LIMIT_M = 0.005
"""Largest median distance to the target that counts as success."""
SETTLE_S = 1.0
"""The distance is judged over this long before each change of target."""


def judge_reach(log: Log, truth: Path | None) -> tuple[list[float], str, dict[str, Figure]]:
    """Mean distance in the last second of each target [m], of which tool path, and plots."""
    measured = tool_path(log)
    tool, source = (
        measured,
        "from the joint angles, so only as true as the zeros in the robot file",
    )
    if truth is not None:
        tool = true_tool_path(truth, log.ticks["time_s"])
        source = "true position of the twin's tool"
    distance = np.linalg.norm(tool - log.ticks["command"], axis=1)
    figures = {
        "Target and tool": _plot_paths(log, tool, measured if truth is not None else None),
        "Distance to target": _plot_distance(log, distance),
    }
    errors_m = [float(distance[settled].mean()) for settled in settled_ticks(log)]
    return errors_m, source, figures


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


def true_tool_path(truth: Path, time_s: Array) -> Array:
    """Tool position (T, 3) of a twin at the given times [m]."""
    try:
        with np.load(truth) as file:
            times, positions = file["time_s"], file["tool_position"]
    except (OSError, KeyError, ValueError, TypeError, zipfile.BadZipFile) as error:
        raise ConfigError(f"{truth}: is no truth file of `robotrl twin`: {error}") from error
    if not len(times) or times[0] > time_s[0] or times[-1] < time_s[-1]:
        raise ConfigError(f"{truth}: belongs to another run, its times do not cover the log's")
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


def _plot_paths(log: Log, tool: Array, measured: Array | None) -> Figure:
    figure, axes = plt.subplots(3, 1, figsize=(10, 6), sharex=True, layout="constrained")
    seconds = log.seconds
    for axis, name, panel in zip(range(3), "xyz", axes, strict=True):
        command = np.where(log.running, log.ticks["command"][:, axis], np.nan)
        panel.step(seconds, command * 100, "k--", lw=1, where="post", label="target")
        panel.plot(seconds, tool[:, axis] * 100, color="tab:orange", lw=1.4, label="tool")
        if measured is not None:
            label = "tool, from joint angles"
            panel.plot(seconds, measured[:, axis] * 100, color="tab:blue", lw=0.7, label=label)
        panel.set_ylabel(f"{name} [cm]")
    axes[0].legend(loc="upper right", ncols=3)
    axes[-1].set_xlabel("time [s]")
    return figure


def _plot_distance(log: Log, distance: Array) -> Figure:
    figure, panel = plt.subplots(figsize=(10, 2.8), layout="constrained")
    seconds = log.seconds
    panel.semilogy(seconds, np.where(log.running, distance * 100, np.nan), color="tab:orange")
    for settled in settled_ticks(log):
        panel.axvspan(
            float(seconds[settled[0]]), float(seconds[settled[-1]]), color="tab:green", alpha=0.15
        )
    panel.axhline(ERROR_LIMIT_M * 100, color="tab:red", ls="--", lw=1)
    panel.set(xlabel="time [s] (judged where shaded)", ylabel="distance [cm]")
    return figure
