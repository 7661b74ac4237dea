"""`robotrl report`: a log as one self-contained HTML page, with plots and a verdict.

A policy that reaches or moves a thing is judged by how near that came (`reaching`), one that walks
by how it went (`walking`), which only a twin knows (`--truth`), and any by the limits it kept
(`verdict`).
"""

import base64
import html
import io
import json
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure

from deploy.contract import Contract
from deploy.governor import LimitedBy
from robotrl.report.log import Log, read_log
from robotrl.report.plots import plot_joints, plot_signals, plot_timing
from robotrl.report.reaching import ERROR_LIMIT_M, has_targets, judge_reach
from robotrl.report.verdict import MIN_TARGETS, Verdict, violations
from robotrl.report.walking import COMMAND as WALK
from robotrl.report.walking import judge_walk, plot_walk, read_truth


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
    errors_m, limit_m, source, figures = None, ERROR_LIMIT_M, "", {}
    if has_targets(log):
        errors_m, limit_m, source, figures = judge_reach(log, truth)
    walk = None
    if log.contract.command.name == WALK and truth is not None and (real := read_truth(log, truth)):
        walk, figures = judge_walk(log, real), plot_walk(log, real)
    enough_s = MIN_TARGETS * log.contract.command.interval_s[1]
    verdict = Verdict(errors_m, violations(log), source, walk, enough_s, limit_m)
    figures |= {
        "Joints: commanded and measured": plot_joints(log),
        "Signals: what the policy was shown": plot_signals(log),
        "Timing of a tick": plot_timing(log),
    }
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_text(_page(log, verdict, figures, truth))
    return verdict


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
