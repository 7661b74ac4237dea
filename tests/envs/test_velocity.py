"""The walking task, on a robot whose every number is known: a crawler that floats or lies."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import envs
from deploy.errors import ConfigError
from envs.commands import VelocityCommandConfig
from envs.robot import load_robot
from envs.simulation import State
from envs.tasks.velocity import Velocity
from envs.worlds import every
from robotrl.runs.train_config import TrainConfig
from tests.envs.exported import drive, train_and_export
from tests.envs.no_sync import no_sync
from tests.envs.test_mirror import CRAWLER, CRAWLER_FEET

WORLDS = 4
STRAIGHT = {"low": [0.2, 0.0, 0.0], "high": [0.2, 0.0, 0.0], "interval_s": [2.0, 2.0]}
NO_KINDS = {f"{kind}_share": 0.0 for kind in ("standing", "forward", "turning", "heading")}
SETTINGS: dict[str, Any] = {
    "robot": CRAWLER,
    "gait": {"feet": CRAWLER_FEET},
    "command": {**STRAIGHT, **NO_KINDS},
}


def make(num_envs: int = WORLDS, *, backend: Any = "auto", **changes: Any) -> envs.VectorEnv:
    settings = SETTINGS | changes
    return envs.make(
        "velocity", num_envs=num_envs, num_threads=1, seed=0, backend=backend, task_config=settings
    )


def float_away(env: envs.VectorEnv, velocity: list[float], *, yaw_rate: float = 0.0) -> None:
    """Without weight, half a metre up, at a constant velocity in the world, its legs at home."""
    simulation, robot = env.simulation, env.deployment.robot
    simulation.field("opt.gravity")[:] = 0
    rows = env.num_envs
    qpos = torch.from_numpy(robot.home_qpos).repeat(rows, 1)
    qpos[:, 2] = 0.5
    qvel = torch.zeros(rows, robot.model.nv, dtype=torch.float64)
    qvel[:, :3] = torch.tensor(velocity)
    qvel[:, 5] = yaw_rate
    ctrl = torch.from_numpy(robot.model.keyframe("home").ctrl).repeat(rows, 1)
    simulation.reset(every(rows), State(qpos, qvel, ctrl))


def walk(env: envs.VectorEnv) -> Velocity:
    """The task of an environment."""
    assert isinstance(env.task, Velocity)
    return env.task


def still(env: envs.VectorEnv) -> Tensor:
    return torch.zeros(env.num_envs, env.num_actions)


def test_actor_sees_what_the_robot_measures_the_command_and_the_clock():
    env, robot = make(), load_robot(CRAWLER)
    assert env.columns["actor"] == [
        *(f"imu_angular_velocity.{axis}" for axis in "xyz"),
        *(f"projected_gravity.{axis}" for axis in "xyz"),
        *("command.x", "command.y", "command.yaw", "clock.sin", "clock.cos"),
        *(f"joint_position.{name}" for name in robot.joints),
        *(f"joint_velocity.{name}" for name in robot.joints),
        *(f"joint_target.{name}" for name in robot.joints),
    ]
    assert env.columns["critic"][:35] == env.columns["actor"]
    assert "foot_velocity.rear_left_foot.y" in env.columns["critic"]


def test_joints_and_targets_are_seen_from_home():
    env = make(start_spread_rad=0)
    observation = env.reset()["actor"][0]
    columns = env.columns["actor"]

    seen = [float(observation[i]) for i, name in enumerate(columns) if name.startswith("joint_")]
    assert seen == pytest.approx([0.0] * 24, abs=1e-6)

    env.step(torch.full((WORLDS, 8), 0.4))
    target = env.task.encoder({**env.signals}, {})[0][0, -8:]
    assert target.tolist() == pytest.approx([0.5 * 0.4] * 8, abs=1e-6)


def test_time_passes_with_the_steps_and_starts_anywhere_in_a_stride():
    env = make(64)
    env.reset()
    start = env.signals["time"].clone()

    for _ in range(3):
        env.step(still(env))

    assert start.min() < 0.1
    assert 0.4 < start.max() < 0.5
    assert (env.signals["time"] - start).flatten().tolist() == pytest.approx([0.06] * 64, abs=1e-6)


def test_velocity_is_smoothed_with_a_time_constant_of_three_tenths_of_a_second():
    env = make()
    env.reset()
    float_away(env, [0.1, 0.2, 0.0])
    for _ in range(10):
        env.step(still(env))

    # each step brings it 0.02 / 0.3 closer
    share = 1 - (1 - 0.02 / 0.3) ** 10
    assert walk(env).twist[0].tolist() == pytest.approx([0.1 * share, 0.2 * share, 0], abs=2e-4)


def test_velocity_is_that_along_the_heading():
    env = make()
    env.reset()
    float_away(env, [0.0, 0.2, 0.0], yaw_rate=0.5)
    env.simulation.data("qpos")[:, 3:7] = torch.tensor(
        [math.cos(math.pi / 4), 0, 0, math.sin(math.pi / 4)], dtype=torch.float64
    )  # it looks along +y
    env.step(still(env))

    forward, left, turning = walk(env).motion.twist[0].tolist()
    assert (forward, turning) == pytest.approx((0.2, 0.5), abs=0.01)
    assert left == pytest.approx(0, abs=0.01)


def test_metrics_of_a_command_start_a_second_after_it():
    env = make()
    env.reset()
    float_away(env, [0.15, 0.05, 0.0])
    steps = [env.step(still(env)) for _ in range(100)]  # 2 s, the time of a command

    measured = torch.stack([step.info.measured for step in steps])
    assert measured.sum(dim=0).tolist() == [1] * WORLDS
    assert measured[99].all()
    # By its second half 96 % to all of the velocity has come through: asked is 0.2 ahead.
    weights = [1 - (1 - 0.02 / 0.3) ** step for step in range(51, 101)]
    share = sum(0.15 * weight for weight in weights) / 50 / 0.2
    error = sum((0.15 * w - 0.2) ** 2 + (0.05 * w) ** 2 for w in weights) / 50
    metrics = steps[-1].info.metrics
    assert metrics["speed_share"].tolist() == pytest.approx([share] * WORLDS, abs=5e-3)
    assert metrics["velocity_error_m_s"].tolist() == pytest.approx([error**0.5] * WORLDS, abs=2e-3)
    assert metrics["fell"].tolist() == [0] * WORLDS


def test_standing_has_an_error_but_no_share():
    env = make(command={**STRAIGHT, **NO_KINDS, "standing_share": 1.0})
    env.reset()
    float_away(env, [0.05, 0.0, 0.0])
    metrics = [env.step(still(env)) for _ in range(100)][-1].info.metrics

    assert metrics["speed_share"].isnan().all()
    assert metrics["velocity_error_m_s"].tolist() == pytest.approx([0.05] * WORLDS, abs=2e-3)


def test_torque_of_each_joint_is_its_rms_over_the_command():
    env = make(command={**STRAIGHT, **NO_KINDS, "interval_s": [0.2, 0.2]})
    env.reset()
    names = env.deployment.robot.joints
    torques, metrics = [], {}
    for _ in range(10):
        metrics = env.step(still(env)).info.metrics
        torques.append(env.simulation.data("actuator_force")[:, walk(env).actuators].clone())

    rms = torch.stack(torques).square().mean(dim=0).sqrt()
    for joint, name in enumerate(names):
        seen = metrics[f"torque_rms_nm/{name}"]
        assert seen.tolist() == pytest.approx(rms[:, joint].tolist(), rel=1e-4)


@pytest.mark.parametrize(
    ("tilt", "height", "fallen"),
    [(0.0, 0.16, False), (0.95, 0.16, False), (1.05, 0.16, True), (0.0, 0.135, True)],
)  # at home it is 0.144 m high; the limit of the tilt is 1 rad
def test_it_has_fallen_when_tilted_or_low(tilt: float, height: float, fallen: bool):
    env = make(min_height_share=1.0)
    env.reset()
    float_away(env, [0.0, 0.0, 0.0])
    qpos = env.simulation.data("qpos")
    qpos[2, 2], qpos[2, 3], qpos[2, 4] = height, math.cos(tilt / 2), math.sin(tilt / 2)

    step = env.step(still(env))

    assert step.terminated.tolist() == [False, False, fallen, False]
    assert step.info.metrics["fell"].tolist() == [0, 0, float(fallen), 0]
    assert step.info.measured.tolist() == [False, False, fallen, False]
    assert step.info.rewards["fall"].tolist() == [0, 0, -float(fallen), 0]


@pytest.mark.parametrize(("tilt_rate", "steps"), [(0.5, False), (0.9, True)])
def test_who_is_to_stand_still_and_tips_over_is_to_step(tilt_rate: float, steps: bool):
    stand = {**STRAIGHT, **NO_KINDS, "standing_share": 1.0}
    env = make(64, command=stand, rewards={"gait": 1.0})
    env.reset()
    float_away(env, [0.0, 0.0, 0.0])
    env.simulation.data("qvel")[:, 3] = tilt_rate
    step = env.step(still(env))

    # No foot is down. A step asks two of four to be up, in swing; who stands has no match. Clocks
    # start anywhere: of 64 worlds some are in swing.
    columns = env.columns["actor"]
    clock = step.observation["actor"][
        :, [columns.index(f"clock.{name}") for name in ("sin", "cos")]
    ]
    assert clock.square().sum(-1).tolist() == pytest.approx([float(steps)] * 64, abs=1e-5)
    assert (step.info.rewards["gait"].max() == 0.5) == steps


def test_stages_change_weights_and_commands_after_their_steps_in_all_worlds():
    stages = [
        {"until_steps": 2 * WORLDS, "rewards": {"alive": 7.0}, "command": {"standing_share": 1.0}},
        {"until_steps": 3 * WORLDS, "rewards": {"alive": 5.0}},
    ]
    env = make(stages=stages, rewards={"alive": 3.0})
    env.reset()
    assert (walk(env).command == 0).all()

    rewards = [env.step(still(env)).info.rewards["alive"][0].item() for _ in range(4)]

    assert rewards == [7, 7, 5, 3]
    env.reset()
    assert walk(env).command[:, 0].tolist() == pytest.approx([0.2] * WORLDS)


def test_commands_are_of_their_kinds_in_their_shares():
    box = {"low": [-0.2, -0.1, -1.0], "high": [0.4, 0.1, 1.0]}
    shares = {"standing": 0.1, "forward": 0.3, "turning": 0.2, "heading": 0.25}
    command = box | {f"{kind}_share": share for kind, share in shares.items()}
    env = make(2000, command=command)
    env.reset()
    x, y, yaw = walk(env).command.T
    goal = ~walk(env)._command._goal.isinf()

    def share(where: Tensor) -> float:
        return float(where.float().mean())

    # three standard deviations of a share of 2000 are at most 0.034
    assert share((x == 0) & (y == 0) & (yaw == 0)) == pytest.approx(0.1, abs=0.035)
    assert share((x > 0) & (y == 0) & (yaw == 0)) == pytest.approx(0.3, abs=0.035)
    assert share((x == 0) & (y == 0) & (yaw != 0)) == pytest.approx(0.2, abs=0.035)
    assert share(goal) == pytest.approx(0.25, abs=0.035)
    low, high = torch.tensor(box["low"]), torch.tensor(box["high"])
    assert ((walk(env).command >= low) & (walk(env).command <= high)).all()
    assert walk(env).command.min(dim=0).values.tolist() == pytest.approx(box["low"], abs=0.02)
    assert walk(env).command.max(dim=0).values.tolist() == pytest.approx(box["high"], abs=0.02)


def test_heading_command_turns_the_short_way_to_its_goal_and_no_faster_than_it_may():
    box = {"low": [0.2, 0.0, -0.5], "high": [0.2, 0.0, 0.8], "interval_s": [9.0, 9.0]}
    env = make(command={**NO_KINDS, **box, "heading_share": 1.0})
    env.reset()
    source = walk(env)._command
    source._goal.copy_(torch.tensor([0.3, 3.0, -0.1, -3.0]))
    yaw = torch.tensor([0.1, 0.0, 0.1, 3.0])

    source.advance(torch.stack([yaw.cos(), yaw.sin()], dim=1))

    # 0.2 to go; 3.0, cut to 0.8; -0.2; from 3.0 on to 2π - 3.0: 0.283
    assert source.value[:, 2].tolist() == pytest.approx([0.2, 0.8, -0.2, 2 * math.pi - 6], abs=1e-5)


def test_restored_environment_goes_on_with_the_same_bits():
    env, other = make(command=NO_KINDS), make(command=NO_KINDS)
    env.reset(stagger=True)
    action = 0.3 * torch.randn(60, WORLDS, 8, generator=torch.Generator().manual_seed(0))
    for row in action[:30]:
        env.step(row)

    other.reset()
    other.load_state_dict(env.state_dict())

    for row in action[30:]:
        one, two = env.step(row), other.step(row)
        assert torch.equal(one.observation["critic"], two.observation["critic"])
        assert torch.equal(one.reward, two.reward)


def test_walk_is_the_same_on_both_backends():
    cpu, gpu = (make(backend=backend, robot="microduck", gait={}) for backend in ("batch", "warp"))
    first = [env.reset()["critic"] for env in (cpu, gpu)]
    assert (first[0] - first[1]).abs().max() < 1e-4
    generator = torch.Generator().manual_seed(0)

    one, two = (env.step(torch.zeros(WORLDS, 14)) for env in (cpu, gpu))
    for _ in range(10):
        action = 0.3 * torch.randn(WORLDS, 14, generator=generator)
        one, two = cpu.step(action), gpu.step(action)

    assert (walk(cpu).motion.foot_height < 0.0015).any()
    assert (one.observation["critic"] - two.observation["critic"]).abs().max() < 0.02
    assert (one.reward - two.reward).abs().max() < 0.01


def test_steps_never_wait_for_a_gpu():
    env = make(backend="warp", episode_s=0.2, command={"interval_s": [0.1, 0.1]})
    env.reset(stagger=True)
    env.step(still(env))

    with no_sync():
        for _ in range(8):
            env.step(still(env))


def test_trains_with_its_mirror_image_exports_and_runs_as_an_onnx_controller(
    tiny_config: TrainConfig, tmp_path: Path
):
    exported = train_and_export(tiny_config, "velocity", SETTINGS, tmp_path)

    contract = exported.contract
    assert contract.command.elements == ["x", "y", "yaw"]
    assert contract.command.units == ["m/s", "m/s", "rad/s"]
    assert [joint.velocity_limit_rad_s for joint in contract.joints] == [30] * 8
    assert {spec.name for spec in contract.inputs} == {
        *("imu_angular_velocity", "projected_gravity", "joint_position", "joint_velocity"),
        *("joint_target", "command", "time"),
    }
    for step in drive(exported, lambda: make(1), steps=20):
        assert not step.terminated.any()


def test_contract_promises_a_share_of_what_is_practised():
    config = VelocityCommandConfig(low=(-0.2, 0.1, 0), high=(0.4, 0.3, 1), promised_share=0.5)
    spec = config.spec()
    # half the way from the slowest: 0, 0.1 and 0
    assert spec.low == pytest.approx([-0.1, 0.1, 0])
    assert spec.high == pytest.approx([0.2, 0.2, 0.5])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"stages": [{"until_steps": 5}, {"until_steps": 3}]}, "stages must be in order of until"),
        ({"stages": [{"until_steps": 5, "rewards": {"swin": 1}}]}, "swin.*did you mean 'swing'"),
        (
            {"stages": [{"until_steps": 5, "command": {"standing": 1}}]},
            "standing.*did you mean 'standing_share'",
        ),
        ({"command": {"standing_share": 0.7, "turning_share": 0.6}}, "must not exceed 1"),
        ({"command": {"low": [0.5, 0, 0]}}, "is not below high"),
        ({"gait": {"feet": {"front_left_fot": 0.0}}}, "did you mean 'front_left_foot'"),
        ({"gait": {"contact_m": 0.02, "lift_m": 0.02}}, "contact_m 0.02 is not below lift_m 0.02"),
        ({"gait": {"period_s": 0.06}}, "period_s 0.06 has less than 4 control steps of 0.02 s"),
        (
            {"training_timestep_s": 0.003},
            "^training_timestep_s: control_dt_s 0.02 s is no",
        ),
        ({"pose_weights": {"knees": 1.0}}, "'knees' fits no joint; there are front_left_hip"),
        ({"robot": "desk_arm", "gait": {"feet": {"desk": 0}}}, "cannot walk: its base, body "),
    ],
)
def test_what_is_wrong_is_said_at_construction(changes: dict[str, Any], message: str):
    with pytest.raises(ConfigError, match=message):
        make(1, **changes)


def test_robot_without_an_inertial_sensor_is_told_what_to_add(tmp_path: Path):
    path = tmp_path / "deaf.xml"
    path.write_text(Path(CRAWLER).read_text().replace('<gyro site="imu"/>', ""))

    with pytest.raises(ConfigError) as error:
        make(1, robot=str(path))

    assert 'lacks sensors for imu_angular_velocity: <gyro site="imu"/>' in str(error.value)
