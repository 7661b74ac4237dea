"""How many fallen robots does a run of the task `getup` put on their feet.

    python -m tests.benchmarks.getup runs/microduck_getup --starts 200

Each start is another fall (none of those of training) in another randomized world, every term at
its full range; the policy is deterministic and has 6 s. Standing is a tilt below 0.3 rad with the
trunk above 90 % of its height at home, at the end of that time; `since` is the median time at which
those that stand began to, without a break. Beside it the same for home held by the servos, which
is what gets up without a policy. `lying` says how the robots lay: where their trunk's z axis
pointed.
"""

import argparse
from pathlib import Path

import torch
from torch import Tensor

from deploy.errors import ConfigError
from envs.randomization import at_full_range
from envs.tasks.getup import Getup
from robotrl.algorithms.policy import Agent
from robotrl.runs.evaluate import load_policy
from robotrl.runs.run_folder import RunFolder
from robotrl.runs.train import make_test_env

LYING = {"any": (-1.1, 1.1), "down": (-1.1, -0.5), "aside": (-0.5, 0.5), "up": (0.5, 1.1)}


@torch.no_grad()
def measure(folder: RunFolder, starts: int, *, held: bool) -> tuple[Tensor, Tensor, Tensor]:
    """(starts,) height of the trunk's z axis at the start, whether it stands, and since when [s].

    Args:
        folder: the run.
        starts: how many falls.
        held: leave it to the servos, which are told the home pose.
    """
    config = folder.config()
    env = make_test_env(
        config,
        num_envs=starts,
        seed=config.seed + 1_000_003,
        randomization=at_full_range(config.terms),
        task_config=config.task_config | {"home_share": 0.0, "falls": starts, "episode_s": 6.0},
        num_threads=1,
    )
    if not isinstance(env.task, Getup):
        raise ConfigError(f"a run of {config.task}; this measures runs of getup")
    agent = Agent(load_policy(config, env, folder.load_checkpoint()), starts)
    seen = env.reset()["actor"]
    start = -env.signals["projected_gravity"][:, 2].clone()
    step = None
    for _ in range(env.task.episode_steps):
        action = torch.zeros(starts, env.num_actions) if held else agent.act(seen)
        step = env.step(action, autoreset=False)
        seen = step.observation["actor"]
    assert step is not None
    return start, step.info.metrics["stood_up"] > 0, step.info.metrics["getup_s"]


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("run", type=Path)
    parser.add_argument("--starts", type=int, default=200)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    folder = RunFolder(arguments.run)
    print(f"{'':7} lying  starts  standing  since [s]")
    for name in ("policy", "held"):
        start, stands, since = measure(folder, arguments.starts, held=name == "held")
        for lying, (low, high) in LYING.items():
            chosen = (start >= low) & (start < high)
            share = stands[chosen].float().mean()
            time = since[chosen & stands].median() if (chosen & stands).any() else torch.nan
            print(
                f"{name:7} {lying:6} {int(chosen.sum()):6} {float(share):9.3f} {float(time):10.2f}"
            )


if __name__ == "__main__":
    main()
