"""A robot that stands on nothing but its feet: frames, falls, contacts and its part of a contract.

Oracles are closed forms and plain `MjData`. A free base's qvel is linear in the world frame, and
angular in its own.
"""

import math
from functools import partial
from pathlib import Path

import mujoco
import numpy as np
import pytest
import torch
from torch import Tensor

import envs
from deploy.errors import ConfigError
from deploy.signals import SIGNALS
from envs.batch_simulation import BatchSimulation
from envs.divergence.__main__ import main
from envs.draws import Draws
from envs.registry import TASKS
from envs.robot import Robot, load_robot
from envs.simulation import Simulation, State
from envs.worlds import Worlds, every
from robotrl.runs.train_config import TrainConfig
from tests.envs.exported import drive, train_and_export
from tests.envs.models.stand_task import MEASURED, Stand, StandConfig, StandFeatures

CRAWLER = Path(__file__).parent / "models" / "crawler.xml"
JOINTS = [
    f"{leg}_{joint}"
    for leg in ("front_left", "rear_right", "front_right", "rear_left")
    for joint in ("hip", "knee")
]
"""As they stand in the tree."""
WORLDS = 5
UP = 3.0
"""Height of falls [m], far from the floor."""


@pytest.fixture(scope="module")
def robot() -> Robot:
    return load_robot(str(CRAWLER))


@pytest.fixture
def simulation(robot: Robot) -> BatchSimulation:
    return BatchSimulation(robot.model, WORLDS, num_threads=1)


@pytest.fixture
def env(stand_task: str) -> envs.VectorEnv:
    env = envs.make(stand_task, num_envs=len(JOINTS), num_threads=1)
    env.reset()
    return env


def random_state(robot: Robot, seed: int, *, height: float, spin: float) -> State:
    """Bases turned and moving at random, legs at home and held there."""
    random = np.random.default_rng(seed)
    qpos = np.tile(robot.home_qpos, (WORLDS, 1))
    qpos[:, :2] = random.uniform(-0.5, 0.5, (WORLDS, 2))
    qpos[:, 2] = height
    quat = random.normal(size=(WORLDS, 4))
    qpos[:, 3:7] = quat / np.linalg.norm(quat, axis=1, keepdims=True)
    qvel = np.zeros((WORLDS, robot.model.nv))
    qvel[:, :3] = random.uniform(-1, 1, (WORLDS, 3))
    qvel[:, 3:6] = spin * random.uniform(-1, 1, (WORLDS, 3))
    ctrl = np.tile(robot.model.keyframe("home").ctrl, (WORLDS, 1))
    return State(*map(torch.from_numpy, (qpos, qvel, ctrl)))


def plain(robot: Robot, qpos: Tensor, qvel: Tensor, ctrl: Tensor) -> mujoco.MjData:
    """One world of plain MuJoCo in a state, its delay buffers filled with the control."""
    model, data = robot.model, mujoco.MjData(robot.model)
    data.qpos[:], data.qvel[:], data.ctrl[:] = qpos, qvel, ctrl
    for actuator in range(model.nu):
        samples = int(model.actuator_history[actuator, 0])
        filled = np.full(samples, data.ctrl[actuator])
        mujoco.mj_initCtrlHistory(model, data, actuator, None, filled)
    mujoco.mj_forward(model, data)
    return data


def test_free_fall_from_any_pose_is_that_of_its_centre_of_mass(
    simulation: BatchSimulation, robot: Robot
):
    state = random_state(robot, 0, height=UP, spin=0)
    start = [plain(robot, *rows).subtree_com[1].copy() for rows in zip(*state, strict=True)]

    simulation.reset(every(WORLDS), state)
    simulation.step(60)

    # All parts move alike at first, so the base's velocity is that of the centre of mass, in the
    # world frame. Semi-implicit steps: v grows by g·dt before it moves, so after n of them
    # x = x0 + v0·n·dt - g·dt²·n(n+1)/2. What the servos do inside does not matter.
    n, dt, g = 60, robot.model.opt.timestep, 9.81
    end = simulation.data("subtree_com")[:, 1].numpy()
    for world in range(WORLDS):
        expected = start[world] + state.qvel[world, :3].numpy() * n * dt
        expected[2] -= g * dt**2 * n * (n + 1) / 2
        assert end[world] == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("axis", range(3))
