"""All kinds of terms: the key that is there tells which one a line of YAML is.

terms = read_terms([{"field": "mass", "range": [0.8, 1.2]}], source="randomization")
"""

from collections.abc import Iterable, Sequence
from typing import Annotated, Any

from pydantic import Discriminator, Tag

from deploy.configuration import did_you_mean, validate
from deploy.errors import ConfigError
from envs.randomization.physics.fields import FieldsTerm, FieldTerm
from envs.randomization.physics.grips import GripTerm
from envs.randomization.physics.inertia import InertiaTerm, PayloadTerm
from envs.randomization.physics.initial import InitialTerm
from envs.randomization.physics.pushes import PushTerm, WrenchTerm
from envs.randomization.physics.supply import SupplyTerm
from envs.randomization.signals.commands import COMMAND_KINDS, CommandHold, CommandQuantization
from envs.randomization.signals.errors import (
    SignalDrift,
    SignalError,
    SignalQuantization,
    SignalRotation,
)
from envs.randomization.signals.kinds import SIGNAL_KINDS, signal_kind
from envs.randomization.signals.timing import SignalDelay, SignalHold
from envs.randomization.term import RandomTerm

AnyTerm = (
    Annotated[FieldTerm, Tag("field")]
    | Annotated[FieldsTerm, Tag("fields")]
    | Annotated[InertiaTerm, Tag("inertia")]
    | Annotated[PayloadTerm, Tag("payload")]
    | Annotated[SupplyTerm, Tag("supply")]
    | Annotated[InitialTerm, Tag("initial")]
    | Annotated[PushTerm, Tag("push")]
    | Annotated[WrenchTerm, Tag("wrench")]
    | Annotated[GripTerm, Tag("grip")]
    | Annotated[SignalDelay, Tag("signal delay")]
    | Annotated[SignalRotation, Tag("signal rotate")]
    | Annotated[SignalError, Tag("signal error")]
    | Annotated[SignalDrift, Tag("signal drift")]
    | Annotated[SignalQuantization, Tag("signal quantize")]
    | Annotated[SignalHold, Tag("signal hold")]
    | Annotated[CommandQuantization, Tag("command quantize")]
    | Annotated[CommandHold, Tag("command hold")]
)
"""Every kind, with the tag that `kind_of` gives it."""

KINDS: dict[str, type[RandomTerm]] = {
    "field": FieldTerm,
    "fields": FieldsTerm,
    "inertia": InertiaTerm,
    "payload": PayloadTerm,
    "supply": SupplyTerm,
    "initial": InitialTerm,
    "push": PushTerm,
    "wrench": WrenchTerm,
    "grip": GripTerm,
    **{f"signal {kind}": term for kind, term in SIGNAL_KINDS.items()},
    **{f"command {kind}": term for kind, term in COMMAND_KINDS.items()},
}
KEYS = list(dict.fromkeys(kind.split()[0] for kind in KINDS))
"""The keys that tell the kind."""
ONE_KEY = f"a term has one of the keys {', '.join(KEYS)}, which tells what it is"


def kind_of(value: Any) -> str | None:
    """Name of the kind of a term or of a mapping; None if it is none."""
    if isinstance(value, RandomTerm):
        return next(name for name, kind in KINDS.items() if type(value) is kind)
    found = [key for key in KEYS if key in value] if isinstance(value, dict) else []
    if len(found) != 1:
        return None
    (key,) = found
    if key == "signal":
        return f"signal {signal_kind(value)}"
    if key == "command":
        kind = f"command {value['command']}"
        return kind if kind in KINDS else "command hold"  # whose message names what there is
    return key


Term = Annotated[
    AnyTerm,
    Discriminator(kind_of, custom_error_type="no_term", custom_error_message=ONE_KEY),
]
"""A term of any kind, as a field of a section."""


def read_terms(values: Iterable[RandomTerm | dict[str, Any]], *, source: str) -> list[RandomTerm]:
    """Terms of what they say in YAML; those that are terms already stay.

    Raises:
        ConfigError: names `source`, the number of the term and what is wrong with it.
    """
    return [
        value if isinstance(value, RandomTerm) else _read(value, f"{source}, term {number}")
        for number, value in enumerate(values, 1)
    ]


def at_full_range(terms: Sequence[RandomTerm]) -> list[RandomTerm]:
    """The same terms without growth: what a finished policy should cope with."""
    return [term.model_copy(update={"schedule": None, "adapt": None}) for term in terms]


def _read(value: dict[str, Any], source: str) -> RandomTerm:
    kind = kind_of(value)
    if kind is None:
        keys = [] if not isinstance(value, dict) or value.keys() & KEYS else list(value)
        near = next((hint for key in keys if (hint := did_you_mean(key, KEYS))), "")
        raise ConfigError(f"{source}: {ONE_KEY}{near}, found {value!r}")
    return validate(value, KINDS[kind], source=source)
