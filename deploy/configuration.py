"""Strict configuration: YAML in, a frozen validated object or one clear error out.

    config = load_yaml(Path("configs/robots/desk_arm.yaml"), RobotConfig)

Every section is a `Section`: unknown keys are refused with the nearest valid name, values are
converted by type (PyYAML reads `1e-3` as a string), and nothing can be changed afterwards.
Errors name the file, the key, the value found and what was expected.
"""

import difflib
from collections.abc import Iterable
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError, model_validator

from deploy.errors import ConfigError


class Section(BaseModel):
    """Base of every configuration section: strict keys, frozen, documented per field."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, allow_inf_nan=False, use_attribute_docstrings=True
    )

    @model_validator(mode="before")
    @classmethod
    def _refuse_unknown_keys(cls, data: Any) -> Any:
        if isinstance(data, dict):
            for key in data:
                if key not in cls.model_fields:
                    raise ValueError(
                        f"unknown key {key!r}{did_you_mean(key, cls.model_fields)}; "
                        f"valid keys are {', '.join(sorted(cls.model_fields))}"
                    )
        return data


SectionT = TypeVar("SectionT", bound=Section)


def load_yaml(path: Path, section: type[SectionT], overrides: Iterable[str] = ()) -> SectionT:
    """Read and validate a YAML file.

    Args:
        path: the file.
        section: the `Section` subclass the file must satisfy.
        overrides: `dotted.key=value` strings applied on top; values are read as YAML.

    Raises:
        ConfigError: the file is missing, is no YAML mapping, or a value does not fit.
    """
    try:
        document = yaml.safe_load(path.read_text())
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: is not YAML: {error}") from error
    if not isinstance(document, dict):
        found = "nothing" if document is None else type(document).__name__
        raise ConfigError(f"{path}: expected a mapping of keys to values, found {found}")
    for override in overrides:
        _apply(document, override)
    return validate(document, section, source=str(path))


def validate(document: object, section: type[SectionT], *, source: str) -> SectionT:
    """Validate plain data as `section`; `source` is named in every error."""
    try:
        return section.model_validate(document)
    except ValidationError as error:
        raise ConfigError("\n".join(f"{source}: {line}" for line in describe(error))) from error


def describe(error: ValidationError) -> list[str]:
    """One line per problem: `dotted.key: what was expected, found value`."""
    lines = []
    for problem in error.errors():
        key = ".".join(str(part) for part in problem["loc"]) or "(top level)"
        message = problem["msg"].removeprefix("Value error, ")
        message = message[0].lower() + message[1:]
        if problem["type"] in ("value_error", "missing"):
            lines.append(f"{key}: {message}")
        else:
            lines.append(f"{key}: {message}, found {problem['input']!r}")
    return lines


def did_you_mean(name: object, valid: Iterable[str]) -> str:
    """' (did you mean ...?)' with the nearest valid name, or nothing."""
    close = difflib.get_close_matches(str(name), list(valid), n=1, cutoff=0.5)
    return f" (did you mean {close[0]!r}?)" if close else ""


def _apply(document: dict[str, Any], override: str) -> None:
    key, separator, text = override.partition("=")
    if not separator or not key:
        raise ConfigError(f"override {override!r}: expected key=value, e.g. num_envs=128")
    *parents, leaf = key.split(".")
    for parent in parents:
        if document.get(parent) is None:  # absent, or left empty in the file
            document[parent] = {}
        document = document[parent]
        if not isinstance(document, dict):
            raise ConfigError(f"override {override!r}: {parent!r} is a value, not a section")
    try:
        document[leaf] = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ConfigError(f"override {override!r}: the value is not YAML: {error}") from error
