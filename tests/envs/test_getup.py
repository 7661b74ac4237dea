"""The task of getting up: starts that physics allows, and a measure of standing known by hand."""

import math
from pathlib import Path
from typing import Any

import mujoco
import numpy as np
import pytest
import torch

import envs
from deploy.errors import ConfigError
from envs.robot import load_robot
from envs.simulation import State
from envs.tasks.getup import Getup, GetupWeights, getup_terms
from envs.walking.fallen import any_orientation, fallen_states
from envs.walking.legs import Motion
from envs.worlds import every
from robotrl.runs.train_config import TrainConfig
from tests.envs.exported import drive, train_and_export
from tests.envs.no_sync import no_sync
from tests.envs.test_mirror import BASE

WORLDS = 4
POOL = {"falls": 12, "settle_s": 1.0}
FEET = ["left_foot", "right_foot"]


def make(num_envs: int = WORLDS, *, backend: Any = "auto", **settings: Any) -> envs.VectorEnv:
    return envs.make(
        "getup",
        num_envs=num_envs,
        num_threads=1,
        seed=0,
        backend=backend,
        task_config=POOL | settings,
    )


def pool(name: str = "microduck") -> State:
    """What `make` starts episodes from."""
    return fallen_states(name, seed=0, count=12, settle_s=1.0)


def task_of(env: envs.VectorEnv) -> Getup:
    assert isinstance(env.task, Getup)
    return env.task


def put(env: envs.VectorEnv, keys: list[str], lift: float = 0.0) -> None:
    """Each world in a keyframe of the robot, higher by so much [m]."""
    model = env.deployment.robot.model
    rows = [model.keyframe(key) for key in keys]
    qpos, ctrl = (
        torch.from_numpy(np.stack([getattr(r, n) for r in rows])) for n in ("qpos", "ctrl")
    )
    qpos[:, 2] += lift
    env.simulation.reset(
        every(len(keys)), State(qpos, torch.zeros(len(keys), model.nv).double(), ctrl)
    )


@pytest.mark.parametrize(("name", "sunk"), [("microduck", 0.004), ("quadruped", 0.004)])
def test_fallen_robots_lie_on_the_floor_and_not_in_it(name: str, sunk: float):
    states = pool(name)
    model = load_robot(name).model
    data, depths, touching = mujoco.MjData(model), [], []
    for qpos in states.qpos:
        data.qpos[:] = qpos.numpy()
        mujoco.mj_forward(model, data)
        depths.append(-min((contact.dist for contact in data.contact), default=0.0))
        touching.append(data.ncon)

    assert max(depths) < sunk  # m
    assert min(touching) > 0
    assert states.qvel.abs().amax(dim=1).median() < 0.2  # m/s, rad/s: most of them lie still


def test_pool_is_that_of_its_seed():
    one, other = (fallen_states("quadruped", seed=seed, count=4, settle_s=0.1) for seed in (1, 2))
    fallen_states.cache_clear()
    again = fallen_states("quadruped", seed=1, count=4, settle_s=0.1)

    assert all(torch.equal(a, b) for a, b in zip(one, again, strict=True))
    assert not torch.allclose(one.qpos, other.qpos)


def test_orientations_are_uniform():
    """The image of any axis is uniform on the sphere: mean 0, mean of squares 1/3 each."""
    quaternions = any_orientation(torch.rand(20_000, 3, generator=torch.Generator().manual_seed(0)))
    assert torch.allclose(quaternions.norm(dim=-1), torch.ones(20_000), atol=1e-5)
    images = np.empty((20_000, 9))
    for row, quaternion in zip(images, quaternions.double().numpy(), strict=True):
        mujoco.mju_quat2Mat(row, quaternion)

    assert np.abs(images.mean(axis=0)).max() < 0.02  # 5 standard deviations of 0.577 / √20000
    assert np.abs((images**2).mean(axis=0) - 1 / 3).max() < 0.012


def test_episodes_start_fallen_or_in_their_share_at_home():
    env = make(300, home_share=0.4, home_spread_rad=0.1)
    env.reset()
    robot = env.deployment.robot
    qpos = env.simulation.data("qpos")

    from_home = (qpos[:, robot.qpos] - torch.from_numpy(robot.home)).abs().amax(dim=1)
    at_home = from_home <= 0.1 + 1e-9
    assert at_home.float().mean() == pytest.approx(0.4, abs=0.085)  # 3 standard deviations
    apart = torch.cdist(qpos[~at_home], pool().qpos).amin(dim=1)
    assert apart.max() < 1e-6
    seen = env.signals["joint_target"][at_home] - torch.from_numpy(robot.home).float()
    assert seen.abs().max() < 0.1 + 1e-6  # servos hold the pose they start in


