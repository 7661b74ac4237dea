"""Strict YAML: values are converted by type, mistakes are named with what would be right."""

from pathlib import Path
from typing import Annotated, Literal

import pytest
from pydantic import Field, ValidationError, model_validator

from deploy.configuration import Section, did_you_mean, load_yaml, validate
from deploy.errors import ConfigError, DeployError


class Motor(Section):
    """A part of the robot below."""

    gain: Annotated[float, Field(gt=0)] = 1.0
    enabled: bool = True


class Robot(Section):
    """A configuration with one field of each kind."""

    name: str
    mode: Literal["walk", "stand"] = "walk"
    limits: tuple[float, float] = (0.0, 1.0)
    motor: Motor = Motor()
    legs: dict[str, Motor] = {}

    @model_validator(mode="after")
    def _check(self) -> "Robot":
        if self.limits[0] > self.limits[1]:
            raise ValueError("limits must be [low, high]")
        return self


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "robot.yaml"
    path.write_text("name: spot\n")
    return path


def refusal(path: Path, text: str | None = None, *overrides: str) -> str:
    """The error that a file with `text` causes."""
    if text is not None:
        path.write_text(text)
    with pytest.raises(ConfigError) as error:
        load_yaml(path, Robot, overrides)
    return str(error.value)


def test_missing_values_are_the_defaults(path: Path):
    assert load_yaml(path, Robot) == Robot(name="spot")


def test_nested_values_are_read(path: Path):
    path.write_text("name: spot\nmotor: {gain: 2}\nlegs:\n  left: {gain: 3, enabled: no}\n")

    robot = load_yaml(path, Robot)

    assert robot.motor.gain == 2.0
    assert robot.legs == {"left": Motor(gain=3.0, enabled=False)}


@pytest.mark.parametrize("text", ["1e-3", "0.001", "1.0e-3"])
def test_number_may_be_written_with_an_exponent(path: Path, text: str):
    # PyYAML reads 1e-3, which has no point, as a string.
    path.write_text(f"name: spot\nmotor: {{gain: {text}}}\n")

    assert load_yaml(path, Robot).motor.gain == 0.001


def test_nothing_can_be_changed_afterwards(path: Path):
    robot = load_yaml(path, Robot)

    with pytest.raises(ValidationError, match="frozen"):
        robot.name = "other"  # pyright: ignore[reportAttributeAccessIssue]


def test_missing_file_is_named(tmp_path: Path):
    path = tmp_path / "nowhere.yaml"

    assert refusal(path) == f"{path}: cannot be read: No such file or directory"


@pytest.mark.parametrize(
    ("text", "found"), [("", "nothing"), ("- a\n- b\n", "list"), ("just words\n", "str")]
)
def test_file_that_is_no_mapping_is_refused(path: Path, text: str, found: str):
    assert refusal(path, text) == f"{path}: expected a mapping of keys to values, found {found}"


def test_file_that_is_not_yaml_is_refused_with_the_place(path: Path):
    text = refusal(path, "name: [unclosed\n")

    assert text.startswith(f"{path}: is not YAML: ")
    assert "line 1" in text


def test_binary_file_is_refused(path: Path):
    path.write_bytes(b"\xff\xfe\x00")

    with pytest.raises(ConfigError, match="is not YAML"):
        load_yaml(path, Robot)


def test_yaml_cannot_execute_anything(path: Path):
    text = refusal(path, "name: !!python/object/apply:os.getcwd []\n")

    assert text == f"{path}: line 1: tags (!) are not read; write a plain value"


def test_unknown_key_is_refused_with_the_nearest_and_all_valid_names(path: Path):
    assert refusal(path, "nme: spot\n").splitlines() == [
        f"{path}: name: field required",
        f"{path}: (top level): unknown key 'nme' (did you mean 'name'?); "
        "valid keys are legs, limits, mode, motor, name",
    ]