def test_angular_velocity_is_about_the_axes_of_the_base(
    simulation: BatchSimulation, robot: Robot, axis: int
):
    state = random_state(robot, 1, height=UP, spin=0)
    state.qvel[:, 3 + axis] = 2.0
    before = state.qpos[:, 3:7].numpy().copy()

    simulation.reset(every(WORLDS), state)
    simulation.step(1)

    # q1 = q0 · (cos ½ωdt, sin ½ωdt along the base's axis), had the spin not changed in the step.
    turn = np.zeros(4)
    half = 0.5 * 2.0 * robot.model.opt.timestep
    turn[0], turn[1 + axis] = math.cos(half), math.sin(half)
    after = simulation.data("qpos")[:, 3:7].numpy()
    for quat, found in zip(before, after, strict=True):
        expected = np.zeros(4)
        mujoco.mju_mulQuat(expected, quat, turn)
        assert found == pytest.approx(expected, abs=2e-4)  # a wrong axis is off by 5e-3


def test_tumbling_landing_and_lying_equal_plain_mujoco_to_the_bit(
    simulation: BatchSimulation, robot: Robot
):
    state = random_state(robot, 2, height=0.25, spin=5)
    worlds = [plain(robot, *rows) for rows in zip(*state, strict=True)]
    simulation.reset(every(WORLDS), state)
    generator = torch.Generator().manual_seed(0)
    touched = 0

    for _ in range(40):
        ctrl = torch.rand(WORLDS, robot.model.nu, generator=generator, dtype=torch.float64)
        simulation.data("ctrl").copy_(ctrl)
        assert not simulation.step(4).any()
        for world, data in enumerate(worlds):
            data.ctrl[:] = ctrl[world]
            mujoco.mj_step(robot.model, data, nstep=4)
            touched += data.ncon
            assert simulation.data("qpos")[world].tolist() == data.qpos.tolist()
            assert simulation.data("qvel")[world].tolist() == data.qvel.tolist()

    assert touched > 5 * WORLDS


def test_reset_of_some_worlds_leaves_the_others_alone(simulation: BatchSimulation, robot: Robot):
    undisturbed = BatchSimulation(robot.model, WORLDS, num_threads=1)
    for each in (simulation, undisturbed):
        each.reset(every(WORLDS), random_state(robot, 3, height=0.2, spin=3))
        each.step(20)
    fresh = State(*(table[[1, 3]] for table in random_state(robot, 4, height=UP, spin=1)))

    simulation.reset(Worlds(torch.tensor([1, 3])), fresh)

    assert torch.equal(simulation.data("qpos")[[1, 3]], fresh.qpos)
    assert torch.equal(simulation.data("qvel")[[1, 3]], fresh.qvel)
    others = [0, 2, 4]
    for _ in range(20):
        for name in ("qpos", "qvel", "sensordata"):
            assert torch.equal(simulation.data(name)[others], undisturbed.data(name)[others])
        simulation.step(4)
        undisturbed.step(4)


