"""How long to wait before the next try."""

import random
import time
from collections.abc import Callable


class Backoff:
    """Waits that double from `min_s` to `max_s`, each shortened at random by up to half.

    The jitter keeps a thousand devices that lost the same broker from coming back in the same second.
    """

    def __init__(
        self,
        min_s: float,
        max_s: float,
        clock: Callable[[], float] = time.monotonic,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        self._min_s = min_s
        self._max_s = max_s
        self._clock = clock
        self._jitter = jitter
        self._next_s = min_s
        self._until = clock()

    def fail(self) -> float:
        """Note a failure; returns how long to wait, in seconds."""
        delay = self._next_s * (1 - 0.5 * self._jitter())
        self._next_s = min(self._next_s * 2, self._max_s)
        self._until = self._clock() + delay
        return delay

    def succeed(self) -> None:
        """Note a success: nothing to wait for, and the next failure waits `min_s` again."""
        self._next_s = self._min_s
        self._until = self._clock()

    def remaining_s(self) -> float:
        """How long still to wait; 0 when it may be tried."""
        return max(0.0, self._until - self._clock())
