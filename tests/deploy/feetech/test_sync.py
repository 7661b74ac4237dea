"""Several Feetech servos per tick: what a damaged reply costs, and what it must not pass for."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from deploy.feetech import protocol, registers
from deploy.feetech.device import from_sign
from deploy.feetech.protocol import PacketParser, Status
from deploy.feetech.sync import Replies, SyncRead, SyncWrite
from deploy.servos.bus import ServoBus
from tests.deploy.dynamixel.conftest import ScriptedPort

IDS = (1, 2, 3)
ADDRESS, LENGTH = registers.PRESENT_POSITION.address, 4


def replies(ids: tuple[int, ...] = IDS, offset: int = 0, faults: int = 0) -> bytes:
    """Position 1000 times the id, speed -id."""
    return b"".join(
        Status(
            id,
            registers.PRESENT_POSITION.encode(1000 * id + offset)
            + registers.PRESENT_SPEED.encode(-id),
            faults,
        ).encode()
        for id in ids
    )


class Rig:
    """Positions of IDS over a bus whose n-th request gets the n-th answer."""

    def __init__(self, *answers: bytes):
        self.port = ScriptedPort(*answers)
        self.bus = ServoBus(self.port, 1_000_000, protocol, return_delay_s=0)
        self.reading = SyncRead(self.bus, IDS, ADDRESS, LENGTH)

    def read(self) -> int:
        return self.reading.read(self.port.now() + 0.02)

    @property
    def positions(self) -> list[int]:
        return self.reading.data.copy().view("<u2")[:, 0].tolist()


def test_every_servo_answers_one_request():
    rig = Rig(replies())
    assert rig.read() == 3
    assert rig.positions == [1000, 2000, 3000]
    assert rig.port.sent == [protocol.sync_read(IDS, ADDRESS, LENGTH)]
    assert not rig.reading.alert.any()


def test_echo_of_the_request_is_skipped():
    rig = Rig(protocol.sync_read(IDS, ADDRESS, LENGTH) + replies())
    assert rig.read() == 3
    assert rig.positions == [1000, 2000, 3000]


def test_servo_that_was_not_heard_is_asked_again():
    spoilt = bytearray(replies())
    spoilt[15] ^= 0x40  # of servo 2
    rig = Rig(bytes(spoilt), replies((2,)))
    assert rig.read() == 3
    assert rig.positions == [1000, 2000, 3000]
    assert rig.port.sent[1] == protocol.sync_read([2], ADDRESS, LENGTH)
    assert (rig.bus.statistics.crc_errors, rig.bus.statistics.retried) == (1, 1)


def test_silent_servo_goes_last_when_the_rest_is_asked_again():
    rig = Rig(replies((1,)), replies((3,)), b"")
    assert rig.read() == 2
    assert rig.reading.fresh.tolist() == [True, False, True]
    assert rig.port.sent[1] == protocol.sync_read([3, 2], ADDRESS, LENGTH)


def test_reading_after_an_unanswered_one_asks_for_bytes_before_those_it_needs():
    # so that a reply that comes late is told by its length
    rig = Rig(b"", b"", b"", b"")
    assert rig.read() == 0
    rig.port.sent.clear()
    longer = b"".join(
        Status(id, b"\x01" + registers.PRESENT_POSITION.encode(1000 * id) + b"\0\0").encode()
        for id in IDS
    )
    rig.port.answers[:] = [replies(offset=7) + longer]  # a late one first
    assert rig.read() == 3
    assert rig.port.sent[0] == protocol.sync_read(IDS, ADDRESS - 1, LENGTH + 1)
    assert rig.positions == [1000, 2000, 3000]
    assert rig.bus.statistics.late == 3


def test_complaint_does_not_cost_the_reading():
    rig = Rig(replies(faults=registers.Fault.OVERLOAD))
    assert rig.read() == 3
    assert rig.reading.alert.all()
    assert rig.positions == [1000, 2000, 3000]


@given(places=st.dictionaries(st.integers(0, 29), st.integers(1, 255), max_size=4))
def test_all_replies_at_once_are_judged_as_one_by_one(places: dict[int, int]):
    sent = bytearray(replies())
    for place, bits in places.items():
        sent[place] ^= bits
    buffer = Replies(IDS, LENGTH)
    buffer.buffer[:] = sent
    every = buffer.check(len(sent))
    size = len(sent) // 3
    for row, id in enumerate(IDS):
        packets = PacketParser().feed(sent[row * size : (row + 1) * size])
        alone = [p for p in packets if p.id == id and len(p.parameters) == LENGTH]
        assert (every or buffer.sound[row]) == bool(alone)


def test_goals_are_sent_as_feetech_has_them():
    rig = Rig()
    writing = SyncWrite(rig.bus, IDS, registers.GOAL_POSITION)
    for goals in ([2048, 0, 4095], [1, 2, 3]):
        writing.write(np.array(goals, np.uint16))
        data = {id: registers.GOAL_POSITION.encode(g) for id, g in zip(IDS, goals, strict=True)}
        assert rig.port.sent[-1] == protocol.sync_write(42, 2, data)
    with pytest.raises(TypeError):
        writing.write(np.array([1, 2, 3], np.int32))  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize(
    ("bit", "register"), [(15, registers.PRESENT_SPEED), (10, registers.PRESENT_LOAD)]
)
def test_arrays_have_the_sign_that_registers_have(bit: int, register: registers.Register):
    raw = np.arange(0, 65536, 7, dtype=np.uint16)
    one_by_one = [register.decode(int(value).to_bytes(2, "little")) for value in raw]
    assert from_sign(raw, bit).tolist() == one_by_one