def test_it_stands_and_its_feet_carry_its_weight(env: envs.VectorEnv, robot: Robot):
    for _ in range(100):
        *_, terminated, _, _ = env.step(torch.zeros(len(JOINTS), len(JOINTS)))
        assert not terminated.any()

    model, simulation = robot.model, env._simulation
    feet = {model.geom(f"{name[:-4]}_foot").id for name in JOINTS if name.endswith("hip")}
    for world in range(env.num_envs):
        rows = (simulation.data(name)[world] for name in ("qpos", "qvel", "ctrl"))
        data = plain(robot, *rows)
        touching = {int(geom) for contact in data.contact for geom in contact.geom}
        assert touching <= {0, *feet}  # the floor, and
        assert len(touching) >= 4  # three feet at least: legs start up to 0.1 rad off home
        wrench, total = np.zeros(6), 0.0
        for index in range(data.ncon):
            mujoco.mj_contactForce(model, data, index, wrench)
            total += wrench[0]  # along the normal, which is vertical
        # (0.8 + 8 · 0.05 + 4 · 0.01) kg · 9.81 m/s² = 12.16 N
        assert total == pytest.approx(12.16, rel=0.02)


@pytest.mark.parametrize(("tilt_deg", "fallen"), [(59, False), (61, True), (180, True)])
@pytest.mark.parametrize("axis", [1, 2])
def test_it_has_fallen_when_it_is_tilted_by_more_than_sixty_degrees(
    env: envs.VectorEnv, robot: Robot, tilt_deg: float, fallen: bool, axis: int
):
    qpos = torch.from_numpy(robot.home_qpos).repeat(env.num_envs, 1)
    qpos[:, 2] = UP
    half = math.radians(tilt_deg) / 2
    qpos[3, 3], qpos[3, 3 + axis] = math.cos(half), math.sin(half)
    ctrl = torch.from_numpy(robot.model.keyframe("home").ctrl).repeat(env.num_envs, 1)
    qvel = torch.zeros(env.num_envs, robot.model.nv, dtype=torch.float64)

    env._simulation.reset(every(env.num_envs), State(qpos, qvel, ctrl))

    assert env.task.terminated().tolist() == [world == 3 and fallen for world in range(8)]


def test_critic_sees_the_true_velocity_in_the_frame_of_the_imu(env: envs.VectorEnv, robot: Robot):
    simulation = env._simulation
    qvel = simulation.data("qvel").clone()
    qvel[:, :3] = torch.tensor([0.5, -0.2, 0.1])
    simulation.reset(
        every(env.num_envs), State(simulation.data("qpos").clone(), qvel, simulation.data("ctrl"))
    )

    seen = env.task.observe_privileged(every(env.num_envs))["base_linear_velocity"]

    for world in range(env.num_envs):
        data = plain(robot, *(simulation.data(name)[world] for name in ("qpos", "qvel", "ctrl")))
        world_imu = data.site("imu").xmat.reshape(3, 3)
        assert seen[world].numpy() == pytest.approx(world_imu.T @ [0.5, -0.2, 0.1], abs=1e-6)


def test_each_target_moves_the_joint_of_its_name(env: envs.VectorEnv, robot: Robot):
    model, simulation = robot.model, env._simulation
    assert [joint.name for joint in env.deployment.joints] == robot.joints == JOINTS
    simulation.field("opt.gravity")[:] = 0
    qpos = torch.from_numpy(robot.home_qpos).repeat(len(JOINTS), 1)
    qpos[:, 2] = UP
    ctrl = torch.from_numpy(model.keyframe("home").ctrl).repeat(len(JOINTS), 1)
    qvel = torch.zeros(len(JOINTS), model.nv, dtype=torch.float64)
    simulation.reset(every(len(JOINTS)), State(qpos, qvel, ctrl))

    targets = torch.from_numpy(robot.home).float() + 0.3 * torch.eye(len(JOINTS))
    for _ in range(25):
        env.step_targets(targets)

    for world, name in enumerate(JOINTS):
        now = simulation.data("qpos")[world, int(model.joint(name).qposadr[0])]
        home = robot.model.keyframe("home").qpos[int(model.joint(name).qposadr[0])]
        assert now - home == pytest.approx(0.3, abs=0.05)
        others = [i for i in range(len(JOINTS)) if i != world]
        moved = env.signals["joint_position"][world] - torch.from_numpy(robot.home).float()
        assert moved[others].abs().max() < 0.05
        assert moved[world] == pytest.approx(0.3, abs=0.05)


