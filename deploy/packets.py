r"""Packets in a stream of bytes: a mark, a length, and a sum or CRC that says what is sound.

    packets = PacketStream(b"\xff\xff", size_of, decode)
    for packet in packets.feed(received):
        ...

Noise is skipped up to the next mark that begins a sound packet. What fails is given up byte by
byte, so a mark inside garbage costs nothing behind it; inside a packet only its size counts.
"""

from collections.abc import Callable
from typing import Generic, TypeVar

PacketT = TypeVar("PacketT")


class PacketStream(Generic[PacketT]):
    """Cuts a stream into packets, whatever pieces it arrives in.

    Args:
        mark: what every packet begins with.
        size_of: bytes of the packet that a buffer begins with, its mark included; 0 if it cannot
            be one, None if there are too few to tell.
        decode: the packet in so many bytes; None if they are damaged.
    """

    def __init__(
        self,
        mark: bytes,
        size_of: Callable[[bytearray], int | None],
        decode: Callable[[bytes], PacketT | None],
    ):
        self._mark, self._size_of, self._decode = mark, size_of, decode
        self._buffer = bytearray()
        self.crc_errors = 0
        """Packets given up as damaged since construction."""

    def feed(self, data: bytes | bytearray | memoryview) -> list[PacketT]:
        """Append received bytes and return the packets they complete."""
        self._buffer += data
        packets = []
        while (packet := self._next()) is not None:
            packets.append(packet)
        return packets

    def _next(self) -> PacketT | None:
        buffer = self._buffer
        while (start := buffer.find(self._mark)) >= 0:
            del buffer[:start]
            size = self._size_of(buffer)
            if size is None or len(buffer) < size:
                return None
            if size:
                packet = self._decode(bytes(buffer[:size]))
                if packet is not None:
                    del buffer[:size]
                    return packet
                self.crc_errors += 1
            del buffer[:1]  # not a packet after all; the next mark may lie inside it
        del buffer[: max(0, len(buffer) - len(self._mark) + 1)]  # the rest may begin a mark
        return None


def fixed_size(mark: bytes, size: int, sound: Callable[[bytes], bool]) -> PacketStream[bytes]:
    """Packets of `size` bytes for which `sound` is true, as they are."""
    return PacketStream(mark, lambda buffer: size, lambda data: data if sound(data) else None)
