"""Every decoder on a million frames: sound, damaged, cut, repeated, and garbage between them.

    python tests/benchmarks/fuzz.py [--frames 1000000] [--seed 0] [decoder ...]

No decoder may raise. Whatever one with a CRC of 16 bits accepts must stand in what it received, CRC
and all: encoded again it is looked for there. After garbage the next but one sound frame is
understood. By chance one damaged frame of 65536 has a right CRC, and one of 256 a right sum of
eight bits; how many frames were understood that nobody sent is printed. Exit code 1 if anything is
not as it must be.
"""

from __future__ import annotations

import argparse
import itertools
import random
import struct
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

from deploy.dynamixel import protocol as dynamixel
from deploy.feetech import protocol as feetech
from deploy.feetech import scs_registers
from deploy.imu import bno055, bno08x_rvc, bno08x_shtp, witmotion
from deploy.imu.sample import Decoder
from deploy.microcontroller.frames import FrameParser, encode_frame
from deploy.microcontroller.messages import State, decode_command, decode_state, decode_welcome

_RVC_INDEX = itertools.count()
SCS_MOTION = (
    scs_registers.PRESENT_POSITION,
    scs_registers.PRESENT_SPEED,
    scs_registers.PRESENT_LOAD,
)
BATCH = 200
"""Frames that are fed in one stretch, cut at random places."""


class Understood(NamedTuple):
    """A frame, as a decoder has it."""

    meaning: bytes
    wire: bytes = b""
    """Encoded again; empty without a CRC."""


@dataclass(frozen=True)
class Target:
    """A decoder: how frames are made, and what it makes of bytes."""

    frame: Callable[[random.Random], tuple[bytes, bytes]]
    """A sound frame, and what a decoder must say of it."""
    decoder: Callable[[], Callable[[bytes], Iterator[Understood]]]
    """A fresh decoder: bytes in, what it understands out."""


def board_frame(rng: random.Random) -> tuple[bytes, bytes]:
    """A frame of the microcontroller link."""
    type = rng.choice((1, 2, 3, 0x10, 0x20, 0x30, 0x31, rng.randrange(256)))
    payload = rng.randbytes(rng.choice((0, 4, 12, 13, rng.randrange(100))))
    sequence = rng.randrange(1 << 16)
    return encode_frame(type, sequence, 7, payload), bytes([type]) + payload


def board_decoder() -> Callable[[bytes], Iterator[Understood]]:
    """The host's parser, and every message decoder behind it."""
    parser, state = FrameParser(), State()

    def feed(data: bytes) -> Iterator[Understood]:
        for frame in parser.feed(data):
            payload = bytes(frame.payload)
            for decode in (decode_welcome, decode_command, lambda p: decode_state(p, state)):
                decode(frame.payload)
            wire = encode_frame(frame.type, frame.sequence, frame.time_us, payload)
            yield Understood(bytes([frame.type]) + payload, wire)

    return feed


def dynamixel_frame(rng: random.Random) -> tuple[bytes, bytes]:
    """A write of a Dynamixel bus: stuffed, where chance has it."""
    data = b"".join(
        rng.choice((b"\xff\xff\xfd", rng.randbytes(3))) for _ in range(rng.randrange(1, 8))
    )
    id = rng.randrange(1, 253)
    return dynamixel.write(id, 116, data), bytes([id]) + struct.pack("<H", 116) + data


def dynamixel_decoder() -> Callable[[bytes], Iterator[Understood]]:
    """The parser of the servo bus."""
    parser = dynamixel.PacketParser(max_length=40)  # a bus knows how long answers can be

    def feed(data: bytes) -> Iterator[Understood]:
        for packet in parser.feed(data):
            yield Understood(bytes([packet.id]) + packet.parameters, packet.encode())

    return feed


def feetech_frame(rng: random.Random) -> tuple[bytes, bytes]:
    """A write of a Feetech bus."""
    data, id = rng.randbytes(rng.randrange(1, 12)), rng.randrange(1, 253)
    return feetech.write(id, 42, data), bytes([id, 42]) + data


def feetech_decoder() -> Callable[[bytes], Iterator[Understood]]:
    """The parser of the servo bus, whose frames end with a sum."""
    parser = feetech.PacketParser(max_length=40)

    def feed(data: bytes) -> Iterator[Understood]:
        for packet in parser.feed(data):
            yield Understood(bytes([packet.id]) + packet.parameters)

    return feed


def scs_frame(rng: random.Random) -> tuple[bytes, bytes]:
    """Position, speed and load of a Feetech SCS servo."""
    id, numbers = (
        rng.randrange(253),
        (rng.randrange(1024), rng.randint(-1000, 1000), rng.randint(-999, 999)),
    )
    data = b"".join(
        register.encode(value) for register, value in zip(SCS_MOTION, numbers, strict=True)
    )
    return feetech.Status(id, data).encode(), struct.pack(">BHhh", id, *numbers)


def scs_decoder() -> Callable[[bytes], Iterator[Understood]]:
    """The same parser, and the numbers of the other byte order."""
    parser = feetech.PacketParser(max_length=40)

    def feed(data: bytes) -> Iterator[Understood]:
        for packet in parser.feed(data):
            words = [packet.parameters[at : at + 2] for at in (0, 2, 4)]
            if len(words[2]) == 2:
                numbers = map(scs_registers.Register.decode, SCS_MOTION, words)
                yield Understood(struct.pack(">BHhh", packet.id, *numbers))

    return feed


def rvc_frame(rng: random.Random) -> tuple[bytes, bytes]:
    """A packet of a BNO08x in RVC mode."""
    body = bytes([next(_RVC_INDEX) & 0xFF]) + rng.randbytes(12) + bytes(3)
    return b"\xaa\xaa" + body + bytes([sum(body) & 0xFF]), body[1:13]


