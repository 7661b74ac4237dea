"""A walk in the report: did it go where it was told, did it fall, how hard did its servos work.

    walk = judge_walk(log, truth)
    figures = plot_walk(log, truth, walk)

Only a twin knows how fast its base really went (`robotrl twin --truth`); a real robot's walk is
judged by the limits it kept. Torque and temperature are those of the twin's motors: estimates, see
`deploy.twin.heat`.
"""

from dataclasses import dataclass
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure

from envs.robot import load_robot
from envs.walking.legs import home_height
from robotrl.report.log import Array, Log
from robotrl.report.truth import open_truth, require_same_run
from robotrl.report.walk_score import (
    Leg,
    base_twist,
    count_falls,
    fallen,
    judge_legs,
    smoothed,
    tilt,
)

COMMAND = "velocity"
"""Name of the command of a policy that walks."""
LEAST_SHARE, MOST_ERROR_M_S = 0.8, 0.1
"""What a walk needs to pass: of the speed asked for in the mean, and rms of what it lacks."""
_WINDOW_S = 1.0


@dataclass(frozen=True)
class Truth:
    """What the twin's base and motors did, at the ticks of a log."""

    pose: Array
    """(T, 7)"""
    twist: Array
    """(T, 3), see `base_twist`."""
    torque_nm: Array
    """(T, joints)"""
    temperature_c: Array
    """(T, joints)"""
    joints: list[str]


@dataclass(frozen=True)
class Walk:
    """How it went."""

    legs: list[Leg]
    falls: int
    torque_rms_nm: dict[str, float]
    """By joint, while the policy ran."""
    temperature_c: dict[str, float]
    """By joint, when the policy ended."""

    @property
    def share(self) -> float:
        """Speed along the command by that asked for, mean over the commands to move."""
        shares = [leg.share for leg in self.legs if np.isfinite(leg.share)]
        return float(np.mean(shares)) if shares else float("nan")

    @property
    def error_m_s(self) -> float:
        """Rms over the commands of what the velocity lacks."""
        errors = [leg.error_m_s for leg in self.legs]
        return float(np.sqrt(np.mean(np.square(errors)))) if errors else float("nan")

    @property
    def passed(self) -> bool:
        """It did not fall, and went where it was told."""
        return not self.falls and self.share >= LEAST_SHARE and self.error_m_s <= MOST_ERROR_M_S

    def summary(self) -> str:
        """In a line."""
        hardest = max(self.torque_rms_nm, key=lambda name: self.torque_rms_nm[name])
        warmest = max(self.temperature_c, key=lambda name: self.temperature_c[name])
        return (
            f"{self.falls} falls, {self.share:.0%} of the speed asked for over {len(self.legs)} "
            f"commands (at least {LEAST_SHARE:.0%}), error {self.error_m_s:.3f} m/s rms (at most "
            f"{MOST_ERROR_M_S:g}); most torque {self.torque_rms_nm[hardest]:.2f} N·m rms in "
            f"{hardest}, warmest {self.temperature_c[warmest]:.0f} °C in {warmest}"
        )

    def rows(self) -> dict[str, str]:
        """Asked and achieved, command by command."""
        return {
            f"at {leg.begin_s:.1f} s: {_twist(leg.command)}": (
                f"{_twist(leg.achieved)}; error {leg.error_m_s:.3f} m/s rms"
                + (", fell" if leg.fell else "")
            )
            for leg in self.legs
        }

    def effort(self) -> dict[str, str]:
        """What each joint had to give."""
        return {
            name: f"{torque:.3f} N·m rms, {self.temperature_c[name]:.0f} °C"
            for name, torque in self.torque_rms_nm.items()
        }


