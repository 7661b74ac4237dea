"""Uneven ground, and how worlds rise through it; see README.md.

`kinds` says what there is as pure functions, `config` how hard it may become, `field` lays the
tiles out and puts them into a model, `ground` tells how high it is anywhere, and `levels` moves
each world up or down as it succeeds.
"""

from envs.terrain.config import TerrainConfig
from envs.terrain.field import Field, with_terrain
from envs.terrain.ground import Ground
from envs.terrain.kinds import KINDS
from envs.terrain.levels import Levels
from envs.terrain.scan import Scan

__all__ = ["KINDS", "Field", "Ground", "Levels", "Scan", "TerrainConfig", "with_terrain"]
