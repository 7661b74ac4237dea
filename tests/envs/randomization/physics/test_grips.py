"""A hand is the spring and damper it says it is, for as long as it says, and then it is gone."""

import math

import mujoco
import numpy as np
import pytest
import torch

import envs
from deploy.errors import ConfigError
from envs.batch_simulation import BatchSimulation
from envs.draws import Draws
from envs.randomization import Randomization, read_terms
from envs.simulation import Simulation, State
from envs.vector_env import VectorEnv
from envs.warp_simulation import WarpSimulation
from envs.worlds import every
from tests.envs.randomization.worlds import BASE, WALKER, MaskedSimulation, begin, walkers

GRIP = {"grip": "base", "range": (2.0, 2.0), "duration_s": (1.0, 1.0)}
W = 2 * math.pi * 2.0  # [rad/s]
H = 0.001
CUBE = f"""
<mujoco>
  <option timestep="{H}" gravity="0 0 0"/>
  <worldbody>
    <body name="base">
      <freejoint/>
      <geom type="box" size="0.1 0.1 0.1" mass="0.7" contype="0" conaffinity="0"/>
    </body>
  </worldbody>
</mujoco>
"""
SPRUNG = f"""
<mujoco>
  <option timestep="{H}" gravity="0 0 0"/>
  <worldbody>
    <body>
      <joint name="x" type="slide" axis="1 0 0" stiffness="{0.7 * W**2}" damping="{1.4 * W}"/>
      <joint name="turn" type="hinge" axis="0 0 1" stiffness="{{k}}" damping="{{d}}"/>
      <geom type="box" size="0.1 0.1 0.1" mass="0.7"/>
    </body>
  </worldbody>
</mujoco>
"""


def start(
    simulation: Simulation, randomization: Randomization, qvel: tuple[float, ...] = (), episode=1
) -> None:
    """An episode that starts at `qpos0`, with some velocities of its free body."""
    worlds, model = every(simulation.num_envs, simulation.device), simulation.model
    number, dtype = torch.full_like(worlds.ids, episode), simulation.data("qpos").dtype
    randomization.begin(worlds, number)
    speeds = torch.zeros(simulation.num_envs, model.nv, dtype=dtype)
    speeds[:, : len(qvel)] = torch.tensor(qvel, dtype=dtype)
    home = torch.from_numpy(model.qpos0).to(dtype).expand(simulation.num_envs, -1)
    state = State(home, speeds, torch.zeros(simulation.num_envs, model.nu, dtype=dtype))
    simulation.reset(worlds, randomization.initial_state(worlds, number, state))


def held_cube(
    qvel: tuple[float, ...], steps: int, *, frequency: float = 2.0, lighter: float = 1.0
) -> np.ndarray:
    """(steps, 7) poses of a free cube that starts at some speed in a hand."""
    simulation = BatchSimulation(mujoco.MjModel.from_xml_string(CUBE), 1, num_threads=1)
    simulation.field("body_mass")[:] /= lighter
    simulation.field("body_inertia")[:] /= lighter
    terms = read_terms([GRIP | {"range": (frequency, frequency)}], source="terms")
    draws = Draws(0, simulation.device)
    randomization = Randomization(terms, simulation, draws, signals={}, control_dt_s=H)
    start(simulation, randomization, qvel)
    poses = []
    for step in range(steps):
        randomization.before_step(step)
        simulation.step(1)
        poses.append(simulation.data("qpos")[0].numpy().copy())
    return np.array(poses)


