"""How high the ground is: at any place, for all worlds at once, on the device of the worlds.

    ground = Ground(field, device)
    ground.height(xy)                # (..., 2) -> (...) [m]

Boxes are looked up in a table of their lattice; slopes are a formula.
"""

import numpy as np
import torch
from torch import Tensor

from envs.terrain.field import Field
from envs.terrain.kinds import CELL, PLATFORM, Blocks

_HOLE_M = 1e-4


class Ground:
    """See the module docstring.

    Args:
        field: the tiles.
        device: where the tables are kept.
    """

    def __init__(self, field: Field, device: torch.device | str):
        self.field = field
        tiles = [tile for row in field.tiles for tile in row]
        of_boxes = np.array([isinstance(tile, Blocks) for tile in tiles])
        rasters = [field.raster(tile) for tile in tiles if isinstance(tile, Blocks)]
        tops = [0.0 if isinstance(tile, Blocks) else field.height_m * tile.top for tile in tiles]
        self._of_boxes = torch.from_numpy(of_boxes).to(device)
        self._place = torch.from_numpy(np.where(of_boxes, np.cumsum(of_boxes) - 1, 0)).to(device)
        self._raster = torch.from_numpy(np.stack(rasters)).float().to(device)
        self._top_m = torch.tensor(tops, device=device)
        self._cell_m = CELL * field.height_m
        self._last = torch.tensor([field.levels - 1, field.columns - 1], device=device)
        self.start_m = torch.from_numpy(field.start_m).to(device)
        """(levels, columns) height of the middle of each tile."""

    def height(self, xy: Tensor) -> Tensor:
        """Of the ground under places (..., 2) of the world, (...) float32 [m]."""
        field = self.field
        u = xy / field.tile_m + 0.5
        which = torch.minimum(u.floor().clamp(min=0), self._last.to(u.dtype))
        local = ((u - which) * field.tile_m).float()  # from the tile's corner
        row, column = which.long().unbind(-1)
        tile = row * field.columns + column
        x, y = local.unbind(-1)
        on_boxes = self._of_raster(self._place[tile], x, y)
        on_slopes = self._top_m[tile] * self._share_of_slope(x, y)
        height = torch.where(self._of_boxes[tile], on_boxes, on_slopes)
        outside = ((local < 0) | (local >= field.tile_m)).any(dim=-1)
        return torch.where(outside, 0.0, height)

    def support(self, xy: Tensor) -> Tensor:
        """The same, but that of their rims over holes: whoever stands in one has fallen."""
        height = self.height(xy)
        return torch.where(height < self.field.floor_m + _HOLE_M, 0.0, height)

    def tile_of(self, level: Tensor, column: Tensor) -> Tensor:
        """(n, 2) middle of tiles, by level and column (n,)."""
        return torch.stack([level, column], dim=-1) * self.field.tile_m

    def _of_raster(self, place: Tensor, x: Tensor, y: Tensor) -> Tensor:
        cells = self._raster.shape[-1]
        i, j = ((v / self._cell_m).long().clamp(0, cells - 1) for v in (x, y))
        return self._raster.view(-1)[(place * cells + j) * cells + i]

    def _share_of_slope(self, x: Tensor, y: Tensor) -> Tensor:
        """How far from the rim to the middle of its tile a place is, in [0, 1]."""
        half, end = self.field.tile_m / 2, self.field.height_m * self.field.config.hardest.end
        distance = torch.maximum((x - half).abs(), (y - half).abs())
        return ((end - distance) / (end - PLATFORM * self.field.height_m)).clamp(0, 1)
