"""Strict YAML: values are converted by type, mistakes are named with what would be right."""

import random
from pathlib import Path
from typing import Annotated, Literal

import pytest
from pydantic import Field, ValidationError, model_validator

from deploy.configuration import MAX_BYTES, MAX_DEPTH, Section, did_you_mean, load_yaml, validate
from deploy.errors import ConfigError, DeployError


class Motor(Section):
    """A part of the robot below."""

    gain: Annotated[float, Field(gt=0)] = 1.0
    enabled: bool = True


class Robot(Section):
    """A configuration with one field of each kind."""

    name: str
    feet: int = 4
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
        f"{path}: (top level): unknown key 'nme' (did you mean 'name'?); "
        "valid keys are feet, legs, limits, mode, motor, name",
        f"{path}: name: field required",
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


# What YAML can do and a configuration must not


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("name: a\nmode: walk\nname: b\n", "line 3: the key 'name' is there twice; keep one"),
        ("legs:\n  left: {gain: 1}\n  left: {gain: 2}\n",
         "line 3: the key 'left' is there twice; keep one"),
        ("motor: {gain: 1, gain: 1}\n", "line 1: the key 'gain' is there twice; keep one"),
        ("name: &a spot\n",
         "line 1: anchors and aliases (& and *) are not read; write the value out"),
        ("legs:\n  <<: {left: {}}\n",
         "line 2: a key must be a text; put it in quotes, or delete it"),
        ("legs: {1: {}}\n", "line 1: a key must be a text; put it in quotes, or delete it"),
        ("? [a, b]\n: 1\n", "line 1: a key must be a text; put it in quotes, or delete it"),
        ("name: !!int 5\n", "line 1: tags (!) are not read; write a plain value"),
        ("name: !!int five\n", "line 1: tags (!) are not read; write a plain value"),
    ],
)  # fmt: skip
def test_yaml_that_means_more_than_it_shows_is_refused(path: Path, text: str, problem: str):
    assert refusal(path, text) == f"{path}: {problem}"


def test_bomb_of_aliases_is_refused_unexploded(path: Path):
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 10)]

    assert "line 1: anchors and aliases" in refusal(path, "\n".join(lines))


@pytest.mark.timeout(20)
@pytest.mark.parametrize(
    "text",
    ["[" * 100_000, "- " * 100_000, "{a: " * 50_000, "? " * 100_000,
     "\n".join(f"{' ' * depth}a:" for depth in range(500))],
    ids=["lists", "dashes", "mappings", "keys", "indents"],
)  # fmt: skip
def test_deep_nesting_is_refused_and_not_descended_into(path: Path, text: str):
    assert f"nested deeper than {MAX_DEPTH} levels" in refusal(path, text)


def test_deep_nesting_of_an_override_is_refused(path: Path):
    assert "nested deeper than" in refusal(path, None, f"legs={'[' * 5000}")
    assert "nested deeper than" in refusal(path, None, f"{'legs.' * 5000}gain=1")


def test_thirty_two_levels_are_read_and_no_more(path: Path):
    lists = ("[" * 31 + "]" * 31, "[" * 32 + "]" * 32)  # in the mapping, which is a level too
    assert refusal(path, f"name: {lists[0]}").startswith(f"{path}: name: input should be")
    assert "line 1: nested deeper than 32 levels" in refusal(path, f"name: {lists[1]}")


def test_thirty_two_levels_of_plain_data_are_validated_and_no_more():
    document: list = []
    for _ in range(31):
        document = [document]
    with pytest.raises(ConfigError, match=r"^here: name: input should be a valid string"):
        validate({"name": document}, Robot, source="here")
    with pytest.raises(ConfigError, match=r"^here: name(\.0)+: nested deeper than 32 levels$"):
        validate({"name": [document]}, Robot, source="here")


def test_long_value_is_cut_where_nobody_would_read_on(path: Path):
    just_short = "x" * 198  # and two quotes
    assert refusal(path, None, f"mode={just_short}").endswith(f"found '{just_short}'")
    assert refusal(path, None, f"mode={just_short}y").endswith(f"found '{just_short}y…")


