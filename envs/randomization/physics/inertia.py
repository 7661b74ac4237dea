"""Mass, centre of mass and inertia of a body, changed together: always those of some real body.

    - {inertia: pseudo, match: torso, range: [-0.05, 0.05]}             # all ten parameters
    - {inertia: pseudo, match: torso, columns: shift, range: [-0.3, 0.3]}
    - {payload: hand, at: [0.0, 0.0, 0.05], range: [0.0, 0.2]}          # kg at a point

`pseudo` draws the ten log-Cholesky parameters of a body's pseudo-inertia J (4 x 4), relative to
nominal: J = L U U' L' with L from the nominal body and

    U = exp(mass) [[exp(stretch_x), shear_xy, shear_xz, shift_x], ..., [0, 0, 0, 1]].

J stays positive definite, whatever is drawn. All parameters are pure numbers, in the principal axes
of the body: 0.05 of `mass` is about 10 % of the mass; of `stretch`, 5 % of the extent along an
axis; of `shift`, 5 % of the body's radius of gyration by which its centre of mass moves.

Source: Rucker & Wensing, "Smooth Parameterization of Rigid-Body Inertia", IEEE RA-L 7(2), 2022.
A payload is a point mass: parallel axes. Bodies that MuJoCo simplified need
`simple="false"` in the MJCF; MuJoCo says so.
"""

from typing import Any, Literal, NamedTuple

import mujoco
import torch
from pydantic import model_validator
from torch import Tensor

from deploy.errors import ConfigError
from deploy.quantities import Length
from envs.randomization.law import Law
from envs.randomization.physics.fields import check_effect
from envs.randomization.physics.model_fields import model_field
from envs.randomization.physics.numbers import Change, Values
from envs.randomization.term import ModelTerm, Pattern, matching_rows
from envs.rotation import diagonalise, multiply_quaternions, to_matrix

Group = Literal["mass", "stretch", "shear", "shift"]
_GROUPS = {"mass": [0], "stretch": [1, 2, 3], "shear": [4, 5, 6], "shift": [7, 8, 9]}
_TABLES = ["body_mass", "body_ipos", "body_inertia", "body_iquat"]
_WIDEST = 1.0  # e^2, seven times the mass


class Inertia(NamedTuple):
    """Of bodies (...): what MuJoCo stores."""

    mass: Tensor
    """(...) [kg]."""
    com: Tensor
    """(..., 3) centre of mass in the body frame [m]."""
    moments: Tensor
    """(..., 3) principal moments about it [kg m^2]."""
    axes: Tensor
    """(..., 4) orientation of the principal axes in the body frame, wxyz."""


class InertiaTerm(ModelTerm):
    """Log-Cholesky parameters of the pseudo-inertia."""

    inertia: Literal["pseudo"]
    """The parameterisation."""
    match: Pattern = "*"
    """Pattern or patterns of the names of bodies."""
    columns: Group | list[Group] | None = None
    """Which parameters: `mass`, `stretch`, `shear`, `shift`; all of them if none is named."""

    @model_validator(mode="after")
    def _check(self) -> "InertiaTerm":
        if max(map(abs, self.extremes)) > _WIDEST:
            raise ValueError(
                f"inertia: parameters are logarithms and lie between -1 and 1, found "
                f"{list(self.range)} with extremes {list(self.extremes)}"
            )
        check_effect(self, "add")
        return self

    @property
    def target(self) -> str:
        """See `RandomTerm.target`."""
        return "inertia"

    @property
    def identity(self) -> str:
        """See `RandomTerm.identity`."""
        return f"inertia/{self.match}/{self.columns}/{self.when}"

    def describe(self) -> dict[str, Any]:
        """See `RandomTerm.describe`."""
        return self.summary(self.match, "pseudo", columns=self.columns)

    def bind(self, model: mujoco.MjModel) -> Change:
        """Resolve names in a model.

        Raises:
            ConfigError: a pattern without a match.
        """
        listed = self.columns if isinstance(self.columns, list) else [self.columns]
        groups = _GROUPS if self.columns is None else [group for group in listed if group]
        columns = sorted({column for group in groups for column in _GROUPS[group]})
        return _PseudoInertia(_bodies(self, self.match, model), torch.tensor(columns), self)


class PayloadTerm(ModelTerm):
    """A point mass [kg] on a body."""

    payload: Pattern
    """Pattern or patterns of the names of bodies that carry one each."""
    at: tuple[Length, Length, Length] = (0.0, 0.0, 0.0)
    """Where, in the frame of the body [m]."""

    @model_validator(mode="after")
    def _check(self) -> "PayloadTerm":
        if self.extremes[0] < 0:
            raise ValueError(f"payload: a mass is not negative, found {list(self.range)} kg")
        check_effect(self, "add")
        return self

    @property
    def target(self) -> str:
        """See `RandomTerm.target`."""
        return "payload"

    @property
    def identity(self) -> str:
        """See `RandomTerm.identity`."""
        return f"payload/{self.payload}/{self.at}/{self.when}"

    def describe(self) -> dict[str, Any]:
        """See `RandomTerm.describe`."""
        return self.summary(self.payload, "add")

    def bind(self, model: mujoco.MjModel) -> Change:
        """See `InertiaTerm.bind`."""
        return _Payload(_bodies(self, self.payload, model), torch.tensor(self.at).double(), self)


