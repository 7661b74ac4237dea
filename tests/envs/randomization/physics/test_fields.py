"""Randomization: the right numbers change, by the right law, and no term silently does nothing."""

import re
from pathlib import Path
from typing import Any

import mujoco
import pytest
import torch
import yaml
from torch import Tensor

import envs
import envs.randomization
from deploy.configuration import validate
from deploy.errors import ConfigError
from envs.batch_simulation import BatchSimulation
from envs.draws import Draws
from envs.randomization import Randomization, RandomTerm, read_terms
from envs.randomization.law import Law
from envs.simulation import State
from envs.worlds import Worlds as Chosen
from envs.worlds import every

CPU = torch.device("cpu")
NUM_ENVS = 4

# Nominal values that are easy to multiply; `plain` has neither friction nor a delay buffer.
ROBOT = """
<mujoco>
  <option timestep="0.005"/>
  <default><position nsample="4" delay="0.01" interp="linear"/></default>
  <worldbody>
    <body name="upper">
      <joint name="shoulder" axis="0 1 0" frictionloss="0.1"/>
      <geom type="box" size="0.1 0.1 0.1" mass="2"/>
      <body name="lower" pos="0 0 0.3">
        <joint name="elbow" axis="0 1 0" frictionloss="0.2"/>
        <geom type="box" size="0.1 0.1 0.1" mass="1"/>
        <body name="hand" pos="0 0 0.3">
          <joint name="plain" axis="0 0 1"/>
          <geom type="box" size="0.1 0.1 0.1" mass="0.5"/>
        </body>
      </body>
    </body>
  </worldbody>
  <actuator>
    <position name="shoulder" joint="shoulder" kp="10" kv="1"/>
    <position name="elbow" joint="elbow" kp="20" kv="2"/>
    <position name="plain" joint="plain" kp="5" nsample="0" delay="0"/>
  </actuator>
</mujoco>
"""
CONFIG = Path(__file__).parents[4] / "configs" / "train" / "arm_reach.yaml"
BODIES = {"world": 0, "upper": 1, "lower": 2, "hand": 3}


class Worlds:
    """Four worlds of `ROBOT` with field terms."""

    def __init__(self, *terms: dict[str, Any], xml: str = ROBOT, seed: int = 0):
        self.simulation = BatchSimulation(
            mujoco.MjModel.from_xml_string(xml), NUM_ENVS, num_threads=1
        )
        self.randomization = Randomization(
            read_terms(terms, source="run.yaml"),
            self.simulation,
            Draws(seed, CPU),
            signals={},
            control_dt_s=0.02,
        )

    def draw(self, *ids: int, episode: int = 1) -> "Worlds":
        """Start an episode in worlds `ids`, all of them if none are given."""
        worlds = Chosen(torch.tensor(ids)) if ids else every(NUM_ENVS)
        self.randomization.begin(worlds, torch.full_like(worlds.ids, episode))
        return self

    def field(self, name: str) -> Tensor:
        return self.simulation.field(name).clone()


def term(**values: Any) -> RandomTerm:
    """A term as it comes from `run.yaml`."""
    (parsed,) = read_terms([values], source="run.yaml")
    return parsed


def law(**values: Any) -> Law:
    return validate(values, Law, source="run.yaml")


@pytest.mark.parametrize(
    ("operation", "expected"),
    [("scale", [0.3, 0.6, 0.0]), ("add", [3.1, 3.2, 3.0]), ("set", [3.0, 3.0, 3.0])],
)
def test_operation_is_applied_to_the_nominal_value(operation: str, expected: list[float]):
    # A range of one number draws that number; friction is 0.1, 0.2 and 0.
    worlds = Worlds({"field": "dof_frictionloss", "operation": operation, "range": (3, 3)}).draw()

    for world in worlds.field("dof_frictionloss"):
        assert world.tolist() == pytest.approx(expected)


def test_pattern_selects_elements_by_name():
    worlds = Worlds({"field": "dof_frictionloss", "match": "*o*", "range": (3, 3)}).draw()

    # shoulder and elbow have an o
    assert worlds.field("dof_frictionloss")[0].tolist() == pytest.approx([0.3, 0.6, 0])


def test_draws_differ_between_elements_and_worlds_and_stay_in_range():
    friction = Worlds({"field": "dof_frictionloss", "range": (0.5, 2.0)}).draw()
    factors = friction.field("dof_frictionloss")[:, :2] / torch.tensor([0.1, 0.2])

    assert len(factors.unique()) == 2 * NUM_ENVS
    assert factors.min() >= 0.5
    assert factors.max() <= 2.0


def test_shared_draw_is_one_per_world():
    worlds = Worlds({"field": "dof_frictionloss", "range": (0.5, 2.0), "shared": True}).draw()
    factors = worlds.field("dof_frictionloss")[:, :2] / torch.tensor([0.1, 0.2])

    torch.testing.assert_close(factors[:, 0], factors[:, 1])
    assert len(factors[:, 0].unique()) == NUM_ENVS


def test_terms_on_one_field_build_on_each_other_in_their_order():
    worlds = Worlds(
        {"field": "dof_frictionloss", "operation": "scale", "range": (3, 3)},
        {"field": "dof_frictionloss", "operation": "add", "range": (1, 1)},
    ).draw()

    assert worlds.field("dof_frictionloss")[0].tolist() == pytest.approx([1.3, 1.6, 1])