def test_contract_has_gains_limits_and_home_under_the_names_of_the_mjcf(env: envs.VectorEnv):
    for joint in env.deployment.joints:
        knee = joint.name.endswith("knee")
        # target_range keeps 0.02 rad off the limits of the MJCF
        low, high = (0.02, 2.38) if knee else (-1.58, 1.58)
        assert joint.position_limits_rad == pytest.approx((low, high))
        assert joint.default_position_rad == (1.2 if knee else -0.6)
        assert (joint.kp_nm_per_rad, joint.kd_nm_s_per_rad, joint.effort_limit_nm) == (8, 0, 1.5)


def test_every_column_of_the_observation_has_a_name(env: envs.VectorEnv):
    assert env.columns["critic"] == [
        *(f"imu_angular_velocity.{axis}" for axis in "xyz"),
        *(f"projected_gravity.{axis}" for axis in "xyz"),
        *(f"joint_position.{name}" for name in JOINTS),
        *(f"joint_velocity.{name}" for name in JOINTS),
        "command.height",
        *(f"base_linear_velocity.{axis}" for axis in "xyz"),
        "base_height",
    ]
    assert env.columns["actor"] == env.columns["critic"][:-4]


def test_untrained_policy_is_exported_and_its_controller_keeps_standing_in_simulation(
    stand_task: str, tiny_config: TrainConfig, tmp_path: Path
):
    exported = train_and_export(tiny_config, stand_task, {}, tmp_path, symmetry=False)

    contract = exported.contract
    assert {spec.name: spec.frame for spec in contract.inputs} == {
        **dict.fromkeys(MEASURED[:2], "imu"),
        **dict.fromkeys((*MEASURED[2:], "joint_target", "command"), ""),
    }
    assert contract.command.elements == ["height"]
    assert contract.outputs[0].elements == JOINTS
    stand = partial(envs.make, stand_task, num_envs=1, num_threads=1)
    for step in drive(exported, stand, steps=50):
        assert not step.terminated.any()


class CheatingStand(Stand):
    """Its actor sees what no robot can measure."""

    def __init__(self, simulation: Simulation, config: StandConfig, draws: Draws):
        super().__init__(simulation, config, draws)
        self.encoder.signals = (*StandFeatures.signals, "base_linear_velocity")
        self.signals = {**self.signals, "base_linear_velocity": ["x", "y", "z"]}


def test_policy_that_sees_what_no_robot_can_know_is_refused(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(TASKS, "cheating_stand", CheatingStand)

    with pytest.raises(ConfigError) as error:
        envs.make("cheating_stand", num_threads=1)

    measured = sorted([*StandFeatures.signals, "base_linear_velocity"])
    assert str(error.value) == (
        "the actor reads 'base_linear_velocity' (did you mean 'imu_angular_velocity'?); this task "
        f"measures {measured}, and a robot knows {sorted(SIGNALS)}"
    )


def test_divergence_of_a_free_base_is_told_by_its_axes(
    env: envs.VectorEnv,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
):
    monkeypatch.chdir(tmp_path)  # MuJoCo writes its warnings to MUJOCO_LOG.TXT
    env.record_divergences(tmp_path)
    env._simulation.data("xfrc_applied")[5, 1, 2] = 1e12  # up, on the trunk

    env.step(torch.zeros(len(JOINTS), len(JOINTS)))

    assert env.diverged == 1
    assert main([str(tmp_path / "step-0-world-5.npz")]) == 0
    shown = capsys.readouterr().out
    assert "BADQACC at 0" in shown  # all dofs are bad; MuJoCo names the first
    # A force of 1e12 N on 1.24 kg, a part of which hangs on its joints.
    (line,) = [line for line in shown.splitlines() if line.split()[1:3] == ["base", "z"]]
    assert 0.8e12 < float(line.split()[4]) < 1.3e12
