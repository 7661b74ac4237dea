"""What PPO reaches under several rules for its learning rate. Run by hand:

    python tests/benchmarks/ppo.py                                         # needs robotrl[dev]
    python tests/benchmarks/ppo.py --tasks HalfCheetah-v5 --rules fixed --seeds 0 1 2 3
    python tests/benchmarks/ppo.py --csv tests/benchmarks/ppo.csv --seeds  # ours, nothing is run

Gymnasium's own MuJoCo tasks, stepped by Gymnasium's own vector environment, and our arm_reach as it
is shipped. Every run is evaluated with the deterministic policy in worlds that it never saw: the
mean return of 16 episodes, or arm_reach's median distance in cm. The table shows the interquartile
mean over seeds (of fewer than four, the mean) and the extremes; every run is a line of the CSV
file, and runs that are already in it are kept.
One run on a Gymnasium task takes about a minute of one core. The CSV also has rules that were tried
before and are gone: the rate after each minibatch (`per minibatch`, as rsl_rl) and an update that
ends when its KL is large (`early stop`, as SB3).
"""

import argparse
import csv
import math
import time
from pathlib import Path
from typing import Any

import gymnasium
import mujoco
import numpy as np
import torch
from gymnasium.vector import AutoresetMode
from torch import Tensor

from envs.vector_env import Step, StepInfo
from robotrl.policy import Agent
from robotrl.ppo import PPO, PPOConfig, Rollout
from robotrl.shipped import config_path
from robotrl.train import make_env
from robotrl.train_config import load_train_config

GYMNASIUM_TASKS = ("HalfCheetah-v5", "Hopper-v5", "Walker2d-v5")
TASKS = (*GYMNASIUM_TASKS, "arm_reach")
GYMNASIUM_PPO = PPOConfig(
    rollout_steps=128,
    epochs=10,
    minibatches=8,
    learning_rate=3e-4,
    gamma=0.99,
    entropy_coef=0.0,
    initial_std=0.6,
    actor_hidden=[64, 64],
    critic_hidden=[64, 64],
)
NUM_ENVS, EPISODE_STEPS, EVALUATED = 16, 1000, 16
SEED_OFFSET = 1_000_003  # worlds of the evaluation
DESIRED_KL = 0.01
COLUMNS: tuple[str, ...] = ("task", "rule", "seed", "env_steps", "score", "cpu_s")


class PerUpdate(PPO):
    """After each update, the rate follows the KL of the whole batch."""

    def update(self, rollout: Rollout) -> dict[str, float]:
        """See `PPO.update`."""
        losses = super().update(rollout)
        kl = losses["policy/kl"]
        if kl > 2 * DESIRED_KL:
            self._scale(1 / 1.5)
        elif kl < DESIRED_KL / 2:
            self._scale(1.5)
        return losses

    def _scale(self, factor: float) -> None:
        for stepper in (self._actor_step, self._critic_step):
            stepper.learning_rate = min(max(stepper.learning_rate * factor, 1e-5), 1e-2)


class Annealed(PPO):
    """The rate falls linearly to zero."""

    total_updates: int

    def update(self, rollout: Rollout) -> dict[str, float]:
        """See `PPO.update`."""
        losses = super().update(rollout)
        for stepper in (self._actor_step, self._critic_step):
            stepper.learning_rate -= self.config.learning_rate / self.total_updates
        return losses


RULES = {
    "fixed": PPO,
    "annealed": Annealed,
    "per update": PerUpdate,
}


class GymnasiumWorlds:
    """A Gymnasium task as our `envs.vector_env.VectorEnv`.

    With SAME_STEP, the observation of a world that ended is the first of its next episode, and the
    last one is in `info`; so no step is a mere reset, whose action does nothing.

    Args:
        task: id of the task; actions in [-1, 1].
        num_envs: number of worlds.
        seed: of the resets.
    """

    def __init__(self, task: str, num_envs: int, seed: int):
        self._env = gymnasium.make_vec(
            task, num_envs, "sync", vector_kwargs={"autoreset_mode": AutoresetMode.SAME_STEP}
        )
        self.num_envs = num_envs
        self.num_actions = self._env.single_action_space.sample().size
        self._seed = seed

    def reset(self) -> dict[str, Tensor]:
        """Start an episode in every world."""
        return self._observe(self._env.reset(seed=self._seed)[0])

    def step(self, action: Tensor) -> Step:
        """See `envs.vector_env.VectorEnv.step`."""
        observation, reward, terminated, truncated, info = self._env.step(action.numpy())
        final = observation.copy()
        for world in np.flatnonzero(terminated | truncated):
            final[world] = info["final_obs"][world]
        nothing = torch.zeros(self.num_envs, dtype=torch.bool)
        return Step(
            self._observe(observation),
            torch.from_numpy(reward).float(),
            torch.from_numpy(terminated),
            torch.from_numpy(truncated),
            StepInfo(self._observe(final), {}, {}, nothing),
        )

    def _observe(self, observation: np.ndarray) -> dict[str, Tensor]:
        tensor = torch.from_numpy(observation).float()
        return {"actor": tensor, "critic": tensor}


