"""`robotrl bench`: tasks × algorithms × seeds, a table and learning curves.

    bench(Path("bench.yaml"), Path("runs/bench"), console)

Every training is a process and a run's folder of its own, made by `robotrl train`; the same command
again goes on where it was interrupted and leaves alone what is finished. Scores are the returns of
the deterministic policy in worlds of its own (`evaluations.csv`): of the last evaluation, and of
the best. Over seeds they are interquartile means with 95 % intervals (`robotrl.bench.statistics`).
Written are `results.csv` (a line for each run), `table.md` and `curves.png`.
"""

import csv
import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, MaxNLocator
from rich.console import Console

from deploy.errors import ConfigError, DeployError
from robotrl.bench.bench_config import BenchRun, load_bench
from robotrl.bench.statistics import interquartile_mean, stratified_interval
from robotrl.bench.trainings import LocalTrainings, RayTrainings, Trainings
from robotrl.runs.run_folder import RunFolder
from robotrl.runs.train import rehearse


class BenchError(DeployError, RuntimeError):
    """A training of the bench failed."""


def bench(path: Path, output: Path, console: Console, *, ray: bool = False) -> None:
    """Train what is not trained yet, then write the results.

    Args:
        path: the bench's YAML.
        output: its folder.
        console: where to tell how far it is.
        ray: spread over a Ray cluster instead of the processes of this machine.

    Raises:
        ConfigError: a setting is wrong, or a run there was made with others, or there is no Ray.
        BenchError: a training failed; the others were finished.
    """
    config, runs = load_bench(path)
    trainings = RayTrainings() if ray else LocalTrainings()
    for run in {(run.task, run.algorithm): run for run in runs}.values():
        rehearse(run.config, source=path)
    missing = [run for run in runs if not _finished(run, output)]
    for run in missing:
        folder = RunFolder(output / run.name)
        if not folder.config_path.exists():
            folder.create(run.config)
    console.print(f"{len(runs) - len(missing)} of {len(runs)} trainings are finished")
    processes = config.processes or (len(runs) if ray else os.cpu_count() or 1)  # Ray counts cores
    failed = _train_all(missing, output, processes, trainings, console) if missing else []
    finished = [run for run in runs if run not in failed]
    if finished:
        write_results(finished, output, config.normalize)
        console.print((output / "table.md").read_text(), markup=False, highlight=False)
    if failed:
        raise BenchError(
            f"{len(failed)} of {len(runs)} trainings failed, the first {failed[0].name}: see "
            f"{output / failed[0].name / 'train.log'}. The same command again tries them again"
        )


def _finished(run: BenchRun, output: Path) -> bool:
    """Whether a run has come to its end.

    Raises:
        ConfigError: it was made with other settings, or is not evaluated.
    """
    if run.config.evaluation is None:
        raise ConfigError(f"{run.name}: evaluation is null; a bench compares evaluations")
    folder = RunFolder(output / run.name)
    if not folder.config_path.exists():
        return False
    if folder.config() != run.config:
        raise ConfigError(
            f"{folder.path} was trained with other settings; remove it, or choose another --output"
        )
    rows = folder.evaluations()
    return bool(rows) and rows[-1]["env_steps"] >= run.config.env_steps


def _train_all(
    runs: Sequence[BenchRun], output: Path, processes: int, trainings: Trainings, console: Console
) -> list[BenchRun]:
    """Train, so many at a time; returns those that failed. Ctrl-C saves all and leaves."""
    failed = []
    with trainings, ThreadPoolExecutor(max_workers=max(min(processes, len(runs)), 1)) as pool:
        waiting = {pool.submit(trainings.run, output / run.name): run for run in runs}
        try:
            for number, future in enumerate(as_completed(waiting), start=1):
                run = waiting[future]
                text = "done" if future.result() == 0 else "FAILED"
                if text == "FAILED":
                    failed.append(run)
                console.print(f"{number}/{len(runs)} {run.name} {text}", highlight=False)
        except KeyboardInterrupt:
            trainings.stop()
            console.print("saving; the same command goes on")
            raise
    return failed


