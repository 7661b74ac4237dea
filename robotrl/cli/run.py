"""Run a policy on a robot."""

import math
from datetime import datetime
from pathlib import Path
from typing import Annotated

import typer

from robotrl.cli.terminal import (
    PolicyArgument,
    PortOption,
    RobotArgument,
    console,
    out,
    plain,
    reported,
)


def run(
    policy: PolicyArgument,
    robot: RobotArgument,
    port: PortOption = None,
    duration: Annotated[float, typer.Option(help="Seconds the policy runs.")] = 20.0,
    command: Annotated[
        str,
        typer.Option(
            help="Where commands come from: `random`, as in training; numbers, e.g. 0.2,0.0,0.1; a "
            "schedule.yaml or .csv; `keyboard`; `gamepad`, or gamepad:/dev/input/event5; `udp`."
        ),
    ] = "random",
    seed: Annotated[int, typer.Option(min=0, help="Seed of the random commands.")] = 0,
    listen: Annotated[
        str | None,
        typer.Option(
            metavar="[HOST:]PORT",
            help="Also take JSON over UDP: signals such as object_position from a camera, stop, "
            "pause; with --command udp, commands (default 127.0.0.1:5555).",
        ),
    ] = None,
    hold: Annotated[
        bool, typer.Option("--hold", help="Wait at the start pose until told to go on.")
    ] = False,
    reconnect: Annotated[
        bool,
        typer.Option(
            "--reconnect", help="After a device was lost and is back, go on without being told."
        ),
    ] = False,
    log: Annotated[Path | None, typer.Option(help="MCAP log; default logs/<time>.mcap.")] = None,
    with_twin: Annotated[bool, typer.Option("--twin", help="Start a twin and run on it.")] = False,
    thing: Annotated[
        Path | None,
        typer.Option(
            help="With --twin: what lies before it and is seen, e.g. configs/things/puck.xml."
        ),
    ] = None,
    yes: Annotated[
        bool, typer.Option("--yes", help="Change settings kept in the servos without asking.")
    ] = False,
    anyway: Annotated[
        bool, typer.Option("--anyway", help="Run although the robot does not lie in its rest pose.")
    ] = False,
    no_prove: Annotated[
        bool,
        typer.Option(
            "--no-prove", help="Start without seeing the watchdogs act; the log says so. Saves 1 s."
        ),
    ] = False,
) -> None:
    """Run a policy on a robot in real time. Ctrl-C stops it at once, in its safe state.

    The limp robot must lie in its rest pose: that is how a wrong zero or direction is found.

    Examples: `robotrl run policy.onnx configs/robots/desk_arm.yaml --port /dev/ttyUSB0` and
    `robotrl run policy.onnx configs/robots/desk_arm.yaml --twin`

    `--command keyboard`: w s, a d, q e move the first, second, third element; space stops at once,
    p pauses and goes on, Enter ends as planned, 0 is neutral.

    `--command gamepad`: sticks; B stops at once, START pauses, SELECT ends. Unplugging it stops.

    `--command walk.csv`: a header `time_s,vx,vy,yaw` and a line for each change; or walk.yaml,
    `commands: [{at_s: 0, command: {vx: 0.3}}, {at_s: 5, command: {yaw: 0.5}}]`.

    `--command udp`: `echo '{"command": {"vx": 0.3}}' | nc -u -w0 127.0.0.1 5555`; also
    `{"stop": "why"}`, `{"pause": true}`, `{"resume": true}`, `{"finish": true}` and
    `{"signals": {"object_position": [0.2, 0, 0.05]}, "age_s": 0.04}`. Other machines may send only
    with `--listen 0.0.0.0:5555` and the secret in ROBOTRL_TOKEN as `"token"`.
    """
    from robotrl.run_policy import run_policy, stop_on_signals

    if not 0 < duration < math.inf:
        raise typer.BadParameter(f"--duration must be more than 0 seconds, found {duration}")
    if with_twin and port is not None:
        raise typer.BadParameter("give --twin or --port, not both")
    if thing and not with_twin:
        raise typer.BadParameter("--thing lies before a twin; give --twin, too")
    log = log or Path("logs") / f"{datetime.now():%Y-%m-%d_%H-%M-%S}.mcap"
    with stop_on_signals() as requests, reported():
        summary = run_policy(
            policy,
            robot,
            port=port,
            duration_s=duration,
            command=command,
            seed=seed,
            listen=listen,
            hold=hold,
            reconnect=reconnect,
            log=log,
            start_twin=with_twin,
            thing=thing,
            yes=yes,
            anyway=anyway,
            prove=not no_prove,
            requests=requests,
            console=console,
        )
        out.print(summary)
        console.print(f"Next: [bold]robotrl report {plain(log)}[/]")