@pytest.mark.parametrize(
    ("tilt", "height_share", "stands"),
    [(0.0, 1.0, True), (0.25, 1.0, True), (0.35, 1.0, False), (0.0, 0.92, True), (0, 0.88, False)],
)
def test_it_stands_if_it_is_upright_and_high(tilt: float, height_share: float, stands: bool):
    env = make(2)
    env.reset()
    keys = [env.deployment.robot.model.keyframe(key) for key in ("home", "rest")]
    qpos = torch.from_numpy(np.stack([key.qpos for key in keys]))
    qpos[0, 2] *= height_share
    qpos[0, 3], qpos[0, 5] = math.cos(tilt / 2), math.sin(tilt / 2)
    ctrl = torch.from_numpy(np.stack([key.ctrl for key in keys]))
    env.simulation.reset(every(2), State(qpos, torch.zeros(2, 20).double(), ctrl))
    task = task_of(env)
    task._motion = task.legs.read(every(2))

    assert task.standing.tolist() == [stands, False]


def test_metrics_are_of_whole_episodes_and_say_since_when_it_stands():
    env = make(3, episode_s=0.2)  # 10 steps
    env.reset()
    env.simulation.field("opt.gravity")[:] = 0  # what stands goes on to
    put(env, ["home", "rest", "rest"], lift=0.01)
    steps = []
    for tick in range(10):
        if tick == 3:
            put(env, ["home", "home", "rest"], lift=0.01)
        steps.append(env.step(torch.zeros(3, 14), autoreset=False))
    last = steps[-1]

    assert not any(step.terminated.any() for step in steps)
    assert [step.info.measured.tolist() for step in steps[:9]] == [[False] * 3] * 9
    assert last.info.measured.tolist() == [True] * 3
    assert last.info.metrics["stood_up"].tolist() == [1, 1, 0]
    since = last.info.metrics["getup_s"]
    assert since[:2].tolist() == pytest.approx([0.0, 0.06])  # three steps of 20 ms lying
    assert since[2].isnan()


def pose(lean: float, *, height: float = 1.0) -> dict[str, float]:
    """Terms at a lean [rad], all else as at home; weights 1."""
    up = torch.tensor([[-math.sin(lean), 0.0, math.cos(lean)]])
    zero, feet = torch.zeros(1, 3), torch.zeros(1, 2)
    motion = Motion(
        velocity=zero,
        spin=zero,
        up=up,
        heading=zero[:, :2],
        height=zero[:, 0],
        foot_height=feet,
        foot_velocity=zero[None],
        foot_side=feet,
        foot_level=feet + math.cos(lean),
    )
    joints = torch.zeros(1, 4)
    terms = getup_terms(
        motion,
        height=torch.tensor([height]),
        offset=joints + 0.1,
        speed=joints + 0.2,
        effort=joints,
        change=joints,
        outside=zero[:, 0],
        flat_feet=True,
        weights=GetupWeights(**dict.fromkeys(GetupWeights.model_fields, 1.0)),
    )
    return {name: term.item() for name, term in terms.items()}


def test_terms_are_what_they_say():
    home = {"upright": 1, "height": 1, "feet": 1, "pose": math.exp(-0.01 / 0.1)}
    home |= {"still": math.exp(-0.04 / 0.5), "speed": 0.04}
    home |= {"action_rate": 0, "torque": 0, "joint_limits": 0}

    assert pose(0.0) == pytest.approx(home, abs=1e-6)
    # On its side ((1 + 0) / 2)² = 1/4, on its head nothing, and no credit for feet or pose.
    assert pose(math.pi / 2, height=0.5)["upright"] == pytest.approx(0.25)
    assert pose(math.pi / 2, height=0.5)["height"] == pytest.approx(0.125)
    assert pose(math.pi)["upright"] == pytest.approx(0, abs=1e-6)
    assert all(pose(math.pi)[name] < 1e-6 for name in ("feet", "pose", "still"))
    # Crouching at 80 % keeps exp(-0.2² / 0.02) = 13.5 % of what standing earns.
    assert pose(0.0, height=0.8)["feet"] == pytest.approx(math.exp(-2))


