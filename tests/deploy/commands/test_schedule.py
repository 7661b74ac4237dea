from pathlib import Path

import pytest

from deploy.commands.schedule import schedule
from deploy.contract import CommandSpec
from deploy.errors import ConfigError

TWIST = CommandSpec(
    name="twist",
    elements=["vx", "vy", "yaw"],
    unit=["m/s", "m/s", "rad/s"],
    low=[-0.5, -0.2, -1.0],
    high=[0.5, 0.2, 1.0],
    interval_s=(2.0, 4.0),
)
YAML = """
commands:
  - {at_s: 0.0, command: [0.3, 0.0, 0.1]}
  - {at_s: 2.0, command: {yaw: 0.5}}
"""
CSV = "time_s, vx, vy, yaw\n0.0, 0.3, 0.0, 0.1\n2.0, 0.0, 0.0, 0.5\n"


def written(folder: Path, name: str, text: str) -> Path:
    path = folder / name
    path.write_text(text)
    return path


@pytest.mark.parametrize(("name", "text"), [("walk.yaml", YAML), ("walk.csv", CSV)])
def test_command_holds_from_its_time_until_the_next(tmp_path: Path, name: str, text: str):
    source = schedule(TWIST, written(tmp_path, name, text))
    for time_s, expected in (
        (0.0, [0.3, 0.0, 0.1]),
        (1.999, [0.3, 0.0, 0.1]),
        (2.0, [0.0, 0.0, 0.5]),
        (1e6, [0.0, 0.0, 0.5]),
    ):
        assert source(time_s) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("name", "text", "problem"),
    [
        ("a.yaml", "commands: [{at_s: 1.0, command: [0, 0, 0]}]", "commands must begin at 0 s"),
        ("a.csv", CSV + "2.0,0,0,0\n", "each later than the one before it"),
        ("a.yaml", YAML.replace("yaw", "yawn"),
         "at 2 s: 'yawn' is no element of command 'twist' (did you mean 'yaw'?); it has vx, vy"),
        ("a.yaml", YAML.replace("0.5", "1.5"), "at 2 s: command 'twist' [0.0, 0.0, 1.5] is out"),
        ("a.yaml", "commands: []", "commands"),
        ("a.csv", CSV + "3.0,fast,0,0\n", "line 4: expected numbers below a header such as"),
        ("a.csv", CSV + "3.0,0,0\n", "line 4: expected numbers"),
        ("a.csv", CSV + "3.0,0,0,0,0\n", "line 4: expected numbers"),
        ("a.csv", CSV + "nan,0,0,0\n", "line 4"),
        ("a.csv", "vx,vy,yaw\n0,0,0\n", "line 2: expected numbers"),
        ("a.csv", "", "has no commands"),
    ],
)  # fmt: skip
def test_file_that_is_none_is_refused_with_its_name_and_place(
    tmp_path: Path, name: str, text: str, problem: str
):
    path = written(tmp_path, name, text)
    with pytest.raises(ConfigError) as caught:
        schedule(TWIST, path)
    assert str(path) in str(caught.value)
    assert problem in str(caught.value)
