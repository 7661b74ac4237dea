"""A log of `robotrl run` as arrays, also one that was never finished."""

import json
from dataclasses import dataclass, field
from itertools import takewhile
from pathlib import Path
from typing import Any

import numpy as np
from mcap.records import Channel, Message, Metadata
from mcap.stream_reader import StreamReader
from numpy.typing import NDArray

from deploy.contract import Contract, parse_contract
from deploy.errors import ConfigError
from deploy.recorder import EVENT_TOPIC, TOPIC
from deploy.robot_config import RobotConfig
from deploy.runtime import State

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Log:
    """A run as arrays over its ticks."""

    contract: Contract
    robot: RobotConfig
    ticks: dict[str, NDArray[Any]]
    events: list[dict[str, Any]]
    """Changes of state, in order: `time_s`, `state`, and what there was to say (`text`)."""
    run: dict[str, Any] = field(default_factory=dict)
    """What was run where: port, command line, versions."""
    damage: str = ""
    """Why the file is not complete; empty if it is."""

    @property
    def running(self) -> NDArray[np.bool_]:
        """Ticks in which the policy was in charge."""
        return self.ticks["state"] == State.RUNNING

    @property
    def seconds(self) -> Array:
        """Time of each tick since the policy took over."""
        return self.ticks["time_s"] - self.ticks["time_s"][self.running][0]


def read_log(path: Path) -> Log:
    """Read an MCAP log, also one that was never finished: as far as it goes.

    Raises:
        ConfigError: it cannot be read, or the policy never ran.
    """
    metadata, messages, damage = _read_mcap(path)
    try:
        robot = RobotConfig.model_validate_json(metadata["robot"])
        contract = parse_contract(metadata["contract"], source=str(path))
    except (KeyError, ValueError) as error:
        raise ConfigError(f"{path}: is no log of `robotrl run`: {damage or repr(error)}") from error
    ticks, events = ([json.loads(m.data) for m in messages[t]] for t in (TOPIC, EVENT_TOPIC))
    if missing := messages[TOPIC][-1].sequence + 1 - len(ticks) if ticks else 0:
        damage = "; ".join(filter(None, (damage, f"{missing} ticks are missing in between")))
    log = Log(
        contract,
        robot,
        {name: np.array([tick[name] for tick in ticks]) for name in (ticks or [{}])[0]},
        events,
        json.loads(metadata.get("run", "{}")),
        damage,
    )
    if not ticks or not log.running.any():
        raise ConfigError(
            f"{path}: the policy never ran ({len(ticks)} ticks recorded); {describe_end(log)}"
        )
    return log


def _read_mcap(path: Path) -> tuple[dict[str, str], dict[str, list[Message]], str]:
    """Metadata, messages by topic, and what is wrong with the file; empty if nothing is."""
    metadata: dict[str, str] = {}
    topics: dict[int, str] = {}
    messages: dict[str, list[Message]] = {TOPIC: [], EVENT_TOPIC: []}
    try:
        with path.open("rb") as file:
            for record in StreamReader(file, validate_crcs=True).records:
                match record:
                    case Metadata(name="robotrl"):
                        metadata = record.metadata
                    case Channel():
                        topics[record.id] = record.topic
                    case Message():
                        messages.setdefault(topics[record.channel_id], []).append(record)
                    case _:
                        pass
    except OSError as error:
        others = sorted(path.parent.glob(f"{path.stem}.*.incomplete{path.suffix}"))
        hint = f"; an unfinished log of this name is {others[-1]}" if others else ""
        raise ConfigError(f"{path}: cannot be read: {error.strerror}{hint}") from error
    except Exception as error:  # mcap has several unrelated types for a damaged file
        return metadata, messages, f"the file ends too early or is damaged ({error!r})"
    return metadata, messages, ""


def describe_end(log: Log) -> str:
    """How the run ended, as far as the log says."""
    if not log.events:
        return "the log does not say how it ended"
    state = log.events[-1]["state"]
    last = list(takewhile(lambda event: event["state"] == state, reversed(log.events)))
    words = [event["text"] for event in reversed(last) if event["text"]]
    return "\n".join([f"its last state is {state}", *words])
