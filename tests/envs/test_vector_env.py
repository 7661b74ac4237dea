"""What every task owes its learner: shapes, finite numbers, ends, seeds and exact continuation."""

import copy
import math
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import envs
from deploy.errors import ConfigError
from envs.batch_simulation import BatchSimulation
from envs.randomization.physics.fields import FieldTerm
from envs.randomization.signals.errors import SignalError
from envs.registry import GYM_TASKS, TASKS

NUM_ENVS = 4
ROBOTS = Path(envs.__file__).parent / "robots"
RANDOMIZATION = (
    FieldTerm(field="mass", range=(0.8, 1.25)),
    FieldTerm(field="actuator_delay", operation="set", range=(0.005, 0.03)),
    SignalError(signal="joint_position", operation="add", range=(-0.01, 0.01)),
    SignalError(signal="joint_velocity", operation="add", range=(-0.1, 0.1), when="step"),
)
"""Terms that any robot understands, so that draws, noise and biases are part of every test."""

Make = Callable[..., envs.VectorEnv]


@pytest.fixture(params=[*TASKS, "stand"])
def make(request: pytest.FixtureRequest, stand_task: str) -> Make:
    """Makes the environment of one task, for all tasks in turn."""

    def make(*, num_envs: int = NUM_ENVS, seed: int = 0, episode_steps: int = 8, **settings: Any):
        settings = {"randomization": RANDOMIZATION, "num_threads": 1} | settings
        env = envs.make(request.param, num_envs=num_envs, seed=seed, **settings)
        env.task.episode_steps = episode_steps
        return env

    return make


def actions(env: envs.VectorEnv, steps: int, *, seed: int = 0) -> Tensor:
    """Random actions (steps, num_envs, num_actions), a tenth of them at the ends of their range.

    World i is sent the same actions in an environment of any size.
    """
    worlds = []
    for world in range(env.num_envs):
        generator = torch.Generator().manual_seed(1000 * seed + world)
        worlds.append(2.2 * torch.rand(steps, env.num_actions, generator=generator) - 1.1)
    return torch.stack(worlds, dim=1).clamp(-1, 1)


def run(env: envs.VectorEnv, steps: int, *, seed: int = 0) -> dict[str, Tensor]:
    """Observations, rewards and ends of random actions, (steps, num_envs, ...) each."""
    rows: list[dict[str, Tensor]] = []
    for action in actions(env, steps, seed=seed):
        observation, reward, terminated, truncated, _ = env.step(action)
        rows.append(
            observation | {"reward": reward, "terminated": terminated, "truncated": truncated}
        )
    return {name: torch.stack([row[name] for row in rows]) for name in rows[0]}


def assert_same(one: Any, other: Any, name: str = "") -> None:
    """To the bit, through dictionaries and lists of tensors."""
    if isinstance(one, dict):
        assert one.keys() == other.keys()
        for key in one:
            assert_same(one[key], other[key], f"{name}.{key}")
    elif isinstance(one, list):
        for number, pair in enumerate(zip(one, other, strict=True)):
            assert_same(*pair, f"{name}[{number}]")
    elif isinstance(one, Tensor):
        same = torch.equal(one, other) or torch.allclose(one, other, 0, 0, equal_nan=True)
        assert same, name
    else:
        assert one == other, name


def test_observations_and_rewards_have_the_declared_shapes(make: Make):
    env = make()
    first = env.reset()

    observation, reward, terminated, truncated, info = env.step(torch.zeros(4, env.num_actions))

    for values in (first, observation):
        assert {name: tuple(value.shape) for name, value in values.items()} == {
            name: (NUM_ENVS, size) for name, size in env.observation_sizes.items()
        }
        assert all(value.dtype == torch.float32 for value in values.values())
    assert reward.shape == terminated.shape == truncated.shape == (NUM_ENVS,)
    assert (reward.dtype, terminated.dtype, truncated.dtype) == (
        torch.float32,
        torch.bool,
        torch.bool,
    )
    assert not (terminated | truncated).any()
    for name, value in info.final_observation.items():
        assert torch.equal(value, observation[name])


