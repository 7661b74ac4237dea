"""The memory of the controller: what it holds, in which order, and how an episode starts."""

import torch
from torch import Tensor, nn

from envs.observation_encoder import ObservationEncoder


class Twice(nn.Module):
    """A signal (n, 1) and its double."""

    signals = ("angle",)
    columns = {"once": [""], "twice": ["elbow"]}

    def forward(self, signals: dict[str, Tensor]) -> dict[str, Tensor]:
        return {"once": signals["angle"], "twice": 2 * signals["angle"]}


def observe(encoder: ObservationEncoder, *angles: float) -> list[list[float]]:
    """Observations of one world over successive ticks, from zero state."""
    state = encoder.initial_state(1)
    observations = []
    for angle in angles:
        observation, state = encoder({"angle": torch.tensor([[angle]])}, state)
        observations.append(observation[0].tolist())
    return observations


def test_observation_holds_the_last_ticks_oldest_first():
    encoder = ObservationEncoder(Twice(), history=3)

    assert observe(encoder, 1.0, 2.0, 3.0, 4.0)[2:] == [[1, 2, 2, 4, 3, 6], [2, 4, 3, 6, 4, 8]]


def test_first_tick_fills_the_whole_history():
    encoder = ObservationEncoder(Twice(), history=3)

    assert observe(encoder, 5.0, 7.0) == [[5, 10, 5, 10, 5, 10], [5, 10, 5, 10, 7, 14]]


def test_signal_of_zero_is_a_first_tick_too():
    encoder = ObservationEncoder(Twice(), history=2)

    assert observe(encoder, 0.0, 3.0) == [[0, 0, 0, 0], [0, 0, 3, 6]]


def test_worlds_start_independently():
    encoder = ObservationEncoder(Twice(), history=2)
    _, state = encoder({"angle": torch.tensor([[1.0], [1.0]])}, encoder.initial_state(2))
    for value in state.values():
        value[1] = 0  # the second world begins an episode

    observation, _ = encoder({"angle": torch.tensor([[9.0], [9.0]])}, state)

    assert observation.tolist() == [[1, 2, 9, 18], [9, 18, 9, 18]]


def test_one_tick_of_history_needs_no_state():
    encoder = ObservationEncoder(Twice(), history=1)

    assert encoder.state_shapes == {}
    assert encoder.initial_state(5) == {}
    assert observe(encoder, 1.0, 2.0) == [[1, 2], [2, 4]]


def test_sizes_are_as_declared():
    encoder = ObservationEncoder(Twice(), history=4)
    state = encoder.initial_state(3)

    observation, following = encoder({"angle": torch.ones(3, 1)}, state)

    assert observation.shape == (3, encoder.size) == (3, 8)
    for values in (state, following):
        shapes = {name: tuple(value.shape[1:]) for name, value in values.items()}
        assert shapes == encoder.state_shapes


def test_state_and_signals_are_not_modified():
    encoder = ObservationEncoder(Twice(), history=2)
    state, signals = encoder.initial_state(1), {"angle": torch.ones(1, 1)}

    encoder(signals, state)

    assert not any(value.any() for value in state.values())
    assert signals["angle"].tolist() == [[1]]


def test_features_that_are_seen_as_changes_do_not_tell_where_they_stand():
    encoder = ObservationEncoder(Twice(), history=3, changes=["twice"])

    # Angles of the three ticks, oldest first, then the two changes of their doubles.
    assert encoder.size == 5
    assert observe(encoder, 1.0, 2.0, 5.0)[2] == [1, 2, 5, 2, 6]
    assert observe(encoder, 3.0) == [[3, 3, 3, 0, 0]]


def test_one_tick_has_no_changes_to_see():
    encoder = ObservationEncoder(Twice(), history=1, changes=["twice"])

    assert encoder.size == 1
    assert observe(encoder, 1.0, 2.0) == [[1], [2]]


def test_every_column_has_a_name():
    encoder = ObservationEncoder(Twice(), history=3, changes=["twice"])

    assert encoder.columns == [
        "once[t-2]",
        "once[t-1]",
        "once",
        "twice.elbow[t-1] change",
        "twice.elbow change",
    ]