def learn(rule: str, config: PPOConfig, env: Any, env_steps: int, *, seed: int) -> PPO:
    """Train with a rule; the environment has just been made."""
    observation = env.reset(stagger=True) if hasattr(env, "task") else env.reset()
    sizes = {name: value.shape[1] for name, value in observation.items()}
    learner = RULES[rule](config, sizes, env.num_actions, seed=seed)
    updates = math.ceil(env_steps / (env.num_envs * config.rollout_steps))
    if isinstance(learner, Annealed):
        learner.total_updates = updates
    for _ in range(updates * config.rollout_steps):
        step = env.step(learner.act(observation))
        learner.learn(step)
        observation = step.observation
    return learner


@torch.no_grad()
def mean_return(learner: PPO, env: Any, observation: dict[str, Tensor]) -> float:
    """Mean return of each world's first episode, without noise."""
    total, running = torch.zeros(env.num_envs), torch.ones(env.num_envs, dtype=torch.bool)
    agent = Agent(learner.policy, env.num_envs)  # of the first episode: nothing to forget
    for _ in range(EPISODE_STEPS):
        action = agent.act(observation["actor"])
        observation, reward, terminated, truncated, _ = env.step(action)
        total += running * reward
        running &= ~(terminated | truncated)
    return float(total.mean())


@torch.no_grad()
def median_error_cm(learner: PPO, env: Any, observation: dict[str, Tensor]) -> float:
    """Median of arm_reach's metric over one episode in every world, without noise."""
    errors, agent = [], Agent(learner.policy, env.num_envs)
    for _ in range(env.task.episode_steps):
        observation, *_, info = env.step(agent.act(observation["actor"]))
        errors.append(info.metrics["reach_error_m"][info.measured])
    return 100 * float(torch.cat(errors).median())


def run(task: str, rule: str, seed: int, env_steps: int) -> dict[str, Any]:
    """Train and evaluate once; a line of the CSV."""
    started_s = time.process_time()
    if task == "arm_reach":
        shipped = load_train_config(config_path("train/arm_reach.yaml"), [f"seed={seed}"])
        env_steps = shipped.env_steps
        env = make_env(shipped, num_threads=1)
        assert isinstance(shipped.algorithm, PPOConfig)
        learner = learn(rule, shipped.algorithm, env, env_steps, seed=seed)
        cpu_s = time.process_time() - started_s
        fresh = make_env(shipped, num_envs=128, num_threads=1, seed=seed + SEED_OFFSET)
        score = median_error_cm(learner, fresh, fresh.reset())
    else:
        worlds = GymnasiumWorlds(task, NUM_ENVS, seed)
        learner = learn(rule, GYMNASIUM_PPO, worlds, env_steps, seed=seed)
        cpu_s = time.process_time() - started_s
        fresh = GymnasiumWorlds(task, EVALUATED, seed + SEED_OFFSET)
        score = mean_return(learner, fresh, fresh.reset())
    values = (task, rule, seed, env_steps, round(score, 4), round(cpu_s, 1))
    return dict(zip(COLUMNS, values, strict=True))


def interquartile_mean(scores: list[float]) -> float:
    """Mean without the best and the worst quarter (Agarwal et al. 2021, arXiv 2108.13264)."""
    cut = len(scores) // 4
    return float(np.mean(sorted(scores)[cut : len(scores) - cut]))


def show(rows: list[dict[str, Any]], rules: list[str]) -> None:
    """The table: tasks down, rules across."""
    print(f"{'':16}" + "".join(f"{rule:>24}" for rule in rules))
    for task in dict.fromkeys(row["task"] for row in rows):
        cells = []
        for rule in rules:
            scores = [
                float(row["score"]) for row in rows if (row["task"], row["rule"]) == (task, rule)
            ]
            if not scores:
                cells.append(f"{'-':>24}")
                continue
            spread = f"{interquartile_mean(scores):.4g} ({min(scores):.4g}…{max(scores):.4g})"
            cells.append(f"{spread:>24}")
        print(f"{task + ' [cm]' if task == 'arm_reach' else task:16}" + "".join(cells))


def main() -> None:
    """Run what is missing in the CSV; print the table."""
    parser = argparse.ArgumentParser(formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--tasks", nargs="+", choices=TASKS, default=list(TASKS))
    parser.add_argument("--rules", nargs="+", choices=list(RULES), default=list(RULES))
    parser.add_argument("--seeds", type=int, nargs="*", default=[0, 1])
    parser.add_argument("--env-steps", type=int, default=300_000, help="of the Gymnasium tasks")
    parser.add_argument("--csv", type=Path, default=Path("runs/benchmark_ppo.csv"))
    arguments = parser.parse_args()

    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    mujoco.set_mju_user_warning(lambda _: None)  # Gymnasium's XML is written for an older MuJoCo
    arguments.csv.parent.mkdir(parents=True, exist_ok=True)
    rows: list[dict[str, Any]] = []
    if arguments.csv.exists():
        with arguments.csv.open(newline="") as file:
            rows = list(csv.DictReader(file))
    done = {(row["task"], row["rule"], int(row["seed"])) for row in rows}
    for seed in arguments.seeds:
        for task in arguments.tasks:
            for rule in arguments.rules:
                if (task, rule, seed) in done:
                    continue
                rows.append(run(task, rule, seed, arguments.env_steps))
                with arguments.csv.open("a", newline="") as file:
                    writer = csv.DictWriter(file, COLUMNS)
                    if file.tell() == 0:
                        writer.writeheader()
                    writer.writerow(rows[-1])
                print(", ".join(f"{value}" for value in rows[-1].values()), flush=True)
    show(rows, arguments.rules)


if __name__ == "__main__":
    main()
