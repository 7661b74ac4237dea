"""Strict configuration: YAML in, a frozen validated object or one clear error out.

    config = load_yaml(Path("configs/robots/desk_arm.yaml"), RobotConfig)

Files are plain data, what JSON can say in YAML's clothes (`parse_yaml`): no tags, aliases, merge or
repeated keys, of bounded size and depth. Every section is a `Section`: unknown keys are refused
with the nearest valid name, a value is never converted to another type, and nothing can be changed
afterwards. Errors name the file, the key, the value found and what was expected.
"""

import difflib
import math
import re
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, TypeVar, Union, get_args, get_origin

import yaml
from pydantic import BaseModel, ConfigDict, Tag, ValidationError
from pydantic_core import ErrorDetails, to_json

from deploy.errors import ConfigError, DeployError

MAX_BYTES = 256 * 1024
"""Largest YAML file, a hundred times a real one; PyYAML reads about 180 kB/s."""
MAX_DEPTH = 32
"""Deepest nesting of sections and lists in any document."""


class Section(BaseModel):
    """Base of every configuration section: strict keys, frozen."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


SectionT = TypeVar("SectionT", bound=Section)


def load_yaml(
    path: Path,
    section: type[SectionT],
    overrides: Iterable[str] = (),
    *,
    prepare: Callable[[dict[str, Any]], object] | None = None,
) -> SectionT:
    """Read and validate a YAML file.

    Args:
        path: the file.
        section: the `Section` subclass the file must satisfy.
        overrides: `dotted.key=value` strings applied on top; values are read as YAML.
        prepare: changes what the file says, before the overrides.

    Raises:
        ConfigError: the file is missing, is no YAML mapping, or a value does not fit.
    """
    data = read_bytes(path, MAX_BYTES, ConfigError)
    try:
        text = data.decode()
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: is not YAML: {error}") from error
    document = parse_yaml(text, source=str(path))
    if not isinstance(document, dict):
        found = "nothing" if document is None else type(document).__name__
        raise ConfigError(f"{path}: expected a mapping of keys to values, found {found}")
    if prepare is not None:
        prepare(document)
    for override in overrides:
        _apply(document, override)
    return validate(document, section, source=str(path))


def validate(document: object, section: type[SectionT], *, source: str) -> SectionT:
    """Validate plain data as `section`; `source` is named in every error.

    Values keep their type: a bool or a text is no number, and a whole number is no bool.

    Raises:
        ConfigError: the data is not plain, or does not fit; all problems are listed.
    """
    problems = list(_implausible(document))
    if not problems:
        try:  # by way of JSON, where strict still takes a list for a tuple
            return section.model_validate_json(
                to_json(document, inf_nan_mode="constants"), strict=True
            )
        except ValidationError as error:
            problems = describe(error, section)
        except ValueError as error:
            problems = [f"{_key(())}: is no plain data: {error}"]
    raise ConfigError("\n".join(f"{source}: {problem}" for problem in problems))


def describe(error: ValidationError, section: type[Section]) -> list[str]:
    """One line per problem: `dotted.key: what was expected, found value`; unknown keys first."""
    problems = sorted(error.errors(), key=lambda problem: problem["type"] != "extra_forbidden")
    return [_describe(problem, section) for problem in problems]


def did_you_mean(name: object, valid: Iterable[str]) -> str:
    """' (did you mean ...?)' with the nearest valid name, or nothing."""
    close = difflib.get_close_matches(str(name)[:100], list(valid), n=1, cutoff=0.5)
    return f" (did you mean {close[0]!r}?)" if close else ""


def read_bytes(path: Path, limit: int, error: type[DeployError]) -> bytes:
    """Read a file of at most `limit` bytes, or raise `error`, which names the file."""
    try:
        with path.open("rb") as file:
            data = file.read(limit + 1)
    except OSError as reason:
        raise error(f"{path}: cannot be read: {reason.strerror}") from None
    if len(data) > limit:
        raise error(f"{path}: is larger than {limit // 1024} KiB; is it the right file?")
    return data


def parse_yaml(text: str, *, source: str) -> Any:
    """Read YAML that means what it shows: plain data, each key once, numbers as in YAML 1.2.

    Raises:
        ConfigError: names `source` and, if it can, the line.
    """
    try:
        return yaml.load(text, _PlainLoader)
    except _Refused as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 0
        raise ConfigError(f"{source}: line {line}: {error.problem}") from error
    except (yaml.YAMLError, ValueError) as error:
        raise ConfigError(f"{source}: is not YAML: {error}") from error


class _Refused(yaml.MarkedYAMLError):
    """YAML that we do not take."""


class _PlainLoader(yaml.SafeLoader):
    """See `parse_yaml`."""

    yaml_implicit_resolvers = {}  # PyYAML's would take 1:30 for 90, 010 for 8 and 1e-3 for a text
    _depth = 0

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        event = self.peek_event()
        if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None):
            raise _refused(event, "anchors and aliases (& and *) are not read; write the value out")
        if getattr(event, "tag", None):
            raise _refused(event, "tags (!) are not read; write a plain value")
        if self._depth == MAX_DEPTH:
            raise _refused(event, f"nested deeper than {MAX_DEPTH} levels")
        self._depth += 1
        node = super().compose_node(parent, index)
        self._depth -= 1
        return node

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = set()
        for key, _ in node.value:
            if key.tag != _TEXT or key.value == "<<":
                raise _refused(key, "a key must be a text; put it in quotes, or delete it")
            if key.value in keys:
                raise _refused(key, f"the key {key.value!r} is there twice; keep one")
            keys.add(key.value)
        return super().construct_mapping(node, deep)


_TEXT = "tag:yaml.org,2002:str"
for _tag, _pattern, _first in (
    ("null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    ("bool", r"yes|Yes|YES|no|No|NO|true|True|TRUE|false|False|FALSE|on|On|ON|off|Off|OFF",
     list("yYnNtTfFoO")),
    ("int", r"[-+]?(0|[1-9][0-9_]{0,20}|0x[0-9a-fA-F]{1,16})", list("-+0123456789")),
    ("float", r"[-+]?([0-9][0-9_]*\.[0-9]*|\.[0-9]+)([eE][-+]?[0-9]+)?"
     r"|[-+]?[0-9]+[eE][-+]?[0-9]+|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)",
     list("-+.0123456789")),
):  # fmt: skip
    _PlainLoader.add_implicit_resolver(
        f"tag:yaml.org,2002:{_tag}", re.compile(f"^(?:{_pattern})$"), _first
    )


def _refused(place: Any, problem: str) -> _Refused:
    return _Refused(problem=problem, problem_mark=place.start_mark)


def _implausible(value: object, key: tuple[str, ...] = ()) -> Iterator[str]:
    """What no document may hold, whatever its sections allow; a line per problem."""
    if len(key) > MAX_DEPTH:
        yield f"{_key(key)}: nested deeper than {MAX_DEPTH} levels"
    elif isinstance(value, str) and not value.isprintable():
        yield f"{_key(key)}: has characters that cannot be printed, found {_short(value)}"
    elif isinstance(value, float) and not math.isfinite(value):
        yield f"{_key(key)}: input should be a finite number, found {value}"
    elif isinstance(value, dict):
        for name, item in value.items():
            yield from _implausible(name, (*key, "(key)"))
            yield from _implausible(item, (*key, str(name)))
    elif isinstance(value, list | tuple):
        for row, item in enumerate(value):
            yield from _implausible(item, (*key, str(row)))


def _describe(problem: ErrorDetails, section: type[Section]) -> str:
    location, message = problem["loc"], problem["msg"].removeprefix("Value error, ")
    message = message[0].lower() + message[1:]
    if problem["type"] == "extra_forbidden":
        inner, keys = _follow(section, location[:-1])
        valid = sorted(inner.model_fields)
        name = str(location[-1])
        return (
            f"{_key(keys)}: unknown key {_short(name)}{did_you_mean(name, valid)}; "
            f"valid keys are {', '.join(valid)}"
        )
    _, keys = _follow(section, location)
    if problem["type"] in ("value_error", "missing"):
        return f"{_key(keys)}: {message}"
    return f"{_key(keys)}: {message}, found {_short(problem['input'])}"


def _follow(annotation: Any, location: tuple[int | str, ...]) -> tuple[Any, list[int | str]]:
    """What is at a place in a section, and the keys that lead there, without the tags of unions."""
    keys = []
    for part in location:
        annotation = _certain(annotation)
        if part in (tagged := _tagged(annotation)):
            annotation = tagged[part]
            continue
        keys.append(part)
        if isinstance(annotation, type) and issubclass(annotation, Section):
            annotation = annotation.model_fields[str(part)].annotation
        else:
            annotation = (get_args(annotation) or (None,))[-1]  # of a list or a dict
    return _certain(annotation), keys


def _certain(annotation: Any) -> Any:
    """X of `X | None`."""
    members = [member for member in get_args(annotation) if member is not NoneType]
    optional = get_origin(annotation) in (UnionType, Union) and len(members) == 1
    return members[0] if optional else annotation


def _tagged(annotation: Any) -> dict[Any, Any]:
    """The members of a union whose tags pydantic puts among the keys."""
    if get_origin(annotation) is Annotated:  # of a field itself, pydantic keeps only the union
        annotation = get_args(annotation)[0]
    members = get_args(annotation)
    return {
        tag.tag: get_args(member)[0]
        for member in members
        for tag in getattr(member, "__metadata__", ())
        if isinstance(tag, Tag)
    }


def _key(location: Iterable[int | str]) -> str:
    text = ".".join(str(part) for part in location) or "(top level)"
    return text if text.isprintable() and len(text) <= 200 else _short(text)


def _short(value: object) -> str:
    """A value as it is written, cut where nobody would read on."""
    text = repr(value)
    return text if len(text) <= 200 else f"{text[:200]}…"


def _apply(document: dict[str, Any], override: str) -> None:
    key, separator, text = override.partition("=")
    if not separator or not key:
        raise ConfigError(f"override {override!r}: expected key=value, e.g. num_envs=128")
    *parents, leaf = key.split(".")
    for parent in parents[: MAX_DEPTH + 1]:  # deeper ones are refused with the document
        if document.get(parent) is None:  # absent, or left empty in the file
            document[parent] = {}
        document = document[parent]
        if not isinstance(document, dict):
            raise ConfigError(f"override {override!r}: {parent!r} is a value, not a section")
    document[leaf] = parse_yaml(text, source=f"override {override!r}")
