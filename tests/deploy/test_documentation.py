"""The governor's table in deploy/README.md has every limit there is."""

import re
from pathlib import Path

import pytest

from deploy.governor import LimitedBy
from deploy.realtime import LoopConfig
from deploy.safety_config import SafetyConfig
from deploy.state import State

README = (Path(__file__).parents[2] / "deploy/README.md").read_text()
ELSEWHERE = {"move_to_start_s"}
"""No limit."""


@pytest.mark.parametrize("name", sorted(SafetyConfig.model_fields.keys() - ELSEWHERE))
def test_every_limit_is_in_the_table(name: str):
    assert f"`{name}`" in README


def test_every_setting_of_the_loop_is_there_with_its_default():
    rows = dict(re.findall(r"^\| `(\w+)` \| (\S+) \|", README, re.MULTILINE))
    defaults = {name: field.default for name, field in LoopConfig.model_fields.items()}
    shown = {name: text.strip("`") for name, text in rows.items()}
    assert shown == {
        name: f"{default:g}" if isinstance(default, float) else str(default).lower()
        for name, default in defaults.items()
    }


def test_every_state_and_every_reason_is_named():
    for name in [state.name for state in State] + [str(flag.name) for flag in LimitedBy]:
        assert name in README
