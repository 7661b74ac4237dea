"""A command that a person holds is what the actor sees and what is rewarded, in every world."""

import numpy as np
import pytest
import torch

import envs
from deploy.errors import ConfigError
from envs.rewards import closeness
from envs.tasks.arm_reach import ArmReach

POINT = [0.15, 0.1, 0.12]


def make() -> envs.VectorEnv:
    settings = {"episode_s": 0.6, "target_interval_s": [0.1, 0.2]}  # ends and commands all the time
    return envs.make("arm_reach", num_envs=4, num_threads=1, task_config=settings)


def still(env: envs.VectorEnv) -> torch.Tensor:
    return torch.zeros(env.num_envs, env.num_actions)


def test_held_command_outlasts_intervals_and_episodes():
    env = make()
    env.hold_command(POINT)
    observation = env.reset()
    x = env.columns["actor"].index("target.x")
    seen = observation["actor"][:, x].clone()

    for _ in range(45):
        assert np.allclose(env.signals["command"], POINT)
        observation = env.step(still(env)).observation
        assert torch.equal(observation["actor"][:, x], seen)


def test_held_command_is_what_counts():
    env = make()
    assert isinstance(env.task, ArmReach)
    env.hold_command(POINT)
    env.reset()

    for _ in range(15):
        rewards = env.step(still(env)).info.rewards
        tool = env.simulation.data("site_xpos")[:, env.simulation.model.site("tool").id].float()
        distance = (tool - torch.tensor(POINT)).norm(dim=1)
        torch.testing.assert_close(rewards["reach"], closeness(distance, 0.1))


def test_released_command_is_the_tasks_own_again():
    env, untouched = make(), make()
    env.reset()
    untouched.reset()
    env.hold_command(POINT)
    env.step(still(env))
    untouched.step(still(env))
    env.hold_command(None)

    for _ in range(25):  # within two intervals every world has its own next command
        env.step(still(env))
        untouched.step(still(env))
    assert torch.equal(env.signals["command"], untouched.signals["command"])


def test_command_of_another_size_is_refused():
    with pytest.raises(ConfigError, match=r"the command takes 3 numbers, found 2: \[0.1, 0.2\]"):
        make().hold_command([0.1, 0.2])


def test_task_without_a_command_says_so():
    with pytest.raises(ConfigError, match="takes no command"):
        envs.make("gym/Ant-v5").hold_command([1.0])
