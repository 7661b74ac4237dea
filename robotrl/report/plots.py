"""What a run looked like over time, whatever its task."""

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure

from robotrl.report.log import Log


def plot_joints(log: Log) -> Figure:
    """A panel for each joint: what was sent, what was measured, where the governor limited it."""
    names = log.contract.joint_names
    figure, axes = plt.subplots(
        len(names), 1, figsize=(10, 1.3 * len(names)), sharex=True, layout="constrained"
    )
    seconds, ticks = log.seconds, log.ticks
    for index, (name, panel) in enumerate(zip(names, axes, strict=True)):
        panel.plot(seconds, ticks["sent_target"][:, index], "k--", lw=0.8, label="commanded")
        panel.plot(seconds, ticks["joint_position"][:, index], lw=1.2, label="measured")
        limited = np.flatnonzero(ticks["limited_by"][:, index])
        panel.plot(seconds[limited], ticks["sent_target"][limited, index], "r.", ms=3,
                   label="limited by the governor")  # fmt: skip
        panel.set_ylabel(f"{name}\n[rad]", fontsize=8)
    axes[0].legend(loc="upper right", ncols=3, fontsize=8)
    axes[-1].set_xlabel("time [s]")
    return figure


def plot_signals(log: Log) -> Figure:
    """A panel for each signal the policy was shown, a line for each of its elements."""
    seconds = log.seconds  # older logs do not have them all
    inputs = [spec for spec in log.contract.inputs if spec.kind in log.ticks]
    figure, axes = plt.subplots(
        len(inputs), 1, figsize=(10, 1.6 * len(inputs)), sharex=True, layout="constrained",
        squeeze=False,
    )  # fmt: skip
    for spec, panel in zip(inputs, axes[:, 0], strict=True):
        for column, element in enumerate(spec.elements):
            shown = np.where(log.running, log.ticks[spec.kind][:, column], np.nan)
            panel.plot(seconds, shown, lw=0.9, label=element)
        unit = spec.unit if isinstance(spec.unit, str) else ", ".join(spec.unit)
        panel.set_ylabel(f"{spec.kind.replace('_', ' ')}\n[{unit}]", fontsize=8)
        panel.legend(loc="upper right", ncols=6, fontsize=6)
    axes[-1, 0].set_xlabel("time [s]")
    return figure


def plot_timing(log: Log) -> Figure:
    """What the parts of a tick took."""
    figure, panels = plt.subplots(1, 4, figsize=(10, 2.6), layout="constrained")
    titles = {
        "lateness_s": "lateness",
        "read_s": "bus read",
        "controller_s": "controller",
        "write_s": "limit and write",
    }
    for panel, (name, title) in zip(panels, titles.items(), strict=True):
        values = log.ticks[name][log.running] * 1e3
        panel.hist(values, bins=50, log=True, color="tab:blue")
        p50, p99 = np.percentile(values, [50, 99])
        panel.set(title=f"{title}\np50 {p50:.2f}  p99 {p99:.2f}  max {values.max():.2f} ms")
        panel.title.set_fontsize(9)
        panel.set_xlabel("ms")
    panels[0].set_ylabel("ticks")
    return figure
