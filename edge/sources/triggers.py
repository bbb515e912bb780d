"""What says that a part is there: here a clock. See messages.py for messages, gpio.py for an edge on a wire."""

from __future__ import annotations

import secrets
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from edge.sources.trigger_message import TriggerMessage

if TYPE_CHECKING:
    from edge.results import Result


@dataclass(frozen=True)
class Trigger:
    """A part is there."""

    key: str  # unique; the same key is the same inspection
    arrived_s: float  # time.monotonic()
    arrived_at: float  # unix seconds
    promised: bool  # somebody waits for a verdict: no picture is an error; False: then there is no part
    message: TriggerMessage = field(default_factory=TriggerMessage)
    fault: tuple[str, str] | None = None  # (code, message): the trigger cannot be followed


class Triggers(Protocol):
    """A source of triggers; one thread uses it."""

    def wait(self, timeout_s: float) -> Trigger | None:
        """The next trigger, or None when there is none within the timeout."""

    def answer(self, trigger: Trigger, result: Result) -> None:
        """Tell who asked. Returns at once."""

    def problem(self) -> str:
        """What is wrong; empty when nothing is."""

    def counts(self) -> dict[str, int]:
        """What happened so far."""

    def close(self) -> None:
        """Let go."""


class Keys:
    """Keys for triggers that bring none: never the same again, not after a restart either."""

    def __init__(self) -> None:
        self._session, self._number = f"{time.time_ns():x}{secrets.token_hex(3)}", 0

    def next(self) -> str:
        """The next key."""
        self._number += 1
        return f"trigger:{self._session}/{self._number}"


class IntervalTriggers:
    """One in each interval. Intervals that pass while nobody waits are skipped, not made up for."""

    def __init__(self, interval_s: float) -> None:
        self._interval_s = interval_s
        self._next_s = time.monotonic()
        self._keys = Keys()
        self._counts: Counter[str] = Counter()

    def wait(self, timeout_s: float) -> Trigger | None:
        """The next trigger."""
        now = time.monotonic()
        pause_s = self._next_s - now
        if pause_s > 0:
            time.sleep(min(pause_s, max(0.0, timeout_s)))
            if pause_s > timeout_s:
                return None
            now = time.monotonic()
        if self._interval_s:
            late = int((now - self._next_s) / self._interval_s)
            self._counts["intervals_skipped"] += late
            self._next_s += (late + 1) * self._interval_s
        return Trigger(self._keys.next(), now, time.time(), promised=False)

    def answer(self, trigger: Trigger, result: Result) -> None:
        """Nobody asked."""

    def problem(self) -> str:
        """A clock has none."""
        return ""

    def counts(self) -> dict[str, int]:
        """Intervals skipped."""
        return dict(self._counts)

    def close(self) -> None:
        """Nothing to let go of."""
