"""`robotrl run`: put port, robot, controller, governor and recorder together, and run.

Imports only what a robot has: neither torch nor MuJoCo.
"""

import json
import os
import platform
import signal
import subprocess
import sys
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from datetime import datetime
from importlib.metadata import version
from pathlib import Path
from types import FrameType

from rich.console import Console

from deploy.clock import MonotonicClock
from deploy.commands import open_commands
from deploy.commands.udp import PORT, parse_address, udp
from deploy.configuration import load_yaml
from deploy.contract import Contract
from deploy.controller import OnnxController
from deploy.device import SettingChange
from deploy.errors import ConfigError, DeployError, SafetyError
from deploy.fit import matches
from deploy.governor import Governor
from deploy.ports import open_ports
from deploy.process import command_of, handling
from deploy.realtime import realtime
from deploy.reconnect import Reconnect
from deploy.recorder import Recorder
from deploy.robot import Robot, bare_joints, measured_signals
from deploy.robot_config import RobotConfig
from deploy.runtime import Runtime
from deploy.servos import settings as servo_settings
from deploy.signals import SIGNALS, SignalKind
from deploy.state import Requests, State
from robotrl.scan import scan

_TWIN_STOP_TIMEOUT_S = 10.0
_PROVED = {True: "proved at the start", False: "NOT proved (--no-prove)"}
_LOGGED_VERSIONS = ("robotrl", "numpy", "onnxruntime", "pyserial", "mcap")


def run_policy(
    policy: Path,
    robot_path: Path,
    *,
    port: str | None,
    duration_s: float,
    command: str,
    seed: int,
    listen: str | None,
    hold: bool,
    reconnect: bool,
    log: Path,
    start_twin: bool,
    thing: Path | None,
    yes: bool,
    anyway: bool,
    prove: bool,
    requests: Requests,
    console: Console,
) -> str:
    """Run an exported policy on a robot; see `robotrl run --help`.

    Everything that can be refused is refused before the port is opened.

    Returns:
        A line that says how it went.
    """
    config = load_yaml(robot_path, RobotConfig)
    controller = OnnxController(policy)
    contract = controller.contract
    listening = command == "udp" or listen is not None or thing is not None
    streams = _from_elsewhere(contract, config) if listening else ()
    matches(contract, config, streams)
    with ExitStack() as stack:
        listener = None
        if listening:
            unheard = thing is not None and command != "udp"  # of by anybody but our own camera
            address = parse_address(listen or ("0" if unheard else str(PORT)))
            listener = stack.enter_context(udp(contract.command, requests, address, streams))
        commands = stack.enter_context(
            open_commands(command, contract.command, requests, seed=seed, listener=listener)
        )
        camera = listener.port if listener and thing else None
        own = running_twin(robot_path, thing=thing, camera=camera)
        twin = own if start_twin else nullcontext(port)
        path = stack.enter_context(twin)
        if requests.stopped:
            raise SafetyError(f"stopped: {requests.stopped}, before the port was opened")
        config = _at_port(config, path)  # what is logged is what is used
        run = _describe_run(config) | {"anyway": anyway, "watchdogs": _PROVED[prove]}
        metadata = {"robot": config.model_dump_json(), "run": json.dumps(run)}
        agreed = yes or start_twin

        def approve(changes: list[SettingChange]) -> bool:
            return _approve(changes, log.parent, robot_path, agreed, console)

        with open_ports(config) as ports:
            robot = Robot(config, contract.joints, ports, approve=approve)
            open_files = {name: port.fd for name, port in ports.items()}
            with Recorder(log, contract, metadata, open_files) as recorder:
                for text in robot.watchdogs():
                    _say(text, console)
                # after the companion has begun, which is to stay out of the way
                advice = stack.enter_context(realtime(config.loop))
                runtime = Runtime(
                    robot,
                    controller,
                    Governor(contract.joints, contract.control_dt_s, config),
                    MonotonicClock(config.loop.spin_us * 1e-6),
                    recorder,
                    requests,
                    on_state=lambda state: _announce(state, recorder, console),
                    anyway=anyway,
                    prove=prove,
                    hold=hold,
                    reconnect=_after_loss(command, listen, alone=reconnect),
                    tell=lambda text: _say(text, console),
                    streams=listener.readings if listener else {},
                    advice=advice,
                )
                runtime.run(commands, duration_s)
    for line in (*advice, *runtime.describe_timing().splitlines()):
        _say(f"  {line}", console)
    if slow := robot.advise():
        _warn(slow, console)
    statistics = robot.statistics
    return (
        f"ran {runtime.ran_s:.3g} s; replies took {statistics.reply_times}; {statistics.requests} "
        f"bus requests, {statistics.lost} readings lost, {statistics.late} replies late, "
        f"{statistics.crc_errors} damaged; log: {log}"
    )


def release_robot(robot_path: Path, port: str | None) -> None:
    """Turn the torque of every joint off, verified."""
    with _bare_robot(robot_path, port) as robot:
        robot.release()


def restore_robot(saved: Path, robot_path: Path, port: str | None) -> list[str]:
    """Write settings saved by an earlier run back into the servos."""
    with _bare_robot(robot_path, port) as robot:
        return servo_settings.restore(robot.devices, saved)


def scan_robot(robot_path: Path, port: str | None, ids: Iterable[int]) -> Iterator[str]:
    """A line for each part of the robot; see `robotrl.scan`."""
    with _bare_robot(robot_path, port) as robot:
        yield from scan(robot.devices, ids)


