"""The command line: `robotrl VERB`, each a function of `robotrl.verbs`."""

import typer

from robotrl.verbs.bench import run_bench
from robotrl.verbs.check import check
from robotrl.verbs.demo import demo
from robotrl.verbs.evaluate import evaluate
from robotrl.verbs.export import export
from robotrl.verbs.play import play
from robotrl.verbs.report import report
from robotrl.verbs.robot import show_robot
from robotrl.verbs.run import run
from robotrl.verbs.servos import release, restore, scan
from robotrl.verbs.train import train
from robotrl.verbs.twin import twin

VERBS = {
    "demo": demo,
    "train": train,
    "bench": run_bench,
    "eval": evaluate,
    "play": play,
    "export": export,
    "check": check,
    "robot": show_robot,
    "twin": twin,
    "run": run,
    "scan": scan,
    "release": release,
    "restore": restore,
    "report": report,
}
app = typer.Typer(
    help="Train a policy in MuJoCo, export the whole controller, run it on a servo robot.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
)
for name, verb in VERBS.items():
    app.command(name)(verb)

if __name__ == "__main__":
    app()
