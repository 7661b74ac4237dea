"""The servos' ear, fed with what ROBOTIS' SDK sends and with what a bad cable makes of it."""

import pytest

from deploy.twin.receiver import BYTE_TIMEOUT_S, Receiver, Request
from tests.deploy.dynamixel.vendor import Wire, sdk

PING = bytes.fromhex("FFFFFD00010300 01194E")
"""To id 1; eManual, "Ping"."""
GOAL = bytes.fromhex("FFFFFD00010900 0374000002 0000CA89")
"""Goal position 512 to id 1; eManual, "Write"."""


def hear(data: bytes, receiver: Receiver | None = None, start_s: float = 0.0) -> list[Request]:
    receiver = receiver or Receiver()
    requests = [receiver.feed(byte, start_s + n * 1e-5) for n, byte in enumerate(data)]
    return [request for request in requests if request]


def test_requests_of_the_manual_are_understood():
    assert hear(PING + GOAL) == [
        Request(1, 0x01, b"", sound=True),
        Request(1, 0x03, b"\x74\x00\x00\x02\x00\x00", sound=True),
    ]


@pytest.mark.parametrize("noise", [b"\xff", b"\xff\xff\xff", b"\xff\xff\xfd", b"\x00\xff\xfd\x00"])
def test_noise_in_front_of_a_request_is_skipped(noise):
    assert hear(noise + PING) == hear(PING)


def test_stuffing_of_the_sdk_is_removed():
    """The SDK builds the packet; only its port is ours."""

    port = Wire()
    data = [0xFF, 0xFF, 0xFD, 0xFF, 0xFF, 0xFD, 0x00]
    handler = sdk.Protocol2PacketHandler()
    handler.writeTxOnly(port, 1, 116, len(data), data)
    assert hear(port.bytes) == [Request(1, 0x03, bytes([116, 0, *data]), sound=True)]


def test_wrong_crc_is_a_damaged_request_not_silence():
    (request,) = hear(GOAL[:-1] + b"\x00")
    assert (request.id, request.sound) == (1, False)


def test_damaged_length_costs_one_pause_not_all_requests_behind_it():
    receiver = Receiver()
    longer = PING[:5] + b"\xf0\x01" + PING[7:]  # says 496 bytes
    assert hear(longer, receiver) == []
    assert hear(PING, receiver, start_s=2 * BYTE_TIMEOUT_S) == hear(PING)


@pytest.mark.parametrize("length", [0, 2, 1100, 65535])
def test_impossible_length_is_dropped_at_once(length):
    impossible = PING[:5] + length.to_bytes(2, "little")
    assert hear(impossible + PING) == hear(PING)
