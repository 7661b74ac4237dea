"""Several servos per tick: what one missing or damaged reply costs, and what it must not cost."""

from collections.abc import Callable, Sequence

import numpy as np
import pytest

from deploy.dynamixel import protocol, registers
from deploy.dynamixel.bus import DynamixelBus
from deploy.dynamixel.protocol import ErrorCode, Instruction, PacketParser, Status
from deploy.dynamixel.registers import Register
from deploy.dynamixel.sync import SyncRead, SyncWrite
from deploy.errors import BusError
from deploy.statistics import Statistics

IDS = (11, 12, 13, 14)
SILENCE = b""


def _statuses(ids: Sequence[int] = IDS, offset: int = 0) -> list[Status]:
    return [Status(id, registers.PRESENT_POSITION.encode(100 * id + offset)) for id in ids]


def _merged(ids: Sequence[int] = IDS, offset: int = 0) -> bytes:
    return protocol.merge(_statuses(ids, offset))


def _single(ids: Sequence[int] = IDS, offset: int = 0) -> bytes:
    return b"".join(status.encode() for status in _statuses(ids, offset))


class Rig:
    """Positions of IDS over a bus whose n-th request gets the n-th answer."""

    def __init__(self, port, fast: bool):
        self.port = port
        bus = DynamixelBus(port, 1_000_000, return_delay_s=0)
        self.statistics = bus.statistics
        self.reading = SyncRead(bus, IDS, registers.PRESENT_POSITION.address, 4, fast=fast)

    def read(self, after_s: float = 0.02) -> int:
        return self.reading.read(self.port.now() + after_s)

    @property
    def positions(self) -> list[int]:
        return self.reading.data.copy().view("<i4")[:, 0].tolist()

    @property
    def asked(self) -> list[tuple[Instruction, list[int]]]:
        packets = PacketParser().feed(b"".join(self.port.sent))
        return [(Instruction(p.instruction), list(p.parameters[4:])) for p in packets]


@pytest.fixture
def make_rig(scripted_port: Callable) -> Callable[..., Rig]:
    return lambda *answers, fast: Rig(scripted_port(*answers), fast)


both_ways = pytest.mark.parametrize(
    ("fast", "reply"), [(True, _merged), (False, _single)], ids=["merged", "single"]
)


@both_ways
def test_every_servo_answers_one_request(make_rig: Callable, fast: bool, reply: Callable):
    rig = make_rig(reply(), fast=fast)
    assert rig.read() == 4
    assert rig.reading.fresh.all()
    assert not rig.reading.alert.any()
    assert rig.positions == [1100, 1200, 1300, 1400]
    instruction = Instruction.FAST_SYNC_READ if fast else Instruction.SYNC_READ
    assert rig.asked == [(instruction, list(IDS))]
    assert rig.statistics == Statistics(requests=1)


@both_ways
def test_reply_may_arrive_in_pieces(make_rig: Callable, fast: bool, reply: Callable):
    frame = reply()
    pieces = [(i * 1e-6, frame[i : i + 3]) for i in range(0, len(frame), 3)]
    rig = make_rig(pieces, fast=fast)
    assert rig.read() == 4


@both_ways
def test_echo_noise_and_stale_bytes_are_skipped(make_rig: Callable, fast: bool, reply: Callable):
    request = protocol.sync_read(IDS, 132, 4, fast=fast)
    rig = make_rig(request + b"\xff\xff" + reply(), request + reply(offset=1), fast=fast)
    rig.port.arrive(reply(offset=-50))
    assert rig.read() == 4
    assert rig.positions == [1100, 1200, 1300, 1400]
    assert rig.read() == 4
    assert rig.positions == [1101, 1201, 1301, 1401]
    assert len(rig.port.sent) == 2


@both_ways
def test_end_of_a_late_reply_is_skipped(make_rig: Callable, fast: bool, reply: Callable):
    rig = make_rig(reply(offset=-50)[-9:] + reply(), fast=fast)
    assert rig.read() == 4
    assert rig.positions == [1100, 1200, 1300, 1400]


@both_ways
def test_silent_servo_goes_last_when_the_rest_is_asked_again(
    make_rig: Callable, fast: bool, reply: Callable
):
    # 12 is mute: 11 has spoken, nobody behind 12 does. Asked for last, 12 silences nobody.
    first = reply()[:16] if fast else reply((11,))
    rig = make_rig(first, _single((13, 14)), SILENCE, fast=fast)
    assert rig.read() == 3
    assert rig.reading.fresh.tolist() == [True, False, True, True]
    assert rig.asked[1:] == [
        (Instruction.SYNC_READ, [13, 14, 12]),
        (Instruction.SYNC_READ, [12]),
    ]
    assert rig.statistics == Statistics(requests=3, timeouts=3, retried=4, lost=1)


