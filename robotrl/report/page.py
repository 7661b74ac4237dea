"""`robotrl report`: a log as one self-contained HTML page, with plots and a verdict.

A policy that reaches (its command names a site) is judged by how near the tool came: its path is
computed from the measured joint angles with the robot's own model. A twin also knows where its tool
really was (`--truth`); then the verdict is about that. One that walks is judged by how it went
(`robotrl.report.walking`), which only a twin knows. Any policy is judged by the limits it kept.
"""

import base64
import html
import io
import json
import math
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import takewhile
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import mujoco
import numpy as np
from matplotlib.figure import Figure
from mcap.records import Channel, Message, Metadata
from mcap.stream_reader import StreamReader
from numpy.typing import NDArray

from deploy.contract import Contract, parse_contract
from deploy.errors import ConfigError
from deploy.governor import LimitedBy
from deploy.recorder import EVENT_TOPIC, TOPIC
from deploy.robot_config import RobotConfig
from deploy.runtime import State
from envs.robot import load_robot
from robotrl.report.walking import COMMAND as WALK
from robotrl.report.walking import Walk, judge_walk, plot_walk, read_truth

Array = NDArray[np.float64]

ERROR_LIMIT_M = 0.005
"""Largest median distance to the target that counts as success."""
MIN_TARGETS = 5
"""Fewer say too little: of two near ones, another two may lie far."""
PARKED = [State.STOPPING.name.lower(), State.IDLE.name.lower()]
"""The last two states of a run that went as planned."""
SETTLE_S = 1.0
"""The distance is judged over this long before each change of target."""


@dataclass(frozen=True)
class Log:
    """A run as arrays over its ticks."""

    contract: Contract
    robot: RobotConfig
    ticks: dict[str, NDArray[Any]]
    events: list[dict[str, Any]]
    """Changes of state, in order: `time_s`, `state`, and what there was to say (`text`)."""
    run: dict[str, Any] = field(default_factory=dict)
    """What was run where: port, command line, versions."""
    damage: str = ""
    """Why the file is not complete; empty if it is."""

    @property
    def running(self) -> NDArray[np.bool_]:
        """Ticks in which the policy was in charge."""
        return self.ticks["state"] == State.RUNNING


@dataclass(frozen=True)
class Verdict:
    """How the run went."""

    errors_m: list[float] | None
    """Mean distance in the last second of each target; None if the command is no point to reach."""
    violations: list[str]
    """Limits that were exceeded, and faults."""
    source: str
    """Where the tool position comes from."""
    walk: Walk | None = None
    """How it went, if it walks and that is known."""
    enough_s: float = 0.0
    """A run of random commands this long has `MIN_TARGETS`."""

    @property
    def median_error_m(self) -> float:
        """Median over targets, not a number if there were none."""
        return float(np.median(self.errors_m)) if self.errors_m else float("nan")

    @property
    def undecided(self) -> bool:
        """Nothing is wrong, and too little was seen to say that all is well."""
        few = self.errors_m is not None and len(self.errors_m) < MIN_TARGETS
        return few and not self.violations

    @property
    def passed(self) -> bool:
        """Accurate enough, often enough, and no limit violated."""
        if self.undecided or self.violations:
            return False
        accurate = self.errors_m is None or self.median_error_m <= ERROR_LIMIT_M
        return accurate and (self.walk is None or self.walk.passed)

    @property
    def word(self) -> str:
        """The verdict in one."""
        return "UNDECIDED" if self.undecided else "PASS" if self.passed else "FAIL"

    def summary(self) -> str:
        """The verdict in a line or two."""
        lines = [f"{self.word}: {self._judgement()}"]
        if self.undecided:
            lines.append(
                f"  too few targets to judge, expected at least {MIN_TARGETS} that have their time;"
                f" run it with --command random --duration {math.ceil(self.enough_s)}"
            )
        return "\n".join([*lines, *(f"  violated: {text}" for text in self.violations)])

    def _judgement(self) -> str:
        if self.walk is not None:
            return self.walk.summary()
        if self.errors_m is None:
            return "judged by the limits alone, its command is no point to reach"
        return (
            f"median distance to target {self.median_error_m * 100:.2f} cm over "
            f"{len(self.errors_m)} targets ({self.source}); allowed {ERROR_LIMIT_M * 100:g} cm"
        )


