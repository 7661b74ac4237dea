"""The table of signals is what contract, environment, export, runtime and report agree on."""

from typing import get_args

from deploy.signals import SIGNALS, TARGETS, Frame, SignalKind, TargetKind, Unit

JOINTS = ["hip", "knee"]
XYZ = ["x", "y", "z"]


def test_table_has_a_row_for_every_kind():
    assert list(SIGNALS) == list(get_args(SignalKind))
    assert list(TARGETS) == list(get_args(TargetKind))


def test_every_kind_has_its_si_unit_frame_and_elements():
    assert {
        kind: (row.unit, row.frame, row.elements(JOINTS, ["vx", "yaw"]))
        for kind, row in {**SIGNALS, **TARGETS}.items()
    } == {
        "joint_position": ("rad", "", JOINTS),
        "joint_velocity": ("rad/s", "", JOINTS),
        "joint_effort": ("N·m", "", JOINTS),
        "joint_target": ("rad", "", JOINTS),
        "joint_target_velocity": ("rad/s", "", JOINTS),
        "joint_current": ("A", "", JOINTS),
        "joint_temperature": ("°C", "", JOINTS),
        "joint_voltage": ("V", "", JOINTS),
        "imu_angular_velocity": ("rad/s", "imu", XYZ),
        "projected_gravity": ("1", "imu", XYZ),
        "object_position": ("m", "base", XYZ),
        "command": (None, "", ["vx", "yaw"]),  # its contract says the rest
        "time": ("s", "", ["time"]),
        "joint_position_target": ("rad", "", JOINTS),
        "joint_velocity_target": ("rad/s", "", JOINTS),
        "joint_torque_target": ("N·m", "", JOINTS),
    }


def test_units_and_frames_are_known_ones():
    for row in {**SIGNALS, **TARGETS}.values():
        assert row.unit in {*get_args(Unit), None}
        assert row.frame in get_args(Frame)


def test_only_what_the_runtime_knows_by_itself_needs_no_device():
    assert [kind for kind, row in SIGNALS.items() if not row.measured] == [
        "joint_target",
        "joint_target_velocity",
        "command",
        "time",
    ]


def test_elements_are_the_callers_own():
    SIGNALS["projected_gravity"].elements(JOINTS).clear()
    assert SIGNALS["projected_gravity"].elements(JOINTS) == XYZ
