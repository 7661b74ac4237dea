"""Returns and lengths are those of whole episodes, and evaluation changes nothing in the training.

InvertedPendulum-v5 gives 1 for each step but the one in which it falls, so that the return of an
episode that ends with a fall is its length less one.
"""

import math

import pytest
import torch

import envs
from robotrl.algorithms.ppo import PPOConfig, PPOPolicy
from robotrl.runs.episodes import Episodes, Evaluation


def pendulum(num_envs: int) -> envs.VectorEnv:
    return envs.make("gym/InvertedPendulum-v5", num_envs=num_envs, seed=3, num_threads=1)


def actor(env: envs.VectorEnv, seed: int = 0) -> PPOPolicy:
    torch.manual_seed(seed)
    return PPOPolicy(env.observation_sizes["actor"], env.num_actions, PPOConfig(actor_hidden=[4]))


def push(env: envs.VectorEnv) -> torch.Tensor:
    return torch.full((env.num_envs, env.num_actions), 0.2)


def test_evaluated_return_is_the_plain_sum_of_rewards_of_one_episode_in_each_world():
    env = pendulum(4)

    found = Evaluation(env, actor(env)).run(actor(env).state_dict())

    assert 3 < found["length"] < 1000
    assert found["return"] == found["length"] - 1


def test_evaluation_plays_the_same_episodes_each_time():
    env = pendulum(4)
    evaluation = Evaluation(env, actor(env))
    one, other = actor(env, seed=1).state_dict(), actor(env, seed=2).state_dict()
    with torch.no_grad():
        other["network.2.bias"] += 1

    first, second, again = evaluation.run(one), evaluation.run(other), evaluation.run(one)

    assert first == again != second


def test_episodes_are_counted_whole_over_several_readings():
    env = pendulum(2)
    env.reset()
    episodes, found = Episodes(env), []
    for _ in range(60):
        step = env.step(push(env))
        episodes.add(step)
        ended = int((step.terminated | step.truncated).sum())
        if ended:
            found.append(episodes.metrics())
        else:
            assert math.isnan(episodes.metrics()["episode/return"])

    assert len(found) > 2
    assert all(row["episode/return"] == row["episode/length"] - 1 for row in found)
    assert all(row["episode/length"] > 3 for row in found)


def test_episode_that_began_in_the_middle_is_not_counted():
    env = pendulum(2)
    env.reset(stagger=True)  # world 1 has done half of its 1000 steps, it says
    episodes, step = Episodes(env), env.step(push(env))
    going, ending = torch.tensor([False, False]), torch.tensor([False, True])
    found = []
    for terminated in (ending, going, ending):
        episodes.add(step._replace(reward=torch.tensor([1.0, 5.0]), terminated=terminated))
        found.append(episodes.metrics())

    assert math.isnan(found[0]["episode/length"])
    assert math.isnan(found[1]["episode/length"])
    assert found[2] == {"episode/return": 10.0, "episode/length": 2.0}


def test_counting_goes_on_where_it_was_saved():
    env = pendulum(2)
    env.reset()
    one, other = Episodes(env), Episodes(env)
    for number in range(40):
        step = env.step(push(env))
        if number == 10:
            other.load_state_dict(one.state_dict())
        one.add(step)
        if number >= 10:
            other.add(step)
            assert other.metrics() == pytest.approx(one.metrics(), nan_ok=True)
        else:
            one.metrics()