@both_ways
def test_servo_that_missed_once_is_fresh_after_asking_again(
    make_rig: Callable, fast: bool, reply: Callable
):
    rig = make_rig(SILENCE, _single((12, 13, 14, 11)), fast=fast)
    assert rig.read() == 4
    assert rig.asked[1] == (Instruction.SYNC_READ, [12, 13, 14, 11])
    assert rig.statistics == Statistics(requests=2, timeouts=1, retried=4)


@both_ways
def test_damaged_servo_alone_is_asked_again_at_once(
    make_rig: Callable, fast: bool, reply: Callable
):
    damaged = bytearray(reply())
    damaged[20 if fast else 24] ^= 0x02  # a data byte of servo 12
    rig = make_rig(bytes(damaged), _single((12,), offset=1), fast=fast)
    assert rig.read() == 4
    assert rig.positions == [1100, 1201, 1300, 1400]
    assert rig.asked[1] == (Instruction.SYNC_READ, [12])
    assert rig.port.now() == 100.0  # nothing was waited for
    assert rig.statistics == Statistics(requests=2, crc_errors=1, retried=1)


def test_damaged_length_of_one_reply_does_not_cost_the_others(make_rig: Callable):
    damaged = bytearray(_single())
    damaged[6] ^= 0x01  # 11 now claims to send 264 bytes
    rig = make_rig(bytes(damaged), _single((11,)), fast=False)
    assert rig.read() == 4
    assert rig.asked[1] == (Instruction.SYNC_READ, [11])


@both_ways
def test_bytes_of_a_servo_that_did_not_answer_stay_as_they_were(
    make_rig: Callable, fast: bool, reply: Callable
):
    rig = make_rig(reply(), reply(offset=1)[:24], SILENCE, fast=fast)
    rig.read()
    rig.read()
    spoke = rig.reading.fresh.tolist()
    assert spoke == ([True, True, False, False] if fast else [True, False, False, False])
    expected = [100 * id + (1 if fresh else 0) for id, fresh in zip(IDS, spoke, strict=True)]
    assert rig.positions == expected


@both_ways
def test_servo_in_trouble_is_read_and_reported(make_rig: Callable, fast: bool, reply: Callable):
    statuses = _statuses()
    statuses[2] = Status(13, statuses[2].data, alert=True)
    frame = protocol.merge(statuses) if fast else b"".join(s.encode() for s in statuses)
    rig = make_rig(frame, reply(), fast=fast)
    assert rig.read() == 4
    assert rig.reading.alert.tolist() == [False, False, True, False]
    rig.read()
    assert not rig.reading.alert.any()


@both_ways
def test_any_number_of_bytes_is_read_of_any_number_of_servos(
    scripted_port: Callable, fast: bool, reply: Callable
):
    blocks = {id: bytes(range(id, id + 10)) for id in IDS}
    statuses = {id: Status(id, data) for id, data in blocks.items()}
    first = protocol.merge(list(statuses.values())) if fast else statuses[11].encode()
    rest = b"".join(statuses[id].encode() for id in (13, 14, 12))
    port = scripted_port(first[: 8 + 14] if fast else first, rest)
    reading = SyncRead(DynamixelBus(port, 1_000_000), IDS, 126, 10, fast=fast)
    assert reading.read(port.now() + 0.05) == 4
    assert [row.tobytes() for row in reading.data] == list(blocks.values())


def test_servo_that_refuses_is_not_fresh(make_rig: Callable):
    refusal = Status(12, error=ErrorCode.DATA_RANGE).encode()
    rig = make_rig(_single((11,)) + refusal + _single((13, 14)), refusal, fast=False)
    assert rig.read() == 3
    assert rig.reading.fresh.tolist() == [True, False, True, True]


def test_reply_that_needed_stuffing_is_understood(make_rig: Callable):
    spiteful = [Status(id, b"\xff\xff\xfd\xff") for id in IDS]
    rig = make_rig(b"".join(status.encode() for status in spiteful), fast=False)
    assert rig.read() == 4
    assert rig.positions == [-131073] * 4

    rig = make_rig(protocol.merge(spiteful), fast=True)  # a merged reply is not stuffed
    assert rig.read() == 4
    assert rig.positions == [-131073] * 4


