"""Presets: lists of randomization terms by name, one file each in `configs/randomization/`.

    randomization:
      - {preset: servo_arm}
      - {field: mass, match: hand, operation: add, range: [0, 0.1]}

A preset stands for its terms, in its place; a run's resolved configuration holds the terms.
"""

from collections.abc import Iterator, Sequence
from typing import Annotated, Any

from pydantic import Discriminator, Tag

from deploy.configuration import Section, did_you_mean, load_yaml
from deploy.errors import ConfigError
from envs.randomization import RandomTerm, Term
from envs.randomization.kinds import ONE_KEY, AnyTerm, kind_of
from robotrl.shipped import config_path


class Preset(Section):
    """A line that stands for the terms of a preset."""

    preset: str
    """Name of a file in `configs/randomization/`, without its ending."""


class _PresetFile(Section):
    """What such a file says."""

    randomization: list[Term]
    """The terms."""


def _tag(value: Any) -> str | None:
    is_preset = isinstance(value, Preset) or (isinstance(value, dict) and "preset" in value)
    return "preset" if is_preset else kind_of(value)


Line = Annotated[
    AnyTerm | Annotated[Preset, Tag("preset")],
    Discriminator(
        _tag,
        custom_error_type="no_term",
        custom_error_message=f"{ONE_KEY}; or it is a `preset`",
    ),
]
"""A line of a configuration's `randomization`."""


def expand(lines: Sequence[RandomTerm | Preset]) -> Iterator[RandomTerm]:
    """The terms of lines, those of presets among them.

    Raises:
        ConfigError: there is no such preset.
    """
    for line in lines:
        if isinstance(line, Preset):
            yield from load_preset(line.preset)
        else:
            yield line


def load_preset(name: str) -> list[RandomTerm]:
    """The terms of a preset.

    Raises:
        ConfigError: there is no such preset, or its file is wrong.
    """
    folder = config_path("randomization")
    names = sorted(path.stem for path in folder.glob("*.yaml"))
    if name not in names:
        raise ConfigError(
            f"unknown preset {name!r}{did_you_mean(name, names)}; there are {', '.join(names)}"
        )
    return list(load_yaml(folder / f"{name}.yaml", _PresetFile).randomization)
