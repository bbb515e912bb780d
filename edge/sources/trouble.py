"""Something that went wrong lately, and is over when it does not happen again."""

from __future__ import annotations

import time
from collections.abc import Callable

RECENT_S = 300.0  # so long after it happened last it is a present problem


class Trouble:
    """Remembers the last thing that went wrong. May be used from any thread."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._last: tuple[float, str] | None = None  # when, and what

    def note(self, message: str) -> None:
        """It happened now."""
        self._last = (self._clock(), message)

    def message(self) -> str:
        """What it is; empty when nothing happened for RECENT_S."""
        last = self._last
        return last[1] if last is not None and self._clock() - last[0] < RECENT_S else ""