def test_terms_that_differ_only_in_their_range_each_have_their_own():
    worlds = Worlds(
        {"field": "dof_frictionloss", "range": (3, 3)},
        {"field": "dof_frictionloss", "range": (7, 7)},
    ).draw()

    assert worlds.field("dof_frictionloss")[0].tolist() == pytest.approx([2.1, 4.2, 0])


def test_field_of_vectors_moves_as_a_whole():
    worlds = Worlds({"field": "opt.gravity", "range": (2, 2)}).draw()

    assert worlds.field("opt.gravity")[0].tolist() == pytest.approx([0, 0, -2 * 9.81])


def test_start_angles_are_found_behind_a_free_joint():
    floating = """
    <mujoco><worldbody>
      <body name="base"><freejoint name="base"/><geom size="0.1"/>
        <body name="arm"><joint name="hip"/><geom size="0.1"/>
          <body name="leg"><joint name="knee"/><geom size="0.1"/></body>
        </body>
      </body>
    </worldbody></mujoco>"""
    worlds = Worlds(
        {"field": "qpos0", "match": "knee", "operation": "set", "range": (0.5, 0.5)}, xml=floating
    ).draw()

    # qpos: 3 numbers of position and 4 of orientation, then hip and knee.
    assert worlds.field("qpos0")[0].tolist() == [0, 0, 0, 1, 0, 0, 0, 0, 0.5]


@pytest.mark.parametrize(
    ("operation", "stiffness"), [("scale", [30, 60, 15]), ("add", [13, 23, 8]), ("set", [3, 3, 3])]
)
def test_kp_changes_gain_and_bias_together(operation: str, stiffness: list[float]):
    worlds = Worlds({"field": "kp", "operation": operation, "range": (3, 3)}).draw()
    gain, bias = worlds.field("actuator_gainprm")[0], worlds.field("actuator_biasprm")[0]

    # force = gain · target + bias_1 · angle + bias_2 · speed, with bias_1 = -gain
    assert gain[:, 0].tolist() == stiffness
    assert bias[:, 1].tolist() == [-value for value in stiffness]
    assert bias[:, 2].tolist() == [-1, -2, 0]


@pytest.mark.parametrize(
    ("operation", "damping"), [("scale", [3, 6, 0]), ("add", [4, 5, 3]), ("set", [3, 3, 3])]
)
def test_kd_changes_the_velocity_bias_only(operation: str, damping: list[float]):
    worlds = Worlds({"field": "kd", "operation": operation, "range": (3, 3)}).draw()

    assert worlds.field("actuator_biasprm")[0, :, 2].tolist() == [-value for value in damping]
    assert worlds.field("actuator_biasprm")[0, :, 1].tolist() == [-10, -20, -5]


def test_servo_with_randomized_kp_still_rests_at_its_target():
    weightless = ROBOT.replace("<option", '<option gravity="0 0 0"')
    worlds = Worlds({"field": "kp", "range": (0.5, 2.0)}, xml=weightless).draw()
    target = torch.full((NUM_ENVS, 3), 0.5, dtype=torch.float64)

    worlds.simulation.reset(every(NUM_ENVS), State(target, torch.zeros_like(target), target))
    worlds.simulation.step(20)

    torch.testing.assert_close(worlds.simulation.data("qpos"), target)


def test_mass_scales_the_inertia_with_it():
    worlds = Worlds({"field": "mass", "match": "lower", "range": (3, 3)}).draw()
    nominal = worlds.simulation.model

    assert worlds.field("body_mass")[0].tolist() == [0, 2, 3, 0.5]
    expected = torch.from_numpy(nominal.body_inertia.copy())
    expected[BODIES["lower"]] *= 3
    torch.testing.assert_close(worlds.field("body_inertia")[0], expected)


def test_added_mass_scales_the_inertia_with_it():
    worlds = Worlds(
        {"field": "mass", "match": "lower", "operation": "add", "range": (0.5, 0.5)}
    ).draw()
    nominal = torch.from_numpy(worlds.simulation.model.body_inertia.copy())

    # From 1 kg to 1.5 kg of the same shape.
    assert worlds.field("body_mass")[0, BODIES["lower"]] == 1.5
    torch.testing.assert_close(
        worlds.field("body_inertia")[0, BODIES["lower"]], 1.5 * nominal[BODIES["lower"]]
    )


def test_constants_derived_from_mass_follow():
    worlds = Worlds({"field": "mass", "range": (3, 3)}).draw()
    tripled = mujoco.MjModel.from_xml_string(
        ROBOT.replace('mass="2"', 'mass="6"')
        .replace('mass="1"', 'mass="3"')
        .replace('mass="0.5"', 'mass="1.5"')
    )

    for name in ("body_subtreemass", "dof_invweight0", "body_invweight0", "actuator_acc0"):
        expected = torch.from_numpy(getattr(tripled, name).copy())
        for world in worlds.field(name):
            torch.testing.assert_close(world, expected, msg=name)


def test_mass_changes_the_motion():
    worlds = Worlds({"field": "mass", "range": (3, 3)})
    worlds.draw(1)
    pose = torch.zeros(NUM_ENVS, 3, dtype=torch.float64)
    worlds.simulation.reset(every(NUM_ENVS), State(pose, pose, pose))

    worlds.simulation.data("qfrc_applied")[:, 2] = 0.01
    worlds.simulation.step(1)

    # Angular acceleration is torque / inertia: three times the inertia, a third of the speed.
    speed = worlds.simulation.data("qvel")[:, 2]
    assert speed[1].item() == pytest.approx(speed[0].item() / 3)


