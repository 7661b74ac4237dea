"""Faults planted in terms: each is caught before training, and the term is named."""

from collections.abc import Sequence
from typing import Any

import mujoco
import pytest
import torch
from torch import Tensor

from deploy.errors import ConfigError
from envs.batch_simulation import BatchSimulation
from envs.draws import Draws, Stream
from envs.randomization import Randomization, read_terms
from envs.randomization.physics.fields import FieldTerm
from envs.randomization.physics.inertia import PayloadTerm
from envs.randomization.physics.initial import InitialTerm
from envs.randomization.physics.numbers import Change, Numbers, Values
from envs.randomization.physics.pushes import PushTerm
from tests.envs.randomization.worlds import WALKER, walkers

MASS = {"field": "mass", "range": (0.8, 1.2)}
KP = {"field": "kp", "range": (0.8, 1.2)}
DAMPING = {"field": "dof_damping", "match": ["left", "right"], "range": (0.5, 2.0)}
PAYLOAD = {"payload": "base", "range": (0.1, 1.0)}
PUSH = {"push": "base", "columns": ["x", "y"], "range": (-1, 1), "interval_s": (1, 2)}
ANGLE = {"initial": "angle", "range": (-0.3, 0.3)}


class Planted:
    """A change with a fault, in place of what a term binds to."""

    def __init__(self, true: Change):
        self._true, self.tables, self.shape = true, true.tables, true.shape

    def corners(self) -> list[Tensor]:
        return self._true.corners()

    def apply(self, values: Values, uniform: Tensor, share: Tensor | None = None) -> None:
        self._true.apply(values, uniform, share)


class DoesNothing(Planted):
    def apply(self, values: Values, uniform: Tensor, share: Tensor | None = None) -> None:
        pass


class Accumulates(Planted):
    """What is applied once more with each call, as by `*=` on a live field."""

    calls = 0

    def apply(self, values: Values, uniform: Tensor, share: Tensor | None = None) -> None:
        super().apply(values, uniform, share)
        self.calls += 1
        for name in self.tables:
            values[name] *= 1 + 1e-6 * self.calls


def plant(monkeypatch: pytest.MonkeyPatch, kind: type[Any], fault: type[Planted]) -> None:
    true = kind.bind
    monkeypatch.setattr(kind, "bind", lambda self, model: fault(true(self, model)))


def refusal(*terms: dict[str, Any]) -> str:
    with pytest.raises(ConfigError) as error:
        walkers(terms)
    return str(error.value)


def test_without_a_fault_all_terms_pass():
    walkers([MASS, KP, DAMPING, PAYLOAD, PUSH, ANGLE])


@pytest.mark.parametrize(
    ("kind", "term", "text"),
    [
        (FieldTerm, MASS, "'mass scale [0.8, 1.2] on *' changes nothing"),
        (PayloadTerm, PAYLOAD, "'payload add [0.1, 1.0] on base' changes nothing"),
        (InitialTerm, ANGLE, "'initial angle add [-0.3, 0.3] on *' has no effect"),
        (PushTerm, PUSH, "'push add [-1.0, 1.0] on base' has no effect"),
    ],
)
def test_planted_term_that_does_nothing(
    monkeypatch: pytest.MonkeyPatch, kind: type, term: dict, text: str
):
    plant(monkeypatch, kind, DoesNothing)

    assert refusal(term).startswith(f"randomization: {text}")


def test_planted_field_term_that_does_nothing_is_named_among_others(
    monkeypatch: pytest.MonkeyPatch,
):
    plant(monkeypatch, FieldTerm, DoesNothing)

    assert refusal(PAYLOAD, MASS).startswith(
        "randomization: 'mass scale [0.8, 1.2] on *' changes nothing"
    )


@pytest.mark.parametrize(
    ("kind", "term", "name"),
    [
        (FieldTerm, MASS, "mass scale [0.8, 1.2] on *"),
        (FieldTerm, {"field": "opt.gravity", "range": (0.5, 2), "columns": "z"}, "opt.gravity"),
        (PayloadTerm, PAYLOAD, "payload add [0.1, 1.0] on base"),
    ],
)
def test_planted_term_that_accumulates_over_episodes(
    monkeypatch: pytest.MonkeyPatch, kind: type, term: dict, name: str
):
    plant(monkeypatch, kind, Accumulates)

    text = refusal(term)
    assert text.startswith(f"randomization: '{name}")
    assert text.endswith("it accumulates: episode 1 has other values after episode 2")


def test_planted_write_that_adds_to_what_a_world_has(monkeypatch: pytest.MonkeyPatch):
    def write(simulation: BatchSimulation, values: Values, worlds: Any) -> None:
        for name, table in values.items():
            field = simulation.field(name)
            field += 0.01 * table.reshape(field.shape)

    monkeypatch.setattr("envs.randomization.physics.model_terms.write_fields", write)

    assert "'kp scale [0.8, 1.2] on *': it accumulates" in refusal(KP)


