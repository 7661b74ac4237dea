"""What a joint that is not heard of for a moment is told: nothing that makes it jump afterwards.

The elbow of a two-joint arm swings at up to 1.9 rad/s, 0.0377 rad a tick. Its YAML allows it 5
rad/s, 0.1 rad a tick, so that is how far a goal may be from the one before. A fault begins between
a reading and the targets that follow it: those are lost as well.
"""

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from deploy.governor import LimitedBy
from deploy.runtime import State
from deploy.twin.faults import Fault
from tests.deploy.faulty_arm import FaultyArm

FASTEST = 48
"""The step of the policy before it asks for the fastest change: 0.3 sin(2 pi t) rad at t = 1 s."""
A_TICK = 0.0377
ALLOWED = 0.1
COUNTS = 0.0031
"""Two counts of the encoder, to which goals are rounded [rad]."""


def goals_of(arm: FaultyArm, fault: Fault, step: int) -> list[float]:
    """Begin a fault with a step of the policy; goals [rad] that came to the elbow meanwhile."""
    goals: list[float] = []
    servo, wiring = arm.twin.servos[1], arm.robot.config.joints["elbow"]
    before, goal = servo.on_write, servo.registers.GOAL_POSITION

    def note(register, value: int, error: int) -> None:
        before(register, value, error)
        if register is goal and arm.runtime.state is State.RUNNING:
            goals.append((value - wiring.zero_ticks) * servo.model.rad_per_tick)

    servo.on_write = note
    arm.controller.at[step] = lambda: arm.begin(fault)
    assert arm.run(1.5) is None
    assert not arm.monitor.violations
    return goals


@pytest.mark.parametrize("family", ["DYNAMIXEL", "Feetech STS", "Feetech SCS", "board"])
def test_joint_that_was_silent_goes_on_from_where_it_stood(family: str, tmp_path: Path):
    arm = FaultyArm(family, tmp_path)
    goals = goals_of(arm, Fault(kind="absent", for_s=0.07), FASTEST)
    jumps = [abs(after - before) for before, after in pairwise(goals)]
    # Three targets are lost. The first two are 0.0377 and 0.075 rad away from the one that has
    # arrived, the third and the first to arrive again not 0.11 and 0.15 but 0.1 rad.
    assert max(jumps) == pytest.approx(ALLOWED, abs=COUNTS)
    ticks = arm.recorder.running
    unheard = np.flatnonzero(ticks["joint_age_s"][:, 1] > 0.02)
    assert unheard.tolist() in ([FASTEST + 1, FASTEST + 2], [FASTEST + 1, FASTEST + 2, FASTEST + 3])
    silence = ticks["limited_by"][:, 1] & LimitedBy.SILENCE > 0
    away = np.abs(ticks["sent_target"] - ticks["policy_target"])[:, 1]
    assert np.flatnonzero(silence).tolist() == (unheard + 1).tolist()
    assert away[silence].max() > A_TICK
    assert not away[FASTEST + 60 :].any()  # it has caught up, no faster than it may
    steps = np.abs(np.diff(ticks["sent_target"][:, 1]))
    assert steps.max() <= 0.04 + 1e-6  # 2 rad/s, says the policy's contract


@pytest.mark.parametrize("family", ["DYNAMIXEL", "Feetech STS", "Feetech SCS", "board"])
def test_lost_reading_takes_nothing_from_a_joint_at_a_third_of_its_limit(
    family: str, tmp_path: Path
):
    arm, step = FaultyArm(family, tmp_path), FASTEST + 8  # 1.5 rad/s, and slower from there
    goals_of(arm, Fault(kind="drop", for_s=0.036), step)
    ticks = arm.recorder.running
    assert ticks["joint_age_s"][step + 1, 1] == pytest.approx(0.035, abs=0.003)
    assert not ticks["limited_by"].any()
