"""Feetech's servos in SI units, beside Rhoban BAM's law and what is trained."""

import mujoco
import pytest

from deploy.errors import ConfigError
from deploy.feetech.servos import MODELS
from deploy.servos.catalog import MODELS as ALL
from tests.deploy.conftest import REPOSITORY


def test_p_gain_is_what_bam_measured():
    # 0.166 of the supply per rad and unit of P; at 7.4 V the m1 of BAM has kt 1.2116, R 2.676:
    # 16 · 0.166 · 7.4 V · kt/R = 8.9 N·m/rad
    servo = MODELS["STS3215-7.4V"]
    assert servo.kp(16, servo.physics.drive_torque(7.4)) == pytest.approx(8.9, rel=0.16)


def test_gain_of_the_shipped_arm_is_the_one_it_was_modelled_with():
    model = mujoco.MjModel.from_xml_path(str(REPOSITORY / "envs/robots/so101_arm/so101_arm.xml"))
    servo = MODELS["STS3215-12V"]
    effort_nm = model.actuator_forcerange[0, 1]
    assert servo.p_gain(float(model.actuator_gainprm[0, 0]), effort_nm) == 16
    assert servo.d_gain(0.0, effort_nm) == 32  # as identified


def test_gain_that_one_byte_does_not_hold_is_refused():
    servo = MODELS["STS3215-12V"]
    with pytest.raises(
        ConfigError, match=r"STS3215-12V cannot be set to 998 N·m/rad, expected 0\.\."
    ):
        servo.p_gain(998.0, 3.35)


def test_damping_that_nobody_can_set_is_refused():
    with pytest.raises(ConfigError, match="nobody has published what its D Coefficient"):
        MODELS["STS3215-12V"].d_gain(0.5, 3.0)


def test_stall_current_follows_from_the_winding_where_no_sheet_states_it():
    servo = MODELS["STS3215-7.4V"]
    assert servo.stall_current_a == pytest.approx(7.4 / servo.physics.resistance_ohm)
    assert MODELS["STS3215-12V"].stall_current_a == 2.7


def test_every_servo_is_known_by_its_name():
    assert ALL.keys() >= MODELS.keys()
    assert all(name == model.name for name, model in ALL.items())
