"""Domain randomization as data: a list of terms, each one line of YAML.

    - {field: mass, match: "*", operation: scale, range: [0.85, 1.15]}
    - {field: actuator_delay, operation: set, range: [0.005, 0.03]}
    - {signal: joint_velocity, operation: add, range: [-0.05, 0.05], when: step}

A field term names any MuJoCo model field that can differ between worlds, or one of `GROUPS`
(`mass`, `kp`, `kd`), which keep coupled entries consistent. A value is always the nominal one with
the draws of this episode applied, so nothing accumulates over resets. A signal term drawn at
`reset` is a bias, one drawn at every `step` is noise.

A term that names nothing, or cannot change anything, is refused when the environment is made.
"""

from collections.abc import Sequence
from fnmatch import fnmatchcase
from typing import Annotated, Literal, NamedTuple

import mujoco
import torch
from mujoco.batch import MODEL_FIELDS
from pydantic import AfterValidator, model_validator
from torch import Tensor

from deploy.configuration import Section, did_you_mean
from deploy.errors import ConfigError
from envs.draws import Draws, Stream
from envs.simulation import Simulation


class Entry(NamedTuple):
    """Part of a model field: all columns or one, with the sign it takes."""

    field: str
    column: int | None = None
    sign: int = 1


GROUPS: dict[str, tuple[Entry, ...]] = {
    "mass": (Entry("body_mass"), Entry("body_inertia")),
    "kp": (Entry("actuator_gainprm", 0), Entry("actuator_biasprm", 1, -1)),
    "kd": (Entry("actuator_biasprm", 2, -1),),
}
"""Names for entries that only make sense together: inertia follows mass, bias follows gain."""

_OBJECTS = {  # the prefix of a field's name tells what its rows are
    "body": mujoco.mjtObj.mjOBJ_BODY,
    "jnt": mujoco.mjtObj.mjOBJ_JOINT,
    "dof": mujoco.mjtObj.mjOBJ_JOINT,
    "geom": mujoco.mjtObj.mjOBJ_GEOM,
    "site": mujoco.mjtObj.mjOBJ_SITE,
    "tendon": mujoco.mjtObj.mjOBJ_TENDON,
    "actuator": mujoco.mjtObj.mjOBJ_ACTUATOR,
    "sensor": mujoco.mjtObj.mjOBJ_SENSOR,
}


def _ordered(bounds: tuple[float, float]) -> tuple[float, float]:
    if bounds[0] > bounds[1]:
        raise ValueError(f"range must be [low, high], found {list(bounds)}")
    return bounds


class Term(Section):
    """One thing that is randomized."""

    field: str | None = None
    """A MuJoCo model field, or `mass`, `kp`, `kd`."""
    signal: str | None = None
    """Or a signal, e.g. `joint_position`."""
    match: str = "*"
    """Pattern of the element names it applies to."""
    operation: Literal["add", "scale", "set"] = "scale"
    """How a draw changes the nominal value."""
    distribution: Literal["uniform", "log_uniform", "normal"] = "uniform"
    """Law of the draw; `range` is [low, high], for `normal` it is [mean, standard deviation]."""
    range: Annotated[tuple[float, float], AfterValidator(_ordered)]
    shared: bool = False
    """One draw for all matching elements instead of one each."""
    when: Literal["startup", "reset", "step"] = "reset"
    """Drawn once, at each episode, or (signals only) at each step."""

    @model_validator(mode="after")
    def _check(self) -> "Term":
        if (self.field is None) == (self.signal is None):
            raise ValueError("a term needs either `field` or `signal`")
        if self.field and self.when == "step":
            raise ValueError(f"{self.field}: a model field is drawn at `startup` or `reset`")
        if self.signal and (self.operation == "set" or self.when == "startup"):
            raise ValueError(
                f"{self.signal}: a signal takes `add` or `scale`, at `reset` or `step`"
            )
        if self.distribution == "log_uniform" and self.range[0] <= 0:
            raise ValueError(f"log_uniform needs a range above zero, found {list(self.range)}")
        return self

    @property
    def target(self) -> str:
        """Name of the field or signal."""
        return self.field or self.signal or ""

    @property
    def stream(self) -> str:
        """Identity of the term's draws: stable when other terms come or go."""
        return f"{self.target}/{self.match}/{self.operation}/{self.when}"

    def transform(self, uniform: Tensor) -> Tensor:
        """Turn numbers in [0, 1) into draws of this term's distribution."""
        a, b = self.range
        if self.distribution == "uniform":
            return a + (b - a) * uniform
        if self.distribution == "log_uniform":
            return a * (b / a) ** uniform
        return a + b * torch.special.ndtri(uniform.clamp(1e-6, 1 - 1e-6))

    def apply(self, values: Tensor, draw: Tensor) -> Tensor:
        """Apply a draw to nominal values."""
        if self.operation == "add":
            return values + draw
        return values * draw if self.operation == "scale" else draw.expand_as(values)


