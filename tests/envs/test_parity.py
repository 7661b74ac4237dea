"""One world, two engines: MuJoCo in float64 on CPU threads, and mujoco_warp in float32.

Both start from the same states and get the same controls, fields and draws. float32 rounds at
6e-8 of a value, and after one step the two differ by about that. From then on the dynamics decide:
they carry every difference on, and contacts multiply it, as one engine may see a foot touch a step
before the other. So the bounds grow with the number of steps, and beside the GPU's divergence
stands that of MuJoCo from itself, from states 1e-7 apart; run with -s to see both. Faults are
larger: a delay of the desk arm wrong by 50 µs showed as 5e-4 after ten steps.
"""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import gymnasium.envs.mujoco
import mujoco
import pytest
import torch
import yaml
from torch import Tensor

import envs
from envs.batch_simulation import BatchSimulation
from envs.registry import find_task
from envs.robot import load_robot
from envs.simulation import Simulation, State
from envs.warp_simulation import WarpSimulation
from envs.worlds import every
from tests.envs.walker import load_walker

NUM_ENVS = 8
BOUNDS = {1: 1e-6, 10: 1e-5, 50: 1e-4}
"""Steps, and how far any joint or base may have diverged by then [m, rad]."""
CONFIGS = Path(__file__).parents[2] / "configs" / "train"
TASK_BOUNDS = {1: 1e-5, 10: 1e-4, 80: 1e-3}
"""Control steps, and how far observations and rewards may differ by then.

With staggered starts, some episodes end within 80 steps.
"""
TASKS = ["arm_reach"]
"""Tasks that are compared whole; add a new one here."""
GYM_TASKS = [
    *("HalfCheetah", "Hopper", "Walker2d", "Swimmer", "Reacher"),
    *("InvertedPendulum", "InvertedDoublePendulum"),
]
"""Without Pusher, whose observation on the CPU lags a physics step behind as Gymnasium's does, and
Ant and Humanoid, whose contact forces mujoco_warp does not give."""
GYM_BOUNDS = {1: 1e-4, 10: 2e-2}
"""Looser: observed speeds are some 10 rad/s, ten control steps are up to 50 of physics, and where
capsules hit the floor upright the engines turn the friction pyramid differently (walker.py)."""


class Case(NamedTuple):
    """A model and what differs between its worlds."""

    load: Callable[[], mujoco.MjModel]
    spread: float = 0.05
    """Start states lie this far around the model's [m, rad]."""
    scaled: tuple[str, ...] = ()
    """Fields multiplied by 0.7 to 1.3 in each world."""
    friction_loss: float = 0.0
    """Largest joint friction, which has to make constraints of its own."""


def half_cheetah() -> mujoco.MjModel:
    return mujoco.MjModel.from_xml_path(
        str(Path(gymnasium.envs.mujoco.__file__).parent / "assets" / "half_cheetah.xml")
    )


CASES = {
    "walker": Case(load_walker),
    "walker_randomized": Case(
        load_walker,
        scaled=(
            *("body_mass", "body_inertia", "geom_friction", "dof_damping", "dof_armature"),
            *("actuator_gainprm", "actuator_biasprm", "actuator_delay", "sensor_delay"),
            "opt.gravity",
        ),
        friction_loss=0.05,
    ),
    "desk_arm": Case(
        lambda: load_robot("desk_arm").model, scaled=("body_mass", "body_inertia", "actuator_delay")
    ),
    "half_cheetah": Case(half_cheetah),
}


def uniform(*shape: int, seed: int) -> Tensor:
    """The same numbers in [-1, 1] for both precisions."""
    generator = torch.Generator().manual_seed(seed)
    return 2 * torch.rand(*shape, generator=generator) - 1


def randomize(simulation: Simulation, case: Case) -> None:
    for seed, name in enumerate(case.scaled):
        field = simulation.field(name)
        scale = 1 + 0.3 * uniform(NUM_ENVS, seed=100 + seed).view(-1, *(1,) * (field.dim() - 1))
        field *= scale
    if case.friction_loss:
        friction = simulation.field("dof_frictionloss")
        drawn = case.friction_loss * (1 + uniform(*friction.shape, seed=200)) / 2
        friction.copy_(drawn)
        friction[:, :6] = 0  # the base
    if case.scaled:
        simulation.recompute_constants(every(NUM_ENVS))


def start(simulation: Simulation, case: Case, *, shift: float = 0.0) -> None:
    model, dtype = simulation.model, simulation.data("qpos").dtype
    qpos = torch.from_numpy(model.qpos0 if not model.nkey else model.key_qpos[0]).float()
    qpos = qpos + case.spread * uniform(NUM_ENVS, model.nq, seed=1)
    qpos = qpos.to(dtype) + shift * uniform(NUM_ENVS, model.nq, seed=2)
    qvel = case.spread * uniform(NUM_ENVS, model.nv, seed=3)
    ctrl = control(model, step=-1)
    simulation.reset(every(NUM_ENVS), State(qpos, qvel.to(dtype), ctrl.to(dtype)))