def wit_frame(rng: random.Random) -> tuple[bytes, bytes]:
    """Angular velocity and angles of a WitMotion."""
    gyro, angles = rng.randbytes(8), rng.randbytes(8)
    packets = [b"\x55" + kind + data for kind, data in ((b"\x52", gyro), (b"\x53", angles))]
    wire = b"".join(packet + bytes([sum(packet) & 0xFF]) for packet in packets)
    return wire, gyro[:6] + angles[:6]


def shtp_frame(rng: random.Random) -> tuple[bytes, bytes]:
    """A gyro-integrated rotation vector of a BNO08x, of unit length."""
    parts = [rng.gauss(0, 1) for _ in range(4)]
    length = sum(part * part for part in parts) ** 0.5
    quaternion = [round(16384 * part / length) for part in parts]
    cargo = struct.pack("<4h", *quaternion) + rng.randbytes(6)
    return bno08x_shtp.encode(5, rng.randrange(256), cargo), cargo


def bno055_frame(rng: random.Random) -> tuple[bytes, bytes]:
    """Registers of a BNO055 that can be true."""
    block = rng.randbytes(12) + struct.pack("<4h", 16384, 0, 0, 0) + bytes(6)
    block += struct.pack("<3h", 0, 0, 981)
    return bytes([0xBB, len(block)]) + block, block


def samples_of(
    make: Callable[[], Decoder],
) -> Callable[[], Callable[[bytes], Iterator[Understood]]]:
    """What a sensor's decoder says of its samples."""

    def fresh() -> Callable[[bytes], Iterator[Understood]]:
        decoder = make()
        return lambda data: (Understood(sample.raw) for sample in decoder.feed(data))

    return fresh


TARGETS = {
    "microcontroller": Target(board_frame, board_decoder),
    "dynamixel": Target(dynamixel_frame, dynamixel_decoder),
    "feetech": Target(feetech_frame, feetech_decoder),
    "feetech_scs": Target(scs_frame, scs_decoder),
    "bno08x_rvc": Target(rvc_frame, samples_of(bno08x_rvc.RvcDecoder)),
    "bno08x_shtp": Target(shtp_frame, samples_of(bno08x_shtp.ShtpDecoder)),
    "bno055": Target(bno055_frame, samples_of(bno055.Bno055Decoder)),
    "witmotion": Target(wit_frame, samples_of(witmotion.WitMotionDecoder)),
}


def spoil(wire: bytes, rng: random.Random) -> tuple[bytes, bool]:
    """What becomes of a frame on a bad line, and whether it is still sound."""
    kind = rng.randrange(10)
    if kind < 5:
        return wire, True
    if kind < 7:  # one to four bytes change
        damaged = bytearray(wire)
        for _ in range(rng.randrange(1, 5)):
            damaged[rng.randrange(len(damaged))] ^= rng.randrange(1, 256)
        return bytes(damaged), bytes(damaged) == wire
    if kind < 8:
        return wire[: rng.randrange(len(wire))], False
    if kind < 9:
        at = rng.randrange(1, len(wire))
        return wire[:at] + rng.randbytes(rng.randrange(1, 40)) + wire[at:], False
    return rng.randbytes(rng.randrange(300)), False


class Tally:
    """What a decoder made of what it was fed."""

    def __init__(self) -> None:
        self.sent = self.sound = self.understood = self.by_chance = self.wrong = self.stuck = 0

    def judge(self, found: Understood, told: set[bytes], received: bytes) -> None:
        """Count one frame that was understood, when `told` had been sent soundly."""
        self.wrong += found.wire not in received
        self.understood += found.meaning in told
        self.by_chance += found.meaning not in told


def fuzz(name: str, frames: int, seed: int) -> bool:
    """Run one decoder; whether it did what it must."""
    target, rng, tally = TARGETS[name], random.Random(seed), Tally()
    feed, before = target.decoder(), b""
    began_s = time.process_time()
    while tally.sent < frames:
        told, wire = set[bytes](), bytearray()
        for _ in range(BATCH):
            data, meaning = target.frame(rng)
            data, sound = spoil(data, rng)
            wire += data
            tally.sound += sound
            told |= {meaning} if sound else set()
        received, at = before + wire, 0
        while at < len(wire):
            end = at + rng.randrange(1, 400)
            for found in feed(bytes(wire[at:end])):
                tally.judge(found, told, received)
            at = end
        quiet = [target.frame(rng) for _ in range(4)]  # sound frames get it back into step
        before = b"".join(data for data, _ in quiet)
        said = [found.meaning for data, _ in quiet for found in feed(data)]
        tally.stuck += quiet[-1][1] not in said
        tally.sent += BATCH + len(quiet)
    passed = not tally.stuck and not tally.wrong
    print(
        f"{name:16} {tally.sent:>9,} frames, {tally.understood / tally.sound:6.2%} of the sound "
        f"ones understood, {tally.wrong} accepted with a wrong CRC, {tally.by_chance} that nobody "
        f"sent, {tally.stuck} times out of step, {time.process_time() - began_s:.0f} s of CPU: "
        f"{'ok' if passed else 'FAILED'}",
        flush=True,
    )
    return passed


def main() -> int:
    """Fuzz what is asked for."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("decoder", nargs="*", help=f"of {', '.join(TARGETS)}; all by default")
    parser.add_argument("--frames", type=int, default=1_000_000)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    if unknown := set(options.decoder) - TARGETS.keys():
        parser.error(f"there is no decoder {', '.join(unknown)}; there are {', '.join(TARGETS)}")
    names = options.decoder or list(TARGETS)
    return 0 if all([fuzz(name, options.frames, options.seed) for name in names]) else 1


if __name__ == "__main__":
    sys.exit(main())
