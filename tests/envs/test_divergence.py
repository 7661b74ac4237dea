"""A world that blows up costs the others nothing, and plain MuJoCo blows up in the same way."""

import itertools
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import mujoco
import numpy as np
import pytest
import torch
from torch import Tensor

import envs
from deploy.errors import ConfigError
from envs.batch_simulation import BatchSimulation
from envs.divergence import read, replay
from envs.divergence.__main__ import main
from envs.divergence.trail import Trail
from envs.randomization.physics.fields import FieldTerm
from envs.robot import load_robot
from envs.simulation import Simulation

WORLD = 2
"""The one that is blown up, of four."""
OTHERS = [0, 1, 3]
ARM = load_robot("desk_arm")
FOREARM = ARM.model.body("forearm").id
RANDOMIZATION = (
    FieldTerm(field="mass", range=(0.8, 1.25)),
    FieldTerm(field="actuator_delay", operation="set", range=(0.005, 0.03)),
)


@pytest.fixture(autouse=True)
def in_tmp_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """MuJoCo writes its warnings to MUJOCO_LOG.TXT in the working folder."""
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "run" / "diverged"


def make() -> envs.VectorEnv:
    env = envs.make("arm_reach", num_envs=4, num_threads=1, randomization=RANDOMIZATION)
    env.reset()
    return env


def push(simulation: BatchSimulation) -> None:
    """An impossible force on the forearm: the first acceleration is beyond MuJoCo's 1e10."""
    simulation.data("xfrc_applied")[WORLD, FOREARM, 0] = 1e15


def drive(simulation: BatchSimulation) -> None:
    """Joints that are accelerated by their own speed: what overflows are positions."""
    simulation.field("dof_damping")[WORLD] = -1.0


def break_integrator(simulation: BatchSimulation) -> None:
    """MuJoCo does not warn of this, it raises."""
    simulation.field("opt.integrator")[WORLD] = 99


def actions(steps: int) -> Tensor:
    """(steps, 4, 5) in [-1, 1]."""
    return 2 * torch.rand(steps, 4, 5, generator=torch.Generator().manual_seed(0)) - 1


def blow_up(env: envs.VectorEnv, blow: Callable[[BatchSimulation], None] = push, *, at: int = 6):
    """Make `at` steps, and then one in which a world diverges; returns what that said."""
    for action in actions(at):
        env.step(action)
    simulation = env._simulation
    assert isinstance(simulation, BatchSimulation)
    blow(simulation)
    return env.step(actions(at + 1)[-1])


def the_file(folder: Path) -> Path:
    (path,) = folder.iterdir()
    return path


def test_blown_up_world_is_reset_and_counted_and_the_others_do_not_notice(folder: Path):
    healthy, failing = make(), make()
    failing.record_divergences(folder)
    expected = blow_up(healthy, lambda simulation: None)

    found = blow_up(failing)

    assert (healthy.diverged, failing.diverged) == (0, 1)
    assert found.terminated.tolist() == [False, False, True, False]
    assert found.reward[WORLD] == 0
    assert failing._episode.tolist() == [1, 1, 2, 1]
    for action in actions(10):
        for name in ("actor", "critic"):
            assert torch.equal(found.observation[name][OTHERS], expected.observation[name][OTHERS])
        assert torch.equal(found.reward[OTHERS], expected.reward[OTHERS])
        assert found.observation["critic"].isfinite().all()
        expected, found = healthy.step(action), failing.step(action)
    assert failing.diverged == 1
    assert [path.name for path in folder.iterdir()] == ["step-6-world-2.npz"]


