"""The balancing task: the closed form's own controller balances it, and every number by hand."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import envs
from deploy.controller import OnnxController
from deploy.errors import ConfigError
from envs.robot import load_robot
from envs.simulation import State
from envs.tasks.balance import Balance, BalanceWeights, balance_terms
from envs.walking.legs import Motion
from envs.worlds import every
from robotrl.runs.train_config import TrainConfig
from tests.benchmarks.balance import Lqr
from tests.envs.exported import drive, train_and_export
from tests.envs.no_sync import no_sync

WORLDS = 4
WHEELS = ["left_wheel", "right_wheel"]
LEAN_RAD = 0.384
"""Of the keyframe `rest`; see the robot's MJCF."""


def make(num_envs: int = WORLDS, *, backend: Any = "auto", **settings: Any) -> envs.VectorEnv:
    return envs.make(
        "balance", num_envs=num_envs, num_threads=1, seed=0, backend=backend, task_config=settings
    )


def steady(**command: Any) -> dict[str, Any]:
    """One command for ever."""
    kinds = ("standing", "forward", "turning", "heading")
    shares = {f"{kind}_share": 0.0 for kind in kinds}
    return {"interval_s": [100.0, 100.0], **shares, **command}


def task_of(env: envs.VectorEnv) -> Balance:
    assert isinstance(env.task, Balance)
    return env.task


def pitch(env: envs.VectorEnv) -> Tensor:
    """How far each leans forward [rad]: the world's up then lies behind."""
    up = task_of(env).legs.read(every(env.num_envs)).up
    return torch.atan2(-up[:, 0], up[:, 2])


def put(env: envs.VectorEnv, leaning: float) -> None:
    """Wheels on the floor, leaning forward [rad], at rest."""
    rows = env.num_envs
    qpos = torch.from_numpy(load_robot("balancer").home_qpos).repeat(rows, 1)
    qpos[:, 3], qpos[:, 5] = math.cos(leaning / 2), math.sin(leaning / 2)
    zeros = torch.zeros(rows, 8, dtype=torch.float64)
    env.simulation.reset(every(rows), State(qpos, zeros, zeros[:, :2]))


def test_actor_sees_what_the_robot_measures_its_last_speeds_and_the_command_but_no_wheel_angle():
    env = make()

    assert env.columns["actor"] == [
        *(f"imu_angular_velocity.{axis}" for axis in "xyz"),
        *(f"projected_gravity.{axis}" for axis in "xyz"),
        *("command.x", "command.yaw"),
        *(f"joint_velocity.{wheel}" for wheel in WHEELS),
        *(f"joint_target_velocity.{wheel}" for wheel in WHEELS),
    ]
    assert env.task.control_dt_s == 0.01


def test_an_action_of_one_is_the_fastest_wheel_and_is_seen_as_the_last_target():
    env = make(max_wheel_speed_rad_s=20)
    env.reset()

    env.step(torch.tensor([[1.0, -0.5]] * WORLDS))

    assert env.signals["joint_target_velocity"][0].tolist() == [20, -10]
    assert env.simulation.data("ctrl")[0].tolist() == [20, -10]


@torch.no_grad()
def test_lqr_of_the_closed_form_gets_it_up_and_follows_speed_and_turning():
    """It knows units, signs and the model's equations from outside the task: an error in any of
    the task's signals or targets, and it falls."""
    command = steady(low=[0.25, 0, 0.5], high=[0.25, 0, 0.5])
    env = make(2, rest_share=1.0, command=command)
    env.reset()
    pilot, twists, leans = Lqr(0.01, 30.0), [], []
    for _ in range(500):
        env.step_targets(pilot(torch.empty(0), env.signals))
        twists.append(task_of(env).motion.twist[0])
        leans.append(pitch(env)[0])

    assert leans[0] == pytest.approx(LEAN_RAD, abs=0.01)
    settled = torch.stack(twists[400:])
    assert settled[:, 0].mean() == pytest.approx(0.25, abs=0.02)
    assert settled[:, 2].mean() == pytest.approx(0.5, abs=0.15)  # friction; its P law has no I
    assert torch.stack(leans[400:]).abs().max() < 0.05


