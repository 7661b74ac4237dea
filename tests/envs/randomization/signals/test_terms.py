"""The whole way from a true value to a reading, of all terms together."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import envs
from deploy.errors import ConfigError
from envs.draws import Draws, Stream
from envs.randomization.signals.terms import SignalTerms
from envs.vector_env import VectorEnv
from envs.worlds import choose, every
from tests.envs.randomization.signals.sensors import (
    CONTROL_DT_S,
    CPU,
    ELEMENTS,
    JOINTS,
    Sensors,
    parse,
    some,
)

IMU = ["imu_angular_velocity", "projected_gravity"]
TERMS: tuple[dict[str, Any], ...] = (  # in another order than that of a sensor
    {"signal": "joint_position", "hold": 0.2},
    {"signal": "joint_position", "quantize": 0.01},
    {"signal": "joint_position", "operation": "add", "range": (-0.1, 0.1), "when": "step"},
    {"signal": "joint_position", "operation": "add", "range": (-0.2, 0.2)},
    {"signal": "joint_position", "delay": (0.0, 0.05), "jitter": 0.01},
    {"signal": "joint_velocity", "operation": "scale", "range": (0.5, 1.5), "match": "elbow"},
    {"signal": "imu_angular_velocity", "drift": 0.1},
    {"signal": "imu_angular_velocity", "range": (0.5, 1.5)},
    {"signal": IMU, "operation": "rotate", "range": (0.0, 0.3)},
    {"signal": IMU, "delay": (0.0, 0.03)},
    {"signal": IMU, "hold": 0.1},
)


def random_truth(generator: torch.Generator, num_envs: int = 4) -> dict[str, Tensor]:
    true = {
        name: torch.randn(num_envs, len(elements), generator=generator)
        for name, elements in ELEMENTS.items()
    }
    true["projected_gravity"] /= true["projected_gravity"].norm(dim=-1, keepdim=True)
    return true


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return all(torch.equal(one[name], other[name]) for name in one)


def test_joint_angle_takes_the_way_of_a_sensor():
    """The oracle: numpy, one number at a time, from the formulas and the public draws.

    true -> as it was a delay ago -> bias -> noise -> counts -> lost.
    """
    sensors = Sensors(*TERMS)
    draws = Draws(0, CPU)
    generator = torch.Generator().manual_seed(0)

    def at_start(name: str, world: int) -> np.ndarray:
        (uniform,) = draws.uniform([Stream(name, 2)], torch.tensor([world]), torch.tensor([1]))
        return uniform[0].double().numpy()

    def at_step(name: str, world: int, step: int) -> np.ndarray:
        number, place = divmod(step, 16)
        (uniform,) = draws.uniform(
            [Stream(name, 32)], torch.tensor([world]), torch.tensor([number])
        )
        return uniform[0].double().numpy().reshape(16, 2)[place]

    truth = [random_truth(generator)]
    found = [sensors.start(**truth[0])]
    for _ in range(40):
        truth.append(random_truth(generator))
        found.append(sensors.step(**truth[-1]))

    lost_readings = 0
    for world in range(4):
        delay = 0.05 * at_start("joint_position/*/delay", world)
        bias = -0.2 + 0.4 * at_start("joint_position/*/add/reset", world)
        for joint in range(2):
            times = CONTROL_DT_S * np.arange(41)
            values = [true["joint_position"][world, joint].item() for true in truth]
            last = None
            for step in range(41):
                if step == 0:
                    noise = at_start("joint_position/*/add/step/first", world)[joint]
                    age, lost = 0.0, False
                else:
                    noise = at_step("joint_position/*/add/step", world, step)[joint]
                    late = at_step("joint_position/*/delay", world, step)[joint]
                    age = delay[joint] + 0.01 * late
                    lost = at_step("joint_position/*/hold", world, step)[joint] < 0.2
                value = np.interp(times[step] - age, times[: step + 1], values[: step + 1])
                value = value + bias[joint] + (-0.1 + 0.2 * noise)
                reading = last if lost else 0.01 * round(value / 0.01)
                lost_readings += lost
                assert reading is not None
                assert found[step]["joint_position"][world, joint].item() == pytest.approx(
                    reading, abs=1e-5
                )
                last = reading
    assert lost_readings > 30


def test_terms_of_one_signal_leave_the_others_alone():
    generator = torch.Generator().manual_seed(0)
    sensors = Sensors(*TERMS[:5])
    sensors.start()
    for _ in range(20):
        true = random_truth(generator)
        found = sensors.step(**true)
        for name in ("joint_velocity", *IMU):
            assert torch.equal(found[name], true[name])


def test_order_of_the_lines_does_not_matter_between_kinds():
    generator = torch.Generator().manual_seed(0)
    truth = [random_truth(generator) for _ in range(30)]

    def run(terms: tuple[dict[str, Any], ...]) -> list[dict[str, Tensor]]:
        sensors = Sensors(*terms)
        return [sensors.start(**truth[0]), *(sensors.step(**true) for true in truth[1:])]

    for one, other in zip(run(TERMS), run(TERMS[::-1]), strict=True):
        assert same(one, other)


def test_restored_in_mid_episode_readings_are_the_same_to_the_bit():
    generator = torch.Generator().manual_seed(0)
    sensors, restored = Sensors(*TERMS), Sensors(*TERMS)
    sensors.start(**random_truth(generator))
    restored.start(**random_truth(generator))
    for step in range(21):  # into the second block of draws
        sensors.step(**random_truth(generator))
        if step == 9:
            sensors.start(1, 2, **random_truth(generator))

    saved = sensors.terms.state_dict()
    restored.count = sensors.count
    restored.episode.copy_(sensors.episode)
    restored.terms.load_state_dict(saved)
    for step in range(40):
        true = random_truth(generator)
        assert same(restored.step(**true), sensors.step(**true))
        if step == 20:
            assert same(restored.start(0, **true), sensors.start(0, **true))
    fresh = Sensors(*TERMS)
    fresh.terms.load_state_dict(saved)  # what was saved did not change since
    assert not same(fresh.step(), sensors.step())


def test_worlds_chosen_by_mask_read_the_same_as_worlds_chosen_by_ids():
    """The way of a GPU and the way of a CPU."""
    by_ids, by_mask = Sensors(*TERMS), Sensors(*TERMS, compact=False)
    generator = torch.Generator().manual_seed(0)
    true = random_truth(generator)
    assert same(by_ids.start(**true), by_mask.start(**true))
    for step in range(40):
        true = random_truth(generator)
        assert same(by_ids.step(**true), by_mask.step(**true))
        if step in (3, 16, 17):
            true = random_truth(generator)
            assert same(by_ids.start(0, 3, **true), by_mask.start(0, 3, **true))


def test_some_worlds_read_what_they_would_among_all():
    generator = torch.Generator().manual_seed(0)
    sensors, others = Sensors(*TERMS), Sensors(*TERMS)
    truth = [random_truth(generator) for _ in range(20)]
    for worlds in (sensors, others):
        worlds.start(**truth[0])
    for step, true in enumerate(truth[1:], 1):
        expected = sensors.step(**true)
        part = some(1, 2)
        signals = {name: part.take(table) for name, table in true.items()}
        others.terms.sense(signals, part, step, None)

        assert same(signals, {name: table[1:3] for name, table in expected.items()})


def test_numbers_of_sixteen_steps_are_drawn_at_once(monkeypatch: pytest.MonkeyPatch):
    sensors = Sensors(*TERMS)
    sensors.start()
    calls = []
    uniform = Draws.uniform
    monkeypatch.setattr(Draws, "uniform", lambda *arguments: calls.append(1) or uniform(*arguments))
    for _ in range(47):  # steps 1 to 47
        sensors.step()

    assert len(calls) == 3


def test_nothing_asks_the_device_for_a_number():
    """A meta tensor has no data: whoever asks for some, as a host would a GPU, gets an error."""
    meta = torch.device("meta")
    terms = SignalTerms(
        [parse(**term) for term in TERMS],
        ELEMENTS,
        Draws(0, meta),
        num_envs=4,
        device=meta,
        control_dt_s=CONTROL_DT_S,
    )
    share = torch.ones((), dtype=torch.float64, device=meta)
    terms.set_shares(dict.fromkeys(range(len(TERMS)), share))
    done = choose(torch.zeros(4, dtype=torch.bool, device=meta), compact=False)
    episode = torch.zeros(4, dtype=torch.int64, device=meta)
    for step in range(3):
        signals = {name: torch.zeros(4, len(e), device=meta) for name, e in ELEMENTS.items()}
        terms.sense(dict(signals), every(4, meta), step, None)
        terms.begin(done, episode)
        terms.sense(signals, done, step, episode)
        assert signals["joint_position"].shape == (4, 2)


@pytest.mark.parametrize(
    ("document", "problem"),
    [
        (
            {"signal": "joint_positon", "range": (0.5, 2.0)},
            "unknown signal 'joint_positon' (did you mean 'joint_position'?); this task has "
            "['imu_angular_velocity', 'joint_position', 'joint_velocity', 'projected_gravity']",
        ),
        (
            {"signal": "joint_position", "range": (0.5, 2.0), "match": "wrist"},
            "'joint_position' has no element matching 'wrist'; its elements are "
            "['shoulder', 'elbow']",
        ),
        (
            {"signal": "joint_position", "operation": "rotate", "range": (0.0, 0.1)},
            "'joint_position rotate [0.0, 0.1] on *': only vectors can be rotated, and "
            "'joint_position' has the elements ['shoulder', 'elbow']",
        ),
        (
            {"signal": ["joint_position", "projected_gravity"], "hold": 0.1},
            "'joint_position and projected_gravity hold 0.1 on *': signals in one list "
            "share their draws element by element, but the elements of 'projected_gravity' are "
            "['x', 'y', 'z'] and those of 'joint_position' are ['shoulder', 'elbow']; write a "
            "term for each",
        ),
        (
            {"signal": "projected_gravity", "delay": (0.0, 0.1), "match": "x"},
            "'projected_gravity delay [0.0, 0.1] on x': 'projected_gravity' is a vector and "
            "changes as a whole; delete `match`",
        ),
        (
            {"signal": "projected_gravity", "quantize": 2.0},
            "'projected_gravity quantize 2 on *': 'projected_gravity' has length one, "
            "and nothing of it is left; make the count smaller",
        ),
        (
            {"signal": "joint_position", "delay": (0.0, 0.01), "jitter": 0.03},
            "'joint_position delay [0.0, 0.04] on *': jitter is 0.03 s, more than the period of "
            "the policy, 0.02 s, and a reading would be older than the one before it; shorten it, "
            "or use `hold` for readings that are lost",
        ),
    ],
)
def test_term_that_does_not_fit_its_signal_is_refused(document: dict[str, Any], problem: str):
    with pytest.raises(ConfigError) as error:
        Sensors(document)

    assert str(error.value) == f"randomization: {problem}"


def test_term_says_what_it_does():
    assert str(parse(signal="joint_position", range=(0.5, 2.0), distribution="log_uniform")) == (
        "joint_position scale log_uniform [0.5, 2.0] on *"
    )
    assert parse(signal=IMU, delay=(0.0, 0.02), jitter=0.005).describe() == {
        "target": "imu_angular_velocity and projected_gravity",
        "match": "*",
        "operation": "delay",
        "distribution": "uniform",
        "range": (0.0, 0.025),
    }
    assert parse(signal="joint_position", hold=0.1, match=JOINTS).describe()["match"] == JOINTS


def arm(*terms: dict[str, Any]) -> VectorEnv:
    return envs.make("arm_reach", num_envs=3, num_threads=1, randomization=list(terms))


def test_environment_restored_in_mid_episode_goes_on_with_the_same_bits():
    terms = (
        {"signal": ["joint_position", "joint_velocity"], "delay": [0.0, 0.05], "jitter": 0.02},
        {"signal": "joint_position", "drift": 0.01},
        {"signal": "joint_position", "hold": 0.3},
        {"command": "hold", "probability": 0.3},
    )
    generator = torch.Generator().manual_seed(0)
    env, restored = arm(*terms), arm(*terms)
    env.reset()
    restored.reset()
    actions = 2 * torch.rand(60, 3, env.num_actions, generator=generator) - 1
    for action in actions[:25]:
        env.step(action)

    restored.load_state_dict(env.state_dict())

    for action in actions[25:]:
        expected, found = env.step(action), restored.step(action)
        assert torch.equal(found.observation["actor"], expected.observation["actor"])
        assert torch.equal(found.reward, expected.reward)


def test_servo_whose_targets_get_lost_keeps_the_one_it_received_last():
    """Also when several are lost in a row: not the one sent last."""
    env = arm({"command": "hold", "probability": 0.6, "shared": True})
    env.reset()
    ctrl = env.simulation.data("ctrl")
    received, lost = ctrl.float().clone(), 0
    for step in range(40):
        targets = env.signals["joint_target"] + 0.001 * (step + 1)
        env.step_targets(targets)
        arrived = (ctrl.float() == targets).all(dim=-1)
        assert torch.equal(ctrl.float()[~arrived], received[~arrived])
        lost += int((~arrived).sum())
        received = ctrl.float().clone()
    assert 0.5 < lost / 120 < 0.7
