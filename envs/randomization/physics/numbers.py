"""What a term becomes once it is bound to a model: a function of uniform numbers on tables.

    change.apply(values, uniform)     # values["dof_damping"] (worlds, rows, columns), in place

A table is a model field, or a part of the state (`qpos`, `qvel`, `xfrc_applied`) with one column
for each number. Nothing here keeps state: values are nominal ones with this episode's draws
applied, so nothing accumulates. Where a range has not yet grown to its full width, a change is
made by its `share`, from 0 (none) to 1 (all of it).
"""

import itertools
from collections.abc import Sequence
from typing import Literal, NamedTuple, Protocol

import torch
from torch import Tensor

from envs.randomization.law import Law
from envs.rotation import directions, tilt_vectors, turn_quaternions

Values = dict[str, Tensor]
"""Tables (worlds, rows, columns) by name."""
Operation = Literal["add", "scale", "set", "rotate"]
NEUTRAL = {"add": 0.0, "scale": 1.0, "rotate": 0.0}


class Place(NamedTuple):
    """Numbers in a table."""

    table: str
    rows: Tensor
    """(r, 1) or (r, c)."""
    columns: Tensor
    """(c,) or (r, c)."""
    sign: int = 1
    """Of the numbers, where the quantity is stored with a minus."""

    def take(self, values: Values) -> Tensor:
        """The numbers (worlds, r, c)."""
        return values[self.table][:, self.rows, self.columns]

    def put(self, values: Values, numbers: Tensor) -> None:
        """Write them."""
        values[self.table][:, self.rows, self.columns] = numbers


class Part(NamedTuple):
    """Numbers that are drawn, and others that keep their proportion to them."""

    lead: Place
    followers: tuple[Place, ...] = ()


class Change(Protocol):
    """A term bound to a model."""

    tables: list[str]
    """The tables that it changes."""
    shape: tuple[int, int]
    """Uniform numbers it needs for each world, as rows and columns; each is a draw of its own."""

    def apply(self, values: Values, uniform: Tensor, share: Tensor | None = None) -> None:
        """Change tables in place.

        Args:
            values: the tables (worlds, rows, columns) of a group of worlds.
            uniform: (worlds, rows * columns) numbers in [0, 1].
            share: how much of the full change to make, (); None for all.
        """
        ...

    def corners(self) -> list[Tensor]:
        """Uniform numbers (rows * columns,) that lead to the extremes of what is limited."""
        ...


class Numbers:
    """Numbers that are added to, scaled or set; every part by the same draws.

    Args:
        parts: what is changed.
        operation: add, scale or set.
        law: of the draws.
        shape: draws along rows and columns; 1 where they are shared.
        joint_columns: whether the columns must fit each other, as the ends of a range do.
    """

    def __init__(
        self,
        parts: Sequence[Part],
        operation: Operation,
        law: Law,
        shape: tuple[int, int],
        *,
        joint_columns: bool = False,
    ):
        self.parts, self.shape = parts, shape
        self.tables = [p.table for part in parts for p in (part.lead, *part.followers)]
        self._operation: Operation = operation
        self._law, self._joint_columns = law, joint_columns

    def apply(self, values: Values, uniform: Tensor, share: Tensor | None = None) -> None:
        """See `Change.apply`."""
        draw = self._law.transform(uniform.double()).unflatten(1, self.shape)
        for lead, followers in self.parts:
            before = lead.take(values)
            after = lead.sign * combine(self._operation, lead.sign * before, draw)
            if share is not None:
                after = torch.lerp(before.double(), after, share.double())
            lead.put(values, after.to(before.dtype))
            for place in followers:
                ratio = torch.where(before == 0, 1, after / before)
                place.put(values, place.take(values) * ratio)

    def corners(self) -> list[Tensor]:
        """See `Change.corners`."""
        rows, columns = self.shape
        ends = itertools.product((0.0, 1.0), repeat=columns if self._joint_columns else 1)
        return [torch.tensor(end * (columns // len(end))).repeat(rows) for end in ends]


class Rotation:
    """Orientations turned about any axis of their own, or vectors tilted to any side.

    Args:
        place: (r, 1) rows and all columns of quaternions or vectors.
        law: of the angle [rad].
        rows: draws along rows; 1 if they are shared.
    """

    def __init__(self, place: Place, law: Law, rows: int):
        self.tables, self.shape = [place.table], (rows, 3)
        self._place, self._law = place, law

    def apply(self, values: Values, uniform: Tensor, share: Tensor | None = None) -> None:
        """See `Change.apply`."""
        numbers = uniform.double().unflatten(1, self.shape)
        before = self._place.take(values)
        angle = self._law.transform(numbers[..., 0]).expand(before.shape[:-1])
        if share is not None:
            angle = angle * share.double()
        toward = directions(numbers[..., 1:]).expand(*before.shape[:-1], 3)
        turn = turn_quaternions if before.shape[-1] == 4 else tilt_vectors
        self._place.put(values, turn(before.double(), angle, toward).to(before.dtype))

    def corners(self) -> list[Tensor]:
        """See `Change.corners`; a rotation keeps lengths, so no limit can be violated."""
        return [torch.zeros(self.shape[0] * self.shape[1])]


def combine(operation: Operation, values: Tensor, draw: Tensor) -> Tensor:
    """Values with draws, of the same or a broadcastable shape, applied."""
    if operation == "add":
        return values + draw
    return values * draw if operation == "scale" else draw.expand_as(values)