class _PseudoInertia:
    """See `InertiaTerm`."""

    def __init__(self, rows: Tensor, columns: Tensor, law: Law):
        self.tables, self.shape = _TABLES, (len(rows), len(columns))
        self._rows, self._columns, self._law = rows, columns, law

    def apply(self, values: Values, uniform: Tensor, share: Tensor | None = None) -> None:
        """See `Change.apply`."""
        drawn = self._law.transform(uniform.double()).unflatten(1, self.shape)
        if share is not None:
            drawn = drawn * share
        parameters = torch.zeros(*drawn.shape[:2], 10, dtype=drawn.dtype, device=drawn.device)
        parameters[..., self._columns] = drawn
        _put(values, self._rows, deform(_take(values, self._rows), parameters))

    def corners(self) -> list[Tensor]:
        """See `Change.corners`."""
        size = self.shape[0] * self.shape[1]
        return [torch.zeros(size), torch.ones(size)]


class _Payload:
    """See `PayloadTerm`."""

    def __init__(self, rows: Tensor, at: Tensor, law: Law):
        self.tables, self.shape = _TABLES, (len(rows), 1)
        self._rows, self._at, self._law = rows, at, law

    def apply(self, values: Values, uniform: Tensor, share: Tensor | None = None) -> None:
        """See `Change.apply`."""
        mass = self._law.transform(uniform.double())
        if share is not None:
            mass = mass * share
        _put(values, self._rows, load(_take(values, self._rows), mass, self._at.to(mass.device)))

    def corners(self) -> list[Tensor]:
        """See `Change.corners`."""
        return [torch.zeros(self.shape[0]), torch.ones(self.shape[0])]


def deform(body: Inertia, parameters: Tensor) -> Inertia:
    """Apply log-Cholesky parameters (..., 10), relative to a body, to it.

    They are mass, stretch x, y, z, shear xy, yz, xz and shift x, y, z; see the module.
    """
    mass, stretch, shear, shift = parameters.split([1, 3, 3, 3], dim=-1)
    second = (body.moments.sum(-1, keepdim=True) / 2 - body.moments).clamp(min=0)  # ∫ x², y², z² dm
    xy, yz, xz = shear.unbind(-1)
    upper = torch.diag_embed(stretch.exp())
    upper[..., 0, 1], upper[..., 1, 2], upper[..., 0, 2] = xy, yz, xz
    root = second.sqrt()[..., None] * upper
    factor = (2 * mass).exp()
    covariance = factor[..., None] * (root @ root.mT)
    spread, turn = diagonalise(covariance)
    moments = spread.sum(-1, keepdim=True) - spread
    offset = (second / body.mass[..., None]).sqrt() * shift
    com = body.com + (to_matrix(body.axes) @ offset[..., None])[..., 0]
    axes = multiply_quaternions(body.axes, turn)
    return Inertia(body.mass * factor[..., 0], com, moments, axes)


def load(body: Inertia, mass: Tensor, at: Tensor) -> Inertia:
    """A body with a point mass (...) [kg] fixed to it at a point (..., 3) of its frame [m]."""
    total = body.mass + mass
    lever = at - body.com
    com = body.com + (mass / total)[..., None] * lever
    lever = (to_matrix(body.axes).mT @ lever[..., None])[..., 0]  # in the principal axes
    reduced = body.mass * mass / total  # about the common centre of both
    square = (lever * lever).sum(-1, keepdim=True)
    point = torch.diag_embed(square.expand_as(lever)) - lever[..., :, None] * lever[..., None, :]
    tensor = torch.diag_embed(body.moments) + reduced[..., None, None] * point
    moments, turn = diagonalise(tensor)
    return Inertia(total, com, moments, multiply_quaternions(body.axes, turn))


def _bodies(term: ModelTerm, match: Pattern, model: mujoco.MjModel) -> Tensor:
    """Rows of the bodies a term is about; all of them must have a mass."""
    names = model_field(model, "body_mass").rows
    named = [name if model.body_mass[row] > 0 else None for row, name in enumerate(names)]
    rows = matching_rows(term.target, named, match)
    if not rows:
        raise ConfigError(f"randomization: '{term}': this model has no body with a mass")
    return torch.tensor(rows)


def _take(values: Values, rows: Tensor) -> Inertia:
    mass, com, moments, axes = (values[name][:, rows] for name in _TABLES)
    return Inertia(mass[..., 0], com, moments, axes)


def _put(values: Values, rows: Tensor, body: Inertia) -> None:
    for name, table in zip(_TABLES, (body.mass[..., None], *body[1:]), strict=True):
        values[name][:, rows] = table
