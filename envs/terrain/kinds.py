"""Kinds of uneven ground, each a pure function of how hard it is.

    stairs_up(0.5, hardest, rng)         # Blocks: boxes
    slope_up(1.0, hardest, rng)          # Pyramid: convex meshes

Nothing is a height field. Its risers would lean over a whole cell; and MuJoCo takes it for prisms
side by side, so that a foot that sinks in near an edge between two of them is pushed aside: on one
that was flat a walking quadruped fell 16 times in 4 minutes, on a box never. Every tile is level at
0 along its rim and level around its middle, where robots start. Lengths are shares of the robot's
height, x and y from the middle. Stairs, slopes and gaps run round the middle, so that they are met
in whichever direction a robot walks; after Rudin et al., "Learning to walk in minutes using
massively parallel deep reinforcement learning", CoRL 2021.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

PLATFORM, RIM = 2.0, 2.0
"""Half the side of the level middle, and width of the level rim."""
CELL = 0.05
"""Edges of boxes lie on a lattice of this, so that a table of it says exactly what is where."""
MAX_SLOPE = 1.0
"""Steepest rise by run of slopes, and of rough ground from cell to cell."""
_BLOCK_SIDES = (1.0, 3.0)
BLOCK_DENSITY = 0.6 / float(np.mean(_BLOCK_SIDES)) ** 2
"""Blocks for each square height of ground."""
BAR, _STONE = 2.0, 1.5
"""Width of what lies between two gaps, and of a stone."""


class Hardest(NamedTuple):
    """The sizes at difficulty 1; see `TerrainConfig`."""

    half: float
    """Half the side of a tile."""
    slope: float
    """Rise by run."""
    roughness: float
    mesh: float
    riser: float
    tread: float
    block: float
    gap: float

    @property
    def end(self) -> float:
        """Where the rim begins."""
        return self.half - RIM


class Blocks(NamedTuple):
    """The highest of the boxes that cover a place; a hole where none does."""

    boxes: np.ndarray
    """(n, 5) x from, x to, y from, y to, top."""


class Pyramid(NamedTuple):
    """Four slopes from the level middle to the rim."""

    top: float
    """Height of the middle; negative where it is a pit."""


Tile = Blocks | Pyramid


def slope_down(difficulty: float, hardest: Hardest, rng: np.random.Generator) -> Pyramid:
    """From the middle, every way leads down."""
    return Pyramid(difficulty * hardest.slope * (hardest.end - PLATFORM))


def slope_up(difficulty: float, hardest: Hardest, rng: np.random.Generator) -> Pyramid:
    """The same upside down."""
    return Pyramid(-slope_down(difficulty, hardest, rng).top)


def rough(difficulty: float, hardest: Hardest, rng: np.random.Generator) -> Blocks:
    """Paved: each cell of a mesh is higher than the rim by a draw of its own."""
    mesh = float(_snap(hardest.mesh))
    low = mesh * np.arange(int(2 * hardest.end / mesh)) - _snap(hardest.end)
    x, y = (v.ravel() for v in np.meshgrid(low, low))
    tops = difficulty * hardest.roughness * rng.uniform(0, 1, len(x))
    boxes = np.stack([x, x + mesh, y, y + mesh, tops], axis=1)
    return Blocks(np.vstack([square(hardest.half, 0.0), boxes[_clear(boxes)]]))


def steps(difficulty: float, hardest: Hardest, rng: np.random.Generator) -> Blocks:
    """Boxes of random sizes and heights strewn over the ground, over each other too."""
    count = round(BLOCK_DENSITY * (2 * hardest.end) ** 2)
    sides = _snap(rng.uniform(*_BLOCK_SIDES, (count, 2)))
    low = _snap(rng.uniform(-hardest.end, hardest.end - sides))
    tops = difficulty * hardest.block * rng.uniform(0.2, 1, count)
    (x0, y0), (x1, y1) = low.T, (low + sides).T
    boxes = np.stack([x0, x1, y0, y1, tops], axis=1)
    return Blocks(np.vstack([square(hardest.half, 0.0), boxes[_clear(boxes)]]))


def stairs_down(difficulty: float, hardest: Hardest, rng: np.random.Generator) -> Blocks:
    """A stepped pyramid: from the middle, every way leads down."""
    rise, edges = difficulty * hardest.riser, _tread_edges(hardest)
    squares = [square(edge, rise * (len(edges) - i)) for i, edge in enumerate(edges)]
    return Blocks(np.vstack([square(hardest.half, 0.0), *squares]))


def stairs_up(difficulty: float, hardest: Hardest, rng: np.random.Generator) -> Blocks:
    """The same upside down: a stepped pit."""
    rise, edges = difficulty * hardest.riser, _tread_edges(hardest)
    outer = [*edges[1:], hardest.half]
    frames = [
        frame(a, b, rise * (i + 1 - len(edges)))
        for i, (a, b) in enumerate(zip(edges, outer, strict=True))
    ]
    return Blocks(np.vstack([square(edges[0], -rise * len(edges)), *frames]))


def gaps(difficulty: float, hardest: Hardest, rng: np.random.Generator) -> Blocks:
    """Ditches without a floor to speak of, one round the other."""
    gap = max(float(_snap(difficulty * hardest.gap)), CELL)
    starts = np.arange(PLATFORM + gap, hardest.end - BAR - gap + CELL / 2, BAR + gap)
    bars = [frame(start, start + BAR, 0.0) for start in starts]
    last = frame(float(_snap(starts[-1])) + BAR + gap, hardest.half, 0.0)
    return Blocks(np.vstack([square(PLATFORM, 0.0), *bars, last]))


def stones(difficulty: float, hardest: Hardest, rng: np.random.Generator) -> Blocks:
    """Stepping stones, without a floor to speak of between them."""
    pitch = _STONE + max(_snap(difficulty * hardest.gap), CELL)
    count = int(2 * hardest.end / pitch)
    low = _snap(-count / 2 * pitch) + pitch * np.arange(count)
    x, y = (v.ravel() for v in np.meshgrid(low, low))
    tops = np.zeros_like(x)
    boxes = np.stack([x, x + _STONE, y, y + _STONE, tops], axis=1)
    outside = np.abs(boxes[:, :4]).max(axis=1) > PLATFORM
    rim = frame(hardest.end, hardest.half, 0.0)
    return Blocks(np.vstack([square(PLATFORM, 0.0), boxes[outside], rim]))


KINDS: dict[str, Callable[[float, Hardest, np.random.Generator], Tile]] = {
    make.__name__: make
    for make in (slope_up, slope_down, rough, steps, stairs_up, stairs_down, gaps, stones)
}


def _clear(boxes: np.ndarray) -> np.ndarray:
    """(n,) bool: boxes that leave the level middle alone."""
    x0, x1, y0, y1, _ = boxes.T
    return np.maximum(np.maximum(x0, -x1), np.maximum(y0, -y1)) >= PLATFORM - CELL / 2


def _tread_edges(hardest: Hardest) -> np.ndarray:
    """Where each riser is."""
    return _snap(np.arange(PLATFORM, hardest.end - hardest.tread + CELL / 2, hardest.tread))


def square(half: float, top: float) -> np.ndarray:
    """One box around the middle."""
    return np.array([[-half, half, -half, half, top]])


def frame(inner: float, outer: float, top: float) -> np.ndarray:
    """Four boxes between two squares; edges on the lattice."""
    a, b = _snap(inner), _snap(outer)
    sides = [[-b, b, a, b], [-b, b, -b, -a], [a, b, -a, a], [-b, -a, -a, a]]
    return np.array([[*side, top] for side in sides])


def _snap(lengths: Any) -> np.ndarray:
    return np.round(np.asarray(lengths) / CELL) * CELL
