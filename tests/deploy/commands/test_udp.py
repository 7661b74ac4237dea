"""Datagrams through a real socket on this machine."""

import json
import math
import select
import socket
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import pytest

from deploy.commands.choice import open_commands
from deploy.commands.udp import MAX_A_TICK, TIMEOUT_S, Address, UdpListener, parse_address, udp
from deploy.errors import ConfigError
from deploy.state import Requests
from tests.deploy.commands.test_schedule import TWIST
from tests.until import PATIENCE_S

NEUTRAL = [0.0, 0.0, 0.0]


@dataclass
class Line:
    """A listener, somebody who sends to it, and the time."""

    requests: Requests = field(default_factory=Requests)
    now_s: float = 100.0
    listener: UdpListener | None = None

    def send(self, message: object) -> list[float]:
        """The command afterwards."""
        assert self.listener is not None
        data = message if isinstance(message, bytes) else json.dumps(message).encode()
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
            sender.sendto(data, ("127.0.0.1", self.listener.port))
        assert select.select((self.listener._listener,), (), (), PATIENCE_S)[0]
        return self.listener(0.0).tolist()


def make_line(token: str = "", kinds=("object_position",)) -> Iterator[Line]:
    line = Line()
    with udp(
        TWIST, line.requests, Address(port=0), kinds, token=token, now=lambda: line.now_s
    ) as line.listener:
        yield line


@pytest.fixture
def line() -> Iterator[Line]:
    yield from make_line()


@pytest.fixture
def secret_line() -> Iterator[Line]:
    yield from make_line(token="s3cret")


def test_command_is_a_list_or_elements_by_name(line: Line):
    assert line.send({"command": [0.3, 0.1, -0.5]}) == pytest.approx([0.3, 0.1, -0.5])
    assert line.send({"command": {"vx": 0.2}}) == pytest.approx([0.2, 0.0, 0.0])


def test_command_is_kept_within_what_was_trained(line: Line):
    assert line.send({"command": [9, -9, 0]}) == pytest.approx([0.5, -0.2, 0.0])


def test_speed_that_is_not_repeated_becomes_neutral(line: Line):
    line.send({"command": [0.3, 0.0, 0.0]})
    assert line.listener is not None
    line.now_s += TIMEOUT_S
    assert line.listener(0.0)[0] == pytest.approx(0.3)
    line.now_s += 0.001
    assert line.listener(0.0).tolist() == NEUTRAL


def test_requests_are_heard(line: Line):
    line.send({"pause": True})
    assert line.requests.paused
    line.send({"resume": True})
    assert not line.requests.paused
    line.send({"finish": True})
    assert line.requests.finished
    line.send({"stop": "the light curtain"})
    assert line.requests.stopped == "'the light curtain' came by UDP"


def test_signal_has_the_age_its_sender_says_and_grows_older(line: Line):
    assert line.listener is not None
    values, age_s = line.listener.readings["object_position"]
    assert math.isinf(age_s[0])
    line.send({"signals": {"object_position": [0.2, 0.0, 0.05]}, "age_s": 0.04})
    assert values == pytest.approx([0.2, 0.0, 0.05])
    assert age_s[0] == pytest.approx(0.04)
    line.now_s += 0.2
    line.listener(0.0)
    assert age_s[0] == pytest.approx(0.24)


@pytest.mark.parametrize(
    "message",
    [
        b"", b"\xff\xfe", b"[1, 2", b"null", b"3", b'{"command": [NaN, 0, 0]}', b"[" * 4000,
        {"command": [0.3, 0.0]}, {"command": "fast"}, {"command": [True, 0, 0]},
        {"command": {"vz": 1}}, {"command": [0.3, 0, 0], "hello": 1}, {"command": [1e300, 0, 0]},
        {"command": [10**400, 0, 0]}, {"pause": 1, "command": [0.3, 0, 0]},
        {"signals": {"object_position": [0, 0]}}, {"signals": {"joint_position": [0] * 6}},
        {"signals": {"object_position": [0, 0, 11]}}, {"signals": [1]},
        {"signals": {"object_position": [0, 0, 0]}, "age_s": -1},
        {"command": [0.3, 0, 0], "signals": {"object_position": [0, 0, 11]}},
        json.dumps({"stop": "x" * 5000}).encode(),
    ],
    ids=lambda message: str(message)[:40],
)  # fmt: skip
def test_what_cannot_be_used_is_dropped_as_a_whole(line: Line, message: object):
    assert line.send(message) == NEUTRAL
    assert line.listener is not None
    assert (line.listener.taken, line.listener.dropped) == (0, 1)
    assert not (line.requests.paused or line.requests.stopped)
    assert math.isinf(line.listener.readings["object_position"].age_s[0])


def test_random_bytes_never_raise(line: Line):
    random = np.random.default_rng(0)
    template = json.dumps({"command": [0.3, 0.1, 0.0], "age_s": 0.1, "signals": {}}).encode()
    assert line.listener is not None
    for _ in range(3000):
        data = bytearray(template)
        for _ in range(random.integers(1, 6)):
            data[random.integers(len(data))] = random.integers(256)
        line.listener._take(bytes(data), 0.0)
        line.listener._take(random.bytes(int(random.integers(0, 80))), 0.0)
        assert np.all(np.abs(line.listener._command) <= [0.5, 0.2, 1.0])


def test_flood_costs_a_bounded_part_of_a_tick(line: Line):
    assert line.listener is not None
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        for _ in range(100):
            sender.sendto(b"{}", ("127.0.0.1", line.listener.port))
    line.listener(0.0)
    assert line.listener.taken == MAX_A_TICK


def test_only_who_knows_the_token_is_heard(secret_line: Line):
    assert secret_line.send({"command": [0.3, 0, 0]}) == NEUTRAL
    assert secret_line.send({"command": [0.3, 0, 0], "token": "guess"}) == NEUTRAL
    assert secret_line.send({"stop": "x", "token": 1}) == NEUTRAL
    assert not secret_line.requests.stopped
    assert secret_line.send({"command": [0.3, 0, 0], "token": "s3cret"})[0] == pytest.approx(0.3)


def test_other_machines_need_a_token():
    with (
        pytest.raises(ConfigError, match="export ROBOTRL_TOKEN"),
        udp(TWIST, Requests(), Address("0.0.0.0", 0), token=""),
    ):
        pass
    with udp(TWIST, Requests(), Address("0.0.0.0", 0), token="s3cret"):
        pass


def test_port_of_another_program_is_refused(line: Line):
    assert line.listener is not None
    with (
        pytest.raises(ConfigError, match="cannot listen on"),
        udp(TWIST, Requests(), Address(port=line.listener.port)),
    ):
        pass


@pytest.mark.parametrize(
    ("text", "host", "port"),
    [
        ("6000", "127.0.0.1", 6000),
        ("0.0.0.0:7", "0.0.0.0", 7),
        ("robot.lan", "robot.lan", 5555),
    ],
)
def test_address_is_a_port_or_a_host_or_both(text: str, host: str, port: int):
    assert parse_address(text) == Address(host, port)


def test_address_that_is_none_is_refused():
    with pytest.raises(ConfigError, match="expected HOST:PORT"):
        parse_address("here:there")


def test_listener_is_heard_whatever_gives_the_commands(line: Line):
    with open_commands("0.1,0,0", TWIST, line.requests, listener=line.listener) as source:
        line.send({"stop": "now", "command": [0.5, 0, 0]})
        assert source(0.0) == pytest.approx([0.1, 0.0, 0.0])
    assert line.requests.stopped