def write_report(path: Path, output: Path, truth: Path | None = None) -> Verdict:
    """Read a log, write the page, return the verdict.

    Args:
        path: MCAP file written by `robotrl run`.
        output: HTML file.
        truth: .npz file written by `robotrl twin --truth`.

    Raises:
        ConfigError: a file is missing or holds no run of a policy.
    """
    log = read_log(path)
    errors_m, source, figures = None, "", {}
    if log.contract.command.site and "command" in log.ticks:
        errors_m, source, figures = _judge_reach(log, truth)
    walk = None
    if log.contract.command.name == WALK and truth is not None and (real := read_truth(log, truth)):
        walk, figures = judge_walk(log, real), plot_walk(log, real)
    enough_s = MIN_TARGETS * log.contract.command.interval_s[1]
    verdict = Verdict(errors_m, violations(log), source, walk, enough_s)
    figures |= {
        "Joints: commanded and measured": _plot_joints(log),
        "Signals: what the policy was shown": _plot_signals(log),
        "Timing of a tick": _plot_timing(log),
    }
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_text(_page(log, verdict, figures, truth))
    return verdict


def _judge_reach(log: Log, truth: Path | None) -> tuple[list[float], str, dict[str, Figure]]:
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


def read_log(path: Path) -> Log:
    """Read an MCAP log, also one that was never finished: as far as it goes.

    Raises:
        ConfigError: it cannot be read, or the policy never ran.
    """
    metadata, messages, damage = _read_mcap(path)
    try:
        robot = RobotConfig.model_validate_json(metadata["robot"])
        contract = parse_contract(metadata["contract"], source=str(path))
    except (KeyError, ValueError) as error:
        raise ConfigError(f"{path}: is no log of `robotrl run`: {damage or repr(error)}") from error
    ticks, events = ([json.loads(m.data) for m in messages[t]] for t in (TOPIC, EVENT_TOPIC))
    if missing := messages[TOPIC][-1].sequence + 1 - len(ticks) if ticks else 0:
        damage = "; ".join(filter(None, (damage, f"{missing} ticks are missing in between")))
    log = Log(
        contract,
        robot,
        {name: np.array([tick[name] for tick in ticks]) for name in (ticks or [{}])[0]},
        events,
        json.loads(metadata.get("run", "{}")),
        damage,
    )
    if not ticks or not log.running.any():
        raise ConfigError(
            f"{path}: the policy never ran ({len(ticks)} ticks recorded); {_describe_end(log)}"
        )
    return log


def _read_mcap(path: Path) -> tuple[dict[str, str], dict[str, list[Message]], str]:
    """Metadata, messages by topic, and what is wrong with the file; empty if nothing is."""
    metadata: dict[str, str] = {}
    topics: dict[int, str] = {}
    messages: dict[str, list[Message]] = {TOPIC: [], EVENT_TOPIC: []}
    try:
        with path.open("rb") as file:
            for record in StreamReader(file, validate_crcs=True).records:
                match record:
                    case Metadata(name="robotrl"):
                        metadata = record.metadata
                    case Channel():
                        topics[record.id] = record.topic
                    case Message():
                        messages.setdefault(topics[record.channel_id], []).append(record)
                    case _:
                        pass
    except OSError as error:
        others = sorted(path.parent.glob(f"{path.stem}.*.incomplete{path.suffix}"))
        hint = f"; an unfinished log of this name is {others[-1]}" if others else ""
        raise ConfigError(f"{path}: cannot be read: {error.strerror}{hint}") from error
    except Exception as error:  # mcap has several unrelated types for a damaged file
        return metadata, messages, f"the file ends too early or is damaged ({error!r})"
    return metadata, messages, ""


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


