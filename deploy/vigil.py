"""What a controller and its companion share, so that one notices when the other stands still.

    vigil.promise(now_s + 0.3)       # the controller, at every tick: I shall be back by then
    vigil.back_by_s < now_s          # the companion: it is not

A promise is a time on the machine's monotonic clock, which is the same in both processes. Each
field is written in one piece.
"""

import math

VIGIL_BYTES = 16
_DRILLS = ("", "hold", "let_go")


class Vigil:
    """`VIGIL_BYTES` of shared memory, zero at first."""

    def __init__(self, memory: memoryview):
        self._flags, self._back_by = memory[:8], memory[8:VIGIL_BYTES].cast("d")

    @property
    def closed(self) -> bool:
        """The controller has ended as it should: there is nothing more to watch or to write."""
        return bool(self._flags[0])

    def close(self) -> None:
        """See `closed`."""
        self._flags[0] = 1

    @property
    def log_failed(self) -> bool:
        """The companion cannot write the log any more, and watches on."""
        return bool(self._flags[1])

    def fail_log(self) -> None:
        """See `log_failed`."""
        self._flags[1] = 1

    @property
    def drill(self) -> str:
        """What the companion is to show when the promise lapses: "hold", "let_go", or "" for none.

        In a drill it does not end the controller.
        """
        return _DRILLS[self._flags[2]]

    @drill.setter
    def drill(self, kind: str) -> None:
        self._flags[2] = _DRILLS.index(kind)

    def promise(self, back_by_s: float) -> None:
        """To be heard of again by then; inf for no promise."""
        self._back_by[0] = 0.0 if math.isinf(back_by_s) else back_by_s

    @property
    def back_by_s(self) -> float:
        """The promise; inf for none."""
        return self._back_by[0] or math.inf