class FieldRandomization:
    """Draws model fields per world at startup and reset.

    Args:
        simulation: the worlds.
        terms: field terms; others are ignored.
        draws: the run's random numbers.

    Raises:
        ConfigError: an unknown field, a pattern without a match, or a term without effect.
    """

    def __init__(self, simulation: Simulation, terms: Sequence[Term], draws: Draws):
        self._simulation = simulation
        self._draws = draws
        self._terms = [_Bound(term, simulation.model) for term in terms if term.field]
        self._nominal = {
            entry.field: simulation.field(entry.field)[0].clone()
            for bound in self._terms
            for entry in bound.entries
        }
        for bound in self._terms:
            bound.check_effect(self._nominal)
        inputs = mujoco.MjModel._setconst_inputs
        self._recompute = any(name in inputs for name in self._nominal)

    def draw(self, ids: Tensor, episode: Tensor) -> None:
        """Give worlds `ids` (n,) the values of their `episode` (n,)."""
        if not self._terms:
            return
        groups = {
            "reset": [bound for bound in self._terms if bound.term.when == "reset"],
            "startup": [bound for bound in self._terms if bound.term.when == "startup"],
        }
        drawn: dict[str, Tensor] = {}
        for when, bounds in groups.items():
            index = episode if when == "reset" else torch.zeros_like(episode)
            uniforms = self._draws.uniform([bound.stream for bound in bounds], ids, index)
            for bound, uniform in zip(bounds, uniforms, strict=True):
                drawn[bound.term.stream] = bound.term.transform(uniform)
        values = {name: nominal.expand(len(ids), *nominal.shape).clone()
                  for name, nominal in self._nominal.items()}  # fmt: skip
        for bound in self._terms:
            bound.apply(values, drawn[bound.term.stream])
        for name, value in values.items():
            self._simulation.field(name)[ids] = value
        if self._recompute:
            self._simulation.recompute_constants(ids)


class SignalNoise:
    """Bias and noise on the signals the controller sees.

    Args:
        terms: signal terms; others are ignored.
        elements: element names of each signal.
        draws: the run's random numbers.
        env_ids: (num_envs,) ids of all worlds.

    Raises:
        ConfigError: an unknown signal or a pattern without a match.
    """

    _BLOCK = 16  # steps of noise made at once: the generator costs the same for 1 as for 16

    def __init__(
        self,
        terms: Sequence[Term],
        elements: dict[str, list[str]],
        draws: Draws,
        env_ids: Tensor,
    ):
        self._draws = draws
        self._env_ids = env_ids
        self._terms = []
        for term in terms:
            if term.signal is None:
                continue
            if term.signal not in elements:
                hint = did_you_mean(term.signal, elements)
                raise ConfigError(
                    f"randomization: unknown signal {term.signal!r}{hint}; "
                    f"this task has {sorted(elements)}"
                )
            columns = _matching(term, elements[term.signal])
            stream = Stream(term.stream, 1 if term.shared else len(columns))
            self._terms.append((term, torch.tensor(columns), stream))
        self._steps = [entry for entry in self._terms if entry[0].when == "step"]
        self._resets = [entry for entry in self._terms if entry[0].when == "reset"]
        self._biases = [torch.zeros(len(env_ids), len(columns)) for _, columns, _ in self._resets]
        self._noise: list[Tensor] = []
        self._first_step = -self._BLOCK

    def draw(self, ids: Tensor, episode: Tensor) -> None:
        """Draw the biases of worlds `ids` (n,) for their `episode` (n,)."""
        if self._resets:
            uniforms = self._draws.uniform([stream for *_, stream in self._resets], ids, episode)
            for (term, *_), bias, uniform in zip(self._resets, self._biases, uniforms, strict=True):
                bias[ids] = term.transform(uniform).expand(len(ids), bias.shape[1])

    def apply(self, signals: dict[str, Tensor], ids: Tensor, step: int) -> None:
        """Change `signals` of worlds `ids` in place as this step's draws say."""
        for (term, columns, _), bias in zip(self._resets, self._biases, strict=True):
            signal = signals[term.target]
            signal[:, columns] = term.apply(signal[:, columns], bias[ids])
        if self._steps:
            for (term, columns, _), noise in zip(self._steps, self._block(step), strict=True):
                signal = signals[term.target]
                drawn = noise[step - self._first_step, ids]
                signal[:, columns] = term.apply(signal[:, columns], drawn)

    def state_dict(self) -> list[Tensor]:
        """The biases of the running episodes; noise is a function of the step."""
        return [bias.clone() for bias in self._biases]

    def load_state_dict(self, state: list[Tensor]) -> None:
        """Restore what `state_dict` returned."""
        for bias, saved in zip(self._biases, state, strict=True):
            bias.copy_(saved)

    def _block(self, step: int) -> list[Tensor]:
        """Noise (block, num_envs, columns) of every step term around `step`."""
        first = step - step % self._BLOCK
        if first != self._first_step:
            self._first_step = first
            steps = torch.arange(first, first + self._BLOCK).repeat_interleave(len(self._env_ids))
            env = self._env_ids.repeat(self._BLOCK)
            uniforms = self._draws.uniform([stream for *_, stream in self._steps], env, steps)
            self._noise = [
                term.transform(uniform).unflatten(0, (self._BLOCK, -1))
                for (term, *_), uniform in zip(self._steps, uniforms, strict=True)
            ]
        return self._noise