def test_episodes_start_on_the_bumper_in_their_share_and_else_on_their_wheels():
    env = make(400, rest_share=0.3, start_tilt_rad=0.2)
    env.reset()

    lean, height = pitch(env), env.simulation.data("qpos")[:, 2]

    resting = (lean - LEAN_RAD).abs() < 0.005
    assert resting.float().mean() == pytest.approx(0.3, abs=0.07)  # 3 standard deviations
    assert lean[~resting].abs().max() < 0.2
    assert lean[~resting].min() < -0.19
    assert lean[~resting].max() > 0.19
    assert (height - 0.035).abs().max() < 2e-4  # the wheels' radius


@pytest.mark.parametrize(("leaning", "fallen"), [(0.95, False), (-1.05, True), (1.05, True)])
def test_it_has_fallen_when_it_tipped_over_its_bumper(leaning: float, fallen: bool):
    env = make()
    env.reset()
    put(env, leaning)

    step = env.step(torch.zeros(WORLDS, 2))

    assert step.terminated.tolist() == [fallen] * WORLDS
    assert step.info.metrics["fell"].tolist() == [fallen] * WORLDS
    assert step.info.measured.tolist() == [fallen] * WORLDS


def moving(speed: float, turning: float, lean: float) -> Motion:
    """A base that goes ahead, turns and leans."""
    up = torch.tensor([[-math.sin(lean), 0.0, math.cos(lean)]])
    some = torch.zeros(1, 1)
    return Motion(
        velocity=torch.tensor([[speed, 0.0, 0.0]]),
        spin=turning * up,
        up=up,
        heading=torch.tensor([[1.0, 0.0]]),
        height=some[0],
        foot_height=some,
        foot_velocity=some[None],
        foot_side=some,
        foot_level=some,
    )


def test_terms_are_what_they_say():
    weights = BalanceWeights(
        **{"velocity": 1, "velocity_error": -1, "yaw_rate": 1, "upright": 1, "rocking": -1},
        **{"action_rate": -1, "torque": -1, "fall": -1},
    )
    command, change = torch.tensor([[0.3, 0.5]]), torch.tensor([[0.1, 0.3]])
    effort = torch.tensor([[0.5, 1.0]])

    terms = balance_terms(
        moving(0.2, 0.0, 0.1), command, change, effort, torch.tensor([True]), weights
    )

    upright = math.exp(-(math.sin(0.1) ** 2) / 0.05)
    assert {name: value.item() for name, value in terms.items()} == pytest.approx(
        {
            "velocity": upright * math.exp(-0.01 / 0.02),  # 0.1 m/s too slow
            "velocity_error": -0.1,
            "yaw_rate": upright * math.exp(-0.25 / 0.25),
            "upright": upright,
            "rocking": 0.0,
            "action_rate": -0.05,  # (0.01 + 0.09) / 2
            "torque": -0.625,  # (0.25 + 1) / 2
            "fall": -1.0,
        },
        abs=1e-6,
    )


def test_driving_on_the_bumper_earns_next_to_nothing():
    none, at_rest = torch.zeros(1, 2), torch.tensor([False])
    weights, command = BalanceWeights(), torch.tensor([[0.3, 0.0]])

    def reward(lean: float, speed: float) -> float:
        terms = balance_terms(moving(speed, 0.0, lean), command, none, none, at_rest, weights)
        return float(torch.stack(list(terms.values())).sum())

    assert reward(LEAN_RAD, 0.3) < 0.1 * reward(0.0, 0.3)
    assert reward(LEAN_RAD, 0.3) < reward(0.0, 0.0)


def test_metrics_are_those_of_the_command_from_a_second_on():
    env = make(command=steady(low=[0.2, 0, 0], high=[0.2, 0, 0], interval_s=[1.2, 1.2]))
    env.reset()
    put(env, LEAN_RAD)  # on the bumper, wheels at rest
    steps = [env.step(torch.zeros(WORLDS, 2)) for _ in range(120)]

    measured = torch.stack([step.info.measured for step in steps])
    metrics = steps[-1].info.metrics
    assert measured.sum(dim=0).tolist() == [1] * WORLDS
    assert measured[-1].all()
    assert metrics["velocity_error_m_s"].tolist() == pytest.approx([0.2] * WORLDS, abs=2e-3)
    assert metrics["yaw_rate_error_rad_s"].tolist() == pytest.approx([0.0] * WORLDS, abs=2e-3)
    assert metrics["tilt_rad"].tolist() == pytest.approx([LEAN_RAD] * WORLDS, abs=5e-3)
    assert steps[60].info.metrics["velocity_error_m_s"].isnan().all()