def test_nothing_accumulates_over_many_resets():
    worlds = Worlds(
        {"field": "mass", "range": (1.1, 1.2)},
        {"field": "dof_frictionloss", "operation": "add", "range": (0.01, 0.02)},
    )
    for episode in range(300):
        worlds.draw(episode=episode)

    factors = worlds.field("body_mass")[:, 1:] / torch.tensor([2, 1, 0.5])
    added = worlds.field("dof_frictionloss") - torch.tensor([0.1, 0.2, 0])
    assert ((factors >= 1.1) & (factors <= 1.2)).all()
    assert ((added > 0.0099) & (added < 0.0201)).all()


def test_episode_has_the_same_values_whatever_the_order_of_resets():
    terms = (
        {"field": "mass", "range": (0.5, 2.0)},
        {"field": "kp", "range": (0.8, 1.2), "shared": True},
        {"field": "dof_frictionloss", "range": (0.5, 2.0), "when": "startup"},
    )
    together = Worlds(*terms).draw(episode=3)

    apart = Worlds(*terms).draw(episode=1)
    apart.draw(3, episode=3)
    apart.draw(0, 2, episode=2)
    apart.draw(1, episode=3)
    apart.draw(0, 2, episode=3)

    for name in ("body_mass", "body_inertia", "actuator_gainprm", "dof_frictionloss"):
        assert torch.equal(together.field(name), apart.field(name)), name
    assert torch.equal(together.field("dof_invweight0"), apart.field("dof_invweight0"))


def test_reset_of_some_worlds_leaves_the_others_as_they_were():
    worlds = Worlds({"field": "mass", "range": (0.5, 2.0)}).draw(episode=1)
    before = worlds.field("body_mass")

    worlds.draw(1, 3, episode=2)

    after = worlds.field("body_mass")
    assert torch.equal(after[[0, 2]], before[[0, 2]])
    assert (after[[1, 3], 1:] != before[[1, 3], 1:]).all()


def test_startup_values_stay_while_reset_values_change():
    worlds = Worlds(
        {"field": "dof_frictionloss", "range": (0.5, 2.0), "when": "startup"},
        {"field": "kp", "range": (0.8, 1.2), "when": "reset"},
    )
    first = worlds.draw(episode=1)
    friction, gain = first.field("dof_frictionloss"), first.field("actuator_gainprm")

    second = worlds.draw(episode=2)

    assert torch.equal(second.field("dof_frictionloss"), friction)
    assert (second.field("actuator_gainprm")[..., 0] != gain[..., 0]).all()
    assert len(friction[:, 0].unique()) == NUM_ENVS


def test_draws_of_a_term_do_not_depend_on_other_terms():
    friction = {"field": "dof_frictionloss", "range": (0.5, 2.0)}
    alone = Worlds(friction).draw()
    accompanied = Worlds({"field": "mass", "range": (0.5, 2.0)}, friction).draw()

    assert torch.equal(alone.field("dof_frictionloss"), accompanied.field("dof_frictionloss"))


def test_another_seed_gives_other_values():
    one, other = (Worlds({"field": "kp", "range": (0.8, 1.2)}, seed=s).draw() for s in (0, 1))

    assert (one.field("actuator_gainprm") != other.field("actuator_gainprm"))[..., 0].all()


def test_without_terms_nothing_changes():
    worlds = Worlds().draw()

    assert worlds.field("body_mass")[0].tolist() == [0, 2, 1, 0.5]


def draws(**values: Any) -> Tensor:
    """What uniform numbers 0, 1/4, 1/2 and 3/4 become."""
    return law(**values).transform(torch.tensor([0, 0.25, 0.5, 0.75]))


def test_uniform_law():
    assert draws(range=[2, 6]).tolist() == [2, 3, 4, 5]


def test_log_uniform_law_has_the_geometric_mean_in_the_middle():
    # 1/4 · 16^u: the factors 1/2 and 2 are equally likely.
    assert draws(range=[0.25, 4], distribution="log_uniform").tolist() == [0.25, 0.5, 1, 2]


def test_normal_law_has_its_mean_and_standard_deviation():
    normal = law(distribution="normal", range=[0.1, 0.5])
    uniform = torch.tensor([0.5, 0.8413447, 0.1586553, 0.9772499])  # 0, 1, -1 and 2 σ

    assert normal.transform(uniform).tolist() == pytest.approx([0.1, 0.6, -0.4, 1.1], abs=1e-5)


def test_normal_law_is_finite_for_every_uniform_number():
    normal = law(distribution="normal", range=[0, 1])

    extremes = normal.transform(torch.tensor([0.0, 1 - 2**-24]))

    assert extremes.isfinite().all()
    assert extremes.abs().max() < 6


def test_mean_of_a_normal_law_may_be_greater_than_its_standard_deviation():
    normal = law(distribution="normal", range=[1.0, 0.1])

    assert normal.transform(torch.tensor([0.5])).item() == pytest.approx(1)


def test_normal_law_may_have_a_negative_mean_and_ends_at_4_75_standard_deviations():
    wide = law(distribution="normal", range=[-1, 0.1])
    assert wide.extremes == pytest.approx((-1 - 0.4753, -1 + 0.4753), abs=1e-4)


