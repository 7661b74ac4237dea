"""Packets of a fixed length that begin with a mark and end with a sum of eight bits."""

from collections.abc import Callable, Iterator


class PacketScanner:
    """Finds packets in a stream: the mark, then whatever makes `check` true.

    What fails the check is given up byte by byte, so a mark inside garbage costs nothing behind it.
    A sum of eight bits lets one damaged packet of 256 through: see `deploy.imu.signals`.
    """

    def __init__(self, mark: bytes, length: int, check: Callable[[bytes], bool]):
        """Begin between two packets."""
        self._mark, self._length, self._check = mark, length, check
        self._rest = b""
        self.damaged = 0
        """Marks that no sound packet followed."""

    def feed(self, received: bytes | memoryview) -> Iterator[bytes]:
        """The packets that `received` completes."""
        data = self._rest + bytes(received)
        at, mark, length = 0, self._mark, self._length
        while (found := data.find(mark, at)) >= 0:
            if found + length > len(data):
                self._rest = data[found:]
                return
            packet = data[found : found + length]
            if self._check(packet):
                self._rest, at = b"", found + length
                yield packet
            else:
                self.damaged += 1
                at = found + 1
        ends_with_a_beginning = len(mark) > 1 and len(data) > at and data.endswith(mark[:1])
        self._rest = mark[:1] if ends_with_a_beginning else b""
