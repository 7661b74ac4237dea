"""The ground of all worlds: a field of tiles, and how it gets into a model.

    field = Field(config, height_m=0.117)
    field.add_to(spec)                       # instead of the floor
    ground = Ground(field, device)           # what a task asks it

All worlds share one model, so the field has a tile for every level (along x) and kind (along y),
and a world is told on which tile to start. The first level is flat, and the origin lies in the
middle of its first tile: the keyframes of a robot stand as they did. The robot's own floor becomes
the bottom of the holes, and what the tiles are made of touches as it does.
"""

from functools import cached_property

import mujoco
import numpy as np

from deploy.errors import ConfigError
from envs.robot import Robot
from envs.terrain.config import TerrainConfig
from envs.terrain.kinds import CELL, KINDS, PLATFORM, Blocks, Pyramid, Tile, frame, square

_GEOM = mujoco.mjtGeom
_DEEP = 1.5
"""How far the floor lies under the lowest that can be stood on, in heights of the robot."""
_BORDER = 8.0
"""How wide the level ground around the field is."""
EDGE = 1.0
"""A robot that is closer than this to the edge of its tile has left it; within the level rim."""
_TOUCH = (
    *("contype", "conaffinity", "condim", "priority", "friction", "solmix", "solref", "solimp"),
    *("margin", "gap"),
)
_LOW_RGB, _HIGH_RGB = np.array([0.55, 0.62, 0.72]), np.array([0.98, 0.96, 0.90])


class Field:
    """See the module docstring.

    Args:
        config: settings.
        height_m: of the robot's base over the ground at home.
    """

    def __init__(self, config: TerrainConfig, height_m: float):
        self.config, self.height_m = config, height_m
        self.tile_m = config.tile * height_m
        """Side of a tile."""
        self.levels, self.columns = config.levels, len(config.kinds)
        self.reach_m = self.tile_m / 2 - EDGE * height_m
        """Way from the middle of a tile, along x or y, that leaves it."""

    @cached_property
    def tiles(self) -> list[list[Tile]]:
        """By level, then by column; lengths in heights of the robot."""
        config, half = self.config, self.config.tile / 2
        rows: list[list[Tile]] = [[Blocks(square(half, 0.0))] * self.columns]
        for level in range(1, self.levels):
            difficulty = level / (self.levels - 1)
            rows.append(
                [
                    KINDS[kind](
                        difficulty, config.hardest, np.random.default_rng([config.seed, level, i])
                    )
                    for i, kind in enumerate(config.kinds)
                ]
            )
        return rows

    @cached_property
    def start_m(self) -> np.ndarray:
        """(levels, columns) height of the middle of each tile."""
        return self.height_m * np.array([[_middle(tile) for tile in row] for row in self.tiles])

    @cached_property
    def floor_m(self) -> float:
        """Height of the floor under everything."""
        lowest = min(
            float(tile.boxes[:, 4].min() if isinstance(tile, Blocks) else tile.top)
            for row in self.tiles
            for tile in row
        )
        return self.height_m * (lowest - _DEEP)

    @cached_property
    def bounds_m(self) -> tuple[float, float, float, float]:
        """Ends of all tiles along x, then along y."""
        half = self.tile_m / 2
        return (
            *(-half, self.levels * self.tile_m - half),
            *(-half, self.columns * self.tile_m - half),
        )

    def centre_m(self, level: int, column: int) -> tuple[float, float]:
        """Middle of a tile."""
        return level * self.tile_m, column * self.tile_m

    def check_reach(self, top_speed: float, *, episode_s: float, command_s: float) -> None:
        """Refuse tiles that no robot could leave in an episode, or that it leaves too soon.

        Args:
            top_speed: the fastest that is asked for [m/s].
            episode_s: length of an episode.
            command_s: shortest time of a command.

        Raises:
            ConfigError: the tile does not fit the way.
        """
        config, reach = self.config, self.reach_m
        tile = f"terrain.tile: a tile of {config.tile} heights of {1000 * self.height_m:.0f} mm"
        if (way := top_speed * command_s) > reach:
            needed = int(np.ceil(2 * (way / self.height_m + EDGE)))
            raise ConfigError(
                f"{tile} ends {reach:.2f} m from its middle, and the shortest of the fastest "
                f"commands ({command_s} s of {top_speed:.2f} m/s) covers {way:.2f} m, so that an "
                f"episode would end before a command has. Set terrain.tile to {needed} or more"
            )
        if (way := top_speed * episode_s) < reach:
            raise ConfigError(
                f"{tile} ends {reach:.2f} m from its middle, and an episode of {episode_s} s at "
                f"{top_speed:.2f} m/s covers {way:.2f} m, so that no world could rise. Lower "
                "terrain.tile, or raise episode_s"
            )

    def add_to(self, spec: mujoco.MjSpec) -> None:
        """Put the field into a robot's model, in place of its floor.

        Raises:
            ConfigError: it has not one floor, a plane at z = 0.
        """
        floor = _floor_of(spec)
        floor.pos = [*floor.pos[:2], self.floor_m]
        floor.size = [0, 0, floor.size[2]]  # without end, also to rays and to the eye
        for level, row in enumerate(self.tiles):
            for column, tile in enumerate(row):
                name = f"terrain_{level}_{column}_{self.config.kinds[column]}"
                middle = np.array(self.centre_m(level, column))
                if isinstance(tile, Pyramid):
                    for geom in self._add_slopes(spec, floor, name, tile):
                        geom.pos = [*middle, 0]
                boxes = self.height_m * self._boxes(tile)
                boxes[:, :4] += np.repeat(middle, 2)
                self._add_boxes(spec, floor, name, boxes)
        x0, x1, y0, y1 = self.bounds_m
        wide = _BORDER * self.height_m
        border = np.array(
            [
                [x0 - wide, x1 + wide, y0 - wide, y0, 0],
                [x0 - wide, x1 + wide, y1, y1 + wide, 0],
                [x0 - wide, x0, y0, y1, 0],
                [x1, x1 + wide, y0, y1, 0],
            ]
        )
        self._add_boxes(spec, floor, "terrain_border", border)

    def _boxes(self, tile: Tile) -> np.ndarray:
        """(n, 5) what of a tile is boxes."""
        if isinstance(tile, Blocks):
            return tile.boxes
        hardest = self.config.hardest
        pit = [square(PLATFORM, tile.top)] if tile.top < 0 else []
        return np.vstack([*pit, frame(hardest.end, hardest.half, 0.0)])

    def raster(self, tile: Blocks) -> np.ndarray:
        """(cells, cells) height [m] of a tile of boxes, rows along y."""
        cells, half = round(self.config.tile / CELL), self.config.tile / 2
        table = np.full((cells, cells), -np.inf)
        for x0, x1, y0, y1, top in tile.boxes:
            i0, i1, j0, j1 = (round((edge + half) / CELL) for edge in (x0, x1, y0, y1))
            table[j0:j1, i0:i1] = np.maximum(table[j0:j1, i0:i1], top)
        return np.maximum(self.height_m * table, self.floor_m)

    def _add_boxes(
        self, spec: mujoco.MjSpec, floor: mujoco.MjsGeom, name: str, boxes: np.ndarray
    ) -> None:
        """Boxes (n, 5) [m] that reach down to the floor; the higher the lighter."""
        lightness = 0.5 + boxes[:, 4] / (2 * np.abs(boxes[:, 4]).max(initial=1e-6))
        for i, (x0, x1, y0, y1, top) in enumerate(boxes):
            half = (top - self.floor_m) / 2
            geom = spec.worldbody.add_geom(
                name=f"{name}_{i}",
                type=_GEOM.mjGEOM_BOX,
                pos=[(x0 + x1) / 2, (y0 + y1) / 2, top - half],
                size=[(x1 - x0) / 2, (y1 - y0) / 2, half],
                rgba=[*_LOW_RGB + lightness[i] * (_HIGH_RGB - _LOW_RGB), 1],
            )
            _touch_like(geom, floor)

    def _add_slopes(
        self, spec: mujoco.MjSpec, floor: mujoco.MjsGeom, name: str, tile: Pyramid
    ) -> list[mujoco.MjsGeom]:
        """Convex meshes, around the origin: one that bulges, or four around a pit."""
        end, unit = self.config.hardest.end, self.height_m
        corners = np.array([(1, 1), (1, -1), (-1, -1), (-1, 1)])
        sides = [corners] if tile.top >= 0 else [np.roll(corners, -i, axis=0)[:2] for i in range(4)]
        geoms = []
        for i, side in enumerate(sides):
            outline = np.vstack([PLATFORM * side, end * side])
            tops = np.repeat([tile.top, 0.0], len(side))
            points = np.vstack(
                [
                    np.column_stack([unit * outline, unit * tops]),
                    np.column_stack([unit * outline, np.full(len(tops), self.floor_m)]),
                ]
            )
            spec.add_mesh(name=f"{name}_{i}", uservert=points.ravel().tolist())
            geoms.append(
                spec.worldbody.add_geom(
                    name=f"{name}_slope_{i}",
                    type=_GEOM.mjGEOM_MESH,
                    meshname=f"{name}_{i}",
                    rgba=[*(_LOW_RGB + _HIGH_RGB) / 2, 1],
                )
            )
            _touch_like(geoms[-1], floor)
        return geoms