@pytest.mark.timeout(20)
def test_huge_file_is_refused_unread(path: Path):
    with path.open("wb") as file:
        file.truncate(10**12)  # of zeros, which take no room on the disk

    assert refusal(path) == f"{path}: is larger than 256 KiB; is it the right file?"


def test_file_of_the_largest_size_is_read(path: Path):
    path.write_text("name: spot\n".ljust(MAX_BYTES, "#"))

    assert load_yaml(path, Robot).name == "spot"


def test_folder_is_no_file(tmp_path: Path):
    assert refusal(tmp_path) == f"{tmp_path}: cannot be read: Is a directory"


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("feet: true", "feet: input should be a valid integer, found True"),
        ("feet: '4'", "feet: input should be a valid integer, found '4'"),
        ("feet: 4.0", "feet: input should be a valid integer, found 4.0"),
        ("feet: 010", "feet: input should be a valid integer, found '010'"),  # 8 in YAML 1.1
        ("feet: 1:30", "feet: input should be a valid integer, found '1:30'"),  # 90 in YAML 1.1
        (f"feet: {'9' * 5000}",
         f"feet: input should be a valid integer, found '{'9' * 199}…"),
        ("motor: {gain: on}", "motor.gain: input should be a valid number, found True"),
        ("motor: {enabled: 1}", "motor.enabled: input should be a valid boolean, found 1"),
        ("motor: {gain: 1e999}", "motor.gain: input should be a finite number, found inf"),
        ("limits: [no, 1]", "limits.0: input should be a valid number, found False"),
        ("legs: {left: {enabled: 'no'}}",
         "legs.left.enabled: input should be a valid boolean, found 'no'"),
        ("mode: no", "mode: input should be 'walk' or 'stand', found False"),
        ("limits: 2020-01-31", "limits: input should be a valid array, found '2020-01-31'"),
    ],
)  # fmt: skip
def test_no_value_is_taken_for_one_of_another_type(path: Path, text: str, problem: str):
    assert refusal(path, f"name: spot\n{text}\n") == f"{path}: {problem}"
    assert refusal(path, "name: spot\n", text.replace(": ", "=", 1)) == f"{path}: {problem}"


@pytest.mark.parametrize("text", ["\\0", "\\x1b[31m", "\\n", "\\ud800", "\\u202e"])
def test_characters_that_cannot_be_printed_are_refused(path: Path, text: str):
    assert refusal(path, f'name: "a{text}"\n').startswith(
        f"{path}: name: has characters that cannot be printed, found 'a\\"
    )
    message = refusal(path, f'name: spot\nlegs: {{"a{text}": {{}}}}\n')
    assert message.startswith(f"{path}: legs.(key): has characters that cannot be printed, found")
    assert message.isprintable()


@pytest.mark.parametrize(
    ("text", "value"),
    [("3e6", 3e6), ("1_000", 1000), ("+.5", 0.5), ("5.", 5), ("0x10", 16), ("-1.5E-3", -0.0015)],
)
def test_numbers_may_be_written_as_people_do(path: Path, text: str, value: float):
    assert load_yaml(path, Robot, [f"limits=[-1e3, {text}]"]).limits == (-1000, value)


def test_data_that_is_not_plain_is_refused():
    with pytest.raises(ConfigError, match=r"^memory: \(top level\): is no plain data: "):
        validate({"name": "spot", "legs": object()}, Robot, source="memory")


def test_no_bytes_cause_anything_but_a_refusal(path: Path):
    generator = random.Random(0)
    seed = b'name: spot\nlimits: [0, 1e-3]\nlegs:\n  "left": {gain: 2, enabled: no}\n'
    characters = b"\x00\t\n &*!|>%@`'\"#,[]{}:?-~<=\\0x1e.\xc3\xff"
    refused = 0
    for _ in range(800):
        data = bytearray(seed)
        for _ in range(generator.randint(1, 5)):
            place = generator.randrange(len(data))
            size = generator.randint(0, 3)
            data[place : place + size] = generator.choices(characters, k=generator.randint(0, 3))
        path.write_bytes(data)
        try:
            load_yaml(path, Robot)
        except ConfigError as error:
            assert str(error).startswith(str(path))
            refused += 1

    assert 200 < refused < 800
