"""Worlds rise and sink by what their robot did; and the walking task on uneven ground."""

from typing import Any

import mujoco
import numpy as np
import pytest
import torch
from torch import Tensor

import envs
from deploy.errors import ConfigError
from envs.batch_simulation import BatchSimulation
from envs.draws import Draws
from envs.robot import load_robot
from envs.simulation import State
from envs.tasks.velocity import Velocity
from envs.terrain import Field, Ground, Levels, Scan, TerrainConfig, with_terrain
from envs.walking.legs import Legs
from envs.worlds import Worlds, every
from tests.envs.no_sync import no_sync
from tests.envs.test_mirror import CRAWLER, CRAWLER_FEET
from tests.envs.test_velocity import NO_KINDS, STRAIGHT, float_away, still

HEIGHT = 0.144
TERRAIN: dict[str, Any] = {"kinds": ["stairs_up", "rough"], "levels": 3, "tile": 16}
SETTINGS: dict[str, Any] = {
    "robot": CRAWLER,
    "gait": {"feet": CRAWLER_FEET},
    "command": {**STRAIGHT, **NO_KINDS},
    "terrain": TERRAIN,
}


def make(num_envs: int = 4, *, backend: Any = "auto", **changes: Any) -> envs.VectorEnv:
    return envs.make(
        "velocity",
        num_envs=num_envs,
        num_threads=1,
        backend=backend,
        task_config=SETTINGS | changes,
    )


def levels_of(env: envs.VectorEnv) -> Levels:
    assert isinstance(env.task, Velocity)
    assert env.task._levels is not None
    return env.task._levels


def make_levels(num_envs: int, **changes: Any) -> tuple[Levels, Tensor]:
    """Levels by themselves, and where the bases are (num_envs, nq)."""
    simulation = BatchSimulation(load_robot(CRAWLER).model, num_envs, num_threads=1)
    field = Field(TerrainConfig(**{**TERRAIN, **changes}), HEIGHT)
    draws = Draws(0, torch.device("cpu"))
    return Levels(simulation, Ground(field, "cpu"), draws, 0), simulation.data("qpos")


def go(
    levels: Levels, qpos: Tensor, way: list[float], asked: list[float], covered: list[float]
) -> None:
    """One step of 1 s: worlds end `way` [heights] from the middle of their tiles."""
    middle = levels._ground.tile_of(levels.level, levels.column)
    qpos[:, :2] = middle
    qpos[:, 1] -= torch.tensor(way, dtype=torch.float64) * HEIGHT
    command = torch.tensor([[HEIGHT * a, 0.0] for a in asked])
    velocity = torch.tensor([[HEIGHT * c, 0.0] for c in covered])
    levels.add(velocity, command, torch.zeros(len(way), dtype=torch.bool), dt_s=1.0)


def test_world_rises_by_leaving_its_tile_and_sinks_by_falling_or_by_staying_where_it_is():
    levels, qpos = make_levels(6)
    levels.level[:] = 1
    # tiles of 16 end at 8, and to be within 1 of that is to have left
    way = [7.1, 7.1, 6.9, 6.9, 2.0, 7.1]
    asked = [12.0, 30.0, 12.0, 18.0, 3.0, 12.0]
    covered = [7.0, 7.0, 7.0, 7.0, 0.0, 7.0]
    go(levels, qpos, way, asked, covered)
    assert levels.left.tolist() == [True, True, False, False, False, True]
    levels._fallen[5] = True

    levels.begin(every(6), torch.zeros(6, dtype=torch.int64))

    # rose; left by chance, far from its command; in time; too slow; hardly asked; left in a fall
    assert levels.level.tolist() == [2, 1, 1, 0, 1, 0]


def test_flat_level_is_the_lowest_and_the_hardest_is_followed_by_a_random_one():
    levels, qpos = make_levels(300)
    go(levels, qpos, [0.0] * 300, [8.0] * 300, [0.0] * 300)
    levels.begin(every(300), torch.zeros(300, dtype=torch.int64))
    assert (levels.level == 0).all()

    levels.level[:] = 2
    go(levels, qpos, [7.5] * 300, [8.0] * 300, [8.0] * 300)
    levels.begin(every(300), torch.ones(300, dtype=torch.int64))
    # a third each; three standard deviations of 100 of 300 are 25
    assert torch.bincount(levels.level).tolist() == pytest.approx([100] * 3, abs=25)