@pytest.mark.parametrize(
    ("blow", "cause"),
    [
        (push, "BADQACC at 0"),
        (drive, "BADQPOS at 0"),
        (break_integrator, "mj_step: invalid integrator"),
    ],
)
@pytest.mark.parametrize("between_substeps", [False, True])
def test_plain_mujoco_does_the_same_to_the_bit(
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    blow: Callable[[BatchSimulation], None],
    cause: str,
    between_substeps: bool,
):
    env = make()
    simulation = env._simulation
    assert isinstance(simulation, BatchSimulation)
    friction, clock = simulation.field("dof_frictionloss"), simulation.data("time")
    nominal = friction[0].clone()

    def wear() -> None:  # a field that is another in each physics step
        friction[:] = nominal * (1 + torch.sin(500 * clock[:, None]))

    env.randomization.before_substep = wear if between_substeps else None
    # What the world is after the call, before the environment resets it.
    after: dict[str, Tensor] = {}
    step = simulation.step

    def observed_step(*args: Any) -> Tensor:
        failed = step(*args)
        if failed.any() and not between_substeps:
            after["qpos"] = simulation.data("qpos")[WORLD].clone()
            after["qvel"] = simulation.data("qvel")[WORLD].clone()
        return failed

    monkeypatch.setattr(simulation, "step", observed_step)
    env.record_divergences(folder)

    blow_up(env, blow)

    result = replay(the_file(folder))
    assert result.cause == result.dump.divergence.cause == cause
    assert result.dump.divergence.num_substeps[-1] == (1 if between_substeps else 4)
    assert result.dump.divergence.world == WORLD
    if not between_substeps and blow is not break_integrator:
        assert result.after.qpos.tolist() == after["qpos"].tolist()
        assert result.after.qvel.tolist() == after["qvel"].tolist()


@pytest.mark.parametrize("name", ["gym/HalfCheetah-v5", "gym/Humanoid-v5"])
def test_task_whose_sensors_lag_is_replayed_like_the_others(folder: Path, name: str):
    env = envs.make(name, num_envs=4, num_threads=1)
    env.reset()
    env.record_divergences(folder)
    env._simulation.field("dof_damping")[WORLD] = -20.0
    for _ in range(10):
        env.step(torch.zeros(4, env.num_actions))

    assert env.diverged > 0
    for path in folder.iterdir():
        result = replay(path)
        assert result.cause == result.dump.divergence.cause != ""


def test_each_remembered_state_continues_to_the_next_in_plain_mujoco(folder: Path):
    env = make()
    env.record_divergences(folder)
    blow_up(env)

    model, states = (dump := read(the_file(folder)).divergence).model, dump.states

    assert states.shape[0] == 4
    physics = int(mujoco.mjtState.mjSTATE_FULLPHYSICS)
    data, expected = mujoco.MjData(model), mujoco.MjData(model)
    for state, following in itertools.pairwise(states):
        mujoco.mj_setState(model, data, state, int(mujoco.mjtState.mjSTATE_INTEGRATION))
        mujoco.mj_step(model, data, nstep=4)
        mujoco.mj_setState(model, expected, following, int(mujoco.mjtState.mjSTATE_INTEGRATION))
        found, wanted = (np.empty(mujoco.mj_stateSize(model, physics)) for _ in range(2))
        mujoco.mj_getState(model, data, found, physics)  # time, qpos, qvel and delay buffers
        mujoco.mj_getState(model, expected, wanted, physics)
        assert found.tolist() == wanted.tolist()


def test_only_the_episode_that_diverged_is_remembered(folder: Path):
    env = make()
    env.record_divergences(folder)
    blow_up(env, at=6)
    blow_up(env, at=1)  # one step into the next episode, which began without a step

    states = read(folder / "step-8-world-2.npz").divergence.states

    assert states[:, 0].tolist() == [0.0, 0.02]  # time


def test_trail_of_a_world_starts_at_its_latest_reset():
    state = np.zeros((2, 3))  # time first
    trail = Trail(state)
    for call, times in enumerate([(0.1, 7.0), (0.0, 7.1), (0.1, 0.0), (0.0, 0.0), (0.1, 0.1)]):
        state[:] = [[time, world, call] for world, time in enumerate(times)]
        trail.remember(num_substeps=call)

    # Four calls are kept, 1 to 4. World 0 was reset before calls 1 and 3; world 1 before calls 2
    # and 3, the time between at rest.
    for world in (0, 1):
        states, num_substeps = trail.of(world)
        assert states.tolist() == [[0.0, world, 3.0], [0.1, world, 4.0]]
        assert num_substeps.tolist() == [3, 4]


