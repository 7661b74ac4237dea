"""Look at the servos of a robot, and set them back."""

from pathlib import Path
from typing import Annotated

import typer

from robotrl.cli.terminal import PortOption, RobotArgument, out, reported


def scan(
    robot: RobotArgument,
    port: PortOption = None,
    every: Annotated[
        bool, typer.Option("--every", help="Ask all ids from 0 to 252, not only 0 to 20.")
    ] = False,
) -> None:
    """Say which servos, boards and IMUs answer, and how they are; nothing is changed.

    Example: `robotrl scan configs/robots/so101.yaml --port /dev/ttyACM0`
    """
    from robotrl.run_policy import scan_robot

    with reported():
        for line in scan_robot(robot, port, range(253 if every else 21)):
            out.print(line, highlight=False)


def release(robot: RobotArgument, port: PortOption = None) -> None:
    """Turn the torque of every servo off. Hold the robot: it may fall.

    Example: `robotrl release configs/robots/desk_arm.yaml`
    """
    from robotrl.run_policy import release_robot

    with reported():
        release_robot(robot, port)
        out.print("torque is off on every servo, read back")


def restore(
    saved: Annotated[Path, typer.Argument(help="The file `robotrl run` named when it saved.")],
    robot: RobotArgument,
    port: PortOption = None,
) -> None:
    """Write the settings that `robotrl run` changed back into the servos.

    Example: `robotrl restore logs/desk_arm-servos-2026-01-31_12-00-00.yaml
    configs/robots/desk_arm.yaml`
    """
    from robotrl.run_policy import restore_robot

    with reported():
        for line in restore_robot(saved, robot, port):
            out.print(line)
