"""Start a simulated robot."""

import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from robotrl.cli.terminal import RobotArgument, needs, reported


def twin(
    robot: RobotArgument,
    seed: Annotated[
        int | None,
        typer.Option(min=0, help="Draw other masses, friction, motors; none: the nominal robot."),
    ] = None,
    link: Annotated[Path | None, typer.Option(help="Also make the port available here.")] = None,
    truth: Annotated[
        Path | None, typer.Option(help="Write where the robot really was (.npz) at the end.")
    ] = None,
    lift: Annotated[
        bool,
        typer.Option(help="Put a robot on its feet when its servos hold, as its owner would."),
    ] = True,
    thing: Annotated[
        Path | None,
        typer.Option(help="What lies before it, e.g. configs/things/puck.xml; see --camera."),
    ] = None,
    camera: Annotated[
        str | None,
        typer.Option(
            metavar="[HOST:]PORT",
            help="Send there where the thing is, as a tracker would, for `robotrl run --listen`.",
        ),
    ] = None,
    faults: Annotated[
        Path | None, typer.Option(help="What goes wrong, and when: a YAML, deploy/twin/faults.py.")
    ] = None,
) -> None:
    """Start the simulated robot behind a serial port; prints the port, ends with Ctrl-C.

    Examples: `robotrl twin configs/robots/desk_arm.yaml --link /tmp/desk_arm` and
    `robotrl twin configs/robots/desk_arm.yaml --thing configs/things/puck.xml --camera 5555`
    """
    with needs("train"):
        from deploy.twin.faults import FaultScript
        from deploy.twin.parameters import draw
        from deploy.twin.server import serve
        from envs.robot import load_robot
    from deploy.commands.udp import parse_address
    from deploy.configuration import load_yaml
    from deploy.robot_config import RobotConfig

    if camera and not thing:
        raise typer.BadParameter("--camera sees nothing; give a --thing, too")
    with reported(), tempfile.TemporaryDirectory() as folder:
        config = load_yaml(robot, RobotConfig)
        model = load_robot(str(robot.parent / config.model) if config.model else config.robot)
        path = model.path
        if path.suffix != ".xml":
            path = Path(folder) / f"{model.name}.xml"
            path.write_text(model.mjcf())
        serve(
            path,
            config,
            draw(seed, path) if lift else replace(draw(seed, path), let_go_after_s=0.0),
            link=link,
            truth_path=truth,
            faults=load_yaml(faults, FaultScript) if faults else None,
            thing=thing,
            camera=parse_address(camera, "--camera") if camera else None,
            ready=lambda port: print(port, flush=True),
        )
