"""What no robot has: refused at the first number beyond, with the element that has it."""

from collections.abc import Sequence

import mujoco
import pytest
import torch

from deploy.errors import ConfigError
from envs.randomization.physics.fields import FieldTerm
from envs.randomization.physics.limits import check_limits
from envs.randomization.physics.model_fields import field_values

STEP_S = 0.005
MODEL = mujoco.MjModel.from_xml_string(f"""
<mujoco>
  <compiler angle="radian"/>
  <option timestep="{STEP_S}" density="1" viscosity="1"/>
  <worldbody>
    <body name="upper">
      <joint name="shoulder" axis="0 1 0" range="-1 1" limited="true"/>
      <geom name="box" type="box" size="0.1 0.2 0.3" mass="2"/>
      <body name="lower" pos="0 0 0.5">
        <joint name="elbow" axis="0 1 0"/>
        <geom type="box" size="0.1 0.2 0.3" mass="1"/>
      </body>
    </body>
  </worldbody>
  <actuator>
    <position name="linear" joint="shoulder" kp="9" kv="1" nsample="4" delay="0.01"
      interp="linear"/>
    <position name="coarse" joint="elbow" kp="9" kv="1" nsample="4" delay="0.01"/>
  </actuator>
</mujoco>
""")  # fmt: skip
TERM = FieldTerm(field="anything", range=(0.5, 2))


def refusal(field: str, row: int, numbers: Sequence[float]) -> str:
    """What is said if one element could get these numbers, "" if nothing; the others are nominal.

    It is the second of three cases, so neither the first nor the last one is looked at alone.
    """
    nominal = torch.from_numpy(field_values(MODEL, field))
    table = nominal.repeat(3, 1, 1)
    table[1, row, : len(numbers)] = torch.tensor(numbers, dtype=torch.float64)
    try:
        check_limits(MODEL, {field: table}, [TERM])
    except ConfigError as error:
        return str(error)
    return ""


def test_nominal_values_are_possible():
    for field in ("body_mass", "body_inertia", "jnt_range", "actuator_delay", "geom_solref"):
        assert refusal(field, 0, []) == ""


def test_element_value_and_term_are_named():
    assert refusal("dof_damping", 1, [-0.123456]) == (
        "randomization: dof_damping of 'elbow' could become -0.1235 by 'anything scale [0.5, 2.0] "
        "on *'; it must not be negative: raise the low end of the range"
    )
    assert "geom_size of 'row 1' could become [0.0, 0.2, 0.3] by" in refusal("geom_size", 1, [0])


@pytest.mark.parametrize("field", ["body_mass", "body_inertia", "geom_size", "opt.impratio"])
def test_what_must_be_there_cannot_vanish(field: str):
    row = 0 if field in ("opt.impratio", "geom_size") else 1
    small = [1e-9] * field_values(MODEL, field).shape[1]
    assert refusal(field, row, small) == ""
    assert "it must stay above zero" in refusal(field, row, [0.0])
    assert "it must stay above zero" in refusal(field, row, [-1e-9])


def test_world_has_no_mass_and_may_stay_so():
    assert refusal("body_mass", 0, [0.0]) == ""
    assert "it must stay above zero" in refusal("body_mass", 0, [-1e-9])


@pytest.mark.parametrize(
    "field",
    [
        "dof_frictionloss",
        "dof_damping",
        "dof_armature",
        "jnt_stiffness",
        "geom_friction",
        "opt.density",
        "opt.viscosity",
    ],
)
def test_what_takes_energy_away_may_vanish_and_not_be_negative(field: str):
    assert refusal(field, 0, [0.0]) == ""
    assert "it must not be negative" in refusal(field, 0, [-1e-9])


@pytest.mark.parametrize(
    ("moments", "possible"),
    [
        ([1, 1, 1], True),  # a ball
        ([1, 1, 2], True),  # a plate, however thin: the moment about its normal is the sum
        ([1, 2, 1], True),
        ([1, 1, 2.001], False),
        ([2.001, 1, 1], False),
    ],
)
def test_moments_of_inertia_are_those_of_some_body(moments: list[float], possible: bool):
    text = refusal("body_inertia", 2, moments)
    assert (text == "") is possible
    assert possible or "'lower' could become" in text
    assert possible or "none of which exceeds the sum of the others" in text


