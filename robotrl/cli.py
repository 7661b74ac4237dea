"""The command line. A verb imports what it needs when it is called: `run` starts fast on a Pi."""

import contextlib
import functools
import math
import os
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from rich.console import Console

from deploy.errors import ContractError, DeployError
from deploy.whole_file import require_writable

if TYPE_CHECKING:
    from deploy.contract import Contract

app = typer.Typer(
    help="Train a policy in MuJoCo, export the whole controller, run it on a servo robot.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
)
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


@app.command()
def demo(
    road: Annotated[
        Literal["reach", "so101", "walk"],
        typer.Argument(
            help="What to show: the desk arm or an SO-101 that reaches, or a duck that walks."
        ),
    ] = "reach",
    output: Annotated[
        Path | None,
        typer.Option(help="Folder for the run, policy, log, report; default: runs/demo[_ROAD]."),
    ] = None,
    policy: Annotated[
        Path | None, typer.Option(help="An exported policy, instead of training one.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the training.")] = 0,
    twin_seed: Annotated[
        int, typer.Option(min=0, help="Seed of the twin's physical mismatch.")
    ] = 7,
    seconds: Annotated[
        float | None,
        typer.Option(
            min=1, max=3600, help="How long the policy runs on the twin; default: 40, walking 60."
        ),
    ] = None,
) -> None:
    """The whole road: train, export, twin, run, report. Reaching takes two minutes, walking 15.

    Examples: `robotrl demo so101` and `robotrl demo walk`
    """
    with _needs("train"):
        from robotrl.demo import run_demo
    with _reported():
        passed = run_demo(
            output or Path("runs/demo" if road == "reach" else f"runs/demo_{road}"),
            road=road,
            policy=policy,
            seed=seed,
            twin_seed=twin_seed,
            seconds=seconds,
            console=console,
        )
    raise typer.Exit(0 if passed else 1)


@app.command()
def train(
    config: Annotated[
        Path | None, typer.Argument(help="E.g. configs/train/arm_reach.yaml; not with --resume.")
    ] = None,
    overrides: Annotated[
        list[str] | None, typer.Argument(help="Changes, e.g. num_envs=128 algorithm.gamma=0.98.")
    ] = None,
    output: Annotated[
        Path | None, typer.Option(help="Folder of the run; default: a new one, runs/NAME.")
    ] = None,
    resume: Annotated[Path | None, typer.Option(help="Continue the run in this folder.")] = None,
    source: Annotated[
        Path | None,
        typer.Option("--from", help="Start from the weights of the run in this folder."),
    ] = None,
    best: Annotated[
        bool, typer.Option("--best", help="With --from: those of its best evaluation.")
    ] = False,
) -> None:
    """Train a policy into runs/NAME/, with progress bar, TensorBoard and metrics.csv.

    Ctrl-C saves and leaves; --resume goes on with the same bits. Now and then the policy is
    evaluated in worlds of its own (`evaluation:` in CONFIG) and the best one kept: checkpoint.pt is
    the latest, best.pt the best. To tune a policy for another task or robot with the same
    observations and actions, start --from its run. Under torchrun several processes train one
    policy, each with its share of the worlds:
    `torchrun --nproc-per-node 2 -m robotrl.cli train configs/train/arm_reach.yaml`.

    Examples: `robotrl train configs/train/arm_reach.yaml seed=1`,
    `robotrl train --resume runs/arm_reach` and
    `robotrl train my_arm.yaml --from runs/arm_reach --best`
    """
    with _needs("train"):
        from robotrl import parallel
        from robotrl.progress import train_with_progress
        from robotrl.run_folder import RunFolder, free_folder
        from robotrl.train import rehearse
        from robotrl.train_config import TrainConfig, load_train_config
    if resume is not None and (config or overrides or output or source):
        raise typer.BadParameter("--resume goes on as the run began; give it alone")
    if best and source is None:
        raise typer.BadParameter("--best chooses between the policies of --from; give both")
    if resume is None and config is None:
        raise typer.BadParameter("give a CONFIG, or --resume with the folder of a run")

    def prepare() -> tuple[TrainConfig, RunFolder]:
        if resume is not None:
            return RunFolder(resume).config(), RunFolder(resume)
        assert config is not None
        settings = load_train_config(config, overrides or [])
        start = RunFolder(source) if source is not None else None
        taken = rehearse(settings, source=config, start=start, best=best)
        folder = RunFolder(output or free_folder(Path("runs") / config.stem))
        folder.create(settings, taken)
        return settings, folder

    with _reported(), parallel.joined():
        settings, folder = parallel.from_first(prepare)
        finished = train_with_progress(settings, folder, console, resume=resume is not None)
        if parallel.is_first():
            again = f"{parallel.program()} train --resume {_plain(folder.path)}"
            onward = f"robotrl export {_plain(folder.path)} -o policy.onnx"
            said = (
                f"Next: [bold]{onward}[/]" if finished else f"saved; go on with: [bold]{again}[/]"
            )
            console.print(said)
    if not finished:
        raise typer.Exit(130)