@contextmanager
def _bare_robot(robot_path: Path, port: str | None) -> Iterator[Robot]:
    """A robot to set up, with no policy in sight."""
    config = _at_port(load_yaml(robot_path, RobotConfig), port)
    with open_ports(config) as ports:
        yield Robot(config, bare_joints(config), ports)


def _at_port(config: RobotConfig, port: str | None) -> RobotConfig:
    """The robot at the port that was asked for: `PORT`, or `NAME=PORT,NAME=PORT` for several."""
    if port is None:
        return config
    parts = [part.partition("=") for part in port.split(",")] if "=" in port else []
    named = {name: path for name, _, path in parts}
    if not named and len(config.wired) == 1:
        named = dict.fromkeys(config.wired, port)
    if named.keys() != config.wired.keys():
        wanted = ",".join(f"{name}=/dev/..." for name in config.wired)
        raise ConfigError(
            f"--port {port} does not say where each device of this robot is; expected {wanted}"
        )
    return config.at_ports({name: os.path.abspath(path) for name, path in named.items()})


@contextmanager
def running_twin(robot_path: Path, **options: Path | int | None) -> Iterator[str]:
    """A twin in a process of its own, for as long as the block runs; yields its port.

    Args:
        robot_path: its wiring.
        options: of `robotrl twin`, by name; None for one that is not given.
    """
    arguments = command_of("robotrl.cli", "twin", robot_path)
    for name, value in options.items():
        arguments += [f"--{name}", str(value)] if value is not None else []
    twin = subprocess.Popen(
        arguments,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,  # Ctrl-C is for the controller alone
    )
    assert twin.stdout and twin.stderr
    try:
        path = twin.stdout.readline().strip()
        if not path:
            raise DeployError(f"the twin did not start: {twin.stderr.read().strip()}")
        yield path
    finally:
        twin.terminate()
        try:
            twin.wait(_TWIN_STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            twin.kill()


def _after_loss(command: str, listen: str | None, *, alone: bool) -> Reconnect:
    """What follows when a lost device is back: it goes on if somebody is there to say so."""
    asks = command in ("udp", "keyboard") or command.startswith("gamepad") or listen is not None
    return Reconnect.ALONE if alone else Reconnect.ASKED if asks else Reconnect.NEVER


def _from_elsewhere(contract: Contract, config: RobotConfig) -> list[SignalKind]:
    """Kinds of signal that the policy uses and the robot does not measure."""
    measured = measured_signals(config)
    return [
        spec.kind
        for spec in contract.inputs
        if SIGNALS[spec.kind].measured and spec.kind not in measured
    ]


@contextmanager
def stop_on_signals() -> Iterator[Requests]:
    """Ctrl-C and termination ask for a stop, as often as they come, instead of interrupting.

    Put it around everything that has to be finished: the safe state, the log, the last message.
    Once a stop was asked for, further signals are ignored until the process ends.
    """
    requests = Requests()

    def handler(number: int, frame: FrameType | None) -> None:
        requests.stop(f"{signal.Signals(number).name} received")

    previous = {
        number: signal.signal(number, handler)
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    }
    try:
        yield requests
    finally:
        for number, old in previous.items():
            signal.signal(number, signal.SIG_IGN if requests.stopped else old)


def _approve(
    changes: list[SettingChange], folder: Path, robot: Path, agreed: bool, console: Console
) -> bool:
    """Show what would change in the servos, ask, and save what was there."""
    console.print("Settings kept in the servos differ from what the policy needs:")
    for change in changes:
        console.print(f"  {change}", markup=False, highlight=False)
    if not agreed and not _confirmed(console, "Change them? The old ones are saved in a file."):
        return False
    saved = folder / f"{robot.stem}-servos-{datetime.now():%Y-%m-%d_%H-%M-%S-%f}.yaml"
    servo_settings.save(changes, saved)
    console.print(f"saved: {saved}; `robotrl restore {saved} {robot}` writes it back")
    return True


def _confirmed(console: Console, question: str) -> bool:
    """Ask; Ctrl-C, or nobody there to answer, is a no."""
    try:
        with handling(signal.default_int_handler, signal.SIGINT):  # ours lets input go on
            return console.input(f"{question} [y/N] ", markup=False).strip().lower() in ("y", "yes")
    except (EOFError, KeyboardInterrupt):
        return False


def _describe_run(config: RobotConfig) -> dict[str, object]:
    """What is run where, for the log."""
    ports = {name: bus.port for name, bus in config.wired.items()}
    devices = {name: os.path.realpath(port) for name, port in ports.items()}
    return {
        "started": datetime.now().astimezone().isoformat(timespec="seconds"),
        "command_line": sys.argv,
        "folder": os.getcwd(),
        "port": ", ".join(ports.values()),
        "device": ", ".join(devices.values()),
        # a real bus is no pseudo-terminal
        "twin": all(device.startswith("/dev/pts/") for device in devices.values()),
        "machine": f"{platform.node()}, {platform.platform()}",
        "versions": {
            "python": platform.python_version(),
            **{name: version(name) for name in _LOGGED_VERSIONS},
        },
    }


def _announce(state: State, recorder: Recorder, console: Console) -> None:
    console.print(f"[dim]{state.name.lower().replace('_', ' ')}[/]")
    if trouble := recorder.trouble():
        _warn(trouble, console)


def _say(text: str, console: Console) -> None:
    console.print(text, style="dim", markup=False, highlight=False)


def _warn(text: str, console: Console) -> None:
    console.print(f"warning: {text}", style="yellow", markup=False, highlight=False)
