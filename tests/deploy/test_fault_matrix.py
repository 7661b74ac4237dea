"""Every fault × device family × state ends as the table in `deploy/README.md` says.

The table is read from there, so it cannot say what is not so.
"""

import re
from pathlib import Path
from typing import get_args

import pytest

from deploy.runtime import State
from deploy.twin.faults import Fault, Kind
from tests.deploy.conftest import REPOSITORY
from tests.deploy.faulty_arm import FAMILIES, FaultyArm

STATES = ("connecting", "MOVING_TO_START", "RUNNING", "PAUSED", "STOPPING")
LINE = ("drop", "corrupt", "truncate", "delay", "echo")


def rows() -> dict[tuple[Kind, str], list[str]]:
    """What each fault of each family leads to, by state."""
    text = (REPOSITORY / "deploy/README.md").read_text()
    table, kinds = {}, []
    for line in text[text.index("| fault | device |") :].splitlines()[2:]:
        if not line.startswith("|"):
            break
        fault, families, *outcomes = (cell.strip() for cell in line.strip("|").split("|"))
        families = families.split(" that ")[0]
        kinds = re.findall(r"`(\w+)`", fault) or kinds
        table |= {(kind, family): outcomes for kind in kinds for family in families.split(", ")}
    return table


TABLE = rows()


def fault_of(kind: Kind, family: str) -> Fault:
    """What the table's words stand for."""
    if kind in LINE:
        device = "imu" if family == "own IMU" else None
        return Fault(kind=kind, share=0.1, delay_ms=8, device=device)
    part = "elbow" if kind in ("absent", "duplicate", "stuck", "overload") else None
    if family == "board" and kind == "absent":
        part = None
    for_s = 0.4 if kind in ("unplug", "brown_out") else None
    if family == "own IMU":
        return Fault(kind=kind, device="imu", for_s=for_s)
    if family == "bus IMU" and kind != "unplug":
        part = "imu"
    return Fault(kind=kind, part=part, for_s=for_s)


def outcome(arm: FaultyArm, fault: Fault, state: str) -> str:
    """What becomes of a run in which a fault begins with a state."""
    arm.runtime.hold = state == "PAUSED"
    begun = False

    def on_state(entered: State) -> None:
        nonlocal begun
        arm.states.append(entered)
        if entered.name == state and not begun:
            begun = True
            arm.begin(fault)

    arm.on_state = on_state
    if state == "connecting":
        arm.begin(fault)
    error = arm.run()
    assert not arm.monitor.violations, arm.monitor.violations[0]
    if error is None:
        assert arm.states[-1] is State.IDLE
        assert not any(servo.torque_on for servo in arm.twin.servos)
        pauses = arm.states.count(State.PAUSED) - (state == "PAUSED")
        return "waits" if pauses else "goes on"
    assert arm.states[-1] is arm.runtime.state is State.FAULT
    assert getattr(error, "__notes__", []) or State.IDLE not in arm.states
    return "stops" if State.MOVING_TO_START in arm.states else "refused"


def test_table_has_every_fault_and_family():
    assert {kind for kind, _ in TABLE} == set(get_args(Kind))
    assert {family for _, family in TABLE} == set(FAMILIES)
    assert all(len(outcomes) == len(STATES) for outcomes in TABLE.values())


@pytest.mark.parametrize(("kind", "family"), [key for key in TABLE if key[0] in LINE])
def test_spoilt_replies_disturb_no_state(kind: Kind, family: str, tmp_path: Path):
    arm = FaultyArm(family, tmp_path)
    assert {outcome(arm, fault_of(kind, family), "connecting")} == set(TABLE[kind, family])
    assert {*State} - {*arm.states} == {State.DISCONNECTED, State.FAULT, State.PAUSED}


@pytest.mark.parametrize(("kind", "family"), [key for key in TABLE if key[0] not in LINE])
def test_fault_ends_as_documented_in_every_state(kind: Kind, family: str, tmp_path: Path):
    documented = TABLE[kind, family]
    found = [
        outcome(FaultyArm(family, tmp_path), fault_of(kind, family), state)
        if expected != "–"
        else "–"
        for state, expected in zip(STATES, documented, strict=True)
    ]
    assert found == documented