def with_terrain(robot: Robot, field: Field) -> mujoco.MjModel:
    """The robot's model on a field.

    Raises:
        ConfigError: see `Field.add_to`.
    """
    own, spec = robot.model, robot.spec()
    try:
        field.add_to(spec)
    except ConfigError as error:
        raise ConfigError(f"robot {robot.name!r} ({robot.path}): {error}") from error
    spec.stat.extent, spec.stat.center = own.stat.extent, own.stat.center  # those of the robot
    return spec.compile()


def _floor_of(spec: mujoco.MjSpec) -> mujoco.MjsGeom:
    planes = [geom for geom in spec.worldbody.geoms if geom.type == _GEOM.mjGEOM_PLANE]
    if len(planes) != 1 or planes[0].pos[2] != 0:
        raise ConfigError(
            f"terrain takes the place of the floor, and the model has {len(planes)} planes at "
            f"heights {[float(plane.pos[2]) for plane in planes]}; expected one plane at z = 0"
        )
    return planes[0]


def _touch_like(geom: mujoco.MjsGeom, floor: mujoco.MjsGeom) -> None:
    """Contacts with it are as with the floor."""
    for name in _TOUCH:
        setattr(geom, name, getattr(floor, name))


def _middle(tile: Tile) -> float:
    """Height of the middle."""
    if isinstance(tile, Pyramid):
        return tile.top
    x0, x1, y0, y1, top = tile.boxes.T
    return float(top[(x0 < 0) & (x1 > 0) & (y0 < 0) & (y1 > 0)].max())
