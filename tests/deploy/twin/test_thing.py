"""A thing before a twin: physics by hand, what is refused, and a camera that sees it."""

import json
from dataclasses import replace
from pathlib import Path

import mujoco
import numpy as np
import pytest

from deploy.configuration import load_yaml
from deploy.errors import ConfigError
from deploy.robot_config import RobotConfig
from deploy.twin.camera import PIXEL_M, Camera
from deploy.twin.parameters import TwinParameters, draw
from deploy.twin.robot import Twin
from deploy.twin.thing import THING, add_thing
from deploy.twin.truth import TruthRecorder

ROOT = Path(__file__).parents[3]
PUCK = ROOT / "configs/things/puck.xml"
GRAVITY = 9.81
FREE = '<mujoco><worldbody><body><freejoint/><geom size="0.01"/></body>{}</worldbody></mujoco>'


@pytest.fixture(scope="module")
def desk_arm() -> tuple[Path, RobotConfig]:
    wiring = load_yaml(ROOT / "configs/robots/desk_arm.yaml", RobotConfig)
    return ROOT / "envs/robots/desk_arm/desk_arm.xml", wiring


@pytest.fixture
def twin(desk_arm: tuple[Path, RobotConfig]) -> Twin:
    return Twin(*desk_arm, thing=PUCK)


def at(twin: Twin) -> np.ndarray:
    assert twin.thing_position is not None
    return twin.thing_position


@pytest.mark.parametrize("friction_scale", [1.0, 0.5])
def test_puck_that_was_pushed_slides_as_far_as_its_friction_lets_it(
    desk_arm: tuple[Path, RobotConfig], friction_scale: float
):
    parameters = TwinParameters(thing_friction_scale=friction_scale, thing_mass_scale=1.3)
    twin = Twin(*desk_arm, parameters, thing=PUCK)
    twin.advance(0.2)
    before, speed = at(twin), 0.5
    start = int(twin._model.joint(THING).dofadr[0])
    twin._data.qvel[start + 1] = speed

    twin.advance(1.5)

    way = at(twin) - before
    assert way[1] == pytest.approx(speed**2 / (2 * 0.4 * friction_scale * GRAVITY), rel=0.03)
    assert way[[0, 2]] == pytest.approx(0, abs=1e-3)
    assert twin._model.body(THING).mass[0] == pytest.approx(0.05 * 1.3)


def test_arm_does_not_notice_a_thing_it_does_not_touch(desk_arm: tuple[Path, RobotConfig]):
    alone, beside = Twin(*desk_arm), Twin(*desk_arm, thing=PUCK)
    for twin in (alone, beside):
        twin.advance(1.0)
    # it lies limp on the desk, where it creeps with one model of contacts as with the other
    assert beside.joint_position == pytest.approx(alone.joint_position, abs=2e-3)
    assert alone.thing_position is None


def test_thing_lies_where_it_was_drawn_and_stays_there(desk_arm: tuple[Path, RobotConfig]):
    parameters = draw(3, desk_arm[0])
    twin = Twin(*desk_arm, parameters, thing=PUCK)
    twin.advance(1.0)

    x, y = parameters.thing_place_m
    assert (x, y) != (0, 0)
    assert at(twin) == pytest.approx([0.2 + x, 0.08 + y, 0.015], abs=5e-4)


def test_truth_knows_where_the_thing_was(twin: Twin, tmp_path: Path):
    truth = TruthRecorder(twin)
    truth.advance(0.05)
    truth.save(tmp_path / "truth.npz")
    positions = np.load(tmp_path / "truth.npz")["object_position"]
    assert positions.shape == (6, 3)
    assert positions[-1] == pytest.approx(at(twin))


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (FREE.format("<body/>"), "found 2 bodies in the worldbody, 1 joints; expected one body"),
        ("<mujoco><worldbody><body><geom size='.1'/></body></worldbody></mujoco>", "0 joints"),
        (
            "<mujoco><worldbody><body><joint/><geom size='.1'/></body></worldbody></mujoco>",
            "found 1 bodies in the worldbody, 1 joints; expected one body with a <freejoint/>",
        ),
        ("<mujoco><worldbody/></mujoco>", "found 0 bodies"),
        ("puck", "is no MJCF of a thing"),
    ],
)
def test_what_is_no_thing_is_refused(
    desk_arm: tuple[Path, RobotConfig], tmp_path: Path, text: str, found: str
):
    path = tmp_path / "thing.xml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=found) as error:
        Twin(*desk_arm, thing=path)
    assert str(error.value).startswith(f"{path}: ")


@pytest.mark.parametrize(
    ("body", "found"),
    [
        ('<geom type="mesh" mesh="none"/>', "mesh"),
        ('<geom size="0.01" mass="-1"/>', "mass"),
        ("", "mass"),
    ],
)
def test_thing_that_cannot_be_compiled_is_refused(
    desk_arm: tuple[Path, RobotConfig], tmp_path: Path, body: str, found: str
):
    path = tmp_path / "thing.xml"
    path.write_text(f"<mujoco><worldbody><body><freejoint/>{body}</body></worldbody></mujoco>")
    with pytest.raises(ConfigError, match=f"is no MJCF of a thing: .*{found}"):
        Twin(*desk_arm, thing=path)


def test_thing_that_lies_in_the_robot_is_refused(
    desk_arm: tuple[Path, RobotConfig], tmp_path: Path
):
    path, (x, y, z) = tmp_path / "thing.xml", Twin(*desk_arm).tool_position
    path.write_text(PUCK.read_text().replace("0.2 0.08 0.015", f"{x} {y} {z}"))
    with pytest.raises(ConfigError, match=r"m lies \d+ mm deep in '(hand|jaw)' of the"):
        Twin(*desk_arm, thing=path)