def test_only_worlds_that_begin_change_their_level():
    levels, qpos = make_levels(3)
    go(levels, qpos, [7.5] * 3, [8.0] * 3, [8.0] * 3)

    places = levels.begin(Worlds(torch.tensor([1])), torch.tensor([4]))

    assert levels.level.tolist() == [0, 1, 0]
    # column 1 is rough ground, level in its middle
    assert places.tolist() == [pytest.approx([16 * HEIGHT, 16 * HEIGHT, 0.0])]
    assert levels.left.tolist() == [True, False, True]


def test_without_rising_each_episode_is_on_a_random_tile():
    levels, _ = make_levels(600, rise=False)
    levels.begin(every(600), torch.zeros(600, dtype=torch.int64))
    tiles = 2 * levels.level + levels.column
    # three standard deviations of 100 of 600 are 27
    assert torch.bincount(tiles).tolist() == pytest.approx([100] * 6, abs=27)

    levels.begin(every(600), torch.ones(600, dtype=torch.int64))
    assert (2 * levels.level + levels.column != tiles).float().mean() > 0.7


def test_robots_start_in_the_middle_of_their_tile_at_home_over_its_ground():
    env = make(12, start_spread_rad=0)
    levels_of(env).level.copy_(torch.arange(12) // 2 % 3)
    env.reset()
    qpos, task = env.simulation.data("qpos"), env.task
    assert isinstance(task, Velocity)

    # stairs from 2 to 6 have 4 risers of 0.12: the hardest pit is 0.48 deep, the other half
    pit = [
        -0.48 * HEIGHT * level / 2 if kind == 0 else 0.0 for level in range(3) for kind in (0, 1)
    ]
    assert qpos[:6, 2].tolist() == pytest.approx([HEIGHT + depth for depth in pit])
    assert qpos[:6, 0].tolist() == pytest.approx(
        [16 * HEIGHT * level for level in (0, 0, 1, 1, 2, 2)]
    )
    assert qpos[:6, 1].tolist() == pytest.approx([0, 16 * HEIGHT] * 3)
    motion = task.legs.read(every(12))
    assert motion.height.tolist() == pytest.approx([HEIGHT] * 12, abs=1e-6)
    home = task.legs.home_foot_height.tolist() * 12
    assert motion.foot_height.flatten().tolist() == pytest.approx(home, abs=1e-5)


def test_episode_ends_without_a_failure_where_the_tile_ends():
    env = make(2)
    env.reset()
    float_away(env, [0.2, 0.0, 0.0])  # at half a metre
    qpos = env.simulation.data("qpos")
    qpos[:, 0] = torch.tensor([0.0, 6.99 * HEIGHT])
    qpos[:, 1] = levels_of(env).column * 16 * HEIGHT
    levels_of(env)._asked[:], levels_of(env)._covered[:] = 1.0, 1.0

    step = env.step(still(env))

    assert step.truncated.tolist() == [False, True]
    assert not step.terminated.any()
    assert step.info.measured.tolist() == [False, True]
    assert levels_of(env).level.tolist() == [0, 1]
    assert step.info.metrics["terrain_level"].tolist() == [0, 0]


def test_way_that_was_asked_for_has_no_turning_in_it():
    command = {"low": [0.2, 0.0, 1.0], "high": [0.2, 0.0, 1.0], "interval_s": [2.0, 2.0]}
    env = make(1, command=command | NO_KINDS)
    env.reset()
    float_away(env, [0.15, 0.0, 0.0])  # it does not turn at all

    for _ in range(10):
        env.step(still(env))

    # in 0.2 s it was asked to come 0.04 m far, and came 0.03 m
    assert levels_of(env)._asked.tolist() == pytest.approx([0.04])
    assert levels_of(env)._covered.tolist() == pytest.approx([0.03], abs=1e-4)


def test_who_fell_into_a_gap_has_fallen():
    env = make(1, terrain={"kinds": ["gaps"], "levels": 2, "gap": 2, "tile": 24})
    levels_of(env).level[:] = 1
    env.reset()
    robot = env.deployment.robot
    qpos = torch.from_numpy(robot.home_qpos)[None]
    qpos[:, :3] += torch.tensor([24 * HEIGHT + 3 * HEIGHT, 0.0, -0.7 * HEIGHT])
    ctrl = torch.from_numpy(robot.model.keyframe("home").ctrl)[None]
    env.simulation.field("opt.gravity")[:] = 0
    env.simulation.reset(every(1), State(qpos, torch.zeros(1, robot.model.nv), ctrl))

    assert env.step(still(env)).terminated.all()


@pytest.mark.parametrize("robot", ["microduck", CRAWLER])
def test_foot_is_down_on_uneven_ground_where_mujoco_finds_a_contact(robot: str):
    """Boxes and balls: on risers a sole stands half over the edge."""
    made = load_robot(robot)
    feet = ["left_foot", "right_foot"] if robot == "microduck" else list(CRAWLER_FEET)
    height = float(made.home_qpos[2])
    terrain = {"kinds": ["stairs_down", "steps"], "levels": 3, "tile": 16, "rise": False}
    field = Field(TerrainConfig(**terrain), height)
    model = with_terrain(made, field)
    worlds = 80
    simulation = BatchSimulation(model, worlds, num_threads=1)
    ground = Ground(field, "cpu")
    legs = Legs(simulation, made, feet, ground)
    random = np.random.default_rng(3)
    qpos = np.tile(made.home_qpos, (worlds, 1))
    qpos[:, 0] = 2 * field.tile_m + random.uniform(-6, 6, worlds) * height
    qpos[:, 1] = np.arange(worlds) % 2 * field.tile_m + random.uniform(-6, 6, worlds) * height
    yaw = random.uniform(-3, 3, worlds)
    qpos[:, 3], qpos[:, 6] = np.cos(yaw / 2), np.sin(yaw / 2)
    on = torch.from_numpy(qpos[:, :2])
    qpos[:, 2] += ground.height(on).numpy() + random.uniform(-0.05, 0.02, worlds) * height
    state = (qpos, np.zeros((worlds, model.nv)), np.zeros((worlds, model.nu)))
    simulation.reset(every(worlds), State(*map(torch.from_numpy, state)))

    low = legs.read(every(worlds)).foot_height

    agree, data = 0, mujoco.MjData(model)
    ids = [model.geom(foot).id for foot in feet]
    for world in range(worlds):
        data.qpos[:] = qpos[world]
        mujoco.mj_fwdPosition(model, data)
        touched = {int(geom) for pair in data.contact.geom for geom in pair}
        agree += sum((low[world, i] < 0).item() == (foot in touched) for i, foot in enumerate(ids))
    assert 0.2 < (low < 0).float().mean() < 0.8
    # What a riser meets between two of the points, or a ball beside its middle, is not seen.
    assert agree / (worlds * len(feet)) > 0.93


def test_critic_sees_the_ground_around_in_its_heading_and_its_mirror_image():
    field = Field(TerrainConfig(kinds=["stairs_down"], levels=2, tile=16), HEIGHT)
    ground = Ground(field, "cpu")
    scan = Scan(ground)
    middle = torch.tensor([[16 * HEIGHT, 2.5 * HEIGHT, (1 + 0.36) * HEIGHT]])
    east, south = torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, -1.0]])

    seen = dict(zip(scan.columns, scan.read(middle, east)[0].tolist(), strict=True))
    # At y = 2.5 it stands on the first tread, 3 risers of 0.12 up; 1 to the left is the next.
    assert seen["0.0"] == pytest.approx(0, abs=1e-5)
    assert seen["1.1"] == pytest.approx(0.12, abs=1e-5)
    assert seen["1.-1"] == pytest.approx(-0.12, abs=1e-5)
    turned = dict(zip(scan.columns, scan.read(middle, south)[0].tolist(), strict=True))
    assert turned["1.0"] == pytest.approx(-0.12, abs=1e-5)
    assert turned["-1.0"] == pytest.approx(0.12, abs=1e-5)

    other_side = middle * torch.tensor([1.0, -1.0, 1.0])
    assert torch.allclose(
        scan.read(other_side, east), scan.read(middle, east) @ scan.mirror.T, atol=1e-5
    )