def violations(log: Log) -> list[str]:
    """Hardware limits the measured joints exceeded, and an end other than the planned one."""
    found = []
    for index, name in enumerate(log.contract.joint_names):
        wiring = log.robot.joints[name]
        low, high = wiring.range_rad
        angle = log.ticks["joint_position"][log.running, index]
        speed = np.abs(log.ticks["joint_velocity"][log.running, index]).max()
        if angle.min() < low or angle.max() > high:
            found.append(
                f"{name} was at {angle.min():.3f} to {angle.max():.3f} rad, "
                f"allowed {low} to {high} rad"
            )
        if speed > log.robot.safety.overspeed_factor * wiring.velocity_limit_rad_s:
            found.append(f"{name} moved at {speed:.1f} rad/s")
    if log.damage:
        found.append(f"the log is not complete: {log.damage}")
    if [event["state"] for event in log.events[-2:]] != PARKED:
        found.append(f"the run ended before the robot was parked; {_describe_end(log)}")
    return found


def _describe_end(log: Log) -> str:
    """How the run ended, as far as the log says."""
    if not log.events:
        return "the log does not say how it ended"
    state = log.events[-1]["state"]
    last = list(takewhile(lambda event: event["state"] == state, reversed(log.events)))
    words = [event["text"] for event in reversed(last) if event["text"]]
    return "\n".join([f"its last state is {state}", *words])


def _plot_paths(log: Log, tool: Array, measured: Array | None) -> Figure:
    figure, axes = plt.subplots(3, 1, figsize=(10, 6), sharex=True, layout="constrained")
    seconds = _seconds(log)
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
    seconds = _seconds(log)
    panel.semilogy(seconds, np.where(log.running, distance * 100, np.nan), color="tab:orange")
    for settled in settled_ticks(log):
        panel.axvspan(
            float(seconds[settled[0]]), float(seconds[settled[-1]]), color="tab:green", alpha=0.15
        )
    panel.axhline(ERROR_LIMIT_M * 100, color="tab:red", ls="--", lw=1)
    panel.set(xlabel="time [s] (judged where shaded)", ylabel="distance [cm]")
    return figure


def _plot_joints(log: Log) -> Figure:
    names = log.contract.joint_names
    figure, axes = plt.subplots(
        len(names), 1, figsize=(10, 1.3 * len(names)), sharex=True, layout="constrained"
    )
    seconds, ticks = _seconds(log), log.ticks
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


def _plot_signals(log: Log) -> Figure:
    """A panel for each signal the policy was shown, a line for each of its elements."""
    seconds = _seconds(log)  # older logs do not have them all
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


def _plot_timing(log: Log) -> Figure:
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


def _seconds(log: Log) -> Array:
    """Time since the policy took over."""
    return log.ticks["time_s"] - log.ticks["time_s"][log.running][0]


def _page(log: Log, verdict: Verdict, figures: dict[str, Figure], truth: Path | None) -> str:
    colour = "#1a7f37" if verdict.passed else "#c62828"
    sections = "".join(
        f"<h2>{title}</h2><img alt='{title}' src='data:image/svg+xml;base64,{_svg(figure)}'>"
        for title, figure in figures.items()
    )
    return f"""<!doctype html><html lang="en"><meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>robotrl report: {verdict.word.lower()}</title>
<style>
body {{ font: 15px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem;
        color: #1b1f24; }}
h1 {{ font-size: 1.5rem; }} h2 {{ font-size: 1.1rem; margin: 2rem 0 .3rem; }}
.verdict {{ border-left: 6px solid {colour}; background: #f6f8fa; padding: .8rem 1rem;
            white-space: pre-wrap; }}
table {{ border-collapse: collapse; }} td {{ padding: .15rem 1.2rem .15rem 0; }}
td:last-child {{ font-variant-numeric: tabular-nums; }} img {{ width: 100%; }}
</style>
<h1>{html.escape(log.contract.provenance.task)} on {html.escape(log.contract.robot)}</h1>
<p class="verdict"><b style="color: {colour}">{html.escape(verdict.summary())}</b></p>
{_table("Targets", _targets(verdict.errors_m)) if verdict.errors_m is not None else ""}
{_table("Commands: asked for, achieved", verdict.walk.rows()) if verdict.walk else ""}
{_table("Joints: torque and temperature", verdict.walk.effort()) if verdict.walk else ""}
{_table("Run", _numbers(log))}
{_table("What happened", _events(log))}
{sections}
{_table("Twin: factors on the nominal robot", _twin(truth)) if truth is not None else ""}
{_table("Policy", _policy(log.contract))}
{_table("Recorded on", _origin(log))}
</html>"""


