"""Worlds that are divided among processes are those that one process would have."""

from typing import Any

import pytest
import torch
from torch import Tensor

import envs
from envs.draws import Draws
from envs.randomization import Randomization, read_terms
from envs.worlds import Share
from tests.envs.randomization.worlds import walkers

TERRAIN = {"terrain": {"seed": 1}, "episode_s": 4, "stages": [{"until_steps": 200}]}
NOISY = [
    {"field": "mass", "range": [0.8, 1.2], "schedule": {"over_steps": 300}},
    {"push": "*", "range": [-0.2, 0.2], "interval_s": [0.05, 0.1]},
    {"signal": "joint_velocity", "operation": "add", "range": [-0.1, 0.1], "when": "step"},
    {"command": "hold", "probability": 0.2},
]


@pytest.mark.parametrize(
    ("task", "settings"),
    [
        ("arm_reach", {"episode_s": 0.3, "target_interval_s": [0.1, 0.2]}),
        ("velocity", {"robot": "microduck", **TERRAIN}),
        ("gym/Reacher-v5", None),
    ],
)
def test_half_of_the_worlds_are_what_they_are_beside_the_other_half(
    task: str, settings: dict[str, Any] | None
):
    terms = NOISY if settings and task != "velocity" else NOISY[:1]
    make = {"task_config": settings, "randomization": terms, "num_threads": 1, "seed": 4}
    whole = envs.make(task, num_envs=6, **make)
    half = envs.make(task, num_envs=3, share=Share(first=3, processes=2), **make)

    seen, seen_of_half = whole.reset(stagger=True), half.reset(stagger=True)
    generator = torch.Generator().manual_seed(0)
    for _ in range(40):
        for name, rows in seen_of_half.items():
            torch.testing.assert_close(rows, seen[name][3:], rtol=0, atol=1e-6)
        action = torch.rand(6, whole.num_actions, generator=generator) * 2 - 1
        step, step_of_half = whole.step(action), half.step(action[3:])
        # of rows that are processed in other groups torch rounds exp and the like differently
        torch.testing.assert_close(step_of_half.reward, step.reward[3:], rtol=0, atol=1e-6)
        assert torch.equal(step_of_half.truncated, step.truncated[3:])
        seen, seen_of_half = step.observation, step_of_half.observation
    assert torch.equal(half.episode_step, whole.episode_step[3:])
    assert half.randomization.metrics() == whole.randomization.metrics()


def test_range_adapts_to_what_the_worlds_of_all_processes_measure():
    elsewhere = torch.tensor([2 * 0.4, 2.0])  # two worlds with errors of 0.4
    term = {
        "field": "mass",
        "range": [0.8, 1.2],
        "adapt": {"metric": "error", "good": 0.3, "bad": 0.5, "samples": 4, "step": 0.25},
    }
    simulation, _ = walkers([], 2)

    def randomization(sum_: Any) -> Randomization:
        draws = Draws(0, simulation.device, share=Share(first=2, processes=2, sum=sum_))
        terms = read_terms([term], source="test")
        return Randomization(terms, simulation, draws, signals={}, control_dt_s=0.02)

    def adapted(found: Tensor, sum_: Any) -> float:
        terms = randomization(sum_)
        terms.adapt({"error": found}, torch.ones(2, dtype=torch.bool))
        return next(iter(terms.metrics().values()))

    # 0.1 and 0.1 here: the mean of four is 0.25, good
    assert adapted(torch.tensor([0.1, 0.1]), lambda here: here + elsewhere) == 0.25
    # 0.3 and 0.3: it is 0.35, neither good nor bad; two alone would not have been enough
    assert adapted(torch.tensor([0.3, 0.3]), lambda here: here + elsewhere) == 0.0
    assert adapted(torch.tensor([0.1, 0.1]), lambda here: here) == 0.0