def test_world_that_fails_in_every_physics_step_is_recorded_once_where_it_began():
    simulation = make()._simulation
    assert isinstance(simulation, BatchSimulation)
    found = simulation.record_divergences(5)
    calls = []

    def push_twice() -> None:  # a reset clears the force
        calls.append(simulation.data("time")[WORLD].item())
        push(simulation)

    failed = simulation.step(4, push_twice)

    assert failed.tolist() == [False, False, True, False]
    assert calls == [0.0, 0.005, 0.005, 0.005]  # reset, and one step on
    (divergence,) = found
    assert divergence.states[:, 0].tolist() == [0.0]
    assert not simulation.step(4).any()
    assert found == []


def test_dump_has_the_model_of_its_world_and_what_the_policy_did(folder: Path):
    env = make()
    env.record_divergences(folder)
    mass = env._simulation.field("body_mass")[WORLD].tolist()
    action = actions(7)[6]

    blow_up(env)

    dump = read(the_file(folder))
    assert mass != ARM.model.body_mass.tolist()
    assert dump.divergence.model.body_mass.tolist() == mass
    assert dump.context["step"] == dump.context["episode_step"] == 6
    assert dump.context["action"].tolist() == action[WORLD].tolist()
    ctrl = np.load(the_file(folder))["state_ctrl"][-1]
    assert dump.context["targets"].tolist() == ctrl[ARM.actuators].astype(np.float32).tolist()


def test_what_went_wrong_is_the_step_that_started_from_sound_numbers(folder: Path):
    env = make()
    env.record_divergences(folder)
    blow_up(env, drive)

    result = replay(the_file(folder))

    # MuJoCo warns of positions of 1e200 at the start of the second step, but the first did it.
    assert result.cause == "BADQPOS at 0"
    assert result.substep == 0
    assert np.abs(result.start.qpos).max() < 10
    assert np.abs(result.start.qvel).max() < 10
    # The culprit: a damping of -1 N·m·s/rad, on top of the motor's, pushes along the motion.
    assert result.start.qfrc_passive.tolist() == pytest.approx(result.start.qvel.tolist(), rel=0.3)


def test_folder_gets_no_more_files_than_asked_for(folder: Path):
    env = make()
    env.record_divergences(folder, limit=3)
    drive_all = env._simulation.field("dof_damping")
    drive_all[:] = -1.0
    for action in actions(4):
        env.step(action)

    assert env.diverged > 8
    assert len(list(folder.iterdir())) == 3

    resumed = make()
    resumed.record_divergences(folder, limit=3)
    blow_up(resumed)
    assert resumed.diverged == 1
    assert len(list(folder.iterdir())) == 3


class Blind:
    """A simulation without `record_divergences`."""

    def __init__(self, simulation: Simulation):
        self._simulation = simulation

    def __getattr__(self, name: str) -> Any:
        if name == "record_divergences":
            raise AttributeError(name)
        return getattr(self._simulation, name)


def test_simulation_that_cannot_look_back_writes_nothing(folder: Path):
    env = make()
    env._simulation = simulation = cast(Simulation, Blind(env._simulation))
    env.record_divergences(folder)

    simulation.data("xfrc_applied")[WORLD, FOREARM, 0] = 1e15
    env.step(actions(1)[0])

    assert env.diverged == 1
    assert not folder.exists()


def test_recording_does_not_change_a_bit(folder: Path):
    silent, recorded = make(), make()
    recorded.record_divergences(folder)

    one, other = blow_up(silent, drive), blow_up(recorded, drive)

    assert torch.equal(one.observation["critic"], other.observation["critic"])
    assert torch.equal(silent._simulation.data("qpos"), recorded._simulation.data("qpos"))


