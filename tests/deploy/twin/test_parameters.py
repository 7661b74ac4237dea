import json

import pytest

from deploy.twin import parameters
from deploy.twin.parameters import TwinParameters, draw


def test_without_a_seed_the_robot_is_nominal(arm_path):
    assert draw(None, arm_path) == TwinParameters()


def test_a_seed_is_one_robot(arm_path):
    assert draw(3, arm_path) == draw(3, arm_path)
    assert draw(3, arm_path) != draw(4, arm_path)


@pytest.mark.parametrize(
    ("scales", "names", "bounds"),
    [
        ("mass_scale", {"upper", "lower"}, parameters.MASS_SCALE),
        ("friction_scale", {"shoulder", "elbow"}, parameters.FRICTION_SCALE),
        ("damping_scale", {"shoulder", "elbow"}, parameters.DAMPING_SCALE),
        ("strength_scale", {"shoulder", "elbow"}, parameters.STRENGTH_SCALE),
        ("armature_scale", {"shoulder", "elbow"}, parameters.ARMATURE_SCALE),
        ("zero_error_rad", {"shoulder", "elbow"}, parameters.ZERO_ERROR_RAD),
        ("backlash_rad", {"shoulder", "elbow"}, parameters.BACKLASH_RAD),
    ],
)
def test_scales_fill_their_range_for_every_part(arm_path, scales, names, bounds):
    drawn = [getattr(draw(seed, arm_path), scales) for seed in range(50)]
    values = [value for scale in drawn for value in scale.values()]
    low, high = bounds
    margin = 0.1 * (high - low)

    assert all(set(scale) == names for scale in drawn)
    assert low <= min(values) < low + margin
    assert high - margin < max(values) <= high


@pytest.mark.parametrize(
    ("name", "bounds"),
    [
        ("stribeck_scale", parameters.STRIBECK_SCALE),
        ("load_friction", parameters.LOAD_FRICTION),
        ("payload_kg", parameters.PAYLOAD_KG),
        ("supply_scale", parameters.SUPPLY_SCALE),
        ("supply_resistance_ohm", parameters.SUPPLY_RESISTANCE_OHM),
        ("command_latency_s", parameters.COMMAND_LATENCY_S),
        ("usb_latency_s", parameters.USB_LATENCY_S),
    ],
)
def test_what_concerns_the_whole_robot_fills_its_range(arm_path, name, bounds):
    values = [getattr(draw(seed, arm_path), name) for seed in range(60)]
    low, high = bounds
    margin = 0.15 * (high - low)
    assert low <= min(values) < low + margin
    assert high - margin < max(values) <= high


def test_drawn_robot_can_be_written_as_json(arm_path):
    drawn = draw(3, arm_path)
    written = json.dumps(drawn.to_dict())
    assert json.dumps(TwinParameters(**json.loads(written)).to_dict()) == written
