"""When something began, by the wall clock as it is set now."""

import time
from collections.abc import Callable

_JUMP_S = 2.0  # the wall clock was set, and did not only run a little fast


class Since:
    """A moment that follows the wall clock when that is set: a device that starts without a network believes any date.

    Args:
        at: unix seconds, as an earlier program left it; None: it has not begun.
        wall: unix seconds, of a clock that may be set.
        steady: seconds of a clock that nobody sets.
    """

    def __init__(
        self,
        at: float | None = None,
        wall: Callable[[], float] = time.time,
        steady: Callable[[], float] = time.monotonic,
    ) -> None:
        self._at = at
        self._wall = wall
        self._steady = steady
        self._begun_s: float | None = None  # on the steady clock, when it began in this program

    def begin(self) -> None:
        """It begins now, unless it has begun."""
        if self._at is None:
            self._at, self._begun_s = self._wall(), self._steady()

    def value(self) -> float | None:
        """Unix seconds; None while it has not begun."""
        if self._at is not None and self._begun_s is not None:
            at = self._wall() - (self._steady() - self._begun_s)
            if abs(at - self._at) > _JUMP_S:
                self._at = at
        return None if self._at is None else round(self._at, 3)