def test_unknown_key_of_a_section_is_named_with_its_section(path: Path):
    assert refusal(path, "name: spot\nlegs: {left: {kp: 1}}\n") == (
        f"{path}: legs.left: unknown key 'kp'; valid keys are enabled, gain"
    )


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("motor: {gain: fast}",
         "motor.gain: input should be a valid number, found 'fast'"),
        ("motor: {gain: -1}", "motor.gain: input should be greater than 0, found -1"),
        ("motor: {gain: .nan}", "motor.gain: input should be a finite number, found nan"),
        ("motor: {gain: .inf}", "motor.gain: input should be a finite number, found inf"),
        ("mode: run", "mode: input should be 'walk' or 'stand', found 'run'"),
        ("limits: [0]", "limits.1: field required"),
        ("limits: [2, 1]", "(top level): limits must be [low, high]"),
    ],
)  # fmt: skip
def test_wrong_value_is_refused_with_key_expectation_and_value(path: Path, text: str, problem: str):
    assert refusal(path, f"name: spot\n{text}\n") == f"{path}: {problem}"


def test_missing_key_is_refused(path: Path):
    assert refusal(path, "mode: walk\n") == f"{path}: name: field required"


def test_every_problem_is_reported(path: Path):
    assert refusal(path, "name: spot\nmode: run\nmotor: {gain: 0}\n").splitlines() == [
        f"{path}: mode: input should be 'walk' or 'stand', found 'run'",
        f"{path}: motor.gain: input should be greater than 0, found 0",
    ]


def test_overrides_are_applied_over_the_file(path: Path):
    robot = load_yaml(path, Robot, ["mode=stand", "motor.gain=1e-3", "legs.left.enabled=no"])

    assert robot == Robot(
        name="spot",
        mode="stand",
        motor=Motor(gain=0.001),
        legs={"left": Motor(enabled=False)},
    )


def test_later_override_wins(path: Path):
    assert load_yaml(path, Robot, ["motor.gain=2", "motor.gain=3"]).motor.gain == 3


def test_value_of_an_override_may_contain_an_equals_sign(path: Path):
    assert load_yaml(path, Robot, ["name=a=b"]).name == "a=b"


def test_override_fills_a_section_left_empty_in_the_file(path: Path):
    path.write_text("name: spot\nmotor:\n")

    assert load_yaml(path, Robot, ["motor.gain=2"]).motor.gain == 2


@pytest.mark.parametrize("override", ["mode", "=stand", ""])
def test_override_without_key_and_value_is_refused(path: Path, override: str):
    assert refusal(path, None, override) == (
        f"override {override!r}: expected key=value, e.g. num_envs=128"
    )


def test_override_below_a_value_is_refused(path: Path):
    assert refusal(path, None, "name.first=rex") == (
        "override 'name.first=rex': 'name' is a value, not a section"
    )


def test_override_that_is_not_yaml_is_refused(path: Path):
    text = refusal(path, None, "limits=[0, 1")

    assert text.startswith("override 'limits=[0, 1': is not YAML: ")


def test_override_that_does_not_fit_names_the_key(path: Path):
    assert refusal(path, None, "mode=run") == (
        f"{path}: mode: input should be 'walk' or 'stand', found 'run'"
    )


def test_plain_data_is_validated_under_the_name_of_its_source():
    assert validate({"name": "spot"}, Robot, source="memory") == Robot(name="spot")
    with pytest.raises(ConfigError, match=r"^memory: name: field required$"):
        validate({}, Robot, source="memory")


def test_error_is_both_ours_and_a_value_error():
    assert issubclass(ConfigError, DeployError)
    assert issubclass(ConfigError, ValueError)


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("gian", " (did you mean 'gain'?)"),
        ("enable", " (did you mean 'enabled'?)"),
        ("voltage", ""),
        (17, ""),
    ],
)
def test_nearest_name_is_suggested_only_when_it_is_near(name: object, hint: str):
    assert did_you_mean(name, ["gain", "enabled"]) == hint
