"""Pushing: rewards and metric by hand, what the actor may know, and what can be reached."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor

import envs
from deploy.errors import ConfigError
from envs.forward_kinematics import ForwardKinematics
from envs.object_features import behind
from envs.rewards import closeness
from envs.robot import load_robot
from envs.tasks.arm_lift import ArmLiftConfig
from envs.tasks.arm_object import ArmObjectConfig
from envs.tasks.arm_push import ArmPush, ArmPushConfig
from robotrl.runs.train_config import load_train_config
from tests.envs.no_sync import no_sync
from tests.robotrl.runs.test_train_config import SHIPPED

ARM_CONFIGS = [path for path in SHIPPED if path.stem.endswith(("_push", "_lift"))]


def make(
    *, num_envs: int = 4, terms: tuple[dict[str, Any], ...] = (), **task_config: Any
) -> envs.VectorEnv:
    settings = {"num_threads": 1, "randomization": terms, "task_config": task_config}
    return envs.make("arm_push", num_envs=num_envs, **settings)


def push(env: envs.VectorEnv) -> ArmPush:
    assert isinstance(env.task, ArmPush)
    return env.task


def put(env: envs.VectorEnv, world: int, x: float, y: float) -> None:
    """Put the puck of a world somewhere."""
    env.simulation.data("qpos")[world, -7:-5] = torch.tensor([x, y])


def still(env: envs.VectorEnv) -> Tensor:
    return torch.zeros(env.num_envs, env.num_actions)


def test_push_begins_behind_the_puck():
    puck = torch.tensor([[0.2, 0.1, 0.015]]).repeat(3, 1)
    way = torch.tensor([[0.1, 0.0], [0.0, -0.05], [0.01, 0.0]])

    found = behind(puck, way, 0.04)

    # the last way is 1 cm long, half of 2 cm: half of the distance
    expected = [[0.16, 0.1, 0.015], [0.2, 0.14, 0.015], [0.18, 0.1, 0.015]]
    torch.testing.assert_close(found, torch.tensor(expected))


def test_rewards_of_a_puck_at_its_goal_and_of_one_10_cm_off():
    env = make(num_envs=2)
    env.reset()
    goal = push(env).command
    put(env, 0, float(goal[0, 0]), float(goal[0, 1]))
    put(env, 1, float(goal[1, 0]) + 0.06, float(goal[1, 1]) + 0.08)

    terms = env.step(still(env)).info.rewards

    off = closeness(torch.tensor([0.0, 0.1]), 0.1)
    torch.testing.assert_close(terms["push"], off, atol=2e-3, rtol=0)
    torch.testing.assert_close(
        terms["settle"], closeness(torch.tensor([0.0, 0.1]), 0.02), atol=2e-3, rtol=0
    )


def test_tool_is_drawn_to_a_point_behind_the_puck_not_over_it():
    env = make(num_envs=3)
    env.reset()
    terms = env.step(still(env)).info.rewards

    puck, way = push(env).object.position, push(env).way
    begin = puck.clone()
    begin[:, :2] -= 0.035 * way / way.norm(dim=1, keepdim=True)  # a radius and a centimetre
    expected = 0.5 * torch.exp(-(begin - push(env).tool).norm(dim=1) / 0.02)
    assert (way.norm(dim=1) > 0.02).all()
    torch.testing.assert_close(terms["behind"], expected, rtol=1e-3, atol=1e-6)


def test_clearance_is_over_the_desk_wherever_the_base_is():
    env = make(num_envs=1, robot="so101_arm", start_low_m=[0.2, 0], start_high_m=[0.21, 0])
    env.reset()
    # the SO-101's base frame lies 2.4 mm over its desk
    assert float(push(env).clearance) == pytest.approx(float(push(env).tool[0, 2]) + 0.0024)


def test_joint_that_the_policy_does_not_move_stays_where_home_says():
    env = make(robot="so101_arm", home={"gripper": -0.1}, start_spread_rad=0.0)
    env.reset()
    for _ in range(50):
        env.step(torch.ones(env.num_envs, env.num_actions))

    joints = {joint.name: joint for joint in env.deployment.joints}
    assert joints["gripper"].default_position_rad == -0.1
    assert joints["elbow_flex"].default_position_rad == 0.9  # as in the model
    assert env.signals["joint_position"][:, -1] == pytest.approx(-0.1, abs=0.02)


def test_home_of_a_joint_that_is_not_there_or_out_of_its_range_is_refused():
    with pytest.raises(
        ConfigError, match=r"home: 'griper' \(did you mean 'gripper'\?\) is no joint"
    ):
        make(home={"griper": 0.0})
    with pytest.raises(ConfigError, match=r"the home pose of \['gripper'\] lies"):
        make(home={"gripper": 9.0})


def test_metric_is_the_mean_distance_in_the_last_second_of_a_goal():
    env = make(num_envs=3, target_interval_s=(2.0, 2.0), episode_s=20.0)
    env.reset()
    errors, distance = [], torch.zeros(3)
    for _ in range(100):
        step = env.step(still(env))
        errors.append(step.info.metrics["push_error_m"])
        assert torch.equal(step.info.measured, torch.full((3,), len(errors) == 100))
        if len(errors) < 100:
            distance = torch.linalg.vector_norm(push(env).way, dim=1)

    # nothing moves, so every distance of the last second is the same
    torch.testing.assert_close(errors[-1], distance, atol=1e-4, rtol=0)
    assert (errors[48] == 0).all()


def test_puck_out_of_reach_ends_the_episode_as_a_failure_and_counts_as_far_as_it_is():
    env = make(num_envs=3)
    env.reset()
    (_, low_y), (high_x, _) = push(env).config.ground
    margin = push(env).config.lost_margin_m
    put(env, 0, high_x + margin + 0.01, 0.0)
    put(env, 1, 0.17, low_y - margin - 0.01)
    put(env, 2, high_x + margin - 0.01, 0.0)
    way = torch.linalg.vector_norm(push(env).way, dim=1)

    *_, terminated, truncated, info = env.step(still(env))

    assert terminated.tolist() == [True, True, False]
    assert not truncated.any()
    assert info.measured.tolist() == [True, True, False]
    assert info.metrics["lost"].tolist() == [1, 1, 0]
    torch.testing.assert_close(info.metrics["push_error_m"][:2], way[:2], atol=1e-3, rtol=0)
    ground_low, ground_high = push(env).config.start_low_m, push(env).config.start_high_m
    spot = push(env).object.position[:2, :2]  # a new puck for those two
    assert (spot >= torch.tensor(ground_low)).all()
    assert (spot <= torch.tensor(ground_high)).all()


def test_puck_that_is_tipped_over_is_lost():
    env = make(num_envs=3)
    env.reset()
    qpos = env.simulation.data("qpos")
    for world, tilt in enumerate((0.5, 0.7, 1.57)):  # cos 0.7 is 0.76
        turn = torch.tensor([math.cos(tilt / 2), math.sin(tilt / 2), 0.0, 0.0])
        qpos[world, -5:-4] = 0.3  # in the air, where nothing rights it
        qpos[world, -4:] = turn.to(qpos)

    step = env.step(still(env), autoreset=False)

    assert step.terminated.tolist() == [False, True, True]
    assert step.info.metrics["lost"].tolist() == [0, 1, 1]
    expected = torch.tensor([0.5, 0.7, 1.57]).cos()
    torch.testing.assert_close(push(env).object.upright, expected, atol=1e-3, rtol=0)


def test_actor_sees_the_puck_only_as_the_tracker_tells_it():
    delay = {"signal": "object_position", "delay": [0.1, 0.1]}
    seen, late = make(num_envs=1), make(num_envs=1, terms=(delay,))
    observations = []
    for env in (seen, late):
        env.reset()
        before = push(env).object.position.clone()
        put(env, 0, 0.2, 0.1)
        observation = env.step(still(env)).observation
        observations.append(observation["actor"])
        names = env.columns["actor"]
        shown = torch.stack([observation["actor"][0, names.index(f"object.{a}")] for a in "xy"])
        expected = torch.tensor([0.2, 0.1]) if env is seen else before[0, :2]
        torch.testing.assert_close(shown, expected, atol=1e-3, rtol=0)
    assert set(seen.task.encoder.signals) == {
        *("joint_position", "joint_velocity", "joint_target", "object_position", "command"),
    }
    size = seen.observation_sizes["actor"]
    way = [name for name in late.columns["critic"][size:] if name.startswith("true_way")]
    assert way == ["true_way.x", "true_way.y"]


@pytest.mark.parametrize("path", ARM_CONFIGS, ids=lambda path: path.stem)
def test_tool_gets_to_every_start_and_goal_and_behind_it(path: Any):
    """Random poses within the targets' limits, of which one has to be near each corner."""
    train = load_train_config(path, [])
    kind = ArmPushConfig if train.task == "arm_push" else ArmLiftConfig
    config = kind.model_validate(train.task_config)
    assert isinstance(config, ArmObjectConfig)
    robot = load_robot(config.robot)
    low, high = map(torch.from_numpy, robot.target_range(config.limit_margin_rad))
    generator = torch.Generator().manual_seed(0)
    poses = low + (high - low) * torch.rand(400_000, len(low), generator=generator)
    reached = ForwardKinematics(robot.model, config.site, robot.joints)(poses.float())
    (x, y), (far_x, far_y) = config.ground
    more = config.thing.width_m / 2 + 0.01 if train.task == "arm_push" else 0.0
    heights = [config.thing.height_m / 2]
    heights += [] if train.task == "arm_push" else [config.target_high_m[2]]
    corners = [
        [a, b, height]
        for a in (x - more, far_x + more)
        for b in (y - more, far_y + more)
        for height in heights
    ]

    nearest = torch.cdist(torch.tensor(corners), reached).amin(dim=1)

    assert nearest.max() < 0.012