def _targets(errors_m: list[float]) -> dict[str, str]:
    return {
        f"target {number}": f"{error * 100:.2f} cm"
        for number, error in enumerate(errors_m, start=1)
    }


def _numbers(log: Log) -> dict[str, str]:
    ticks, running = log.ticks, log.running
    limited = ticks["limited_by"][running]
    numbers = {
        "ticks, policy in charge": f"{running.sum()} of {len(running)}",
        "overruns": f"{ticks['overruns'][-1]}",
        "joint readings lost": f"{ticks['lost'][-1]}",
        "replies damaged": f"{ticks['crc_errors'][-1]}",
        "requests not answered in time": f"{ticks['timeouts'][-1]}",
        "readings asked for again": f"{ticks['retried'][-1]}",
        "replies that came too late to be used": f"{ticks['late'][-1]}",
    }
    for flag in LimitedBy:
        share = ((limited & flag) > 0).any(axis=1).mean()
        numbers[f"ticks limited by {(flag.name or '').lower()}"] = f"{share:.1%}"
    return numbers


def _events(log: Log) -> list[tuple[str, str]]:
    start_s = log.ticks["time_s"][log.running][0]
    return [
        (
            f"{event['time_s'] - start_s:.2f} s",
            ": ".join(filter(None, (event["state"].replace("_", " "), event["text"]))),
        )
        for event in log.events
    ]


def _origin(log: Log) -> dict[str, str]:
    rows = {"port": ", ".join(bus.port for bus in log.robot.wired.values())}
    for name, value in log.run.items():
        rows[name] = _inline(value)
    return rows


def _inline(value: object) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key} {_inline(item)}" for key, item in value.items())
    return " ".join(map(str, value)) if isinstance(value, list) else str(value)


def _twin(truth: Path | None) -> dict[str, str]:
    if truth is None:
        return {}
    with np.load(truth) as file:
        parameters = json.loads(str(file["parameters"]))
    rows = {}
    for name, value in parameters.items():
        if isinstance(value, dict):
            rows[name] = ", ".join(f"{key} {number:.3g}" for key, number in value.items()) or "1"
        else:
            rows[name] = f"{value:.4g}" if isinstance(value, float) else str(value)
    return rows


def _policy(contract: Contract) -> dict[str, str]:
    provenance = contract.provenance
    return {
        "control rate": f"{1 / contract.control_dt_s:.0f} Hz",
        "training steps": f"{provenance.env_steps:,}",
        "seed": str(provenance.seed),
        "commit": provenance.git_commit,
        "exported by commit": provenance.versions.get("export_commit", provenance.git_commit),
        "created": provenance.created,
        **{name: f"{value:.4g}" for name, value in contract.scorecard.items()},
    }


def _table(title: str, rows: dict[str, str] | list[tuple[str, str]]) -> str:
    body = "".join(
        f"<tr><td>{html.escape(name)}<td>{html.escape(value)}"
        for name, value in (rows.items() if isinstance(rows, dict) else rows)
    )
    return f"<h2>{html.escape(title)}</h2><table>{body}</table>"


def _svg(figure: Figure) -> str:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="svg")
    plt.close(figure)
    return base64.b64encode(buffer.getvalue()).decode()