@app.command("bench")
def run_bench(
    config: Annotated[Path, typer.Argument(help="Tasks, algorithms and seeds, e.g. bench.yaml.")],
    output: Annotated[
        Path | None, typer.Option(help="Folder of its runs and results; default: runs/NAME.")
    ] = None,
    ray: Annotated[
        bool, typer.Option("--ray", help="Spread over a Ray cluster; else local processes.")
    ] = False,
) -> None:
    """Train tasks × algorithms × seeds, several at a time, and compare them.

    Writes table.md (interquartile mean over seeds with 95 % interval, CPU seconds), results.csv and
    curves.png. The same command again goes on where it was interrupted. How to write CONFIG:
    robotrl/bench_config.py.

    Example: `robotrl bench bench.yaml`
    """
    with _needs("train"):
        from robotrl.bench import bench
    with _reported():
        bench(config, output or Path("runs") / config.stem, console, ray=ray)


@app.command("eval")
def evaluate(
    policy: Annotated[Path, typer.Argument(help="A run's folder or an exported ONNX file.")],
    episodes: Annotated[
        int, typer.Option(min=1, max=1_000_000, help="Episodes; more narrow the intervals.")
    ] = 64,
    best: BestOption = False,
    record: Annotated[
        Path | None,
        typer.Option(help="Keep a run's transitions in this .npz file, for SAC to learn from."),
    ] = None,
) -> None:
    """Evaluate a policy in fresh randomized worlds, with 95 % intervals.

    Of a run it takes the latest policy, as `export` and `play` do; the one of the best evaluation
    while training is --best. What --record keeps is for algorithm.demonstrations of SAC.

    Examples: `robotrl eval runs/arm_reach`, `robotrl eval policy.onnx --episodes 4` and
    `robotrl eval runs/arm_reach --record expert.npz`
    """
    with _needs("train"):
        from robotrl.evaluate import evaluate_policy, evaluate_run
        from robotrl.run_folder import RunFolder
    if best and not policy.is_dir():
        raise typer.BadParameter("--best chooses between the policies of a run; give its folder")
    if record and not policy.is_dir():
        raise typer.BadParameter("--record needs the rewards of training; give a run's folder")
    with _reported():
        if policy.is_dir():
            folder = RunFolder(policy)
            result = evaluate_run(folder, episodes=episodes, best=best, record=record)
        else:
            result = evaluate_policy(policy, episodes=episodes)
        for name, value in result.items():
            print(f"{name:32s} {value:.6g}")


