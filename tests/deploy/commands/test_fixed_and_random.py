import numpy as np
import pytest

from deploy.commands import fixed_command, random_commands
from deploy.contract import CommandSpec
from deploy.errors import ConfigError

SPEC = CommandSpec(
    name="target_position",
    elements=["x", "y", "z"],
    unit="m",
    low=[0.1, -0.2, 0.0],
    high=[0.3, 0.2, 0.1],
    interval_s=(2.0, 4.0),
)
TIMES_S = np.arange(0.0, 400.0, 0.02)


def every_command(seed: int) -> np.ndarray:
    """The command at each of `TIMES_S`, shape (T, 3)."""
    source = random_commands(SPEC, seed)
    return np.array([source(time_s).copy() for time_s in TIMES_S])


def test_fixed_command_is_the_same_at_all_times():
    source = fixed_command(SPEC, [0.2, 0.0, 0.05])
    for time_s in (0.0, 1e6):
        assert source(time_s) == pytest.approx([0.2, 0.0, 0.05])
        assert source(time_s).dtype == np.float32


@pytest.mark.parametrize("edge", [SPEC.low, SPEC.high], ids=["low", "high"])
def test_fixed_command_may_lie_on_the_edge_of_the_promised_range(edge: list[float]):
    assert fixed_command(SPEC, edge)(0.0) == pytest.approx(edge)


@pytest.mark.parametrize("values", [[], [0.2, 0.0], [0.2, 0.0, 0.05, 0.0]])
def test_command_of_another_size_is_refused(values: list[float]):
    with pytest.raises(ConfigError) as caught:
        fixed_command(SPEC, values)
    assert str(caught.value) == (
        "command 'target_position' takes 3 numbers (x [m], y [m], z [m]), found "
        f"{len(values)}: {values}"
    )


@pytest.mark.parametrize("y", [0.21, -0.21, float("nan"), float("inf")])
def test_command_outside_the_promised_range_is_refused(y: float):
    with pytest.raises(ConfigError) as caught:
        fixed_command(SPEC, [0.2, y, 0.05])
    assert str(caught.value) == (
        f"command 'target_position' [0.2, {y}, 0.05] is outside what the policy promises: "
        "[0.1, -0.2, 0.0] to [0.3, 0.2, 0.1] (x [m], y [m], z [m])"
    )


def test_random_commands_fill_the_promised_range():
    commands = every_command(seed=0)
    low, high = np.array([SPEC.low, SPEC.high], np.float32)
    assert np.all((commands >= low) & (commands <= high))
    spread = (commands.max(axis=0) - commands.min(axis=0)) / (high - low)
    assert np.all(spread > 0.9)


def test_random_commands_last_as_long_as_in_training():
    changes = np.flatnonzero(np.any(np.diff(every_command(seed=0), axis=0), axis=1)) + 1
    lasted_s = np.diff(TIMES_S[changes])
    assert 100 < len(changes) < 200  # 400 s in pieces of 2 to 4 s
    assert np.all((lasted_s > 2.0 - 1e-9) & (lasted_s < 4.02 + 1e-9))


def test_random_command_is_replaced_when_its_time_is_over():
    source = random_commands(SPEC.model_copy(update={"interval_s": (2.0, 2.0)}), seed=0)
    first, second = source(10.0).copy(), source(12.0).copy()
    assert not np.array_equal(first, second)
    assert np.array_equal(source(13.99), second)
    assert not np.array_equal(source(14.0), second)


def test_robot_on_legs_stands_before_it_is_sent_anywhere():
    ranges = {"low": [-0.3, -0.2, 0.1], "high": [0.4, 0.2, 1.0]}
    source = random_commands(SPEC.model_copy(update={"name": "velocity", **ranges}), seed=0)
    # the nearest to standing that it was trained for
    assert source(0.0) == pytest.approx([0.0, 0.0, 0.1])
    assert source(1.99) == pytest.approx([0.0, 0.0, 0.1])
    assert abs(source(2.0)).min() > 0.0


def test_random_commands_follow_from_the_seed():
    assert np.array_equal(every_command(seed=3), every_command(seed=3))
    assert not np.array_equal(every_command(seed=3), every_command(seed=4))


def test_command_that_was_handed_out_does_not_change_later():
    source = random_commands(SPEC, seed=0)
    first = source(0.0)
    remembered = first.copy()
    source(10.0)
    assert np.array_equal(first, remembered)
