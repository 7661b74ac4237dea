"""JSON datagrams: commands and requests from any program, and signals from outside the robot.

    echo '{"command": {"vx": 0.3}}' | nc -u -w0 127.0.0.1 5555
    {"command": [0.3, 0.0, 0.0]}                            {"stop": "why"}
    {"signals": {"object_position": [0.2, 0.0, 0.05]}, "age_s": 0.04}
    {"pause": true}    {"resume": true}    {"finish": true}

It listens on this machine alone unless told otherwise, and then every datagram must carry `"token"`
as in the environment variable ROBOTRL_TOKEN. The token is sent as it is: it keeps out strangers,
not whoever listens on the same network. What cannot be used is counted and dropped. A speed asked
for longer ago than `TIMEOUT_S` becomes neutral, since whoever sent it may be gone; a point to reach
stays. A signal's age counts on.
"""

import contextlib
import hmac
import json
import math
import os
import socket
import time
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from deploy.commands.source import Command, neutral, within
from deploy.contract import CommandSpec
from deploy.device import Reading
from deploy.errors import ConfigError
from deploy.signals import SIGNALS, SignalKind
from deploy.state import Requests

PORT = 5555
TOKEN_VARIABLE = "ROBOTRL_TOKEN"
TIMEOUT_S = 0.5
MAX_BYTES = 4096
MAX_A_TICK = 16
"""Datagrams taken in a tick: a flood costs its sender's commands, not our deadlines."""
MAX_AGE_S = 10.0
"""Oldest a signal may say it is."""


@dataclass(frozen=True)
class Address:
    """Where to listen."""

    host: str = "127.0.0.1"
    port: int = PORT

    @property
    def is_this_machine(self) -> bool:
        """Whether nobody else can send here."""
        return self.host == "localhost" or self.host.startswith("127.")


def parse_address(text: str, option: str = "--listen") -> Address:
    """`PORT`, `HOST` or `HOST:PORT`, as an option says.

    Raises:
        ConfigError: it is none of them.
    """
    host, _, port = text.rpartition(":") if ":" in text else ("", "", text)
    if not host and not port.isdecimal():
        host, port = port, str(PORT)
    if not (port.isdecimal() and 0 <= int(port) < 65536):
        raise ConfigError(f"{option} {text!r}: expected HOST:PORT or PORT, e.g. 127.0.0.1:{PORT}")
    return Address(host or Address.host, int(port))


@contextlib.contextmanager
def udp(
    spec: CommandSpec,
    requests: Requests,
    address: Address,
    signals: Collection[SignalKind] = (),
    *,
    token: str | None = None,
    now: Callable[[], float] = time.monotonic,
) -> Iterator["UdpListener"]:
    """Listen; `signals` are the kinds to take, `token` is the environment's by default.

    Raises:
        ConfigError: other machines could send without a token, or the port is taken.
    """
    token = os.environ.get(TOKEN_VARIABLE, "") if token is None else token
    if not (token or address.is_this_machine):
        raise ConfigError(
            f"listening on {address.host} lets other machines move the robot: set a secret, "
            f'`export {TOKEN_VARIABLE}=...`, and send it as `"token"`; or listen on 127.0.0.1'
        )
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as listener:
        listener.setblocking(False)
        try:
            listener.bind((address.host, address.port))
        except OSError as error:
            raise ConfigError(
                f"cannot listen on {address.host}:{address.port} ({error.strerror}); end what "
                "does, or choose another with --listen"
            ) from error
        yield UdpListener(spec, requests, listener, signals, token, now)


class UdpListener:
    """A `CommandSource`, and signals with their ages."""

    def __init__(
        self,
        spec: CommandSpec,
        requests: Requests,
        listener: socket.socket,
        signals: Collection[SignalKind],
        token: str,
        now: Callable[[], float],
    ):
        self.readings: dict[SignalKind, Reading] = {
            kind: Reading(np.zeros(len(SIGNALS[kind].elements(()))), np.full(1, np.inf))
            for kind in signals
        }
        """What came last, by kind."""
        self.taken = self.dropped = 0
        """Datagrams that could be used, and others."""
        self._spec, self._requests, self._listener = spec, requests, listener
        self._token, self._now = token.encode(), now
        self._command, self._neutral = neutral(spec), neutral(spec)
        self._commanded_s = -math.inf
        self._measured_s = dict.fromkeys(self.readings, -math.inf)

    @property
    def port(self) -> int:
        """Where it listens."""
        return self._listener.getsockname()[1]

    def __call__(self, time_s: float) -> Command:
        """Take what has come."""
        now_s = self._now()
        for _ in range(MAX_A_TICK):
            try:
                data = self._listener.recv(MAX_BYTES + 1)
            except BlockingIOError:
                break
            except OSError:  # an answer to somebody who is gone
                continue
            if self._take(data, now_s):
                self.taken += 1
            else:
                self.dropped += 1
        for kind, reading in self.readings.items():
            reading.age_s[:] = now_s - self._measured_s[kind]
        heard = self._spec.site or now_s - self._commanded_s <= TIMEOUT_S
        return self._command if heard else self._neutral

    def _take(self, data: bytes, now_s: float) -> bool:
        """Act on a datagram, all of it or, if anything in it is wrong, nothing."""
        try:
            message = json.loads(data) if len(data) <= MAX_BYTES else None
            if not isinstance(message, dict) or not self._is_trusted(message.pop("token", "")):
                return False
            age_s = _number(message.pop("age_s", 0.0), 0.0, MAX_AGE_S)
            command = self._read_command(message.pop("command", None))
            signals = self._read_signals(message.pop("signals", {}))
            stop = message.pop("stop", None)
            wishes = {name: message.pop(name, False) for name in ("pause", "resume", "finish")}
            if message or not all(isinstance(wish, bool) for wish in wishes.values()):
                raise ValueError("unknown key")
        except (ValueError, TypeError, KeyError, RecursionError):
            return False
        if stop not in (None, False):
            self._requests.stop(f"{str(stop)[:200]!r} came by UDP")
        for name, wish in wishes.items():
            if wish:
                getattr(self._requests, name)()
        if command is not None:
            self._command, self._commanded_s = command, now_s
        for kind, values in signals.items():
            self.readings[kind].values[:] = values
            self._measured_s[kind] = now_s - age_s
        return True

    def _is_trusted(self, token: Any) -> bool:
        return not self._token or hmac.compare_digest(
            str(token).encode(errors="replace"), self._token
        )

    def _read_command(self, given: Any) -> Command | None:
        elements = self._spec.elements
        if given is None:
            return None
        if isinstance(given, dict):
            if not given.keys() <= set(elements):
                raise KeyError
            given = [given.get(name, 0.0) for name in elements]
        if len(given) != len(elements):
            raise ValueError
        values = [_number(value, -1e6, 1e6) for value in given]
        return within(self._spec, np.array(values, np.float32))

    def _read_signals(self, given: Any) -> dict[SignalKind, list[float]]:
        if not isinstance(given, dict):
            raise TypeError
        found: dict[SignalKind, list[float]] = {}
        for kind, values in given.items():
            size, row = len(self.readings[kind].values), SIGNALS[kind]
            if isinstance(row.usual, str) or len(values) != size:
                raise ValueError
            low, high = row.usual
            found[kind] = [_number(value, low - row.beyond, high + row.beyond) for value in values]
        return found


def _number(value: Any, low: float, high: float) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
        raise ValueError
    return float(value)