def test_body_in_a_hand_moves_as_on_the_springs_of_plain_mujoco():
    """Joints with the same stiffness and damping: MuJoCo's own integrator, step by step."""
    inertia = 0.7 * (0.2**2 + 0.2**2) / 12
    xml = SPRUNG.format(k=inertia * W**2, d=2 * inertia * W)
    model = mujoco.MjModel.from_xml_string(xml)
    data = mujoco.MjData(model)
    data.qvel[:] = 0.3, 0.2
    expected = []
    for _ in range(500):
        mujoco.mj_step(model, data)
        expected.append(data.qpos.copy())
    along, turned = np.array(expected).T

    found = held_cube((0.3, 0, 0, 0, 0, 0.2), 500)

    assert found[:, 0] == pytest.approx(along, abs=1e-12)
    assert 2 * np.arcsin(found[:, 6]) == pytest.approx(turned, abs=1e-7)  # 2 sin(a/2) for a
    assert found[:, [1, 2, 4, 5]] == pytest.approx(np.tile([0, 0, 0, 0], (500, 1)), abs=1e-12)


def test_body_in_a_hand_swings_back_critically_damped():
    """x'' = -w² x - 2 w x', x(0) = 0: x = v0 t exp(-w t), to first order in h."""
    t = H * np.arange(1, 501)

    found = held_cube((0.3, 0, 0), 500)

    assert found[:, 0] == pytest.approx(0.3 * t * np.exp(-W * t), abs=0.02 * 0.3 / (math.e * W))


@pytest.mark.parametrize("lighter", [1.0, 30.0])
def test_stiff_hand_is_stable_however_light_the_body_became(lighter: float):
    """The spring is made for the nominal body; at 4 / h it would swing for ever."""
    found = held_cube(
        (0.3, 0, 0, 0, 0, 0.2), 500, frequency=3.6 / (2 * math.pi * H), lighter=lighter
    )

    assert found[-1] == pytest.approx([0, 0, 0, 1, 0, 0, 0], abs=1e-9)


def test_hand_pulls_at_the_origin_of_the_body_wherever_its_centre_is():
    """Plain MuJoCo, told of a force and a torque at that point, has the same generalized forces."""
    xml = WALKER.replace('size="0.2 0.1 0.05"', 'pos="0.07 0.02 0.1" size="0.2 0.1 0.05"')
    simulation, randomization = walkers([GRIP], 1, xml=xml)
    start(simulation, randomization, (0.4, -0.2, 0.1, 0.5, 0.3, -0.6))
    for step in range(10):
        randomization.before_step(step)
        simulation.step(1)
    model, data = simulation.model, mujoco.MjData(simulation.model)
    data.qpos[:] = simulation.data("qpos")[0].numpy()
    mujoco.mj_forward(model, data)
    turned = np.zeros(3)
    mujoco.mju_quat2Vel(turned, data.qpos[3:7], 1)
    weight, weight_of_turn = model.body_invweight0[BASE]
    force, torque = -(W**2) / weight * (data.qpos - model.qpos0)[:3], -(W**2) / weight_of_turn
    expected, found = np.zeros(model.nv), np.zeros(model.nv)
    mujoco.mj_applyFT(model, data, force, torque * turned, data.xpos[BASE], BASE, expected)

    randomization.before_step(10)
    applied = simulation.data("xfrc_applied")[0, BASE].numpy()
    mujoco.mj_applyFT(model, data, applied[:3], applied[3:], data.xipos[BASE], BASE, found)

    assert np.abs(expected[:6]).min() > 0.01
    assert found == pytest.approx(expected, rel=2e-3)  # 2 sin(a/2) for a, of 0.05 rad


def held_steps(term: dict, num_envs: int) -> torch.Tensor:
    """(num_envs,) steps of 10 ms that a hand holds each world."""
    simulation, randomization = walkers([term], num_envs)
    begin(simulation, randomization)
    held = []
    for step in range(200):
        randomization.before_step(step)
        assert randomization.held is not None
        forced = simulation.data("xfrc_applied")[:, BASE].any(dim=-1)
        assert not (forced & ~randomization.held).any()
        held.append(randomization.held)
        simulation.step(1)
    return torch.stack(held).sum(dim=0)


