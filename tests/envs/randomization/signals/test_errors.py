"""Bias, noise, mounting, drift and counts, against their laws and MuJoCo's own rotations."""

import math
from typing import Any

import mujoco
import numpy as np
import pytest
import torch
from torch import Tensor

from envs.draws import Draws, Stream
from envs.randomization.signals.errors import rotation_matrices
from tests.envs.randomization.signals.sensors import CONTROL_DT_S, Sensors, parse

BIAS = {"signal": "joint_position", "operation": "add", "range": (-0.1, 0.1)}
NOISE = BIAS | {"when": "step"}
MOUNTING = {
    "signal": ["imu_angular_velocity", "projected_gravity"],
    "operation": "rotate",
    "range": (0.0, 0.3),
}
GRAVITY_NOISE = {
    "signal": "projected_gravity",
    "operation": "add",
    "range": (-0.2, 0.2),
    "when": "step",
}


def noise_of(sensors: Sensors, steps: int, signal: str = "joint_position") -> Tensor:
    """Readings (steps, num_envs, elements) of true values zero."""
    sensors.start()
    return torch.stack([sensors.step()[signal] for _ in range(steps)])


def test_bias_is_constant_within_an_episode_and_new_in_the_next():
    sensors = Sensors(BIAS)
    first = sensors.start()["joint_position"]
    later = [sensors.step()["joint_position"] for _ in range(40)]

    assert len(first.unique()) == first.numel()  # every world and joint its own
    assert all(torch.equal(value, first) for value in later)
    assert (sensors.start()["joint_position"] != first).all()


def test_bias_of_worlds_that_do_not_end_stays():
    sensors = Sensors(BIAS)
    before = sensors.start()["joint_position"]

    sensors.start(1, 2)
    after = sensors.step()["joint_position"]

    assert torch.equal(after[[0, 3]], before[[0, 3]])
    assert (after[[1, 2]] != before[[1, 2]]).all()


@pytest.mark.parametrize(
    ("law", "mean", "deviation", "beyond"),
    [
        # uniform on [-0.1, 0.1]: σ = 0.2/√12; a third is beyond 2/3 of the half-width
        ({"range": (-0.1, 0.1)}, 0.0, 0.2 / math.sqrt(12), (0.2 / 3, 1 / 3)),
        # normal: 31.7 % are beyond one σ of the mean 0.05
        ({"range": (0.05, 0.1), "distribution": "normal"}, 0.05, 0.1, (0.1, 0.317)),
    ],
)
def test_noise_has_its_law_and_no_number_tells_of_another(
    law: dict[str, Any], mean: float, deviation: float, beyond: tuple[float, float]
):
    noise = noise_of(Sensors(NOISE | law, num_envs=64), 400)  # 51,200 numbers
    centred = (noise - mean) / deviation

    assert noise.mean().item() == pytest.approx(mean, abs=4 * deviation / math.sqrt(51_200))
    assert noise.std().item() == pytest.approx(deviation, rel=0.015)
    threshold, share = beyond
    assert ((noise - mean).abs() > threshold).float().mean().item() == pytest.approx(
        share, abs=0.01
    )
    # steps, worlds and joints are independent: correlations of n numbers are about 1/√n
    assert abs((centred[1:] * centred[:-1]).mean().item()) < 4 / math.sqrt(51_000)
    assert abs((centred[16:] * centred[:-16]).mean().item()) < 4 / math.sqrt(49_000)
    assert abs((centred[:, 1:] * centred[:, :-1]).mean().item()) < 4 / math.sqrt(50_000)
    assert abs((centred[..., 0] * centred[..., 1]).mean().item()) < 4 / math.sqrt(25_600)


