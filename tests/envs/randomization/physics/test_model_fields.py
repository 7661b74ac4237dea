"""Model fields as tables: rows are MuJoCo's elements, columns what its manual calls them.

Manual: https://mujoco.readthedocs.io/en/stable/XMLreference.html
"""

import mujoco
import numpy as np
import pytest

from deploy.errors import ConfigError
from envs.randomization.physics.model_fields import field_values, model_field

# One element of each kind, or two, with their own names.
EVERYTHING = mujoco.MjModel.from_xml_string("""
<mujoco>
  <compiler angle="radian"/>
  <asset><material name="steel" rgba="0.5 0.5 0.5 1"/></asset>
  <worldbody>
    <light name="lamp" pos="0 0 3"/>
    <camera name="eye" pos="0 -1 1"/>
    <body name="arm">
      <joint name="swing" axis="0 1 0" range="-1 2" limited="true"/>
      <joint name="lift" type="slide" axis="0 0 1"/>
      <geom name="rod" type="capsule" size="0.02 0.1" friction="0.7 0.01 0.002" material="steel"/>
      <site name="tip" pos="0 0 0.1"/>
    </body>
    <body name="ball" pos="1 0 0">
      <freejoint name="free"/>
      <geom name="shell" size="0.1" solref="0.03 0.8" solimp="0.8 0.9 0.002 0.4 3"/>
    </body>
  </worldbody>
  <contact><pair name="touch" geom1="rod" geom2="shell"/></contact>
  <equality><joint name="gear" joint1="swing" joint2="lift"/></equality>
  <tendon><fixed name="cord" range="0.1 0.5" limited="true"><joint joint="swing" coef="1"/></fixed>
  </tendon>
  <actuator><motor name="motor" joint="swing" gear="5 0 0 0 0 0"/></actuator>
  <sensor><jointpos name="angle" joint="swing"/></sensor>
  <keyframe><key name="home"/></keyframe>
  <custom><numeric name="three" data="1 2 3"/></custom>
</mujoco>
""")


@pytest.mark.parametrize(
    ("field", "rows", "bodies"),
    [
        ("body_mass", ["world", "arm", "ball"], ["world", "arm", "ball"]),
        ("jnt_stiffness", ["swing", "lift", "free"], ["arm", "arm", "ball"]),
        ("dof_damping", ["swing", "lift", *["free"] * 6], [*["arm"] * 2, *["ball"] * 6]),
        ("qpos0", ["swing", "lift", *[None] * 7], [*["arm"] * 2, *[""] * 7]),
        ("geom_size", ["rod", "shell"], ["arm", "ball"]),
        ("site_pos", ["tip"], ["arm"]),
        ("cam_pos", ["eye"], ["world"]),
        ("light_pos", ["lamp"], ["world"]),
        ("mat_rgba", ["steel"], None),
        ("pair_gap", ["touch"], None),
        ("eq_data", ["gear"], None),
        ("tendon_stiffness", ["cord"], None),
        ("actuator_gear", ["motor"], None),
        ("sensor_noise", ["angle"], None),
        ("key_qpos", ["home"], None),
        ("opt.gravity", ["opt.gravity"], None),
        ("numeric_data", ["0", "1", "2"], None),  # elements that are no objects have numbers
    ],
)
def test_rows_are_the_elements_of_that_kind_and_their_bodies(
    field: str, rows: list[str | None], bodies: list[str] | None
):
    table = model_field(EVERYTHING, field)
    assert (table.rows, table.bodies) == (rows, bodies)


SOLREF, SOLIMP = ("timeconst", "dampratio"), ("dmin", "dmax", "width", "midpoint", "power")
XYZ = ("x", "y", "z")


@pytest.mark.parametrize(
    ("field", "kind", "columns"),
    [
        ("body_mass", "number", ("value",)),
        ("body_quat", "quaternion", ("w", *XYZ)),
        ("site_pos", "vector", XYZ),
        ("opt.gravity", "vector", XYZ),
        ("opt.wind", "vector", XYZ),
        ("opt.magnetic", "vector", XYZ),
        ("jnt_axis", "direction", XYZ),
        ("light_dir", "direction", XYZ),
        ("body_inertia", "moments", XYZ),
        ("jnt_range", "range", ("low", "high")),
        ("tendon_lengthspring", "range", ("low", "high")),
        ("geom_friction", "record", ("slide", "spin", "roll")),
        ("pair_friction", "record", ("slide_x", "slide_y", "spin", "roll_x", "roll_y")),
        ("geom_solref", "record", SOLREF),
        ("tendon_solref_lim", "record", SOLREF),
        ("tendon_solref_fri", "record", SOLREF),
        ("pair_solreffriction", "record", SOLREF),
        ("geom_solimp", "record", SOLIMP),
        ("tendon_solimp_lim", "record", SOLIMP),
        ("tendon_solimp_fri", "record", SOLIMP),
        ("actuator_gear", "record", ("x", "y", "z", "rx", "ry", "rz")),
        ("mat_rgba", "record", ("0", "1", "2", "3")),
    ],
)
def test_columns_are_named_as_in_mujocos_manual(field: str, kind: str, columns: tuple[str, ...]):
    table = model_field(EVERYTHING, field)
    assert (table.kind, table.columns) == (kind, columns)


@pytest.mark.parametrize(
    ("field", "row", "column", "value"),
    [
        ("geom_friction", "rod", "spin", 0.01),
        ("geom_solref", "shell", "dampratio", 0.8),
        ("geom_solimp", "shell", "power", 3),
        ("jnt_range", "swing", "high", 2),
        ("actuator_gear", "motor", "x", 5),
        ("opt.gravity", "opt.gravity", "z", -9.81),
        ("site_pos", "tip", "z", 0.1),
    ],
)
def test_number_in_the_mjcf_is_found_by_its_names(field: str, row: str, column: str, value: float):
    table = model_field(EVERYTHING, field)
    (place,) = table.select(column)
    assert field_values(EVERYTHING, field)[table.rows.index(row), place] == value


@pytest.mark.parametrize(
    ("columns", "places"),
    [("all", [0, 1, 2]), (1, [1]), ("roll", [2]), ([2, "slide"], [0, 2]), (["spin", 1], [1])],
)
def test_columns_are_chosen_by_name_or_count(columns: str | int | list, places: list[int]):
    assert model_field(EVERYTHING, "geom_friction").select(columns) == places


def test_all_columns_of_a_vector_are_meant_where_none_is_named():
    assert model_field(EVERYTHING, "site_pos").select(None) == [0, 1, 2]


@pytest.mark.parametrize(
    ("field", "columns", "problem"),
    [
        ("geom_friction", None, "are different things; name those you mean, e.g. `columns: slide`"),
        ("geom_friction", "rol", r"has no column 'rol' \(did you mean 'roll'\?\); it has"),
        ("geom_friction", 3, "has no column 3; it has"),
        ("body_mass", "value", "'body_mass' has no columns; delete `columns`"),
    ],
)
def test_column_that_is_none_is_refused(field: str, columns: str | int | None, problem: str):
    with pytest.raises(ConfigError, match=problem):
        model_field(EVERYTHING, field).select(columns)


def test_values_are_a_copy():
    field_values(EVERYTHING, "site_pos")[:] = np.nan
    assert np.isfinite(EVERYTHING.site_pos).all()