@pytest.fixture(scope="module")
def a_dump(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file; do not write to it."""
    folder = tmp_path_factory.mktemp("diverged")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        env = make()
        env.record_divergences(folder / "files")
        blow_up(env)
    return the_file(folder / "files")


def rewrite(path: Path, **changes: Any) -> None:
    """Change arrays of a file; None removes one."""
    arrays = {**np.load(path), **changes}
    np.savez(path, **{name: value for name, value in arrays.items() if value is not None})


def flip_a_byte(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (lambda path: path.write_bytes(path.read_bytes()[:9000]), "it is no zip archive"),
        (lambda path: path.write_text("notes"), "it is no zip archive"),
        (lambda path: path.unlink(), "No such file"),
        (flip_a_byte, r"Bad CRC-32|zlib|decompressing"),
        (lambda path: rewrite(path, model=None), "model"),
        (lambda path: rewrite(path, model=np.load(path)["model"][:1000]), "mjb"),
        (lambda path: rewrite(path, state_qpos=np.zeros((4, 3))), "size"),
        (lambda path: rewrite(path, state_qvel=np.zeros((1, 6))), "out of bounds"),
        (lambda path: rewrite(path, num_substeps=np.array([4])), "4 states, but num_substeps"),
        (lambda path: rewrite(path, cause=np.array([{"a": 1}], object)), "allow_pickle=False"),
    ],
)
def test_damaged_file_is_one_clear_error(
    a_dump: Path, tmp_path: Path, damage: Callable[[Path], None], reason: str
):
    path = tmp_path / "copy.npz"
    shutil.copy(a_dump, path)
    damage(path)

    with pytest.raises(ConfigError, match=reason) as error:
        replay(path)

    assert str(error.value).startswith(f"{path}: expected a file that a training run wrote")
    assert str(error.value).endswith("Copy it again, or take another")


def test_file_of_another_mujoco_says_which_one_to_install(a_dump: Path, tmp_path: Path):
    path = tmp_path / "old.npz"
    shutil.copy(a_dump, path)
    rewrite(path, mujoco_version=np.array("3.9.1"))

    with pytest.raises(ConfigError) as error:
        replay(path)

    assert str(error.value) == (
        f"{path}: written with MuJoCo 3.9.1, this is {mujoco.__version__}, and its model can be "
        "read by the same version only: pip install mujoco==3.9.1"
    )


def test_replay_leaves_warnings_to_whoever_had_them(a_dump: Path):
    heard: list[str] = []
    mujoco.set_mju_user_warning(heard.append)
    try:
        replay(a_dump)
        assert heard == []
        data = mujoco.MjData(ARM.model)
        data.qpos[1] = 1e11
        mujoco.mj_step(ARM.model, data)
        (warning,) = heard
        assert "QPOS at DOF 1" in warning
    finally:
        mujoco.set_mju_user_warning(None)


def test_command_says_what_happened(a_dump: Path, capsys: pytest.CaptureFixture[str]):
    assert main([str(a_dump)]) == 0

    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "world 2 diverged in control step 6: BADQACC at 0"
    assert lines[1] == (
        f"replayed with plain MuJoCo {mujoco.__version__}: the same; it went wrong in physics "
        "step 1 of 4, at 0.12 s"
    )
    assert [line.split()[0] for line in lines[3:7]] == ["0.0600", "0.0800", "0.1000", "0.1200"]
    shown = {line.split()[1]: line.split()[2:] for line in lines[8:14]}
    assert shown.keys() == set(ARM.joints)
    assert abs(float(shown["elbow_flex"][1])) > 1e15  # qacc
    # A force of 1e15 N at the forearm's centre of mass, which is less than its 0.1 m from the axis.
    assert 1e12 < abs(float(shown["elbow_flex"][4])) < 1e14
    assert not Path("MUJOCO_LOG.TXT").exists()


def test_command_refuses_a_file_it_cannot_read(capsys: pytest.CaptureFixture[str]):
    assert main(["nothing.npz"]) == 1
    assert main([]) == 2
    assert capsys.readouterr().err.startswith("nothing.npz: expected a file")
