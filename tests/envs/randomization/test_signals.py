"""Bias stays for an episode, noise is new at every step; both are functions of their place."""

from typing import Any

import pytest
import torch
from torch import Tensor

from deploy.errors import ConfigError
from envs.draws import Draws, Stream
from envs.randomization import Term
from envs.randomization.signals import SignalNoise
from envs.randomization.term import name_streams

NUM_ENVS = 4
SIGNALS = {"joint_position": ["shoulder", "elbow"], "joint_velocity": ["shoulder", "elbow"]}

BIAS = {"signal": "joint_position", "operation": "add", "range": (-0.1, 0.1)}
NOISE = BIAS | {"when": "step"}


class Sensors:
    """Signals of four worlds, zero but for noise, with signal terms."""

    def __init__(self, *terms: dict[str, Any], value: float = 0.0):
        self._value = value
        parsed = [Term(**term) for term in terms]
        self.noise = SignalNoise(
            parsed, SIGNALS, Draws(0, torch.device("cpu")), torch.arange(NUM_ENVS)
        )
        self.begin(*range(NUM_ENVS), episode=1)

    def begin(self, *ids: int, episode: int) -> None:
        worlds = torch.tensor(ids)
        self.noise.draw(worlds, torch.full_like(worlds, episode))

    def read(self, *ids: int, step: int = 0, signal: str = "joint_position") -> Tensor:
        """A signal of worlds `ids`, of all if none are given, (n, 2)."""
        worlds = torch.tensor(ids or range(NUM_ENVS))
        signals = {name: torch.full((len(worlds), 2), self._value) for name in SIGNALS}
        self.noise.apply(signals, worlds, step)
        return signals[signal]


def test_bias_is_constant_within_an_episode_and_new_in_the_next():
    sensors = Sensors(BIAS)
    first = [sensors.read(step=step) for step in range(40)]
    assert first[0].all()
    assert all(torch.equal(value, first[0]) for value in first)

    sensors.begin(*range(NUM_ENVS), episode=2)

    assert (sensors.read(step=40) != first[0]).all()


def test_bias_of_worlds_that_do_not_end_stays():
    sensors = Sensors(BIAS)
    before = sensors.read()

    sensors.begin(1, 2, episode=2)

    assert torch.equal(sensors.read(0, 3), before[[0, 3]])
    assert (sensors.read(1, 2) != before[[1, 2]]).all()


def test_noise_is_different_at_every_step_in_every_world():
    sensors = Sensors(NOISE)
    values = torch.stack([sensors.read(step=step) for step in range(40)])

    assert len(values.unique()) == 40 * NUM_ENVS * 2
    assert values.abs().max() <= 0.1
    assert values.mean().item() == pytest.approx(0, abs=0.02)  # 320 numbers, σ = 0.058


def test_noise_is_a_function_of_world_and_step():
    sensors = Sensors(NOISE)
    forward = [sensors.read(step=step) for step in range(40)]

    assert torch.equal(Sensors(NOISE).read(step=35), forward[35])
    assert torch.equal(sensors.read(2, step=17), forward[17][[2]])
    assert torch.equal(sensors.read(3, 1, step=16), forward[16][[3, 1]])


@pytest.mark.parametrize("step", [0, 1, 15, 16, 17, 1000])
def test_noise_of_a_step_is_the_draw_of_its_number(step: int):
    term = Term.model_validate(NOISE)
    ((name, _),) = name_streams([term])
    worlds = torch.arange(NUM_ENVS)
    (uniform,) = Draws(0, torch.device("cpu")).uniform(
        [Stream(name, 2)], worlds, torch.full_like(worlds, step)
    )

    assert torch.equal(Sensors(NOISE).read(step=step), term.transform(uniform))


def test_terms_of_model_fields_are_passed_over():
    field = {"field": "mass", "range": (0.5, 2.0)}

    assert torch.equal(Sensors(field, BIAS).read(), Sensors(BIAS).read())


def test_bias_and_noise_add_up():
    both, bias, noise = Sensors(BIAS, NOISE), Sensors(BIAS), Sensors(NOISE)

    torch.testing.assert_close(both.read(step=5), bias.read(step=5) + noise.read(step=5))


def test_two_biases_of_one_signal_are_independent():
    twice, once = Sensors(BIAS, BIAS).read(), Sensors(BIAS).read()

    assert (twice != once).all()
    assert (twice != 2 * once).all()


def test_scale_error_multiplies_the_signal():
    sensors = Sensors({"signal": "joint_velocity", "range": (1.5, 1.5)}, value=2.0)

    assert sensors.read(signal="joint_velocity").unique().tolist() == [3.0]
    assert sensors.read(signal="joint_position").unique().tolist() == [2.0]


def test_noise_reaches_matching_joints_only():
    values = Sensors(NOISE | {"match": "elbow"}).read()

    assert not values[:, 0].any()
    assert values[:, 1].all()


@pytest.mark.parametrize("when", ["reset", "step"])
def test_shared_signal_error_is_the_same_for_all_joints(when: str):
    values = Sensors(BIAS | {"when": when, "shared": True}).read(step=3)

    assert torch.equal(values[:, 0], values[:, 1])
    assert len(values[:, 0].unique()) == NUM_ENVS


def test_restored_biases_are_those_of_the_running_episodes():
    sensors, restored = Sensors(BIAS, NOISE), Sensors(BIAS, NOISE)
    sensors.begin(1, episode=5)

    restored.noise.load_state_dict(sensors.noise.state_dict())

    assert torch.equal(restored.read(step=9), sensors.read(step=9))


def test_unknown_signal_is_refused_with_those_there_are():
    with pytest.raises(ConfigError) as error:
        Sensors({"signal": "joint_positon", "range": (0.5, 2)})

    assert str(error.value) == (
        "randomization: unknown signal 'joint_positon' (did you mean 'joint_position'?); this task "
        "has ['joint_position', 'joint_velocity']"
    )


def test_signal_pattern_without_a_match_is_refused():
    with pytest.raises(ConfigError) as error:
        Sensors(BIAS | {"match": "wrist"})

    assert str(error.value) == (
        "randomization: 'joint_position' has no element matching 'wrist'; its elements are "
        "['shoulder', 'elbow']"
    )
