"""Proof, before training, that every term does what it says; on worlds of its own, on the CPU.

`check_extremes` refuses values that no robot has. `check_draws` starts episodes of each term alone,
and refuses one that accumulates, leaves derived constants stale, or gives one number to all that
should have their own. `check_effects` refuses a term without which the model would move the same,
to the bit, and one whose numbers a later one overwrites.
"""

import copy
import itertools
from collections.abc import Iterator, Mapping, Sequence

import mujoco
import numpy as np
import torch
from mujoco.batch import MODEL_FIELDS, SimulationError
from torch import Tensor

from deploy.errors import ConfigError
from envs.batch_simulation import BatchSimulation
from envs.draws import Draws, Stream
from envs.randomization.physics.limits import check_limits
from envs.randomization.physics.model_terms import (
    Bound,
    ModelTerms,
    nominal_values,
    related,
    spread,
)
from envs.randomization.physics.numbers import Numbers, Values
from envs.randomization.physics.probe import Probe
from envs.servos import SUPPLY_RESISTANCE, with_servos
from envs.simulation import Simulation
from envs.worlds import every

_TRIALS = 12  # chances for a term to show its effect
_WORLDS = 4
_ROUNDING = 1e-12
_COMPARED = {"actuator_gainprm", "actuator_biasprm"}  # a limit is about both
_DERIVED = [name for name in mujoco.MjModel._setconst_outputs if name in MODEL_FIELDS]


def check_extremes(terms: Sequence[Bound], model: mujoco.MjModel) -> None:
    """Refuse terms on the model that together could reach what no robot has.

    Values rise or fall all the way with each draw, and so does what a limit compares: the worst
    is where every draw is at one of its ends. The range is the full one, also of a term that grows.

    Raises:
        ConfigError: names the field, the element, the value and the terms.
    """
    nominal = nominal_values(model, terms)
    for together in related(terms, _COMPARED):
        corners = list(itertools.product(*(bound.change.corners() for bound in together)))
        values = spread(nominal, len(corners))
        for bound, uniforms in zip(together, zip(*corners, strict=True), strict=True):
            bound.change.apply(values, torch.stack(uniforms))
        touched = dict.fromkeys(name for bound in together for name in bound.change.tables)
        check_limits(model, {name: values[name] for name in touched}, [b.term for b in together])


def check_draws(
    terms: Sequence[Bound], model: mujoco.MjModel, draws: Draws, device: torch.device
) -> None:
    """Refuse terms whose episodes are not what their draws say; each is looked at alone.

    Args:
        terms: terms on the model, on initial states, and pushes.
        model: the nominal model.
        draws: the run's random numbers.
        device: where these are made; they must be the ones of the CPU.

    Raises:
        ConfigError: names the term and what is wrong with it.
    """
    ids = torch.arange(_WORLDS)
    at_work, draws = draws, Draws(draws.seed, torch.device("cpu"), share=draws.share)
    for bound in terms:
        if bound.term.acts == "model":
            _check_episodes(bound, model, draws)
            nominal = nominal_values(model, [bound])
        else:
            nominal = state_tables(model)
        (uniform,) = draws.uniform([bound.stream], ids, ids * 0)
        (on_device,) = at_work.uniform([bound.stream], ids.to(device), ids.to(device) * 0)
        if not torch.equal(on_device.cpu(), uniform):
            raise _refusal(bound, f"its draws on {device} are not the ones of the CPU")
        _check_own_draws(bound, nominal, uniform)


def check_effects(terms: Sequence[Bound], model: mujoco.MjModel) -> None:
    """Refuse terms without which every world would move the same, to the bit.

    Raises:
        ConfigError: names the term.
    """
    probe = Probe(model, terms)
    idle = list(range(1, 1 + len(terms)))
    for trial in range(_TRIALS):
        uniforms = _trial_draws(terms, trial)
        if trial == 0:
            _check_overwritten(probe, terms, uniforms, model)
        try:
            moved = probe.differ(uniforms, idle, trial)
        except SimulationError as error:
            raise ConfigError(f"randomization: MuJoCo refuses the values: {error}") from error
        idle = [world for world in idle if world not in moved]
        if not idle:
            return
    bound = terms[idle[0] - 1]
    raise ConfigError(
        f"randomization: '{bound.term}' has no effect: with and without it this model moved "
        f"the same to the bit, {_TRIALS} times for a second from random poses with random "
        f"controls.{_hint(bound.change.tables[0])} Delete the term, or change the model."
    )


def state_tables(model: mujoco.MjModel) -> Values:
    """Nominal tables (rows, columns) of the state, for terms that act on it."""
    return {
        "qpos": torch.from_numpy(model.qpos0.copy())[:, None],
        "qvel": torch.zeros(model.nv, 1, dtype=torch.float64),
        "xfrc_applied": torch.zeros(model.nbody, 6, dtype=torch.float64),
    }


