"""What a randomization term changes, measured: hand-made courses, and terms of known effect."""

import math
from collections.abc import Sequence
from typing import Any

import pytest
import torch

import robotrl.runs.check_config as check_config_module
from deploy.configuration import validate
from robotrl.runs.check_config import (
    Course,
    Difference,
    Effect,
    Joints,
    Report,
    check_config,
    moved,
    seen,
)
from robotrl.runs.train_config import TrainConfig

JOINTS = Joints([0, 1, 2], ["hip", "knee", "rail"], ["rad", "rad", "m"])


def check(*terms: dict[str, Any]) -> Report:
    document = {"task": "arm_reach", "randomization": list(terms)}
    return check_config(validate(document, TrainConfig, source="test"))


def course(
    joints: Sequence[Sequence[float]], observation: list[list[float]], alive: list[bool]
) -> Course:
    """One world, from the start on."""
    return Course(
        torch.zeros(len(joints) - 1, 1, 1),
        torch.tensor(joints, dtype=torch.float64)[:, None],
        torch.tensor(observation)[:, None],
        torch.tensor(alive)[:, None],
    )


STILL = [[0.0]] * 3


def test_motion_is_compared_with_how_far_joints_of_the_same_unit_went():
    nominal = course([[0, 0, 0], [3, 0, 0.3], [3, 6, 0.3]], STILL, [True] * 3)
    other = course([[0, 0, 0], [3, 1.5, 0.3], [3, 6, 0.6]], STILL, [True] * 3)

    found = moved(other, nominal, JOINTS)

    # rad: travelled 0, 3, 3 and 0, 0, 6: rms √(54/6) = 3; the knee was off by 0, 1.5, 0: rms 0.866
    # m: travelled 0, 0.3, 0.3: rms 0.245; the rail was off by 0, 0, 0.3: rms 0.173
    assert found is not None
    assert (found.where, found.unit) == ("rail", "m")
    assert found.share == pytest.approx(0.1732 / 0.2449, rel=1e-3)
    assert (found.median, found.largest) == (0.0, pytest.approx(0.3))


def test_what_happens_after_an_episode_ended_in_either_world_does_not_count():
    nominal = course([[0] * 3, [1] * 3, [9] * 3], STILL, [True, True, False])
    other = course([[0] * 3, [1] * 3, [0] * 3], STILL, [True, True, True])

    assert moved(other, nominal, JOINTS) is None
    assert moved(nominal, other, JOINTS) is None


def test_observation_is_compared_with_its_spread():
    resting = [[0, 0, 0]] * 3
    nominal = course(resting, [[0.0, 5.0], [2.0, 5.0], [4.0, 5.0]], [True] * 3)
    other = course(resting, [[0.0, 5.0], [3.0, 5.0], [5.0, 5.0]], [True] * 3)

    found = seen(other, nominal, ["speed", "constant"])

    # the standard deviation of 0, 2, 4 is 2: half a spread, in two of three readings
    assert found is not None
    assert (found.where, found.unit) == ("speed", "spreads")
    assert found.share == pytest.approx(0.5 * math.sqrt(2 / 3))
    assert (found.median, found.largest) == (0.5, 0.5)
    assert seen(nominal, nominal, ["speed", "constant"]) is None


def test_signal_term_changes_what_is_observed_and_moves_nothing():
    bias = {"signal": "joint_velocity", "operation": "add", "range": [0.2, 0.2]}
    (effect,) = check(bias).effects
    (double,) = check(bias | {"range": [0.4, 0.4]}).effects

    assert effect.most.unit == "spreads"
    assert effect.most.where.startswith("joint_velocity.")
    # the same in every world and at every step, and proportional to the bias
    assert effect.most.median == pytest.approx(effect.most.share, rel=1e-4)
    assert effect.most.largest == pytest.approx(effect.most.share, rel=1e-4)
    assert double.most.share == pytest.approx(2 * effect.most.share, rel=1e-4)


def test_terms_are_listed_by_their_effect():
    weak = {"field": "kp", "range": [0.95, 1.05]}
    strong = {"field": "kp", "range": [0.5, 2.0]}
    late = {"signal": "joint_position", "delay": [0.001, 0.001]}

    report = check(weak, late, strong)

    assert not report.problems
    shares = [effect.most.share for effect in report.effects]
    assert shares == sorted(shares, reverse=True)
    assert report.effects[0].term == "kp scale [0.5, 2.0] on *"
    first, second = (effect for effect in report.effects if effect.term.startswith("kp"))
    assert first.most.share > 5 * second.most.share
    assert first.most.unit == "rad"


