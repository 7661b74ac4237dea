"""The reach task: its rewards by hand, its commands, its metric, and what its actor may know."""

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

import envs
from deploy.errors import ConfigError
from envs.randomization import RandomTerm
from envs.randomization.physics.fields import FieldTerm
from envs.randomization.signals.errors import SignalError
from envs.rewards import closeness, mean_square
from envs.tasks.arm import desk
from envs.tasks.arm_reach import ArmReachConfig
from envs.vector_env import Step

CONTROL_DT_S = ArmReachConfig().control_dt_s


def make(
    *, num_envs: int = 4, seed: int = 0, terms: tuple[RandomTerm, ...] = (), **task_config: Any
) -> envs.VectorEnv:
    """An environment of the task with settings that differ from its defaults."""
    return envs.make(
        "arm_reach",
        num_envs=num_envs,
        seed=seed,
        randomization=terms,
        task_config=task_config,
        num_threads=1,
    )


def steps(env: envs.VectorEnv, count: int) -> Iterator[tuple[Tensor, Tensor, Step]]:
    """Random actions; yields the commands before and after each step, and the step."""
    generator = torch.Generator().manual_seed(0)
    for _ in range(count):
        before = env.signals["command"].clone()
        action = 2 * torch.rand(env.num_envs, env.num_actions, generator=generator) - 1
        step = env.step(action)
        yield before, env.signals["command"].clone(), step


def tool_position(env: envs.VectorEnv, observation: dict[str, Tensor]) -> Tensor:
    """(num_envs, 3); the critic's privileged part begins with tool - command."""
    start = env.observation_sizes["actor"]
    return observation["critic"][:, start : start + 3] + env.signals["command"]


def test_desk_counts_below_two_centimetres():
    assert desk(torch.tensor([0.05, 0.02, 0.01, 0.0])).tolist() == [0, 0, 0.5, 1]


def test_reward_terms_are_weighted():
    rewards = {"reach": 3.0, "hold": 0.0, "action_rate": -2.0, "desk": -7.0}
    plain, weighted = make(), make(rewards=rewards)
    action = torch.full((4, 5), 0.5)
    plain.reset()
    weighted.reset()

    *_, plain_info = plain.step(action)
    *_, info = weighted.step(action)

    default = ArmReachConfig().rewards
    for name, weight in rewards.items():
        expected = plain_info.rewards[name] / getattr(default, name) * weight
        torch.testing.assert_close(info.rewards[name], expected)
    # All actions changed by 0.5 from 0: mean square 1/4.
    assert info.rewards["action_rate"].tolist() == pytest.approx([-0.5] * 4)


def test_rewards_are_computed_from_the_true_state():
    env = make(terms=(noise(),))  # measured angles are wrong by up to 0.1 rad
    env.reset()
    command, start = env.signals["command"].clone(), env.observation_sizes["actor"]

    observation, *_, info = env.step(torch.full((4, 5), -0.8))

    tool = tool_position(env, observation)
    # After the tool's error the critic sees the angles and speeds of all six joints.
    angle, speed = observation["critic"][:, start + 3 : start + 15].split(6, dim=1)
    home = torch.from_numpy(env.deployment.robot.home).float()
    weights = ArmReachConfig().rewards
    distance = (tool - command).norm(dim=-1)
    expected = {
        "reach": weights.reach * closeness(distance, 0.1),
        "hold": weights.hold * closeness(distance, 0.01),
        "action_rate": weights.action_rate * torch.full((4,), 0.64),
        "joint_speed": weights.joint_speed * mean_square(speed[:, :5]),
        "posture": weights.posture * mean_square(angle[:, :5] - home[:5]),
        "desk": weights.desk * desk(tool[:, 2]),
    }
    assert info.rewards.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(info.rewards[name], value, msg=name)


def test_first_action_of_an_episode_changes_from_zero():
    env = make(episode_s=0.06, rewards={"action_rate": -1.0})  # 3 steps
    env.reset()
    rates = []
    for _ in range(6):
        *_, info = env.step(torch.full((4, 5), 0.5))
        rates.append(info.rewards["action_rate"][0].item())

    # 0.5² at the first step of each episode, then the action stays.
    assert rates == pytest.approx([-0.25, 0, 0, -0.25, 0, 0])


