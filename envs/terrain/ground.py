"""How high the ground is: at any place, for all worlds at once, on the device of the worlds.

    ground = Ground(field, device)
    ground.height(xy)                # (..., 2) -> (...) [m]

Boxes are looked up in a table of their lattice. A height field is triangulated as MuJoCo does it:
each cell is split along the diagonal from its corner of low x and y to that of high x and y.
"""

import numpy as np
import torch
from torch import Tensor

from envs.terrain.field import Field
from envs.terrain.kinds import CELL, Blocks

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
        of_boxes = [isinstance(tile, Blocks) for tile in tiles]
        rasters = [field.raster(tile) for tile in tiles if isinstance(tile, Blocks)]
        surfaces = [field.height_m * tile.heights for tile in tiles if not isinstance(tile, Blocks)]
        self._of_boxes = torch.tensor(of_boxes, device=device)
        place = np.where(of_boxes, np.cumsum(of_boxes), np.cumsum(~np.array(of_boxes))) - 1
        self._place = torch.from_numpy(place).to(device)
        self._raster = _table(rasters, device)
        self._surface = _table(surfaces, device) if surfaces else None
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
        place, of_boxes = self._place[tile], self._of_boxes[tile]
        height = self._of_raster(place * of_boxes, x, y)
        if self._surface is not None:
            surface = self._of_surface(self._surface, place * ~of_boxes, x, y)
            height = torch.where(of_boxes, height, surface)
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

    def _of_surface(self, table: Tensor, place: Tensor, x: Tensor, y: Tensor) -> Tensor:
        points = table.shape[-1]
        scale = (points - 1) / self.field.tile_m
        i, j = ((v * scale).long().clamp(0, points - 2) for v in (x, y))
        a, b = x * scale - i, y * scale - j
        corner = (place * points + j) * points + i
        flat = table.view(-1)
        low, high = flat[corner], flat[corner + points + 1]
        # the third corner of the triangle: that of high x, or of high y
        third = flat[corner + torch.where(a >= b, 1, points)]
        long, short = torch.maximum(a, b), torch.minimum(a, b)
        return low + long * (third - low) + short * (high - third)


def _table(heights: list[np.ndarray], device: torch.device | str) -> Tensor:
    return torch.from_numpy(np.stack(heights)).float().to(device)
