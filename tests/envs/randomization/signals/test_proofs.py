"""Signal and command terms that do not do what they say, planted: each is caught and named."""

from collections.abc import Callable
from typing import Any

import pytest
from torch import Tensor

from deploy.errors import ConfigError
from envs.randomization.signals.commands import COMMAND_KINDS
from envs.randomization.signals.errors import SignalError
from envs.randomization.signals.proofs import prove_commands, prove_signals
from envs.randomization.signals.sensing import Place, Reading, Stage
from envs.worlds import Worlds
from tests.envs.randomization.signals.sensors import CONTROL_DT_S, ELEMENTS, parse

BIAS = {"signal": "joint_position", "operation": "add", "range": (-0.1, 0.1)}


def prove(*documents: dict[str, Any]) -> None:
    terms = [parse(**document) for document in documents]
    prove_signals(terms, ELEMENTS, seed=0, control_dt_s=CONTROL_DT_S)


def refusal(make_stage: Callable[[Place], Stage]) -> str:
    """What is said of a bias that works otherwise than it should."""

    class Planted(SignalError):
        def bind(self, place: Place) -> Stage:
            return make_stage(place)

    with pytest.raises(ConfigError) as error:
        term = Planted.model_validate(BIAS)
        prove_signals([term], ELEMENTS, seed=0, control_dt_s=CONTROL_DT_S)
    text = str(error.value)
    assert text.startswith("randomization: 'joint_position add [-0.1, 0.1] on *' ")
    return text


class Bias(Stage):
    """What a bias should be, to be broken."""

    def __init__(self, place: Place):
        self.start_size = place.columns
        self.drawn = place.table(place.columns)
        super().__init__(drawn=self.drawn)

    def begin(self, worlds: Worlds, uniform: Tensor) -> None:
        worlds.put(self.drawn, uniform)

    def read(self, values: Tensor, drawn: Tensor, reading: Reading) -> Tensor:
        return values + reading.worlds.take(self.drawn)


def test_sound_terms_of_every_kind_are_passed():
    imu = ["imu_angular_velocity", "projected_gravity"]
    prove(
        BIAS,
        BIAS | {"shared": True},
        BIAS | {"when": "step", "match": "elbow"},
        {"signal": "joint_velocity", "range": (1.1, 1.1)},
        {"signal": "joint_velocity", "quantize": 0.01},
        {"signal": "joint_velocity", "delay": (0.01, 0.01)},
        {"signal": ["joint_position", "joint_velocity"], "delay": (0.0, 0.02), "jitter": 0.01},
        {"signal": "joint_position", "hold": 0.005},
        {"signal": imu, "operation": "rotate", "range": (0.0, 0.03)},
        {"signal": imu, "delay": (0.0, 0.05)},
        {"signal": imu, "hold": 0.01},
        {"signal": "imu_angular_velocity", "drift": 0.001},
        {"signal": "projected_gravity", "operation": "add", "range": (-0.01, 0.01), "when": "step"},
    )


def test_planted_term_without_effect_is_named():
    class Nothing(Bias):
        def read(self, values: Tensor, drawn: Tensor, reading: Reading) -> Tensor:
            return values

    assert "has no effect: 2048 readings are the true ones" in refusal(Nothing)


def test_planted_term_that_accumulates_is_named():
    class Accumulating(Bias):
        def begin(self, worlds: Worlds, uniform: Tensor) -> None:
            worlds.put(self.drawn, worlds.take(self.drawn) + uniform)

    assert "accumulates: the same episode reads otherwise a second time" in refusal(Accumulating)


def test_planted_term_that_does_not_forget_the_last_episode_is_named():
    class Remembering(Bias):
        def begin(self, worlds: Worlds, uniform: Tensor) -> None:
            pass

        def read(self, values: Tensor, drawn: Tensor, reading: Reading) -> Tensor:
            before = self.drawn.clone()
            reading.worlds.put(self.drawn, values)  # and does not mind whether it is the first
            return before

    assert "accumulates" in refusal(Remembering)


def test_planted_diagonal_draw_of_elements_is_named():
    class OneForAllElements(Bias):
        def begin(self, worlds: Worlds, uniform: Tensor) -> None:
            worlds.put(self.drawn, uniform[:, :1].expand_as(uniform))

    assert "has one draw for all elements: but is not `shared`" in refusal(OneForAllElements)


def test_planted_diagonal_draw_of_worlds_is_named():
    class OneForAllWorlds(Bias):
        def begin(self, worlds: Worlds, uniform: Tensor) -> None:
            worlds.put(self.drawn, uniform[:1].expand_as(uniform))

    assert "has one draw for all worlds: all of them read the same" in refusal(OneForAllWorlds)


@pytest.mark.parametrize(
    "document",
    [
        {"signal": "joint_position", "hold": 1e-9},
        {"signal": "joint_position", "quantize": 1e-9},
        {"signal": "joint_position", "operation": "add", "range": (0.0, 1e-12)},
        {"signal": "imu_angular_velocity", "drift": 1e-12},
    ],
)
def test_term_too_weak_to_be_read_is_refused(document: dict[str, Any]):
    with pytest.raises(ConfigError) as error:
        prove(document)

    assert str(error.value) == (
        f"randomization: '{parse(**document)}' has no effect: 2048 readings are the true ones; "
        "change the term, or delete it"
    )


def test_bias_that_is_lost_in_counts_is_refused():
    small = {"signal": "joint_position", "operation": "add", "range": (0.0, 1e-4)}
    with pytest.raises(ConfigError) as error:
        prove(small, {"signal": "joint_position", "quantize": 10.0})

    assert "'joint_position add [0.0, 0.0001] on *' has no effect: beside the other terms" in str(
        error.value
    )


def test_command_terms_that_change_nothing_are_refused_and_others_are_not():
    hold, counts = {"command": "hold", "probability": 0.01}, {"command": "quantize", "step": 0.001}

    def prove_these(*documents: dict[str, Any]) -> None:
        terms = [
            COMMAND_KINDS[document["command"]].model_validate(document) for document in documents
        ]
        prove_commands(terms, ["shoulder", "elbow"], seed=0)

    prove_these(hold, counts)
    with pytest.raises(ConfigError) as error:
        prove_these(hold, counts | {"step": 1e-9})
    assert str(error.value) == (
        "randomization: 'command quantize 1e-09 on *' has no effect: 2048 targets arrive as sent; "
        "change the term, or delete it"
    )
    with pytest.raises(ConfigError) as error:
        prove_these(hold | {"probability": 1e-9})
    assert "'command hold 1e-09 on *' has no effect" in str(error.value)
