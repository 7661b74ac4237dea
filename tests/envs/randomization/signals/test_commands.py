"""Targets on their way to the servos: rounded to counts, or lost."""

import math
from typing import Any

import mujoco
import pytest
import torch
from torch import Tensor

from deploy.errors import ConfigError
from envs.batch_simulation import BatchSimulation
from envs.draws import Draws
from envs.randomization import Randomization, read_terms
from envs.randomization.signals.commands import COMMAND_KINDS, CommandTerms
from envs.simulation import State
from envs.worlds import every

CPU = torch.device("cpu")
HOLD = {"command": "hold", "probability": 0.25}
COUNTS = {"command": "quantize", "step": 0.01}


def bus(*terms: dict[str, Any], num_envs: int = 4, targets: tuple[str, ...] = ("a", "b")):
    parsed = [COMMAND_KINDS[term["command"]].model_validate(term) for term in terms]
    return CommandTerms(parsed, targets, Draws(0, CPU), num_envs=num_envs, device=CPU)


def send(terms: CommandTerms, steps: int, num_envs: int) -> Tensor:
    """Where targets were lost, (steps, num_envs, 2): each step sends its own number."""
    received = torch.zeros(num_envs, 2)
    lost = []
    for step in range(1, steps + 1):
        previous = received
        received = terms.receive(torch.full((num_envs, 2), float(step)), previous, step)
        lost.append(received != step)
        assert torch.equal(received[lost[-1]], previous[lost[-1]])  # what it received last
    return torch.stack(lost)


def test_lost_targets_are_as_many_as_said_and_independent():
    lost = send(bus(HOLD, num_envs=500), 100, 500).float()

    assert lost.mean().item() == pytest.approx(0.25, abs=4 * 0.433 / math.sqrt(100_000))
    centred = lost - 0.25
    assert abs((centred[1:] * centred[:-1]).mean().item()) < 4 * 0.1875 / math.sqrt(99_000)
    assert abs((centred[:, 1:] * centred[:, :-1]).mean().item()) < 4 * 0.1875 / math.sqrt(99_000)
    assert abs((centred[..., 0] * centred[..., 1]).mean().item()) < 4 * 0.1875 / math.sqrt(50_000)


def test_targets_of_one_packet_are_lost_together():
    lost = send(bus(HOLD | {"shared": True}, num_envs=50), 40, 50)

    assert torch.equal(lost[..., 0], lost[..., 1])
    assert len(lost[..., 0].T.unique(dim=0)) == 50  # every world its own


def test_loss_is_that_of_the_matching_servo_and_scales_with_its_share():
    terms = bus(HOLD | {"match": "b"}, num_envs=500)
    terms.set_shares({0: 0.5})
    lost = send(terms, 100, 500).float()

    assert not lost[..., 0].any()
    assert lost[..., 1].mean().item() == pytest.approx(0.125, abs=4 * 0.33 / math.sqrt(50_000))


def test_loss_is_a_function_of_world_and_step():
    lost = send(bus(HOLD), 40, 4)
    other = bus(HOLD)
    late = other.receive(torch.ones(4, 2), torch.zeros(4, 2), 33) == 0

    assert torch.equal(late, lost[32])


def test_target_is_rounded_to_the_nearest_count_before_it_may_get_lost():
    targets = torch.tensor([[0.1249, -0.016]]).expand(4, 2)

    rounded = bus(COUNTS).receive(targets, torch.zeros(4, 2), 1)
    both = bus(HOLD, COUNTS).receive(targets, torch.full((4, 2), 0.777), 1)

    torch.testing.assert_close(rounded, torch.tensor([[0.12, -0.02]]).expand(4, 2))
    lost = both == 0.777
    assert 0 < lost.sum() < 8
    assert torch.equal(both[~lost], rounded[~lost])