def test_hand_holds_in_its_share_of_the_episodes_for_a_time_of_its_range():
    steps = held_steps(GRIP | {"share": 0.4, "duration_s": (0.5, 1.5)}, 500)

    held = steps[steps > 0].double()
    assert len(held) == pytest.approx(0.4 * 500, abs=5 * math.sqrt(500 * 0.4 * 0.6))
    assert (held.min(), held.max()) == (pytest.approx(50, abs=3), pytest.approx(150, abs=3))
    assert held.mean() == pytest.approx(100, abs=5 * 28.9 / math.sqrt(len(held)))


def test_hand_is_as_stiff_as_drawn_and_the_schedule_lets_it():
    term = GRIP | {"range": (1.0, 5.0), "schedule": {"start": 0.5, "over_steps": 1e9}}
    simulation, randomization = walkers([term], 300)
    start(simulation, randomization)
    simulation.data("qpos")[:, 0] += 0.01
    randomization.before_step(0)

    force = simulation.data("xfrc_applied")[:, BASE, 0]
    felt = float(simulation.model.body_invweight0[BASE, 0])
    frequency = (-force * felt / 0.01).sqrt() / (2 * math.pi)  # F = m w² x
    assert frequency.min() == pytest.approx(0.5, abs=0.05)
    assert frequency.max() == pytest.approx(2.5, abs=0.05)
    assert frequency.mean() == pytest.approx(1.5, abs=5 * 2 / math.sqrt(12 * 300))


def test_hand_and_wrench_on_a_body_add_up():
    wrench = {"wrench": "base", "columns": "z", "range": (7, 7)}
    wrench |= {"interval_s": (0.01, 0.01), "duration_s": (0.01, 0.01)}
    simulation, randomization = walkers([wrench, GRIP])
    start(simulation, randomization)
    for step in range(3):
        randomization.before_step(step)

    # at rest where it is held, the hand does nothing
    assert simulation.data("xfrc_applied")[:, BASE, 2].tolist() == [7, 7]

    simulation.data("qpos")[:, 2] -= 0.01
    randomization.before_step(3)
    assert (simulation.data("xfrc_applied")[:, BASE, 2] > 7.5).all()


def poses(simulation: Simulation, randomization: Randomization, steps: int) -> torch.Tensor:
    start(simulation, randomization, (0.4, -0.2, 0.1, 0.5, 0.3, -0.6))
    for step in range(steps):
        randomization.before_step(step)
        simulation.step(1)
    return simulation.data("qpos").double().clone()


TERM = GRIP | {"share": 0.5, "range": (1.0, 5.0), "duration_s": (0.1, 0.5)}


def test_worlds_chosen_by_mask_are_held_alike():
    by_ids, by_mask = (
        poses(*walkers([TERM], 6, kind), 60) for kind in (BatchSimulation, MaskedSimulation)
    )

    assert torch.equal(by_ids, by_mask)


def test_hand_of_the_gpu_backend_holds_alike():
    simulation = WarpSimulation(mujoco.MjModel.from_xml_string(WALKER), 6, device="cpu")
    draws = Draws(0, simulation.device, in_torch=True)
    terms = read_terms([TERM], source="terms")
    randomization = Randomization(terms, simulation, draws, signals={}, control_dt_s=0.01)

    expected = poses(*walkers([TERM], 6), 60)

    assert poses(simulation, randomization, 60) == pytest.approx(expected, abs=1e-3)


def test_hand_goes_on_with_the_same_bits_after_a_checkpoint():
    simulation, randomization = walkers([TERM], 6)
    poses(simulation, randomization, 20)
    saved = simulation.state_dict(), randomization.state_dict()
    again, other = walkers([TERM], 6)
    again.load_state_dict(saved[0])
    other.load_state_dict(saved[1])

    for each, hands in ((simulation, randomization), (again, other)):
        for step in range(20, 60):
            hands.before_step(step)
            each.step(1)

    assert torch.equal(simulation.data("qpos"), again.data("qpos"))


