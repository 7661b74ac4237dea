"""What inertial sensors send: bytes from data sheets and from arithmetic by hand, and anything at
all."""

from __future__ import annotations

import math
import struct
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from deploy.imu import bno055, bno08x_rvc, bno08x_shtp, imu_to_dxl, witmotion
from deploy.imu.sample import Decoder, Sample, gravity_of_quaternion, turn_between

RVC = bytes.fromhex("AAAADE010092FF25088DFEECFFD103000000E7")
"""The example of the BNO080 data sheet 1000-3927, section 1.3.5.2."""
WIT_GYRO = bytes.fromhex("55 52 64 00 9C FF 00 00 C4 09 73")
"""100, -100 and 0 counts and 25.00 °C, worked by hand: the sum is 0x373."""
WIT_ANGLES = bytes.fromhex("55 53 00 20 00 F0 00 40 21 43 5C")
"""8192, -4096 and 16384 counts: 45°, -22.5°, 90°."""


def rvc(index: int, yaw: int = 0, pitch: int = 0, roll: int = 0) -> bytes:
    body = struct.pack("<B6h3x", index, yaw, pitch, roll, 0, 0, 1000)
    return b"\xaa\xaa" + body + bytes([sum(body) & 0xFF])


def shtp(channel: int, sequence: int, cargo: str) -> bytes:
    """A frame by hand: what has to be escaped is escaped one by one."""
    body = bytes.fromhex(cargo)
    raw = b"\x01" + struct.pack("<HBB", len(body) + 4, channel, sequence) + body
    escaped = "".join(f"7d{b ^ 0x20:02x}" if b in (0x7D, 0x7E) else f"{b:02x}" for b in raw)
    return bytes.fromhex(f"7e{escaped}7e")


BNO055_BLOCK = struct.pack(
    "<3h3h4h3h3h", 16, -32, 160, 0, 0, 0, 16384, 0, 0, 0, 0, 0, 0, 0, 490, 849
)
"""1, -2 and 10 °/s; gravity vector 4.90 and 8.49 m/s², so turned by 30° about x."""


def test_the_example_of_the_bno080s_data_sheet_is_read_as_printed() -> None:
    # yaw 0.01°, pitch -1.10°, roll 20.85°, -371, -20 and 977 mg
    (sample,) = bno08x_rvc.RvcDecoder().feed(rvc(0xDD) + RVC)
    assert sample.specific_force == pytest.approx((-0.371, -0.020, 0.977))
    pitch, roll = math.radians(-1.10), math.radians(20.85)
    assert sample.gravity == bno08x_rvc.gravity(pitch, roll)
    # It lay still: gravity is the opposite of what it felt, to 0.1°.
    assert sample.specific_force is not None
    felt = np.array(sample.specific_force) / math.hypot(*sample.specific_force)
    assert math.degrees(math.acos(-felt @ sample.gravity)) < 0.1


def test_rvcs_angular_velocity_is_what_the_angles_turn_in_10_ms() -> None:
    decoder = bno08x_rvc.RvcDecoder()
    samples = list(decoder.feed(rvc(254) + rvc(255, yaw=100) + rvc(1, yaw=100, pitch=-300)))
    # 1° in 10 ms about z; then packet 0 was lost, and -3° in 20 ms about x
    np.testing.assert_allclose(samples[0].angular_velocity, np.radians([0, 0, 100]), atol=1e-12)
    np.testing.assert_allclose(samples[1].angular_velocity, np.radians([-150, 0, 0]), atol=1e-12)
    assert decoder.lost == 1


def test_rvc_skips_its_banner_and_finds_headers_inside_of_packets() -> None:
    tricky = rvc(2, yaw=-0x5556, pitch=-0x5556 + 0x100)  # AA AA among the angles
    data = b"%Hillcrest Labs 10003608\r\n" + rvc(1) + tricky + rvc(3)
    assert len(list(bno08x_rvc.RvcDecoder().feed(data))) == 2
    assert len(list(bno08x_rvc.RvcDecoder().feed(data[30:]))) == 1  # from within the first packet


def test_witmotions_packets_are_read_as_its_data_sheet_says() -> None:
    force = bytes.fromhex("55 51 00 00 00 00 00 08 C4 09 7B")  # 2048 counts: 1 g
    (sample,) = witmotion.WitMotionDecoder().feed(force + WIT_GYRO + WIT_ANGLES)
    # 100 / 32768 · 2000 = 6.1035°/s
    np.testing.assert_allclose(np.degrees(sample.angular_velocity), [6.1035, -6.1035, 0], atol=1e-4)
    assert sample.specific_force == (0.0, 0.0, 1.0)
    # down, turned by 45° about x and then -22.5° about y: (sin p, -sin r cos p, -cos r cos p)
    np.testing.assert_allclose(sample.gravity, [-0.38268, -0.65328, -0.65328], atol=1e-5)