def test_negative_standard_deviation_is_refused():
    with pytest.raises(ConfigError, match="standard deviation"):
        law(distribution="normal", range=[-1.0, -0.5])


# --- signals ------------------------------------------------------------------------------------


def refusal(*terms: dict[str, Any], xml: str = ROBOT) -> str:
    with pytest.raises(ConfigError) as error:
        Worlds(*terms, xml=xml)
    return str(error.value)


def term_refusal(**values: Any) -> str:
    with pytest.raises(ConfigError) as error:
        term(**values)
    return str(error.value)


def test_unknown_field_is_refused_with_the_nearest_name():
    assert refusal({"field": "dof_frictionlos", "range": (0.5, 2)}) == (
        "randomization: 'dof_frictionlos' is no model field that can differ between worlds "
        "(did you mean 'dof_frictionloss'?)"
    )


def test_pattern_without_a_match_is_refused_with_the_names_there_are():
    assert refusal({"field": "dof_frictionloss", "match": "elbw", "range": (0.5, 2)}) == (
        "randomization: 'dof_frictionloss' has no element matching 'elbw' (did you mean 'elbow'?); "
        "its elements are ['shoulder', 'elbow', 'plain']"
    )


def test_term_on_nominal_values_of_zero_is_refused():
    assert refusal({"field": "dof_frictionloss", "match": "plain", "range": (0.5, 2.0)}) == (
        "randomization: 'dof_frictionloss scale [0.5, 2.0] on plain' changes nothing: the nominal "
        "values are zero. Use `add` or `set`, or delete the term."
    )


@pytest.mark.parametrize(
    ("match", "range_", "reached", "held"),
    [("plain", (0.01, 0.02), 0.01, "0"), ("elbow", (0.01, 0.05), 0.05, "0.02")],  # 4 × 5 ms
    ids=["no buffer", "too short a buffer"],
)
def test_delay_that_no_buffer_holds_is_refused(
    match: str, range_: tuple[float, float], reached: float, held: str
):
    delay = {"field": "actuator_delay", "operation": "set", "range": range_}

    assert refusal(delay | {"match": match}) == (
        f"randomization: actuator_delay of {match!r} could become {reached} by 'actuator_delay set "
        f"{list(range_)} on {match}'; its buffer holds {held} s: raise nsample in the MJCF or "
        "narrow the range"
    )


def test_field_cannot_be_drawn_at_every_step():
    assert term_refusal(field="mass", when="step", range=[0.5, 2]) == (
        "run.yaml, term 1: when: input should be 'startup', 'reset' or 'interval', found 'step'"
    )


@pytest.mark.parametrize("names", [{}, {"field": "mass", "signal": "joint_position"}, {"fild": 1}])
def test_term_has_one_key_that_tells_what_it_is(names: dict[str, str]):
    text = term_refusal(**names, range=[0, 1])

    assert text.startswith(
        "run.yaml, term 1: a term has one of the keys field, fields, inertia, payload, supply, "
        "initial, push, wrench, grip, signal, command, which tells what it is"
    )
    assert f"found {names | {'range': [0, 1]}}" in text
    assert ("(did you mean 'field'?)" in text) is ("fild" in names)


def test_reversed_range_is_refused():
    assert term_refusal(field="mass", range=[2, 1]) == (
        "run.yaml, term 1: range: range must be [low, high], found [2.0, 1.0]"
    )


def test_log_uniform_range_must_be_above_zero():
    assert term_refusal(field="mass", distribution="log_uniform", range=[0, 1]) == (
        "run.yaml, term 1: (top level): log_uniform needs a range above zero, found [0.0, 1.0]"
    )


def test_unknown_key_is_refused_with_the_nearest_name():
    assert term_refusal(field="mass", rnge=[0, 1]).startswith(
        "run.yaml, term 1: (top level): unknown key 'rnge' (did you mean 'range'?); valid keys are "
    )


@pytest.mark.parametrize(
    ("field", "reason"),
    [
        ("body_parentid", "'body_parentid' holds ids, types or switches, no quantity"),
        ("jnt_limited", "'jnt_limited' holds ids, types or switches, no quantity"),
        ("opt.disableflags", "'opt.disableflags' holds ids, types or switches, no quantity"),
        (
            "opt.timestep",
            "'opt.timestep' must be the same in all worlds, which are stepped together",
        ),
        ("tendon_stiffness", "'tendon_stiffness' is empty: this model has no such elements"),
        (
            "body_subtreemass",
            "'body_subtreemass' is computed by MuJoCo from other fields when the model is "
            "compiled; randomize those it follows from, such as `mass`, body_ipos, geom_size",
        ),
    ],
)
def test_field_that_is_no_quantity_of_one_world_is_refused_with_the_reason(field: str, reason: str):
    text = refusal({"field": field, "operation": "set", "range": (1, 2)})

    assert text == f"randomization: {reason}"


@pytest.mark.parametrize("field", ["actuator_length0", "geom_rbound", "geom_aabb", "dof_M0"])
def test_field_that_mujoco_derives_is_refused(field: str):
    text = refusal({"field": field, "range": (1, 2), "columns": "all"})

    assert f"{field!r} is computed by MuJoCo from other fields" in text