def held_duck(**settings: object) -> VectorEnv:
    hold = {"grip": "base", "range": [3.0, 3.0], "duration_s": [1.0, 1.0]}
    return envs.make("velocity", num_envs=4, randomization=[hold | settings], num_threads=1)


def test_held_robot_earns_nothing_and_does_not_fall_until_it_is_let_go():
    env = held_duck()
    env.reset()
    limp = torch.from_numpy(env.deployment.robot.home).float() + torch.tensor(
        [0.6, -0.6] * 7
    )  # nothing stands on that
    steps = [env.step_targets(limp.expand(4, -1)) for _ in range(100)]

    in_hand = steps[:50]  # of 20 ms
    assert all(not step.terminated.any() and not step.info.measured.any() for step in in_hand)
    assert all(not term.any() for step in in_hand for term in step.info.rewards.values())
    assert all(step.reward.all() for step in steps[50:55])
    assert any(step.terminated.any() for step in steps[50:])


def test_arm_on_a_desk_cannot_be_held():
    with pytest.raises(ConfigError, match="'grip' needs a joint that moves freely; this model"):
        envs.make("arm_reach", randomization=[GRIP])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"range": (0.0, 0.0)}, "a frequency in Hz, above 0"),
        ({"range": (-1.0, 2.0)}, "a frequency in Hz, above 0"),
        ({"duration_s": (2.0, 1.0)}, r"duration_s must be \[shortest, longest\]"),
        ({"share": 0.0}, "greater than 0"),
    ],
)
def test_hand_that_means_nothing_is_refused(change: dict, message: str):
    with pytest.raises(ConfigError, match=message):
        read_terms([GRIP | change], source="terms")


def test_hand_that_never_lets_go_is_refused():
    with pytest.raises(ConfigError, match="may hold for 30 s, and no episode is longer than 20 s"):
        held_duck(duration_s=[1.0, 30.0])


def test_hand_that_would_shake_is_refused():
    with pytest.raises(ConfigError, match=r"would shake: control steps of 0.02 s bear up to 31.8"):
        held_duck(range=[1.0, 40.0])


@pytest.mark.parametrize("option", ['integrator="RK4"', "><flag eulerdamp='disable'/></option"])
def test_hand_is_refused_where_damping_is_integrated_explicitly(option: str):
    xml = WALKER.replace('timestep="0.01"/>', f'timestep="0.01" {option}/>')
    xml = xml.replace("</option/>", "</option>").replace('0.01" ><', '0.01"><')

    with pytest.raises(ConfigError, match='Write integrator="implicitfast" in the MJCF'):
        walkers([GRIP], xml=xml)


def test_hand_that_lifts_lowers_the_body_to_its_start_before_it_lets_go():
    term = GRIP | {"range": (10.0, 10.0), "duration_s": (1.5, 1.5), "lift_m": (0.03, 0.03)}
    simulation, randomization = walkers([term], 8)
    simulation.field("opt.gravity").zero_()
    start(simulation, randomization)
    heights = []
    for step in range(150):
        heights.append(simulation.data("qpos")[:, 2] - simulation.model.qpos0[2])
        randomization.before_step(step)
        simulation.step(1)
    height = torch.stack(heights)  # (steps, worlds)

    assert height[0].numpy() == pytest.approx(np.full(8, 0.03), abs=1e-9)
    assert (height.diff(dim=0) < 1e-4).all()  # evenly, and never up again
    assert height[-1].abs().max() < 1e-4
    down = (height > 0.003).sum(dim=0)  # steps of 10 ms: from 0.2 to 0.8 of 1.5 s, and the lag
    assert down.min() >= 27
    assert down.max() <= 125
    assert len(down.unique()) > 4


def test_shorter_hold_lifts_less():
    term = GRIP | {"duration_s": (0.5, 0.5), "lift_m": (0.03, 0.03)}
    simulation, randomization = walkers([term], 1)
    start(simulation, randomization)

    assert simulation.data("qpos")[0, 2] == pytest.approx(simulation.model.qpos0[2] + 0.015)