def test_witmotions_angles_without_a_new_gyro_are_no_sample() -> None:
    decoder = witmotion.WitMotionDecoder()
    assert not list(decoder.feed(WIT_ANGLES))
    assert len(list(decoder.feed(WIT_GYRO + WIT_ANGLES + WIT_ANGLES))) == 1


def test_witmotions_configuration_is_that_of_its_manual() -> None:
    unlock, output, rate, baud, save = witmotion.configuration(200, 460800)
    assert unlock.hex() == "ffaa6988b5" and save.hex() == "ffaa000000"
    assert output.hex() == "ffaa020e00"  # 51, 52 and 53: bits 1, 2 and 3 of register 02
    assert (rate.hex(), baud.hex()) == ("ffaa030b00", "ffaa040800")


def test_shtps_set_feature_is_laid_out_as_in_the_data_sheet() -> None:
    # Figure 1-33: FD, report, flags, sensitivity 2, interval 4, batch 4, configuration 4
    cargo = bno08x_shtp.set_feature(0x02, 5000)
    assert cargo.hex() == "fd02000000" + "88130000" + "00000000" + "00000000"
    frame = bno08x_shtp.encode(2, 0x7E, cargo)
    assert frame.hex() == "7e01150002" + "7d5e" + cargo.hex() + "7e"  # 21 bytes with the header


def test_shtps_gyro_and_orientation_make_a_sample() -> None:
    decoder = bno08x_shtp.ShtpDecoder()
    gyro = "fb00000000" + "02010300" + "0002" + "00fe" + "0001"
    # 30° about x: i = sin 15° = 4240 / 16384, real = cos 15° = 15826 / 16384
    game = "fb00000000" + "08010300" + "9010" + "0000" + "0000" + "d23d"
    assert not list(decoder.feed(shtp(3, 0, gyro)))
    (sample,) = decoder.feed(shtp(3, 1, game))
    assert sample.angular_velocity == (1.0, -1.0, 0.5)
    np.testing.assert_allclose(sample.gravity, [0, -0.5, -0.8660], atol=1e-4)
    (sample,) = decoder.feed(shtp(3, 4, gyro + game[10:]))  # both behind one time base
    assert decoder.lost == 2
    # channel 5: i j k real in Q14, angular velocity in Q10, without a report id
    turned = "9010" + "0000" + "0000" + "d23d" + "0004" + "00fc" + "0002"
    (sample,) = decoder.feed(shtp(5, 0, turned))
    assert sample.angular_velocity == (1.0, -1.0, 0.5)


def test_shtp_notices_a_restart_and_what_the_sensor_confirms() -> None:
    decoder = bno08x_shtp.ShtpDecoder()
    list(decoder.feed(shtp(2, 0, "fc02000000" + "88130000" + "00" * 8)))
    assert decoder.features == {0x02: 5000}
    list(decoder.feed(shtp(1, 0, "01")))
    assert decoder.restarts == 1 and not decoder.features


def test_the_bno055s_requests_are_those_of_its_data_sheet() -> None:
    assert bno055.read(0x14, 32) == bytes.fromhex("AA011420")
    assert bno055.write(0x3D, 0x08) == bytes.fromhex("AA003D0108")


def test_the_bno055s_registers_are_read_as_its_data_sheet_says() -> None:
    (sample,) = bno055.Bno055Decoder().feed(b"\xbb\x20" + BNO055_BLOCK)
    np.testing.assert_allclose(np.degrees(sample.angular_velocity), [1, -2, 10], atol=1e-9)
    np.testing.assert_allclose(sample.gravity, [0, -0.5, -0.866], atol=1e-3)


def test_a_bno055_that_cannot_answer_says_why() -> None:
    assert bno055.parse(b"\xee\x07", 32) == (bno055.Response.BUS_OVER_RUN, 2)
    assert bno055.parse(b"\xee\x01", 0) == (bno055.Response.WRITTEN, 2)
    assert bno055.parse(b"\xbb\x20" + bytes(31), 32) == (None, 0)  # one byte is missing
    assert bno055.parse(b"\x00\x01\xbb\x01\xa0", 1) == (b"\xa0", 5)


def test_bno055_values_that_cannot_be_are_not_taken() -> None:
    decoder = bno055.Bno055Decoder()
    short = BNO055_BLOCK[:-2] + struct.pack("<h", 100)  # gravity of 5 m/s²
    list(decoder.feed(b"\xbb\x20" + short + b"\xbb\x20" + bytes(32)))
    assert decoder.damaged == 2


