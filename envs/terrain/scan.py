"""What a critic may see of the ground: its height at points around the base, under the base."""

import torch
from torch import Tensor

from envs.terrain.ground import Ground

_AHEAD = (-1.0, 0.0, 1.0, 2.0)
_LEFT = (-1.0, 0.0, 1.0)
_DEEPEST = 2.0


class Scan:
    """A grid of points in the heading frame; all lengths in heights of the robot.

    Args:
        ground: what is seen.
    """

    def __init__(self, ground: Ground):
        self._ground, self._unit = ground, ground.field.height_m
        self._points = torch.tensor(
            [[x, y] for x in _AHEAD for y in _LEFT], device=ground.start_m.device
        )
        self.columns = [f"{x:g}.{y:g}" for x, y in self._points.tolist()]
        mirrored = self._points * torch.tensor([1.0, -1.0], device=self._points.device)
        self.mirror = (self._points[:, None] == mirrored).all(dim=-1).float().cpu()
        """(points, points) the map to what is seen in a mirror."""

    def read(self, base: Tensor, heading: Tensor) -> Tensor:
        """How far the ground lies under the base, less 1; (n, points).

        Args:
            base: (n, 3) places in the world.
            heading: (n, 2) cosine and sine of the yaw.
        """
        cos, sin = heading[:, None].unbind(-1)
        x, y = (self._unit * self._points).unbind(-1)
        turned = torch.stack([cos * x - sin * y, sin * x + cos * y], dim=-1)
        height = self._ground.height(base[:, None, :2] + turned)
        under = (base[:, 2:].float() - height) / self._unit - 1
        return under.clamp(max=_DEEPEST)