def test_reward_is_for_the_command_the_action_was_meant_for():
    env = make(target_interval_s=(CONTROL_DT_S, CONTROL_DT_S))  # a new command at every step
    env.reset()
    before = env.signals["command"].clone()

    observation, *_, info = env.step(torch.zeros(4, 5))

    assert (env.signals["command"] != before).all()
    distance = (tool_position(env, observation) - before).norm(dim=-1)
    torch.testing.assert_close(info.rewards["reach"], closeness(distance, 0.1))


def test_commands_fill_their_box():
    low, high = (0.1, -0.14, 0.05), (0.2, 0.1, 0.2)
    env = make(num_envs=500, target_low_m=low, target_high_m=high)
    env.reset()
    command, low, high = env.signals["command"], torch.tensor(low), torch.tensor(high)

    assert ((command >= low) & (command <= high)).all()
    # The extremes of 500 uniform numbers are within 2 % of the ends (but for 1 in 10000).
    span = high - low
    assert ((command.amin(dim=0) - low) < 0.02 * span).all()
    assert ((high - command.amax(dim=0)) < 0.02 * span).all()


def test_command_changes_after_an_interval_drawn_between_its_bounds():
    env = make(num_envs=16, target_interval_s=(0.1, 0.2), episode_s=100.0)
    env.reset()
    age = torch.zeros(16, dtype=torch.int64)
    intervals = []
    for before, after, _ in steps(env, 100):
        age += 1
        changed = (before != after).any(dim=-1)
        intervals += age[changed].tolist()
        age[changed] = 0

    # 0.1 s to 0.2 s are 5 to 10 steps of 20 ms.
    assert set(intervals) == {5, 6, 7, 8, 9, 10}


def test_metric_counts_ended_commands_only():
    env = make(num_envs=16, target_interval_s=(0.1, 0.2), episode_s=0.5)
    env.reset(stagger=True)
    ended, cut_short = 0, 0
    for before, after, step in steps(env, 60):
        changed = (before != after).any(dim=-1)
        by_reset = step.terminated | step.truncated
        count = int(step.info.measured.sum())
        assert (changed & ~by_reset).sum() <= count <= changed.sum()
        ended += count
        cut_short += int(changed.sum()) - count

    assert ended > 60
    assert cut_short > 5  # episodes that ended in the middle of a command left no number


def test_metric_is_the_mean_distance_in_the_last_second_of_each_command():
    env = make(num_envs=1, target_interval_s=(1.5, 1.5), episode_s=100.0)
    env.reset()
    distances, errors = [], []
    generator = torch.Generator().manual_seed(0)
    for _ in range(150):  # twice 1.5 s
        command = env.signals["command"].clone()
        action = 2 * torch.rand(1, 5, generator=generator) - 1
        observation, *_, info = env.step(action)
        distances.append((tool_position(env, observation) - command).norm())
        errors.append(info.metrics["reach_error_m"][info.measured])

    assert [len(error) for error in errors] == [*[0] * 74, 1, *[0] * 74, 1]
    torch.testing.assert_close(errors[74][0], torch.stack(distances[25:75]).mean())
    torch.testing.assert_close(errors[149][0], torch.stack(distances[100:150]).mean())


def test_metric_of_a_command_shorter_than_a_second_is_the_mean_over_its_life():
    env = make(num_envs=1, target_interval_s=(0.5, 0.5), episode_s=100.0)
    env.reset()
    distances, command = [], env.signals["command"].clone()
    errors = torch.zeros(1)
    for _ in range(25):  # 0.5 s
        observation, *_, info = env.step(torch.zeros(1, 5))
        distances.append((tool_position(env, observation) - command).norm())
        errors = info.metrics["reach_error_m"]

    torch.testing.assert_close(errors[0], torch.stack(distances).mean())


def test_command_shorter_than_a_step_lasts_one_step():
    env = make(num_envs=1, target_interval_s=(0.001, 0.001), episode_s=100.0)
    env.reset()
    for before, after, step in steps(env, 3):
        assert (before != after).any()
        (error,) = step.info.metrics["reach_error_m"]
        assert 0 < error < 1  # m


def test_metric_goes_on_in_a_restored_environment():
    settings: dict[str, Any] = {"target_interval_s": (0.2, 0.4), "episode_s": 100.0}
    env, restored = make(**settings), make(**settings)
    env.reset()
    for _ in steps(env, 7):  # commands of 10 to 20 steps are running
        pass

    restored.load_state_dict(env.state_dict())

    for (*_, expected), (*_, found) in zip(steps(env, 30), steps(restored, 30), strict=True):
        assert torch.equal(found.info.measured, expected.info.measured)
        ended = found.info.measured
        one, other = (step.info.metrics["reach_error_m"][ended] for step in (found, expected))
        assert torch.equal(one, other)


