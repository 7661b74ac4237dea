"""The board's clock as the host's: offset and drift from frames that carry both.

    clocks.add(sent_s, echo, heard_us, answered_us, received_s)
    clocks.host_s(board_us)                  # when that was, on the host's clock

Each exchange gives four times, as in NTP (RFC 5905, section 8): with the way there as long as the
way back, the board's clock is ahead by ((heard - sent) + (answered - received)) / 2. Ways that
take long are rarely equal, so of each window only the exchange with the shortest round trip
counts, and a straight line through the last windows gives offset and drift. The error of the offset
is at most half of that round trip.
"""

import math
from collections import deque

import numpy as np

WINDOW_S = 1.0
WINDOWS = 30
_WRAP_US = 1 << 32


def unwrap_us(time_us: int, near_us: float) -> float:
    """The time [us] that is `time_us` in its 32 bits and nearest to `near_us`."""
    ahead = (time_us - int(near_us)) % _WRAP_US
    return int(near_us) + (ahead if ahead < _WRAP_US // 2 else ahead - _WRAP_US)


def fit_line(x: np.ndarray, y: np.ndarray) -> tuple[float, float]:
    """Least squares of y on x, both (n,): the value at the last x, and the slope."""
    if len(x) < 2:
        return float(y[-1]), 0.0
    middle = x.mean()
    slope = float((x - middle) @ (y - y.mean()) / ((x - middle) @ (x - middle)))
    return float(y.mean() + slope * (x[-1] - middle)), slope


class Clocks:
    """See the module docstring; times with `_s` are the host's, with `_us` the board's."""

    def __init__(self) -> None:
        self.offset_s = math.nan
        """Board's clock less host's, at the last exchange that counts; nan before the first."""
        self.drift = 0.0
        """What the board's clock gains per second on the host's [s/s]."""
        self.round_trip_s = math.inf
        """Of the best exchange of the present window."""
        self._kept: deque[tuple[float, float]] = deque(maxlen=WINDOWS)
        self._window_s = -math.inf
        self._board_us = math.nan
        self._at_s = 0.0

    def add(self, sent_s: float, heard_us: int, answered_us: int, received_s: float) -> None:
        """Take an exchange: sent and received by the host, heard and answered by the board."""
        near = self._board_us if math.isfinite(self._board_us) else heard_us
        answered = unwrap_us(answered_us, near)
        heard = unwrap_us(heard_us, answered)
        self._board_us = answered
        there_s, back_s = heard * 1e-6 - sent_s, answered * 1e-6 - received_s
        round_trip_s = there_s - back_s
        begins = received_s - self._window_s > WINDOW_S
        if not begins and round_trip_s >= self.round_trip_s:
            return
        if begins:
            self._window_s = received_s
        else:
            self._kept.pop()
        self.round_trip_s = round_trip_s
        self._kept.append((received_s, (there_s + back_s) / 2))
        times, offsets = np.array(self._kept).T
        self.offset_s, self.drift = fit_line(times, offsets)
        self._at_s = received_s

    def host_s(self, board_us: int) -> float:
        """When it was `board_us` on the board, on the host's clock; nan before any exchange."""
        if math.isnan(self.offset_s):
            return math.nan
        board_s = unwrap_us(board_us, self._board_us) * 1e-6
        host_s = board_s - self.offset_s
        return host_s - self.drift * (host_s - self._at_s)