@pytest.mark.parametrize("step", [1, 15, 16, 17, 1000])
def test_noise_of_a_step_is_a_function_of_world_and_step(step: int):
    sensors = Sensors(NOISE)
    sensors.count = step - 1

    worlds = torch.arange(4)
    stream = Stream("joint_position/*/add/step", 2 * 16)  # sixteen steps of two joints
    (uniform,) = Draws(0, torch.device("cpu")).uniform(
        [stream], worlds, torch.full_like(worlds, step // 16)
    )
    expected = -0.1 + 0.2 * uniform[:, 2 * (step % 16) :][:, :2]
    assert torch.equal(sensors.step()["joint_position"], expected)


def test_first_noise_of_an_episode_differs_from_the_last_of_the_one_before():
    """Both are read in the same step, of the same world."""
    sensors = Sensors(NOISE, num_envs=400)
    last = (sensors.start(), sensors.step())[1]["joint_position"]
    first = sensors.start()["joint_position"]

    correlation = torch.corrcoef(torch.stack([last.flatten(), first.flatten()]))[0, 1].item()
    assert abs(correlation) < 4 / math.sqrt(800)
    assert first.std().item() == pytest.approx(0.2 / math.sqrt(12), rel=0.1)


def test_scale_error_multiplies_and_bias_adds_in_the_order_of_the_lines():
    double = {"signal": "joint_position", "operation": "scale", "range": (2.0, 2.0)}
    one = {"signal": "joint_position", "operation": "add", "range": (1.0, 1.0)}

    first = Sensors(double, one).start(joint_position=3.0)
    other = Sensors(one, double).start(joint_position=3.0)

    assert first["joint_position"].unique().tolist() == [7.0]  # 3 · 2 + 1
    assert other["joint_position"].unique().tolist() == [8.0]  # (3 + 1) · 2
    assert not first["joint_velocity"].any()


def test_two_biases_of_one_signal_are_independent():
    twice = Sensors(BIAS, BIAS).start()["joint_position"]
    once = Sensors(BIAS).start()["joint_position"]

    assert (twice != once).all()
    assert (twice != 2 * once).all()


def test_term_reaches_matching_joints_only():
    noise = noise_of(Sensors(NOISE | {"match": "elbow"}), 1)[0]

    assert not noise[:, 0].any()
    assert noise[:, 1].all()


@pytest.mark.parametrize("when", ["reset", "step"])
def test_shared_error_is_the_same_for_all_joints_of_a_world(when: str):
    values = noise_of(Sensors(BIAS | {"when": when, "shared": True}), 3)[-1]

    assert torch.equal(values[:, 0], values[:, 1])
    assert len(values[:, 0].unique()) == 4


def test_rotation_matrix_is_mujocos():
    generator = torch.Generator().manual_seed(0)
    angle = 3 * torch.rand(20, generator=generator, dtype=torch.float64)
    axis = torch.randn(20, 3, generator=generator, dtype=torch.float64)
    axis /= axis.norm(dim=-1, keepdim=True)

    matrices = rotation_matrices(angle, axis)

    quaternion, expected = np.zeros(4), np.zeros(9)
    for matrix, a, v in zip(matrices, angle, axis, strict=True):
        mujoco.mju_axisAngle2Quat(quaternion, v.numpy(), float(a))
        mujoco.mju_quat2Mat(expected, quaternion)
        np.testing.assert_allclose(matrix.numpy(), expected.reshape(3, 3), atol=1e-14)


def test_imu_that_is_mounted_askew_turns_all_its_signals_alike():
    sensors = Sensors(MOUNTING, num_envs=2000)
    sensors.start()
    turned = []
    for axis in torch.eye(3):
        readings = sensors.step(imu_angular_velocity=2.0 * axis, projected_gravity=axis)
        torch.testing.assert_close(
            readings["imu_angular_velocity"], 2.0 * readings["projected_gravity"]
        )
        turned.append(readings["projected_gravity"])
    matrix = torch.stack(turned, dim=-1).double()  # columns are where the axes went

    one = torch.eye(3, dtype=torch.float64)
    torch.testing.assert_close(matrix @ matrix.mT, one.expand(2000, 3, 3), atol=1e-6, rtol=0)
    assert (torch.linalg.det(matrix) > 0).all()
    # trace = 1 + 2 cos(angle), and the antisymmetric part is the axis times its sine
    angle = ((matrix.diagonal(dim1=1, dim2=2).sum(-1) - 1) / 2).clamp(-1, 1).acos()
    assert 0.295 < angle.max().item() < 0.3001
    assert angle.mean().item() == pytest.approx(0.15, abs=4 * 0.3 / math.sqrt(12 * 2000))
    askew = matrix - matrix.mT
    axis = torch.stack([askew[:, 2, 1], askew[:, 0, 2], askew[:, 1, 0]], dim=-1)
    axis = axis / axis.norm(dim=-1, keepdim=True)
    assert axis.mean(dim=0).norm().item() < 4 / math.sqrt(2000)  # to all sides
    for side in (torch.atan2(axis[:, 1], axis[:, 0]), axis[:, 2]):  # whatever the angle
        assert abs(torch.corrcoef(torch.stack([angle, side]))[0, 1].item()) < 4 / math.sqrt(2000)


def test_gravity_stays_a_direction_under_every_error():
    sensors = Sensors(GRAVITY_NOISE, MOUNTING, {"signal": "projected_gravity", "quantize": 0.1})
    readings = noise_of(sensors, 50, "projected_gravity")

    torch.testing.assert_close(readings.norm(dim=-1), torch.ones(50, 4))
    assert len(readings.unique()) > 50


def test_gravity_without_a_term_is_the_true_one_to_the_bit():
    true = torch.tensor([0.6, 0.0, -0.8000001])

    readings = Sensors(BIAS).start(projected_gravity=true)

    assert torch.equal(readings["projected_gravity"], true.expand(4, 3))


def test_drift_starts_at_zero_and_spreads_with_the_square_root_of_time():
    drift = {"signal": "imu_angular_velocity", "drift": 0.01}
    sensors = Sensors(drift, num_envs=1000)
    assert not sensors.start()["imu_angular_velocity"].any()
    walk = torch.stack([sensors.step()["imu_angular_velocity"] for _ in range(200)])

    for seconds in (0.5, 1.0, 4.0):
        spread = walk[round(seconds / CONTROL_DT_S) - 1].std().item()
        assert spread == pytest.approx(0.01 * math.sqrt(seconds), rel=0.06)  # 3000 numbers: 1.3 %
    steps = walk.diff(dim=0)
    assert abs((steps[1:] * steps[:-1]).mean() / steps.var()).item() < 4 / math.sqrt(590_000)

    first = sensors.start(7)["imu_angular_velocity"]
    after = sensors.step()["imu_angular_velocity"]
    assert not first.any()
    assert (after[7].abs() < 0.01).all()
    assert (after[8] - walk[-1, 8]).abs().max() < 0.01  # its neighbour walks on


def test_readings_are_the_nearest_whole_counts():
    sensors = Sensors({"signal": "joint_velocity", "quantize": 0.024})

    readings = sensors.start(joint_velocity=torch.tensor([0.1, -0.013]))["joint_velocity"]

    # 0.1 / 0.024 = 4.17 and -0.013 / 0.024 = -0.54
    torch.testing.assert_close(readings, torch.tensor([4 * 0.024, -0.024]).expand(4, 2))


def test_noise_comes_before_counts_whatever_the_order_of_the_lines():
    counts = {"signal": "joint_position", "quantize": 0.05}

    for terms in ((NOISE, counts), (counts, NOISE)):
        readings = noise_of(Sensors(*terms), 50) / 0.05
        torch.testing.assert_close(readings, readings.round(), atol=1e-5, rtol=0)
        assert len(readings.round().unique()) == 5  # -2 to 2


def test_half_a_share_is_half_the_error_and_none_is_the_truth():
    terms = (
        BIAS,
        NOISE,
        {"signal": "joint_velocity", "range": (0.5, 1.5)},
        MOUNTING,
        {"signal": "imu_angular_velocity", "drift": 0.5},
        {"signal": "joint_velocity", "hold": 0.5},
        {"signal": "joint_position", "delay": (0.01, 0.05), "jitter": 0.02},
    )
    true = {"joint_velocity": 1.0, "imu_angular_velocity": torch.tensor([0.0, 0.0, 1.0])}

    def run(share: float) -> dict[str, Tensor]:
        sensors = Sensors(*terms)
        live = torch.tensor(0.3, dtype=torch.float64)  # as `Growth` has them
        sensors.terms.set_shares(dict.fromkeys(range(len(terms)), live))
        live.fill_(share)
        sensors.start(**true)
        return [sensors.step(**true) for _ in range(20)][-1]

    full, half, none = run(1.0), run(0.5), run(0.0)
    torch.testing.assert_close(half["joint_position"], full["joint_position"] / 2)
    torch.testing.assert_close(half["joint_velocity"] - 1, (full["joint_velocity"] - 1) / 2)
    for name, truth in Sensors().start(**true).items():
        torch.testing.assert_close(none[name], truth)


@pytest.mark.parametrize(
    ("document", "problem"),
    [
        (BIAS | {"range": (0.1, -0.1)}, "range must be [low, high], found [0.1, -0.1]"),
        (BIAS | {"range": (0.0, 0.0)}, "joint_position: add [0.0, 0.0] changes nothing; widen"),
        (
            {"signal": "joint_position", "range": (-0.1, 1.0)},
            "could become negative (-0.1)",
        ),
        ({"signal": "joint_position", "quantize": 0.0}, "greater than 0"),
        ({"signal": "imu_angular_velocity", "drift": -1.0}, "greater than 0"),
        (MOUNTING | {"range": (0.0, 0.0)}, "an angle of zero changes nothing; widen the range"),
        (
            MOUNTING | {"range": (0.0, 5.0)},
            "at most 3.142 rad, found [0.0, 5.0]; is it in",
        ),
        (MOUNTING | {"when": "step"}, "should be 'reset'"),
        (BIAS | {"signal": ["a", "a"]}, "a signal is there twice in ['a', 'a']; name each once"),
    ],
)
def test_term_that_makes_no_sense_is_refused(document: dict[str, Any], problem: str):
    with pytest.raises(ValueError) as error:
        parse(**document)

    assert problem in str(error.value)
