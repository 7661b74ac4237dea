"""Readings that are late or lost, against closed forms and numpy's interpolation."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from envs.draws import Draws, Stream
from tests.envs.randomization.signals.sensors import CONTROL_DT_S, Sensors, parse

LATE = {"signal": "joint_position", "delay": (0.0, 0.07)}
JITTER = {"signal": "joint_position", "delay": (0.01, 0.01), "jitter": 0.02}
LOST = {"signal": "joint_position", "hold": 0.2}


def ramp(sensors: Sensors, steps: int, speed: float = 1.0) -> Tensor:
    """Readings (steps, num_envs, 2) of an angle that has been moving since the episode began."""
    sensors.start(joint_position=0.0)
    return torch.stack(
        [
            sensors.step(joint_position=speed * CONTROL_DT_S * step)["joint_position"]
            for step in range(1, steps + 1)
        ]
    )


def test_delayed_ramp_is_the_ramp_a_delay_ago():
    readings = ramp(Sensors(LATE, num_envs=200), 50)
    times = CONTROL_DT_S * torch.arange(1, 51)[:, None, None]
    age = times - readings

    late = age[10:]  # 0.2 s: longer than any delay
    torch.testing.assert_close(late, late[:1].expand_as(late), atol=2e-6, rtol=0)
    delays = late[0].flatten()  # 400 numbers, uniform on [0, 0.07]
    assert 0 <= delays.min().item() < 0.002
    assert 0.068 < delays.max().item() < 0.07 + 1e-6
    assert delays.mean().item() == pytest.approx(0.035, abs=4 * 0.07 / math.sqrt(12 * 400))
    assert len(delays.unique()) > 390  # joints of one world too
    # before that, the first angle had lasted for ever
    torch.testing.assert_close(
        readings[:10], (times[:10] - late[:1]).clamp(min=0), atol=2e-6, rtol=0
    )


@pytest.mark.parametrize("delay", [0.0, 0.02, 0.04, 0.06])
def test_delay_of_whole_periods_gives_earlier_values(delay: float):
    generator = torch.Generator().manual_seed(0)
    true = torch.rand(20, 4, 2, generator=generator)
    late = LATE | {"delay": (delay, delay), "jitter": 1e-9}  # a delay of zero alone is refused
    sensors = Sensors(late)
    sensors.start(joint_position=true[0])
    readings = [sensors.step(joint_position=value)["joint_position"] for value in true[1:]]

    periods = round(delay / CONTROL_DT_S)
    for step, reading in enumerate(readings, 1):
        torch.testing.assert_close(reading, true[max(0, step - periods)], atol=1e-5, rtol=0)


def test_interpolation_errs_by_no_more_than_an_eighth_of_acceleration_times_period_squared():
    """sin(ωt) at 1.5 Hz, one radian: acceleration is at most ω² = 89 rad/s²."""
    omega = 2 * math.pi * 1.5
    delay = 1.5 * CONTROL_DT_S  # in the middle between two steps, where it errs most
    sensors = Sensors(LATE | {"delay": (delay, delay)})
    sensors.start(joint_position=0.0)
    worst = 0.0
    for step in range(1, 200):
        t = step * CONTROL_DT_S
        reading = sensors.step(joint_position=math.sin(omega * t))["joint_position"][0, 0].item()
        if t > delay:
            worst = max(worst, abs(reading - math.sin(omega * (t - delay))))

    bound = omega**2 * CONTROL_DT_S**2 / 8
    assert 0.95 * bound < worst < 1.001 * bound


def test_jitter_adds_to_the_delay_and_never_turns_time_back():
    readings = ramp(Sensors(JITTER, num_envs=100), 100)
    age = CONTROL_DT_S * torch.arange(1, 101)[:, None, None] - readings

    late = age[5:]
    assert 0.01 - 1e-6 <= late.min().item() < 0.0101
    assert 0.0299 < late.max().item() <= 0.03 + 1e-6
    assert late.mean().item() == pytest.approx(0.02, abs=1e-4)  # 19,000 numbers
    assert (readings.diff(dim=0) >= -1e-6).all()
    assert late.diff(dim=0).abs().median().item() > 0.003  # it is new at every step


def test_noise_is_not_averaged_away_by_a_delay_of_half_a_period():
    """Interpolation between noisy readings would leave 1/√2 of the deviation."""
    noise = {"signal": "joint_position", "operation": "add", "range": (-1.0, 1.0), "when": "step"}
    half = LATE | {"delay": (0.01, 0.01)}
    sensors = Sensors(noise, half, num_envs=100)
    sensors.start()

    readings = torch.stack([sensors.step()["joint_position"] for _ in range(100)])

    assert readings.std().item() == pytest.approx(1 / math.sqrt(3), rel=0.01)


def test_signals_in_one_list_are_late_together():
    both = {"signal": ["joint_position", "joint_velocity"], "delay": (0.0, 0.02)}
    sensors = Sensors(both)
    readings = sensors.start()
    for step in range(1, 6):
        readings = sensors.step(joint_position=0.1 * step, joint_velocity=0.2 * step)

    torch.testing.assert_close(2 * readings["joint_position"], readings["joint_velocity"])
    assert len(readings["joint_position"].unique()) == 8


def test_vector_is_late_and_lost_as_a_whole():
    """An IMU sends its axes in one packet."""
    sensors = Sensors(
        {"signal": "imu_angular_velocity", "delay": (0.0, 0.02)},
        {"signal": "imu_angular_velocity", "hold": 0.5},
        num_envs=100,
    )
    reading = sensors.start()["imu_angular_velocity"]
    for step in range(1, 40):
        reading = sensors.step(imu_angular_velocity=float(step))["imu_angular_velocity"]

        assert torch.equal(reading[:, :1].expand(-1, 3), reading)
    assert len(reading[:, 0].unique()) > 50


def test_lost_reading_is_the_one_before_and_the_first_is_never_lost():
    sensors = Sensors(LOST, num_envs=500)
    last = sensors.start(joint_position=0.0)["joint_position"]
    assert not last.any()
    losses = []
    for step in range(1, 101):
        reading = sensors.step(joint_position=float(step))["joint_position"]
        lost = reading != step
        assert torch.equal(reading[lost], last[lost])
        losses.append(lost.float())
        last = reading

    lost = torch.stack(losses)  # 100,000 numbers
    assert lost.mean().item() == pytest.approx(0.2, abs=4 * 0.4 / math.sqrt(100_000))
    centred = lost - 0.2
    assert abs((centred[1:] * centred[:-1]).mean().item()) < 4 * 0.16 / math.sqrt(99_000)
    assert abs((centred[..., 0] * centred[..., 1]).mean().item()) < 4 * 0.16 / math.sqrt(50_000)


def test_half_a_share_loses_half_as_many():
    sensors = Sensors(LOST, num_envs=500)
    sensors.terms.set_shares({0: 0.5})
    sensors.start()
    lost = [sensors.step(joint_position=float(k))["joint_position"] != k for k in range(1, 101)]

    share = torch.stack(lost).float().mean().item()
    assert share == pytest.approx(0.1, abs=4 * 0.3 / math.sqrt(100_000))


def test_joints_of_a_shared_loss_are_lost_in_one_packet():
    sensors = Sensors({"signal": ["joint_position", "joint_velocity"], "hold": 0.5, "shared": True})
    sensors.start()
    losses = []
    for step in range(1, 20):
        readings = sensors.step(joint_position=float(step), joint_velocity=float(step))
        lost = torch.cat([readings["joint_position"], readings["joint_velocity"]], dim=-1) != step
        assert torch.equal(lost[:, :1].expand(-1, 4), lost)
        losses.append(lost[:, 0])

    assert len(torch.stack(losses, dim=-1).unique(dim=0)) == 4  # every world its own


def test_delay_begins_anew_with_an_episode_and_leaves_other_worlds_alone():
    """The oracle: every world remembers its episode, and numpy interpolates."""
    sensors = Sensors(LATE)
    generator = np.random.default_rng(0)
    draws = Draws(0, torch.device("cpu"))
    past: dict[int, tuple[list[float], list[np.ndarray]]] = {}
    delay = np.zeros((4, 2))

    def begin(*worlds: int, episode: int, time: float) -> None:
        true = torch.from_numpy(generator.uniform(-1, 1, size=(4, 2))).float()
        index = torch.tensor(worlds)
        stream = Stream("joint_position/*/delay", 2)
        (uniform,) = draws.uniform([stream], index, torch.full_like(index, episode))
        first = sensors.start(*worlds, joint_position=true)["joint_position"]
        assert torch.equal(first, true[index])
        for row, world in enumerate(worlds):
            past[world] = ([time], [true[world].numpy()])
            delay[world] = 0.07 * uniform[row].numpy()

    begin(0, 1, 2, 3, episode=1, time=0.0)
    for step in range(1, 60):
        time = CONTROL_DT_S * step
        true = torch.from_numpy(generator.uniform(-1, 1, size=(4, 2))).float()
        found = sensors.step(joint_position=true)["joint_position"]
        for world, (times, values) in past.items():
            times.append(time)
            values.append(true[world].numpy())
            for joint in range(2):
                column = [value[joint] for value in values]
                expected = np.interp(time - delay[world, joint], times, column)
                assert found[world, joint].item() == pytest.approx(expected, abs=1e-4)
        if step == 21:
            begin(1, 3, episode=2, time=time)


@pytest.mark.parametrize(
    ("document", "problem"),
    [
        (LATE | {"delay": (-0.01, 0.02)}, "greater than or equal to 0"),
        (LATE | {"delay": (0.0, 1.5)}, "less than or equal to 1"),
        (LATE | {"delay": (0.02, 0.01)}, "delay must be [low, high], found [0.02, 0.01]"),
        (LATE | {"delay": (0.0, 0.0)}, "a delay of zero changes nothing; raise it or delete"),
        (LOST | {"hold": 0.0}, "greater than 0"),
        (LOST | {"hold": 1.0}, "less than 1"),
        (LOST | {"hold": -0.1}, "greater than 0"),
    ],
)
def test_term_that_makes_no_sense_is_refused(document: dict[str, Any], problem: str):
    with pytest.raises(ValueError) as error:
        parse(**document)

    assert problem in str(error.value)