def test_the_microducks_sensor_is_read_as_its_runtime_does() -> None:
    # -1000 counts of 17.5 m°/s; x = -sqrt(1/2) as a half float is 0xb9a8: turned by -90° about x
    block = struct.pack("<3h", -1000, 2000, 0) + bytes.fromhex("a8b9" + "0000" + "0000")
    sample = imu_to_dxl.decode(block)
    assert sample is not None
    np.testing.assert_allclose(np.degrees(sample.angular_velocity), [-17.5, 35.0, 0], atol=1e-9)
    np.testing.assert_allclose(sample.gravity, [0, 1, 0], atol=1e-3)
    assert imu_to_dxl.decode(bytes(12)) is None  # the fusion has not started
    assert imu_to_dxl.decode(bytes(6) + bytes.fromhex("007e" * 3)) is None  # not a number
    assert imu_to_dxl.decode(bytes(6) + bytes.fromhex("003c" * 3)) is None  # 1, 1, 1


DECODERS: dict[str, tuple[Callable[[], Decoder], list[bytes]]] = {
    "bno08x_rvc": (bno08x_rvc.RvcDecoder, [rvc(n, yaw=10 * n) for n in range(6)]),
    "witmotion": (witmotion.WitMotionDecoder, [WIT_GYRO + WIT_ANGLES] * 6),
    "bno08x_shtp": (
        bno08x_shtp.ShtpDecoder,
        [
            shtp(3, n, "fb00000000" "02010300000200fe0001" "08010300901000000000d23d")
            for n in range(6)
        ],
    ),
    "bno055": (bno055.Bno055Decoder, [b"\xbb\x20" + BNO055_BLOCK] * 6),
}  # fmt: skip
LOST = {"bno08x_rvc": 3, "witmotion": 2, "bno08x_shtp": 1, "bno055": 2}
"""Samples of six that garbage in front may cost: the first of an RVC has nothing to differ from;
a mark at the garbage's very end swallows the beginning of a packet."""


@pytest.mark.parametrize("name", list(DECODERS))
@given(garbage=st.binary(max_size=120))
def test_any_garbage_is_survived_and_costs_a_sample_or_two(name: str, garbage: bytes) -> None:
    make, packets = DECODERS[name]
    samples = list(make().feed(garbage + b"".join(packets)))
    assert len(samples) >= 6 - LOST[name]
    for sample in samples:
        assert np.isfinite(sample.angular_velocity).all()
        assert math.hypot(*sample.gravity) == pytest.approx(1.0, abs=1e-9)


@pytest.mark.parametrize("name", list(DECODERS))
@given(cuts=st.lists(st.integers(0, 200), max_size=6), garbage=st.binary(max_size=30))
def test_samples_do_not_depend_on_how_the_bytes_are_chopped_up(
    name: str, cuts: list[int], garbage: bytes
) -> None:
    make, packets = DECODERS[name]
    data = garbage + b"".join(packets)
    decoder, found = make(), list[Sample]()
    ends = [0, *sorted(cuts), len(data)]
    for number in range(len(ends) - 1):
        found += decoder.feed(data[ends[number] : ends[number + 1]])
    assert found == list(make().feed(data))


@pytest.mark.parametrize("name", ["bno08x_rvc", "witmotion"])
@given(place=st.integers(0, 10_000), flip=st.integers(1, 255))
def test_one_damaged_byte_never_makes_a_wrong_sample(name: str, place: int, flip: int) -> None:
    """A sum of eight bits finds every error within one byte."""
    make, packets = DECODERS[name]
    expected = {sample.raw for sample in make().feed(b"".join(packets))}
    data = bytearray(b"".join(packets))
    data[place % len(data)] ^= flip
    for sample in make().feed(bytes(data)):
        assert sample.raw in expected


@given(block=st.binary(min_size=12, max_size=12))
def test_no_block_lets_the_microducks_decoder_stumble(block: bytes) -> None:
    sample = imu_to_dxl.decode(block)
    assert sample is None or math.hypot(*sample.gravity) == pytest.approx(1.0, abs=1e-6)


@given(
    st.tuples(*[st.floats(-1, 1)] * 4).filter(lambda q: math.hypot(*q) > 0.1),
    st.tuples(*[st.floats(-1, 1)] * 3),
)
def test_rotations_agree_with_mujoco(quaternion: tuple, turn: tuple) -> None:
    mujoco = pytest.importorskip("mujoco")
    q = np.array(quaternion) / math.hypot(*quaternion)
    matrix = np.zeros(9)
    mujoco.mju_quat2Mat(matrix, q)
    down = gravity_of_quaternion(tuple(q.tolist()))
    assert down is not None
    np.testing.assert_allclose(down, -matrix.reshape(3, 3)[2], atol=1e-12)
    after = q.copy()
    mujoco.mju_quatIntegrate(after, np.array(turn), 1.0)
    found = turn_between(tuple(q.tolist()), tuple(after.tolist()))
    np.testing.assert_allclose(found, turn, atol=1e-9)