def test_episodes_are_truncated_when_their_time_is_over_and_never_terminated():
    env = make(episode_s=0.2)  # 10 steps
    env.reset()
    ends = []
    for _ in range(20):
        _, _, terminated, truncated, _ = env.step(torch.zeros(4, 5))
        assert not terminated.any()
        ends.append(truncated.tolist())

    assert [step for step, truncated in enumerate(ends, 1) if any(truncated)] == [10, 20]
    assert all(ends[9])


def test_episodes_start_around_the_home_pose_within_the_limits_at_rest():
    env = make(num_envs=500, start_spread_rad=0.4)
    env.reset()
    home = torch.from_numpy(env.deployment.robot.home).float()
    angle = env.signals["joint_position"]
    limits = [joint.position_limits_rad for joint in env.deployment.joints]
    low, high = torch.tensor(limits).unbind(1)

    assert ((angle - home).abs() <= 0.4 + 1e-6).all()
    assert ((angle >= low - 1e-6) & (angle <= high + 1e-6)).all()
    assert ((angle[:, 0] - home[0]).amin() < -0.39) & ((angle[:, 0] - home[0]).amax() > 0.39)
    assert not env.signals["joint_velocity"].any()
    torch.testing.assert_close(env.signals["joint_target"], angle)


def test_every_episode_starts_elsewhere():
    env = make(num_envs=1)
    starts = []
    for _ in range(5):
        env.reset()
        starts.append(env.signals["joint_position"][0, 0].item())

    assert len(set(starts)) == 5


def test_joints_without_action_hold_their_home_pose():
    env = make()
    env.reset()
    gripper = env.deployment.robot.joints.index("gripper")

    env.step(torch.ones(4, 5))

    home = torch.full((4,), env.deployment.robot.home[gripper])
    assert torch.equal(env.signals["joint_target"][:, gripper], home.float())


def test_targets_move_at_most_at_the_configured_speed():
    env = make(max_joint_speed_rad_s=1.5)
    env.reset()
    before = env.signals["joint_target"].clone()

    env.step(torch.ones(4, 5))

    moved = (env.signals["joint_target"] - before)[:, :5]
    assert moved.max().item() == pytest.approx(1.5 * CONTROL_DT_S)


def test_actor_observation_is_a_function_of_the_signals_alone():
    env = make(terms=(noise(),), episode_s=0.1)
    observation = env.reset()
    state = env.task.encoder.initial_state(4)
    for _ in range(20):
        expected, state = env.task.encoder(env.signals, state)
        assert torch.equal(observation["actor"], expected)

        observation, _, terminated, truncated, _ = env.step(torch.full((4, 5), 0.3))
        for value in state.values():
            value[terminated | truncated] = 0


def test_droop_of_a_resting_arm_is_invisible_to_the_actor():
    # An arm of twice the mass rests at the same angles with other targets. If the actor saw that,
    # it could rest somewhere else; seeing the same, it does the same.
    env = make()
    env.reset()
    observations = []
    for droop in (0.0, 0.06):
        signals = {**env.signals, "joint_target": env.signals["joint_position"] + droop}
        state = env.task.encoder.initial_state(4)
        _, state = env.task.encoder(signals, state)
        observations.append(env.task.encoder(signals, state)[0])

    torch.testing.assert_close(*observations, atol=1e-7, rtol=0)


def test_actor_sees_how_targets_move():
    env = make()
    env.reset()
    signals, state = env.signals, env.task.encoder.initial_state(4)
    still, state = env.task.encoder(signals, state)
    moved = {**signals, "joint_target": signals["joint_target"] + 0.02}

    moving, _ = env.task.encoder(moved, state)

    torch.testing.assert_close((moving - still)[:, -5:], torch.full((4, 5), 0.02))


def test_hidden_physics_does_not_reach_the_actor_but_the_critic():
    hidden = (
        FieldTerm(field="mass", range=(2, 3)),
        FieldTerm(field="dof_frictionloss", range=(2, 3)),
        FieldTerm(field="kp", range=(0.5, 0.6)),
        FieldTerm(field="actuator_delay", operation="set", range=(0.02, 0.03)),
    )
    nominal, changed = make().reset(), make(terms=hidden).reset()

    # At reset the signals are the same: same pose, at rest.
    assert torch.equal(nominal["actor"], changed["actor"])
    assert (nominal["critic"] != changed["critic"]).any(dim=-1).all()


