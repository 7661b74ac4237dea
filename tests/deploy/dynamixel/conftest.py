"""A serial port in virtual time that answers from a script."""

import bisect
import math
from collections.abc import Callable, Iterable

import pytest

from deploy.errors import BusError

Answer = bytes | Iterable[tuple[float, bytes]]


class ScriptedPort:
    """The n-th request gets the n-th answer; time passes only while a read waits.

    An answer is bytes that arrive at once, or pieces (seconds after the request, bytes).
    """

    def __init__(self, *answers: Answer):
        self.answers = list(answers)
        self.sent: list[bytes] = []
        self.time_s = 100.0
        self.unplugged = False
        self._arriving: list[tuple[float, bytes]] = []

    def now(self) -> float:
        return self.time_s

    def write(self, data: bytes | bytearray | memoryview) -> None:
        if self.unplugged:
            raise BusError("unplugged")
        self.sent.append(bytes(data))
        if self.answers:
            answer = self.answers.pop(0)
            pieces = [(0.0, answer)] if isinstance(answer, bytes) else answer
            for after_s, piece in pieces:
                bisect.insort(self._arriving, (self.time_s + after_s, piece))

    def read_into(self, buffer: memoryview, deadline_s: float) -> int:
        if self.unplugged:
            raise BusError("unplugged")
        assert math.isfinite(deadline_s)
        if not self._arriving or self._arriving[0][0] > deadline_s:
            self.time_s = max(self.time_s, deadline_s)
            return 0
        at_s, piece = self._arriving.pop(0)
        self.time_s = max(self.time_s, at_s)
        count = min(len(buffer), len(piece))
        buffer[:count] = piece[:count]
        if count < len(piece):
            self._arriving.insert(0, (at_s, piece[count:]))
        return count

    def arrive(self, data: bytes) -> None:
        """Bytes nobody asked for are waiting."""
        self._arriving.insert(0, (self.time_s, data))

    def close(self) -> None:
        self.unplugged = True

    def reopen(self) -> None:
        self.unplugged = False


@pytest.fixture
def scripted_port() -> Callable[..., ScriptedPort]:
    return ScriptedPort