@pytest.mark.parametrize("thing", ["puck", "cube"])
@pytest.mark.parametrize(
    ("wiring", "model"), [("desk_arm", "desk_arm"), ("so101", "so101_arm")], ids=["desk", "so101"]
)
def test_things_lie_apart_from_the_arms_that_are_trained_to_bring_them(
    thing: str, wiring: str, model: str
):
    robot = load_yaml(ROOT / f"configs/robots/{wiring}.yaml", RobotConfig)
    mjcf = ROOT / f"envs/robots/{model}/{model}.xml"
    for seed in (None, *range(5)):
        parameters = TwinParameters() if seed is None else draw(seed, mjcf)
        twin = Twin(mjcf, robot, parameters, thing=ROOT / f"configs/things/{thing}.xml")
        before = at(twin)
        twin.advance(0.5)
        assert at(twin) == pytest.approx(before, abs=3e-3)  # the SO-101 stands 2.4 mm over its desk


def test_thing_in_a_frame_keeps_its_place_and_of_several_parts_each_is_varied(
    desk_arm: tuple[Path, RobotConfig], tmp_path: Path
):
    path = tmp_path / "thing.xml"
    path.write_text(
        """<mujoco><compiler angle="degree"/><worldbody><frame pos="0.2 0 0.03" euler="0 0 90">
        <body pos="0 0.02 0"><freejoint/><geom size="0.01" mass="0.02" friction="0.5"/>
        <body><geom size="0.01" pos="0 0 0.02" mass="0.05" friction="0.7"/></body></body>
        </frame></worldbody></mujoco>"""
    )
    parameters = TwinParameters(thing_mass_scale=2.0, thing_friction_scale=0.5)
    twin = Twin(*desk_arm, parameters, thing=path)
    model = twin._model
    assert model.body(THING).pos == pytest.approx([0.18, 0, 0.03])
    assert model.body_mass[-2:] == pytest.approx([0.04, 0.1])
    assert model.geom_friction[-2:, 0] == pytest.approx([0.25, 0.35])


def test_options_of_the_robot_stay_where_a_thing_has_none(
    desk_arm: tuple[Path, RobotConfig], tmp_path: Path
):
    robot = desk_arm[0].parents[1] / "so101_arm/so101_arm.xml"
    spec = mujoco.MjSpec.from_file(str(robot))
    cone, impratio = spec.option.cone, spec.option.impratio
    assert (cone, impratio) != (0, 1)  # or this tests nothing
    plain = tmp_path / "plain.xml"
    plain.write_text(FREE.format(""))
    add_thing(spec, plain, TwinParameters())
    assert (spec.option.cone, spec.option.impratio) == (cone, impratio)


def test_thing_that_is_not_there_is_refused(desk_arm: tuple[Path, RobotConfig], tmp_path: Path):
    with pytest.raises(ConfigError, match=r"none\.xml: is no MJCF of a thing"):
        Twin(*desk_arm, thing=tmp_path / "none.xml")


def watched(twin: Twin, parameters: TwinParameters, seconds: float) -> list[tuple[float, dict]]:
    """What a camera sends, and when."""
    sent: list[tuple[float, dict]] = []
    twin.parameters = parameters
    camera = Camera(twin, lambda data: sent.append((twin.time_s, json.loads(data))))
    for tick in range(round(seconds / 0.002)):
        twin.advance(tick * 0.002)
        camera.advance(twin.time_s)
    return sent


def test_camera_tells_where_the_thing_was_a_while_ago(twin: Twin):
    error = (0.002, -0.003, 0.001)
    sent = watched(twin, TwinParameters(camera_latency_s=0.08, camera_error_m=error), 2.0)

    assert len(sent) == pytest.approx((2.0 - 0.08) * 30, abs=2)
    seen = np.array([message["signals"]["object_position"] for _, message in sent])
    assert seen.mean(axis=0) == pytest.approx(at(twin) + error, abs=3e-4)
    assert 0.5 * PIXEL_M < seen.std(axis=0).mean() < 1.5 * PIXEL_M
    ages = [message["age_s"] for _, message in sent]
    assert min(ages) >= 0.08 - 1e-9
    assert max(ages) < 0.083


def test_camera_looks_at_the_past(twin: Twin):
    place = int(twin._model.joint(THING).qposadr[0])
    sent: list[np.ndarray] = []
    twin.parameters = TwinParameters(camera_latency_s=0.05)

    def take(data: bytes) -> None:
        sent.append(np.array(json.loads(data)["signals"]["object_position"]))

    camera = Camera(twin, take)
    twin.advance(0.001)
    camera.advance(0.001)  # a picture
    twin._data.qpos[place] += 0.1
    twin.advance(0.049)
    camera.advance(0.049)
    assert not sent
    camera.advance(0.052)
    assert sent[0][0] == pytest.approx(0.2, abs=5 * PIXEL_M)  # and not 0.3


def test_camera_misses_as_many_pictures_as_were_drawn(twin: Twin):
    seen = len(watched(twin, TwinParameters(camera_latency_s=0.0, camera_missed=0.5), 4.0))
    assert 40 < seen < 80  # of 120


def test_camera_signs_what_it_sends(twin: Twin, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("ROBOTRL_TOKEN", "secret")
    (first, *_) = watched(twin, replace(TwinParameters(), camera_latency_s=0.0), 0.1)
    assert first[1]["token"] == "secret"