def _check_episodes(bound: Bound, model: mujoco.MjModel, draws: Draws) -> None:
    """Episode 1 is the same again after episode 2, and has the constants MuJoCo gives it."""
    once = bound.term.model_copy(update={"when": "reset", "interval_s": None})
    simulation, worlds = with_servos(BatchSimulation(model, _WORLDS, num_threads=1)), every(_WORLDS)
    work = ModelTerms([bound._replace(term=once, share=None)], simulation, draws, control_dt_s=1.0)
    found = []
    try:
        for episode in (1, 2, 1):
            work.begin(worlds, torch.full_like(worlds.ids, episode))
            found.append({name: simulation.field(name).clone() for name in bound.change.tables})
    except SimulationError as error:
        raise ConfigError(f"randomization: MuJoCo refuses the values: {error}") from error
    first, _, again = found
    if any(not torch.equal(first[name], again[name]) for name in first):
        raise _refusal(bound, "it accumulates: episode 1 has other values after episode 2")
    if name := _stale_constant(simulation, first):
        raise _refusal(
            bound,
            f"it leaves {name!r} stale: that is not what mj_setConst derives from the new values",
        )


def _stale_constant(simulation: Simulation, fields: Mapping[str, Tensor]) -> str:
    """Name of a derived field of world 0 that is not what MuJoCo makes of the values, or ''."""
    model = copy.copy(simulation.model)
    for name, values in fields.items():
        if name.startswith("opt."):
            setattr(model.opt, name[4:], values[0].numpy())
        elif name != SUPPLY_RESISTANCE:  # which MuJoCo does not know
            getattr(model, name)[:] = values[0].numpy()
    mujoco.mj_setConst(model, mujoco.MjData(model))
    for name in _DERIVED:
        expected = getattr(model, name)
        if not expected.size:
            continue
        found = simulation.field(name)[0].numpy()
        if not np.array_equal(found, expected[: len(found)]):  # worlds share the meshes' `bvh_aabb`
            return name
    return ""


def _check_own_draws(bound: Bound, nominal: Values, uniform: Tensor) -> None:
    """Numbers that have draws of their own lie at different places of their ranges."""
    change = bound.change
    if bound.stream.size > 1 and all(len(_unlike(world)) == 1 for world in uniform):
        raise _refusal(bound, f"one number is drawn for all of its {bound.stream.size}")
    if not isinstance(change, Numbers):
        return
    lead = change.parts[0].lead
    ends = []
    for numbers in (torch.zeros_like(uniform), torch.ones_like(uniform), uniform):
        values = spread(nominal, len(uniform))
        change.apply(values, numbers)
        ends.append(lead.take(values))
    low, high, drawn = ends
    moving = (high != low)[0]  # (rows, columns): zero stays zero when it is scaled
    place = ((drawn - low) / torch.where(high == low, 1, high - low))[:, moving]
    own = moving if change.shape[1] > 1 else moving.any(dim=1)
    independent = int(own.sum()) if change.shape[0] > 1 else int(moving.any(dim=0).sum())
    independent = 1 if change.shape == (1, 1) else independent
    if independent > 1 and all(len(_unlike(world)) == 1 for world in place):
        raise _refusal(bound, f"one draw moves all of its {independent} numbers, but not `shared`")
    if len(place[0]) and len(_unlike(place[:, 0])) == 1:
        raise _refusal(bound, "all worlds have the same draw")


def _unlike(numbers: Tensor) -> Tensor:
    return numbers.round(decimals=6).unique()


def _check_overwritten(
    probe: Probe, terms: Sequence[Bound], uniforms: Mapping[Stream, Tensor], model: mujoco.MjModel
) -> None:
    """Refuse a term whose numbers are the same with and without it."""
    values = probe.values(uniforms)
    for world, bound in enumerate(terms, 1):
        if bound.term.acts != "model" or any(
            not torch.allclose(table[0], table[world], _ROUNDING, 0) for table in values.values()
        ):
            continue
        nominal = nominal_values(model, [bound])
        alone = spread(nominal, 1)
        bound.change.apply(alone, uniforms[bound.stream])
        if any(not torch.equal(alone[name][0], nominal[name]) for name in nominal):
            reason = "a later term sets the same numbers. Delete one of them."
        elif bound.term.describe()["operation"] == "set":
            reason = "the nominal values are these. Widen the range or delete the term."
        else:
            reason = "the nominal values are zero. Use `add` or `set`, or delete the term."
        raise ConfigError(f"randomization: '{bound.term}' changes nothing: {reason}")


def _trial_draws(terms: Sequence[Bound], trial: int) -> dict[Stream, Tensor]:
    """Numbers for each term: in turn random, all at the high and all at the low end."""
    generator = torch.Generator().manual_seed(trial)

    def numbers() -> Iterator[Tensor]:
        for bound in terms:
            random = torch.rand(1, bound.stream.size, generator=generator)
            yield (random, torch.ones_like(random), torch.zeros_like(random))[trial % 3]

    return dict(zip([bound.stream for bound in terms], numbers(), strict=True))


def _refusal(bound: Bound, problem: str) -> ConfigError:
    return ConfigError(f"randomization: '{bound.term}': {problem}")


def _hint(field: str) -> str:
    if field in ("opt.wind", "geom_fluid"):
        return " It acts through the air, and opt.density and opt.viscosity are zero."
    if field.endswith(("_rgba", "_user")) or field.startswith(("mat_", "light_", "cam_")):
        return " It is only looked at."
    if field.startswith("key_"):
        return " Keyframes are read by name, not from the worlds' models."
    if field == "sensor_noise":
        return " MuJoCo adds no noise; use a `signal` term with `when: step`."
    return ""