def test_critic_sees_what_the_actor_sees_and_more(make: Make):
    observation = make().reset()
    size = observation["actor"].shape[1]

    assert torch.equal(observation["critic"][:, :size], observation["actor"])
    assert observation["critic"].shape[1] > size


def test_everything_is_finite_under_random_actions(make: Make):
    env = make(num_envs=8, episode_steps=50)
    env.reset(stagger=True)

    values = run(env, 200)

    assert all(value.isfinite().all() for value in values.values())
    assert env.diverged == 0


def test_reward_is_the_sum_of_its_terms(make: Make):
    env = make()
    env.reset()

    _, reward, *_, info = env.step(torch.full((NUM_ENVS, env.num_actions), 0.5))

    assert all(term.shape == (NUM_ENVS,) for term in info.rewards.values())
    torch.testing.assert_close(reward, torch.stack(list(info.rewards.values())).sum(dim=0))


def test_same_seed_gives_the_same_bits_at_any_number_of_threads(make: Make):
    runs = []
    for num_threads in (1, 2):
        env = make(num_threads=num_threads)
        first = env.reset()
        runs.append(run(env, 20) | {"first": first["critic"]})

    assert_same(*runs)


def test_another_seed_gives_other_episodes(make: Make):
    one, other = make(seed=0).reset(), make(seed=1).reset()

    assert (one["actor"] != other["actor"]).any(dim=-1).all()


def test_worlds_are_different(make: Make):
    actor = make().reset()["actor"]

    assert len(actor.unique(dim=0)) == NUM_ENVS


def test_world_does_not_depend_on_how_many_others_there_are(make: Make):
    few, many = make(num_envs=2), make(num_envs=6)
    few.reset()
    many.reset()

    few_values, many_values = run(few, 20), run(many, 20)

    for name, value in few_values.items():
        torch.testing.assert_close(value, many_values[name][:, :2], msg=name)


def test_final_observation_is_of_the_old_episode_and_the_returned_one_of_the_new(make: Make):
    ending, running = make(episode_steps=5), make(episode_steps=1000)
    ending.reset()
    running.reset()
    for action in actions(ending, 4):
        ending.step(action)
        running.step(action)
    action = actions(ending, 5)[4]

    observation, _, _, truncated, info = ending.step(action)
    beyond, *_ = running.step(action)

    assert truncated.all()
    # Without the time limit the same worlds would go on from the final observation.
    final = info.final_observation
    assert torch.equal(final["actor"], beyond["actor"])
    assert torch.equal(final["critic"], beyond["critic"])
    # The first observation of an episode is that of an encoder without memory.
    first, _ = ending.task.encoder(ending.signals, ending.task.encoder.initial_state(NUM_ENVS))
    assert torch.equal(observation["actor"], first)
    assert (observation["actor"] != final["actor"]).any(dim=-1).all()


def test_worlds_that_do_not_end_are_not_disturbed_by_those_that_do(make: Make):
    staggered, running = make(episode_steps=4), make(episode_steps=1000)
    staggered.reset(stagger=True)  # world i starts at step i of 4, so it ends after 4 - i steps
    running.reset()
    for count, action in enumerate(actions(running, 3), 1):
        observation, _, _, truncated, _ = staggered.step(action)
        expected, *_ = running.step(action)

        assert torch.nonzero(truncated).tolist() == [[NUM_ENVS - count]]
        alive = list(range(NUM_ENVS - count))
        assert torch.equal(observation["actor"][alive], expected["actor"][alive])
        assert torch.equal(observation["critic"][alive], expected["critic"][alive])


def test_staggered_worlds_end_one_after_the_other(make: Make):
    env = make(num_envs=8, episode_steps=16)
    env.reset(stagger=True)

    ends = run(env, 16)["truncated"]

    assert ends.sum(dim=0).tolist() == [1] * 8
    assert ends.sum(dim=1).max() == 1


