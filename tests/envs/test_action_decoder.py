"""Joint targets: one bounded step from the last commanded one, or an offset from home."""

import pytest
import torch
from torch import Tensor

from envs.action_decoder import JointOffsetDecoder, JointStepDecoder


@pytest.fixture
def decoder() -> JointStepDecoder:
    """Three joints within ±1 rad; `wrist` and `pan` move by 0.1 rad, `jaw` holds 0.5 rad."""
    return JointStepDecoder(
        ["pan", "jaw", "wrist"],
        ["wrist", "pan"],
        step=0.1,
        low=torch.full((3,), -1.0, dtype=torch.float64),
        high=torch.full((3,), 1.0, dtype=torch.float64),
        default=torch.tensor([0.0, 0.5, 0.0], dtype=torch.float64),
    )


def decode(decoder: JointStepDecoder, action: list[float], last: list[float]) -> list[float]:
    signals = {"joint_target": torch.tensor([last])}
    return decoder(torch.tensor([action]), signals)[0].tolist()


def test_target_moves_from_the_last_target_by_step_times_action(decoder: JointStepDecoder):
    # wrist: 0.4 + 0.1 · 0.5, pan: -0.2 - 0.1
    targets = decode(decoder, action=[0.5, -1.0], last=[-0.2, 0.5, 0.4])

    assert targets == pytest.approx([-0.3, 0.5, 0.45])


def test_zero_action_holds_the_last_target(decoder: JointStepDecoder):
    assert decode(decoder, [0.0, 0.0], last=[0.3, 0.5, -0.7]) == pytest.approx([0.3, 0.5, -0.7])


def test_target_stops_at_the_limits(decoder: JointStepDecoder):
    assert decode(decoder, [1.0, -1.0], last=[-0.95, 0.5, 0.95]) == [-1, 0.5, 1]


def test_target_outside_the_limits_is_brought_back(decoder: JointStepDecoder):
    assert decode(decoder, [0.0, 0.0], last=[-3.0, 0.5, 3.0]) == [-1, 0.5, 1]


def test_joint_without_action_holds_its_default_wherever_it_was(decoder: JointStepDecoder):
    assert decode(decoder, [1.0, 1.0], last=[0.0, -0.9, 0.0])[1] == 0.5


def test_repeated_actions_integrate(decoder: JointStepDecoder):
    targets = torch.tensor([[0.0, 0.5, 0.0]])
    for _ in range(7):
        targets = decoder(torch.tensor([[1.0, -0.5]]), {"joint_target": targets})

    assert targets[0].tolist() == pytest.approx([-0.35, 0.5, 0.7])


def test_target_stays_within_its_lead_of_the_joint(decoder: JointStepDecoder):
    decoder.lead = torch.tensor([0.15, 0.15, 0.3])
    last, angle = torch.tensor([[0.5, 0.5, 0.0]]), torch.tensor([[0.4, 0.9, -0.25]])

    signals = {"joint_target": last, "joint_position": angle}
    targets = decoder(torch.tensor([[1.0, 1.0]]), signals)[0].tolist()

    # pan: 0.6, but 0.4 + 0.15; wrist: 0.1, but -0.25 + 0.3; the jaw holds its default all the same
    assert targets == pytest.approx([0.55, 0.5, 0.05])


def test_worlds_are_decoded_independently_in_float32(decoder: JointStepDecoder):
    last: Tensor = torch.tensor([[0.0, 0.5, 0.0], [0.5, 0.5, 0.5]])

    targets = decoder(torch.tensor([[1.0, 0.0], [0.0, 1.0]]), {"joint_target": last})

    assert targets.dtype == torch.float32
    assert targets[0].tolist() == pytest.approx([0, 0.5, 0.1])
    assert targets[1].tolist() == pytest.approx([0.6, 0.5, 0.5])


def test_number_of_actions_is_that_of_the_moving_joints(decoder: JointStepDecoder):
    assert decoder.num_actions == 2


def test_unknown_joint_is_refused():
    limits = torch.ones(1)
    with pytest.raises(ValueError, match="elbow"):
        JointStepDecoder(["pan"], ["elbow"], step=0.1, low=-limits, high=limits, default=limits)


def offset_decoder(*, smoothing: float = 0.0, step: float = 10.0) -> JointOffsetDecoder:
    """Two joints within ±1 rad, at home at 0.2 and -0.4 rad; an action of 1 is 0.5 rad."""
    return JointOffsetDecoder(
        scale=0.5,
        step=step,
        smoothing=smoothing,
        low=torch.tensor([-1.0, -1.0], dtype=torch.float64),
        high=torch.tensor([1.0, 1.0], dtype=torch.float64),
        home=torch.tensor([0.2, -0.4], dtype=torch.float64),
    )


def decode_offset(
    decoder: JointOffsetDecoder, action: list[float], last: list[float]
) -> list[float]:
    return decoder(torch.tensor([action]), {"joint_target": torch.tensor([last])})[0].tolist()


def test_offset_is_added_to_home_wherever_the_last_target_was():
    # 0.2 + 0.5 · 0.6, -0.4 - 0.5 · 0.2
    for last in ([0.0, 0.0], [0.9, -0.9]):
        assert decode_offset(offset_decoder(), [0.6, -0.2], last) == pytest.approx([0.5, -0.5])


def test_no_offset_is_the_home_pose():
    assert decode_offset(offset_decoder(), [0, 0], [0.7, 0.7]) == pytest.approx([0.2, -0.4])


def test_offset_target_stops_at_the_limits():
    decoder = offset_decoder()
    decoder.home.copy_(torch.tensor([0.8, -0.8]))

    assert decode_offset(decoder, [1, -1], [0.0, 0.0]) == [1, -1]


def test_filter_goes_a_share_of_the_way_from_the_last_target():
    # last + 0.3 · (0.5 - last): 0.1 + 0.3 · 0.4, -0.2 + 0.3 · (-0.5 + 0.2)
    targets = decode_offset(offset_decoder(smoothing=0.7), [0.6, -0.2], [0.1, -0.2])

    assert targets == pytest.approx([0.22, -0.29])


def test_filter_decays_exponentially():
    decoder, targets = offset_decoder(smoothing=0.8), [0.0, 0.0]
    for _ in range(10):
        targets = decode_offset(decoder, [0.6, -0.2], targets)

    # 0.8^10 of the way is left
    assert targets == pytest.approx([0.5 * (1 - 0.8**10), -0.5 * (1 - 0.8**10)])


def test_offset_target_moves_by_no_more_than_a_step():
    # To 0.5 from 0.1, to -0.5 from -0.45; a step is 0.1 rad.
    targets = decode_offset(offset_decoder(step=0.1), [0.6, -0.2], [0.1, -0.45])

    assert targets == pytest.approx([0.2, -0.5])


def test_offset_decoder_goes_on_from_what_the_governor_let_through():
    """Its memory is the signal: a target that was held back is where the next step starts."""
    decoder = offset_decoder(step=0.1)
    held = decode_offset(decoder, [1, 1], [0.1, -0.45])
    held = [0.12, held[1]]

    assert decode_offset(decoder, [1, 1], held)[0] == pytest.approx(0.22)