@both_ways
@pytest.mark.parametrize("after_s", [0.003, 0.006, 0.02])
def test_deadline_is_kept_whatever_is_missing(
    make_rig: Callable, fast: bool, reply: Callable, after_s: float
):
    rig = make_rig(fast=fast)
    deadline_s = rig.port.now() + after_s
    assert rig.reading.read(deadline_s) == 0
    assert rig.port.now() <= deadline_s
    assert rig.statistics.lost == 4


@both_ways
def test_nothing_is_asked_that_would_still_be_answered_at_the_deadline(
    make_rig: Callable, fast: bool, reply: Callable
):
    rig = make_rig(reply(), fast=fast)
    # 18 bytes out, 8 + 4·8 or 4·15 bytes back, 10 µs each
    assert rig.reading.wire_s == pytest.approx(580e-6 if fast else 780e-6)
    assert rig.read(rig.reading.wire_s - 1e-6) == 0
    assert rig.port.sent == []
    assert rig.read(rig.reading.wire_s + 1e-6) == 4


@both_ways
def test_unplugged_port_is_the_one_thing_that_raises(
    make_rig: Callable, fast: bool, reply: Callable
):
    rig = make_rig(fast=fast)
    rig.port.unplugged = True
    with pytest.raises(BusError, match="unplugged"):
        rig.read()


@both_ways
def test_noise_never_raises_and_never_passes_for_a_position(
    make_rig: Callable, fast: bool, reply: Callable
):
    rng = np.random.default_rng(0)
    rig = make_rig(fast=fast)
    for _ in range(500):
        frame = np.frombuffer(reply(), np.uint8).copy()
        hit = rng.integers(0, len(frame), rng.integers(1, 4))
        frame[hit] = rng.integers(0, 256, len(hit))
        rig.port.answers = [frame.tobytes()[: rng.integers(1, len(frame) + 1)]]
        rig.reading.data[:] = 0
        rig.read()
        good = np.where(rig.reading.fresh, np.array([1100, 1200, 1300, 1400]), 0)
        assert rig.positions == good.tolist()


# Replies that come late


def _asked_lengths(rig: Rig) -> list[int]:
    """Bytes of data asked for in each request."""
    return [p.parameters[2] for p in PacketParser().feed(b"".join(rig.port.sent))]


@both_ways
def test_late_reply_is_used_while_its_reading_lasts(
    make_rig: Callable, fast: bool, reply: Callable
):
    # The adapter holds the replies for 8 ms, 4 ms are expected: the request is repeated at 4.6 ms.
    rig = make_rig([(0.008, reply())], [(0.008, _single((12, 13, 14, 11)))], fast=fast)
    assert rig.read() == 4
    assert rig.port.now() == pytest.approx(100.008)
    assert rig.positions == [1100, 1200, 1300, 1400]
    assert len(rig.port.sent) == 2


@both_ways
def test_after_late_replies_the_next_ones_are_awaited(
    make_rig: Callable, fast: bool, reply: Callable
):
    late_s = 0.008
    again = _single((12, 13, 14, 11))
    rig = make_rig(
        [(late_s, reply())],
        [(late_s, again)],
        [(late_s, _single_of(1))],
        [(late_s, _single_of(1))],
        [(late_s, _single_of(2))],
        fast=fast,
    )
    requests = []
    for tick in range(3):
        rig.port.time_s = 100 + 0.02 * tick
        assert rig.read() == 4
        requests.append(len(rig.port.sent))
    assert requests == [2, 4, 5]  # that both requests were answered shows at the next reading
    assert rig.statistics.late == 8


def _single_of(spare: int, offset: int = 0, ids: Sequence[int] = IDS) -> bytes:
    """Answers to a request for `spare` bytes more."""
    statuses = _statuses(ids, offset)
    return b"".join(Status(s.id, s.data + bytes(spare)).encode() for s in statuses)


@both_ways
def test_reply_later_than_its_reading_does_not_pass_for_the_next_ones(
    make_rig: Callable, fast: bool, reply: Callable
):
    rig = make_rig(
        [(0.0065, reply())], [(0.002, _single_of(1, offset=1))], reply(offset=2), fast=fast
    )
    assert rig.read(0.005) == 0
    assert rig.read(0.005) == 4
    assert rig.positions == [1101, 1201, 1301, 1401]
    assert rig.statistics.late == (1 if fast else 4)
    assert rig.statistics.lost == 4
    assert rig.read(0.005) == 4
    assert rig.positions == [1102, 1202, 1302, 1402]
    assert _asked_lengths(rig) == [4, 5, 4]


