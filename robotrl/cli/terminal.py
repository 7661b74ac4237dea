"""What the verbs share: where they print, arguments of several, and errors as one message."""

import contextlib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from deploy.errors import DeployError

console = Console(stderr=True, soft_wrap=True)
"""For people: progress and errors."""
out = Console(soft_wrap=True, highlight=False, markup=False)
"""For results, which may be piped elsewhere."""

PolicyArgument = Annotated[Path, typer.Argument(help="The ONNX file `robotrl export` wrote.")]
RobotArgument = Annotated[Path, typer.Argument(help="Wiring, e.g. configs/robots/desk_arm.yaml.")]
PortOption = Annotated[
    str | None,
    typer.Option(help="Serial port; overrides the robot's YAML. Of several: NAME=PORT,NAME=PORT."),
]
BestOption = Annotated[
    bool, typer.Option("--best", help="Of a run: its best evaluation; default: the latest policy.")
]


@contextlib.contextmanager
def reported() -> Iterator[None]:
    """Turn the errors we raise on purpose, and those of a user's task, into a message."""
    try:
        yield
    except DeployError as error:
        notes = "".join(f"\n{note}" for note in getattr(error, "__notes__", ()))
        console.print(f"[bold red]error:[/] {plain(error)}{plain(notes)}", highlight=False)
        raise typer.Exit(1) from None
    except Exception as error:
        user_task = sys.modules.get("envs.user_task")  # which a robot does not have
        if user_task is None or (line := user_task.user_line(error)) is None:
            raise
        console.print(f"[bold red]error:[/] {plain(line)}", highlight=False)
        raise typer.Exit(1) from None


@contextlib.contextmanager
def needs(extra: str) -> Iterator[None]:
    """Say which extra to install when a verb's packages are missing."""
    try:
        yield
    except ModuleNotFoundError as error:
        if error.name and error.name.partition(".")[0] in ("deploy", "envs", "robotrl"):
            raise
        console.print(
            f"[bold red]error:[/] this verb needs {error.name}, which is not installed; "
            f"run `pip install 'robotrl\\[{extra}]'`"
        )
        raise typer.Exit(1) from None


def plain(text: Any) -> str:
    """Text whose square brackets are not markup."""
    return str(text).replace("[", "\\[")