def write_results(
    runs: Sequence[BenchRun], output: Path, normalize: Mapping[str, tuple[float, float]]
) -> None:
    """`results.csv`, `table.md` and `curves.png` of finished runs."""
    rows = [_result(run, output) for run in runs]
    with (output / "results.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    (output / "table.md").write_text(_table(rows) + _over_all(rows, normalize))
    draw_curves(runs, output).savefig(output / "curves.png", dpi=120)


def _result(run: BenchRun, output: Path) -> dict[str, Any]:
    rows = RunFolder(output / run.name).evaluations()
    return {
        "task": run.task,
        "algorithm": run.algorithm,
        "seed": run.seed,
        "env_steps": int(rows[-1]["env_steps"]),
        "final": rows[-1]["return"],
        "best": max(row["return"] for row in rows),
        "cpu_s": rows[-1]["speed/cpu_s"],
        "wall_s": rows[-1]["speed/wall_s"],
    }


def _table(rows: Sequence[dict[str, Any]]) -> str:
    """One line for each task and algorithm, in Markdown."""
    lines = [
        "| task | algorithm | seeds | steps | final return (IQM, 95 %) | best | CPU s | wall s |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for task, algorithm in dict.fromkeys((row["task"], row["algorithm"]) for row in rows):
        own = [row for row in rows if (row["task"], row["algorithm"]) == (task, algorithm)]
        values = {
            name: np.array([row[name] for row in own], dtype=float)
            for name in ("env_steps", "final", "best", "cpu_s", "wall_s")
        }
        low, high = stratified_interval([values["final"]])
        interval = "" if np.isnan(low) else f" ({low:.4g} … {high:.4g})"
        lines.append(
            f"| {task} | {algorithm} | {len(own)} | {values['env_steps'].mean():,.0f} "
            f"| {interquartile_mean(values['final']):.4g}{interval} "
            f"| {interquartile_mean(values['best']):.4g} "
            f"| {values['cpu_s'].mean():.0f} | {values['wall_s'].mean():.0f} |"
        )
    return "\n".join(lines) + "\n"


def _over_all(rows: Sequence[dict[str, Any]], normalize: Mapping[str, tuple[float, float]]) -> str:
    """A line for each algorithm that has a run of every task, with normalised returns."""
    lines = []
    for algorithm in dict.fromkeys(row["algorithm"] for row in rows) if normalize else ():
        scores = [
            np.array(
                [
                    (row["final"] - low) / (high - low)
                    for row in rows
                    if (row["task"], row["algorithm"]) == (task, algorithm)
                ]
            )
            for task, (low, high) in normalize.items()
        ]
        if not all(map(len, scores)):  # else it would not be over all
            continue
        low, high = stratified_interval(scores)
        mean = interquartile_mean(np.concatenate(scores))
        lines.append(
            f"| all, normalised | {algorithm} | {sum(map(len, scores))} | "
            f"| {mean:.4g} ({low:.4g} … {high:.4g}) | | | |\n"
        )
    return "".join(lines)


def draw_curves(runs: Sequence[BenchRun], output: Path) -> Figure:
    """Return over steps: a picture for each task, a line for each algorithm."""
    tasks = list(dict.fromkeys(run.task for run in runs))
    columns = min(len(tasks), 3)
    rows = -(-len(tasks) // columns)
    figure = Figure(figsize=(5 * columns, 3.6 * rows), layout="constrained")
    FigureCanvasAgg(figure)
    all_axes = list(figure.subplots(rows, columns, squeeze=False).flat)
    for axes in all_axes[len(tasks) :]:
        axes.set_visible(False)
    for axes, task in zip(all_axes, tasks, strict=False):
        for algorithm in dict.fromkeys(run.algorithm for run in runs if run.task == task):
            own = [run for run in runs if (run.task, run.algorithm) == (task, algorithm)]
            steps, returns = _curves([RunFolder(output / run.name) for run in own])
            line = axes.plot(steps, interquartile_mean(returns), label=algorithm)[0]
            ends = np.array([stratified_interval([at]) for at in returns])
            axes.fill_between(steps, *ends.T, color=line.get_color(), alpha=0.2, linewidth=0)
        axes.set(title=task, xlabel="environment steps", ylabel="return")
        axes.xaxis.set_major_formatter(EngFormatter(sep=""))  # 200k
        axes.xaxis.set_major_locator(MaxNLocator(5))
        axes.grid(alpha=0.3)
        axes.legend(frameon=False)
    return figure


def _curves(folders: Sequence[RunFolder]) -> tuple[np.ndarray, np.ndarray]:
    """Steps (evaluations,) that all have been evaluated at, and returns (evaluations, runs)."""
    tables = [
        {row["env_steps"]: row["return"] for row in folder.evaluations()} for folder in folders
    ]
    steps = sorted(set.intersection(*(set(table) for table in tables)))
    return np.array(steps), np.array([[table[step] for table in tables] for step in steps])