def test_action_range_is_mapped_to_targets_that_reach_the_actuators(make: Make):
    env = make(randomization=())
    env.reset()
    action = torch.full((NUM_ENVS, env.num_actions), 0.7)
    expected = env.task.decoder(action, env.signals)

    env.step(action)

    (sent,) = (value for name, value in env.signals.items() if name.startswith("joint_target"))
    assert torch.equal(sent, expected)


def test_targets_of_an_exported_controller_have_the_same_effect_as_its_action(make: Make):
    by_action, by_targets = make(), make()
    by_action.reset()
    by_targets.reset()
    for action in actions(by_action, 12):
        targets = by_targets.task.decoder(action, by_targets.signals)

        one = by_action.step(action)
        other = by_targets.step_targets(targets, action)

        assert_same(one[0], other[0])
        assert torch.equal(one[1], other[1])


def test_restored_environment_continues_with_the_same_bits(make: Make):
    env = make()
    env.reset(stagger=True)
    run(env, 10)  # some worlds are in their second episode
    state = env.state_dict()
    expected = run(env, 20, seed=1)

    restored = make(seed=0)
    restored.load_state_dict(state)

    assert_same(run(restored, 20, seed=1), expected)


def test_state_may_be_loaded_again_and_again(make: Make):
    env = make()
    env.reset()
    run(env, 3)
    state = env.state_dict()
    runs = []
    for _ in range(2):
        env.load_state_dict(state)
        runs.append(run(env, 12))
        env.reset()

    assert_same(*runs)


def test_state_is_not_changed_by_going_on(make: Make):
    env = make()
    env.reset()
    run(env, 3)
    state = env.state_dict()
    kept = copy.deepcopy(state)

    run(env, 10)
    env.reset()

    assert_same(state, kept)


def test_observation_is_not_changed_by_later_calls(make: Make):
    env = make()
    env.reset()
    observation, *_ = env.step(torch.zeros(NUM_ENVS, env.num_actions))
    kept = copy.deepcopy(observation)

    env.reset()
    run(env, 10)

    assert_same(observation, kept)


def test_observation_may_be_changed_by_the_learner(make: Make):
    polite, rude = make(), make()
    polite.reset()
    for value in rude.reset().values():
        value.fill_(1e6)

    for action in actions(polite, 10):
        expected, *_ = polite.step(action)
        found, *_ = rude.step(action)
        assert_same(found, expected)
        for value in found.values():
            value.fill_(1e6)


def test_reset_by_the_caller_is_the_reset_at_once(make: Make):
    by_itself, by_caller = make(episode_steps=4), make(episode_steps=4)
    by_itself.reset(stagger=True)
    by_caller.reset(stagger=True)
    for action in actions(by_itself, 12):
        expected = by_itself.step(action)

        found = by_caller.step(action, autoreset=False)

        assert torch.equal(by_caller.over, found.terminated | found.truncated)
        assert_same(found.observation, expected.info.final_observation)
        assert_same(found.info._asdict(), expected.info._asdict())
        observation = by_caller.restart(by_caller.over, found.observation)
        assert_same(observation, expected.observation)
        assert not by_caller.over.any()


def test_world_that_is_over_gives_nothing_until_its_restart(make: Make):
    env, running = make(episode_steps=4), make(episode_steps=1000)
    env.reset(stagger=True)  # world i ends after 4 - i steps
    running.reset()
    for count, action in enumerate(actions(env, 4), 1):
        spoilt = action.masked_fill(env.over[:, None], math.nan)  # may be what a dead world sees

        observation, reward, terminated, truncated, info = env.step(spoilt, autoreset=False)

        expected = running.step(action)
        alive, over = slice(NUM_ENVS - count), slice(NUM_ENVS - count + 1, NUM_ENVS)
        assert torch.equal(observation["critic"][alive], expected.observation["critic"][alive])
        assert torch.equal(reward[: NUM_ENVS - count + 1], expected.reward[: NUM_ENVS - count + 1])
        assert torch.nonzero(terminated | truncated).tolist() == [[NUM_ENVS - count]]
        assert torch.nonzero(env.over).flatten().tolist() == list(range(NUM_ENVS))[-count:]
        assert not info.measured[over].any()
        for value in (reward, *info.rewards.values()):
            assert (value[over] == 0).all()
        assert observation["critic"].isfinite().all()


