"""Watch a policy, a task, or a world that diverged."""

from pathlib import Path
from typing import Annotated

import typer

from robotrl.cli.terminal import BestOption, needs, out, reported


def play(
    source: Annotated[
        str,
        typer.Argument(
            metavar="RUN|POLICY|TASK",
            help="A run's folder, an ONNX file, a task's name, a training YAML, or a file of "
            "runs/NAME/diverged/.",
        ),
    ],
    video: Annotated[Path | None, typer.Option(help="Write an MP4 file instead.")] = None,
    seconds: Annotated[
        float | None,
        typer.Option(min=0.1, max=3600, help="How long; default 10 for a video, else no end."),
    ] = None,
    seed: Annotated[
        int | None, typer.Option(min=0, help="Seed of the world; default: not training's.")
    ] = None,
    command: Annotated[
        str | None, typer.Option(help="Hold one command, e.g. 0.2,0.0,0.1; default: random ones.")
    ] = None,
    random: Annotated[
        bool, typer.Option("--random", help="Random actions in a bare task; default: zero.")
    ] = False,
    port: Annotated[
        int, typer.Option(min=0, max=65535, help="Of the page; 0: the first free one from 8080.")
    ] = 0,
    best: BestOption = False,
) -> None:
    """Watch a policy or a task, on a page for this machine's browser or in a video.

    On the page: sliders for the command, space pauses, double-click a body, and drag with
    Ctrl and the right mouse button to push it, the left one to twist it. From elsewhere: `ssh -L
    8080:localhost:8080 machine`. A file of `diverged` is told as text, or shown with --video.

    Examples: `robotrl play runs/arm_reach`, `robotrl play policy.onnx --video arm.mp4` and
    `robotrl play arm_reach --random --seconds 20`
    """
    if video is not None and port:
        raise typer.BadParameter("give --video, or --port of the page")
    if source.endswith(".npz"):
        if any(option is not None for option in (seconds, seed, command)) or random or port:
            raise typer.BadParameter("a divergence is replayed as it was; give --video or nothing")
        _play_divergence(Path(source), video)
        return
    with needs("train"):
        from robotrl.play.session import open_session
        from robotrl.play.viewer import watch
    values = _floats(command) if command is not None else None
    with reported():
        session = open_session(source, seed=seed, action="random" if random else None, best=best)
        if values is not None:
            session.hold_command(values)
            session.reset()
        if video is None:
            watch(session, port=port, seconds=seconds)
            return
        with needs("train"):
            from robotrl.play.video import film
        film(session, video, seconds=seconds or 10.0)
        out.print(f"video: {video}")


def _play_divergence(path: Path, video: Path | None) -> None:
    with needs("train"):
        from envs.divergence import replay
        from envs.divergence.__main__ import describe
    with reported():
        result = replay(path)
        for line in describe(result):
            out.print(line)
        if video is None:
            return
        with needs("train"):
            from robotrl.play.video import film_divergence
        film_divergence(result, video)
        out.print(f"video: {video}")


def _floats(text: str) -> list[float]:
    try:
        return [float(part) for part in text.split(",")]
    except ValueError:
        raise typer.BadParameter(
            f"--command takes numbers like 0.2,0.0,0.1, found {text!r}"
        ) from None
