"""Where a trained arm rests when load and gains are not those it was trained on. Run by hand:

    python tests/benchmarks/droop.py runs/arm_reach     # a run of arm_reach; needs robotrl[train]

Targets last 4 s, the policy is deterministic, nothing but the named term differs from the nominal
arm; 48 worlds, 12 s each. `error` is the distance of the tool from its target over the last second
of each, `droop` how far the shoulder, elbow or wrist then hangs from its commanded angle, and
`action` the mean size of the action, which says whether the arm trembles.
"""

import argparse
from pathlib import Path
from typing import NamedTuple

import torch

from envs.randomization import RandomTerm
from envs.randomization.physics.fields import FieldTerm
from robotrl.algorithms.policy import Agent
from robotrl.runs.evaluate import load_policy
from robotrl.runs.run_folder import RunFolder
from robotrl.runs.train import make_env

WORLDS, SECONDS, TARGET_S = 48, 12, 4.0
SEED_OFFSET = 1_000_003
CASES = {
    "nominal": None,
    **{
        f"{field} x {factor}": FieldTerm(field=field, operation="scale", range=(factor, factor))
        for field, factors in (
            ("mass", (0.5, 1.5, 2.0, 3.0)),
            ("kp", (0.5, 2.0)),
            ("dof_frictionloss", (3.0,)),
        )
        for factor in factors
    },
}


class Rest(NamedTuple):
    """How the arm rests in one case."""

    median_cm: float
    p90_cm: float
    droop_rad: float
    action: float


@torch.no_grad()
def rest(folder: RunFolder, term: RandomTerm | None) -> Rest:
    """Hold targets with a run's policy in worlds that differ from the nominal one by `term`."""
    config = folder.config()
    env = make_env(
        config,
        num_envs=WORLDS,
        seed=config.seed + SEED_OFFSET,
        randomization=[term] if term else [],
        task_config=config.task_config | {"target_interval_s": [TARGET_S, TARGET_S]},
        num_threads=1,
    )
    agent = Agent(load_policy(config, env, folder.load_checkpoint()), WORLDS)
    observation, errors, droops, actions = env.reset(), [], [], []
    per_target = round(TARGET_S / env.task.control_dt_s)
    for step in range(round(SECONDS / env.task.control_dt_s)):
        action = agent.act(observation["actor"])
        observation, _, terminated, truncated, info = env.step(action)
        agent.forget(terminated | truncated)
        errors.append(info.metrics["reach_error_m"][info.measured])
        if step % per_target == per_target - 2:
            droop = env.signals["joint_target"] - env.signals["joint_position"]
            droops.append(droop[:, 1:4].abs().amax(dim=1))
            actions.append(action.abs().mean(dim=1))
    cm = 100 * torch.cat(errors)
    return Rest(
        float(cm.median()),
        float(cm.quantile(0.9)),
        float(torch.cat(droops).median()),
        float(torch.cat(actions).mean()),
    )


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description="Where a trained arm rests under other loads.")
    parser.add_argument("run", type=Path, help="folder of a training run of arm_reach")
    folder = RunFolder(parser.parse_args().run)
    torch.set_num_threads(1)
    print(f"{'':22} error median [cm]    p90   droop [rad]  action")
    for name, term in CASES.items():
        found = rest(folder, term)
        print(
            f"{name:22} {found.median_cm:17.3f} {found.p90_cm:6.3f} {found.droop_rad:13.3f} "
            f"{found.action:7.3f}",
            flush=True,
        )


if __name__ == "__main__":
    main()