def test_worlds_that_are_over_start_anew_in_a_step_that_resets(make: Make):
    env = make(episode_steps=2)
    env.reset()
    ends = [env.step(action, autoreset=False).truncated.all() for action in actions(env, 3)]
    assert ends == [False, True, False]
    assert env.over.all()

    observation, *_ = env.step(torch.zeros(NUM_ENVS, env.num_actions))

    assert not env.over.any()
    first, _ = env.task.encoder(env.signals, env.task.encoder.initial_state(NUM_ENVS))
    assert torch.equal(observation["actor"], first)


def test_restart_of_some_worlds_is_not_noticed_by_the_others(make: Make):
    env, undisturbed = make(episode_steps=1000), make(episode_steps=1000)
    env.reset()
    undisturbed.reset()
    mask = torch.tensor([False, True, False, True])
    first, last = actions(env, 2)
    observation = env.step(first).observation
    expected = undisturbed.step(first).observation

    restarted = env.restart(mask, observation)

    assert_same(observation, expected)  # the caller's own
    for name, rows in restarted.items():
        assert torch.equal(rows[~mask], expected[name][~mask])
        assert (rows[mask] != expected[name][mask]).any(dim=1).all()
    after, beyond = env.step(last).observation, undisturbed.step(last).observation
    assert torch.equal(after["critic"][~mask], beyond["critic"][~mask])


def test_restored_environment_knows_which_worlds_are_over(make: Make):
    env = make(episode_steps=4)
    env.reset(stagger=True)
    for action in actions(env, 2):
        env.step(action, autoreset=False)
    restored = make(episode_steps=4)

    restored.load_state_dict(env.state_dict())

    assert restored.over.tolist() == [False, False, True, True]
    action = actions(env, 1)[0]
    one, other = (e.step(action, autoreset=False) for e in (env, restored))
    assert torch.equal(one.reward, other.reward)
    assert_same(
        env.restart(env.over, one.observation), restored.restart(restored.over, other.observation)
    )


def test_worlds_to_restart_are_a_mask(make: Make):
    env = make()
    every = torch.ones(NUM_ENVS, dtype=torch.bool)
    with pytest.raises(RuntimeError, match=r"call reset\(\) first"):
        env.restart(every, {})
    observation = env.reset()

    with pytest.raises(ValueError, match=r"must be bool, one for each, found torch\.int64"):
        env.restart(torch.tensor([0, 2, 1, 3]), observation)
    with pytest.raises(ValueError, match=r"must have shape \(4,\), found \(3,\)"):
        env.restart(every[:3], observation)


def test_diverged_world_is_terminated_without_reward_and_starts_anew(
    make: Make, monkeypatch: pytest.MonkeyPatch
):
    env, healthy = make(episode_steps=1000), make(episode_steps=1000)
    env.reset()
    healthy.reset()
    expected, expected_reward, *_ = healthy.step(torch.zeros(NUM_ENVS, env.num_actions))
    step = BatchSimulation.step

    def diverge(self: BatchSimulation, *args: Any) -> Tensor:
        step(self, *args)
        return torch.tensor([False, False, True, False])

    monkeypatch.setattr(BatchSimulation, "step", diverge)
    observation, reward, terminated, truncated, _ = env.step(torch.zeros(NUM_ENVS, env.num_actions))

    assert terminated.tolist() == [False, False, True, False]
    assert not truncated.any()
    assert reward[2] == 0
    assert env.diverged == 1
    others = [0, 1, 3]
    assert torch.equal(observation["critic"][others], expected["critic"][others])
    assert torch.equal(reward[others], expected_reward[others])
    assert (observation["actor"][2] != expected["actor"][2]).any()