@pytest.mark.parametrize("target", [{"field": "kp"}, {"signal": "joint_velocity"}])
def test_factor_that_could_become_negative_is_refused(target: dict[str, str]):
    (name,) = target.values()
    assert term_refusal(**target, range=[-1, 1]) == (
        f"run.yaml, term 1: (top level): {name}: a factor could become negative (-1); raise the "
        "low end of the range, or use `add`"
    )


@pytest.mark.parametrize("target", [{"field": "kp"}, {"signal": "joint_velocity"}])
@pytest.mark.parametrize(("operation", "value"), [("scale", 1), ("add", 0)])
def test_neutral_term_is_refused(target: dict[str, str], operation: str, value: float):
    (name,) = target.values()
    assert term_refusal(**target, operation=operation, range=[value, value]) == (
        f"run.yaml, term 1: (top level): {name}: {operation} {[float(value)] * 2} changes "
        "nothing; widen the range or delete the term"
    )


@pytest.mark.parametrize(
    ("field", "range_", "row", "reached", "reason"),
    [
        ("mass", (-2.0, 0.0), "upper", 0.0, "it must stay above zero: narrow the range"),
        ("actuator_delay", (-0.02, 0.0), "shoulder", -0.01,
         "a delay must not be negative: raise the low end of the range"),
        ("dof_frictionloss", (-1.0, 1.0), "shoulder", -0.9,
         "it must not be negative: raise the low end of the range"),
    ],
)  # fmt: skip
def test_quantity_that_could_become_negative_is_refused(
    field: str, range_: tuple[float, float], row: str, reached: float, reason: str
):
    what = "body_mass" if field == "mass" else field
    assert refusal({"field": field, "match": row, "operation": "add", "range": range_}) == (
        f"randomization: {what} of {row!r} could become {reached} by '{field} add {list(range_)} "
        f"on {row}'; {reason}"
    )


# --- numbers of vectors, ranges and orientations ------------------------------------------------

RICH = """
<mujoco>
  <compiler angle="radian"/>
  <option timestep="0.005"/>
  <worldbody>
    <geom name="floor" type="plane" size="1 1 0.1"/>
    <body name="arm" pos="0 0 0.5" quat="0.6 0.8 0 0">
      <joint name="arm" axis="0 1 0" limited="true" range="-1 2" damping="0.1"/>
      <geom type="box" size="0.1 0.2 0.3" mass="1"/>
      <geom name="pad" type="box" size="0.1 0.2 0.3" mass="1" rgba="1 0 0 1"/>
    </body>
    <body name="cube" pos="0 0.5 0.1"><freejoint name="cube"/>
      <geom type="box" size="0.1 0.1 0.1" mass="1"/></body>
  </worldbody>
  <actuator>
    <position name="coarse" joint="arm" kp="10" nsample="10" delay="0.01" forcerange="-3 3"/>
    <motor name="motor" joint="arm" nsample="10" delay="0.01" interp="linear"/>
  </actuator>
  <sensor><jointpos name="angle" joint="arm" noise="0.1"/></sensor>
  <keyframe><key name="home" qpos="0.1 0 0 1 1 0 0 0"/></keyframe>
</mujoco>
"""
ARM, CUBE = 1, 2


def rich(**values: Any) -> Worlds:
    return Worlds(values, xml=RICH).draw()


def rich_refusal(*terms: dict[str, Any]) -> str:
    return refusal(*terms, xml=RICH).removeprefix("randomization: ")


def test_vector_moves_in_all_directions_not_along_a_diagonal():
    moved = rich(field="body_pos", match="arm", operation="add", range=(-1, 1)).field("body_pos")
    offsets = moved[:, ARM] - torch.tensor([0, 0, 0.5])

    assert len(offsets.unique()) == NUM_ENVS * 3


@pytest.mark.parametrize(
    ("shared", "different"), [(False, 6), ("rows", 3), ("columns", 2), (True, 1)]
)
def test_draws_are_shared_as_the_term_says(shared: bool | str, different: int):
    moved = rich(
        field="body_pos", match=["arm", "cube"], operation="add", range=(1, 2), shared=shared
    ).field("body_pos")
    nominal = torch.tensor([[0, 0, 0.5], [0, 0.5, 0.1]], dtype=torch.float64)

    for world in (moved[:, [ARM, CUBE]] - nominal).flatten(1):
        assert len(world.round(decimals=9).unique()) == different


def test_range_keeps_its_width_when_it_is_shifted_and_its_order_when_it_is_scaled():
    shifted = rich(field="jnt_range", match="arm", operation="add", range=(-1, 1))
    scaled = rich(field="jnt_range", match="arm", range=(0.5, 2))
    moved, sized = shifted.field("jnt_range")[:, 0], scaled.field("jnt_range")[:, 0]

    torch.testing.assert_close(moved[:, 1] - moved[:, 0], torch.full((4,), 3.0).double())
    torch.testing.assert_close(sized[:, 1], -2 * sized[:, 0])
    assert len(moved[:, 0].unique()) == len(sized[:, 0].unique()) == NUM_ENVS


def test_elements_without_a_name_are_reached_through_their_body():
    friction = rich(field="geom_friction", body="cube", columns="slide", range=(2, 2))

    assert friction.field("geom_friction")[0, :, 0].tolist() == [1, 1, 1, 2]


