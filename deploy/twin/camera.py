"""The camera over a twin's desk: tells where the thing is, as a tracker would.

    camera = Camera(twin, send)
    camera.advance(now_s)        # every few milliseconds; sends what `deploy.commands.udp` takes

It takes 30 pictures a second. In some the thing is not found. A position is known some time after
its picture, is off by how well the camera was measured in and by what a pixel is worth, and is sent
with its age.
"""

import json
import os
from collections import deque
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from deploy.commands.udp import TOKEN_VARIABLE
from deploy.twin.robot import Twin

PICTURE_S = 1 / 30
PIXEL_M = 0.0005
"""Standard deviation of a position: a third of a pixel, of 640 that see 0.9 m."""


class Camera:
    """See the module docstring.

    Args:
        twin: with a thing before it.
        send: takes a datagram.
    """

    def __init__(self, twin: Twin, send: Callable[[bytes], object]):
        self._twin, self._send = twin, send
        self._rng = np.random.default_rng(twin.parameters.seed)
        self._next_s = twin.time_s
        self._underway: deque[tuple[float, NDArray[np.float64]]] = deque()
        token = os.environ.get(TOKEN_VARIABLE)
        self._signed = {"token": token} if token else {}

    def advance(self, now_s: float) -> None:
        """Take the picture that is due, of a twin that has got to now; send what is known."""
        parameters, thing = self._twin.parameters, self._twin.thing_position
        if now_s >= self._next_s and thing is not None:
            self._next_s = max(self._next_s + PICTURE_S, now_s)
            noise, luck = self._rng.normal(0.0, PIXEL_M, 3), self._rng.random()
            if luck >= parameters.camera_missed:
                self._underway.append((now_s, thing + parameters.camera_error_m + noise))
        while self._underway and self._underway[0][0] + parameters.camera_latency_s <= now_s:
            taken_s, seen = self._underway.popleft()
            message = {"signals": {"object_position": seen.tolist()}, "age_s": now_s - taken_s}
            self._send(json.dumps(message | self._signed).encode())