def control(model: mujoco.MjModel, *, step: int) -> Tensor:
    """Commands around the start pose, or over half their range."""
    middle, reach = torch.zeros(model.nu), torch.full((model.nu,), 0.5)
    if model.nkey:
        middle, reach = torch.from_numpy(model.key_ctrl[0]).float(), 0.5 * reach
    return middle + reach * uniform(NUM_ENVS, model.nu, seed=1000 + step)


def divergence(one: Simulation, other: Simulation, name: str) -> float:
    return float((one.data(name) - other.data(name)).abs().max())


@pytest.mark.parametrize("name", CASES)
def test_worlds_stay_together_as_long_as_rounding_lets_them(name: str):
    case = CASES[name]
    cpu, gpu, shadow = (
        BatchSimulation(case.load(), NUM_ENVS, num_threads=1),
        WarpSimulation(case.load(), NUM_ENVS, device="cpu"),
        BatchSimulation(case.load(), NUM_ENVS, num_threads=1),
    )
    for simulation in (cpu, gpu, shadow):
        randomize(simulation, case)
        start(simulation, case, shift=1e-7 if simulation is shadow else 0.0)
    touched = False

    for step in range(1, max(BOUNDS) + 1):
        for simulation in (cpu, gpu, shadow):
            simulation.data("ctrl").copy_(control(cpu.model, step=step // 5))
            assert not simulation.step(1).any()
        touched |= bool(cpu.data("nefc").any())
        if step in BOUNDS:
            moved, itself = divergence(cpu, gpu, "qpos"), divergence(cpu, shadow, "qpos")
            sensed = divergence(cpu, gpu, "sensordata") if cpu.model.nsensor else 0.0
            print(
                f"{name:18} {step:3} steps: qpos {moved:.1e} (MuJoCo from itself {itself:.1e}), "
                f"sensors {sensed:.1e}"
            )
            assert moved < BOUNDS[step]
            speed = float(cpu.data("qvel").abs().max())
            assert divergence(cpu, gpu, "qvel") < BOUNDS[step] * 100 * max(speed, 1)
    assert touched, "no contact, limit or friction was ever compared"
    gpu.check()


@pytest.mark.parametrize("name", TASKS)
def test_task_is_the_same_on_both_backends(name: str, monkeypatch: pytest.MonkeyPatch):
    """Signals, rewards and ends, through draws and noise, into episodes that begin anew."""
    task_class = find_task(name)
    load_model = task_class.load_model
    monkeypatch.setattr(task_class, "load_model", lambda config: elliptic(load_model(config)))
    config = yaml.safe_load((CONFIGS / f"{name}.yaml").read_text())
    cpu, gpu = (
        envs.make(
            name,
            num_envs=NUM_ENVS,
            seed=3,
            backend=backend,
            randomization=config["randomization"],
            num_threads=1,
        )
        for backend in ("batch", "warp")
    )
    observations = [env.reset(stagger=True)["critic"] for env in (cpu, gpu)]
    assert (observations[0] - observations[1]).abs().max() < 1e-5
    ends = torch.zeros(NUM_ENVS, dtype=torch.int64)

    for step in range(1, max(TASK_BOUNDS) + 1):
        action = uniform(NUM_ENVS, cpu.num_actions, seed=2000 + step)
        one, other = cpu.step(action), gpu.step(action)
        assert torch.equal(one.terminated, other.terminated)
        assert torch.equal(one.truncated, other.truncated)
        ends += one.truncated | one.terminated
        if step in TASK_BOUNDS:
            seen = float((one.observation["critic"] - other.observation["critic"]).abs().max())
            reward = float((one.reward - other.reward).abs().max())
            print(f"{name:18} {step:3} steps: observation {seen:.1e}, reward {reward:.1e}")
            assert max(seen, reward) < TASK_BOUNDS[step]
    assert ends.any(), "no episode ended"


@pytest.mark.parametrize("name", GYM_TASKS)
def test_gymnasium_task_is_the_same_on_both_backends(name: str):
    cpu, gpu = (
        envs.make(f"gym/{name}-v5", num_envs=NUM_ENVS, seed=3, backend=backend, num_threads=1)
        for backend in ("batch", "warp")
    )
    first, other_first = cpu.reset()["actor"], gpu.reset()["actor"]
    assert (first - other_first).abs().max() < 1e-6

    for step in range(1, max(GYM_BOUNDS) + 1):
        action = uniform(NUM_ENVS, cpu.num_actions, seed=3000 + step)
        one, other = cpu.step(action), gpu.step(action)
        assert torch.equal(one.terminated, other.terminated)
        if step in GYM_BOUNDS:
            seen = float((one.observation["actor"] - other.observation["actor"]).abs().max())
            reward = float((one.reward - other.reward).abs().max())
            print(f"{name:24} {step:3} steps: observation {seen:.1e}, reward {reward:.1e}")
            assert max(seen, reward) < GYM_BOUNDS[step]


def elliptic(model: mujoco.MjModel) -> mujoco.MjModel:
    """With cones that have no corners to turn; see walker.py."""
    model.opt.cone = int(mujoco.mjtCone.mjCONE_ELLIPTIC)
    return model