def test_name_and_body_together_narrow_the_choice():
    friction = rich(field="geom_friction", body="arm", match="p*", columns="slide", range=(2, 2))

    assert friction.field("geom_friction")[0, :, 0].tolist() == [1, 1, 2, 1]


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ({"field": "geom_friction"},
         "the columns of 'geom_friction' are different things; name those you mean, e.g. "
         "`columns: slide`, or write `columns: all`; they are ['slide', 'spin', 'roll']"),
        ({"field": "geom_friction", "columns": "slid"},
         "'geom_friction' has no column 'slid' (did you mean 'slide'?); it has "
         "['slide', 'spin', 'roll']"),
        ({"field": "geom_friction", "columns": [3]},
         "'geom_friction' has no column 3; it has ['slide', 'spin', 'roll']"),
        ({"field": "dof_damping", "columns": "x"},
         "'dof_damping' has no columns; delete `columns`"),
        ({"field": "mass", "columns": "x"}, "'mass' has no columns; delete `columns`"),
        ({"field": "body_quat"},
         "'body_quat scale [0.5, 2.0] on *': an orientation is only changed by "
         "`operation: rotate`, by an angle [rad]"),
        ({"field": "jnt_axis", "operation": "add"},
         "'jnt_axis add [0.5, 2.0] on *': an orientation is only changed by "
         "`operation: rotate`, by an angle [rad]"),
        ({"field": "dof_damping", "operation": "rotate"},
         "'dof_damping rotate [0.5, 2.0] on *': only orientations and vectors can be rotated"),
        ({"field": "body_quat", "operation": "rotate", "columns": "x"},
         "'body_quat rotate [0.5, 2.0] on *': a rotation moves all columns; delete `columns`"),
        ({"field": "actuator_forcerange", "operation": "set"},
         "'actuator_forcerange set [0.5, 2.0] on *': this would set both ends to one number; name "
         "a column, low or high"),
        ({"field": "kp"},
         "'kp scale [0.5, 2.0] on *': ['motor'] are no position servos; use `match` to leave them "
         "out"),
        ({"field": "opt.density", "body": "arm"},
         "'opt.density' belongs to no body; use `match` instead of `body`"),
        ({"field": "geom_margin", "body": "hand"},
         "'geom_margin' has no element on a body matching 'hand'; its bodies are "
         "['world', 'arm', 'cube']"),
        ({"field": "geom_margin", "match": ["pad", "pda"]},
         "'geom_margin' has no element matching 'pda' (did you mean 'pad'?); its elements are "
         "['floor', 'pad'] and 2 without a name, which `body` can select"),
        ({"field": "geom_margin", "match": "pad", "body": "cube"},
         "'geom_margin' has no element matching 'pad' on a body matching 'cube'"),
    ],
)  # fmt: skip
def test_term_that_means_nothing_is_refused(values: dict[str, Any], reason: str):
    assert rich_refusal(values | {"range": (0.5, 2)}) == reason


def test_signal_takes_no_columns():
    assert "unknown key 'columns'" in term_refusal(
        signal="joint_position", columns="x", range=[0.5, 2]
    )


def test_fields_of_servos_and_joints_follow_one_draw_by_name():
    lines = [line for line in ROBOT.splitlines() if "<position name=" in line]
    turned = ROBOT.replace("\n".join(lines), "\n".join(reversed(lines)))
    term = {"fields": ["kp", "dof_armature"], "match": ["shoulder", "elbow"], "operation": "add",
            "range": (0.1, 1.0)}  # fmt: skip
    for first, second in (("kp", "dof_armature"), ("dof_armature", "kp")):
        worlds = Worlds(term | {"fields": [first, second]}, xml=turned).draw()
        gain = worlds.simulation.field("actuator_gainprm")[..., 0] - torch.tensor([5, 20, 10])
        armature = worlds.simulation.field("dof_armature")

        torch.testing.assert_close(gain.flip(-1)[:, :2], armature[:, :2])
        assert (armature[:, 0] != armature[:, 1]).all()


def test_fields_whose_elements_have_other_names_are_refused():
    other = ROBOT.replace('<position name="elbow"', '<position name="servo_2"')
    text = refusal({"fields": ["kp", "dof_armature"], "operation": "add", "range": (0.1, 1)},
                   xml=other)  # fmt: skip

    assert "which element of dof_armature follows which of kp is told by their names" in text
    assert "['shoulder', 'elbow', 'plain'] and ['shoulder', 'servo_2', 'plain']" in text
    Worlds(
        {"fields": ["kp", "dof_armature"], "operation": "add", "range": (0.1, 1), "shared": True},
        xml=other,
    )


def test_field_that_stays_zero_while_others_are_scaled_is_refused():
    assert refusal({"fields": ["kp", "dof_armature"], "range": (0.5, 2)}).endswith(
        "the nominal values of dof_armature are zero and stay so; leave it out"
    )
    text = refusal({"fields": ["kp", "kd"], "match": "plain", "range": (0.5, 2)})
    assert text.endswith("the nominal values of kd are zero and stay so; leave it out")


def test_field_that_is_there_twice_is_refused():
    assert "a field is there twice in ['kp', 'kp']" in term_refusal(
        fields=["kp", "kp"], range=[0.5, 2]
    )


def test_empty_list_of_patterns_is_refused():
    assert "match.list[str]: list should have at least 1 item" in term_refusal(
        field="kp", match=[], range=[0.5, 2]
    )