@pytest.mark.parametrize(
    ("term", "name", "constant"),
    [
        (MASS, "mass scale [0.8, 1.2] on *", "body_subtreemass"),
        ({"field": "dof_armature", "operation": "add", "range": (0.1, 0.2)}, "dof_armature", "inv"),
        (PAYLOAD, "payload add [0.1, 1.0] on base", "body_subtreemass"),
    ],
)
def test_planted_constants_that_are_not_recomputed(
    monkeypatch: pytest.MonkeyPatch, term: dict, name: str, constant: str
):
    monkeypatch.setattr(BatchSimulation, "recompute_constants", lambda self, worlds: None)

    text = refusal(term)
    assert text.startswith(f"randomization: '{name}")
    assert "stale: that is not what mj_setConst derives from the new values" in text
    assert constant in text


def test_planted_diagonal_draw_one_number_for_all_elements(monkeypatch: pytest.MonkeyPatch):
    class Diagonal(Planted, Numbers):
        def __init__(self, true: Numbers):
            self.__dict__.update(true.__dict__)

        def apply(self, values: Values, uniform: Tensor, share: Tensor | None = None) -> None:
            Numbers.apply(self, values, uniform[:, :1].expand_as(uniform), share)

        def corners(self) -> list[Tensor]:
            return Numbers.corners(self)

    plant(monkeypatch, FieldTerm, Diagonal)

    assert refusal(DAMPING) == (
        "randomization: 'dof_damping scale [0.5, 2.0] on ['left', 'right']': one draw moves all of "
        "its 2 numbers, but not `shared`"
    )
    text = refusal({"field": "body_pos", "match": "left", "operation": "add", "range": (-0.1, 0.1)})
    assert "one draw moves all of its 3 numbers" in text
    walkers([DAMPING | {"shared": True}])


def test_planted_generator_that_gives_one_number_to_all(monkeypatch: pytest.MonkeyPatch):
    true = Draws.uniform

    def uniform(self: Draws, streams: Sequence[Stream], env: Tensor, index: Tensor) -> list[Tensor]:
        return [u[:, :1].expand_as(u) for u in true(self, streams, env, index)]

    monkeypatch.setattr(Draws, "uniform", uniform)

    tilt = {"field": "opt.gravity", "operation": "rotate", "range": (0, 0.1)}
    assert "'push add [-1.0, 1.0] on base': one number is drawn for all of its 2" in refusal(PUSH)
    assert "'initial angle add [-0.3, 0.3] on *': one number is drawn for all" in refusal(ANGLE)
    assert "one number is drawn for all of its 3" in refusal(tilt)
    pseudo = {"inertia": "pseudo", "match": "base", "range": (-0.1, 0.1)}
    assert "one number is drawn for all of its 10" in refusal(pseudo)


def test_planted_generator_that_does_not_know_the_worlds(monkeypatch: pytest.MonkeyPatch):
    true = Draws.uniform
    monkeypatch.setattr(
        Draws,
        "uniform",
        lambda self, streams, env, index: true(self, streams, torch.zeros_like(env), index),
    )

    assert refusal(DAMPING).endswith("all worlds have the same draw")


def test_planted_device_that_draws_otherwise_than_the_cpu():
    class Other(Draws):
        def uniform(self, streams: Sequence[Stream], env: Tensor, index: Tensor) -> list[Tensor]:
            return [1 - u for u in super().uniform(streams, env, index)]

    simulation = BatchSimulation(mujoco.MjModel.from_xml_string(WALKER), 2, num_threads=1)
    terms = read_terms([DAMPING], source="terms")
    with pytest.raises(ConfigError, match="its draws on cpu are not the ones of the CPU"):
        Randomization(terms, simulation, Other(0, simulation.device), signals={}, control_dt_s=0.02)


def test_terms_that_only_work_together_are_looked_at_together():
    floor = {"field": "geom_friction", "columns": "slide", "operation": "set", "range": (0.1, 0.2)}
    # The larger of two frictions counts: with the floor's left at 1, the feet's alone do nothing.
    text = refusal(floor | {"match": ["left", "right"]})
    assert "has no effect" in text

    walkers([floor | {"match": ["left", "right"]}, floor | {"match": "floor"}])


def test_proofs_leave_the_run_alone():
    simulation, _ = walkers([MASS, PUSH, ANGLE])

    nominal = simulation.model
    assert torch.equal(simulation.field("body_mass")[0], torch.from_numpy(nominal.body_mass))
    assert not simulation.data("qvel").any()
