"""Turn a log into a page."""

from pathlib import Path
from typing import Annotated

import typer

from robotrl.cli.terminal import needs, out, reported


def report(
    log: Annotated[Path, typer.Argument(help="The MCAP file `robotrl run` wrote.")],
    output: Annotated[Path | None, typer.Option("--output", "-o", help="HTML file.")] = None,
    truth: Annotated[Path | None, typer.Option(help="A twin's --truth file.")] = None,
) -> None:
    """Turn a log into an HTML page with plots and a verdict; fails if the verdict does.

    Example: `robotrl report logs/2026-01-31_12-00-00.mcap`
    """
    with needs("train"):
        from robotrl.report.page import write_report
    with reported():
        output = output or log.with_suffix(".html")
        verdict = write_report(log, output, truth)
        out.print(verdict.summary())
        out.print(f"report: {output}")
    raise typer.Exit(0 if verdict.passed else 1)