@pytest.mark.parametrize(
    "values",
    [
        {"field": "body_quat", "operation": "rotate", "range": (0, 30)},
        {"field": "opt.gravity", "operation": "rotate", "range": (-3.2, 0)},
        {"field": "joint_zero", "operation": "add", "range": (-5, 5)},
        {"fields": ["joint_zero", "qpos0"], "operation": "add", "range": (-5, 5)},
    ],
)
def test_angle_in_degrees_is_refused(values: dict[str, Any]):
    assert "an angle is at most 3.142 rad" in term_refusal(**values)
    assert "is it in degrees?" in term_refusal(**values)


# --- what no robot has, from one term or from several together ----------------------------------


def test_extremes_of_all_terms_on_a_field_are_checked_together():
    # Each alone is harmless: 2 kg · 0.5 = 1 kg, and 2 - 1.5 = 0.5 kg.
    terms = (
        {"field": "mass", "match": "upper", "operation": "scale", "range": (0.5, 1.0)},
        {"field": "mass", "match": "upper", "operation": "add", "range": (-1.5, 0.0)},
    )
    for single in terms:
        Worlds(single)

    assert refusal(*terms) == (
        "randomization: body_mass of 'upper' could become -0.5 by 'mass scale [0.5, 1.0] on upper' "
        "and 'mass add [-1.5, 0.0] on upper'; it must stay above zero: narrow the range"
    )


def test_term_of_a_group_is_checked_together_with_one_of_its_fields():
    assert "body_mass of 'upper' could become -0.5" in refusal(
        {"field": "body_mass", "match": "upper", "operation": "scale", "range": (0.5, 1.0)},
        {"field": "mass", "match": "upper", "operation": "add", "range": (-1.5, 0.0)},
    )


def test_gain_and_bias_of_a_servo_are_checked_together():
    raw = {"columns": 0, "match": "elbow", "range": (0.8, 1.2)}
    gain = raw | {"field": "actuator_gainprm"}
    bias = raw | {"field": "actuator_biasprm", "columns": 1}
    for terms, share in (([gain], 0.8), ([bias], 1.25), ([gain, bias], 0.6667)):
        assert f"servo 'elbow' could pull to {share} times its target by" in refusal(*terms)
    Worlds({"field": "kp", "range": (0.8, 1.2)}, {"supply": "*", "range": (0.8, 1.2)})


def test_delays_of_two_terms_are_added_before_they_are_compared_with_the_buffer():
    # 4 samples of 5 ms hold 20 ms.
    text = refusal(
        {"field": "actuator_delay", "match": "elbow", "operation": "set", "range": (0.01, 0.015)},
        {"field": "actuator_delay", "match": "elbow", "operation": "add", "range": (0.0, 0.01)},
    )

    assert "actuator_delay of 'elbow' could become 0.025" in text
    assert "its buffer holds 0.02 s" in text


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ({"field": "actuator_forcerange", "match": "coarse", "columns": "high", "operation": "set",
          "range": (-4, 4)},
         "actuator_forcerange of 'coarse' could become [-3.0, -4.0] by 'actuator_forcerange set "
         "[-4.0, 4.0] on coarse'; its low end must stay below its high end"),
        ({"field": "jnt_range", "match": "arm", "columns": ["low", "high"], "operation": "add",
          "range": (-2, 2)},
         "jnt_range of 'arm' could become [1.0, 0.0] by 'jnt_range add [-2.0, 2.0] on arm'; "
         "its low end must stay below its high end"),
        ({"field": "body_inertia", "match": "arm", "range": (0.3, 2)},
         "use `mass`, or `shared: columns`"),
        ({"field": "geom_solref", "columns": "timeconst", "operation": "add", "range": (-1, 0)},
         "with another sign these numbers mean something else: keep the sign"),
        ({"field": "kp", "match": "coarse", "operation": "add", "range": (-10, 0)},
         "a position gain kp must stay above zero: raise the low end of the range"),
        ({"field": "kd", "match": "coarse", "operation": "add", "range": (-1, 1)},
         "a damping gain kd must not be negative: raise the low end of the range"),
        ({"field": "opt.density", "operation": "set", "range": (-1, 1)},
         "it must not be negative: raise the low end of the range"),
        ({"field": "actuator_delay", "match": "motor", "operation": "set", "range": (0.002, 0.02)},
         "MuJoCo makes every delay at least one physics step, 0.005 s: raise the low end"),
        ({"field": "actuator_delay", "match": "coarse", "operation": "set",
          "range": (0.012, 0.012)},
         'with interp="zoh" it acts in whole physics steps of 0.005 s, rounded up: write '
         'interp="linear" in the MJCF'),
        ({"field": "actuator_delay", "match": "coarse", "operation": "set", "range": (0.005, 0.02)},
         'with interp="zoh" it acts in whole physics steps of 0.005 s, rounded up: write '
         'interp="linear" in the MJCF'),
        ({"field": "actuator_forcerange", "match": "coarse", "operation": "add", "range": (0, 4)},
         "it must still hold zero: a motor that always pushes one way is none"),
        ({"field": "actuator_biasprm", "match": "coarse", "columns": 1, "operation": "add",
          "range": (0, 20)},
         "a servo must pull back to its target: use `kp`, which keeps both gains equal"),
    ],
)  # fmt: skip
def test_values_no_robot_has_are_refused(values: dict[str, Any], reason: str):
    assert rich_refusal(values).endswith(reason)


