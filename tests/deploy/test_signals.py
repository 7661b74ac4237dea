"""The table of signals is what contract, export and environment agree on."""

from typing import get_args

from deploy.signals import SIGNALS, TARGETS, SignalKind, TargetKind

JOINTS = ["hip", "knee"]


def test_table_has_a_row_for_every_kind():
    assert list(SIGNALS) == list(get_args(SignalKind))
    assert list(TARGETS) == list(get_args(TargetKind))


def test_joint_signals_have_an_element_per_joint_in_order():
    for kind, row in {**SIGNALS, **TARGETS}.items():
        expected = JOINTS if kind.startswith("joint_") else ["x", "y", "z"]
        assert row.elements(JOINTS) == expected


def test_units_are_si():
    assert {kind: row.unit for kind, row in {**SIGNALS, **TARGETS}.items()} == {
        "joint_position": "rad",
        "joint_velocity": "rad/s",
        "joint_target": "rad",
        "command": "m",
        "joint_position_target": "rad",
    }