def test_metrics_of_a_diverged_world_do_not_count(make: Make, monkeypatch: pytest.MonkeyPatch):
    env = make(episode_steps=1000)
    env.reset()
    advance = env.task.advance
    every_world = torch.ones(NUM_ENVS, dtype=torch.bool)
    monkeypatch.setattr(env.task, "advance", lambda: (advance()[0], every_world))
    monkeypatch.setattr(BatchSimulation, "step", lambda *_: torch.arange(NUM_ENVS) == 2)

    step = env.step(torch.zeros(NUM_ENVS, env.num_actions))

    assert step.info.measured.tolist() == [True, True, False, True]


def test_world_that_is_over_does_not_diverge_again(make: Make, monkeypatch: pytest.MonkeyPatch):
    env = make(episode_steps=1000)
    env.reset()
    monkeypatch.setattr(BatchSimulation, "step", lambda *_: torch.arange(4) == 2)
    action = torch.zeros(NUM_ENVS, env.num_actions)

    ends = [env.step(action, autoreset=False).terminated.tolist() for _ in range(2)]

    assert ends == [[False, False, True, False], [False] * 4]
    assert env.diverged == 1


def test_world_that_diverges_at_its_time_limit_counts_as_terminated_only(
    make: Make, monkeypatch: pytest.MonkeyPatch
):
    env = make(episode_steps=1)
    env.reset()
    monkeypatch.setattr(BatchSimulation, "step", lambda *_: torch.arange(4) == 2)

    _, _, terminated, truncated, _ = env.step(torch.zeros(NUM_ENVS, env.num_actions))

    assert terminated.tolist() == [False, False, True, False]
    assert truncated.tolist() == [True, True, False, True]


def test_action_beyond_its_range_is_the_end_of_its_range(make: Make):
    wild, tame = make(), make()
    wild.reset()
    tame.reset()

    for action in actions(wild, 10):
        one = wild.step(torch.where(action.abs() > 0.5, 1000 * action, action))
        other = tame.step(torch.where(action.abs() > 0.5, action.sign(), action))
        assert_same(one[0], other[0])
        assert torch.equal(one[1], other[1])


def test_actions_that_are_not_one_for_each_world_are_refused_and_nothing_moves(make: Make):
    env = make()
    env.reset()
    before = env.state_dict()["simulation"]["state"]

    for shape in ((env.num_actions,), (1, env.num_actions), (1, NUM_ENVS, env.num_actions)):
        with pytest.raises(ValueError, match="the actions must have shape"):
            env.step(torch.zeros(shape))

    assert torch.equal(env.state_dict()["simulation"]["state"], before)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_target_or_action_that_is_no_number_is_refused_with_its_world(make: Make, value: float):
    env = make()
    env.reset()
    action = torch.zeros(NUM_ENVS, env.num_actions)
    targets = env.task.decoder(action, env.signals)
    targets[2, 0] = value

    with pytest.raises(ValueError, match=r"of worlds \[2\] are not finite"):
        env.step_targets(targets)
    if math.isnan(value):
        action[2, 0] = value
        with pytest.raises(ValueError, match=r"of worlds \[2\] are not finite"):
            env.step(action)


def test_step_before_reset_is_refused(make: Make):
    env = make()

    with pytest.raises(RuntimeError, match=r"call reset\(\) first"):
        env.step(torch.zeros(NUM_ENVS, env.num_actions))


@pytest.mark.parametrize("copy_of", [copy.deepcopy, lambda env: pickle.loads(pickle.dumps(env))])
def test_copy_of_an_environment_continues_with_the_same_bits(
    make: Make, copy_of: Callable[[envs.VectorEnv], envs.VectorEnv]
):
    env = make()
    env.reset(stagger=True)
    run(env, 5)

    other = copy_of(env)

    other.task.episode_steps = env.task.episode_steps  # set by this test, not by its maker
    assert_same(run(other, 12, seed=1), run(env, 12, seed=1))