def test_inertia_scaled_as_a_whole_stays_that_of_a_body():
    worlds = rich(field="body_inertia", match="arm", range=(0.3, 2), shared="columns")
    nominal = torch.from_numpy(worlds.simulation.model.body_inertia[ARM].copy())
    factors = worlds.field("body_inertia")[:, ARM] / nominal

    torch.testing.assert_close(factors, factors[:, :1].expand(-1, 3))


def test_centre_of_mass_of_a_body_that_mujoco_simplified_is_refused_with_mujocos_reason():
    text = rich_refusal(
        {"field": "body_ipos", "match": "cube", "operation": "add", "range": (-0.01, 0.01)}
    )

    assert "MuJoCo refuses the values" in text
    assert "simple='false'" in text


# --- terms without effect -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("values", "hint"),
    [
        ({"field": "opt.wind", "operation": "set", "range": (1, 2)},
         "It acts through the air, and opt.density and opt.viscosity are zero."),
        ({"field": "geom_fluid", "columns": "all", "operation": "set", "range": (1, 2)},
         "It acts through the air, and opt.density and opt.viscosity are zero."),
        ({"field": "geom_rgba", "columns": [0], "operation": "set", "range": (0, 1)},
         "It is only looked at."),
        ({"field": "key_qpos", "columns": [0], "range": (1, 2)},
         "Keyframes are read by name, not from the worlds' models."),
        ({"field": "sensor_noise", "range": (1, 2)},
         "MuJoCo adds no noise; use a `signal` term with `when: step`."),
        ({"field": "geom_pos", "match": "floor", "operation": "add", "range": (0, 1),
          "columns": "x"}, ""),
    ],
)  # fmt: skip
def test_term_without_effect_on_the_motion_is_refused(values: dict[str, Any], hint: str):
    text = rich_refusal(values)

    assert text.startswith(f"'{values['field']} ")
    assert "has no effect: with and without it this model moved the same to the bit" in text
    assert f"controls.{' ' if hint else ''}{hint} Delete the term, or change the model." in text


def test_effect_at_the_edge_of_a_joint_stop_is_found():
    # Only while a joint goes slowly through the first millirad of its stop does the width matter.
    envs.make(
        "arm_reach", randomization=[{"field": "jnt_solimp", "columns": "width", "range": (0.5, 2)}]
    )


def test_effect_of_a_term_may_need_another_term():
    Worlds(
        {"field": "opt.density", "operation": "set", "range": (1, 2)},
        {"field": "opt.wind", "operation": "set", "range": (1, 2)},
        xml=RICH,
    )


def test_term_that_a_later_one_overwrites_is_refused():
    assert refusal(
        {"field": "dof_frictionloss", "match": "elbow", "range": (0.5, 2)},
        {"field": "dof_frictionloss", "operation": "set", "range": (0.1, 0.2)},
    ) == (
        "randomization: 'dof_frictionloss scale [0.5, 2.0] on elbow' changes nothing: a later term "
        "sets the same numbers. Delete one of them."
    )


def test_term_that_a_later_one_overwrites_but_for_round_off_is_refused():
    # The inertia is scaled by f, then by set/(mass f), whose product has other last bits than one.
    assert refusal(
        {"field": "mass", "match": "upper", "range": (0.8, 1.2)},
        {"field": "mass", "match": "upper", "operation": "set", "range": (1.5, 2.5)},
    ).endswith("a later term sets the same numbers. Delete one of them.")


def test_term_that_sets_the_nominal_values_is_refused():
    assert refusal({"field": "dof_frictionloss", "operation": "set", "match": "elbow",
                    "range": (0.2, 0.2)}) == (
        "randomization: 'dof_frictionloss set [0.2, 0.2] on elbow' changes nothing: the nominal "
        "values are these. Widen the range or delete the term."
    )  # fmt: skip


# --- what we ship and teach ---------------------------------------------------------------------


def test_every_line_of_the_guide_is_a_term_of_the_shipped_arm():
    lines = re.findall(r"^ +- (\{.*\})", envs.randomization.__doc__ or "", re.MULTILINE)
    terms = [yaml.safe_load(line) for line in lines]
    assert len(terms) == 18

    # Tilting and friction act through the jaws and through gravity; a desk_arm has them all.
    envs.make("arm_reach", randomization=[term for term in terms if "grip" not in term])
    envs.make("velocity", randomization=[term for term in terms if "grip" in term])


def test_shipped_randomization_draws_every_number_but_the_delay_by_itself():
    config = yaml.safe_load(CONFIG.read_text())
    env = envs.make("arm_reach", num_envs=3, randomization=config["randomization"])
    env.reset()
    fields, model = env._simulation.field, env.deployment.robot.model

    for name, low, high in (
        ("body_mass", 0.8, 1.25),
        ("dof_frictionloss", 0.5, 2.0),
        ("dof_armature", 0.7, 1.4),
        ("actuator_damping", 0.7, 1.3),
    ):
        nominal = torch.from_numpy(getattr(model, name).copy())
        factors = (fields(name) / nominal)[:, nominal > 0]
        assert len(factors.unique()) == factors.numel() >= 18, name
        assert low <= factors.min() < factors.max() <= high, name
    delay = fields("actuator_delay")
    assert [len(row.unique()) for row in delay] == [1, 1, 1]
    assert len(delay.unique()) == 3
    assert 0.005 <= delay.min() < delay.max() <= 0.03