def test_mirror_of_the_task_knows_the_ground():
    env = make(2)
    assert env.mirror is not None
    assert env.mirror.critic.shape == (env.observation_sizes["critic"],) * 2
    assert "ground.1.-1" in env.columns["critic"]
    assert not any(column.startswith("ground") for column in env.columns["actor"])


def test_restored_environment_goes_on_with_the_same_bits_and_levels():
    settings: dict[str, Any] = {"episode_s": 5.1, "command": {**STRAIGHT, **NO_KINDS}}
    env, other = make(**settings), make(**settings)
    env.reset(stagger=True)
    levels_of(env).level[:] = torch.tensor([0, 1, 2, 1])
    action = 0.3 * torch.randn(120, 4, 8, generator=torch.Generator().manual_seed(0))
    for row in action[:40]:
        env.step(row)

    other.reset()
    other.load_state_dict(env.state_dict())

    for row in action[40:]:
        one, two = env.step(row), other.step(row)
        assert torch.equal(one.observation["critic"], two.observation["critic"])
        assert torch.equal(levels_of(env).level, levels_of(other).level)


def test_uneven_ground_is_the_same_on_both_backends():
    terrain = {"kinds": ["stairs_up", "slope_up"], "levels": 2, "tile": 16}
    cpu, gpu = (make(4, backend=backend, terrain=terrain) for backend in ("batch", "warp"))
    for env in (cpu, gpu):
        levels_of(env).level[:] = 1
        env.reset()
        qpos = env.simulation.data("qpos").clone()
        qpos[:, 0] += 3.3 * HEIGHT  # onto the uneven part, in the air
        qpos[:, 2] += 0.3 * HEIGHT
        qvel, ctrl = (env.simulation.data(name).clone() for name in ("qvel", "ctrl"))
        env.simulation.reset(every(4), State(qpos, qvel, ctrl))

    steps = [(cpu.step(still(cpu)), gpu.step(still(gpu))) for _ in range(12)]

    assert isinstance(cpu.task, Velocity)
    assert (cpu.task.motion.foot_height < 0.0015).any(dim=1).all()
    for one, two in steps:
        difference = one.observation["critic"] - two.observation["critic"]
        assert difference.abs().max() < 0.02
    gpu.simulation.check()


