"""How each sensor is started and asked: a row per sensor.

`start` talks to a sensor until it measures; `request` is what asks one that only speaks when asked.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from deploy.errors import BusError, BusTimeout
from deploy.imu import bno055, bno08x_rvc, bno08x_shtp
from deploy.imu.bno08x_shtp import ShtpDecoder
from deploy.imu.config import ImuConfig
from deploy.imu.sample import Decoder
from deploy.imu.witmotion import WitMotionDecoder
from deploy.serial_port import Port

_ATTEMPTS = 3
_ANSWER_S = 0.3
_BOOT_S = 1.0


@dataclass(frozen=True)
class Sensor:
    """A row."""

    decoder: Callable[[], Decoder]
    start: Callable[[Port, ImuConfig, Decoder], None] = lambda port, config, decoder: None
    request: bytes = b""
    answer_bytes: int = 0


def start_shtp(port: Port, config: ImuConfig, decoder: Decoder) -> None:
    """Reset a BNO08x and ask for its reports, until it confirms them.

    Raises:
        BusTimeout: it does not answer.
    """
    assert isinstance(decoder, ShtpDecoder)
    before = decoder.restarts
    _send_slowly(port, decoder, bno08x_shtp.encode(bno08x_shtp.EXECUTABLE, 0, bno08x_shtp.RESET))
    _listen(port, decoder, _BOOT_S, lambda: decoder.restarts > before)
    interval_us = 1_000_000 // config.rate_hz
    wanted = (bno08x_shtp.GYROSCOPE, bno08x_shtp.GAME_ROTATION)
    for attempt in range(_ATTEMPTS):
        for number, report in enumerate(wanted):
            cargo = bno08x_shtp.set_feature(report, interval_us)
            sequence = attempt * len(wanted) + number
            frame = bno08x_shtp.encode(bno08x_shtp.CONTROL, sequence, cargo)
            _send_slowly(port, decoder, frame)
        if _listen(port, decoder, _ANSWER_S, lambda: set(wanted) <= decoder.features.keys()):
            return
    raise BusTimeout(
        f"the BNO08x at {config.port} does not confirm its reports ({_ATTEMPTS} attempts), "
        "expected an answer within milliseconds; check that PS1 is high and PS0 low, both data "
        "lines, and the baud rate of 3000000, which not every adapter has"
    )


def start_bno055(port: Port, config: ImuConfig, decoder: Decoder) -> None:
    """Put a BNO055 into IMU mode.

    Raises:
        BusError: it does not answer, is something else, or refuses.
    """
    chip = _ask_bno055(port, bno055.read(bno055.CHIP_ID_REGISTER, 1), 1, config)
    if chip != bytes([bno055.CHIP_ID]):
        raise BusError(
            f"what answers at {config.port} has chip id {chip!r}, expected A0, a BNO055; correct "
            "`protocol` or `port` in the robot's YAML"
        )
    for register, value in (
        (bno055.OPERATION_MODE, bno055.CONFIGURE),
        (bno055.UNITS, bno055.DEFAULT_UNITS),
        (bno055.OPERATION_MODE, bno055.IMU),
    ):
        _ask_bno055(port, bno055.write(register, value), 0, config)
        _listen(port, None, bno055.MODE_CHANGE_S, lambda: False)


def _ask_bno055(port: Port, request: bytes, length: int, config: ImuConfig) -> bytes:
    """Registers that were asked for; empty after a write."""
    buffer = memoryview(bytearray(256))
    answer: object = "nothing"
    for _ in range(_ATTEMPTS):
        port.write(request)
        deadline_s, received = port.now() + _ANSWER_S, b""
        while count := port.read_into(buffer, deadline_s):
            received += buffer[:count]
            found, _ = bno055.parse(received, length)
            if isinstance(found, bytes):
                return found
            if found == bno055.Response.WRITTEN and not length:
                return b""
            if found is not None:
                answer = found.name.lower().replace("_", " ")
                break  # over-run, mostly: ask again
    raise BusTimeout(
        f"the BNO055 at {config.port} answers {answer} ({_ATTEMPTS} attempts), expected its "
        "registers; check that PS1 is high and PS0 low, both data lines, and its power"
    )


def _send_slowly(port: Port, decoder: Decoder, frame: bytes) -> None:
    """A BNO08x takes bytes no closer than `BYTE_GAP_S`."""
    for byte in frame:
        port.write(bytes([byte]))
        _listen(port, decoder, bno08x_shtp.BYTE_GAP_S, lambda: False)


def _listen(
    port: Port, decoder: Decoder | None, duration_s: float, done: Callable[[], bool]
) -> bool:
    """Take what comes until `done`, or the time is over."""
    buffer, until_s = memoryview(bytearray(4096)), port.now() + duration_s
    while not done():
        count = port.read_into(buffer, until_s)
        if not count:
            return done()
        for _ in decoder.feed(buffer[:count]) if decoder else ():
            pass
    return True


SENSORS: Mapping[str, Sensor] = MappingProxyType(
    {
        "bno08x_rvc": Sensor(bno08x_rvc.RvcDecoder),
        "bno08x_shtp": Sensor(ShtpDecoder, start_shtp),
        "bno055": Sensor(
            bno055.Bno055Decoder,
            start_bno055,
            bno055.read(bno055.BLOCK, bno055.BLOCK_LENGTH),
            2 + bno055.BLOCK_LENGTH,
        ),
        "witmotion": Sensor(WitMotionDecoder),
    }
)
"""By `protocol` of the YAML."""