@app.command()
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
    with _needs("train"):
        from robotrl.play.session import open_session
        from robotrl.play.viewer import watch
    values = _floats(command) if command is not None else None
    with _reported():
        session = open_session(source, seed=seed, action="random" if random else None, best=best)
        if values is not None:
            session.hold_command(values)
            session.reset()
        if video is None:
            watch(session, port=port, seconds=seconds)
            return
        with _needs("train"):
            from robotrl.play.video import film
        film(session, video, seconds=seconds or 10.0)
        out.print(f"video: {video}")


def _play_divergence(path: Path, video: Path | None) -> None:
    with _needs("train"):
        from envs.divergence import replay
        from envs.divergence.__main__ import describe
    with _reported():
        result = replay(path)
        for line in describe(result):
            out.print(line)
        if video is None:
            return
        with _needs("train"):
            from robotrl.play.video import film_divergence
        film_divergence(result, video)
        out.print(f"video: {video}")


@app.command()
def export(
    run: Annotated[
        Path,
        typer.Argument(
            metavar="RUN|MODEL",
            help="A run's folder; or a model of Stable-Baselines3 (.zip: PPO, SAC) or the state "
            "dict of a torch actor (.pt) that was trained on our environment.",
        ),
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="The file to write.")] = Path(
        "policy.onnx"
    ),
    best: BestOption = False,
    config: Annotated[
        Path | None, typer.Option(help="Of a MODEL: the training YAML with its task.")
    ] = None,
    normalizer: Annotated[
        Path | None, typer.Option(help="Of a MODEL: the .pkl of its VecNormalize, if any.")
    ] = None,
    activation: Annotated[
        str | None, typer.Option(help="Of a .pt: between its linear layers, e.g. ReLU.")
    ] = None,
    squash: Annotated[
        Literal["clip", "tanh"], typer.Option(help="Of a .pt: what brings its output to [-1, 1].")
    ] = "clip",
) -> None:
    """Export the whole controller as one checked ONNX file.

    Of a run, the latest policy, or with --best that of the best evaluation while training.

    Examples: `robotrl export runs/arm_reach -o policy.onnx` and
    `robotrl export model.zip --config configs/train/arm_reach.yaml --normalizer vecnormalize.pkl`
    """
    with _needs("train"):
        from robotrl.evaluate import evaluate_actor, evaluate_run
        from robotrl.export import export as export_run
        from robotrl.export import export_policy
        from robotrl.foreign import load_foreign
        from robotrl.run_folder import RunFolder
        from robotrl.train_config import load_train_config
    if run.suffix in (".zip", ".pt") and config is None:
        raise typer.BadParameter(f"{run} does not say its task; give --config with its YAML")
    if config is not None and (best or run.is_dir()):
        raise typer.BadParameter("--config is for a model that was trained elsewhere")
    with _reported():
        require_writable(output, "--output")
        if config is None:
            folder = RunFolder(run)
            contract = export_run(folder, output, evaluate_run(folder, best=best), best=best)
        else:
            settings = load_train_config(config, [])
            load = functools.partial(
                load_foreign, run, normalizer=normalizer, activation=activation, squash=squash
            )
            scorecard = evaluate_actor(settings, lambda env: load(env)[0])
            contract = export_policy(settings, load, output, scorecard)
        out.print(
            f"{output}: {contract.provenance.task} for {contract.robot} at "
            f"{1 / contract.control_dt_s:.0f} Hz; onnxruntime agrees with torch, "
            f"{len(next(iter(contract.golden.outputs.values())))} golden vectors inside"
        )
        _compare_with_shipped_robots(contract, output)


def _compare_with_shipped_robots(contract: "Contract", policy: Path) -> None:
    """Say at once what `run` would refuse, and what to do next."""
    from deploy.fit import from_elsewhere, matches
    from robotrl.shipped import shipped_robots

    known = list(shipped_robots(contract.robot))
    for path, config in known:
        try:
            matches(contract, config, from_elsewhere(contract))
        except ContractError as error:
            console.print(
                f"[yellow]warning:[/] with {_plain(_near(path))} {_plain(error)}", highlight=False
            )
    robot = _near(known[0][0]) if known else "ROBOT.yaml"
    console.print(f"Next: [bold]robotrl check {_plain(policy)} {_plain(robot)}[/]")


