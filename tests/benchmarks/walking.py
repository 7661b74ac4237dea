"""How well does a run walk: each command by itself, deterministic, randomized and pushed.

    python -m tests.benchmarks.walking runs/microduck_walk --episodes 16

For every command `--episodes` episodes of 20 s, each in its own randomized world (other draws than
in training, every term at its full range). Speed and error count from 1 s after the start. A fall
ends an episode, and the next one begins. `lifts` are the feet's departures from the ground per
second; at the command zero they should be none, but for steps that catch a push: there only those
count that come a second after the robot last tipped over. Torques are held against `--continuous`,
what a servo can give for ever.
"""

import argparse
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from envs.randomization import at_full_range
from envs.tasks.velocity import Velocity
from envs.vector_env import VectorEnv
from envs.walking.gait import asked_to_move, tipping
from envs.walking.terms import as_speed
from robotrl.evaluate import load_policy
from robotrl.run_folder import RunFolder
from robotrl.train import make_test_env

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


def measure(folder: RunFolder, command: tuple[float, float, float], episodes: int) -> Result:
    """Walk at one command for 20 s in each of `episodes` worlds."""
    config = folder.config()
    shares = dict.fromkeys(
        ("standing_share", "forward_share", "turning_share", "heading_share"), 0.0
    )
    fixed = {"low": list(command), "high": list(command), "interval_s": [1000, 1000], **shares}
    settings = {k: v for k, v in config.task_config.items() if k != "stages"}
    env: VectorEnv = make_test_env(
        config,
        num_envs=episodes,
        seed=config.seed + 1_000_003,
        randomization=at_full_range(config.terms),
        task_config=settings | {"command": fixed, "episode_s": 20.0},
    )
    policy = load_policy(config, env, folder.load_checkpoint())
    task, observation = env.task, env.reset()
    assert isinstance(task, Velocity)
    age, calm = torch.zeros(episodes), torch.zeros(episodes)
    falls, lifts, watched, steps = 0, 0.0, 0.0, env.task.episode_steps
    achieved, asked, squared, counted = 0.0, 0.0, 0.0, 0.0
    torque = torch.zeros(env.num_actions, dtype=torch.float64)
    down = None
    for _ in range(steps):
        with torch.no_grad():
            step = env.step(policy(observation["actor"]))
        observation = step.observation
        age += 1
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
    parser.add_argument("--continuous", type=float, default=0.1, help="continuous torque [N·m]")
    parser.add_argument("--commands", nargs="*", default=list(COMMANDS), choices=list(COMMANDS))
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    folder = RunFolder(arguments.run)
    joints = None
    head = f"{'command':10} {'x':>5} {'y':>5} {'yaw':>5}"
    print(f"{head}  share   rms  falls/min  lifts/s  hottest joint")
    for name in arguments.commands:
        command = COMMANDS[name]
        result = measure(folder, command, arguments.episodes)
        joints = joints or make_test_env(folder.config(), num_envs=1).deployment.robot.joints
        worst = int(result.torque.argmax())
        over = float(result.torque[worst]) / arguments.continuous
        print(
            f"{name:10} {command[0]:5.2f} {command[1]:5.2f} {command[2]:5.2f}  {result.share:5.2f} "
            f"{result.rms:5.3f}  {result.falls_per_minute:9.2f}  {result.lifts_per_s:7.1f}  "
            f"{joints[worst]} {float(result.torque[worst]):.2f} N·m, {over:.1f} x continuous",
            flush=True,
        )


if __name__ == "__main__":
    main()