def test_noise_of_the_last_observation_of_an_episode_is_not_that_of_the_next_first(make: Make):
    noise = SignalError(signal="joint_velocity", operation="add", range=(-1, 1), when="step")
    env, silent = make(randomization=[noise]), make(randomization=[])
    env.reset()
    silent.reset()
    errors = last = torch.zeros(0)
    for action in actions(env, 8):  # 8 steps are an episode
        _, _, _, truncated, info = env.step(action)
        *_, quiet = silent.step(action)
        if truncated.any():
            last = info.final_observation["actor"] - quiet.final_observation["actor"]
            errors = env.signals["joint_velocity"] - silent.signals["joint_velocity"]

    first = errors.flatten()
    assert len(first.unique()) == first.numel()
    distance = (last.flatten()[:, None] - first).abs()
    assert distance.min() > 1e-6  # rounded by the subtraction, an equal number would be nearer


def test_randomization_may_be_written_as_in_yaml(make: Make):
    plain = [term.model_dump(mode="json", exclude_unset=True) for term in RANDOMIZATION]
    written, parsed = make(randomization=plain), make()

    assert_same(written.reset(), parsed.reset())


def test_wrong_term_is_refused_by_its_number():
    with pytest.raises(ConfigError) as error:
        envs.make("arm_reach", randomization=[RANDOMIZATION[0], {"field": "mass", "rnge": [1, 2]}])

    assert str(error.value).startswith("randomization, term 2: (top level): unknown key 'rnge'")


def test_unknown_task_is_refused_with_those_there_are():
    with pytest.raises(ConfigError) as error:
        envs.make("arm_reech")

    assert str(error.value) == (
        "unknown task 'arm_reech' (did you mean 'arm_reach'?); "
        f"there are {', '.join([*TASKS, *GYM_TASKS])}"
    )


def test_unknown_device_is_refused():
    with pytest.raises(ConfigError) as error:
        envs.make("arm_reach", device="cuda")

    assert str(error.value) == "device 'cuda': torch finds no GPU here; use device 'cpu'"


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"backend": "cuda"}, "backend: input should be 'auto', 'batch' or 'warp', found 'cuda'"),
        ({"device": "gpu"}, "device: string should match pattern .*, found 'gpu'"),
        ({"num_envs": 0}, "num_envs: input should be greater than or equal to 1, found 0"),
        ({"num_envs": 2.5}, "num_envs: input should be a valid integer, .*found 2.5"),
        ({"seed": -1}, "seed: input should be greater than or equal to 0, found -1"),
        ({"seed": 1.5}, "seed: input should be a valid integer, .*found 1.5"),
        ({"num_threads": -2}, "num_threads: input should be greater than or equal to 0"),
        ({"nconmax": "8", "backend": "warp"}, "nconmax: input should be a valid integer"),
        ({"njmax": 0, "backend": "warp"}, "njmax: input should be greater than or equal to 1"),
    ],
)
def test_worlds_that_cannot_be_are_refused_with_the_setting(
    settings: dict[str, Any], expected: str
):
    with pytest.raises(ConfigError, match=f"^worlds of arm_reach: {expected}"):
        envs.make("arm_reach", **settings)


def test_numbers_may_be_numpys():
    env = envs.make("arm_reach", num_envs=np.int64(2), seed=np.uint32(3))  # pyright: ignore[reportArgumentType]

    assert_same(env.reset(), envs.make("arm_reach", num_envs=2, seed=3).reset())


def test_settings_of_a_task_that_are_none_are_refused():
    with pytest.raises(ConfigError, match="should be an object, found"):
        envs.make("arm_reach", task_config=[])  # pyright: ignore[reportArgumentType]


def test_unknown_setting_of_a_task_is_refused_with_the_nearest_name():
    with pytest.raises(ConfigError) as error:
        envs.make("arm_reach", task_config={"episode_length": 3})

    assert str(error.value).startswith(
        "task arm_reach: (top level): unknown key 'episode_length' (did you mean 'episode_s'?)"
    )


def test_unknown_robot_is_refused_with_those_there_are():
    with pytest.raises(ConfigError) as error:
        envs.make("arm_reach", task_config={"robot": "desk_amr"})

    assert str(error.value) == (
        "unknown robot 'desk_amr' (did you mean 'desk_arm'?); there are "
        + ", ".join(sorted(path.stem for path in ROBOTS.glob("*/*.xml")))
    )
