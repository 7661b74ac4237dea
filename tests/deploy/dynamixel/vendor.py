"""ROBOTIS' own SDK on a wire that keeps what is sent; who imports this is skipped without it."""

from __future__ import annotations

import pytest

sdk = pytest.importorskip("dynamixel_sdk")


class Wire(sdk.PortHandler):
    """What was written is what can be read."""

    bytes: bytes = b""

    def __init__(self) -> None:
        super().__init__("")

    def clearPort(self) -> None: ...  # noqa: N802

    def setPacketTimeout(self, _: int) -> None: ...  # noqa: N802

    def writePort(self, packet: list[int]) -> int:  # noqa: N802
        self.bytes = bytes(packet)
        return len(packet)

    def readPort(self, length: int) -> bytes:  # noqa: N802
        piece, self.bytes = self.bytes[:length], self.bytes[length:]
        return piece