def read_truth(log: Log, path: Path) -> Truth | None:
    """The truth at the ticks of a log; None if the twin stands on a table.

    Raises:
        ConfigError: it is no truth file, or another run's.
    """
    with open_truth(path) as file:
        if "base_pose" not in file:
            return None
        times, names = file["time_s"], ("base_pose", "base_velocity", "motor_torque")
        columns = [file[name] for name in (*names, "temperature_c")]
        joints = file["joints"].tolist()
    ticks = log.ticks["time_s"]
    require_same_run(path, times, ticks)
    nearest = np.clip(np.searchsorted(times, ticks), 0, len(times) - 1)
    pose, velocity, torque, temperature = (column[nearest] for column in columns)
    return Truth(pose, base_twist(pose, velocity), torque, temperature, joints)


def judge_walk(log: Log, truth: Truth) -> Walk:
    """How the policy walked."""
    running = log.running
    down = fallen(truth.pose[running], home_height(load_robot(log.contract.robot)))
    torque = np.sqrt((truth.torque_nm[running] ** 2).mean(axis=0)).tolist()
    return Walk(
        judge_legs(
            log.ticks["time_s"][running],
            log.ticks["command"][running].astype(float),
            truth.twist[running],
            down,
        ),
        count_falls(down),
        dict(zip(truth.joints, torque, strict=True)),
        dict(zip(truth.joints, truth.temperature_c[running][-1].tolist(), strict=True)),
    )


def plot_walk(log: Log, truth: Truth) -> dict[str, Figure]:
    """Speed, tilt and torque over the run."""
    running = log.running
    seconds = log.seconds[running]
    return {
        "Speed: asked for and achieved": _plot_speed(
            seconds, log.ticks["command"][running], truth.twist[running]
        ),
        "Tilt of the base": _plot_tilt(seconds, truth.pose[running]),
        "Torque and temperature": _plot_effort(
            seconds, truth.torque_nm[running], truth.temperature_c[running], truth.joints
        ),
    }


def _plot_speed(seconds: Array, command: Array, twist: Array) -> Figure:
    figure, axes = plt.subplots(3, 1, figsize=(10, 6), sharex=True, layout="constrained")
    smooth = smoothed(twist, float(np.median(np.diff(seconds))))
    labels = ("forward [m/s]", "left [m/s]", "turning [rad/s]")
    for column, (panel, label) in enumerate(zip(axes, labels, strict=True)):
        panel.step(seconds, command[:, column], "k--", lw=1, where="post", label="asked for")
        panel.plot(seconds, twist[:, column], color="tab:orange", lw=0.4, alpha=0.5)
        panel.plot(
            seconds, smooth[:, column], color="tab:orange", lw=1.4, label="achieved, over 0.3 s"
        )
        panel.set_ylabel(label)
    axes[0].legend(loc="upper right", ncols=2)
    axes[-1].set_xlabel("time [s]")
    return figure


def _plot_tilt(seconds: Array, pose: Array) -> Figure:
    figure, panel = plt.subplots(figsize=(10, 2.4), layout="constrained")
    panel.plot(seconds, np.degrees(tilt(pose)), lw=0.9)
    panel.set(xlabel="time [s]", ylabel="tilt [°]")
    return figure


def _plot_effort(
    seconds: Array, torque_nm: Array, temperature_c: Array, joints: list[str]
) -> Figure:
    figure, axes = plt.subplots(2, 1, figsize=(10, 5.5), sharex=True, layout="constrained")
    ticks = round(_WINDOW_S / float(np.median(np.diff(seconds))))
    ticks = min(max(1, ticks), len(seconds))  # a walk may be shorter than the window
    window = np.ones(ticks) / ticks
    for column, joint in enumerate(joints):
        rms = np.sqrt(np.convolve(torque_nm[:, column] ** 2, window, mode="same"))
        axes[0].plot(seconds, rms, lw=0.9, label=joint)
        axes[1].plot(seconds, temperature_c[:, column], lw=0.9)
    axes[0].set_ylabel("torque, rms over 1 s [N·m]")
    axes[1].set(xlabel="time [s]", ylabel="temperature [°C]")
    axes[0].legend(loc="upper right", ncols=5, fontsize=6)
    return figure


def _twist(values: tuple[float, ...]) -> str:
    x, y, yaw = values
    return f"{x:+.2f} m/s forward, {y:+.2f} left, {yaw:+.2f} rad/s"