class _Bound:
    """A field term resolved against a model: which rows of which entries."""

    def __init__(self, term: Term, model: mujoco.MjModel):
        self.term = term
        name = term.field or ""
        self.entries = GROUPS.get(name, (Entry(name),))
        for entry in self.entries:
            if entry.field not in MODEL_FIELDS:
                valid = [*GROUPS, *MODEL_FIELDS]
                raise ConfigError(
                    f"randomization: {name!r} is no model field that can differ between worlds"
                    f"{did_you_mean(name, valid)}"
                )
        self.rows = torch.tensor(_matching(term, _row_names(model, self.entries[0].field)))
        self.stream = Stream(term.stream, 1 if term.shared else len(self.rows))

    def apply(self, values: dict[str, Tensor], draw: Tensor) -> None:
        """Change rows of `values[field]` (n, rows, ...) by `draw` (n, rows or 1), in place."""
        for entry in self.entries:
            field = values[entry.field]
            index = (slice(None), self.rows)
            if entry.column is not None:
                index = (*index, entry.column)
            selected = field[index]
            shaped = draw.reshape(*draw.shape, *(1,) * (selected.ndim - 2)).to(field.dtype)
            if self.term.operation != "scale":
                shaped = entry.sign * shaped
            field[index] = self.term.apply(selected, shaped)

    def check_effect(self, nominal: dict[str, Tensor]) -> None:
        """Refuse a term whose extremes leave every value as it was."""
        for u in (0.01, 0.99):
            values = {e.field: nominal[e.field][None].clone() for e in self.entries}
            self.apply(values, self.term.transform(torch.full((1, self.stream.size), u)))
            if any(not torch.equal(values[e.field][0], nominal[e.field]) for e in self.entries):
                return
        raise ConfigError(
            f"randomization: {self.term.target!r} {self.term.operation} {list(self.term.range)} on "
            f"{self.term.match!r} changes nothing: the nominal values are zero or the range is "
            "neutral. Use `add` or `set`, widen the range, or delete the term."
        )


def _row_names(model: mujoco.MjModel, field: str) -> list[str]:
    prefix = field.split("_")[0]
    if prefix == "qpos0":
        prefix = "jnt"
    kind = _OBJECTS.get(prefix)
    rows = len(getattr(model, field)) if not field.startswith("opt.") else 1
    if kind is None:
        return [field] * rows
    names = [
        mujoco.mj_id2name(model, int(kind), index) or ""
        for index in (model.dof_jntid if prefix == "dof" else range(rows))
    ]
    return names


def _matching(term: Term, names: Sequence[str]) -> list[int]:
    indices = [index for index, name in enumerate(names) if fnmatchcase(name, term.match)]
    if not indices:
        raise ConfigError(
            f"randomization: {term.target!r} has no element matching {term.match!r}"
            f"{did_you_mean(term.match, names)}; its elements are {list(names)}"
        )
    return indices
