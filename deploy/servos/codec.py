"""What `deploy.servos.bus` and `deploy.servos.sync_read` need of a family's protocol.

The modules `deploy.dynamixel.protocol` and `deploy.feetech.protocol` are codecs: pure functions on
bytes, without a port, a clock or the meaning of registers.
"""

from collections.abc import Sequence
from typing import Any, Protocol


class Status(Protocol):
    """A servo's reply."""

    @property
    def id(self) -> int:
        """Whose."""
        ...

    @property
    def data(self) -> bytes:
        """What was read."""
        ...

    @property
    def error(self) -> int:
        """Why the servo refuses, 0 if it does not."""
        ...

    @property
    def alert(self) -> bool:
        """The servo reports a fault of its own; the data is valid all the same."""
        ...


class Parser(Protocol):
    """Cuts a stream of bytes into packets, whatever pieces it arrives in."""

    crc_errors: int
    """Packets dropped because they were damaged."""

    def feed(self, data: bytes | bytearray | memoryview) -> Sequence[Any]:
        """Append received bytes and return the packets they complete."""
        ...


class Codec(Protocol):
    """A family's protocol: a module of pure functions on bytes."""

    STATUS_OVERHEAD: int
    """Bytes of a reply around its data."""
    IDENTITY_SIZE: int
    """Bytes of data in the reply to `identify`."""
    SPARE_BEFORE: bool
    """Whether registers lie before the block read every tick; else behind it."""
    DAMAGED: int
    """Error code of a servo that got a damaged request."""
    BROADCAST_ID: int

    def identify(self, id: int) -> bytes:
        """Ask a servo what it is."""
        ...

    def identity(self, data: bytes) -> tuple[int, int]:
        """Model number and firmware version in the reply."""
        ...

    def read(self, id: int, address: int, length: int) -> bytes:
        """Ask for bytes."""
        ...

    def write(self, id: int, address: int, data: bytes) -> bytes:
        """Write bytes; to BROADCAST_ID nobody answers."""
        ...

    def sync_read(
        self, ids: Sequence[int], address: int, length: int, *, fast: bool = False
    ) -> bytes:
        """Ask several servos for the same bytes; fast: for one merged reply."""
        ...

    def longest_status(self, length: int) -> int:
        """Length field of an intact status with `length` bytes of data, at most."""
        ...

    def parser(self, max_length: int | None = None, request: bytes = b"") -> Parser:
        """Of what comes after `request` was sent, whose echo is skipped."""
        ...

    def is_reply(self, packet: Any) -> bool:
        """Whether a packet is a servo's, and not an echo of ours."""
        ...

    def statuses(self, packet: Any, merged_length: int) -> Sequence[Status]:
        """What servos say in a packet; nothing in one that is no reply."""
        ...

    def error_message(self, code: int) -> str:
        """An error code in words."""
        ...