def test_each_phase_of_getting_up_earns_more_than_the_one_before():
    phases = [(math.pi, 0.3), (math.pi / 2, 0.4), (0.6, 0.5), (0.2, 0.7), (0.0, 0.9), (0.0, 1.0)]
    weights = GetupWeights()
    earned = [
        sum(getattr(weights, name) * term for name, term in pose(lean, height=height).items())
        for lean, height in phases
    ]

    assert earned == sorted(earned)


def test_what_fell_to_the_other_side_is_its_mirror_image():
    env = make(2)
    env.reset()
    task, robot = task_of(env), env.deployment.robot
    mirror = task.mirror
    joints = mirror.action.double()
    state = pool()
    qpos = state.qpos[3].repeat(2, 1)
    qpos[1, :7] *= BASE
    qpos[1, robot.qpos] = joints @ qpos[0, robot.qpos]
    ctrl = state.ctrl[3].repeat(2, 1)
    ctrl[1, robot.actuators] = joints @ ctrl[0, robot.actuators]
    env.simulation.reset(every(2), State(qpos, torch.zeros(2, 20).double(), ctrl))

    signals = task.measure(every(2))
    signals["joint_target"] = ctrl[:, robot.actuators].float()
    actor, _ = task.encoder(signals, {})
    truth = task.observe_privileged(every(2))
    critic = torch.cat([actor, *(truth[name] for name in task.privileged)], dim=-1)

    assert actor[0].abs().max() > 0.5
    torch.testing.assert_close(actor[1], mirror.actor @ actor[0], atol=1e-4, rtol=0)
    torch.testing.assert_close(critic[1], mirror.critic @ critic[0], atol=5e-3, rtol=0)


def test_is_the_same_on_both_backends_and_never_waits_for_a_gpu():
    settings = {"episode_s": 0.1, "robot": "quadruped", "flat_feet": False}
    settings["feet"] = ["front_left_foot", "front_right_foot", "rear_left_foot", "rear_right_foot"]
    cpu, gpu = (make(backend=backend, **settings) for backend in ("batch", "warp"))
    first = [env.reset()["actor"] for env in (cpu, gpu)]
    assert (first[0] - first[1]).abs().max() < 1e-3
    one, two = (env.step(torch.zeros(WORLDS, 12)) for env in (cpu, gpu))
    for _ in range(2):
        one = cpu.step(torch.zeros(WORLDS, 12))
        with no_sync():
            two = gpu.step(torch.zeros(WORLDS, 12))

    assert (one.reward - two.reward).abs().max() < 0.02
    with no_sync():
        for _ in range(6):  # over an episode's end
            gpu.step(torch.zeros(WORLDS, 12))


def test_trains_with_its_mirror_image_exports_and_runs_as_an_onnx_controller(
    tiny_config: TrainConfig, tmp_path: Path
):
    exported = train_and_export(tiny_config, "getup", dict(POOL), tmp_path)

    contract = exported.contract
    assert {spec.name for spec in contract.inputs} == {
        *("imu_angular_velocity", "projected_gravity"),
        *("joint_position", "joint_velocity", "joint_target"),
    }
    assert contract.command.elements == ["height"]
    assert contract.command.low == contract.command.high == pytest.approx([0.1172])
    for step in drive(exported, lambda: make(1), steps=20):
        assert not step.terminated.any()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"feet": ["left_fot"]}, "did you mean 'left_foot'"),
        ({"feet": ["left_foot"] * 2}, "feet must be different, found left_foot twice; keep one"),
        ({"robot": "desk_arm", "feet": ["desk"]}, "cannot walk: its base, body "),
        ({"robot": "balancer", "feet": ["left_tyre"]}, "driven by velocity, and this task sends"),
    ],
)
def test_what_is_wrong_is_said_at_construction(changes: dict[str, Any], message: str):
    with pytest.raises(ConfigError, match=message):
        make(1, **changes)


def test_robots_that_fell_for_less_than_a_step_of_physics_fell_for_one():
    states = fallen_states("microduck", seed=0, count=1, settle_s=0.001)
    # Let go at rest, it has fallen for 5 ms.
    base = states.qvel[0, 2].item()
    assert base == pytest.approx(-9.81 * 0.005, rel=0.2)