def test_nothing_asks_the_device_for_a_number():
    """See the test of the same name in test_signals.py."""
    meta = torch.device("meta")
    terms = [COMMAND_KINDS[term["command"]].model_validate(term) for term in (HOLD, COUNTS)]
    bound = CommandTerms(terms, ("a", "b"), Draws(0, meta), num_envs=4, device=meta)

    assert bound.receive(torch.ones(4, 2, device=meta), torch.ones(4, 2, device=meta), 3).is_meta


def test_without_terms_targets_arrive_as_they_are():
    targets = torch.rand(4, 2)

    assert bus().receive(targets, torch.zeros(4, 2), 1) is targets


def test_pattern_without_a_match_is_refused():
    with pytest.raises(ConfigError) as error:
        bus(HOLD | {"match": "c"})

    assert str(error.value) == (
        "randomization: 'command' has no element matching 'c'; its elements are ['a', 'b']"
    )


@pytest.mark.parametrize(
    ("document", "problem"),
    [
        (HOLD | {"probability": 1.0}, "less than 1"),
        (HOLD | {"probability": -0.1}, "greater than 0"),
        (COUNTS | {"step": 0.0}, "greater than 0"),
        (COUNTS | {"probability": 0.5}, "not permitted"),
    ],
)
def test_term_that_makes_no_sense_is_refused(document: dict[str, Any], problem: str):
    with pytest.raises(ValueError) as error:
        bus(document)

    assert problem in str(error.value)


def test_term_says_what_it_does():
    term = COMMAND_KINDS["hold"].model_validate(HOLD)

    assert str(term) == "command hold 0.25 on *"
    assert term.describe() == {
        "target": "command",
        "match": "*",
        "operation": "hold",
        "distribution": "fixed",
        "range": (0.25, 0.25),
    }


BENCH = """
<mujoco>
  <option timestep="0.001" gravity="0 0 0"/>
  <worldbody>
    <body>
      <joint name="a" armature="1"/>
      <geom size="0.1" mass="1" contype="0" conaffinity="0"/>
    </body>
  </worldbody>
  <actuator><motor name="a" joint="a" delay="0.005" nsample="20" interp="linear"/></actuator>
</mujoco>
"""


def test_unknown_command_is_refused_with_those_there_are():
    with pytest.raises(ConfigError) as error:
        read_terms([{"command": "delay", "range": [0, 0.1]}], source="test")
    assert (
        "a command is `hold` or `quantize`, found 'delay'; how late it arrives is `field: "
        "actuator_delay`"
    ) in str(error.value)


def test_latency_that_jitters_is_a_delay_drawn_at_every_step():
    """A ramp of torque, as it acts: t minus the delay of this control step, by MuJoCo itself."""
    simulation = BatchSimulation(mujoco.MjModel.from_xml_string(BENCH), 50, num_threads=1)
    jitter = {"field": "actuator_delay", "operation": "set", "range": [0.005, 0.015]}
    terms = read_terms([jitter | {"when": "interval", "interval_s": [0.01, 0.01]}], source="test")
    randomization = Randomization(terms, simulation, Draws(0, CPU), signals={}, control_dt_s=0.01)
    worlds = every(50)
    start = State(*(torch.zeros(50, 1, dtype=torch.float64) for _ in range(3)))
    randomization.begin(worlds, torch.ones_like(worlds.ids))
    simulation.reset(worlds, start)
    delays = []
    for substep in range(200):
        if substep % 10 == 0:
            randomization.before_step(substep // 10)
        simulation.data("ctrl")[:] = 0.001 * substep
        simulation.step(1)
        delays.append(0.001 * substep - simulation.data("actuator_force")[:, 0])

    late = torch.stack(delays[20:]).unflatten(0, (-1, 10))  # (steps, substeps, worlds)
    torch.testing.assert_close(late, late[:, :1].expand_as(late), atol=1e-12, rtol=0)
    assert len(late[:, 0].unique()) == 18 * 50  # every control step of every world its own
    assert 0.005 <= late.min().item() < 0.0051
    assert 0.0149 < late.max().item() <= 0.015 + 1e-12
    assert late[:, 0].mean().item() == pytest.approx(0.01, abs=4 * 0.01 / math.sqrt(12 * 900))
