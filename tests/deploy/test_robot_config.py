"""Every way to get a robot's YAML wrong has its own message; the whole text is what users see."""

import math
from pathlib import Path

import pytest

from deploy.configuration import load_yaml
from deploy.errors import ConfigError
from deploy.robot_config import BusConfig, RobotConfig, SafetyConfig
from deploy.servos.catalog import MODELS

ROBOT = """\
robot: leg
bus:
  port: /dev/ttyUSB0
joints:
  hip:
    id: 1
    model: XL430-W250
    position_limits_rad: [-1.0, 1.0]
    velocity_limit_rad_s: 2
    rest_rad: 0.0
  knee:
    id: 2
    model: XL330-M288
    position_limits_rad: [0.0, 2.0]
    velocity_limit_rad_s: 2
    rest_rad: 0.0
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "leg.yaml"
    path.write_text(ROBOT)
    return path


def refusal(path: Path, *overrides: str) -> str:
    with pytest.raises(ConfigError) as caught:
        load_yaml(path, RobotConfig, overrides)
    return str(caught.value).removeprefix(f"{path}: ")


def test_what_is_not_said_has_a_safe_default(path: Path):
    config = load_yaml(path, RobotConfig)
    bus = config.wired["bus"]
    assert isinstance(bus, BusConfig)
    assert (bus.baud_rate, bus.usb_latency_ms) == (1_000_000, 4.0)
    assert (config.joints["hip"].direction, config.joints["hip"].zero_ticks) == (1, 2048)
    assert config.joints["hip"].rest_tolerance_rad == 0.2
    assert config.safety == SafetyConfig(
        safe_state="hold",
        stale_after_ms=100.0,
        max_step_rad=0.6,
        following_error_rad=0.15,
        following_time_ms=500.0,
        overspeed_factor=3.0,
        max_overruns=10,
        watchdog_ms=100,
        move_to_start_s=2.0,
        pose_tolerance_rad=0.3,
    )


def test_joints_keep_the_order_of_the_file(path: Path):
    assert list(load_yaml(path, RobotConfig).joints) == ["hip", "knee"]


def test_nothing_can_be_changed_afterwards(path: Path):
    config = load_yaml(path, RobotConfig)
    with pytest.raises(ValueError, match="frozen"):
        config.safety.max_step_rad = 10.0


def test_message_begins_with_the_file(path: Path):
    with pytest.raises(ConfigError, match=rf"^{path}: joints\.hip\.id: "):
        load_yaml(path, RobotConfig, ["joints.hip.id=253"])


@pytest.mark.parametrize(
    ("override", "message"),
    [
        (
            "safty.watchdog_ms=200",
            "(top level): unknown key 'safty' (did you mean 'safety'?); valid keys are bus, "
            "devices, joints, loop, model, robot, safety",
        ),
        (
            "joints.hip.directon=-1",
            "joints.hip: unknown key 'directon' (did you mean 'direction'?); valid keys are "
            "continuous, current_limit_a, device, direction, id, model, overload_share, "
            "position_limits_rad, rest_rad, rest_tolerance_rad, supply_v, velocity_limit_rad_s, "
            "zero_ticks",
        ),
        (
            "bus.latency=4",
            "bus: unknown key 'latency' (did you mean 'usb_latency_ms'?); valid keys are "
            "baud_rate, imu, port, protocol, usb_latency_ms",
        ),
    ],
    ids=["section", "joint", "bus"],
)
def test_unknown_key_is_answered_with_the_nearest_one(path: Path, override: str, message: str):
    assert refusal(path, override) == message


def test_two_joints_cannot_share_a_servo(path: Path):
    assert refusal(path, "joints.knee.id=1") == (
        "(top level): joints 'hip' and 'knee' both have servo id 1; give each servo its own id"
    )


def test_degrees_are_not_taken_for_radians(path: Path):
    assert refusal(path, "joints.hip.position_limits_rad=[-90, 90]") == (
        "joints.hip: position_limits_rad [-90.0, 90.0] exceeds one turn (±3.1416 rad); joint "
        "angles are in radians, not degrees"
    )


def test_unknown_servo_model_is_answered_with_the_nearest_one(path: Path):
    assert refusal(path, "joints.hip.model=XL430") == (
        "joints.hip: unknown servo model 'XL430' (did you mean 'XL430-W250'?); known models are "
        f"{', '.join(MODELS)}"
    )


@pytest.mark.parametrize("limits", ["[1.0, -1.0]", "[0.0, 0.0]"])
def test_limits_without_a_range_between_them_are_refused(path: Path, limits: str):
    assert refusal(path, f"joints.hip.position_limits_rad={limits}") == (
        f"joints.hip: position_limits_rad must be [low, high], found {limits}"
    )


def test_rest_pose_must_be_within_the_limits(path: Path):
    assert refusal(path, "joints.knee.rest_rad=-0.1") == (
        "joints.knee: rest_rad -0.1 is outside position_limits_rad"
    )


def test_limits_beyond_the_servos_turn_are_refused(path: Path):
    # -2 rad would be count 1000 - 1304 = -304, a goal that a servo in position mode refuses
    overrides = ["joints.hip.zero_ticks=1000", "joints.hip.position_limits_rad=[-2.0, 1.0]"]
    assert "zero_ticks" in refusal(path, *overrides)


COUNT = 2 * math.pi / 4096


@pytest.mark.parametrize(
    ("zero", "limits"),
    [(1000, (-1000, 500)), (3000, (-500, 1095))],  # counts 0 to 1500, and 2500 to 4095
)
def test_every_count_of_a_servos_turn_can_be_used_and_no_more(
    path: Path, zero: int, limits: tuple[int, int]
):
    def overrides(low: float, high: float) -> list[str]:
        return [
            f"joints.hip.zero_ticks={zero}",
            f"joints.hip.position_limits_rad=[{low * COUNT}, {high * COUNT}]",
        ]

    low, high = limits
    load_yaml(path, RobotConfig, overrides(low + 1e-6, high - 1e-6))
    beyond = overrides(low - 0.5, high) if zero + low == 0 else overrides(low, high + 0.5)
    assert "a servo has 0 to 4095" in refusal(path, *beyond)


def test_path_of_a_device_has_at_most_a_thousand_characters(path: Path):
    longest = "/dev/".ljust(1000, "x")
    assert load_yaml(path, RobotConfig, [f"bus.port={longest}"]).wired["bus"].port == longest
    assert "expected the path of a device" in refusal(path, f"bus.port={longest}x")


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("joints.hip.id", "253", "input should be less than or equal to 252, found 253"),
        ("joints.hip.direction", "0", "input should be 1 or -1, found 0"),
        ("joints.hip.zero_ticks", "4096", "input should be less than or equal to 4095, found 4096"),
        (
            "joints.hip.velocity_limit_rad_s",
            "0",
            "input should be greater than or equal to 0.01, found 0",
        ),
        ("bus.baud_rate", "1200", "input should be greater than or equal to 9600, found 1200"),
        ("safety.safe_state", "limp", "input should be 'hold' or 'torque_off', found 'limp'"),
        ("safety.watchdog_ms", "10", "input should be greater than or equal to 20, found 10"),
        ("safety.watchdog_ms", "2550", "input should be less than or equal to 2540, found 2550"),
        ("safety.overspeed_factor", "1", "input should be greater than 1, found 1"),
    ],
)
def test_value_out_of_range_is_named_with_what_is_expected(
    path: Path, key: str, value: str, message: str
):
    assert refusal(path, f"{key}={value}") == f"{key}: {message}"


@pytest.mark.parametrize("value", [".nan", ".inf"])
@pytest.mark.parametrize(
    "key",
    [
        "joints.hip.velocity_limit_rad_s",
        "joints.hip.rest_rad",
        "safety.stale_after_ms",
        "safety.max_step_rad",
        "safety.overspeed_factor",
        "safety.move_to_start_s",
    ],
)
def test_limit_that_is_no_finite_number_is_refused(path: Path, key: str, value: str):
    assert refusal(path, f"{key}={value}").startswith(key.rpartition(".")[0])


def test_missing_value_is_named(path: Path):
    path.write_text(ROBOT.replace("    rest_rad: 0.0\n", "", 1))
    assert refusal(path) == "joints.hip.rest_rad: field required"


def test_every_problem_is_listed(path: Path):
    overrides = ["joints.hip.id=300", "joints.knee.direction=2"]
    assert len(refusal(path, *overrides).splitlines()) == 2


def test_robot_without_joints_is_refused(path: Path):
    assert refusal(path, "joints={}").startswith("joints: ")


def test_shipped_robot_is_valid(desk_arm: RobotConfig):
    wired = {name: joint.id for name, joint in desk_arm.joints.items()}
    assert wired == {
        "shoulder_pan": 1,
        "shoulder_lift": 2,
        "elbow_flex": 3,
        "wrist_flex": 4,
        "wrist_roll": 5,
        "gripper": 6,
    }


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("joints.hip.id", "true", "input should be a valid integer, found True"),
        ("joints.hip.direction", "true", "must be 1 or -1, found True"),
        ("joints.hip.zero_ticks", "2048.0", "input should be a valid integer, found 2048.0"),
        ("joints.hip.velocity_limit_rad_s", "1e308",
         "input should be less than or equal to 100, found 1e+308"),
        ("joints.hip.rest_rad", "1e5",
         "input should be less than or equal to 1000, found 100000.0"),
        ("bus.port", "ttyUSB0",
         "expected the path of a device such as /dev/ttyUSB0, found 'ttyUSB0'"),
        ("bus.port", "''", "expected the path of a device such as /dev/ttyUSB0, found ''"),
        ("bus.port", "/dev/", "expected the path of a device such as /dev/ttyUSB0, found '/dev/'"),
        ("bus.usb_latency_ms", "-1", "input should be greater than or equal to 0, found -1"),
        ("safety.stale_after_ms", "1e5",
         "input should be less than or equal to 2000, found 100000.0"),
        ("safety.stale_after_ms", "0", "input should be greater than or equal to 1, found 0"),
        ("safety.max_step_rad", "1e5",
         "input should be less than or equal to 6.3, found 100000.0"),
        ("safety.overspeed_factor", "1e5",
         "input should be less than or equal to 10, found 100000.0"),
        ("safety.max_overruns", "1000000000",
         "input should be less than or equal to 1000, found 1000000000"),
        ("safety.move_to_start_s", "1e5",
         "input should be less than or equal to 60, found 100000.0"),
        ("robot", "''", "string should have at least 1 character, found ''"),
        ("robot", "'two, arms'",
         "a name has no comma, and no space at its ends, found 'two, arms'"),
    ],
)  # fmt: skip
def test_number_or_text_that_no_robot_has_is_refused(
    path: Path, key: str, value: str, message: str
):
    assert refusal(path, f"{key}={value}") == f"{key}: {message}"


def test_joint_that_is_there_twice_is_refused(path: Path):
    path.write_text(f"{ROBOT}  hip:\n    position_limits_rad: [-3.0, 3.0]\n")

    with pytest.raises(ConfigError, match=r": line 17: the key 'hip' is there twice; keep one$"):
        load_yaml(path, RobotConfig)


@pytest.mark.parametrize("baud_rate", [9601, 500_000, 4_000_001])
def test_baud_rate_that_no_servo_has_is_refused(path: Path, baud_rate: int):
    assert refusal(path, f"bus.baud_rate={baud_rate}") == (
        f"(top level): bus.baud_rate {baud_rate} is none of 'hip', a XL430-W250; it can be set to "
        "9600, 57600, 115200, 1000000, 2000000, 3000000, 4000000, 4500000"
    )


def test_baud_rate_is_one_that_every_servo_on_the_bus_has(path: Path):
    # The knee's XL330 ends at 4 Mbps (eManual, "XL330-M288 > Baud Rate"); the hip's XL430 does not.
    assert "bus.baud_rate 4500000 is none of 'knee', a XL330-M288" in refusal(
        path, "bus.baud_rate=4500000"
    )
    only_hip = ["bus.baud_rate=4500000", "joints.knee.model=XM430-W350"]
    assert load_yaml(path, RobotConfig, only_hip).wired["bus"].baud_rate == 4_500_000


def test_speed_limit_beyond_what_the_servo_can_do_is_refused(path: Path):
    # An XL430 turns at 61 rev/min = 6.39 rad/s without load.
    assert refusal(path, "joints.hip.velocity_limit_rad_s=10") == (
        "joints.hip: velocity_limit_rad_s 10 is no limit for a XL430-W250, which turns at 6.4 "
        "rad/s without load; expected at most 9.6"
    )


def test_supply_is_the_nominal_one_unless_it_is_said(path: Path):
    assert load_yaml(path, RobotConfig).joints["hip"].voltage_v == 12.0
    fed = load_yaml(path, RobotConfig, ["joints.hip.supply_v=11.1"])
    assert fed.joints["hip"].voltage_v == 11.1


@pytest.mark.parametrize("volts", [5.9, 24.1])
def test_supply_that_is_no_servos_is_refused(path: Path, volts: float):
    assert refusal(path, f"joints.hip.supply_v={volts}") == (
        f"joints.hip: supply_v {volts} is no supply for a XL430-W250, expected 6..24 V; correct "
        "it, or leave it out for 12 V"
    )


def test_higher_supply_makes_a_faster_servo(path: Path):
    # Friction takes a share of 12 V that does not grow with the supply: a bit more than 1.5 times.
    overrides = ["joints.hip.velocity_limit_rad_s=14.3", "joints.hip.supply_v=18"]
    load_yaml(path, RobotConfig, overrides)
    assert "turns at 9.6 rad/s without load" in refusal(
        path, "joints.hip.velocity_limit_rad_s=15", "joints.hip.supply_v=18"
    )


@pytest.mark.parametrize(("model", "speed"), [("XL430-W250", 0.5), ("XL330-M077", 60.0)])
def test_geared_joint_and_fast_wheel_are_accepted(path: Path, model: str, speed: float):
    overrides = [f"joints.hip.model={model}", f"joints.hip.velocity_limit_rad_s={speed}"]

    assert load_yaml(path, RobotConfig, overrides).joints["hip"].velocity_limit_rad_s == speed