@pytest.mark.parametrize("task", ["arm_push", "arm_lift"])
def test_steps_never_wait_for_a_gpu_and_are_those_of_the_cpu(task: str):
    settings = {
        "num_envs": 3,
        "task_config": {"episode_s": 0.4, "target_interval_s": (0.2, 0.2)},
        "randomization": [{"signal": "object_position", "delay": [0.02, 0.05]}],
    }
    one, two = (
        envs.make(task, num_threads=1, **settings),
        envs.make(task, backend="warp", **settings),
    )
    first = [env.reset()["critic"] for env in (one, two)]
    torch.testing.assert_close(*first, atol=1e-4, rtol=0)
    action = 0.3 * torch.ones(3, one.num_actions)
    cpu = one.step(action)
    gpu = two.step(action)
    with no_sync():
        for _ in range(8):
            gpu = two.step(action)
    for _ in range(8):
        cpu = one.step(action)

    torch.testing.assert_close(cpu.observation, gpu.observation, atol=2e-2, rtol=0)
    torch.testing.assert_close(cpu.reward, gpu.reward, atol=1e-2, rtol=0)


def test_state_is_restored_to_the_bit():
    env, other = (make(num_envs=2, target_interval_s=(0.1, 0.4)) for _ in range(2))
    env.reset()
    for _ in range(30):
        env.step(0.5 * torch.ones(2, env.num_actions))
    other.load_state_dict(env.state_dict())
    for _ in range(30):
        one, two = (e.step(-0.5 * torch.ones(2, env.num_actions)) for e in (env, other))
        assert torch.equal(one.observation["critic"], two.observation["critic"])
        assert torch.equal(one.info.metrics["push_error_m"], two.info.metrics["push_error_m"])