def test_range_that_grows_is_measured_in_full():
    term = {"field": "kp", "range": [0.8, 1.2]}
    (full,) = check(term).effects
    (growing,) = check(term | {"schedule": {"over_steps": 1e9}}).effects

    assert growing.most == full.most


def test_term_of_events_gets_the_time_until_one_happened():
    push = {"push": "elbow_flex", "range": [0.5, 1.0], "interval_s": [1.5, 2.0]}

    (effect,) = check(push).effects

    assert effect.seconds == 3.0  # two for the push, and one
    assert effect.most.where == "elbow_flex"


def test_lost_targets_reach_the_joints():
    (effect,) = check({"command": "hold", "probability": 0.2}).effects

    assert effect.most.unit == "rad"
    assert 0.005 < effect.most.share < 0.2


def test_terms_without_effect_are_problems_and_the_others_are_measured_all_the_same():
    colour = {"field": "geom_rgba", "columns": "all", "range": [0.8, 1.2]}
    rare = {"signal": "joint_position", "hold": 1e-12}

    report = check(colour, {"field": "kp", "range": [0.8, 1.2]}, rare)

    assert [effect.term for effect in report.effects] == ["kp scale [0.8, 1.2] on *"]
    seen_by_nobody, lost_nothing = report.problems
    assert "'geom_rgba scale [0.8, 1.2] on *' has no effect" in seen_by_nobody
    assert "'joint_position hold 1e-12 on *' has no effect" in lost_nothing


@pytest.fixture
def nothing_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    """The actor of this arm reads all signals, and all its terms move it: both are blinded."""
    run = check_config_module._run

    def blind(*arguments: Any) -> Course:
        course = run(*arguments)
        return course._replace(
            joints=torch.zeros_like(course.joints),
            observation=torch.zeros_like(course.observation),
        )

    monkeypatch.setattr(check_config_module, "_run", blind)


@pytest.mark.usefixtures("nothing_seen")
def test_signal_that_the_actor_does_not_read_is_a_problem():
    assert check({"signal": "joint_velocity", "quantize": 0.024}).problems == [
        "randomization: 'joint_velocity quantize 0.024 on *' has no effect: nothing that the actor "
        "observes differs in 1 s; does it read this signal? Delete the term, or raise its range"
    ]


@pytest.mark.usefixtures("nothing_seen")
def test_model_term_whose_effect_was_not_seen_is_listed_without_a_bar():
    """The proof saw one, in other poses, and of another kind of motion."""
    report = check({"field": "kp", "range": [0.8, 1.2]})

    assert not report.problems
    assert report.lines()[1] == (
        f"{'0.00%':>7s}  {'':24s}   0.0000  0.0000  kp scale [0.8, 1.2] on *  "
        "nothing seen: it may need contacts, or longer episodes"
    )


def test_terms_that_do_not_go_together_are_a_problem():
    """Each leaves the hand (29 g) some of its mass, both together do not."""
    lighter = {"field": "mass", "match": "hand", "operation": "add", "range": [-0.02, 0.0]}

    report = check(lighter, lighter)

    assert len(report.effects) == 2
    (problem,) = report.problems
    assert "'hand'" in problem


def test_line_shows_effect_term_and_place_with_a_bar_beside_the_strongest():
    strong = Effect("kp scale [0.5, 2.0] on *", Difference(0.5, 0.1, 0.2, "knee", "rad"), 1.0)
    weak = Effect("push", Difference(0.125, 0.1, 0.2, "speed", "spreads"), 3.0)

    header, first, second, error = Report([strong, weak], ["no good"]).lines()

    assert header.split() == ["effect", "median", "largest"]
    assert first == (
        " 50.00%  ████████████████████████   0.1000  0.2000  kp scale [0.5, 2.0] on *  knee [rad]"
    )
    assert second == (
        " 12.50%  ██████                     0.1000  0.2000  push                      "
        "speed [spreads, in 3 s]"
    )
    assert error == "ERROR  no good"
