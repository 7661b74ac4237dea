"""Say what a robot is, and draw it."""

from pathlib import Path
from typing import Annotated

import typer

from robotrl.cli.terminal import needs, out, reported


def show_robot(
    robot: Annotated[
        str, typer.Argument(help="A YAML, MJCF or URDF of your own, or a name, e.g. desk_arm.")
    ],
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="The PNG; default NAME-robot.png.")
    ] = None,
) -> None:
    """Say what a robot is and what it lacks for training, and draw it.

    The picture shows its poses, and every joint at +0.3 rad with an arrow: compare the signs with
    the real one.

    Example: `robotrl robot my_arm.yaml`
    """
    with needs("train"):
        from envs.robot import load_robot
        from robotrl.robot_check import check_robot
        from robotrl.robot_pictures import draw_robot
    with reported():
        model = load_robot(robot)
        report = check_robot(model)
        for line in report.lines():
            out.print(line)
        if model.unchecked:
            output = output or Path(f"{model.name}-robot.png")
            draw_robot(model, output)
            out.print(f"pictures: {output}")
    raise typer.Exit(1 if report.problems else 0)