def test_measured_not_true_angles_reach_the_actor():
    plain, noisy = make(), make(terms=(noise(),))
    plain.reset()

    observation = noisy.reset()

    error = noisy.signals["joint_position"] - plain.signals["joint_position"]
    assert 0 < error.abs().max() <= 0.1
    assert (observation["actor"] != plain.reset()["actor"]).any()


def refusal(**task_config: Any) -> str:
    with pytest.raises(ConfigError) as error:
        make(**task_config)
    return str(error.value)


def test_control_period_that_is_no_multiple_of_the_timestep_is_refused():
    assert refusal(control_dt_s=0.012) == (
        "control_dt_s 0.012 s is no multiple of the physics timestep 0.005 s; choose one that is"
    )


def test_control_period_shorter_than_the_timestep_is_refused():
    assert "control_dt_s 0.002 s is no multiple" in refusal(control_dt_s=0.002)


def test_box_of_targets_that_is_inside_out_is_refused():
    assert refusal(target_low_m=(0.3, -0.1, 0.05), target_high_m=(0.2, 0.1, 0.2)) == (
        "task arm_reach: (top level): target_low_m (0.3, -0.1, 0.05) is not below target_high_m "
        "(0.2, 0.1, 0.2)"
    )


def test_box_of_targets_that_is_out_of_reach_is_refused():
    assert refusal(target_high_m=(0.4, 0.14, 0.2)) == (
        "target_low_m, target_high_m: (0.400, -0.140, 0.200) m is out of reach: the site 'tool' of "
        "desk_arm gets no nearer than 12.8 cm with ['shoulder_pan', 'shoulder_lift', 'elbow_flex', "
        "'wrist_flex', 'wrist_roll']; choose a box that it reaches, or more joints"
    )
    assert "(0.220, -0.140, 0.050) m is out of reach" in refusal(arm_joints=["shoulder_pan"])


def test_box_of_targets_that_is_below_the_desk_is_refused():
    assert refusal(target_low_m=(0.12, -0.14, -0.01)) == (
        "target_low_m, target_high_m: -0.010 m is below the desk, whose height is 0.000 m; choose "
        "a box over it"
    )


def test_interval_the_wrong_way_round_is_refused():
    assert refusal(target_interval_s=(4.0, 2.0)) == (
        "task arm_reach: (top level): target_interval_s must be [shortest, longest], found "
        "(4.0, 2.0)"
    )


@pytest.mark.parametrize("shortest", [-1.0, 0.0])
def test_interval_without_a_length_is_refused(shortest: float):
    assert refusal(target_interval_s=(shortest, 2.0)) == (
        "task arm_reach: target_interval_s.0: input should be greater than or equal to 0.001, "
        f"found {shortest}"
    )


def test_joint_that_is_named_twice_is_refused():
    assert "arm_joints must be different joints" in refusal(arm_joints=["elbow_flex"] * 2)


def test_episode_shorter_than_a_control_step_is_refused():
    assert "episode_s 0.01 is shorter than control_dt_s" in refusal(episode_s=0.01)


def test_margin_that_leaves_no_home_pose_is_refused():
    assert refusal(limit_margin_rad=1.0) == (
        "the home pose of ['gripper'] lies outside their limits, less limit_margin_rad 1.0; lower "
        "the margin, or correct `home` (the keyframe, or the setting)"
    )


def test_unknown_arm_joint_is_refused_with_the_nearest_name():
    assert refusal(arm_joints=["shoulder_pan", "elbow_flexx"]) == (
        "arm_joints: 'elbow_flexx' (did you mean 'elbow_flex'?) is no joint of desk_arm; there are "
        "shoulder_pan, shoulder_lift, elbow_flex, wrist_flex, wrist_roll, gripper"
    )


def test_unknown_site_is_refused_with_the_nearest_name():
    assert refusal(site="tol") == "site: 'tol' (did you mean 'tool'?) is no site; there are tool"


def noise() -> RandomTerm:
    return SignalError(signal="joint_position", operation="add", range=(-0.1, 0.1), when="step")


def test_coarser_timestep_in_training_leaves_the_robots_own_model_as_it_is():
    coarse = make(training_timestep_s=0.01)

    assert coarse.simulation.model.opt.timestep == 0.01
    assert coarse.task.num_substeps * 0.01 == pytest.approx(CONTROL_DT_S)
    assert make().simulation.model.opt.timestep == 0.005
    with pytest.raises(ConfigError, match=r"^training_timestep_s: control_dt_s 0\.02 s is no"):
        make(training_timestep_s=0.003)