@app.command()
def check(
    file: Annotated[
        Path,
        typer.Argument(help="An ONNX file `robotrl export` wrote, or e.g. configs/train/X.yaml."),
    ],
    robot: Annotated[
        Path | None, typer.Argument(help="Also check that the policy fits this robot.")
    ] = None,
) -> None:
    """Verify a policy file, and its fit to a robot; or measure a configuration's randomization.

    Of a policy: hashes, schema, golden vectors. Of a configuration: what each randomization term
    changes and by how much, the strongest first; terms without effect are errors.

    Examples: `robotrl check policy.onnx configs/robots/desk_arm.yaml` and
    `robotrl check configs/train/arm_reach.yaml`
    """
    if file.suffix in (".yaml", ".yml"):
        if robot is not None:
            raise typer.BadParameter("a configuration is checked alone; leave the robot out")
        _check_config(file)
    else:
        _check_policy(file, robot)


def _check_config(path: Path) -> None:
    with _needs("train"):
        from robotrl.check_config import check_config
        from robotrl.train_config import load_train_config
    with _reported():
        report = check_config(load_train_config(path, []))
        out.print(
            f"{path}: each term alone against the nominal robot, for a second of random targets.\n"
            "Effect on the joints in shares of how far they go; else on what the actor observes, "
            "in shares of its spread."
        )
        for line in report.lines():
            out.print(line)
    raise typer.Exit(1 if report.problems else 0)


def _check_policy(policy: Path, robot: Path | None) -> None:
    from deploy.configuration import load_yaml
    from deploy.controller import OnnxController
    from deploy.fit import from_elsewhere, matches
    from deploy.robot_config import RobotConfig

    with _reported():
        contract = OnnxController(policy).contract
        elsewhere = from_elsewhere(contract)
        if robot is not None:  # first: nothing is called sound beside an error
            matches(contract, load_yaml(robot, RobotConfig), elsewhere)
        provenance = contract.provenance
        exported = provenance.versions.get("export_commit", "")
        out.print(
            f"{policy}: sound; {provenance.task} for {contract.robot}, "
            f"{1 / contract.control_dt_s:.0f} Hz, {provenance.env_steps:,} training steps, "
            f"commit {provenance.git_commit[:12]}{exported and f', exported by {exported[:12]}'}"
        )
        for joint in contract.joints:
            out.print(
                f"  {joint.name:16s} kp {joint.kp_nm_per_rad:7.3f} N·m/rad  "
                f"kd {joint.kd_nm_s_per_rad:6.3f}  "
                f"start {joint.default_position_rad:+.3f} rad  "
                f"range {' to '.join(map(_rounded, joint.position_limits_rad))} rad"
            )
        if elsewhere:
            out.print(f"needs {', '.join(elsewhere)} from another program: run it with --listen")
        if robot is not None:
            out.print(f"fits {robot}")


@app.command("robot")
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
    if "DISPLAY" not in os.environ:
        os.environ.setdefault("MUJOCO_GL", "egl")  # read when MuJoCo is imported
    with _needs("train"):
        from envs.robot import load_robot
        from robotrl.robot_check import check_robot
        from robotrl.robot_pictures import draw_robot
    with _reported():
        model = load_robot(robot)
        report = check_robot(model)
        for line in report.lines():
            out.print(line)
        if model.unchecked:
            output = output or Path(f"{model.name}-robot.png")
            draw_robot(model, output)
            out.print(f"pictures: {output}")
    raise typer.Exit(1 if report.problems else 0)