def test_range_keeps_an_order_and_a_width():
    assert refusal("jnt_range", 0, [0.999, 1.0]) == ""
    assert "its low end must stay below its high end" in refusal("jnt_range", 0, [1.0, 1.0])
    assert "its low end must stay below its high end" in refusal("jnt_range", 0, [1.1, 1.0])
    # the elbow has no range, which MuJoCo writes as [0, 0]
    assert refusal("jnt_range", 1, [0.0, 0.0]) == ""
    assert "its low end must stay below its high end" in refusal("jnt_range", 1, [0.1, 0.0])


def test_solver_numbers_keep_the_sign_that_gives_them_their_meaning():
    assert refusal("geom_solref", 0, [0.001, 5]) == ""
    for changed in ([-0.02, 1], [0.02, -1], [-100, -1]):
        assert "keep the sign" in refusal("geom_solref", 0, changed)


def test_gains_of_position_servos_push_towards_the_target():
    assert "kp must stay above zero" in refusal("actuator_gainprm", 1, [0.0])
    assert refusal("actuator_biasprm", 1, [0, -9, 0]) == ""
    assert "kd must not be negative" in refusal("actuator_biasprm", 1, [0, -9, 0.001])
    for field, numbers, share in (
        ("actuator_gainprm", [8], 0.8889),
        ("actuator_biasprm", [0, -8], 1.125),
    ):
        assert f"the servo 'coarse' could pull to {share} times its target by" in (
            found := refusal(field, 1, numbers)
        )
        assert "use `kp`" in found


def test_gravity_keeps_its_side():
    assert refusal("opt.gravity", 0, [9.81, 0, 0]) == ""
    assert "gravity would pull up" in refusal("opt.gravity", 0, [0, 0, 9.81])


def test_impedances_are_those_that_mujoco_does_not_clip():
    assert refusal("geom_solimp", 0, [0, 1]) == ""
    for clipped in ([-0.01, 0.95], [0.9, 1.01]):
        assert "MuJoCo clips it" in refusal("geom_solimp", 0, clipped)


@pytest.mark.parametrize(
    ("delay_s", "problem"),
    [
        (0.02, ""),  # four samples
        (0.0201, "its buffer holds 0.02 s"),
        (-0.001, "a delay must not be negative"),
        (0.0123, ""),
        (0.005, ""),
        (0.0049, "at least one physics step, 0.005 s"),
    ],
)
def test_delay_is_one_that_mujoco_keeps(delay_s: float, problem: str):
    text = refusal("actuator_delay", 0, [delay_s])
    assert (text == "") is (problem == "")
    assert problem in text
    assert not text or "actuator_delay of 'linear'" in text


def test_delay_without_interpolation_is_fixed_to_whole_steps():
    # one number in all cases is one delay; several would be rounded up to steps
    table = torch.tensor([[[0.01], [0.015]]], dtype=torch.float64)
    check_limits(MODEL, {"actuator_delay": table}, [TERM])
    for cases in ([0.012, 0.012], [0.01, 0.015]):
        table = torch.tensor([[[0.01], [delay]] for delay in cases], dtype=torch.float64)
        with pytest.raises(ConfigError, match=r"'coarse' could become .* in whole physics steps"):
            check_limits(MODEL, {"actuator_delay": table}, [TERM])


def test_gains_of_two_terms_are_compared_with_each_other():
    nominal = {
        name: torch.from_numpy(field_values(MODEL, name)).repeat(2, 1, 1)
        for name in ("actuator_gainprm", "actuator_biasprm")
    }
    nominal["actuator_gainprm"][..., 0] *= 2
    nominal["actuator_biasprm"][..., 1] *= 2
    check_limits(MODEL, nominal, [TERM])

    nominal["actuator_biasprm"][1, 0, 1] *= 2
    with pytest.raises(ConfigError, match=r"'linear' could pull to 0\.5 times its target"):
        check_limits(MODEL, nominal, [TERM])
