"""The command line: what `robotrl VERB` does, a file each.

A verb imports what it needs when it is called: `run` starts fast on a Pi, without torch.
"""

import typer

from robotrl.cli import (
    bench,
    check,
    demo,
    evaluate,
    export,
    play,
    report,
    robot,
    run,
    servos,
    train,
    twin,
)

VERBS = {
    "demo": demo.demo,
    "train": train.train,
    "bench": bench.run_bench,
    "eval": evaluate.evaluate,
    "play": play.play,
    "export": export.export,
    "check": check.check,
    "robot": robot.show_robot,
    "twin": twin.twin,
    "run": run.run,
    "scan": servos.scan,
    "release": servos.release,
    "restore": servos.restore,
    "report": report.report,
}
app = typer.Typer(
    help="Train a policy in MuJoCo, export the whole controller, run it on a servo robot.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
)
for name, verb in VERBS.items():
    app.command(name)(verb)