@app.command()
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
    faults: Annotated[
        Path | None, typer.Option(help="What goes wrong, and when: a YAML, deploy/twin/faults.py.")
    ] = None,
) -> None:
    """Start the simulated robot behind a serial port; prints the port, ends with Ctrl-C.

    Example: `robotrl twin configs/robots/desk_arm.yaml --link /tmp/desk_arm`
    """
    with _needs("train"):
        from deploy.twin.faults import FaultScript
        from deploy.twin.parameters import draw
        from deploy.twin.server import serve
        from envs.robot import load_robot
    from deploy.configuration import load_yaml
    from deploy.robot_config import RobotConfig

    with _reported(), tempfile.TemporaryDirectory() as folder:
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
            ready=lambda port: print(port, flush=True),
        )


@app.command()
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
    log = log or Path("logs") / f"{datetime.now():%Y-%m-%d_%H-%M-%S}.mcap"
    with stop_on_signals() as requests, _reported():
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
            yes=yes,
            anyway=anyway,
            prove=not no_prove,
            requests=requests,
            console=console,
        )
        out.print(summary)
        console.print(f"Next: [bold]robotrl report {_plain(log)}[/]")


@app.command()
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

    with _reported():
        for line in scan_robot(robot, port, range(253 if every else 21)):
            out.print(line, highlight=False)


@app.command()
def release(robot: RobotArgument, port: PortOption = None) -> None:
    """Turn the torque of every servo off. Hold the robot: it may fall.

    Example: `robotrl release configs/robots/desk_arm.yaml`
    """
    from robotrl.run_policy import release_robot

    with _reported():
        release_robot(robot, port)
        out.print("torque is off on every servo, read back")


@app.command()
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

    with _reported():
        for line in restore_robot(saved, robot, port):
            out.print(line)


@app.command()
def report(
    log: Annotated[Path, typer.Argument(help="The MCAP file `robotrl run` wrote.")],
    output: Annotated[Path | None, typer.Option("--output", "-o", help="HTML file.")] = None,
    truth: Annotated[Path | None, typer.Option(help="A twin's --truth file.")] = None,
) -> None:
    """Turn a log into an HTML page with plots and a verdict; fails if the verdict does.

    Example: `robotrl report logs/2026-01-31_12-00-00.mcap`
    """
    with _needs("train"):
        from robotrl.report import write_report
    with _reported():
        output = output or log.with_suffix(".html")
        verdict = write_report(log, output, truth)
        out.print(verdict.summary())
        out.print(f"report: {output}")
    raise typer.Exit(0 if verdict.passed else 1)


@contextlib.contextmanager
def _reported() -> Iterator[None]:
    """Turn the errors we raise on purpose, and those of a user's task, into a message."""
    try:
        yield
    except DeployError as error:
        notes = "".join(f"\n{note}" for note in getattr(error, "__notes__", ()))
        console.print(f"[bold red]error:[/] {_plain(error)}{_plain(notes)}", highlight=False)
        raise typer.Exit(1) from None
    except Exception as error:
        user_task = sys.modules.get("envs.user_task")  # which a robot does not have
        if user_task is None or (line := user_task.user_line(error)) is None:
            raise
        console.print(f"[bold red]error:[/] {_plain(line)}", highlight=False)
        raise typer.Exit(1) from None


@contextlib.contextmanager
def _needs(extra: str) -> Iterator[None]:
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


def _floats(text: str) -> list[float]:
    try:
        return [float(part) for part in text.split(",")]
    except ValueError:
        raise typer.BadParameter(
            f"--command takes numbers like 0.2,0.0,0.1, found {text!r}"
        ) from None


def _near(path: Path) -> Path:
    """A path from the present folder, where it lies below."""
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path


def _rounded(angle: float) -> str:
    """An angle without a negative zero."""
    return f"{round(angle, 2) + 0.0:+.2f}"


def _plain(text: Any) -> str:
    """Text whose square brackets are not markup."""
    return str(text).replace("[", "\\[")


if __name__ == "__main__":
    app()