def test_in_the_mirror_it_turns_the_other_way():
    env = make(2, start_tilt_rad=0.0, rest_share=0.0)
    env.reset()
    mirror = task_of(env).mirror
    task_of(env).command[:] = torch.tensor([[0.2, 0.7], [0.2, -0.7]])
    step = env.step(torch.zeros(2, 2))
    for tick in range(20):
        action = torch.tensor([[0.3, -0.2]]) * math.sin(tick)
        step = env.step(torch.cat([action, action @ mirror.action.T]))

    for table, map_ in (("actor", mirror.actor), ("critic", mirror.critic)):
        one, other = step.observation[table]
        assert one.abs().max() > 0.5
        torch.testing.assert_close(other, map_ @ one, atol=1e-3, rtol=0)


def test_is_the_same_on_both_backends_and_never_waits_for_a_gpu():
    settings = {"command": {"interval_s": [0.1, 0.1]}, "episode_s": 0.2}
    cpu, gpu = (make(backend=backend, **settings) for backend in ("batch", "warp"))
    first = [env.reset()["critic"] for env in (cpu, gpu)]
    assert (first[0] - first[1]).abs().max() < 1e-4
    one, two = (env.step(torch.zeros(WORLDS, 2)) for env in (cpu, gpu))
    for tick in range(8):
        action = torch.full((WORLDS, 2), 0.2 * math.sin(tick))
        one = cpu.step(action)
        with no_sync():
            two = gpu.step(action)

    assert (one.observation["critic"] - two.observation["critic"]).abs().max() < 5e-3
    assert (one.reward - two.reward).abs().max() < 5e-3
    with no_sync():
        for _ in range(15):  # over commands and episodes
            gpu.step(torch.zeros(WORLDS, 2))


def test_trains_with_its_mirror_image_exports_speeds_and_runs_as_an_onnx_controller(
    tiny_config: TrainConfig, tmp_path: Path
):
    exported = train_and_export(tiny_config, "balance", {}, tmp_path)

    contract = exported.contract
    (output,) = contract.outputs
    assert (output.kind, output.unit, output.elements) == ("joint_velocity_target", "rad/s", WHEELS)
    assert {spec.kind: spec.unit for spec in contract.inputs} == {
        "joint_velocity": "rad/s",
        "joint_target_velocity": "rad/s",
        "imu_angular_velocity": "rad/s",
        "projected_gravity": "1",
        "command": ["m/s", "rad/s"],
    }
    assert {joint.operating_mode for joint in contract.joints} == {"velocity"}
    assert (contract.command.elements, contract.command.low) == (["x", "yaw"], [-0.4, -2.0])
    for step in drive(exported, lambda: make(1), steps=10):
        assert not step.terminated.any()
    controller = OnnxController(exported.path)
    for name, array in controller.inputs.items():
        array[:] = 1.0 if name == "command" else 0.0
    controller.step()
    assert abs(controller.outputs["joint_velocity_target"]).max() <= 30


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"command": {"low": [-0.4, -0.1, -1]}}, "wheels do not go sideways, found low"),
        ({"robot": "microduck"}, "is driven by position, and this task sends wheel speeds; choose"),
        ({"wheels": ["left_tyr"]}, "^wheels: 'left_tyr' .did you mean 'left_tyre'"),
        ({"wheels": ["left_tyre"] * 2}, "wheels must be different, found left_tyre twice"),
        ({"max_tilt_rad": 0.1}, "start_tilt_rad 0.2 is not below max_tilt_rad 0.1, where it has"),
        ({"control_dt_s": 0.003}, "is no multiple of the physics timestep"),
    ],
)
def test_what_is_wrong_is_said_at_construction(changes: dict[str, Any], message: str):
    with pytest.raises(ConfigError, match=message):
        make(1, **changes)