@both_ways
def test_reply_that_came_between_two_readings_is_counted_and_forgotten(
    make_rig: Callable, fast: bool, reply: Callable
):
    rig = make_rig([(0.006, reply())], _single_of(1, offset=1), fast=fast)
    assert rig.read(0.005) == 0
    rig.port.time_s += 0.015
    assert rig.read(0.005) == 4
    assert rig.positions == [1101, 1201, 1301, 1401]
    assert rig.statistics.late == (1 if fast else 4)


class LateServos:
    """Four servos behind an adapter that keeps the order of replies and nothing else.

    Each answers with the number of the reading in which it was asked. Unlike `ScriptedPort`'s,
    these answers are made from the request.
    """

    def __init__(self, rng: np.random.Generator, period_s: float):
        self.time_s, self.reading = 0.0, 0
        self._rng, self._period_s = rng, period_s
        self._arriving: list[tuple[float, bytes]] = []

    def now(self) -> float:
        return self.time_s

    def write(self, data: bytes | bytearray | memoryview) -> None:
        (request,) = PacketParser().feed(data)
        length, ids = request.parameters[2], request.parameters[4:]
        value = self.reading.to_bytes(4, "little") + bytes(length - 4)
        statuses = [Status(id, value) for id in ids]
        fast = request.instruction == Instruction.FAST_SYNC_READ
        frame = protocol.merge(statuses) if fast else b"".join(s.encode() for s in statuses)
        fate = self._rng.random()
        if fate < 0.1:
            return  # lost
        late_s = self._rng.uniform(0, 5 * self._period_s) if fate < 0.4 else 0.0005
        wire_s = (len(data) + len(frame)) * 1e-5
        before_s = self._arriving[-1][0] if self._arriving else 0.0
        self._arriving.append((max(before_s, self.time_s + wire_s + late_s), frame))

    def read_into(self, buffer: memoryview, deadline_s: float) -> int:
        if not self._arriving or self._arriving[0][0] > deadline_s:
            self.time_s = max(self.time_s, deadline_s)
            return 0
        at_s, frame = self._arriving.pop(0)
        self.time_s = max(self.time_s, at_s)
        count = min(len(buffer), len(frame))
        buffer[:count] = frame[:count]
        if count < len(frame):
            self._arriving.insert(0, (at_s, frame[count:]))
        return count

    def close(self) -> None:
        pass


@pytest.mark.parametrize("fast", [True, False])
@pytest.mark.parametrize("period_s", [0.005, 0.02])
def test_no_reply_ever_passes_for_an_answer_to_another_reading(fast: bool, period_s: float):
    port = LateServos(np.random.default_rng(0), period_s)
    rig = Rig(port, fast)
    answered = np.zeros(5)
    for reading in range(3000):
        port.reading = reading
        port.time_s = reading * period_s
        answered[rig.read(0.75 * period_s)] += 1
        assert np.all(np.array(rig.positions)[rig.reading.fresh] == reading)
    assert answered[4] > 1000
    assert rig.statistics.late > 500
    assert rig.statistics.lost > 500
    assert rig.statistics.reply_times.max_s > period_s


def _writing(port, register: Register) -> SyncWrite:
    return SyncWrite(DynamixelBus(port, 1_000_000), (1, 2), register)


@pytest.mark.parametrize(
    "values",
    [(150, 170), (-1, 2**31 - 1), (-131073, 0), (0, -131073), (-16777217, -131073)],
    ids=["plain", "extremes", "header first", "header last", "header twice"],
)
def test_sync_write_sends_what_the_codec_would_build(
    scripted_port: Callable, values: tuple[int, int]
):
    port, register = scripted_port(), registers.GOAL_POSITION
    writing = _writing(port, register)
    for _ in range(2):
        writing.write(np.array(values, np.int32))
    data = {1: register.encode(values[0]), 2: register.encode(values[1])}
    assert port.sent == [protocol.sync_write(116, 4, data)] * 2


def test_sync_write_sends_the_frame_of_the_manual(scripted_port: Callable):
    port = scripted_port()
    _writing(port, registers.GOAL_POSITION).write(np.array([150, 170], np.int32))
    frame = "FF FF FD 00 FE 11 00 83 74 00 04 00 01 96 00 00 00 02 AA 00 00 00 82 87"
    assert port.sent == [bytes.fromhex(frame)]


def test_sync_write_of_a_narrow_register_takes_only_its_own_type(scripted_port: Callable):
    port, register = scripted_port(), registers.GOAL_PWM
    writing = _writing(port, register)
    writing.write(np.array([885, -885], np.int16))
    data = {1: register.encode(885), 2: register.encode(-885)}
    assert port.sent == [protocol.sync_write(100, 2, data)]
    with pytest.raises(TypeError):
        writing.write(np.array([40_000, 0], np.int32))