def test_ground_holds_starts_and_goals():
    config = ArmPushConfig(start_low_m=(0.1, -0.2), target_high_m=(0.3, 0.1, 0.0))
    assert config.ground == ((0.1, -0.2), (0.3, 0.12))


@pytest.mark.parametrize(
    ("task", "settings", "expected"),
    [
        (
            "arm_push",
            {"start_low_m": (0.3, 0.0)},
            r"start_low_m \(0.3, 0.0\) is not below start_high_m \(0.22, 0.12\)",
        ),
        (
            "arm_push",
            {"target_low_m": (0.12, -0.25, 0.0)},
            r"target_high_m, thing.width_m: behind the puck: \(0.255, -0.250, 0.015\) m is out of "
            r"reach: the site 'tool' of desk_arm gets no nearer than",
        ),
        (
            "arm_lift",
            {"start_high_m": (0.4, 0.12)},
            r"start_low_m, start_high_m: \(0.400, -0.120, 0.010\) m is out of reach",
        ),
        (
            "arm_lift",
            {"target_high_m": (0.22, 0.12, 0.5)},
            r"target_low_m, target_high_m: \(0.220, -0.120, 0.500\) m is out of reach",
        ),
        ("arm_lift", {"gripper": "griper"}, "gripper: 'griper'.*did you mean 'gripper'"),
        ("arm_lift", {"robot": "microduck"}, "its base moves freely"),
        ("arm_lift", {"thing": {"shape": "ball"}}, "task arm_lift: thing.shape"),
    ],
)
def test_bad_settings_are_named(task: str, settings: dict[str, Any], expected: str):
    with pytest.raises(ConfigError, match=expected):
        envs.make(task, task_config=settings)
