"""Randomization: the right numbers change, by the right law, and no term silently does nothing."""

from typing import Any

import mujoco
import pytest
import torch
from torch import Tensor

from deploy.configuration import validate
from deploy.errors import ConfigError
from envs.batch_simulation import BatchSimulation
from envs.draws import Draws
from envs.randomization import FieldRandomization, Term

CPU = torch.device("cpu")
NUM_ENVS = 4

# Nominal values that are easy to multiply; `plain` has neither friction nor a delay buffer.
ROBOT = """
<mujoco>
  <option timestep="0.005"/>
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
    <position name="shoulder" joint="shoulder" kp="10" kv="1" nsample="4" delay="0.01"/>
    <position name="elbow" joint="elbow" kp="20" kv="2" nsample="4" delay="0.01"/>
    <position name="plain" joint="plain" kp="5"/>
  </actuator>
</mujoco>
"""
BODIES = {"world": 0, "upper": 1, "lower": 2, "hand": 3}


class Worlds:
    """Four worlds of `ROBOT` with field terms."""

    def __init__(self, *terms: dict[str, Any], xml: str = ROBOT, seed: int = 0):
        self.simulation = BatchSimulation(
            mujoco.MjModel.from_xml_string(xml), NUM_ENVS, num_threads=1
        )
        parsed = [Term(**term) for term in terms]
        self.randomization = FieldRandomization(self.simulation, parsed, Draws(seed, CPU))

    def draw(self, *ids: int, episode: int = 1) -> "Worlds":
        """Start an episode in worlds `ids`, all of them if none are given."""
        worlds = torch.tensor(ids or range(NUM_ENVS))
        self.randomization.draw(worlds, torch.full_like(worlds, episode))
        return self

    def field(self, name: str) -> Tensor:
        return self.simulation.field(name).clone()


def term(**values: Any) -> Term:
    """A term as it comes from `run.yaml`."""
    return validate(values, Term, source="run.yaml")


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

    worlds.simulation.reset(torch.arange(NUM_ENVS), target, torch.zeros_like(target), target)
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
    worlds.simulation.reset(torch.arange(NUM_ENVS), pose, pose, pose)

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
    return term(signal="joint_position", operation="add", **values).transform(
        torch.tensor([0, 0.25, 0.5, 0.75])
    )


def test_uniform_law():
    assert draws(range=[2, 6]).tolist() == [2, 3, 4, 5]


def test_log_uniform_law_has_the_geometric_mean_in_the_middle():
    # 1/4 · 16^u: the factors 1/2 and 2 are equally likely.
    assert draws(range=[0.25, 4], distribution="log_uniform").tolist() == [0.25, 0.5, 1, 2]


def test_normal_law_has_its_mean_and_standard_deviation():
    normal = term(signal="joint_position", operation="add", distribution="normal", range=[0.1, 0.5])
    uniform = torch.tensor([0.5, 0.8413447, 0.1586553, 0.9772499])  # 0, 1, -1 and 2 σ

    assert normal.transform(uniform).tolist() == pytest.approx([0.1, 0.6, -0.4, 1.1], abs=1e-5)


def test_normal_law_is_finite_for_every_uniform_number():
    normal = term(signal="joint_position", operation="add", distribution="normal", range=[0, 1])

    extremes = normal.transform(torch.tensor([0.0, 1 - 2**-24]))

    assert extremes.isfinite().all()
    assert extremes.abs().max() < 6


def test_mean_of_a_normal_law_may_be_greater_than_its_standard_deviation():
    normal = term(signal="joint_position", operation="add", distribution="normal", range=[1.0, 0.1])

    assert normal.transform(torch.tensor([0.5])).item() == pytest.approx(1)


def test_negative_standard_deviation_is_refused():
    with pytest.raises(ConfigError, match="standard deviation"):
        term(signal="joint_position", operation="add", distribution="normal", range=[-1.0, -0.5])


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


def test_signal_cannot_be_set():
    assert term_refusal(signal="joint_position", operation="set", range=[0, 1]) == (
        "run.yaml: (top level): joint_position: a signal takes `add` or `scale`, at `reset` or "
        "`step`"
    )


def test_signal_cannot_be_drawn_at_startup():
    assert term_refusal(signal="joint_position", when="startup", range=[0, 1]) == (
        "run.yaml: (top level): joint_position: a signal takes `add` or `scale`, at `reset` or "
        "`step`"
    )


def test_field_cannot_be_drawn_at_every_step():
    assert term_refusal(field="mass", when="step", range=[0.5, 2]) == (
        "run.yaml: (top level): mass: a model field is drawn at `startup` or `reset`"
    )


@pytest.mark.parametrize("names", [{}, {"field": "mass", "signal": "joint_position"}])
def test_term_names_either_a_field_or_a_signal(names: dict[str, str]):
    assert term_refusal(**names, range=[0, 1]) == (
        "run.yaml: (top level): a term needs either `field` or `signal`"
    )


def test_reversed_range_is_refused():
    assert term_refusal(field="mass", range=[2, 1]) == (
        "run.yaml: range: range must be [low, high], found [2.0, 1.0]"
    )


def test_log_uniform_range_must_be_above_zero():
    assert term_refusal(field="mass", distribution="log_uniform", range=[0, 1]) == (
        "run.yaml: (top level): log_uniform needs a range above zero, found [0.0, 1.0]"
    )


def test_unknown_key_is_refused_with_the_nearest_name():
    assert term_refusal(field="mass", rnge=[0, 1]).startswith(
        "run.yaml: (top level): unknown key 'rnge' (did you mean 'range'?); valid keys are "
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
        f"run.yaml: (top level): {name}: a factor could become negative (-1); raise the low end "
        "of the range, or use `add`"
    )


@pytest.mark.parametrize("target", [{"field": "kp"}, {"signal": "joint_velocity"}])
@pytest.mark.parametrize(("operation", "value"), [("scale", 1), ("add", 0)])
def test_neutral_term_is_refused(target: dict[str, str], operation: str, value: float):
    (name,) = target.values()
    assert term_refusal(**target, operation=operation, range=[value, value]) == (
        f"run.yaml: (top level): {name}: {operation} {[float(value)] * 2} changes nothing; widen "
        "the range or delete the term"
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
