"""What happened in a rollout, and how it ended."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from inspection.fleet.rollout.documents import parse_document, take


@dataclass(frozen=True)
class Event:
    """Something that happened in a rollout."""

    at: float  # unix time
    stage: str
    what: str  # started, deploying, deployed, passed, rolling-back, …
    details: Mapping[str, Any] = field(default_factory=dict)  # JSON values


@dataclass(frozen=True)
class End:
    """How a rollout ended."""

    at: float  # unix time
    outcome: str  # deployed, unchanged, rolled-back, aborted
    reason: str
    details: Mapping[str, Any] = field(default_factory=dict)  # JSON values


def parse_event(data: bytes, where: str) -> Event:
    """Read an event.

    Raises:
        RolloutError: it cannot be read.
    """
    document = parse_document(data, where)
    return Event(
        take(document, "at", float, where),
        take(document, "stage", str, where),
        take(document, "what", str, where),
        take(document, "details", dict, where),
    )


def parse_end(data: bytes, where: str) -> End:
    """Read the end.

    Raises:
        RolloutError: it cannot be read.
    """
    document = parse_document(data, where)
    return End(
        take(document, "at", float, where),
        take(document, "outcome", str, where),
        take(document, "reason", str, where),
        take(document, "details", dict, where),
    )


def find_event(events: Sequence[Event], stage: str, what: str) -> Event | None:
    """The first such event of a stage."""
    return next((event for event in events if event.stage == stage and event.what == what), None)


def decision(events: Sequence[Event]) -> Event | None:
    """The event that says that the rollout is undone; None while it is not."""
    return next((event for event in events if event.what == "rolling-back"), None)
