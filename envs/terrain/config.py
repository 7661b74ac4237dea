"""Settings of uneven ground; every length is a share of the robot's own height.

That height is the base's over the ground at home, 117 mm for the microduck and 129 mm for the
quadruped, so that one set of numbers is about as hard for either.
"""

import math
from typing import Annotated

from pydantic import Field, model_validator

from deploy.configuration import Section, did_you_mean
from deploy.quantities import Seed
from envs.terrain.kinds import BAR, BLOCK_DENSITY, KINDS, MAX_SLOPE, PLATFORM, RIM, Hardest

Share = Annotated[float, Field(ge=0, le=2)]
_SMALLEST_TILE = 4 * math.ceil(PLATFORM + RIM)
_MOST_BOXES = 10_000


class TerrainConfig(Section):
    """Uneven ground: tiles in rows by level, from flat to hardest, and in columns by kind."""

    kinds: Annotated[list[str], Field(min_length=1, max_length=10)] = [
        *("slope_up", "slope_down", "rough", "steps", "stairs_up", "stairs_down")
    ]
    """Columns, of `envs.terrain.KINDS`; a kind named twice gets twice as many worlds."""
    levels: Annotated[int, Field(ge=2, le=10)] = 5
    """Rows; the first is flat."""
    tile: Annotated[int, Field(ge=_SMALLEST_TILE, le=60)] = 26
    """Side of a tile."""
    slope_rad: Annotated[float, Field(ge=0, le=math.atan(MAX_SLOPE))] = 0.1
    """Hardest slope."""
    roughness: Share = 0.08
    """At its hardest, cells of rough ground are up to this much higher than others."""
    mesh: Annotated[float, Field(ge=0.5, le=4)] = 1.5
    """Side of these cells; a fine mesh costs time, for each cell is a box."""
    riser: Share = 0.12
    """Hardest step of stairs."""
    tread: Annotated[float, Field(ge=0.1, le=10)] = 1.0
    """Its depth."""
    block: Share = 0.1
    """Highest of the blocks that `steps` strews about."""
    gap: Share = 0.3
    """Widest gap, of `gaps`, and between `stones`."""
    rise: bool = True
    """Whether worlds start at the flat level and rise as they succeed; else each episode is on a
    random tile, as in evaluation."""
    seed: Seed = 0
    """Of what is random in the ground."""

    @model_validator(mode="after")
    def _check(self) -> "TerrainConfig":
        for kind in self.kinds:
            if kind not in KINDS:
                raise ValueError(
                    f"unknown kind {kind!r}{did_you_mean(kind, KINDS)}; there are "
                    f"{', '.join(KINDS)}"
                )
        if "rough" in self.kinds and self.roughness > MAX_SLOPE * self.mesh:
            raise ValueError(
                f"rough ground is steeper than its mesh: cells {self.mesh} wide that differ by "
                f"{self.roughness} are pillars; expected roughness to be at most {MAX_SLOPE:g} "
                "times mesh. Lower roughness, or widen mesh"
            )
        room = self.hardest.end - PLATFORM  # of a tile, from its level middle to its level rim
        for key, needed, kinds in (
            ("tread", self.tread, {"stairs_up", "stairs_down"}),
            ("gap", 2 * self.gap + BAR, {"gaps"}),
        ):
            if needed > room and kinds & set(self.kinds):
                wide = 2 * math.ceil(needed + PLATFORM + RIM)
                raise ValueError(
                    f"{key} {getattr(self, key)} finds no room on a tile of {self.tile}, which has "
                    f"{room:g} between its level middle and its level rim; expected at least "
                    f"{needed:g}. Lower {key}, or set tile to {wide}"
                )
        side = self.tile - 2 * RIM
        cells = {"rough": (side / self.mesh) ** 2, "steps": BLOCK_DENSITY * side**2}
        boxes = (self.levels - 1) * sum(cells.get(kind, 0.0) for kind in self.kinds)
        if boxes > _MOST_BOXES:
            raise ValueError(
                f"the field would have {boxes:.0f} boxes of rough ground and steps, expected at "
                f"most {_MOST_BOXES}, which are built in seconds. Lower levels, tile or the "
                "number of kinds, or widen mesh"
            )
        return self

    @property
    def hardest(self) -> Hardest:
        """What the kinds are made by."""
        return Hardest(
            half=self.tile / 2,
            slope=math.tan(self.slope_rad),
            roughness=self.roughness,
            mesh=self.mesh,
            riser=self.riser,
            tread=self.tread,
            block=self.block,
            gap=self.gap,
        )
