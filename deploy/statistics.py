"""What happens on a port, counted."""

from collections.abc import Sequence
from dataclasses import dataclass, field, fields

from deploy.servos.reply_times import ReplyTimes


@dataclass(slots=True)
class Statistics:
    """What happened on a port since it was opened."""

    requests: int = 0
    """Requests sent that expect a reply."""
    crc_errors: int = 0
    """Replies that arrived damaged."""
    timeouts: int = 0
    """Requests whose reply stayed away, in part or as a whole."""
    retried: int = 0
    """Readings of a servo asked for again within a tick."""
    lost: int = 0
    """Readings of a servo that a tick had to do without."""
    late: int = 0
    """Replies that came after their reading had ended: recognised, and not used."""
    implausible: int = 0
    """Sound replies that cannot be true, and were not used."""
    reply_times: ReplyTimes = field(default_factory=ReplyTimes, compare=False)
    """From a request to its complete reply, late ones included."""


def total(parts: Sequence[Statistics]) -> Statistics:
    """All of them together; of one alone, itself."""
    if len(parts) == 1:
        return parts[0]
    whole = Statistics()
    for name in _COUNTERS:
        setattr(whole, name, sum(getattr(part, name) for part in parts))
    for part in parts:
        whole.reply_times.include(part.reply_times)
    return whole


_COUNTERS = tuple(field.name for field in fields(Statistics) if field.compare)
