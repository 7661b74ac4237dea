"""How well does a run walk: each command by itself, deterministic, randomized and pushed.

    python -m tests.benchmarks.walking runs/microduck_walk --episodes 16

For every command `--episodes` episodes of 20 s, each in its own randomized world (other draws than
in training, every term at its full range, the model's own time step). Speed and error count from 1
s after the start. A fall ends an episode, and the next one begins. `lifts` are the feet's
departures from the ground per second; at the command zero they should be none, but for steps that
catch a push: there only those count that come a second after the robot last tipped over. `--push`
is how hard it is pushed, whatever it was trained with. The last lines are the mean over all
commands, and each joint's torque beside `--continuous`, what a servo can give for ever (a guide: a
fifth of its stall torque).
"""

import argparse
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from envs.randomization import RandomTerm, at_full_range
from envs.randomization.physics.pushes import PushTerm
from envs.tasks.velocity import Velocity
from envs.vector_env import VectorEnv
from envs.walking.gait import asked_to_move, tipping
from envs.walking.terms import as_speed
from robotrl.algorithms.policy import Agent
from robotrl.runs.evaluate import load_policy
from robotrl.runs.run_folder import RunFolder
from robotrl.runs.train import make_test_env

COMMANDS = {
    "stand": (0.0, 0.0, 0.0),
    "slow": (0.15, 0.0, 0.0),
    "forward": (0.3, 0.0, 0.0),
    "fast": (0.4, 0.0, 0.0),
    "backward": (-0.2, 0.0, 0.0),
    "sideways": (0.0, 0.15, 0.0),
    "turning": (0.0, 0.0, 0.8),
    "mixed": (0.2, 0.1, 0.5),
}
SETTLED_STEPS = 50


class Result(NamedTuple):
    """Of one command."""

    share: float
    rms: float
    falls_per_minute: float
    lifts_per_s: float
    torque: Tensor
    """(joints,) rms [N·m]"""


def pushed(terms: list[RandomTerm], speed: float | None) -> list[RandomTerm]:
    """The terms at their full range; pushes within ± `speed` [m/s], or as they are."""
    return [
        term.model_copy(update={"range": (-speed, speed)})
        if speed is not None and isinstance(term, PushTerm)
        else term
        for term in at_full_range(terms)
    ]


def measure(
    folder: RunFolder,
    command: tuple[float, float, float],
    episodes: int,
    push: float | None = None,
) -> Result:
    """Walk at one command for 20 s in each of `episodes` worlds."""
    config = folder.config()
    shares = dict.fromkeys(
        ("standing_share", "forward_share", "turning_share", "heading_share"), 0.0
    )
    fixed = {"low": list(command), "high": list(command), "interval_s": [1000, 1000], **shares}
    settings = config.task_config | {"command": fixed, "episode_s": 20.0}
    env: VectorEnv = make_test_env(
        config.model_copy(update={"task_config": settings}),
        num_envs=episodes,
        seed=config.seed + 1_000_003,
        randomization=pushed(config.terms, push),
    )
    agent = Agent(load_policy(config, env, folder.load_checkpoint()), episodes)
    task, observation = env.task, env.reset()
    assert isinstance(task, Velocity)
    age, calm = torch.zeros(episodes), torch.zeros(episodes)
    falls, lifts, watched, steps = 0, 0.0, 0.0, env.task.episode_steps
    achieved, asked, squared, counted = 0.0, 0.0, 0.0, 0.0
    torque = torch.zeros(env.num_actions, dtype=torch.float64)
    down = None
    for _ in range(steps):
        step = env.step(agent.act(observation["actor"]))
        agent.forget(step.terminated | step.truncated)
        observation = step.observation
        age += 1
        if (held := env.randomization.held) is not None:
            age[held] = 0
        settled = (age > SETTLED_STEPS) & ~step.terminated
        twist, goal = as_speed(task.twist), as_speed(task.command)
        achieved += float(((twist * goal).sum(-1) * settled).sum())
        asked += float((goal.square().sum(-1) * settled).sum())
        error = (task.twist - task.command)[:, :2].square().sum(-1)
        squared += float((error * settled).sum())
        counted += float(settled.sum())
        now = task.motion.foot_height < task.config.gait.contact_m
        calm = torch.where(tipping(task.motion.spin, task.motion.up), 0, calm + 1)
        unforced = settled & (asked_to_move(task.command) | (calm > SETTLED_STEPS))
        if down is not None:
            lifts += float(((down & ~now).sum(-1) * unforced).sum())
            watched += float(unforced.sum())
        down = now
        force = env.simulation.data("actuator_force")[:, task.actuators]
        torque = torque + force.square().mean(dim=0)
        falls += int(step.terminated.sum())
        age[step.terminated | step.truncated] = 0
    seconds = steps * task.control_dt_s
    return Result(
        achieved / asked if asked else float("nan"),
        (squared / max(counted, 1)) ** 0.5,
        60 * falls / (episodes * seconds),
        lifts / max(watched, 1) / task.control_dt_s,
        (torque / steps).sqrt(),
    )


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("run", type=Path)
    parser.add_argument("--episodes", type=int, default=16, help="of each command")
    parser.add_argument("--push", type=float, help="fastest push along each axis [m/s]")
    parser.add_argument("--continuous", type=float, default=0.1, help="continuous torque [N·m]")
    parser.add_argument("--commands", nargs="*", default=list(COMMANDS), choices=list(COMMANDS))
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    folder = RunFolder(arguments.run)
    robot = make_test_env(folder.config(), num_envs=1).deployment.robot
    print(f"{'command':10} {'x':>5} {'y':>5} {'yaw':>5}  share   rms  falls/min  lifts/s")
    results: list[Result] = []
    for name in arguments.commands:
        result = measure(folder, COMMANDS[name], arguments.episodes, arguments.push)
        x, y, yaw = COMMANDS[name]
        print(f"{name:10} {x:5.2f} {y:5.2f} {yaw:5.2f}  {line(result)}", flush=True)
        results.append(result)
    print(f"{'mean':28}  {line(mean(results))}")
    print("torque rms [N·m] (x continuous)")
    for joint, torque in zip(robot.joints, mean(results).torque.tolist(), strict=True):
        print(f"  {joint:24} {torque:.2f} ({torque / arguments.continuous:.1f})")


def line(result: Result) -> str:
    """A row of the table."""
    return (
        f"{result.share:5.2f} {result.rms:5.3f}  {result.falls_per_minute:9.2f}  "
        f"{result.lifts_per_s:7.1f}"
    )


def mean(results: list[Result]) -> Result:
    """Over commands; the share over those that ask for a motion."""
    count = len(results)
    return Result(
        share=torch.tensor([each.share for each in results]).nanmean().item(),
        rms=sum(each.rms for each in results) / count,
        falls_per_minute=sum(each.falls_per_minute for each in results) / count,
        lifts_per_s=sum(each.lifts_per_s for each in results) / count,
        torque=torch.stack([each.torque for each in results]).mean(0),
    )


if __name__ == "__main__":
    main()