def test_masses_may_be_randomized_over_slopes():
    """Whose meshes bring boxes of their own into the table that MuJoCo recomputes."""
    envs.make(
        "velocity",
        task_config=SETTINGS | {"terrain": {"kinds": ["slope_up"], "levels": 2, "tile": 16}},
        randomization=[{"field": "mass", "operation": "scale", "range": [0.9, 1.1]}],
    )


def test_steps_on_uneven_ground_never_wait_for_a_gpu():
    env = make(2, backend="warp", episode_s=5.1)
    env.reset(stagger=True)
    env.step(still(env))

    with no_sync():
        for _ in range(6):
            env.step(still(env))


@pytest.mark.parametrize(
    ("terrain", "message"),
    [
        ({"kinds": ["stair_up"]}, r"unknown kind 'stair_up' \(did you mean 'stairs_up'\?\)"),
        (
            {"roughness": 0.8, "mesh": 0.5, "kinds": ["rough"]},
            "steeper than its mesh: cells 0.5 wide that differ by 0.8.*at most 1 times mesh",
        ),
        ({"tile": 8}, r"tile.*16"),
        ({"slope_rad": 1.0}, "slope_rad"),
        (
            {"tread": 6.0, "tile": 17, "kinds": ["stairs_down"]},  # 17 / 2 - 2 - 2
            "tread 6.0 finds no room on a tile of 17, which has 4.5.*at least 6. Lower tread, or "
            "set tile to 20",
        ),
        (
            {"gap": 2.0, "tile": 16, "kinds": ["gaps"]},  # a bar of 2 between two gaps
            "gap 2.0 finds no room on a tile of 16, which has 4.*set tile to 20",
        ),
        ({"levels": 1}, "levels"),
        # 56 wide in cells of 1.5: 1394 on each of 9 x 10 tiles
        (
            {"kinds": ["rough"] * 10, "levels": 10, "tile": 60},
            "would have 125440 boxes.*expected at most 10000",
        ),
        (
            {"tile": 60},
            r"ends 4.18 m from its middle, and an episode.* covers 4.00 m, so that no",
        ),
    ],
)
def test_what_is_wrong_with_the_ground_is_said_at_construction(
    terrain: dict[str, Any], message: str
):
    with pytest.raises(ConfigError, match=message):
        make(1, terrain=terrain)


def test_tile_that_ends_before_a_command_does_is_refused_with_one_that_does_not():
    fast = {"low": [0.9, 0, 0], "high": [0.9, 0, 0], "interval_s": [3.0, 5.0]}
    with pytest.raises(ConfigError) as error:
        make(1, command=fast)
    # 2.7 m, 18.75 heights; with the 1 at the edge the side is 39.5
    assert "covers 2.70 m" in str(error.value)
    assert "Set terrain.tile to 40 or more" in str(error.value)
    make(1, command=fast, terrain=TERRAIN | {"tile": 40})
